//! Gossipsub (libp2p/specs `pubsub/gossipsub`, v1.0 to v1.3) and floodsub for rust-libp2p on any runtime.
//!
//! A pure core takes events with the present moment and gives back actions; a `NetworkBehaviour` with its own
//! connection handler carries them out. There is no I/O, clock or task in the core.

mod behaviour;
mod budget;
pub mod bundle;
mod core;
mod fingerprint;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod handler;
mod history;
mod message;
mod message_id;
mod outbox;
mod params;
mod protocol;
mod queue;
mod rpc;
mod score;
mod seen;
mod signature;
mod topic;

pub use crate::core::{
    Action, Config, ConfigError, Core, Event, Kept, Link, MeshParams, PeerKind, PublishError, Receipt, Shed,
    Unverified, Verdict,
};
pub use behaviour::Behaviour;
pub use fingerprint::{BuildFingerprintHasher, Fingerprint, FingerprintHasher, Fingerprinter};
pub use handler::{FromHandler, Handler, ToHandler};
pub use history::{History, HistoryLimits};
pub use message::{Authenticity, Author, Claims, Invalid, Message, Validation};
pub use message_id::{IdFn, IdScheme, MessageId, MessageIds};
pub use outbox::Outbox;
pub use params::{
    ParamError, PeerScoreParams, PeerScoreThresholds, TopicScoreParams, score_parameter_decay,
    score_parameter_decay_with_base,
};
pub use protocol::{Agreed, Protocols};
pub use queue::{ControlItem, Outgoing, Queue, QueueLimits, Refused, Written};
pub use rpc::{
    Choke, Control, DecodeError, Extensions, Frame, Framer, FramingError, IHave, Limits, MAX_BACKOFF,
    MessageParts, PeerInfo, Prune, Rpc, Subscription, WireMessage, decode,
};
pub use score::{DeliveryLimits, Score};
pub use seen::SeenSet;
pub use signature::{DEFAULT_AUTHORS, Verifier};
pub use topic::Topic;
