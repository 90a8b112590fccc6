//! The device's QUIC connection as the client of a simulation.

use core::time::Duration;
use std::sync::Arc;

use device::crypto::key_exchange::NamedGroup;
use device::crypto::{CipherSuite, Software};
use device::quic::{Config, Connection, Context, Event, PathChange, SessionStore, StreamId};
use device::tls;

use crate::identity::{Identity, SERVER_NAME};
use crate::pair::ClientSide;
use crate::reference::ReferenceClient;
use crate::service::pattern;
use crate::{Clock, Pair, Random, Service, Source};

/// What the client offers and insists on.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The QUIC connection's own settings.
    pub quic: Config,
    /// Whom it trusts.
    pub identity: Arc<Identity>,
    /// The name the certificate must be for.
    pub server_name: String,
    /// The application protocol.
    pub alpn: Vec<u8>,
    /// Cipher suites by preference.
    pub cipher_suites: Vec<CipherSuite>,
    /// Key exchange groups by preference.
    pub groups: Vec<NamedGroup>,
    /// Seconds by which the client's wall clock is off.
    pub clock_skew_s: i64,
    /// Whose certificate it shows when asked; the key is a P-256 one.
    pub own_identity: Option<Arc<Identity>>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            // Silence is for the tests to break.
            quic: Config { keep_alive: device::time::Duration::ZERO, ..Config::new() },
            identity: Identity::fixed(),
            server_name: SERVER_NAME.to_owned(),
            alpn: b"mqtt".to_vec(),
            cipher_suites: vec![CipherSuite::ChaCha20Poly1305Sha256, CipherSuite::Aes128GcmSha256],
            groups: vec![NamedGroup::X25519, NamedGroup::P256],
            clock_skew_s: 0,
            own_identity: None,
        }
    }
}

/// A client that speaks QUIC without MQTT on top, and everything it was told.
pub struct QuicClient {
    /// The connection under test.
    pub connection: Box<Connection<Software>>,
    /// What it offers; change it between connections only.
    pub options: ClientOptions,
    /// Events in the order they came.
    pub events: Vec<(Clock, Event)>,
    /// Tickets and tokens, the latest last.
    pub kept: Kept,
    /// Another client behind the same address, on the same link.
    pub cross_traffic: Option<Box<ReferenceClient>>,
    entropy: Random,
    /// The ticket in use by the connection.
    resuming: Option<tls::Ticket>,
}

/// What the connection gave its user to keep.
#[derive(Debug, Default)]
pub struct Kept {
    /// Session tickets.
    pub tickets: Vec<tls::Ticket>,
    /// Address validation tokens.
    pub tokens: Vec<Vec<u8>>,
}

impl SessionStore for Kept {
    fn on_ticket(&mut self, ticket: tls::Ticket) {
        self.tickets.push(ticket);
    }

    fn on_token(&mut self, token: &[u8]) {
        self.tokens.push(token.to_vec());
    }
}

/// Calls `$method` of the connection with a context made of the client's other fields.
macro_rules! with_context {
    ($client:ident, $now:expr, |$connection:ident, $ctx:ident| $body:expr) => {{
        let options = &$client.options;
        let own = options.own_identity.as_deref();
        let certificates = own.map(Identity::certificates).unwrap_or_default();
        let tls = tls::Config {
            cipher_suites: &options.cipher_suites,
            groups: &options.groups,
            ticket: $client.resuming.as_ref(),
            client_auth: own
                .map(|own| tls::ClientAuth { certificates: &certificates, private_key: own.scalar() }),
            ..tls::Config::new(
                &options.identity.anchors,
                &options.server_name,
                &options.alpn,
                $now.unix_s().saturating_add_signed(options.clock_skew_s),
            )
        };
        let $ctx = &mut Context {
            now: $now.device(),
            tls: &tls,
            entropy: &mut $client.entropy,
            store: &mut $client.kept,
        };
        let $connection = &mut *$client.connection;
        $body
    }};
}

impl QuicClient {
    /// A client at rest.
    #[must_use]
    pub fn new(options: ClientOptions, seed: u64) -> Self {
        Self {
            connection: Box::new(Connection::new()),
            options,
            events: Vec::new(),
            kept: Kept::default(),
            cross_traffic: None,
            entropy: Random::new(seed, 1),
            resuming: None,
        }
    }

    /// Starts a connection without a ticket.
    ///
    /// # Panics
    /// If the connection cannot start.
    pub fn connect(&mut self, now: Clock) {
        self.resuming = None;
        self.start(now);
    }

    /// Starts a connection with the latest ticket, using it up.
    ///
    /// # Panics
    /// If there is none, or the connection cannot start.
    pub fn resume(&mut self, now: Clock) {
        self.resuming = Some(self.kept.tickets.pop().expect("a ticket of an earlier connection"));
        self.start(now);
    }

    fn start(&mut self, now: Clock) {
        let token = self.kept.tokens.pop().unwrap_or_default();
        let config = self.options.quic;
        with_context!(self, now, |connection, ctx| connection.connect(&config, ctx, &token))
            .expect("the connection is at rest and its configuration valid");
        self.collect(now);
    }

    /// Whether `wanted` has been told.
    pub fn has(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(|(_, event)| wanted(event))
    }

    /// When the first event came that `wanted` describes.
    pub fn time_of(&self, wanted: impl Fn(&Event) -> bool) -> Option<Clock> {
        self.events.iter().find(|(_, event)| wanted(event)).map(|&(at, _)| at)
    }

    /// Whether the handshake is complete.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.has(|event| matches!(event, Event::Connected { .. }))
    }

    /// Whether the connection is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.has(|event| matches!(event, Event::Closed(_)))
    }

    /// What the connection measured.
    #[must_use]
    pub fn stats(&self) -> device::quic::Stats {
        self.connection.stats()
    }

    /// Writes as much of `bytes` as there is room for, on a stream that can be written.
    ///
    /// # Panics
    /// If the stream cannot be written.
    pub fn write(&mut self, id: StreamId, bytes: &[u8]) -> usize {
        self.connection.stream_write(id, bytes).expect("a writable stream")
    }

    /// Takes the events so far, so that those of the next connection stand alone.
    pub fn take_events(&mut self) -> Vec<(Clock, Event)> {
        core::mem::take(&mut self.events)
    }

    /// Fetches what the connection wants to tell.
    pub fn collect(&mut self, now: Clock) {
        while let Some(event) = self.connection.poll_event() {
            self.events.push((now, event));
        }
    }
}

impl ClientSide for QuicClient {
    fn handle_datagram(&mut self, now: Clock, datagram: &mut [u8]) {
        if self.cross_traffic.as_mut().is_some_and(|other| other.takes(now, datagram)) {
            return;
        }
        with_context!(self, now, |connection, ctx| connection.handle_datagram(ctx, datagram));
        self.collect(now);
    }

    fn handle_timeout(&mut self, now: Clock) {
        if let Some(other) = &mut self.cross_traffic {
            other.handle_timeout(now);
        }
        with_context!(self, now, |connection, ctx| connection.handle_timeout(ctx));
        self.collect(now);
    }

    fn poll_transmit(&mut self, now: Clock, buffer: &mut [u8]) -> Option<usize> {
        let lent = buffer.first_chunk_mut().expect("room for any datagram");
        let len = with_context!(self, now, |connection, ctx| connection.poll_transmit(ctx, lent));
        self.collect(now);
        len.or_else(|| self.cross_traffic.as_mut()?.poll_transmit(now, buffer))
    }

    fn poll_timeout(&mut self) -> Option<Clock> {
        let other = self.cross_traffic.as_mut().and_then(|other| other.poll_timeout());
        self.connection.poll_timeout().map(Clock::from_device).into_iter().chain(other).min()
    }

    fn on_local_address_changed(&mut self, now: Clock, change: PathChange) {
        with_context!(self, now, |connection, ctx| connection.on_local_address_changed(ctx, change));
        self.collect(now);
    }
}

impl<S: Service> Pair<QuicClient, S> {
    /// Connects and runs until the handshake is complete.
    ///
    /// # Panics
    /// If that takes more than 60 seconds.
    pub fn run_until_connected(&mut self) {
        self.client.connect(self.now());
        let connected = self.run_until(Duration::from_secs(60), |pair| pair.client.is_connected());
        assert!(connected, "not connected after {}: {:?}", self.now(), self.client.events);
    }

    /// Runs until the server has confirmed the handshake.
    ///
    /// # Panics
    /// If that takes more than 60 seconds.
    pub fn run_until_confirmed(&mut self) {
        let confirmed = |event: &Event| matches!(event, Event::Handshake(device::quic::Phase::Confirmed));
        let done = self.run_until(Duration::from_secs(60), |pair| pair.client.has(confirmed));
        assert!(done, "not confirmed after {}: {:?}", self.now(), self.client.events);
    }

    /// Sends `len` bytes on a new stream, receives them back and checks them.
    ///
    /// # Panics
    /// If that takes longer than `limit`, or the bytes are not the same.
    pub fn echo(&mut self, len: usize, limit: Duration) {
        let mut opened = self.client.connection.open_stream();
        self.run_until(limit, |pair| {
            if opened.is_err() {
                opened = pair.client.connection.open_stream();
            }
            opened.is_ok()
        });
        let id = opened
            .unwrap_or_else(|error| panic!("no stream by {}: {error}; {:?}", self.now(), self.client.events));
        let byte = |offset: usize| pattern(offset as u64);
        let (mut sent, mut received, mut finished) = (0, 0, false);
        let mut chunk = [0; 1024];
        let done = self.run_until(limit, |pair| {
            while sent < len {
                let want = chunk.len().min(len - sent);
                for (index, slot) in chunk[..want].iter_mut().enumerate() {
                    *slot = byte(sent + index);
                }
                let written = pair.client.write(id, &chunk[..want]);
                sent += written;
                if written < want {
                    break;
                }
            }
            if sent == len && !finished {
                pair.client.connection.finish(id).expect("an open stream");
                finished = true;
            }
            loop {
                match pair.client.connection.stream_read(id, &mut chunk) {
                    Ok(device::quic::Read::Data(count)) => {
                        for (index, &value) in chunk[..count].iter().enumerate() {
                            assert_eq!(
                                value,
                                byte(received + index),
                                "byte {} of the echo",
                                received + index
                            );
                        }
                        received += count;
                    }
                    Ok(device::quic::Read::Blocked) => return false,
                    Ok(device::quic::Read::Finished) => return true,
                    Err(error) => panic!("{error:?} after {received} bytes at {}", pair.now()),
                }
            }
        });
        assert!(done, "{received} of {len} bytes came back, {sent} were sent, until {}", self.now());
        assert_eq!(received, len);
    }
}

impl Pair<QuicClient, Source> {
    /// Downloads `len` bytes on a new stream and checks them. Returns the time from the first byte to the last.
    ///
    /// # Panics
    /// If that takes longer than `limit`, or the bytes are not the right ones.
    pub fn download(&mut self, len: u64, limit: Duration) -> Duration {
        let id = self.client.connection.open_stream().expect("a stream is free");
        assert_eq!(self.client.write(id, &len.to_be_bytes()), 8, "room for the request");
        self.client.connection.finish(id).expect("an open stream");
        let (mut received, mut first) = (0, None);
        let mut chunk = [0; 1024];
        let done = self.run_until(limit, |pair| {
            loop {
                match pair.client.connection.stream_read(id, &mut chunk) {
                    Ok(device::quic::Read::Data(count)) => {
                        let expected = (received..).map(pattern);
                        assert!(chunk[..count].iter().copied().eq(expected.take(count)), "behind {received}");
                        received += count as u64;
                        first.get_or_insert(pair.now());
                    }
                    Ok(device::quic::Read::Blocked) => return false,
                    Ok(device::quic::Read::Finished) => return true,
                    Err(error) => panic!("{error:?} after {received} bytes at {}", pair.now()),
                }
            }
        });
        assert!(done, "{received} of {len} bytes came until {}", self.now());
        assert_eq!(received, len);
        self.now().elapsed() - first.unwrap_or_default().elapsed()
    }
}
