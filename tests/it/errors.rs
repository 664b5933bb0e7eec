//! Every error type keeps its cause as its source, and leaves it to whoever prints the chain (CONTRIBUTING.md): read
//! from the types themselves.

use crate::support::text::{sources, without_tests};

/// A variant of an error, or an error that is a struct.
#[derive(Debug, PartialEq, Eq)]
struct Variant {
    /// What stands within `#[error(…)]`.
    message: String,
    /// Its fields, each with its attributes.
    fields: Vec<String>,
}

/// The index behind the bracket that closes the one at `open`. Brackets in strings count, too: they come in pairs.
fn closing(text: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text[open..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + at + 1;
        }
    }
    panic!("nothing closes {}", &text[open..]);
}

/// `text`, cut at the commas that stand in no bracket.
fn parts(text: &str) -> Vec<String> {
    let (mut found, mut depth) = (vec![String::new()], 0_i32);
    for c in text.chars() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' | '>' => depth -= 1,
            ',' if depth == 0 => {
                found.push(String::new());
                continue;
            }
            _ => {}
        }
        found.last_mut().unwrap().push(c);
    }
    found.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// What `text` has of errors made with thiserror.
fn errors(text: &str) -> Vec<Variant> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for (derived, _) in text.match_indices("thiserror::Error)]") {
        // To the end of the item: its own braces, or the semicolon of a struct that has none.
        let item = &text[derived + "thiserror::Error)]".len()..];
        let kind = item.find("enum ").into_iter().chain(item.find("struct ")).min().unwrap();
        let open = kind + item[kind..].find(['{', '(', ';']).unwrap();
        let item = &item[..if item[open..].starts_with(';') { open } else { closing(item, open) }];
        for (at, _) in item.match_indices("#[error(") {
            let end = closing(item, at + 1);
            let message = item[at + "#[error(".len()..end - 2].to_owned();
            // Up to the next message: what this variant holds.
            let rest = item[end..].split("#[error(").next().unwrap();
            let rest = match rest.find("struct ") {
                Some(at) => &rest[at..],
                None => rest,
            };
            let begins = rest.find(|c: char| c.is_ascii_uppercase()).unwrap_or(rest.len());
            let fields = match rest[begins..].find(['{', '(', ',']).map(|open| begins + open) {
                Some(open) if !rest[open..].starts_with(',') => {
                    parts(&rest[open + 1..closing(rest, open) - 1])
                }
                _ => Vec::new(),
            };
            found.push(Variant { message, fields });
        }
    }
    found
}

/// Whether a type is that of an error.
fn is_error(kind: &str) -> bool {
    let mut names = kind.split(|c: char| !c.is_alphanumeric() && c != '_');
    names.any(|name| name.ends_with("Error") || matches!(name, "NotAdmitted" | "Flaw" | "Failed" | "Elapsed"))
}

/// What is wrong with the errors that are declared in `text`.
fn faults(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for Variant { message, fields } in errors(text) {
        if message == "transparent" {
            continue;
        }
        for (index, field) in fields.iter().enumerate() {
            let plain = field.rsplit(']').next().unwrap().trim().trim_start_matches("pub ");
            let (name, kind) = match plain.split_once(": ") {
                Some((name, kind)) => (name.to_owned(), kind),
                None => (index.to_string(), plain),
            };
            if !is_error(kind) {
                continue;
            }
            if name != "source" && !field.contains("#[source]") && !field.contains("#[from]") {
                wrong.push(format!("{message}: {plain} is no source"));
            }
            if message.contains(&format!("{{{name}}}")) || message.contains(&format!("{{{name}:")) {
                wrong.push(format!("{message}: says its source, {plain}"));
            }
        }
    }
    wrong
}

#[test]
fn every_error_keeps_its_cause_as_its_source_and_does_not_repeat_it() {
    let (mut count, mut wrong) = (0, Vec::new());
    for (path, text) in sources(&["src", "crates"]) {
        let code = without_tests(&text);
        count += errors(code).len();
        wrong.extend(faults(code).into_iter().map(|fault| format!("{path}: {fault}")));
    }
    assert!(count > 110, "these are our errors: {count}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_cause_that_is_dropped_or_said_twice_is_found() {
    let bad =
        |body: &str| faults(&format!("#[derive(Debug, thiserror::Error)]\npub enum E {{\n{body}\n}}\n"));
    for held in [
        "#[error(\"no\")]\nA(#[from] io::Error),",
        "#[error(\"no {at}\")]\nA { at: u8, source: io::Error },\n#[error(\"b\")]\nB,",
        "#[error(transparent)]\nA(io::Error),",
        "#[error(\"{}: no {0}\", x.y())]\nA(String),",
    ] {
        assert_eq!(bad(held), Vec::<String>::new(), "{held}");
    }
    for broken in [
        "#[error(\"no\")]\nA(io::Error),",
        "#[error(\"no: {0}\")]\nA(#[from] io::Error),",
        "#[error(\"no: {source}\")]\nA { at: u8, source: Box<noise::Error> },",
        "#[error(\"no\")]\nA {\n /// That.\n why: Box<dyn std::error::Error + Send> },",
    ] {
        assert_eq!(bad(broken).len(), 1, "{broken}");
    }
    let alone =
        "#[derive(Debug, thiserror::Error)]\n#[error(\"no: {why}\")]\npub struct E { why: TargetError }";
    assert_eq!(faults(alone).len(), 2);
}
