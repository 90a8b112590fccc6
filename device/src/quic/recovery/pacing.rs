//! Pacing (RFC 9002 7.7): a leaky bucket.
//!
//! What has left and is not yet paid for by time is the debt. It is counted in units of 64 bytes, so that all
//! arithmetic is 32 bits wide: a packet costs one division, which the device's core does in hardware.

use crate::time::{Duration, Instant};

/// Bytes per unit: fine enough for an acknowledgement, coarse enough for 32-bit arithmetic.
const UNIT_SHIFT: u32 = 6;

/// Units that may leave back to back: the initial window (RFC 9002 7.7).
const BURST: u32 = super::congestion::INITIAL_WINDOW >> UNIT_SHIFT;

/// Spreads packets over the round trip at 5/4 of the window per RTT.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pacer {
    debt: u32,
    since: Instant,
    us_per_unit: u32,
}

impl Pacer {
    /// A pacer that does not hold anything back until [`Self::set_rate`].
    pub const fn new() -> Self {
        Self { debt: 0, since: Instant::ZERO, us_per_unit: 0 }
    }

    /// Adapts to a window of `window` bytes per `rtt`, from `now` on.
    pub fn set_rate(&mut self, now: Instant, window: u32, rtt: Duration) {
        self.settle(now);
        let rtt_us = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
        let spread_us = rtt_us - rtt_us / 5;
        self.us_per_unit = spread_us / (window >> UNIT_SHIFT).max(1);
    }

    /// When a packet may leave: `now` or later.
    pub fn earliest(&self, now: Instant) -> Instant {
        let excess = self.debt.saturating_sub(BURST);
        let wait = Duration::from_micros(u64::from(excess) * u64::from(self.us_per_unit));
        (self.since + wait).max(now)
    }

    /// A packet of `bytes` left.
    pub fn on_sent(&mut self, now: Instant, bytes: u32) {
        self.settle(now);
        self.debt = self.debt.saturating_add(bytes >> UNIT_SHIFT);
    }

    /// Forgets the past, as after a change of path.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Pays off the debt by the time that has passed; what is left of a unit stays for the next time.
    fn settle(&mut self, now: Instant) {
        let elapsed_us = u32::try_from(now.saturating_since(self.since).as_micros()).unwrap_or(u32::MAX);
        let paid = elapsed_us.checked_div(self.us_per_unit).unwrap_or(u32::MAX);
        if paid >= self.debt {
            self.debt = 0;
            self.since = now;
        } else {
            self.debt -= paid;
            self.since += Duration::from_micros(u64::from(paid * self.us_per_unit));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_leaves_at_once_and_the_rest_is_spread_at_five_fourths_of_the_window() {
        let mut pacer = Pacer::new();
        pacer.set_rate(Instant::ZERO, 12_000, Duration::from_millis(100));
        let mut now = Instant::from_micros(1_000_000);
        let start = now;
        for _ in 0..10 {
            assert_eq!(pacer.earliest(now), now);
            pacer.on_sent(now, 1200);
        }
        pacer.on_sent(now, 1200);
        for _ in 0..20 {
            now = pacer.earliest(now);
            pacer.on_sent(now, 1200);
        }
        let elapsed_ms = now.saturating_since(start).as_millis();
        assert!((150..=165).contains(&elapsed_ms), "{elapsed_ms} ms for 20 packets of 8 ms each");
    }

    #[test]
    fn idle_time_refills_no_more_than_one_burst() {
        let mut pacer = Pacer::new();
        pacer.set_rate(Instant::ZERO, 12_000, Duration::from_millis(100));
        let now = Instant::from_micros(60_000_000);
        for _ in 0..11 {
            pacer.on_sent(now, 1200);
        }
        assert!(pacer.earliest(now) > now);
    }
}
