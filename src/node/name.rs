//! What nodes call themselves, for people: never trusted for anything, since anybody may call itself anything.
//!
//! A name travels in identify's agent version, `smidge/0.2.0 (kitchen)`, which every peer is sent anyway, and which
//! programs that know nothing of names show as it is. Pure: text in, text out.

use std::sync::Arc;

use crate::{
    config::{MAX_NAME, may_be_in_name},
    text::steers,
};

/// Longest agent version kept, in characters: it comes from the network.
const MAX_AGENT: usize = 64;

/// How a node of this name introduces itself.
pub(crate) fn agent(own: &str, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{own} ({name})"),
        None => own.to_owned(),
    }
}

/// What a peer said of itself, cut to what can be shown: its program, and its name if it is a smidge node that has one.
pub(crate) fn introduced(agent: &str) -> (String, Option<Arc<str>>) {
    let own = agent.strip_prefix("smidge/").and_then(|rest| rest.strip_suffix(')'));
    let (program, name) = match own.and_then(|rest| rest.split_once(" (")) {
        Some((version, name)) => (&agent[.."smidge/".len() + version.len()], shown(name)),
        None => (agent, None),
    };
    (program.chars().filter(|c| !steers(*c)).take(MAX_AGENT).collect(), name)
}

/// As much of a name as may be shown.
fn shown(name: &str) -> Option<Arc<str>> {
    let mut shown = String::new();
    for c in name.chars().filter(|c| may_be_in_name(*c)) {
        if shown.len() + c.len_utf8() > MAX_NAME {
            break;
        }
        shown.push(c);
    }
    (!shown.is_empty()).then(|| shown.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(agent: &str) -> (String, Option<String>) {
        let (program, name) = introduced(agent);
        (program, name.map(|name| name.to_string()))
    }

    #[test]
    fn a_name_is_told_and_read_and_programs_without_one_keep_their_words() {
        let own = "smidge/0.2.0";
        assert_eq!(agent(own, None), own);
        assert_eq!(both(own), (own.into(), None));
        for name in ["kitchen", "p2p_peer.3", "smidge-0", "küche", "a@b+c"] {
            assert_eq!(both(&agent(own, Some(name))), (own.into(), Some(name.into())));
        }
        for other in
            ["go-ipfs/0.30 (kitchen)", "js-libp2p/2.0 UserAgent=Mozilla/5.0 (X11)", "smidge", "", "smidge/"]
        {
            assert_eq!(both(other), (other.into(), None));
        }
    }

    #[test]
    fn what_strangers_call_themselves_is_bounded_and_steers_nothing() {
        let (program, name) = both(&format!("smidge/9\u{1b}[2J ({})", "é".repeat(5000)));
        assert_eq!((program.as_str(), name.unwrap().len()), ("smidge/9[2J", MAX_NAME));
        let (_, name) = both("smidge/9 (a\u{202e} b\n(c)\u{9b}\u{feff} connected to d)");
        assert_eq!(name.as_deref(), Some("abcconnectedtod"));
        for nothing in ["smidge/9 ()", "smidge/9 (\u{202e} )"] {
            assert_eq!(both(nothing), ("smidge/9".into(), None));
        }
        assert_eq!(both(&"x".repeat(5000)).0.len(), MAX_AGENT);
    }
}
