//! Datagrams out: which packets, with which frames.
//!
//! A packet is written straight into the caller's buffer and protected there.

use core::ops::Range;

use crate::codec::Writer;
use crate::crypto::{Crypto, TAG_LEN};
use crate::time::Instant;

use super::super::config::{DATAGRAM_LEN_MIN, DatagramBuffer};
use super::super::error::{TransportCode, TransportError};
use super::super::frame::{self, Ack, ConnectionClose, PathChallenge, PathResponse, kind};
use super::super::packet::{
    LongKind, encode_long_header, encode_short_header, finish_long_header, number_len,
};
use super::super::path::Validation;
use super::super::protection::{SAMPLE_OFFSET, protect};
use super::super::recovery::{PacketKind, Permit, Space};
use super::super::stream::{Control, StreamPiece};
use super::record::{Record, SentFrame};
use super::timers::encoded_ack_delay;
use super::{Connection, Context, Ping, State};

/// Less room than this in a datagram is not worth another packet: header, number, one frame, tag.
const PACKET_LEN_MIN: usize = 64;
/// Less room than this is not worth a STREAM frame.
const STREAM_ROOM_MIN: usize = 16;
/// What CONNECTION_CLOSE needs without its reason, which is cut to what is left.
const CLOSE_ROOM: usize = 16;

/// What a packet has got so far.
struct Draft {
    record: Record,
    kind: PacketKind,
    /// The datagram must be at least this long in the end (RFC 9000 8.2.1, 14.1).
    pad_to: usize,
}

/// What a space has to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    Nothing,
    AckOnly,
    Frames,
}

impl<C: Crypto, const STREAMS: usize, const SEND: usize, const BLOCKS: usize>
    Connection<C, STREAMS, SEND, BLOCKS>
{
    /// Puts the next datagram into `buffer` and returns its length; `None` when there is nothing to
    /// send now. Call until `None`.
    pub fn poll_transmit(&mut self, ctx: &mut Context<'_>, buffer: &mut DatagramBuffer) -> Option<usize> {
        let len = match self.state {
            State::Idle | State::Draining { .. } => return None,
            State::Closing(_) => self.transmit_close(ctx.now, buffer)?,
            State::Open => self.transmit(ctx, buffer)?,
        };
        self.counters.on_datagram_sent(len);
        Some(len)
    }

    fn transmit(&mut self, ctx: &mut Context<'_>, buffer: &mut [u8]) -> Option<usize> {
        self.paced_until = None;
        self.update_keys_if_due(ctx.now);
        if self.state != State::Open {
            return self.transmit_close(ctx.now, buffer);
        }
        let limit = buffer.len().min(usize::from(self.path.datagram_len()));
        let mut wishes = Space::ALL.map(|space| self.wish(ctx.now, space));
        if wishes == [Wish::Nothing; 3] {
            return self.transmit_mtu_probe(ctx.now, buffer);
        }
        let mut len = 0;
        let mut pad_to = 0;
        for space in Space::ALL {
            let wish = core::mem::replace(&mut wishes[space.index()], Wish::Nothing);
            if wish == Wish::Nothing || limit - len < PACKET_LEN_MIN {
                continue;
            }
            if space == Space::Initial {
                pad_to = usize::from(DATAGRAM_LEN_MIN);
            }
            let is_last = wishes == [Wish::Nothing; 3];
            let padding = if is_last { pad_to } else { 0 };
            len += self.transmit_packet(ctx, space, wish, &mut buffer[..limit], len, padding);
        }
        if len > 0 && len < pad_to.min(limit) {
            // A later packet was promised and did not come about: zeros are no packet, and ignored.
            buffer[len..pad_to].fill(0);
            len = pad_to;
        }
        (len > 0).then_some(len)
    }

    /// What is to be sent in `space` now. Out of line: a copy for each space takes 370 bytes more.
    #[inline(never)]
    fn wish(&mut self, now: Instant, space: Space) -> Wish {
        let (ack_due, has_frames) = match space {
            Space::Initial | Space::Handshake if self.keys.level(space).is_none() => return Wish::Nothing,
            Space::Initial | Space::Handshake => {
                (self.received.long.is_due(now), self.crypto_out.wants_to_send(space))
            }
            Space::Application => {
                let is_complete = self.keys.one_rtt().is_some();
                if !is_complete && self.keys.early.is_none() {
                    return Wish::Nothing;
                }
                (is_complete && self.received.application.is_due(now), self.wants_application_frames())
            }
        };
        if self.recovery.probes(space) > 0 {
            return Wish::Frames;
        }
        // In an Initial packet an acknowledgement fills a datagram, which is in flight as any other: who sends PINGs there,
        // and everybody on the path can, gets no more out of it than the congestion window holds.
        let ack_is_padded = space == Space::Initial;
        if has_frames || (ack_due && ack_is_padded) {
            match self.recovery.permit(now, space, DATAGRAM_LEN_MIN) {
                Permit::Send => return Wish::Frames,
                Permit::Paced(until) => self.paced_until = Some(until),
                Permit::CongestionLimited | Permit::TableFull => {}
            }
        }
        if ack_due && !ack_is_padded { Wish::AckOnly } else { Wish::Nothing }
    }

    fn wants_application_frames(&self) -> bool {
        self.streams.wants_to_send()
            || (self.keys.one_rtt().is_some()
                && (self.pending.ping.is_some()
                    || self.path.owes_response()
                    || self.path.validation() == Validation::Due
                    || self.cids.next_retirement().is_some()))
    }

    /// Writes one packet behind the first `start` bytes of the datagram. Returns its length; zero if
    /// nothing came about.
    fn transmit_packet(
        &mut self,
        ctx: &mut Context<'_>,
        space: Space,
        wish: Wish,
        datagram: &mut [u8],
        start: usize,
        pad_to: usize,
    ) -> usize {
        let number = self.next_number[space.index()];
        let end = datagram.len() - TAG_LEN;
        let mut w = Writer::new(&mut datagram[start..end]);
        let Some(number_at) = self.write_header(space, number, &mut w) else { return 0 };
        let header_len = w.len();
        let mut draft = Draft { record: Record::new(), kind: PacketKind::AckOnly, pad_to };
        self.write_ack(ctx.now, space, &mut draft, &mut w);
        if wish == Wish::Frames {
            self.write_frames(ctx, space, &mut draft, &mut w);
        }
        if w.len() == header_len {
            return 0;
        }
        self.write_padding(&mut draft, start, number_at.start, &mut w);
        let len = w.len() + TAG_LEN;
        let packet = &mut datagram[start..start + len];
        self.seal(space, number, number_at, packet);
        self.next_number[space.index()] += 1;
        self.counters.packets_sent += 1;
        self.recovery.on_sent(ctx.now, space, number, len as u16, draft.kind, draft.record);
        if draft.kind != PacketKind::AckOnly && !self.sent_since_received {
            self.sent_since_received = true;
            self.active_at = ctx.now;
        }
        len
    }

    fn write_header(&self, space: Space, number: u64, w: &mut Writer<'_>) -> Option<Range<usize>> {
        let number_len = number_len(number, self.recovery.largest_acked(space));
        let destination = self.cids.active();
        let long = match space {
            Space::Initial => LongKind::Initial,
            Space::Handshake => LongKind::Handshake,
            Space::Application => match self.keys.one_rtt() {
                Some(keys) => {
                    return encode_short_header(destination, keys.phase(), number, number_len, w).ok();
                }
                None => LongKind::ZeroRtt,
            },
        };
        let token = &self.streams.memory().as_bytes()[..usize::from(self.token_len)];
        encode_long_header(long, destination, token, number, number_len, w).ok()
    }

    /// Adds an acknowledgement to whatever is sent, if one is owed. 0-RTT packets carry none.
    ///
    /// Handshake packets and probes repeat the last one: it may have been lost, and the peer's timers run on it.
    fn write_ack(&mut self, now: Instant, space: Space, draft: &mut Draft, w: &mut Writer<'_>) {
        if space == Space::Application && self.keys.one_rtt().is_none() {
            return;
        }
        let repeats = space != Space::Application || self.recovery.probes(space) > 0;
        macro_rules! write {
            ($received:expr) => {{
                let received = $received;
                let Some(largest) = received.largest().filter(|_| repeats || received.is_pending()) else {
                    return;
                };
                let delay = match space {
                    Space::Application => encoded_ack_delay(received.delay(now)),
                    Space::Initial | Space::Handshake => 0,
                };
                if Ack::encode(delay, received.ranges(), w).is_ok() {
                    received.on_ack_sent();
                    // The few packets of a handshake may be acknowledged again and again.
                    if space == Space::Application {
                        draft.record.set_acked(largest);
                    }
                }
            }};
        }
        match space {
            Space::Initial | Space::Handshake => write!(&mut self.received.long),
            Space::Application => write!(&mut self.received.application),
        }
    }

    fn write_frames(&mut self, ctx: &mut Context<'_>, space: Space, draft: &mut Draft, w: &mut Writer<'_>) {
        let before = w.len();
        if space == Space::Application {
            if self.keys.one_rtt().is_some() {
                self.write_path_frames(ctx, draft, w);
                self.write_retirements(draft, w);
            }
            self.write_stream_frames(draft, w);
        } else {
            self.write_crypto(space, draft, w);
        }
        let is_probe = self.recovery.probes(space) > 0;
        let ping = self.pending.ping.filter(|_| space == Space::Application);
        let says_nothing_else = w.len() == before;
        if says_nothing_else && (is_probe || ping.is_some()) {
            let _ = w.varint(kind::PING);
        }
        if w.len() > before {
            let looks_out = says_nothing_else && !is_probe && ping == Some(Ping::Lookout);
            draft.kind = if looks_out { PacketKind::Lookout } else { PacketKind::AckEliciting };
            if space == Space::Application {
                self.pending.ping = None;
            }
        }
    }

    fn write_crypto(&mut self, space: Space, draft: &mut Draft, w: &mut Writer<'_>) {
        while draft.record.has_room() && self.crypto_out.wants_to_send(space) {
            let Some(room) = w.remaining().checked_sub(frame::Crypto::OVERHEAD_MAX) else { return };
            let Some(piece) = self.crypto_out.next_piece(space, room) else { return };
            let data = self.crypto_out.bytes(self.streams.memory().as_bytes(), piece);
            let crypto = frame::Crypto { offset: u64::from(piece.offset), data };
            let written = crypto.encode(w);
            debug_assert!(written.is_ok(), "room was left for the frame's fields");
            draft.record.push(SentFrame::Crypto(space, piece));
        }
    }

    fn write_path_frames(&mut self, ctx: &mut Context<'_>, draft: &mut Draft, w: &mut Writer<'_>) {
        // In an empty packet of 1200 bytes both always fit.
        if self.path.validation() == Validation::Due {
            let mut data = [0; frame::PATH_DATA_LEN];
            ctx.entropy.fill(&mut data);
            if (PathChallenge { data }).encode(w).is_ok() {
                self.path.on_challenge_sent(ctx.now, self.recovery.pto(), data);
                draft.pad_to = usize::from(DATAGRAM_LEN_MIN);
            }
        }
        if w.remaining() > frame::PATH_DATA_LEN
            && let Some(data) = self.path.next_response()
        {
            let written = PathResponse { data }.encode(w);
            debug_assert!(written.is_ok(), "room was asked for");
            draft.pad_to = usize::from(DATAGRAM_LEN_MIN);
        }
    }

    fn write_retirements(&mut self, draft: &mut Draft, w: &mut Writer<'_>) {
        while let Some(sequence) = self.cids.next_retirement() {
            let before = w.len();
            if !draft.record.has_room() || (frame::RetireConnectionId { sequence }).encode(w).is_err() {
                w.truncate(before);
                return;
            }
            self.cids.on_retirement_sent(sequence);
            draft.record.push(SentFrame::Retire(sequence as u16));
        }
    }

    fn write_stream_frames(&mut self, draft: &mut Draft, w: &mut Writer<'_>) {
        while draft.record.has_room()
            && let Some(control) = self.streams.next_control()
        {
            let before = w.len();
            if encode_control(&control, w).is_err() {
                w.truncate(before);
                return self.streams.on_control_lost(control.record());
            }
            draft.record.push(SentFrame::Control(control.record()));
        }
        while draft.record.has_room()
            && w.remaining() >= STREAM_ROOM_MIN
            && let Some(piece) = self.streams.next_piece(w.remaining())
        {
            self.write_piece(&piece, draft, w);
        }
    }

    /// What the application wrote just before it closed the connection, such as DISCONNECT: nobody repeats it.
    fn write_last_words(&mut self, draft: &mut Draft, w: &mut Writer<'_>) {
        if let Some(room) = w.remaining().checked_sub(CLOSE_ROOM)
            && room >= STREAM_ROOM_MIN
            && let Some(piece) = self.streams.next_piece(room)
        {
            self.write_piece(&piece, draft, w);
        }
    }

    fn write_piece(&mut self, piece: &StreamPiece, draft: &mut Draft, w: &mut Writer<'_>) {
        let written = frame::Stream::encode_header(piece.id, piece.offset, piece.len, piece.fin, w);
        debug_assert!(written.is_ok(), "next_piece left room for the header");
        if let Ok(data) = w.skip(piece.len) {
            self.streams.copy(piece, data);
        }
        draft.record.push(SentFrame::Stream(piece.record()));
    }

    /// Pads the datagram to what it needs, and the packet so that header protection finds its sample.
    fn write_padding(&self, draft: &mut Draft, start: usize, number_at: usize, w: &mut Writer<'_>) {
        let for_datagram = draft.pad_to.saturating_sub(start + TAG_LEN);
        let for_sample = number_at + SAMPLE_OFFSET;
        let missing = for_datagram.max(for_sample).saturating_sub(w.len());
        if missing > 0 {
            let _ = w.zeros(missing.min(w.remaining()));
            if for_datagram > 0 && draft.kind == PacketKind::AckOnly {
                draft.kind = PacketKind::Padded;
            }
        }
    }

    fn seal(&mut self, space: Space, number: u64, number_at: Range<usize>, packet: &mut [u8]) {
        let level = match space {
            Space::Initial | Space::Handshake => self.keys.level(space),
            Space::Application => {
                if let Some(keys) = self.keys.one_rtt_mut() {
                    keys.on_sealed();
                    let (key, header) = keys.local();
                    return protect(packet, number, number_at, key, header);
                }
                finish_long_header(packet, number_at.start);
                let keys = self.keys.early.as_ref().expect("a wish needs keys");
                return protect(packet, number, number_at, &keys.packet, &keys.header);
            }
        };
        finish_long_header(packet, number_at.start);
        let keys = &level.expect("a wish needs keys").local;
        protect(packet, number, number_at, &keys.packet, &keys.header);
    }

    fn update_keys_if_due(&mut self, now: Instant) {
        let confirmed = self.is_confirmed();
        let next_sent = self.next_number[Space::Application.index()];
        let Some(keys) = self.keys.one_rtt_mut() else { return };
        let wanted = self.pending.key_update || keys.wants_update(self.config.key_update_packets);
        if confirmed && wanted && keys.begin_update(next_sent) {
            self.pending.key_update = false;
            self.on_keys_updated();
        } else if keys.is_exhausted() {
            let reason = "the cipher permits no further packet with this key";
            self.fail(now, TransportError::new(TransportCode::AEAD_LIMIT_REACHED, reason).into());
        }
    }

    /// A probe for larger datagrams, when there is nothing better to do.
    fn transmit_mtu_probe(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        let len = self.path.due_probe()?;
        let datagram = buffer.get_mut(..usize::from(len))?;
        if self.recovery.permit(now, Space::Application, len) != Permit::Send {
            return None;
        }
        let space = Space::Application;
        let number = self.next_number[space.index()];
        let end = datagram.len() - TAG_LEN;
        let mut w = Writer::new(&mut datagram[..end]);
        let number_at = self.write_header(space, number, &mut w)?;
        w.varint(kind::PING).ok()?;
        w.zeros(w.remaining()).ok()?;
        self.seal(space, number, number_at, datagram);
        let mut record = Record::new();
        record.push(SentFrame::MtuProbe(len));
        self.next_number[space.index()] += 1;
        self.counters.packets_sent += 1;
        self.path.on_probe_sent();
        self.recovery.on_sent(now, space, number, len, PacketKind::MtuProbe, record);
        Some(usize::from(len))
    }

    /// CONNECTION_CLOSE at every level the peer may have keys for (RFC 9000 10.2.3).
    fn transmit_close(&mut self, _now: Instant, buffer: &mut [u8]) -> Option<usize> {
        let State::Closing(closing) = &mut self.state else { return None };
        if !core::mem::take(&mut closing.pending) {
            return None;
        }
        let closing = *closing;
        let is_keyed = [
            self.keys.level(Space::Initial).is_some(),
            self.keys.level(Space::Handshake).is_some(),
            self.keys.one_rtt().is_some_and(|keys| !keys.is_exhausted()),
        ];
        let limit = buffer.len().min(usize::from(DATAGRAM_LEN_MIN));
        let mut len = 0;
        for space in Space::ALL.into_iter().filter(|space| is_keyed[space.index()]) {
            let is_last = !is_keyed[space.index() + 1..].contains(&true);
            let number = self.next_number[space.index()];
            let mut w = Writer::new(&mut buffer[len..limit - TAG_LEN]);
            let Some(number_at) = self.write_header(space, number, &mut w) else { break };
            let pad_to = if is_keyed[0] && is_last { limit } else { 0 };
            let mut draft = Draft { record: Record::new(), kind: PacketKind::AckOnly, pad_to };
            let frame = closing.frame(space);
            if closing.is_first() && matches!(frame, ConnectionClose::Application { .. }) {
                self.write_last_words(&mut draft, &mut w);
            }
            if frame.encode(&mut w).is_err() {
                break;
            }
            self.write_padding(&mut draft, len, number_at.start, &mut w);
            let packet_len = w.len() + TAG_LEN;
            self.seal(space, number, number_at, &mut buffer[len..len + packet_len]);
            self.next_number[space.index()] += 1;
            self.counters.packets_sent += 1;
            len += packet_len;
        }
        (len > 0).then_some(len)
    }
}

fn encode_control(control: &Control, w: &mut Writer<'_>) -> Result<(), crate::codec::NoSpace> {
    let direction = frame::Direction::Bidirectional;
    match *control {
        Control::MaxData { limit } => frame::MaxData { limit }.encode(w),
        Control::MaxStreams { limit } => frame::MaxStreams { direction, limit }.encode(w),
        Control::MaxStreamData { id, limit } => frame::MaxStreamData { id, limit }.encode(w),
        Control::ResetStream { id, code, final_size } => {
            frame::ResetStream { id, code, final_size }.encode(w)
        }
        Control::StopSending { id, code } => frame::StopSending { id, code }.encode(w),
        Control::DataBlocked { limit } => frame::DataBlocked { limit }.encode(w),
        Control::StreamDataBlocked { id, limit } => frame::StreamDataBlocked { id, limit }.encode(w),
        Control::StreamsBlocked { limit } => frame::StreamsBlocked { direction, limit }.encode(w),
    }
}
