//! One pass of the workload by one client with one seed.

use serde::{Deserialize, Serialize};

use super::{
    Connection, Cost, Ending, Energy, Fleet, Impairment, LinkStats, MemorySnapshot, Message, TransportStats,
    WireCount,
};

/// What the client spoke over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// MQTT over QUIC v1.
    Quic,
    /// MQTT over TLS 1.3 over TCP.
    Tls,
    /// MQTT over plain TCP.
    Tcp,
}

impl Transport {
    /// Every transport, in the order reports show them.
    pub const ALL: [Self; 3] = [Self::Quic, Self::Tls, Self::Tcp];

    /// The name scenarios and command lines use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Who ran the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The firmware under test.
    Device,
    /// quinn or rumqttc on the host, through the same link with the same seed.
    Reference,
}

impl Role {
    /// The name scenarios use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Reference => "reference",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One pass of the scenario's workload by one client with one seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Name of the scenario's variant; the transport's name unless the scenario names variants itself.
    pub variant: String,
    /// Transport of that variant.
    pub transport: Transport,
    /// Device or reference client.
    pub role: Role,
    /// Seed of the link and the workload.
    pub seed: u64,
    /// Start of the trial, microseconds since the start of the run.
    pub started_us: u64,
    /// Length of the trial.
    pub duration_us: u64,
    /// How it ended.
    #[serde(default)]
    pub ending: Ending,
    /// How far the device clock could be off the harness clock.
    pub clock_uncertainty_us: Option<u64>,
    /// Names of the topics that [`Message::topic`] counts.
    pub topics: Vec<String>,
    /// Every connection attempt, failed ones too.
    pub connections: Vec<Connection>,
    /// Every message of the workload, once.
    pub messages: Vec<Message>,
    /// What happened when.
    #[serde(default)]
    pub events: Vec<Event>,
    /// When the network or the broker was disturbed.
    #[serde(default)]
    pub impairments: Vec<Impairment>,
    /// Memory by phase.
    #[serde(default)]
    pub memory: Vec<MemorySnapshot>,
    /// Instructions by phase.
    #[serde(default)]
    pub costs: Vec<Cost>,
    /// Energy by phase.
    #[serde(default)]
    pub energy: Vec<Energy>,
    /// Packets and IP bytes on the wire, by phase.
    #[serde(default)]
    pub wire: Vec<WireCount>,
    /// What the client's own transport counted.
    pub transport_stats: Option<TransportStats>,
    /// What the link did, board to broker.
    pub link_up: Option<LinkStats>,
    /// What the link did, broker to board.
    pub link_down: Option<LinkStats>,
    /// The figures of many devices together, where the trial had many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<Fleet>,
    /// Remarks for the reader of the report.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Trial {
    /// An empty trial, to be filled while it runs.
    #[must_use]
    pub fn new(variant: impl Into<String>, transport: Transport, role: Role, seed: u64) -> Self {
        Self {
            variant: variant.into(),
            transport,
            role,
            seed,
            started_us: 0,
            duration_us: 0,
            ending: Ending::Completed,
            clock_uncertainty_us: None,
            topics: Vec::new(),
            connections: Vec::new(),
            messages: Vec::new(),
            events: Vec::new(),
            impairments: Vec::new(),
            memory: Vec::new(),
            costs: Vec::new(),
            energy: Vec::new(),
            wire: Vec::new(),
            transport_stats: None,
            link_up: None,
            link_down: None,
            fleet: None,
            notes: Vec::new(),
        }
    }
}

/// Something that happened to the connection or the board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at_us: u64,
    /// What.
    pub kind: EventKind,
    /// The details, for a reader.
    #[serde(default)]
    pub detail: String,
}

/// Kinds of [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The client had a working session (CONNACK).
    Connected,
    /// The client noticed that its connection is gone, or gave an attempt up.
    Disconnected,
    /// The client left its connection because it was asked to.
    Left,
    /// The client moved to a new path and goes on.
    Migrated,
    /// A new path answered its challenge.
    PathValidated,
    /// The client changed its packet protection keys.
    KeyUpdated,
    /// The board restarted.
    BoardReset,
    /// The board panicked, hung or left the console.
    BoardFault,
    /// A step of the scenario was carried out.
    Step,
    /// The broker did something noteworthy.
    Broker,
}
