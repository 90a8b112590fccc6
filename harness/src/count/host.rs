//! The host that the board talks to: smoltcp with one UDP and one TCP port, and the broker behind them.

use std::net::Ipv4Addr;

use device::control::Transport;
use simulate::{Clock, Seeded};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::Medium;
use smoltcp::socket::{tcp, udp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol, IpCidr};

use super::quic::QuicBroker;
use super::stream::StreamBroker;
use crate::link::Wire;

/// The board's address.
pub(super) const BOARD: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The host's address.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Length of their network's prefix in bits.
pub(super) const PREFIX: u8 = 24;
/// The broker's port.
pub(super) const PORT: u16 = 14_567;

const MAC: EthernetAddress = EthernetAddress([0x02, 0x00, 0x4d, 0x51, 0x00, 0x01]);
/// Bytes of each socket buffer.
const BUFFER: usize = 64 * 1024;
/// Datagrams that a UDP buffer holds.
const DATAGRAMS: usize = 64;
/// Longest IP packet.
const MTU: usize = 1_500;
/// Time an acknowledgement may wait for data to ride on, as Linux has it.
const ACK_DELAY: Duration = Duration::from_millis(40);

/// The host.
pub(super) struct Host {
    interface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    broker: Broker,
}

enum Broker {
    Quic(Box<QuicBroker>),
    Stream(Box<StreamBroker>),
}

impl Host {
    pub(super) fn new(transport: Transport, seeded: &Seeded, seed: u64) -> Self {
        let mut wire = Wire::new(Medium::Ethernet, MTU + EthernetFrame::<&[u8]>::header_len());
        let mut config = Config::new(MAC.into());
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(ADDRESS.into(), PREFIX)).expect("there is room for one");
        });
        let mut sockets = SocketSet::new(Vec::new());
        let (socket, broker) = match transport {
            Transport::Quic => {
                let buffer =
                    || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; DATAGRAMS], vec![0; BUFFER]);
                let mut socket = udp::Socket::new(buffer(), buffer());
                socket.bind(PORT).expect("a fresh socket");
                (sockets.add(socket), Broker::Quic(Box::new(QuicBroker::new(seeded, seed))))
            }
            Transport::Tls | Transport::Tcp => {
                let mut socket = tcp::Socket::new(
                    tcp::SocketBuffer::new(vec![0; BUFFER]),
                    tcp::SocketBuffer::new(vec![0; BUFFER]),
                );
                socket.set_ack_delay(Some(ACK_DELAY));
                socket.set_nagle_enabled(false);
                let seeded = (transport == Transport::Tls).then_some(seeded);
                (sockets.add(socket), Broker::Stream(Box::new(StreamBroker::new(seeded))))
            }
        };
        Self { interface, wire, sockets, socket, broker }
    }

    pub(super) fn handle_frame(&mut self, now: Clock, frame: Vec<u8>) {
        self.wire.incoming.push_back(frame);
        self.poll(now);
    }

    /// Does all that can be done now.
    pub(super) fn poll(&mut self, now: Clock) {
        self.interface.poll(instant(now), &mut self.wire, &mut self.sockets);
        match &mut self.broker {
            Broker::Quic(broker) => broker.poll(now, self.sockets.get_mut(self.socket)),
            Broker::Stream(broker) => broker.poll(self.sockets.get_mut(self.socket)),
        }
        self.interface.poll(instant(now), &mut self.wire, &mut self.sockets);
    }

    pub(super) fn publish(&mut self, now: Clock, topic: &str, payload: &[u8]) {
        match &mut self.broker {
            Broker::Quic(broker) => broker.publish(now, topic, payload),
            Broker::Stream(broker) => broker.publish(topic, payload),
        }
        self.poll(now);
    }

    pub(super) fn poll_timeout(&mut self, now: Clock) -> Option<Clock> {
        let stack = self.interface.poll_at(instant(now), &self.sockets);
        let stack = stack.map(|at| Clock::from_micros(at.total_micros().unsigned_abs()).max(now));
        let broker = match &mut self.broker {
            Broker::Quic(broker) => broker.poll_timeout(),
            Broker::Stream(_) => None,
        };
        [stack, broker].into_iter().flatten().min()
    }

    pub(super) fn next_frame(&mut self) -> Option<Vec<u8>> {
        self.wire.outgoing.pop_front()
    }
}

/// Whether a frame only asks or tells where an address is.
pub(super) fn is_arp(frame: &[u8]) -> bool {
    EthernetFrame::new_checked(frame).is_ok_and(|frame| frame.ethertype() == EthernetProtocol::Arp)
}

fn instant(now: Clock) -> Instant {
    Instant::from_micros(now.as_micros() as i64)
}
