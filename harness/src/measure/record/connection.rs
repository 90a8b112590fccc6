//! Connection attempts.

use serde::{Deserialize, Serialize};

use super::Wire;

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
    /// TLS alert that gave the reason, sent or received (RFC 8446 6.2).
    #[serde(default)]
    pub alert: Option<u8>,
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
    /// The harness asked the client to leave while it was connecting: no failure of the client's.
    Requested,
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
