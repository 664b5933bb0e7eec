//! The README's first screen, word for word: three machines of one network, which are network namespaces.

use std::{fs, path::Path, process::Command, time::Instant};

use crate::support::{PATIENCE, hosts::Hosts, process::Process};

/// The commands of the README's first block.
fn commands() -> Vec<String> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let block = readme.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    block.lines().map(|line| line.split('#').next().unwrap().trim().to_owned()).collect()
}

/// A shell on a machine of its own, with `smidge` where programs are and nothing in /var/lib.
fn shell(n: u8, bin: &Path, line: &str) -> Command {
    let mut command = Command::new("ip");
    let machine = "mount -t tmpfs none /var/lib && exec sh -c \"exec $1\"";
    command.args(["netns", "exec", &format!("h{n}"), "unshare", "--mount", "sh", "-c", machine, "sh", line]);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    command.env_clear().env("PATH", path);
    command
}

#[test]
fn three_machines_are_connected_by_three_commands() {
    Hosts::run(|hosts| {
        let bin = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_smidge"), bin.path().join("smidge")).unwrap();
        let commands = commands();
        let [run, subscribe, publish] = &commands[..] else { panic!("the README has three: {commands:?}") };
        let began = Instant::now();
        let nodes: Vec<_> = (1..=3)
            .map(|n| {
                hosts.add(n);
                Process::spawn(&format!("machine {n}"), &mut shell(n, bin.path(), run))
            })
            .collect();
        let ids: Vec<_> = nodes.iter().map(Process::peer_id).collect();
        for (node, own) in nodes.iter().zip(&ids) {
            node.line(&["made a new key, /var/lib/smidge/key"]);
            for other in ids.iter().filter(|id| *id != own) {
                node.line(&["joined mesh home with", other]);
            }
        }
        // Its output is read as a log is.
        let sub = Process::spawn("sub", &mut shell(2, bin.path(), &format!("{subscribe} 1>&2")));
        // What is said before it listens is not for it.
        let mut said = String::new();
        while sub.lines() == 0 {
            assert!(began.elapsed() < PATIENCE, "nothing is heard");
            let output = shell(3, bin.path(), publish).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            said = String::from_utf8(output.stdout).unwrap();
        }
        assert_eq!(sub.line(&[""]), "hello");
        assert!(said.starts_with("published 12D3KooW") && said.ends_with(" to 2 peers\n"), "{said}");
        eprintln!(
            "measured: three machines, from nothing to a message {:.2} s",
            began.elapsed().as_secs_f64()
        );
    });
}
