//! The session's words: what a caller asks for, and what it is told.

use crate::mqtt::{Duplicate, PacketId, Properties, Qos, Retain, Version, Will};
use crate::redacted::redacted_debug;
use crate::time::Duration;

/// How many streams a session may use: the control stream and the data streams of EMQX.
pub const SLOTS: usize = 4;

/// One of the session's streams. A slot keeps its number when its stream is opened anew.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Slot(u8);

impl Slot {
    /// The stream of CONNECT; the only one over TCP.
    pub const CONTROL: Self = Self(0);

    /// Slot `index`; `None` beyond [`SLOTS`].
    pub const fn new(index: usize) -> Option<Self> {
        if index < SLOTS { Some(Self(index as u8)) } else { None }
    }

    /// Its number, below [`SLOTS`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// All slots, the control stream first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOTS as u8).map(Self)
    }
}

/// The byte streams under a session.
///
/// One view of one connection. Slots are opened by the session; each is a bidirectional stream.
pub trait Streams {
    /// Opens the stream of `slot`, which has none; false if the peer's limit does not allow it yet.
    fn open_stream(&mut self, slot: Slot) -> bool;

    /// How many bytes [`Streams::write`] takes now.
    fn writable(&mut self, slot: Slot) -> usize;

    /// Writes a packet, `head` with `body` behind it: together no more than [`Streams::writable`] allows.
    ///
    /// Whole packets, because a transport of records spends room on each write.
    fn write(&mut self, slot: Slot, head: &[u8], body: &[u8]);

    /// How many bytes [`Streams::read`] returns now.
    fn readable(&mut self, slot: Slot) -> usize;

    /// Reads up to `bytes.len()` bytes in order and returns how many.
    fn read(&mut self, slot: Slot, bytes: &mut [u8]) -> usize;

    /// How the peer ended the stream, once no more will become readable than is now.
    fn ended(&mut self, slot: Slot) -> Option<StreamEnd>;

    /// Ends this side's use of the stream of `slot`; the slot has none afterwards.
    fn close_stream(&mut self, slot: Slot, end: StreamEnd);

    /// How many streams there may be, the control stream among them: 1 to [`SLOTS`].
    fn count(&self) -> usize;

    /// The largest packet that can be received, at most [`RX_PACKET_MAX`]: the stream's own buffer may be smaller where
    /// [whole packets](Self::buffers_whole_packets) wait in it. CONNECT announces it.
    fn packet_max(&self) -> usize {
        RX_PACKET_MAX
    }

    /// Whether a packet of up to [`Self::packet_max`] bytes becomes readable as a whole.
    ///
    /// If so the session leaves an incomplete packet in the stream's own buffer, and an incomplete packet on one
    /// stream does not keep another one waiting. If not (TLS hands out one record at a time) it gathers the packet,
    /// which only works with a single stream.
    fn buffers_whole_packets(&self) -> bool;
}

/// How a stream ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamEnd {
    /// In order: FIN.
    Finished,
    /// Abruptly, with an application error code: RESET_STREAM or STOP_SENDING.
    Reset(u64),
}

/// Largest packet received, in bytes: a payload of 1 KiB, and 128 bytes for topic and properties. Announced as
/// maximum packet size, unless the streams hold less ([`Streams::packet_max`]).
pub const RX_PACKET_MAX: usize = 1024 + 128;

/// Where a packet lies as a whole while it is looked at. The session does not own one: a datagram's buffer serves as
/// well as long as the streams buffer whole packets.
pub type PacketBuffer = [u8; RX_PACKET_MAX];

/// Largest PUBLISH sent, in bytes: what a stream takes at once when its send buffer is empty.
pub const TX_PACKET_MAX: usize = RX_PACKET_MAX;

/// Longest topic name this client publishes to, in bytes.
pub const TOPIC_MAX: usize = 128;

/// What CONNECT says, and what the session is to be like. Borrowed for each call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Options<'a> {
    /// The protocol version.
    pub version: Version,
    /// The client identifier.
    pub client_id: &'a str,
    /// The user name.
    pub user_name: Option<&'a str>,
    /// The password.
    pub password: Option<&'a [u8]>,
    /// The message for when the client vanishes.
    pub will: Option<Will<'a>>,
    /// Whether an older session is thrown away by the first CONNECT. Reconnecting always continues the
    /// session if `session_expiry` allows it.
    pub start: Start,
    /// Longest silence towards the server in seconds; 0 turns keep alive off.
    pub keep_alive_s: u16,
    /// How long the server keeps the session after the connection, in seconds; `u32::MAX` is for ever.
    /// 3.1.1 knows only zero (clean session) and for ever (anything else).
    pub session_expiry_s: u32,
    /// More properties of CONNECT (5.0): user properties, request-problem-information, request-response-information. The
    /// others are the session's own.
    pub properties: Properties<'a>,
    /// How long the server has for CONNACK and PINGRESP.
    pub answer_timeout: Duration,
}

redacted_debug! {
    [] Options<'_>, "Options",
    shown: [
        version, client_id, user_name, will, start, keep_alive_s, session_expiry_s, properties, answer_timeout
    ],
    length: [], hidden: [password]
}

impl<'a> Options<'a> {
    /// MQTT 5.0, a fresh session that outlives its connection by five minutes, keep alive of 60 s.
    pub const fn new(client_id: &'a str) -> Self {
        Self {
            version: Version::V5,
            client_id,
            user_name: None,
            password: None,
            will: None,
            start: Start::Fresh,
            keep_alive_s: 60,
            session_expiry_s: 300,
            properties: Properties::NONE,
            answer_timeout: Duration::from_secs(10),
        }
    }
}

/// What the first CONNECT does with an older session of the same client identifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Start {
    /// Throws it away.
    #[default]
    Fresh,
    /// Continues it.
    Continue,
}

/// A message to be published.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Publication<'a> {
    /// On which stream.
    pub slot: Slot,
    /// To which topic.
    pub topic: &'a str,
    /// What.
    pub payload: &'a [u8],
    /// How surely.
    pub qos: Qos,
    /// Whether the server keeps it.
    pub retain: Retain,
    /// Properties (5.0); not the topic alias, which is the session's.
    pub properties: Properties<'a>,
    /// Whether it may go out as 0-RTT data.
    pub replay: Replay,
}

impl<'a> Publication<'a> {
    /// A QoS 0 message on the control stream.
    pub const fn new(topic: &'a str, payload: &'a [u8]) -> Self {
        Self {
            slot: Slot::CONTROL,
            topic,
            payload,
            qos: Qos::AtMostOnce,
            retain: Retain::No,
            properties: Properties::NONE,
            replay: Replay::Unsafe,
        }
    }

    /// With this QoS.
    pub const fn qos(mut self, qos: Qos) -> Self {
        self.qos = qos;
        self
    }

    /// On this stream.
    pub const fn on(mut self, slot: Slot) -> Self {
        self.slot = slot;
        self
    }
}

/// Whether an attacker who repeats the message does no harm.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Replay {
    /// Not to be sent as 0-RTT data.
    #[default]
    Unsafe,
    /// May be sent as 0-RTT data (RFC 9001 9.2).
    Safe,
}

/// A message from the server, borrowed from the receive buffer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Message<'a> {
    /// The stream it came on.
    pub slot: Slot,
    /// Its topic, aliases resolved.
    pub topic: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
    /// Its QoS.
    pub qos: Qos,
    /// Whether it was retained.
    pub retain: Retain,
    /// Whether it may have been delivered before (QoS 1).
    pub duplicate: Duplicate,
    /// Its properties (5.0).
    pub properties: Properties<'a>,
}

/// A request or a QoS 1 or 2 publication whose answer comes as an event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token {
    /// Its stream.
    pub slot: Slot,
    /// Its packet identifier, unique on that stream until answered.
    pub id: PacketId,
}

/// Why a request was not taken. Nothing of it is left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestError {
    /// There is no room now: try again after an acknowledgement, or when the transport has sent.
    Full,
    /// QoS 0 needs an open session, or its data stream is not open yet.
    NotConnected,
    /// The slot is beyond the streams of this client or transport ([`Streams::count`]).
    StreamInvalid,
    /// The server closed this data stream again and again, with nothing achieved in between. It is left alone until the
    /// next connection, or until [`Session::open_stream`](super::Session::open_stream) asks for it.
    StreamRefused,
    /// The topic is empty, has wildcards, or is longer than [`TOPIC_MAX`].
    TopicInvalid,
    /// A filter breaks the rules of 4.7 or is named twice, or the list of filters is empty or too long.
    FilterInvalid,
    /// Larger than the packet the server accepts, or than the store.
    TooLarge,
    /// A property that belongs elsewhere, comes twice or has a value that it must not have, or any property in 3.1.1.
    PropertyInvalid,
    /// The server does not support this QoS.
    QosNotSupported,
    /// The server does not retain messages.
    RetainNotSupported,
}

impl core::fmt::Display for RequestError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Full => "no room now; try again after an acknowledgement",
            Self::NotConnected => "the stream is not open; wait for the Connected or StreamOpened event",
            Self::StreamInvalid => {
                "no such stream here; use the control stream or a client with more streams"
            }
            Self::StreamRefused => {
                "the server keeps closing this data stream; use another, or ask for it with open_stream"
            }
            Self::TopicInvalid => "topic name empty, too long or with wildcards",
            Self::FilterInvalid => "topic filter invalid or named twice, or none, or too many",
            Self::TooLarge => "larger than the server or the store takes",
            Self::PropertyInvalid => "a property that is invalid, twice, or not of this packet or version",
            Self::QosNotSupported => "the server does not support this QoS",
            Self::RetainNotSupported => "the server does not retain messages",
        })
    }
}

impl core::error::Error for RequestError {}

/// What a session counted since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SessionStats {
    /// PUBLISH packets written, by QoS; repetitions count again.
    pub publishes_sent: [u32; 3],
    /// Of these, repetitions after a reconnect.
    pub publishes_resent: u32,
    /// QoS 1 and 2 publications completed.
    pub publishes_acknowledged: u32,
    /// Messages delivered to the application, by QoS.
    pub messages_received: [u32; 3],
    /// QoS 2 messages that came again and were not delivered again.
    pub duplicates_suppressed: u32,
    /// Messages skipped for their size.
    pub oversize_skipped: u32,
    /// Requests refused as [`RequestError::Full`].
    pub refused_full: u32,
    /// PINGREQ packets written.
    pub pings_sent: u32,
    /// Most bytes ever in the store of unacknowledged publications.
    pub store_bytes_max: u32,
    /// Most publications ever in it.
    pub store_count_max: u32,
    /// Largest packet received in bytes.
    pub receive_packet_max: u32,
    /// Most bytes ever in the table of subscriptions.
    pub subscription_bytes_max: u32,
}

impl SessionStats {
    /// Nothing happened yet.
    pub const ZERO: Self = Self {
        publishes_sent: [0; 3],
        publishes_resent: 0,
        publishes_acknowledged: 0,
        messages_received: [0; 3],
        duplicates_suppressed: 0,
        oversize_skipped: 0,
        refused_full: 0,
        pings_sent: 0,
        store_bytes_max: 0,
        store_count_max: 0,
        receive_packet_max: 0,
        subscription_bytes_max: 0,
    };
}
