//! smidge
pub mod dns;
pub mod runtime;
