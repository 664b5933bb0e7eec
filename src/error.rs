//! Errors as they are printed: what they say, with their causes, and what to do about the system's.

use std::{error::Error, io};

use rustix::io::Errno;

/// An error and its causes on one line, as a log or a verb prints it. Every error of ours is printed by this: its own
/// message never repeats its source's. Those of dependencies may end with it, and it is left out then.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

/// The operating system's error code, where that is the cause.
pub(crate) fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            if let Some(code) = io.raw_os_error() {
                return Some(Errno::from_raw_os_error(code));
            }
            // Its `source` passes over what it wraps.
            if let Some(wrapped) = io.get_ref() {
                next = Some(wrapped);
                continue;
            }
        }
        next = error.source();
    }
    None
}

/// What to do about an error of the operating system that recurs until it is dealt with; empty for others.
pub(crate) fn remedy(error: &(dyn Error + 'static)) -> &'static str {
    match errno(error) {
        Some(Errno::MFILE) => {
            "; raise the process's limit of open files (ulimit -n, LimitNOFILE=, --ulimit nofile=)"
        }
        Some(Errno::NFILE) => "; the whole host has no file descriptor left (fs.file-max)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("above")]
    struct Above(#[source] io::Error);

    /// A message as some dependencies have it.
    #[derive(Debug, thiserror::Error)]
    #[error("above: {0}")]
    struct Twice(#[source] io::Error);

    #[test]
    fn a_cause_is_printed_once_whether_or_not_the_message_above_ends_with_it() {
        let cause = || io::Error::other("no room");
        assert_eq!(chain(&Above(cause())), "above: no room");
        assert_eq!(chain(&Twice(cause())), "above: no room");
        assert_eq!(chain(&Above(io::Error::other(Twice(cause())))), "above: above: no room");
        // What merely occurs in the message is another thing.
        assert_eq!(chain(&Above(io::Error::other("bo"))), "above: bo");
    }

    #[test]
    fn the_systems_error_is_found_under_whatever_wraps_it() {
        let raw = || io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        let wrapped = io::Error::other(Above(io::Error::other(Above(raw()))));
        for error in [raw(), wrapped] {
            assert_eq!(errno(&error), Some(Errno::MFILE));
            assert!(remedy(&error).contains("limit of open files"));
        }
        assert_eq!(errno(&Above(io::Error::other("words"))), None);
    }
}
