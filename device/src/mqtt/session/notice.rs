//! What a session tells: first without a borrow, so that the caller's loop may go on, then with one.

use super::{Message, PacketBuffer, Session, Slot, Token};
use crate::mqtt::{Duplicate, Error, Properties, Qos, ReasonCode, RequestError, Retain};

/// Something that happened. [`Session::event`] turns it into an [`Event`] until the next call to
/// [`Session::poll`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each variant is documented at its namesake in Event")]
pub enum Notice {
    Connected { session_present: bool },
    Refused(ReasonCode),
    Message(Span),
    Subscribed { token: Token, codes: u16 },
    Unsubscribed { token: Token, codes: u16 },
    Acknowledged { token: Token, reason: ReasonCode },
    Abandoned { token: Token, error: RequestError },
    SessionLost { republished: usize },
    StreamOpened(Slot),
    StreamClosed { slot: Slot, code: Option<u64>, error: Option<Error> },
    StreamRefused(Slot),
    Oversize { slot: Slot, size: u32 },
    ServerDisconnect(ReasonCode),
    ControlStreamEnded(Option<u64>),
    Protocol(Error),
    ConnackTimeout,
    KeepAliveTimeout,
}

/// Where the parts of a message stand in the receive buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    pub(super) slot: Slot,
    /// Length of the topic, or the alias that stands for it.
    pub(super) topic: Topic,
    pub(super) properties_len: u16,
    pub(super) payload_len: u16,
    pub(super) qos: Qos,
    pub(super) retain: Retain,
    pub(super) duplicate: Duplicate,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Topic {
    Name { len: u16 },
    Alias(u16),
}

/// Something that happened, borrowing from the receive buffer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Event<'a> {
    /// CONNACK: the session is open.
    Connected {
        /// Whether the server continues an older session.
        session_present: bool,
    },
    /// CONNACK: the server refuses. The connection is to be closed.
    Refused(ReasonCode),
    /// A message came; it is acknowledged with the next poll.
    Message(Message<'a>),
    /// SUBACK.
    Subscribed {
        /// Of which request.
        token: Token,
        /// One reason code per filter.
        codes: &'a [u8],
    },
    /// UNSUBACK.
    Unsubscribed {
        /// Of which request.
        token: Token,
        /// One reason code per filter (5.0), none in 3.1.1.
        codes: &'a [u8],
    },
    /// A QoS 1 or 2 publication is complete.
    Acknowledged {
        /// Which one.
        token: Token,
        /// How it ended.
        reason: ReasonCode,
    },
    /// A stored publication or a request was given up: this server can never take it, or not on its data stream.
    Abandoned {
        /// Which one.
        token: Token,
        /// Why.
        error: RequestError,
    },
    /// The server forgot the session.
    SessionLost {
        /// How many publications are sent anew.
        republished: usize,
    },
    /// A data stream is open.
    StreamOpened(Slot),
    /// A data stream is closed; it is opened again when it is needed.
    StreamClosed {
        /// Which one.
        slot: Slot,
        /// The peer's code, or `None` for an orderly end.
        code: Option<u64>,
        /// The rule that was broken, if it was closed for that.
        error: Option<Error>,
    },
    /// A data stream was closed so often that it is left alone, see [`RequestError::StreamRefused`]. What was stored for
    /// it is told as abandoned; its subscriptions are renewed when it is opened again.
    StreamRefused(Slot),
    /// A message larger than the receive buffer was skipped (3.1.1 only).
    Oversize {
        /// On which stream.
        slot: Slot,
        /// Its size in bytes.
        size: u32,
    },
    /// The server sent DISCONNECT. The connection is to be closed.
    ServerDisconnect(ReasonCode),
    /// The server ended the control stream. The connection is to be closed.
    ControlStreamEnded(Option<u64>),
    /// The server broke the rules; DISCONNECT is written. The connection is to be closed.
    Protocol(Error),
    /// No CONNACK in time. The connection is to be closed.
    ConnackTimeout,
    /// No PINGRESP in time. The connection is to be closed.
    KeepAliveTimeout,
}

impl Session {
    /// The event of `notice`, which the last [`Session::poll`] returned, and left its packet in `rx`.
    pub fn event<'a>(&'a self, notice: Notice, rx: &'a PacketBuffer) -> Event<'a> {
        let body = &rx[..self.rx_len];
        match notice {
            Notice::Connected { session_present } => Event::Connected { session_present },
            Notice::Refused(reason) => Event::Refused(reason),
            Notice::Message(span) => Event::Message(self.message(&span, body)),
            Notice::Subscribed { token, codes } => {
                Event::Subscribed { token, codes: self::codes(body, codes) }
            }
            Notice::Unsubscribed { token, codes } => {
                Event::Unsubscribed { token, codes: self::codes(body, codes) }
            }
            Notice::Acknowledged { token, reason } => Event::Acknowledged { token, reason },
            Notice::Abandoned { token, error } => Event::Abandoned { token, error },
            Notice::SessionLost { republished } => Event::SessionLost { republished },
            Notice::StreamOpened(slot) => Event::StreamOpened(slot),
            Notice::StreamClosed { slot, code, error } => Event::StreamClosed { slot, code, error },
            Notice::StreamRefused(slot) => Event::StreamRefused(slot),
            Notice::Oversize { slot, size } => Event::Oversize { slot, size },
            Notice::ServerDisconnect(reason) => Event::ServerDisconnect(reason),
            Notice::ControlStreamEnded(code) => Event::ControlStreamEnded(code),
            Notice::Protocol(error) => Event::Protocol(error),
            Notice::ConnackTimeout => Event::ConnackTimeout,
            Notice::KeepAliveTimeout => Event::KeepAliveTimeout,
        }
    }

    /// A message's parts: the topic behind its two-byte length in front, the others at the end.
    fn message<'a>(&'a self, span: &Span, body: &'a [u8]) -> Message<'a> {
        let payload_at = body.len().saturating_sub(usize::from(span.payload_len));
        let properties_at = payload_at.saturating_sub(usize::from(span.properties_len));
        let topic = match span.topic {
            Topic::Name { len } => body
                .get(2..2 + usize::from(len))
                .and_then(|bytes| core::str::from_utf8(bytes).ok())
                .unwrap_or_default(),
            Topic::Alias(alias) => self.aliases_in.resolve(span.slot, alias).unwrap_or_default(),
        };
        Message {
            slot: span.slot,
            topic,
            payload: &body[payload_at..],
            qos: span.qos,
            retain: span.retain,
            duplicate: span.duplicate,
            properties: Properties::from_values(&body[properties_at..payload_at]),
        }
    }
}

/// The reason codes, which stand at the end.
fn codes(body: &[u8], count: u16) -> &[u8] {
    &body[body.len().saturating_sub(usize::from(count))..]
}
