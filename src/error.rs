//! Errors in words: what they say, with their causes.

use std::{error::Error, io};

use rustix::io::Errno;

/// An error with the causes that it does not already tell, on one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !words.contains(&text) {
            if !words.is_empty() {
                words.push_str(": ");
            }
            words.push_str(&text);
        }
        source = cause.source();
    }
    words
}

/// What the operating system said, where that is the cause.
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

/// What to do about an error of the operating system that comes back until somebody does; empty for others.
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

    #[test]
    fn the_systems_word_is_found_under_whatever_wraps_it() {
        let raw = || io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        let wrapped = io::Error::other(Above(io::Error::other(Above(raw()))));
        for error in [raw(), wrapped] {
            assert_eq!(errno(&error), Some(Errno::MFILE));
            assert!(remedy(&error).contains("limit of open files"));
        }
        assert_eq!(errno(&Above(io::Error::other("words"))), None);
    }
}
