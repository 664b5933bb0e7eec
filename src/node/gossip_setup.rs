//! The gossip engine, set up as the config says. Nothing runs yet when this is done.

use std::time::{Duration, UNIX_EPOCH};

use libp2p::{PeerId, identity::Keypair};

use super::{SpawnError, topics::MAX_TOPIC};
use crate::{
    config::{self, Config, MessageIds},
    gossip::{
        self, Authenticity, Author, Behaviour, IdScheme, MeshParams, PeerScoreParams, PeerScoreThresholds,
        Validation,
    },
    runtime::{self, Handle},
};

/// How long peers wait before they take us back after we left a topic, and we them: a restarted node, or a reader
/// that returns, is back within seconds and must not be punished for it.
const BACKOFF: Duration = Duration::from_secs(1);
/// From the start to the first heartbeat.
const FIRST_HEARTBEAT: Duration = Duration::from_millis(100);
/// What other implementations say in one frame at most: 5000 ids of 71 bytes, each with two of its own.
const FOREIGN_FRAME: usize = 384 << 10;
/// Bytes of a subscription beside its topic: tags, lengths and flags.
const SUBSCRIPTION: usize = 16;
/// IHAVE frames of one peer that are heeded between two heartbeats: others announce each topic in one of its own.
const ANNOUNCEMENTS: usize = 10;

/// The largest frame that is read: all the topics that a peer may follow fit, and what other implementations
/// announce in one frame.
fn max_frame(config: &Config) -> usize {
    FOREIGN_FRAME.max(config.limits.topics * (MAX_TOPIC + SUBSCRIPTION))
}

/// What a remembered id costs (`SeenSet`).
const SEEN_ID: usize = 20;

/// A signed message has at least so many bytes.
const SMALLEST: usize = 96;

/// What a topic costs beside its name.
const TOPIC_STATE: usize = 512;
const MIB: usize = 1 << 20;

/// Bounds of what the engine holds: as configured, or as shares of `limits.memory`, together some three eighths of it.
/// What is more than anybody needs is nobody's share.
fn bound(config: &Config, engine: &mut gossip::Config) {
    let (settings, memory) = (&config.gossip, config.limits.memory);
    let or = |set: usize, part: usize, most: usize| if set == 0 { (memory / part).min(most) } else { set };
    engine.duplicate_cache_ids = or(settings.seen_ids, 16 * SEEN_ID, MIB);
    engine.history_bytes = or(settings.history, 32, 8 * MIB);
    engine.queue_bytes = or(settings.queue, 64, MIB);
    engine.all_queues_bytes = or(settings.queues, 8, 64 * MIB);
    engine.unverified_bytes = or(settings.unverified, 32, 8 * MIB);
    // The loop judges a message as soon as it hears of it.
    engine.awaiting_verdict_bytes = engine.unverified_bytes;
    let topics = or(settings.foreign_topics, 32, 8 * MIB) / 2;
    engine.max_topics = (topics / TOPIC_STATE).max(config.limits.topics);
    engine.max_topic_bytes_per_peer = config.limits.topics * MAX_TOPIC;
    engine.max_topic_bytes = topics.max(engine.max_topic_bytes_per_peer);
    engine.partial_frames_bytes = or(0, 16, 64 * MIB);
    // A frame full of the smallest is within the quarter that one peer has.
    engine.unverified = 4 * (engine.max_frame() / SMALLEST);
    engine.unverified_per_peer = engine.unverified;
}

/// The engine's configuration.
pub(crate) fn engine(config: &Config) -> gossip::Config {
    let (settings, topics) = (&config.gossip, config.limits.topics);
    let mut engine = gossip::Config::default();
    engine.mesh = MeshParams {
        n: settings.mesh_n,
        n_low: settings.mesh_n_low,
        n_high: settings.mesh_n_high,
        outbound_min: settings.mesh_outbound_min,
    };
    engine.gossip_lazy = settings.mesh_n;
    engine.heartbeat_interval = settings.heartbeat;
    engine.heartbeat_initial_delay = FIRST_HEARTBEAT;
    engine.unsubscribe_backoff = BACKOFF;
    engine.prune_backoff = BACKOFF;
    engine.graft_flood_threshold = BACKOFF / 2;
    engine.flood_publish = settings.flood_publish;
    engine.floodsub = settings.floodsub;
    engine.max_message = settings.max_message;
    engine.max_frame = max_frame(config);
    engine.max_topics_per_peer = topics;
    engine.max_ihave_per_heartbeat = topics.max(ANNOUNCEMENTS);
    // Nothing is passed on before the loop has judged it.
    engine.validate_messages = true;
    engine.validation = match settings.validation {
        config::Validation::Strict => Validation::Strict,
        config::Validation::Permissive => Validation::Permissive,
    };
    engine.message_id = match settings.message_id {
        MessageIds::Source => IdScheme::Source,
        MessageIds::Content => IdScheme::Content,
    };
    bound(config, &mut engine);
    engine
}

/// The engine of a node with this key.
pub(crate) fn behaviour(config: &Config, key: &Keypair, runtime: &Handle) -> Result<Behaviour, SpawnError> {
    let refused = |e: &dyn std::error::Error| SpawnError::Gossip(e.to_string());
    let since_1970 = runtime::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    let sequence = u64::try_from(since_1970.as_nanos()).unwrap_or_default();
    let author = Author::new(Authenticity::Signed(key.clone()), sequence);
    let mut behaviour =
        Behaviour::with_clock(engine(config), PeerId::from(key.public()), author, runtime::now)
            .map_err(|e| refused(&e))?;
    if config.runtime.threads > 1 {
        let runtime = runtime.clone();
        behaviour.verify_on(move |task| runtime.spawn(task));
    }
    if config.gossip.scoring {
        let params = PeerScoreParams {
            // The account in `blame.rs` has its weights already.
            app_specific_weight: 1.0,
            ip_colocation_factor_threshold: config.gossip.colocated as f64,
            // A peer that takes messages slower than they come loses them, and the publisher is answered so. Punished for it
            // as well, both peers of a small mesh would soon be cut off for a burst of ours.
            slow_peer_weight: 0.0,
            ..PeerScoreParams::default()
        };
        let now = runtime::now();
        let core = behaviour.core_mut();
        core.score_peers(params, PeerScoreThresholds::default(), now).map_err(|e| refused(&e))?;
    }
    Ok(behaviour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_settings_promise_fits_into_a_frame() {
        let mut config = Config::default();
        assert_eq!(engine(&config).max_frame(), FOREIGN_FRAME);
        config.limits.topics = 1 << 20;
        assert_eq!(engine(&config).max_frame(), (1 << 20) * 272);
        config.limits.topics = 1024;
        config.gossip.max_message = 16 << 20;
        assert!(engine(&config).max_frame() > 16 << 20);
        assert!(engine(&config).check().is_ok());
    }

    #[test]
    fn what_gossip_holds_is_a_share_of_the_memory_unless_it_is_said() {
        let mut config = Config::default();
        config.limits.memory = 48 << 20;
        let held = |config: &Config| {
            let engine = engine(config);
            let ids = engine.duplicate_cache_ids * SEEN_ID;
            let waiting = engine.unverified_bytes + engine.awaiting_verdict_bytes;
            let topics = engine.max_topics * TOPIC_STATE + engine.max_topic_bytes;
            let kept = engine.history_bytes + topics + engine.partial_frames_bytes;
            ids + waiting + kept + engine.all_queues_bytes
        };
        assert!(held(&config) <= (48 << 20) * 3 / 8, "{} bytes", held(&config));
        assert_eq!(engine(&config).queue_bytes, 768 << 10);
        (config.gossip.queue, config.gossip.history, config.gossip.seen_ids) = (1 << 20, 2 << 20, 1000);
        let engine = engine(&config);
        let said = (engine.queue_bytes, engine.history_bytes, engine.duplicate_cache_ids);
        assert_eq!(said, (1 << 20, 2 << 20, 1000));
    }
}
