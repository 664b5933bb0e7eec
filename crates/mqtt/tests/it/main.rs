//! Clients of all versions at one broker, packet by packet, in a time of their own. Tests have the numbers of the
//! specification's statements, where it numbers them: of MQTT 5, unless they say 3.1.1.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod flow;
mod hostile;
mod lasting;
mod properties;
mod space;
mod support;
mod taps;
mod topics;
