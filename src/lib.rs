//! smidge
pub mod runtime;
pub mod transport;
