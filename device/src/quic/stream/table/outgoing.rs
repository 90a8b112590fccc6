//! What this end has to send about streams, and what becomes of it.

use super::super::Piece;
use super::super::frames::{Control, ControlKind, ControlRecord, StreamPiece, StreamPieceRecord};
use super::super::state::{Flags, Receiving, Sending, Stop, Stream};
use super::{Pending, Streams};
use crate::codec::varint_len;
use crate::quic::StreamId;

impl<const N: usize, const SEND: usize, const BLOCKS: usize> Streams<N, SEND, BLOCKS> {
    /// Whether there is a STREAM or control frame to send.
    pub fn wants_to_send(&self) -> bool {
        let (spare, streams) = (self.spare_data(), self.peer.streams);
        self.wants_control() || self.slots.iter().any(|stream| has_piece(stream, spare, streams))
    }

    /// Whether there is a control frame to send.
    pub fn wants_control(&self) -> bool {
        let Pending { max_data, max_streams, data_blocked, streams_blocked } = self.pending;
        max_data
            || max_streams
            || data_blocked
            || streams_blocked
            || self.slots.iter().any(|stream| {
                is_permitted(stream.id, self.peer.streams)
                    && (stream.limit_pending
                        || stream.blocked_pending
                        || matches!(stream.sending, Sending::ResetPending { .. })
                        || matches!(stream.stop, Stop::Pending { .. }))
            })
    }

    /// The next control frame to send. It counts as sent; if it does not fit, tell [`Self::on_control_lost`].
    pub fn next_control(&mut self) -> Option<Control> {
        if core::mem::take(&mut self.pending.max_data) {
            self.data_limit = self.data_consumed + u64::from(self.limits.connection_window);
            return Some(Control::MaxData { limit: self.data_limit });
        }
        if core::mem::take(&mut self.pending.max_streams) {
            return Some(Control::MaxStreams { limit: self.peer_streams_limit });
        }
        if core::mem::take(&mut self.pending.data_blocked) {
            return Some(Control::DataBlocked { limit: self.peer.data });
        }
        if core::mem::take(&mut self.pending.streams_blocked) {
            return Some(Control::StreamsBlocked { limit: self.peer.streams });
        }
        let window = u64::from(self.limits.stream_window);
        let streams = self.peer.streams;
        let mut permitted = self.slots.iter_mut().filter(|stream| is_permitted(stream.id, streams));
        permitted.find_map(|stream| next_stream_control(stream, window))
    }

    /// A packet with this control frame was acknowledged.
    pub fn on_control_acked(&mut self, record: ControlRecord) {
        let Some(index) = self.find_short(record.stream) else { return };
        if record.kind == ControlKind::ResetStream
            && let Sending::ResetSent { .. } | Sending::ResetPending { .. } = self.slots[index].sending
        {
            self.slots[index].sending = Sending::Done;
            self.release_if_over(index);
        }
    }

    /// A packet with this control frame was lost: it is sent again where it still says something new.
    pub fn on_control_lost(&mut self, record: ControlRecord) {
        match record.kind {
            ControlKind::MaxData => self.pending.max_data = true,
            ControlKind::MaxStreams => self.pending.max_streams = true,
            ControlKind::DataBlocked => {
                self.pending.data_blocked = self.data_blocked_at == Some(self.peer.data);
            }
            ControlKind::StreamsBlocked => {
                self.pending.streams_blocked = self.opener_waits && self.local_opened >= self.peer.streams;
            }
            kind => {
                let Some(index) = self.find_short(record.stream) else { return };
                self.on_stream_control_lost(kind, index);
            }
        }
    }

    fn on_stream_control_lost(&mut self, kind: ControlKind, index: usize) {
        let stream = &mut self.slots[index];
        match kind {
            ControlKind::MaxStreamData => {
                stream.limit_pending =
                    stream.receiving == Receiving::Open && stream.incoming.final_size().is_none();
            }
            ControlKind::ResetStream => {
                if let Sending::ResetSent { code } = stream.sending {
                    stream.sending = Sending::ResetPending { code };
                }
            }
            ControlKind::StopSending => {
                if let (Stop::Sent { code }, Receiving::Unwanted) = (stream.stop, stream.receiving) {
                    stream.stop = Stop::Pending { code };
                }
            }
            _ => stream.blocked_pending = stream.outgoing.is_blocked(stream.send_credit),
        }
    }

    /// The next piece of a stream, such that its STREAM frame (with its length) takes at most `room` bytes.
    ///
    /// Streams take turns. The piece counts as sent; its bytes are fetched with [`Self::copy`].
    pub fn next_piece(&mut self, room: usize) -> Option<StreamPiece> {
        let (spare, streams) = (self.spare_data(), self.peer.streams);
        for step in 0..N {
            let index = (self.turn + step) % N;
            let stream = &mut self.slots[index];
            let Some(id) = stream.id else { continue };
            if !has_piece(stream, spare, streams) {
                continue;
            }
            // The offset of a retransmission is smaller, so this is enough for either.
            let header = 1 + varint_len(id.0) + varint_len(stream.outgoing.end()) + varint_len(room as u64);
            let Some(max_len) = room.checked_sub(header) else { continue };
            let sent = stream.outgoing.sent();
            let credit = stream.send_credit.min(sent.saturating_add(spare));
            let Some(piece) = stream.outgoing.next_piece(max_len, credit) else { continue };
            self.data_sent += stream.outgoing.sent() - sent;
            self.turn = (index + 1) % N;
            let Piece { offset, len, fin } = piece;
            return Some(StreamPiece { id, offset, len, fin });
        }
        self.note_blocked();
        None
    }

    /// Copies the bytes of a piece just taken into `dest`, which is as long as the piece.
    pub fn copy(&self, piece: &StreamPiece, dest: &mut [u8]) {
        if let Some(index) = self.find(piece.id) {
            self.slots[index].outgoing.copy(piece.offset, dest);
        }
    }

    /// A packet with this piece was acknowledged.
    pub fn on_piece_acked(&mut self, record: StreamPieceRecord) {
        let Some(index) = self.find_short(record.stream) else { return };
        let stream = &mut self.slots[index];
        let Some(piece) = record.piece(stream.outgoing.sent()) else { return };
        stream.outgoing.on_acked(piece);
        if stream.sending != Sending::Open {
            return;
        }
        if stream.outgoing.is_complete() {
            stream.sending = Sending::Done;
            stream.events.set(Flags::DELIVERED);
        } else if stream.writer_waits && stream.outgoing.space() > 0 {
            stream.writer_waits = false;
            stream.events.set(Flags::WRITABLE);
        }
    }

    /// A packet with this piece was lost, or its bytes are to be repeated as a probe.
    pub fn on_piece_lost(&mut self, record: StreamPieceRecord) {
        let Some(index) = self.find_short(record.stream) else { return };
        let stream = &mut self.slots[index];
        if let Some(piece) = record.piece(stream.outgoing.sent()) {
            stream.outgoing.on_lost(piece);
        }
    }

    fn spare_data(&self) -> u64 {
        self.peer.data.saturating_sub(self.data_sent)
    }

    /// Once per limit, the peer is told that more could be sent (RFC 9000 4.1).
    fn note_blocked(&mut self) {
        let spare = self.spare_data();
        let mut waiting = false;
        for stream in self.slots.iter_mut().filter(|stream| stream.sending == Sending::Open) {
            if stream.outgoing.is_blocked(stream.send_credit) {
                if stream.blocked_at != Some(stream.send_credit) {
                    stream.blocked_at = Some(stream.send_credit);
                    stream.blocked_pending = true;
                }
            } else if spare == 0 && stream.outgoing.is_blocked(stream.outgoing.sent()) {
                waiting = true;
            }
        }
        if waiting && self.data_blocked_at != Some(self.peer.data) {
            self.data_blocked_at = Some(self.peer.data);
            self.pending.data_blocked = true;
        }
    }
}

/// Whether the peer permits the stream. Streams opened for 0-RTT may exceed what the server grants later.
fn is_permitted(id: Option<StreamId>, streams: u64) -> bool {
    id.is_some_and(|id| !id.is_client_initiated() || id.index() < streams)
}

fn has_piece<const SEND: usize>(stream: &Stream<SEND>, spare: u64, streams: u64) -> bool {
    let credit = stream.send_credit.min(stream.outgoing.sent().saturating_add(spare));
    stream.sending == Sending::Open
        && is_permitted(stream.id, streams)
        && stream.outgoing.wants_to_send(credit)
}

fn next_stream_control<const SEND: usize>(stream: &mut Stream<SEND>, window: u64) -> Option<Control> {
    let id = stream.id?;
    if core::mem::take(&mut stream.limit_pending) && stream.receiving == Receiving::Open {
        stream.receive_limit = stream.receive_limit.max(stream.incoming.offset() + window);
        return Some(Control::MaxStreamData { id, limit: stream.receive_limit });
    }
    if let Sending::ResetPending { code } = stream.sending {
        stream.sending = Sending::ResetSent { code };
        // What was never sent does not count (RFC 9000 4.5).
        return Some(Control::ResetStream { id, code, final_size: stream.outgoing.sent() });
    }
    if let Stop::Pending { code } = stream.stop {
        stream.stop = Stop::Sent { code };
        if stream.receiving == Receiving::Unwanted {
            return Some(Control::StopSending { id, code });
        }
    }
    if core::mem::take(&mut stream.blocked_pending) {
        return Some(Control::StreamDataBlocked { id, limit: stream.send_credit });
    }
    None
}
