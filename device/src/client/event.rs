//! What the client tells its owner: every step of a connection, with its time beside it.

use super::Failure;
use crate::mqtt::{self, Message, ReasonCode, RequestError, Slot, Token};
use crate::time::Instant;

/// What [`super::Client::poll_output`] wants done.
#[derive(Debug)]
pub enum Output<'a> {
    /// Send the first so many bytes of the buffer as one datagram.
    Transmit(usize),
    /// Something happened.
    Event {
        /// When.
        at: Instant,
        /// What.
        event: Event<'a>,
    },
    /// Nothing to do until something arrives or the given time comes.
    WaitUntil(Option<Instant>),
}

/// Something that happened.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Event<'a> {
    /// A connection is being opened.
    Attempt {
        /// Attempts in a row, starting with 1; anew after a connection that held for ten seconds or that
        /// its owner dropped.
        number: u32,
        /// Whether a ticket is used.
        resuming: bool,
        /// Whether CONNECT goes out as 0-RTT data.
        early_data: bool,
    },
    /// The connection reached another phase.
    Phase(Phase),
    /// CONNACK: the session is open.
    Connected(Connected),
    /// A message came. The client acknowledges it by itself.
    Message(Message<'a>),
    /// SUBACK: one reason code per filter, in their order; the granted QoS or a failure. Subscriptions that the client
    /// renews by itself are answered, too, each as a request of its own.
    Subscribed {
        /// Of which request.
        token: Token,
        /// One code per filter (3.9.3).
        codes: &'a [u8],
    },
    /// UNSUBACK: one reason code per filter, in their order (5.0), or none (3.1.1). A subscription whose end was refused
    /// is kept.
    Unsubscribed {
        /// Of which request.
        token: Token,
        /// One code per filter (3.11.3).
        codes: &'a [u8],
    },
    /// A QoS 1 or 2 publication is complete.
    Acknowledged {
        /// Which one.
        token: Token,
        /// The server's reason code; publications end with failures too.
        reason: ReasonCode,
    },
    /// A stored publication or a request was given up: this server can never take it, or not on its data stream.
    Abandoned {
        /// Which one.
        token: Token,
        /// Why.
        error: RequestError,
    },
    /// The server did not know the session: what was in flight is published anew, and QoS 2 messages that
    /// the server had already taken may come twice.
    SessionLost {
        /// How many publications are sent anew.
        republished: usize,
    },
    /// A data stream is open.
    StreamOpened(Slot),
    /// A data stream ended; it is opened again when it is needed.
    StreamClosed {
        /// Which one.
        slot: Slot,
        /// The peer's code, or `None` for an orderly end.
        code: Option<u64>,
        /// The rule that was broken, if it was closed for that.
        error: Option<mqtt::Error>,
    },
    /// The server closed a data stream so often that it is left alone until the next connection, or until
    /// `open_stream` asks for it. What was stored for it is abandoned, its subscriptions rest.
    StreamRefused(Slot),
    /// A message larger than the receive buffer was skipped.
    Oversize {
        /// On which stream.
        slot: Slot,
        /// Its size in bytes.
        size: u32,
    },
    /// Nothing comes through: bind another local port (or address) and call `migrate`.
    MigrationWanted,
    /// The connection moved; the new path is being probed.
    MigrationStarted,
    /// The peer answered on the new path.
    PathValidated,
    /// The new path does not work.
    PathFailed,
    /// 1-RTT keys were updated.
    KeysUpdated,
    /// A ticket for resumption came.
    TicketReceived,
    /// The connection is over.
    Disconnected(Cause),
    /// The next attempt starts then.
    RetryAt {
        /// When.
        at: Instant,
        /// Number of the coming attempt.
        number: u32,
    },
    /// The client gave up until `connect` is called again.
    Stopped,
}

/// What CONNACK said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connected {
    /// Whether the server continues the session.
    pub session_present: bool,
    /// Whether a ticket spared the certificate.
    pub resumed: bool,
    /// Whether CONNECT was taken as 0-RTT data.
    pub early_data_accepted: bool,
}

/// Phases of opening a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// The first packet is handed out.
    Started,
    /// TCP: the connection stands, the TLS handshake begins.
    TcpEstablished,
    /// ServerHello is processed: handshake keys.
    ServerHello,
    /// The server's certificate chain and signature are good (full handshakes only).
    CertificateVerified,
    /// The handshake is complete: application keys.
    HandshakeComplete,
    /// QUIC: the server confirmed the handshake.
    HandshakeConfirmed,
    /// CONNECT is written.
    ConnectSent,
    /// CONNACK came.
    Connack,
}

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// `disconnect` was called.
    Requested,
    /// The transport ended or did not open.
    Transport(Failure),
    /// CONNACK refused the session.
    Refused(ReasonCode),
    /// The server sent DISCONNECT.
    ServerDisconnect(ReasonCode),
    /// The server ended the control stream, with its code if it was reset.
    ControlStreamEnded(Option<u64>),
    /// The server broke the MQTT protocol. Or, with [`ReasonCode::QUOTA_EXCEEDED`], it has more messages in flight than this
    /// client remembers, which 3.1.1 cannot tell it beforehand: it repeats them on the next connection.
    Protocol(mqtt::Error),
    /// The transport did not open in time.
    ConnectTimeout,
    /// No CONNACK in time.
    ConnackTimeout,
    /// No PINGRESP in time.
    KeepAliveTimeout,
    /// No progress, and migration did not help or is not possible.
    Stalled,
    /// The server answers everything with packets that do not belong to the connection, on a new local port, too: it has
    /// lost its state.
    Forgotten,
    /// The options make no valid CONNECT: the field that is too long or breaks a rule of MQTT.
    Options(&'static str),
}

impl Cause {
    /// Whether reconnecting without a change of configuration is pointless or harmful.
    ///
    /// A session taken over belongs to the other client now: taking it back would start a fight.
    pub const fn is_permanent(self) -> bool {
        match self {
            Self::Requested | Self::Options(_) => true,
            Self::Transport(failure) => failure.kind.is_permanent(),
            Self::Refused(reason) | Self::ServerDisconnect(reason) => matches!(
                reason,
                ReasonCode::SESSION_TAKEN_OVER
                    | ReasonCode::UNSUPPORTED_PROTOCOL_VERSION
                    | ReasonCode::CLIENT_IDENTIFIER_NOT_VALID
                    | ReasonCode::BAD_USER_NAME_OR_PASSWORD
                    | ReasonCode::NOT_AUTHORIZED
                    | ReasonCode::BANNED
                    | ReasonCode::BAD_AUTHENTICATION_METHOD
                    | ReasonCode::USE_ANOTHER_SERVER
                    | ReasonCode::SERVER_MOVED
            ),
            _ => false,
        }
    }
}
