//! Decryption: which connection a packet belongs to, and which of its keys opens it.

use std::collections::BTreeSet;

use device::codec::Reader;
use device::crypto::{CipherSuite, Secret, Software};
use device::quic::cid::ConnectionId;
use device::quic::frame::Frame;
use device::quic::protection::{Direction as Keys, LevelKeys};
use device::tls::{Transport, next_application_secret};
use link::Direction;

use super::crypto_stream::Crypto;
use super::header::Header;
use super::{Kind, Secrets};

/// What the handshakes of a simulation may agree on.
const SUITES: [CipherSuite; 2] = [CipherSuite::ChaCha20Poly1305Sha256, CipherSuite::Aes128GcmSha256];

/// What decryption adds.
#[derive(Default)]
pub(super) struct Opened {
    pub(super) number: u64,
    pub(super) generation: u32,
    pub(super) payload: Vec<u8>,
}

/// A connection's keys, as far as they are known.
pub(super) struct Connection {
    /// Identifiers that clients' packets to it may have.
    ids: BTreeSet<Vec<u8>>,
    initial: LevelKeys<Software>,
    hello: Crypto,
    /// The client's random, which names the secrets.
    random: Option<Vec<u8>>,
    /// The suite, once a packet has shown it.
    suite: Option<CipherSuite>,
    /// Packet number expected next, by direction and space.
    expected: [[u64; 3]; 2],
    /// Key updates seen, by direction.
    generations: [u32; 2],
}

/// Finds the connection of a packet, and decrypts it.
pub(super) fn open(
    connections: &mut Vec<Connection>,
    secrets: &Secrets,
    direction: Direction,
    header: &Header,
    packet: &[u8],
) -> Option<(usize, Opened)> {
    if direction == Direction::Up && header.kind == Kind::Initial {
        let id = ConnectionId::new(&header.destination)?;
        if !connections.iter().any(|connection| connection.ids.contains(&header.destination)) {
            connections.push(Connection::new(&id));
        }
    }
    if let Kind::Retry | Kind::VersionNegotiation = header.kind {
        let newest = connections.last_mut()?;
        if header.kind == Kind::Retry {
            newest.ids.insert(header.source.clone());
            newest.initial = LevelKeys::initial(&ConnectionId::new(&header.source)?);
        }
        return Some((connections.len() - 1, Opened::default()));
    }
    (0..connections.len()).rev().find_map(|index| {
        let opened = connections[index].open(secrets, direction, header, packet)?;
        Some((index, opened))
    })
}

impl Connection {
    fn new(original: &ConnectionId) -> Self {
        Self {
            ids: BTreeSet::from([original.as_bytes().to_vec()]),
            initial: LevelKeys::initial(original),
            hello: Crypto::default(),
            random: None,
            suite: None,
            expected: [[0; 3]; 2],
            generations: [0; 2],
        }
    }

    fn open(
        &mut self,
        secrets: &Secrets,
        direction: Direction,
        header: &Header,
        packet: &[u8],
    ) -> Option<Opened> {
        let (space, label) = match (header.kind, direction) {
            (Kind::Initial, _) => {
                let is_up = direction == Direction::Up;
                let keys = if is_up { &self.initial.local } else { &self.initial.remote };
                let opened = decrypt(keys, header, packet, self.expected[direction.index()][0])?;
                self.on_initial(direction, header, &opened);
                return Some(opened);
            }
            (Kind::ZeroRtt, _) => (2, "CLIENT_EARLY_TRAFFIC_SECRET"),
            (Kind::Handshake, Direction::Up) => (1, "CLIENT_HANDSHAKE_TRAFFIC_SECRET"),
            (Kind::Handshake, Direction::Down) => (1, "SERVER_HANDSHAKE_TRAFFIC_SECRET"),
            (_, Direction::Up) => (2, "CLIENT_TRAFFIC_SECRET_0"),
            (_, Direction::Down) => (2, "SERVER_TRAFFIC_SECRET_0"),
        };
        let secret = secrets.find(self.random.as_ref()?, label)?;
        let suites = self.suite.map_or(&SUITES[..], |suite| match suite {
            CipherSuite::ChaCha20Poly1305Sha256 => &SUITES[..1],
            _ => &SUITES[1..],
        });
        let expected = self.expected[direction.index()][space];
        let generation = self.generations[direction.index()];
        // The packets of an update may overtake those from before it.
        let generations = match header.kind {
            Kind::OneRtt => generation.saturating_sub(1)..=generation + 1,
            _ => 0..=0,
        };
        let mut keys = suites.iter().flat_map(|&suite| generations.clone().map(move |at| (suite, at)));
        let (suite, opened) = keys.find_map(|(suite, generation)| {
            let keys = keys_of(suite, &secret, generation);
            let opened = decrypt(&keys, header, packet, expected)?;
            Some((suite, Opened { generation, ..opened }))
        })?;
        // 0-RTT has the suite of the session before.
        if header.kind != Kind::ZeroRtt {
            self.suite = Some(suite);
        }
        self.generations[direction.index()] = generation.max(opened.generation);
        let expected = &mut self.expected[direction.index()][space];
        *expected = (*expected).max(opened.number + 1);
        Some(opened)
    }

    fn on_initial(&mut self, direction: Direction, header: &Header, opened: &Opened) {
        let expected = &mut self.expected[direction.index()][0];
        *expected = (*expected).max(opened.number + 1);
        if direction == Direction::Down {
            self.ids.insert(header.source.clone());
            return;
        }
        let mut reader = Reader::new(&opened.payload);
        self.hello.take(core::iter::from_fn(|| Some(Frame::decode(&mut reader).ok()?.1)));
        if let Some((1, hello)) = self.hello.messages().first() {
            self.random = hello.get(2..34).map(<[u8]>::to_vec);
        }
    }
}

/// Keys after so many updates. Header protection stays what it was (RFC 9001 6).
fn keys_of(suite: CipherSuite, secret: &Secret, generation: u32) -> Keys<Software> {
    let first = Keys::derive(suite, secret);
    let mut secret = secret.clone();
    for _ in 0..generation {
        secret = next_application_secret::<Software>(Transport::Quic, suite, &secret);
    }
    Keys { packet: Keys::derive(suite, &secret).packet, header: first.header }
}

fn decrypt(keys: &Keys<Software>, header: &Header, packet: &[u8], expected: u64) -> Option<Opened> {
    let mut packet = packet.to_vec();
    let uncovered = keys.header.remove(&mut packet, header.number_at, expected)?;
    let len = keys.packet.open(uncovered.number, &mut packet, uncovered.header_len).ok()?;
    let payload = packet[uncovered.header_len..][..len].to_vec();
    Some(Opened { number: uncovered.number, generation: 0, payload })
}
