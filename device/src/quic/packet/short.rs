//! 1-RTT packets (RFC 9000 17.3.1).
//!
//! ```text
//! 0 1 S R R K P P | destination id | packet number (1-4) | payload
//! ```

use core::ops::Range;

use crate::codec::{NoSpace, Writer};
use crate::quic::cid::ConnectionId;

use super::{FIXED, KEY_PHASE};

/// Writes a header and the low `number_len` bytes of `number`, whose place is returned.
///
/// # Errors
/// [`NoSpace`], with part of it written: the caller truncates.
#[expect(clippy::indexing_slicing, reason = "a number has one to four bytes")]
pub fn encode_short_header(
    destination: &ConnectionId,
    key_phase: u8,
    number: u64,
    number_len: usize,
    w: &mut Writer<'_>,
) -> Result<Range<usize>, NoSpace> {
    let phase = if key_phase & 1 == 1 { KEY_PHASE } else { 0 };
    w.u8(FIXED | phase | (number_len - 1) as u8)?;
    w.put(destination.as_bytes())?;
    let at = w.len();
    w.put(&(number as u32).to_be_bytes()[4 - number_len..])?;
    Ok(at..w.len())
}
