//! Units of metrics: how a limit is read and how a value is shown.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a metric's numbers count. Values are kept in the base unit named with each variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Microseconds.
    Time,
    /// Bytes.
    Bytes,
    /// Bits per second.
    Rate,
    /// Events per second.
    Frequency,
    /// A share; base unit is the fraction, shown in percent.
    Percent,
    /// Things counted.
    Count,
    /// Instructions.
    Instructions,
    /// Microjoules.
    Energy,
    /// Network round trips.
    RoundTrips,
    /// A plain ratio.
    Factor,
}

impl Unit {
    /// Unit symbols a limit may use, with their size in base units; the first is the one to suggest.
    #[must_use]
    pub fn symbols(self) -> &'static [(&'static str, f64)] {
        match self {
            Self::Time => &[("ms", 1e3), ("us", 1.0), ("µs", 1.0), ("s", 1e6), ("min", 60e6)],
            Self::Bytes => &[("B", 1.0), ("KiB", 1024.0), ("kB", 1e3), ("MiB", 1_048_576.0), ("MB", 1e6)],
            Self::Rate => &[("kbit/s", 1e3), ("bit/s", 1.0), ("Mbit/s", 1e6), ("Gbit/s", 1e9)],
            Self::Frequency => &[("/s", 1.0)],
            Self::Percent => &[("%", 0.01)],
            Self::Count => &[("", 1.0), ("k", 1e3), ("M", 1e6)],
            Self::Instructions => {
                &[("M", 1e6), ("k", 1e3), ("", 1.0), ("M instructions", 1e6), ("k instructions", 1e3)]
            }
            Self::Energy => &[("mJ", 1e3), ("uJ", 1.0), ("µJ", 1.0), ("J", 1e6)],
            Self::RoundTrips => &[("RTT", 1.0)],
            Self::Factor => &[("", 1.0), ("x", 1.0)],
        }
    }

    /// The symbols, for an error message.
    #[must_use]
    pub fn symbol_list(self) -> String {
        let names = self.symbols().iter().filter(|(name, _)| !name.contains('µ'));
        let names: Vec<_> = names.map(|(name, _)| if name.is_empty() { "no unit" } else { *name }).collect();
        names.join(", ")
    }

    /// Size of `symbol` in base units.
    #[must_use]
    pub fn factor(self, symbol: &str) -> Option<f64> {
        self.symbols().iter().find(|(name, _)| *name == symbol).map(|(_, factor)| *factor)
    }

    /// A value in the form a reader wants, number and unit apart so that tables can align them.
    #[must_use]
    pub fn quantity(self, value: f64) -> Quantity {
        if value.is_infinite() && value > 0.0 {
            return Quantity { number: "∞".into(), unit: self.base_symbol() };
        }
        if !value.is_finite() {
            return Quantity { number: "–".into(), unit: "" };
        }
        let magnitude = value.abs();
        let (scale, unit) = match self {
            Self::Time if magnitude >= 0.9995e6 => (1e6, "s"),
            Self::Time if magnitude >= 999.5 => (1e3, "ms"),
            Self::Time => (1.0, "µs"),
            Self::Bytes if magnitude >= 9.9995e6 => (1_048_576.0, "MiB"),
            Self::Rate if magnitude >= 0.9995e6 => (1e6, "Mbit/s"),
            Self::Rate if magnitude >= 999.5 => (1e3, "kbit/s"),
            Self::Instructions if magnitude >= 0.9995e6 => (1e6, "M"),
            Self::Instructions if magnitude >= 9_999.5 => (1e3, "k"),
            Self::Energy if magnitude >= 0.9995e6 => (1e6, "J"),
            Self::Energy if magnitude >= 999.5 => (1e3, "mJ"),
            Self::Percent => (0.01, "%"),
            Self::Bytes | Self::Rate | Self::Frequency | Self::Energy | Self::RoundTrips => {
                (1.0, self.base_symbol())
            }
            Self::Count | Self::Instructions | Self::Factor => (1.0, ""),
        };
        let scaled = value / scale;
        let number = match self {
            // Three significant digits would turn 99.96 % into 100 %, hiding a loss.
            Self::Percent => percent(scaled),
            Self::Count | Self::Bytes if scale == 1.0 && scaled.fract().abs() < 1e-9 => thousands(scaled),
            _ => significant(scaled),
        };
        Quantity { number, unit }
    }

    /// The value as one text, such as `12.3 ms`.
    #[must_use]
    pub fn format(self, value: f64) -> String {
        self.quantity(value).to_string()
    }

    /// Symbol of the base unit, for columns of raw numbers.
    #[must_use]
    pub fn base_symbol(self) -> &'static str {
        match self {
            Self::Time => "µs",
            Self::Bytes => "B",
            Self::Rate => "bit/s",
            Self::Frequency => "/s",
            Self::Percent => "%",
            Self::Count | Self::Factor | Self::Instructions => "",
            Self::Energy => "µJ",
            Self::RoundTrips => "RTT",
        }
    }
}

/// A value ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantity {
    /// The number.
    pub number: String,
    /// The unit; empty for plain counts.
    pub unit: &'static str,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unit.is_empty() {
            return f.write_str(&self.number);
        }
        write!(f, "{} {}", self.number, self.unit)
    }
}

/// Three significant digits, whole above 1000.
fn significant(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude == 0.0 {
        return "0".into();
    }
    if magnitude >= 999.5 {
        return thousands(value.round());
    }
    let decimals = if magnitude >= 99.95 {
        0
    } else if magnitude >= 9.995 {
        1
    } else if magnitude >= 0.9995 {
        2
    } else {
        3
    };
    format!("{value:.decimals$}")
}

/// Percent, rounded so that only exactly 0 and 100 read as such.
fn percent(value: f64) -> String {
    if (value - value.round()).abs() < 1e-9 {
        return thousands(value.round());
    }
    let hundredths = value * 100.0;
    let nearest = hundredths.round();
    let shown = if nearest != 0.0 && nearest != 10_000.0 {
        nearest
    } else if hundredths < nearest {
        nearest - 1.0
    } else {
        nearest + 1.0
    };
    format!("{:.2}", shown / 100.0)
}

/// A whole number with its thousands set apart: `1,495,136`.
#[must_use]
pub fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if value < 0.0 && digits != "0" {
        text.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_well() {
        let cases = [
            (Unit::Time, 0.0, "0 µs"),
            (Unit::Time, 412.0, "412 µs"),
            (Unit::Time, 999.7, "1.00 ms"),
            (Unit::Time, 12_345.0, "12.3 ms"),
            (Unit::Time, 999_700.0, "1.00 s"),
            (Unit::Time, 61_500_000.0, "61.5 s"),
            (Unit::Bytes, 1_495_136.0, "1,495,136 B"),
            (Unit::Bytes, 118.25, "118 B"),
            (Unit::Rate, 81_300.0, "81.3 kbit/s"),
            (Unit::Percent, 1.0, "100 %"),
            (Unit::Percent, 0.99996, "99.99 %"),
            (Unit::Percent, 0.00001, "0.01 %"),
            (Unit::Percent, 0.0, "0 %"),
            (Unit::Percent, 20.0 / 60.0, "33.33 %"),
            (Unit::Percent, 0.300_209, "30.02 %"),
            (Unit::Percent, 40.0 / 60.0, "66.67 %"),
            (Unit::Percent, 0.500_06, "50.01 %"),
            (Unit::Percent, -0.000_01, "-0.01 %"),
            (Unit::Percent, 1.000_01, "100.01 %"),
            (Unit::Count, 3.0, "3"),
            (Unit::Count, 2.5, "2.50"),
            (Unit::Instructions, 28_912_345.0, "28.9 M"),
            (Unit::Instructions, 29_900.0, "29.9 k"),
            (Unit::RoundTrips, 2.0, "2.00 RTT"),
        ];
        for (unit, value, text) in cases {
            assert_eq!(unit.format(value), text, "{unit:?} {value}");
        }
    }

    #[test]
    fn a_loss_never_reads_as_everything() {
        for missing in 1..2000_u32 {
            let ratio = 1.0 - f64::from(missing) / 1e6;
            assert_ne!(Unit::Percent.format(ratio), "100 %");
        }
    }

    #[test]
    fn never_is_not_a_number() {
        assert_eq!(Unit::Time.quantity(f64::INFINITY).number, "∞");
        assert_eq!(Unit::Time.quantity(f64::NAN).number, "–");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(thousands(0.0), "0");
        assert_eq!(thousands(999.0), "999");
        assert_eq!(thousands(1000.0), "1,000");
        assert_eq!(thousands(-1_234_567.0), "-1,234,567");
    }
}
