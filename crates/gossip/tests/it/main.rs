//! Whole swarms of behaviours over libp2p's memory transport: among themselves, and with stock rust-libp2p.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod advisories;
mod conformance;
mod simulated;
mod support;
mod swarms;
#[path = "../../examples/swarm/trouble.rs"]
mod trouble;
#[path = "../../examples/swarm/world.rs"]
#[allow(dead_code, reason = "the example uses all of it")]
mod world;
