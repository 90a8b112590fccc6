//! Datagrams in: taking them apart, removing protection, and what needs no keys.

use crate::crypto::Crypto;
use crate::tls;

use super::super::VERSION_1;
use super::super::ack::{Elicits, Seen};
use super::super::cid::RESET_TOKEN_LEN;
use super::super::crypto_streams::Kept;
use super::super::error::{CloseReason, TransportCode, TransportError};
use super::super::frame::Frame;
use super::super::keys::{Opened, integrity_limit};
use super::super::packet::{LongKind, LongPacket, Packet, RetryPacket, VersionNegotiation};
use super::super::protection::{LevelKeys, Unprotected, is_retry_authentic};
use super::super::recovery::Space;
use super::{Connection, Context, EarlyData, Phase, State};

/// A stateless reset is at least this long (RFC 9000 10.3).
const RESET_LEN_MIN: usize = 21;

/// Why a packet is dropped: nothing follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Drop {
    /// No keys, another identifier, seen before, or too short.
    Unusable,
    /// It does not authenticate.
    Forged,
}

/// A packet whose protection has been removed.
struct Opening {
    number: u64,
    /// Where the payload lies in the packet.
    start: usize,
    end: usize,
}

impl<C: Crypto, const STREAMS: usize, const SEND: usize, const BLOCKS: usize>
    Connection<C, STREAMS, SEND, BLOCKS>
{
    /// Takes in the payload of a UDP datagram from the server; it is decrypted in place.
    ///
    /// Whatever it holds, the outcome shows in [`Self::poll_event`].
    pub fn handle_datagram(&mut self, ctx: &mut Context<'_>, datagram: &mut [u8]) {
        self.counters.on_datagram_received(datagram.len());
        match self.state {
            State::Open => {}
            State::Closing(_) => return self.answer_with_close(),
            State::Idle | State::Draining { .. } => return,
        }
        let mut rest = datagram;
        let mut is_first = true;
        while !rest.is_empty() && self.state == State::Open {
            let packet = match Packet::parse(rest) {
                Ok(packet) => packet,
                Err(_) => return self.counters.on_packet_dropped(),
            };
            match packet {
                Packet::VersionNegotiation(packet) if is_first => {
                    return self.on_version_negotiation(&packet);
                }
                Packet::Retry(packet) if is_first => return self.on_retry(ctx, &packet),
                Packet::VersionNegotiation(_) | Packet::Retry(_) => return self.counters.on_packet_dropped(),
                Packet::Long(long) => {
                    let (packet, tail) = rest.split_at_mut(long.end);
                    self.on_long(ctx, &long, packet);
                    rest = tail;
                }
                Packet::Short => return self.on_short(ctx, rest),
            }
            is_first = false;
        }
    }

    fn on_long(&mut self, ctx: &mut Context<'_>, long: &LongPacket, packet: &mut [u8]) {
        let space = match long.kind {
            LongKind::Initial => Space::Initial,
            LongKind::Handshake => Space::Handshake,
            // Only clients send 0-RTT.
            LongKind::ZeroRtt => return self.counters.on_packet_dropped(),
        };
        // The server's identifier stays what its first packet said (RFC 9000 7.2).
        if self.ids.server.is_some_and(|server| server != long.source) {
            return self.counters.on_packet_dropped();
        }
        match self.open_long(space, long, packet) {
            Ok((header, opening)) => {
                if self.ids.server.is_none() {
                    self.ids.server = Some(long.source);
                    self.cids.replace_initial(long.source);
                }
                self.on_opened(ctx, space, header, &opening, packet);
            }
            Err(drop) => self.on_dropped(ctx, drop),
        }
    }

    fn open_long(
        &self,
        space: Space,
        long: &LongPacket,
        packet: &mut [u8],
    ) -> Result<(Unprotected, Opening), Drop> {
        let keys = self.keys.level(space).ok_or(Drop::Unusable)?;
        let expected = self.expected_number(space);
        let header = keys.remote.header.remove(packet, long.number_at, expected).ok_or(Drop::Unusable)?;
        if self.is_seen(space, header.number) {
            return Err(Drop::Unusable);
        }
        let len = keys.remote.packet.open(header.number, packet, header.header_len);
        let len = len.map_err(|_| Drop::Forged)?;
        let start = header.header_len;
        Ok((header, Opening { number: header.number, start, end: start + len }))
    }

    fn on_short(&mut self, ctx: &mut Context<'_>, packet: &mut [u8]) {
        // Decryption in place destroys the trailer, which might be a stateless reset token.
        let trailer = packet.last_chunk::<RESET_TOKEN_LEN>().copied();
        let trailer = trailer.filter(|_| packet.len() >= RESET_LEN_MIN);
        match self.open_short(ctx, packet) {
            Ok((header, opening)) => self.on_opened(ctx, Space::Application, header, &opening, packet),
            Err(drop) => {
                if trailer.is_some_and(|token| self.cids.is_reset(&token)) {
                    self.end(CloseReason::StatelessReset);
                } else {
                    self.unreadable =
                        self.unreadable.saturating_add(u8::from(drop == Drop::Forged && trailer.is_some()));
                    self.on_dropped(ctx, drop);
                }
            }
        }
    }

    fn open_short(&mut self, ctx: &Context<'_>, packet: &mut [u8]) -> Result<(Unprotected, Opening), Drop> {
        let expected = self.expected_number(Space::Application);
        let pto = self.recovery.pto();
        let next_sent = self.next_number[Space::Application.index()];
        let keys = self.keys.one_rtt_mut().ok_or(Drop::Unusable)?;
        let header = keys.remote_header().remove(packet, 1, expected).ok_or(Drop::Unusable)?;
        if self.received.application.check(header.number) == Seen::Duplicate {
            return Err(Drop::Unusable);
        }
        let opened = keys.open(ctx.now, pto, next_sent, header, packet);
        let (len, opened) = opened.map_err(|_| Drop::Forged)?;
        if opened == Opened::PeerUpdated {
            self.on_keys_updated();
        }
        let start = header.header_len;
        Ok((header, Opening { number: header.number, start, end: start + len }))
    }

    /// An authentic packet: whatever is wrong with it now is the peer's fault.
    fn on_opened(
        &mut self,
        ctx: &mut Context<'_>,
        space: Space,
        header: Unprotected,
        opening: &Opening,
        packet: &[u8],
    ) {
        self.counters.packets_received += 1;
        self.unreadable = 0;
        self.active_at = ctx.now;
        self.sent_since_received = false;
        let payload = &packet[opening.start..opening.end];
        let outcome = if !header.reserved_bits_are_zero() {
            Err(TransportError::violation("reserved bits of the header are set").into())
        } else if payload.is_empty() {
            Err(TransportError::violation("a packet without frames").into())
        } else {
            self.handle_payload(ctx, space, opening.number, payload)
        };
        if let Err(reason) = outcome {
            self.fail(ctx.now, reason);
        }
    }

    fn handle_payload(
        &mut self,
        ctx: &mut Context<'_>,
        space: Space,
        number: u64,
        payload: &[u8],
    ) -> Result<(), CloseReason> {
        let mut elicits = Elicits::Nothing;
        let mut kept = Kept::Yes;
        let mut reader = crate::codec::Reader::new(payload);
        while !reader.is_empty() {
            let (kind, frame) = Frame::decode(&mut reader)?;
            if space != Space::Application && !frame.is_allowed_in_handshake() {
                return Err(TransportError::violation("a frame that its packet type forbids")
                    .in_frame(kind)
                    .into());
            }
            if frame.is_ack_eliciting() {
                elicits = Elicits::Ack;
            }
            let handled = self.handle_frame(ctx, space, number, frame);
            let handled = handled.map_err(|reason| match reason {
                CloseReason::Transport(error) => CloseReason::Transport(error.in_frame(kind)),
                other => other,
            })?;
            if handled == Kept::No {
                kept = handled;
            }
            if self.state != State::Open {
                return Ok(());
            }
        }
        if kept == Kept::Yes {
            self.note_received(ctx, space, number, elicits);
        }
        Ok(())
    }

    fn note_received(&mut self, ctx: &Context<'_>, space: Space, number: u64, elicits: Elicits) {
        let (now, at_once) = (ctx.now, crate::time::Duration::ZERO);
        match space {
            // With the ServerHello, Initial packets are over.
            Space::Initial if self.keys.level(space).is_none() => {}
            Space::Initial | Space::Handshake => {
                self.received.long.on_received(now, number, elicits, at_once);
            }
            Space::Application => {
                self.received.application.on_received(now, number, elicits, super::MAX_ACK_DELAY);
            }
        }
    }

    fn expected_number(&self, space: Space) -> u64 {
        let largest = match space {
            Space::Initial | Space::Handshake => self.received.long.largest(),
            Space::Application => self.received.application.largest(),
        };
        largest.map_or(0, |largest| largest + 1)
    }

    fn is_seen(&self, space: Space, number: u64) -> bool {
        let seen = match space {
            Space::Initial | Space::Handshake => self.received.long.check(number),
            Space::Application => self.received.application.check(number),
        };
        seen == Seen::Duplicate
    }

    fn on_dropped(&mut self, ctx: &Context<'_>, drop: Drop) {
        self.counters.on_packet_dropped();
        if drop == Drop::Unusable {
            return;
        }
        self.forged += 1;
        if let Some(keys) = self.keys.one_rtt()
            && self.forged >= integrity_limit(keys.suite())
        {
            let reason = "as many forged packets as the cipher permits";
            self.fail(ctx.now, TransportError::new(TransportCode::AEAD_LIMIT_REACHED, reason).into());
        }
    }

    pub(super) fn on_keys_updated(&mut self) {
        self.counters.key_updates += 1;
        self.events.key_updated = true;
    }

    /// RFC 9000 6.2. Anybody can send this: it counts only as an answer to the first flight.
    #[inline(never)]
    fn on_version_negotiation(&mut self, packet: &VersionNegotiation<'_>) {
        let is_answer = self.ids.server.is_none()
            && self.ids.retry.is_none()
            && packet.source == self.ids.original.as_bytes();
        if !is_answer || packet.versions.contains(VERSION_1) {
            return self.counters.on_packet_dropped();
        }
        self.end(CloseReason::VersionNegotiation);
    }

    /// RFC 9000 17.2.5.2: one Retry, before anything else from the server.
    #[inline(never)]
    fn on_retry(&mut self, ctx: &mut Context<'_>, packet: &RetryPacket<'_>) {
        let is_first = self.ids.server.is_none() && self.ids.retry.is_none();
        if !is_first
            || packet.source == self.ids.original
            || !is_retry_authentic::<C>(packet, &self.ids.original)
        {
            return self.counters.on_packet_dropped();
        }
        if !self.set_token(packet.token) {
            return self.counters.on_packet_dropped();
        }
        self.ids.retry = Some(packet.source);
        self.cids.replace_initial(packet.source);
        self.keys.long = Some((Space::Initial, LevelKeys::initial(&packet.source)));
        self.repair_with(|recovery, repair| recovery.on_retry(ctx.now, |outcome| repair.apply(outcome)));
        self.crypto_out.rewind();
        self.active_at = ctx.now;
        self.reach(Phase::Retried);
    }

    /// What TLS calls the level of a space.
    pub(super) const fn level(space: Space) -> tls::Level {
        match space {
            Space::Initial => tls::Level::Initial,
            Space::Handshake => tls::Level::Handshake,
            Space::Application => tls::Level::Application,
        }
    }

    /// Whether 0-RTT data may be under way.
    pub(super) const fn has_early_data(&self) -> bool {
        matches!(self.early_data, EarlyData::Offered)
    }
}
