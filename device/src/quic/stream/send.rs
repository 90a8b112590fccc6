//! The sending side of a byte stream: a bounded ring with repair (RFC 9000 2.2, 13.3).

use core::ops::Range;

use super::ranges::RangeSet;
use crate::redacted::redacted_debug;

/// Bytes to put into one STREAM (or CRYPTO) frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Offset of the first byte in the stream.
    pub offset: u64,
    /// How many bytes; zero only together with `fin`.
    pub len: usize,
    /// Whether the stream ends behind them.
    pub fin: bool,
}

/// What became of the end of the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fin {
    /// More may be written.
    Open,
    /// To be sent, or to be sent again.
    Pending,
    InFlight,
    Acked,
}

/// Bytes that have been written and are not yet acknowledged: at most `N`.
#[derive(Clone)]
pub struct SendBuffer<const N: usize> {
    ring: [u8; N],
    /// Where in the ring the byte at `start` is.
    head: usize,
    /// Offset of the first byte not acknowledged.
    start: u64,
    /// Offset behind the last byte ever sent.
    sent: u64,
    /// Offset behind the last byte written.
    end: u64,
    /// What is to be sent again and what is acknowledged, from `start` on. Where that is more than a set can tell apart,
    /// some bytes are sent once more than needed, and nothing gets stuck.
    lost: RangeSet,
    acked: RangeSet,
    fin: Fin,
    limit: usize,
}

redacted_debug! {
    [const N: usize] SendBuffer<N>, "SendBuffer",
    shown: [head, start, sent, end, lost, acked, fin, limit], length: [ring], hidden: []
}

impl<const N: usize> Default for SendBuffer<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> SendBuffer<N> {
    /// An empty buffer at offset zero.
    pub const fn new() -> Self {
        const { assert!(N <= u16::MAX as usize, "positions in the buffer are 16 bits wide") };
        Self {
            ring: [0; N],
            head: 0,
            start: 0,
            sent: 0,
            end: 0,
            lost: RangeSet::new(),
            acked: RangeSet::new(),
            fin: Fin::Open,
            limit: N,
        }
    }

    /// Empties the buffer for a new stream, which may use up to `limit` bytes of it.
    pub fn restart(&mut self, limit: usize) {
        self.head = 0;
        self.start = 0;
        self.sent = 0;
        self.end = 0;
        self.lost.clear();
        self.acked.clear();
        self.fin = Fin::Open;
        self.limit = limit.min(N);
    }

    /// How many bytes [`Self::write`] takes now.
    pub fn space(&self) -> usize {
        if self.fin == Fin::Open { self.limit - self.buffered() } else { 0 }
    }

    /// Bytes written and not yet acknowledged.
    pub fn buffered(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Offset behind the last byte written: the final size once finished.
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Offset behind the last byte ever sent: what flow control has been used up to.
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether every byte, and the end if there is one, has been acknowledged.
    pub fn is_drained(&self) -> bool {
        self.start == self.end && !matches!(self.fin, Fin::Pending | Fin::InFlight)
    }

    /// Whether the stream ended and the peer has all of it.
    pub fn is_complete(&self) -> bool {
        self.start == self.end && self.fin == Fin::Acked
    }

    /// Whether [`Self::finish`] was called.
    pub fn is_finished(&self) -> bool {
        self.fin != Fin::Open
    }

    /// Takes as many of `bytes` as there is room for.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.space());
        let at = self.index(self.end);
        let until_wrap = len.min(N - at);
        self.ring[at..at + until_wrap].copy_from_slice(&bytes[..until_wrap]);
        self.ring[..len - until_wrap].copy_from_slice(&bytes[until_wrap..len]);
        self.end += len as u64;
        len
    }

    /// Nothing more will be written.
    pub fn finish(&mut self) {
        if self.fin == Fin::Open {
            self.fin = Fin::Pending;
        }
    }

    /// Whether there is something to send to a peer whose limit is the offset `credit`.
    pub fn wants_to_send(&self, credit: u64) -> bool {
        !self.lost.is_empty()
            || (self.sent < self.end && self.sent < credit)
            || (self.fin == Fin::Pending && self.sent == self.end)
    }

    /// Whether unsent bytes wait for the peer to raise its limit above `credit`.
    pub fn is_blocked(&self, credit: u64) -> bool {
        self.sent < self.end && self.sent >= credit
    }

    /// The next piece of at most `max_len` bytes, lost ones first; new ones end at the offset `credit`.
    ///
    /// The piece counts as sent. Its bytes are fetched with [`Self::copy`].
    pub fn next_piece(&mut self, max_len: usize, credit: u64) -> Option<Piece> {
        let range = match self.lost.take_first(max_len.min(N) as u16) {
            Some(lost) => self.start + u64::from(lost.start)..self.start + u64::from(lost.end),
            None if !self.lost.is_empty() => return None,
            None => {
                let end = self.end.min(credit.max(self.sent)).min(self.sent + max_len as u64);
                self.sent..end
            }
        };
        self.sent = self.sent.max(range.end);
        let fin = self.fin != Fin::Open && range.end == self.end;
        if range.is_empty() && !(fin && self.fin == Fin::Pending) {
            return None;
        }
        if fin && self.fin == Fin::Pending {
            self.fin = Fin::InFlight;
        }
        Some(Piece { offset: range.start, len: (range.end - range.start) as usize, fin })
    }

    /// Copies the bytes from `offset` on into `dest`.
    ///
    /// They must be buffered: part of a piece not yet acknowledged.
    pub fn copy(&self, offset: u64, dest: &mut [u8]) {
        debug_assert!(offset >= self.start && offset + dest.len() as u64 <= self.end);
        let at = self.index(offset);
        let until_wrap = dest.len().min(N - at);
        let (first, second) = dest.split_at_mut(until_wrap);
        first.copy_from_slice(&self.ring[at..at + first.len()]);
        second.copy_from_slice(&self.ring[..second.len()]);
    }

    /// The peer has `piece`. Telling it twice, or late, does no harm.
    pub fn on_acked(&mut self, piece: Piece) {
        if piece.fin && self.fin != Fin::Open {
            self.fin = Fin::Acked;
        }
        let Some(range) = self.positions(piece) else { return };
        self.lost.remove(range.clone());
        if range.start == 0 {
            self.release(range.end);
        } else if self.acked.insert(range.clone()).is_err() {
            // No room to remember it. Sent again it will be acknowledged again, by then in order.
            self.lost.insert_coarsely(range);
        }
        while let Some(first) = self.acked.first().filter(|first| first.start == 0) {
            self.release(first.end);
        }
    }

    /// `piece` is to be sent again, apart from what is known to have arrived.
    pub fn on_lost(&mut self, piece: Piece) {
        if piece.fin && self.fin == Fin::InFlight {
            self.fin = Fin::Pending;
        }
        let Some(range) = self.positions(piece) else { return };
        let lost = &mut self.lost;
        self.acked.for_each_gap(range, |gap| lost.insert_coarsely(gap));
    }

    /// Everything is to be sent again, as if for the first time: the server refused 0-RTT.
    pub fn rewind(&mut self) {
        self.sent = self.start;
        self.lost.clear();
        self.acked.clear();
        if self.fin != Fin::Open {
            self.fin = Fin::Pending;
        }
    }

    /// Where in the buffer, from `start` on, the bytes of `piece` are that were sent and are still there.
    fn positions(&self, piece: Piece) -> Option<Range<u16>> {
        let from = piece.offset.max(self.start);
        let to = (piece.offset + piece.len as u64).min(self.sent);
        (from < to).then(|| (from - self.start) as u16..(to - self.start) as u16)
    }

    /// Makes room of the first `len` bytes.
    fn release(&mut self, len: u16) {
        self.head = self.index(self.start + u64::from(len));
        self.start += u64::from(len);
        self.lost.advance(len);
        self.acked.advance(len);
    }

    fn index(&self, offset: u64) -> usize {
        let at = self.head + (offset - self.start) as usize;
        if at >= N { at - N } else { at }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn take(buffer: &mut SendBuffer<16>, max_len: usize) -> Option<(Piece, Vec<u8>)> {
        let piece = buffer.next_piece(max_len, u64::MAX)?;
        let mut bytes = std::vec![0; piece.len];
        buffer.copy(piece.offset, &mut bytes);
        Some((piece, bytes))
    }

    #[test]
    fn writes_stop_at_the_limit_and_resume_after_an_acknowledgement() {
        let mut buffer = SendBuffer::<16>::new();
        assert_eq!(buffer.write(&[1; 20]), 16);
        let (piece, _) = take(&mut buffer, 10).unwrap();
        assert_eq!(buffer.write(&[2; 4]), 0);
        buffer.on_acked(piece);
        assert_eq!(buffer.space(), 10);
    }

    #[test]
    fn new_bytes_stop_at_the_peers_limit() {
        let mut buffer = SendBuffer::<16>::new();
        buffer.write(&[1; 10]);
        assert_eq!(buffer.next_piece(100, 4), Some(Piece { offset: 0, len: 4, fin: false }));
        assert!(buffer.is_blocked(4));
        assert_eq!(buffer.next_piece(100, 4), None);
        assert_eq!(buffer.next_piece(100, 6), Some(Piece { offset: 4, len: 2, fin: false }));
    }

    #[test]
    fn a_bare_end_is_sent_and_repaired() {
        let mut buffer = SendBuffer::<16>::new();
        buffer.finish();
        let fin = Piece { offset: 0, len: 0, fin: true };
        assert_eq!(buffer.next_piece(0, 0), Some(fin));
        assert_eq!(buffer.next_piece(10, 10), None);
        buffer.on_lost(fin);
        assert_eq!(buffer.next_piece(0, 0), Some(fin));
        buffer.on_acked(fin);
        assert!(buffer.is_complete());
    }

    #[test]
    fn a_piece_does_not_carry_the_end_while_later_bytes_are_unsent() {
        let mut buffer = SendBuffer::<16>::new();
        buffer.write(&[0; 8]);
        buffer.finish();
        let first = buffer.next_piece(4, 100).unwrap();
        assert!(!first.fin);
        assert!(buffer.next_piece(4, 100).unwrap().fin);
        buffer.on_lost(first);
        assert!(!buffer.next_piece(4, 100).unwrap().fin);
    }

    #[test]
    fn refused_early_data_is_sent_again_from_the_start() {
        let mut buffer = SendBuffer::<16>::new();
        buffer.write(b"connect");
        let (early, bytes) = take(&mut buffer, 100).unwrap();
        buffer.rewind();
        assert_eq!(take(&mut buffer, 100).unwrap(), (early, bytes));
    }

    proptest! {
        /// A network that loses, repeats and reorders; the receiver rebuilds the stream from pieces.
        #[test]
        fn every_byte_arrives_whatever_is_lost_or_late(
            data in proptest::collection::vec(any::<u8>(), 0..200),
            choices in proptest::collection::vec((0_u8..6, 1_usize..9, any::<prop::sample::Index>()), 0..300),
        ) {
            let mut buffer = SendBuffer::<16>::new();
            let mut written = 0;
            let mut flight: Vec<Piece> = Vec::new();
            let mut received: Vec<Option<u8>> = std::vec![None; data.len()];
            let mut ended = false;
            let deliver = |buffer: &SendBuffer<16>, piece: Piece, received: &mut Vec<Option<u8>>, ended: &mut bool| {
                let mut bytes = std::vec![0; piece.len];
                buffer.copy(piece.offset, &mut bytes);
                for (index, byte) in bytes.into_iter().enumerate() {
                    received[piece.offset as usize + index] = Some(byte);
                }
                *ended |= piece.fin;
            };
            // Pieces are delivered when sent; only their acknowledgement is in doubt, which is all the buffer sees.
            for (choice, len, index) in choices {
                match choice {
                    0 => written += buffer.write(&data[written..(written + len).min(data.len())]),
                    1 | 2 => if let Some(piece) = buffer.next_piece(len, u64::MAX) {
                        prop_assert!(piece.len <= len);
                        deliver(&buffer, piece, &mut received, &mut ended);
                        flight.push(piece);
                    },
                    3 if !flight.is_empty() => buffer.on_acked(flight.swap_remove(index.index(flight.len()))),
                    4 if !flight.is_empty() => buffer.on_lost(flight.swap_remove(index.index(flight.len()))),
                    // Declared lost, acknowledged later.
                    5 if !flight.is_empty() => buffer.on_lost(flight[index.index(flight.len())]),
                    _ => {}
                }
                prop_assert!(buffer.buffered() <= 16);
            }
            for round in 0.. {
                prop_assert!(round < 1000, "stuck: {buffer:?}");
                written += buffer.write(&data[written..]);
                if written == data.len() {
                    buffer.finish();
                }
                while let Some(piece) = buffer.next_piece(5, u64::MAX) {
                    deliver(&buffer, piece, &mut received, &mut ended);
                    flight.push(piece);
                }
                for piece in flight.drain(..) {
                    buffer.on_acked(piece);
                }
                if buffer.is_complete() {
                    break;
                }
            }
            prop_assert!(ended);
            prop_assert!(received.iter().copied().eq(data.iter().map(|&byte| Some(byte))));
        }
    }
}
