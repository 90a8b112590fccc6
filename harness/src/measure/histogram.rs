//! Latency histograms: HDR, three significant digits, failures counted beside them.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Samples of one group as an HDR histogram.
#[derive(Clone, Debug)]
pub struct Samples {
    histogram: Histogram<u64>,
    failed: u64,
}

/// One step of a cumulative distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Value in the metric's base unit.
    pub value: f64,
    /// Share of all samples, failures included, at or below it.
    pub share: f64,
}

impl Samples {
    /// Samples, infinite where something failed.
    #[must_use]
    pub fn new(values: impl IntoIterator<Item = f64>) -> Self {
        let mut histogram = Histogram::new(SIGNIFICANT_DIGITS).expect("3 is a valid number of digits");
        let mut failed = 0;
        for value in values {
            if value.is_finite() {
                histogram
                    .record(value.round().max(0.0) as u64)
                    .expect("an auto-resizing histogram takes any u64");
            } else {
                failed += 1;
            }
        }
        Self { histogram, failed }
    }

    /// All samples, failures included.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.histogram.len() + self.failed
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Samples that failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Smallest and largest finite value.
    #[must_use]
    pub fn range(&self) -> Option<(f64, f64)> {
        (!self.histogram.is_empty()).then(|| (self.histogram.min() as f64, self.histogram.max() as f64))
    }

    /// The cumulative distribution, one step for each occupied bucket. It ends below 1 if samples failed.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let all = self.len() as f64;
        let mut seen = 0;
        let buckets = self.histogram.iter_recorded();
        buckets
            .map(|bucket| {
                seen += bucket.count_since_last_iteration();
                Step { value: bucket.value_iterated_to() as f64, share: seen as f64 / all }
            })
            .collect()
    }
}

const SIGNIFICANT_DIGITS: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_ends_where_failures_begin() {
        let samples = Samples::new([10.0, 20.0, 20.0, f64::INFINITY]);
        let steps = samples.steps();
        assert_eq!(steps.len(), 2);
        assert_eq!((steps[0].value, steps[0].share), (10.0, 0.25));
        assert_eq!((steps[1].value, steps[1].share), (20.0, 0.75));
        assert_eq!((samples.len(), samples.failed()), (4, 1));
        assert_eq!(samples.range(), Some((10.0, 20.0)));
    }

    #[test]
    fn values_keep_three_digits() {
        let steps = Samples::new([123_456.0]).steps();
        assert!((steps[0].value - 123_456.0).abs() < 124.0, "{steps:?}");
    }

    #[test]
    fn nothing_is_nothing() {
        assert!(Samples::new([]).is_empty());
        assert!(Samples::new([]).steps().is_empty());
        assert_eq!(Samples::new([f64::INFINITY]).range(), None);
    }
}
