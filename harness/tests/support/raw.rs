//! A bare QUIC client: streams and packets by hand, so that a test can break the rules.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use harness::broker::Broker;
use harness::certificates::SERVER_NAME;
use harness::wire::{
    AckKind, Acknowledge, Connack, Connect, Frame, Packet, Publish, Qos, Subscription, Version,
};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, ReadError, RecvStream, SendStream};

use super::within;

pub struct Raw {
    pub endpoint: Endpoint,
    config: quinn::ClientConfig,
    address: SocketAddr,
}

impl Raw {
    pub fn new(broker: &Broker) -> Self {
        Self::with_alpn(broker, b"mqtt")
    }

    pub fn with_alpn(broker: &Broker, alpn: &[u8]) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(broker.certificates().trust())
            .with_no_client_auth();
        tls.alpn_protocols = vec![alpn.to_vec()];
        tls.enable_early_data = true;
        let tls = QuicClientConfig::try_from(tls).expect("the Initial cipher is there");
        Self {
            endpoint: Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port"),
            config: quinn::ClientConfig::new(Arc::new(tls)),
            address: broker.addresses().quic.expect("a QUIC listener"),
        }
    }

    pub fn towards(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    pub fn connecting(&self) -> quinn::Connecting {
        self.endpoint.connect_with(self.config.clone(), self.address, SERVER_NAME).expect("usable settings")
    }

    pub async fn connect(&self) -> Connection {
        within("the handshake", self.connecting()).await.expect("a connection")
    }

    /// A connection with a control stream that has its CONNACK.
    pub async fn session(&self, client_id: &str) -> Session {
        self.session_with(Connect::new(Version::V5, client_id)).await
    }

    pub async fn session_with(&self, connect: Connect) -> Session {
        let connection = self.connect().await;
        let mut control = Stream::open(&connection).await;
        control.version = connect.version;
        control.send(&connect.encode()).await;
        let connack = control.connack().await;
        assert_eq!(connack.code, 0);
        Session { connection, control }
    }
}

pub struct Session {
    pub connection: Connection,
    pub control: Stream,
}

impl Session {
    pub async fn stream(&self) -> Stream {
        Stream::open(&self.connection).await
    }
}

/// What the broker did with a stream in the end.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Fin,
    Reset(u64),
    ConnectionLost,
}

pub struct Stream {
    pub send: SendStream,
    pub recv: RecvStream,
    pub version: Version,
    buf: Vec<u8>,
}

impl Stream {
    pub async fn open(connection: &Connection) -> Self {
        let (send, recv) = within("stream credit", connection.open_bi()).await.expect("a connection");
        Self { send, recv, version: Version::V5, buf: Vec::new() }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        within("sending", self.send.write_all(bytes)).await.expect("an open stream");
    }

    pub async fn send_packet(&mut self, packet: Packet) {
        self.send(&packet.encode(self.version)).await;
    }

    pub async fn publish(&mut self, topic: &str, payload: &[u8], packet_id: u16) {
        let mut publish = Publish::new(topic, payload, Qos::AtLeastOnce);
        publish.packet_id = packet_id;
        self.send_packet(Packet::Publish(publish)).await;
    }

    /// Subscribes with QoS 1 and waits for the SUBACK, which has to be the next packet.
    pub async fn subscribe(&mut self, filter: &str, packet_id: u16) {
        let subscriptions = vec![Subscription { filter: filter.into(), qos: Qos::AtLeastOnce }];
        self.send_packet(Packet::Subscribe { packet_id, subscriptions }).await;
        match self.packet().await {
            Packet::Suback(reply) => {
                assert_eq!(reply.packet_id, packet_id);
                assert_eq!(reply.codes, [1]);
            }
            other => panic!("{other:?} in place of SUBACK"),
        }
    }

    /// The next packet, whatever it is.
    pub async fn packet(&mut self) -> Packet {
        within("a packet", self.next()).await.expect("a packet, not the end of the stream")
    }

    async fn next(&mut self) -> Result<Packet, End> {
        loop {
            if let Some(frame) = Frame::peek(&self.buf).expect("the broker sends MQTT")
                && frame.length <= self.buf.len()
            {
                let bytes: Vec<u8> = self.buf.drain(..frame.length).collect();
                return Ok(Packet::decode(&bytes, self.version).expect("the broker sends MQTT"));
            }
            match self.recv.read_chunk(65_536, true).await {
                Ok(Some(chunk)) => self.buf.extend_from_slice(&chunk.bytes),
                Ok(None) => return Err(End::Fin),
                Err(ReadError::Reset(code)) => return Err(End::Reset(code.into_inner())),
                Err(_) => return Err(End::ConnectionLost),
            }
        }
    }

    pub async fn connack(&mut self) -> Connack {
        match self.packet().await {
            Packet::Connack(connack) => connack,
            other => panic!("{other:?} in place of CONNACK"),
        }
    }

    /// The PUBACK for `packet_id` has to be the next packet.
    pub async fn acked(&mut self, packet_id: u16) {
        match self.packet().await {
            Packet::Acknowledge(Acknowledge { kind: AckKind::Puback, packet_id: acked, reason }) => {
                assert_eq!(acked, packet_id);
                assert!(reason < 0x80, "{reason:#x}");
            }
            other => panic!("{other:?} in place of PUBACK"),
        }
    }

    /// A message has to be the next packet; it is acknowledged.
    pub async fn message(&mut self) -> Publish {
        match self.packet().await {
            Packet::Publish(publish) => {
                let ack = Acknowledge::new(AckKind::Puback, publish.packet_id);
                self.send_packet(Packet::Acknowledge(ack)).await;
                publish
            }
            other => panic!("{other:?} in place of PUBLISH"),
        }
    }

    /// Nothing comes for a moment, and the stream stays open.
    pub async fn silence(&mut self) {
        let waited = tokio::time::timeout(std::time::Duration::from_millis(100), self.next()).await;
        assert!(waited.is_err(), "unexpected: {waited:?}");
    }

    /// How the broker ends its half; packets before are passed over.
    pub async fn end(&mut self) -> End {
        let ended = async {
            loop {
                if let Err(end) = self.next().await {
                    return end;
                }
            }
        };
        within("the end of the stream", ended).await
    }

    /// The code the broker stops the client's half with.
    pub async fn stopped(&mut self) -> Option<u64> {
        within("STOP_SENDING", self.send.stopped()).await.ok().flatten().map(|code| code.into_inner())
    }
}

/// The application code of the broker's CONNECTION_CLOSE.
pub async fn close_code(connection: &Connection) -> u64 {
    match within("CONNECTION_CLOSE", connection.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other:?} in place of an application close"),
    }
}
