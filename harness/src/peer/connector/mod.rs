//! Opens a connection to a broker and notes when each phase of the handshake was reached.

mod error;
mod phases;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use device::control::Resumption;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Endpoint, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::client::{Resumption as TicketStore, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use error::{network, quic_failure, tls_failure};
use phases::{PhaseLog, Timed};

pub use error::ConnectError;
pub(crate) use error::{received_alert, received_quic_alert};

use super::Clock;
use crate::certificates::Identity;
use crate::measure::Transport;
use crate::measure::record::{Handshake, Mark, Phase, TransportStats, Wire};

const ALPN: &[u8] = b"mqtt";
/// Headers below a UDP payload: IPv4 or IPv6, and UDP.
const HEADERS_V4: u64 = 20 + 8;
const HEADERS_V6: u64 = 40 + 8;

/// QUIC settings of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuicTuning {
    /// The max_idle_timeout offered; `None` offers none.
    pub idle_timeout: Option<Duration>,
    /// A PING is sent when nothing was sent for so long.
    pub keep_alive: Option<Duration>,
}

impl Default for QuicTuning {
    fn default() -> Self {
        Self { idle_timeout: Some(Duration::from_secs(30)), keep_alive: None }
    }
}

/// A broker, and how to speak to it.
#[derive(Debug, Clone)]
pub struct Target {
    /// What carries MQTT.
    pub transport: Transport,
    /// Where it listens.
    pub address: SocketAddr,
    /// The name its certificate must bear.
    pub server_name: String,
    /// The roots its certificate must chain to.
    pub trust: RootCertStore,
    /// Certificate to present, for mutual TLS.
    pub identity: Option<Identity>,
    /// Whether later connections build on the tickets of earlier ones.
    pub resumption: Resumption,
    /// QUIC only.
    pub quic: QuicTuning,
}

impl Target {
    /// A broker with full handshakes and no client certificate.
    #[must_use]
    pub fn new(transport: Transport, address: SocketAddr, server_name: &str, trust: RootCertStore) -> Self {
        Self {
            transport,
            address,
            server_name: server_name.to_owned(),
            trust,
            identity: None,
            resumption: Resumption::Off,
            quic: QuicTuning::default(),
        }
    }
}

/// Opens connections to one broker. It keeps the tickets, so resumption works from the second one on.
pub struct Connector {
    target: Target,
    name: ServerName<'static>,
    tls: Option<Arc<rustls::ClientConfig>>,
    phases: Arc<PhaseLog>,
    quic: Option<QuicClient>,
}

struct QuicClient {
    endpoint: Endpoint,
    config: quinn::ClientConfig,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("target", &self.target).finish_non_exhaustive()
    }
}

/// A byte stream to the broker: the control stream, or the whole connection.
pub(super) struct Wired {
    pub(super) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) writer: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) quic: Option<quinn::Connection>,
    /// Still to come: whether 0-RTT data are accepted.
    pub(super) early: Option<quinn::ZeroRttAccepted>,
}

impl Connector {
    /// Prepares connections to `target`; for QUIC that binds a UDP socket. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the settings are unusable or no socket can be bound.
    pub fn new(target: Target) -> Result<Self, ConnectError> {
        let settings = |error: &dyn fmt::Display| ConnectError::Settings(error.to_string());
        let name = ServerName::try_from(target.server_name.clone()).map_err(|error| settings(&error))?;
        let phases = Arc::new(PhaseLog::default());
        let tls = match target.transport {
            Transport::Tcp => None,
            _ => Some(Arc::new(tls_config(&target, &name, &phases)?)),
        };
        let quic = match (&tls, target.transport) {
            (Some(tls), Transport::Quic) => Some(quic_client(&target, tls)?),
            _ => None,
        };
        Ok(Self { target, name, tls, phases, quic })
    }

    /// The broker it connects to.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The certificates the broker presented in the latest full handshake, leaf first.
    #[must_use]
    pub fn presented_chain(&self) -> Vec<CertificateDer<'static>> {
        self.phases.chain()
    }

    /// The TLS configuration, for client libraries that open connections themselves.
    pub(super) fn tls(&self) -> Option<&Arc<rustls::ClientConfig>> {
        self.tls.as_ref()
    }

    /// When the phases of the latest handshake were reached.
    pub(super) fn phases(&self) -> &PhaseLog {
        &self.phases
    }

    /// Opens a connection, as far as the first byte of MQTT may be sent.
    pub(super) async fn open(&self, attempt: &mut Attempt) -> Result<Wired, ConnectError> {
        self.phases.clear();
        attempt.mark(Phase::FirstPacket);
        let opened = match self.target.transport {
            Transport::Quic => self.open_quic(attempt).await,
            Transport::Tls => self.open_tls(attempt).await,
            Transport::Tcp => self.open_tcp(attempt).await.map(plain),
        };
        attempt.take_phases(&self.phases);
        opened
    }

    async fn open_tcp(&self, attempt: &mut Attempt) -> Result<TcpStream, ConnectError> {
        let stream = TcpStream::connect(self.target.address).await.map_err(network)?;
        stream.set_nodelay(true).map_err(network)?;
        attempt.mark(Phase::TcpConnected);
        Ok(stream)
    }

    async fn open_tls(&self, attempt: &mut Attempt) -> Result<Wired, ConnectError> {
        let config = self.tls.clone().expect("made in `new` for this transport");
        let stream = self.open_tcp(attempt).await?;
        let connector = TlsConnector::from(config);
        let stream = connector.connect(self.name.clone(), stream).await.map_err(tls_failure)?;
        attempt.handshake = match stream.get_ref().1.handshake_kind() {
            Some(rustls::HandshakeKind::Resumed) => Handshake::Resumed,
            _ => Handshake::Full,
        };
        Ok(plain(stream))
    }

    async fn open_quic(&self, attempt: &mut Attempt) -> Result<Wired, ConnectError> {
        let client = self.quic.as_ref().expect("made in `new` for this transport");
        let connecting = client
            .endpoint
            .connect_with(client.config.clone(), self.target.address, &self.target.server_name)
            .map_err(|error| ConnectError::Settings(error.to_string()))?;
        let early = match self.target.resumption {
            Resumption::EarlyData => connecting.into_0rtt(),
            _ => Err(connecting),
        };
        let (connection, early) = match early {
            Ok((connection, accepted)) => (connection, Some(accepted)),
            Err(connecting) => {
                let connection = connecting.await.map_err(|error| quic_failure(&error, &self.phases))?;
                attempt.handshake = self.phases.handshake();
                (connection, None)
            }
        };
        let (writer, reader) =
            connection.open_bi().await.map_err(|error| quic_failure(&error, &self.phases))?;
        Ok(Wired { reader: Box::new(reader), writer: Box::new(writer), quic: Some(connection), early })
    }

    /// Waits for the verdict on 0-RTT data. When they are refused, so is the stream they went on, and a new
    /// one takes its place.
    pub(super) async fn settle_early(
        &self,
        wired: &mut Wired,
        attempt: &mut Attempt,
    ) -> Result<Early, ConnectError> {
        let (Some(accepted), Some(connection)) = (wired.early.take(), &wired.quic) else {
            return Ok(Early::NotUsed);
        };
        let accepted = accepted.await;
        if let Some(error) = connection.close_reason() {
            return Err(quic_failure(&error, &self.phases));
        }
        attempt.take_phases(&self.phases);
        if accepted {
            attempt.handshake = Handshake::ZeroRtt;
            return Ok(Early::Accepted);
        }
        attempt.handshake = self.phases.handshake();
        let (writer, reader) =
            connection.open_bi().await.map_err(|error| quic_failure(&error, &self.phases))?;
        wired.reader = Box::new(reader);
        wired.writer = Box::new(writer);
        Ok(Early::Refused)
    }

    /// Lets the last packets out after a connection was closed.
    pub(super) async fn flush(&self) {
        if let Some(quic) = &self.quic {
            let _ = tokio::time::timeout(Duration::from_millis(300), quic.endpoint.wait_idle()).await;
        }
    }

    /// Moves to another local port, as a NAT rebinding or an interface change does.
    ///
    /// # Errors
    /// When this is no QUIC client, or no socket can be bound.
    pub fn rebind(&self) -> io::Result<()> {
        self.rebind_to(wildcard(self.target.address))
    }

    /// Moves to another local address; port 0 stands for any.
    ///
    /// # Errors
    /// As [`Self::rebind`].
    pub fn rebind_to(&self, local: SocketAddr) -> io::Result<()> {
        let quic = self.quic.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        quic.endpoint.rebind(std::net::UdpSocket::bind(local)?)
    }
}

/// What became of 0-RTT data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Early {
    NotUsed,
    Accepted,
    Refused,
}

/// One attempt to connect, while it is under way.
#[derive(Debug)]
pub(super) struct Attempt {
    clock: Clock,
    pub(super) handshake: Handshake,
    pub(super) marks: Vec<Mark>,
}

impl Attempt {
    pub(super) fn new(clock: Clock, transport: Transport) -> Self {
        let handshake = match transport {
            Transport::Tcp => Handshake::None,
            _ => Handshake::Full,
        };
        Self { clock, handshake, marks: Vec::new() }
    }

    pub(super) fn mark(&mut self, phase: Phase) {
        self.mark_at(phase, Instant::now());
    }

    fn mark_at(&mut self, phase: Phase, at: Instant) {
        if !self.marks.iter().any(|mark| mark.phase == phase) {
            self.marks.push(Mark { phase, at_us: self.clock.us(at) });
            self.marks.sort_by_key(|mark| mark.at_us);
        }
    }

    pub(super) fn take_phases(&mut self, log: &PhaseLog) {
        for (phase, at) in log.reached() {
            self.mark_at(phase, at);
        }
    }
}

fn plain<S: AsyncRead + AsyncWrite + Send + 'static>(stream: S) -> Wired {
    let (reader, writer) = tokio::io::split(stream);
    Wired { reader: Box::new(reader), writer: Box::new(writer), quic: None, early: None }
}

fn tls_config(
    target: &Target,
    name: &ServerName<'static>,
    phases: &Arc<PhaseLog>,
) -> Result<rustls::ClientConfig, ConnectError> {
    let settings = |error: &dyn fmt::Display| ConnectError::Settings(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(target.trust.clone());
    let inner = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(|error| settings(&error))?;
    let verifier = Arc::new(Timed::new(inner, name.clone(), Arc::clone(phases)));
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| settings(&error))?
        // Nothing less strict: it verifies by the roots given, and notes when.
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &target.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder
            .with_client_auth_cert(identity.chain.clone(), identity.key())
            .map_err(|error| settings(&error))?,
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.key_log = Arc::clone(phases) as Arc<dyn rustls::KeyLog>;
    config.resumption = match target.resumption {
        Resumption::Off => TicketStore::disabled(),
        Resumption::Ticket | Resumption::EarlyData => TicketStore::default(),
    };
    config.enable_early_data = target.resumption == Resumption::EarlyData;
    Ok(config)
}

fn quic_client(target: &Target, tls: &Arc<rustls::ClientConfig>) -> Result<QuicClient, ConnectError> {
    let tls = QuicClientConfig::try_from(Arc::clone(tls))
        .map_err(|error| ConnectError::Settings(error.to_string()))?;
    let mut transport = TransportConfig::default();
    let idle_timeout = target.quic.idle_timeout.map(|timeout| {
        let ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        VarInt::from_u32(ms).into()
    });
    transport.max_idle_timeout(idle_timeout).keep_alive_interval(target.quic.keep_alive);
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client(wildcard(target.address)).map_err(network)?;
    Ok(QuicClient { endpoint, config })
}

/// Any local port, of the same address family, and on loopback if the broker is there.
fn wildcard(broker: SocketAddr) -> SocketAddr {
    match broker {
        SocketAddr::V4(v4) if v4.ip().is_loopback() => (Ipv4Addr::LOCALHOST, 0).into(),
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// What quinn counted on one connection, in the report's terms.
pub(super) fn quic_stats(connection: &quinn::Connection) -> TransportStats {
    let stats = connection.stats();
    let us = |duration: Duration| u64::try_from(duration.as_micros()).ok();
    TransportStats {
        packets_sent: Some(stats.udp_tx.datagrams),
        packets_received: Some(stats.udp_rx.datagrams),
        packets_lost: Some(stats.path.lost_packets),
        rtt_min_us: us(connection.min_rtt()),
        rtt_smoothed_us: us(stats.path.rtt),
        congestion_window: Some(stats.path.cwnd),
        ..TransportStats::default()
    }
}

/// IP packets and bytes of a QUIC connection so far: sent, received.
pub(super) fn quic_wire(connection: &quinn::Connection) -> (Wire, Wire) {
    let stats = connection.stats();
    let headers = if connection.remote_address().is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
    let wire =
        |udp: &quinn::UdpStats| Wire { packets: udp.datagrams, bytes: udp.bytes + udp.datagrams * headers };
    (wire(&stats.udp_tx), wire(&stats.udp_rx))
}
