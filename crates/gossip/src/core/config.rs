//! The engine's configuration: gossipsub's parameters by the specification's meaning, with the defaults of
//! rust-libp2p where the specification leaves them open.

use std::{collections::HashMap, fmt, time::Duration};

use super::PeerKind;
use crate::{Extensions, HistoryLimits, IdScheme, QueueLimits, Topic, Validation};

/// The size of a topic's mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeshParams {
    /// D: how many peers a mesh is filled up to, and cut down to.
    pub n: usize,
    /// D_lo: with fewer, peers are grafted.
    pub n_low: usize,
    /// D_hi: with as many or more, peers are pruned and only dialed peers may graft.
    pub n_high: usize,
    /// D_out: how many of them we dialed ourselves, at least.
    pub outbound_min: usize,
}

impl Default for MeshParams {
    fn default() -> Self {
        Self { n: 6, n_low: 5, n_high: 12, outbound_min: 2 }
    }
}

/// Bytes around a payload: topic, author, key and signature at their longest.
const OVERHEAD: usize = 2048;

/// Why a [`Config`] cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// `outbound_min <= n_low <= n <= n_high` and `outbound_min <= n / 2` do not hold.
    #[error(
        "mesh sizes of {topic}: outbound_min {outbound_min} <= n_low {n_low} <= n {n} <= n_high {n_high} and \
         outbound_min <= n / 2 must hold"
    )]
    Mesh {
        /// The topic, or "every topic".
        topic: String,
        /// As configured.
        outbound_min: usize,
        /// As configured.
        n_low: usize,
        /// As configured.
        n: usize,
        /// As configured.
        n_high: usize,
    },
    /// Gossip would announce what is no longer kept.
    #[error("history_gossip {gossip} must not be above history_length {length}")]
    History {
        /// As configured.
        gossip: usize,
        /// As configured.
        length: usize,
    },
    /// The key of this value must be above zero.
    #[error("{0} must be above zero")]
    Zero(&'static str),
}

/// Gossipsub's parameters.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// The size of meshes.
    pub mesh: MeshParams,
    /// The size of the meshes of single topics.
    pub topic_mesh: HashMap<Topic, MeshParams>,
    /// D_score: how many of the best peers a cut mesh keeps.
    pub retain_scores: usize,
    /// From the start to the first heartbeat.
    pub heartbeat_initial_delay: Duration,
    /// Between heartbeats.
    pub heartbeat_interval: Duration,
    /// How many heartbeats a message is kept for those that ask for it.
    pub history_length: usize,
    /// Of how many past heartbeats messages are announced.
    pub history_gossip: usize,
    /// Bytes of messages kept for those that ask.
    pub history_bytes: usize,
    /// Messages kept for those that ask.
    pub history_messages: usize,
    /// D_lazy: how many peers outside of the mesh hear announcements, at least.
    pub gossip_lazy: usize,
    /// Which part of them does, if that is more.
    pub gossip_factor: f64,
    /// How often one peer may ask for the same message.
    pub gossip_retransmission: u32,
    /// Message ids that are announced to or asked of one peer between two heartbeats.
    pub max_ids_per_heartbeat: usize,
    /// IHAVEs of one peer that are heeded between two heartbeats.
    pub max_ihave_per_heartbeat: usize,
    /// How long a peer may take to send what it announced and we asked for.
    pub iwant_followup_time: Duration,
    /// How long peers stay picked for a topic that we publish to and do not follow.
    pub fanout_ttl: Duration,
    /// How long an id is remembered, so that its message is delivered once.
    pub duplicate_cache_time: Duration,
    /// Ids that are remembered.
    pub duplicate_cache_ids: usize,
    /// Whether one's own messages go to every subscriber of good standing, not to the mesh alone.
    pub flood_publish: bool,
    /// Messages from this many bytes on are announced by IDONTWANT when they arrive.
    pub idontwant_threshold: usize,
    /// The same for one's own, before they are sent.
    pub idontwant_on_publish: bool,
    /// After a prune.
    pub prune_backoff: Duration,
    /// After a prune because a topic was left.
    pub unsubscribe_backoff: Duration,
    /// Heartbeats that a graft waits beyond a back-off, so that clocks need not agree.
    pub backoff_slack: u32,
    /// A graft that comes sooner than this after a prune is punished twice.
    pub graft_flood_threshold: Duration,
    /// Heartbeats between attempts to better a mesh of low scores.
    pub opportunistic_graft_ticks: u64,
    /// Peers grafted at each of them.
    pub opportunistic_graft_peers: usize,
    /// Whether pruned peers hear of others.
    pub peer_exchange: bool,
    /// Peers named in a prune, and connected to after one.
    pub prune_peers: usize,
    /// Heartbeats between attempts to reach explicit peers.
    pub check_explicit_peers_ticks: u64,
    /// What is demanded of others' messages.
    pub validation: Validation,
    /// Messages that claim to be ours and come from somebody else are let pass.
    pub allow_self_origin: bool,
    /// Each message waits for [`Core::verdict`](super::Core::verdict) before it is forwarded.
    pub validate_messages: bool,
    /// Messages that wait for a verdict. Above it the oldest are ignored.
    pub awaiting_verdict: usize,
    /// Their bytes.
    pub awaiting_verdict_bytes: usize,
    /// How a message is named.
    pub message_id: IdScheme,
    /// What we announce to v1.3 peers; nothing is said if there is nothing to say. With [`Extensions::CHOKE`], links of
    /// meshes that come late are choked, among peers that announce it, too.
    pub extensions: Extensions,
    /// The largest payload, in bytes: at publishing and on arrival alike.
    pub max_message: usize,
    /// The largest frame that is read, in bytes; a larger one is skipped. One with the largest message is read in any
    /// case, and frames of 64 KiB.
    pub max_frame: usize,
    /// The newest protocol that is offered.
    pub newest: PeerKind,
    /// `/floodsub/1.0.0` is offered and spoken.
    pub floodsub: bool,
    /// Topics that one peer follows and we do not. More are not remembered; this and the next three bounds do not
    /// concern topics that we follow, too.
    pub max_topics_per_peer: usize,
    /// Bytes of their names.
    pub max_topic_bytes_per_peer: usize,
    /// The same of all peers together. Above it, the peer with the most of them loses its newest to others.
    pub max_topics: usize,
    /// Bytes of their names.
    pub max_topic_bytes: usize,
    /// Messages of one peer that wait for their signature to be checked. More are dropped, and what is more than a third
    /// of the places and bytes that are left in all.
    pub unverified_per_peer: usize,
    /// Messages of all peers that wait for it. A peer alone takes a quarter.
    pub unverified: usize,
    /// Their bytes; four of the largest frames in any case.
    pub unverified_bytes: usize,
    /// Bytes that wait to be sent to one peer; a frame in any case.
    pub queue_bytes: usize,
    /// Bytes that wait to be sent to all peers; twice what may wait for one in any case. Above it, whoever has the most
    /// waiting loses the older half of what others said.
    pub all_queues_bytes: usize,
    /// A peer that something waits for, and that took nothing for so long, is in no mesh, and nothing is forwarded to
    /// it.
    pub stall_time: Duration,
    /// Bytes of frames that are not read to their end, of all peers; two frames in any case. Above it, what is longer
    /// than 16 KiB is skipped.
    pub partial_frames_bytes: usize,
    /// Back-offs remembered.
    pub max_backoffs: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mesh: MeshParams::default(),
            topic_mesh: HashMap::new(),
            retain_scores: 4,
            heartbeat_initial_delay: Duration::from_millis(100),
            heartbeat_interval: Duration::from_secs(1),
            history_length: 5,
            history_gossip: 3,
            history_bytes: 4 << 20,
            history_messages: 16_384,
            gossip_lazy: 6,
            gossip_factor: 0.25,
            gossip_retransmission: 3,
            max_ids_per_heartbeat: 5000,
            max_ihave_per_heartbeat: 10,
            iwant_followup_time: Duration::from_secs(3),
            fanout_ttl: Duration::from_secs(60),
            duplicate_cache_time: Duration::from_secs(60),
            duplicate_cache_ids: 1 << 18,
            flood_publish: true,
            idontwant_threshold: 1000,
            idontwant_on_publish: false,
            prune_backoff: Duration::from_secs(60),
            unsubscribe_backoff: Duration::from_secs(10),
            backoff_slack: 1,
            graft_flood_threshold: Duration::from_secs(10),
            opportunistic_graft_ticks: 60,
            opportunistic_graft_peers: 2,
            peer_exchange: false,
            prune_peers: 16,
            check_explicit_peers_ticks: 300,
            validation: Validation::default(),
            allow_self_origin: false,
            validate_messages: false,
            awaiting_verdict: 4096,
            awaiting_verdict_bytes: 8 << 20,
            message_id: IdScheme::default(),
            extensions: Extensions::default().with(Extensions::CHOKE),
            max_message: 64 * 1024 - 1024,
            max_frame: 0,
            newest: PeerKind::V1_3,
            floodsub: false,
            max_topics_per_peer: 1024,
            max_topic_bytes_per_peer: 256 * 1024,
            max_topics: 16_384,
            max_topic_bytes: 1 << 20,
            unverified_per_peer: 512,
            unverified: 8192,
            unverified_bytes: 8 << 20,
            queue_bytes: 4 << 20,
            all_queues_bytes: 32 << 20,
            stall_time: Duration::from_secs(10),
            partial_frames_bytes: 16 << 20,
            max_backoffs: 16_384,
        }
    }
}

impl Config {
    /// The mesh sizes of a topic.
    pub fn mesh_of(&self, topic: &Topic) -> MeshParams {
        self.topic_mesh.get(topic).copied().unwrap_or(self.mesh)
    }

    pub(super) fn history(&self) -> HistoryLimits {
        HistoryLimits {
            windows: self.history_length,
            gossip: self.history_gossip,
            messages: self.history_messages,
            bytes: self.history_bytes,
        }
    }

    pub(super) fn queue(&self) -> QueueLimits {
        let default = QueueLimits::default();
        let frame = default.frame.max(self.max_message + OVERHEAD);
        QueueLimits { messages: self.queue_bytes.max(frame), frame, ..default }
    }

    /// The largest frame that is taken in: a message with the largest payload, and everything around it.
    pub fn max_frame(&self) -> usize {
        self.queue().frame.max(self.max_frame)
    }

    pub(super) fn all_queues(&self) -> usize {
        self.all_queues_bytes.max(2 * self.queue().messages)
    }

    /// Bytes of frames that are not read to their end.
    pub(crate) fn partial_frames(&self) -> usize {
        self.partial_frames_bytes.max(2 * self.max_frame())
    }

    /// Bytes that may wait for their signatures to be checked: a few frames in any case, of which each must fit.
    pub(super) fn unverified_bytes(&self) -> usize {
        self.unverified_bytes.max(4 * self.max_frame())
    }

    /// Whether all values go together.
    ///
    /// # Errors
    /// Names the first that do not.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_mesh("every topic", self.mesh)?;
        for (topic, mesh) in &self.topic_mesh {
            check_mesh(topic.as_str(), *mesh)?;
        }
        if self.history_gossip > self.history_length {
            return Err(ConfigError::History { gossip: self.history_gossip, length: self.history_length });
        }
        for (name, zero) in [
            ("heartbeat_interval", self.heartbeat_interval.is_zero()),
            ("history_length", self.history_length == 0),
            ("duplicate_cache_time", self.duplicate_cache_time.is_zero()),
            ("max_message", self.max_message == 0),
            ("opportunistic_graft_ticks", self.opportunistic_graft_ticks == 0),
            ("check_explicit_peers_ticks", self.check_explicit_peers_ticks == 0),
            ("unverified_per_peer", self.unverified_per_peer == 0),
            ("queue_bytes", self.queue_bytes == 0),
        ] {
            if zero {
                return Err(ConfigError::Zero(name));
            }
        }
        Ok(())
    }
}

fn check_mesh(topic: &str, mesh: MeshParams) -> Result<(), ConfigError> {
    let MeshParams { n, n_low, n_high, outbound_min } = mesh;
    if outbound_min <= n_low && n_low <= n && n <= n_high && outbound_min <= n / 2 {
        return Ok(());
    }
    Err(ConfigError::Mesh { topic: topic.to_owned(), outbound_min, n_low, n, n_high })
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("mesh", &self.mesh)
            .field("heartbeat_interval", &self.heartbeat_interval)
            .field("max_message", &self.max_message)
            .finish_non_exhaustive()
    }
}
