//! Comments and names are in the field's terms and in plain English (CONTRIBUTING.md): words that this code once used for
//! something else do not come back.

use crate::support::text::sources;

/// What is not to be found outside of string literals, which operators may search logs for, with what to say instead.
const BANNED: [(&str, &str); 8] = [
    ("told", "`reported`, `notified`, `configured`; for a variable, what it is"),
    ("at once", "`immediately` or `simultaneously`"),
    ("bed", "`harness`"),
    ("nap", "the name of the pause"),
    ("voice", "`schedule`, `announcement`"),
    ("ear", "`receiver`"),
    ("whom", "a sentence about the peer, the caller or the task"),
    ("whomever", "a sentence about the peer, the caller or the task"),
];

/// `text` in lower case, without string and character literals; lines of one comment are joined.
fn outside_of_strings(text: &str) -> String {
    let mut found = String::new();
    for line in text.lines() {
        let line = line.trim_start();
        let comment = line.trim_start_matches(['/', '!']);
        if line.starts_with("//") {
            found.push_str(comment.trim());
            found.push(' ');
            continue;
        }
        found.push('\n');
        let (mut in_string, mut chars) = (false, line.chars().peekable());
        while let Some(c) = chars.next() {
            match c {
                '\\' => drop(chars.next()),
                '"' => in_string = !in_string,
                _ if in_string => {}
                '\'' if chars.peek() == Some(&'"') => drop(chars.next()),
                '/' if chars.peek() == Some(&'/') => {
                    found.extend(chars.by_ref());
                }
                _ => found.push(c),
            }
        }
        found.push('\n');
    }
    found.to_lowercase()
}

/// Whether `word` stands in `text` as a word of its own.
fn has(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

#[test]
fn sources_are_in_plain_english() {
    let mut found = Vec::new();
    let files = sources(&["src", "crates"]);
    assert!(files.len() > 200, "these are our sources: {}", files.len());
    for (path, text) in files {
        let text = outside_of_strings(&text);
        let words = BANNED.iter().filter(|(word, _)| has(&text, word));
        found.extend(words.map(|(word, instead)| format!("{path}: {word:?}; better: {instead}")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_word_is_found_in_comments_and_names_and_not_in_strings() {
    let text =
        "/// Sent at\n/// once.\nlet told = \"whom\"; // a bed\nlet near = '\"'; let c = \"a \\\" nap\";";
    let text = outside_of_strings(text);
    let found: Vec<_> = BANNED.iter().map(|(word, _)| *word).filter(|word| has(&text, word)).collect();
    assert_eq!(found, ["told", "at once", "bed"], "{text}");
}
