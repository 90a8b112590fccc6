//! Which transport connection a packet belongs to. Told by TCP's ports and SYN, and by QUIC's connection identifiers
//! (RFC 9000 5.2), so that what an old connection still sends is not taken for the new one's.

use std::collections::VecDeque;
use std::net::SocketAddr;

use link::Direction;
use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpPacket, UdpPacket};

/// Numbers the connections that pass, in the order they are opened. Has to see every packet in the order they are sent.
#[derive(Default)]
pub(super) struct Connections {
    opened: u32,
    tcp: VecDeque<TcpConnection>,
    quic: VecDeque<QuicConnection>,
}

/// Connections remembered of each kind. A board has one at a time; the rest is for the late packets of those before.
const REMEMBERED_MAX: usize = 64;

struct TcpConnection {
    number: u32,
    board: SocketAddr,
    /// Sequence number of the SYN: a SYN sent again opens nothing.
    first: u32,
}

struct QuicConnection {
    number: u32,
    board: SocketAddr,
    /// Identifiers by which the board is addressed.
    boards: Vec<Vec<u8>>,
    /// Identifiers by which the server is addressed, the one that the client made up included.
    servers: Vec<Vec<u8>>,
}

impl Connections {
    /// The number of the connection an IPv4 packet belongs to; `None` for what belongs to none.
    pub(super) fn of_packet(&mut self, direction: Direction, packet: &[u8]) -> Option<u32> {
        let ip = Ipv4Packet::new_checked(packet).ok()?;
        let board = |source: u16, destination: u16| match direction {
            Direction::Up => SocketAddr::from((ip.src_addr(), source)),
            Direction::Down => SocketAddr::from((ip.dst_addr(), destination)),
        };
        match ip.next_header() {
            IpProtocol::Tcp => {
                let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
                self.of_segment(direction, board(tcp.src_port(), tcp.dst_port()), &tcp)
            }
            IpProtocol::Udp => {
                let udp = UdpPacket::new_checked(ip.payload()).ok()?;
                self.of_datagram(direction, board(udp.src_port(), udp.dst_port()), udp.payload())
            }
            _ => None,
        }
    }

    fn of_segment(&mut self, way: Direction, board: SocketAddr, tcp: &TcpPacket<&[u8]>) -> Option<u32> {
        let known = self.tcp.iter().rev().find(|known| known.board == board);
        let first = tcp.seq_number().0.cast_unsigned();
        let opens = way == Direction::Up && tcp.syn() && !tcp.ack();
        if !opens || known.is_some_and(|known| known.first == first) {
            return known.map(|known| known.number);
        }
        let number = self.open();
        remember(&mut self.tcp, TcpConnection { number, board, first });
        Some(number)
    }

    /// The same for a UDP datagram to or from `board`.
    pub(super) fn of_datagram(&mut self, way: Direction, board: SocketAddr, datagram: &[u8]) -> Option<u32> {
        let header = Header::of(datagram)?;
        let addressed = |known: &&mut QuicConnection| {
            let ids = if way == Direction::Up { &known.servers } else { &known.boards };
            ids.iter().any(|id| !id.is_empty() && header.is_addressed_to(id))
        };
        let found = self.quic.iter_mut().rev().find(addressed);
        match (way, header) {
            // An identifier that nobody has heard of yet.
            (Direction::Up, Header::Long { destination, source }) if found.is_none() => {
                let number = self.open();
                let (boards, servers) = (vec![source.to_vec()], vec![destination.to_vec()]);
                remember(&mut self.quic, QuicConnection { number, board, boards, servers });
                Some(number)
            }
            (Direction::Down, Header::Long { source, .. }) => {
                let known = match found {
                    Some(known) => known,
                    None => self.latest(board)?,
                };
                if known.servers.iter().all(|id| id != source) {
                    known.servers.push(source.to_vec());
                }
                Some(known.number)
            }
            // Identifiers that were given out in secret, or none at all.
            _ => match found {
                Some(known) => Some(known.number),
                None => self.latest(board).map(|known| known.number),
            },
        }
    }

    fn latest(&mut self, board: SocketAddr) -> Option<&mut QuicConnection> {
        self.quic.iter_mut().rev().find(|known| known.board == board)
    }

    fn open(&mut self) -> u32 {
        self.opened += 1;
        self.opened
    }
}

fn remember<T>(connections: &mut VecDeque<T>, connection: T) {
    if connections.len() == REMEMBERED_MAX {
        connections.pop_front();
    }
    connections.push_back(connection);
}

/// What a QUIC packet shows of its connection (RFC 8999 5).
#[derive(Clone, Copy)]
enum Header<'a> {
    Long {
        destination: &'a [u8],
        source: &'a [u8],
    },
    /// The destination's identifier, of a length only its owner knows, and all that follows.
    Short {
        rest: &'a [u8],
    },
}

impl<'a> Header<'a> {
    /// Of the first packet in `datagram`; those coalesced with it belong to the same connection (RFC 9000 12.2).
    fn of(datagram: &'a [u8]) -> Option<Self> {
        let (&first, rest) = datagram.split_first()?;
        // The "fixed" bit below it tells nothing: peers may agree to set it at random (RFC 9287).
        if first & FORM_LONG == 0 {
            return Some(Self::Short { rest });
        }
        let (version, rest) = rest.split_first_chunk()?;
        if !VERSIONS.contains(&u32::from_be_bytes(*version)) {
            return None;
        }
        let (destination, rest) = identifier(rest)?;
        let (source, _) = identifier(rest)?;
        Some(Self::Long { destination, source })
    }

    fn is_addressed_to(&self, id: &[u8]) -> bool {
        match self {
            Self::Long { destination, .. } => *destination == id,
            Self::Short { rest } => rest.starts_with(id),
        }
    }
}

fn identifier(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(len))
}

/// The bit of the long header form.
const FORM_LONG: u8 = 0x80;

/// QUIC versions 1 and 2 (RFC 9369). No other protocol has them at this place by chance.
const VERSIONS: [u32; 2] = [1, 0x6b33_43cf];

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Direction = Direction::Up;
    const DOWN: Direction = Direction::Down;

    fn board(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 77, 0, 2], port))
    }

    fn long(destination: &[u8], source: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0xc0, 0, 0, 0, 1];
        for id in [destination, source] {
            datagram.push(id.len() as u8);
            datagram.extend_from_slice(id);
        }
        datagram
    }

    fn short(destination: &[u8]) -> Vec<u8> {
        [&[0x40], destination, &[9; 20]].concat()
    }

    #[test]
    fn quic_connections_on_one_port_are_told_apart_by_their_identifiers() {
        let mut seen = Connections::default();
        let mut on = |way, datagram: &[u8]| seen.of_datagram(way, board(5000), datagram);
        assert_eq!(on(UP, &long(b"made up", b"client 1")), Some(1));
        assert_eq!(on(DOWN, &long(b"client 1", b"server 1")), Some(1));
        let mut greased = long(b"client 1", b"server's second");
        greased[0] &= !0x40;
        assert_eq!(on(DOWN, &greased), Some(1));
        assert_eq!(on(UP, &long(b"server's second", b"client 1")), Some(1), "its Initial with the ACK");
        assert_eq!(on(UP, &short(b"server 1")), Some(1));
        assert_eq!(on(UP, &long(b"another", b"client 2")), Some(2));
        assert_eq!(on(DOWN, &short(b"client 1")), Some(1), "the old connection's last words");
        assert_eq!(on(DOWN, &long(b"client 2", b"server 2")), Some(2));
        assert_eq!(on(DOWN, &short(b"client 2")), Some(2));
        assert_eq!(on(UP, &short(b"server 1")), Some(1));
        assert_eq!(on(DOWN, &short(b"given later")), Some(2), "the latest of this port");
    }

    #[test]
    fn a_client_without_an_identifier_is_known_by_its_port_and_a_retry_by_the_servers() {
        let mut seen = Connections::default();
        assert_eq!(seen.of_datagram(UP, board(5000), &long(b"made up", b"")), Some(1));
        assert_eq!(seen.of_datagram(DOWN, board(5000), &long(b"", b"retry it")), Some(1));
        assert_eq!(seen.of_datagram(UP, board(5000), &long(b"retry it", b"")), Some(1));
        assert_eq!(seen.of_datagram(UP, board(5001), &long(b"the next", b"")), Some(2));
        assert_eq!(seen.of_datagram(DOWN, board(5000), &short(b"")), Some(1));
        assert_eq!(seen.of_datagram(DOWN, board(5001), &short(b"")), Some(2));
    }

    #[test]
    fn what_is_no_quic_belongs_to_no_connection() {
        let mut seen = Connections::default();
        let dns = [0xc3, 0x17, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, b'w', b'w', b'w'];
        assert_eq!(seen.of_datagram(UP, board(5000), &dns), None);
        assert_eq!(seen.of_datagram(UP, board(5000), b""), None);
        assert_eq!(seen.of_datagram(UP, board(5000), &[0xc0, 0, 0, 0, 1, 20, 1]), None, "cut short");
        assert_eq!(seen.of_datagram(UP, board(5000), &short(b"nobody's")), None);
    }

    #[test]
    fn a_tcp_connection_begins_with_a_new_syn_and_keeps_its_late_segments() {
        use smoltcp::wire::TcpSeqNumber;
        let segment = |port: u16, seq: i32, set: fn(&mut TcpPacket<&mut [u8]>)| {
            let mut bytes = vec![0; 20];
            let mut tcp = TcpPacket::new_unchecked(&mut bytes[..]);
            tcp.set_src_port(port);
            tcp.set_dst_port(8883);
            tcp.set_seq_number(TcpSeqNumber(seq));
            tcp.set_header_len(20);
            set(&mut tcp);
            bytes
        };
        let mut seen = Connections::default();
        let mut on = |port, bytes: Vec<u8>| {
            let tcp = TcpPacket::new_checked(&bytes[..]).expect("a segment");
            seen.of_segment(UP, board(port), &tcp)
        };
        let syn: fn(&mut TcpPacket<&mut [u8]>) = |tcp| tcp.set_syn(true);
        let rst: fn(&mut TcpPacket<&mut [u8]>) = |tcp| tcp.set_rst(true);
        assert_eq!(on(5000, segment(5000, 7, rst)), None, "of a connection nobody saw begin");
        assert_eq!(on(5000, segment(5000, 7, syn)), Some(1));
        assert_eq!(on(5000, segment(5000, 7, syn)), Some(1), "sent again");
        assert_eq!(on(5001, segment(5001, 7, syn)), Some(2));
        assert_eq!(on(5000, segment(5000, 90, rst)), Some(1));
        assert_eq!(on(5000, segment(5000, 8, syn)), Some(3), "the same port used again");
    }
}
