//! The scripted peer.

extern crate std;

use core::ops::RangeInclusive;
use std::vec::Vec;

use crate::codec::{Reader, Writer};
use crate::crypto::{CipherSuite, Secret, Software, TAG_LEN};
use crate::entropy::Entropy;
use crate::quic::cid::{ConnectionId, ResetToken};
use crate::quic::frame::Frame;
use crate::quic::keys::OneRttKeys;
use crate::quic::packet::{LongKind, Packet, encode_short_header, finish_long_header};
use crate::quic::protection::{LevelKeys, protect};
use crate::quic::recovery::Space;
use crate::quic::transport_parameters::Limits;
use crate::quic::{CloseReason, Config, Event, SessionStore, TransportCode};
use crate::time::{Duration, Instant};
use crate::tls;

use super::super::{Connection, Context, Phase, Stage, State};

pub(super) const SUITE: CipherSuite = CipherSuite::ChaCha20Poly1305Sha256;
pub(super) const SERVER: &[u8] = b"server-0";
pub(super) const RESET_TOKEN: [u8; 16] = [0x5a; 16];

/// Counts, so that every draw differs and every run is the same.
pub(super) struct Counting(pub(super) u8);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
    }
}

#[derive(Default)]
pub(super) struct Kept {
    pub(super) tokens: Vec<Vec<u8>>,
    /// Lifetimes of the tickets, in seconds.
    pub(super) tickets: Vec<u32>,
}

impl SessionStore for Kept {
    fn on_ticket(&mut self, ticket: tls::Ticket) {
        self.tickets.push(ticket.lifetime_s());
    }
    fn on_token(&mut self, token: &[u8]) {
        self.tokens.push(token.to_vec());
    }
}

/// What a datagram of the client held.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) len: usize,
    /// The destination of its last packet with a short header.
    pub(super) destination: Vec<u8>,
    /// Debug output of its frames, in order.
    pub(super) frames: Vec<std::string::String>,
    /// What it acknowledges.
    pub(super) acked: Vec<RangeInclusive<u64>>,
}

impl Sent {
    pub(super) fn has(&self, frame: &str) -> bool {
        self.frames.iter().any(|sent| sent.starts_with(frame))
    }
}

/// A client's connection and the server's end of it.
pub(super) struct Peer {
    pub(super) connection: std::boxed::Box<Connection<Software, 2, 256>>,
    pub(super) now: Instant,
    pub(super) kept: Kept,
    entropy: Counting,
    pub(super) keys: OneRttKeys<Software>,
    handshake: LevelKeys<Software>,
    /// Number of the next packet in each space.
    pub(super) next: [u64; 3],
}

pub(super) fn secret(byte: u8) -> Secret {
    Secret::from_slice(&[byte; 32]).expect("32 bytes")
}

impl Peer {
    /// A connection whose handshake is confirmed.
    pub(super) fn confirmed() -> Self {
        let mut peer = Self::handshaking();
        let connection = &mut peer.connection;
        connection.keys.long = None;
        let keys = OneRttKeys::derive(SUITE, secret(1), secret(2), 0);
        let tickets = tls::Tickets { suite: SUITE, resumption: secret(3) };
        connection.keys.stage = Stage::Complete(keys, tickets);
        connection.phase = Phase::Confirmed;
        connection.recovery.on_handshake_keys(peer.now);
        connection.recovery.on_handshake_confirmed(peer.now);
        peer
    }

    /// A connection with Handshake keys.
    pub(super) fn handshaking() -> Self {
        let mut peer = Self::with(Config { server_streams: 1, keep_alive: Duration::ZERO, ..Config::new() });
        let keys = LevelKeys::derive(SUITE, &secret(3), &secret(4));
        peer.connection.keys.long = Some((Space::Handshake, keys));
        let memory = peer.connection.streams.memory().as_bytes().len();
        peer.connection.crypto_in.advance(Space::Handshake, 0..memory).expect("nothing is buffered");
        peer.connection.phase = Phase::ServerHello;
        peer.connection.ids.server = ConnectionId::new(SERVER);
        peer
    }

    pub(super) fn with(config: Config) -> Self {
        let now = Instant::from_micros(1_000_000);
        let mut connection = std::boxed::Box::new(Connection::new());
        connection.restart(&config, now);
        connection.state = State::Open;
        connection.cids.replace_initial(ConnectionId::new(SERVER).expect("eight bytes"));
        connection.cids.set_initial_token(ResetToken(RESET_TOKEN));
        let limits = Limits {
            max_data: 10_000,
            max_stream_data_bidi_local: 1_000,
            max_stream_data_bidi_remote: 1_000,
            max_streams_bidi: 10,
        };
        connection.streams.set_peer_limits(limits.into());
        Self {
            connection,
            now,
            kept: Kept::default(),
            entropy: Counting(0),
            keys: OneRttKeys::derive(SUITE, secret(2), secret(1), 0),
            handshake: LevelKeys::derive(SUITE, &secret(4), &secret(3)),
            next: [0; 3],
        }
    }

    /// Calls `f` with a context of the present.
    pub(super) fn call<R>(
        &mut self,
        f: impl FnOnce(&mut Connection<Software, 2, 256>, &mut Context<'_>) -> R,
    ) -> R {
        let tls = tls::Config::new(&[], "broker.test", b"mqtt", 0);
        let mut ctx = Context { now: self.now, tls: &tls, entropy: &mut self.entropy, store: &mut self.kept };
        f(&mut self.connection, &mut ctx)
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.call(Connection::handle_timeout);
    }

    /// A 1-RTT packet with what `frames` writes.
    pub(super) fn packet(&mut self, frames: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        self.packet_with(0, frames)
    }

    /// A 1-RTT packet with `bits` set in its first byte.
    pub(super) fn packet_with(&mut self, bits: u8, frames: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut bytes = std::vec![0; 1500];
        let number = self.next[2];
        self.next[2] += 1;
        let mut w = Writer::new(&mut bytes);
        let at =
            encode_short_header(&ConnectionId::EMPTY, self.keys.phase(), number, 4, &mut w).expect("fits");
        w.written_mut()[0] |= bits;
        frames(&mut w);
        let len = w.len() + TAG_LEN;
        bytes.truncate(len);
        let (key, header) = self.keys.local();
        protect(&mut bytes, number, at, key, header);
        bytes
    }

    /// A Handshake packet with what `frames` writes.
    pub(super) fn handshake_packet(&mut self, frames: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut bytes = std::vec![0; 6000];
        let number = self.next[1];
        self.next[1] += 1;
        let mut w = Writer::new(&mut bytes);
        w.put(&[0xe3, 0, 0, 0, 1, 0, SERVER.len() as u8]).expect("fits");
        w.put(SERVER).expect("fits");
        w.u16(0).expect("fits");
        let at = w.len();
        w.u32(number as u32).expect("fits");
        frames(&mut w);
        let len = w.len() + TAG_LEN;
        bytes.truncate(len);
        finish_long_header(&mut bytes, at);
        let local = &self.handshake.local;
        protect(&mut bytes, number, at..at + 4, &local.packet, &local.header);
        bytes
    }

    pub(super) fn deliver(&mut self, mut datagram: Vec<u8>) {
        self.call(|connection, ctx| connection.handle_datagram(ctx, &mut datagram));
    }

    /// Sends `frames` in a 1-RTT packet.
    pub(super) fn send(&mut self, frames: impl FnOnce(&mut Writer<'_>)) {
        let packet = self.packet(frames);
        self.deliver(packet);
    }

    /// Sends `frames` in a Handshake packet.
    pub(super) fn send_handshake(&mut self, frames: impl FnOnce(&mut Writer<'_>)) {
        let packet = self.handshake_packet(frames);
        self.deliver(packet);
    }

    /// The next datagram of the client, taken apart.
    pub(super) fn receive(&mut self) -> Option<Sent> {
        let mut buffer = [0; 1472];
        let len = self.call(|connection, ctx| connection.poll_transmit(ctx, &mut buffer))?;
        let mut sent = Sent { len, destination: Vec::new(), frames: Vec::new(), acked: Vec::new() };
        let mut rest = &mut buffer[..len];
        while !rest.is_empty() && rest[0] != 0 {
            let (packet, tail, number_at, is_short) = self.split(rest);
            rest = tail;
            let payload = if is_short {
                sent.destination = packet[1..number_at].to_vec();
                let header = self.keys.remote_header().remove(packet, number_at, 0).expect("long enough");
                let pto = Duration::from_secs(1);
                let opened = self.keys.open(self.now, pto, self.next[2], header, packet);
                header.header_len..header.header_len + opened.expect("authentic").0
            } else {
                let remote = &self.handshake.remote;
                let header = remote.header.remove(packet, number_at, 0).expect("long enough");
                let len = remote.packet.open(header.number, packet, header.header_len).expect("authentic");
                header.header_len..header.header_len + len
            };
            let mut reader = Reader::new(&packet[payload]);
            while !reader.is_empty() {
                let (_, frame) = Frame::decode(&mut reader).expect("a valid frame");
                sent.frames.push(std::format!("{frame:?}"));
                if let Frame::Ack(ack) = frame {
                    sent.acked.extend(ack.ranges);
                }
            }
        }
        Some(sent)
    }

    /// All datagrams the client sends now.
    pub(super) fn receive_all(&mut self) -> Vec<Sent> {
        core::iter::from_fn(|| self.receive()).collect()
    }

    fn split<'b>(&self, bytes: &'b mut [u8]) -> (&'b mut [u8], &'b mut [u8], usize, bool) {
        if bytes[0] & 0x80 == 0 {
            return (bytes, &mut [], 1 + self.connection.cids.active().len(), true);
        }
        let destination = usize::from(bytes[5]);
        let length_at = 6 + destination + 1;
        let len = usize::from(u16::from_be_bytes([bytes[length_at] & 0x3f, bytes[length_at + 1]]));
        let number_at = length_at + 2;
        let (packet, rest) = bytes.split_at_mut(number_at + len);
        (packet, rest, number_at, false)
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.connection.poll_event()).collect()
    }

    /// How the connection ended.
    pub(super) fn closed(&mut self) -> Option<CloseReason> {
        self.events().into_iter().find_map(|event| match event {
            Event::Closed(reason) => Some(reason),
            _ => None,
        })
    }

    /// Checks that the client has closed the connection with `code`, and says so to its peer.
    pub(super) fn expect_code(&mut self, code: TransportCode) {
        match self.closed() {
            Some(CloseReason::Transport(error)) => assert_eq!(error.code, code, "{error}"),
            other => panic!("expected {code}, not {other:?}"),
        }
        let sent = self.receive().expect("CONNECTION_CLOSE");
        assert!(sent.has("ConnectionClose(Transport"), "{sent:?}");
    }
}

/// A datagram of the client before there are keys: its kind, by the header alone.
pub(super) fn kinds(datagram: &[u8]) -> Vec<LongKind> {
    let mut kinds = Vec::new();
    let mut rest = datagram;
    while rest.first().is_some_and(|first| first & 0x80 != 0) {
        // The server's identifiers are not empty: look at the source only.
        let mut own = rest.to_vec();
        let skip = usize::from(own[5]);
        own.drain(6..6 + skip);
        own[5] = 0;
        let Ok(Packet::Long(long)) = Packet::parse(&own) else { break };
        kinds.push(long.kind);
        rest = &rest[long.end + skip..];
    }
    kinds
}

/// The space a kind of packet belongs to.
pub(super) const fn space(kind: LongKind) -> Space {
    match kind {
        LongKind::Initial => Space::Initial,
        LongKind::Handshake => Space::Handshake,
        LongKind::ZeroRtt => Space::Application,
    }
}
