//! How peers are scored (libp2p/specs `pubsub/gossipsub/gossipsub-v1.1.md`, "peer scoring").
//!
//! Names and defaults are those of stock rust-libp2p.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use crate::Topic;

/// How often counters decay where nothing else is said.
const DECAY_INTERVAL: Duration = Duration::from_secs(1);
/// What counts as nothing where nothing else is said.
const DECAY_TO_ZERO: f64 = 0.1;

/// The factor by which something decays to a tenth within `time`, if it does so each second.
pub fn score_parameter_decay(time: Duration) -> f64 {
    score_parameter_decay_with_base(time, DECAY_INTERVAL, DECAY_TO_ZERO)
}

/// The factor by which something decays to `decay_to_zero` within `time`, if it does so each `base`.
pub fn score_parameter_decay_with_base(time: Duration, base: Duration, decay_to_zero: f64) -> f64 {
    decay_to_zero.powf(base.as_secs_f64() / time.as_secs_f64())
}

/// A parameter that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} must be {expected}")]
pub struct ParamError {
    /// Its name.
    pub name: &'static str,
    /// What it can be.
    pub expected: &'static str,
}

fn check(name: &'static str, holds: bool, expected: &'static str) -> Result<(), ParamError> {
    if holds { Ok(()) } else { Err(ParamError { name, expected }) }
}

macro_rules! check {
    ($self:ident: $($name:ident $holds:expr, $expected:literal;)*) => {
        $(check(stringify!($name), $holds($self.$name), $expected)?;)*
    };
}

const NOT_NEGATIVE: fn(f64) -> bool = |value| value >= 0.0 && value.is_finite();
const NOT_POSITIVE: fn(f64) -> bool = |value| value <= 0.0 && value.is_finite();
const POSITIVE: fn(f64) -> bool = |value| value > 0.0 && value.is_finite();
const FRACTION: fn(f64) -> bool = |value| value > 0.0 && value < 1.0;

/// Below which score what happens.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerScoreThresholds {
    /// No gossip to and from the peer. At most 0.
    pub gossip_threshold: f64,
    /// None of our own messages to it by flood publishing or fanout. At most `gossip_threshold`.
    pub publish_threshold: f64,
    /// Nothing it says is looked at. At most `publish_threshold`.
    pub graylist_threshold: f64,
    /// Its peer exchange is not looked at. At least 0, and more than strangers reach.
    pub accept_px_threshold: f64,
    /// As the median of a mesh: better peers are looked for. At least 0.
    pub opportunistic_graft_threshold: f64,
}

impl Default for PeerScoreThresholds {
    fn default() -> Self {
        Self {
            gossip_threshold: -10.0,
            publish_threshold: -50.0,
            graylist_threshold: -80.0,
            accept_px_threshold: 10.0,
            opportunistic_graft_threshold: 20.0,
        }
    }
}

impl PeerScoreThresholds {
    /// Whether they make sense.
    ///
    /// # Errors
    /// The first that does not.
    pub fn validate(&self) -> Result<(), ParamError> {
        check! { self:
            gossip_threshold NOT_POSITIVE, "at most 0";
            publish_threshold |value| NOT_POSITIVE(value) && value <= self.gossip_threshold, "at most gossip_threshold";
            graylist_threshold |value| NOT_POSITIVE(value) && value <= self.publish_threshold, "at most publish_threshold";
            accept_px_threshold NOT_NEGATIVE, "at least 0";
            opportunistic_graft_threshold NOT_NEGATIVE, "at least 0";
        }
        Ok(())
    }
}

/// How peers are scored, topics aside.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerScoreParams {
    /// How they are scored in single topics. What is not here does not count.
    pub topics: HashMap<Topic, TopicScoreParams>,
    /// What all topics together can bring, at most; 0 for no end.
    pub topic_score_cap: f64,
    /// P5: weight of what the application says.
    pub app_specific_weight: f64,
    /// P6: weight of the square of how many peers too many have one address. At most 0.
    pub ip_colocation_factor_weight: f64,
    /// P6: how many peers may have one address. At least 1.
    pub ip_colocation_factor_threshold: f64,
    /// P6: addresses that do not count.
    pub ip_colocation_factor_whitelist: HashSet<IpAddr>,
    /// P7: weight of the square of how much misbehaviour there was beyond the threshold. At most 0.
    pub behaviour_penalty_weight: f64,
    /// P7: how much of it costs nothing.
    pub behaviour_penalty_threshold: f64,
    /// P7: how fast it is forgotten, as a factor.
    pub behaviour_penalty_decay: f64,
    /// How often counters decay. At least a second.
    pub decay_interval: Duration,
    /// Below which a counter is 0.
    pub decay_to_zero: f64,
    /// How long a peer that has gone keeps a score of at most 0.
    pub retain_score: Duration,
    /// Weight of messages that a peer was too slow for. At most 0.
    pub slow_peer_weight: f64,
    /// How many of them cost nothing.
    pub slow_peer_threshold: f64,
    /// How fast they are forgotten, as a factor.
    pub slow_peer_decay: f64,
}

impl Default for PeerScoreParams {
    fn default() -> Self {
        Self {
            topics: HashMap::new(),
            topic_score_cap: 3600.0,
            app_specific_weight: 10.0,
            ip_colocation_factor_weight: -5.0,
            ip_colocation_factor_threshold: 10.0,
            ip_colocation_factor_whitelist: HashSet::new(),
            behaviour_penalty_weight: -10.0,
            behaviour_penalty_threshold: 0.0,
            behaviour_penalty_decay: 0.2,
            decay_interval: DECAY_INTERVAL,
            decay_to_zero: DECAY_TO_ZERO,
            retain_score: Duration::from_secs(3600),
            slow_peer_weight: -0.2,
            slow_peer_threshold: 0.0,
            slow_peer_decay: 0.2,
        }
    }
}

impl PeerScoreParams {
    /// Whether they make sense, those of topics included.
    ///
    /// # Errors
    /// The first that does not.
    pub fn validate(&self) -> Result<(), ParamError> {
        self.topics.values().try_for_each(TopicScoreParams::validate)?;
        let colocation = self.ip_colocation_factor_weight != 0.0;
        let behaviour = self.behaviour_penalty_weight != 0.0;
        let slow = self.slow_peer_weight != 0.0;
        check! { self:
            topic_score_cap NOT_NEGATIVE, "at least 0";
            app_specific_weight f64::is_finite, "a number";
            ip_colocation_factor_weight NOT_POSITIVE, "at most 0";
            ip_colocation_factor_threshold |value| !colocation || value >= 1.0, "at least 1";
            behaviour_penalty_weight NOT_POSITIVE, "at most 0";
            behaviour_penalty_threshold NOT_NEGATIVE, "at least 0";
            behaviour_penalty_decay |value| !behaviour || FRACTION(value), "between 0 and 1";
            decay_interval |value| value >= Duration::from_secs(1), "at least 1s";
            decay_to_zero FRACTION, "between 0 and 1";
            slow_peer_weight NOT_POSITIVE, "at most 0";
            slow_peer_threshold NOT_NEGATIVE, "at least 0";
            slow_peer_decay |value| !slow || FRACTION(value), "between 0 and 1";
        }
        Ok(())
    }
}

/// How peers are scored in one topic.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicScoreParams {
    /// How much the topic counts.
    pub topic_weight: f64,
    /// P1: weight of the time in the mesh. At least 0.
    pub time_in_mesh_weight: f64,
    /// P1: what counts as one.
    pub time_in_mesh_quantum: Duration,
    /// P1: how many count.
    pub time_in_mesh_cap: f64,
    /// P2: weight of messages that the peer was the first to bring. At least 0.
    pub first_message_deliveries_weight: f64,
    /// P2: how fast they are forgotten, as a factor.
    pub first_message_deliveries_decay: f64,
    /// P2: how many count.
    pub first_message_deliveries_cap: f64,
    /// P3: weight of the square of how many messages too few came from a mesh peer. At most 0.
    pub mesh_message_deliveries_weight: f64,
    /// P3: how fast they are forgotten, as a factor.
    pub mesh_message_deliveries_decay: f64,
    /// P3: how many count.
    pub mesh_message_deliveries_cap: f64,
    /// P3: how many there should be.
    pub mesh_message_deliveries_threshold: f64,
    /// P3: how long after the first copy was accepted others still count.
    pub mesh_message_deliveries_window: Duration,
    /// P3: how long a peer is in the mesh before too few cost something.
    pub mesh_message_deliveries_activation: Duration,
    /// P3b: weight of having been taken out of the mesh with too few. At most 0.
    pub mesh_failure_penalty_weight: f64,
    /// P3b: how fast that is forgotten, as a factor.
    pub mesh_failure_penalty_decay: f64,
    /// P4: weight of the square of how many messages were invalid. At most 0.
    pub invalid_message_deliveries_weight: f64,
    /// P4: how fast they are forgotten, as a factor.
    pub invalid_message_deliveries_decay: f64,
}

impl Default for TopicScoreParams {
    fn default() -> Self {
        Self {
            topic_weight: 0.5,
            time_in_mesh_weight: 1.0,
            time_in_mesh_quantum: Duration::from_millis(1),
            time_in_mesh_cap: 3600.0,
            first_message_deliveries_weight: 1.0,
            first_message_deliveries_decay: 0.5,
            first_message_deliveries_cap: 2000.0,
            mesh_message_deliveries_weight: -1.0,
            mesh_message_deliveries_decay: 0.5,
            mesh_message_deliveries_cap: 100.0,
            mesh_message_deliveries_threshold: 20.0,
            mesh_message_deliveries_window: Duration::from_millis(10),
            mesh_message_deliveries_activation: Duration::from_secs(5),
            mesh_failure_penalty_weight: -1.0,
            mesh_failure_penalty_decay: 0.5,
            invalid_message_deliveries_weight: -1.0,
            invalid_message_deliveries_decay: 0.3,
        }
    }
}

impl TopicScoreParams {
    /// Whether they make sense.
    ///
    /// # Errors
    /// The first that does not.
    pub fn validate(&self) -> Result<(), ParamError> {
        let time = self.time_in_mesh_weight != 0.0;
        let first = self.first_message_deliveries_weight != 0.0;
        let mesh = self.mesh_message_deliveries_weight != 0.0;
        let failure = self.mesh_failure_penalty_weight != 0.0;
        let second = Duration::from_secs(1);
        check! { self:
            topic_weight NOT_NEGATIVE, "at least 0";
            time_in_mesh_weight NOT_NEGATIVE, "at least 0";
            time_in_mesh_quantum |value| value > Duration::ZERO, "longer than nothing";
            time_in_mesh_cap |value| !time || POSITIVE(value), "more than 0";
            first_message_deliveries_weight NOT_NEGATIVE, "at least 0";
            first_message_deliveries_decay |value| !first || FRACTION(value), "between 0 and 1";
            first_message_deliveries_cap |value| !first || POSITIVE(value), "more than 0";
            mesh_message_deliveries_weight NOT_POSITIVE, "at most 0";
            mesh_message_deliveries_decay |value| !mesh || FRACTION(value), "between 0 and 1";
            mesh_message_deliveries_cap |value| !mesh || POSITIVE(value), "more than 0";
            mesh_message_deliveries_threshold |value| !mesh || POSITIVE(value), "more than 0";
            mesh_message_deliveries_activation |value| !mesh || value >= second, "at least 1s";
            mesh_failure_penalty_weight NOT_POSITIVE, "at most 0";
            mesh_failure_penalty_decay |value| !failure || FRACTION(value), "between 0 and 1";
            invalid_message_deliveries_weight NOT_POSITIVE, "at most 0";
            invalid_message_deliveries_decay FRACTION, "between 0 and 1";
        }
        Ok(())
    }

    /// Whether it matters how many copies a mesh peer brings (P3, P3b).
    pub(crate) fn counts_copies(&self) -> bool {
        self.mesh_message_deliveries_weight != 0.0 || self.mesh_failure_penalty_weight != 0.0
    }
}

#[cfg(test)]
mod tests {
    use libp2p::gossipsub as stock;

    use super::*;

    /// Debug output names every field with its value, and the fields are the same.
    #[test]
    fn the_defaults_are_those_of_stock_peers() {
        let text = |debug: String| debug.replace("TopicHash", "Topic");
        assert_eq!(
            text(format!("{:?}", TopicScoreParams::default())),
            text(format!("{:?}", stock::TopicScoreParams::default()))
        );
        assert_eq!(
            format!("{:?}", PeerScoreParams::default()),
            format!("{:?}", stock::PeerScoreParams::default())
        );
        assert_eq!(
            format!("{:?}", PeerScoreThresholds::default()),
            format!("{:?}", stock::PeerScoreThresholds::default())
        );
        let time = Duration::from_secs(90);
        assert!((score_parameter_decay(time) - stock::score_parameter_decay(time)).abs() < 1e-12);
    }

    #[test]
    fn the_defaults_make_sense_and_what_does_not_is_named() {
        let params = PeerScoreParams {
            topics: HashMap::from([(Topic::from("t"), TopicScoreParams::default())]),
            ..PeerScoreParams::default()
        };
        assert_eq!(params.validate(), Ok(()));
        assert_eq!(PeerScoreThresholds::default().validate(), Ok(()));
        let wrong = |change: fn(&mut TopicScoreParams)| {
            let mut params = TopicScoreParams::default();
            change(&mut params);
            params.validate().unwrap_err().name
        };
        assert_eq!(wrong(|p| p.topic_weight = -1.0), "topic_weight");
        assert_eq!(wrong(|p| p.topic_weight = f64::NAN), "topic_weight");
        assert_eq!(wrong(|p| p.time_in_mesh_quantum = Duration::ZERO), "time_in_mesh_quantum");
        assert_eq!(wrong(|p| p.invalid_message_deliveries_weight = 1.0), "invalid_message_deliveries_weight");
        assert_eq!(wrong(|p| p.invalid_message_deliveries_decay = 1.0), "invalid_message_deliveries_decay");
        let thresholds = PeerScoreThresholds { publish_threshold: -5.0, ..PeerScoreThresholds::default() };
        assert_eq!(
            thresholds.validate().unwrap_err().to_string(),
            "publish_threshold must be at most gossip_threshold"
        );
    }
}
