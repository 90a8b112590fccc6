//! What the handshake itself needs of the server's certificate: its key, and that it may sign.
//!
//! webpki verifies the certificate first, but offers the key only inside `verify_signature`, and the
//! signature to check comes one message later. Reading the key out costs nothing; keeping the whole
//! certificate would.

use super::{Alert, Error};
use crate::codec::{DecodeError, Reader};
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
    let mut signed = Reader::new(value(&mut certificate, SEQUENCE)?);
    let mut body = Reader::new(value(&mut signed, SEQUENCE)?);
    // version, serialNumber, signature, issuer, validity, subject (RFC 5280 4.1)
    for _ in 0..6 {
        any_value(&mut body)?;
    }
    let key = parse_key(value(&mut body, SEQUENCE)?)?;
    if !body.is_empty() && !may_sign(value(&mut body, EXTENSIONS)?)? {
        let cause = "the certificate's key usage excludes signatures";
        return Err(Error::peer(Alert::UNSUPPORTED_CERTIFICATE, cause));
    }
    Ok(key)
}

fn parse_key(info: &[u8]) -> Result<LeafKey, Error> {
    let mut info = Reader::new(info);
    let algorithm = value(&mut info, SEQUENCE)?;
    let mut bits = Reader::new(value(&mut info, BIT_STRING)?);
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
    let mut list = Reader::new(value(&mut extensions, SEQUENCE)?);
    while !list.is_empty() {
        let mut extension = Reader::new(value(&mut list, SEQUENCE)?);
        if value(&mut extension, OBJECT_IDENTIFIER)? != KEY_USAGE {
            continue;
        }
        let (mut tag, mut contents) = any_value(&mut extension)?;
        if tag == BOOLEAN {
            (tag, contents) = any_value(&mut extension)?;
        }
        let mut bits = Reader::new(contents);
        let bits = value(&mut bits, BIT_STRING)?;
        let [_unused, first, ..] = bits else { return Ok(false) };
        return Ok(tag == OCTET_STRING && first & DIGITAL_SIGNATURE != 0);
    }
    Ok(true)
}

/// The contents of the next DER value, which must have `tag`.
fn value<'a>(reader: &mut Reader<'a>, tag: u8) -> Result<&'a [u8], DecodeError> {
    match any_value(reader)? {
        (found, contents) if found == tag => Ok(contents),
        _ => Err(DecodeError { field: FIELD }),
    }
}

/// The tag and the contents of the next DER value; lengths up to 65,535, as in webpki.
fn any_value<'a>(reader: &mut Reader<'a>) -> Result<(u8, &'a [u8]), DecodeError> {
    let tag = reader.u8(FIELD)?;
    let len = match reader.u8(FIELD)? {
        len @ 0..=0x7f => usize::from(len),
        0x81 => usize::from(reader.u8(FIELD)?),
        0x82 => usize::from(reader.u16(FIELD)?),
        _ => return Err(DecodeError { field: FIELD }),
    };
    Ok((tag, reader.take(len, FIELD)?))
}

const FIELD: &str = "certificate";
const BOOLEAN: u8 = 0x01;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// `[3]` of a TBSCertificate.
const EXTENSIONS: u8 = 0xa3;
/// id-ce-keyUsage, 2.5.29.15.
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
/// The first, and so the most significant, bit of KeyUsage.
const DIGITAL_SIGNATURE: u8 = 0x80;
