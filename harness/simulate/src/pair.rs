//! A client, a link and a server on one clock.

use core::time::Duration;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use device::quic::PathChange;
use link::{Action, Direction, InFlight, Link, LinkConfig, Path, UDP_IPV4_OVERHEAD};

use crate::server::{Server, ServerOptions};
use crate::service::{Echo, Service};
use crate::wire::{Capture, Secrets, Wire};
use crate::{ClientOptions, Clock, QuicClient, Trace};

/// Largest datagram the simulation carries.
const DATAGRAM_MAX: usize = 1500;

/// Datagrams one side may send at one moment before the simulation calls it a loop.
const BURST_MAX: usize = 1_000;

/// Steps without progress of the clock before the simulation calls it a loop.
const STANDSTILL_MAX: usize = 10_000;

/// The client's side of a simulation.
pub trait ClientSide {
    /// Takes in a datagram.
    fn handle_datagram(&mut self, now: Clock, datagram: &mut [u8]);
    /// Does what is due.
    fn handle_timeout(&mut self, now: Clock);
    /// Puts the next datagram to send into `buffer`.
    fn poll_transmit(&mut self, now: Clock, buffer: &mut [u8]) -> Option<usize>;
    /// When [`ClientSide::handle_timeout`] wants to be called.
    fn poll_timeout(&mut self) -> Option<Clock>;
    /// The client's own address has changed.
    fn on_local_address_changed(&mut self, now: Clock, change: PathChange);
}

/// What a simulation is made of.
#[derive(Clone, Debug)]
pub struct PairOptions {
    /// From which all randomness follows.
    pub seed: u64,
    /// The network.
    pub link: LinkConfig,
    /// The server.
    pub server: ServerOptions,
    /// The client.
    pub client: ClientOptions,
}

impl PairOptions {
    /// The interop runner's default network: 15 ms each way, 10 Mbit/s, a queue of 25 packets.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let path = Path {
            delay: Some(link::units::Time::from_millis(15)),
            rate: Some(link::units::Rate::from_bits_per_second(10_000_000)),
            queue: Some(link::Queue::Packets(25)),
            ..Path::default()
        };
        Self {
            seed,
            link: LinkConfig::symmetric(path),
            server: ServerOptions::default(),
            client: ClientOptions::default(),
        }
    }

    /// Puts the simulation together, with a QUIC client and an echo server.
    #[must_use]
    pub fn build(self) -> Pair<QuicClient, Echo> {
        self.serving(Echo::default())
    }

    /// Puts the simulation together, with a QUIC client and a server with this service.
    #[must_use]
    pub fn serving<S: Service>(self, service: S) -> Pair<QuicClient, S> {
        let client = QuicClient::new(self.client, self.seed);
        Pair::new(client, Server::new(self.server, self.seed, service), &self.link, self.seed)
    }
}

/// A client and a server, joined by a link.
pub struct Pair<C = QuicClient, S = Echo> {
    /// The client.
    pub client: C,
    /// The server.
    pub server: Server<S>,
    /// What happened.
    pub trace: Trace,
    link: Link,
    now: Clock,
    up: InFlight<Datagram>,
    down: InFlight<Datagram>,
    client_address: SocketAddr,
    addresses: u32,
    dropped: [BTreeSet<u64>; 2],
    offered: [u64; 2],
    bytes: [u64; 2],
    /// Steps since the clock last moved.
    standstill: usize,
    capture: Option<Capture>,
}

/// A datagram under way: the client's address, its bytes, and its number in the capture.
type Datagram = (SocketAddr, Vec<u8>, Option<usize>);

impl Pair<QuicClient, Echo> {
    /// A QUIC client and an echo server on the interop runner's default network.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        PairOptions::seeded(seed).build()
    }
}

impl<C: ClientSide, S: Service> Pair<C, S> {
    /// Joins `client` and `server`.
    ///
    /// # Panics
    /// If `link` contradicts itself; it is part of a test's text.
    #[must_use]
    pub fn new(client: C, server: Server<S>, link: &LinkConfig, seed: u64) -> Self {
        Self {
            client,
            server,
            trace: Trace::default(),
            link: Link::new(link, seed).expect("a valid link"),
            now: Clock::START,
            up: InFlight::new(),
            down: InFlight::new(),
            client_address: SocketAddr::from((Ipv4Addr::new(10, 77, 0, 2), 40_000)),
            addresses: 0,
            dropped: [BTreeSet::new(), BTreeSet::new()],
            offered: [0; 2],
            bytes: [0; 2],
            standstill: 0,
            capture: None,
        }
    }

    /// Keeps every datagram from now on, and the secrets of the connections that follow.
    #[must_use]
    pub fn captured(mut self) -> Self {
        self.capture = Some(Capture::default());
        self.server.reconfigure(|options| options.secrets = Some(Arc::new(Secrets::default())));
        self
    }

    /// What went over the wire.
    ///
    /// # Panics
    /// If nothing was captured, or a packet cannot be read.
    #[must_use]
    pub fn wire(&self) -> Wire {
        let secrets = self.server.options().secrets.as_ref();
        let capture = self.capture.as_ref().zip(secrets);
        let (capture, secrets) = capture.expect("the pair was made by `captured`");
        capture.dissect(secrets)
    }

    /// Loses exactly the `n`-th datagram from the client, the first being 1.
    #[must_use]
    pub fn drop_nth_from_client(mut self, n: u64) -> Self {
        self.dropped[Direction::Up.index()].insert(n);
        self
    }

    /// Loses exactly the `n`-th datagram from the server, the first being 1.
    #[must_use]
    pub fn drop_nth_from_server(mut self, n: u64) -> Self {
        self.dropped[Direction::Down.index()].insert(n);
        self
    }

    /// Loses nothing more of what was announced.
    pub fn clear_drops(&mut self) {
        self.dropped = [BTreeSet::new(), BTreeSet::new()];
    }

    /// Loses the next datagram in `direction`.
    pub fn drop_next(&mut self, direction: Direction) {
        let next = self.offered[direction.index()] + 1;
        self.dropped[direction.index()].insert(next);
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Clock {
        self.now
    }

    /// Datagrams sent in `direction`, lost ones included.
    #[must_use]
    pub const fn datagrams(&self, direction: Direction) -> u64 {
        self.offered[direction.index()]
    }

    /// Bytes of UDP payload sent in `direction`, lost ones included.
    #[must_use]
    pub const fn bytes(&self, direction: Direction) -> u64 {
        self.bytes[direction.index()]
    }

    /// The address the server sees.
    #[must_use]
    pub const fn client_address(&self) -> SocketAddr {
        self.client_address
    }

    /// Announces an event that schedules of the link wait for.
    pub fn announce(&mut self, event: &str) {
        self.link.on_event(event, self.now.elapsed());
    }

    /// A NAT on the way forgets the client: its port changes, and only the server can tell.
    pub fn rebind_port(&mut self) {
        self.client_address.set_port(self.client_address.port() + 1);
        let now = self.now;
        self.trace.note(now, || "rebind".to_owned());
    }

    /// A NAT on the way changes the client's address, and only the server can tell.
    pub fn rebind_address(&mut self) {
        self.addresses += 1;
        let host = (self.addresses % 200) as u8;
        self.client_address = SocketAddr::from((Ipv4Addr::new(10, 78, 0, host), 40_000));
    }

    /// The client moves to another network and knows.
    pub fn migrate(&mut self) {
        self.rebind_address();
        self.client.on_local_address_changed(self.now, PathChange::Address);
    }

    /// The client moves to another port of its own.
    pub fn migrate_port(&mut self) {
        self.rebind_port();
        self.client.on_local_address_changed(self.now, PathChange::Port);
    }

    /// Lets both sides send, then jumps to whatever happens next.
    ///
    /// Returns whether there was anything left to happen; it does not go beyond `deadline`.
    pub fn step(&mut self, deadline: Clock) -> bool {
        self.flush();
        let next = self.next_event();
        let Some(next) = next.filter(|&next| next <= deadline) else {
            self.now = self.now.max(deadline);
            return false;
        };
        self.standstill = if next > self.now { 0 } else { self.standstill + 1 };
        assert!(self.standstill < STANDSTILL_MAX, "time stands still: {}", self.describe_timers());
        self.now = self.now.max(next);
        self.act();
        self.deliver();
        if self.client.poll_timeout().is_some_and(|at| at <= self.now) {
            self.client.handle_timeout(self.now);
        }
        if self.server.poll_timeout().is_some_and(|at| at <= self.now) {
            self.server.handle_timeout(self.now);
        }
        self.flush();
        true
    }

    /// Runs until `done`, at most for `limit`. Says whether it came to that.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let deadline = self.now + limit;
        self.flush();
        loop {
            if done(self) {
                self.flush();
                return true;
            }
            if !self.step(deadline) {
                return done(self);
            }
        }
    }

    /// Runs for `time`.
    pub fn run_for(&mut self, time: Duration) {
        let deadline = self.now + time;
        while self.step(deadline) {}
    }

    fn describe_timers(&mut self) -> String {
        let (client, server) = (self.client.poll_timeout(), self.server.poll_timeout());
        format!("{}, client's timer {client:?}, server's {server:?}", self.now)
    }

    fn next_event(&mut self) -> Option<Clock> {
        let moments = [
            self.up.next_at().map(clock),
            self.down.next_at().map(clock),
            self.link.next_action_at().map(clock),
            self.client.poll_timeout(),
            self.server.poll_timeout(),
        ];
        moments.into_iter().flatten().min()
    }

    fn act(&mut self) {
        while let Some(performed) = self.link.poll_action(self.now.elapsed()) {
            match performed.action {
                Action::Rebind => self.rebind_port(),
                Action::AddressChange => self.rebind_address(),
                Action::BlackoutStart { .. } | Action::BlackoutEnd { .. } => {}
            }
        }
    }

    fn deliver(&mut self) {
        while let Some((_, (from, datagram, number))) = self.up.pop_due(self.now.elapsed()) {
            self.on_arrived(number);
            self.server.handle_datagram(self.now, from, &datagram);
            self.flush_server();
        }
        while let Some((_, (to, mut datagram, number))) = self.down.pop_due(self.now.elapsed()) {
            // A NAT that has forgotten the mapping drops what still comes for it.
            if to == self.client_address {
                self.on_arrived(number);
                self.client.handle_datagram(self.now, &mut datagram);
                self.flush_client();
            }
        }
    }

    fn on_arrived(&mut self, number: Option<usize>) {
        if let (Some(capture), Some(number)) = (&mut self.capture, number) {
            capture.on_arrived(number);
        }
    }

    /// Lets both sides send what they have to send at this moment.
    pub fn flush(&mut self) {
        self.flush_client();
        self.flush_server();
    }

    fn flush_client(&mut self) {
        let mut buffer = [0; DATAGRAM_MAX];
        for burst in 0.. {
            let Some(len) = self.client.poll_transmit(self.now, &mut buffer) else { return };
            assert!(burst < BURST_MAX, "the client does not stop sending at {}", self.now);
            self.carry(Direction::Up, self.client_address, buffer[..len].to_vec());
        }
    }

    fn flush_server(&mut self) {
        for burst in 0.. {
            let Some((to, datagram)) = self.server.poll_transmit(self.now) else { return };
            assert!(burst < BURST_MAX, "the server does not stop sending at {}", self.now);
            self.carry(Direction::Down, to, datagram);
        }
    }

    fn carry(&mut self, direction: Direction, address: SocketAddr, datagram: Vec<u8>) {
        let index = direction.index();
        self.offered[index] += 1;
        self.bytes[index] += datagram.len() as u64;
        let capture = self.capture.as_mut();
        let number = capture.map(|capture| capture.on_sent(self.now, direction, address, &datagram));
        let mut arrivals = Vec::new();
        let fate = self.link.offer(direction, self.now.elapsed(), datagram.len() + UDP_IPV4_OVERHEAD);
        if !self.dropped[index].contains(&self.offered[index]) {
            for delivery in fate.deliveries() {
                let mut copy = datagram.clone();
                let len = delivery.apply(&mut copy).len();
                copy.truncate(len);
                let lane = if direction == Direction::Up { &mut self.up } else { &mut self.down };
                lane.push(delivery.at, (address, copy, number));
                arrivals.push(clock(delivery.at));
            }
        }
        self.trace.datagram(self.now, direction, datagram.len(), &arrivals);
    }
}

/// Rounded up: at that moment the packet is there.
fn clock(at: Duration) -> Clock {
    Clock::from_micros(at.as_nanos().div_ceil(1_000) as u64)
}
