//! How each type of value is read from TOML or from bare text, and written back.
//!
//! A [`Kind`] refuses what it cannot read and says why; it never looks at other keys.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use zeroize::Zeroizing;

use super::{quoted, units};

/// Why a value was refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// What is wrong with it.
    pub(crate) problem: String,
    /// Which item of a list it was, counted from 0.
    pub(crate) item: Option<usize>,
}

impl Refusal {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), item: None }
    }

    pub(super) fn wrong_type(value: &toml::Value) -> Self {
        Self::new(match value {
            toml::Value::String(text) => format!("found the text {}", quoted(text)),
            toml::Value::Integer(n) => format!("found the number {n}"),
            toml::Value::Float(n) => format!("found the number {n}"),
            toml::Value::Boolean(b) => format!("found {b}"),
            toml::Value::Datetime(_) => "found a date".into(),
            toml::Value::Array(_) => "found a list".into(),
            toml::Value::Table(_) => "found a table".into(),
        })
    }
}

/// A type of value: how it is read and written. Implemented by the type itself, or by a marker
/// where the same Rust type is written in different ways.
pub(crate) trait Kind {
    /// The Rust type of the value.
    type Field: Clone + PartialEq;
    /// Whether the value must never be shown.
    const SECRET: bool = false;

    /// What a right value looks like, fit to stand behind "expected".
    fn expected() -> String;
    /// Reads a TOML value.
    fn from_toml(value: &toml::Value) -> Result<Self::Field, Refusal>;
    /// Reads bare text, as `--set` and the environment give it.
    fn from_text(text: &str) -> Result<Self::Field, Refusal>;
    /// Writes a TOML value that [`from_toml`](Self::from_toml) reads back.
    fn to_toml(field: &Self::Field) -> toml::Value;
}

/// `text` without the quotes of a TOML string, where it has them.
fn unquoted(text: &str) -> String {
    let trimmed = text.trim();
    if trimmed.starts_with(['"', '\''])
        && let Ok(toml::Value::String(inner)) = toml_value(trimmed)
    {
        return inner;
    }
    text.to_owned()
}

/// Reads one TOML value that stands alone.
pub(super) fn toml_value(text: &str) -> Result<toml::Value, String> {
    use serde::Deserialize;
    let value = toml::de::ValueDeserializer::parse(text).map_err(|e| e.message().to_owned())?;
    toml::Value::deserialize(value).map_err(|e| e.message().to_owned())
}

impl Kind for bool {
    type Field = Self;

    fn expected() -> String {
        "true or false".into()
    }

    fn from_toml(value: &toml::Value) -> Result<Self, Refusal> {
        value.as_bool().ok_or_else(|| Refusal::wrong_type(value))
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        match text.trim() {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(Refusal::new(format!("found {}", quoted(other)))),
        }
    }

    fn to_toml(field: &Self) -> toml::Value {
        (*field).into()
    }
}

macro_rules! whole_number {
    ($($number:ty),*) => { $(
        impl Kind for $number {
            type Field = Self;

            fn expected() -> String {
                "a whole number".into()
            }

            fn from_toml(value: &toml::Value) -> Result<Self, Refusal> {
                let number = value.as_integer().ok_or_else(|| Refusal::wrong_type(value))?;
                Self::try_from(number).map_err(|_| Refusal::new(format!("{number} is out of range")))
            }

            fn from_text(text: &str) -> Result<Self, Refusal> {
                let number: i64 = text
                    .trim()
                    .parse()
                    .map_err(|_| Refusal::new(format!("found the text {}", quoted(text))))?;
                Self::from_toml(&number.into())
            }

            fn to_toml(field: &Self) -> toml::Value {
                toml::Value::Integer(i64::try_from(*field).unwrap_or(i64::MAX))
            }
        }
    )* };
}
whole_number!(u8, u16, usize);

impl Kind for f64 {
    type Field = Self;

    fn expected() -> String {
        "a number".into()
    }

    fn from_toml(value: &toml::Value) -> Result<Self, Refusal> {
        match value {
            toml::Value::Float(n) if n.is_finite() => Ok(*n),
            #[allow(clippy::cast_precision_loss, reason = "a parameter of that size is refused or rounded")]
            toml::Value::Integer(n) => Ok(*n as Self),
            _ => Err(Refusal::wrong_type(value)),
        }
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        let finite = text.trim().parse().ok().filter(|n: &Self| n.is_finite());
        finite.ok_or_else(|| Refusal::new(format!("found the text {}", quoted(text))))
    }

    fn to_toml(field: &Self) -> toml::Value {
        (*field).into()
    }
}

impl Kind for NonZeroUsize {
    type Field = Self;

    fn expected() -> String {
        "a whole number, 1 or more".into()
    }

    fn from_toml(value: &toml::Value) -> Result<Self, Refusal> {
        Self::new(usize::from_toml(value)?).ok_or_else(|| Refusal::new("0 is out of range"))
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        Self::new(usize::from_text(text)?).ok_or_else(|| Refusal::new("0 is out of range"))
    }

    fn to_toml(field: &Self) -> toml::Value {
        usize::to_toml(&field.get())
    }
}

/// A size in bytes: "64KiB", or a number of bytes.
pub(crate) enum Size {}

impl Kind for Size {
    type Field = usize;

    fn expected() -> String {
        "a size such as \"64KiB\" or \"64MiB\"".into()
    }

    fn from_toml(value: &toml::Value) -> Result<usize, Refusal> {
        match value {
            toml::Value::Integer(_) => usize::from_toml(value),
            toml::Value::String(text) => Self::from_text(text),
            _ => Err(Refusal::wrong_type(value)),
        }
    }

    fn from_text(text: &str) -> Result<usize, Refusal> {
        let text = unquoted(text);
        units::parse_size(&text).map_err(|why| Refusal::new(format!("{}: {why}", quoted(&text))))
    }

    fn to_toml(field: &usize) -> toml::Value {
        units::format_size(*field).into()
    }
}

impl<K: Kind> Kind for Vec<K> {
    type Field = Vec<K::Field>;

    fn expected() -> String {
        format!("a list, each item {}", K::expected())
    }

    fn from_toml(value: &toml::Value) -> Result<Self::Field, Refusal> {
        let items = value.as_array().ok_or_else(|| Refusal::wrong_type(value))?;
        items.iter().enumerate().map(|(i, item)| K::from_toml(item).map_err(in_list(i))).collect()
    }

    fn from_text(text: &str) -> Result<Self::Field, Refusal> {
        let text = text.trim();
        if text.starts_with('[') {
            match toml_value(text) {
                Ok(list @ toml::Value::Array(_)) => return Self::from_toml(&list),
                // "[::1]:4001" starts with a bracket, too, and is no list.
                _ if !text.starts_with("[\"") && !text.starts_with("['") && text.contains("]:") => {}
                Ok(_) => return Err(Refusal::new("found no list")),
                Err(why) => {
                    return Err(Refusal::new(format!("{} is no TOML list: {why}", quoted(text))));
                }
            }
        }
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let items = text.split(',').enumerate();
        items.map(|(i, item)| K::from_text(item.trim()).map_err(in_list(i))).collect()
    }

    fn to_toml(field: &Self::Field) -> toml::Value {
        toml::Value::Array(field.iter().map(K::to_toml).collect())
    }
}

fn in_list(item: usize) -> impl Fn(Refusal) -> Refusal {
    move |refusal| Refusal { item: Some(item), ..refusal }
}

/// A value that may be absent: written as an empty text then.
impl<K: Kind> Kind for Option<K> {
    type Field = Option<K::Field>;
    const SECRET: bool = K::SECRET;

    fn expected() -> String {
        format!("{} (or \"\" for none)", K::expected())
    }

    fn from_toml(value: &toml::Value) -> Result<Self::Field, Refusal> {
        match value.as_str() {
            Some("") => Ok(None),
            _ => K::from_toml(value).map(Some),
        }
    }

    fn from_text(text: &str) -> Result<Self::Field, Refusal> {
        match text.trim() {
            "" | "\"\"" | "''" => Ok(None),
            _ => K::from_text(text).map(Some),
        }
    }

    fn to_toml(field: &Self::Field) -> toml::Value {
        field.as_ref().map_or_else(|| "".into(), K::to_toml)
    }
}

/// Implements [`Kind`] for a type that is written as a TOML string.
macro_rules! text_kind {
    ($kind:ty as $field:ty, $expected:expr, $parse:expr, $show:expr $(, secret = $secret:literal)?) => {
        impl $crate::config::kind::Kind for $kind {
            type Field = $field;
            $(const SECRET: bool = $secret;)?

            fn expected() -> String {
                $expected.into()
            }

            fn from_toml(value: &toml::Value) -> Result<$field, $crate::config::kind::Refusal> {
                $crate::config::kind::text_from_toml(value, Self::SECRET, $parse)
            }

            fn from_text(text: &str) -> Result<$field, $crate::config::kind::Refusal> {
                $crate::config::kind::text_from_text(text, Self::SECRET, $parse)
            }

            fn to_toml(field: &$field) -> toml::Value {
                let show: fn(&$field) -> String = $show;
                toml::Value::String(show(field))
            }
        }
    };
}
pub(crate) use text_kind;

/// For [`text_kind`]: a TOML string, parsed.
pub(crate) fn text_from_toml<T>(
    value: &toml::Value,
    secret: bool,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, Refusal> {
    match value {
        toml::Value::String(text) => parsed(text, secret, parse),
        _ if secret => Err(Refusal::new("found no text")),
        _ => Err(Refusal::wrong_type(value)),
    }
}

/// For [`text_kind`]: bare or quoted text, parsed.
pub(crate) fn text_from_text<T>(
    text: &str,
    secret: bool,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, Refusal> {
    let text = unquoted(text);
    if secret {
        return parsed(&Zeroizing::new(text), secret, parse);
    }
    parsed(&text, secret, parse)
}

fn parsed<T>(text: &str, secret: bool, parse: fn(&str) -> Result<T, String>) -> Result<T, Refusal> {
    parse(text).map_err(|why| {
        Refusal::new(if secret || why.is_empty() || text.is_empty() {
            if why.is_empty() { format!("found {}", quoted(text)) } else { why }
        } else {
            format!("{}: {why}", quoted(text))
        })
    })
}

/// `Result<T, E>` with the error as text.
pub(crate) fn said<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|e| e.to_string())
}

text_kind!(Duration as Self, "a duration such as \"700ms\", \"1s\" or \"36h\"", units::parse_duration, |d| {
    units::format_duration(*d)
});

text_kind!(
    PathBuf as Self,
    "a path",
    |text| match text {
        "" => Err("an empty path".into()),
        _ if text.contains('\0') => Err("a zero byte cannot stand in a path".into()),
        _ => Ok(text.into()),
    },
    |path| path.display().to_string()
);

/// Free text, taken as it is.
impl Kind for String {
    type Field = Self;

    fn expected() -> String {
        "a text".into()
    }

    fn from_toml(value: &toml::Value) -> Result<Self, Refusal> {
        value.as_str().map(Self::from).ok_or_else(|| Refusal::wrong_type(value))
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        Ok(unquoted(text))
    }

    fn to_toml(field: &Self) -> toml::Value {
        field.as_str().into()
    }
}
