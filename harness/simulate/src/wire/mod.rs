//! What went over the wire, decrypted with the server's secrets. The interop runner's judge sees nothing else.
//!
//! Headers are read here once more, apart from the client's own code, which is what is judged by them.

mod crypto_stream;
mod header;
mod open;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use device::codec::Reader;
use device::crypto::Secret;
use device::quic::frame::Frame;
use link::Direction;

use crate::Clock;
use crypto_stream::Crypto;
use header::Header;
use open::open;

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
