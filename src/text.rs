//! What error messages do with words that others wrote.

/// The name out of `names` that is most like `given`, if any is like it at all.
pub(crate) fn nearest<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_ascii_lowercase().replace('-', "_");
    // What was begun right is near, too: "mesh" is on the way to "mesh_n".
    let begun = |name: &str| given.len() >= 3 && name.starts_with(&given);
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&given, name), name))
        .filter(|&(distance, name)| distance <= 1.max(name.len().min(given.len()) / 3) || begun(name))
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
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
