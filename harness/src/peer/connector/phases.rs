//! When the phases of a handshake that only TLS sees were reached, and what certificate the broker showed.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, KeyLog, SignatureScheme};

use crate::measure::record::{Handshake, Phase};

/// When the phases of a handshake that only TLS sees were reached.
#[derive(Debug, Default)]
pub(in crate::peer) struct PhaseLog(Mutex<Seen>);

#[derive(Debug, Default, Clone)]
struct Seen {
    keys: Option<Instant>,
    verified: Option<Instant>,
    complete: Option<Instant>,
    refused: Option<rustls::CertificateError>,
    chain: Vec<CertificateDer<'static>>,
}

impl PhaseLog {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("no holder of this lock panics")
    }

    pub(in crate::peer) fn clear(&self) {
        *self.seen() = Seen::default();
    }

    /// The phases that were reached, and when.
    pub(super) fn reached(&self) -> impl Iterator<Item = (Phase, Instant)> + use<> {
        let Seen { keys, verified, complete, .. } = self.seen().clone();
        let phases = [
            (Phase::HandshakeKeys, keys),
            (Phase::CertificateVerified, verified),
            (Phase::HandshakeComplete, complete),
        ];
        phases.into_iter().filter_map(|(phase, at)| Some((phase, at?)))
    }

    /// The chain that the broker showed, its own certificate first.
    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.seen().chain.clone()
    }

    /// Why the certificate was refused, if it was.
    pub(in crate::peer) fn refusal(&self) -> Option<rustls::CertificateError> {
        self.seen().refused.clone()
    }

    /// A resumed handshake shows no certificate.
    pub(in crate::peer) fn handshake(&self) -> Handshake {
        match self.seen().verified {
            Some(_) => Handshake::Full,
            None => Handshake::Resumed,
        }
    }
}

/// rustls announces each secret as it comes to be; the secret itself is of no interest here.
impl KeyLog for PhaseLog {
    fn log(&self, label: &str, _: &[u8], _: &[u8]) {
        let mut seen = self.seen();
        match label {
            "CLIENT_HANDSHAKE_TRAFFIC_SECRET" => seen.keys = Some(Instant::now()),
            // Derived once the server's Finished is verified.
            "CLIENT_TRAFFIC_SECRET_0" => seen.complete = Some(Instant::now()),
            _ => {}
        }
    }
}

/// The usual verifier, which also notes when it is done. It holds the server to the target's name, even where
/// a client library only knows the address it connects to.
#[derive(Debug)]
pub(super) struct Timed {
    inner: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
    phases: Arc<PhaseLog>,
}

impl Timed {
    pub(super) fn new(
        inner: Arc<WebPkiServerVerifier>,
        name: ServerName<'static>,
        phases: Arc<PhaseLog>,
    ) -> Self {
        Self { inner, name, phases }
    }
}

impl ServerCertVerifier for Timed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict =
            self.inner.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now);
        let mut seen = self.phases.seen();
        let presented = std::iter::once(end_entity).chain(intermediates);
        seen.chain = presented.map(|certificate| certificate.clone().into_owned()).collect();
        if let Err(rustls::Error::InvalidCertificate(reason)) = &verdict {
            seen.refused = Some(reason.clone());
        }
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verdict = self.inner.verify_tls13_signature(message, cert, dss);
        self.phases.seen().verified = Some(Instant::now());
        verdict
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
