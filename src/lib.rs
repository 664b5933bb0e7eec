//! smidge
pub mod config;
pub mod identity;
pub mod logging;
pub mod runtime;
