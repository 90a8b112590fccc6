//! quinn-proto as the client of a simulation: what the simulation itself is checked with, and what shares the device's
//! link with it. Its congestion control is CUBIC.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use device::quic::PathChange;
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event, StreamId,
};

use crate::identity::{Identity, SERVER_NAME};
use crate::pair::ClientSide;
use crate::{Clock, Random};

/// A quinn-proto client.
pub struct ReferenceClient {
    endpoint: Endpoint,
    handle: ConnectionHandle,
    /// Its connection.
    pub connection: Connection,
    /// What happened.
    pub events: Vec<Event>,
    /// Stream bytes received by [`Self::download`].
    pub downloaded: u64,
    downloads: Vec<StreamId>,
    server: SocketAddr,
}

impl ReferenceClient {
    /// A client that starts connecting at once.
    ///
    /// # Panics
    /// If quinn refuses its own defaults.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.roots.extend(Identity::fixed().anchors.iter().cloned());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring speaks TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"mqtt".to_vec()];
        let crypto = QuicClientConfig::try_from(tls).expect("ring has AES-128-GCM");
        let mut config = ClientConfig::new(Arc::new(crypto));
        let mut transport = quinn_proto::TransportConfig::default();
        transport.mtu_discovery_config(None).enable_segmentation_offload(false);
        config.transport_config(Arc::new(transport));
        let mut random = Random::new(seed, 2);
        let destination: [u8; 16] = random.array();
        config.initial_dst_cid_provider(Arc::new(move || quinn_proto::ConnectionId::new(&destination)));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[1; 32]);
        let mut endpoint_config = EndpointConfig::new(Arc::new(key));
        endpoint_config.rng_seed(Some(random.array()));
        let mut endpoint = Endpoint::new(Arc::new(endpoint_config), None, true, None);
        let server = SocketAddr::from((Ipv4Addr::new(10, 77, 0, 1), 14_567));
        let (handle, connection) =
            endpoint.connect(Clock::START.quinn(), config, server, SERVER_NAME).expect("valid parameters");
        Self {
            endpoint,
            handle,
            connection,
            events: Vec::new(),
            downloaded: 0,
            downloads: Vec::new(),
            server,
        }
    }

    /// Asks a [`Source`](crate::Source) for `len` bytes; what comes is counted.
    ///
    /// # Panics
    /// If there is no stream to ask on.
    pub fn download(&mut self, len: u64) {
        let id = self.connection.streams().open(Dir::Bi).expect("credit for a stream");
        let mut stream = self.connection.send_stream(id);
        assert_eq!(stream.write(&len.to_be_bytes()), Ok(8), "room for the request");
        stream.finish().expect("an open stream");
        self.downloads.push(id);
    }

    /// Takes in a datagram if it is one of this client's.
    pub(crate) fn takes(&mut self, now: Clock, datagram: &[u8]) -> bool {
        let mut response = Vec::new();
        let data = BytesMut::from(datagram);
        let event = self.endpoint.handle(now.quinn(), self.server, None, None, data, &mut response);
        let Some(DatagramEvent::ConnectionEvent(_, event)) = event else { return false };
        self.connection.handle_event(event);
        self.settle();
        true
    }

    fn read(&mut self) {
        for &id in &self.downloads {
            let mut stream = self.connection.recv_stream(id);
            let Ok(mut chunks) = stream.read(true) else { continue };
            while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                self.downloaded += chunk.bytes.len() as u64;
            }
            let _ = chunks.finalize();
        }
    }

    fn settle(&mut self) {
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
        while let Some(event) = self.connection.poll() {
            self.events.push(event);
        }
        self.read();
    }
}

impl ClientSide for ReferenceClient {
    fn handle_datagram(&mut self, now: Clock, datagram: &mut [u8]) {
        let _ = self.takes(now, datagram);
    }

    fn handle_timeout(&mut self, now: Clock) {
        self.connection.handle_timeout(now.quinn());
        self.settle();
    }

    fn poll_transmit(&mut self, now: Clock, buffer: &mut [u8]) -> Option<usize> {
        self.settle();
        let mut datagram = Vec::new();
        let transmit = self.connection.poll_transmit(now.quinn(), 1, &mut datagram)?;
        buffer[..transmit.size].copy_from_slice(&datagram[..transmit.size]);
        Some(transmit.size)
    }

    fn poll_timeout(&mut self) -> Option<Clock> {
        self.connection.poll_timeout().map(Clock::from_quinn)
    }

    fn on_local_address_changed(&mut self, _: Clock, _: PathChange) {
        self.connection.local_address_changed();
    }
}
