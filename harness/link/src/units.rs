//! Quantities as people write them: `"20 ms"`, `"5 %"`, `"10 Mbit/s"`, `"64 KiB"`.
//!
//! A number without a unit is refused, so nobody has to remember which unit a key expects. Parsing is
//! done once, here; the rest of the harness carries the typed value. Each type prints what it parses.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// A fraction between 0 and 1, written in percent: `"5 %"`, `"0.2 %"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// Nothing at all: 0 %.
    pub const ZERO: Self = Self(0.0);
    /// All: 100 %.
    pub const ALL: Self = Self(1.0);

    /// A percentage from its number, 5.0 for 5 %.
    ///
    /// # Errors
    /// Refuses what is not between 0 and 100.
    pub fn new(percent: f64) -> Result<Self, UnitError> {
        if (0.0..=100.0).contains(&percent) {
            return Ok(Self(percent / 100.0));
        }
        Err(UnitError::new::<Self>(&format!("{percent} %"), "it lies outside 0 % to 100 %"))
    }

    /// The value between 0 and 1.
    #[must_use]
    pub fn fraction(self) -> f64 {
        self.0
    }

    /// The value between 0 and 100.
    #[must_use]
    pub fn percent(self) -> f64 {
        self.0 * 100.0
    }

    /// Whether it is exactly 0 %.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == 0.0
    }
}

/// A span of time, or a moment counted from a known start: `"250 us"`, `"20 ms"`, `"1.5 s"`, `"2 min"`, `"1 h"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Duration);

impl Time {
    /// No time.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// So many microseconds.
    #[must_use]
    pub const fn from_micros(microseconds: u64) -> Self {
        Self(Duration::from_micros(microseconds))
    }

    /// A time of so many milliseconds.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// The same as a [`Duration`].
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Time {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<Time> for Duration {
    fn from(time: Time) -> Self {
        time.0
    }
}

/// A data rate in bits per second: `"9600 bit/s"`, `"500 kbit/s"`, `"10 Mbit/s"`, `"1 Gbit/s"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

impl Rate {
    /// Nothing passes.
    pub const ZERO: Self = Self(0);

    /// A rate of so many bits per second.
    #[must_use]
    pub const fn from_bits_per_second(bits: u64) -> Self {
        Self(bits)
    }

    /// Bits per second.
    #[must_use]
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }
}

/// An amount of data in bytes: `"1500 B"`, `"64 KiB"`, `"2 MiB"`, `"10 kB"`, `"1 MB"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

impl Size {
    /// An amount of so many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// A quantity that could not be read. Says what was written, what is wrong with it, and an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitError {
    message: String,
}

impl UnitError {
    fn new<Q: Quantity>(text: &str, problem: &str) -> Self {
        Self { message: format!("{text:?} is no {}: {problem}; write for example {}", Q::NAME, Q::EXAMPLE) }
    }
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for UnitError {}

/// What parsing needs to know of each type.
trait Quantity: Sized {
    const NAME: &'static str;
    const EXAMPLE: &'static str;
    /// Unit names and how many base units each holds; printing picks from the same table.
    const UNITS: &'static [(&'static str, f64)];

    fn from_base_units(text: &str, amount: f64) -> Result<Self, UnitError>;
}

impl Quantity for Percent {
    const NAME: &'static str = "percentage";
    const EXAMPLE: &'static str = "\"5 %\"";
    const UNITS: &'static [(&'static str, f64)] = &[("%", 1.0)];

    fn from_base_units(text: &str, amount: f64) -> Result<Self, UnitError> {
        Self::new(amount).map_err(|_| UnitError::new::<Self>(text, "it lies outside 0 % to 100 %"))
    }
}

impl Quantity for Time {
    const NAME: &'static str = "time";
    const EXAMPLE: &'static str = "\"20 ms\", \"1.5 s\" or \"2 min\"";
    const UNITS: &'static [(&'static str, f64)] =
        &[("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("min", 60e9), ("h", 3600e9), ("ns", 1.0)];

    fn from_base_units(text: &str, amount: f64) -> Result<Self, UnitError> {
        let nanoseconds = whole::<Self>(text, amount)?;
        Ok(Self(Duration::from_nanos(nanoseconds)))
    }
}

impl Quantity for Rate {
    const NAME: &'static str = "data rate";
    const EXAMPLE: &'static str = "\"500 kbit/s\" or \"10 Mbit/s\"";
    const UNITS: &'static [(&'static str, f64)] =
        &[("bit/s", 1.0), ("kbit/s", 1e3), ("Mbit/s", 1e6), ("Gbit/s", 1e9)];

    fn from_base_units(text: &str, amount: f64) -> Result<Self, UnitError> {
        whole::<Self>(text, amount).map(Self)
    }
}

impl Quantity for Size {
    const NAME: &'static str = "size";
    const EXAMPLE: &'static str = "\"1500 B\" or \"64 KiB\"";
    const UNITS: &'static [(&'static str, f64)] =
        &[("B", 1.0), ("kB", 1e3), ("KiB", 1024.0), ("MB", 1e6), ("MiB", 1_048_576.0)];

    fn from_base_units(text: &str, amount: f64) -> Result<Self, UnitError> {
        whole::<Self>(text, amount).map(Self)
    }
}

/// An amount as a whole number of base units.
fn whole<Q: Quantity>(text: &str, amount: f64) -> Result<u64, UnitError> {
    if amount < 0.0 {
        return Err(UnitError::new::<Q>(text, "it is negative"));
    }
    // A century in nanoseconds stays below 2^62; sums of two such values cannot overflow.
    const AMOUNT_MAX: f64 = 4.6e18;
    if amount > AMOUNT_MAX {
        return Err(UnitError::new::<Q>(text, "it is too large"));
    }
    Ok(amount.round() as u64)
}

fn parse<Q: Quantity>(text: &str) -> Result<Q, UnitError> {
    let trimmed = text.trim();
    let split = trimmed
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | '_')))
        .unwrap_or(trimmed.len());
    let (number, unit) = (&trimmed[..split].replace('_', ""), trimmed[split..].trim());
    if number.is_empty() {
        return Err(UnitError::new::<Q>(text, "it does not start with a number"));
    }
    let Ok(number) = number.parse::<f64>() else {
        return Err(UnitError::new::<Q>(text, &format!("{number:?} is not a number")));
    };
    if unit.is_empty() {
        return Err(UnitError::new::<Q>(text, &format!("its unit is missing ({})", units::<Q>())));
    }
    let Some((_, factor)) = Q::UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(UnitError::new::<Q>(text, &format!("the unit {unit:?} is not one of {}", units::<Q>())));
    };
    Q::from_base_units(text, number * factor)
}

fn units<Q: Quantity>() -> String {
    Q::UNITS.iter().map(|(name, _)| *name).filter(|name| *name != "µs").collect::<Vec<_>>().join(", ")
}

/// Prints an amount in the largest of `candidates` that leaves it a whole number, else in the smallest.
fn print<Q: Quantity>(f: &mut fmt::Formatter<'_>, amount: u64, candidates: &[&str]) -> fmt::Result {
    for name in candidates {
        let factor =
            Q::UNITS.iter().find(|(unit, _)| unit == name).expect("candidates are units of Q").1 as u64;
        if amount.is_multiple_of(factor) && (amount > 0 || factor == 1) {
            return write!(f, "{} {name}", amount / factor);
        }
    }
    write!(f, "{amount} {}", candidates.last().expect("callers name at least one unit"))
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounds away what the division by 100 left behind: 0.07 prints as "7 %".
        write!(f, "{} %", (self.percent() * 1e9).round() / 1e9)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        if nanoseconds == 0 {
            return f.write_str("0 s");
        }
        print::<Self>(f, nanoseconds, &["s", "ms", "us", "ns"])
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print::<Self>(f, self.0, &["Gbit/s", "Mbit/s", "kbit/s", "bit/s"])
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print::<Self>(f, self.0, &["MiB", "KiB", "B"])
    }
}

/// Reads a quantity from a string only; a bare number gets the same message as a missing unit.
struct QuantityVisitor<Q>(core::marker::PhantomData<Q>);

impl<Q: Quantity> Visitor<'_> for QuantityVisitor<Q> {
    type Value = Q;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {} with its unit, in quotes, such as {}", Q::NAME, Q::EXAMPLE)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Q, E> {
        parse(text).map_err(E::custom)
    }
}

macro_rules! text_forms {
    ($($quantity:ty),*) => {$(
        impl FromStr for $quantity {
            type Err = UnitError;

            fn from_str(text: &str) -> Result<Self, UnitError> {
                parse(text)
            }
        }

        impl<'de> Deserialize<'de> for $quantity {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(QuantityVisitor(core::marker::PhantomData))
            }
        }

        impl Serialize for $quantity {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

text_forms!(Percent, Time, Rate, Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_with_their_units() {
        assert_eq!("5 %".parse::<Percent>().unwrap().fraction(), 0.05);
        assert_eq!("0.2%".parse::<Percent>().unwrap().fraction(), 0.002);
        assert_eq!("20 ms".parse::<Time>().unwrap().duration(), Duration::from_millis(20));
        assert_eq!("1.5 s".parse::<Time>().unwrap().duration(), Duration::from_millis(1500));
        assert_eq!("2 min".parse::<Time>().unwrap().duration(), Duration::from_secs(120));
        assert_eq!("250 us".parse::<Time>().unwrap().duration(), Duration::from_micros(250));
        assert_eq!("10 Mbit/s".parse::<Rate>().unwrap().bits_per_second(), 10_000_000);
        assert_eq!("0.5 kbit/s".parse::<Rate>().unwrap().bits_per_second(), 500);
        assert_eq!("64 KiB".parse::<Size>().unwrap().bytes(), 65_536);
        assert_eq!("1_500 B".parse::<Size>().unwrap().bytes(), 1500);
    }

    #[test]
    fn a_mistake_is_named_with_an_example() {
        let message = |text: &str| text.parse::<Percent>().unwrap_err().to_string();
        assert_eq!(
            message("130 %"),
            "\"130 %\" is no percentage: it lies outside 0 % to 100 %; write for example \"5 %\""
        );
        assert!(message("5").contains("its unit is missing (%)"), "{}", message("5"));
        assert!(message("-1 %").contains("outside 0 % to 100 %"));
        let time = |text: &str| text.parse::<Time>().unwrap_err().to_string();
        assert!(time("-5 ms").contains("it is negative"));
        assert!(time("5 parsecs").contains("the unit \"parsecs\" is not one of us, ms, s, min, h, ns"));
        assert!(time("fast").contains("does not start with a number"));
        assert!(time("1.2.3 s").contains("\"1.2.3\" is not a number"));
        assert!(time("9999999999 h").contains("too large"));
        assert!("5 MBit".parse::<Rate>().unwrap_err().to_string().contains("bit/s, kbit/s, Mbit/s, Gbit/s"));
    }

    #[test]
    fn what_is_printed_reads_back() {
        for text in ["0 s", "20 ms", "1500 ms", "7 us", "3 ns", "90 s"] {
            let time: Time = text.parse().unwrap();
            assert_eq!(time.to_string(), text);
        }
        for text in ["0 bit/s", "9600 bit/s", "10 Mbit/s", "1 Gbit/s"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in ["0 B", "1500 B", "64 KiB", "1 MiB"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for text in ["0 %", "7 %", "0.2 %", "33.3 %", "100 %"] {
            assert_eq!(text.parse::<Percent>().unwrap().to_string(), text);
        }
    }
}
