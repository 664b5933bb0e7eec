//! smidge
pub mod runtime;
