//! What the client cost the board.

use serde::{Deserialize, Serialize};

/// Memory of the board at one moment. Bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemorySnapshot {
    /// When.
    pub at_us: u64,
    /// Phase, such as `boot`, `network up`, `connected`, `workload`.
    pub phase: String,
    /// Heap in use.
    pub heap_used: Option<u64>,
    /// Heap free.
    pub heap_free: Option<u64>,
    /// Least heap ever free.
    pub heap_free_min: Option<u64>,
    /// Most stack used in this phase.
    pub stack_high_water: Option<u64>,
    /// RAM taken by QUIC + TLS + MQTT: state, buffers and their stack.
    pub client_ram: Option<u64>,
}

/// Instructions that one occurrence of an activity took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Which activity.
    pub activity: Activity,
    /// Instructions of each occurrence.
    pub instructions: Vec<u64>,
    /// Whether they repeat exactly for a seed (icount), or come from a cycle counter.
    pub exact: bool,
}

/// Activities whose instructions are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activity {
    /// Start of a connection to its first Initial packet (or ClientHello).
    FirstFlight,
    /// Full handshake, first flight included.
    HandshakeFull,
    /// Resumed handshake.
    HandshakeResumed,
    /// Resumed handshake with 0-RTT.
    HandshakeZeroRtt,
    /// Public-key operations of one full handshake.
    PublicKey,
    /// CONNECT to CONNACK.
    Connect,
    /// A PUBLISH of QoS 0, until sent.
    PublishQos0,
    /// A PUBLISH of QoS 1, until PUBACK.
    PublishQos1,
    /// A PUBLISH of QoS 2, until PUBCOMP.
    PublishQos2,
    /// A received message, until handed to the application.
    Receive,
}

/// Energy of one phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// Which activity.
    pub activity: Activity,
    /// Microjoules of one occurrence.
    pub microjoules: f64,
    /// Measured by an analyser, or estimated from times and data-sheet currents.
    pub measured: bool,
}
