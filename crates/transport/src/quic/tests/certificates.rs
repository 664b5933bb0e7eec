//! Certificates that are not what libp2p asks for, presented by either side.

use std::{io, sync::Arc};

use rcgen::{CertificateParams, CustomExtension, KeyPair, date_time_ymd};
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::*;
use crate::{quic::config::Tls, tls};

/// The libp2p Public Key Extension (libp2p/specs tls/tls.md).
const OID: [u64; 9] = [1, 3, 6, 1, 4, 1, 53594, 1, 1];

#[derive(Debug)]
struct Present(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Present {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

impl ResolvesServerCert for Present {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

/// A configuration that presents `certified` in place of its own certificate.
fn presenting(certified: Option<CertifiedKey>) -> Config {
    let keypair = Keypair::generate_ed25519();
    let mut config = Config::new(&keypair).unwrap();
    let present = Arc::new(Present(certified.map(Arc::new)));
    let (mut client, mut server) = tls::configs(&keypair).unwrap();
    client.client_auth_cert_resolver = present.clone();
    server.cert_resolver = present;
    config.tls = Tls::from_rustls(client, server).unwrap();
    config
}

/// SEQUENCE { OCTET STRING public key, OCTET STRING signature }, both shorter than 128 bytes.
fn signed_key(public: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut der = vec![0x30, (4 + public.len() + signature.len()) as u8];
    for part in [public, signature] {
        der.extend([0x04, part.len() as u8]);
        der.extend(part);
    }
    der
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    None,
    Missing,
    NoExtension,
    Expired,
    NotYetValid,
    ForeignSignature,
    GarbageExtension,
    UnknownCriticalExtension,
    Two,
    NotSelfSigned,
    NotDer,
}

fn certified(flaw: Flaw) -> Option<CertifiedKey> {
    if flaw == Flaw::Missing {
        return None;
    }
    let identity = Keypair::generate_ed25519();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let signer = if flaw == Flaw::ForeignSignature { Keypair::generate_ed25519() } else { identity.clone() };
    let mut message = b"libp2p-tls-handshake:".to_vec();
    message.extend(key.public_key_der());
    let content = match flaw {
        Flaw::GarbageExtension => vec![0xff; 40],
        _ => signed_key(&identity.public().encode_protobuf(), &signer.sign(&message).unwrap()),
    };
    let mut params = CertificateParams::new(vec![]).unwrap();
    if flaw != Flaw::NoExtension {
        params.custom_extensions.push(CustomExtension::from_oid_content(&OID, content));
    }
    if flaw == Flaw::UnknownCriticalExtension {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 53594, 7, 7], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    }
    (params.not_before, params.not_after) = match flaw {
        Flaw::Expired => (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1)),
        Flaw::NotYetValid => (date_time_ymd(4000, 1, 1), date_time_ymd(4001, 1, 1)),
        _ => (date_time_ymd(2001, 1, 1), date_time_ymd(4000, 1, 1)),
    };
    let certificate: CertificateDer<'static> = if flaw == Flaw::NotSelfSigned {
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let issuer = CertificateParams::new(vec![]).unwrap().self_signed(&other).unwrap();
        params.signed_by(&key, &issuer, &other).unwrap().der().clone()
    } else {
        params.self_signed(&key).unwrap().der().clone()
    };
    let chain = match flaw {
        Flaw::Two => vec![certificate.clone(), certificate],
        Flaw::NotDer => vec![CertificateDer::from(vec![0x42; 300])],
        _ => vec![certificate],
    };
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&private).unwrap();
    Some(CertifiedKey::new(chain, key))
}

const FLAWS: [(Flaw, &str); 10] = [
    (Flaw::Missing, "peer sent no certificates"),
    (Flaw::NoExtension, "NoHostKey"),
    (Flaw::Expired, "certificate: Expired"),
    (Flaw::NotYetValid, "certificate: NotValidYet"),
    (Flaw::ForeignSignature, "NotTheHosts"),
    (Flaw::GarbageExtension, "BadEncoding"),
    (Flaw::UnknownCriticalExtension, "UnhandledCriticalExtension"),
    (Flaw::Two, "2 certificates presented instead of 1"),
    (Flaw::NotSelfSigned, "BadSignature"),
    (Flaw::NotDer, "BadEncoding"),
];

#[test]
fn a_crafted_certificate_without_a_flaw_is_accepted() {
    real(|rt| async move {
        let flawless = presenting(certified(Flaw::None));
        let (mut listener, addr) = Node::listening(&rt, config(), "/ip4/127.0.0.1/udp/0/quic-v1").await;
        let mut dialer = Node::with(&rt, flawless);
        let (dialed, accepted) = futures::join!(dialer.dial(&addr, REUSE), listener.accept());
        dialed.unwrap();
        // Who it is comes from the certificate, not from what the dialer thinks of itself.
        assert_ne!(accepted.unwrap().0, dialer.peer);
    });
}

#[test]
fn a_dialers_bad_certificate_is_an_error_at_the_listener_which_lives_on() {
    real(|rt| async move {
        let (mut listener, addr) = Node::listening(&rt, config(), "/ip4/127.0.0.1/udp/0/quic-v1").await;
        for (flaw, why) in FLAWS {
            let mut dialer = Node::with(&rt, presenting(certified(flaw)));
            let (dialed, accepted) = futures::join!(dialer.dial(&addr, REUSE), listener.accept());
            let error = chain(&accepted.err().unwrap());
            assert!(error.starts_with("QUIC handshake with 127.0.0.1:"), "{flaw:?}: {error}");
            assert!(error.contains(why), "{flaw:?}: {error}");
            // A TLS 1.3 client is done before the server has seen its certificate.
            if let Ok((_, peer)) = dialed {
                let ended = peer.ended().await;
                assert!(ended.contains("aborted by peer"), "{flaw:?}: {ended}");
            }
            dialer.idle().await;
        }
        let mut dialer = Node::new(&rt);
        connect(&mut dialer, &mut listener, &addr).await;
        dialer.idle().await;
        listener.idle().await;
    });
}

#[test]
fn a_listeners_bad_certificate_is_an_error_at_the_dialer() {
    real(|rt| async move {
        let mut dialer = Node::new(&rt);
        for (flaw, why) in FLAWS {
            let bad = presenting(certified(flaw));
            let (mut listener, addr) = Node::listening(&rt, bad, "/ip4/127.0.0.1/udp/0/quic-v1").await;
            let (dialed, accepted) = futures::join!(dialer.dial(&addr, REUSE), listener.accept());
            let error = chain(&dialed.err().unwrap());
            assert!(error.starts_with("QUIC handshake with 127.0.0.1:"), "{flaw:?}: {error}");
            // A server without a certificate gives up by itself.
            if flaw != Flaw::Missing {
                assert!(error.contains(why), "{flaw:?}: {error}");
            }
            accepted.err().unwrap_or_else(|| panic!("{flaw:?} was accepted"));
            listener.idle().await;
        }
        dialer.idle().await;
    });
}

#[test]
fn an_application_protocol_other_than_libp2p_is_refused() {
    real(|rt| async move {
        let keypair = Keypair::generate_ed25519();
        let mut other = Config::new(&keypair).unwrap();
        let (mut client, server) = tls::configs(&keypair).unwrap();
        client.alpn_protocols = vec![b"h3".to_vec()];
        other.tls = Tls::from_rustls(client, server).unwrap();
        let (mut listener, addr) = Node::listening(&rt, config(), "/ip4/127.0.0.1/udp/0/quic-v1").await;
        let mut dialer = Node::with(&rt, other);
        let (dialed, accepted) = futures::join!(dialer.dial(&addr, REUSE), listener.accept());
        let (dialed, accepted) = (chain(&dialed.err().unwrap()), chain(&accepted.err().unwrap()));
        eprintln!("{dialed} / {accepted}");
        assert!(accepted.contains("QUIC handshake with"), "{accepted}");
        let lost = Error::lost("10.0.0.1:1".parse().unwrap(), &quinn_proto::ConnectionError::TimedOut);
        assert_eq!(lost.kind(), io::ErrorKind::TimedOut);
    });
}
