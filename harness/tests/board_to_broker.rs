//! A host board through a link to the embedded broker: every part real but the radio.

mod bench;

use std::time::Duration;

use bench::{Bench, settings, workload};
use device::control::{
    Addressing, Cause, Event, HandshakePhase, Manner, Migration, Pattern, Reconnection, Request, Resumed,
    Sample, StreamMode, Transport, Verdict, Workload, WorkloadEnd,
};
use harness::broker::{BrokerOptions, ClientAuthentication};

/// Everything that was published came back once, intact and in order.
fn assert_all_received(received: &[Sample], count: u32) {
    let mut sequences = Vec::new();
    for sample in received {
        let Sample::Received { run, sequence, topic, verdict, .. } = *sample else { panic!("{sample:?}") };
        assert_eq!((run, verdict, u32::from(topic)), (1, Verdict::Intact, sequence % 2), "{sample:?}");
        sequences.push(sequence);
    }
    assert!(sequences.iter().copied().eq(0..count), "{sequences:?}");
}

async fn publishes_and_receives(transport: Transport, link: &str) {
    let mut bench = Bench::new(link, BrokerOptions::default()).await;
    bench.configure(settings(transport)).await;
    bench.connect().await;
    bench.subscribe("bench/#", 1).await;
    let outcome = bench.run(workload(50, 1), 50).await;
    let result = outcome.result.expect("it ended");
    assert_eq!((result.end, result.accepted, result.acked), (WorkloadEnd::Complete, 50, 50), "{result:?}");
    assert!(outcome.published.iter().copied().eq(0..50), "{:?}", outcome.published);
    assert_all_received(&outcome.received, 50);
    bench.board.command(Request::Disconnect).await.expect("connected");
    let cause = bench.event("the end", |event| match event {
        Event::Disconnected(disconnection) => Some(disconnection.cause),
        _ => None,
    });
    assert_eq!(cause.await, Cause::Requested);
}

#[tokio::test]
async fn over_quic_a_workload_is_published_and_received() {
    publishes_and_receives(Transport::Quic, "").await;
}

#[tokio::test]
async fn over_quic_a_lossy_link_loses_nothing() {
    publishes_and_receives(Transport::Quic, "both.loss = \"10 %\"\nboth.delay = \"5 ms\"").await;
}

#[tokio::test]
async fn over_tls_a_workload_is_published_and_received() {
    publishes_and_receives(Transport::Tls, "").await;
}

#[tokio::test]
async fn over_tls_a_lossy_link_loses_nothing() {
    publishes_and_receives(Transport::Tls, "both.loss = \"10 %\"\nboth.delay = \"5 ms\"").await;
}

#[tokio::test]
async fn over_tcp_a_workload_is_published_and_received() {
    publishes_and_receives(Transport::Tcp, "").await;
}

#[tokio::test]
async fn over_tcp_a_lossy_link_loses_nothing() {
    publishes_and_receives(Transport::Tcp, "both.loss = \"10 %\"\nboth.delay = \"5 ms\"").await;
}

#[tokio::test]
async fn over_tls_the_alert_is_heard_that_comes_with_the_end_of_the_connection() {
    let options =
        BrokerOptions { client_authentication: ClientAuthentication::Required, ..BrokerOptions::default() };
    let mut bench = Bench::new("", options).await;
    bench.configure(settings(Transport::Tls)).await;
    // Alert and FIN arrive in one segment or in two, as it happens.
    for _ in 0..10 {
        bench.board.command(Request::Connect).await.expect("configured");
        let ended = bench.event("the refusal", |event| match event {
            Event::Disconnected(disconnection) => Some((disconnection.cause, disconnection.code)),
            _ => None,
        });
        assert_eq!(ended.await, (Cause::ClosedByPeer, 116), "certificate_required");
    }
}

/// Processor time of a process so far, in clock ticks of 10 ms.
fn processor_ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.map(|field| field.parse::<u64>().expect("user and system time")).sum()
}

#[tokio::test]
async fn a_connected_board_with_nothing_to_do_sleeps() {
    for transport in [Transport::Quic, Transport::Tls, Transport::Tcp] {
        let mut bench = Bench::new("", BrokerOptions::default()).await;
        bench.configure(settings(transport)).await;
        bench.connect().await;
        while bench.board.next(Duration::from_millis(100)).await.expect("alive").is_some() {}
        let process = bench.board.process_id().expect("a virtual board is a process");
        let before = processor_ticks(process);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let spent = processor_ticks(process) - before;
        assert!(spent <= 5, "{transport:?}: {spent} ticks within half a second");
    }
}

#[tokio::test]
async fn the_handshake_is_reported_phase_by_phase() {
    let mut bench = Bench::new("", BrokerOptions::default()).await;
    bench.configure(settings(Transport::Quic)).await;
    bench.board.command(Request::Connect).await.expect("configured");
    let mut phases = Vec::new();
    let resumed = bench.event("CONNACK", |event| match event {
        Event::Handshake(phase) => {
            phases.push(*phase);
            None
        }
        Event::MqttConnected { resumed, .. } => Some(*resumed),
        _ => None,
    });
    assert_eq!(resumed.await, Resumed::Full);
    for phase in [
        HandshakePhase::Started,
        HandshakePhase::KeysAgreed,
        HandshakePhase::ServerAuthenticated,
        HandshakePhase::Complete,
        HandshakePhase::ConnectSent,
    ] {
        assert!(phases.contains(&phase), "{phase:?} is not in {phases:?}");
    }
}

#[tokio::test]
async fn with_dhcp_the_board_gets_its_address_and_connects() {
    let mut bench = Bench::new("", BrokerOptions::default()).await;
    let mut settings = settings(Transport::Quic);
    settings.addressing = Addressing::Dhcp;
    bench.configure(settings).await;
    bench.board.command(Request::Connect).await.expect("configured");
    let acquired = bench.event("an address", |event| match event {
        Event::AddressAcquired { address, prefix } => Some((*address, *prefix)),
        _ => None,
    });
    assert_eq!(acquired.await, ([10, 77, 0, 2].into(), 24));
    bench.connected().await;
}

#[tokio::test]
async fn a_migration_keeps_the_connection() {
    let mut bench = Bench::new("", BrokerOptions::default()).await;
    bench.configure(settings(Transport::Quic)).await;
    bench.connect().await;
    bench.subscribe("bench/#", 1).await;
    bench
        .board
        .command(Request::Migrate(Migration { port: 50_000, address: None }))
        .await
        .expect("confirmed");
    let port = bench.event("the migration", |event| match event {
        Event::MigrationStarted { port } => Some(*port),
        _ => None,
    });
    assert_eq!(port.await, 50_000);
    bench.event("the new path", |event| matches!(event, Event::PathValidated).then_some(())).await;
    let outcome = bench.run(workload(10, 1), 10).await;
    assert_all_received(&outcome.received, 10);
    let lost = |event: &Event| matches!(event, Event::Disconnected(_));
    assert!(!outcome.events.iter().any(lost), "{:?}", outcome.events);
}

async fn reconnects_with_a_ticket(transport: Transport) {
    for manner in [Manner::Graceful, Manner::Abrupt] {
        let mut bench = Bench::new("", BrokerOptions::default()).await;
        bench.configure(settings(transport)).await;
        bench.board.command(Request::Connect).await.expect("configured");
        let (mut ticket, mut connected) = (false, false);
        let both = bench.event("a ticket and CONNACK", |event| {
            ticket |= matches!(event, Event::TicketReceived);
            connected |= matches!(event, Event::MqttConnected { .. });
            (ticket && connected).then_some(())
        });
        both.await;
        bench.board.command(Request::Reconnect(manner)).await.expect("connected");
        let resumed = bench.event("CONNACK", |event| match event {
            Event::MqttConnected { resumed, .. } => Some(*resumed),
            _ => None,
        });
        assert_eq!(resumed.await, Resumed::Ticket, "{manner:?}");
    }
}

#[tokio::test]
async fn over_quic_a_forced_reconnect_resumes_with_the_ticket() {
    reconnects_with_a_ticket(Transport::Quic).await;
}

#[tokio::test]
async fn over_tls_a_forced_reconnect_resumes_with_the_ticket() {
    reconnects_with_a_ticket(Transport::Tls).await;
}

#[tokio::test]
async fn over_tcp_a_new_address_costs_the_connection_and_the_policy_makes_another() {
    let mut bench = Bench::new("", BrokerOptions::default()).await;
    let mut settings = settings(Transport::Tcp);
    settings.reconnection = Reconnection::Backoff { first_ms: 10, max_ms: 100, attempts: 0 };
    bench.configure(settings).await;
    bench.connect().await;
    let address = Some(([10, 77, 0, 3].into(), 24));
    bench.board.command(Request::Migrate(Migration { port: 0, address })).await.expect("connected");
    let mut lost = false;
    let reconnected = bench.event("another CONNACK", |event| match event {
        Event::Disconnected(_) => {
            lost = true;
            None
        }
        Event::MqttConnected { .. } => Some(()),
        _ => None,
    });
    reconnected.await;
    assert!(lost);
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_told_as_refused() {
    let mut bench = Bench::new("", BrokerOptions::default()).await;
    let mut settings = settings(Transport::Tcp);
    settings.broker.set_port(9);
    bench.configure(settings).await;
    bench.board.command(Request::Connect).await.expect("configured");
    let cause = bench.event("the end", |event| match event {
        Event::Disconnected(disconnection) => Some(disconnection.cause),
        _ => None,
    });
    assert_eq!(cause.await, Cause::Refused);
}

#[tokio::test]
async fn topics_on_data_streams_arrive_all() {
    let mut bench = Bench::new("", BrokerOptions::default()).await;
    let mut settings = settings(Transport::Quic);
    settings.quic.streams = StreamMode::PerTopic;
    bench.configure(settings).await;
    bench.connect().await;
    bench.subscribe("bench/#", 1).await;
    let outcome = bench.run(Workload { pattern: Pattern::Saturate, ..workload(40, 1) }, 40).await;
    assert_eq!(outcome.result.expect("it ended").end, WorkloadEnd::Complete);
    assert_eq!(outcome.received.len(), 40);
    let opened = outcome.events.iter().filter(|event| matches!(event, Event::StreamOpened { .. })).count();
    assert!(opened >= 1, "{:?}", outcome.events);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    for (transport, crypto_error) in [(Transport::Quic, 0x100), (Transport::Tls, 0)] {
        let mut bench = Bench::new("", BrokerOptions::default()).await;
        let other = harness::certificates::Certificates::generate().expect("an authority");
        bench.certificates = std::sync::Arc::new(other);
        bench.configure(settings(transport)).await;
        bench.board.command(Request::Connect).await.expect("configured");
        let cause = bench.event("the end", |event| match event {
            Event::Disconnected(disconnection) => Some((disconnection.cause, disconnection.code)),
            _ => None,
        });
        // bad_certificate, 42 (RFC 8446 6.2), over QUIC as a crypto error (RFC 9001 4.8): both authorities
        // have the same name, so it is the signature that is wrong.
        assert_eq!(cause.await, (Cause::TlsRefused, crypto_error + 42));
    }
}
