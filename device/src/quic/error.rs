//! What can go wrong, by who is at fault: the peer, this device's resources, or the caller.
//!
//! RFC 9000 20 and RFC 9001 4.8.

use crate::codec::DecodeError;

use super::StreamId;

/// A transport error code as CONNECTION_CLOSE carries it (RFC 9000 20.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransportCode(pub u64);

impl TransportCode {
    /// The connection closes without an error.
    pub const NO_ERROR: Self = Self(0x00);
    /// The endpoint cannot go on, through no fault of its peer.
    pub const INTERNAL_ERROR: Self = Self(0x01);
    /// The server refuses new connections.
    pub const CONNECTION_REFUSED: Self = Self(0x02);
    /// More data than the advertised limits permit.
    pub const FLOW_CONTROL_ERROR: Self = Self(0x03);
    /// A stream beyond the advertised limit.
    pub const STREAM_LIMIT_ERROR: Self = Self(0x04);
    /// A frame for a stream whose state does not permit it.
    pub const STREAM_STATE_ERROR: Self = Self(0x05);
    /// A final size that contradicts an earlier one, or data beyond it.
    pub const FINAL_SIZE_ERROR: Self = Self(0x06);
    /// A malformed frame.
    pub const FRAME_ENCODING_ERROR: Self = Self(0x07);
    /// Malformed, missing, duplicate or forbidden transport parameters.
    pub const TRANSPORT_PARAMETER_ERROR: Self = Self(0x08);
    /// More connection identifiers than the advertised limit.
    pub const CONNECTION_ID_LIMIT_ERROR: Self = Self(0x09);
    /// Any other breach of the protocol.
    pub const PROTOCOL_VIOLATION: Self = Self(0x0a);
    /// The token of a client's Initial is not valid.
    pub const INVALID_TOKEN: Self = Self(0x0b);
    /// The application closed the connection while the handshake was running.
    pub const APPLICATION_ERROR: Self = Self(0x0c);
    /// More CRYPTO data than can be buffered.
    pub const CRYPTO_BUFFER_EXCEEDED: Self = Self(0x0d);
    /// A key update the rules do not permit.
    pub const KEY_UPDATE_ERROR: Self = Self(0x0e);
    /// As many packets failed to authenticate, or were protected, as the cipher permits.
    pub const AEAD_LIMIT_REACHED: Self = Self(0x0f);
    /// No path to the peer works.
    pub const NO_VIABLE_PATH: Self = Self(0x10);

    /// A TLS alert (RFC 9001 4.8).
    pub const fn crypto(alert: u8) -> Self {
        Self(0x100 + alert as u64)
    }

    /// The TLS alert in this code, if it is one.
    pub const fn alert(self) -> Option<u8> {
        match self.0 {
            0x100..=0x1ff => Some((self.0 & 0xff) as u8),
            _ => None,
        }
    }

    /// The RFC's name of the code.
    pub const fn name(self) -> &'static str {
        match self.0 {
            0x00 => "NO_ERROR",
            0x01 => "INTERNAL_ERROR",
            0x02 => "CONNECTION_REFUSED",
            0x03 => "FLOW_CONTROL_ERROR",
            0x04 => "STREAM_LIMIT_ERROR",
            0x05 => "STREAM_STATE_ERROR",
            0x06 => "FINAL_SIZE_ERROR",
            0x07 => "FRAME_ENCODING_ERROR",
            0x08 => "TRANSPORT_PARAMETER_ERROR",
            0x09 => "CONNECTION_ID_LIMIT_ERROR",
            0x0a => "PROTOCOL_VIOLATION",
            0x0b => "INVALID_TOKEN",
            0x0c => "APPLICATION_ERROR",
            0x0d => "CRYPTO_BUFFER_EXCEEDED",
            0x0e => "KEY_UPDATE_ERROR",
            0x0f => "AEAD_LIMIT_REACHED",
            0x10 => "NO_VIABLE_PATH",
            0x100..=0x1ff => "CRYPTO_ERROR",
            _ => "unknown",
        }
    }
}

impl core::fmt::Debug for TransportCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} ({:#x})", self.name(), self.0)
    }
}

impl core::fmt::Display for TransportCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self, f)
    }
}

/// The connection cannot go on: what this end tells the peer, and itself.
///
/// Mostly the peer's fault; [`Self::is_own_limit`] tells when it is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransportError {
    /// The code of CONNECTION_CLOSE.
    pub code: TransportCode,
    /// The type of the frame at fault, or 0 where none is.
    pub frame_type: u64,
    /// What was wrong, for the log; it also goes into CONNECTION_CLOSE.
    pub reason: &'static str,
}

impl TransportError {
    /// An error that no single frame caused.
    pub const fn new(code: TransportCode, reason: &'static str) -> Self {
        Self { code, frame_type: 0, reason }
    }

    /// Names the frame at fault, unless one is named already.
    #[must_use]
    pub const fn in_frame(mut self, frame_type: u64) -> Self {
        if self.frame_type == 0 {
            self.frame_type = frame_type;
        }
        self
    }

    /// Whether a bound of this device was reached, through no fault of the peer's: its buffer for the handshake, or what
    /// the cipher permits with one key, be it spent or attacked by whoever forges packets.
    pub const fn is_own_limit(&self) -> bool {
        matches!(
            self.code,
            TransportCode::INTERNAL_ERROR
                | TransportCode::CRYPTO_BUFFER_EXCEEDED
                | TransportCode::AEAD_LIMIT_REACHED
        )
    }

    /// A breach of the protocol that has no code of its own.
    pub const fn violation(reason: &'static str) -> Self {
        Self::new(TransportCode::PROTOCOL_VIOLATION, reason)
    }
}

impl From<DecodeError> for TransportError {
    fn from(error: DecodeError) -> Self {
        Self::new(TransportCode::FRAME_ENCODING_ERROR, error.field)
    }
}

impl core::fmt::Display for TransportError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {} (frame type {:#x})", self.code, self.reason, self.frame_type)
    }
}

impl core::error::Error for TransportError {}

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The application on this device closed it.
    Application {
        /// The code given to `close`.
        code: u64,
    },
    /// This end gave up; the error says at whose fault.
    Transport(TransportError),
    /// The TLS handshake failed here; the alert went to the peer.
    Tls(crate::tls::Error),
    /// The peer's application closed it.
    PeerApplication {
        /// Its error code.
        code: u64,
    },
    /// The peer's transport closed it.
    PeerTransport {
        /// Its error code; [`TransportCode::alert`] tells whether it is TLS.
        code: TransportCode,
        /// The frame type it blames, or 0.
        frame_type: u64,
    },
    /// Nothing was heard for the idle timeout (RFC 9000 10.1).
    IdleTimeout,
    /// The handshake did not complete in the time configured.
    HandshakeTimeout,
    /// The peer has lost its state (RFC 9000 10.3).
    StatelessReset,
    /// The server does not speak QUIC version 1 (RFC 9000 6.2).
    VersionNegotiation,
}

impl core::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Application { code } => write!(f, "closed by this application with code {code:#x}"),
            Self::Transport(error) => write!(f, "closed by this end: {error}"),
            Self::Tls(error) => write!(f, "TLS handshake failed here: {error}"),
            Self::PeerApplication { code } => {
                write!(f, "closed by the peer's application with code {code:#x}")
            }
            Self::PeerTransport { code, frame_type } => {
                write!(f, "closed by the peer: {code} (frame type {frame_type:#x})")
            }
            Self::IdleTimeout => f.write_str("nothing was heard from the peer for the idle timeout"),
            Self::HandshakeTimeout => f.write_str("the handshake did not complete in time"),
            Self::StatelessReset => f.write_str("the peer has lost the connection's state (stateless reset)"),
            Self::VersionNegotiation => f.write_str("the server does not speak QUIC version 1"),
        }
    }
}

/// A connection attempt that could not even start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectError {
    /// The connection is still in use: close it and wait for its end first.
    Busy,
    /// A value of the configuration is outside what the named parameter allows.
    Configuration(&'static str),
    /// TLS refused to start.
    Tls(crate::tls::Error),
}

impl core::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Busy => f.write_str("the connection is in use: close it and wait for its end first"),
            Self::Configuration(what) => write!(f, "the configuration is not usable: {what}"),
            Self::Tls(error) => write!(f, "TLS cannot start: {error}"),
        }
    }
}

impl core::error::Error for ConnectError {}

/// A stream operation the caller may not do, or not yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamError {
    /// There is no such stream, or it is over.
    Unknown(StreamId),
    /// The peer permits no further stream now: wait for `Event::StreamsAvailable`.
    NoCredit,
    /// All stream slots of this device are in use: finish one first.
    NoSlot,
    /// The sending side is finished or reset already.
    Finished,
    /// The peer reset its sending side with this code.
    Reset(u64),
    /// The peer asked to stop sending; the event told its code.
    Stopped,
    /// The connection is not open (yet, or any more).
    NotOpen,
}

impl core::fmt::Display for StreamError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unknown(id) => write!(f, "stream {} does not exist (any more)", id.0),
            Self::NoCredit => f.write_str("the peer permits no further stream yet"),
            Self::NoSlot => f.write_str("every stream slot is in use: finish a stream first"),
            Self::Finished => f.write_str("the sending side is finished or reset already"),
            Self::Reset(code) => write!(f, "the peer reset the stream with code {code:#x}"),
            Self::Stopped => f.write_str("the peer does not want more of the stream"),
            Self::NotOpen => f.write_str("the connection is not open"),
        }
    }
}

impl core::error::Error for StreamError {}
