//! As much of DER (X.690) as public keys and the scan of a verified certificate need.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::codec::{DecodeError, Reader};

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;

/// The contents of the next value, which must have `tag`.
pub(crate) fn value<'a>(
    reader: &mut Reader<'a>,
    tag: u8,
    field: &'static str,
) -> Result<&'a [u8], DecodeError> {
    match any_value(reader, field)? {
        (found, contents) if found == tag => Ok(contents),
        _ => Err(DecodeError { field }),
    }
}

/// The tag and the contents of the next value; lengths up to 65,535 in their shortest form, as in webpki.
pub(crate) fn any_value<'a>(
    reader: &mut Reader<'a>,
    field: &'static str,
) -> Result<(u8, &'a [u8]), DecodeError> {
    let tag = reader.u8(field)?;
    let (len, shortest) = match reader.u8(field)? {
        len @ 0..=0x7f => (usize::from(len), 0),
        0x81 => (usize::from(reader.u8(field)?), 0x80),
        0x82 => (usize::from(reader.u16(field)?), 0x100),
        _ => return Err(DecodeError { field }),
    };
    if len < shortest {
        return Err(DecodeError { field });
    }
    Ok((tag, reader.take(len, field)?))
}

/// The digits of a positive INTEGER, without leading zeros.
pub(crate) fn positive<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<&'a [u8], DecodeError> {
    match value(reader, INTEGER, field)? {
        [0, digits @ ..] if digits.first().is_some_and(|&first| first & 0x80 != 0) => Ok(digits),
        digits if digits.first().is_some_and(|&first| first != 0 && first & 0x80 == 0) => Ok(digits),
        _ => Err(DecodeError { field }),
    }
}
