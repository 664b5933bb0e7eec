//! Whole sessions between two sides and among many nodes, in simulated time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "figures for whoever runs the tests by hand")]

mod figures;
mod hostile;
mod latest;
mod support;
mod swarm;
mod vectors;
