//! A smoltcp network device of two queues: what is put in one comes out of the other.

use std::collections::VecDeque;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// The stack's end of a wire.
pub(crate) struct Wire {
    medium: Medium,
    mtu: usize,
    /// For the stack to read.
    pub(crate) incoming: VecDeque<Vec<u8>>,
    /// What it sent.
    pub(crate) outgoing: VecDeque<Vec<u8>>,
}

pub(crate) struct Incoming(Vec<u8>);

pub(crate) struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl Wire {
    /// An empty one; `mtu` counts an Ethernet header where the medium has one.
    pub(crate) fn new(medium: Medium, mtu: usize) -> Self {
        Self { medium, mtu, incoming: VecDeque::new(), outgoing: VecDeque::new() }
    }
}

impl Device for Wire {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Incoming(packet), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = self.medium;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}
