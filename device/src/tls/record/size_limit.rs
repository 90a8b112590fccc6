//! How the server is asked for short records, so that a 16 KB buffer is not needed.
//!
//! record_size_limit (RFC 8449) is the current way, max_fragment_length (RFC 6066 4) the one that more
//! servers know. A server that knows neither may still send long records; those end the connection.

use crate::codec::{NoSpace, Writer};
use crate::tls::message::{extension, write_extension};

/// Longest plaintext of a record in either direction, in bytes: max_fragment_length has 4,096 as its largest
/// value, and a certificate chain then takes one record.
pub const PLAINTEXT_LEN_MAX: usize = 4096;

/// Offers both extensions; a server that knows the first ignores the second (RFC 8449 5).
pub(crate) fn write_extensions(out: &mut Writer<'_>) -> Result<(), NoSpace> {
    // The content type counts as plaintext.
    write_extension(out, extension::RECORD_SIZE_LIMIT, |out| out.u16(PLAINTEXT_LEN_MAX as u16 + 1))?;
    write_extension(out, extension::MAX_FRAGMENT_LENGTH, |out| out.u8(MAX_FRAGMENT_LENGTH_4096))
}

/// The code of 2^12 bytes (RFC 6066 4).
const MAX_FRAGMENT_LENGTH_4096: u8 = 4;
