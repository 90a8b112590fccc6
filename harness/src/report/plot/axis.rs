//! An axis that knows its range, its ticks and their labels; plotters' own choose ticks nobody would.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// One axis.
#[derive(Clone)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
    logarithmic: bool,
    label: fn(f64) -> String,
}

impl Axis {
    /// Times in microseconds on a logarithmic scale.
    pub(super) fn log_time(low: f64, high: f64, ticks_at_most: usize) -> Self {
        let ticks = log_ticks(low, high, ticks_at_most);
        Self { low, high, ticks, logarithmic: true, label: axis_time }
    }

    /// Times in microseconds from 0.
    pub(super) fn time(high: f64, ticks_at_most: usize) -> Self {
        Self {
            low: 0.0,
            high,
            ticks: linear_ticks(high, ticks_at_most),
            logarithmic: false,
            label: axis_time,
        }
    }

    /// Any range with ticks of its own.
    pub(super) fn with_ticks(range: Range<f64>, ticks: Vec<f64>, label: fn(f64) -> String) -> Self {
        Self { low: range.start, high: range.end, ticks, logarithmic: false, label }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = if self.logarithmic {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        (self.label)(*value)
    }
}

/// A time in microseconds for an axis.
fn axis_time(microseconds: f64) -> String {
    let (value, unit) = match microseconds {
        0.0 => return "0".into(),
        us if us >= 1e6 => (us / 1e6, "s"),
        us if us >= 1e3 => (us / 1e3, "ms"),
        us => (us, "µs"),
    };
    let text = format!("{value:.1}");
    format!("{} {unit}", text.strip_suffix(".0").unwrap_or(&text))
}

/// 1-2-5 ticks of a logarithmic axis; fewer where there is less room.
fn log_ticks(low: f64, high: f64, at_most: usize) -> Vec<f64> {
    for steps in [&[1.0, 2.0, 5.0][..], &[1.0, 3.0], &[1.0]] {
        let ticks: Vec<_> = (-1..12)
            .flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)))
            .filter(|tick| (low * 0.999..=high * 1.001).contains(tick))
            .collect();
        if ticks.len() <= at_most {
            return ticks;
        }
    }
    (-1..12).map(|decade| 10f64.powi(decade)).filter(|tick| (low..=high).contains(tick)).collect()
}

/// Round ticks of a linear axis from 0.
fn linear_ticks(high: f64, at_most: usize) -> Vec<f64> {
    if high <= 0.0 {
        return vec![0.0];
    }
    let rough = high / at_most.max(1) as f64;
    let decade = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * decade);
    (0..=at_most + 1).map(|index| index as f64 * step).filter(|tick| *tick <= high * 1.0001).collect()
}

/// The smallest of 1-1.5-2-3-5-7 times a power of ten that is at least `value`.
pub(super) fn round_up(value: f64) -> f64 {
    let value = value.max(1e-9);
    let decade = 10f64.powf(value.log10().floor());
    let steps = [1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0];
    steps.map(|step| step * decade).into_iter().find(|step| *step >= value * 0.9999).unwrap_or(10.0 * decade)
}

/// The largest of these that is at most `value`.
pub(super) fn round_down(value: f64) -> f64 {
    let value = value.max(1e-9);
    let decade = 10f64.powf(value.log10().floor());
    let steps = [7.0, 5.0, 3.0, 2.0, 1.5, 1.0];
    steps.map(|step| step * decade).into_iter().find(|step| *step <= value * 1.0001).unwrap_or(decade)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(log_ticks(10_000.0, 1_000_000.0, 8), [1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6]);
        assert_eq!(log_ticks(10_000.0, 1_000_000.0, 4), [1e4, 1e5, 1e6]);
        assert_eq!(linear_ticks(4e6, 4), [0.0, 1e6, 2e6, 3e6, 4e6]);
        assert_eq!(linear_ticks(0.0, 4), [0.0]);
        assert!(linear_ticks(9.5e6, 5).len() <= 6);
    }

    #[test]
    fn rounding_brackets_the_value() {
        for value in [0.3, 1.0, 7.2, 99.0, 12_345.0, 5e6] {
            assert!(round_up(value) >= value * 0.999 && round_up(value) <= value * 2.0, "{value}");
            assert!(round_down(value) <= value * 1.001 && round_down(value) >= value / 2.0, "{value}");
        }
    }

    #[test]
    fn axis_times_are_short() {
        assert_eq!(axis_time(20_000.0), "20 ms");
        assert_eq!(axis_time(1_500_000.0), "1.5 s");
        assert_eq!(axis_time(300.0), "300 µs");
        assert_eq!(axis_time(0.0), "0");
    }
}
