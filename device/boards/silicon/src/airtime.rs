//! How long a frame is on the air, at most: what an estimate of energy may count on.

use device::time::Duration;

/// What 802.11 adds to an Ethernet frame: its header, LLC/SNAP for EtherType, CCMP, FCS, less the Ethernet header.
const OVERHEAD: u64 = 26 + 8 + 16 + 4 - 14;
/// Long preamble and PLCP header of 802.11b (IEEE 802.11 16.2.2), in microseconds.
const PREAMBLE_US: u64 = 192;
/// Bits per microsecond at 1 Mbit/s, the lowest rate of 802.11b.
const BITS_PER_US_MIN: u64 = 1;

/// Time that an Ethernet frame of `len` bytes takes on the air at the lowest rate, without repetitions.
///
/// Access points are near in a laboratory and rates are higher: the truth is up to seventy times less.
pub const fn at_most(len: usize) -> Duration {
    Duration::from_micros(PREAMBLE_US + (len as u64 + OVERHEAD) * 8 / BITS_PER_US_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_frame_takes_twelve_milliseconds_at_the_lowest_rate() {
        // 192 us + (1514 + 40) bytes of 8 us each.
        assert_eq!(at_most(1514), Duration::from_micros(12_624));
    }
}
