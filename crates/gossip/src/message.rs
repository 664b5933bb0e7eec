//! A message as an application sees it, how one comes about, and what it must have to be let in.
//!
//! Signatures are another matter (`signature.rs`): what is decided here costs nothing.

use bytes::Bytes;
use libp2p::{
    PeerId,
    identity::{Keypair, SigningError},
};

use crate::{MessageParts, Topic, WireMessage, bundle};

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who said it. Proved only where signatures are asked for.
    pub source: Option<PeerId>,
    /// Its number among those of its author.
    pub sequence: Option<u64>,
    /// Where.
    pub topic: Topic,
    /// The payload, a share in the buffer that it came in.
    pub data: Bytes,
}

/// What a message must have, and must not (libp2p/specs `pubsub/README.md`, "message signing").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validation {
    /// StrictSign: author, sequence number and a signature that holds.
    #[default]
    Strict,
    /// Whatever is there must hold; nothing needs to be there but a sequence number of 8 bytes, if any.
    Permissive,
    /// StrictNoSign: neither author nor sequence number nor signature.
    Anonymous,
    /// Nothing is looked at; messages have neither author nor number.
    None,
}

/// What a message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Its author.
    pub source: Option<PeerId>,
    /// Its sequence number.
    pub sequence: Option<u64>,
    /// Whether none of it counts before the signature has been verified.
    pub signed: bool,
}

/// Why a message is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// There is no signature, and there must be one.
    #[error("no signature")]
    NoSignature,
    /// The signature is not its author's over this message.
    #[error("the signature does not hold")]
    Signature,
    /// There is no author, and there must be one.
    #[error("no author")]
    NoSource,
    /// The author is no peer id.
    #[error("the author is no peer id")]
    Source,
    /// There is no sequence number, and there must be one.
    #[error("no sequence number")]
    NoSequence,
    /// The sequence number is not 8 bytes long.
    #[error("the sequence number is not 8 bytes long")]
    Sequence,
    /// There is a signature, where nobody signs.
    #[error("a signature, although messages are anonymous")]
    SignaturePresent,
    /// There is an author, where nobody says so.
    #[error("an author, although messages are anonymous")]
    SourcePresent,
    /// There is a sequence number, where there are none.
    #[error("a sequence number, although messages are anonymous")]
    SequencePresent,
    /// The message is larger than its topic allows.
    #[error("too large")]
    TooLarge,
}

impl Validation {
    /// Looks at all but the signature's worth.
    ///
    /// # Errors
    /// What is wrong with the message, whatever its signature may be.
    pub fn claims(self, message: &WireMessage) -> Result<Claims, Invalid> {
        let (from, seqno) = (message.from(), message.seqno());
        match self {
            Self::Strict => {
                message.signature().ok_or(Invalid::NoSignature)?;
                let source = source(from.ok_or(Invalid::NoSource)?)?.ok_or(Invalid::NoSource)?;
                let sequence = sequence(seqno.ok_or(Invalid::NoSequence)?)?;
                Ok(Claims { source: Some(source), sequence, signed: true })
            }
            Self::Permissive => {
                let signed = message.signature().is_some();
                let source = from.map(source).transpose()?.flatten();
                if signed && source.is_none() {
                    return Err(Invalid::NoSource);
                }
                let sequence = seqno.map(sequence).transpose()?.flatten();
                Ok(Claims { source, sequence, signed })
            }
            Self::Anonymous => match (message.signature(), seqno, from) {
                (Some(_), ..) => Err(Invalid::SignaturePresent),
                (_, Some(_), _) => Err(Invalid::SequencePresent),
                (.., Some(_)) => Err(Invalid::SourcePresent),
                _ => Ok(Claims { source: None, sequence: None, signed: false }),
            },
            Self::None => Ok(Claims { source: None, sequence: None, signed: false }),
        }
    }
}

/// No bytes are no author, as stock peers have it.
fn source(from: &[u8]) -> Result<Option<PeerId>, Invalid> {
    match from {
        [] => Ok(None),
        from => PeerId::from_bytes(from).map(Some).map_err(|_| Invalid::Source),
    }
}

/// No bytes are no number, as stock peers have it.
fn sequence(seqno: &[u8]) -> Result<Option<u64>, Invalid> {
    match seqno {
        [] => Ok(None),
        seqno => seqno.try_into().map(|seqno| Some(u64::from_be_bytes(seqno))).map_err(|_| Invalid::Sequence),
    }
}

/// What our own messages say of where they come from.
#[derive(Clone, Debug)]
pub enum Authenticity {
    /// Author, sequence number and signature.
    Signed(Keypair),
    /// That author, a random sequence number and no signature.
    Author(PeerId),
    /// An author of its own for each message, a random sequence number and no signature.
    RandomAuthor,
    /// Nothing.
    Anonymous,
}

/// Makes our own messages.
#[derive(Debug)]
pub struct Author {
    authenticity: Authenticity,
    peer: Option<PeerId>,
    /// Our public key, where our peer id does not contain it.
    key: Option<Vec<u8>>,
    sequence: u64,
}

impl Author {
    /// `sequence` comes before the number of the first message: something that is larger than what an earlier run of
    /// this author used, as the nanoseconds since 1970 are.
    pub fn new(authenticity: Authenticity, sequence: u64) -> Self {
        let (peer, key) = match &authenticity {
            Authenticity::Signed(keypair) => {
                let public = keypair.public();
                let peer = public.to_peer_id();
                // libp2p/specs `peer-ids`: keys of up to 42 bytes are in the id itself.
                let key = public.encode_protobuf();
                (Some(peer), (key.len() > 42).then_some(key))
            }
            Authenticity::Author(peer) => (Some(*peer), None),
            Authenticity::RandomAuthor | Authenticity::Anonymous => (None, None),
        };
        Self { authenticity, peer, key, sequence }
    }

    /// Who our messages say they are from; `None` where that is nobody, or another one each time.
    pub fn peer(&self) -> Option<PeerId> {
        self.peer
    }

    /// The number of our next message is above `last`; smaller ones than were used are not used again.
    pub fn number_above(&mut self, last: u64) {
        self.sequence = self.sequence.max(last);
    }

    /// Several messages of ours in one. Others take it for a bundle only if we sign, and our peer id holds the key.
    ///
    /// # Errors
    /// When the key cannot sign.
    #[doc(hidden)]
    pub fn compose_bundle(
        &mut self,
        topic: &Topic,
        messages: &[&[u8]],
        rng: &mut fastrand::Rng,
    ) -> Result<WireMessage, SigningError> {
        let signature = match &self.authenticity {
            Authenticity::Signed(keypair) => {
                let sequence = self.sequence.wrapping_add(1);
                keypair.sign(&bundle::Statement::new(topic.as_str(), sequence, messages).to_bytes())?
            }
            _ => Vec::new(),
        };
        self.compose(topic, &bundle::encode(&signature, messages), rng)
    }

    /// Bytes of our signatures, and whether bundles may have them.
    pub(crate) fn signature_len(&self) -> Option<usize> {
        match &self.authenticity {
            // Of Ed25519.
            Authenticity::Signed(_) => self.key.is_none().then_some(64),
            _ => None,
        }
    }

    /// A message of ours. Its payload is copied once, into the encoding that all peers get.
    ///
    /// # Errors
    /// When the key cannot sign.
    #[doc(hidden)]
    pub fn compose(
        &mut self,
        topic: &Topic,
        data: &[u8],
        rng: &mut fastrand::Rng,
    ) -> Result<WireMessage, SigningError> {
        let topic = topic.as_str();
        let parts = MessageParts { data: Some(data), topic, ..MessageParts::default() };
        let unsigned = |peer: PeerId, sequence: u64| {
            let (from, seqno) = (peer.to_bytes(), sequence.to_be_bytes());
            WireMessage::new(&MessageParts { from: Some(&from), seqno: Some(&seqno), ..parts })
        };
        Ok(match &self.authenticity {
            Authenticity::Signed(keypair) => {
                self.sequence = self.sequence.wrapping_add(1);
                let from = self.peer.unwrap_or_else(|| keypair.public().to_peer_id()).to_bytes();
                let seqno = self.sequence.to_be_bytes();
                let key = self.key.as_deref();
                let parts = MessageParts { from: Some(&from), seqno: Some(&seqno), key, ..parts };
                WireMessage::signed_by(&parts, |bytes| keypair.sign(bytes))?
            }
            Authenticity::Author(peer) => unsigned(*peer, rng.u64(..)),
            Authenticity::RandomAuthor => unsigned(random_peer(rng), rng.u64(..)),
            Authenticity::Anonymous => WireMessage::new(&parts),
        })
    }
}

/// A peer id that nobody has: an identity multihash of 32 random bytes.
fn random_peer(rng: &mut fastrand::Rng) -> PeerId {
    let mut id = [0; 34];
    rng.fill(&mut id[2..]);
    id[1] = 32;
    // What is longer than no key and shorter than 42 bytes is an identity multihash that a peer id may be.
    PeerId::from_bytes(&id).unwrap_or_else(|_| PeerId::random())
}

#[cfg(test)]
mod tests;
