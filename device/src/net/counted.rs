//! A NIC whose frames and bytes are counted.

use smoltcp::phy::{Device, DeviceCapabilities, PacketMeta, RxToken, TxToken};
use smoltcp::time::Instant;

use crate::control::WireStats;

/// A NIC and its counters, for one call.
pub(super) struct Counted<'d, D> {
    nic: &'d mut D,
    wire: &'d mut WireStats,
}

impl<'d, D> Counted<'d, D> {
    pub(super) fn new(nic: &'d mut D, wire: &'d mut WireStats) -> Self {
        Self { nic, wire }
    }
}

/// A token and its direction's counters: frames, bytes.
pub(super) struct Counting<'a, T> {
    token: T,
    frames: &'a mut u32,
    bytes: &'a mut u64,
}

impl<D: Device> Device for Counted<'_, D> {
    type RxToken<'a>
        = Counting<'a, D::RxToken<'a>>
    where
        Self: 'a;
    type TxToken<'a>
        = Counting<'a, D::TxToken<'a>>
    where
        Self: 'a;

    fn receive(&mut self, timestamp: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let (receive, transmit) = self.nic.receive(timestamp)?;
        let WireStats { frames_sent, frames_received, bytes_sent, bytes_received, .. } = &mut *self.wire;
        Some((
            Counting { token: receive, frames: frames_received, bytes: bytes_received },
            Counting { token: transmit, frames: frames_sent, bytes: bytes_sent },
        ))
    }

    fn transmit(&mut self, timestamp: Instant) -> Option<Self::TxToken<'_>> {
        let token = self.nic.transmit(timestamp)?;
        Some(Counting { token, frames: &mut self.wire.frames_sent, bytes: &mut self.wire.bytes_sent })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.nic.capabilities()
    }
}

impl<T: RxToken> RxToken for Counting<'_, T> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let Self { token, frames, bytes } = self;
        token.consume(|frame| {
            *frames += 1;
            *bytes += frame.len() as u64;
            f(frame)
        })
    }

    fn meta(&self) -> PacketMeta {
        self.token.meta()
    }
}

impl<T: TxToken> TxToken for Counting<'_, T> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self { token, frames, bytes } = self;
        *frames += 1;
        *bytes += len as u64;
        token.consume(len, f)
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.token.set_meta(meta);
    }
}
