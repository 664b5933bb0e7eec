//! Where a backend is tried: name servers, hosts file and `resolv.conf`, and what came back.

#![expect(clippy::print_stdout, reason = "what came back is shown when a test fails, or with --nocapture")]

use std::{
    cell::RefCell,
    env, fs,
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    process::Command,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::{
    dns::{Backend, Config, Family, Found, LookupError, NameServer, Resolve, resolver},
    runtime::{Executor, Handle},
};

/// A part of the contract, by name.
pub(super) type Case = (&'static str, fn(&Harness));

/// Names the sandbox's directory to the process inside.
const SANDBOX: &str = "SMIDGE_TEST_DNS_SANDBOX";
/// Longer than anything here takes unless it hangs.
const HANGS: Duration = Duration::from_secs(30);

/// How long a server is waited for where an answer is expected, on however busy a machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a server is waited for where silence is expected.
pub(super) const IMPATIENCE: Duration = Duration::from_millis(250);

/// A backend with its surroundings.
pub(super) struct Harness {
    runtime: Handle,
    backend: Backend,
    dir: Dir,
    config: RefCell<Config>,
    /// Made for `config` when it is first used: later changes of files are for it to notice.
    resolver: RefCell<Option<Arc<dyn Resolve>>>,
}

enum Dir {
    /// Files of our own; servers on ports of their own are configured.
    Own(tempfile::TempDir),
    /// The files are mounted over those of the system, and servers are on port 53.
    System(PathBuf),
}

impl Harness {
    #[cfg_attr(
        not(feature = "hickory"),
        expect(dead_code, reason = "async-dns knows the system's files only")
    )]
    pub(super) fn direct(backend: Backend) -> Self {
        Self::new(backend, Dir::Own(tempfile::tempdir().unwrap()))
    }

    fn new(backend: Backend, dir: Dir) -> Self {
        let runtime = Executor::default().start(2).unwrap();
        let config = Config { timeout: PATIENCE, attempts: 1, backend, ..Config::default() };
        let harness = Self { runtime, backend, dir, config: config.into(), resolver: RefCell::default() };
        if matches!(harness.dir, Dir::Own(_)) {
            harness.change(|config| {
                config.hosts = harness.file("hosts");
                config.resolv_conf = harness.file("resolv.conf");
            });
        }
        harness.hosts("");
        harness
    }

    pub(super) fn backend(&self) -> Backend {
        self.backend
    }

    /// What is expected of this backend, where `the same` stands for what hickory does.
    pub(super) fn by_backend(&self, hickory: &str, async_dns: &str) -> String {
        match self.backend {
            Backend::AsyncDns if async_dns != "the same" => async_dns.into(),
            _ => hickory.into(),
        }
    }

    pub(super) fn server(&self) -> NameServer {
        self.server_on(Ipv4Addr::LOCALHOST.into())
    }

    pub(super) fn two_servers(&self) -> (NameServer, NameServer) {
        (self.server(), self.server_on([127, 0, 0, 2].into()))
    }

    pub(super) fn server_on(&self, ip: IpAddr) -> NameServer {
        let addr = SocketAddr::new(ip, self.port());
        let started = Instant::now();
        loop {
            // In the sandbox the last case's server may still be closing its sockets.
            match NameServer::start(&self.runtime, addr) {
                Ok(server) => return server,
                Err(e) if started.elapsed() > HANGS => panic!("{addr}: {e}"),
                Err(_) => thread::yield_now(),
            }
        }
    }

    /// Stops `server` and returns once its port is closed.
    pub(super) fn stop(&self, server: NameServer) {
        let addr = server.addr();
        drop(server);
        let started = Instant::now();
        while UdpSocket::bind(addr).is_err() {
            assert!(started.elapsed() < HANGS, "{addr} is still bound");
            thread::yield_now();
        }
    }

    /// A UDP server that sends whatever `answer` makes of a question and its sender.
    pub(super) fn raw_server(
        &self,
        mut answer: impl FnMut(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
    ) -> RawServer {
        let addr = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.port());
        let started = Instant::now();
        let socket = loop {
            match UdpSocket::bind(addr) {
                Ok(socket) => break socket,
                Err(e) if started.elapsed() > HANGS => panic!("{addr}: {e}"),
                Err(_) => thread::yield_now(),
            }
        };
        let addr = socket.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok((len @ 1.., client)) = socket.recv_from(&mut buf) {
                for datagram in answer(&buf[..len], client) {
                    // The client may be gone already.
                    let _ = socket.send_to(&datagram, client);
                }
            }
        });
        RawServer { addr, thread: Some(thread) }
    }

    fn port(&self) -> u16 {
        if self.is_on_port_53() { 53 } else { 0 }
    }

    /// Whether servers are where `resolv.conf` says that they are.
    pub(super) fn is_on_port_53(&self) -> bool {
        matches!(self.dir, Dir::System(_))
    }

    fn file(&self, name: &str) -> PathBuf {
        match &self.dir {
            Dir::Own(dir) => dir.path().join(name),
            Dir::System(dir) => dir.join(name),
        }
    }

    pub(super) fn hosts(&self, content: &str) {
        fs::write(self.file("hosts"), content).unwrap();
    }

    /// Takes the hosts file away, if that is possible here.
    pub(super) fn without_hosts(&self) -> bool {
        matches!(self.dir, Dir::Own(_)) && fs::remove_file(self.file("hosts")).is_ok()
    }

    /// Has these servers asked, with `conf` as the rest of `resolv.conf`.
    pub(super) fn configure(&self, servers: &[SocketAddr], conf: &str) {
        let mut content = conf.to_owned();
        if matches!(self.dir, Dir::Own(_)) {
            self.change(|config| config.servers = servers.to_vec());
        } else {
            for server in servers {
                content += &format!("nameserver {}\n", server.ip());
            }
        }
        fs::write(self.file("resolv.conf"), content).unwrap();
    }

    /// Configures no server beside `resolv.conf`; false if it cannot be missing here.
    pub(super) fn resolv_conf(&self, content: Option<&str>) -> bool {
        self.change(|config| config.servers.clear());
        match content {
            Some(content) => fs::write(self.file("resolv.conf"), content).is_ok(),
            None => matches!(self.dir, Dir::Own(_)) && fs::remove_file(self.file("resolv.conf")).is_ok(),
        }
    }

    /// Has a server waited for this long, where silence is what is expected.
    pub(super) fn wait_for(&self, timeout: Duration) {
        self.change(|config| config.timeout = timeout);
    }

    /// Has each server asked up to `attempts` times.
    #[cfg(feature = "hickory")]
    pub(super) fn attempts(&self, attempts: usize) {
        self.change(|config| config.attempts = attempts);
    }

    fn change(&self, change: impl FnOnce(&mut Config)) {
        let mut config = self.config.borrow_mut();
        let before = config.clone();
        change(&mut config);
        if *config != before {
            self.resolver.take();
        }
    }

    pub(super) fn resolve(&self, host: &str, family: Family) -> Result<Vec<IpAddr>, LookupError> {
        self.settle(host, family).map(|found| found.addresses)
    }

    /// What a question came to in the end, and what was left open.
    pub(super) fn settle(&self, host: &str, family: Family) -> Result<Found, LookupError> {
        self.wait(self.resolver().settled(host, family))
    }

    pub(super) fn texts(&self, host: &str) -> Result<Vec<String>, LookupError> {
        self.wait(self.resolver().texts(host))
    }

    pub(super) fn resolver(&self) -> Arc<dyn Resolve> {
        let mut made = self.resolver.borrow_mut();
        made.get_or_insert_with(|| {
            resolver(self.config.borrow().clone(), self.runtime.clone()).expect("a config that works")
        })
        .clone()
    }

    pub(super) fn wait<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        self.runtime.spawn(async move {
            let _ = sender.send(future.await);
        });
        receiver.recv_timeout(HANGS).expect("a question ends")
    }

    /// What came back, in short: the addresses, or the kind of error.
    pub(super) fn outcome(&self, host: &str, family: Family) -> String {
        match self.resolve(host, family) {
            Ok(found) => found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(e) => kind(&e),
        }
    }

    /// Asks, and shows what came back.
    pub(super) fn expect(&self, host: &str, family: Family, expected: &str, case: &str) {
        let started = Instant::now();
        let result = self.resolve(host, family);
        let (outcome, words) = match &result {
            Ok(found) => {
                let found: Vec<_> = found.iter().map(ToString::to_string).collect();
                (found.join(" "), format!("{} addresses", found.len()))
            }
            Err(e) => (kind(e), e.to_string()),
        };
        println!("{case:.60} | {words} | {:?}", started.elapsed());
        assert_eq!(outcome, expected, "{case}: {words}");
    }
}

/// The kind of an error, with its code; `?` where the backend cannot tell.
pub(super) fn kind(error: &LookupError) -> String {
    assert!(!error.to_string().contains('\n'), "one line: {error}");
    match error {
        LookupError::NoSuchName(_) => "NoSuchName".into(),
        LookupError::NoRecords { note: None, .. } => "NoRecords".into(),
        LookupError::NoRecords { note: Some(_), .. } => "NoRecords?".into(),
        LookupError::ServerFailure { code, .. } => format!("ServerFailure {code}"),
        LookupError::TimedOut { .. } => "TimedOut".into(),
        LookupError::Unreachable { .. } => "Unreachable".into(),
        LookupError::BadAnswer { .. } => "BadAnswer".into(),
        LookupError::Unsupported { .. } => "Unsupported".into(),
        LookupError::NoServers { .. } => "NoServers".into(),
        LookupError::BadName { .. } => "BadName".into(),
    }
}

/// A UDP server on a thread; it ends when this is dropped.
pub(super) struct RawServer {
    addr: SocketAddr,
    thread: Option<thread::JoinHandle<()>>,
}

impl RawServer {
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        // An empty datagram is the sign to end.
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.send_to(&[], self.addr).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Runs all `cases` for `backend` in a network and with files of their own.
///
/// Called by the test `name`, which runs again in a process inside the sandbox.
pub(super) fn in_sandbox(name: &str, backend: Backend, cases: &[Case]) {
    if let Some(dir) = env::var_os(SANDBOX) {
        for (case, run) in cases {
            println!("- {case}");
            run(&Harness::new(backend, Dir::System(PathBuf::from(&dir))));
        }
        println!("all {} cases ran in the sandbox", cases.len());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for file in ["hosts", "resolv.conf"] {
        fs::write(dir.path().join(file), "").unwrap();
    }
    let script = format!(
        "set -e; ip link set lo up; \
         mount --bind \"${SANDBOX}/hosts\" /etc/hosts; \
         mount --bind \"${SANDBOX}/resolv.conf\" /etc/resolv.conf; \
         exec \"$0\" --exact \"$1\" --nocapture --test-threads 1"
    );
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let output = unshare
        .args(["--mount", "--net", "--", "sh", "-c", &script])
        .arg(env::current_exe().unwrap())
        .arg(name)
        .env(SANDBOX, dir.path())
        .output()
        .expect("this test needs `unshare` (util-linux), `ip` (iproute2) and `sh`");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}");
    assert!(
        output.status.success() && out.contains(&format!("all {} cases ran in the sandbox", cases.len())),
        "in the sandbox (which needs root or unprivileged user namespaces): {}\n{err}",
        output.status
    );
}
