//! Whole swarms of behaviours over libp2p's memory transport: among themselves, and with stock rust-libp2p.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conformance;
mod support;
mod swarms;
