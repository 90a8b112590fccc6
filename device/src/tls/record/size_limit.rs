//! How the server is asked for short records, so that a 16 KB buffer is not needed.
//!
//! record_size_limit (RFC 8449) is the current way, max_fragment_length (RFC 6066 4) the one that more
//! servers know. A server that knows neither may still send long records; those end the connection.

use crate::codec::{NoSpace, Writer};
use crate::tls::message::{extension, write_extension};

/// Offers both extensions for records of `plaintext_len_max` bytes; a server that knows the first ignores the
/// second (RFC 8449 5).
pub(in crate::tls) fn write_extensions(plaintext_len_max: u16, out: &mut Writer<'_>) -> Result<(), NoSpace> {
    // The content type counts as plaintext.
    write_extension(out, extension::RECORD_SIZE_LIMIT, |out| out.u16(plaintext_len_max + 1))?;
    match fragment_code(plaintext_len_max) {
        Some(code) => write_extension(out, extension::MAX_FRAGMENT_LENGTH, |out| out.u8(code)),
        None => Ok(()),
    }
}

/// The code of max_fragment_length to offer: 1 to 4 stand for 2^9 to 2^12 bytes, there is none for more.
pub(in crate::tls) fn fragment_code(plaintext_len_max: u16) -> Option<u8> {
    match plaintext_len_max.checked_ilog2() {
        Some(bits @ 9..=13) => Some((bits - 8).min(4) as u8),
        _ => None,
    }
}

/// What `code` allows a record to hold, in the terms of record_size_limit.
pub(in crate::tls) const fn limit_of_code(code: u8) -> u16 {
    (1 << (8 + code)) + 1
}
