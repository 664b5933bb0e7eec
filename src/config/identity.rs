//! The key that the section `[identity]` asks for.

use super::Identity as Section;
use crate::identity::{Identity, IdentityError};

impl Section {
    /// The key that the configuration asks for: derived; in memory; or from its file, made if there is
    /// none.
    ///
    /// # Errors
    /// As [`Identity::derive`] and [`Identity::load_or_create`].
    pub fn open(&self) -> Result<Identity, IdentityError> {
        match (&self.derive_secret, &self.derive_name) {
            (None, None) if self.ephemeral => Ok(Identity::ephemeral()),
            (None, None) => Identity::load_or_create(&self.key_file),
            (secret, name) => {
                let secret = secret.as_ref().map_or("", |secret| secret.reveal());
                Identity::derive(secret.as_bytes(), name.as_deref().unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_key_touches_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = crate::Config::default().identity;
        config.key_file = dir.path().join("key");
        config.derive_secret = Some("0123456789abcdef".to_owned().into());
        // A library's own configuration is not checked: half of it is refused here.
        assert!(matches!(config.open(), Err(IdentityError::Underivable(_))));
        config.derive_name = Some("p2p_peer.1".into());
        let opened = config.open().unwrap();
        assert_eq!(opened.peer_id(), Identity::derive(b"0123456789abcdef", "p2p_peer.1").unwrap().peer_id());
        assert!(!config.key_file.exists());
        assert!(!format!("{opened:?} {config:?}").contains("0123456789abcdef"));
    }
}
