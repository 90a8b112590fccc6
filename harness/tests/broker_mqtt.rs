//! What the embedded broker owes an MQTT client, over each transport.

mod support;

use harness::broker::{BrokerOptions, Fault, SessionState};
use harness::measure::Transport;
use harness::wire::{Properties, Publish, Qos, Version, Will, property};
use support::{TestClient, options, start, target};

#[tokio::test]
async fn every_quality_of_service_meets_every_other_over_every_transport_in_both_versions() {
    let broker = start(BrokerOptions::default()).await;
    for version in [Version::V311, Version::V5] {
        for transport in Transport::ALL {
            let mut to = options("to");
            to.connect.version = version;
            let mut from = options("from");
            from.connect.version = version;
            let (mut to, _) = TestClient::connect(target(&broker, transport), to).await;
            let (from, _) = TestClient::connect(target(&broker, transport), from).await;
            for subscribed in Qos::ALL {
                assert_eq!(to.subscribe("q/+", subscribed).await, subscribed.bits());
                for published in Qos::ALL {
                    let payload = format!("{transport} {published:?} {subscribed:?}");
                    let sending = from.publish("q/x", payload.as_bytes(), published).await;
                    assert!(sending.sent_us.is_some());
                    assert_eq!(sending.acked_us.is_some(), published != Qos::AtMostOnce);
                    let message = to.message().await;
                    assert_eq!(message.payload, payload.as_bytes());
                    assert_eq!(message.qos, published.min(subscribed));
                    assert!(!message.dup && !message.retain);
                    assert!(message.properties.is_empty(), "the broker adds nothing: {message:?}");
                }
            }
            from.client.disconnect().await;
            to.client.disconnect().await;
        }
    }
    broker.shut_down().await;
}

#[tokio::test]
async fn retained_message_reaches_a_later_subscriber() {
    let broker = start(BrokerOptions::default()).await;
    let (from, _) = TestClient::connect(target(&broker, Transport::Tcp), options("from")).await;
    let mut message = Publish::new("kept", *b"last", Qos::AtLeastOnce);
    message.retain = true;
    from.publish_all(vec![message]).await;
    let (mut to, _) = TestClient::connect(target(&broker, Transport::Quic), options("to")).await;
    to.subscribe("kept", Qos::AtLeastOnce).await;
    let message = to.message().await;
    assert!(message.retain);
    assert_eq!(message.payload, b"last");
    broker.shut_down().await;
}

#[tokio::test]
async fn shared_subscription_hands_each_message_to_one_member() {
    let broker = start(BrokerOptions::default()).await;
    let (mut a, _) = TestClient::connect(target(&broker, Transport::Quic), options("a")).await;
    let (mut b, _) = TestClient::connect(target(&broker, Transport::Quic), options("b")).await;
    a.subscribe("$share/g/s", Qos::AtLeastOnce).await;
    b.subscribe("$share/g/s", Qos::AtLeastOnce).await;
    let (from, _) = TestClient::connect(target(&broker, Transport::Tcp), options("from")).await;
    let messages = (0..6u8).map(|n| Publish::new("s", [n], Qos::AtLeastOnce)).collect();
    from.publish_all(messages).await;
    let mut seen: Vec<u8> = Vec::new();
    for _ in 0..3 {
        seen.extend(a.message().await.payload);
        seen.extend(b.message().await.payload);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
    broker.shut_down().await;
}

#[tokio::test]
async fn session_comes_back_with_what_was_queued_meanwhile() {
    let broker = start(BrokerOptions::default()).await;
    let mut sleeper = options("sleeper");
    sleeper.connect.clean_start = false;
    sleeper.connect.properties = Properties::default().with_u32(property::SESSION_EXPIRY_INTERVAL, 600);
    let (to, present) = TestClient::connect(target(&broker, Transport::Quic), sleeper.clone()).await;
    assert!(!present);
    to.subscribe("s/#", Qos::ExactlyOnce).await;
    to.client.vanish().await;

    let (from, _) = TestClient::connect(target(&broker, Transport::Quic), options("from")).await;
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        from.publish("s/1", &[qos.bits()], qos).await;
    }
    let (mut to, present) = TestClient::connect(target(&broker, Transport::Tls), sleeper).await;
    assert!(present);
    assert_eq!(to.message().await.payload, [1]);
    assert_eq!(to.message().await.payload, [2]);
    broker.shut_down().await;
}

#[tokio::test]
async fn will_is_published_for_a_client_that_vanishes_and_not_for_one_that_disconnects() {
    let broker = start(BrokerOptions::default()).await;
    let (mut watcher, _) = TestClient::connect(target(&broker, Transport::Tcp), options("watcher")).await;
    watcher.subscribe("gone", Qos::AtLeastOnce).await;
    let mut mortal = options("mortal");
    mortal.connect.will = Some(Will {
        topic: "gone".into(),
        payload: b"mortal".to_vec(),
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: Properties::default(),
    });
    for transport in Transport::ALL {
        let (client, _) = TestClient::connect(target(&broker, transport), mortal.clone()).await;
        client.client.disconnect().await;
        watcher.silence().await;
        let (client, _) = TestClient::connect(target(&broker, transport), mortal.clone()).await;
        client.client.vanish().await;
        assert_eq!(watcher.message().await.payload, b"mortal");
    }
    broker.shut_down().await;
}

#[tokio::test]
async fn client_id_moves_from_quic_to_tls_and_back() {
    let broker = start(BrokerOptions::default()).await;
    for version in [Version::V5, Version::V311] {
        let mut mover = options("mover");
        mover.connect.version = version;
        let (mut before, _) = TestClient::connect(target(&broker, Transport::Quic), mover.clone()).await;
        for transport in [Transport::Tls, Transport::Quic] {
            let (after, _) = TestClient::connect(target(&broker, transport), mover.clone()).await;
            let reason = before.disconnection().await;
            if version == Version::V5 {
                assert!(reason.contains("0x8e"), "{reason}");
            }
            before = after;
        }
        before.client.disconnect().await;
    }
    broker.shut_down().await;
}

#[tokio::test]
async fn restart_keeps_sessions_or_loses_them_as_told() {
    let mut broker = start(BrokerOptions::default()).await;
    let addresses = broker.addresses();
    let mut durable = options("durable");
    durable.connect.clean_start = false;
    durable.connect.properties = Properties::default().with_u32(property::SESSION_EXPIRY_INTERVAL, 600);
    for (end, sessions, kept) in [
        (Fault::Stop, SessionState::Kept, true),
        (Fault::Kill, SessionState::Kept, true),
        (Fault::Kill, SessionState::Lost, false),
    ] {
        let (mut client, _) = TestClient::connect(target(&broker, Transport::Tls), durable.clone()).await;
        client.subscribe("d", Qos::AtLeastOnce).await;
        broker.apply(&end).await.expect("it runs");
        client.disconnection().await;
        broker.apply(&Fault::Start(sessions)).await.expect("it is down");
        assert_eq!(broker.addresses(), addresses);
        let (mut client, present) =
            TestClient::connect(target(&broker, Transport::Quic), durable.clone()).await;
        assert_eq!(present, kept, "{end:?} {sessions:?}");
        if kept {
            client.publish("d", b"still", Qos::AtLeastOnce).await;
            assert_eq!(client.message().await.payload, b"still");
        }
        client.client.disconnect().await;
    }
    broker.shut_down().await;
}
