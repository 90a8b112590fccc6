//! UDP through the link, for boards on the LAN and for the reference client.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use link::{Action, Checksum, Direction, LinkConfig, UDP_IPV4_OVERHEAD};

use super::connections::Connections;
use super::event_loop::{Carrier, Interest, Token};
use super::flows::UdpFlows;
use super::handle::{LinkHandle, Setup, SetupError};
use super::outside::{Outside, enlarge_buffers};
use super::shaper::{Due, Shaper};

/// Listens where clients are told to send, and forwards both ways through the link. Each client address is a
/// flow with a source port of its own towards the server.
#[derive(Clone, Debug)]
pub struct UdpProxy {
    /// The impairments. Rate and MTU count IPv4 and UDP headers.
    pub setup: Setup,
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where to forward to.
    pub server: SocketAddr,
}

impl UdpProxy {
    /// Starts forwarding; returns the address to be used by clients.
    ///
    /// # Errors
    /// If the configuration is unsound or the socket cannot be bound.
    pub fn start(self) -> Result<(LinkHandle, SocketAddr), SetupError> {
        self.start_observed().map(|(handle, address, _)| (handle, address))
    }

    /// The same, with a look at who sends.
    ///
    /// # Errors
    /// As [`UdpProxy::start`].
    pub fn start_observed(self) -> Result<(LinkHandle, SocketAddr, Clients), SetupError> {
        let socket =
            |source| SetupError::Socket { what: format!("the UDP proxy on {}", self.listen), source };
        let front = UdpSocket::bind(self.listen).map_err(socket)?;
        front.set_nonblocking(true).map_err(socket)?;
        enlarge_buffers(&front);
        let address = front.local_addr().map_err(socket)?;
        let clients = Clients::default();
        let proxy = Proxy {
            clients: clients.clone(),
            front,
            server: self.server,
            flows: UdpFlows::new(),
            connections: Connections::default(),
            outside: Outside::new(),
            checksums: checksums(&self.setup.config),
            buffer: vec![0; DATAGRAM_MAX],
        };
        Ok((LinkHandle::start(&self.setup, proxy)?, address, clients))
    }
}

/// Who sends to a proxy or connects to it.
#[derive(Clone, Debug, Default)]
pub struct Clients(Arc<Mutex<Option<SocketAddr>>>);

impl Clients {
    /// Whoever sent last.
    #[must_use]
    pub fn last(&self) -> Option<SocketAddr> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn heard(&self, client: SocketAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
    }
}

/// What corruption does to the UDP checksum, per direction.
pub(super) fn checksums(config: &LinkConfig) -> [Checksum; 2] {
    Direction::BOTH
        .map(|way| config.path(way).corrupt.map_or(Checksum::default(), |corrupt| corrupt.0.checksum))
}

/// Largest UDP datagram.
const DATAGRAM_MAX: usize = 65_535;

/// Most datagrams read from one socket before packets that are due get their turn.
const BATCH: usize = 64;

/// A datagram and the client it belongs to.
#[derive(Clone)]
struct Datagram {
    client: SocketAddr,
    payload: Vec<u8>,
}

struct Proxy {
    clients: Clients,
    front: UdpSocket,
    server: SocketAddr,
    flows: UdpFlows<SocketAddr>,
    connections: Connections,
    outside: Outside,
    checksums: [Checksum; 2],
    buffer: Vec<u8>,
}

impl Carrier for Proxy {
    type Packet = Datagram;

    fn deliver(&mut self, due: Due<Datagram>, shaper: &mut Shaper<Datagram>) {
        let Due { direction, mut packet, delivery } = due;
        let damaged = delivery.damage.is_some() || delivery.is_cut();
        if damaged && self.checksums[direction.index()] == Checksum::Stale {
            shaper.checksum_failed(direction);
            return;
        }
        let payload = delivery.apply(&mut packet.payload);
        let sent = match direction {
            Direction::Up => {
                self.flows.send(&packet.client, self.server, payload, self.outside, shaper.now()).is_ok()
            }
            Direction::Down => self.front.send_to(payload, packet.client).is_ok(),
        };
        if sent {
            shaper.delivered(direction, &delivery, payload.len() + UDP_IPV4_OVERHEAD);
        } else {
            shaper.undeliverable(direction);
        }
    }

    fn perform(&mut self, action: Action) -> Option<String> {
        let note = self.outside.perform(action, self.flows.targets());
        match self.flows.rebind(self.outside) {
            Ok(()) => note,
            Err(error) => Some(format!("a flow kept its old source: {error}")),
        }
    }

    fn pump(&mut self, ready: &[Token], shaper: &mut Shaper<Datagram>) -> std::io::Result<()> {
        for token in ready {
            match token {
                Token::Listener => {
                    for _ in 0..BATCH {
                        // Anything but data, such as a port that became unreachable, concerns one client only.
                        let Ok((len, client)) = self.front.recv_from(&mut self.buffer) else { break };
                        self.clients.heard(client);
                        self.offer(Direction::Up, client, len, shaper);
                    }
                }
                Token::Udp(id) => {
                    for _ in 0..BATCH {
                        let Some((client, len)) = self.flows.receive(*id, &mut self.buffer) else { break };
                        self.offer(Direction::Down, client, len, shaper);
                    }
                }
                Token::Wake | Token::Nic | Token::Tcp(_) => {}
            }
        }
        Ok(())
    }

    fn interest<'a>(&'a self, interest: &mut Interest<'a>) {
        interest.read(&self.front, Token::Listener);
        self.flows.interest(interest);
    }

    fn next_timeout(&mut self, _now: Duration) -> Option<Duration> {
        None
    }
}

impl Proxy {
    /// Sends the first `len` bytes of the buffer into the link.
    fn offer(&mut self, way: Direction, client: SocketAddr, len: usize, shaper: &mut Shaper<Datagram>) {
        let payload = self.buffer[..len].to_vec();
        let connection = self.connections.of_datagram(way, client, &payload);
        shaper.offer(way, Datagram { client, payload }, len + UDP_IPV4_OVERHEAD, connection);
    }
}
