//! The server of a simulation: quinn-proto's endpoint over rustls, without sockets.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::BytesMut;
use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, ConnectionId, ConnectionIdGenerator, ConnectionStats,
    DatagramEvent, Endpoint, EndpointConfig, Event, ServerConfig, TokenLog, TokenReuseError, TransportConfig,
    ValidationTokenConfig,
};
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;

use crate::identity::Identity;
use crate::seeded::SeededRandom;
use crate::service::Service;
use crate::wire::Secrets;
use crate::{Clock, Random, Seeded};

/// How the server behaves; plain values, the same for each of its connections until changed.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Its certificates.
    pub identity: Arc<Identity>,
    /// In place of these and of all chance: what follows from a seed.
    pub seeded: Option<Seeded>,
    /// In place of chance alone: what follows from a seed.
    pub randomness: Option<SeededRandom>,
    /// Application protocols it accepts.
    pub alpn: Vec<Vec<u8>>,
    /// Cipher suites it accepts, by preference; empty for rustls' own choice.
    pub cipher_suites: Vec<rustls::CipherSuite>,
    /// Key exchange groups it accepts; empty for rustls' own choice.
    pub groups: Vec<rustls::NamedGroup>,
    /// Whether each client must prove its address first.
    pub retry: bool,
    /// Whether it takes 0-RTT data (and issues tickets that permit it).
    pub early_data: bool,
    /// Session tickets per connection.
    pub tickets: usize,
    /// Bytes a client may have under way on a stream.
    pub stream_window: u32,
    /// Bytes a client may have under way on all streams.
    pub connection_window: u32,
    /// Streams a client may have open.
    pub streams: u32,
    /// Bytes the server buffers for sending.
    pub send_window: u64,
    /// Its idle timeout.
    pub idle_timeout: Duration,
    /// Its keep-alive interval.
    pub keep_alive: Option<Duration>,
    /// Whether clients may change their address.
    pub migration: bool,
    /// Largest datagram it probes the path for.
    pub mtu_max: u16,
    /// QUIC versions it speaks; empty for quinn's own choice.
    pub versions: Vec<u32>,
    /// Whether its stateless resets are the same after a restart, so that clients recognise them.
    pub keeps_reset_key: bool,
    /// Where the secrets of its connections are put down.
    pub secrets: Option<Arc<Secrets>>,
    /// Whose certificate each client must show, if any.
    pub client_identity: Option<Arc<Identity>>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            identity: Identity::fixed(),
            seeded: None,
            randomness: None,
            alpn: vec![b"mqtt".to_vec()],
            cipher_suites: Vec::new(),
            groups: Vec::new(),
            retry: false,
            early_data: true,
            tickets: 1,
            stream_window: 64 * 1024,
            connection_window: 256 * 1024,
            streams: 100,
            send_window: 256 * 1024,
            idle_timeout: Duration::from_secs(30),
            keep_alive: None,
            migration: true,
            mtu_max: 1200,
            versions: Vec::new(),
            keeps_reset_key: true,
            secrets: None,
            client_identity: None,
        }
    }
}

/// The server: an endpoint, its connections, and a service on top.
pub struct Server<S> {
    /// What runs on the streams.
    pub service: S,
    options: ServerOptions,
    endpoint: Endpoint,
    endpoint_seed: u64,
    restarts: u64,
    config: Arc<ServerConfig>,
    sessions: Arc<dyn rustls::server::StoresServerSessions>,
    wall: Arc<Wall>,
    connections: BTreeMap<usize, Connection>,
    outbox: VecDeque<(SocketAddr, Vec<u8>)>,
    scratch: Vec<u8>,
    /// Client addresses datagrams were sent to, and what each connection looked like at its end.
    paths: BTreeSet<SocketAddr>,
    ended: Vec<Ended>,
    retries: u64,
    accepted: u64,
}

/// How a connection ended.
#[derive(Debug)]
pub struct Ended {
    /// Why, in quinn's words.
    pub reason: ConnectionError,
    /// Its counters.
    pub stats: ConnectionStats,
}

impl<S: Service> Server<S> {
    /// A server that behaves as `options` say; its random choices follow from `seed`.
    #[must_use]
    pub fn new(options: ServerOptions, seed: u64, service: S) -> Self {
        let wall = Arc::new(Wall::default());
        let sessions: Arc<dyn rustls::server::StoresServerSessions> =
            rustls::server::ServerSessionMemoryCache::new(64);
        let config = Arc::new(server_config(&options, &wall, &sessions));
        Self {
            service,
            endpoint: endpoint(&options, &config, seed, 0),
            endpoint_seed: seed,
            restarts: 0,
            config,
            sessions,
            wall,
            options,
            connections: BTreeMap::new(),
            outbox: VecDeque::new(),
            scratch: Vec::new(),
            paths: BTreeSet::new(),
            ended: Vec::new(),
            retries: 0,
            accepted: 0,
        }
    }

    /// How the server behaves now.
    #[must_use]
    pub const fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// Changes how the server treats connections from now on.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut ServerOptions)) {
        change(&mut self.options);
        self.config = Arc::new(server_config(&self.options, &self.wall, &self.sessions));
        self.endpoint.set_server_config(Some(self.config.clone()));
    }

    /// Loses all connections without a word, as a crash does. Keys of stateless resets survive, session tickets
    /// do not.
    pub fn restart(&mut self, now: Clock) {
        for &handle in self.connections.keys() {
            self.service.on_lost(now, ConnectionHandle(handle));
        }
        self.connections.clear();
        self.outbox.clear();
        self.restarts += 1;
        self.sessions = rustls::server::ServerSessionMemoryCache::new(64);
        self.config = Arc::new(server_config(&self.options, &self.wall, &self.sessions));
        self.endpoint = endpoint(&self.options, &self.config, self.endpoint_seed, self.restarts);
    }

    /// Takes in a datagram from a client.
    pub fn handle_datagram(&mut self, now: Clock, from: SocketAddr, datagram: &[u8]) {
        self.wall.set(now);
        let data = BytesMut::from(datagram);
        self.scratch.clear();
        let event = self.endpoint.handle(now.quinn(), from, None, None, data, &mut self.scratch);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(connection) = self.connections.get_mut(&handle.0) {
                    connection.handle_event(event);
                    self.settle(now, handle);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.welcome(now, incoming),
            Some(DatagramEvent::Response(transmit)) => {
                self.send(transmit.destination, transmit.size);
            }
            None => {}
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&mut self) -> Option<Clock> {
        let timers =
            self.connections.values_mut().filter_map(Connection::poll_timeout).map(Clock::from_quinn);
        timers.chain(self.service.poll_timeout()).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Clock) {
        self.wall.set(now);
        let handles: Vec<usize> = self.connections.keys().copied().collect();
        for handle in handles {
            if let Some(connection) = self.connections.get_mut(&handle) {
                connection.handle_timeout(now.quinn());
            }
            self.settle(now, ConnectionHandle(handle));
        }
    }

    /// The next datagram to send, and where to.
    pub fn poll_transmit(&mut self, now: Clock) -> Option<(SocketAddr, Vec<u8>)> {
        if let Some(sent) = self.outbox.pop_front() {
            return Some(sent);
        }
        self.wall.set(now);
        for connection in self.connections.values_mut() {
            self.scratch.clear();
            if let Some(transmit) = connection.poll_transmit(now.quinn(), 1, &mut self.scratch) {
                self.paths.insert(transmit.destination);
                return Some((transmit.destination, self.scratch[..transmit.size].to_vec()));
            }
        }
        None
    }

    /// Lets the service act now, as after it was given work from outside.
    pub fn wake(&mut self, now: Clock) {
        let handles: Vec<usize> = self.connections.keys().copied().collect();
        for handle in handles {
            self.settle(now, ConnectionHandle(handle));
        }
    }

    /// The live connections.
    pub fn connections(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.connections.values_mut()
    }

    /// The latest live connection.
    pub fn connection(&mut self) -> Option<&mut Connection> {
        self.connections.values_mut().next_back()
    }

    /// Connections that ended, the first first.
    #[must_use]
    pub fn ended(&self) -> &[Ended] {
        &self.ended
    }

    /// Connections accepted so far.
    #[must_use]
    pub const fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Retry packets sent so far.
    #[must_use]
    pub const fn retries(&self) -> u64 {
        self.retries
    }

    /// Client addresses that datagrams of connections went to.
    #[must_use]
    pub const fn paths(&self) -> &BTreeSet<SocketAddr> {
        &self.paths
    }

    fn welcome(&mut self, now: Clock, incoming: quinn_proto::Incoming) {
        self.scratch.clear();
        if self.options.retry && incoming.may_retry() && !incoming.remote_address_validated() {
            if let Ok(transmit) = self.endpoint.retry(incoming, &mut self.scratch) {
                self.retries += 1;
                self.send(transmit.destination, transmit.size);
            }
            return;
        }
        match self.endpoint.accept(incoming, now.quinn(), &mut self.scratch, None) {
            Ok((handle, connection)) => {
                self.accepted += 1;
                self.connections.insert(handle.0, connection);
                self.settle(now, handle);
            }
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.send(transmit.destination, transmit.size);
                }
            }
        }
    }

    fn send(&mut self, to: SocketAddr, size: usize) {
        self.outbox.push_back((to, self.scratch[..size].to_vec()));
    }

    /// Passes events on until the connection has none.
    fn settle(&mut self, now: Clock, handle: ConnectionHandle) {
        let Some(connection) = self.connections.get_mut(&handle.0) else { return };
        let mut drained = false;
        loop {
            let mut idle = true;
            while let Some(event) = connection.poll_endpoint_events() {
                idle = false;
                drained |= event.is_drained();
                if let Some(event) = self.endpoint.handle_event(handle, event) {
                    connection.handle_event(event);
                }
            }
            while let Some(event) = connection.poll() {
                idle = false;
                if let Event::ConnectionLost { reason } = event {
                    self.ended.push(Ended { reason, stats: connection.stats() });
                    self.service.on_closed(now, handle, connection);
                    self.service.on_lost(now, handle);
                }
            }
            if idle {
                break;
            }
        }
        if drained {
            self.connections.remove(&handle.0);
            return;
        }
        if !connection.is_closed() {
            self.service.poll(now, handle, connection);
        }
    }
}

/// The wall clock of a simulation, as rustls and quinn ask for it.
#[derive(Debug, Default)]
struct Wall(AtomicU64);

impl Wall {
    fn set(&self, now: Clock) {
        self.0.store(now.unix_s(), Ordering::Relaxed);
    }

    fn since_1970(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

impl rustls::time_provider::TimeProvider for Wall {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.since_1970()))
    }
}

#[derive(Debug)]
struct QuinnWall(Arc<Wall>);

impl quinn_proto::TimeSource for QuinnWall {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.0.since_1970()
    }
}

/// Connection identifiers that follow from the seed. Any identifier may have been one of an earlier life of the
/// server, so unknown ones are answered by a stateless reset.
struct SeededIds(Random);

impl ConnectionIdGenerator for SeededIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.array::<8>())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn endpoint(options: &ServerOptions, config: &Arc<ServerConfig>, seed: u64, restart: u64) -> Endpoint {
    let life = if options.keeps_reset_key { 0 } else { restart as u8 };
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[0x5a ^ life; 32]);
    let mut endpoint_config = EndpointConfig::new(Arc::new(reset_key));
    endpoint_config.rng_seed(Some(Random::new(seed, 1_000 + restart).array()));
    endpoint_config.cid_generator(move || Box::new(SeededIds(Random::new(seed, 2_000 + restart))));
    if !options.versions.is_empty() {
        endpoint_config.supported_versions(options.versions.clone());
    }
    Endpoint::new(Arc::new(endpoint_config), Some(config.clone()), true, None)
}

fn server_config(
    options: &ServerOptions,
    wall: &Arc<Wall>,
    sessions: &Arc<dyn rustls::server::StoresServerSessions>,
) -> ServerConfig {
    let seeded = options.seeded.as_ref().map(Seeded::provider);
    let mut provider = seeded
        .or_else(|| options.randomness.as_ref().map(SeededRandom::provider))
        .unwrap_or_else(rustls::crypto::ring::default_provider);
    let initial = provider.cipher_suites.iter().find_map(|suite| match suite.suite() {
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256 => suite.tls13()?.quic_suite(),
        _ => None,
    });
    if !options.cipher_suites.is_empty() {
        provider.cipher_suites.retain(|suite| options.cipher_suites.contains(&suite.suite()));
    }
    if !options.groups.is_empty() {
        provider.kx_groups.retain(|group| options.groups.contains(&group.name()));
    }
    let provider = Arc::new(provider);
    let verifier =
        options.client_identity.as_ref().map_or_else(WebPkiClientVerifier::no_client_auth, |identity| {
            let mut roots = rustls::RootCertStore::empty();
            roots.roots.extend(identity.anchors.iter().cloned());
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .expect("there is a root")
        });
    let builder = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring speaks TLS 1.3")
        .with_client_cert_verifier(verifier);
    let mut tls = match &options.seeded {
        Some(seeded) => builder.with_cert_resolver(seeded.resolver()),
        None => builder
            .with_single_cert(options.identity.chain.clone(), options.identity.key())
            .expect("the identity's key fits its certificate"),
    };
    tls.alpn_protocols.clone_from(&options.alpn);
    tls.max_early_data_size = if options.early_data { u32::MAX } else { 0 };
    tls.send_tls13_tickets = options.tickets;
    tls.session_storage = sessions.clone();
    tls.time_provider = wall.clone();
    if let Some(secrets) = &options.secrets {
        tls.key_log = secrets.clone();
    }
    let crypto =
        QuicServerConfig::with_initial(Arc::new(tls), initial.expect("ring has AES-128-GCM for QUIC"))
            .expect("Initial packets are protected by AES-128-GCM");
    let token_key = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&[0xa5; 64]);
    let mut config = ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
    config.migration(options.migration);
    config.time_source(Arc::new(QuinnWall(wall.clone())));
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(1).log(Arc::new(UsedTokens::default()));
    config.validation_token_config(tokens);
    config.transport_config(Arc::new(transport(options)));
    config
}

/// Remembers each token that was used: none is good twice (RFC 9000 8.1.4).
#[derive(Debug, Default)]
struct UsedTokens(Mutex<BTreeSet<u128>>);

impl TokenLog for UsedTokens {
    fn check_and_insert(&self, nonce: u128, _: SystemTime, _: Duration) -> Result<(), TokenReuseError> {
        let mut used = self.0.lock().expect("no panic while it is held");
        if used.insert(nonce) { Ok(()) } else { Err(TokenReuseError) }
    }
}

fn transport(options: &ServerOptions) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(options.stream_window.into())
        .receive_window(options.connection_window.into())
        .max_concurrent_bidi_streams(options.streams.into())
        .max_concurrent_uni_streams(0_u32.into())
        .send_window(options.send_window)
        .max_idle_timeout(options.idle_timeout.try_into().ok())
        .keep_alive_interval(options.keep_alive)
        .enable_segmentation_offload(false)
        .datagram_receive_buffer_size(None);
    if options.mtu_max > 1200 {
        let mut discovery = quinn_proto::MtuDiscoveryConfig::default();
        discovery.upper_bound(options.mtu_max);
        transport.mtu_discovery_config(Some(discovery));
    } else {
        transport.mtu_discovery_config(None);
    }
    transport
}
