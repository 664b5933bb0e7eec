//! Whole nodes, the command line and the API, as those use them who are not this crate: one program, so that libp2p
//! is linked once. A file is a subject; what they share is in `support/`.
//!
//! `cargo test --test it FILE::` runs one file, `cargo test --test it NAME` one test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![allow(clippy::print_stdout, reason = "figures for whoever runs the tests by hand")]

mod api;
mod blame;
mod bundles;
mod catchup;
mod catchup_confirm;
mod catchup_durable;
mod catchup_hostile;
mod cli;
mod demo;
mod doctor;
mod documents;
mod errors;
mod exposure;
#[cfg(feature = "mdns")]
mod first_hour;
mod floors;
mod gateway;
mod gateway_batches;
mod gateway_callers;
mod growth;
mod hosts;
mod limits;
mod limits_wire;
mod local;
mod mdns;
mod mesh;
mod messages;
mod metrics;
mod mqtt;
mod mqtt_api;
mod mqtt_doors;
mod mqtt_space;
mod names;
mod notify;
mod openapi;
mod page;
mod private;
mod processes;
mod relay;
mod restart;
mod scores;
mod size;
mod state;
mod store;
mod strangers;
mod strangers_claims;
mod strangers_places;
mod strangers_puts;
mod support;
mod tree;
mod upstream;
mod verbs;
mod verbs_json;
mod verbs_streams;
mod words;
