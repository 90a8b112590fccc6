//! How one direction of the link may be impaired: one type per kind of impairment, as a scenario writes it.
//!
//! The common case is a short string (`loss = "5 %"`), the full form a table
//! (`loss = { enter = "2 %", leave = "30 %" }`). Unknown keys are refused.

use core::fmt;
use core::marker::PhantomData;
use core::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::{Percent, Size, Time};

/// Which packets never arrive. The three ways add up: a packet is lost if any of them takes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossTable {
    /// Each packet by itself with this probability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random: Option<Percent>,
    /// In bursts, after Gilbert and Elliott.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<GilbertElliott>,
    /// Exactly these packets, the first being number 1: `"2-7, 9"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<PacketList>,
    /// After so many losses in a row the next packet passes, whatever the dice say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_max: Option<u32>,
}

/// [`LossTable`], or a lone percentage for independent loss: `loss = "5 %"`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loss(pub LossTable);

/// The Gilbert-Elliott model: a good and a bad state, each with its own loss (netem's p, r, 1-h, 1-k).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GilbertElliott {
    /// p: probability per packet to go from good to bad.
    pub enter: Percent,
    /// r: probability per packet to go from bad to good. The mean stay in the bad state is 1/r packets.
    pub leave: Percent,
    /// 1-h: loss in the bad state.
    #[serde(default = "all")]
    pub loss_bad: Percent,
    /// 1-k: loss in the good state.
    #[serde(default)]
    pub loss_good: Percent,
}

impl GilbertElliott {
    /// The loss in the long run: each state's loss, weighted by the share of packets that meet it.
    #[must_use]
    pub fn mean_loss(&self) -> f64 {
        let (enter, leave) = (self.enter.fraction(), self.leave.fraction());
        if enter + leave == 0.0 {
            return self.loss_good.fraction();
        }
        let bad = enter / (enter + leave);
        bad * self.loss_bad.fraction() + (1.0 - bad) * self.loss_good.fraction()
    }
}

/// How the delay varies from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JitterTable {
    /// Scale of the variation; what it means is up to the distribution.
    pub spread: Time,
    /// Shape of the variation.
    #[serde(default)]
    pub distribution: Distribution,
    /// Correlation between the delays of neighbouring packets; 0 % makes them independent.
    #[serde(default)]
    pub correlation: Percent,
    /// Whether a packet may overtake one that drew a longer delay.
    #[serde(default)]
    pub order: Order,
}

/// [`JitterTable`], or a lone spread for uniform, uncorrelated, order-keeping jitter: `jitter = "5 ms"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jitter(pub JitterTable);

/// Shape of the delay's variation. The sum of delay and variation never goes below zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Evenly between delay - spread and delay + spread.
    #[default]
    Uniform,
    /// Normal around the delay; the spread is one standard deviation.
    Normal,
    /// Never below the delay, on average one spread above it, with a long tail (Pareto, shape 3).
    Pareto,
    /// Always one spread above the delay: no variation, for comparing with the others.
    Constant,
}

/// Whether packets keep their order though their delays differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// A packet never arrives before an earlier one: jitter alone reorders nothing.
    #[default]
    Keep,
    /// Each packet arrives after its own delay, even if that is before an earlier one.
    Free,
}

/// Which packets change places with others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reorder {
    /// Probability that a packet is picked.
    #[serde(default)]
    pub probability: Percent,
    /// Picks every n-th packet instead, or as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u32>,
    /// Holds a picked packet back by so much, for later ones to overtake it. Without it a picked packet
    /// overtakes instead: it skips the delay (netem's way).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra_delay: Option<Time>,
}

/// Which packets are damaged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorruptTable {
    /// Probability that a packet is damaged.
    pub probability: Percent,
    /// Bits flipped in a damaged packet, at most [`FLIPS_MAX`].
    #[serde(default = "one")]
    pub bits: u32,
    /// After so many damaged packets in a row the next one stays whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_max: Option<u32>,
    /// Whether the UDP checksum gives the damage away.
    #[serde(default)]
    pub checksum: Checksum,
}

/// [`CorruptTable`], or a lone percentage: one bit flipped, UDP checksum repaired.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Corrupt(pub CorruptTable);

/// What happens to the UDP checksum of a damaged packet. TCP's always stays as it was: the segment is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// Made right again, so that the damage reaches QUIC, whose own authentication must find it.
    #[default]
    Repaired,
    /// Left as it was: the receiver's IP stack drops the packet.
    Stale,
}

/// Most bits one damaged packet may have flipped.
pub const FLIPS_MAX: usize = 8;

/// Which packets are cut short. For simulations and fuzzing: real links drop such packets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Truncate {
    /// Probability that a packet is cut, at a random length between nothing and all of it.
    pub probability: Percent,
}

/// How much may wait for the bottleneck. What does not fit is dropped on arrival (droptail).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// So many packets: `"25 packets"`.
    Packets(u32),
    /// So many bytes: `"64 KiB"`.
    Bytes(Size),
    /// As much as leaves within this time at the rate of the moment: `"200 ms"`.
    Delay(Time),
}

impl Default for Queue {
    /// 64 packets, about what small routers hold.
    fn default() -> Self {
        Self::Packets(64)
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packets(count) => write!(f, "{count} packets"),
            Self::Bytes(size) => size.fmt(f),
            Self::Delay(time) => time.fmt(f),
        }
    }
}

impl FromStr for Queue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let counted = text.trim().strip_suffix("packets").or_else(|| text.trim().strip_suffix("packet"));
        if let Some(count) = counted {
            let count = count.trim();
            return count
                .parse()
                .map(Self::Packets)
                .map_err(|_| format!("{count:?} is not a number of packets"));
        }
        if let Ok(size) = text.parse() {
            return Ok(Self::Bytes(size));
        }
        text.parse().map(Self::Delay).map_err(|_| {
            format!("{text:?} is no queue length; write \"25 packets\", \"64 KiB\" or \"200 ms\"")
        })
    }
}

/// Packet numbers, the first packet being 1, as sorted ranges: `"2-7, 9"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketList(Vec<(u64, u64)>);

impl PacketList {
    /// Whether packet `number` is listed.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&number))
    }

    /// Whether no packet is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for PacketList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut ranges = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.trim().parse::<u64>(), last.trim().parse::<u64>()) else {
                return Err(format!("{part:?} is no packet number or range; write for example \"2-7, 9\""));
            };
            if first == 0 {
                return Err(format!("{part:?}: the first packet is number 1; write for example \"1, 3\""));
            }
            if last < first {
                return Err(format!(
                    "{part:?}: the range ends before it starts; write for example \"2-7, 9\""
                ));
            }
            ranges.push((first, last));
        }
        if ranges.is_empty() {
            return Err("no packet is named; write for example \"2-7, 9\"".to_owned());
        }
        ranges.sort_unstable();
        Ok(Self(ranges))
    }
}

impl fmt::Display for PacketList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

fn all() -> Percent {
    Percent::ALL
}

fn one() -> u32 {
    1
}

impl From<Percent> for Loss {
    fn from(random: Percent) -> Self {
        Self(LossTable { random: Some(random), ..LossTable::default() })
    }
}

impl From<Time> for Jitter {
    fn from(spread: Time) -> Self {
        Self(JitterTable {
            spread,
            distribution: Distribution::default(),
            correlation: Percent::ZERO,
            order: Order::default(),
        })
    }
}

impl From<Percent> for Corrupt {
    fn from(probability: Percent) -> Self {
        Self(CorruptTable { probability, bits: one(), run_max: None, checksum: Checksum::default() })
    }
}

/// Reads either the short form, a string, or the table. serde's untagged enums would do, but hide what
/// is wrong behind "data did not match any variant".
struct ShortOrTable<Short, Table, T>(PhantomData<(Short, Table, T)>, &'static str);

impl<'de, Short, Table, T> Visitor<'de> for ShortOrTable<Short, Table, T>
where
    Short: FromStr + Into<T>,
    Short::Err: fmt::Display,
    Table: Deserialize<'de> + Into<T>,
{
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse::<Short>().map(Into::into).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        Table::deserialize(MapAccessDeserializer::new(map)).map(Into::into)
    }
}

macro_rules! short_or_table {
    ($($type:ident: $short:ty | $table:ty, $expected:literal;)*) => {$(
        impl From<$table> for $type {
            fn from(table: $table) -> Self {
                Self(table)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(ShortOrTable::<$short, $table, Self>(PhantomData, $expected))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(serializer)
            }
        }
    )*};
}

short_or_table! {
    Loss: Percent | LossTable, "a percentage such as \"5 %\", or a table of random, burst, packets, run_max";
    Jitter: Time | JitterTable, "a time such as \"5 ms\", or a table of spread, distribution, correlation, order";
    Corrupt: Percent | CorruptTable, "a percentage such as \"1 %\", or a table of probability, bits, run_max, checksum";
}

macro_rules! as_text {
    ($($type:ident: $expected:literal;)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

as_text! {
    Queue: "a queue length in quotes: \"25 packets\", \"64 KiB\" or \"200 ms\"";
    PacketList: "packet numbers in quotes, such as \"2-7, 9\"";
}
