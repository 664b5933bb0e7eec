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
mod offload;
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
    Config, ConfigError, Core, Event, Kept, Link, MeshParams, PeerKind, PublishError, Receipt, Shed, Verdict,
};
pub use behaviour::Behaviour;
pub use message::{Authenticity, Author, Claims, Invalid, Message, Validation};
pub use message_id::{IdFn, IdScheme, MessageId};
pub use params::{
    ParamError, PeerScoreParams, PeerScoreThresholds, TopicScoreParams, score_parameter_decay,
    score_parameter_decay_with_base,
};
pub use rpc::{Extensions, MessageParts, WireMessage};
pub use signature::Verifier;
pub use topic::Topic;

use parts::*;

/// What [`Behaviour`] is made of, each usable without the others: for simulations, figures and fuzzing. Any release may
/// change these.
#[doc(hidden)]
pub mod parts {
    pub use crate::{
        core::{Action, Unverified},
        fingerprint::{BuildFingerprintHasher, Fingerprint, FingerprintHasher, Fingerprinter},
        handler::{FromHandler, Handler, ToHandler},
        history::{History, HistoryLimits},
        message_id::MessageIds,
        outbox::Outbox,
        protocol::{Agreed, Protocols},
        queue::{ControlItem, Outgoing, Queue, QueueLimits, Refused, Written},
        rpc::{
            Choke, Control, DecodeError, Frame, Framer, FramingError, IHave, Limits, MAX_BACKOFF, PeerInfo,
            Prune, Rpc, Subscription, decode,
        },
        score::{DeliveryLimits, Score},
        seen::SeenSet,
        signature::DEFAULT_AUTHORS,
    };
}
