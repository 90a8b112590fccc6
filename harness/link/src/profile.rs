//! Named networks to start a scenario from.
//!
//! The cellular, DSL and Wi-Fi figures are those of the widely used `comcast` tool; `interop` is the
//! default path of the QUIC interop runner.

use serde::{Deserialize, Serialize};

use crate::config::Path;
use crate::impairment::{Loss, Queue};
use crate::units::{Percent, Rate, Time};

/// A named network, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// 500 ms one way, 50 kbit/s, 2 % loss.
    Gprs,
    /// 300 ms one way, 250 kbit/s, 1.5 % loss.
    Edge,
    /// 250 ms one way, 750 kbit/s, 1.5 % loss.
    #[serde(rename = "3g")]
    ThirdGeneration,
    /// 70 ms one way, 2 Mbit/s, 2 % loss.
    PoorDsl,
    /// 40 ms one way, 30 Mbit/s, 0.2 % loss.
    GoodWifi,
    /// 15 ms one way, 10 Mbit/s, a queue of 25 packets, no loss.
    Interop,
}

impl Profile {
    /// All profiles with the names scenarios use.
    pub const ALL: [(&'static str, Self); 6] = [
        ("gprs", Self::Gprs),
        ("edge", Self::Edge),
        ("3g", Self::ThirdGeneration),
        ("poor-dsl", Self::PoorDsl),
        ("good-wifi", Self::GoodWifi),
        ("interop", Self::Interop),
    ];

    /// The impairments of either direction.
    #[must_use]
    pub fn path(self) -> Path {
        let (delay_ms, rate_kbit, loss_percent) = match self {
            Self::Gprs => (500, 50, 2.0),
            Self::Edge => (300, 250, 1.5),
            Self::ThirdGeneration => (250, 750, 1.5),
            Self::PoorDsl => (70, 2_000, 2.0),
            Self::GoodWifi => (40, 30_000, 0.2),
            Self::Interop => (15, 10_000, 0.0),
        };
        let loss = Percent::new(loss_percent).expect("the table holds percentages");
        Path {
            delay: Some(Time::from_millis(delay_ms)),
            rate: Some(Rate::from_bits_per_second(rate_kbit * 1000)),
            queue: (self == Self::Interop).then_some(Queue::Packets(25)),
            loss: (!loss.is_zero()).then(|| Loss::from(loss)),
            ..Path::default()
        }
    }
}
