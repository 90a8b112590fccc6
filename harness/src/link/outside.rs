//! The outside of the NAT: from which address and port the harness's sockets speak to the broker.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use link::Action;
use socket2::{Domain, Protocol, Socket, Type};

/// The outside address of the moment. On loopback every 127.0.0.x is ours to use (on Linux without setup),
/// which is how an address change is acted out without root.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outside {
    last_octet: u8,
}

impl Outside {
    pub(super) const fn new() -> Self {
        Self { last_octet: 1 }
    }

    /// Takes a new address if `action` is an address change. Returns what cannot be done for `targets`.
    pub(super) fn perform(
        &mut self,
        action: Action,
        targets: impl IntoIterator<Item = SocketAddr>,
    ) -> Option<String> {
        if action != Action::AddressChange {
            return None;
        }
        self.last_octet = if self.last_octet == 254 { 2 } else { self.last_octet + 1 };
        let fixed: Vec<String> =
            targets.into_iter().filter(|to| !is_loopback_v4(to)).map(|to| to.to_string()).collect();
        (!fixed.is_empty()).then(|| {
            format!(
                "flows to {} kept their address and got a new port: only 127.0.0.0/8 has addresses to spare",
                fixed.join(", ")
            )
        })
    }

    /// Where to bind a socket that will speak to `target`; the port is for the system to choose.
    fn bind_address(self, target: &SocketAddr) -> SocketAddr {
        let ip: IpAddr = match target {
            target if is_loopback_v4(target) => Ipv4Addr::new(127, 0, 0, self.last_octet).into(),
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(ip, 0)
    }

    /// A non-blocking UDP socket that speaks to `target` only.
    pub(super) fn udp(self, target: SocketAddr) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(self.bind_address(&target))?;
        socket.connect(target)?;
        socket.set_nonblocking(true)?;
        enlarge_buffers(&socket);
        Ok(socket)
    }

    /// A non-blocking TCP socket that is about to connect to `target`.
    pub(super) fn tcp(self, target: SocketAddr) -> io::Result<std::net::TcpStream> {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.bind(&self.bind_address(&target).into())?;
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        socket.set_tcp_nodelay(true)?;
        Ok(socket.into())
    }
}

fn is_loopback_v4(target: &SocketAddr) -> bool {
    matches!(target.ip(), IpAddr::V4(ip) if ip.is_loopback())
}

/// Room for a burst, as far as the system grants it: what overflows a socket is lost without the link's say.
const SOCKET_BUFFER: usize = 1 << 20;

/// Asks for larger socket buffers.
pub(super) fn enlarge_buffers(socket: &UdpSocket) {
    let socket = socket2::SockRef::from(socket);
    // Best effort: the system caps or refuses what it does not want to give.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
}
