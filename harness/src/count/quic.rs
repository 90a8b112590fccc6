//! The broker over QUIC: quinn-proto, seeded throughout.

use std::net::SocketAddr;
use std::time::Duration;

use simulate::{Clock, Seeded, Server, ServerOptions, Service};
use smoltcp::socket::udp;
use smoltcp::wire::IpEndpoint;

use super::responder::Responder;

/// How long CONNACK waits, so that HANDSHAKE_DONE, tickets and connection IDs come before it and are not taken for its cost.
const CONNACK_DELAY: Duration = Duration::from_millis(50);
/// Longest datagram read.
const DATAGRAM_MAX: usize = 1_500;

/// An endpoint with an MQTT responder on the first stream of each connection.
pub(super) struct QuicBroker {
    server: Server<OnStream>,
}

impl QuicBroker {
    pub(super) fn new(seeded: &Seeded, seed: u64) -> Self {
        let options = ServerOptions { seeded: Some(seeded.clone()), ..ServerOptions::default() };
        Self { server: Server::new(options, seed, OnStream::default()) }
    }

    pub(super) fn poll(&mut self, now: Clock, socket: &mut udp::Socket<'_>) {
        let mut datagram = [0; DATAGRAM_MAX];
        while let Ok((len, from)) = socket.recv_slice(&mut datagram) {
            let from = SocketAddr::new(from.endpoint.addr.into(), from.endpoint.port);
            self.server.handle_datagram(now, from, &datagram[..len]);
        }
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.server.handle_timeout(now);
        }
        while let Some((to, datagram)) = self.server.poll_transmit(now) {
            // A full buffer is a loss that the endpoint recovers from.
            let _ = socket.send_slice(&datagram, IpEndpoint::from(to));
        }
    }

    pub(super) fn poll_timeout(&mut self) -> Option<Clock> {
        self.server.poll_timeout()
    }

    pub(super) fn publish(&mut self, now: Clock, topic: &str, payload: &[u8]) {
        self.server.service.responder.publish(topic, payload);
        self.server.wake(now);
    }
}

/// A responder on the latest connection's first stream.
#[derive(Default)]
struct OnStream {
    at: Option<(quinn_proto::ConnectionHandle, quinn_proto::StreamId)>,
    /// When the first answer, CONNACK, may go out.
    answers_at: Option<Clock>,
    responder: Responder,
}

impl Service for OnStream {
    fn poll(
        &mut self,
        now: Clock,
        connection: quinn_proto::ConnectionHandle,
        quic: &mut quinn_proto::Connection,
    ) {
        while let Some(id) = quic.streams().accept(quinn_proto::Dir::Bi) {
            self.at = Some((connection, id));
            self.responder = Responder::default();
            self.answers_at = Some(now + CONNACK_DELAY);
        }
        let Some((_, id)) = self.at.filter(|(at, _)| *at == connection) else { return };
        if let Ok(mut chunks) = quic.recv_stream(id).read(true) {
            while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                self.responder.handle_bytes(&chunk.bytes);
            }
            let _ = chunks.finalize();
        }
        if self.answers_at.is_some_and(|at| now < at) {
            return;
        }
        self.answers_at = None;
        let outgoing = self.responder.outgoing();
        if let Ok(written) = quic.send_stream(id).write(outgoing) {
            outgoing.drain(..written);
        }
    }

    fn on_lost(&mut self, _: Clock, connection: quinn_proto::ConnectionHandle) {
        self.at = self.at.filter(|(at, _)| *at != connection);
        if self.at.is_none() {
            self.answers_at = None;
        }
    }

    fn poll_timeout(&self) -> Option<Clock> {
        self.answers_at
    }
}
