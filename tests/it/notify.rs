//! What a service manager hears of a node: sd_notify(3), at a socket of the test's own.

use std::{
    io,
    os::unix::net::UnixDatagram,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{
    PATIENCE,
    daemon::{run, smidge},
    process::Process,
};

const NODE: [&str; 6] =
    ["run", "--ephemeral", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--api", "127.0.0.1:0"];

fn node(socket: &str, watchdog: &str) -> Process {
    let mut command = smidge(&NODE);
    Process::spawn("the node", command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", watchdog))
}

struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn next(&self) -> String {
        let mut said = [0; 512];
        let len = self.0.recv(&mut said).unwrap_or_else(|e| panic!("the node says no more: {e}"));
        String::from_utf8(said[..len].to_vec()).unwrap()
    }

    /// What is said beside the pings.
    fn next_but_pings(&self) -> String {
        let began = Instant::now();
        loop {
            let said = self.next();
            if !said.starts_with("WATCHDOG=1\n") {
                return said;
            }
            assert!(began.elapsed() < PATIENCE, "pings alone");
        }
    }
}

#[test]
fn a_service_manager_hears_of_a_node_from_its_start_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = Manager::at(&path);
    let mut node = node(path.to_str().unwrap(), "100000");
    assert_eq!(manager.next(), "READY=1", "nothing comes before it");
    // The log may be later than what it tells of.
    let url = node.rest("api listening on ");
    let (code, said, err) = run(&mut smidge(&["health", "--api", &url]));
    assert_eq!((code, said.as_str()), (0, "live\n"), "it listens by then: {err}");
    for _ in 0..3 {
        assert_eq!(manager.next(), "WATCHDOG=1\nSTATUS=0 peers");
    }
    node.signal(Signal::HUP);
    let said = manager.next_but_pings();
    let since = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap_or_else(|| panic!("{said}"));
    assert!(since.parse::<u64>().unwrap() > 0);
    assert_eq!(manager.next_but_pings(), "READY=1");
    node.signal(Signal::TERM);
    assert_eq!(manager.next_but_pings(), "STOPPING=1");
    assert_eq!(node.wait().code(), Some(0));
}

#[test]
fn a_frozen_node_is_silent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = Manager::at(&path);
    let node = node(path.to_str().unwrap(), "100000");
    while manager.next() != "WATCHDOG=1\nSTATUS=0 peers" {}
    node.signal(Signal::STOP);
    // What was sent before it froze is read first.
    manager.0.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let silent = (0..1000).find_map(|_| manager.0.recv(&mut [0; 512]).err());
    node.signal(Signal::CONT);
    assert_eq!(silent.map(|e| e.kind()), Some(io::ErrorKind::WouldBlock));
    manager.0.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(manager.next(), "WATCHDOG=1\nSTATUS=0 peers");
}

#[test]
fn what_cannot_be_notified_is_said_once_and_the_node_runs() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent");
    let refused = "NOTIFY_SOCKET=vsock:2:1: neither /PATH nor @NAME; the service manager is not notified";
    for (socket, watchdog, said) in [
        ("vsock:2:1", "1000", refused),
        (absent.to_str().unwrap(), "1000", "the service manager does not take \"READY=1\": No such file"),
        (
            absent.to_str().unwrap(),
            "soon",
            "WATCHDOG_USEC=soon is not a number above 0; the watchdog is not pinged",
        ),
    ] {
        let mut node = node(socket, watchdog);
        node.line(&["WARN", said]);
        node.signal(Signal::TERM);
        assert_eq!(node.wait().code(), Some(0));
        for said in [said, if watchdog == "soon" { "does not take" } else { said }] {
            node.line(&["WARN", said]);
            assert_eq!(node.count(&[said]), 1);
        }
    }
}
