//! What the embedded broker can be made to suffer, and the handshakes it offers.

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use device::control::Resumption;
use harness::broker::{
    AddressValidation, Broker, BrokerError, BrokerEventKind, BrokerOptions, BrokerSpec, ClientAuthentication,
    Fault, Limits, Overload, Ports, SessionState,
};
use harness::certificates::{Certificates, Flaw, KeyKind};
use harness::measure::Transport;
use harness::measure::record::Handshake;
use harness::peer::{Client, ConnectError, Connector, Target};
use harness::wire::{Connect, Packet, Qos, Version};
use support::raw::{End, Raw, close_code};
use support::{TestClient, options, resuming, start, target, within};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UdpSocket};

/// RFC 8446 6.
const CERTIFICATE_REQUIRED: u8 = 116;

/// Why a client cannot connect.
async fn refusal(target: Target) -> ConnectError {
    let connector = Arc::new(Connector::new(target).expect("usable settings"));
    let (events, _) = tokio::sync::mpsc::unbounded_channel();
    let mut settings = options("refused");
    settings.connect_limit = Duration::from_millis(1_500);
    let client = Client::start(connector, settings, harness::peer::Clock::start(), events);
    within("the refusal", client.connected()).await.expect_err("a refusal")
}

#[tokio::test]
async fn takeover_is_told_on_the_stream_and_closes_with_code_1() {
    let broker = start(BrokerOptions::default()).await;
    let raw = Raw::new(&broker);
    for version in [Version::V5, Version::V311] {
        let mut old = raw.session_with(Connect::new(version, "c")).await;
        let began = Instant::now();
        raw.session_with(Connect::new(version, "c")).await;
        if version == Version::V5 {
            assert_eq!(old.control.packet().await, Packet::Disconnect { reason: 0x8e });
        }
        assert_eq!(old.control.end().await, End::Fin);
        assert_eq!(old.control.stopped().await, Some(0x8e));
        assert_eq!(close_code(&old.connection).await, 1);
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    broker.shut_down().await;
}

#[tokio::test]
async fn kicked_client_hears_the_reason() {
    let mut broker = start(BrokerOptions::default()).await;
    let mut session = Raw::new(&broker).session("c").await;
    let (mut tcp, _) = TestClient::connect(target(&broker, Transport::Tcp), options("d")).await;
    assert_eq!(broker.client_ids().len(), 2);
    for client_id in ["c", "d"] {
        broker.apply(&Fault::Kick { client_id: client_id.into() }).await.expect("it runs");
    }
    assert_eq!(session.control.packet().await, Packet::Disconnect { reason: 0x98 });
    assert_eq!(session.control.stopped().await, Some(0x98));
    assert_eq!(close_code(&session.connection).await, 1);
    assert!(tcp.disconnection().await.contains("0x98"));
    let nobody = broker.apply(&Fault::Kick { client_id: "e".into() }).await;
    assert!(matches!(nobody, Err(BrokerError::NoSuchClient { .. })), "{nobody:?}");
    broker.shut_down().await;
}

#[tokio::test]
async fn silent_client_is_let_go_after_one_and_a_half_keep_alives_counted_over_all_streams() {
    let broker = start(BrokerOptions::default()).await;
    let mut connect = Connect::new(Version::V5, "c");
    connect.keep_alive_s = 1;
    let mut session = Raw::new(&broker).session_with(connect).await;
    let mut data = session.stream().await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    data.publish("t", b"x", 1).await;
    data.acked(1).await;
    let heard = Instant::now();
    assert_eq!(session.control.packet().await, Packet::Disconnect { reason: 0x8d });
    assert_eq!(session.control.end().await, End::Fin);
    let after = heard.elapsed();
    assert!((1_450..1_900).contains(&after.as_millis()), "{after:?}");
    broker.shut_down().await;
}

#[tokio::test]
async fn idle_connection_is_closed_silently_when_the_broker_has_an_idle_timeout() {
    let limits = BrokerOptions { idle_timeout: Some(Duration::from_millis(300)), ..BrokerOptions::default() };
    let broker = start(limits).await;
    let session = Raw::new(&broker).session("c").await;
    let ended = within("the idle timeout", session.connection.closed()).await;
    assert!(matches!(ended, quinn::ConnectionError::TimedOut), "{ended:?}");
    broker.shut_down().await;
}

#[tokio::test]
async fn clients_beyond_the_limit_are_let_in_closed_or_refused_as_told() {
    let mut broker = start(BrokerOptions::default()).await;
    let raw = Raw::new(&broker);
    let first = raw.session("a").await;
    let limit = |overload| Fault::Limit(Limits { connections: 1, overload });
    let full = |overload| Fault::Limit(Limits { connections: 2, overload });
    broker.apply(&limit(Overload::Accept)).await.expect("it runs");
    let second = raw.session("b").await;
    broker.apply(&full(Overload::Close)).await.expect("it runs");
    let third = raw.connect().await;
    assert_eq!(close_code(&third).await, 2);
    let error = refusal(target(&broker, Transport::Tcp)).await;
    assert!(matches!(error, ConnectError::Closed { .. }), "{error}");

    broker.apply(&full(Overload::Refuse)).await.expect("it runs");
    let refused = within("the refusal", raw.connecting()).await.expect_err("a refusal");
    let quinn::ConnectionError::ConnectionClosed(close) = refused else { panic!("{refused}") };
    assert_eq!(close.error_code, quinn::TransportErrorCode::CONNECTION_REFUSED);
    let mut tcp =
        TcpStream::connect(target(&broker, Transport::Tcp).address).await.expect("the system accepts");
    let read = within("the reset", tcp.read(&mut [0])).await;
    assert_eq!(read.expect_err("a reset").kind(), std::io::ErrorKind::ConnectionReset);

    // The number counts: one more fits, and no second.
    let room = Limits { connections: 3, overload: Overload::Refuse };
    broker.apply(&Fault::Limit(room)).await.expect("it runs");
    let fits = raw.session("c").await;
    assert!(within("the refusal", raw.connecting()).await.is_err());
    drop((first, second, fits));
    broker.shut_down().await;
}

#[tokio::test]
async fn frozen_broker_answers_when_it_goes_on() {
    let mut broker = start(BrokerOptions::default()).await;
    for transport in Transport::ALL {
        let (client, _) = TestClient::connect(target(&broker, transport), options("c")).await;
        broker.apply(&Fault::Freeze).await.expect("it runs");
        let answered = {
            let mut publishing = std::pin::pin!(client.publish("t", b"x", Qos::AtLeastOnce));
            let frozen = tokio::time::timeout(Duration::from_millis(150), &mut publishing).await;
            assert!(frozen.is_err(), "{transport} answered while frozen");
            broker.apply(&Fault::Resume).await.expect("it is frozen");
            publishing.await
        };
        assert!(answered.acked_us.is_some());
        client.client.disconnect().await;
    }
    broker.shut_down().await;
}

#[tokio::test]
async fn udp_can_be_dropped_while_tcp_goes_on() {
    let mut broker = start(BrokerOptions::default()).await;
    let (quic, _) = TestClient::connect(target(&broker, Transport::Quic), options("q")).await;
    let (tcp, _) = TestClient::connect(target(&broker, Transport::Tls), options("t")).await;
    broker.apply(&Fault::DropUdp).await.expect("it runs");
    tcp.publish("t", b"x", Qos::AtLeastOnce).await;
    let mut publishing = std::pin::pin!(quic.publish("t", b"x", Qos::AtLeastOnce));
    let dropped = tokio::time::timeout(Duration::from_millis(150), &mut publishing).await;
    assert!(dropped.is_err(), "QUIC goes on");
    broker.apply(&Fault::PassUdp).await.expect("it runs");
    assert!(publishing.await.acked_us.is_some());
    broker.shut_down().await;
}

#[tokio::test]
async fn killed_broker_says_nothing_and_a_stopped_one_says_goodbye() {
    let mut broker = start(BrokerOptions::default()).await;
    let raw = Raw::new(&broker);
    let mut session = raw.session("c").await;
    broker.apply(&Fault::Kill).await.expect("it runs");
    let said = tokio::time::timeout(Duration::from_millis(200), session.connection.closed()).await;
    assert!(said.is_err(), "{said:?}");
    session.connection.close(0u32.into(), b"");
    let address = broker.addresses().quic.expect("a listener");
    UdpSocket::bind(address).await.expect("the port is free");

    broker.apply(&Fault::Start(SessionState::Lost)).await.expect("it is down");
    session = raw.session("c").await;
    broker.apply(&Fault::Stop).await.expect("it runs");
    assert_eq!(session.control.packet().await, Packet::Disconnect { reason: 0x8b });
    assert_eq!(close_code(&session.connection).await, 0);
    assert!(matches!(
        broker.apply(&Fault::Freeze).await,
        Err(BrokerError::FaultOutOfPlace { state: "stopped", .. })
    ));
    broker.shut_down().await;
}

#[tokio::test]
async fn each_wrong_certificate_is_refused_over_quic_and_tls_after_a_rotation() {
    let mut broker = start(BrokerOptions::default()).await;
    for flaw in Flaw::WRONG {
        broker.apply(&Fault::RotateCertificate(flaw)).await.expect("it runs");
        for transport in [Transport::Quic, Transport::Tls] {
            let error = refusal(target(&broker, transport)).await;
            assert!(matches!(error, ConnectError::Certificate(_)), "{flaw:?} {transport}: {error}");
        }
    }
    broker.apply(&Fault::RotateCertificate(Flaw::None)).await.expect("it runs");
    TestClient::connect(target(&broker, Transport::Quic), options("c")).await;
    broker.shut_down().await;
}

#[tokio::test]
async fn mutual_tls_lets_in_those_who_present_a_certificate_of_the_run() {
    let mutual =
        BrokerOptions { client_authentication: ClientAuthentication::Required, ..BrokerOptions::default() };
    let broker = start(mutual).await;
    let stranger = Certificates::generate().expect("an authority").client("c").expect("a leaf");
    for transport in [Transport::Quic, Transport::Tls] {
        // The broker refuses what comes too late to be read: its reason must not be lost over that.
        for _ in 0..10 {
            let refused = refusal(target(&broker, transport)).await;
            assert_eq!(refused.alert(), Some(CERTIFICATE_REQUIRED), "{transport:?}: {refused}");
        }
        let mut wrong = target(&broker, transport);
        wrong.identity = Some(stranger.clone());
        refusal(wrong).await;
        let mut right = target(&broker, transport);
        right.identity = Some(broker.certificates().client("c").expect("a leaf"));
        TestClient::connect(right, options("c")).await;
    }
    broker.shut_down().await;
}

#[tokio::test]
async fn tickets_shorten_later_handshakes() {
    let broker = start(BrokerOptions::default()).await;
    for (transport, resumption, second) in [
        (Transport::Quic, Resumption::Off, Handshake::Full),
        (Transport::Quic, Resumption::Ticket, Handshake::Resumed),
        (Transport::Quic, Resumption::EarlyData, Handshake::ZeroRtt),
        (Transport::Tls, Resumption::Off, Handshake::Full),
        (Transport::Tls, Resumption::Ticket, Handshake::Resumed),
    ] {
        let settings = resuming(target(&broker, transport), resumption);
        let connector = Arc::new(Connector::new(settings).expect("usable settings"));
        for expected in [Handshake::Full, second] {
            let (client, _) = TestClient::connect_with(Arc::clone(&connector), options("c")).await;
            client.publish("t", b"x", Qos::AtLeastOnce).await;
            let log = client.client.disconnect().await;
            assert_eq!(log.connections.len(), 1);
            assert_eq!(log.connections[0].handshake, expected, "{transport} {resumption:?}");
            assert_eq!(log.connections[0].failure, None);
        }
    }
    broker.shut_down().await;
}

#[tokio::test]
async fn client_that_moves_to_another_port_goes_on_without_a_handshake() {
    let broker = start(BrokerOptions::default()).await;
    let connector = Arc::new(Connector::new(target(&broker, Transport::Quic)).expect("usable settings"));
    let (mut client, _) = TestClient::connect_with(Arc::clone(&connector), options("c")).await;
    client.subscribe("t", Qos::AtLeastOnce).await;
    for n in 0..2u8 {
        connector.rebind().expect("a free port");
        client.publish("t", &[n], Qos::AtLeastOnce).await;
        assert_eq!(client.message().await.payload, [n]);
    }
    assert_eq!(client.client.log().connections.len(), 1);
    broker.shut_down().await;
}

/// Counts Retry packets on their way through.
#[tokio::test]
async fn retry_is_sent_when_asked_for() {
    let retrying = BrokerOptions { address_validation: AddressValidation::Retry, ..BrokerOptions::default() };
    let broker = start(retrying).await;
    let retries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&retries);
    let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    back.connect(broker.addresses().quic.expect("a listener")).await.expect("loopback");
    let address = front.local_addr().expect("bound");
    let forwarder = tokio::spawn(async move {
        let (mut up, mut down) = (vec![0; 2_048], vec![0; 2_048]);
        let mut client: Option<SocketAddr> = None;
        loop {
            tokio::select! {
                Ok((length, from)) = front.recv_from(&mut up) => {
                    client = Some(from);
                    back.send(&up[..length]).await.expect("loopback");
                }
                Ok(length) = back.recv(&mut down) => {
                    // RFC 9000 17.2.5: long header of type 3.
                    if down[0] & 0xf0 == 0xf0 {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    front.send_to(&down[..length], client.expect("it spoke first")).await.expect("loopback");
                }
            }
        }
    });
    Raw::new(&broker).towards(address).session("c").await;
    assert_eq!(retries.load(Ordering::Relaxed), 1);
    forwarder.abort();
    broker.shut_down().await;
}

#[tokio::test]
async fn other_application_protocol_is_refused() {
    let broker = start(BrokerOptions::default()).await;
    let raw = Raw::with_alpn(&broker, b"h3");
    let error = within("the refusal", raw.connecting()).await.expect_err("a refusal");
    let quinn::ConnectionError::ConnectionClosed(close) = error else { panic!("{error:?}") };
    assert_eq!(close.error_code, quinn::TransportErrorCode::crypto(120));
    broker.shut_down().await;
}

#[tokio::test]
async fn handshake_that_hangs_holds_up_nobody() {
    let broker = start(BrokerOptions::default()).await;
    let address = broker.addresses().tls.expect("a listener");
    let mut hanging = Vec::new();
    for _ in 0..20 {
        hanging.push(TcpStream::connect(address).await.expect("a listener"));
    }
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    udp.send_to(&[0xc3; 1_200], broker.addresses().quic.expect("a listener")).await.expect("loopback");
    let began = Instant::now();
    for transport in Transport::ALL {
        TestClient::connect(target(&broker, transport), options("c")).await;
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    broker.shut_down().await;
}

#[tokio::test]
async fn port_in_use_is_named_with_its_remedy() {
    let broker = start(BrokerOptions::default()).await;
    let taken = broker.addresses();
    let certificates = Arc::new(Certificates::generate().expect("an authority"));
    let ports = [
        (Transport::Quic, Ports { quic: taken.quic.expect("bound").port(), ..Ports::default() }),
        (Transport::Tls, Ports { tls: taken.tls.expect("bound").port(), ..Ports::default() }),
        (Transport::Tcp, Ports { tcp: taken.tcp.expect("bound").port(), ..Ports::default() }),
    ];
    for (transport, ports) in ports {
        let options = BrokerOptions { ports, ..BrokerOptions::default() };
        let error = Broker::start(BrokerSpec::Embedded, Arc::clone(&certificates), options).await.err();
        let error = error.expect("the port is taken");
        assert!(
            matches!(&error, BrokerError::PortInUse { transport: t, address } if *t == transport
                && Some(*address) == taken.get(transport)),
            "{error}"
        );
        assert!(error.remedy().contains(&taken.get(transport).expect("bound").port().to_string()));
    }
    broker.shut_down().await;
}

#[tokio::test]
async fn other_kinds_of_keys_work_for_the_whole_chain() {
    for kind in [KeyKind::P384, KeyKind::Ed25519] {
        let certificates = Arc::new(Certificates::with_keys(kind, &[]).expect("an authority"));
        let started = Broker::start(BrokerSpec::Embedded, certificates, BrokerOptions::default());
        let broker = started.await.expect("an embedded broker");
        TestClient::connect(target(&broker, Transport::Quic), options("c")).await;
        broker.shut_down().await;
    }
}

#[tokio::test]
async fn key_log_holds_the_secrets_of_each_handshake() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.log");
    let logging = BrokerOptions { key_log: Some(path.clone()), ..BrokerOptions::default() };
    let broker = start(logging).await;
    Raw::new(&broker).session("c").await;
    broker.shut_down().await;
    let log = std::fs::read_to_string(path).expect("the key log");
    for label in ["CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_TRAFFIC_SECRET_0"] {
        let line = log.lines().find(|line| line.starts_with(label)).expect(label);
        assert_eq!(line.split(' ').nth(1).map(str::len), Some(64), "{line}");
    }
}

#[tokio::test]
async fn fleet_connects_at_once() {
    let broker = start(BrokerOptions::default()).await;
    let connector = Arc::new(Connector::new(target(&broker, Transport::Quic)).expect("usable settings"));
    let mut connecting = tokio::task::JoinSet::new();
    for n in 0..100 {
        let connector = Arc::clone(&connector);
        connecting.spawn(async move {
            TestClient::connect_with(connector, options(&format!("fleet-{n}"))).await.0
        });
    }
    let clients = connecting.join_all().await;
    assert_eq!(broker.client_ids().len(), 100);
    let events = broker.events().events();
    let connected = events.iter().filter(|e| matches!(e.kind, BrokerEventKind::Connected { .. })).count();
    assert_eq!(connected, 100);
    drop(clients);
    broker.shut_down().await;
}

#[tokio::test]
async fn nothing_is_left_of_the_broker_afterwards() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for end in [Fault::Stop, Fault::Kill, Fault::Freeze] {
        let mut broker = start(BrokerOptions::default()).await;
        let mut clients = Vec::new();
        for transport in Transport::ALL {
            let id = format!("{transport}");
            clients.push(TestClient::connect(target(&broker, transport), options(&id)).await.0);
        }
        let addresses = broker.addresses();
        broker.apply(&end).await.expect("it runs");
        broker.shut_down().await;
        for client in clients {
            client.client.vanish().await;
        }
        UdpSocket::bind(addresses.quic.expect("bound")).await.expect("the port is free");
        let deadline = Instant::now() + Duration::from_secs(2);
        // quinn's side of the clients drains for three probe timeouts.
        while tasks() > before {
            assert!(Instant::now() < deadline, "{end:?}: {} tasks are left", tasks() - before);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
