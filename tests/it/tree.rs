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
