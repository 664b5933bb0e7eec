//! smidge
pub mod cli;
pub mod config;
pub mod identity;
pub mod logging;
pub mod runtime;
