//! TLS as libp2p asks for it (libp2p/specs tls/tls.md): version 1.3, both sides show one self-signed
//! certificate that carries the host's key, and nobody asks an authority.
//!
//! One crypto library, ring, serves this, Noise, the admission and the store. The hybrid of X25519 and
//! ML-KEM-768, which it does not have, is the crate `smidge-hybrid`. Never here: sockets, QUIC, sessions that are resumed,
//! and a comparison with the peer that the caller expects.

mod authority;
mod certificate;
mod ciphers;
mod der;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod verifier;

#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use libp2p::identity::Keypair;
use rustls::{
    ClientConfig, ServerConfig, SignatureScheme, SupportedProtocolVersion,
    client::ResolvesClientCert,
    crypto::{
        CryptoProvider, KeyProvider, SecureRandom, SupportedKxGroup, WebPkiSupportedAlgorithms,
        ring::{
            default_provider,
            kx_group::{SECP256R1, SECP384R1, X25519},
            sign::any_ecdsa_type,
        },
    },
    pki_types::PrivateKeyDer,
    server::{ClientHello, ResolvesServerCert},
    sign::{CertifiedKey, SigningKey},
};

pub use authority::Authorities;
pub use certificate::validity;
pub(crate) use certificate::{Certificate, generate};
use verifier::Verifier;

/// The application protocol that both sides must name.
const ALPN: &[u8] = b"libp2p";
static VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
static GROUPS: &[&dyn SupportedKxGroup] = &[smidge_hybrid::X25519MLKEM768, X25519, SECP256R1, SECP384R1];

/// Why there is no certificate, or nothing that shows it.
pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Both halves for `keypair`: they show one certificate, made here.
///
/// # Errors
/// When no random numbers can be had or the key does not sign.
pub(crate) fn configs(keypair: &Keypair) -> Result<(ClientConfig, ServerConfig), Failed> {
    configs_on(ciphers::has_aes(), keypair)
}

/// Checks this system's clock as a handshake does: makes a certificate, and verifies that it is valid now.
///
/// # Errors
/// In words: which end of the period of validity the clock is beyond, or why no certificate can be made.
pub fn check_clock() -> Result<(), String> {
    let (der, _) = generate(&Keypair::generate_ed25519())?;
    Certificate::read_now(&der).map(|_| ()).map_err(|e| e.to_string())
}

/// As [`configs`], for a processor that is good at AES or not.
fn configs_on(has_aes: bool, keypair: &Keypair) -> Result<(ClientConfig, ServerConfig), Failed> {
    let (certificate, key) = generate(keypair)?;
    let key = any_ecdsa_type(&PrivateKeyDer::from(key))?;
    let shown = Arc::new(Shown(Arc::new(CertifiedKey::new(vec![certificate], key))));
    let provider = Arc::new(provider(has_aes));
    let verifier = Arc::new(Verifier(algorithms()));

    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_client_cert_resolver(shown.clone());
    client.alpn_protocols = vec![ALPN.to_vec()];
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(VERSIONS)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(shown);
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.ignore_client_order = !has_aes;
    Ok((client, server))
}

/// What is taken of ring's provider as it is. Asked for at one place, so that what is not taken, signing with RSA, is
/// left out of programs that have no other use for it.
static OF_RING: LazyLock<(WebPkiSupportedAlgorithms, &'static dyn SecureRandom)> = LazyLock::new(|| {
    let provider = default_provider();
    (provider.signature_verification_algorithms, provider.secure_random)
});

/// Whose signatures are believed.
fn algorithms() -> WebPkiSupportedAlgorithms {
    OF_RING.0
}

fn provider(has_aes: bool) -> CryptoProvider {
    CryptoProvider {
        cipher_suites: ciphers::by_preference(has_aes),
        kx_groups: GROUPS.to_vec(),
        signature_verification_algorithms: algorithms(),
        secure_random: OF_RING.1,
        key_provider: &Keys,
    }
}

/// Loads the only kind of private key there is here. rustls's own would bring along signing with RSA.
#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        any_ecdsa_type(&key)
    }
}

/// Shows the one certificate, whoever asks.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}
