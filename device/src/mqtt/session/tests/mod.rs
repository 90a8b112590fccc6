//! The session against a server that says what the test wants.

extern crate std;

mod connect;
mod data_streams;
mod excess;
mod hostile;
mod keep_alive;
mod publish;
mod receive;
mod resume;
mod subscribe;

use std::collections::VecDeque;
use std::vec::Vec;

use super::*;
use crate::codec::Writer;
use crate::mqtt::packet::{Ack, AckKind, Connack, FixedHeader, Packet, Publish, Suback};
use crate::mqtt::{Duplicate, Filter, Properties, Retain};

/// Byte streams in memory, and the server's end of them.
struct Wire {
    to_server: [VecDeque<u8>; SLOTS],
    to_client: [VecDeque<u8>; SLOTS],
    is_open: [bool; SLOTS],
    ended: [Option<StreamEnd>; SLOTS],
    closed: Vec<(Slot, StreamEnd)>,
    /// Data streams that the server permits.
    credit: usize,
    /// Bytes that a stream takes before the server reads.
    room: usize,
    whole_packets: bool,
    packet_max: usize,
    count: usize,
    /// Calls of `write` so far.
    writes: usize,
    /// Bytes handed out by one read.
    read_max: usize,
}

impl Wire {
    fn new() -> Self {
        Self {
            to_server: Default::default(),
            to_client: Default::default(),
            is_open: [false; SLOTS],
            ended: [None; SLOTS],
            closed: Vec::new(),
            credit: SLOTS,
            room: 4096,
            whole_packets: true,
            packet_max: RX_PACKET_MAX,
            count: SLOTS,
            writes: 0,
            read_max: usize::MAX,
        }
    }
}

impl Streams for Wire {
    fn open_stream(&mut self, slot: Slot) -> bool {
        assert!(!self.is_open[slot.index()], "{slot:?} is open already");
        let may_open = self.is_open.iter().filter(|open| **open).count() < self.credit;
        self.is_open[slot.index()] = may_open;
        may_open
    }

    fn writable(&mut self, slot: Slot) -> usize {
        self.room.saturating_sub(self.to_server[slot.index()].len())
    }

    fn write(&mut self, slot: Slot, head: &[u8], body: &[u8]) {
        assert!(self.is_open[slot.index()], "{slot:?} is not open");
        assert!(head.len() + body.len() <= self.writable(slot), "wrote more than there is room for");
        self.to_server[slot.index()].extend(head.iter().chain(body));
        self.writes += 1;
    }

    fn readable(&mut self, slot: Slot) -> usize {
        self.to_client[slot.index()].len()
    }

    fn read(&mut self, slot: Slot, bytes: &mut [u8]) -> usize {
        let len = bytes.len().min(self.readable(slot)).min(self.read_max);
        for (byte, read) in bytes.iter_mut().zip(self.to_client[slot.index()].drain(..len)) {
            *byte = read;
        }
        len
    }

    fn ended(&mut self, slot: Slot) -> Option<StreamEnd> {
        self.ended[slot.index()]
    }

    fn close_stream(&mut self, slot: Slot, end: StreamEnd) {
        self.closed.push((slot, end));
        self.is_open[slot.index()] = false;
        self.ended[slot.index()] = None;
        self.to_client[slot.index()].clear();
        self.to_server[slot.index()].clear();
    }

    fn count(&self) -> usize {
        self.count
    }

    fn packet_max(&self) -> usize {
        self.packet_max
    }

    fn buffers_whole_packets(&self) -> bool {
        self.whole_packets
    }
}

/// A session, its wire and the clock.
struct World<'a> {
    session: Session,
    wire: Wire,
    rx: PacketBuffer,
    options: Options<'a>,
    now: Instant,
}

impl World<'static> {
    fn new() -> Self {
        Self::with(Options::new("client"))
    }

    /// Connected, with the CONNECT read away.
    fn connected() -> Self {
        let mut world = Self::new();
        world.connect(&[]);
        world
    }

    fn connected_v3() -> Self {
        let mut world = Self::with(Options { version: Version::V3_1_1, ..Options::new("client") });
        world.connect(&[]);
        world
    }
}

impl<'a> World<'a> {
    fn with(options: Options<'a>) -> Self {
        Self {
            session: Session::new(),
            wire: Wire::new(),
            rx: [0; RX_PACKET_MAX],
            options,
            now: Instant::from_micros(1_000_000),
        }
    }

    fn begin(&mut self) {
        self.session
            .begin(self.now, &self.options, Replay::Unsafe, &mut self.wire, &mut self.rx)
            .expect("the wire has room for CONNECT");
    }

    /// CONNECT, and CONNACK with these properties.
    fn connect(&mut self, properties: &[Property<'_>]) {
        self.begin();
        self.sent(Slot::CONTROL);
        self.connack(false, properties);
        assert_eq!(self.poll(), Some(Notice::Connected { session_present: false }));
    }

    fn connack(&mut self, session_present: bool, properties: &[Property<'_>]) {
        let connack =
            Connack { session_present, reason: ReasonCode::SUCCESS, properties: Properties::of(properties) };
        self.reply(Packet::Connack(connack));
    }

    /// The connection breaks and a new one is begun.
    fn reconnect(&mut self, session_present: bool) {
        self.reconnect_to(session_present, &[]);
    }

    /// Likewise, to a server whose CONNACK has these properties.
    fn reconnect_to(&mut self, session_present: bool, properties: &[Property<'_>]) {
        self.session.end();
        self.wire = Wire::new();
        self.begin();
        self.sent(Slot::CONTROL);
        self.connack(session_present, properties);
        assert_eq!(self.poll(), Some(Notice::Connected { session_present }));
    }

    fn poll(&mut self) -> Option<Notice> {
        self.session.poll(self.now, &mut self.wire, &mut self.rx)
    }

    /// Polls to the end and returns what was told.
    fn drain(&mut self) -> Vec<Notice> {
        std::iter::from_fn(|| self.poll()).collect()
    }

    /// The server sends a packet.
    fn reply_on(&mut self, slot: Slot, packet: Packet<'_>) {
        let mut bytes = [0; 2048];
        let mut w = Writer::new(&mut bytes);
        packet.encode(self.options.version, &mut w).expect("test packets are small");
        self.wire.to_client[slot.index()].extend(w.written());
    }

    fn reply(&mut self, packet: Packet<'_>) {
        self.reply_on(Slot::CONTROL, packet);
    }

    fn ack(&mut self, kind: AckKind, id: PacketId) {
        self.reply(Packet::Ack(kind, Ack::new(id, ReasonCode::SUCCESS)));
    }

    /// What the client wrote since, packet by packet.
    fn sent(&mut self, slot: Slot) -> Vec<Sent> {
        let bytes: Vec<u8> = self.wire.to_server[slot.index()].drain(..).collect();
        let mut rest = &bytes[..];
        let mut packets = Vec::new();
        while !rest.is_empty() {
            let header = FixedHeader::peek(rest).expect("valid").expect("whole packets only");
            packets.push(Sent { bytes: rest[..header.packet_len()].to_vec(), version: self.options.version });
            rest = &rest[header.packet_len()..];
        }
        packets
    }

    fn publish(&mut self, publication: &Publication<'_>) -> Result<Option<Token>, RequestError> {
        self.session.publish(self.now, &self.options, publication, &mut self.wire)
    }

    /// Publishes and returns the identifier.
    fn publish_id(&mut self, publication: &Publication<'_>) -> PacketId {
        self.publish(publication).expect("taken").expect("QoS 1 and 2 have a token").id
    }
}

/// A packet that the client wrote.
struct Sent {
    bytes: Vec<u8>,
    version: Version,
}

impl Sent {
    #[track_caller]
    fn packet(&self) -> Packet<'_> {
        Packet::decode(&self.bytes, self.version).expect("the client writes valid packets")
    }

    #[track_caller]
    fn publish(&self) -> Publish<'_> {
        match self.packet() {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?} is no PUBLISH"),
        }
    }

    #[track_caller]
    fn is_ack(&self, kind: AckKind, id: PacketId) -> bool {
        self.packet() == Packet::Ack(kind, Ack::new(id, ReasonCode::SUCCESS))
    }
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).expect("not zero")
}

/// A message from the server.
fn message<'a>(topic: &'a str, payload: &'a [u8], delivery: crate::mqtt::packet::Delivery) -> Publish<'a> {
    Publish {
        duplicate: Duplicate::No,
        delivery,
        retain: Retain::No,
        topic,
        properties: Properties::NONE,
        payload,
    }
}

fn data(index: usize) -> Slot {
    Slot::new(index).expect("below SLOTS")
}
