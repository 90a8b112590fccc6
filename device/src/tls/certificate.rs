//! CertificateRequest, Certificate and CertificateVerify of the server (RFC 8446 4.3.2, 4.4.2, 4.4.3).
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use super::finished::{ClientIdentity, ExpectFinished};
use super::handshake::{Common, Level, Message, Next, State};
use super::leaf::{LeafKey, parse_leaf};
use super::message::{extension, finish, kind, read_extensions, unexpected_extension};
use super::{Alert, Config, Error, Step};
use crate::codec::Reader;
use crate::crypto::{Crypto, SECRET_LEN_MAX, Secret, signature};
use core::time::Duration;
use heapless::Vec;
use pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

/// Most intermediate certificates looked at. Public chains have one or two, a root that is sent along adds
/// one; more are a reason to fail rather than to search.
const INTERMEDIATES_MAX: usize = 5;

/// The server has to show its certificate, and may ask for the client's before.
#[derive(Default)]
pub(super) struct ExpectCertificate {
    client_identity: ClientIdentity,
}

impl ExpectCertificate {
    #[inline(never)]
    pub(super) fn handle<'m, C: Crypto>(
        &mut self,
        common: &mut Common<C>,
        config: &Config<'_>,
        message: &Message<'m>,
    ) -> Result<Next<'m>, Error> {
        if message.kind == kind::CERTIFICATE_REQUEST && self.client_identity == ClientIdentity::NotRequested {
            message.expect(kind::CERTIFICATE_REQUEST, Level::Handshake)?;
            self.client_identity = read_request(&mut message.body.clone(), config)?;
            common.transcript.update(message.bytes);
            return Ok((None, Step::Continue));
        }
        message.expect(kind::CERTIFICATE, Level::Handshake)?;
        let leaf = verify_message(&message.body, config)?;
        common.transcript.update(message.bytes);
        let next = ExpectCertificateVerify { leaf, client_identity: self.client_identity };
        Ok((Some(State::CertificateVerify(next)), Step::Continue))
    }
}

/// The server has shown a valid certificate, and has to prove that it owns the key.
pub(super) struct ExpectCertificateVerify {
    leaf: LeafKey,
    client_identity: ClientIdentity,
}

impl ExpectCertificateVerify {
    #[inline(never)]
    pub(super) fn handle<'m, C: Crypto>(
        &self,
        common: &mut Common<C>,
        message: &Message<'m>,
    ) -> Result<Next<'m>, Error> {
        message.expect(kind::CERTIFICATE_VERIFY, Level::Handshake)?;
        let mut body = message.body.clone();
        let scheme = body.u16("certificate_verify.algorithm")?;
        let signature = body.vec16("certificate_verify.signature")?;
        finish(&body, "certificate_verify")?;
        let algorithm = signature::for_handshake(scheme, self.leaf.algorithm).ok_or(Error::peer(
            Alert::ILLEGAL_PARAMETER,
            "CertificateVerify uses an algorithm that was not offered or does not fit the certificate",
        ))?;
        let content = SignedContent::new(SERVER_CONTEXT, &common.transcript.hash(common.suite.hash()));
        let verified = algorithm.verify_signature(&self.leaf.public_key, content.as_bytes(), signature);
        verified.map_err(|_| {
            let cause = "CertificateVerify: the server does not own the key of its certificate";
            Error::peer(Alert::DECRYPT_ERROR, cause)
        })?;
        common.transcript.update(message.bytes);
        let next = ExpectFinished { client_identity: self.client_identity };
        Ok((Some(State::Finished(next)), Step::CertificateVerified))
    }
}

/// What a CertificateVerify signs (RFC 8446 4.4.3).
pub(super) struct SignedContent(Vec<u8, { 64 + SERVER_CONTEXT.len() + SECRET_LEN_MAX }>);

impl SignedContent {
    pub(super) fn new(context: &[u8; 34], transcript: &Secret) -> Self {
        let mut content = Vec::new();
        let parts: [&[u8]; 3] = [&[b' '; 64], context, transcript.as_bytes()];
        parts.iter().for_each(|part| content.extend_from_slice(part).expect("the sum of the lengths"));
        Self(content)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

const SERVER_CONTEXT: &[u8; 34] = b"TLS 1.3, server CertificateVerify\0";
/// The context string of the client's CertificateVerify.
pub(super) const CLIENT_CONTEXT: &[u8; 34] = b"TLS 1.3, client CertificateVerify\0";

fn read_request(body: &mut Reader<'_>, config: &Config<'_>) -> Result<ClientIdentity, Error> {
    if !body.vec8("certificate_request.context")?.is_empty() {
        let cause = "a CertificateRequest within the handshake must have no context";
        return Err(Error::peer(Alert::ILLEGAL_PARAMETER, cause));
    }
    let mut acceptable = None;
    read_extensions(body, |id, mut value| {
        if id == extension::SIGNATURE_ALGORITHMS {
            let mut schemes = Reader::new(value.vec16("signature_algorithms")?);
            finish(&value, "signature_algorithms")?;
            let mut found = false;
            while !schemes.is_empty() {
                found |= schemes.u16("signature_algorithms")? == signature::ECDSA_SECP256R1_SHA256;
            }
            acceptable = Some(found);
        }
        // Others (certificate authorities, OID filters) only help to choose among several identities.
        Ok(())
    })?;
    match acceptable {
        None => Err(Error::peer(Alert::MISSING_EXTENSION, "CertificateRequest without signature_algorithms")),
        Some(true) if config.client_auth.is_some() => Ok(ClientIdentity::Show),
        Some(_) => Ok(ClientIdentity::Decline),
    }
}

/// Verifies the chain where it lies and returns the leaf's key.
///
/// Kept out of line and called from shallow frames: path building takes 7 KB of stack on RV32, most of what
/// a handshake needs.
#[inline(never)]
fn verify_message(body: &Reader<'_>, config: &Config<'_>) -> Result<LeafKey, Error> {
    let mut body = body.clone();
    if !body.vec8("certificate.context")?.is_empty() {
        return Err(Error::peer(Alert::ILLEGAL_PARAMETER, "the server's Certificate must have no context"));
    }
    let mut list = Reader::new(body.vec24("certificate.list")?);
    finish(&body, "certificate.list")?;
    if list.is_empty() {
        return Err(Error::peer(Alert::DECODE_ERROR, "certificate.list: it is empty"));
    }
    let leaf = read_entry(&mut list)?;
    let mut intermediates = Vec::<CertificateDer<'_>, INTERMEDIATES_MAX>::new();
    while !list.is_empty() {
        let certificate = read_entry(&mut list)?;
        intermediates
            .push(certificate.into())
            .map_err(|_| Error::peer(Alert::BAD_CERTIFICATE, "the server's certificate chain is too long"))?;
    }
    verify_chain(leaf, &intermediates, config)?;
    parse_leaf(leaf)
}

fn read_entry<'m>(list: &mut Reader<'m>) -> Result<&'m [u8], Error> {
    let certificate = list.vec24("certificate.data")?;
    let extensions = list.vec16("certificate.extensions")?;
    if certificate.is_empty() {
        return Err(Error::peer(Alert::DECODE_ERROR, "certificate.data"));
    }
    // Neither OCSP staples nor certificate timestamps are asked for.
    match Reader::new(extensions).u16("certificate.extension") {
        Ok(id) => Err(unexpected_extension(id)),
        Err(_) if extensions.is_empty() => Ok(certificate),
        Err(error) => Err(error.into()),
    }
}

fn verify_chain(leaf: &[u8], intermediates: &[CertificateDer<'_>], config: &Config<'_>) -> Result<(), Error> {
    let leaf = CertificateDer::from(leaf);
    // By reference, for the path is built above it on the stack: taken out of the result, it would lie there twice.
    let leaf = EndEntityCert::try_from(&leaf);
    let leaf = match &leaf {
        Ok(leaf) => leaf,
        Err(error) => return Err(chain_error(error)),
    };
    // The name first: it is nearly free, the path costs two or three signature checks.
    let name = ServerName::try_from(config.server_name)
        .map_err(|_| Error::caller("the server name is neither a DNS name nor an IP address"))?;
    leaf.verify_is_valid_for_subject_name(&name).map_err(|error| chain_error(&error))?;
    leaf.verify_for_usage(
        signature::FOR_CERTIFICATES,
        config.trust_anchors,
        intermediates,
        UnixTime::since_unix_epoch(Duration::from_secs(config.unix_time_s)),
        KeyUsage::server_auth(),
        None,
        None,
    )
    .map(|_| ())
    .map_err(|error| chain_error(&error))
}

/// The alert and the cause that tell a certificate's defect (RFC 8446 6.2).
fn chain_error(error: &webpki::Error) -> Error {
    use webpki::Error as E;
    // A number first: the compiler makes of it a table of bytes, and of the causes themselves one of all errors twice.
    let defect = match error {
        E::CertExpired { .. } => 0,
        E::CertNotValidYet { .. } => 1,
        E::CertNotValidForName(_) => 2,
        E::UnknownIssuer => 3,
        E::InvalidSignatureForPublicKey => 4,
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => 5,
        E::CaUsedAsEndEntity => 6,
        E::EndEntityUsedAsCa | E::PathLenConstraintViolated | E::NameConstraintViolation => 7,
        E::CertRevoked => 8,
        E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
        | E::SignatureAlgorithmMismatch => 9,
        E::UnsupportedCriticalExtension | E::UnsupportedCertVersion | E::UnsupportedNameType => 10,
        E::MaximumSignatureChecksExceeded
        | E::MaximumPathBuildCallsExceeded
        | E::MaximumPathDepthExceeded
        | E::MaximumNameConstraintComparisonsExceeded => 11,
        _ => DEFECTS.len(),
    };
    let malformed = (Alert::BAD_CERTIFICATE, "a certificate in the chain is malformed");
    let (alert, cause) = DEFECTS.get(defect).copied().unwrap_or(malformed);
    Error::peer(alert, cause)
}

/// Defects of a certificate by the number that [`chain_error`] gives them.
static DEFECTS: [(Alert, &str); 12] = [
    (Alert::CERTIFICATE_EXPIRED, "the certificate has expired"),
    (Alert::CERTIFICATE_EXPIRED, "the certificate is not valid yet; is the clock right?"),
    (Alert::BAD_CERTIFICATE, "the certificate is for another server name"),
    (Alert::UNKNOWN_CA, "no trust anchor has issued the certificate"),
    (Alert::BAD_CERTIFICATE, "a signature in the certificate chain is wrong"),
    (Alert::UNSUPPORTED_CERTIFICATE, "the certificate's extended key usage excludes TLS servers"),
    (Alert::BAD_CERTIFICATE, "the server shows a CA certificate as its own"),
    (Alert::BAD_CERTIFICATE, "a certificate in the chain may not issue the one below it"),
    (Alert::CERTIFICATE_REVOKED, "the certificate has been revoked"),
    (Alert::UNSUPPORTED_CERTIFICATE, "the chain is signed with an algorithm this build does not verify"),
    (Alert::UNSUPPORTED_CERTIFICATE, "the certificate uses an unsupported feature"),
    (Alert::BAD_CERTIFICATE, "the certificate chain takes too much work to verify"),
];
