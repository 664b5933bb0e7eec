//! Certificates of strangers.

use super::Certificate;

/// Any bytes: one that is believed speaks for somebody, and stays believed by its bytes alone.
pub fn certificate(bytes: &[u8]) {
    match Certificate::read_now(bytes) {
        Ok(read) => {
            assert!(Certificate::key_of(bytes).is_ok());
            let _ = read.peer_id();
        }
        Err(flaw) => assert!(!flaw.to_string().is_empty()),
    }
}
