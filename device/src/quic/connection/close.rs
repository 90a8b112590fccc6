//! The end: by either application, by an error, or by silence (RFC 9000 10).

use crate::crypto::Crypto;
use crate::time::Instant;

use super::super::error::{CloseReason, TransportCode};
use super::super::frame::ConnectionClose;
use super::super::recovery::Space;
use super::{Connection, State};

/// Closing and draining last this many probe timeouts (RFC 9000 10.2).
const CLOSING_PTOS: u64 = 3;

/// This end has closed the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Closing {
    pub(super) until: Instant,
    cause: Cause,
    /// CONNECTION_CLOSE is to be sent.
    pub(super) pending: bool,
    /// Datagrams received since, and how many of them make the next answer due: 1, 2, 4, ...
    received: u16,
    answer_at: u16,
}

/// What CONNECTION_CLOSE says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    Transport { code: TransportCode, frame_type: u64, reason: &'static str },
    Application { code: u64, reason: &'static str },
}

impl Closing {
    /// Whether nothing has come in since, so that what is sent now is no repetition.
    pub(super) const fn is_first(&self) -> bool {
        self.received == 0
    }

    /// The frame for a packet of `space`. Before the handshake is complete an application's reasons are
    /// nobody's business (RFC 9000 10.2.3).
    pub(super) const fn frame(&self, space: Space) -> ConnectionClose<'static> {
        match (self.cause, space) {
            (Cause::Transport { code, frame_type, reason }, _) => {
                ConnectionClose::Transport { code, frame_type, reason: reason.as_bytes() }
            }
            (Cause::Application { code, reason }, Space::Application) => {
                ConnectionClose::Application { code, reason: reason.as_bytes() }
            }
            (Cause::Application { .. }, _) => ConnectionClose::Transport {
                code: TransportCode::APPLICATION_ERROR,
                frame_type: 0,
                reason: &[],
            },
        }
    }
}

impl<C: Crypto, const STREAMS: usize, const SEND: usize, const BLOCKS: usize>
    Connection<C, STREAMS, SEND, BLOCKS>
{
    /// Ends the connection with an application error code.
    ///
    /// [`super::Event::Closed`] follows at once. The peer hears of it with the next
    /// [`Self::poll_transmit`]; until [`Self::connect`] or three probe timeouts, stray packets are answered
    /// with the same.
    pub fn close(&mut self, now: Instant, code: u64, reason: &'static str) {
        if self.state == State::Open {
            self.begin_closing(now, Cause::Application { code, reason }, CloseReason::Application { code });
        }
    }

    /// Drops the connection at once and silently. Its keys and secrets are erased.
    ///
    /// What arrived before can still be read.
    #[inline(never)]
    pub fn abandon(&mut self) {
        self.state = State::Idle;
        self.keys.erase();
    }

    /// This end cannot go on.
    pub(super) fn fail(&mut self, now: Instant, reason: CloseReason) {
        let cause = match reason {
            CloseReason::Transport(error) => {
                Cause::Transport { code: error.code, frame_type: error.frame_type, reason: error.reason }
            }
            CloseReason::Tls(error) => Cause::Transport {
                code: TransportCode::crypto(error.alert.0),
                // The alert belongs to the CRYPTO stream.
                frame_type: super::super::frame::kind::CRYPTO,
                reason: error.cause,
            },
            _ => return self.end(reason),
        };
        self.begin_closing(now, cause, reason);
    }

    fn begin_closing(&mut self, now: Instant, cause: Cause, reason: CloseReason) {
        let until = now + self.recovery.pto().saturating_mul(CLOSING_PTOS);
        self.state = State::Closing(Closing { until, cause, pending: true, received: 0, answer_at: 1 });
        self.events.closed = Some(reason);
    }

    /// The peer has closed the connection.
    pub(super) fn drain(&mut self, now: Instant, reason: CloseReason) {
        let until = now + self.recovery.pto().saturating_mul(CLOSING_PTOS);
        self.end(reason);
        self.state = State::Draining { until };
    }

    /// The connection is over and the peer is not told: it does not listen, or must not be asked.
    pub(super) fn end(&mut self, reason: CloseReason) {
        self.abandon();
        self.events.closed = Some(reason);
    }

    /// A datagram arrived while closing: the peer has not heard yet. Answers get rarer (RFC 9000 10.2.1).
    pub(super) fn answer_with_close(&mut self) {
        if let State::Closing(closing) = &mut self.state {
            closing.received = closing.received.saturating_add(1);
            if closing.received >= closing.answer_at {
                closing.answer_at = closing.answer_at.saturating_mul(2);
                closing.pending = true;
            }
        }
    }
}
