//! Reconnecting, resuming, migrating: what the policy does when something fails.

use core::time::Duration;

use device::client::{
    Cause, EarlyData, Event, FailureKind, Filter, Phase, Policy, Publication, Reconnect, RequestError,
    Resumption, Slot,
};
use device::mqtt::{Duplicate, Qos, ReasonCode, Replay, Retain, Version};
use device::quic::TransportCode;
use link::units::Time;
use link::{Blackout, Direction};
use simulate::identity::Identity;
use simulate::{BrokerOptions, ClientSide, MqttOptions, PairOptions, Told};

use crate::world::{Play, World, with, with_broker, world};

const AT_LEAST_ONCE: Publication<'_> = Publication::new("a/b", b"payload").qos(Qos::AtLeastOnce);

/// When each attempt began, in milliseconds.
fn attempts_ms(world: &World) -> Vec<u64> {
    let times =
        world.client.told.iter().filter(|(_, told)| matches!(told, Told::Event(Event::Attempt { .. })));
    times.map(|(at, _)| at.as_micros() / 1_000).collect()
}

fn has_ticket(world: &World) -> bool {
    world.client.has(|event| *event == Event::TicketReceived)
}

fn early() -> MqttOptions {
    let policy = Policy { early_data: EarlyData::IfPossible, ..Policy::DEFAULT };
    MqttOptions { policy, ..MqttOptions::default() }
}

/// Connected, with a ticket, and then dropped by a broker that keeps its tickets.
fn dropped(mqtt: MqttOptions) -> World {
    let mut world: World = with(PairOptions::seeded(5), mqtt);
    world.connect();
    world.until(5, "ticket", |world| has_ticket(world));
    let now = world.now();
    world.server.service.kick(ReasonCode::SERVER_SHUTTING_DOWN);
    world.server.wake(now);
    world
}

#[test]
fn a_resumed_handshake_is_the_first_choice() {
    let mut world = dropped(MqttOptions::default());
    world.until(30, "second CONNACK", |world| world.client.connections() == 2);
    assert_eq!(world.client.causes(), [Cause::ServerDisconnect(ReasonCode::SERVER_SHUTTING_DOWN)]);
    let connected = world.client.events().filter_map(|event| match event {
        Event::Connected(connected) => Some((connected.session_present, connected.resumed)),
        _ => None,
    });
    assert_eq!(connected.collect::<Vec<_>>(), [(false, false), (true, true)]);
    let phases = world.client.stats().phases;
    assert_eq!(phases.at(Phase::CertificateVerified), None, "no certificate in a resumed handshake");
    assert_eq!(world.client.stats().policy.resumptions, 1);
}

#[test]
fn early_data_brings_connack_in_one_round_trip() {
    let mut world = dropped(early());
    world.until(30, "second CONNACK", |world| world.client.connections() == 2);
    assert_eq!(world.client.stats().policy.early_data_accepted, 1);
    let phases = world.client.stats().phases;
    let started = phases.at(Phase::Started).expect("started");
    let connack = phases.at(Phase::Connack).expect("connected");
    let elapsed_ms = connack.saturating_since(started).as_millis();
    assert!((30..45).contains(&elapsed_ms), "{elapsed_ms} ms on a path of 30 ms");
}

#[test]
fn early_data_carries_replay_safe_messages_only() {
    let mut world = dropped(early());
    world.until(5, "end", |world| !world.client.causes().is_empty());
    world.publish(&Publication { replay: Replay::Safe, ..AT_LEAST_ONCE });
    world.publish(&Publication { payload: b"not safe", ..AT_LEAST_ONCE });
    world.until(30, "acknowledgements", |world| world.client.acknowledged() == 2);
    let connack_at = world
        .client
        .told
        .iter()
        .rev()
        .find_map(|(at, told)| matches!(told, Told::Event(Event::Connected(_))).then_some(*at));
    let published = &world.server.service.published;
    assert_eq!(published.len(), 2);
    assert!(published[0].at < connack_at.expect("connected"), "in the first flight");
    assert!(published[1].at > connack_at.expect("connected"), "after CONNACK");
}

#[test]
fn refused_early_data_costs_a_round_trip_and_no_message() {
    let mut world = dropped(early());
    world.server.reconfigure(|options| options.early_data = false);
    world.until(5, "end", |world| !world.client.causes().is_empty());
    world.publish(&Publication { replay: Replay::Safe, ..AT_LEAST_ONCE });
    world.until(30, "acknowledgement", |world| world.client.acknowledged() == 1);
    let offered = |event: &Event<'static>| matches!(event, Event::Attempt { early_data: true, .. });
    assert!(world.client.has(offered), "0-RTT was tried");
    assert_eq!(world.client.stats().policy.early_data_accepted, 0);
    assert_eq!(world.server.service.published.len(), 1);
    let first = &world.server.service.published[0];
    assert_eq!(first.duplicate, Duplicate::No, "the server has never seen the refused copy");
}

#[test]
fn a_broker_that_lost_its_tickets_gets_a_full_handshake() {
    let mut world = world(6);
    world.connect();
    world.until(5, "ticket", |world| has_ticket(world));
    let now = world.now();
    world.server.restart(now);
    world.publish(&AT_LEAST_ONCE);
    world.until(60, "acknowledgement", |world| world.client.acknowledged() == 1);
    assert_eq!(world.client.connections(), 2);
    assert_eq!(world.client.stats().policy.resumptions, 0);
}

#[test]
fn a_message_under_way_survives_the_restart_of_the_broker() {
    let mut world = world(7);
    world.connect();
    world.subscribe(Slot::CONTROL, "a/#", Qos::AtLeastOnce);
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        world.publish(&AT_LEAST_ONCE.qos(qos));
    }
    // The publications are lost with the connection they went out on.
    world.drop_next(Direction::Up);
    world.run_for(Duration::from_millis(5));
    let now = world.now();
    world.server.restart(now);
    world.until(60, "acknowledgements", |world| world.client.acknowledged() == 2);
    assert_eq!(world.server.service.published.len(), 2);
    world.until(10, "echoes by the same subscription", |world| world.client.messages().count() == 2);
    assert!(world.server.service.published.iter().all(|message| message.duplicate == Duplicate::Yes));
}

#[test]
fn a_session_that_the_broker_forgot_is_made_anew() {
    let mut world = world(8);
    world.connect();
    world.subscribe(Slot::CONTROL, "a/#", Qos::AtLeastOnce);
    let now = world.now();
    world.server.restart(now);
    world.server.service.forget_sessions();
    world.publish(&AT_LEAST_ONCE);
    world.until(60, "second CONNACK", |world| world.client.connections() == 2);
    world.until(10, "acknowledgement", |world| world.client.acknowledged() == 1);
    assert!(world.client.has(|event| matches!(event, Event::SessionLost { .. })));
    world.broker_publishes("a/again", b"x", Qos::AtLeastOnce);
    world.until(10, "message by the renewed subscription", |world| {
        world.client.messages().any(|message| message.topic == "a/again")
    });
}

#[test]
fn waiting_times_double_up_to_a_bound_and_are_half_random() {
    let reconnect = Reconnect::Backoff {
        first: device::time::Duration::from_millis(1_000),
        max: device::time::Duration::from_millis(4_000),
        attempts_max: 6,
    };
    let refusal = ReasonCode::SERVER_BUSY;
    let policy = Policy { reconnect, ..Policy::DEFAULT };
    let run = |seed| {
        let mqtt = MqttOptions { policy, ..MqttOptions::default() };
        let mut world: World = with(PairOptions::seeded(seed), mqtt);
        world.server.service.options.refuse = Some(refusal);
        let now = world.now();
        world.client.connect(now);
        world.until(60, "end", |world| world.client.has(|event| *event == Event::Stopped));
        assert_eq!(world.client.causes(), [Cause::Refused(refusal); 6]);
        attempts_ms(&world)
    };
    let attempts = run(1);
    let waits: Vec<_> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Each attempt takes the 60 ms to CONNACK, and a little.
    let bounds = [(500, 1_100), (1_000, 2_100), (2_000, 4_100), (2_000, 4_100), (2_000, 4_100)];
    for (wait, (low, high)) in waits.iter().zip(bounds) {
        assert!((low..=high).contains(wait), "{waits:?}");
    }
    assert_ne!(run(2), attempts, "another seed waits otherwise");
    assert_eq!(run(1), attempts, "the same seed waits the same");
}

#[test]
fn what_cannot_get_better_is_not_tried_again() {
    for reason in [ReasonCode::NOT_AUTHORIZED, ReasonCode::CLIENT_IDENTIFIER_NOT_VALID, ReasonCode::BANNED] {
        let mut world = world(9);
        world.server.service.options.refuse = Some(reason);
        let now = world.now();
        world.client.connect(now);
        world.until(10, "end", |world| world.client.has(|event| *event == Event::Stopped));
        assert_eq!(world.client.causes(), [Cause::Refused(reason)]);
        assert_eq!(attempts_ms(&world).len(), 1);
    }
}

#[test]
fn a_session_taken_over_is_not_taken_back() {
    let mut world = world(10);
    world.connect();
    let now = world.now();
    world.server.service.kick(ReasonCode::SESSION_TAKEN_OVER);
    world.server.wake(now);
    world.until(10, "end", |world| world.client.has(|event| *event == Event::Stopped));
    assert_eq!(world.client.causes(), [Cause::ServerDisconnect(ReasonCode::SESSION_TAKEN_OVER)]);
}

#[test]
fn a_certificate_for_another_name_is_told_as_such() {
    let mut options = PairOptions::seeded(11);
    options.client.server_name = "other.test".to_owned();
    let policy = Policy { reconnect: Reconnect::Never, ..Policy::DEFAULT };
    let mut world: World = with(options, MqttOptions { policy, ..MqttOptions::default() });
    let now = world.now();
    world.client.connect(now);
    world.until(10, "end", |world| world.client.has(|event| *event == Event::Stopped));
    let [Cause::Transport(failure)] = world.client.causes()[..] else {
        panic!("{:?}", world.client.causes())
    };
    assert_eq!(failure.kind, FailureKind::Tls, "{failure}");
    // CRYPTO_ERROR with the alert bad_certificate (RFC 9001 4.8).
    assert_eq!(failure.code, 0x100 + 42, "{failure}");
}

#[test]
fn a_chain_longer_than_the_buffer_is_told_as_this_clients_limit() {
    let mut options = PairOptions::seeded(15);
    options.server.identity = Identity::too_long_chain();
    options.client.identity = options.server.identity.clone();
    let mut world: World = with(options, MqttOptions::default());
    let now = world.now();
    world.client.connect(now);
    world.until(10, "end", |world| !world.client.causes().is_empty() && !world.server.ended().is_empty());
    let causes = world.client.causes();
    let [Cause::Transport(failure)] = causes[..] else { panic!("{causes:?}") };
    assert_eq!(
        (failure.kind, failure.code),
        (FailureKind::Resource, TransportCode::CRYPTO_BUFFER_EXCEEDED.0)
    );
    // The next attempt may meet another certificate.
    assert!(world.client.has(|event| matches!(event, Event::RetryAt { .. })));
    let quinn_proto::ConnectionError::ConnectionClosed(close) = &world.server.ended()[0].reason else {
        panic!("{:?}", world.server.ended());
    };
    assert_eq!(close.error_code, quinn_proto::TransportErrorCode::CRYPTO_BUFFER_EXCEEDED);
}

#[test]
fn a_configuration_that_cannot_work_is_told_as_such_and_not_tried_again() {
    let mut options = PairOptions::seeded(16);
    options.client.server_name = "no name".to_owned();
    let mut world: World = with(options, MqttOptions::default());
    let now = world.now();
    world.client.connect(now);
    world.until(1, "end", |world| world.client.has(|event| *event == Event::Stopped));
    let causes = world.client.causes();
    let [Cause::Transport(failure)] = causes[..] else { panic!("{causes:?}") };
    assert_eq!(failure.kind, FailureKind::Caller, "{failure}");
    assert_eq!(attempts_ms(&world).len(), 1);
}

#[test]
fn a_mute_broker_times_out_and_is_tried_again() {
    let mut world = world(12);
    world.server.service.options.mute = true;
    let now = world.now();
    world.client.connect(now);
    world.until(60, "second attempt", |world| attempts_ms(world).len() == 2);
    assert_eq!(world.client.causes(), [Cause::ConnackTimeout]);
}

#[test]
fn nobody_there_ends_in_a_timeout() {
    let mut world = world(13);
    for n in 0..200 {
        world = world.drop_nth_from_client(n);
    }
    let now = world.now();
    world.client.connect(now);
    world.until(60, "second attempt", |world| attempts_ms(world).len() == 2);
    let causes = world.client.causes();
    let [Cause::Transport(failure)] = causes[..] else { panic!("{causes:?}") };
    assert_eq!(failure.kind, FailureKind::Timeout);
}

#[test]
fn a_dead_path_asks_for_a_new_port_before_reconnecting() {
    let mut world = world(14);
    world.connect();
    world.until(5, "confirmation", |world| {
        world.client.has(|event| *event == Event::Phase(Phase::HandshakeConfirmed))
    });
    world.run_for(Duration::from_millis(200));
    // What the broker sends is lost: nothing the client hears tells it that it was heard.
    world.publish(&AT_LEAST_ONCE);
    let first = world.datagrams(Direction::Down) + 1;
    for n in first..first + 40 {
        world = world.drop_nth_from_server(n);
    }
    world.until(10, "wish for migration", |world| world.client.wants_migration);
    assert_eq!(world.client.causes(), [], "the connection is still there");
    let lost = world.datagrams(Direction::Down);
    assert!(lost < first + 40);
    // On the new port things get through.
    let mut world = undrop(world);
    world.migrate_port();
    world.until(10, "acknowledgement", |world| world.client.acknowledged() == 1);
    world.until(5, "validated path", |world| world.client.has(|event| *event == Event::PathValidated));
    assert_eq!(world.client.connections(), 1, "no reconnect was needed");
}

#[test]
fn a_server_that_wants_its_clients_to_stay_is_not_left_for_another_port() {
    let mut options = PairOptions::seeded(17);
    options.server.migration = false;
    let mut world: World = with(options, MqttOptions::default());
    world.connect();
    world.run_for(Duration::from_millis(200));
    world.publish(&AT_LEAST_ONCE);
    let first = world.datagrams(Direction::Down) + 1;
    for n in first..first + 40 {
        world = world.drop_nth_from_server(n);
    }
    world.until(30, "fourth timeout", |world| world.client.stats().transport.pto_count >= 4);
    assert!(!world.client.has(|event| *event == Event::MigrationWanted));
    // Asked to all the same, it declines: its datagrams go on from where it is.
    let now = world.now();
    world.client.on_local_address_changed(now, device::client::PathChange::Port);
    assert_eq!(world.client.stats().transport.migrations, 0);
    let mut world = undrop(world);
    world.until(10, "acknowledgement", |world| world.client.acknowledged() == 1);
    assert_eq!((world.client.connections(), world.client.causes()), (1, vec![]));
}

/// Lets the rest of the announced losses pass.
fn undrop(mut world: World) -> World {
    world.clear_drops();
    world
}

#[test]
fn a_path_that_stays_dead_is_given_up_and_connected_anew() {
    let mut world = world(15);
    world.connect();
    world.run_for(Duration::from_millis(200));
    world.publish(&AT_LEAST_ONCE);
    let first = world.datagrams(Direction::Down) + 1;
    for n in first..first + 1_000 {
        world = world.drop_nth_from_server(n);
    }
    world.until(60, "end of patience", |world| world.client.causes() == [Cause::Stalled]);
    world.clear_drops();
    world.until(60, "acknowledgement", |world| world.client.acknowledged() == 1);
    assert_eq!(world.client.connections(), 2);
}

#[test]
fn a_new_source_port_by_a_nat_costs_nothing() {
    let mut world = world(16);
    world.connect();
    world.run_for(Duration::from_millis(200));
    world.rebind_port();
    world.publish(&AT_LEAST_ONCE);
    world.until(2, "acknowledgement", |world| world.client.acknowledged() == 1);
    assert_eq!(world.client.connections(), 1);
}

#[test]
fn keys_are_updated_on_request() {
    let mut world = world(17);
    world.connect();
    world.run_for(Duration::from_millis(200));
    let now = world.now();
    world.client.update_keys(now);
    world.publish(&AT_LEAST_ONCE);
    world.until(5, "key update", |world| world.client.has(|event| *event == Event::KeysUpdated));
    world.until(5, "acknowledgement", |world| world.client.acknowledged() == 1);
}

#[test]
fn without_resumption_each_handshake_is_full() {
    let policy = Policy { resumption: Resumption::Never, ..Policy::DEFAULT };
    let mut world = dropped(MqttOptions { policy, ..MqttOptions::default() });
    world.until(30, "second CONNACK", |world| world.client.connections() == 2);
    assert_eq!(world.client.stats().policy.resumptions, 0);
}

#[test]
fn publications_wait_for_the_connection_within_the_store() {
    let mut world = world(18);
    let payload = [7; 200];
    let publication = Publication { payload: &payload, ..AT_LEAST_ONCE };
    let now = world.now();
    let taken = (0..32).map_while(|_| world.client.publish(now, &publication).ok()).count();
    assert!((4..=16).contains(&taken), "{taken}");
    assert_eq!(world.client.publish(now, &publication), Err(RequestError::Full));
    world.connect();
    world.until(10, "acknowledgements", |world| world.client.acknowledged() == taken);
    assert_eq!(world.server.service.published.len(), taken);
}

#[test]
fn keep_alive_keeps_a_quiet_connection_for_ten_minutes() {
    let mqtt = MqttOptions { keep_alive_s: 20, ..MqttOptions::default() };
    let mut world: World = with(PairOptions::seeded(19), mqtt);
    world.connect();
    world.run_for(Duration::from_secs(600));
    assert_eq!(world.client.causes(), []);
    let pings = world.client.stats().session.pings_sent;
    assert!((28..=30).contains(&pings), "{pings}");
}

#[test]
fn the_defaults_keep_a_quiet_connection() {
    for server_idle_s in [4, 30, 3_600] {
        let mut options = PairOptions::seeded(20);
        options.client.quic = device::quic::Config::new();
        options.server.idle_timeout = Duration::from_secs(server_idle_s);
        let mut world: World = with(options, MqttOptions::default());
        world.connect();
        world.run_for(Duration::from_secs(600));
        let told = (world.client.connections(), world.client.causes());
        assert_eq!(told, (1, vec![]), "the server's idle timeout is {server_idle_s} s");
    }
}

#[test]
fn early_data_is_tried_again_after_an_outage() {
    let mut options = PairOptions::seeded(3);
    options.link.blackout.push(Blackout {
        at: Time::from_millis(1_700),
        after: None,
        length: Time::from_millis(40_000),
        period: None,
        count: None,
        direction: None,
    });
    let mut world: World = with(options, early());
    world.connect();
    world.run_for(Duration::from_millis(1_500));
    let now = world.now();
    world.server.service.kick(ReasonCode::SERVER_SHUTTING_DOWN);
    world.server.wake(now);
    world.until(120, "second CONNACK", |world| world.client.connections() == 2);
    assert!(world.client.stats().policy.attempts > 3, "the outage lasted");
    assert_eq!(world.client.stats().policy.early_data_accepted, 1);
}

#[test]
fn a_broker_that_kicks_each_session_at_once_sees_few_of_them() {
    let mut world = world(2);
    world.connect();
    let mut seen = 0;
    for _ in 0..600 {
        if world.client.connections() > seen {
            seen = world.client.connections();
            let now = world.now();
            world.server.service.kick(ReasonCode::SERVER_BUSY);
            world.server.wake(now);
        }
        world.run_for(Duration::from_millis(100));
    }
    // Waits of at least 0.25, 0.5, 1, 2, 4, 8, 15, 15 ... seconds.
    assert!((6..=10).contains(&seen), "{seen} in a minute");
}

#[test]
fn every_step_of_a_reconnect_is_told_with_its_time() {
    let mut world = dropped(MqttOptions::default());
    world.until(30, "second CONNACK", |world| world.client.connections() == 2);
    world.run_for(Duration::from_secs(1));
    let mut steps = world.client.told.iter().map(|(at, told)| (at.as_micros(), told));
    let mut at = 0;
    let mut next = |what: &str, wanted: &dyn Fn(&Event<'static>) -> bool| {
        let found = steps.find(|(_, told)| matches!(told, Told::Event(event) if wanted(event)));
        let (time, _) = found.unwrap_or_else(|| panic!("no {what}"));
        assert!(time >= at, "{what} at {time} after {at}");
        at = time;
        time
    };
    let phase = |wanted: Phase| move |event: &Event<'static>| *event == Event::Phase(wanted);
    for resuming in [false, true] {
        let first = next(
            "attempt",
            &|event| matches!(event, Event::Attempt { number, resuming: is, .. } if *is == resuming && *number == 1 + u32::from(resuming)),
        );
        next("ServerHello", &phase(Phase::ServerHello));
        if !resuming {
            next("certificate", &phase(Phase::CertificateVerified));
        }
        next("handshake", &phase(Phase::HandshakeComplete));
        let connack = {
            next("CONNECT", &phase(Phase::ConnectSent));
            next("CONNACK", &phase(Phase::Connack))
        };
        next("session", &|event| matches!(event, Event::Connected(_)));
        assert!((60_000..75_000).contains(&(connack - first)), "{connack} - {first}");
        if !resuming {
            let down = next("end", &|event| matches!(event, Event::Disconnected(_)));
            let retry = next("wait", &|event| matches!(event, Event::RetryAt { number: 2, .. }));
            assert_eq!(down, retry);
        }
    }
}

#[test]
fn a_dead_path_is_left_by_migration_then_by_a_resumed_takeover_each_step_told_with_its_time() {
    let mut world: World = with(PairOptions::seeded(20), early());
    world.connect();
    world.until(5, "ticket", |world| has_ticket(world));
    world.run_for(Duration::from_millis(200));
    world.publish(&AT_LEAST_ONCE.qos(Qos::ExactlyOnce));
    world.run_for(Duration::from_millis(1));
    let (up, down) = (world.datagrams(Direction::Up), world.datagrams(Direction::Down));
    for n in 1..=1_000 {
        world = world.drop_nth_from_client(up + n).drop_nth_from_server(down + n);
    }
    let begun = world.client.told.len();
    world.until(10, "wish for migration", |world| world.client.wants_migration);
    world.migrate_port();
    let retry = |event: &Event<'static>| matches!(event, Event::RetryAt { .. });
    world.until(60, "wait for another attempt", |world| world.client.has(retry));
    let mut world = undrop(world);
    world.until(30, "second CONNACK", |world| world.client.connections() == 2);
    assert_eq!(world.server.connections().count(), 2, "the server has not noticed that the first was left");

    let told: Vec<_> = world.client.told[begun..]
        .iter()
        .filter_map(|(at, told)| match told {
            Told::Event(event) => Some((at.device(), *event)),
            _ => None,
        })
        .collect();
    assert!(told.is_sorted_by_key(|(at, _)| *at), "{told:#?}");
    let steps: Vec<_> = told.iter().map(|(_, event)| *event).collect();
    let retry_at = steps.iter().find_map(|event| match event {
        Event::RetryAt { at, number: 2 } => Some(*at),
        _ => None,
    });
    let retry_at = retry_at.unwrap_or_else(|| panic!("no RetryAt: {told:#?}"));
    let connected =
        device::client::Connected { session_present: true, resumed: true, early_data_accepted: true };
    let expected = [
        Event::MigrationWanted,
        Event::MigrationStarted,
        Event::Disconnected(Cause::Stalled),
        Event::RetryAt { at: retry_at, number: 2 },
        Event::Attempt { number: 2, resuming: true, early_data: true },
        Event::Phase(Phase::Started),
        Event::Phase(Phase::ConnectSent),
        Event::Phase(Phase::ServerHello),
        Event::Phase(Phase::HandshakeComplete),
        Event::Phase(Phase::Connack),
        Event::Connected(connected),
    ];
    assert_eq!(steps[..expected.len().min(steps.len())], expected, "{told:#?}");
    let attempt = told.iter().find(|(_, event)| matches!(event, Event::Attempt { .. })).expect("just seen");
    assert_eq!(attempt.0, retry_at, "as was announced");
    world.until(10, "acknowledgement", |world| world.client.acknowledged() == 1);
    assert_eq!(world.server.service.published.len(), 1, "once, though it was sent on both connections");
}

#[test]
fn more_messages_in_flight_than_3_1_1_can_limit_come_once_and_in_order() {
    let mqtt = MqttOptions { version: Version::V3_1_1, ..MqttOptions::default() };
    let broker = BrokerOptions { in_flight_max: 100, ..BrokerOptions::default() };
    let mut world: World = with_broker(PairOptions::seeded(17), mqtt, broker);
    world.connect();
    world.subscribe(Slot::CONTROL, "a/#", Qos::ExactlyOnce);
    for number in 0..100 {
        world.broker_publishes("a/b", &[number], Qos::ExactlyOnce);
    }
    world.until(120, "messages", |world| world.client.messages().count() == 100);
    world.run_for(Duration::from_secs(5));
    let arrived: Vec<u8> = world.client.messages().map(|message| message.payload[0]).collect();
    assert_eq!(arrived, (0..100).collect::<Vec<_>>());
    let causes = world.client.causes();
    let is_excess =
        |cause: &Cause| matches!(cause, Cause::Protocol(error) if error.reason == ReasonCode::QUOTA_EXCEEDED);
    assert!(!causes.is_empty() && causes.iter().all(is_excess), "{causes:?}");
}

#[test]
fn rounds_that_no_session_continues_are_failures_like_any() {
    let mqtt = MqttOptions { version: Version::V3_1_1, session_expiry_s: 0, ..MqttOptions::default() };
    let broker = BrokerOptions { in_flight_max: 100, ..BrokerOptions::default() };
    let mut world: World = with_broker(PairOptions::seeded(18), mqtt, broker);
    world.connect();
    for number in 0..100 {
        let topic = format!("a/{number}");
        world.publish(&Publication {
            retain: Retain::Yes,
            topic: &topic,
            ..AT_LEAST_ONCE.qos(Qos::ExactlyOnce)
        });
        world.until(5, "acknowledgement", |world| world.client.acknowledged() > number);
    }
    let before = world.client.connections();
    let now = world.now();
    world.client.subscribe(now, Slot::CONTROL, &[Filter::new("a/#", Qos::ExactlyOnce)]).expect("room");
    world.run_for(Duration::from_secs(60));
    // All that it had no room for comes again with each SUBSCRIBE: waits of at least 0.25, 0.5, 1, 2, 4, 8, 15 ... seconds.
    let made = world.client.connections() - before;
    assert!((5..=10).contains(&made), "{made} connections in a minute: {:?}", world.client.causes());
}
