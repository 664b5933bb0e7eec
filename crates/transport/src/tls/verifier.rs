//! What rustls asks during a handshake: whether the other side's certificate is one of libp2p, and whether it
//! holds the certificate's key. Never who it is: the transport compares that afterwards.

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::certificate::{Certificate, Flaw};

/// The same for both sides, with the algorithms whose signatures are believed.
#[derive(Debug)]
pub(super) struct Verifier(pub(super) WebPkiSupportedAlgorithms);

impl Verifier {
    fn certificate(
        &self,
        certificate: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if !more.is_empty() {
            return Err(Error::General(format!("{} certificates presented instead of 1", more.len() + 1)));
        }
        Certificate::read(certificate, now, self.0.all).map(|_| ()).map_err(refused)
    }

    fn handshake(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // It was read in full a moment ago.
        let key = Certificate::key_of(certificate).map_err(refused)?;
        verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(key), signature, &self.0)
    }
}

/// As rustls says it to the other side: the alerts are those of RFC 8446, 6.2.
fn refused(flaw: Flaw) -> Error {
    Error::InvalidCertificate(match flaw {
        Flaw::Encoding(_) => CertificateError::BadEncoding,
        Flaw::UnknownCritical => CertificateError::UnhandledCriticalExtension,
        Flaw::NotYetValid => CertificateError::NotValidYet,
        Flaw::Expired => CertificateError::Expired,
        Flaw::NotSelfSigned => CertificateError::BadSignature,
        Flaw::NoHostKey | Flaw::HostKey | Flaw::NotTheHosts | Flaw::Algorithm => {
            CertificateError::Other(rustls::OtherError(std::sync::Arc::new(flaw)))
        }
    })
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.certificate(certificate, more, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("libp2p speaks TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.handshake(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.certificate(certificate, more, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("libp2p speaks TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.handshake(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
