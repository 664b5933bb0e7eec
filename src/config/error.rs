//! What is wrong with a configuration, and where: every problem found, each with its place.
//!
//! Never holds a secret: the layers mask the value of a secret key before they complain of it.

use std::{fmt, path::PathBuf};

use serde::Serialize;

use super::Role;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum Source {
    /// Not set anywhere: the default of the role.
    Default {
        /// The role whose default it is.
        role: Role,
    },
    /// A configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1; none where the whole file is meant.
        line: Option<usize>,
    },
    /// An environment variable.
    Env {
        /// Its name.
        name: String,
    },
    /// A file named by an environment variable that ends in `__FILE`.
    EnvFile {
        /// The variable's name.
        name: String,
        /// The file it names.
        path: PathBuf,
    },
    /// `--set key=value`.
    Set,
    /// A flag of its own, for instance `--dial`.
    Flag {
        /// The flag with its dashes.
        name: String,
    },
}

impl Source {
    /// The line in a file, counted from 1, where there is one.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::File { line, .. } => *line,
            _ => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default { role } => write!(f, "default of role {role}"),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Env { name } => f.write_str(name),
            Self::EnvFile { name, path } => write!(f, "{name} ({})", path.display()),
            Self::Set => f.write_str("--set"),
            Self::Flag { name } => f.write_str(name),
        }
    }
}

/// One thing that is wrong with a configuration.
///
/// Displays as `SOURCE: KEY: PROBLEM; expected EXPECTED`, on one line; the hint stands apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}{}: {problem}{}", Prefixed(": ", key), Prefixed("; expected ", expected))]
pub struct Problem {
    /// Where the value came from.
    pub at: Source,
    /// The key it is about, for instance `gossip.heartbeat`.
    pub key: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What would have been right.
    pub expected: Option<String>,
    /// What to do, for instance the nearest key that exists.
    pub hint: Option<String>,
}

impl Serialize for Problem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Problem", 6)?;
        out.serialize_field("source", &self.at.to_string())?;
        out.serialize_field("line", &self.at.line())?;
        out.serialize_field("key", &self.key)?;
        out.serialize_field("problem", &self.problem)?;
        out.serialize_field("expected", &self.expected)?;
        out.serialize_field("hint", &self.hint)?;
        out.end()
    }
}

/// Displays what is there behind a prefix, and nothing otherwise.
struct Prefixed<'a>(&'static str, &'a Option<String>);

impl fmt::Display for Prefixed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(text) => write!(f, "{}{text}", self.0),
            None => Ok(()),
        }
    }
}

/// A configuration was refused: everything that is wrong with it, in the order of its sources.
///
/// Displays one problem a line, hints on lines of their own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", Lines(problems))]
pub struct ConfigError {
    /// The problems; at least one.
    pub problems: Vec<Problem>,
}

struct Lines<'a>(&'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
            if let Some(hint) = &problem.hint {
                write!(f, "\n  hint: {hint}")?;
            }
        }
        Ok(())
    }
}
