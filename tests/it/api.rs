//! The shipped examples of the HTTP API, run as they are between two nodes.

use std::{path::Path, process::Command};

use crate::support::daemon::{pair, run};

/// Runs an example; what it printed.
fn example(program: &str, name: &str) -> String {
    let (one, two) = pair("t");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    let version = Command::new(program).arg("--version").output();
    assert!(version.is_ok_and(|v| v.status.success() || program == "sh"), "{program} is missing: install it");
    let (code, out, err) = run(Command::new(program).arg(script).args([&one.url, &two.url]));
    assert_eq!(code, 0, "{name}: {out}\n{err}");
    out
}

#[test]
fn curl_publishes_streams_puts_and_gets_through_two_nodes() {
    let curl = Command::new("curl").arg("--version").output();
    assert!(curl.is_ok_and(|curl| curl.status.success()), "curl is missing: install it");
    let out = example("sh", "api.sh");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 5, "{out}");
    assert!(lines[0].starts_with("receipt: {\"id\":\"") && lines[0].contains("\"peers\":1"), "{out}");
    assert!(lines[1].contains("\"data\":\"hello from the shell\""), "{out}");
    assert_eq!(lines[2..4], ["stored: {\"confirmed\":1}", "found: any bytes"], "{out}");
    assert!(lines[4].starts_with("refused: {\"error\":\"this is no peer id\",\"hint\":"), "{out}");
}

#[test]
fn python_publishes_streams_puts_and_gets_through_two_nodes() {
    let out = example("python3", "api.py");
    for line in
        ["'data': 'hello from Python'", "'data': 'AP8A'", "stored: {'confirmed': 1}", "found: 256 bytes"]
    {
        assert!(out.contains(line), "no {line:?} in {out}");
    }
}
