//! Handshake messages and extensions on the wire (RFC 8446 4).
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use super::{Alert, Error};
use crate::codec::{NoSpace, Reader, Writer};

/// Handshake message types (RFC 8446 4).
pub(super) mod kind {
    pub(crate) const CLIENT_HELLO: u8 = 1;
    pub(crate) const SERVER_HELLO: u8 = 2;
    pub(crate) const NEW_SESSION_TICKET: u8 = 4;
    pub(crate) const ENCRYPTED_EXTENSIONS: u8 = 8;
    pub(crate) const CERTIFICATE: u8 = 11;
    pub(crate) const CERTIFICATE_REQUEST: u8 = 13;
    pub(crate) const CERTIFICATE_VERIFY: u8 = 15;
    pub(crate) const FINISHED: u8 = 20;
    pub(crate) const KEY_UPDATE: u8 = 24;
    pub(crate) const MESSAGE_HASH: u8 = 254;
}

/// Extension types (RFC 8446 4.2; RFC 8449 4; RFC 9001 8.2).
pub(super) mod extension {
    pub(crate) const SERVER_NAME: u16 = 0;
    pub(crate) const MAX_FRAGMENT_LENGTH: u16 = 1;
    pub(crate) const SUPPORTED_GROUPS: u16 = 10;
    pub(crate) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(crate) const ALPN: u16 = 16;
    pub(crate) const RECORD_SIZE_LIMIT: u16 = 28;
    pub(crate) const PRE_SHARED_KEY: u16 = 41;
    pub(crate) const EARLY_DATA: u16 = 42;
    pub(crate) const SUPPORTED_VERSIONS: u16 = 43;
    pub(crate) const COOKIE: u16 = 44;
    pub(crate) const PSK_KEY_EXCHANGE_MODES: u16 = 45;
    pub(crate) const KEY_SHARE: u16 = 51;
    pub(crate) const QUIC_TRANSPORT_PARAMETERS: u16 = 57;
}

/// TLS 1.2, in the fields that have been frozen at it.
pub(super) const LEGACY_VERSION: u16 = 0x0303;
/// TLS 1.3, in supported_versions.
pub(super) const VERSION_1_3: u16 = 0x0304;

/// The type and the body of a whole handshake message.
pub(super) fn split(message: &[u8]) -> Result<(u8, Reader<'_>), Error> {
    let mut reader = Reader::new(message);
    let kind = reader.u8("handshake.type")?;
    let body = reader.vec24("handshake.length")?;
    finish(&reader, "handshake.length")?;
    Ok((kind, Reader::new(body)))
}

/// Length of the handshake message at the front of `bytes`, once all of it is there.
pub(super) fn whole_len(bytes: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(bytes);
    reader.u8("").ok()?;
    reader.vec24("").ok()?;
    Some(reader.position())
}

/// Fails unless everything has been read.
pub(super) fn finish(reader: &Reader<'_>, field: &'static str) -> Result<(), Error> {
    if reader.is_empty() { Ok(()) } else { Err(Error::peer(Alert::DECODE_ERROR, field)) }
}

/// Writes a whole handshake message around `body`.
pub(super) fn write(
    out: &mut Writer<'_>,
    kind: u8,
    body: impl FnOnce(&mut Writer<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let start = out.len();
    out.u8(kind)?;
    out.vec24(body).inspect_err(|_| out.truncate(start))
}

/// Writes one extension around `body`.
pub(super) fn write_extension(
    out: &mut Writer<'_>,
    id: u16,
    body: impl FnOnce(&mut Writer<'_>) -> Result<(), NoSpace>,
) -> Result<(), NoSpace> {
    out.u16(id)?;
    out.vec16(body)
}

/// Reads an extension block to its end, calling `each` with the type and the value of each.
///
/// # Errors
/// `illegal_parameter` for a type that occurs twice, `decode_error` for more than [`EXTENSIONS_MAX`].
pub(super) fn read_extensions<'m>(
    body: &mut Reader<'m>,
    mut each: impl FnMut(u16, Reader<'m>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut block = Reader::new(body.vec16("extensions.length")?);
    finish(body, "extensions.length")?;
    let mut seen = heapless::Vec::<u16, EXTENSIONS_MAX>::new();
    while !block.is_empty() {
        let id = block.u16("extension.type")?;
        let value = block.vec16("extension.value")?;
        if seen.contains(&id) {
            return Err(Error::peer(Alert::ILLEGAL_PARAMETER, "an extension occurs twice"));
        }
        seen.push(id).map_err(|_| Error::peer(Alert::DECODE_ERROR, "extensions: too many"))?;
        each(id, Reader::new(value))?;
    }
    Ok(())
}

/// Most extensions accepted in one block. A server answers only what was offered (about ten); tickets and
/// certificate requests may carry unknown ones, which are few in practice.
const EXTENSIONS_MAX: usize = 24;

/// The error for an extension that has no place in `ServerHello` and the like.
///
/// One that this client offers elsewhere is misplaced, any other was never offered (RFC 8446 4.2).
pub(super) const fn unexpected_extension(id: u16) -> Error {
    match id {
        extension::SERVER_NAME
        | extension::SUPPORTED_GROUPS
        | extension::SIGNATURE_ALGORITHMS
        | extension::ALPN
        | extension::PRE_SHARED_KEY
        | extension::EARLY_DATA
        | extension::SUPPORTED_VERSIONS
        | extension::COOKIE
        | extension::PSK_KEY_EXCHANGE_MODES
        | extension::KEY_SHARE
        | extension::QUIC_TRANSPORT_PARAMETERS => {
            Error::peer(Alert::ILLEGAL_PARAMETER, "an extension is in the wrong message")
        }
        _ => Error::peer(Alert::UNSUPPORTED_EXTENSION, "the server sent an extension that was not offered"),
    }
}
