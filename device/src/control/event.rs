//! What happens to a connection, as reported by the board.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Name, Resumption, WifiFailure};

/// Something that happened to the network interface or the connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Event {
    /// The physical link is up (Wi-Fi: associated).
    LinkUp,
    /// The physical link is down.
    LinkDown,
    /// The board has an address.
    AddressAcquired {
        /// The address.
        address: IpAddr,
        /// Length of the network prefix in bits.
        prefix: u8,
    },
    /// The address is gone.
    AddressLost,
    /// A connection attempt starts: the first packet is about to be sent.
    Connecting {
        /// Attempts since the last success, starting with 1.
        attempt: u32,
        /// What of an earlier connection it builds on.
        resumption: Resumption,
    },
    /// The handshake moved on.
    Handshake(HandshakePhase),
    /// CONNACK accepted the session.
    MqttConnected {
        /// Whether the broker still had the session.
        session_present: bool,
        /// How the handshake went.
        resumed: Resumed,
    },
    /// The broker did not know the session: messages in flight are published anew.
    SessionLost {
        /// How many.
        republished: u16,
    },
    /// A data stream is open.
    StreamOpened {
        /// Which one; 0 is the control stream.
        slot: u8,
    },
    /// A data stream ended.
    StreamClosed {
        /// Which one.
        slot: u8,
        /// The code of its reset; `None` for an orderly end.
        code: Option<u64>,
    },
    /// A message larger than the receive buffer was skipped.
    MessageSkipped {
        /// Its size in bytes.
        size: u32,
    },
    /// SUBACK for one filter.
    Subscribed {
        /// The sequence number of the command that asked.
        sequence: u32,
        /// Granted quality of service, or the failure (0x80 and above).
        reason: u8,
    },
    /// UNSUBACK for one filter.
    Unsubscribed {
        /// The sequence number of the command that asked.
        sequence: u32,
        /// MQTT reason code; 0 for MQTT 3.1.1.
        reason: u8,
    },
    /// The connection is over.
    Disconnected(Disconnection),
    /// The next attempt is due later.
    BackingOff {
        /// Wait in milliseconds.
        delay_ms: u32,
        /// The attempt that will follow.
        attempt: u32,
    },
    /// The board gave up reconnecting.
    GaveUp,
    /// The local address or port changed and the new path is being probed.
    MigrationStarted {
        /// The local port from now on.
        port: u16,
    },
    /// The peer answered on the new path.
    PathValidated,
    /// The peer did not answer on the new path.
    PathFailed,
    /// A key update completed.
    KeysUpdated,
    /// A session ticket arrived.
    TicketReceived,
    /// A message published by command was acknowledged (QoS 1 and 2) or handed to the transport (QoS 0).
    PublicationDone {
        /// The sequence number of the command that asked.
        sequence: u32,
    },
    /// A frame from the harness was damaged; the command in it was not carried out.
    CommandDamaged,
    /// The wireless network was not joined, or was lost; the board tries again by itself.
    WifiFailed {
        /// Why.
        failure: WifiFailure,
        /// The radio's own code: an 802.11 reason, or its driver's.
        code: u16,
        /// Failures since the network was last joined, starting with 1.
        failures: u16,
    },
    /// A command that was taken is given up: this broker can never take it, or not on its data stream. No
    /// [`Self::Subscribed`], [`Self::Unsubscribed`] or [`Self::PublicationDone`] will follow.
    Abandoned {
        /// The sequence number of the command.
        sequence: u32,
        /// Why.
        reason: AbandonReason,
    },
}

/// Why a command that was taken is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AbandonReason {
    /// Its packet is larger than the broker takes.
    TooLarge,
    /// The broker closed its data stream again and again.
    StreamRefused,
    /// The broker does not support the quality of service, or retained messages.
    Unsupported,
}

/// How far the handshake is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum HandshakePhase {
    /// The first packet is on its way: QUIC's ClientHello, TCP's SYN.
    Started,
    /// The TCP connection stands; over TLS, the ClientHello is on its way.
    TcpEstablished,
    /// The server wants the address validated first.
    RetryReceived,
    /// The server wants another key share.
    HelloRetryRequested,
    /// ServerHello arrived: handshake keys stand.
    KeysAgreed,
    /// The certificate chain and its signature were verified.
    ServerAuthenticated,
    /// The server's Finished was verified and ours is on its way. Plain TCP: the connection stands.
    Complete,
    /// The server confirmed the handshake.
    Confirmed,
    /// CONNECT is written.
    ConnectSent,
}

/// How much of the handshake an earlier connection saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Resumed {
    /// Nothing: a full handshake.
    Full,
    /// The certificate: resumed by ticket.
    Ticket,
    /// A round trip too: early data was accepted.
    EarlyData,
    /// Resumed by ticket, but the early data was refused and sent again.
    EarlyDataRefused,
}

/// Why a connection ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Disconnection {
    /// Who ended it and how.
    pub cause: Cause,
    /// The code that came with it: QUIC error, TLS alert or MQTT reason; 0 if there is none.
    pub code: u64,
    /// What a person should know besides.
    pub detail: Name,
}

/// Who ended a connection and how.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Cause {
    /// The harness asked.
    Requested,
    /// The transport did not open within [`connect_timeout_ms`](super::Settings::connect_timeout_ms).
    ConnectTimeout,
    /// No CONNACK within [`answer_timeout_ms`](super::Settings::answer_timeout_ms).
    ConnackTimeout,
    /// No PINGRESP in that time.
    KeepAliveTimeout,
    /// The peer fell silent: QUIC idle timeout, TCP retransmissions used up.
    Timeout,
    /// Nothing came through, and migration did not help or was not possible.
    Stalled,
    /// Nobody listens at the broker's address.
    Refused,
    /// There is no route, no address or no socket.
    Unreachable,
    /// The broker ended the control stream or the TCP connection.
    EndedByPeer,
    /// The peer speaks no version of the transport protocol that we do.
    VersionMismatch,
    /// The peer refused the TCP connection or reset it, or sent a stateless reset.
    Reset,
    /// The peer closed the transport: `code` is the QUIC error or TLS alert.
    ClosedByPeer,
    /// The peer's application closed the QUIC connection: `code` is its code.
    ClosedByApplication,
    /// This device found the peer's certificate or handshake wrong: `code` is the TLS alert.
    TlsRefused,
    /// This device found the peer breaking the transport protocol: `code` is the QUIC error.
    TransportError,
    /// CONNACK refused the session: `code` is the reason.
    ConnectionRefused,
    /// The broker sent DISCONNECT: `code` is the reason.
    BrokerDisconnect,
    /// This device found the broker breaking MQTT: `code` is the reason.
    MqttError,
    /// The network interface went away.
    LinkLost,
    /// A limit of this device was reached, through no fault of the peer's: `code` is the QUIC error, TLS alert or
    /// MQTT reason.
    DeviceLimit,
    /// This device cannot use its settings; `detail` says which.
    BadSettings,
}
