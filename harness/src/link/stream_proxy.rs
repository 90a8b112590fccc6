//! TCP through the link for boards on the LAN: **delay and stall only**.
//!
//! A proxy ends the board's TCP connection, so it cannot lose, duplicate or reorder its segments: delay,
//! jitter, rate and blackouts apply to the bytes between the two connections, everything else of the
//! configuration does not. Nor do handshake and bare acknowledgements of TCP cross the link. A report must say so; for TCP under real loss use a virtual board.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use link::{Action, Direction, LinkConfig, Path, Queue};

use super::event_loop::{Carrier, Interest, Token};
use super::handle::{LinkHandle, Setup, SetupError};
use super::outside::Outside;
use super::shaper::{Due, Shaper};
use super::udp_proxy::Clients;

/// Listens where boards are told to connect, and forwards both ways, delayed and stalled by the link.
#[derive(Clone, Debug)]
pub struct StreamProxy {
    /// The impairments, of which delay, jitter, rate and blackouts apply.
    pub setup: Setup,
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where to forward to.
    pub server: SocketAddr,
}

impl StreamProxy {
    /// What a report has to say about figures taken through this proxy.
    pub const LABEL: &'static str = "delay and stalls, but loses no packets, so the device is not compared with it; TCP's handshake and bare \
        acknowledgements do not cross it, so time, bytes and packets to CONNACK are lower than a real client's, and round \
        trips are not measured";

    /// Starts forwarding; returns the address to be used by boards.
    ///
    /// # Errors
    /// If the configuration is unsound or the socket cannot be bound.
    pub fn start(self) -> Result<(LinkHandle, SocketAddr), SetupError> {
        self.start_observed().map(|(handle, address, _)| (handle, address))
    }

    /// The same, with a look at who connects.
    ///
    /// # Errors
    /// As [`StreamProxy::start`].
    pub fn start_observed(mut self) -> Result<(LinkHandle, SocketAddr, Clients), SetupError> {
        let socket =
            |source| SetupError::Socket { what: format!("the TCP proxy on {}", self.listen), source };
        self.setup.config.validate()?;
        self.setup.config = delays_only(&self.setup.config);
        let listener = TcpListener::bind(self.listen).map_err(socket)?;
        listener.set_nonblocking(true).map_err(socket)?;
        let address = listener.local_addr().map_err(socket)?;
        let clients = Clients::default();
        let proxy = Proxy {
            clients: clients.clone(),
            listener,
            server: self.server,
            outside: Outside::new(),
            pairs: HashMap::new(),
            retired: VecDeque::new(),
            next_id: 1,
            dark_until: [None; 2],
        };
        Ok((LinkHandle::start(&self.setup, proxy)?, address, clients))
    }
}

/// What of `config` can be done to a byte stream.
fn delays_only(config: &LinkConfig) -> LinkConfig {
    let keep = |direction| {
        let path = config.path(direction);
        let limited = path.rate.is_some() || path.rate_trace.is_some();
        let mut jitter = path.jitter;
        if let Some(jitter) = &mut jitter {
            jitter.0.order = link::Order::Keep;
        }
        Path {
            delay: path.delay,
            jitter,
            rate: path.rate,
            background: path.background,
            rate_trace: path.rate_trace,
            // The bytes wait for its end, as through a blackout.
            fade: path.fade,
            delay_trace: path.delay_trace,
            // Nothing may be dropped; the window below bounds what waits.
            queue: limited.then_some(Queue::Packets(u32::MAX)),
            ..Path::default()
        }
    };
    LinkConfig {
        up: keep(Direction::Up),
        down: keep(Direction::Down),
        blackout: config.blackout.clone(),
        rebind: config.rebind.clone(),
        address_change: config.address_change.clone(),
        ..LinkConfig::default()
    }
}

/// Read from a connection while so much of its data is on the way at most.
const WINDOW: usize = 64 * 1024;

/// Data is moved in pieces of one TCP segment, so that a rate spreads it as it would spread segments.
const SEGMENT: usize = 1460;

/// What IPv4 and TCP headers add to a segment, counted against the rate.
const HEADERS: usize = 40;

/// Most connections that are kept half-open after a rebinding.
const RETIRED_MAX: usize = 64;

/// A piece of a byte stream; empty at its end.
#[derive(Clone)]
struct Piece {
    pair: u64,
    bytes: Vec<u8>,
}

/// One connection through the proxy.
struct Pair {
    /// The connection data of each direction comes from: the board's for up.
    sources: [TcpStream; 2],
    lanes: [Lane; 2],
}

/// One direction of a connection.
#[derive(Default)]
struct Lane {
    /// Bytes in the link.
    on_the_way: usize,
    /// Bytes out of the link that the receiver has no room for yet.
    arrived: VecDeque<u8>,
    /// The source has sent its FIN.
    ended: bool,
    /// The FIN came out of the link.
    end_arrived: bool,
    /// The FIN was passed on.
    finished: bool,
}

impl Pair {
    fn may_read(&self, direction: Direction) -> bool {
        let lane = &self.lanes[direction.index()];
        !lane.ended && lane.on_the_way + lane.arrived.len() < WINDOW
    }

    /// Writes what has arrived in `direction`.
    fn flush(&mut self, direction: Direction) -> std::io::Result<()> {
        let lane = &mut self.lanes[direction.index()];
        let sink = &mut self.sources[1 - direction.index()];
        while !lane.arrived.is_empty() {
            match sink.write(lane.arrived.as_slices().0) {
                Ok(written) => drop(lane.arrived.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_pending(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if lane.end_arrived && !lane.finished {
            lane.finished = true;
            sink.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.lanes.iter().all(|lane| lane.finished)
    }

    fn reset(&self) {
        for source in &self.sources {
            // On failure it closes with a FIN instead.
            let _ = socket2::SockRef::from(source).set_linger(Some(Duration::ZERO));
        }
    }
}

/// A connection that is still being made reports "not connected" where others would block.
fn is_pending(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

struct Proxy {
    clients: Clients,
    listener: TcpListener,
    server: SocketAddr,
    outside: Outside,
    pairs: HashMap<u64, Pair>,
    retired: VecDeque<TcpStream>,
    next_id: u64,
    /// Until when nothing passes, per direction.
    dark_until: [Option<Duration>; 2],
}

impl Carrier for Proxy {
    type Packet = Piece;
    const ENDS_TCP: bool = true;

    fn deliver(&mut self, due: Due<Piece>, shaper: &mut Shaper<Piece>) {
        let Due { direction, packet, delivery } = due;
        let Some(pair) = self.pairs.get_mut(&packet.pair) else {
            shaper.undeliverable(direction);
            return;
        };
        let lane = &mut pair.lanes[direction.index()];
        lane.on_the_way -= packet.bytes.len();
        lane.end_arrived |= packet.bytes.is_empty();
        lane.arrived.extend(&packet.bytes);
        shaper.delivered(direction, &delivery, packet.bytes.len() + HEADERS);
        self.settle(packet.pair, direction);
    }

    fn perform(&mut self, action: Action) -> Option<String> {
        let note = self.outside.perform(action, [self.server]);
        for (_, pair) in self.pairs.drain() {
            let [board, server] = pair.sources;
            let _ = socket2::SockRef::from(&board).set_linger(Some(Duration::ZERO));
            if self.retired.len() == RETIRED_MAX {
                self.retired.pop_front();
            }
            self.retired.push_back(server);
        }
        let reset = "the board's TCP connections were reset at once; a NAT would do so at their next segment";
        Some(note.map_or_else(|| reset.to_owned(), |note| format!("{reset}; {note}")))
    }

    fn pump(&mut self, ready: &[Token], shaper: &mut Shaper<Piece>) -> std::io::Result<()> {
        let now = shaper.now();
        self.dark_until = Direction::BOTH.map(|direction| shaper.dark_until(direction, now));
        for token in ready {
            match token {
                Token::Listener => self.accept(),
                Token::Tcp(id) => {
                    for direction in Direction::BOTH {
                        self.settle(*id, direction);
                        self.read(*id, direction, shaper);
                    }
                }
                Token::Wake | Token::Nic | Token::Udp(_) => {}
            }
        }
        Ok(())
    }

    fn interest<'a>(&'a self, interest: &mut Interest<'a>) {
        interest.read(&self.listener, Token::Listener);
        for (id, pair) in &self.pairs {
            for direction in Direction::BOTH {
                let way = direction.index();
                if pair.may_read(direction) && self.dark_until[way].is_none() {
                    interest.read(&pair.sources[way], Token::Tcp(*id));
                }
                if !pair.lanes[way].arrived.is_empty() {
                    interest.write(&pair.sources[1 - way], Token::Tcp(*id));
                }
            }
        }
    }

    fn next_timeout(&mut self, now: Duration) -> Option<Duration> {
        let end = self.dark_until.iter().flatten().min()?;
        Some(end.saturating_sub(now))
    }
}

impl Proxy {
    fn accept(&mut self) {
        // Fails if the board has given up meanwhile; it will try again.
        let Ok((board, address)) = self.listener.accept() else { return };
        self.clients.heard(address);
        let server = board
            .set_nonblocking(true)
            .and_then(|()| board.set_nodelay(true))
            .and_then(|()| self.outside.tcp(self.server));
        match server {
            Ok(server) => {
                let pair = Pair { sources: [board, server], lanes: Default::default() };
                self.pairs.insert(self.next_id, pair);
                self.next_id += 1;
            }
            Err(error) => {
                tracing::warn!("cannot connect to {}: {error}", self.server);
                let _ = socket2::SockRef::from(&board).set_linger(Some(Duration::ZERO));
            }
        }
    }

    /// Writes what can be written, and closes what is over.
    fn settle(&mut self, id: u64, direction: Direction) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        let broken = pair.flush(direction).is_err();
        if broken {
            pair.reset();
        }
        if broken || pair.is_over() {
            self.pairs.remove(&id);
        }
    }

    fn read(&mut self, id: u64, direction: Direction, shaper: &mut Shaper<Piece>) {
        let mut bytes = [0; SEGMENT];
        while let Some(pair) = self.pairs.get_mut(&id)
            && pair.may_read(direction)
        {
            let now = shaper.now();
            let dark_until = &mut self.dark_until[direction.index()];
            *dark_until = shaper.dark_until(direction, now);
            if dark_until.is_some() {
                return;
            }
            match pair.sources[direction.index()].read(&mut bytes) {
                Ok(len) => {
                    let lane = &mut pair.lanes[direction.index()];
                    lane.on_the_way += len;
                    lane.ended = len == 0;
                    let piece = Piece { pair: id, bytes: bytes[..len].to_vec() };
                    shaper.offer_at(now, direction, piece, len + HEADERS, u32::try_from(id).ok());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_pending(&error) => return,
                Err(_) => {
                    pair.reset();
                    self.pairs.remove(&id);
                }
            }
        }
    }
}
