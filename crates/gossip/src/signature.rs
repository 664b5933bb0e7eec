//! Whether a message is its author's: one by one, or many at a time.
//!
//! The verdict is always that of libp2p-identity's `PublicKey::verify`, which stock peers ask.

mod authors;
mod frequent;
mod multiples;

use crate::{WireMessage, rpc::SIGNING_PREFIX};

use authors::Authors;
use frequent::Frequent;

/// Authors whose keys are kept decoded, where nothing else is said.
pub const DEFAULT_AUTHORS: usize = 512;

/// Checks signatures. It keeps the decoded keys of authors whose signatures held, and can be moved to another thread.
#[derive(Debug)]
pub struct Verifier {
    authors: Authors,
    frequent: Frequent,
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new(DEFAULT_AUTHORS)
    }
}

impl Verifier {
    /// Keeps the keys of at most `authors` authors.
    pub fn new(authors: usize) -> Self {
        Self { authors: Authors::new(authors), frequent: Frequent::default() }
    }

    /// Whether `message` is signed by the author it names.
    pub fn verify(&mut self, message: &WireMessage) -> bool {
        self.verify_batch(std::slice::from_ref(message)).first() == Some(&true)
    }

    /// The same for many, in their order: at less than the cost of each by itself.
    pub fn verify_batch(&mut self, messages: &[WireMessage]) -> Vec<bool> {
        let mut verdicts = vec![None; messages.len()];
        self.frequent.verify(&mut self.authors, messages, &mut verdicts);
        let single = |(message, verdict): (&WireMessage, Option<bool>)| {
            verdict.unwrap_or_else(|| self.single(message))
        };
        messages.iter().zip(verdicts).map(single).collect()
    }

    /// Lets go of what makes checks of frequent authors cheap, 220 KB each and 655 for all: nobody says anything just now.
    pub fn rest(&mut self) {
        self.frequent.forget();
        self.authors.forget_counts();
    }

    fn single(&mut self, message: &WireMessage) -> bool {
        let Some((from, signature)) = message.from().zip(message.signature()) else { return false };
        let Some(key) = self.authors.key(from, message.key()) else { return false };
        let holds = key.verify(SIGNING_PREFIX, message.signed(), signature);
        if holds {
            self.authors.keep(from, key);
        }
        holds
    }
}

#[cfg(test)]
mod tests;
