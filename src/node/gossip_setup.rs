//! The gossip engine, set up as the config says. Nothing runs yet when this is done.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libp2p::{PeerId, identity::Keypair};

use super::{SpawnError, topics::MAX_TOPIC};
use crate::{
    config::{self, Config, MessageIds},
    gossip::{
        self, Authenticity, Author, Behaviour, IdScheme, MeshParams, PeerScoreParams, PeerScoreThresholds,
        Validation,
    },
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
    engine
}

/// The engine of a node with this key.
pub(crate) fn behaviour(config: &Config, key: &Keypair) -> Result<Behaviour, SpawnError> {
    let refused = |e: &dyn std::error::Error| SpawnError::Gossip(e.to_string());
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let sequence = u64::try_from(since_1970.as_nanos()).unwrap_or_default();
    let author = Author::new(Authenticity::Signed(key.clone()), sequence);
    let mut behaviour =
        Behaviour::new(engine(config), PeerId::from(key.public()), author).map_err(|e| refused(&e))?;
    if config.gossip.scoring {
        let params = PeerScoreParams {
            // The account in `blame.rs` has its weights already.
            app_specific_weight: 1.0,
            ip_colocation_factor_threshold: config.gossip.colocated as f64,
            // Who takes messages slower than they come loses them, and whoever publishes is told. Punished for it
            // as well, both peers of a small mesh would soon be cut off for a burst of ours.
            slow_peer_weight: 0.0,
            ..PeerScoreParams::default()
        };
        let now = std::time::Instant::now();
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
}
