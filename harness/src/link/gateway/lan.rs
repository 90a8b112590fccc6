//! A virtual LAN of many boards behind one link: what [`FramePath`](crate::link::FramePath) is for one board.
//!
//! All boards' packets share one link, as those of one access point do: its queue, its rate, its losses. Each
//! thread that drives boards has a [`Lan`] of its own, which keeps the packets on their way; the link itself and
//! its figures are shared. Only UDP leads outside.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use link::{Action, Checksum, ConfigError, Delivery, Direction, InFlight, Link, LinkConfig};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket,
};

use super::{GatewayConfig, UdpKey, local, udp_packet};
use crate::link::damage;
use crate::link::handle::lock;
use crate::link::outside::Outside;
use crate::link::stats::{Collector, Stats};
use crate::link::udp_proxy::checksums;

/// Where the boards find the gateway.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Length of the LAN's prefix in bits.
pub(crate) const PREFIX: u8 = 16;
/// Most boards on one LAN: what the prefix has addresses for, the gateway's and the two that name no host left out.
pub(crate) const BOARDS_MAX: u32 = (1 << 16) - 3;

/// The address of a board.
pub(crate) fn address(board: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(GATEWAY) + 1 + board)
}

/// The hardware address of a board; locally administered.
pub(crate) fn hardware_address(board: u32) -> [u8; 6] {
    let [_, high, middle, low] = board.to_be_bytes();
    [0x02, 0x4d, 0x51, high, middle, low]
}

/// The link that the packets of all boards share.
pub(crate) struct SharedLink {
    started: Instant,
    checksums: [Checksum; 2],
    state: Mutex<State>,
}

struct State {
    link: Link,
    collector: Collector,
    rebindings: u64,
}

impl SharedLink {
    /// A link as `config` states it, whose times count from `started`.
    ///
    /// # Errors
    /// Refuses a configuration that contradicts itself.
    pub(crate) fn new(config: &LinkConfig, seed: u64, started: Instant) -> Result<Arc<Self>, ConfigError> {
        let state = State { link: Link::new(config, seed)?, collector: Collector::new(), rebindings: 0 };
        Ok(Arc::new(Self { started, checksums: checksums(config), state: Mutex::new(state) }))
    }

    /// The moment all of the link's times count from.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Tells the link that something has happened from which schedules may count.
    pub(crate) fn event(&self, name: &str) {
        lock(&self.state).link.on_event(name, self.now());
    }

    /// The traffic so far.
    pub(crate) fn stats(&self) -> Stats {
        let state = lock(&self.state);
        let mut stats = state.collector.snapshot();
        stats.fate_hash = state.link.fate_hash();
        stats
    }

    /// How often the NAT has forgotten its mappings so far.
    pub(crate) fn rebindings(&self) -> u64 {
        let now = self.now();
        let mut state = lock(&self.state);
        while let Some(performed) = state.link.poll_action(now) {
            // The model itself sees to blackouts.
            state.rebindings += u64::from(matches!(performed.action, Action::Rebind | Action::AddressChange));
        }
        state.rebindings
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A packet that left the link.
pub(crate) enum Arrival {
    /// For the broker.
    AtBroker {
        /// Whose.
        board: u32,
        /// The port the board sent it from.
        from: u16,
        /// The datagram's payload.
        payload: Vec<u8>,
    },
    /// For a board.
    AtBoard {
        /// For which.
        board: u32,
        /// The frame that brings it.
        frame: Vec<u8>,
    },
}

/// A packet on its way.
struct Due {
    board: u32,
    direction: Direction,
    packet: Vec<u8>,
    delivery: Delivery,
}

/// One thread's part of the LAN.
pub(crate) struct Lan {
    link: Arc<SharedLink>,
    gateway: GatewayConfig,
    /// Where the boards find the broker.
    service: SocketAddrV4,
    in_flight: InFlight<Due>,
}

impl Lan {
    /// A part of the LAN on which the broker answers at `port` of the gateway.
    pub(crate) fn new(link: Arc<SharedLink>, port: u16) -> Self {
        let gateway = GatewayConfig { address: GATEWAY, prefix_len: PREFIX, ..GatewayConfig::default() };
        Self { link, gateway, service: SocketAddrV4::new(GATEWAY, port), in_flight: InFlight::new() }
    }

    /// Takes a frame from a board's NIC. ARP bypasses the link; its answer is returned, as a frame.
    pub(crate) fn take_frame(&mut self, board: u32, frame: &[u8]) -> Option<Vec<u8>> {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        match ethernet.ethertype() {
            EthernetProtocol::Arp => local::arp(ethernet.payload(), &self.gateway),
            EthernetProtocol::Ipv4 => {
                let packet = &frame[EthernetFrame::<&[u8]>::header_len()..];
                let len = usize::from(Ipv4Packet::new_checked(packet).ok()?.total_len());
                self.offer(board, Direction::Up, packet[..len].to_vec());
                None
            }
            _ => None,
        }
    }

    /// Takes a datagram of the broker for a board that listens at `port`.
    pub(crate) fn take_datagram(&mut self, board: u32, port: u16, payload: &[u8]) {
        let key = UdpKey { board: SocketAddrV4::new(address(board), port), service: self.service };
        self.offer(board, Direction::Down, udp_packet(key, payload));
    }

    fn offer(&mut self, board: u32, direction: Direction, packet: Vec<u8>) {
        let fate = {
            let now = self.link.now();
            let mut state = lock(&self.link.state);
            let fate = state.link.offer(direction, now, packet.len());
            state.collector.on_offer(&fate.record);
            fate
        };
        let mut deliveries = fate.deliveries();
        let Some(first) = deliveries.next() else { return };
        if let Some(copy) = deliveries.next() {
            let due = Due { board, direction, packet: packet.clone(), delivery: copy };
            self.in_flight.push(copy.at, due);
        }
        self.in_flight.push(first.at, Due { board, direction, packet, delivery: first });
    }

    /// When the next packet leaves the link.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.in_flight.next_at().map(|at| self.link.started + at)
    }

    /// The next packet that has left the link by now.
    pub(crate) fn pop_due(&mut self) -> Option<Arrival> {
        loop {
            self.in_flight.next_at()?;
            let now = self.link.now();
            let (at, Due { board, direction, mut packet, delivery }) = self.in_flight.pop_due(now)?;
            damage::apply(&delivery, self.link.checksums[direction.index()], &mut packet);
            let bytes = packet.len();
            let arrival = match direction {
                Direction::Up => self.at_broker(board, &packet),
                Direction::Down => {
                    let mac = EthernetAddress(hardware_address(board));
                    let frame = local::frame(mac, EthernetProtocol::Ipv4, &packet);
                    Some(Arrival::AtBoard { board, frame })
                }
            };
            let mut state = lock(&self.link.state);
            if arrival.is_some() {
                state.collector.on_delivery(direction, bytes, now.saturating_sub(at));
                return arrival;
            }
            state.collector.stats.direction_mut(direction).checksum_failed += 1;
        }
    }

    /// The datagram in a packet, unless it is damaged or for somebody else.
    fn at_broker(&self, board: u32, packet: &[u8]) -> Option<Arrival> {
        let ip = Ipv4Packet::new_checked(packet).ok()?;
        let repr = Ipv4Repr::parse(&ip, &ChecksumCapabilities::default()).ok()?;
        if repr.next_header != IpProtocol::Udp || repr.dst_addr != *self.service.ip() {
            return None;
        }
        let udp = UdpPacket::new_checked(ip.payload()).ok()?;
        let sound = udp.verify_checksum(&repr.src_addr.into(), &repr.dst_addr.into());
        (sound && udp.dst_port() == self.service.port()).then(|| Arrival::AtBroker {
            board,
            from: udp.src_port(),
            payload: udp.payload().to_vec(),
        })
    }
}

/// A non-blocking socket that speaks to the broker only: one board's flow through the NAT.
///
/// # Errors
/// What the system says, such as that the process has too many files open.
pub(crate) fn flow(broker: SocketAddr) -> std::io::Result<UdpSocket> {
    Outside::new().udp(broker)
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr};

    use super::*;

    fn lan() -> Lan {
        let link =
            SharedLink::new(&LinkConfig::default(), 1, Instant::now()).expect("an empty configuration");
        Lan::new(link, 14_567)
    }

    fn next(lan: &mut Lan) -> Arrival {
        loop {
            if let Some(arrival) = lan.pop_due() {
                return arrival;
            }
            assert!(lan.next_at().is_some(), "nothing is on its way");
        }
    }

    #[test]
    fn boards_have_addresses_of_their_own_up_to_the_last() {
        assert_eq!(address(0), Ipv4Addr::new(10, 77, 0, 2));
        assert_eq!(address(BOARDS_MAX - 1), Ipv4Addr::new(10, 77, 255, 254));
        assert_ne!(hardware_address(1), hardware_address(1 << 16));
        assert_eq!(hardware_address(BOARDS_MAX)[0] & 3, 2, "unicast, locally administered");
    }

    #[test]
    fn datagrams_of_two_boards_cross_the_link_both_ways_and_keep_apart() {
        let mut lan = lan();
        for board in [0, 700] {
            lan.take_datagram(board, 50_000, b"to the board");
            let Arrival::AtBoard { board: to, frame } = next(&mut lan) else { panic!("the wrong way") };
            assert_eq!(to, board);
            assert_eq!(frame[..6], hardware_address(board));
            // What the board answers is the same packet with its ends exchanged.
            let service = SocketAddrV4::new(address(board), 50_000);
            let key = UdpKey { board: SocketAddrV4::new(GATEWAY, 14_567), service };
            let packet = udp_packet(key, b"from the board");
            let answer = local::frame(EthernetAddress([2, 0, 0, 0, 0, 1]), EthernetProtocol::Ipv4, &packet);
            assert!(lan.take_frame(board, &answer).is_none());
            let Arrival::AtBroker { board: of, from, payload } = next(&mut lan) else {
                panic!("the wrong way")
            };
            assert_eq!((of, from, &payload[..]), (board, 50_000, &b"from the board"[..]));
        }
        let stats = lan.link.stats();
        assert_eq!((stats.up.delivered.packets, stats.down.delivered.packets), (2, 2));
    }

    #[test]
    fn the_gateway_answers_arp_without_the_link() {
        let mut lan = lan();
        let request = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: EthernetAddress(hardware_address(3)),
            source_protocol_addr: address(3),
            target_hardware_addr: EthernetAddress::BROADCAST,
            target_protocol_addr: GATEWAY,
        };
        let mut bytes = vec![0; request.buffer_len()];
        request.emit(&mut ArpPacket::new_unchecked(&mut bytes));
        let frame = local::frame(EthernetAddress::BROADCAST, EthernetProtocol::Arp, &bytes);
        let answer = lan.take_frame(3, &frame).expect("an answer");
        assert_eq!(answer[..6], hardware_address(3));
        assert!(lan.next_at().is_none());
    }

    #[test]
    fn a_damaged_packet_and_one_for_somebody_else_do_not_reach_the_broker() {
        let mut lan = lan();
        let key = UdpKey {
            board: SocketAddrV4::new(GATEWAY, 14_567),
            service: SocketAddrV4::new(address(0), 50_000),
        };
        let mut packet = udp_packet(key, b"payload");
        packet[25] ^= 1;
        lan.offer(0, Direction::Up, packet);
        let elsewhere = UdpKey { board: SocketAddrV4::new(GATEWAY, 53), ..key };
        lan.offer(0, Direction::Up, udp_packet(elsewhere, b"payload"));
        while lan.next_at().is_some() {
            assert!(lan.pop_due().is_none());
        }
        assert_eq!(lan.link.stats().up.checksum_failed, 2);
    }
}
