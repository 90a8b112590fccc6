//! Packet numbers on the wire (RFC 9000 17.1, A.2, A.3).

/// Bytes needed so that a peer that has acknowledged up to `largest_acked` decodes `number` right.
pub fn encoded_len(number: u64, largest_acked: Option<u64>) -> usize {
    let unacked = largest_acked.map_or(number + 1, |acked| number - acked);
    // One bit more than the distance needs (RFC 9000 A.2).
    match unacked {
        0..0x80 => 1,
        0x80..0x8000 => 2,
        0x8000..0x0080_0000 => 3,
        _ => 4,
    }
}

/// The packet number that ends in the `len` bytes of `truncated` and is closest to `expected`
/// (RFC 9000 A.3).
pub fn decode(truncated: u32, len: usize, expected: u64) -> u64 {
    let window = 1_u64 << (8 * len);
    let candidate = (expected & !(window - 1)) | u64::from(truncated);
    if candidate + window / 2 <= expected && candidate < (1 << 62) - window {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_rfc_9000_a2() {
        assert_eq!(encoded_len(0xac5c02, Some(0xabe8b3)), 2);
        assert_eq!(encoded_len(0xace8fe, Some(0xabe8b3)), 3);
        assert_eq!(encoded_len(0, None), 1);
        assert_eq!(encoded_len(u64::from(u32::MAX), None), 4);
    }

    #[test]
    fn the_number_of_rfc_9000_a3_decodes() {
        assert_eq!(decode(0x9b32, 2, 0xa82f30ea + 1), 0xa82f9b32);
    }

    #[test]
    fn numbers_around_the_window_decode() {
        assert_eq!(decode(0xff, 1, 0x100), 0xff);
        assert_eq!(decode(0x00, 1, 0xff), 0x100);
        assert_eq!(decode(0x05, 1, 0), 5);
        assert_eq!(decode(0xfe, 1, 1), 0xfe);
        assert_eq!(decode(0, 4, (1 << 62) - 1), (1 << 62) - (1 << 32));
    }

    #[test]
    fn what_is_encoded_is_decoded_by_a_peer_that_has_seen_the_acknowledged() {
        for acked in [0, 1, 127, 128, 40_000, 1 << 33] {
            for ahead in [1, 2, 127, 128, 129, 32_767, 32_768, 1 << 23, 1 << 30] {
                let number: u64 = acked + ahead;
                let len = encoded_len(number, Some(acked));
                let mask = (1_u64 << (8 * len)) - 1;
                assert_eq!(decode((number & mask) as u32, len, acked + 1), number);
            }
        }
    }
}
