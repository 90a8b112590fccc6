//! The connection policy: one state machine for every transport.
//!
//! ```text
//!        connect            status Open, or Early         CONNACK
//!  Idle ---------> Opening ----------------------> Opened --------> Online
//!   ^                 |                               |                |
//!   |                 +-------------------------------+----------------+
//!   |   permanent, or                 down            |  disconnect
//!   +--- attempts used up <--- Waiting (backoff) <----+-------> Closing ---> Idle
//! ```
//!
//! A failing connection is left in this order: the owner is asked for a new local port (migration keeps
//! everything: keys, streams, messages under way), then the connection is given up and a new one opened
//! with a ticket, then without. The MQTT session outlives all of that.

use heapless::Deque;

use super::transport::{AbortReason, Attempt, Close, EarlyData, Resumption, Status, Transport};
use super::{Cause, Connected, Event, FailureKind, Phase, Phases, PolicyStats, Reconnect, Settings};
use crate::mqtt::session::{self, BeginError, Notice, PacketBuffer};
use crate::mqtt::{ReasonCode, Replay, Session};
use crate::time::{Duration, Instant};

/// Events of the policy that may be waiting: a step causes at most three, a call of the owner one more.
const PENDING_MAX: usize = 4;

/// Packets that nobody with the connection's keys can have sent, while the server acknowledges nothing, after which it
/// may have lost those keys. One or two might be damaged or strays.
///
/// A server that lost them along with its static key answers with stateless resets whose tokens nobody knows (RFC 9000
/// 10.3.1). Whoever knows the addresses can send such packets, too, so they end nothing: they only make the client move
/// to another local port at once, which an attacker off the path (RFC 9000 21.1.3.2) does not know. If they come there as
/// well, while everything is still unanswered, they are the server's.
const UNREADABLE_MIN: u32 = 3;

/// How often a server that owes CONNACK is asked for a sign of life. If CONNACK was lost, a server that has not measured
/// the path yet repeats it after a second, then two, then four; what answers the nudge tells it of the loss at once.
const NUDGE_INTERVAL: Duration = Duration::from_millis(500);

/// How long a connection must hold after CONNACK to end a row of failures, if the server ends it. One that accepts and
/// then drops (an overload, a kick, a packet it chokes on) is to see the same waits as one that refuses; one that lets go
/// after this long is not burdened by a prompt return. Silence soon after CONNACK may be an overload as well.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// Every how many attempts in a row one is made without the ticket, if the others end in silence. An outage says nothing
/// about the ticket, and after it the ticket is worth most; but something on the way, or the server, may drop in silence
/// what comes with it.
const FULL_EACH: u32 = 4;

/// How long an orderly end may take before the connection is dropped.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(2);

/// The MQTT session and the connection policy over it.
pub struct Engine {
    session: Session,
    state: State,
    /// Failures in a row, see [`STEADY_AFTER`].
    failures: u32,
    /// How the present attempt was made.
    attempt: Attempt,
    /// What is left out of the next attempt, after it failed in this one.
    avoid: Avoid,
    /// Whether the server said so in this connection's CONNACK.
    session_present: bool,
    /// Packets received when progress was last seen, and whether a migration was asked for since.
    received: u64,
    migration: Migration,
    phases: Phases,
    stats: PolicyStats,
    pending: Deque<Event<'static>, PENDING_MAX>,
}

/// Where the policy stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Not asked to connect.
    Idle,
    /// A transport is being opened.
    Opening { until: Instant },
    /// CONNECT is written. The server is asked for a sign of life then, see [`NUDGE_INTERVAL`].
    Opened { nudge_at: Instant },
    /// CONNACK came.
    Online,
    /// The next attempt starts then.
    Waiting { until: Instant },
    /// DISCONNECT is written; the transport delivers it.
    Closing { until: Instant },
}

/// What failed in the last attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Avoid {
    Nothing,
    EarlyData,
    Resumption,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Migration {
    NotNeeded,
    Wanted,
    Done,
}

/// Something to be told, without a borrow.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Told {
    /// By the policy.
    Policy(Event<'static>),
    /// By the session; [`Engine::event`] resolves it.
    Session(Notice),
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine {
    /// An idle policy over a fresh session.
    pub const fn new() -> Self {
        Self {
            session: Session::new(),
            state: State::Idle,
            failures: 0,
            attempt: Attempt { resumption: Resumption::Never, early_data: EarlyData::Never },
            avoid: Avoid::Nothing,
            session_present: false,
            received: 0,
            migration: Migration::NotNeeded,
            phases: Phases::NONE,
            stats: PolicyStats::ZERO,
            pending: Deque::new(),
        }
    }

    /// The session.
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// The session, for publications and subscriptions.
    pub const fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// When each phase of the present or last connection was reached.
    pub const fn phases(&self) -> Phases {
        self.phases
    }

    /// What was counted.
    pub const fn stats(&self) -> PolicyStats {
        self.stats
    }

    /// Whether the policy is at rest.
    pub const fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Starts connecting at the next poll. Nothing changes if the policy is connecting or connected; a wait for
    /// the next attempt is cut short.
    pub fn connect(&mut self, now: Instant) {
        match self.state {
            State::Idle => {
                self.failures = 0;
                self.avoid = Avoid::Nothing;
                self.state = State::Waiting { until: now };
            }
            State::Waiting { .. } => self.state = State::Waiting { until: now },
            State::Opening { .. } | State::Opened { .. } | State::Online | State::Closing { .. } => {}
        }
    }

    /// Ends the session in order.
    pub fn disconnect(&mut self, now: Instant, transport: &mut dyn Transport) {
        match self.state {
            State::Idle | State::Closing { .. } => {}
            State::Waiting { .. } => self.stop(Cause::Requested),
            State::Opening { .. } | State::Opened { .. } | State::Online => {
                self.session.disconnect(ReasonCode::SUCCESS, transport);
                transport.close(now, Close::Graceful);
                self.state = State::Closing { until: now + CLOSING_TIMEOUT };
            }
        }
    }

    /// The owner moved the connection to a new local address.
    pub fn on_migrated(&mut self) {
        self.migration = Migration::Done;
        self.tell(Event::MigrationStarted);
    }

    /// The transport reached a phase, which its owner tells by itself.
    pub const fn reach(&mut self, now: Instant, phase: Phase) {
        self.phases.reach(phase, now);
    }

    /// The transport reached a phase, which is to be told.
    pub fn on_phase(&mut self, now: Instant, phase: Phase) {
        self.reach(now, phase);
        self.tell(Event::Phase(phase));
    }

    /// The transport tells something that the policy passes on.
    pub fn tell(&mut self, event: Event<'static>) {
        // Full only if the owner does not poll; the newest event is then the one to lose.
        let _ = self.pending.push_back(event);
    }

    /// When [`Engine::poll`] wants to be called even if nothing arrives.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Idle => None,
            State::Opening { until } | State::Waiting { until } | State::Closing { until } => Some(until),
            State::Opened { nudge_at } => self.session.next_timeout().into_iter().chain([nudge_at]).min(),
            State::Online => self.session.next_timeout(),
        }
    }

    /// Moves everything on until something is to be told; `None` when there is nothing more to do now.
    ///
    /// `rx` is the session's, see [`Session::poll`].
    pub fn poll(
        &mut self,
        now: Instant,
        settings: &Settings<'_>,
        transport: &mut dyn Transport,
        rx: &mut PacketBuffer,
    ) -> Option<Told> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(Told::Policy(event));
            }
            let before = self.state;
            if let Some(told) = self.step(now, settings, transport, rx) {
                return Some(told);
            }
            if self.state == before && self.pending.is_empty() {
                return None;
            }
        }
    }

    /// The event of what was told, until the next call.
    pub fn event<'a>(&'a self, told: Told, rx: &'a PacketBuffer) -> Event<'a> {
        match told {
            Told::Policy(event) => event,
            Told::Session(notice) => translate(self.session.event(notice, rx)),
        }
    }

    fn step(
        &mut self,
        now: Instant,
        settings: &Settings<'_>,
        transport: &mut dyn Transport,
        rx: &mut PacketBuffer,
    ) -> Option<Told> {
        match self.state {
            State::Idle => None,
            State::Waiting { until } => {
                if now >= until {
                    self.open(now, settings, transport);
                }
                None
            }
            State::Opening { until } => {
                self.opening(now, until, settings, transport, rx);
                None
            }
            State::Opened { .. } | State::Online => self.run(now, settings, transport, rx),
            State::Closing { until } => {
                self.closing(now, until, transport);
                None
            }
        }
    }

    fn open(&mut self, now: Instant, settings: &Settings<'_>, transport: &mut dyn Transport) {
        let can_resume = transport.has_ticket() && self.avoid != Avoid::Resumption;
        let resumption = if can_resume { settings.policy.resumption } else { Resumption::Never };
        let may_be_early = resumption == Resumption::IfPossible && self.avoid == Avoid::Nothing;
        let early_data = if may_be_early { settings.policy.early_data } else { EarlyData::Never };
        self.attempt = Attempt { resumption, early_data };
        self.phases = Phases::NONE;
        self.received = 0;
        self.migration = Migration::NotNeeded;
        self.stats.attempts += 1;
        self.tell(Event::Attempt {
            number: self.failures + 1,
            resuming: resumption == Resumption::IfPossible,
            early_data: early_data == EarlyData::IfPossible,
        });
        match transport.connect(now, self.attempt) {
            Ok(()) => self.state = State::Opening { until: now + settings.policy.connect_timeout },
            Err(failure) => self.down(now, Cause::Transport(failure), settings, transport),
        }
    }

    fn opening(
        &mut self,
        now: Instant,
        until: Instant,
        settings: &Settings<'_>,
        transport: &mut dyn Transport,
        rx: &mut PacketBuffer,
    ) {
        let replay = match transport.status() {
            Status::Closed(failure) => {
                return self.down(now, Cause::Transport(failure), settings, transport);
            }
            Status::Open { .. } => Some(Replay::Unsafe),
            Status::Early if self.attempt.early_data == EarlyData::IfPossible => Some(Replay::Safe),
            Status::Early | Status::Opening | Status::Idle => None,
        };
        if let Some(replay) = replay {
            match self.session.begin(now, settings.mqtt, replay, transport, rx) {
                Ok(()) => {
                    self.on_phase(now, Phase::ConnectSent);
                    self.state = State::Opened { nudge_at: now + NUDGE_INTERVAL };
                    return;
                }
                Err(BeginError::Options(field)) => {
                    return self.down(now, Cause::Options(field), settings, transport);
                }
                Err(BeginError::Blocked) => {}
            }
        }
        if now >= until {
            self.down(now, Cause::ConnectTimeout, settings, transport);
        }
    }

    fn run(
        &mut self,
        now: Instant,
        settings: &Settings<'_>,
        transport: &mut dyn Transport,
        rx: &mut PacketBuffer,
    ) -> Option<Told> {
        if let Some(notice) = self.session.poll(now, transport, rx) {
            return self.on_notice(now, notice, settings, transport);
        }
        // After the session has read what arrived before the end: a DISCONNECT says more than the close.
        if let Status::Closed(failure) = transport.status() {
            self.down(now, Cause::Transport(failure), settings, transport);
            return None;
        }
        if let State::Opened { nudge_at } = self.state
            && now >= nudge_at
        {
            transport.nudge();
            self.state = State::Opened { nudge_at: now + NUDGE_INTERVAL };
        }
        self.watch(now, settings, transport);
        None
    }

    fn on_notice(
        &mut self,
        now: Instant,
        notice: Notice,
        settings: &Settings<'_>,
        transport: &mut dyn Transport,
    ) -> Option<Told> {
        let cause = match notice {
            Notice::Connected { session_present } => {
                self.on_connected(now, session_present, transport.status());
                return None;
            }
            Notice::Refused(reason) => Cause::Refused(reason),
            Notice::ServerDisconnect(reason) => Cause::ServerDisconnect(reason),
            Notice::ControlStreamEnded(code) => Cause::ControlStreamEnded(code),
            Notice::Protocol(error) => Cause::Protocol(error),
            Notice::ConnackTimeout => Cause::ConnackTimeout,
            Notice::KeepAliveTimeout => Cause::KeepAliveTimeout,
            notice => return Some(Told::Session(notice)),
        };
        self.down(now, cause, settings, transport);
        None
    }

    fn on_connected(&mut self, now: Instant, session_present: bool, status: Status) {
        let (resumed, early_data_accepted) = match status {
            Status::Open { resumed, early_data_accepted } => (resumed, early_data_accepted),
            _ => (false, false),
        };
        self.state = State::Online;
        self.avoid = Avoid::Nothing;
        self.session_present = session_present;
        self.stats.connections += 1;
        self.stats.resumptions += u32::from(resumed);
        self.stats.early_data_accepted += u32::from(early_data_accepted);
        self.on_phase(now, Phase::Connack);
        self.tell(Event::Connected(Connected { session_present, resumed, early_data_accepted }));
    }

    /// Watches whether anything still comes through.
    fn watch(&mut self, now: Instant, settings: &Settings<'_>, transport: &mut dyn Transport) {
        let stall = transport.stall();
        if stall.received != self.received {
            self.received = stall.received;
            self.migration = Migration::NotNeeded;
        }
        let policy = &settings.policy;
        // Before CONNACK they are as likely the last connection's: its server may not have heard that it was left.
        let online = matches!(self.state, State::Online);
        let is_doubtful = online && stall.timeouts > 0 && stall.unreadable >= UNREADABLE_MIN;
        if is_doubtful && self.migration == Migration::Done {
            return self.down(now, Cause::Forgotten, settings, transport);
        }
        let give_up = policy.give_up_after_timeouts;
        if give_up != 0 && stall.timeouts >= give_up {
            return self.down(now, Cause::Stalled, settings, transport);
        }
        let migrate = policy.migrate_after_timeouts;
        if migrate != 0
            && (is_doubtful || stall.timeouts >= migrate)
            && self.migration == Migration::NotNeeded
            && transport.can_migrate()
        {
            self.migration = Migration::Wanted;
            self.stats.migrations_wanted += 1;
            self.tell(Event::MigrationWanted);
        }
    }

    fn closing(&mut self, now: Instant, until: Instant, transport: &mut dyn Transport) {
        let is_over = matches!(transport.status(), Status::Closed(_) | Status::Idle);
        if is_over || now >= until {
            if !is_over {
                transport.close(now, Close::Abort(AbortReason::Unresponsive));
            }
            self.session.end();
            self.stop(Cause::Requested);
        }
    }

    /// The connection is over: what comes next?
    fn down(&mut self, now: Instant, cause: Cause, settings: &Settings<'_>, transport: &mut dyn Transport) {
        let status = transport.status();
        if !matches!(status, Status::Closed(_) | Status::Idle) {
            transport.close(now, close_for(cause));
        }
        self.session.end();
        self.learn(cause, transport);
        let is_wanted = match cause {
            // A round of messages ends that this client had no room for at once: the next one is to follow soon. Only a
            // session that outlives the connection has a next one; else the same messages would come again and again.
            Cause::Protocol(error) => self.session_present && error.reason == ReasonCode::QUOTA_EXCEEDED,
            // The owner dropped it.
            Cause::Transport(failure) => matches!(failure.kind, FailureKind::Local),
            _ => false,
        };
        let connack = self.phases.at(Phase::Connack);
        if connack.is_some_and(|at| is_wanted || now >= at + STEADY_AFTER) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        match settings.policy.reconnect {
            Reconnect::Backoff { first, max, attempts_max }
                if !cause.is_permanent() && (attempts_max == 0 || self.failures < attempts_max) =>
            {
                let until = now + backoff(first, max, self.failures, transport.random());
                self.tell(Event::Disconnected(cause));
                self.tell(Event::RetryAt { at: until, number: self.failures + 1 });
                self.state = State::Waiting { until };
            }
            _ => self.stop(cause),
        }
    }

    /// What failed before CONNACK is not tried in the same way again. Silence from the start says little about the ticket,
    /// see [`FULL_EACH`].
    fn learn(&mut self, cause: Cause, transport: &mut dyn Transport) {
        if !matches!(self.state, State::Opening { .. } | State::Opened { .. }) {
            return;
        }
        if self.attempt.resumption == Resumption::Never {
            // It was not the ticket, if there still is one.
            self.avoid = Avoid::Nothing;
            return;
        }
        if matches!(cause, Cause::Transport(failure) if failure.kind.is_handshake()) {
            self.avoid = Avoid::Resumption;
            transport.forget_ticket();
            return;
        }
        let is_silence = is_silence(cause);
        if is_silence && self.failures % FULL_EACH == FULL_EACH - 2 {
            self.avoid = Avoid::Resumption;
        } else if self.attempt.early_data == EarlyData::IfPossible
            && !(is_silence && self.phases.at(Phase::ServerHello).is_none())
        {
            self.avoid = Avoid::EarlyData;
        }
    }

    fn stop(&mut self, cause: Cause) {
        self.state = State::Idle;
        self.tell(Event::Disconnected(cause));
        self.tell(Event::Stopped);
    }
}

/// Whether the end came of silence, as of a dead path, and not of anything that the server said.
const fn is_silence(cause: Cause) -> bool {
    match cause {
        Cause::Transport(failure) => failure.kind.is_silence(),
        Cause::ConnectTimeout | Cause::ConnackTimeout | Cause::Stalled => true,
        _ => false,
    }
}

/// How to close a transport that is still up.
const fn close_for(cause: Cause) -> Close {
    match cause {
        Cause::Protocol(error) => Close::Abort(AbortReason::Protocol(error.reason)),
        Cause::Refused(_) | Cause::ServerDisconnect(_) | Cause::ControlStreamEnded(_) => Close::Now,
        _ => Close::Abort(AbortReason::Unresponsive),
    }
}

/// Half of the wait is random, so that a fleet does not return at one moment after an outage.
fn backoff(first: Duration, max: Duration, failures: u32, random: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    let longest = first.saturating_mul(1 << doublings).min(max).as_micros();
    let half = longest / 2;
    Duration::from_micros(half + ((u64::from(random >> 16) * half) >> 16))
}

const fn translate(event: session::Event<'_>) -> Event<'_> {
    match event {
        session::Event::Message(message) => Event::Message(message),
        session::Event::Subscribed { token, codes } => Event::Subscribed { token, codes },
        session::Event::Unsubscribed { token, codes } => Event::Unsubscribed { token, codes },
        session::Event::Acknowledged { token, reason } => Event::Acknowledged { token, reason },
        session::Event::Abandoned { token, error } => Event::Abandoned { token, error },
        session::Event::SessionLost { republished } => Event::SessionLost { republished },
        session::Event::StreamOpened(slot) => Event::StreamOpened(slot),
        session::Event::StreamClosed { slot, code, error } => Event::StreamClosed { slot, code, error },
        session::Event::StreamRefused(slot) => Event::StreamRefused(slot),
        session::Event::Oversize { slot, size } => Event::Oversize { slot, size },
        // The policy has turned the others into its own before.
        session::Event::Connected { session_present } => {
            Event::Connected(Connected { session_present, resumed: false, early_data_accepted: false })
        }
        session::Event::Refused(reason) => Event::Disconnected(Cause::Refused(reason)),
        session::Event::ServerDisconnect(reason) => Event::Disconnected(Cause::ServerDisconnect(reason)),
        session::Event::ControlStreamEnded(code) => Event::Disconnected(Cause::ControlStreamEnded(code)),
        session::Event::Protocol(error) => Event::Disconnected(Cause::Protocol(error)),
        session::Event::ConnackTimeout => Event::Disconnected(Cause::ConnackTimeout),
        session::Event::KeepAliveTimeout => Event::Disconnected(Cause::KeepAliveTimeout),
    }
}

#[cfg(test)]
mod tests;
