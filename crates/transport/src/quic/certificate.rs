//! Who the other side is, from the certificate it presented.

use std::net::SocketAddr;

use libp2p::PeerId;
use rustls::pki_types::CertificateDer;

use super::Error;
use crate::tls::Certificate;

/// The peer id in the certificate of an established connection.
///
/// The verifier of TLS has seen the certificate already; it is parsed again here because rustls
/// does not hand on what a verifier learned. What was valid then may have expired since: that is
/// an error, never a panic (GHSA-5hq8-qhww-jm7q).
pub(super) fn peer_id(connection: &quinn_proto::Connection) -> Result<PeerId, Error> {
    let remote = connection.remote_address();
    let chain = connection
        .crypto_session()
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    from_chain(remote, chain.as_deref().map_or(&[], Vec::as_slice))
}

fn from_chain(remote: SocketAddr, chain: &[CertificateDer<'_>]) -> Result<PeerId, Error> {
    let [certificate] = chain else {
        let source = format!("{} certificates presented instead of 1", chain.len()).into();
        return Err(Error::Certificate { remote, source });
    };
    Certificate::read_now(certificate)
        .map(|certificate| certificate.peer_id())
        .map_err(|e| Error::Certificate { remote, source: e.into() })
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;
    use proptest::prelude::*;

    use super::*;
    use crate::tls;

    fn remote() -> SocketAddr {
        "10.0.0.1:4001".parse().unwrap()
    }

    #[test]
    fn exactly_one_libp2p_certificate_names_its_peer() {
        let keypair = Keypair::generate_ed25519();
        let (der, _) = tls::generate(&keypair).unwrap();
        assert_eq!(from_chain(remote(), std::slice::from_ref(&der)).unwrap(), keypair.public().to_peer_id());
        for chain in [vec![], vec![der.clone(), der]] {
            let error = crate::testing::chain(&from_chain(remote(), &chain).unwrap_err());
            let n = chain.len();
            assert_eq!(
                error,
                format!(
                    "the certificate of 10.0.0.1:4001 is not a libp2p one: {n} certificates presented instead of 1"
                )
            );
        }
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_certificate_are_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..600)
        ) {
            prop_assert!(from_chain(remote(), &[CertificateDer::from(bytes)]).is_err());
        }

        #[test]
        fn a_certificate_with_a_byte_changed_is_an_error_or_still_the_same_peer(at in 0_usize..4096, bit in 0_u8..8) {
            let keypair = Keypair::generate_ed25519();
            let (der, _) = tls::generate(&keypair).unwrap();
            let mut bytes = der.to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(peer) = from_chain(remote(), &[CertificateDer::from(bytes)]) {
                prop_assert_eq!(peer, keypair.public().to_peer_id());
            }
        }
    }
}
