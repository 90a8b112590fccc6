//! What went over the wire, decrypted with the server's secrets. The interop runner's judge sees nothing else.
//!
//! Headers are read here once more, apart from the client's own code, which is what is judged by them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use device::codec::{DecodeError, Reader};
use device::crypto::{CipherSuite, Secret, Software};
use device::quic::cid::ConnectionId;
use device::quic::frame::Frame;
use device::quic::protection::{Direction as Keys, LevelKeys};
use device::tls::{Transport, next_application_secret};
use link::Direction;

use crate::Clock;

/// Bytes of the identifiers that [`crate::Server`] gives itself, as short headers do not tell.
const SERVER_ID_LEN: usize = 8;
/// What the handshakes of a simulation may agree on.
const SUITES: [CipherSuite; 2] = [CipherSuite::ChaCha20Poly1305Sha256, CipherSuite::Aes128GcmSha256];

/// Secrets by the client's random and their label.
type Logged = BTreeMap<(Vec<u8>, String), Vec<u8>>;

/// The secrets of a server's connections, as rustls logs them.
#[derive(Debug, Default)]
pub struct Secrets(Mutex<Logged>);

impl Secrets {
    fn find(&self, random: &[u8], label: &str) -> Option<Secret> {
        let secrets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Secret::from_slice(secrets.get(&(random.to_vec(), label.to_owned()))?)
    }

    /// All of them, each behind its label.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Vec<u8>)> {
        let secrets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.iter().map(|((_, label), secret)| (label.clone(), secret.clone())).collect()
    }
}

impl rustls::KeyLog for Secrets {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut secrets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.insert((client_random.to_vec(), label.to_owned()), secret.to_vec());
    }
}

/// Every datagram, as it was sent.
#[derive(Debug, Default)]
pub struct Capture(Vec<Datagram>);

#[derive(Debug)]
struct Datagram {
    at: Clock,
    direction: Direction,
    client: SocketAddr,
    bytes: Vec<u8>,
    arrived: bool,
}

impl Capture {
    /// Notes what is sent. Returns its number, for [`Self::on_arrived`].
    pub(crate) fn on_sent(
        &mut self,
        at: Clock,
        direction: Direction,
        client: SocketAddr,
        bytes: &[u8],
    ) -> usize {
        self.0.push(Datagram { at, direction, client, bytes: bytes.to_vec(), arrived: false });
        self.0.len() - 1
    }

    /// A copy of it was delivered.
    pub(crate) fn on_arrived(&mut self, number: usize) {
        self.0[number].arrived = true;
    }

    /// Takes everything apart.
    ///
    /// # Panics
    /// If a packet cannot be read: then it was not sent by the rules, or the secrets are not those of its server.
    #[must_use]
    pub fn dissect(&self, secrets: &Secrets) -> Wire {
        let mut connections = Vec::new();
        let mut wire = Wire { packets: Vec::new() };
        for (number, datagram) in self.0.iter().enumerate() {
            let mut rest = &datagram.bytes[..];
            while !rest.is_empty() {
                let header = Header::parse(rest, datagram.direction);
                let header = header.unwrap_or_else(|error| panic!("datagram {number}: {error:?}"));
                let (packet, tail) = rest.split_at(header.end);
                let opened = open(&mut connections, secrets, datagram.direction, &header, packet);
                let may_reset = datagram.direction == Direction::Down && header.kind == Kind::OneRtt;
                let (kind, (connection, opened)) = match opened {
                    Some(opened) => (header.kind, opened),
                    None if may_reset => (Kind::StatelessReset, Default::default()),
                    None => panic!("no key opens {header:?} of datagram {number}, {}", datagram.at),
                };
                wire.packets.push(Packet {
                    at: datagram.at,
                    direction: datagram.direction,
                    client: datagram.client,
                    arrived: datagram.arrived,
                    datagram: number,
                    connection,
                    kind,
                    version: header.version,
                    destination: header.destination,
                    source: header.source,
                    token: header.token,
                    number: opened.number,
                    generation: opened.generation,
                    payload: opened.payload,
                    len: packet.len(),
                });
                rest = tail;
            }
        }
        wire
    }
}

/// The kind of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The server speaks other versions.
    VersionNegotiation,
    /// The first flights.
    Initial,
    /// Data before the handshake.
    ZeroRtt,
    /// The rest of the handshake.
    Handshake,
    /// The server wants proof of the address.
    Retry,
    /// Everything else.
    OneRtt,
    /// Not of any connection: what a server says to a packet whose identifier it does not know.
    StatelessReset,
}

/// A packet, decrypted.
#[derive(Clone, Debug)]
pub struct Packet {
    /// When it was sent.
    pub at: Clock,
    /// By whom.
    pub direction: Direction,
    /// The client's address.
    pub client: SocketAddr,
    /// Whether a copy of its datagram was delivered.
    pub arrived: bool,
    /// The number of its datagram.
    pub datagram: usize,
    /// Of which connection, counted from 0.
    pub connection: usize,
    /// Its kind.
    pub kind: Kind,
    /// Its version; 0 if its header names none.
    pub version: u32,
    /// To whom.
    pub destination: Vec<u8>,
    /// From whom; empty if its header does not say.
    pub source: Vec<u8>,
    /// The token of an Initial or a Retry.
    pub token: Vec<u8>,
    /// Its number.
    pub number: u64,
    /// How many key updates came before it.
    pub generation: u32,
    /// Its frames.
    pub payload: Vec<u8>,
    /// Its bytes.
    pub len: usize,
}

impl Packet {
    /// The frames.
    ///
    /// # Panics
    /// If they cannot be read.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        let mut reader = Reader::new(&self.payload);
        core::iter::from_fn(move || {
            (!reader.is_empty()).then(|| Frame::decode(&mut reader).expect("a frame that can be read").1)
        })
    }

    /// Whether one of the frames is `wanted`.
    pub fn has(&self, wanted: impl Fn(&Frame<'_>) -> bool) -> bool {
        self.frames().any(|frame| wanted(&frame))
    }
}

/// All packets, in the order in which they were sent.
#[derive(Debug)]
pub struct Wire {
    /// The packets.
    pub packets: Vec<Packet>,
}

impl Wire {
    /// Those that the client sent.
    pub fn up(&self) -> impl Iterator<Item = &Packet> {
        self.packets.iter().filter(|packet| packet.direction == Direction::Up)
    }

    /// Those that the server sent.
    pub fn down(&self) -> impl Iterator<Item = &Packet> {
        self.packets.iter().filter(|packet| packet.direction == Direction::Down)
    }

    /// Handshakes as the interop runner counts them: identifiers that the server gave itself in them.
    #[must_use]
    pub fn handshakes(&self) -> usize {
        let of_handshakes = |packet: &&Packet| matches!(packet.kind, Kind::Initial | Kind::Handshake);
        self.down().filter(of_handshakes).map(|packet| &packet.source).collect::<BTreeSet<_>>().len()
    }

    /// Versions in the headers of packets.
    #[must_use]
    pub fn versions(&self) -> BTreeSet<u32> {
        let long = |packet: &&Packet| !matches!(packet.kind, Kind::OneRtt | Kind::StatelessReset);
        self.packets.iter().filter(long).map(|packet| packet.version).collect()
    }

    /// Packets of `kind`, from either end.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.packets.iter().filter(|packet| packet.kind == kind).count()
    }

    /// The handshake messages that one end sent in packets of `kind` on a connection, each once, by type and body.
    #[must_use]
    pub fn messages(&self, connection: usize, direction: Direction, kind: Kind) -> Vec<(u8, Vec<u8>)> {
        let mut stream = Crypto::default();
        let wanted = |packet: &&Packet| {
            (packet.connection, packet.direction, packet.kind) == (connection, direction, kind)
        };
        for packet in self.packets.iter().filter(wanted) {
            stream.take(packet.frames());
        }
        stream.messages()
    }

    /// Time from the server's first 1-RTT packet to its last.
    #[must_use]
    pub fn server_time(&self) -> core::time::Duration {
        let mut times = self.down().filter(|packet| packet.kind == Kind::OneRtt).map(|packet| packet.at);
        let first = times.next().unwrap_or_default();
        times.last().unwrap_or(first).elapsed() - first.elapsed()
    }
}

/// A CRYPTO stream, as far as it came.
#[derive(Debug, Default)]
struct Crypto(BTreeMap<u64, Vec<u8>>);

impl Crypto {
    fn take<'f>(&mut self, frames: impl Iterator<Item = Frame<'f>>) {
        for frame in frames {
            if let Frame::Crypto(crypto) = frame {
                let known = self.0.entry(crypto.offset).or_default();
                if known.len() < crypto.data.len() {
                    *known = crypto.data.to_vec();
                }
            }
        }
    }

    /// The bytes from the start on without a gap.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::new();
        for (&offset, data) in &self.0 {
            let Some(known) = (bytes.len() as u64).checked_sub(offset) else { break };
            bytes.extend(data.iter().skip(known as usize));
        }
        bytes
    }

    fn messages(&self) -> Vec<(u8, Vec<u8>)> {
        let bytes = self.bytes();
        let mut reader = Reader::new(&bytes);
        let next = || {
            let kind = reader.u8("message.type").ok()?;
            Some((kind, reader.vec24("message.body").ok()?.to_vec()))
        };
        core::iter::from_fn(next).collect()
    }
}

/// What a header says without keys.
#[derive(Debug)]
struct Header {
    kind: Kind,
    version: u32,
    destination: Vec<u8>,
    source: Vec<u8>,
    token: Vec<u8>,
    number_at: usize,
    end: usize,
}

impl Header {
    fn parse(bytes: &[u8], direction: Direction) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let first = r.u8("first byte")?;
        if first & 0x80 == 0 {
            // The device's own identifier has no bytes.
            let len = if direction == Direction::Up { SERVER_ID_LEN } else { 0 };
            let destination = r.take(len, "destination")?.to_vec();
            let (kind, source, token) = (Kind::OneRtt, Vec::new(), Vec::new());
            return Ok(Self {
                kind,
                version: 0,
                destination,
                source,
                token,
                number_at: 1 + len,
                end: bytes.len(),
            });
        }
        let version = r.u32("version")?;
        let destination = r.vec8("destination")?.to_vec();
        let source = r.vec8("source")?.to_vec();
        let kind = match (version, first >> 4 & 3) {
            (0, _) => Kind::VersionNegotiation,
            (_, 0) => Kind::Initial,
            (_, 1) => Kind::ZeroRtt,
            (_, 2) => Kind::Handshake,
            _ => Kind::Retry,
        };
        let token = match kind {
            Kind::Initial => r.varint_vec("token")?.to_vec(),
            Kind::Retry => {
                let len = r.remaining().checked_sub(16).ok_or(DecodeError { field: "tag" })?;
                r.take(len, "token")?.to_vec()
            }
            _ => Vec::new(),
        };
        let end = match kind {
            Kind::VersionNegotiation | Kind::Retry => bytes.len(),
            _ => {
                let len = r.varint("length")? as usize;
                r.position() + r.clone().take(len, "length")?.len()
            }
        };
        Ok(Self { kind, version, destination, source, token, number_at: r.position(), end })
    }
}

/// What decryption adds.
#[derive(Default)]
struct Opened {
    number: u64,
    generation: u32,
    payload: Vec<u8>,
}

/// A connection's keys, as far as they are known.
struct Connection {
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
fn open(
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
