//! How large what goes over a gossip stream may be, and how that follows from the settings.
//!
//! Arithmetic only. docs/limits.md has these figures beside those of other implementations.

use crate::config::{Config, MessageIds};

/// Bytes of a frame beside the payload, at most: author, sequence number, signature, a topic of 256 bytes, and
/// the tags and lengths around them, the frame's own included. Ed25519 authors send no key beside their id.
pub(crate) const ENVELOPE: usize = 512;
/// The largest control part of a frame that libp2p-gossipsub reads by default (`max_control_message_size`);
/// above it, the stream is given up.
pub(crate) const STOCK_CONTROL: usize = 16 << 10;
/// What other implementations say in one frame at most: 5000 ids of 71 bytes, each with two of its own.
const FOREIGN_CONTROL: usize = 384 << 10;
/// Bytes of a subscription beside its topic: tags, lengths and flags.
const SUBSCRIPTION: usize = 16;
/// The longest topic name.
const TOPIC: usize = crate::node::topics::MAX_TOPIC;

/// The largest control part of a frame that is read: all the topics that a peer may follow fit, and what other
/// implementations announce in one frame.
pub(crate) fn max_control(config: &Config) -> usize {
    FOREIGN_CONTROL.max(config.limits.topics * (TOPIC + SUBSCRIPTION))
}

/// The largest frame that is read. A larger one is skipped.
pub(crate) fn max_frame(config: &Config) -> usize {
    max_control(config).max(config.gossip.max_message + ENVELOPE)
}

/// Messages announced, or asked for, in one frame: so many that a stock peer takes it.
pub(crate) fn max_ids(config: &Config) -> usize {
    let id = match config.gossip.message_id {
        // The author in base58 and a sequence number of 20 digits at most.
        MessageIds::Source => 52 + 20,
        MessageIds::Content => 20,
    };
    (STOCK_CONTROL - TOPIC - SUBSCRIPTION) / (id + 2)
}

/// What the greeting of a node that follows these topics takes of a frame.
pub(crate) fn greeting<'a>(topics: impl Iterator<Item = &'a String>) -> usize {
    topics.map(|topic| topic.len() + SUBSCRIPTION).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_settings_promise_fits_into_a_frame() {
        let mut config = Config::default();
        assert_eq!(max_frame(&config), FOREIGN_CONTROL);
        assert!(config.gossip.max_message + ENVELOPE <= 65536, "a stock peer reads the largest message");
        config.limits.topics = 1 << 20;
        config.gossip.max_message = 16 << 20;
        assert_eq!(max_control(&config), (1 << 20) * 272);
        assert_eq!(max_frame(&config), (1 << 20) * 272);
        config.limits.topics = 1024;
        assert_eq!(max_frame(&config), (16 << 20) + ENVELOPE);
    }

    #[test]
    fn a_stock_peer_takes_what_is_announced() {
        let mut config = Config::default();
        for (ids, length) in [(MessageIds::Source, 72), (MessageIds::Content, 20)] {
            config.gossip.message_id = ids;
            let announced = max_ids(&config);
            assert!(announced >= 200, "{announced}");
            assert!(announced * (length + 2) + TOPIC + SUBSCRIPTION <= STOCK_CONTROL);
        }
    }
}
