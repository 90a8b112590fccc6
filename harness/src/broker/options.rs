//! How a broker is to behave.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use rustls::RootCertStore;
use serde::{Deserialize, Serialize};

use crate::certificates::{Flaw, Identity};

/// Ports to listen at; 0 stands for any free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ports {
    /// UDP port for QUIC.
    pub quic: u16,
    /// TCP port for TLS.
    pub tls: u16,
    /// TCP port for plain MQTT.
    pub tcp: u16,
}

/// When a client may open its first stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamCredit {
    /// The transport parameters say so, as in EMQX 5.9 and later. Needed for 0-RTT data: a client may
    /// not use more streams in 0-RTT than the server's remembered parameters allow (RFC 9000 7.4.1).
    #[default]
    InTransportParameters,
    /// The transport parameters allow none, MAX_STREAMS follows in 1-RTT packets, as in EMQX 5.8.
    AfterHandshake,
}

/// Whether a client has to show that it receives at its address (RFC 9000 8.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressValidation {
    /// By completing the handshake, as every client does.
    #[default]
    Handshake,
    /// By answering a Retry packet first.
    Retry,
}

/// Whether 0-RTT data are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EarlyData {
    /// Taken from clients that resume a session.
    #[default]
    Accept,
    /// Not taken: tickets say so, and a client that resumes waits for the handshake.
    Reject,
}

/// Whether clients authenticate by certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuthentication {
    /// Anonymous clients are welcome.
    #[default]
    None,
    /// A client has to present a certificate of the run's authority.
    Required,
}

/// What happens to clients beyond [`Limits::connections`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overload {
    /// They are let in.
    #[default]
    Accept,
    /// Their connection is accepted and closed: with application code 2 (QUIC), or at once (TCP).
    Close,
    /// Their connection is not accepted: CONNECTION_REFUSED (QUIC), or a reset (TCP).
    Refuse,
}

/// Ceilings a broker holds clients to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// What happens beyond.
    pub overload: Overload,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: usize::MAX, overload: Overload::Accept }
    }
}

/// Where a broker in a container keeps sessions. The embedded one keeps or loses them as a restart asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// In memory, as EMQX does unless told otherwise: a restart loses them.
    #[default]
    Memory,
    /// On its disk: they outlive a restart, and cost what writing them costs.
    Disk,
}

/// What a standing broker presents, and whom it believes.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Its certificate chain and key.
    pub identity: Identity,
    /// The roots client certificates have to chain to.
    pub client_roots: RootCertStore,
}

/// How a broker is to behave. The defaults are those of EMQX.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// Address to listen at.
    pub bind: IpAddr,
    /// Ports to listen at.
    pub ports: Ports,
    /// What is wrong with the certificate it presents.
    pub certificate: Flaw,
    /// Certificate and key to present in place of one of the run's authority.
    pub credentials: Option<Credentials>,
    /// Folder to keep sessions and retained messages in; memory holds them otherwise. Embedded broker only.
    pub sessions: Option<PathBuf>,
    /// What a restart does to sessions that a container keeps.
    pub durability: Durability,
    /// When a client may open its first stream.
    pub stream_credit: StreamCredit,
    /// Bidirectional streams a client may have open at a time.
    pub streams: u32,
    /// How a client's address is validated.
    pub address_validation: AddressValidation,
    /// Whether 0-RTT data are taken.
    pub early_data: EarlyData,
    /// Whether clients authenticate by certificate.
    pub client_authentication: ClientAuthentication,
    /// The max_idle_timeout announced; `None` leaves it to the client, as EMQX does.
    pub idle_timeout: Option<Duration>,
    /// Largest MQTT packet taken, in bytes.
    pub packet_size_max: u32,
    /// Ceilings on clients, of the embedded broker only.
    pub limits: Limits,
    /// Longest a broker in a container may take to be ready. EMQX needs about ten seconds on two cores.
    pub ready_limit: Duration,
    /// File to append TLS secrets to, in the format of SSLKEYLOGFILE. Whoever has it can read the
    /// traffic; it serves to decode a capture.
    pub key_log: Option<PathBuf>,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ports: Ports::default(),
            certificate: Flaw::None,
            credentials: None,
            sessions: None,
            durability: Durability::default(),
            stream_credit: StreamCredit::default(),
            streams: 10,
            address_validation: AddressValidation::default(),
            early_data: EarlyData::default(),
            client_authentication: ClientAuthentication::default(),
            idle_timeout: None,
            packet_size_max: 1 << 20,
            limits: Limits::default(),
            ready_limit: Duration::from_secs(60),
            key_log: None,
        }
    }
}
