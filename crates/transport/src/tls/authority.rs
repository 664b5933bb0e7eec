//! Certificates of clients, for what speaks TLS beside libp2p: each issued by one of some authorities, directly.
//!
//! A path has no steps between: who issues through an intermediate authority names that one. rustls-webpki, which builds paths
//! of any length, would add 68 KB. There are no revocation lists: an authority that is trusted no more is left out.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::{
    algorithms,
    certificate::{Flaw, Parts},
    der::{BIT_STRING, BOOLEAN, OCTET_STRING, OID, Reader, SEQUENCE},
};

/// Extensions that are understood (RFC 5280, 4.2.1), by the last byte of 2.5.29.N.
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 17];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
/// What a key may be for: clients (1.3.6.1.5.5.7.3.2), and anything.
const CLIENTS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
const ANYTHING: &[u8] = &[0x55, 0x1d, 37, 0];

/// Why a client's certificate is not taken, where TLS has no word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum NotForThis {
    #[error("its key may not sign handshakes")]
    Usage,
}

/// Those whose certificates are believed.
#[derive(Debug)]
pub struct Authorities {
    known: Vec<CertificateDer<'static>>,
    names: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Authorities {
    /// These, all.
    ///
    /// # Errors
    /// In words: when one is no certificate.
    pub fn new(known: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let names = known
            .iter()
            .map(|der| Parts::any(der).map(|parts| DistinguishedName::from(parts.subject.to_vec())))
            .collect::<Result<_, Flaw>>()
            .map_err(|flaw| flaw.to_string())?;
        Ok(Self { known, names, algorithms: algorithms() })
    }

    fn check(&self, der: &[u8], now: UnixTime) -> Result<(), Error> {
        let bad = |why| Err(Error::InvalidCertificate(why));
        let Ok(own) = Parts::any(der) else { return bad(CertificateError::BadEncoding) };
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < own.validity.0 {
            return bad(CertificateError::NotValidYet);
        }
        if now > own.validity.1 {
            return bad(CertificateError::Expired);
        }
        own_extensions(own.extensions)?;
        let mut issuers = self.known.iter().filter_map(|der| Parts::any(der).ok()).filter(|authority| {
            authority.subject == own.issuer && authority.validity.0 <= now && now <= authority.validity.1
        });
        // One name may have two keys, while one takes the other's place.
        let mut why = CertificateError::UnknownIssuer;
        let signed = issuers.any(|authority| {
            why = CertificateError::BadSignature;
            self.algorithms.all.iter().any(|algorithm| {
                algorithm.public_key_alg_id().as_ref() == authority.key_algorithm
                    && algorithm.signature_alg_id().as_ref() == own.algorithm
                    && algorithm.verify_signature(authority.key_bits, own.signed, own.signature).is_ok()
            })
        });
        if signed { Ok(()) } else { bad(why) }
    }
}

/// Whether the extensions of a client's certificate let it be one, and hold nothing that has to be understood and is not.
fn own_extensions(extensions: &[u8]) -> Result<(), Error> {
    let bad = || Error::InvalidCertificate(CertificateError::BadEncoding);
    let mut all = Reader(extensions);
    while !all.0.is_empty() {
        let mut one = Reader(all.next(SEQUENCE).ok_or_else(bad)?);
        let id = one.next(OID).ok_or_else(bad)?;
        let critical = one.next(BOOLEAN).is_some_and(|value| value != [0]);
        let value = one.only(OCTET_STRING).ok_or_else(bad)?;
        match id {
            EXTENDED_KEY_USAGE => {
                let mut purposes = Reader(Reader(value).only(SEQUENCE).ok_or_else(bad)?);
                let mut fits = false;
                while let Some(purpose) = purposes.next(OID) {
                    fits |= purpose == CLIENTS || purpose == ANYTHING;
                }
                if !fits {
                    return Err(Error::InvalidCertificate(CertificateError::InvalidPurpose));
                }
            }
            KEY_USAGE => {
                // A BIT STRING: how many bits of its end are unused, and the bits; digitalSignature is the first.
                let bits = Reader(value).only(BIT_STRING).ok_or_else(bad)?;
                if bits.get(1).is_none_or(|bits| bits & 0x80 == 0) {
                    let why = CertificateError::Other(OtherError(Arc::new(NotForThis::Usage)));
                    return Err(Error::InvalidCertificate(why));
                }
            }
            BASIC_CONSTRAINTS | ALTERNATIVE_NAME => {}
            _ if critical => {
                return Err(Error::InvalidCertificate(CertificateError::UnhandledCriticalExtension));
            }
            _ => {}
        }
    }
    Ok(())
}

impl ClientCertVerifier for Authorities {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.names
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(certificate, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let bad = || Error::InvalidCertificate(CertificateError::BadSignature);
        let parts = Parts::any(certificate).map_err(|_| bad())?;
        let named = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        // In TLS 1.2 a scheme does not say the curve.
        let fits = named.into_iter().flat_map(|(_, algorithms)| *algorithms).any(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == parts.key_algorithm
                && algorithm.verify_signature(parts.key_bits, message, signed.signature()).is_ok()
        });
        if fits { Ok(HandshakeSignatureValid::assertion()) } else { Err(bad()) }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let bad = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
        let key = SubjectPublicKeyInfoDer::from(Parts::any(certificate).map_err(bad)?.key);
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, Certificate, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose,
        IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
        date_time_ymd,
    };

    use super::*;

    fn authority(name: &str, kind: &'static SignatureAlgorithm) -> (Certificate, KeyPair) {
        let key = KeyPair::generate_for(kind).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.self_signed(&key).unwrap(), key)
    }

    fn client(by: &(Certificate, KeyPair), change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["sensor".into()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        change(&mut params);
        params.signed_by(&KeyPair::generate().unwrap(), &by.0, &by.1).unwrap().der().to_vec()
    }

    fn at(year: u64) -> UnixTime {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs((year - 1970) * 31_557_600))
    }

    #[test]
    fn a_client_shows_what_an_authority_issued_and_nothing_else() {
        let (ours, second) = (authority("ours", &PKCS_ECDSA_P384_SHA384), authority("second", &PKCS_ED25519));
        let foreign = authority("ours", &PKCS_ECDSA_P384_SHA384);
        let known = [&ours, &second].map(|(certificate, _)| certificate.der().clone().into_owned());
        let authorities = Authorities::new(known.to_vec()).unwrap();
        let check = |der: Vec<u8>| {
            authorities.check(&der, at(2026)).map_err(|error| match error {
                Error::InvalidCertificate(why) => why,
                other => panic!("{other}"),
            })
        };
        assert_eq!(check(client(&ours, |_| {})), Ok(()));
        assert_eq!(check(client(&second, |_| {})), Ok(()));
        assert_eq!(check(client(&ours, |params| params.key_usages.clear())), Ok(()));
        assert_eq!(check(client(&foreign, |_| {})), Err(CertificateError::BadSignature));
        let other = authority("other", &PKCS_ED25519);
        assert_eq!(check(client(&other, |_| {})), Err(CertificateError::UnknownIssuer));
        let server = client(&ours, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
        assert_eq!(check(server), Err(CertificateError::InvalidPurpose));
        let agrees = client(&ours, |params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]);
        assert!(matches!(check(agrees), Err(CertificateError::Other(_))));
        let past = client(&ours, |params| params.not_after = date_time_ymd(2020, 1, 1));
        assert_eq!(check(past), Err(CertificateError::Expired));
        let later = client(&ours, |params| params.not_before = date_time_ymd(2090, 1, 1));
        assert_eq!(check(later), Err(CertificateError::NotValidYet));
        let odd = client(&ours, |params| {
            let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
            extension.set_criticality(true);
            params.custom_extensions = vec![extension];
        });
        assert_eq!(check(odd), Err(CertificateError::UnhandledCriticalExtension));
        let mut broken = client(&ours, |_| {});
        broken.pop();
        assert_eq!(check(broken), Err(CertificateError::BadEncoding));
        // Itself an authority's certificate, it stands for nobody but clients that the authority names.
        assert_eq!(check(foreign.0.der().to_vec()), Err(CertificateError::BadSignature));
        assert!(Authorities::new(vec![b"nothing".to_vec().into()]).is_err());
    }

    #[test]
    fn an_authority_that_has_expired_vouches_for_nobody() {
        let ours = authority("ours", &PKCS_ED25519);
        let authorities = Authorities::new(vec![ours.0.der().clone().into_owned()]).unwrap();
        let der = client(&ours, |params| params.not_after = date_time_ymd(6000, 1, 1));
        let refused = authorities.check(&der, at(5000));
        assert_eq!(refused, Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)));
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused_wherever_they_are_cut_or_changed() {
        let ours = authority("ours", &PKCS_ED25519);
        let authorities = Authorities::new(vec![ours.0.der().clone().into_owned()]).unwrap();
        let der = client(&ours, |_| {});
        for at_byte in 0..der.len() {
            assert!(authorities.check(&der[..at_byte], at(2026)).is_err());
            let mut changed = der.clone();
            changed[at_byte] ^= 1;
            assert!(authorities.check(&changed, at(2026)).is_err(), "{at_byte}");
        }
    }
}
