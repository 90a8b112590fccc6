//! Frames in: each goes to whom it concerns.

use crate::crypto::Crypto;
use crate::time::{Duration, Instant};

use super::super::crypto_streams::{Kept, flight_start};
use super::super::error::{CloseReason, TransportCode, TransportError};
use super::super::frame::{Ack, ConnectionClose, Direction, Frame};
use super::super::recovery::{Recovery, Space};
use super::super::stream;
use super::record::{Record, Repair};
use super::{Connection, Context, Phase, SENT_PACKETS_MAX, TOKEN_LEN_MAX};

impl<C: Crypto, const STREAMS: usize, const SEND: usize, const BLOCKS: usize>
    Connection<C, STREAMS, SEND, BLOCKS>
{
    pub(super) fn handle_frame(
        &mut self,
        ctx: &mut Context<'_>,
        space: Space,
        number: u64,
        frame: Frame<'_>,
    ) -> Result<Kept, CloseReason> {
        match frame {
            Frame::Padding | Frame::Ping => {}
            Frame::Ack(ack) => self.on_ack(ctx, space, &ack)?,
            Frame::Crypto(crypto) => return self.on_crypto(ctx, space, crypto.offset, crypto.data),
            Frame::Stream(f) => self.streams.on_stream(f.id, f.offset, f.data, f.fin).map_err(broken)?,
            Frame::ResetStream(f) => {
                self.streams.on_reset_stream(f.id, f.code, f.final_size).map_err(broken)?;
            }
            Frame::StopSending(f) => self.streams.on_stop_sending(f.id, f.code).map_err(broken)?,
            Frame::MaxData(f) => self.streams.on_max_data(f.limit),
            Frame::MaxStreamData(f) => self.streams.on_max_stream_data(f.id, f.limit).map_err(broken)?,
            Frame::MaxStreams(f) if f.direction == Direction::Bidirectional => {
                self.streams.on_max_streams(f.limit);
            }
            Frame::StreamDataBlocked(f) => self.streams.on_stream_data_blocked(f.id).map_err(broken)?,
            // Unidirectional streams are never opened; limits are raised when data is read, not on demand.
            Frame::MaxStreams(_) | Frame::DataBlocked(_) | Frame::StreamsBlocked(_) => {}
            Frame::NewToken(f) => self.on_new_token(ctx, f.token),
            Frame::NewConnectionId(f) => {
                self.cids.on_new(f.sequence, f.retire_prior_to, f.cid, f.token)?;
            }
            Frame::RetireConnectionId(_) => {
                let reason = "RETIRE_CONNECTION_ID for a client with a zero-length identifier";
                return Err(TransportError::violation(reason).into());
            }
            Frame::PathChallenge(f) => self.path.on_challenge(f.data),
            Frame::PathResponse(f) => {
                self.events.path_validated |= self.path.on_response(f.data);
            }
            Frame::ConnectionClose(close) => self.on_peer_close(ctx.now, &close),
            Frame::HandshakeDone => self.on_handshake_done(ctx)?,
        }
        let _ = number;
        Ok(Kept::Yes)
    }

    /// Out of line: [`Self::on_crypto`] says why.
    #[inline(never)]
    fn on_ack(&mut self, ctx: &Context<'_>, space: Space, ack: &Ack<'_>) -> Result<(), CloseReason> {
        let delay = match space {
            Space::Application => self.ack_delay(ack.delay),
            // Handshake packets are acknowledged at once (RFC 9000 13.2.1).
            Space::Initial | Space::Handshake => Duration::ZERO,
        };
        let ranges = ack.ranges.clone();
        let acked = self.repair_with(|recovery, repair| {
            recovery.on_ack(ctx.now, space, ranges, delay, |outcome| repair.apply(outcome))
        });
        let Ok(acked) = acked else {
            return Err(TransportError::violation("an acknowledgement of a packet that was not sent").into());
        };
        if let (Space::Application, Some(largest), Some(keys)) =
            (space, acked.largest_newly_acked, self.keys.one_rtt_mut())
        {
            // The server can read 1-RTT packets, so it has the client's Finished (RFC 9001 4.1.2).
            let is_confirmed = keys.on_acked(largest);
            if is_confirmed && !self.is_confirmed() {
                self.confirm(ctx.now);
            }
        }
        Ok(())
    }

    fn ack_delay(&self, encoded: u64) -> Duration {
        // Beyond 2^40 the delay is a lie; without a bound the shift would lose bits.
        Duration::from_micros(encoded.min(1 << 40) << self.agreed.ack_delay_exponent)
    }

    fn on_new_token(&mut self, ctx: &mut Context<'_>, token: &[u8]) {
        if token.len() <= TOKEN_LEN_MAX {
            ctx.store.on_token(token);
            self.events.token = true;
        }
    }

    fn on_handshake_done(&mut self, ctx: &Context<'_>) -> Result<(), CloseReason> {
        if !self.is_complete() {
            return Err(TransportError::violation("HANDSHAKE_DONE before the handshake is complete").into());
        }
        if !self.is_confirmed() {
            self.confirm(ctx.now);
        }
        Ok(())
    }

    /// The handshake is confirmed: its keys are not needed any more (RFC 9001 4.9.2).
    fn confirm(&mut self, now: Instant) {
        self.reach(Phase::Confirmed);
        self.keys.long = None;
        self.recovery.discard_space(now, Space::Handshake);
        self.recovery.on_handshake_confirmed(now);
        self.free_flight();
        self.path.begin_search(&self.config, self.agreed.max_udp_payload_size);
    }

    /// The server has the whole handshake: what it took in memory is free for its tickets.
    pub(super) fn free_flight(&mut self) {
        self.crypto_out.forget();
        let end = BLOCKS * stream::BLOCK;
        self.crypto_in.widen(self.streams.memory_mut().as_mut_bytes(), flight_start(end)..end);
    }

    fn on_peer_close(&mut self, now: Instant, close: &ConnectionClose<'_>) {
        let reason = match *close {
            ConnectionClose::Application { code, .. } => CloseReason::PeerApplication { code },
            ConnectionClose::Transport { code, frame_type, .. } => {
                CloseReason::PeerTransport { code, frame_type }
            }
        };
        self.drain(now, reason);
    }

    /// Lets `f` use recovery with everything that learns of a packet's fate.
    pub(super) fn repair_with<R>(
        &mut self,
        f: impl FnOnce(&mut Recovery<Record, SENT_PACKETS_MAX>, &mut Repair<'_, STREAMS, SEND, BLOCKS>) -> R,
    ) -> R {
        let mut repair = Repair {
            streams: &mut self.streams,
            crypto: &mut self.crypto_out,
            cids: &mut self.cids,
            path: &mut self.path,
            received: &mut self.received,
        };
        f(&mut self.recovery, &mut repair)
    }
}

/// The code of a broken stream rule.
fn broken(error: stream::Error) -> CloseReason {
    let (code, reason) = match error {
        stream::Error::FlowControl => {
            (TransportCode::FLOW_CONTROL_ERROR, "more data than flow control permits")
        }
        stream::Error::StreamLimit => (TransportCode::STREAM_LIMIT_ERROR, "a stream beyond the limit"),
        stream::Error::StreamState => {
            (TransportCode::STREAM_STATE_ERROR, "a frame that the stream's state forbids")
        }
        stream::Error::FinalSize => (TransportCode::FINAL_SIZE_ERROR, "contradictory final sizes"),
    };
    TransportError::new(code, reason).into()
}
