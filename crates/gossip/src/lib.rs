//! Gossipsub (libp2p/specs `pubsub/gossipsub`, v1.0 to v1.3) and floodsub for rust-libp2p on any runtime.
//!
//! A pure core takes events with the present moment and gives back actions; a `NetworkBehaviour` with its own
//! connection handler carries them out. There is no I/O, clock or task in the core.
