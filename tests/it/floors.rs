//! Each floor of `src/` knows only those below it (ARCHITECTURE.md): read from the imports themselves. What is in
//! `crates/` is guarded by the compiler.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crate::support::text::{sources, without_tests};

/// The rooms of `src/` by floor, highest first.
const FLOORS: &[(u8, &[&str])] = &[
    // Entry points for fuzzing, behind a cfg: above everything they feed.
    (7, &["main", "fuzz"]),
    (6, &["cli"]),
    (5, &["gateway", "mqtt", "lib"]),
    (4, &["node"]),
    (3, &["dialer", "mdns", "catchup"]),
    // Crates, under their names in smidge.
    (2, &["transport", "gossip"]),
    (2, &["dns", "config", "store"]),
    (1, &["runtime", "identity", "logging", "error", "http", "text", "multiaddr"]),
];

fn floor(room: &str) -> u8 {
    let found = FLOORS.iter().find(|(_, rooms)| rooms.contains(&room));
    found.unwrap_or_else(|| panic!("src/{room} is on no floor: give it one in ARCHITECTURE.md and here")).0
}

/// The code without comments and without unit tests.
fn code(text: &str) -> String {
    let lines = without_tests(text).lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The first names behind each `crate::`, also in a group.
fn mentions(code: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with('$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push(name(rest));
            continue;
        };
        let (mut depth, mut begins) = (0, true);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                _ if begins && !c.is_whitespace() => {
                    found.push(name(&group[at..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    found
}

/// The rooms that the library's face takes its names from.
fn reexports(lib: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for statement in code(lib).split("pub use ").skip(1) {
        let statement = statement.split(';').next().unwrap_or_default();
        let Some((room, items)) = statement.split_once("::") else { continue };
        for item in items.trim_matches(['{', '}', ' ', '\n']).split(',') {
            names.insert(item.trim().to_owned(), room.trim().to_owned());
        }
    }
    names
}

/// The rooms that each room knows, without itself.
fn knowledge() -> BTreeMap<String, BTreeSet<(String, String)>> {
    let files = sources(&["src"]);
    assert!(files.len() > 50, "these are our sources");
    let (_, lib) = files.iter().find(|(path, _)| path == "src/lib.rs").unwrap();
    let faces = reexports(lib);
    let mut known: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (file, text) in &files {
        let path = Path::new(file).strip_prefix("src").unwrap();
        let is_test = path
            .components()
            .any(|c| matches!(c.as_os_str().to_str(), Some("tests" | "tests.rs" | "fuzz.rs")))
            || path.starts_with("dns/contract");
        if is_test && path != Path::new("fuzz.rs") {
            continue;
        }
        let room = path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        for name in mentions(&code(text)) {
            let other = faces.get(&name).cloned().unwrap_or(name);
            if other != room && other.starts_with(char::is_lowercase) {
                known.entry(room.clone()).or_default().insert((other, path.display().to_string()));
            }
        }
    }
    known
}

#[test]
fn no_floor_knows_one_above_it_and_rooms_of_one_floor_go_round_in_no_circle() {
    let known = knowledge();
    let mut up = Vec::new();
    for (room, others) in &known {
        for (other, file) in others.iter().filter(|(other, _)| floor(other) > floor(room)) {
            up.push(format!("src/{file}: {room} (floor {}) knows {other} ({})", floor(room), floor(other)));
        }
    }
    assert!(up.is_empty(), "{}", up.join("\n"));
    assert!(known["node"].iter().any(|(other, _)| other == "config"), "imports are seen: {known:?}");

    // A circle without an arrow up has all its rooms on one floor.
    let beside = |room: &str| -> Vec<String> {
        let others = known.get(room).into_iter().flatten().map(|(other, _)| other.clone());
        others.filter(|other| floor(other) == floor(room)).collect()
    };
    for room in known.keys() {
        let (mut seen, mut next) = (BTreeSet::new(), beside(room));
        while let Some(other) = next.pop() {
            assert_ne!(&other, room, "{room} comes back to itself through {seen:?}");
            if seen.insert(other.clone()) {
                next.extend(beside(&other));
            }
        }
    }
}

#[test]
fn names_in_groups_are_found() {
    let code =
        "use crate::{\n    Config,\n    dns::{self, Resolve},\n    node::x,\n};\nlet a = crate::cli::b();";
    assert_eq!(mentions(code), ["Config", "dns", "node", "cli"]);
}
