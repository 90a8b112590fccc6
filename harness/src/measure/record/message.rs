//! Messages of the workload.

use serde::{Deserialize, Serialize};

/// One message of the workload, counted once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Which way it went.
    pub direction: Direction,
    /// Index into [`Trial::topics`](super::Trial::topics).
    pub topic: u16,
    /// Sequence number within its topic and direction.
    pub sequence: u32,
    /// MQTT quality of service: 0, 1 or 2.
    pub qos: u8,
    /// Payload bytes.
    pub size: u32,
    /// When the workload's schedule wanted it sent; latency counts from here.
    pub intended_us: u64,
    /// When it was handed to the transport.
    pub sent_us: Option<u64>,
    /// When its sender had PUBACK or PUBCOMP (QoS 1 and 2).
    pub acked_us: Option<u64>,
    /// When the other side had it, first copy.
    pub delivered_us: Option<u64>,
    /// What became of it.
    pub fate: Fate,
}

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Published by the client under test.
    FromBoard,
    /// Published by the peer, received by the client under test.
    ToBoard,
}

impl Direction {
    /// Words for a reader.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::FromBoard => "from the board",
            Self::ToBoard => "to the board",
        }
    }
}

/// What became of a message: exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// Arrived once, intact, in its topic's order.
    Delivered,
    /// Arrived intact more than once.
    Duplicated,
    /// Arrived once, intact, after a later message of its topic.
    Reordered,
    /// Arrived with a wrong checksum or content.
    Corrupt,
    /// Did not arrive, though the trial ran to its end.
    Lost,
    /// Did not arrive before a time limit or the trial's early end.
    TimedOut,
}

impl Fate {
    /// Every fate, in the order reports show them.
    pub const ALL: [Self; 6] =
        [Self::Delivered, Self::Duplicated, Self::Reordered, Self::Corrupt, Self::Lost, Self::TimedOut];

    /// Whether at least one intact copy arrived.
    #[must_use]
    pub fn arrived(self) -> bool {
        matches!(self, Self::Delivered | Self::Duplicated | Self::Reordered)
    }

    /// The word reports and CSV files use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
            Self::Corrupt => "corrupt",
            Self::Lost => "lost",
            Self::TimedOut => "timed-out",
        }
    }
}
