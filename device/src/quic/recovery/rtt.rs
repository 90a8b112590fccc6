//! Round-trip time (RFC 9002 5).

use crate::time::{Duration, Instant};

/// The RTT assumed before the first sample (RFC 9002 6.2.2, kInitialRtt).
pub const INITIAL_RTT: Duration = Duration::from_millis(333);

/// Timer granularity (RFC 9002 6.1.2, kGranularity).
pub const GRANULARITY: Duration = Duration::from_millis(1);

/// Estimates the round-trip time of the path from acknowledgements.
///
/// Microseconds in 32 bits reach 71 minutes: plenty for a round trip, and one register on the device.
#[derive(Clone, Copy, Debug)]
pub struct RttEstimator {
    latest_us: u32,
    smoothed_us: u32,
    variation_us: u32,
    min_us: u32,
    first_sample: Option<Instant>,
}

impl Default for RttEstimator {
    fn default() -> Self {
        Self::new()
    }
}

impl RttEstimator {
    /// An estimator without a sample.
    pub const fn new() -> Self {
        Self::assuming(INITIAL_RTT)
    }

    /// An estimator that goes by `initial` until the first sample, as an earlier connection over the same network may
    /// suggest it (RFC 9002 6.2.2).
    pub const fn assuming(initial: Duration) -> Self {
        let initial_us = initial.as_micros() as u32;
        Self {
            latest_us: 0,
            smoothed_us: initial_us,
            variation_us: initial_us / 2,
            min_us: 0,
            first_sample: None,
        }
    }

    /// Takes a sample at `now` (RFC 9002 5.3, UpdateRtt).
    ///
    /// `ack_delay` is what the peer says it waited, already limited to its max_ack_delay where that applies.
    pub fn update(&mut self, now: Instant, latest: Duration, ack_delay: Duration) {
        let latest_us = micros(latest);
        self.latest_us = latest_us;
        if self.first_sample.is_none() {
            self.first_sample = Some(now);
            self.min_us = latest_us;
            self.smoothed_us = latest_us;
            self.variation_us = latest_us / 2;
            return;
        }
        self.min_us = self.min_us.min(latest_us);
        let ack_delay_us = micros(ack_delay);
        let plausible = latest_us >= self.min_us.saturating_add(ack_delay_us);
        let adjusted_us = if plausible { latest_us - ack_delay_us } else { latest_us };
        let deviation_us = self.smoothed_us.abs_diff(adjusted_us);
        self.variation_us = self.variation_us - self.variation_us / 4 + deviation_us / 4;
        self.smoothed_us = self.smoothed_us - self.smoothed_us / 8 + adjusted_us / 8;
    }

    /// The most recent sample, zero before the first.
    pub const fn latest(&self) -> Duration {
        Duration::from_micros(self.latest_us as u64)
    }

    /// The smoothed RTT; [`INITIAL_RTT`] before the first sample.
    pub const fn smoothed(&self) -> Duration {
        Duration::from_micros(self.smoothed_us as u64)
    }

    /// The mean deviation of the samples.
    pub const fn variation(&self) -> Duration {
        Duration::from_micros(self.variation_us as u64)
    }

    /// The smallest sample, acknowledgement delay ignored; zero before the first.
    pub const fn min(&self) -> Duration {
        Duration::from_micros(self.min_us as u64)
    }

    /// When the first sample was taken.
    pub const fn first_sample(&self) -> Option<Instant> {
        self.first_sample
    }

    /// The probe timeout without backoff and without the peer's max_ack_delay (RFC 9002 6.2.1).
    pub fn pto(&self) -> Duration {
        let granularity_us = micros(GRANULARITY);
        let margin_us = self.variation_us.saturating_mul(4).max(granularity_us);
        Duration::from_micros(u64::from(self.smoothed_us) + u64::from(margin_us))
    }

    /// How long after sending a packet is lost, once a later one is acknowledged (RFC 9002 6.1.2).
    pub fn loss_delay(&self) -> Duration {
        let rtt_us = self.latest_us.max(self.smoothed_us);
        let delay = Duration::from_micros(u64::from(rtt_us) + u64::from(rtt_us / 8));
        delay.max(GRANULARITY)
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_sample_replaces_the_initial_estimate() {
        let mut rtt = RttEstimator::new();
        assert_eq!(rtt.pto(), Duration::from_micros(333_000 + 4 * 166_500));
        rtt.update(Instant::from_micros(5), ms(100), ms(40));
        assert_eq!((rtt.smoothed(), rtt.variation(), rtt.min()), (ms(100), ms(50), ms(100)));
        assert_eq!(rtt.first_sample(), Some(Instant::from_micros(5)));
    }

    #[test]
    fn a_later_sample_moves_the_mean_by_an_eighth() {
        let mut rtt = RttEstimator::new();
        rtt.update(Instant::ZERO, ms(100), ms(0));
        rtt.update(Instant::ZERO, ms(180), ms(0));
        assert_eq!(rtt.smoothed(), ms(110));
        assert_eq!(rtt.variation(), Duration::from_micros(57_500));
    }

    #[test]
    fn a_plausible_ack_delay_is_subtracted() {
        let mut rtt = RttEstimator::new();
        rtt.update(Instant::ZERO, ms(100), ms(0));
        rtt.update(Instant::ZERO, ms(140), ms(40));
        assert_eq!(rtt.smoothed(), ms(100));
    }

    #[test]
    fn an_ack_delay_that_would_undercut_the_minimum_is_ignored() {
        let mut rtt = RttEstimator::new();
        rtt.update(Instant::ZERO, ms(100), ms(0));
        rtt.update(Instant::ZERO, ms(116), ms(40));
        assert_eq!(rtt.smoothed(), ms(102));
    }

    #[test]
    fn the_minimum_ignores_ack_delay() {
        let mut rtt = RttEstimator::new();
        rtt.update(Instant::ZERO, ms(100), ms(0));
        rtt.update(Instant::ZERO, ms(90), ms(40));
        assert_eq!(rtt.min(), ms(90));
    }

    #[test]
    fn loss_delay_is_nine_eighths_of_the_larger_rtt_and_at_least_the_granularity() {
        let mut rtt = RttEstimator::new();
        rtt.update(Instant::ZERO, ms(80), ms(0));
        assert_eq!(rtt.loss_delay(), ms(90));
        rtt.update(Instant::ZERO, ms(160), ms(0));
        assert_eq!(rtt.loss_delay(), ms(180));
        let mut fast = RttEstimator::new();
        fast.update(Instant::ZERO, Duration::from_micros(200), ms(0));
        assert_eq!(fast.loss_delay(), GRANULARITY);
    }
}
