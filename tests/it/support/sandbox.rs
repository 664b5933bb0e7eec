//! Mount and network namespaces of a test's own: the test runs again inside, as a process.
//!
//! Tests with the resolver async-dns need one: it asks the servers of `/etc/resolv.conf` on port 53 and
//! cannot be configured otherwise, so that file, and that port, are the test's there. With hickory those tests
//! just run. Never skips a test: what it needs and cannot have is a failure.

use std::{env, fs, net::SocketAddr, path::Path, process::Command, thread};

/// Set inside.
const INSIDE: &str = "SMIDGE_TEST_SANDBOX";
/// The name server's address inside.
const SERVER: &str = "127.53.0.1";

/// Whether tests need the sandbox.
pub(crate) fn is_needed() -> bool {
    cfg!(not(feature = "hickory"))
}

/// The address for a test's name server: `own`, where the resolver can be configured to ask it.
pub(crate) fn server(own: SocketAddr) -> SocketAddr {
    if is_needed() { format!("{SERVER}:53").parse().unwrap() } else { own }
}

/// Runs `test`, in a sandbox if one is needed.
pub(crate) fn run(test: impl FnOnce()) {
    if !is_needed() {
        return test();
    }
    let prepare = format!(
        "mount --bind \"${INSIDE}/hosts\" /etc/hosts && \
         mount --bind \"${INSIDE}/resolv.conf\" /etc/resolv.conf"
    );
    inside(&prepare, test);
}

/// Runs `test` in namespaces of its own, with loopback up and after the shell has run `prepare`.
pub(crate) fn inside(prepare: &str, test: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        return test();
    }
    let name = thread::current().name().unwrap_or_default().to_owned();
    assert!(
        !name.is_empty() && name != "main",
        "the test's name is its thread's: use more than one test thread"
    );
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("hosts"), "127.0.0.1 localhost\n").unwrap();
    fs::write(dir.path().join("resolv.conf"), format!("nameserver {SERVER}\noptions ndots:0\n")).unwrap();
    let script = format!("set -e; ip link set lo up; {prepare}; exec \"$0\" --exact \"$1\" --nocapture");
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let output = unshare
        .args(["--mount", "--net", "--", "sh", "-c", &script])
        .arg(env::current_exe().unwrap())
        .arg(&name)
        .env(INSIDE, dir.path())
        .output()
        .expect("this test needs `unshare` (util-linux), `ip` (iproute2) and `sh`");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for line in err.lines().filter(|line| line.starts_with("measured: ")) {
        eprintln!("{line}");
    }
    assert!(
        output.status.success() && out.contains("1 passed"),
        "{name} in the sandbox (which needs root or unprivileged user namespaces): {}\n{out}\n{err}",
        output.status
    );
}

/// Runs `test` in this test again, alone in a mount namespace, with a directory on a file system of 1 MiB. `name` is the test's own
/// name with its module.
pub(crate) fn on_a_small_disk(name: &str, test: impl FnOnce(&Path)) {
    const DIRECTORY: &str = "SMIDGE_TEST_SMALL_DISK";
    if let Some(directory) = env::var_os(DIRECTORY) {
        return test(Path::new(&directory));
    }
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "set -e; mount -t tmpfs -o size=1m none \"${DIRECTORY}\"; exec \"$0\" --exact {name} --nocapture"
    );
    let output = unshare
        .args(["--mount", "--", "sh", "-c", &script])
        .arg(env::current_exe().unwrap())
        .env(DIRECTORY, directory.path())
        .output()
        .expect("this test needs `unshare` (util-linux) and `sh`");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}
