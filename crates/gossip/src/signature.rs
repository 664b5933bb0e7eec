//! Whether a message is its author's: one by one, or many at a time.
//!
//! The verdict is always stock rust-libp2p's. A batch is a shortcut to "all hold"; whatever else it says, single checks
//! decide.

mod authors;
mod batch;

use crate::{WireMessage, fingerprint::Fingerprinter, rpc::SIGNING_PREFIX};

use authors::Authors;

/// Authors whose keys are kept decoded, where nothing else is said.
pub const DEFAULT_AUTHORS: usize = 512;

/// Checks signatures. It keeps the decoded keys of authors whose signatures held, and can be moved to another thread.
#[derive(Debug)]
pub struct Verifier {
    authors: Authors,
    /// What a batch is mixed with: nobody outside can know it.
    random: Fingerprinter,
    drawn: u64,
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new(DEFAULT_AUTHORS)
    }
}

impl Verifier {
    /// Keeps the keys of at most `authors` authors.
    pub fn new(authors: usize) -> Self {
        Self { authors: Authors::new(authors), random: Fingerprinter::new(), drawn: 0 }
    }

    /// Whether `message` is signed by the author it names.
    pub fn verify(&mut self, message: &WireMessage) -> bool {
        let Some((from, signature)) = message.from().zip(message.signature()) else { return false };
        let Some(key) = self.authors.key(from, message.key()) else { return false };
        let holds = key.verify(SIGNING_PREFIX, message.signed(), signature);
        if holds {
            self.authors.keep(from, key);
        }
        holds
    }

    /// The same for many, in their order.
    pub fn verify_batch(&mut self, messages: &[WireMessage]) -> Vec<bool> {
        let mut verdicts = vec![None; messages.len()];
        self.accept_together(messages, &mut verdicts);
        let single = |(message, verdict): (&WireMessage, Option<bool>)| {
            verdict.unwrap_or_else(|| self.verify(message))
        };
        messages.iter().zip(verdicts).map(single).collect()
    }
}

#[cfg(test)]
mod tests;
