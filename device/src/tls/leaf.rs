//! What the handshake itself needs of the server's certificate: its key, and that it may sign.
//!
//! webpki verifies the certificate first, but offers the key only inside `verify_signature`, and the
//! signature to check comes one message later. Reading the key out costs nothing; keeping the whole
//! certificate would.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use super::{Alert, Error};
use crate::codec::{DecodeError, Reader};
use crate::crypto::der;
use crate::crypto::signature::{self, PUBLIC_KEY_LEN_MAX};
use heapless::Vec;
use pki_types::AlgorithmIdentifier;

/// A certificate's public key.
pub(super) struct LeafKey {
    /// The kind of the key, as in the certificate.
    pub(super) algorithm: AlgorithmIdentifier,
    /// The contents of `subjectPublicKey`.
    pub(super) public_key: Vec<u8, PUBLIC_KEY_LEN_MAX>,
}

/// The key of a certificate that webpki has verified.
///
/// # Errors
/// If the key is of a kind this build does not verify, or not for signing (RFC 8446 4.4.2.2).
pub(super) fn parse_leaf(certificate: &[u8]) -> Result<LeafKey, Error> {
    let mut certificate = Reader::new(certificate);
    let mut signed = Reader::new(der::value(&mut certificate, der::SEQUENCE, FIELD)?);
    let mut body = Reader::new(der::value(&mut signed, der::SEQUENCE, FIELD)?);
    // version, serialNumber, signature, issuer, validity, subject (RFC 5280 4.1)
    for _ in 0..6 {
        der::any_value(&mut body, FIELD)?;
    }
    let key = parse_key(der::value(&mut body, der::SEQUENCE, FIELD)?)?;
    if !body.is_empty() && !may_sign(der::value(&mut body, EXTENSIONS, FIELD)?)? {
        let cause = "the certificate's key usage excludes signatures";
        return Err(Error::peer(Alert::UNSUPPORTED_CERTIFICATE, cause));
    }
    Ok(key)
}

fn parse_key(info: &[u8]) -> Result<LeafKey, Error> {
    let mut info = Reader::new(info);
    let algorithm = der::value(&mut info, der::SEQUENCE, FIELD)?;
    let mut bits = Reader::new(der::value(&mut info, der::BIT_STRING, FIELD)?);
    let unused_bits = bits.u8(FIELD)?;
    let unsupported = Error::peer(
        Alert::UNSUPPORTED_CERTIFICATE,
        "the certificate's key is of a kind or size this build does not verify",
    );
    let algorithm = signature::key_algorithm(algorithm).ok_or(unsupported)?;
    match Vec::from_slice(bits.rest()) {
        Ok(public_key) if unused_bits == 0 => Ok(LeafKey { algorithm, public_key }),
        _ => Err(unsupported),
    }
}

/// Whether the digitalSignature bit is set, or the extension absent (RFC 5280 4.2.1.3).
fn may_sign(extensions: &[u8]) -> Result<bool, DecodeError> {
    let mut extensions = Reader::new(extensions);
    let mut list = Reader::new(der::value(&mut extensions, der::SEQUENCE, FIELD)?);
    while !list.is_empty() {
        let mut extension = Reader::new(der::value(&mut list, der::SEQUENCE, FIELD)?);
        if der::value(&mut extension, der::OBJECT_IDENTIFIER, FIELD)? != KEY_USAGE {
            continue;
        }
        let (mut tag, mut contents) = der::any_value(&mut extension, FIELD)?;
        if tag == der::BOOLEAN {
            (tag, contents) = der::any_value(&mut extension, FIELD)?;
        }
        let mut bits = Reader::new(contents);
        let bits = der::value(&mut bits, der::BIT_STRING, FIELD)?;
        let [_unused, first, ..] = bits else { return Ok(false) };
        return Ok(tag == der::OCTET_STRING && first & DIGITAL_SIGNATURE != 0);
    }
    Ok(true)
}

const FIELD: &str = "certificate";
/// `[3]` of a TBSCertificate.
const EXTENSIONS: u8 = 0xa3;
/// id-ce-keyUsage, 2.5.29.15.
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
/// The first, and so the most significant, bit of KeyUsage.
const DIGITAL_SIGNATURE: u8 = 0x80;
