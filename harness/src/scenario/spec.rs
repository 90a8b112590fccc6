//! The keys of a scenario file, as they are written. Every key is documented in `scenarios/README.md`.
//!
//! serde reads these types and refuses unknown keys and wrong units with their position; what the types
//! alone cannot tell is checked in [`super::check`].

use link::LinkConfig;
use link::units::{Size, Time};
use serde::Deserialize;

use crate::measure::record::Transport;

/// A scenario file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub name: String,
    pub question: String,
    pub answer: String,
    pub expect: Vec<String>,
    #[serde(default)]
    pub transports: Option<Vec<Transport>>,
    #[serde(default)]
    pub variant: Vec<VariantEntry>,
    #[serde(default)]
    pub seeds: Option<Vec<u64>>,
    #[serde(default)]
    pub repeat: Option<u32>,
    #[serde(default)]
    pub reference: bool,
    #[serde(default)]
    pub boards: Option<Vec<BoardName>>,
    #[serde(default)]
    pub link: LinkConfig,
    #[serde(default)]
    pub workload: WorkloadTable,
    #[serde(default)]
    pub connection: ConnectionTable,
    #[serde(default)]
    pub broker: BrokerOptions,
    #[serde(default)]
    pub step: Vec<StepEntry>,
    #[serde(default)]
    pub refusal: Option<Refusal>,
    #[serde(default)]
    pub limits: LimitsTable,
}

/// A board a scenario can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoardName {
    /// The firmware as a process on the host.
    Host,
    /// The firmware on an emulated RV32IMC.
    Qemu,
    /// The real board.
    Esp32c3,
}

impl BoardName {
    /// Names of all boards.
    pub const NAMES: [&'static str; 3] = ["host", "qemu", "esp32c3"];

    /// The name in scenarios and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Qemu => "qemu",
            Self::Esp32c3 => "esp32c3",
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VariantEntry {
    pub name: String,
    pub transport: Transport,
    #[serde(default)]
    pub connection: ConnectionTable,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkloadTable {
    #[serde(default)]
    pub up: Option<FlowTable>,
    #[serde(default)]
    pub down: Option<FlowTable>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FlowTable {
    #[serde(default)]
    pub topics: Option<u16>,
    #[serde(default)]
    pub qos: Option<u8>,
    pub size: Size,
    pub count: u32,
    #[serde(default)]
    pub interval: Option<Time>,
    #[serde(default)]
    pub retain: bool,
}

/// Options of the client's connection; what is absent keeps its default or that of the scenario.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectionTable {
    #[serde(default)]
    pub mqtt: Option<MqttVersion>,
    #[serde(default)]
    pub streams: Option<Streams>,
    #[serde(default)]
    pub resumption: Option<Resumption>,
    #[serde(default)]
    pub key_exchange: Option<KeyExchange>,
    #[serde(default)]
    pub cipher: Option<Cipher>,
    #[serde(default)]
    pub client_certificate: Option<bool>,
    #[serde(default)]
    pub clean_start: Option<bool>,
    #[serde(default)]
    pub session_expiry: Option<Time>,
    #[serde(default)]
    pub keep_alive: Option<Time>,
    #[serde(default)]
    pub idle_timeout: Option<Time>,
    #[serde(default)]
    pub quic_keep_alive: Option<Time>,
    #[serde(default)]
    pub datagram: Option<Size>,
    #[serde(default)]
    pub reconnect: Option<Reconnect>,
}

/// Version of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum MqttVersion {
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V311,
    /// MQTT 5.0.
    #[serde(rename = "5.0")]
    V5,
}

/// How topics use QUIC streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Streams {
    /// Everything on the control stream.
    Single,
    /// A data stream for each topic.
    PerTopic,
}

/// What a second connection may take from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resumption {
    /// Nothing: full handshakes only.
    Off,
    /// A session ticket.
    Ticket,
    /// A session ticket, with CONNECT in 0-RTT data.
    EarlyData,
}

/// Key exchange the client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyExchange {
    /// X25519.
    X25519,
    /// NIST P-256.
    P256,
}

/// Cipher suites the client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cipher {
    /// All it has; the server chooses.
    Any,
    /// AES-128-GCM only.
    Aes128,
    /// ChaCha20-Poly1305 only.
    Chacha20,
}

/// What the client does when its connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reconnect {
    /// Wait before the first attempt; zero attempts at once.
    #[serde(default)]
    pub first: Time,
    /// Longest wait; waits double up to it.
    pub max: Time,
    /// Attempts before giving up; 0 never reconnects.
    pub attempts: u16,
}

/// What kind of broker the scenario needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerOptions {
    /// Which certificate the broker shows.
    #[serde(default)]
    pub certificate: Certificate,
    /// The chain it sends.
    #[serde(default)]
    pub chain: Chain,
    /// Whether it asks clients for a certificate.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
    /// When a client may open its first stream.
    #[serde(default)]
    pub stream_credit: StreamCredit,
}

/// Certificate of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certificate {
    /// Valid, from the run's own CA.
    #[default]
    Valid,
    /// Issued for another name.
    WrongName,
    /// No longer valid.
    Expired,
    /// From a CA the client does not know.
    UnknownCa,
}

/// Certificate chain the broker sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chain {
    /// Leaf, issued by the trusted root.
    Leaf,
    /// Leaf and intermediate, below the trusted root.
    #[default]
    LeafIntermediate,
}

/// Whether the broker asks clients for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertificates {
    /// It does not ask.
    #[default]
    Ignored,
    /// It refuses clients without one from the run's CA.
    Required,
}

/// When a client may open its first stream of a QUIC connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamCredit {
    /// The transport parameters allow it, so 0-RTT may use it.
    #[default]
    InHandshake,
    /// The transport parameters allow no stream; MAX_STREAMS comes in a 1-RTT packet, as from EMQX 5.8.
    AfterHandshake,
}

/// The ending a scenario wants: a connection that is refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Who refuses.
    #[serde(default)]
    pub by: RefusedBy,
    /// Alerts it may give as its reason; another one, or none, is a failure.
    pub alerts: Vec<Alert>,
}

/// Who refuses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusedBy {
    /// The client refuses the broker, and the broker hears of it.
    #[default]
    Client,
    /// The broker refuses the client, and the client hears of it.
    Broker,
}

/// A TLS alert (RFC 8446 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are those of the RFC")]
pub enum Alert {
    HandshakeFailure = 40,
    BadCertificate = 42,
    UnsupportedCertificate = 43,
    CertificateRevoked = 44,
    CertificateExpired = 45,
    CertificateUnknown = 46,
    UnknownCa = 48,
    AccessDenied = 49,
    DecryptError = 51,
    CertificateRequired = 116,
}

impl Alert {
    /// Its number.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepEntry {
    #[serde(rename = "do")]
    pub action: ActionName,
    #[serde(default)]
    pub at: Time,
    #[serde(default)]
    pub after: Anchor,
    #[serde(rename = "for", default)]
    pub length: Option<Time>,
    #[serde(default)]
    pub times: Option<u32>,
    #[serde(default)]
    pub every: Option<Time>,
    #[serde(default)]
    pub session: Option<SessionState>,
    #[serde(default)]
    pub manner: Option<Manner>,
    #[serde(default)]
    pub certificate: Option<Certificate>,
    #[serde(default)]
    pub fault: Option<BoardFault>,
    #[serde(default)]
    pub connections: Option<u32>,
    #[serde(default)]
    pub turn_away: Option<TurnAway>,
}

/// The moment a step counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anchor {
    /// The start of the trial, before connecting.
    Start,
    /// The first CONNACK.
    Connected,
    /// The first intended message.
    #[default]
    Workload,
}

impl Anchor {
    /// Names of the events that [`link`] schedules and steps may count from.
    pub const NAMES: [&'static str; 3] = ["start", "connected", "workload"];

    /// The event's name, as it is announced to the link.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Connected => "connected",
            Self::Workload => "workload",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ActionName {
    Reconnect,
    Migrate,
    UpdateKeys,
    ResetBoard,
    CrashBoard,
    StopBroker,
    KillBroker,
    FreezeBroker,
    RestartBroker,
    DropUdp,
    Kick,
    TakeOver,
    RotateCertificate,
    Overload,
}

impl ActionName {
    /// The name in the file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reconnect => "reconnect",
            Self::Migrate => "migrate",
            Self::UpdateKeys => "update-keys",
            Self::ResetBoard => "reset-board",
            Self::CrashBoard => "crash-board",
            Self::StopBroker => "stop-broker",
            Self::KillBroker => "kill-broker",
            Self::FreezeBroker => "freeze-broker",
            Self::RestartBroker => "restart-broker",
            Self::DropUdp => "drop-udp",
            Self::Kick => "kick",
            Self::TakeOver => "take-over",
            Self::RotateCertificate => "rotate-certificate",
            Self::Overload => "overload",
        }
    }
}

/// What a restarting broker does with its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionState {
    /// Sessions survive.
    Keep,
    /// Sessions are forgotten.
    Lose,
}

/// How an overloaded broker turns a client away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TurnAway {
    /// It accepts the connection, and closes it.
    #[default]
    Close,
    /// It refuses the connection at its first packet.
    Refuse,
}

/// How the client leaves its connection for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manner {
    /// DISCONNECT and close, then connect.
    Graceful,
    /// The old connection is forgotten without a word.
    Abrupt,
}

/// A fault provoked in the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BoardFault {
    /// The firmware panics.
    Panic,
    /// The firmware overflows its stack.
    StackOverflow,
    /// The firmware hangs.
    Hang,
    /// The firmware exhausts its memory.
    Exhaustion,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsTable {
    #[serde(default)]
    pub boot: Option<Time>,
    #[serde(default)]
    pub connect: Option<Time>,
    #[serde(default)]
    pub workload: Option<Time>,
    #[serde(default)]
    pub drain: Option<Time>,
}
