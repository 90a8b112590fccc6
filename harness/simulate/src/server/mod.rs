//! The server of a simulation: quinn-proto's endpoint over rustls, without sockets.

mod config;
mod options;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, ConnectionStats, DatagramEvent, Endpoint, Event,
    ServerConfig,
};

use crate::Clock;
use crate::service::Service;
use config::{Wall, endpoint, server_config};
pub use options::ServerOptions;

/// The server: an endpoint, its connections, and a service on top.
pub struct Server<S> {
    /// What runs on the streams.
    pub service: S,
    options: ServerOptions,
    endpoint: Endpoint,
    endpoint_seed: u64,
    restarts: u64,
    config: Arc<ServerConfig>,
    sessions: Arc<dyn rustls::server::StoresServerSessions>,
    wall: Arc<Wall>,
    connections: BTreeMap<usize, Connection>,
    outbox: VecDeque<(SocketAddr, Vec<u8>)>,
    scratch: Vec<u8>,
    /// Client addresses datagrams were sent to, and what each connection looked like at its end.
    paths: BTreeSet<SocketAddr>,
    ended: Vec<Ended>,
    retries: u64,
    accepted: u64,
}

/// How a connection ended.
#[derive(Debug)]
pub struct Ended {
    /// Why, in quinn's words.
    pub reason: ConnectionError,
    /// Its counters.
    pub stats: ConnectionStats,
}

impl<S: Service> Server<S> {
    /// A server that behaves as `options` say; its random choices follow from `seed`.
    #[must_use]
    pub fn new(options: ServerOptions, seed: u64, service: S) -> Self {
        let wall = Arc::new(Wall::default());
        let sessions: Arc<dyn rustls::server::StoresServerSessions> =
            rustls::server::ServerSessionMemoryCache::new(64);
        let config = Arc::new(server_config(&options, &wall, &sessions));
        Self {
            service,
            endpoint: endpoint(&options, &config, seed, 0),
            endpoint_seed: seed,
            restarts: 0,
            config,
            sessions,
            wall,
            options,
            connections: BTreeMap::new(),
            outbox: VecDeque::new(),
            scratch: Vec::new(),
            paths: BTreeSet::new(),
            ended: Vec::new(),
            retries: 0,
            accepted: 0,
        }
    }

    /// How the server behaves now.
    #[must_use]
    pub const fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// Changes how the server treats connections from now on.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut ServerOptions)) {
        change(&mut self.options);
        self.config = Arc::new(server_config(&self.options, &self.wall, &self.sessions));
        self.endpoint.set_server_config(Some(self.config.clone()));
    }

    /// Loses all connections without a word, as a crash does. Keys of stateless resets survive, session tickets
    /// do not.
    pub fn restart(&mut self, now: Clock) {
        for &handle in self.connections.keys() {
            self.service.on_lost(now, ConnectionHandle(handle));
        }
        self.connections.clear();
        self.outbox.clear();
        self.restarts += 1;
        self.sessions = rustls::server::ServerSessionMemoryCache::new(64);
        self.config = Arc::new(server_config(&self.options, &self.wall, &self.sessions));
        self.endpoint = endpoint(&self.options, &self.config, self.endpoint_seed, self.restarts);
    }

    /// Takes in a datagram from a client.
    pub fn handle_datagram(&mut self, now: Clock, from: SocketAddr, datagram: &[u8]) {
        self.wall.set(now);
        let data = BytesMut::from(datagram);
        self.scratch.clear();
        let event = self.endpoint.handle(now.quinn(), from, None, None, data, &mut self.scratch);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(connection) = self.connections.get_mut(&handle.0) {
                    connection.handle_event(event);
                    self.settle(now, handle);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.welcome(now, incoming),
            Some(DatagramEvent::Response(transmit)) => {
                self.send(transmit.destination, transmit.size);
            }
            None => {}
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&mut self) -> Option<Clock> {
        let timers =
            self.connections.values_mut().filter_map(Connection::poll_timeout).map(Clock::from_quinn);
        timers.chain(self.service.poll_timeout()).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Clock) {
        self.wall.set(now);
        let handles: Vec<usize> = self.connections.keys().copied().collect();
        for handle in handles {
            if let Some(connection) = self.connections.get_mut(&handle) {
                connection.handle_timeout(now.quinn());
            }
            self.settle(now, ConnectionHandle(handle));
        }
    }

    /// The next datagram to send, and where to.
    pub fn poll_transmit(&mut self, now: Clock) -> Option<(SocketAddr, Vec<u8>)> {
        if let Some(sent) = self.outbox.pop_front() {
            return Some(sent);
        }
        self.wall.set(now);
        for connection in self.connections.values_mut() {
            self.scratch.clear();
            if let Some(transmit) = connection.poll_transmit(now.quinn(), 1, &mut self.scratch) {
                self.paths.insert(transmit.destination);
                return Some((transmit.destination, self.scratch[..transmit.size].to_vec()));
            }
        }
        None
    }

    /// Lets the service act now, as after it was given work from outside.
    pub fn wake(&mut self, now: Clock) {
        let handles: Vec<usize> = self.connections.keys().copied().collect();
        for handle in handles {
            self.settle(now, ConnectionHandle(handle));
        }
    }

    /// The live connections.
    pub fn connections(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.connections.values_mut()
    }

    /// The latest live connection.
    pub fn connection(&mut self) -> Option<&mut Connection> {
        self.connections.values_mut().next_back()
    }

    /// Connections that ended, the first first.
    #[must_use]
    pub fn ended(&self) -> &[Ended] {
        &self.ended
    }

    /// Connections accepted so far.
    #[must_use]
    pub const fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Retry packets sent so far.
    #[must_use]
    pub const fn retries(&self) -> u64 {
        self.retries
    }

    /// Client addresses that datagrams of connections went to.
    #[must_use]
    pub const fn paths(&self) -> &BTreeSet<SocketAddr> {
        &self.paths
    }

    fn welcome(&mut self, now: Clock, incoming: quinn_proto::Incoming) {
        self.scratch.clear();
        if self.options.retry && incoming.may_retry() && !incoming.remote_address_validated() {
            if let Ok(transmit) = self.endpoint.retry(incoming, &mut self.scratch) {
                self.retries += 1;
                self.send(transmit.destination, transmit.size);
            }
            return;
        }
        match self.endpoint.accept(incoming, now.quinn(), &mut self.scratch, None) {
            Ok((handle, connection)) => {
                self.accepted += 1;
                self.connections.insert(handle.0, connection);
                self.settle(now, handle);
            }
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.send(transmit.destination, transmit.size);
                }
            }
        }
    }

    fn send(&mut self, to: SocketAddr, size: usize) {
        self.outbox.push_back((to, self.scratch[..size].to_vec()));
    }

    /// Passes events on until the connection has none.
    fn settle(&mut self, now: Clock, handle: ConnectionHandle) {
        let Some(connection) = self.connections.get_mut(&handle.0) else { return };
        let mut drained = false;
        loop {
            let mut idle = true;
            while let Some(event) = connection.poll_endpoint_events() {
                idle = false;
                drained |= event.is_drained();
                if let Some(event) = self.endpoint.handle_event(handle, event) {
                    connection.handle_event(event);
                }
            }
            while let Some(event) = connection.poll() {
                idle = false;
                if let Event::ConnectionLost { reason } = event {
                    self.ended.push(Ended { reason, stats: connection.stats() });
                    self.service.on_closed(now, handle, connection);
                    self.service.on_lost(now, handle);
                }
            }
            if idle {
                break;
            }
        }
        if drained {
            self.connections.remove(&handle.0);
            return;
        }
        if !connection.is_closed() {
            self.service.poll(now, handle, connection);
        }
    }
}
