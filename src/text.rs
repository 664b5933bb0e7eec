//! What is done with text from outside before it is shown: in error messages, logs and the tables of verbs.

use std::borrow::Cow;

/// The name out of `names` that is most like `given`, if any is like it at all.
pub(crate) fn nearest<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_within(3, given, names)
}

/// As [`nearest`], where one letter out of `letters` may be another.
pub(crate) fn nearest_within<'a>(
    letters: usize,
    given: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let given = given.to_ascii_lowercase().replace('-', "_");
    // What was begun right is near, too: "mesh" is on the way to "mesh_n".
    let begun = |name: &str| given.len() >= 3 && name.starts_with(&given);
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&given, name), name))
        .filter(|&(distance, name)| distance <= 1.max(name.len().min(given.len()) / letters) || begun(name))
        .min()
        .map(|(_, name)| name)
}

/// `text` in quotes, on one line, cut where it grows long: fit for an error message.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut out = String::from("\"");
    for (i, c) in text.chars().enumerate() {
        if i == LONGEST {
            out.push('…');
            break;
        }
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if steers(c) => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Whether a character may do more to a terminal, or to the reading of a line, than stand there: control characters
/// (C0, DEL, C1), separators of lines and paragraphs, marks that turn the reading direction (UAX 9) and that cannot be
/// seen. Joiners, which some scripts need, are none.
pub(crate) fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// `text` on one line, with what [steers] a terminal as escapes.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false, |c, out| out.extend(c.escape_default()))
}

/// `text` with its lines and tabs, and everything else that [steers] a terminal as escapes.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t'), |c, out| out.extend(c.escape_default()))
}

/// A JSON text that says the same, with what [steers] a terminal as escapes. Outside of its strings there is none.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    let layout = |c| matches!(c, '\n' | '\t');
    escaped(text, layout, |c, out| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    })
}

fn escaped(text: &str, keeps: fn(char) -> bool, escape: fn(char, &mut String)) -> Cow<'_, str> {
    let escapes = |c: char| steers(c) && !keeps(c);
    if !text.contains(escapes) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if escapes(c) { escape(c, &mut out) } else { out.push(c) }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that a terminal takes for more than a sign.
    const STEERING: [char; 16] = [
        '\u{1b}',
        '\r',
        '\u{8}',
        '\u{7f}',
        '\u{80}',
        '\u{9b}',
        '\u{9d}',
        '\u{61c}',
        '\u{200f}',
        '\u{2028}',
        '\u{202e}',
        '\u{2066}',
        '\u{2069}',
        '\u{feff}',
        '\u{fff9}',
        '\u{e0041}',
    ];

    #[test]
    fn nothing_that_steers_a_terminal_gets_to_it() {
        for c in STEERING {
            let text = format!("a{c}b");
            for shown in [one_line(&text), lines(&text), json(&text).clone(), quoted(&text).into()] {
                assert!(!shown.contains(steers), "{shown:?}");
            }
        }
        assert_eq!(one_line("a\nb\u{202e}c\u{9b}"), "a\\nb\\u{202e}c\\u{9b}");
        assert_eq!(lines("a\tb\n\u{1b}[2J"), "a\tb\n\\u{1b}[2J");
        let innocent = "é 日本 \u{200d}👩\u{200d}🔬 مرحبا";
        assert!(matches!(one_line(innocent), Cow::Borrowed(same) if same == innocent));
    }

    #[test]
    fn json_says_the_same_without_it() {
        let said: String = STEERING.iter().collect();
        let text = serde_json::json!({ said.clone(): [said, "\n\t\"é"] });
        for written in [text.to_string(), format!("{text:#}\n")] {
            let safe = json(&written);
            assert!(!safe.contains(|c| steers(c) && c != '\n'), "{safe:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), text);
        }
    }
}
