//! What each source says of each key, lowest first: the file, the environment, `--set`, flags.
//!
//! Says where every value stands and which keys do not exist; never reads a value itself.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use zeroize::Zeroizing;

use super::{Given, KEYS, LoadOptions, Problem, Source, nearest, quoted};
use crate::text::{nearest_within, steers};

/// The largest configuration file read, in bytes.
const LARGEST_FILE: u64 = 1 << 20;

/// The largest file behind a `SMIDGE__…__FILE` variable, in bytes.
const LARGEST_VALUE: u64 = 64 << 10;

/// Syntax errors reported of one file, at most.
const MOST_SYNTAX_ERRORS: usize = 10;

/// What one source says of a key.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) raw: Raw,
    pub(super) at: Source,
    /// The lines of a list's items or of a table's values, where the value is one in a file.
    pub(super) item_lines: Vec<usize>,
}

#[derive(Debug)]
pub(super) enum Raw {
    Toml(toml::Value),
    /// Wiped when it is dropped: it may be a secret.
    Text(Zeroizing<String>),
    /// The items of a flag that may be given more than once.
    Items(Vec<String>),
}

/// All values that were given, and all that could not be read.
#[derive(Debug, Default)]
pub(super) struct Layers {
    pub(super) entries: BTreeMap<&'static str, Vec<Entry>>,
    pub(super) problems: Vec<Problem>,
    /// A file could not be read to its end: what it lacks may stand in the part not read.
    pub(super) file_broken: bool,
}

impl Layers {
    pub(super) fn collect(options: &LoadOptions) -> Self {
        let mut layers = Self::default();
        if let Some(path) = options.file_to_read() {
            layers.file(path);
        }
        layers.environment(&options.env);
        for set in &options.sets {
            layers.set(set);
        }
        for (flag, key, given) in &options.flags {
            let at = Source::Flag { name: (*flag).into() };
            let raw = match given {
                Given::Items(items) => Raw::Items(items.clone()),
                Given::Text(text) => Raw::Text(Zeroizing::new(text.clone())),
            };
            layers.push(key, Entry { raw, at, item_lines: Vec::new() });
        }
        layers
    }

    fn push(&mut self, key: &'static str, entry: Entry) {
        self.entries.entry(key).or_default().push(entry);
    }

    fn problem(
        &mut self,
        at: Source,
        key: Option<&str>,
        problem: impl Into<String>,
        expected: Option<String>,
        hint: Option<String>,
    ) {
        self.problems.push(Problem { at, key: key.map(printable), problem: problem.into(), expected, hint });
    }

    fn file(&mut self, path: &Path) {
        let text = match read_text(path, LARGEST_FILE) {
            Ok(text) => text,
            Err(Unread { line, why, hint }) => {
                self.file_broken = true;
                return self.problem(Source::File { path: path.into(), line }, None, why, None, hint);
            }
        };
        // A byte order mark is no TOML, yet some editors write one.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let (table, errors) = DeTable::parse_recoverable(text);
        let lines = Lines::of(text);
        if !errors.is_empty() {
            self.file_broken = true;
            for error in errors.iter().take(MOST_SYNTAX_ERRORS) {
                let start = error.span().map_or(0, |span| span.start);
                let (line, column) = lines.position(start);
                let why = error.message().lines().collect::<Vec<_>>().join(", ");
                let why = format!("not TOML, at column {column}: {why}");
                self.problem(Source::File { path: path.into(), line: Some(line) }, None, why, None, None);
            }
            return;
        }
        for (name, value) in table.get_ref() {
            let at = |offset: usize| Source::File { path: path.into(), line: Some(lines.line(offset)) };
            let section = name.get_ref().as_ref();
            let key = find(section);
            match (value.get_ref(), key) {
                (DeValue::Table(keys), None) if is_section(section) => {
                    for (name, value) in keys {
                        let full = format!("{section}.{}", name.get_ref());
                        match find(&full) {
                            Some(key) => self.file_value(key, value, &lines, path),
                            None => self.unknown(at(name.span().start), &full, "key"),
                        }
                    }
                }
                (_, None) if is_section(section) => {
                    let expected = Some(format!("a table: a line [{section}], and its keys below"));
                    let found = "is a section, not a key";
                    self.problem(at(value.span().start), Some(section), found, expected, None);
                }
                (_, Some(key)) => self.file_value(key, value, &lines, path),
                (DeValue::Table(_), None) => self.unknown(at(name.span().start), section, "section"),
                (_, None) => self.unknown(at(name.span().start), section, "key"),
            }
        }
    }

    fn file_value(
        &mut self,
        key: &'static str,
        value: &toml::Spanned<DeValue<'_>>,
        lines: &Lines<'_>,
        path: &Path,
    ) {
        let line = lines.line(value.span().start);
        let item_lines = match value.get_ref() {
            DeValue::Array(items) => items.iter().map(|item| lines.line(item.span().start)).collect(),
            DeValue::Table(table) => leaves(table).map(|at| lines.line(at)).collect(),
            _ => Vec::new(),
        };
        let at = Source::File { path: path.into(), line: Some(line) };
        let deserializer = toml::de::ValueDeserializer::from(value.clone());
        match toml::Value::deserialize(deserializer) {
            Ok(value) => self.push(key, Entry { raw: Raw::Toml(value), at, item_lines }),
            Err(error) => {
                let why = error.message().lines().collect::<Vec<_>>().join(", ");
                self.problem(at, Some(key), why, None, None);
            }
        }
    }

    fn environment(&mut self, variables: &[(OsString, OsString)]) {
        for (name, value) in variables {
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix("SMIDGE__")) else { continue };
            let name = name.to_string_lossy().into_owned();
            let rest = rest.to_ascii_lowercase();
            let (key, in_file) = match rest.strip_suffix("__file") {
                Some(key) => (key.replace("__", "."), true),
                None => (rest.replace("__", "."), false),
            };
            let Some(key) = find(&key) else {
                let hint = nearest_key(&key).map(|key| format!("did you mean {}?", variable(key)));
                self.problem(Source::Env { name }, None, "unknown key", None, hint);
                continue;
            };
            let both = variable(key) + "__FILE";
            if !in_file && variables.iter().any(|(other, _)| *other == *both) {
                let hint = Some(format!("unset {name} or {both}"));
                self.problem(Source::Env { name }, Some(key), format!("{both} is set, too"), None, hint);
                continue;
            }
            match variable_text(&name, value, in_file) {
                Ok((text, at)) => {
                    self.push(key, Entry { raw: Raw::Text(text), at, item_lines: Vec::new() });
                }
                Err((at, Unread { why, hint, .. })) => self.problem(at, Some(key), why, None, hint),
            }
        }
        // RUST_LOG is older than all of this, and wins over every other word on levels.
        let level = variables.iter().find(|(name, value)| name == "RUST_LOG" && !value.is_empty());
        if let Some((_, value)) = level {
            let at = Source::Env { name: "RUST_LOG".into() };
            match value.to_str() {
                Some(text) => {
                    let raw = Raw::Text(Zeroizing::new(text.into()));
                    self.push("log.level", Entry { raw, at, item_lines: Vec::new() });
                }
                None => self.problem(at, Some("log.level"), "is not UTF-8", None, None),
            }
        }
    }

    fn set(&mut self, set: &str) {
        let Some((key, value)) = set.split_once('=') else {
            let expected = Some("KEY=VALUE, for instance --set kad.replication=3".into());
            return self.problem(Source::Set, None, format!("no \"=\" in {}", quoted(set)), expected, None);
        };
        match find(key.trim()) {
            Some(key) => {
                let raw = Raw::Text(Zeroizing::new(value.into()));
                self.push(key, Entry { raw, at: Source::Set, item_lines: Vec::new() });
            }
            None if is_section(key.trim()) => {
                let expected = Some(format!("a key of it, for instance {}", first_of(key.trim())));
                self.problem(Source::Set, Some(key.trim()), "is a section, not a key", expected, None);
            }
            None => self.unknown(Source::Set, key.trim(), "key"),
        }
    }

    fn unknown(&mut self, at: Source, name: &str, what: &str) {
        let near = match what {
            "section" => nearest(name, sections()).map(|near| format!("did you mean [{near}]?")),
            _ => nearest_key(name).map(|near| format!("did you mean {near}?")),
        };
        self.problem(at, Some(name), format!("unknown {what}"), None, near);
    }
}

/// Where the values of a table begin, depth first: those of the tables in it in their places; a table
/// without values counts as one.
fn leaves<'a>(table: &'a DeTable<'_>) -> Box<dyn Iterator<Item = usize> + 'a> {
    Box::new(table.iter().flat_map(|(name, value)| match value.get_ref() {
        DeValue::Table(inner) if !inner.is_empty() => leaves(inner),
        _ => Box::new(std::iter::once(name.span().start)),
    }))
}

/// The key of that name.
pub(super) fn find(name: &str) -> Option<&'static str> {
    KEYS.iter().map(|key| key.name).find(|key| *key == name)
}

fn sections() -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(|key| key.name.split_once('.')).map(|(section, _)| section)
}

fn is_section(name: &str) -> bool {
    sections().any(|section| section == name)
}

fn first_of(section: &str) -> &'static str {
    let mut keys = KEYS.iter().map(|key| key.name);
    // A section without keys cannot be written down.
    keys.find(|key| key.split_once('.').is_some_and(|(s, _)| s == section)).unwrap_or("role")
}

/// The key most like `name`: a slip of the pen in its section, or the right key in a wrong one.
pub(super) fn nearest_key(name: &str) -> Option<&'static str> {
    let leaf = name.rsplit('.').next().unwrap_or(name);
    let section = name.rsplit_once('.').map(|(section, _)| section);
    let mut siblings = KEYS.iter().filter_map(|key| key.name.split_once('.'));
    if let Some(section) = section.and_then(|section| nearest(section, sections())) {
        let leaves = siblings.by_ref().filter(|(s, _)| *s == section).map(|(_, leaf)| leaf);
        // Where the section is right, more of the key may be wrong.
        if let Some(near) = nearest_within(2, leaf, leaves) {
            return find(&format!("{section}.{near}"));
        }
    }
    // In another section, only a leaf long enough to be no chance hit.
    let leaves = KEYS.iter().map(|key| key.name.rsplit('.').next().unwrap_or(key.name));
    let near = nearest(leaf, leaves.filter(|near| near.len() >= 5 || *near == leaf))?;
    KEYS.iter().map(|key| key.name).find(|key| key.rsplit('.').next() == Some(near))
}

/// The environment variable of a key.
pub(super) fn variable(key: &str) -> String {
    format!("SMIDGE__{}", key.replace('.', "__").to_ascii_uppercase())
}

fn variable_text(
    name: &str,
    value: &OsStr,
    in_file: bool,
) -> Result<(Zeroizing<String>, Source), (Source, Unread)> {
    let name = name.to_owned();
    let Some(text) = value.to_str() else {
        return Err((Source::Env { name }, Unread::new("is not UTF-8")));
    };
    if !in_file {
        return Ok((Zeroizing::new(text.to_owned()), Source::Env { name }));
    }
    let at = Source::EnvFile { name, path: text.into() };
    match read_text(Path::new(text), LARGEST_VALUE) {
        Ok(mut text) => {
            // Files made by people and by secret stores end in a line break that is not meant.
            let end = text.trim_end_matches(['\r', '\n']).len();
            text.truncate(end);
            Ok((text, at))
        }
        Err(unread) => Err((at, unread)),
    }
}

/// Why a file gave no text.
struct Unread {
    line: Option<usize>,
    why: String,
    hint: Option<String>,
}

impl Unread {
    fn new(why: impl Into<String>) -> Self {
        Self { line: None, why: why.into(), hint: None }
    }
}

/// The text of a file, which is wiped when it is dropped: it may be, or hold, a secret.
fn read_text(path: &Path, largest: u64) -> Result<Zeroizing<String>, Unread> {
    let unreadable = |error: io::Error| {
        let hint = (error.kind() == io::ErrorKind::NotFound).then(|| "check the path".to_owned());
        Unread { hint, ..Unread::new(format!("cannot be read: {error}")) }
    };
    let metadata = path.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(Unread::new("cannot be read: it is a directory"));
    }
    // Room for all of it from the start: a buffer that grows leaves copies behind.
    let room = usize::try_from(metadata.len().min(largest)).unwrap_or(0) + 64;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let mut file = File::open(path).map_err(unreadable)?.take(largest + 1);
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > largest {
        return Err(Unread::new(format!("is larger than {} KiB", largest >> 10)));
    }
    if let Err(error) = std::str::from_utf8(&bytes) {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count();
        return Err(Unread { line: Some(line), ..Unread::new("is not UTF-8") });
    }
    Ok(Zeroizing::new(String::from_utf8(std::mem::take(&mut *bytes)).unwrap_or_default()))
}

/// `name` fit for an error message: one line, not endless.
fn printable(name: &str) -> String {
    let clean = name.len() <= 80 && !name.contains(steers);
    if clean { name.to_owned() } else { quoted(name) }
}

/// Where the lines of a text begin.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        Self { text, starts: std::iter::once(0).chain(breaks).collect() }
    }

    /// The line of a byte offset, counted from 1.
    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    /// Line and column (in characters) of a byte offset, both counted from 1.
    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let start = self.starts[line - 1];
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count());
        (line, column + 1)
    }
}
