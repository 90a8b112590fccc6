//! What the connection policy needs of a transport, so that there is one policy and not three.
//!
//! QUIC, TLS over TCP and plain TCP differ in how a connection is opened and how many streams it has;
//! they agree on everything below. An implementation is a view made for one call: it may borrow sockets,
//! keys, entropy and configuration, and none of that is stored in the client.

use crate::mqtt::{ReasonCode, Slot, Streams};
use crate::time::Instant;
use crate::tls::Fault;

/// A connection that carries byte streams.
pub trait Transport: Streams {
    /// Begins a new connection; whatever was left of an older one is forgotten.
    ///
    /// # Errors
    /// The reason why it cannot even begin.
    fn connect(&mut self, now: Instant, attempt: Attempt) -> Result<(), Failure>;

    /// Where the connection stands.
    fn status(&self) -> Status;

    /// Ends the connection: what was written is still delivered if the transport can.
    fn close(&mut self, now: Instant, close: Close);

    /// How long the peer has been silent while it owed an answer.
    fn stall(&self) -> Stall;

    /// Asks the peer for a sign of life, which tells it what of its own was lost. A transport whose peer repeats what
    /// was lost without being asked does nothing.
    fn nudge(&mut self) {}

    /// Whether the connection could move to a new local address or port now.
    fn can_migrate(&self) -> bool {
        false
    }

    /// Whether a ticket is there to resume with.
    fn has_ticket(&self) -> bool {
        false
    }

    /// Forgets the ticket, after the server failed on it.
    fn forget_ticket(&mut self) {}

    /// A random number, for the policy's jitter.
    fn random(&mut self) -> u32;

    /// Counters and estimates.
    fn stats(&self) -> super::TransportStats;
}

/// How a connection is to be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// Whether a stored ticket is used.
    pub resumption: Resumption,
    /// Whether data may be sent with the first flight.
    pub early_data: EarlyData,
}

/// Whether to resume a TLS session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Resumption {
    /// A full handshake.
    Never,
    /// With a ticket if there is one.
    #[default]
    IfPossible,
}

/// Whether 0-RTT data is sent. It can be replayed by an attacker, so it is off unless asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EarlyData {
    /// Wait for the handshake.
    #[default]
    Never,
    /// CONNECT and what the caller marked as replay-safe goes with the first flight.
    IfPossible,
}

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// None was begun, or the last one is forgotten.
    Idle,
    /// The handshake runs; nothing can be written.
    Opening,
    /// The handshake runs; what is written goes out as 0-RTT data.
    Early,
    /// The handshake is complete.
    Open {
        /// Whether a ticket spared the certificate.
        resumed: bool,
        /// Whether the server took the 0-RTT data.
        early_data_accepted: bool,
    },
    /// The connection is over.
    Closed(Failure),
}

/// How to end a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Close {
    /// Orderly: the peer is told, data already written is sent first where the transport can.
    Graceful,
    /// At once: the peer has ended the session, nothing is left to be delivered.
    Now,
    /// At once, for this reason.
    Abort(AbortReason),
}

/// Why a connection is aborted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AbortReason {
    /// The peer broke the MQTT protocol, in the way this code names.
    Protocol(ReasonCode),
    /// The peer stopped answering.
    Unresponsive,
}

/// How long a peer has been silent while it owed an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stall {
    /// Probe or retransmission timeouts in a row without an answer.
    pub timeouts: u32,
    /// Packets (or bytes) received so far: whether this changes is what matters.
    pub received: u64,
    /// Packets in a row, on the present local address, that the peer cannot have made with the keys of this connection.
    pub unreadable: u32,
}

/// Why a transport ended or did not begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What happened.
    pub kind: FailureKind,
    /// The protocol's own error code: QUIC's (RFC 9000 20) or zero.
    pub code: u64,
    /// The cause in words.
    pub detail: &'static str,
}

/// What ended a transport, and so who has to change something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureKind {
    /// This side closed it.
    Local,
    /// A bound of this side was reached, through no fault of the peer's: the handshake is longer than its buffer, or a
    /// key was used as often as its cipher permits.
    Resource,
    /// The configuration cannot be used, or a call came out of order.
    Caller,
    /// The peer closed it with an application code.
    PeerApplication,
    /// The peer closed it with a transport error or a TLS alert.
    PeerTransport,
    /// The peer broke the transport's rules.
    PeerViolation,
    /// This side found the peer's certificate or its part of the TLS handshake wrong.
    Tls,
    /// The peer fell silent.
    Timeout,
    /// A stateless reset or TCP RST.
    Reset,
    /// The peer has no protocol version in common with us.
    Version,
    /// TCP: nobody listens.
    Refused,
    /// No address, no route, no socket.
    Unreachable,
    /// TCP: the peer finished.
    Finished,
}

impl FailureKind {
    /// Who a TLS error is due to.
    pub const fn of_tls(fault: Fault) -> Self {
        match fault {
            Fault::Peer => Self::Tls,
            Fault::PeerAlert => Self::PeerTransport,
            Fault::Resource => Self::Resource,
            Fault::Caller => Self::Caller,
        }
    }

    /// Whether the handshake itself failed: something other than silence.
    pub const fn is_handshake(self) -> bool {
        matches!(self, Self::Tls | Self::PeerTransport | Self::PeerViolation | Self::Resource)
    }

    /// Whether nobody said a word: nothing was learnt of the server.
    pub const fn is_silence(self) -> bool {
        matches!(self, Self::Local | Self::Timeout | Self::Unreachable)
    }

    /// Whether trying again with the same configuration is pointless.
    pub const fn is_permanent(self) -> bool {
        matches!(self, Self::Version | Self::Caller)
    }
}

/// There is no connection to be moved, or it has not been confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotMigratable;

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?} (code {:#x}): {}", self.kind, self.code, self.detail)
    }
}

impl core::fmt::Display for NotMigratable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("this connection cannot migrate")
    }
}

impl core::error::Error for NotMigratable {}

/// A loan of one stream of a transport that has only one: maps slot 0 and refuses the others.
pub const fn is_control(slot: Slot) -> bool {
    slot.index() == 0
}
