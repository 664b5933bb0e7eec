//! docs/UPSTREAM.md is held against the tree: the versions that it was written for, the tests and files that it names.

use std::{fs, path::Path, process::Command};

/// The tracked files whose names end so.
fn tracked(suffix: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Command::new("git").args(["ls-files"]).current_dir(root).output().expect("this test needs git");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let all = String::from_utf8(out.stdout).unwrap();
    all.lines().filter(|name| name.ends_with(suffix)).map(ToOwned::to_owned).collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn what_we_rely_on_upstream_names_versions_files_and_tests_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let (document, lock) = (read("docs/UPSTREAM.md"), read("Cargo.lock"));
    let sources: String = tracked(".rs").iter().map(|name| read(name)).collect();
    let mut rows = 0;
    for row in document.lines().filter(|line| line.starts_with("| `")) {
        rows += 1;
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [package, _, place, test] = cells[..] else { panic!("four cells: {row}") };
        let (name, version) = (quoted(package)[0], package.rsplit(' ').next().unwrap());
        let locked = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        assert!(lock.contains(&locked), "{name} is not {version} any more: walk through its rows");
        for path in quoted(place).into_iter().filter(|quoted| quoted.contains('/')) {
            assert!(root.join(path).exists(), "{path} is gone: {row}");
        }
        for test in quoted(test) {
            let is_there = if test.contains('/') {
                root.join(test).exists()
            } else {
                sources.contains(&format!("fn {test}("))
            };
            assert!(is_there, "{test} is gone: {row}");
        }
    }
    assert!(rows > 15, "the document's tables are not read: {rows} rows");
}
