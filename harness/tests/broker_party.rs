//! The verifying peer and the reference clients against the embedded broker, and the account drawn from both.

mod support;

use std::sync::Arc;
use std::time::Duration;

use device::control::{Pattern, Reconnection, Resumption, Workload, clipped};
use harness::broker::{Broker, BrokerOptions, Fault, SessionState};
use harness::measure::record::{ConnectCause, ConnectFailureKind, Phase};
use harness::measure::{Direction, Fate, Transport};
use harness::peer::{
    Account, ClientOptions, Clock, Closing, ConnectError, Connector, Implementation, Ledger, Party, Target,
};
use harness::wire::{Properties, Qos, property};
use support::{options, start, target, within};

const KINDS: [(Transport, Implementation); 5] = [
    (Transport::Quic, Implementation::Own),
    (Transport::Tls, Implementation::Own),
    (Transport::Tcp, Implementation::Own),
    (Transport::Tls, Implementation::Rumqttc),
    (Transport::Tcp, Implementation::Rumqttc),
];

fn workload(run: u32, topics: &[&str], count: u32, qos: u8) -> Workload {
    Workload {
        run,
        topics: topics.iter().map(|topic| clipped(topic)).collect(),
        qos,
        retain: false,
        size: 100,
        count,
        pattern: Pattern::Every { interval_us: 2_000 },
        seed: 5,
        drain_ms: 4_000,
    }
}

/// A client that comes back and wants its session.
fn persistent(client_id: &str) -> ClientOptions {
    let mut options = options(client_id);
    options.connect.clean_start = false;
    options.connect.properties = Properties::default().with_u32(property::SESSION_EXPIRY_INTERVAL, 600);
    options.reconnection = Reconnection::Backoff { first_ms: 20, max_ms: 100, attempts: 0 };
    options
}

async fn party(target: Target, kind: Implementation, options: ClientOptions, clock: Clock) -> Party {
    let connector = Arc::new(Connector::new(target).expect("usable settings"));
    let party = Party::start(kind, connector, options, clock).expect("a client for these settings");
    within("connecting", party.connected()).await.expect("a connection");
    party
}

fn all_delivered(account: &Account) {
    for message in &account.messages {
        assert_eq!(message.fate, Fate::Delivered, "{message:?}");
        assert!(message.delivered_us >= Some(message.intended_us), "{message:?}");
        assert!(message.sent_us >= Some(message.intended_us), "{message:?}");
        assert_eq!(message.acked_us.is_some(), message.qos > 0, "{message:?}");
    }
    assert_eq!(account.strays, harness::peer::Strays::default());
    assert_eq!(account.contradictions, Vec::<String>::new());
}

#[tokio::test]
async fn workloads_run_both_ways_over_every_transport_and_each_message_is_accounted_for() {
    let broker = start(BrokerOptions::default()).await;
    for (n, (transport, kind)) in KINDS.into_iter().enumerate() {
        for qos in Qos::ALL {
            let clock = Clock::start();
            let subject =
                party(target(&broker, transport), kind, options(&format!("subject-{n}")), clock).await;
            let own = Implementation::Own;
            let peer = party(target(&broker, Transport::Quic), own, options("peer"), clock).await;
            subject.subscribe(&["down/#"], qos).await.expect("allowed");
            peer.subscribe(&["up/0", "up/1"], qos).await.expect("allowed");
            let up = workload(1, &["up/0", "up/1"], 40, qos.bits());
            let down = workload(2, &["down/0"], 40, qos.bits());
            let mut ledger = Ledger::new();
            ledger.plan(Direction::FromBoard, &up, clock.now_us());
            ledger.plan(Direction::ToBoard, &down, clock.now_us());
            let (up, down) = (subject.start_workload(up), peer.start_workload(down));
            within("the arrivals", async {
                peer.arrived(40).await;
                subject.arrived(40).await;
            })
            .await;
            for sending in within("the workload", up.finish()).await {
                ledger.sending(1, &sending);
            }
            for sending in within("the workload", down.finish()).await {
                ledger.sending(2, &sending);
            }
            for arrival in peer.finish().await.arrivals {
                ledger.arrival(Direction::FromBoard, &arrival);
            }
            let testimony = subject.finish().await;
            for arrival in testimony.arrivals {
                ledger.arrival(Direction::ToBoard, &arrival);
            }
            assert_eq!(testimony.log.connections.len(), 1, "{transport} {kind:?}");
            let account = ledger.close(Closing::Complete);
            assert_eq!(account.topics, ["up/0", "up/1", "down/0"]);
            assert_eq!(account.messages.len(), 80);
            all_delivered(&account);
        }
    }
    broker.shut_down().await;
}

#[tokio::test]
async fn saturating_workload_sends_as_fast_as_it_is_acknowledged() {
    let broker = start(BrokerOptions::default()).await;
    for (transport, kind) in KINDS {
        let clock = Clock::start();
        let subject = party(target(&broker, transport), kind, options("subject"), clock).await;
        let peer = party(target(&broker, Transport::Tcp), Implementation::Own, options("peer"), clock).await;
        peer.subscribe(&["up"], Qos::AtLeastOnce).await.expect("allowed");
        let mut up = workload(1, &["up"], 300, 1);
        up.pattern = Pattern::Saturate;
        let running = subject.start_workload(up);
        within("the arrivals", peer.arrived(300)).await;
        let sendings = within("the workload", running.finish()).await;
        assert_eq!(sendings.len(), 300);
        assert!(sendings.iter().all(|sending| sending.acked_us.is_some()), "{transport} {kind:?}");
        subject.finish().await;
        peer.finish().await;
    }
    broker.shut_down().await;
}

#[tokio::test]
async fn phases_of_a_connection_come_in_order() {
    let broker = start(BrokerOptions::default()).await;
    for (transport, kind) in KINDS {
        let subject = party(target(&broker, transport), kind, options("c"), Clock::start()).await;
        let log = subject.finish().await.log;
        let connection = &log.connections[0];
        assert_eq!(connection.cause, ConnectCause::First);
        let mut phases: Vec<Phase> = connection.marks.iter().map(|mark| mark.phase).collect();
        assert!(connection.marks.is_sorted_by_key(|mark| mark.at_us));
        assert!(phases.is_sorted(), "{transport} {kind:?}: {phases:?}");
        // rumqttc keeps to itself when TCP stands and when CONNECT is written.
        phases.retain(|phase| !matches!(phase, Phase::TcpConnected | Phase::ConnectSent));
        let expected: &[Phase] = match transport {
            Transport::Tcp => &[Phase::FirstPacket, Phase::Connack],
            _ => &[
                Phase::FirstPacket,
                Phase::HandshakeKeys,
                Phase::CertificateVerified,
                Phase::HandshakeComplete,
                Phase::Connack,
            ],
        };
        assert_eq!(phases, expected, "{transport} {kind:?}");
        let figures = log.stats.and_then(|stats| stats.rtt_smoothed_us);
        assert_eq!(figures.is_some(), transport == Transport::Quic);
        assert_eq!(connection.client_to_connack.is_some(), transport == Transport::Quic);
    }
    broker.shut_down().await;
}

/// Runs a workload of QoS 1 over a time in which `disturb` does its worst.
async fn disturbed(
    transport: Transport,
    kind: Implementation,
    disturb: impl AsyncFnOnce(&mut Broker),
) -> Account {
    let mut broker = start(BrokerOptions::default()).await;
    let clock = Clock::start();
    let mut to = target(&broker, transport);
    // Over QUIC a killed broker is noticed by its silence only.
    to.quic.idle_timeout = Some(Duration::from_millis(300));
    let mut quick = persistent("subject");
    quick.connect_limit = Duration::from_millis(500);
    let subject = party(to.clone(), kind, quick, clock).await;
    to.transport = Transport::Quic;
    to.address = broker.addresses().quic.expect("a listener");
    let mut listener = persistent("peer");
    listener.connect_limit = Duration::from_millis(500);
    let peer = party(to, Implementation::Own, listener, clock).await;
    peer.subscribe(&["up"], Qos::AtLeastOnce).await.expect("allowed");
    let mut up = workload(1, &["up"], 100, 1);
    up.pattern = Pattern::Every { interval_us: 4_000 };
    let mut ledger = Ledger::new();
    ledger.plan(Direction::FromBoard, &up, clock.now_us());
    let running = subject.start_workload(up);
    within("the first arrivals", peer.arrived(20)).await;
    disturb(&mut broker).await;
    for sending in within("the workload", running.finish()).await {
        ledger.sending(1, &sending);
    }
    within("the arrivals", async {
        while peer.arrivals().iter().map(|a| a.sequence).collect::<std::collections::BTreeSet<_>>().len()
            < 100
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    for arrival in peer.finish().await.arrivals {
        ledger.arrival(Direction::FromBoard, &arrival);
    }
    let log = subject.finish().await.log;
    assert!(log.connections.iter().any(|c| c.cause == ConnectCause::Recovery && c.failure.is_none()));
    broker.shut_down().await;
    ledger.close(Closing::Complete)
}

#[tokio::test]
async fn every_client_comes_back_after_a_restart_and_repeats_what_was_not_acknowledged() {
    for (transport, kind) in KINDS {
        let account = disturbed(transport, kind, async |broker| {
            broker.apply(&Fault::Kill).await.expect("it runs");
            tokio::time::sleep(Duration::from_millis(50)).await;
            broker.apply(&Fault::Start(SessionState::Kept)).await.expect("it is down");
        })
        .await;
        for message in &account.messages {
            assert!(message.acked_us.is_some(), "{transport} {kind:?}: {message:?}");
            assert!(message.fate.arrived(), "{transport} {kind:?}: {message:?}");
        }
    }
}

#[tokio::test]
async fn kicked_client_comes_back() {
    for (transport, kind) in KINDS {
        let account = disturbed(transport, kind, async |broker| {
            let kick = Fault::Kick { client_id: "subject".into() };
            broker.apply(&kick).await.expect("it runs");
        })
        .await;
        assert!(account.messages.iter().all(|message| message.fate.arrived()), "{transport} {kind:?}");
    }
}

#[tokio::test]
async fn failed_attempts_are_recorded_with_their_kind() {
    let mut broker = start(BrokerOptions::default()).await;
    let rotate = Fault::RotateCertificate(harness::certificates::Flaw::Expired);
    broker.apply(&rotate).await.expect("it runs");
    for (transport, kind) in KINDS {
        let mut options = options("c");
        options.reconnection = Reconnection::Backoff { first_ms: 1, max_ms: 1, attempts: 2 };
        options.connect_limit = Duration::from_secs(1);
        let mut target = target(&broker, transport);
        let expected = match transport {
            Transport::Tcp => {
                // Nobody listens there.
                target.address.set_port(9);
                ConnectFailureKind::Other
            }
            _ => ConnectFailureKind::Certificate,
        };
        let connector = Arc::new(Connector::new(target).expect("usable settings"));
        let party = Party::start(kind, connector, options, Clock::start()).expect("usable settings");
        within("the refusal", party.connected()).await.expect_err("a refusal");
        let log = within("giving up", async {
            loop {
                let log = party.client().log();
                if log.connections.len() == 2 {
                    return log;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        for connection in &log.connections {
            let failure = connection.failure.as_ref().expect("it failed");
            assert_eq!(failure.kind, expected, "{transport} {kind:?}: {failure:?}");
        }
    }
    broker.shut_down().await;
}

#[tokio::test]
async fn rumqttc_is_not_offered_for_what_it_does_not_speak() {
    let broker = start(BrokerOptions::default()).await;
    let connector = Arc::new(Connector::new(target(&broker, Transport::Quic)).expect("usable settings"));
    let started = Party::start(Implementation::Rumqttc, connector, options("c"), Clock::start());
    assert!(matches!(started, Err(ConnectError::Settings(_))));
    broker.shut_down().await;
}

#[tokio::test]
async fn early_data_save_a_round_trip_after_a_reconnect() {
    let broker = start(BrokerOptions::default()).await;
    let mut to = target(&broker, Transport::Quic);
    to.resumption = Resumption::EarlyData;
    let subject = party(to, Implementation::Own, persistent("c"), Clock::start()).await;
    subject.client().reconnect();
    within("the reconnect", async {
        while subject.client().log().connections.len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let log = subject.finish().await.log;
    let again = &log.connections[1];
    assert_eq!(again.cause, ConnectCause::Step);
    assert_eq!(again.handshake, harness::measure::record::Handshake::ZeroRtt);
    let at = |phase| again.elapsed_us(phase).expect("reached");
    assert!(at(Phase::ConnectSent) < at(Phase::HandshakeComplete));
    broker.shut_down().await;
}
