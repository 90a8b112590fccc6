//! What each fuzz target does with its bytes. All must end without a panic, in bounded time and memory.

use core::cell::Cell;
use core::time::Duration;
use std::collections::VecDeque;

use device::client::{Publication, Slot};
use device::codec::Writer;
use device::crypto::{
    AeadKey, BadTag, CipherSuite, Crypto, HeaderKey, NONCE_LEN, Software, TAG_LEN, ZeroizeOnDrop,
};
use device::mqtt::packet::Packet;
use device::mqtt::session::{RX_PACKET_MAX, SLOTS};
use device::mqtt::{Filter, Options, Qos, ReasonCode, Replay, Session, StreamEnd, Streams, Version};
use device::quic::Connection;
use device::time::Instant;
use device::tls;
use simulate::{
    Broker, ClientOptions, ClientSide, Clock, MqttClient, MqttOptions, Pair, PairOptions, Random, Server,
};

thread_local! {
    /// Whether packets are taken as they are: no header protection, and any tag is right.
    static INJECTING: Cell<bool> = const { Cell::new(false) };
}

/// Real protection, except for what the fuzzer injects: so it gets behind the AEAD of a live connection.
struct Bypass;

struct BypassAead(<Software as Crypto>::AeadKey);
struct BypassHeader(<Software as Crypto>::HeaderKey);

impl ZeroizeOnDrop for BypassAead {}
impl ZeroizeOnDrop for BypassHeader {}

impl Crypto for Bypass {
    type AeadKey = BypassAead;
    type HeaderKey = BypassHeader;
    type Sha256 = <Software as Crypto>::Sha256;
    #[cfg(feature = "aes256")]
    type Sha384 = <Software as Crypto>::Sha384;
}

impl AeadKey for BypassAead {
    fn new(suite: CipherSuite, key: &[u8]) -> Self {
        Self(AeadKey::new(suite, key))
    }

    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) {
        self.0.seal(nonce, aad, buffer);
    }

    fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) -> Result<usize, BadTag> {
        if INJECTING.get() {
            return buffer.len().checked_sub(TAG_LEN).ok_or(BadTag);
        }
        self.0.open(nonce, aad, buffer)
    }
}

impl HeaderKey for BypassHeader {
    fn new(suite: CipherSuite, key: &[u8]) -> Self {
        Self(HeaderKey::new(suite, key))
    }

    fn mask(&self, sample: &[u8; 16]) -> [u8; 5] {
        if INJECTING.get() { [0; 5] } else { self.0.mask(sample) }
    }
}

fn injecting<R>(call: impl FnOnce() -> R) -> R {
    INJECTING.set(true);
    let result = call();
    INJECTING.set(false);
    result
}

/// The fuzzer's bytes, read piece by piece.
struct Input<'d>(&'d [u8]);

impl<'d> Input<'d> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// Bytes behind a one-byte length, or what is left of them.
    fn piece(&mut self) -> Option<&'d [u8]> {
        let len = usize::from(self.byte()?).min(self.0.len());
        let (piece, rest) = self.0.split_at(len);
        self.0 = rest;
        Some(piece)
    }

    /// Bytes behind a two-byte length, or what is left of them.
    fn long_piece(&mut self) -> Option<&'d [u8]> {
        self.marked_piece().map(|(_, piece)| piece)
    }

    /// The same with the upper five bits of the length, which are more than it needs.
    fn marked_piece(&mut self) -> Option<(u8, &'d [u8])> {
        let [high, low] = [self.byte()?, self.byte()?];
        let len = usize::from(u16::from_be_bytes([high & 7, low])).min(self.0.len());
        let (piece, rest) = self.0.split_at(len);
        self.0 = rest;
        Some((high >> 3, piece))
    }
}

/// Datagrams to a client that has sent its first Initial; with an odd first byte they count as authentic.
pub fn datagram(data: &[u8]) {
    let mut input = Input(data);
    let Some(mode) = input.byte() else { return };
    let identity = simulate::identity::Identity::fixed();
    let mut connection: Box<Connection<Bypass>> = Box::new(Connection::new());
    let mut entropy = Random::new(1, 1);
    let mut now = Clock::START;
    let config = device::quic::Config::new();
    let tls = tls::Config::new(&identity.anchors, simulate::identity::SERVER_NAME, b"mqtt", now.unix_s());
    let mut buffer = [0; 1472];
    macro_rules! ctx {
        () => {
            &mut device::quic::Context { now: now.device(), tls: &tls, entropy: &mut entropy, store: &mut () }
        };
    }
    if connection.connect(&config, ctx!(), &[]).is_err() {
        return;
    }
    while connection.poll_transmit(ctx!(), &mut buffer).is_some() {}
    while let Some(piece) = input.long_piece() {
        let mut datagram = piece.to_vec();
        if mode & 1 == 1 {
            injecting(|| connection.handle_datagram(ctx!(), &mut datagram));
        } else {
            connection.handle_datagram(ctx!(), &mut datagram);
        }
        while connection.poll_event().is_some() {}
        for _ in 0..1_000 {
            if connection.poll_transmit(ctx!(), &mut buffer).is_none() {
                break;
            }
        }
        now = now + Duration::from_millis(10);
        if connection.poll_timeout().is_some_and(|due| due <= now.device()) {
            connection.handle_timeout(ctx!());
        }
    }
}

type World = Pair<MqttClient<3, Bypass>, Broker>;

/// A world whose client is connected, with its handshake confirmed.
fn connected() -> World {
    let options = PairOptions::seeded(1);
    let client = MqttClient::new(ClientOptions::default(), MqttOptions::default(), 1);
    let server = Server::new(options.server, 1, Broker::default());
    let mut world = Pair::new(client, server, &options.link, 1);
    world.client.connect(Clock::START);
    assert!(world.run_until(Duration::from_secs(5), |world| world.client.connections() == 1));
    world.run_for(Duration::from_millis(100));
    world
}

/// Numbers of injected packets.
struct Numbers(u16);

impl Numbers {
    const START: Self = Self(1_000);

    /// A short header packet with these frames, in the clear. Its number is the next in two bytes or, if `bits` has a 4,
    /// the fuzzer's in one byte to four, as the lower bits say: so numbers jump as far as they can.
    fn packet(&mut self, bits: u8, input: &mut Input<'_>, frames: &[u8]) -> Vec<u8> {
        let number = if bits & 4 == 0 {
            self.0 = self.0.wrapping_add(1);
            self.0.to_be_bytes().to_vec()
        } else {
            (0..=bits & 3).map(|_| input.byte().unwrap_or_default()).collect()
        };
        let mut packet = vec![0x40 | (number.len() - 1) as u8];
        packet.extend(number);
        packet.extend(frames);
        packet.extend([0; TAG_LEN + 4]);
        packet
    }
}

/// Frames of authentic 1-RTT packets to a connected client.
pub fn payload(data: &[u8]) {
    let mut world = connected();
    let mut input = Input(data);
    let mut numbers = Numbers::START;
    while let Some((bits, frames)) = input.marked_piece() {
        let now = world.now();
        let mut datagram = numbers.packet(bits, &mut input, frames);
        injecting(|| world.client.handle_datagram(now, &mut datagram));
        world.run_for(Duration::from_millis(5));
    }
    world.run_for(Duration::from_secs(60));
}

/// Handshake messages from the server, each behind its level and length.
pub fn tls_messages(data: &[u8]) {
    let mut input = Input(data);
    let identity = simulate::identity::Identity::fixed();
    let mut config =
        tls::Config::new(&identity.anchors, simulate::identity::SERVER_NAME, b"mqtt", Clock::START.unix_s());
    config.groups = match input.byte() {
        Some(byte) if byte & 1 == 1 => &[device::crypto::key_exchange::NamedGroup::P256],
        _ => config.groups,
    };
    let mut entropy = Random::new(1, 1);
    let mut out = [0; 2048];
    let mut w = Writer::new(&mut out);
    let started = tls::Handshake::<Software>::start(
        &config,
        &mut entropy,
        Some(&[1, 2, 0x40, 0x10]),
        tls::EarlyData::Omit,
        &mut w,
    );
    let Ok(mut handshake) = started else { return };
    while let Some(level) = input.byte() {
        let level = match level & 3 {
            0 => tls::Level::Initial,
            1 => tls::Level::Handshake,
            _ => tls::Level::Application,
        };
        let Some(message) = input.long_piece() else { return };
        let mut out = [0; 2048];
        let mut w = Writer::new(&mut out);
        if handshake.handle_message(&config, &mut entropy, level, message, &mut w).is_err() {
            return;
        }
    }
}

/// One MQTT packet: what decodes encodes, and decodes to the same.
pub fn mqtt_packet(data: &[u8]) {
    for version in [Version::V3_1_1, Version::V5] {
        let Ok(packet) = Packet::decode(data, version) else { continue };
        let version = match &packet {
            Packet::Connect(connect) => connect.version,
            _ => version,
        };
        // The shortest form is no longer than what came; a packet's own header may be.
        let mut out = vec![0; data.len() + 8];
        let mut w = Writer::new(&mut out);
        packet.encode(version, &mut w).expect("what was decoded fits");
        assert_eq!(Packet::decode(w.written(), version), Ok(packet));
    }
}

/// Byte streams whose other end the fuzzer writes.
#[derive(Default)]
struct Wire {
    incoming: [VecDeque<u8>; SLOTS],
    open: [bool; SLOTS],
    ended: [bool; SLOTS],
    room: [usize; SLOTS],
    whole_packets: bool,
}

impl Streams for Wire {
    fn open_stream(&mut self, slot: Slot) -> bool {
        assert!(!self.open[slot.index()], "{slot:?} is open already");
        self.open[slot.index()] = true;
        true
    }

    fn writable(&mut self, slot: Slot) -> usize {
        self.room[slot.index()]
    }

    fn write(&mut self, slot: Slot, head: &[u8], body: &[u8]) {
        assert!(self.open[slot.index()], "{slot:?} is not open");
        self.room[slot.index()] = self.room[slot.index()]
            .checked_sub(head.len() + body.len())
            .expect("no more than there is room for");
    }

    fn readable(&mut self, slot: Slot) -> usize {
        self.incoming[slot.index()].len()
    }

    fn read(&mut self, slot: Slot, bytes: &mut [u8]) -> usize {
        let len = bytes.len().min(self.readable(slot));
        for (byte, read) in bytes.iter_mut().zip(self.incoming[slot.index()].drain(..len)) {
            *byte = read;
        }
        len
    }

    fn count(&self) -> usize {
        SLOTS
    }

    fn ended(&mut self, slot: Slot) -> Option<StreamEnd> {
        self.ended[slot.index()].then_some(StreamEnd::Finished)
    }

    fn close_stream(&mut self, slot: Slot, _: StreamEnd) {
        let index = slot.index();
        self.open[index] = false;
        self.ended[index] = false;
        self.incoming[index].clear();
    }

    fn buffers_whole_packets(&self) -> bool {
        self.whole_packets
    }
}

/// Calls to a session, and a server's bytes, in any order.
pub fn mqtt_session(data: &[u8]) {
    let mut input = Input(data);
    let Some(mode) = input.byte() else { return };
    let version = if mode & 1 == 0 { Version::V5 } else { Version::V3_1_1 };
    let options = Options { version, keep_alive_s: 5, ..Options::new("fuzz") };
    let mut session = Box::new(Session::new());
    let fresh = || Wire { room: [2_048; SLOTS], whole_packets: mode & 2 == 0, ..Wire::default() };
    let mut wire = fresh();
    let mut rx = [0; RX_PACKET_MAX];
    let mut now = Instant::from_micros(1);
    let replay = if mode & 4 == 0 { Replay::Unsafe } else { Replay::Safe };
    let _ = session.begin(now, &options, replay, &mut wire, &mut rx);
    while let Some(byte) = input.byte() {
        let slot = Slot::new(usize::from(byte >> 4) % SLOTS).expect("below SLOTS");
        let qos = Qos::from_bits(byte >> 6 & 3).unwrap_or_default();
        let piece = input.piece().unwrap_or_default();
        let text = core::str::from_utf8(piece).unwrap_or("a/b");
        match byte & 0x0f {
            0..=3 => wire.incoming[slot.index()].extend(piece),
            4 | 5 => {
                let publication = Publication::new("a/b", piece).qos(qos).on(slot);
                let _ = session.publish(now, &options, &publication, &mut wire);
            }
            6 => {
                let publication = Publication::new(text, b"x").qos(qos).on(slot);
                let _ = session.publish(now, &options, &publication, &mut wire);
            }
            7 => drop(session.subscribe(slot, &[Filter::new(text, qos), Filter::new("b", qos)], &wire)),
            8 => drop(session.unsubscribe(slot, &[text], &wire)),
            9 => now += device::time::Duration::from_millis(u64::from(byte) * 100),
            10 => wire.room[slot.index()] = piece.len() * 16,
            11 => wire.ended[slot.index()] = wire.open[slot.index()],
            12 => session.open_stream(slot),
            13 => {
                session.end();
                wire = fresh();
                let _ = session.begin(now, &options, replay, &mut wire, &mut rx);
            }
            14 => session.disconnect(ReasonCode::SUCCESS, &mut wire),
            _ => wire.room = [2_048; SLOTS],
        }
        // Each packet read makes at most one notice, and nothing is read for ever.
        for round in 0.. {
            let Some(notice) = session.poll(now, &mut wire, &mut rx) else { break };
            let _ = session.event(notice, &rx);
            assert!(round < 10_000, "the session does not come to rest");
        }
    }
}

/// Calls to the client, time, losses and injected packets, in any order.
pub fn operations(data: &[u8]) {
    let mut world = connected();
    let mut input = Input(data);
    let mut numbers = Numbers::START;
    // Bounded: each operation may let a second of virtual time pass.
    for _ in 0..64 {
        let Some(byte) = input.byte() else { break };
        let now = world.now();
        let slot = Slot::new(usize::from(byte >> 4) % SLOTS).expect("below SLOTS");
        let qos = Qos::from_bits(byte >> 6 & 3).unwrap_or_default();
        match byte & 0x0f {
            0 | 1 => {
                let publication =
                    Publication::new("a/b", input.piece().unwrap_or_default()).qos(qos).on(slot);
                let _ = world.client.publish(now, &publication);
            }
            2 => drop(world.client.subscribe(now, slot, &[Filter::new("a/#", qos)])),
            3 => drop(world.client.unsubscribe(now, slot, &["a/#"])),
            4 => world.migrate(),
            5 => world.client.update_keys(now),
            6 => world.rebind_port(),
            7 => world.client.disconnect(now),
            8 => world.client.connect(now),
            9 => {
                world.server.service.publish("a/c", input.piece().unwrap_or_default(), qos);
                world.server.wake(now);
            }
            10 => world.server.restart(now),
            11 => {
                world.server.service.kick(ReasonCode::SERVER_BUSY);
                world.server.wake(now);
            }
            12 => {
                let frames = input.piece().unwrap_or_default();
                let mut datagram = numbers.packet(byte >> 4, &mut input, frames);
                injecting(|| world.client.handle_datagram(now, &mut datagram));
            }
            13 => world.drop_next(link::Direction::Up),
            14 => world.drop_next(link::Direction::Down),
            _ => {}
        }
        world.run_for(Duration::from_millis(u64::from(byte) * 4));
    }
}
