//! What a run leaves behind: plain data, filled by the runner, read by metrics and reports.
//!
//! Times are microseconds since the start of their trial on the harness clock, unless a field says
//! otherwise; device times have already been moved onto it. An absent value is `None`, never zero: a report
//! must be able to say "not measured".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of the `report.json` schema; raised when a field changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 1;

/// One run of one scenario: everything a report is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The scenario as it was run.
    pub scenario: ScenarioRecord,
    /// Where and with what it ran.
    pub environment: Environment,
    /// How the run as a whole ended.
    pub ending: Ending,
    /// Every trial, in the order run; a failed or interrupted one stays in.
    pub trials: Vec<Trial>,
}

/// The scenario, with its source text so that a report can be judged and rendered again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScenarioRecord {
    /// The scenario's name.
    pub name: String,
    /// The question it asks.
    pub question: String,
    /// File it came from, or `built-in`.
    pub origin: String,
    /// The TOML text, unchanged.
    pub source: String,
    /// Variants the command line removed or added: the names that were asked for, in order.
    pub variants: Vec<String>,
    /// Trials that were planned; fewer in [`RunRecord::trials`] means the run was cut short.
    pub planned_trials: usize,
}

/// How a run or a trial ended.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Ending {
    /// Everything that was planned was done.
    #[default]
    Completed,
    /// Stopped from outside, such as by Ctrl-C.
    Interrupted {
        /// Who or what stopped it.
        by: String,
    },
    /// Given up; the cause names what happened, where, and the remedy.
    Failed {
        /// Phase that failed, such as `connect`.
        phase: String,
        /// What happened.
        cause: String,
        /// Whose fault it is.
        blame: Blame,
    },
}

impl Ending {
    /// Whether everything that was planned was done.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        matches!(self, Self::Completed)
    }
}

/// Who is at fault for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// The subject under test did not do what it should.
    Subject,
    /// Board, broker, Docker, port: the environment.
    Environment,
    /// The harness itself.
    Harness,
}

/// Where and with what a run was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of the harness.
    pub harness_version: String,
    /// Git revision, with `-dirty` when the tree had changes.
    pub git_revision: Option<String>,
    /// Compiler of the firmware and the harness.
    pub rustc_version: Option<String>,
    /// The machine the harness ran on.
    pub host: Host,
    /// The board.
    pub board: Board,
    /// The broker.
    pub broker: Broker,
    /// The command line as it was typed.
    pub command_line: Vec<String>,
    /// The exact command that replays this run: same scenario, seeds, board, broker.
    pub replay: String,
    /// The seed all others derive from.
    pub base_seed: u64,
    /// Start of the run, microseconds since the Unix epoch.
    pub started_unix_us: u64,
    /// Wall-clock length of the run.
    pub duration_us: u64,
    /// Anything else worth recording: RSSI, access point channel, Docker version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, String>,
}

/// The machine the harness ran on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Operating system and kernel.
    pub os: String,
    /// Processor model.
    pub cpu: String,
    /// Cores available to the harness.
    pub cores: u32,
    /// One-minute load average when the run started.
    pub load: Option<f32>,
}

/// The board under test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Board {
    /// `host`, `qemu` or `esp32c3`.
    pub name: String,
    /// One line for the reader: what it is.
    pub description: String,
    /// Version or hash of the firmware that ran.
    pub firmware: Option<String>,
    /// Chip and revision, for a physical board.
    pub chip: Option<String>,
    /// MAC address, for a physical board.
    pub mac: Option<String>,
    /// How its times come about.
    pub timing: Timing,
    /// Processor clock that turns instruction counts into estimated milliseconds.
    pub clock_hz: Option<u64>,
    /// Size of the firmware, from its ELF.
    pub footprint: Option<Footprint>,
}

/// How a board's times come about, which decides how they are labelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Timing {
    /// A process or emulator: times include the host's processor and are not board times.
    Emulated,
    /// Silicon: times are those of the board.
    Physical,
}

/// Static size of a firmware image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Footprint {
    /// Flash image, all of it.
    pub flash_bytes: Option<u64>,
    /// Flash of QUIC + TLS + MQTT with their crypto.
    pub flash_client_bytes: Option<u64>,
    /// Static RAM: `.data` + `.bss`.
    pub ram_static_bytes: Option<u64>,
    /// Client state with all buffers of one connection with one stream.
    pub client_state_bytes: Option<u64>,
    /// Bytes by ELF section.
    #[serde(default)]
    pub sections: Vec<SizePart>,
    /// Bytes by crate.
    #[serde(default)]
    pub crates: Vec<SizePart>,
}

/// One part of a size table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizePart {
    /// Section or crate.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
}

/// The broker that ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Broker {
    /// `embedded`, `emqx`, `docker`, `external`.
    pub kind: String,
    /// Product and version.
    pub version: Option<String>,
    /// One line for the reader.
    pub description: String,
    /// Image digest, for a container.
    pub image_digest: Option<String>,
    /// Key type and chain of its certificate.
    pub certificate: Option<String>,
}

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
            notes: Vec::new(),
        }
    }
}

/// One connection attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// Why the client connected.
    pub cause: ConnectCause,
    /// Kind of handshake it turned out to be; for a failed attempt, the kind that was tried.
    pub handshake: Handshake,
    /// When the client began: the call, before the first packet.
    pub started_us: u64,
    /// Phases reached, in order.
    pub marks: Vec<Mark>,
    /// Sent by the client until CONNACK arrived.
    pub client_to_connack: Option<Wire>,
    /// Received by the client until CONNACK arrived.
    pub server_to_connack: Option<Wire>,
    /// Round trips until CONNACK, counted from flights.
    pub round_trips: Option<f64>,
    /// Why it failed, if it did.
    pub failure: Option<ConnectFailure>,
}

/// Why a connection attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectFailure {
    /// What kind of failure.
    pub kind: ConnectFailureKind,
    /// The words of whoever gave up.
    pub detail: String,
}

/// Kinds of [`ConnectFailure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectFailureKind {
    /// The client did not accept the server's certificate.
    Certificate,
    /// The other side refused: TLS alert, CONNACK with a failure, connection reset.
    Refused,
    /// Nothing happened in time.
    Timeout,
    /// Anything else.
    Other,
}

impl Connection {
    /// When `phase` was reached, relative to the start of the attempt.
    #[must_use]
    pub fn elapsed_us(&self, phase: Phase) -> Option<u64> {
        self.marks
            .iter()
            .find(|mark| mark.phase == phase)
            .map(|mark| mark.at_us.saturating_sub(self.started_us))
    }
}

/// Why a client connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectCause {
    /// First connection of the trial.
    First,
    /// A step of the scenario asked for it.
    Step,
    /// The connection before was lost.
    Recovery,
}

/// Kind of handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handshake {
    /// Full TLS handshake with certificate verification.
    Full,
    /// Resumed with a session ticket.
    Resumed,
    /// Resumed, with CONNECT in 0-RTT data that the server accepted.
    ZeroRtt,
    /// No TLS: plain TCP.
    None,
}

/// A phase that a connection reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Which phase.
    pub phase: Phase,
    /// When.
    pub at_us: u64,
}

/// Phases of a connection, in the order they come in a full QUIC handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The NIC is up and has an address.
    LinkUp,
    /// First packet handed to the NIC.
    FirstPacket,
    /// TCP's three-way handshake is done.
    TcpConnected,
    /// ServerHello processed: handshake keys exist.
    HandshakeKeys,
    /// Server certificate verified.
    CertificateVerified,
    /// TLS handshake complete at the client.
    HandshakeComplete,
    /// CONNECT handed to the transport.
    ConnectSent,
    /// CONNACK received.
    Connack,
    /// SUBACK received.
    Subscribed,
}

impl Phase {
    /// Words for a reader.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::LinkUp => "link up",
            Self::FirstPacket => "first packet sent",
            Self::TcpConnected => "TCP connected",
            Self::HandshakeKeys => "handshake keys",
            Self::CertificateVerified => "certificate verified",
            Self::HandshakeComplete => "handshake complete",
            Self::ConnectSent => "CONNECT sent",
            Self::Connack => "CONNACK",
            Self::Subscribed => "SUBACK",
        }
    }
}

/// One message of the workload, counted once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Which way it went.
    pub direction: Direction,
    /// Index into [`Trial::topics`].
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

/// A time during which the network or the broker was disturbed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impairment {
    /// Begin.
    pub start_us: u64,
    /// End; equal to `start_us` for something instantaneous such as a rebinding.
    pub end_us: u64,
    /// What kind.
    pub kind: ImpairmentKind,
    /// The way it worked, when not both.
    pub direction: Option<Direction>,
    /// Words for a reader, such as `blackout 5 s`.
    pub label: String,
}

/// Kinds of [`Impairment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImpairmentKind {
    /// Nothing passes.
    Blackout,
    /// New source port seen by the server.
    NatRebind,
    /// New source address seen by the server.
    AddressChange,
    /// The broker is gone or restarting.
    BrokerDown,
    /// The broker is paused.
    BrokerFrozen,
    /// The client's session was ended by the broker.
    Kicked,
    /// Loss, delay or rate changed; service goes on.
    Degraded,
}

impl ImpairmentKind {
    /// Whether service stops, so that a recovery time is measured from its end.
    #[must_use]
    pub fn interrupts(self) -> bool {
        !matches!(self, Self::Degraded)
    }
}

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

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// IP packets.
    pub packets: u64,
    /// Bytes of those packets, IP header included.
    pub bytes: u64,
}

impl std::ops::Add for Wire {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

/// What went over the wire in one phase, counted where the board meets the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireCount {
    /// Which phase.
    pub phase: WirePhase,
    /// Board to broker.
    pub up: Wire,
    /// Broker to board.
    pub down: Wire,
}

/// Phases whose packets are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WirePhase {
    /// Connecting and subscribing.
    Connect,
    /// First intended message to the last acknowledgement.
    Workload,
    /// Everything else: idle, closing.
    Rest,
}

/// What the client's own transport counted over a trial; `None` where it cannot tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportStats {
    /// Packets or segments sent.
    pub packets_sent: Option<u64>,
    /// Packets or segments received.
    pub packets_received: Option<u64>,
    /// Packets declared lost.
    pub packets_lost: Option<u64>,
    /// Packets whose content was sent again.
    pub retransmissions: Option<u64>,
    /// Losses declared although the packet had arrived.
    pub spurious_losses: Option<u64>,
    /// Probe timeouts (QUIC) or retransmission timeouts (TCP).
    pub timeouts: Option<u64>,
    /// Smallest round-trip time.
    pub rtt_min_us: Option<u64>,
    /// Smoothed round-trip time at the end.
    pub rtt_smoothed_us: Option<u64>,
    /// Congestion window at the end, bytes.
    pub congestion_window: Option<u64>,
    /// Paths moved to.
    pub migrations: Option<u64>,
    /// Key updates.
    pub key_updates: Option<u64>,
}

/// What the link did in one direction. Packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStats {
    /// Handed to the link.
    pub offered: u64,
    /// Delivered, copies included.
    pub delivered: u64,
    /// Lost by the loss model.
    pub lost: u64,
    /// Dropped by a full queue.
    pub queue_drops: u64,
    /// Dropped during a blackout.
    pub blackout_drops: u64,
    /// Dropped for being larger than the MTU.
    pub oversized: u64,
    /// Extra copies made.
    pub duplicated: u64,
    /// Delivered out of order.
    pub reordered: u64,
    /// Delivered with flipped bits.
    pub corrupted: u64,
    /// Bytes offered.
    pub bytes_offered: u64,
    /// Bytes delivered.
    pub bytes_delivered: u64,
    /// Longest run of consecutive losses.
    pub longest_burst: u64,
    /// Delivery later than scheduled, 99th percentile: the harness's own error.
    pub late_p99_us: Option<u64>,
}
