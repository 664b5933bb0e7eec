//! X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem): a secret that stands while either X25519 or ML-KEM-768
//! (FIPS 203) does, so that what is recorded today is not read by a quantum computer later.
//!
//! X25519 is ring's, ML-KEM the crate `ml-kem`, fed with ring's random numbers. In shares and in the secret
//! ML-KEM comes first.
//!
//! A crate of its own for one reason: `ml-kem` is generic, so it is compiled where it is used, and smidge is
//! built for size. Here it is built for speed: six times faster (cross/README.md). Smidge's tests try it against
//! another implementation.

use std::fmt;

use ml_kem::{
    B32, Decapsulate, KeyExport, Seed,
    ml_kem_768::{Ciphertext, DecapsulationKey, EncapsulationKey},
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::{
    Error, NamedGroup, PeerMisbehaved, ProtocolVersion,
    crypto::{
        ActiveKeyExchange, CompletedKeyExchange, GetRandomFailed, SharedSecret, SupportedKxGroup,
        ring::kx_group::X25519,
    },
    ffdhe_groups::FfdheGroup,
};
use zeroize::Zeroizing;

/// The group, as rustls wants it.
pub static X25519MLKEM768: &dyn SupportedKxGroup = &Hybrid;

/// The length of ML-KEM-768's encapsulation key, which a client sends.
const KEY: usize = 1184;
/// The length of its ciphertext, which a server sends.
const CIPHERTEXT: usize = 1088;
const REFUSED: Error = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);

struct Hybrid;

impl fmt::Debug for Hybrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}

impl SupportedKxGroup for Hybrid {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let classical = X25519.start()?;
        let mut seed = Zeroizing::new(Seed::default());
        SystemRandom::new().fill(seed.as_mut_slice()).map_err(|_| GetRandomFailed)?;
        let key = Box::new(DecapsulationKey::from_seed(*seed));
        let share = [key.encapsulation_key().to_bytes().as_slice(), classical.pub_key()].concat();
        Ok(Box::new(Started { classical, key, share }))
    }

    fn start_and_complete(&self, share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let (key, classical) = share.split_at_checked(KEY).ok_or(REFUSED)?;
        let key = EncapsulationKey::new(key.try_into().map_err(|_| REFUSED)?).map_err(|_| REFUSED)?;
        let classical = X25519.start_and_complete(classical)?;
        let mut random = Zeroizing::new(B32::default());
        SystemRandom::new().fill(random.as_mut_slice()).map_err(|_| GetRandomFailed)?;
        let (ciphertext, secret) = key.encapsulate_deterministic(&random);
        let secret = Zeroizing::new(secret);
        Ok(CompletedKeyExchange {
            group: self.name(),
            pub_key: [ciphertext.as_slice(), &classical.pub_key].concat(),
            secret: SharedSecret::from([secret.as_slice(), classical.secret.secret_bytes()].concat()),
        })
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

/// A client's half, until the server has answered.
struct Started {
    classical: Box<dyn ActiveKeyExchange>,
    key: Box<DecapsulationKey>,
    share: Vec<u8>,
}

impl ActiveKeyExchange for Started {
    fn complete(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        let (ciphertext, classical) = share.split_at_checked(CIPHERTEXT).ok_or(REFUSED)?;
        let ciphertext: &Ciphertext = ciphertext.try_into().map_err(|_| REFUSED)?;
        let classical = self.classical.complete(classical)?;
        let secret = Zeroizing::new(self.key.decapsulate(ciphertext));
        Ok(SharedSecret::from([secret.as_slice(), classical.secret_bytes()].concat()))
    }

    /// X25519 alone is offered beside it at no cost, for a server that knows nothing else.
    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((self.classical.group(), self.classical.pub_key()))
    }

    fn complete_hybrid_component(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        self.classical.complete(share)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
