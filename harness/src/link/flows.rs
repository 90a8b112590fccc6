//! UDP flows through the NAT: one socket towards the broker for each source the board speaks from.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::event_loop::{Interest, Token};
use super::outside::Outside;

/// Most flows at once. A board opens one per connection; when there are more, the longest idle one goes.
const FLOWS_MAX: usize = 64;

/// Most sockets kept after a rebinding. They stay open, unread, so that what the broker still sends there
/// vanishes as it does behind a real NAT, instead of being refused.
const RETIRED_MAX: usize = 64;

struct Flow {
    id: u64,
    target: SocketAddr,
    socket: UdpSocket,
    last_used: Duration,
}

/// The flows, by what tells them apart inside.
pub(super) struct UdpFlows<K> {
    flows: HashMap<K, Flow>,
    keys: HashMap<u64, K>,
    retired: VecDeque<UdpSocket>,
    next_id: u64,
}

impl<K: Clone + Eq + Hash> UdpFlows<K> {
    pub(super) fn new() -> Self {
        Self { flows: HashMap::new(), keys: HashMap::new(), retired: VecDeque::new(), next_id: 0 }
    }

    /// Sends `payload` to `target` on the flow of `key`, which is opened if need be.
    pub(super) fn send(
        &mut self,
        key: &K,
        target: SocketAddr,
        payload: &[u8],
        outside: Outside,
        now: Duration,
    ) -> io::Result<()> {
        if !self.flows.contains_key(key) {
            self.open(key.clone(), target, outside)?;
        }
        let flow = self.flows.get_mut(key).expect("opened above");
        flow.last_used = now;
        match flow.socket.send(payload) {
            // The answer to an earlier packet (port unreachable) is reported here; this one was not sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                flow.socket.send(payload).map(drop)
            }
            result => result.map(drop),
        }
    }

    /// The next datagram for flow `id`.
    pub(super) fn receive(&mut self, id: u64, buffer: &mut [u8]) -> Option<(K, usize)> {
        let key = self.keys.get(&id)?;
        let socket = &self.flows.get(key)?.socket;
        loop {
            match socket.recv(buffer) {
                Ok(len) => return Some((key.clone(), len)),
                // The broker is not there; the board will notice by itself.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    /// Moves every flow to a new source.
    pub(super) fn rebind(&mut self, outside: Outside) -> io::Result<()> {
        for flow in self.flows.values_mut() {
            let old = std::mem::replace(&mut flow.socket, outside.udp(flow.target)?);
            if self.retired.len() == RETIRED_MAX {
                self.retired.pop_front();
            }
            self.retired.push_back(old);
        }
        Ok(())
    }

    /// Where the flows lead.
    pub(super) fn targets(&self) -> impl Iterator<Item = SocketAddr> {
        self.flows.values().map(|flow| flow.target)
    }

    pub(super) fn interest<'a>(&'a self, interest: &mut Interest<'a>) {
        for flow in self.flows.values() {
            interest.read(&flow.socket, Token::Udp(flow.id));
        }
    }

    fn open(&mut self, key: K, target: SocketAddr, outside: Outside) -> io::Result<()> {
        if self.flows.len() == FLOWS_MAX
            && let Some(idle) =
                self.flows.iter().min_by_key(|(_, flow)| flow.last_used).map(|(key, _)| key.clone())
            && let Some(flow) = self.flows.remove(&idle)
        {
            self.keys.remove(&flow.id);
        }
        let id = self.next_id;
        self.next_id += 1;
        let socket = outside.udp(target)?;
        self.keys.insert(id, key.clone());
        self.flows.insert(key, Flow { id, target, socket, last_used: Duration::ZERO });
        Ok(())
    }
}
