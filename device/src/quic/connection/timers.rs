//! What happens when nothing happens (RFC 9000 10.1; RFC 9002 6).

use crate::crypto::Crypto;
use crate::time::{Duration, Instant};

use super::super::error::CloseReason;
use super::super::recovery::{Expired, Space};
use super::{Connection, Context, Ping, State};

/// The idle timeout is never shorter than this many probe timeouts (RFC 9000 10.1).
const IDLE_PTOS: u64 = 3;

impl<C: Crypto, const STREAMS: usize, const SEND: usize, const BLOCKS: usize>
    Connection<C, STREAMS, SEND, BLOCKS>
{
    /// Does what is due at `ctx.now`; call it when [`Self::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now;
        match self.state {
            State::Idle => return,
            State::Closing(closing) => return self.leave_at(now, closing.until),
            State::Draining { until } => return self.leave_at(now, until),
            State::Open => {}
        }
        if self.idle_deadline().is_some_and(|at| at <= now) {
            return self.end(CloseReason::IdleTimeout);
        }
        if self.handshake_deadline().is_some_and(|at| at <= now) {
            return self.end(CloseReason::HandshakeTimeout);
        }
        if self.keep_alive_at().is_some_and(|at| at <= now) {
            self.pending.ping = Some(Ping::Presence);
        } else if self.lookout_at().is_some_and(|at| at <= now) {
            self.pending.ping = Some(Ping::Lookout);
        }
        if let Some(keys) = self.keys.one_rtt_mut() {
            keys.handle_timeout(now);
        }
        self.events.path_failed |= self.path.handle_timeout(now);
        if self.paced_until.is_some_and(|at| at <= now) {
            self.paced_until = None;
        }
        self.on_loss_timer(now);
    }

    /// When [`Self::handle_timeout`] wants to be called, if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Idle => return None,
            State::Closing(closing) => return Some(closing.until),
            State::Draining { until } => return Some(until),
            State::Open => {}
        }
        let keys = self.keys.one_rtt();
        let timers = [
            self.recovery.poll_timeout(),
            self.received.application.poll_timeout(),
            self.idle_deadline(),
            self.handshake_deadline(),
            self.keep_alive_at(),
            self.lookout_at(),
            self.paced_until,
            self.path.poll_timeout(),
            keys.and_then(super::OneRttKeys::poll_timeout),
        ];
        timers.into_iter().flatten().min()
    }

    fn leave_at(&mut self, now: Instant, until: Instant) {
        if until <= now {
            self.abandon();
        }
    }

    /// The idle timeout that holds, if any.
    fn idle_timeout(&self) -> Option<Duration> {
        if self.agreed.idle_timeout.is_zero() {
            return None;
        }
        let floor = self.recovery.pto().saturating_mul(IDLE_PTOS);
        Some(self.agreed.idle_timeout.max(floor))
    }

    fn idle_deadline(&self) -> Option<Instant> {
        Some(self.active_at + self.idle_timeout()?)
    }

    fn handshake_deadline(&self) -> Option<Instant> {
        let limited = !self.is_complete() && !self.config.handshake_timeout.is_zero();
        limited.then(|| self.started + self.config.handshake_timeout)
    }

    /// With a packet under way that the peer has to acknowledge, probe timeouts and lookouts already ask for a sign of
    /// life; a PING beside them would say nothing more.
    fn keep_alive_at(&self) -> Option<Instant> {
        let wanted = self.is_confirmed()
            && !self.config.keep_alive.is_zero()
            && self.pending.ping.is_none()
            && !self.sent_since_received;
        wanted.then(|| {
            let half = self
                .idle_timeout()
                .map_or(Duration::MAX, |whole| Duration::from_micros(whole.as_micros() / 2));
            self.active_at + self.config.keep_alive.min(half)
        })
    }

    fn lookout_at(&self) -> Option<Instant> {
        self.recovery.lookout_at().filter(|_| self.pending.ping.is_none())
    }

    fn on_loss_timer(&mut self, now: Instant) {
        let expired = self.repair_with(|recovery, repair| {
            let expired = recovery.on_timeout(now, |outcome| repair.apply(outcome));
            if let Some(Expired::Probe { space, probes }) = expired {
                // What the oldest packets carried goes out again; with nothing to repeat, a PING does.
                for record in recovery.unacked(space).take(usize::from(probes)) {
                    repair.on_lost(&record);
                }
                if space == Space::Application {
                    repair.path.on_probe_timeout(recovery.backoff());
                } else if let Some(record) = recovery.unacked(Space::Application).next() {
                    // Before the handshake is confirmed such a packet has no timeout of its own: a lost CONNECT would
                    // wait for the server's HANDSHAKE_DONE. It goes with the handshake's probe (RFC 9002 6.2.4).
                    repair.on_lost(&record);
                }
            }
            expired
        });
        if let Some(Expired::Probe { .. }) = expired {
            self.paced_until = None;
        }
    }
}

/// The delay of an acknowledgement in the unit of ACK frames: 8 us, the default exponent.
pub(super) const fn encoded_ack_delay(delay: Duration) -> u64 {
    delay.as_micros() >> 3
}
