//! What stands for MQTT's way in where MQTT was left out: nobody has one.

use std::convert::Infallible;

use super::{Heard, MqttStatus, Publish};

/// Never made.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// It cannot be published or followed like that.
    #[error("{0}")]
    Malformed(String),
    /// There is no room for it.
    #[error("{0}")]
    Full(String),
}

/// Never made.
#[derive(Clone, Debug)]
pub struct Local(Infallible);

impl Local {
    /// Never called.
    ///
    /// # Errors
    /// None.
    pub async fn publish(&self, _: &str, _: Vec<u8>, _: Publish) -> Result<(), NotTaken> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn follow(&self, _: &str, _: bool) -> Result<Followed, NotTaken> {
        match self.0 {}
    }

    /// Never called.
    pub fn status(&self) -> MqttStatus {
        match self.0 {}
    }
}

/// Never made.
#[derive(Debug)]
pub struct Followed(Infallible);

impl Followed {
    /// Never called.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.0 {}
    }
}
