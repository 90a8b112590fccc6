//! The user-space gateway: the far side of a virtual board's wire.
//!
//! It answers ARP, DHCP and ICMP echo, leads UDP flows to loopback sockets, and ends TCP with a TCP stack of
//! its own (smoltcp) to bridge it to loopback connections. No root, no kernel configuration.
//!
//! It sees IPv4 packets after the link has had its way with them, and what it returns goes through the
//! link as well; so TCP between board and gateway suffers real segment loss. ARP and DHCP bypass the link:
//! they only stand for a network that is set up.

pub(crate) mod lan;
mod local;
mod tcp;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use link::Action;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

use super::event_loop::{Interest, Token};
use super::flows::UdpFlows;
use super::outside::Outside;
use tcp::Tcp;

/// Which transport a service uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// UDP, thus QUIC.
    Udp,
    /// TCP, thus TLS over TCP, too.
    Tcp,
}

/// Something the board can reach through the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its transport.
    pub protocol: Protocol,
    /// Where the board finds it.
    pub guest: SocketAddrV4,
    /// Where it really is.
    pub host: SocketAddr,
}

/// What becomes of a board's TCP segment that belongs to a mapping the NAT has forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcpAfterRebinding {
    /// It is answered with a reset, as when the NAT passes it on and the broker does not know it.
    #[default]
    Reset,
    /// It vanishes, as behind a NAT that lets connections begin only with a SYN. The board has to time out.
    Silence,
}

/// The network the board finds itself in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// The gateway's own address.
    pub address: Ipv4Addr,
    /// The address DHCP gives to the board.
    pub board: Ipv4Addr,
    /// Length of the network prefix.
    pub prefix_len: u8,
    /// What the board can reach.
    pub services: Vec<Service>,
    /// What rebinding does to TCP.
    pub tcp_after_rebinding: TcpAfterRebinding,
    /// Shortest retransmission timeout of the gateway's TCP towards the board, at least 1 ms.
    pub tcp_rto_min: Duration,
}

impl Default for GatewayConfig {
    /// Gateway 10.77.0.1/24, board 10.77.0.2, nothing to reach yet; TCP retransmits as Linux does.
    fn default() -> Self {
        Self {
            address: Ipv4Addr::new(10, 77, 0, 1),
            board: Ipv4Addr::new(10, 77, 0, 2),
            prefix_len: 24,
            services: Vec::new(),
            tcp_after_rebinding: TcpAfterRebinding::default(),
            tcp_rto_min: Duration::from_millis(200),
        }
    }
}

impl GatewayConfig {
    /// What a report has to say about figures of a board's TCP through this gateway.
    pub const TCP_LABEL: &'static str = "TCP is smoltcp's at both ends: Reno with fast retransmit, no selective \
        acknowledgements, retransmission after 1 s or more at the board's end (RFC 6298 2.4) and 200 ms or more at the \
        broker's; a kernel's TCP makes losses good sooner";

    /// Adds a service on `port` of the gateway's address.
    #[must_use]
    pub fn with_service(mut self, protocol: Protocol, port: u16, host: SocketAddr) -> Self {
        let guest = SocketAddrV4::new(self.address, port);
        self.services.push(Service { protocol, guest, host });
        self
    }

    /// Where `guest` leads to.
    fn host(&self, protocol: Protocol, guest: SocketAddrV4) -> Option<SocketAddr> {
        let service = self.services.iter().find(|s| s.protocol == protocol && s.guest == guest)?;
        Some(service.host)
    }

    /// Whether the gateway answers for `address`: its own, and those of services.
    fn answers_for(&self, address: Ipv4Addr) -> bool {
        address == self.address || self.services.iter().any(|service| *service.guest.ip() == address)
    }
}

/// The gateway's hardware address; locally administered.
const MAC: EthernetAddress = EthernetAddress([0x02, 0x00, 0x4d, 0x51, 0x00, 0x01]);

/// A UDP flow as the board sees it: its own address, and the service's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct UdpKey {
    board: SocketAddrV4,
    service: SocketAddrV4,
}

/// What the gateway did with something it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Taken.
    Taken,
    /// Discarded for a wrong checksum or length.
    Damaged,
    /// For nobody here.
    Unmapped,
}

/// The gateway. Sends nothing by itself: packets for the board wait in [`next_packet`](Self::next_packet).
pub(super) struct Gateway {
    config: GatewayConfig,
    board_mac: EthernetAddress,
    outside: Outside,
    udp: UdpFlows<UdpKey>,
    tcp: Tcp,
    outgoing: VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Gateway {
    pub(super) fn new(config: GatewayConfig) -> Self {
        let tcp = Tcp::new(&config);
        Self {
            config,
            board_mac: EthernetAddress::BROADCAST,
            outside: Outside::new(),
            udp: UdpFlows::new(),
            tcp,
            outgoing: VecDeque::new(),
            buffer: vec![0; 65_535],
        }
    }

    /// The IPv4 packet in a frame from the board that has to go through the link, without padding.
    /// `None` for everything that is exempt or malformed, which [`handle_exempt`](Self::handle_exempt) takes.
    pub(super) fn packet_of<'a>(&mut self, frame: &'a [u8]) -> Option<&'a [u8]> {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        if ethernet.src_addr().is_unicast() {
            self.board_mac = ethernet.src_addr();
        }
        if ethernet.ethertype() != EthernetProtocol::Ipv4 {
            return None;
        }
        let packet = &frame[EthernetFrame::<&[u8]>::header_len()..];
        let ip = Ipv4Packet::new_checked(packet).ok()?;
        if local::is_dhcp(&ip) {
            return None;
        }
        Some(&packet[..usize::from(ip.total_len())])
    }

    /// The answer to a frame that bypasses the link, as a frame for the board.
    pub(super) fn handle_exempt(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        match ethernet.ethertype() {
            EthernetProtocol::Arp => local::arp(ethernet.payload(), &self.config),
            EthernetProtocol::Ipv4 => local::dhcp(ethernet.payload(), &self.config),
            _ => None,
        }
    }

    /// The frame that brings `packet` to the board.
    pub(super) fn frame(&self, packet: &[u8]) -> Vec<u8> {
        local::frame(self.board_mac, EthernetProtocol::Ipv4, packet)
    }

    /// Takes an IPv4 packet that came out of the link.
    pub(super) fn handle_packet(&mut self, packet: Vec<u8>, now: Duration) -> Verdict {
        let Ok(ip) = Ipv4Packet::new_checked(&packet[..]) else { return Verdict::Damaged };
        let Ok(repr) = Ipv4Repr::parse(&ip, &smoltcp::phy::ChecksumCapabilities::default()) else {
            return Verdict::Damaged;
        };
        match repr.next_header {
            IpProtocol::Udp => self.handle_udp(&ip, now),
            IpProtocol::Tcp => {
                let (config, outside) = (&self.config, self.outside);
                self.tcp.handle_packet(packet, config, outside)
            }
            IpProtocol::Icmp => match local::echo_reply(&ip, &self.config) {
                Ok(Some(reply)) => {
                    self.outgoing.push_back(reply);
                    Verdict::Taken
                }
                Ok(None) => Verdict::Unmapped,
                Err(smoltcp::wire::Error) => Verdict::Damaged,
            },
            _ => Verdict::Unmapped,
        }
    }

    fn handle_udp(&mut self, ip: &Ipv4Packet<&[u8]>, now: Duration) -> Verdict {
        let Ok(udp) = UdpPacket::new_checked(ip.payload()) else { return Verdict::Damaged };
        if !udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()) {
            return Verdict::Damaged;
        }
        let key = UdpKey {
            board: SocketAddrV4::new(ip.src_addr(), udp.src_port()),
            service: SocketAddrV4::new(ip.dst_addr(), udp.dst_port()),
        };
        let Some(host) = self.config.host(Protocol::Udp, key.service) else { return Verdict::Unmapped };
        // A refused or full socket is a loss like any other on the way; the board finds out by itself.
        let _ = self.udp.send(&key, host, udp.payload(), self.outside, now);
        Verdict::Taken
    }

    /// Moves data between the sockets and the board.
    pub(super) fn pump(&mut self, ready: &[Token], now: Duration) {
        for token in ready {
            let Token::Udp(id) = token else { continue };
            for _ in 0..BATCH {
                let Some((key, len)) = self.udp.receive(*id, &mut self.buffer) else { break };
                if len + UDP_IPV4_HEADERS <= MTU {
                    self.outgoing.push_back(udp_packet(key, &self.buffer[..len]));
                }
            }
        }
        self.tcp.pump(now);
        while let Some(packet) = self.tcp.next_packet() {
            self.outgoing.push_back(packet);
        }
    }

    /// The next packet for the board, to be sent into the link.
    pub(super) fn next_packet(&mut self) -> Option<Vec<u8>> {
        self.outgoing.pop_front()
    }

    /// Forgets all mappings; after an address change new ones have another source address, too.
    pub(super) fn perform(&mut self, action: Action) -> Option<String> {
        let note = self.outside.perform(action, self.udp.targets());
        self.tcp.rebind();
        match self.udp.rebind(self.outside) {
            Ok(()) => note,
            Err(error) => Some(format!("a flow kept its old source: {error}")),
        }
    }

    pub(super) fn interest<'a>(&'a self, interest: &mut Interest<'a>) {
        self.udp.interest(interest);
        self.tcp.interest(interest);
    }

    pub(super) fn next_timeout(&mut self, now: Duration) -> Option<Duration> {
        self.tcp.next_timeout(now)
    }
}

/// Most datagrams read from one socket before packets that are due get their turn.
const BATCH: usize = 64;

/// IP packets of the virtual wire are at most this long. A larger datagram from the broker is dropped, as
/// fragments are by many networks; path MTU discovery finds out.
const MTU: usize = 1500;

const UDP_IPV4_HEADERS: usize = 28;

/// Hop limit of packets the gateway makes.
const HOP_LIMIT: u8 = 64;

/// A datagram from a service to the board.
fn udp_packet(key: UdpKey, payload: &[u8]) -> Vec<u8> {
    let udp = UdpRepr { src_port: key.service.port(), dst_port: key.board.port() };
    let ip = Ipv4Repr {
        src_addr: *key.service.ip(),
        dst_addr: *key.board.ip(),
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + payload.len(),
        hop_limit: HOP_LIMIT,
    };
    local::ipv4(&ip, |bytes| {
        udp.emit(
            &mut UdpPacket::new_unchecked(bytes),
            &ip.src_addr.into(),
            &ip.dst_addr.into(),
            payload.len(),
            |bytes| bytes.copy_from_slice(payload),
            &smoltcp::phy::ChecksumCapabilities::default(),
        );
    })
}
