//! Whose messages are let through: what the configuration says of authors, decided before a message
//! is forwarded and before the application sees it.
//!
//! Only the author who speaks where it may not is to blame. A peer that passes such a message on may
//! have other rules, or none: it loses no score, or honest relays would be cut.

use std::{collections::BTreeMap, fmt};

use libp2p::PeerId;

use super::{Verdict, access::Access};
use crate::config::TopicRules;

/// Why a message is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its author would not be let in.
    AuthorKeptOut,
    /// Its author may not publish on its topic.
    NotAPublisher,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AuthorKeptOut => "the rules of [peers] keep its author out",
            Self::NotAPublisher => "its author is not one of the topic's publishers",
        })
    }
}

/// What to do with a message of `author` on `topic` that `from` handed to us.
///
/// # Errors
/// The message is dropped: what the sender deserves, and why.
pub(crate) fn judge(
    access: &Access,
    topics: &BTreeMap<String, TopicRules>,
    topic: &str,
    author: Option<&PeerId>,
    from: &PeerId,
) -> Result<(), (Verdict, Reason)> {
    if let Some(author) = author
        && access.may_let_in(Some(author), None).is_err()
    {
        return Err((Verdict::Ignore, Reason::AuthorKeptOut));
    }
    if may_publish(topics, topic, author) {
        return Ok(());
    }
    let own_fault = author == Some(from);
    let verdict = if own_fault { Verdict::Reject } else { Verdict::Ignore };
    Err((verdict, Reason::NotAPublisher))
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
    fn only_an_author_s_own_fault_is_rejected() {
        let [good, bad, relay] = [(); 3].map(|()| PeerId::random());
        let only = |peer: PeerId| TopicRules { publish: Some([peer].into()), ..TopicRules::default() };
        let topics = BTreeMap::from([("kept".to_owned(), only(good))]);
        let open = Access::default();
        let deny: Peers = Peers { allow: Vec::new(), deny: vec![crate::config::PeerRule::Peer(bad)] };
        let denied = Access::new(&deny);
        let (ignore, reject) = (Verdict::Ignore, Verdict::Reject);
        let rows = [
            (&open, "kept", Some(&good), &good, Ok(())),
            (&open, "kept", Some(&good), &relay, Ok(())),
            (&open, "kept", Some(&bad), &bad, Err((reject, Reason::NotAPublisher))),
            (&open, "kept", Some(&bad), &relay, Err((ignore, Reason::NotAPublisher))),
            (&open, "kept", None, &relay, Err((ignore, Reason::NotAPublisher))),
            (&open, "open", Some(&bad), &bad, Ok(())),
            (&open, "open", None, &relay, Ok(())),
            (&denied, "open", Some(&bad), &relay, Err((ignore, Reason::AuthorKeptOut))),
            (&denied, "open", Some(&good), &relay, Ok(())),
        ];
        for (access, topic, author, from, expected) in rows {
            assert_eq!(judge(access, &topics, topic, author, from), expected, "{topic} {author:?}");
        }
    }
}
