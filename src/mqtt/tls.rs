//! TLS towards clients: what the files of `mqtt.tls_cert`, `mqtt.tls_key` and `mqtt.tls_ca` say, as rustls takes it.
//!
//! The crypto library is the one that the rest of the node has. TLS 1.2 is offered, too: many microcontrollers have no other.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use futures_rustls::{
    TlsAcceptor,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    rustls::{
        ALL_VERSIONS, Error, ServerConfig,
        crypto::ring::default_provider,
        sign::{CertifiedKey, SingleCertAndKey},
    },
};

use crate::{
    config::Mqtt,
    runtime::{ByteStream, wall},
    transport::tls::{Authorities, validity},
};

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// What is wrong with one of the files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("{key}: cannot read {}", path.display())]
    Read { key: &'static str, path: PathBuf, source: io::Error },
    #[error("{key}: {} is no PEM file", path.display())]
    Pem { key: &'static str, path: PathBuf, source: pem::Error },
    #[error("{key}: {} has no part that begins with -----BEGIN {part}-----", path.display())]
    Empty { key: &'static str, path: PathBuf, part: &'static str },
    #[error("mqtt.tls_key: {} has a key that cannot be used: RSA from 2048 bits, or ECDSA on P-256 or P-384, or Ed25519", path.display())]
    Key { path: PathBuf, source: Error },
    #[error("mqtt.tls_key: the key in {} is not that of the certificate in {}", key.display(), cert.display())]
    Mismatch { key: PathBuf, cert: PathBuf },
    #[error("mqtt.tls_ca: a certificate in {} cannot be used: {why}", path.display())]
    Authority { path: PathBuf, why: String },
    #[error("TLS")]
    Rustls(#[from] Error),
}

/// What the files say, and what is odd about it.
pub(crate) struct Offer {
    pub(crate) config: ServerConfig,
    /// When the certificate expires, in seconds since 1970.
    pub(crate) until: Option<i64>,
    pub(crate) warnings: Vec<String>,
}

/// Reads the files, if there are any. Blocks.
pub(crate) fn read(mqtt: &Mqtt) -> Result<Option<Offer>, TlsError> {
    let (Some(cert), Some(key)) = (&mqtt.tls_cert, &mqtt.tls_key) else { return Ok(None) };
    let provider = Arc::new(default_provider());
    let chain = certificates("mqtt.tls_cert", cert)?;
    let mut warnings = Vec::new();
    let valid = chain.first().and_then(|own| validity(own));
    if let Some((from, until)) = valid {
        let now = wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        if now < from || now > until {
            let why = if now < from { "is not valid yet" } else { "has expired" };
            warnings.push(format!("mqtt.tls_cert: the certificate in {} {why}", cert.display()));
        }
    }
    let bytes = contents("mqtt.tls_key", key)?;
    let private = PrivateKeyDer::from_pem_slice(&bytes).map_err(|source| match source {
        pem::Error::NoItemsFound => {
            TlsError::Empty { key: "mqtt.tls_key", path: key.clone(), part: "PRIVATE KEY" }
        }
        source => TlsError::Pem { key: "mqtt.tls_key", path: key.clone(), source },
    })?;
    let signing = provider
        .key_provider
        .load_private_key(private)
        .map_err(|source| TlsError::Key { path: key.clone(), source })?;
    let shown = CertifiedKey::new(chain, signing);
    match shown.keys_match() {
        Ok(()) => {}
        Err(Error::InconsistentKeys(_)) => {
            return Err(TlsError::Mismatch { key: key.clone(), cert: cert.clone() });
        }
        // Old tools make certificates of version 1, which many clients take.
        Err(e) => warnings.push(format!(
            "mqtt.tls_cert: some clients will not take the certificate in {}: {e}",
            cert.display()
        )),
    }
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(ALL_VERSIONS)?;
    let builder = match &mqtt.tls_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let authorities = Authorities::new(certificates("mqtt.tls_ca", path)?)
                .map_err(|why| TlsError::Authority { path: path.clone(), why })?;
            builder.with_client_cert_verifier(Arc::new(authorities))
        }
    };
    let config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    Ok(Some(Offer { config, until: valid.map(|(_, until)| until), warnings }))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = contents(key, path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let all = all.map_err(|source| TlsError::Pem { key, path: path.into(), source })?;
    if all.is_empty() {
        return Err(TlsError::Empty { key, path: path.into(), part: "CERTIFICATE" });
    }
    Ok(all)
}

fn contents(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| {
        // A pipe or a device may never end.
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
        }
        if file.take(LARGEST + 1).read_to_end(&mut bytes)? as u64 > LARGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than 1 MiB"));
        }
        Ok(())
    });
    read.map_err(|source| TlsError::Read { key, path: path.into(), source })?;
    Ok(bytes)
}

/// What the listeners offer, which may change between two connections.
pub(super) struct Tls(Mutex<TlsAcceptor>);

impl Tls {
    pub(super) fn new(config: ServerConfig) -> Self {
        Self(Mutex::new(Arc::new(config).into()))
    }

    pub(super) fn replace(&self, config: ServerConfig) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config).into();
    }

    /// Does the server's part of a handshake.
    ///
    /// # Errors
    /// When the client breaks off, or shows no certificate that holds.
    pub(super) async fn accept(&self, stream: Box<dyn ByteStream>) -> io::Result<Box<dyn ByteStream>> {
        let acceptor = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Box::new(acceptor.accept(stream).await?))
    }
}
