//! The CRYPTO streams: handshake messages in and out (RFC 9000 7.5, 19.6).
//!
//! They have no memory of their own. Stream data arrives after the handshake, so the memory of the streams'
//! receive buffers is the handshake's first; its reserved end stays so, for session tickets.
//!
//! ```text
//!   Initial     | ServerHello in                               | ClientHello out |
//!   Handshake   | certificate chain in                                           |
//!               | Finished in |                                | Finished out    |
//!   1-RTT       | streams' receive buffers                     | F. out | tickets in
//! ```
//!
//! Whoever has moved on to the next level needs nothing of the one before: keys of a level exist only once
//! every message of the level before has been read.

use core::ops::Range;

use crate::codec::Writer;

use super::error::{TransportCode, TransportError};
use super::recovery::Space;
use super::stream::{BLOCK, RangeSet};
use crate::tls;

/// Least receive memory of a connection in bytes: handshake messages of this length can be put in order
/// (RFC 9000 7.5), enough for a certificate chain of three with P-256 keys.
pub const CRYPTO_RECEIVE_LEN: usize = 4096;
/// Bytes of this client's largest flight: a ClientHello with a ticket of 512 bytes, or a certificate.
pub const CRYPTO_SEND_LEN: usize = 1152;
/// Blocks at the end of the receive memory that streams never use.
pub const RESERVED_BLOCKS: u16 = (CRYPTO_SEND_LEN / BLOCK) as u16;
/// Type and length in front of a handshake message (RFC 8446 4).
const MESSAGE_HEADER_LEN: usize = 4;

/// The longest Finished: that of a SHA-384 suite.
const FINISHED_LEN_MAX: usize = MESSAGE_HEADER_LEN + 48;

/// Whether bytes found room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// All of them, or they were known, or nobody needs them.
    Yes,
    /// Too many gaps: the packet must not be acknowledged, so that it comes again.
    No,
}

/// Puts handshake bytes in order; messages are read where they lie. Each call is lent the same memory.
#[derive(Debug)]
pub struct CryptoReceive {
    /// The part of the memory in use.
    region: Range<usize>,
    level: Space,
    /// Offset of the first byte in the buffer, which is the start of a message.
    start: u64,
    /// Contiguous bytes in the buffer.
    ready: usize,
    /// What has arrived beyond the first gap, from `start` on.
    beyond: RangeSet,
    /// Where the streams of the levels before this one ended.
    ended: [u64; 3],
    high: u16,
}

impl CryptoReceive {
    /// Awaits Initial messages.
    pub const fn new() -> Self {
        Self {
            region: 0..0,
            level: Space::Initial,
            start: 0,
            ready: 0,
            beyond: RangeSet::new(),
            ended: [0; 3],
            high: 0,
        }
    }

    /// Awaits Initial messages in `region` of the memory.
    pub fn restart(&mut self, region: Range<usize>) {
        self.region = region;
        self.level = Space::Initial;
        self.start = 0;
        self.ready = 0;
        self.beyond.clear();
        self.ended = [0; 3];
        self.high = 0;
    }

    /// Takes the bytes of a CRYPTO frame.
    ///
    /// # Errors
    /// `CRYPTO_BUFFER_EXCEEDED` beyond the buffer, `PROTOCOL_VIOLATION` for new bytes at a level that is
    /// over.
    pub fn insert(
        &mut self,
        memory: &mut [u8],
        level: Space,
        offset: u64,
        data: &[u8],
    ) -> Result<Kept, TransportError> {
        let end = offset + data.len() as u64;
        if level != self.level {
            return if level < self.level && end <= self.ended[level.index()] {
                Ok(Kept::Yes)
            } else {
                Err(TransportError::violation("CRYPTO data at a level that is over"))
            };
        }
        if end > self.start + self.region.len() as u64 {
            return self.overflow("more handshake data than the buffer holds");
        }
        let contiguous = self.start + self.ready as u64;
        if end <= contiguous {
            return Ok(Kept::Yes);
        }
        let from = offset.max(contiguous);
        let at = (from - self.start) as usize;
        if from > contiguous && self.beyond.insert(at as u16..(end - self.start) as u16).is_err() {
            return Ok(if self.level == Space::Application { Kept::Yes } else { Kept::No });
        }
        let new = &data[(from - offset) as usize..];
        memory[self.region.clone()][at..at + new.len()].copy_from_slice(new);
        if from == contiguous {
            self.ready = at + new.len();
            self.join();
        }
        self.high = self.high.max((end - self.start) as u16);
        Ok(Kept::Yes)
    }

    /// The length of the whole message at the start of the buffer, if there is one. A session ticket that is longer
    /// than the buffer is stepped over: what there is of it is dropped, and so is the rest when it comes.
    ///
    /// # Errors
    /// `CRYPTO_BUFFER_EXCEEDED` if another message can never be whole.
    pub fn message_len(&mut self, memory: &[u8]) -> Result<Option<usize>, TransportError> {
        let ready = &memory[self.region.clone()][..self.ready];
        let Some(&[kind, a, b, c]) = ready.first_chunk::<MESSAGE_HEADER_LEN>() else {
            return Ok(None);
        };
        let len = MESSAGE_HEADER_LEN + u32::from_be_bytes([0, a, b, c]) as usize;
        if len > self.region.len() {
            if self.level == Space::Application && kind == tls::NEW_SESSION_TICKET {
                // All that the buffer holds is the ticket's.
                self.start += len as u64;
                self.ready = 0;
                self.beyond.clear();
                return Ok(None);
            }
            return Err(TransportError::new(
                TransportCode::CRYPTO_BUFFER_EXCEEDED,
                "a handshake message is longer than the buffer",
            ));
        }
        Ok((len <= self.ready).then_some(len))
    }

    /// The first `len` bytes, and the memory that TLS may write its next flight to: behind them, and where
    /// streams never write.
    pub fn message<'m>(&self, memory: &'m mut [u8], len: usize) -> (&'m [u8], usize, Writer<'m>) {
        let start = self.region.start;
        let out_at = (start + len).max(flight_start(memory.len()));
        let (front, out) = memory.split_at_mut(out_at);
        (&front[start..start + len], out_at, Writer::new(out))
    }

    /// Drops the first `len` bytes.
    pub fn consume(&mut self, memory: &mut [u8], len: usize) {
        let end = self.held();
        memory[self.region.clone()].copy_within(len..end, 0);
        self.start += len as u64;
        self.ready -= len;
        self.beyond.advance(len as u16);
    }

    /// Moves on: further bytes belong to `level` and go to `region` of the memory.
    ///
    /// # Errors
    /// `PROTOCOL_VIOLATION` if bytes of the level so far are left over (RFC 9001 4.1.3).
    pub fn advance(&mut self, level: Space, region: Range<usize>) -> Result<(), TransportError> {
        if self.ready > 0 || !self.beyond.is_empty() {
            return Err(TransportError::violation("handshake data is left over when the keys change"));
        }
        self.ended[self.level.index()] = self.start;
        self.level = level;
        self.region = region;
        self.start = 0;
        Ok(())
    }

    /// More of the memory is free: uses `region`, which is no shorter; what is buffered moves there.
    pub fn widen(&mut self, memory: &mut [u8], region: Range<usize>) {
        let held = self.region.start..self.region.start + self.held();
        memory.copy_within(held, region.start);
        self.region = region;
    }

    /// Bytes of the region in use, gaps included.
    fn held(&self) -> usize {
        self.beyond.iter().last().map_or(self.ready, |range| usize::from(range.end))
    }

    /// The level that is being read.
    pub const fn level(&self) -> Space {
        self.level
    }

    /// Most bytes that the buffer held.
    pub const fn high(&self) -> u16 {
        self.high
    }

    /// After the handshake nothing vital is lost with a frame that finds no room. It is dropped, and its packet
    /// acknowledged all the same (RFC 9000 7.5): otherwise it would come again for ever. A hole that is left in the
    /// stream costs the tickets behind it, no more.
    fn overflow(&self, reason: &'static str) -> Result<Kept, TransportError> {
        if self.level == Space::Application {
            return Ok(Kept::Yes);
        }
        Err(TransportError::new(TransportCode::CRYPTO_BUFFER_EXCEEDED, reason))
    }

    fn join(&mut self) {
        while let Some(first) = self.beyond.first() {
            if usize::from(first.start) > self.ready {
                return;
            }
            self.ready = self.ready.max(usize::from(first.end));
            self.beyond.take_first(first.end - first.start);
        }
    }
}

/// Where in a memory of `len` bytes this client's flights start.
pub const fn flight_start(len: usize) -> usize {
    len - CRYPTO_SEND_LEN
}

/// A piece of this client's handshake bytes: what one CRYPTO frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CryptoPiece {
    /// Offset in the stream of its level; a client sends a few kilobytes at most.
    pub offset: u16,
    /// How many bytes.
    pub len: u16,
}

/// Handshake bytes to be sent, until they are acknowledged.
#[derive(Debug)]
pub struct CryptoSend {
    /// Where in the memory the flight is.
    at: usize,
    level: Space,
    /// Offset of the first byte of the buffer.
    start: u16,
    /// Bytes in the buffer.
    len: u16,
    /// Bytes of the buffer that were sent at least once.
    sent: u16,
    lost: RangeSet,
}

impl CryptoSend {
    /// Nothing to send.
    pub const fn new() -> Self {
        Self { at: 0, level: Space::Initial, start: 0, len: 0, sent: 0, lost: RangeSet::new() }
    }

    /// Forgets everything.
    pub fn restart(&mut self) {
        *self = Self::new();
    }

    /// A flight of `len` bytes at `level` lies at `at` in the memory. It takes the place of the flight before,
    /// which the server must have received to have answered it.
    pub fn on_flight(&mut self, level: Space, at: usize, len: usize) {
        self.start = if level == self.level { self.start + self.len } else { 0 };
        self.at = at;
        self.level = level;
        self.len = len as u16;
        self.sent = 0;
        self.lost.clear();
    }

    /// The server has all of it: its memory is free.
    pub fn forget(&mut self) {
        self.start += self.len;
        self.len = 0;
        self.sent = 0;
        self.lost.clear();
    }

    /// Whether the flight has more than a Finished: the server has asked for a certificate.
    pub fn answers_request(&self) -> bool {
        usize::from(self.len) > FINISHED_LEN_MAX
    }

    /// Where in the memory the flight ends.
    pub fn end(&self) -> usize {
        self.at + usize::from(self.len)
    }

    /// Whether there is something to send at `level`.
    pub fn wants_to_send(&self, level: Space) -> bool {
        level == self.level && (self.sent < self.len || !self.lost.is_empty())
    }

    /// The next piece of at most `max_len` bytes, lost ones first; it counts as sent.
    pub fn next_piece(&mut self, level: Space, max_len: usize) -> Option<CryptoPiece> {
        if level != self.level || max_len == 0 {
            return None;
        }
        if let Some(lost) = self.lost.take_first(max_len as u16) {
            return Some(CryptoPiece { offset: lost.start, len: lost.end - lost.start });
        }
        let len = (self.len - self.sent).min(max_len as u16);
        let piece = CryptoPiece { offset: self.start + self.sent, len };
        self.sent += len;
        (len > 0).then_some(piece)
    }

    /// The bytes of a piece.
    pub fn bytes<'m>(&self, memory: &'m [u8], piece: CryptoPiece) -> &'m [u8] {
        let at = self.at + usize::from(piece.offset - self.start);
        &memory[at..at + usize::from(piece.len)]
    }

    /// The server has the piece.
    pub fn on_acked(&mut self, level: Space, piece: CryptoPiece) {
        if level == self.level {
            self.lost.remove(piece.offset..piece.offset + piece.len);
        }
    }

    /// The piece is to be sent again, if it belongs to the current flight.
    pub fn on_lost(&mut self, level: Space, piece: CryptoPiece) {
        if level == self.level && piece.offset >= self.start {
            self.lost.insert_coarsely(piece.offset..piece.offset + piece.len);
        }
    }

    /// The whole flight is to be sent again, as if for the first time.
    pub fn rewind(&mut self) {
        self.sent = 0;
        self.lost.clear();
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::quic::stream::RANGES;

    fn awaiting() -> CryptoReceive {
        let mut receive = CryptoReceive::new();
        receive.restart(0..CRYPTO_RECEIVE_LEN);
        receive
    }

    fn message(len: u8) -> [u8; 64] {
        let mut bytes = [7; 64];
        bytes[..4].copy_from_slice(&[1, 0, 0, len]);
        bytes
    }

    #[test]
    fn a_message_is_whole_when_its_last_gap_closes() {
        let (mut receive, memory) = (awaiting(), &mut [0; CRYPTO_RECEIVE_LEN]);
        let bytes = message(60);
        for piece in [30..64, 10..20, 2..5, 0..3, 18..31] {
            assert_eq!(receive.message_len(memory), Ok(None));
            let kept = receive.insert(memory, Space::Initial, piece.start as u64, &bytes[piece]);
            assert_eq!(kept, Ok(Kept::Yes));
        }
        assert_eq!(receive.message_len(memory), Ok(None), "5..10 is missing");
        receive.insert(memory, Space::Initial, 4, &bytes[4..12]).expect("fits");
        assert_eq!(receive.message_len(memory), Ok(Some(64)));
        assert_eq!(receive.message(memory, 64).0, bytes);
    }

    #[test]
    fn bytes_beyond_a_gap_survive_the_message_before_them() {
        let (mut receive, memory) = (awaiting(), &mut [0; CRYPTO_RECEIVE_LEN]);
        let first = message(4);
        let second = message(60);
        receive.insert(memory, Space::Initial, 0, &first[..8]).expect("fits");
        receive.insert(memory, Space::Initial, 8 + 32, &second[32..]).expect("fits");
        receive.consume(memory, 8);
        receive.insert(memory, Space::Initial, 8, &second[..32]).expect("fits");
        assert_eq!(receive.message_len(memory), Ok(Some(64)));
        assert_eq!(receive.message(memory, 64).0, second);
    }

    #[test]
    fn offsets_beyond_the_buffer_are_refused() {
        let (mut receive, memory) = (awaiting(), &mut [0; CRYPTO_RECEIVE_LEN]);
        let error = receive.insert(memory, Space::Initial, CRYPTO_RECEIVE_LEN as u64, &[0]).unwrap_err();
        assert_eq!(error.code, TransportCode::CRYPTO_BUFFER_EXCEEDED);
        let error = receive.insert(memory, Space::Initial, (1 << 62) - 2, &[0]).unwrap_err();
        assert_eq!(error.code, TransportCode::CRYPTO_BUFFER_EXCEEDED);
    }

    #[test]
    fn a_message_that_can_never_be_whole_is_refused_at_its_header() {
        let (mut receive, memory) = (awaiting(), &mut [0; CRYPTO_RECEIVE_LEN]);
        receive.insert(memory, Space::Initial, 0, &[11, 0, 0x10, 0]).expect("fits");
        assert_eq!(receive.message_len(memory).unwrap_err().code, TransportCode::CRYPTO_BUFFER_EXCEEDED);
    }

    #[test]
    fn too_many_gaps_leave_the_packet_unacknowledged() {
        let (mut receive, memory) = (awaiting(), &mut [0; CRYPTO_RECEIVE_LEN]);
        for gap in 1..=RANGES as u64 {
            assert_eq!(receive.insert(memory, Space::Initial, gap * 10, &[1]), Ok(Kept::Yes));
        }
        assert_eq!(receive.insert(memory, Space::Initial, 900, &[1]), Ok(Kept::No));
    }

    #[test]
    fn a_level_that_is_over_takes_repetitions_only() {
        let (mut receive, memory) = (awaiting(), &mut [0; CRYPTO_RECEIVE_LEN]);
        receive.insert(memory, Space::Initial, 0, &message(4)[..8]).expect("fits");
        receive.consume(memory, 8);
        receive.advance(Space::Handshake, 0..CRYPTO_RECEIVE_LEN).expect("nothing left");
        assert_eq!(receive.insert(memory, Space::Initial, 0, &[1; 8]), Ok(Kept::Yes));
        let error = receive.insert(memory, Space::Initial, 8, &[1]).unwrap_err();
        assert_eq!(error.code, TransportCode::PROTOCOL_VIOLATION);
        assert_eq!(receive.insert(memory, Space::Handshake, 0, &[1]), Ok(Kept::Yes));
    }

    #[test]
    fn left_over_data_at_a_key_change_is_a_violation() {
        let (mut receive, memory) = (awaiting(), &mut [0; CRYPTO_RECEIVE_LEN]);
        receive.insert(memory, Space::Initial, 9, &[1]).expect("fits");
        assert_eq!(
            receive.advance(Space::Handshake, 0..CRYPTO_RECEIVE_LEN).unwrap_err().code,
            TransportCode::PROTOCOL_VIOLATION
        );
    }

    #[test]
    fn lost_pieces_go_first_and_once() {
        let mut send = CryptoSend::new();
        let memory = [0, 1, 2, 3, 4, 5, 6];
        send.on_flight(Space::Initial, 1, 6);
        let first = send.next_piece(Space::Initial, 4).expect("data");
        send.on_lost(Space::Initial, first);
        assert_eq!(send.next_piece(Space::Initial, 100), Some(first));
        assert_eq!(send.bytes(&memory, first), [1, 2, 3, 4]);
        let second = send.next_piece(Space::Initial, 100).expect("the rest");
        assert_eq!(send.bytes(&memory, second), [5, 6]);
        assert!(!send.wants_to_send(Space::Initial));
    }

    #[test]
    fn a_second_hello_continues_the_stream_and_forgets_the_first() {
        let mut send = CryptoSend::new();
        send.on_flight(Space::Initial, 0, 6);
        let old = send.next_piece(Space::Initial, 100).expect("first hello");
        send.on_flight(Space::Initial, 0, 8);
        send.on_lost(Space::Initial, old);
        assert_eq!(send.next_piece(Space::Initial, 100), Some(CryptoPiece { offset: 6, len: 8 }));
        send.on_flight(Space::Handshake, 0, 3);
        assert_eq!(send.next_piece(Space::Handshake, 100), Some(CryptoPiece { offset: 0, len: 3 }));
    }

    #[test]
    fn tls_writes_behind_the_message_and_where_no_stream_does() {
        let (receive, memory) = (awaiting(), &mut [0; CRYPTO_RECEIVE_LEN]);
        let (message, at, out) = receive.message(memory, 40);
        assert_eq!((message.len(), at), (40, CRYPTO_RECEIVE_LEN - CRYPTO_SEND_LEN));
        assert_eq!(out.remaining(), CRYPTO_SEND_LEN);
        let (message, at, out) = receive.message(memory, 4000);
        assert_eq!((message.len(), at, out.remaining()), (4000, 4000, 96));
    }

    /// The handshake is complete, and tickets go to `region`.
    fn complete(region: Range<usize>) -> CryptoReceive {
        let mut receive = awaiting();
        receive.advance(Space::Handshake, 0..CRYPTO_RECEIVE_LEN).expect("empty");
        receive.advance(Space::Application, region).expect("empty");
        receive
    }

    /// A ticket's header and `len` bytes in all.
    fn ticket(len: u16) -> std::vec::Vec<u8> {
        let mut bytes = std::vec![9; usize::from(len)];
        let [high, low] = (len - MESSAGE_HEADER_LEN as u16).to_be_bytes();
        bytes[..4].copy_from_slice(&[tls::NEW_SESSION_TICKET, 0, high, low]);
        bytes
    }

    #[test]
    fn a_ticket_longer_than_the_buffer_is_stepped_over_and_the_next_is_read() {
        let long = ticket(300);
        for pieces in
            [[0..100, 100..200, 200..300], [200..300, 0..100, 100..200], [100..200, 0..100, 200..300]]
        {
            let (mut receive, memory) = (complete(4000..4096), &mut [0; CRYPTO_RECEIVE_LEN]);
            // The first and the last piece overlap the next ticket's neighbours: both come twice, too.
            for piece in pieces.iter().chain(&pieces) {
                let offset = piece.start as u64;
                for (offset, data) in
                    [(offset, &long[piece.clone()][..50]), (offset + 50, &long[piece.clone()][50..])]
                {
                    assert_eq!(receive.insert(memory, Space::Application, offset, data), Ok(Kept::Yes));
                    assert_eq!(receive.message_len(memory), Ok(None));
                }
            }
            let short = ticket(60);
            assert_eq!(receive.insert(memory, Space::Application, 300, &short), Ok(Kept::Yes));
            assert_eq!(receive.message_len(memory), Ok(Some(60)), "{pieces:?}");
            assert_eq!(receive.message(memory, 60).0, short);
        }
    }

    #[test]
    fn after_the_handshake_what_finds_no_room_is_dropped_but_acknowledged() {
        let (mut receive, memory) = (complete(4000..4096), &mut [0; CRYPTO_RECEIVE_LEN]);
        assert_eq!(receive.insert(memory, Space::Application, 90, &[0; 60]), Ok(Kept::Yes));
        assert_eq!(receive.insert(memory, Space::Application, 1 << 40, &[0; 60]), Ok(Kept::Yes));
        for gap in 0..20 {
            assert_eq!(receive.insert(memory, Space::Application, 2 + 4 * gap, &[0]), Ok(Kept::Yes));
        }
    }

    #[test]
    fn only_tickets_may_be_longer_than_the_buffer() {
        let (mut receive, memory) = (complete(4000..4096), &mut [0; CRYPTO_RECEIVE_LEN]);
        receive.insert(memory, Space::Application, 0, &[24, 0, 1, 0]).expect("fits");
        assert_eq!(receive.message_len(memory).unwrap_err().code, TransportCode::CRYPTO_BUFFER_EXCEEDED);
    }

    #[test]
    fn what_is_buffered_moves_along_when_more_memory_is_free() {
        let bytes = ticket(90);
        for (first, second) in [(0..40, 40..90), (40..90, 0..40)] {
            let (mut receive, memory) = (complete(4000..4096), &mut [0; CRYPTO_RECEIVE_LEN]);
            receive.insert(memory, Space::Application, first.start as u64, &bytes[first]).expect("fits");
            receive.widen(memory, 2944..4096);
            receive.insert(memory, Space::Application, second.start as u64, &bytes[second]).expect("fits");
            assert_eq!(receive.message_len(memory), Ok(Some(90)));
            assert_eq!(receive.message(memory, 90).0, bytes);
            receive.consume(memory, 90);
            let long = ticket(1100);
            receive.insert(memory, Space::Application, 90, &long).expect("there is room now");
            assert_eq!(receive.message_len(memory), Ok(Some(1100)));
        }
    }
}
