//! Telling the service manager how the node is: sd_notify(3), without libsystemd.
//!
//! Silent where `$NOTIFY_SOCKET` is not set. Never blocks, and never fails the node: what cannot be used or reached is said
//! once, in the log.

#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::{
    env,
    ffi::OsStr,
    io,
    os::unix::{
        ffi::OsStrExt,
        net::{SocketAddr, UnixDatagram},
    },
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    node::{Client, Status},
    runtime::Handle,
};

/// How often a node that starts is asked whether it listens.
const STARTING: Duration = Duration::from_millis(100);

/// The least time between two pings: each asks the event loop.
const PING_MIN: Duration = Duration::from_millis(10);

/// The service manager, if there is one that wants to know.
#[derive(Clone, Debug, Default)]
pub(super) struct Notify(Option<Arc<Manager>>);

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    /// Found anew by each datagram: the manager may be replaced while the node runs.
    address: SocketAddr,
    /// How often it is to be pinged, if at all.
    ping: Option<Duration>,
    ready: AtomicBool,
    failed: AtomicBool,
}

impl Notify {
    /// The one that the environment names. What is wrong with it is logged.
    pub(super) fn from_env() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self::default();
        };
        let (socket, address) = match open(&name) {
            Ok(opened) => opened,
            Err(e) => {
                log::warn!(target: "smidge", "NOTIFY_SOCKET={}: {e}; the service manager is not notified", name.display());
                return Self::default();
            }
        };
        let usec = env::var_os("WATCHDOG_USEC");
        let ping = ping_interval(usec.as_deref(), env::var_os("WATCHDOG_PID").as_deref(), process::id());
        let ping = ping.unwrap_or_else(|e| {
            log::warn!(target: "smidge", "{e}; the watchdog is not pinged");
            None
        });
        Self(Some(Arc::new(Manager { socket, address, ping, ready: false.into(), failed: false.into() })))
    }

    /// The node listens and answers, until the node has ended: `READY=1`, then the watchdog's pings.
    pub(super) async fn follow(self, client: Client, listens: bool, runtime: Handle) {
        let Some(manager) = &self.0 else { return };
        loop {
            match client.status().await {
                Ok(status) if is_up(listens, &status) => break,
                Ok(_) => runtime.sleep(STARTING).await,
                Err(_) => return,
            }
        }
        manager.ready.store(true, Ordering::Relaxed);
        manager.say("READY=1");
        let Some(interval) = manager.ping else { return };
        let alive = || {
            let client = client.clone();
            async move { client.status().await.ok().map(|status| status.peers) }
        };
        manager.ping(interval, &runtime, alive).await;
    }

    /// The configuration is read again, until [`Self::reloaded`].
    pub(super) fn reloading(&self) {
        // Required beside RELOADING=1 where the unit's type is notify-reload.
        let now = clock_gettime(ClockId::Monotonic);
        self.say_if_ready(&format!(
            "RELOADING=1\nMONOTONIC_USEC={}",
            now.tv_sec * 1_000_000 + now.tv_nsec / 1000
        ));
    }

    /// It was read, whatever came of it.
    pub(super) fn reloaded(&self) {
        self.say_if_ready("READY=1");
    }

    /// The node drains.
    pub(super) fn stopping(&self) {
        if let Some(manager) = &self.0 {
            manager.say("STOPPING=1");
        }
    }

    /// A node that is still starting is not ready because a signal came.
    fn say_if_ready(&self, state: &str) {
        if let Some(manager) = self.0.as_ref().filter(|manager| manager.ready.load(Ordering::Relaxed)) {
            manager.say(state);
        }
    }
}

impl Manager {
    fn say(&self, state: &str) {
        if let Err(e) = self.socket.send_to_addr(state.as_bytes(), &self.address)
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            log::warn!(target: "smidge", "the service manager does not take {state:?}: {e}");
        }
    }

    /// Pings for as long as `alive` answers with how many peers there are: each ping has come through the event loop.
    async fn ping<F>(&self, interval: Duration, runtime: &Handle, alive: impl Fn() -> F)
    where
        F: Future<Output = Option<usize>>,
    {
        while let Some(peers) = alive().await {
            self.say(&format!("WATCHDOG=1\nSTATUS={peers} peers"));
            runtime.sleep(interval).await;
        }
    }
}

/// What is to be listened on is listened on, as `/healthz` has it.
fn is_up(listens: bool, status: &Status) -> bool {
    !listens || !status.listening.is_empty()
}

/// A socket, and the address of what sd_notify(3) lets `$NOTIFY_SOCKET` say: a path, or an abstract name behind an @.
fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::other("neither /PATH nor @NAME")),
    };
    let socket = UnixDatagram::unbound()?;
    // The manager may be slow; the loop may not wait for it.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// Half of the watchdog's time, as sd_watchdog_enabled(3) advises; none where there is none for this process.
fn ping_interval(usec: Option<&OsStr>, pid: Option<&OsStr>, own: u32) -> Result<Option<Duration>, String> {
    let number = |name: &str, text: &OsStr| {
        let number = text.to_str().and_then(|text| text.parse::<u64>().ok()).filter(|&n| n > 0);
        number.ok_or_else(|| format!("{name}={} is not a number above 0", text.display()))
    };
    let Some(usec) = usec else { return Ok(None) };
    let half = Duration::from_micros(number("WATCHDOG_USEC", usec)?) / 2;
    let half = half.max(PING_MIN);
    match pid {
        Some(pid) if number("WATCHDOG_PID", pid)? != u64::from(own) => Ok(None),
        _ => Ok(Some(half)),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::{
        future::{Either, select},
        pin_mut,
    };

    use super::*;
    use crate::runtime::Executor;

    #[test]
    fn the_watchdog_is_pinged_twice_in_its_time_by_the_process_it_is_for() {
        let read = |usec: Option<&'static str>, pid: Option<&'static str>| {
            ping_interval(usec.map(OsStr::new), pid.map(OsStr::new), 7)
        };
        assert_eq!(read(None, None), Ok(None));
        assert_eq!(read(Some("30000000"), None), Ok(Some(Duration::from_secs(15))));
        assert_eq!(read(Some("30000000"), Some("7")), Ok(Some(Duration::from_secs(15))));
        assert_eq!(read(Some("30000000"), Some("8")), Ok(None));
        assert_eq!(read(Some("1"), None), Ok(Some(PING_MIN)), "the loop has other work");
        for bad in ["", "0", "-1", "30s", "99999999999999999999999"] {
            assert_eq!(read(Some(bad), None), Err(format!("WATCHDOG_USEC={bad} is not a number above 0")));
            assert!(read(Some("1"), Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_loop_that_no_longer_answers_is_not_pinged_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let heard = UnixDatagram::bind(&path).unwrap();
        heard.set_nonblocking(true).unwrap();
        let (socket, address) = open(path.as_os_str()).unwrap();
        let manager = Manager { socket, address, ping: None, ready: true.into(), failed: false.into() };
        let run = async |runtime: Handle| {
            let (frozen, asked) = async_channel::bounded(8);
            // It answers twice, and then not even with an error.
            let alive = || {
                let _ = frozen.try_send(());
                let asked = frozen.len();
                async move { if asked > 2 { pending().await } else { Some(asked) } }
            };
            let third = async {
                while asked.len() < 3 {
                    runtime.sleep(Duration::from_millis(1)).await;
                }
                // Time for a ping that ought not to come.
                runtime.sleep(Duration::from_millis(50)).await;
            };
            let ping = manager.ping(Duration::from_millis(1), &runtime, alive);
            pin_mut!(ping, third);
            let ended = select(ping, third).await;
            assert!(matches!(ended, Either::Right(_)), "it waits for an answer");
        };
        Executor::default().block_on(1, run).unwrap();
        let mut said = [0; 64];
        for n in 1..=2 {
            let len = heard.recv(&mut said).unwrap();
            assert_eq!(said[..len], *format!("WATCHDOG=1\nSTATUS={n} peers").as_bytes());
        }
        assert_eq!(heard.recv(&mut said).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        let name = format!("smidge-test-{}", process::id());
        let heard = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let (socket, address) = open(OsStr::new(&format!("@{name}"))).unwrap();
        socket.send_to_addr(b"x", &address).unwrap();
        assert_eq!(heard.recv(&mut [0; 8]).unwrap(), 1);
        for bad in ["vsock:2:1234", "run/notify", &format!("/{}", "x".repeat(200))] {
            assert!(open(OsStr::new(bad)).is_err(), "{bad}");
        }
    }
}
