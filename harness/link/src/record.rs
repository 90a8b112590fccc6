//! The decision log: what the link did to each packet, and when, in a form that can be checked afterwards.

use serde::{Deserialize, Serialize};

use crate::config::{Direction, LinkConfig};
use crate::timeline::Performed;

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Larger than the path's MTU.
    Mtu,
    /// Sent into a blackout.
    Blackout,
    /// On the list of packets to lose.
    ListedLoss,
    /// Taken by the Gilbert-Elliott model.
    BurstLoss,
    /// Taken by independent loss.
    RandomLoss,
    /// The bottleneck's queue was full.
    QueueFull,
    /// Sent into a fade.
    Fade,
}

impl Reason {
    /// Every reason. Their places are part of what a hash over fates means: append, never renumber.
    pub const ALL: [Self; 7] = [
        Self::Mtu,
        Self::Blackout,
        Self::ListedLoss,
        Self::BurstLoss,
        Self::RandomLoss,
        Self::QueueFull,
        Self::Fade,
    ];

    /// Its place in [`Self::ALL`]: for arrays with one element per reason.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name it has in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mtu => "mtu",
            Self::Blackout => "blackout",
            Self::Fade => "fade",
            Self::ListedLoss => "listed-loss",
            Self::BurstLoss => "burst-loss",
            Self::RandomLoss => "random-loss",
            Self::QueueFull => "queue-full",
        }
    }
}

/// What became of one packet. Times are microseconds since the link's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When the packet was offered.
    pub time_us: u64,
    /// Which way it travels.
    pub direction: Direction,
    /// Its number in this direction, the first being 1.
    pub index: u64,
    /// Its length in bytes, IP header included.
    pub size: u32,
    /// Why it was dropped; absent if it was delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<Reason>,
    /// When it is due at the other end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver_us: Option<u64>,
    /// When its copy is due, if it was duplicated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_us: Option<u64>,
    /// Bits flipped on the way.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bits_flipped: u32,
    /// Length it was cut to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_to: Option<u32>,
    /// Whether it was picked to change places with others.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reordered: bool,
    /// The transport connection it belongs to, counted from 1 in the order they are opened; absent where none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<u32>,
}

fn is_zero(bits: &u32) -> bool {
    *bits == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// One line of the decision log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum LogLine {
    /// The first line: all that is needed to decide the same again.
    Start {
        /// What was asked of the link.
        config: Box<LinkConfig>,
        /// The seed of its decisions.
        seed: u64,
    },
    /// A packet and its fate.
    Packet(Record),
    /// Something the link was told, from which schedules may count.
    Event {
        /// When.
        time_us: u64,
        /// What.
        name: String,
    },
    /// Something the link did by itself.
    Action(Performed),
}

/// A running hash over fates (FNV-1a, 64 bit). Times are left out: runs in real time differ in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FateHash(u64);

impl FateHash {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn add(&mut self, record: &Record, damage_position: u64) {
        self.word(record.index);
        self.word(u64::from(record.size));
        self.word(record.dropped.map_or(0, |reason| reason.index() as u64 + 1));
        self.word(u64::from(record.bits_flipped));
        self.word(damage_position);
        self.word(record.cut_to.map_or(u64::MAX, u64::from));
        self.word(u64::from(record.copy_us.is_some()) << 1 | u64::from(record.reordered));
    }

    pub(crate) fn word(&mut self, word: u64) {
        for byte in word.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) const fn value(self) -> u64 {
        self.0
    }
}
