//! What a packet carried, and what its fate means (RFC 9000 13.3).

use super::super::ack::Received;
use super::super::cid::RemoteCids;
use super::super::crypto_streams::{CryptoPiece, CryptoSend};
use super::super::path::Path;
use super::super::recovery::{Outcome, Space};
use super::super::stream::{ControlRecord, StreamPieceRecord, Streams};

/// Frames per packet that must be repaired when it is lost. A packet with more to say is followed by another.
pub(super) const FRAMES_PER_PACKET: usize = 3;

/// No acknowledgement in the packet.
const NO_ACK: u32 = u32::MAX;

/// A frame to be repaired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SentFrame {
    Stream(StreamPieceRecord),
    Control(ControlRecord),
    Crypto(Space, CryptoPiece),
    /// RETIRE_CONNECTION_ID, by the low half of its sequence number.
    Retire(u16),
    /// A probe for datagrams of this size.
    MtuProbe(u16),
}

/// What a packet carried: kept until it is acknowledged or lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    frames: [Option<SentFrame>; FRAMES_PER_PACKET],
    /// The largest packet number that the ACK frame of a 1-RTT packet acknowledged, low half.
    acked: u32,
}

impl Record {
    pub(super) const fn new() -> Self {
        Self { frames: [None; FRAMES_PER_PACKET], acked: NO_ACK }
    }

    pub(super) fn has_room(&self) -> bool {
        self.frames[FRAMES_PER_PACKET - 1].is_none()
    }

    /// Adds a frame; the caller has asked [`Self::has_room`].
    pub(super) fn push(&mut self, frame: SentFrame) {
        let free = self.frames.iter_mut().find(|slot| slot.is_none());
        debug_assert!(free.is_some(), "has_room was asked");
        if let Some(slot) = free {
            *slot = Some(frame);
        }
    }

    pub(super) const fn set_acked(&mut self, largest: u64) {
        self.acked = largest as u32;
    }
}

/// Received packet numbers. The handshake takes a few packets only.
#[derive(Debug)]
pub(super) struct ReceivedPackets {
    /// Initial packets, then Handshake packets: those of one space are received at a time.
    pub(super) long: Received<6>,
    pub(super) application: Received<16>,
}

impl ReceivedPackets {
    pub(super) const fn new() -> Self {
        Self { long: Received::new(), application: Received::new() }
    }
}

/// Everything that learns of a packet's fate.
pub(super) struct Repair<'a, const STREAMS: usize, const SEND: usize, const BLOCKS: usize> {
    pub(super) streams: &'a mut Streams<STREAMS, SEND, BLOCKS>,
    pub(super) crypto: &'a mut CryptoSend,
    pub(super) cids: &'a mut RemoteCids,
    pub(super) path: &'a mut Path,
    pub(super) received: &'a mut ReceivedPackets,
}

impl<const STREAMS: usize, const SEND: usize, const BLOCKS: usize> Repair<'_, STREAMS, SEND, BLOCKS> {
    pub(super) fn apply(&mut self, outcome: Outcome<Record>) {
        match outcome {
            Outcome::Acked(record) => self.on_acked(&record),
            Outcome::Lost(record) => self.on_lost(&record),
        }
    }

    fn on_acked(&mut self, record: &Record) {
        if record.acked != NO_ACK {
            self.on_ack_acked(record);
        }
        for frame in record.frames.iter().map_while(|frame| *frame) {
            match frame {
                SentFrame::Stream(piece) => self.streams.on_piece_acked(piece),
                SentFrame::Control(control) => self.streams.on_control_acked(control),
                SentFrame::Crypto(space, piece) => self.crypto.on_acked(space, piece),
                SentFrame::Retire(sequence) => self.cids.on_retirement_acked(sequence),
                SentFrame::MtuProbe(len) => self.path.on_probe_acked(len),
            }
        }
    }

    /// The packet's frames are to be sent again where they still matter.
    pub(super) fn on_lost(&mut self, record: &Record) {
        for frame in record.frames.iter().map_while(|frame| *frame) {
            match frame {
                SentFrame::Stream(piece) => self.streams.on_piece_lost(piece),
                SentFrame::Control(control) => self.streams.on_control_lost(control),
                SentFrame::Crypto(space, piece) => self.crypto.on_lost(space, piece),
                SentFrame::Retire(sequence) => self.cids.on_retirement_lost(sequence),
                SentFrame::MtuProbe(len) => self.path.on_probe_lost(len),
            }
        }
    }

    /// What that ACK frame said need not be said again.
    fn on_ack_acked(&mut self, record: &Record) {
        let Some(largest) = self.received.application.largest() else { return };
        let behind = (largest as u32).wrapping_sub(record.acked);
        self.received.application.on_ack_acknowledged(largest.saturating_sub(u64::from(behind)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_small() {
        assert!(size_of::<Record>() <= 28, "{}", size_of::<Record>());
    }
}
