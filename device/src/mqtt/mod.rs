//! MQTT 5.0 and 3.1.1, the client's side: packets, and a session over byte streams.
//!
//! [`packet`] encodes and decodes every packet type. [`Session`] is the protocol without I/O: it reads
//! and writes through [`Streams`], so it is the same over QUIC, TLS and TCP. Section numbers are those
//! of the OASIS standard, version 5.0, unless another is named.

pub mod packet;
mod reason;
pub mod session;
pub mod topic;

pub use packet::{Properties, Property};
pub use reason::{Error, ReasonCode};
pub use session::{
    Event, Message, Notice, Options, Publication, Replay, RequestError, Session, SessionStats, Slot, Start,
    StreamEnd, Streams, Token,
};

/// The protocol version spoken, as CONNECT names it (3.1.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V3_1_1,
    /// MQTT 5.0, protocol level 5.
    #[default]
    V5,
}

/// How surely a message is delivered (4.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Qos {
    /// At most once.
    #[default]
    AtMostOnce,
    /// At least once.
    AtLeastOnce,
    /// Exactly once.
    ExactlyOnce,
}

impl Qos {
    /// The two bits on the wire.
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// The QoS of two bits; 3 is reserved.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Identifies a message or request in flight on its stream; never zero (2.2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PacketId(core::num::NonZeroU16);

impl PacketId {
    /// The identifier `value`; `None` for zero.
    pub const fn new(value: u16) -> Option<Self> {
        match core::num::NonZeroU16::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The number on the wire.
    pub const fn value(self) -> u16 {
        self.0.get()
    }
}

/// Whether the server keeps the message for later subscribers (3.3.1.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Retain {
    /// Not retained; a received message was published while subscribed.
    #[default]
    No,
    /// Retained; a received message was retained before.
    Yes,
}

impl Retain {
    /// From the flag's bit.
    pub const fn from_flag(flag: bool) -> Self {
        if flag { Self::Yes } else { Self::No }
    }
}

/// Whether a PUBLISH might be a repetition (3.3.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Duplicate {
    /// The first attempt.
    #[default]
    No,
    /// Sent before.
    Yes,
}

/// When a subscription wants retained messages (3.8.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RetainHandling {
    /// At each SUBSCRIBE.
    #[default]
    Send,
    /// Only when the subscription is new.
    SendIfNew,
    /// Never.
    DoNotSend,
}

/// One topic filter to subscribe to, and how (3.8.3). But for the QoS, 3.1.1 knows none of the options.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Filter<'a> {
    /// The topic filter.
    pub filter: &'a str,
    /// The highest QoS wanted.
    pub qos: Qos,
    /// Whether messages that this client publishes are left out.
    pub no_local: bool,
    /// Whether the retain flag is forwarded as published.
    pub retain_as_published: bool,
    /// When retained messages are wanted.
    pub retain_handling: RetainHandling,
}

impl<'a> Filter<'a> {
    /// A subscription to `filter` with the default options.
    pub const fn new(filter: &'a str, qos: Qos) -> Self {
        Self {
            filter,
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }
    }
}

/// The message that the server publishes when the client vanishes (3.1.2.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Will<'a> {
    /// Where it is published.
    pub topic: &'a str,
    /// What is published.
    pub payload: &'a [u8],
    /// With which QoS.
    pub qos: Qos,
    /// Whether it is retained.
    pub retain: Retain,
    /// Its properties (5.0 only).
    pub properties: Properties<'a>,
}
