//! What the harness asks of a board.

use core::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{BadMessage, CHUNK_MAX, Name, PowerMode, TEXT_MAX, TOPICS_MAX, Topic, Wifi};
use crate::redacted::redacted_debug;

/// A request with the number its [`Reply`](super::Report::Reply) will carry.
///
/// A command that was not answered in time is sent again with the **same** number: the board repeats
/// its answer and does not act twice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Command {
    /// Counts commands; never the number of an earlier, different request.
    pub sequence: u32,
    /// What is asked.
    pub request: Request,
}

/// What is asked of a board.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Answered by [`Answer::Pong`](super::Answer::Pong) at once.
    Ping {
        /// The harness's clock, given back unchanged.
        host_us: u64,
    },
    /// Repeats the boot report, for a harness that attached late.
    Announce,
    /// A piece of a certificate or key.
    Blob(Blob),
    /// Joins a wireless network; boards without a radio refuse.
    Wifi(Wifi),
    /// Replaces all settings and brings the network interface up; refused while connected.
    Configure(Settings),
    /// Opens the connection and keeps it as [`Settings::reconnection`] says.
    Connect,
    /// Ends the connection with an MQTT DISCONNECT and stays disconnected.
    Disconnect,
    /// Gives the connection up and opens a new one.
    Reconnect(Manner),
    /// Subscribes one filter.
    Subscribe(Subscription),
    /// Unsubscribes one filter.
    Unsubscribe(Topic),
    /// Publishes one message.
    Publish(Publication),
    /// Starts publishing; ends with [`Report::WorkloadDone`](super::Report::WorkloadDone).
    StartWorkload(Workload),
    /// Ends the running workload early.
    StopWorkload,
    /// Moves to another local port or address, as an interface change does.
    Migrate(Migration),
    /// Starts a QUIC key update.
    UpdateKeys,
    /// Reports memory and statistics now.
    Snapshot,
    /// Fails on purpose.
    Crash(Fault),
    /// Restarts the board.
    Reboot,
    /// Saves power this way from now on; boards that cannot refuse.
    Power(PowerMode),
    /// Tells what the board has: [`Report::Hardware`](super::Report::Hardware),
    /// [`Radio`](super::Report::Radio), [`Heap`](super::Report::Heap) and
    /// [`Activity`](super::Report::Activity), each where the board has it; one that has none refuses.
    Inspect,
}

/// A piece of a certificate or key. Pieces come in order; the one at offset 0 starts anew.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// What it is a piece of.
    pub kind: BlobKind,
    /// Length of the whole, in bytes; 0 forgets it.
    pub total: u16,
    /// Where this piece starts.
    pub offset: u16,
    /// The piece.
    pub bytes: heapless::Vec<u8, CHUNK_MAX>,
}

redacted_debug! { [] Blob, "Blob", shown: [kind, total, offset], length: [bytes], hidden: [] }

/// What a blob holds, in DER.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum BlobKind {
    /// The certificate of the authority that the broker's chain must end in.
    TrustAnchor,
    /// The certificate this device shows; one that issued it may follow directly.
    ClientCertificate,
    /// The P-256 private key of that certificate: PKCS#8, or its 32 bytes.
    ClientKey,
}

/// Everything a connection depends on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Where the board's own address comes from.
    pub addressing: Addressing,
    /// First local port; 0 picks one at random.
    pub local_port: u16,
    /// The broker's address for `transport`.
    pub broker: SocketAddr,
    /// What carries MQTT.
    pub transport: Transport,
    /// The name the broker's certificate must be valid for, and the SNI.
    pub server_name: Name,
    /// Seconds since 1970 at the moment of configuration: certificates are checked against it.
    pub unix_time_s: u64,
    /// TLS: which key share to offer.
    pub key_exchange: KeyExchange,
    /// TLS: which ciphers to offer.
    pub ciphers: CipherChoice,
    /// TLS: whether and how to resume.
    pub resumption: Resumption,
    /// QUIC only.
    pub quic: QuicSettings,
    /// The MQTT session.
    pub mqtt: MqttSettings,
    /// What to do when a connection ends unasked.
    pub reconnection: Reconnection,
    /// Time the transport has to open, in milliseconds.
    pub connect_timeout_ms: u32,
    /// Time the broker has for CONNACK and PINGRESP, in milliseconds.
    pub answer_timeout_ms: u32,
    /// QUIC: timeouts in a row without an answer after which the board moves to a new port; 0 never does.
    pub migrate_after_timeouts: u8,
    /// Timeouts in a row without an answer after which the connection is given up; 0 leaves that to the
    /// transport's own timeout.
    pub give_up_after_timeouts: u8,
}

/// Where the board's own address comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Addressing {
    /// From a DHCP server (IPv4).
    Dhcp,
    /// As given.
    Static {
        /// The board's address.
        address: IpAddr,
        /// Length of the network prefix in bits.
        prefix: u8,
        /// Where everything outside the network goes.
        gateway: Option<IpAddr>,
    },
}

/// What carries MQTT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Transport {
    /// QUIC v1.
    Quic,
    /// TLS 1.3 over TCP.
    Tls,
    /// Plain TCP.
    Tcp,
}

/// The key share offered first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum KeyExchange {
    /// X25519.
    X25519,
    /// NIST P-256.
    P256,
}

/// The ciphers offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CipherChoice {
    /// All this firmware has.
    Any,
    /// Only AES-128-GCM.
    Aes128,
    /// Only ChaCha20-Poly1305.
    ChaCha20,
}

/// Whether a new connection builds on an old one's ticket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Resumption {
    /// Every handshake is a full one.
    Off,
    /// A ticket is used when there is one.
    Ticket,
    /// A ticket is used, and CONNECT goes out as 0-RTT data.
    EarlyData,
}

/// Settings of the QUIC transport.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QuicSettings {
    /// How MQTT uses streams.
    pub streams: StreamMode,
    /// Which congestion controller.
    pub congestion: Congestion,
    /// Largest UDP payload to probe for, 1200 to 1472 bytes; 1200 does not probe.
    pub datagram_max: u16,
    /// Idle timeout offered to the peer in milliseconds; 0 offers none.
    pub idle_timeout_ms: u32,
    /// Sends a PING when nothing was sent for so long, in milliseconds; 0 never does.
    pub keep_alive_ms: u32,
    /// Updates the keys after so many packets; 0 only when asked to or at the cipher's limit.
    pub key_update_packets: u32,
}

/// How MQTT uses QUIC streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum StreamMode {
    /// Everything on the control stream.
    Single,
    /// The topics of a workload, and the subscriptions, take turns on data streams of their own (EMQX's).
    PerTopic,
}

/// Congestion control.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Congestion {
    /// NewReno (RFC 9002 7).
    NewReno,
}

/// Settings of the MQTT session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MqttSettings {
    /// Which MQTT.
    pub version: MqttVersion,
    /// The client identifier.
    pub client_id: Name,
    /// Keep alive in seconds; 0 turns it off.
    pub keep_alive_s: u16,
    /// Whether the broker discards an earlier session.
    pub clean_start: bool,
    /// How long the broker keeps the session after the connection ends, in seconds (MQTT 5).
    pub session_expiry_s: u32,
    /// User name.
    pub username: Option<Name>,
    /// Password.
    pub password: Option<Name>,
    /// The will.
    pub will: Option<Will>,
}

redacted_debug! {
    [] MqttSettings, "MqttSettings",
    shown: [version, client_id, keep_alive_s, clean_start, session_expiry_s, username, will],
    length: [], hidden: [password]
}

/// The version of MQTT spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MqttVersion {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.0.
    V5,
}

/// The message a broker publishes when this device vanishes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Will {
    /// Where to.
    pub topic: Topic,
    /// What.
    pub payload: heapless::Vec<u8, 32>,
    /// Quality of service, 0 to 2.
    pub qos: u8,
    /// Whether the broker retains it.
    pub retain: bool,
}

/// What to do when a connection ends unasked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reconnection {
    /// Stay disconnected.
    Never,
    /// Try again, doubling the wait each time.
    Backoff {
        /// First wait in milliseconds.
        first_ms: u32,
        /// Longest wait in milliseconds.
        max_ms: u32,
        /// Attempts in a row before giving up; 0 never gives up.
        attempts: u16,
    },
}

/// How a connection is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Manner {
    /// DISCONNECT and a closed transport.
    Graceful,
    /// Without a word, as after a power cut.
    Abrupt,
}

/// One filter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subscription {
    /// The topic filter.
    pub filter: Topic,
    /// Largest quality of service wanted, 0 to 2.
    pub qos: u8,
}

/// One message that is not part of a workload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Publication {
    /// Where to.
    pub topic: Topic,
    /// Quality of service, 0 to 2.
    pub qos: u8,
    /// Whether the broker retains it.
    pub retain: bool,
    /// What.
    pub payload: heapless::Vec<u8, TEXT_MAX>,
}

/// Messages to publish at intended times. Message `n` goes to topic `n % topics.len()`, intended for
/// `start + n * interval_us`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Workload {
    /// Names the run in each payload.
    pub run: u32,
    /// Where to, in turn.
    pub topics: heapless::Vec<Topic, TOPICS_MAX>,
    /// Quality of service, 0 to 2.
    pub qos: u8,
    /// Whether the broker retains them.
    pub retain: bool,
    /// Payload size in bytes, at least [`payload::OVERHEAD`](super::payload::OVERHEAD).
    pub size: u16,
    /// How many messages.
    pub count: u32,
    /// When they are due.
    pub pattern: Pattern,
    /// Seed of the payload filler.
    pub seed: u64,
    /// How long to wait for acknowledgements after the last message was sent, in milliseconds.
    pub drain_ms: u32,
}

/// When the messages of a workload are due.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Pattern {
    /// One every so many microseconds. One that cannot go out in time keeps its intended time.
    Every {
        /// Microseconds between two messages.
        interval_us: u32,
    },
    /// As fast as the client accepts them; the intended time is when it was accepted.
    Saturate,
}

/// A change of the local address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Migration {
    /// The new local port; 0 picks another one at random.
    pub port: u16,
    /// The new address and prefix length, if it changes.
    pub address: Option<(IpAddr, u8)>,
}

/// A way to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Fault {
    /// A panic.
    Panic,
    /// Recursion without end.
    StackOverflow,
    /// A loop without end: the console falls silent.
    Hang,
    /// Memory that runs out.
    Exhaustion,
}

impl Command {
    /// Encodes into `out` and returns the encoded part.
    ///
    /// # Errors
    /// [`BadMessage`] when `out` is too small; [`MESSAGE_MAX`](super::MESSAGE_MAX) bytes hold any command.
    pub fn encode<'a>(&self, out: &'a mut [u8]) -> Result<&'a mut [u8], BadMessage> {
        postcard::to_slice(self, out).map_err(|_| BadMessage)
    }

    /// Decodes the content of a frame.
    ///
    /// # Errors
    /// [`BadMessage`] when it is no command.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadMessage> {
        super::decode_all(bytes)
    }
}
