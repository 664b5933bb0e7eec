//! What is shipped holds no tokio: looked up in the dependency tree itself, for every feature set.

use std::{path::Path, process::Command};

#[test]
fn no_tokio_is_in_the_shipped_tree() {
    for features in
        [&[][..], &["--all-features"], &["--no-default-features", "--features", "async-dns,cli,mdns,store"]]
    {
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
        ("smidge-catchup", "sha2", &["libp2p", "smol", "futures", "rand"]),
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

    // What these leave out is code of ours.
    for feature in ["mdns", "store"] {
        let features = format!("hickory,{feature}");
        assert_eq!(
            dependencies("smidge", &["--no-default-features", "--features", &features]),
            library,
            "{feature}"
        );
    }
}

#[test]
fn every_feature_is_documented_and_says_whether_it_is_a_default() {
    let read =
        |file: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let (manifest, page) = (read("Cargo.toml").parse::<toml::Table>().unwrap(), read("docs/library.md"));
    let features = manifest["features"].as_table().unwrap();
    let defaults = features["default"].as_array().unwrap();
    // `gateway` comes with `cli`; `small` is for cross/build.sh alone.
    let is_default = |name: &str| name == "gateway" || defaults.iter().any(|one| one.as_str() == Some(name));
    for name in features.keys().filter(|name| !["default", "small"].contains(&name.as_str())) {
        let row = format!("| `{name}`{} | ", if is_default(name) { " (default)" } else { "" });
        assert!(page.contains(&row), "docs/library.md has no row {row:?}");
    }
    for default in defaults {
        assert!(features.contains_key(default.as_str().unwrap()), "{default}");
    }
}
