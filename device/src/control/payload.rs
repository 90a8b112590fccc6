//! Payloads that can be judged by whoever receives them.
//!
//! ```text
//!  0  magic     u16  0x4d51
//!  2  topic     u16  index of the topic within the workload
//!  4  run       u32
//!  8  sequence  u32
//! 12  intended  u64  when it was due, microseconds by the sender's clock
//! 20  filler         seeded, so that compression or a repeated buffer shows
//! -4  crc       u32  of everything before
//! ```
//! Big-endian throughout. Device, peer and harness share this encoder and checker.

use super::Verdict;
use super::crc::crc32;
use crate::codec::{DecodeError, NoSpace, Reader, Writer};

/// What a payload says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Header {
    /// The run it belongs to.
    pub run: u32,
    /// Index of its topic within the workload.
    pub topic: u16,
    /// Its number in the run.
    pub sequence: u32,
    /// When it was due, in microseconds by the sender's clock.
    pub intended_us: u64,
}

/// Smallest payload: header and CRC, in bytes.
pub const OVERHEAD: usize = HEADER_LEN + CRC_LEN;

const HEADER_LEN: usize = 20;
const CRC_LEN: usize = 4;
/// "MQ": tells a damaged payload from one that was never ours.
const MAGIC: u16 = 0x4d51;

/// Fills all of `payload`: header, filler from `seed` and the sequence number, CRC.
///
/// # Errors
/// [`NoSpace`] when `payload` is shorter than [`OVERHEAD`].
pub fn write(header: &Header, seed: u64, payload: &mut [u8]) -> Result<(), NoSpace> {
    if payload.len() < OVERHEAD {
        return Err(NoSpace);
    }
    let (body, tail) = payload.split_at_mut(payload.len() - CRC_LEN);
    let mut writer = Writer::new(body);
    writer.u16(MAGIC)?;
    writer.u16(header.topic)?;
    writer.u32(header.run)?;
    writer.u32(header.sequence)?;
    writer.u64(header.intended_us)?;
    fill(seed ^ u64::from(header.sequence) << 32 ^ u64::from(header.run), &mut body[HEADER_LEN..]);
    tail.copy_from_slice(&crc32(body).to_be_bytes());
    Ok(())
}

/// Reads and judges a payload. The header is there unless the verdict is [`Verdict::Foreign`].
pub fn check(payload: &[u8]) -> (Option<Header>, Verdict) {
    match read(payload) {
        Err(_) => (None, Verdict::Foreign),
        Ok((header, crc)) if crc == crc32(&payload[..payload.len() - CRC_LEN]) => {
            (Some(header), Verdict::Intact)
        }
        Ok((header, _)) => (Some(header), Verdict::Corrupt),
    }
}

fn read(payload: &[u8]) -> Result<(Header, u32), DecodeError> {
    let mut reader = Reader::new(payload);
    if reader.u16("payload.magic")? != MAGIC {
        return Err(DecodeError { field: "payload.magic" });
    }
    let header = Header {
        topic: reader.u16("payload.topic")?,
        run: reader.u32("payload.run")?,
        sequence: reader.u32("payload.sequence")?,
        intended_us: reader.u64("payload.intended")?,
    };
    let filler = reader.remaining().checked_sub(CRC_LEN).ok_or(DecodeError { field: "payload.crc" })?;
    reader.take(filler, "payload.filler")?;
    Ok((header, reader.u32("payload.crc")?))
}

/// xorshift64*: enough to make payloads differ, cheap enough not to be measured.
fn fill(seed: u64, filler: &mut [u8]) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for chunk in filler.chunks_mut(8) {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let word = state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_payload_comes_back_as_it_was_written(
            run: u32, topic: u16, sequence: u32, intended_us: u64, seed: u64, len in OVERHEAD..600,
        ) {
            let header = Header { run, topic, sequence, intended_us };
            let mut buffer = [0; 600];
            write(&header, seed, &mut buffer[..len]).expect("at least the overhead");
            prop_assert_eq!(check(&buffer[..len]), (Some(header), Verdict::Intact));
        }

        #[test]
        fn a_changed_or_cut_payload_is_never_intact(
            seed: u64, len in OVERHEAD..200, position: prop::sample::Index, flip in 1u8.., cut in 1usize..20,
        ) {
            let header = Header { run: 1, topic: 2, sequence: 3, intended_us: 4 };
            let mut buffer = [0; 200];
            let payload = &mut buffer[..len];
            write(&header, seed, payload).expect("at least the overhead");
            prop_assert_ne!(check(&payload[..len - cut]).1, Verdict::Intact);
            payload[position.index(len)] ^= flip;
            prop_assert_ne!(check(payload).1, Verdict::Intact);
        }
    }

    #[test]
    fn a_payload_that_is_not_ours_is_foreign() {
        for foreign in [&b""[..], b"hello", b"M", &[0x4d, 0x51, 0, 0]] {
            assert_eq!(check(foreign), (None, Verdict::Foreign));
        }
    }

    #[test]
    fn a_payload_shorter_than_its_overhead_is_refused() {
        let header = Header { run: 1, topic: 2, sequence: 3, intended_us: 4 };
        assert_eq!(write(&header, 0, &mut [0; OVERHEAD - 1]), Err(NoSpace));
    }
}
