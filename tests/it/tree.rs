//! What is shipped holds no tokio: looked up in the dependency tree itself, for every feature set.

use std::process::Command;

#[test]
fn no_tokio_is_in_the_shipped_tree() {
    for features in [&[][..], &["--all-features"], &["--no-default-features", "--features", "async-dns"]] {
        let tree = |more: &[&str]| {
            let out = Command::new(env!("CARGO"))
                .args([
                    "tree",
                    "--locked",
                    "-p",
                    "smidge",
                    "-e",
                    "normal,build",
                    "--target",
                    "all",
                    "--prefix",
                    "none",
                ])
                .args(features)
                .args(more)
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .output()
                .unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap()
        };
        let crates = tree(&[]);
        assert!(crates.lines().any(|l| l.starts_with("quinn-proto ")), "this is our tree: {crates}");
        for banned in ["tokio", "tokio-util", "hyper", "quinn", "libp2p-quic"] {
            let found = crates.lines().find(|l| l.split(' ').next() == Some(banned));
            assert_eq!(found, None, "{banned} is in the tree with {features:?}");
        }
    }
}

/// The crates that `package` compiles for whoever depends on it.
fn dependencies(package: &str, features: &[&str]) -> Vec<String> {
    let out = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "-p",
            package,
            "-e",
            "normal,build",
            "--target",
            "all",
            "--prefix",
            "none",
        ])
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(Into::into).collect()
}

#[test]
fn a_crate_that_is_useful_alone_brings_nothing_of_the_node() {
    const NODE: [&str; 13] = [
        "smidge",
        "clap",
        "clap_complete",
        "env_logger",
        "hickory-proto",
        "hickory-resolver",
        "httparse",
        "toml",
        "prometheus-client",
        "libp2p-kad",
        "libp2p-gossipsub",
        "serde_json",
        "tokio",
    ];
    for (package, needs, never) in [
        ("smidge-hybrid", "ml-kem", &["libp2p", "smol"][..]),
        ("smidge-runtime", "async-io", &["libp2p", "quinn-proto", "rustls", "serde", "async-std"]),
        ("smidge-transport", "quinn-proto", &["quinn", "libp2p-quic", "async-std"]),
        ("smidge-gossip", "libp2p", &["smidge-transport", "quinn-proto"]),
    ] {
        let crates = dependencies(package, &[]);
        assert!(crates.iter().any(|name| name == needs), "{package} needs {needs}: {crates:?}");
        for banned in NODE.iter().chain(never) {
            assert!(crates.iter().all(|name| name != banned), "{package} brings {banned}");
        }
    }
}

#[test]
fn a_node_and_its_client_come_without_the_command_line_and_the_http_api() {
    let program = dependencies("smidge", &[]);
    let library = dependencies("smidge", &["--no-default-features", "--features", "hickory"]);
    let gateway = dependencies("smidge", &["--no-default-features", "--features", "hickory,gateway"]);
    let has = |crates: &[String], name: &str| crates.iter().any(|one| one == name);
    for (name, in_gateway) in [("clap", false), ("clap_complete", false), ("httparse", true)] {
        assert!(has(&program, name), "{name} is in the program");
        assert_eq!(has(&gateway, name), in_gateway, "{name} with the feature gateway");
        assert!(!has(&library, name), "{name} is in the library");
    }
    assert!(has(&library, "smidge-gossip"), "{library:?}");
    assert!(!has(&program, "libp2p-gossipsub"), "the other side of the conformance tests alone");
}
