//! Where a board's clock stands against the harness's.
//!
//! A ping tells an offset that is wrong by at most half its round trip. The pings with the shortest
//! round trips tell it best; early and late ones together tell the drift.

/// One ping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockSample {
    /// When it left, by the harness's clock in microseconds.
    pub sent_us: u64,
    /// The board's clock in microseconds when it answered.
    pub device_us: u64,
    /// When the answer came, by the harness's clock in microseconds.
    pub received_us: u64,
}

impl ClockSample {
    /// Round trip in microseconds.
    pub fn round_trip_us(&self) -> u64 {
        self.received_us.saturating_sub(self.sent_us)
    }

    /// Harness time minus board time in microseconds, if both ways took equally long.
    fn offset_us(&self) -> f64 {
        (self.sent_us + self.received_us) as f64 / 2.0 - self.device_us as f64
    }
}

/// What the pings so far tell.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Clock {
    samples: Vec<ClockSample>,
}

/// Board time between two pings from which a drift can be told, in microseconds.
const DRIFT_SPAN_US: u64 = 2_000_000;

impl Clock {
    /// Takes in a ping.
    pub fn add(&mut self, sample: ClockSample) {
        self.samples.push(sample);
    }

    /// The ping with the shortest round trip among those that `chosen` picks.
    fn best(&self, chosen: impl Fn(&ClockSample) -> bool) -> Option<&ClockSample> {
        self.samples.iter().filter(|sample| chosen(sample)).min_by_key(|sample| sample.round_trip_us())
    }

    /// The harness's time in microseconds for the board's; `None` before the first ping.
    pub fn host_us(&self, device_us: u64) -> Option<f64> {
        let best = self.best(|_| true)?;
        let elapsed = device_us as f64 - best.device_us as f64;
        Some(device_us as f64 + best.offset_us() + elapsed * self.drift().unwrap_or(0.0))
    }

    /// How much faster the harness's clock runs, as a fraction; `None` before the pings span two seconds.
    pub fn drift(&self) -> Option<f64> {
        let first = self.samples.iter().map(|sample| sample.device_us).min()?;
        let last = self.samples.iter().map(|sample| sample.device_us).max()?;
        if last - first < DRIFT_SPAN_US {
            return None;
        }
        let middle = first + (last - first) / 2;
        let early = self.best(|sample| sample.device_us <= middle)?;
        let late = self.best(|sample| sample.device_us > middle)?;
        let elapsed = late.device_us as f64 - early.device_us as f64;
        // Too close to tell drift from the pings' own error.
        if elapsed < DRIFT_SPAN_US as f64 / 2.0 {
            return None;
        }
        Some((late.offset_us() - early.offset_us()) / elapsed)
    }

    /// By how much [`Clock::host_us`] may be wrong near the best ping, in microseconds.
    pub fn uncertainty_us(&self) -> Option<u64> {
        self.best(|_| true).map(|best| best.round_trip_us().div_ceil(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ping at `device_us` of a board that is `offset` behind, with the given ways there and back.
    fn ping(device_us: u64, offset: u64, there: u64, back: u64) -> ClockSample {
        let at = device_us + offset;
        ClockSample { sent_us: at - there, device_us, received_us: at + back }
    }

    #[test]
    fn the_shortest_round_trip_decides() {
        let mut clock = Clock::default();
        assert_eq!(clock.host_us(5), None);
        clock.add(ping(1_000, 50_000, 900, 100));
        clock.add(ping(2_000, 50_000, 20, 20));
        clock.add(ping(3_000, 50_000, 100, 900));
        assert_eq!(clock.host_us(10_000), Some(60_000.0));
        assert_eq!(clock.uncertainty_us(), Some(20));
        assert_eq!(clock.drift(), None);
    }

    #[test]
    fn a_drift_is_learnt_from_early_and_late_pings() {
        let mut clock = Clock::default();
        // 100 ppm: in ten seconds the board falls a millisecond behind.
        clock.add(ping(0, 50_000, 20, 20));
        clock.add(ping(10_000_000, 51_000, 20, 20));
        let drift = clock.drift().expect("ten seconds apart");
        assert!((drift - 1e-4).abs() < 1e-9, "{drift}");
        assert_eq!(clock.host_us(20_000_000), Some(20_052_000.0));
        assert_eq!(clock.host_us(5_000_000), Some(5_050_500.0));
    }

    #[test]
    fn the_error_is_never_more_than_half_the_round_trip() {
        for (there, back) in [(0, 100), (100, 0), (37, 63)] {
            let mut clock = Clock::default();
            clock.add(ping(1_000, 500, there, back));
            let error = clock.host_us(1_000).expect("one ping") - 1_500.0;
            assert!(error.abs() <= clock.uncertainty_us().expect("one ping") as f64);
        }
    }
}
