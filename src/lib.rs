//! One small static binary, and this library, that turn the replicas behind a DNS name into a
//! brokerless publish/subscribe and key-value mesh: rust-libp2p's Kademlia, GossipSub and QUIC on
//! smol, without tokio.
//!
//! ```no_run
//! use futures::StreamExt;
//! use smidge::{Client, Config, Node, PublishOptions, identity::Identity, runtime::Executor};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     Executor::default().block_on(1, |runtime| async move {
//!         let mut config = Config::default();
//!         config.dial.names = vec!["peer:4001".parse()?]; // every replica behind this name
//!         let key = Identity::ephemeral();
//!         let node: Client = Node::new(config, key.keypair().clone()).spawn(&runtime)?;
//!
//!         let mut messages = node.subscribe("some_topic").await?;
//!         let receipt = node.publish("some_topic", "hello", PublishOptions::default()).await?;
//!         println!("handed to {} peers", receipt.peers);
//!         while let Some(message) = messages.next().await {
//!             println!("{:?} says {:?}", message.source, message.data);
//!         }
//!         Ok(())
//!     })?
//! }
//! ```
//!
//! To use only the transport, and any behaviour of rust-libp2p on smol, see [`transport`].

#![cfg_attr(
    not(all(feature = "cli", feature = "mdns", feature = "store")),
    allow(
        dead_code,
        unused_imports,
        reason = "what only parts that were left out ask of the floors below them"
    )
)]

#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod dialer;
pub mod dns;
mod error;
#[cfg(all(feature = "gateway", feature = "mdns", feature = "store", any(test, fuzzing)))]
pub mod fuzz;
#[cfg(feature = "gateway")]
pub mod gateway;
#[cfg(feature = "gateway")]
mod http;
pub mod identity;
pub mod logging;
pub mod mdns;
pub mod mqtt;
mod node;
pub mod store;
mod text;

pub use config::Config;
pub use node::{
    Client, ConnectionStatus, Delivery, Error, Event, Events, Feed, GossipState, MAX_STATE_KEY, Message,
    Node, NotListening, Oversize, PeerStatus, Position, PublishOptions, PutOptions, Quorum, Receipt,
    Remembered, Series, SpawnError, Start, StateEntry, StateEvent, StateHeld, StateWatch, Status, Stored,
    Subscription, Traffic, TrafficHistory, Validator, Verdict,
};
pub use smidge_gossip as gossip;
pub use smidge_runtime as runtime;
pub use smidge_transport as transport;
