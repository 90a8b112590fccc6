//! The IP stack under the client: smoltcp with one UDP socket, one TCP socket and DHCP.
//!
//! ```text
//! QUIC datagrams        TLS / MQTT bytes
//!    Net::receive/send     Net::tcp
//!         udp                 tcp         dhcp
//!         +-------- smoltcp Interface ------+
//!                  Counted<NIC>
//! ```
//! One frame is taken from the NIC at a time and its datagram consumed before the next, so one
//! datagram's room on either side is enough: queues belong to the NIC. [`Storage`] is the stack's only
//! memory, lent for good by the board.

mod counted;

use core::net::{IpAddr, SocketAddr};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::Device;
use smoltcp::socket::{dhcpv4, tcp, udp};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, IpEndpoint, Ipv4Cidr};

use crate::control::{Addressing, WireStats};
use crate::entropy::Entropy;
use crate::time::Instant;

use counted::Counted;

/// Largest UDP payload sent or received: what an Ethernet frame carries over IPv4.
pub const DATAGRAM_MAX: usize = 1472;
/// Room for received and for unacknowledged TCP bytes, each: two full segments, about what QUIC's
/// stream windows come to.
pub const TCP_BUFFER: usize = 2920;
/// UDP, TCP, DHCP.
const SOCKETS: usize = 3;

/// The memory of the stack.
pub struct Storage<'s> {
    sockets: [SocketStorage<'s>; SOCKETS],
    udp_receive: [u8; DATAGRAM_MAX],
    udp_receive_metadata: [udp::PacketMetadata; 1],
    udp_send: [u8; DATAGRAM_MAX],
    udp_send_metadata: [udp::PacketMetadata; 1],
    tcp_receive: [u8; TCP_BUFFER],
    tcp_send: [u8; TCP_BUFFER],
}

/// What waits in the buffers is nobody's business: without TLS there are passwords in it.
impl core::fmt::Debug for Storage<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Storage").finish_non_exhaustive()
    }
}

impl Storage<'_> {
    /// Empty memory.
    pub const fn new() -> Self {
        Self {
            sockets: [SocketStorage::EMPTY; SOCKETS],
            udp_receive: [0; DATAGRAM_MAX],
            udp_receive_metadata: [udp::PacketMetadata::EMPTY; 1],
            udp_send: [0; DATAGRAM_MAX],
            udp_send_metadata: [udp::PacketMetadata::EMPTY; 1],
            tcp_receive: [0; TCP_BUFFER],
            tcp_send: [0; TCP_BUFFER],
        }
    }
}

impl Default for Storage<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// The stack: interface and sockets.
pub struct Net<'s> {
    /// There once the board told its address; the interface's checksum and MTU settings come from the NIC.
    interface: Option<Interface>,
    sockets: SocketSet<'s>,
    udp: SocketHandle,
    tcp: SocketHandle,
    /// There only while the address is to come from DHCP.
    dhcp: Option<SocketHandle>,
    address: Option<IpCidr>,
    local_port: u16,
    wire: WireStats,
}

/// The interface's address changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressChange {
    /// A new address with its prefix length.
    Acquired(IpAddr, u8),
    /// The DHCP lease is lost.
    Lost,
}

/// The address is none that an interface can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadAddress;

/// What became of a received frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ingress {
    /// There was none.
    Idle,
    /// One was processed.
    Frame,
}

impl<'s> Net<'s> {
    /// A stack without an address.
    pub fn new(storage: &'s mut Storage<'s>) -> Self {
        let Storage {
            sockets,
            udp_receive,
            udp_receive_metadata,
            udp_send,
            udp_send_metadata,
            tcp_receive,
            tcp_send,
        } = storage;
        let mut sockets = SocketSet::new(&mut sockets[..]);
        let udp = sockets.add(udp::Socket::new(
            udp::PacketBuffer::new(&mut udp_receive_metadata[..], &mut udp_receive[..]),
            udp::PacketBuffer::new(&mut udp_send_metadata[..], &mut udp_send[..]),
        ));
        let mut stream = tcp::Socket::new(
            tcp::SocketBuffer::new(&mut tcp_receive[..]),
            tcp::SocketBuffer::new(&mut tcp_send[..]),
        );
        // MQTT writes whole packets and waits for answers: Nagle would only add a round trip.
        stream.set_nagle_enabled(false);
        // As QUIC has it.
        stream.set_congestion_control(tcp::CongestionControl::Reno);
        let tcp = sockets.add(stream);
        Self {
            interface: None,
            sockets,
            udp,
            tcp,
            dhcp: None,
            address: None,
            local_port: 0,
            wire: WireStats::default(),
        }
    }

    /// Brings the interface up with the given kind of address; what was open is closed.
    ///
    /// # Errors
    /// [`BadAddress`] for a static address that is not unicast or has too long a prefix.
    pub fn configure<D: Device>(
        &mut self,
        now: Instant,
        nic: &mut D,
        hardware_address: [u8; 6],
        addressing: &Addressing,
        entropy: &mut dyn Entropy,
    ) -> Result<(), BadAddress> {
        let fixed = match *addressing {
            Addressing::Dhcp => None,
            Addressing::Static { address, prefix, gateway } => Some((cidr(address, prefix)?, gateway)),
        };
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(hardware_address)));
        config.random_seed = u64::from(entropy.next_u32()) << 32 | u64::from(entropy.next_u32());
        let mut interface = Interface::new(config, nic, stack_time(now));
        self.close();
        self.address = None;
        if let Some(dhcp) = self.dhcp.take() {
            self.sockets.remove(dhcp);
        }
        if let Some((address, gateway)) = fixed {
            set_address(&mut interface, Some(address));
            if let Some(gateway) = gateway {
                set_gateway(&mut interface, gateway)?;
            }
            self.address = Some(address);
        } else {
            self.dhcp = Some(self.sockets.add(dhcpv4::Socket::new()));
        }
        self.interface = Some(interface);
        Ok(())
    }

    /// Changes a static address in place, as moving to another network does.
    ///
    /// # Errors
    /// [`BadAddress`] for one that is not unicast, or before [`Net::configure`].
    pub fn change_address(&mut self, address: IpAddr, prefix: u8) -> Result<(), BadAddress> {
        let address = cidr(address, prefix)?;
        set_address(self.interface.as_mut().ok_or(BadAddress)?, Some(address));
        self.address = Some(address);
        Ok(())
    }

    /// Whether the interface has an address.
    pub const fn is_up(&self) -> bool {
        self.address.is_some()
    }

    /// The interface's address and prefix length.
    pub fn address(&self) -> Option<(IpAddr, u8)> {
        self.address.map(|address| (address.address().into(), address.prefix_len()))
    }

    /// Binds the UDP socket to `port`; 0 takes another one than before from the dynamic range.
    pub fn bind(&mut self, port: u16, entropy: &mut dyn Entropy) {
        self.local_port = self.pick_port(port, entropy);
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.udp);
        socket.close();
        socket.bind(self.local_port).expect("a closed socket binds to any port but 0");
    }

    /// Closes both sockets.
    pub fn close(&mut self) {
        self.sockets.get_mut::<udp::Socket<'_>>(self.udp).close();
        self.sockets.get_mut::<tcp::Socket<'_>>(self.tcp).abort();
    }

    /// Takes in at most one frame.
    pub fn ingress<D: Device>(&mut self, now: Instant, nic: &mut D) -> Ingress {
        let Some(interface) = &mut self.interface else { return Ingress::Idle };
        let received = self.wire.frames_received;
        let mut nic = Counted::new(nic, &mut self.wire);
        interface.poll_ingress_single(stack_time(now), &mut nic, &mut self.sockets);
        if self.wire.frames_received == received { Ingress::Idle } else { Ingress::Frame }
    }

    /// Sends what the sockets hold.
    pub fn egress<D: Device>(&mut self, now: Instant, nic: &mut D) {
        let Some(interface) = &mut self.interface else { return };
        let mut nic = Counted::new(nic, &mut self.wire);
        interface.poll_egress(stack_time(now), &mut nic, &mut self.sockets);
    }

    /// The link came up: a DHCP client without a lease asks at once, not when its last question, which nobody heard,
    /// is due again.
    pub fn on_link_up(&mut self) {
        if let (Some(dhcp), None) = (self.dhcp, self.address) {
            self.sockets.get_mut::<dhcpv4::Socket<'_>>(dhcp).reset();
        }
    }

    /// What DHCP changed since the last call.
    pub fn poll_address(&mut self) -> Option<AddressChange> {
        let dhcp = self.dhcp?;
        let interface = self.interface.as_mut()?;
        match self.sockets.get_mut::<dhcpv4::Socket<'_>>(dhcp).poll()? {
            dhcpv4::Event::Configured(lease) => {
                let address = IpCidr::Ipv4(lease.address);
                set_address(interface, Some(address));
                if let Some(router) = lease.router {
                    set_gateway(interface, IpAddr::V4(router)).ok()?;
                }
                let renewed = self.address.replace(address) == Some(address);
                (!renewed).then(|| AddressChange::Acquired(address.address().into(), address.prefix_len()))
            }
            dhcpv4::Event::Deconfigured => {
                set_address(interface, None);
                self.address.take().map(|_| AddressChange::Lost)
            }
        }
    }

    /// Copies the next datagram from `broker` into `datagram` and returns its length. Others are dropped.
    pub fn receive(&mut self, broker: SocketAddr, datagram: &mut [u8]) -> Option<usize> {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.udp);
        while let Ok((payload, from)) = socket.recv() {
            if Some(from.endpoint) != endpoint(broker) {
                self.wire.datagrams_foreign += 1;
            } else if let Some(room) = datagram.get_mut(..payload.len()) {
                room.copy_from_slice(payload);
                return Some(payload.len());
            }
        }
        None
    }

    /// Whether a datagram can be handed over that will reach the wire or is worth dropping: not while
    /// the NIC is busy, when waiting is better.
    pub fn can_send<D: Device>(&mut self, now: Instant, nic: &mut D) -> bool {
        let socket = self.sockets.get::<udp::Socket<'_>>(self.udp);
        if socket.send_queue() > 0 {
            self.egress(now, nic);
        }
        nic.transmit(stack_time(now)).is_some()
    }

    /// Sends one datagram. It is dropped, as any network may, while the neighbour is not known.
    pub fn send<D: Device>(&mut self, now: Instant, nic: &mut D, broker: SocketAddr, datagram: &[u8]) {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.udp);
        let sent = endpoint(broker).is_some_and(|remote| socket.send_slice(datagram, remote).is_ok());
        if !sent {
            self.wire.datagrams_unsent += 1;
        }
        self.egress(now, nic);
    }

    /// Whether there is no TCP connection, nor one coming or going.
    pub fn tcp_is_closed(&self) -> bool {
        self.sockets.get::<tcp::Socket<'_>>(self.tcp).state() == tcp::State::Closed
    }

    /// The TCP socket, once the interface has an address.
    pub fn tcp(&mut self) -> Option<Tcp<'_, 's>> {
        let interface = self.interface.as_mut()?;
        Some(Tcp { interface, socket: self.sockets.get_mut(self.tcp) })
    }

    /// A local port: `port`, or for 0 another one than before from the dynamic range (RFC 6335 6).
    pub fn pick_port(&self, port: u16, entropy: &mut dyn Entropy) -> u16 {
        if port != 0 {
            return port;
        }
        let dynamic = |number: u16| DYNAMIC_PORTS + number % DYNAMIC_COUNT;
        let picked = dynamic(entropy.next_u32() as u16);
        if picked == self.local_port { dynamic(picked + 1) } else { picked }
    }

    /// The local UDP port.
    pub const fn local_port(&self) -> u16 {
        self.local_port
    }

    /// When [`Net::egress`] is due.
    pub fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        let at = self.interface.as_mut()?.poll_at(stack_time(now), &self.sockets)?;
        Some(Instant::from_micros(u64::try_from(at.total_micros()).unwrap_or(0)))
    }

    /// Frames and bytes at the NIC.
    pub const fn wire(&self) -> WireStats {
        self.wire
    }
}

/// The TCP socket with the interface it connects through.
pub struct Tcp<'n, 's> {
    interface: &'n mut Interface,
    /// The socket.
    pub socket: &'n mut tcp::Socket<'s>,
}

impl Tcp<'_, '_> {
    /// Sends a SYN to `remote` from local `port`.
    ///
    /// # Errors
    /// The stack's: the socket is open, or there is no route.
    pub fn connect(&mut self, remote: SocketAddr, port: u16) -> Result<(), tcp::ConnectError> {
        let remote = endpoint(remote).ok_or(tcp::ConnectError::Unaddressable)?;
        self.socket.connect(self.interface.context(), remote, port)
    }
}

/// First port of the dynamic range; its count is the same number of low bits.
const DYNAMIC_PORTS: u16 = 49_152;
const DYNAMIC_COUNT: u16 = 16_384;

fn stack_time(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

/// `address` for the stack; `None` for IPv6 in a build without it.
fn endpoint(address: SocketAddr) -> Option<IpEndpoint> {
    match address {
        SocketAddr::V4(address) => Some(address.into()),
        #[cfg(feature = "ipv6")]
        SocketAddr::V6(address) => Some(address.into()),
        #[cfg(not(feature = "ipv6"))]
        SocketAddr::V6(_) => None,
    }
}

fn cidr(address: IpAddr, prefix: u8) -> Result<IpCidr, BadAddress> {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    if prefix > bits || address.is_unspecified() || address.is_multicast() {
        return Err(BadAddress);
    }
    Ok(match address {
        IpAddr::V4(address) => IpCidr::Ipv4(Ipv4Cidr::new(address, prefix)),
        #[cfg(feature = "ipv6")]
        IpAddr::V6(_) => IpCidr::new(address.into(), prefix),
        #[cfg(not(feature = "ipv6"))]
        IpAddr::V6(_) => return Err(BadAddress),
    })
}

fn set_address(interface: &mut Interface, address: Option<IpCidr>) {
    interface.update_ip_addrs(|addresses| {
        addresses.clear();
        if let Some(address) = address {
            addresses.push(address).expect("an empty list has room");
        }
    });
}

fn set_gateway(interface: &mut Interface, gateway: IpAddr) -> Result<(), BadAddress> {
    let routes = interface.routes_mut();
    let added = match gateway {
        IpAddr::V4(gateway) => routes.add_default_ipv4_route(gateway).is_ok(),
        #[cfg(feature = "ipv6")]
        IpAddr::V6(gateway) => routes.add_default_ipv6_route(gateway).is_ok(),
        #[cfg(not(feature = "ipv6"))]
        IpAddr::V6(_) => false,
    };
    if added { Ok(()) } else { Err(BadAddress) }
}
