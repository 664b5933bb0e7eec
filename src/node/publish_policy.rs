//! Whose messages are let through: what the configuration says of authors, decided before a message
//! is forwarded and before the application sees it.
//!
//! Only the author that publishes where it may not is to blame, whichever peer brings the message. A peer that passes it on
//! may have other rules, or none: it loses no score, or honest relays would be cut.

use std::{collections::BTreeMap, fmt};

use libp2p::PeerId;

use super::access::Access;
use crate::config::TopicRules;

/// Why a message is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its author would not be let in.
    AuthorKeptOut,
    /// Its author may not publish on its topic.
    NotAPublisher,
    /// What its author made of it is no bundle.
    BrokenBundle,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AuthorKeptOut => "the rules of [peers] keep its author out",
            Self::BrokenBundle => "it begins like a bundle, and is none of its author's",
            Self::NotAPublisher => "its author is not one of the topic's publishers",
        })
    }
}

/// Whether a message of `author` on `topic` is let through.
///
/// # Errors
/// The message is dropped: which peer is to blame for it, if any, and why.
pub(crate) fn check_author(
    access: &Access,
    topics: &BTreeMap<String, TopicRules>,
    topic: &str,
    author: Option<&PeerId>,
) -> Result<(), (Option<PeerId>, Reason)> {
    if let Some(author) = author
        && access.may_let_in(Some(author), None).is_err()
    {
        return Err((None, Reason::AuthorKeptOut));
    }
    if may_publish(topics, topic, author) {
        return Ok(());
    }
    Err((author.copied(), Reason::NotAPublisher))
}

/// Whether `author` may publish on `topic`.
pub(crate) fn may_publish(
    topics: &BTreeMap<String, TopicRules>,
    topic: &str,
    author: Option<&PeerId>,
) -> bool {
    match topics.get(topic).and_then(|rules| rules.publish.as_ref()) {
        None => true,
        Some(publishers) => author.is_some_and(|author| publishers.contains(author)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Peers;

    #[test]
    fn only_the_author_is_to_blame() {
        let [good, bad] = [(); 2].map(|()| PeerId::random());
        let only = |peer: PeerId| TopicRules { publish: Some([peer].into()), ..TopicRules::default() };
        let topics = BTreeMap::from([("kept".to_owned(), only(good))]);
        let open = Access::default();
        let deny: Peers = Peers { allow: Vec::new(), deny: vec![crate::config::PeerRule::Peer(bad)] };
        let denied = Access::new(&deny);
        let rows = [
            (&open, "kept", Some(&good), Ok(())),
            (&open, "kept", Some(&bad), Err((Some(bad), Reason::NotAPublisher))),
            (&open, "kept", None, Err((None, Reason::NotAPublisher))),
            (&open, "open", Some(&bad), Ok(())),
            (&open, "open", None, Ok(())),
            (&denied, "open", Some(&bad), Err((None, Reason::AuthorKeptOut))),
            (&denied, "open", Some(&good), Ok(())),
        ];
        for (access, topic, author, expected) in rows {
            assert_eq!(check_author(access, &topics, topic, author), expected, "{topic} {author:?}");
        }
    }
}
