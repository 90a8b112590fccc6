//! The policy over a transport of one stream, as TCP and TLS are.

extern crate std;

use std::collections::VecDeque;
use std::vec::Vec;

use super::*;
use crate::client::{Failure, FailureKind, Policy, Stall, TransportStats};
use crate::mqtt::session::RX_PACKET_MAX;
use crate::mqtt::{Options, Slot, StreamEnd, Streams};

/// A byte stream whose state the test sets.
struct Wire {
    status: Status,
    incoming: VecDeque<u8>,
    outgoing: Vec<u8>,
    connects: u32,
    /// How the last connection was asked for.
    attempt: Option<Attempt>,
    has_ticket: bool,
    closes: Vec<Close>,
    stall: Stall,
    migratable: bool,
    is_open: bool,
}

impl Wire {
    fn new() -> Self {
        Self {
            status: Status::Idle,
            incoming: VecDeque::new(),
            outgoing: Vec::new(),
            connects: 0,
            attempt: None,
            has_ticket: false,
            closes: Vec::new(),
            stall: Stall::default(),
            migratable: false,
            is_open: false,
        }
    }
}

impl Streams for Wire {
    fn open_stream(&mut self, slot: Slot) -> bool {
        let may_open = super::super::is_control(slot) && !self.is_open;
        self.is_open |= may_open;
        may_open
    }

    fn writable(&mut self, _: Slot) -> usize {
        1_500
    }

    fn write(&mut self, _: Slot, head: &[u8], body: &[u8]) {
        self.outgoing.extend_from_slice(head);
        self.outgoing.extend_from_slice(body);
    }

    fn readable(&mut self, _: Slot) -> usize {
        self.incoming.len()
    }

    fn read(&mut self, _: Slot, bytes: &mut [u8]) -> usize {
        let len = bytes.len().min(self.incoming.len());
        for (byte, read) in bytes.iter_mut().zip(self.incoming.drain(..len)) {
            *byte = read;
        }
        len
    }

    fn ended(&mut self, _: Slot) -> Option<StreamEnd> {
        None
    }

    fn close_stream(&mut self, _: Slot, _: StreamEnd) {
        self.is_open = false;
    }

    fn count(&self) -> usize {
        1
    }

    fn buffers_whole_packets(&self) -> bool {
        false
    }
}

impl Transport for Wire {
    fn connect(&mut self, _: Instant, attempt: Attempt) -> Result<(), Failure> {
        self.connects += 1;
        self.attempt = Some(attempt);
        self.is_open = false;
        self.status = Status::Opening;
        Ok(())
    }

    fn status(&self) -> Status {
        self.status
    }

    fn close(&mut self, _: Instant, close: Close) {
        self.closes.push(close);
        self.status = Status::Closed(REFUSED);
    }

    fn stall(&self) -> Stall {
        self.stall
    }

    fn can_migrate(&self) -> bool {
        self.migratable
    }

    fn has_ticket(&self) -> bool {
        self.has_ticket
    }

    fn forget_ticket(&mut self) {
        self.has_ticket = false;
    }

    fn random(&mut self) -> u32 {
        u32::MAX
    }

    fn stats(&self) -> TransportStats {
        TransportStats::ZERO
    }
}

const REFUSED: Failure = Failure { kind: FailureKind::Refused, code: 0, detail: "nobody listens" };
const OPEN: Status = Status::Open { resumed: false, early_data_accepted: false };

struct World {
    engine: Engine,
    wire: Wire,
    rx: PacketBuffer,
    now: Instant,
    policy: Policy,
}

impl World {
    fn new() -> Self {
        Self {
            engine: Engine::new(),
            wire: Wire::new(),
            rx: [0; RX_PACKET_MAX],
            now: Instant::from_micros(1),
            policy: Policy::DEFAULT,
        }
    }

    /// Connected by a CONNACK.
    fn online() -> Self {
        let mut world = Self::new();
        world.engine.connect(world.now);
        world.drain();
        world.wire.status = OPEN;
        world.wire.incoming.extend([0x20, 3, 0, 0, 0]);
        let told = world.drain();
        assert!(told.iter().any(|event| matches!(event, Event::Connected(_))), "{told:?}");
        world
    }

    /// The wait for the next attempt, which is then made and accepted at once.
    fn accepted_again(&mut self) -> Duration {
        let due = self.engine.next_timeout().expect("another attempt is coming");
        let wait = due.saturating_since(self.now);
        self.now = due;
        self.drain();
        self.wire.status = OPEN;
        self.wire.incoming.clear();
        // With the session present.
        self.wire.incoming.extend([0x20, 3, 1, 0, 0]);
        self.drain();
        assert_eq!(self.engine.state, State::Online);
        wait
    }

    fn drain(&mut self) -> Vec<Event<'static>> {
        let options = Options::new("client");
        let settings = Settings { mqtt: &options, policy: &self.policy };
        let mut events = Vec::new();
        while let Some(told) = self.engine.poll(self.now, &settings, &mut self.wire, &mut self.rx) {
            match told {
                Told::Policy(event) => events.push(event),
                Told::Session(notice) => panic!("{notice:?} is not expected here"),
            }
        }
        events
    }
}

#[test]
fn nothing_happens_before_connect() {
    let mut world = World::new();
    assert_eq!(world.drain(), []);
    assert_eq!(world.engine.next_timeout(), None);
    assert!(world.engine.is_idle());
}

#[test]
fn connect_is_sent_when_the_transport_is_open() {
    let mut world = World::new();
    world.engine.connect(world.now);
    assert_eq!(world.drain(), [Event::Attempt { number: 1, resuming: false, early_data: false }]);
    assert!(world.wire.outgoing.is_empty());
    world.wire.status = OPEN;
    assert_eq!(world.drain(), [Event::Phase(Phase::ConnectSent)]);
    assert_eq!(world.wire.outgoing[0], 0x10);
}

#[test]
fn a_refused_connection_is_tried_again_after_the_wait() {
    let mut world = World::new();
    world.engine.connect(world.now);
    world.drain();
    world.wire.status = Status::Closed(REFUSED);
    let at = world.now + Duration::from_millis(500);
    let told = world.drain();
    let [Event::Disconnected(Cause::Transport(REFUSED)), Event::RetryAt { at: told_at, number: 2 }] =
        told[..]
    else {
        panic!("{told:?}")
    };
    let short = at.saturating_since(told_at);
    assert!(short < Duration::from_millis(1), "the longest wait with the largest random number");
    assert_eq!(world.engine.next_timeout(), Some(told_at));
    world.now = told_at;
    assert_eq!(world.drain(), [Event::Attempt { number: 2, resuming: false, early_data: false }]);
    assert_eq!(world.wire.connects, 2);
}

#[test]
fn an_opening_that_takes_too_long_is_given_up() {
    let mut world = World::new();
    world.engine.connect(world.now);
    world.drain();
    world.now = world.engine.next_timeout().expect("the attempt has a limit");
    assert_eq!(world.drain()[0], Event::Disconnected(Cause::ConnectTimeout));
    assert_eq!(world.wire.closes, [Close::Abort(AbortReason::Unresponsive)]);
}

#[test]
fn a_disconnect_read_before_the_close_says_why() {
    let mut world = World::online();
    world.wire.incoming.extend([0xe0, 1, 0x8b]);
    world.wire.status = Status::Closed(REFUSED);
    let told = world.drain();
    assert_eq!(told[0], Event::Disconnected(Cause::ServerDisconnect(ReasonCode::SERVER_SHUTTING_DOWN)));
}

#[test]
fn connect_during_a_wait_cuts_it_short() {
    let mut world = World::online();
    world.wire.status = Status::Closed(REFUSED);
    world.drain();
    world.engine.connect(world.now);
    assert!(matches!(world.drain()[..], [Event::Attempt { .. }]));
}

#[test]
fn a_transport_that_cannot_migrate_is_not_asked_to() {
    let mut world = World::online();
    world.wire.stall = Stall { timeouts: 4, received: 9, unreadable: 0 };
    assert_eq!(world.drain(), []);
    world.wire.stall.timeouts = 5;
    assert_eq!(world.drain()[0], Event::Disconnected(Cause::Stalled));
}

#[test]
fn packets_of_the_connection_before_do_not_end_one_that_has_no_connack_yet() {
    let stray = Stall { timeouts: 1, received: 0, unreadable: UNREADABLE_MIN };
    let mut world = World::new();
    world.engine.connect(world.now);
    world.drain();
    world.wire.status = OPEN;
    world.wire.stall = stray;
    assert!(!world.drain().iter().any(|event| matches!(event, Event::Disconnected(_))));
}

#[test]
fn unreadable_packets_make_the_client_move_and_count_where_it_went() {
    let doubtful = Stall { timeouts: 1, received: 0, unreadable: UNREADABLE_MIN };
    let mut world = World::online();
    world.wire.migratable = true;
    world.wire.stall = Stall { timeouts: 0, ..doubtful };
    assert_eq!(world.drain(), [], "nothing is unanswered");
    world.wire.stall = Stall { unreadable: UNREADABLE_MIN - 1, ..doubtful };
    assert_eq!(world.drain(), []);
    world.wire.stall = doubtful;
    assert_eq!(world.drain(), [Event::MigrationWanted]);
    world.wire.stall = Stall { timeouts: 4, unreadable: 200, ..doubtful };
    assert_eq!(world.drain(), [], "whoever knows the old port can send as many as he likes");
    world.engine.on_migrated();
    world.wire.stall = Stall { unreadable: 0, ..doubtful };
    assert_eq!(world.drain(), [Event::MigrationStarted]);
    world.wire.stall = doubtful;
    assert_eq!(world.drain()[0], Event::Disconnected(Cause::Forgotten));
}

#[test]
fn after_a_move_that_helped_unreadable_packets_are_doubted_again() {
    let mut world = World::online();
    world.wire.migratable = true;
    let doubtful = Stall { timeouts: 1, received: 0, unreadable: UNREADABLE_MIN };
    world.wire.stall = doubtful;
    world.drain();
    world.engine.on_migrated();
    world.wire.stall = Stall { timeouts: 0, received: 1, unreadable: 0 };
    assert_eq!(world.drain(), [Event::MigrationStarted]);
    world.wire.stall = Stall { received: 1, ..doubtful };
    assert_eq!(world.drain(), [Event::MigrationWanted]);
}

#[test]
fn where_the_client_cannot_move_unreadable_packets_end_nothing() {
    let mut world = World::online();
    world.wire.stall = Stall { timeouts: 4, received: 0, unreadable: 200 };
    assert_eq!(world.drain(), []);
    world.wire.stall.timeouts = 5;
    assert_eq!(world.drain()[0], Event::Disconnected(Cause::Stalled));
}

#[test]
fn migration_is_asked_for_once_until_something_comes_through() {
    let mut world = World::online();
    world.wire.migratable = true;
    world.wire.stall = Stall { timeouts: 3, received: 9, unreadable: 0 };
    assert_eq!(world.drain(), [Event::MigrationWanted]);
    world.wire.stall.timeouts = 4;
    assert_eq!(world.drain(), []);
    world.wire.stall = Stall { timeouts: 0, received: 10, unreadable: 0 };
    assert_eq!(world.drain(), []);
    world.wire.stall.timeouts = 3;
    assert_eq!(world.drain(), [Event::MigrationWanted]);
}

#[test]
fn disconnect_waits_for_the_transport_and_then_stops() {
    let mut world = World::online();
    world.wire.outgoing.clear();
    world.engine.disconnect(world.now, &mut world.wire);
    assert_eq!(world.wire.outgoing, [0xe0, 0]);
    assert_eq!(world.wire.closes, [Close::Graceful]);
    assert_eq!(world.drain(), [Event::Disconnected(Cause::Requested), Event::Stopped]);
    assert!(world.engine.is_idle());
}

#[test]
fn disconnect_during_a_wait_stops_at_once() {
    let mut world = World::online();
    world.wire.status = Status::Closed(REFUSED);
    world.drain();
    world.engine.disconnect(world.now, &mut world.wire);
    assert_eq!(world.drain(), [Event::Disconnected(Cause::Requested), Event::Stopped]);
}

#[test]
fn waits_grow_to_the_bound_and_never_beyond() {
    let (first, max) = (Duration::from_millis(500), Duration::from_secs(30));
    for failures in 1..100 {
        let (shortest, longest) = (backoff(first, max, failures, 0), backoff(first, max, failures, u32::MAX));
        assert!(longest <= max, "{failures} failures: {longest:?}");
        assert!(shortest.saturating_mul(2) >= longest, "{failures} failures: half of it is certain");
    }
    assert_eq!(backoff(first, max, 1, 0), Duration::from_millis(250));
    assert_eq!(backoff(first, max, 50, 0), Duration::from_secs(15));
}

#[test]
fn a_server_that_accepts_and_then_drops_or_stalls_is_returned_to_ever_more_slowly() {
    let mut world = World::online();
    let mut waits = Vec::new();
    for _ in 0..10 {
        world.wire.status = Status::Closed(REFUSED);
        world.drain();
        waits.push(world.accepted_again());
    }
    let Reconnect::Backoff { first, max, .. } = world.policy.reconnect else { panic!("the default") };
    let expected = (1..=10).map(|failures| backoff(first, max, failures, u32::MAX));
    assert_eq!(waits, expected.collect::<Vec<_>>());
    world.now += STEADY_AFTER;
    world.wire.status = Status::Closed(REFUSED);
    world.drain();
    assert_eq!(world.accepted_again(), waits[0], "it held for long enough");
    for wait in &waits[1..4] {
        world.now += Duration::from_secs(1);
        world.wire.stall = Stall { timeouts: 5, received: 0, unreadable: 0 };
        world.drain();
        world.wire.stall = Stall::default();
        assert_eq!(world.accepted_again(), *wait);
    }
    for _ in 0..3 {
        closed(FailureKind::Local)(&mut world);
        world.drain();
        assert_eq!(world.accepted_again(), waits[0], "its owner dropped it");
    }
}

/// The attempt that follows one with 0-RTT data that ends by `end` after CONNECT.
fn after_early_data(end: impl FnOnce(&mut World)) -> Attempt {
    let mut world = World::new();
    world.policy.early_data = EarlyData::IfPossible;
    world.wire.has_ticket = true;
    world.engine.connect(world.now);
    world.drain();
    world.wire.status = Status::Early;
    world.drain();
    assert!(!world.wire.outgoing.is_empty(), "CONNECT goes first");
    end(&mut world);
    let told = world.drain();
    assert!(told.iter().any(|event| matches!(event, Event::RetryAt { .. })), "{told:?}");
    world.now = world.engine.next_timeout().expect("another attempt is coming");
    world.drain();
    assert_eq!(world.wire.connects, 2);
    world.wire.attempt.expect("made")
}

fn closed(kind: FailureKind) -> impl FnOnce(&mut World) {
    move |world| world.wire.status = Status::Closed(Failure { kind, code: 0, detail: "" })
}

/// Time passes until CONNACK is overdue.
fn no_connack(world: &mut World) {
    while world.engine.session().next_timeout().is_some_and(|due| due > world.now) {
        world.now += Duration::from_millis(500);
        if world.engine.session().next_timeout().is_some_and(|due| due > world.now) {
            assert_eq!(world.drain(), []);
        }
    }
}

#[test]
fn silence_does_not_speak_against_early_data() {
    let ends: [&dyn Fn(&mut World); 4] = [
        &|world| closed(FailureKind::Timeout)(world),
        &|world| closed(FailureKind::Local)(world),
        &|world| world.wire.stall = Stall { timeouts: 5, received: 0, unreadable: 0 },
        &no_connack,
    ];
    for end in ends {
        let attempt = after_early_data(end);
        assert_eq!(attempt.early_data, EarlyData::IfPossible);
    }
}

#[test]
fn an_answer_other_than_connack_speaks_against_early_data() {
    let hello = |world: &mut World| world.engine.reach(world.now, Phase::ServerHello);
    let ends: [&dyn Fn(&mut World); 5] = [
        &|world| closed(FailureKind::PeerApplication)(world),
        &|world| world.wire.incoming.extend([0xd0, 0]),
        &|world| {
            hello(world);
            world.wire.status = OPEN;
            no_connack(world);
        },
        &|world| {
            hello(world);
            closed(FailureKind::Timeout)(world);
        },
        &|world| {
            hello(world);
            world.wire.stall = Stall { timeouts: 5, received: 1, unreadable: 0 };
        },
    ];
    for end in ends {
        let attempt = after_early_data(end);
        assert_eq!((attempt.resumption, attempt.early_data), (Resumption::IfPossible, EarlyData::Never));
    }
}

#[test]
fn every_fourth_attempt_into_silence_is_made_without_the_ticket_which_is_kept() {
    let mut world = World::new();
    world.policy.early_data = EarlyData::IfPossible;
    world.wire.has_ticket = true;
    world.engine.connect(world.now);
    for number in 1..=12 {
        world.drain();
        let expected = match number % 4 {
            0 => Attempt { resumption: Resumption::Never, early_data: EarlyData::Never },
            _ => Attempt { resumption: Resumption::IfPossible, early_data: EarlyData::IfPossible },
        };
        assert_eq!(world.wire.attempt, Some(expected), "attempt {number}");
        closed(FailureKind::Timeout)(&mut world);
        world.drain();
        world.now = world.engine.next_timeout().expect("another attempt is coming");
    }
    assert!(world.wire.has_ticket);
}

#[test]
fn a_failed_handshake_speaks_against_the_ticket() {
    let attempt = after_early_data(closed(FailureKind::Tls));
    assert_eq!(attempt.resumption, Resumption::Never);
}
