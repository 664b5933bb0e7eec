//! The certificate of libp2p: made, and read.
//!
//! It belongs to a key of its own, which signs it. An extension carries the host's public key and the host's
//! signature over the certificate's key, so that whoever holds the certificate's key speaks for the host.
//! Nothing else in it means anything: names and serial numbers are passed over.
//!
//! Pure but for the random numbers of a new one: bytes and a time in, a peer id or a flaw out.

use libp2p::{
    PeerId,
    identity::{Keypair, PublicKey},
};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, SignatureVerificationAlgorithm, UnixTime, alg_id,
};

use super::der::{
    BIT_STRING, BOOLEAN, GENERALIZED_TIME, INTEGER, OCTET_STRING, OID, Reader, SEQUENCE, UTC_TIME, element,
};

/// 1.3.6.1.4.1.53594.1.1: the libp2p Public Key Extension.
const EXTENSION: &[u8] = &[0x2b, 6, 1, 4, 1, 0x83, 0xa2, 0x5a, 1, 1];
/// What a host signs begins with this; the certificate's key follows.
const PREFIX: &[u8] = b"libp2p-tls-handshake:";
/// Version 3, under its tag 0: the one that has extensions.
const VERSION: &[u8] = &[0xa0, 3, INTEGER, 1, 2];
/// The tags of what else a certificate may hold: two identifiers that nobody uses, and the extensions.
const ISSUER_ID: u8 = 0x81;
const SUBJECT_ID: u8 = 0x82;
const EXTENSIONS: u8 = 0xa3;
/// From 1970 to 4096: no clock that is wrong parts two hosts, and a host without a battery for it begins in 1970.
/// X.509 could say 1950, which readers that count from 1970 refuse (rustls-webpki).
const NOT_BEFORE: &[u8] = b"700101000000Z";
const NOT_AFTER: &[u8] = b"40960101000000Z";

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    /// It is no X.509 certificate of version 3 in DER.
    #[error("it cannot be read: {0}")]
    Encoding(&'static str),
    #[error("it has a critical extension that is not known here")]
    UnknownCritical,
    #[error("it is not valid yet: one of the two clocks is wrong")]
    NotYetValid,
    #[error("it has expired, or one of the two clocks is wrong")]
    Expired,
    #[error("it is signed with an algorithm that is not known here")]
    Algorithm,
    #[error("its own key did not sign it")]
    NotSelfSigned,
    #[error("it holds no key of a host")]
    NoHostKey,
    #[error("the host's key in it is of no kind known here")]
    HostKey,
    #[error("the host whose key is in it did not sign it")]
    NotTheHosts,
}

/// A certificate that holds: its signatures are right, and so is its time.
#[derive(Debug)]
pub(crate) struct Certificate {
    peer: PeerId,
}

impl Certificate {
    /// Reads one that must hold at `now`, signed with one of `algorithms`.
    pub(crate) fn read(
        der: &[u8],
        now: UnixTime,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<Self, Flaw> {
        let parts = Parts::of(der)?;
        let (key, signature) = parts.extension()?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < parts.validity.0 {
            return Err(Flaw::NotYetValid);
        }
        if now > parts.validity.1 {
            return Err(Flaw::Expired);
        }
        let algorithm = algorithms
            .iter()
            .find(|algorithm| {
                algorithm.public_key_alg_id().as_ref() == parts.key_algorithm
                    && algorithm.signature_alg_id().as_ref() == parts.algorithm
            })
            .ok_or(Flaw::Algorithm)?;
        algorithm
            .verify_signature(parts.key_bits, parts.signed, parts.signature)
            .map_err(|_| Flaw::NotSelfSigned)?;
        let host = PublicKey::try_decode_protobuf(key).map_err(|_| Flaw::HostKey)?;
        if !host.verify(&[PREFIX, parts.key].concat(), signature) {
            return Err(Flaw::NotTheHosts);
        }
        Ok(Self { peer: host.to_peer_id() })
    }

    /// Reads one that must hold now.
    pub(crate) fn read_now(der: &[u8]) -> Result<Self, Flaw> {
        Self::read(der, UnixTime::now(), super::algorithms().all)
    }

    /// The key (SubjectPublicKeyInfo) of one that has been read in full before.
    pub(super) fn key_of(der: &[u8]) -> Result<&[u8], Flaw> {
        Parts::of(der).map(|parts| parts.key)
    }

    /// The host that it speaks for.
    pub(crate) fn peer_id(&self) -> PeerId {
        self.peer
    }
}

/// Where things are in a certificate.
pub(super) struct Parts<'a> {
    /// What the signature is over.
    pub(super) signed: &'a [u8],
    /// Whose it is, and who says so: whole elements.
    pub(super) subject: &'a [u8],
    pub(super) issuer: &'a [u8],
    /// The certificate's key, as a whole and in its parts.
    pub(super) key: &'a [u8],
    pub(super) key_algorithm: &'a [u8],
    pub(super) key_bits: &'a [u8],
    /// First and last second that it is valid at, since 1970.
    pub(super) validity: (i64, i64),
    pub(super) extensions: &'a [u8],
    pub(super) algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(der: &'a [u8]) -> Result<Self, Flaw> {
        Self::read(der, false)
    }

    /// Of any certificate; old tools make those of the first version, which have no extensions.
    pub(super) fn any(der: &'a [u8]) -> Result<Self, Flaw> {
        Self::read(der, true)
    }

    fn read(der: &'a [u8], old: bool) -> Result<Self, Flaw> {
        let bad = Flaw::Encoding;
        let mut outer = Reader(Reader(der).only(SEQUENCE).ok_or(bad("no certificate"))?);
        let (signed, inner) = outer.next_whole(SEQUENCE).ok_or(bad("nothing that is signed"))?;
        let algorithm = outer.next(SEQUENCE).ok_or(bad("no algorithm"))?;
        let signature = outer.next_bits().ok_or(bad("no signature"))?;
        let inner = match inner.strip_prefix(VERSION) {
            Some(inner) => inner,
            None if old && inner.first() == Some(&INTEGER) => inner,
            None => return Err(bad("another version than 3")),
        };
        let mut inner = Reader(inner);
        inner.next(INTEGER).ok_or(bad("no serial number"))?;
        if inner.next(SEQUENCE) != Some(algorithm) {
            return Err(bad("two algorithms"));
        }
        let (issuer, _) = inner.next_whole(SEQUENCE).ok_or(bad("no issuer"))?;
        let mut times = Reader(inner.next(SEQUENCE).ok_or(bad("no validity"))?);
        let validity = time(&mut times).zip(time(&mut times)).ok_or(bad("no time"))?;
        let (subject, _) = inner.next_whole(SEQUENCE).ok_or(bad("no subject"))?;
        let (key, info) = inner.next_whole(SEQUENCE).ok_or(bad("no key"))?;
        let mut info = Reader(info);
        let key_algorithm = info.next(SEQUENCE).ok_or(bad("no algorithm of the key"))?;
        let key_bits = info.next_bits().ok_or(bad("no bits of the key"))?;
        let _ = inner.next(ISSUER_ID);
        let _ = inner.next(SUBJECT_ID);
        let extensions = match inner.next(EXTENSIONS) {
            Some(wrapped) => Reader(wrapped).only(SEQUENCE).ok_or(bad("no extensions where they belong"))?,
            None => &[],
        };
        if [outer, inner, times, info].iter().any(|rest| !rest.0.is_empty()) {
            return Err(bad("more than belongs there"));
        }
        Ok(Self {
            signed,
            subject,
            issuer,
            key,
            key_algorithm,
            key_bits,
            validity,
            extensions,
            algorithm,
            signature,
        })
    }

    /// The host's key and signature. No other extension may insist on being understood.
    fn extension(&self) -> Result<(&'a [u8], &'a [u8]), Flaw> {
        let bad = Flaw::Encoding;
        let (mut all, mut found) = (Reader(self.extensions), None);
        while !all.0.is_empty() {
            let mut one = Reader(all.next(SEQUENCE).ok_or(bad("no extension"))?);
            let id = one.next(OID).ok_or(bad("an extension without a name"))?;
            let critical = one.next(BOOLEAN).is_some_and(|value| value != [0]);
            let value = one.only(OCTET_STRING).ok_or(bad("an extension without a value"))?;
            if id == EXTENSION {
                if found.replace(value).is_some() {
                    return Err(bad("two keys of a host"));
                }
            } else if critical {
                return Err(Flaw::UnknownCritical);
            }
        }
        let value = found.ok_or(Flaw::NoHostKey)?;
        let mut value = Reader(Reader(value).only(SEQUENCE).ok_or(bad("no key of a host in its place"))?);
        let key = value.next(OCTET_STRING).ok_or(bad("no key of a host"))?;
        let signature = value.only(OCTET_STRING).ok_or(bad("no signature of a host"))?;
        Ok((key, signature))
    }
}

/// First and last second, since 1970, that any X.509 certificate is valid at; `None` if it is none.
pub fn validity(der: &[u8]) -> Option<(i64, i64)> {
    Parts::any(der).ok().map(|parts| parts.validity)
}

/// A point in time (RFC 5280, 4.1.2.5), in seconds since 1970. UTCTime's two digits mean 1950 to 2049.
fn time(reader: &mut Reader<'_>) -> Option<i64> {
    let (year_digits, text) = match reader.next(GENERALIZED_TIME) {
        Some(text) => (4, text),
        None => (2, reader.next(UTC_TIME)?),
    };
    let text = text.strip_suffix(b"Z").filter(|text| text.len() == year_digits + 10)?;
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
        })
    };
    let (year, rest) = text.split_at(year_digits);
    let year = match (year_digits, number(year)?) {
        (2, year @ 0..50) => 2000 + year,
        (2, year) => 1900 + year,
        (_, year) => year,
    };
    let mut pairs = rest.chunks(2).map(number);
    let mut within = |least: i64, most: i64| pairs.next()?.filter(|value| (least..=most).contains(value));
    let (month, day) = (within(1, 12)?, within(1, 31)?);
    let (hour, minute, second) = (within(0, 23)?, within(0, 59)?, within(0, 59)?);
    // Days since 1970. Years begin in March here, so that a leap day is the last of its year.
    let (years, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = years.div_euclid(4) - years.div_euclid(100) + years.div_euclid(400);
    let days = years * 365 + leap_days + (153 * months + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// A new certificate of the host with this key, and the key that it belongs to: ECDSA on P-256, which every
/// implementation of libp2p knows.
///
/// # Errors
/// In words, when no random numbers can be had or the host's key does not sign.
pub(crate) fn generate(
    host: &Keypair,
) -> Result<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>), String> {
    let failed = |_| "no key of a certificate can be made: the system gives no random numbers".to_owned();
    let random = SystemRandom::new();
    let private = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).map_err(failed)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, private.as_ref(), &random)
        .map_err(|e| format!("a key just made cannot be used: {e}"))?;

    let key = element(
        SEQUENCE,
        &[
            &element(SEQUENCE, &[alg_id::ECDSA_P256.as_ref()]),
            &element(BIT_STRING, &[&[0], pair.public_key().as_ref()]),
        ],
    );
    let signature = host
        .sign(&[PREFIX, &key].concat())
        .map_err(|e| format!("the host's key signs no certificate: {e}"))?;
    let signed_key = element(
        SEQUENCE,
        &[&element(OCTET_STRING, &[&host.public().encode_protobuf()]), &element(OCTET_STRING, &[&signature])],
    );
    let extension = element(
        SEQUENCE,
        &[&element(OID, &[EXTENSION]), &element(BOOLEAN, &[&[0xff]]), &element(OCTET_STRING, &[&signed_key])],
    );
    let algorithm = element(SEQUENCE, &[alg_id::ECDSA_SHA256.as_ref()]);
    let nobody = element(SEQUENCE, &[]);
    let signed = element(
        SEQUENCE,
        &[
            VERSION,
            // One certificate per key: any serial number tells it from the key's others.
            &element(INTEGER, &[&[1]]),
            &algorithm,
            &nobody,
            &element(
                SEQUENCE,
                &[&element(UTC_TIME, &[NOT_BEFORE]), &element(GENERALIZED_TIME, &[NOT_AFTER])],
            ),
            &nobody,
            &key,
            &element(EXTENSIONS, &[&element(SEQUENCE, &[&extension])]),
        ],
    );
    let own = pair.sign(&random, &signed).map_err(failed)?;
    let certificate = element(SEQUENCE, &[&signed, &algorithm, &element(BIT_STRING, &[&[0], own.as_ref()])]);
    Ok((CertificateDer::from(certificate), PrivatePkcs8KeyDer::from(private.as_ref().to_vec())))
}
