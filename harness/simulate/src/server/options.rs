//! How a simulated server behaves.

use core::time::Duration;
use std::sync::Arc;

use crate::Seeded;
use crate::identity::Identity;
use crate::seeded::SeededRandom;
use crate::wire::Secrets;

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
