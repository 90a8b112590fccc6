//! TCP through the gateway: the board's connections end here and are bridged to loopback connections.
//!
//! A connection is answered only after the loopback one stands, so that a refused port is refused to the
//! board, too. Data is moved only as far as the other side has room, FIN and RST are passed on.
//!
//! To the board this is the broker's TCP: Reno with fast retransmit, without selective acknowledgements. Its
//! shortest retransmission timeout is fixed at a second, where the kernels brokers run on wait 200 ms; so
//! its clock runs as many times as fast as makes its second that long, and everything it does keeps its
//! proportions. Reports on TCP say so: [`super::GatewayConfig::TCP_LABEL`].

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::Medium;
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Packet, TcpPacket, TcpSeqNumber};

use super::{GatewayConfig, MTU, Protocol, TcpAfterRebinding, Verdict};
use crate::link::event_loop::{Interest, Token};
use crate::link::outside::Outside;
use crate::link::wire::Wire;

/// Buffer towards the board and from it, per connection: a window no microcontroller fills.
const BUFFER: usize = 64 * 1024;

/// How long an acknowledgement waits for data to ride on.
const ACK_DELAY: Duration = Duration::from_millis(10);

/// Most connections at once; beyond, the oldest is forgotten, as a NAT does whose table is full.
const FLOWS_MAX: usize = 64;

/// Most loopback connections kept after a rebinding. Behind a real NAT the broker is not told, and goes on
/// believing in the connection until it times out.
const RETIRED_MAX: usize = 64;

/// A connection as the board sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    board: SocketAddrV4,
    service: SocketAddrV4,
}

/// A connection whose loopback side does not stand yet.
struct Opening {
    id: u64,
    tuple: Tuple,
    host: TcpStream,
    /// The segment that asked for it.
    syn: Vec<u8>,
}

struct Flow {
    id: u64,
    tuple: Tuple,
    handle: SocketHandle,
    host: TcpStream,
    progress: Progress,
    /// The sequence number after everything that was ever sent to the board.
    sent_up_to: Option<TcpSeqNumber>,
}

/// How far a connection has come on the loopback side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// The board's FIN was passed on.
    board_finished: bool,
    /// The broker's FIN was passed on.
    host_finished: bool,
    /// The broker's side is broken; the board's is being reset.
    broken: bool,
    /// Data for the broker waits for room.
    clogged: bool,
}

/// All connections, and the TCP stack that ends them.
pub(super) struct Tcp {
    interface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
    openings: Vec<Opening>,
    flows: Vec<Flow>,
    retired: VecDeque<TcpStream>,
    next_id: u64,
    /// How many times as fast as real time the stack's clock runs.
    pace: u32,
}

/// The stack's shortest retransmission timeout by its own clock (RFC 6298 2.4).
const STACK_RTO_MIN: Duration = Duration::from_secs(1);

impl Tcp {
    pub(super) fn new(config: &GatewayConfig) -> Self {
        let rto_min = config.tcp_rto_min.max(Duration::from_millis(1));
        let pace = (STACK_RTO_MIN.as_millis() / rto_min.as_millis()).clamp(1, 1000) as u32;
        let mut wire = Wire::new(Medium::Ip, MTU);
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut wire, Instant::ZERO);
        let (address, prefix_len) = (config.address, config.prefix_len);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(address.into(), prefix_len)).expect("an interface has room for one");
        });
        // Services may have addresses of their own; the default route makes the stack answer for them.
        interface.set_any_ip(true);
        interface.routes_mut().add_default_ipv4_route(address).expect("a table has room for one");
        let sockets = SocketSet::new(Vec::new());
        Self {
            interface,
            wire,
            sockets,
            openings: Vec::new(),
            flows: Vec::new(),
            retired: VecDeque::new(),
            next_id: 0,
            pace,
        }
    }

    /// A moment by the stack's clock.
    fn instant(&self, now: Duration) -> Instant {
        Instant::from_micros(
            i64::try_from(now.as_micros()).unwrap_or(i64::MAX).saturating_mul(self.pace.into()),
        )
    }

    /// Takes a segment that came out of the link.
    pub(super) fn handle_packet(
        &mut self,
        packet: Vec<u8>,
        config: &GatewayConfig,
        outside: Outside,
    ) -> Verdict {
        let ip = Ipv4Packet::new_unchecked(&packet[..]);
        let Ok(tcp) = TcpPacket::new_checked(ip.payload()) else { return Verdict::Damaged };
        if !tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()) {
            return Verdict::Damaged;
        }
        let tuple = Tuple {
            board: SocketAddrV4::new(ip.src_addr(), tcp.src_port()),
            service: SocketAddrV4::new(ip.dst_addr(), tcp.dst_port()),
        };
        let opens = tcp.syn() && !tcp.ack();
        if self.openings.iter().any(|opening| opening.tuple == tuple) {
            // A repeated SYN has to wait as the first one does.
            return Verdict::Taken;
        }
        let mut known = self.flows.iter().position(|flow| flow.tuple == tuple);
        if let Some(old) = known
            && opens
            && !self.sockets.get::<Socket<'_>>(self.flows[old].handle).is_open()
        {
            // The board has reused the port of a connection that is over.
            self.forget(old);
            known = None;
        }
        if known.is_none() {
            if opens && let Some(host) = self.open(tuple, config, outside) {
                let id = self.next_id;
                self.next_id += 1;
                self.openings.push(Opening { id, tuple, host, syn: packet });
                return Verdict::Taken;
            }
            if !opens && config.tcp_after_rebinding == TcpAfterRebinding::Silence {
                return Verdict::Unmapped;
            }
        }
        // What belongs to no connection is reset by the stack.
        self.wire.incoming.push_back(packet);
        Verdict::Taken
    }

    /// Begins the loopback side of a connection, if there is such a service.
    fn open(&mut self, tuple: Tuple, config: &GatewayConfig, outside: Outside) -> Option<TcpStream> {
        let target = config.host(Protocol::Tcp, tuple.service)?;
        if self.openings.len() + self.flows.len() >= FLOWS_MAX {
            match (0..self.flows.len()).min_by_key(|index| self.flows[*index].id) {
                Some(oldest) => drop(self.forget(oldest)),
                None => drop(self.openings.remove(0)),
            }
        }
        outside.tcp(target).ok()
    }

    /// Lets the stack see the SYNs whose loopback side is decided: answer it if it stands, reset if not.
    fn settle_openings(&mut self, now: Instant) {
        for index in (0..self.openings.len()).rev() {
            let state = connection(&self.openings[index].host);
            if state == Connection::Pending {
                continue;
            }
            let Opening { id, tuple, host, syn } = self.openings.swap_remove(index);
            self.wire.incoming.push_back(syn);
            if state == Connection::Established {
                let handle = self.sockets.add(self.listener(tuple.service));
                self.flows.push(Flow {
                    id,
                    tuple,
                    handle,
                    host,
                    progress: Progress::default(),
                    sent_up_to: None,
                });
            }
            // At once: of two listeners on one port either might take the other's SYN.
            self.interface.poll(now, &mut self.wire, &mut self.sockets);
        }
    }

    fn listener(&self, service: SocketAddrV4) -> Socket<'static> {
        let buffer = || SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_congestion_control(CongestionControl::Reno);
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(Some((ACK_DELAY * self.pace).into()));
        socket.listen((*service.ip(), service.port())).expect("a fresh socket listens on any port but 0");
        socket
    }

    /// Drops a connection without a word to the board.
    fn forget(&mut self, index: usize) -> TcpStream {
        let flow = self.flows.swap_remove(index);
        self.sockets.remove(flow.handle);
        flow.host
    }

    /// Moves data both ways.
    pub(super) fn pump(&mut self, now: Duration) {
        let now = self.instant(now);
        self.settle_openings(now);
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        for flow in &mut self.flows {
            flow.pump(self.sockets.get_mut(flow.handle));
        }
        // Sends what was just taken from the broker, window updates, and resets.
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        for index in (0..self.flows.len()).rev() {
            if self.flows[index].is_over(self.sockets.get(self.flows[index].handle)) {
                let progress = self.flows[index].progress;
                let host = self.forget(index);
                if !(progress.board_finished && progress.host_finished) {
                    reset(&host);
                }
            }
        }
    }

    /// The next packet for the board.
    pub(super) fn next_packet(&mut self) -> Option<Vec<u8>> {
        let mut packet = self.wire.outgoing.pop_front()?;
        self.mend_sequence_number(&mut packet);
        Some(packet)
    }

    /// After a retransmission timeout the stack's acknowledgements carry the sequence number it retransmits
    /// from instead of SND.NXT (RFC 9293 3.10.7.4). A board that has received more rejects them as old; if
    /// it retransmits, too, neither end ever hears the other again. So such segments are given SND.NXT.
    fn mend_sequence_number(&mut self, packet: &mut [u8]) {
        let mut ip = Ipv4Packet::new_unchecked(packet);
        let (source, destination) = (ip.src_addr(), ip.dst_addr());
        let mut tcp = TcpPacket::new_unchecked(ip.payload_mut());
        let tuple = Tuple {
            board: SocketAddrV4::new(destination, tcp.dst_port()),
            service: SocketAddrV4::new(source, tcp.src_port()),
        };
        let Some(flow) = self.flows.iter_mut().find(|flow| flow.tuple == tuple) else { return };
        let end = tcp.seq_number() + tcp.segment_len();
        match flow.sent_up_to {
            Some(sent) if end < sent => {
                if tcp.segment_len() == 0 {
                    tcp.set_seq_number(sent);
                    tcp.fill_checksum(&source.into(), &destination.into());
                }
            }
            _ => flow.sent_up_to = Some(end),
        }
    }

    /// Forgets all connections as a NAT does: neither end is told.
    pub(super) fn rebind(&mut self) {
        self.openings.clear();
        for index in (0..self.flows.len()).rev() {
            let host = self.forget(index);
            if self.retired.len() == RETIRED_MAX {
                self.retired.pop_front();
            }
            self.retired.push_back(host);
        }
    }

    pub(super) fn interest<'a>(&'a self, interest: &mut Interest<'a>) {
        for opening in &self.openings {
            interest.write(&opening.host, Token::Tcp(opening.id));
        }
        for flow in &self.flows {
            let socket = self.sockets.get::<Socket>(flow.handle);
            if flow.progress.broken {
                continue;
            }
            if flow.progress.clogged {
                interest.write(&flow.host, Token::Tcp(flow.id));
            }
            if !flow.progress.host_finished && socket.can_send() {
                interest.read(&flow.host, Token::Tcp(flow.id));
            }
        }
    }

    pub(super) fn next_timeout(&mut self, now: Duration) -> Option<Duration> {
        let delay: Duration = self.interface.poll_delay(self.instant(now), &self.sockets)?.into();
        Some(delay / self.pace)
    }
}

impl Flow {
    fn pump(&mut self, socket: &mut Socket<'_>) {
        if self.progress.broken {
            return;
        }
        self.board_to_host(socket);
        self.host_to_board(socket);
    }

    fn board_to_host(&mut self, socket: &mut Socket<'_>) {
        self.progress.clogged = false;
        while socket.can_recv() {
            let host = &mut self.host;
            let written = socket.recv(|data| match host.write(data) {
                Ok(written) => (written, Ok(written)),
                Err(error) => (0, Err(error.kind())),
            });
            match written {
                Ok(Ok(1..)) | Ok(Err(ErrorKind::Interrupted)) => {}
                Ok(Err(ErrorKind::WouldBlock)) => {
                    self.progress.clogged = true;
                    return;
                }
                Ok(_) => return self.break_off(socket),
                Err(_) => return,
            }
        }
        let finished =
            matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        if finished && !self.progress.board_finished {
            self.progress.board_finished = true;
            // Fails only if the broker is gone, which reading from it will tell.
            let _ = self.host.shutdown(Shutdown::Write);
        }
    }

    fn host_to_board(&mut self, socket: &mut Socket<'_>) {
        while !self.progress.host_finished && socket.can_send() {
            let host = &mut self.host;
            let read = socket.send(|room| match host.read(room) {
                Ok(read) => (read, Ok(read)),
                Err(error) => (0, Err(error.kind())),
            });
            match read {
                Ok(Ok(0)) => {
                    self.progress.host_finished = true;
                    socket.close();
                }
                Ok(Ok(_)) | Ok(Err(ErrorKind::Interrupted)) => {}
                Ok(Err(ErrorKind::WouldBlock)) | Err(_) => return,
                Ok(Err(_)) => return self.break_off(socket),
            }
        }
    }

    /// Passes a broken loopback connection on to the board.
    fn break_off(&mut self, socket: &mut Socket<'_>) {
        self.progress.broken = true;
        socket.abort();
    }

    /// Whether nothing is left to do on the board's side.
    fn is_over(&self, socket: &Socket<'_>) -> bool {
        match socket.state() {
            // An aborted socket keeps its peer until the reset is sent.
            State::Closed => socket.remote_endpoint().is_none() || !self.progress.broken,
            // The stack did not like the SYN: it would take any other.
            State::Listen => true,
            _ => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Pending,
    Established,
    Failed,
}

fn connection(host: &TcpStream) -> Connection {
    if !matches!(host.take_error(), Ok(None)) {
        return Connection::Failed;
    }
    match host.peer_addr() {
        Ok(_) => Connection::Established,
        Err(error) if error.kind() == ErrorKind::NotConnected => Connection::Pending,
        Err(_) => Connection::Failed,
    }
}

/// Closes with a reset, as the board did.
fn reset(host: &TcpStream) {
    // On failure it closes with a FIN instead: the broker learns of the end either way.
    let _ = socket2::SockRef::from(host).set_linger(Some(Duration::ZERO));
}
