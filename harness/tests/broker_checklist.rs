//! The rest of what EMQX's own tests hold a QUIC client to: every way a stream can end, on every kind of stream, and
//! the client's return after each; a killed subscriber; a client whose address changes; one that changes its transport.

mod support;

use std::sync::Arc;
use std::time::Duration;

use harness::broker::{Broker, BrokerEvent, BrokerEventKind, BrokerOptions};
use harness::measure::Transport;
use harness::peer::Connector;
use harness::wire::{Packet, Properties, Qos, property};
use support::raw::{End, Raw, Session, Stream, close_code};
use support::{TestClient, options, start, target, within};

/// How a client ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Graceful,
    AbortSend,
    AbortReceive,
    AbortBoth,
}

const WAYS: [Way; 4] = [Way::Graceful, Way::AbortSend, Way::AbortReceive, Way::AbortBoth];
const CODE: u32 = 77;

fn leave(stream: &mut Stream, way: Way) {
    if way == Way::Graceful {
        stream.send.finish().expect("open");
    }
    if matches!(way, Way::AbortSend | Way::AbortBoth) {
        stream.send.reset(CODE.into()).expect("open");
    }
    if matches!(way, Way::AbortReceive | Way::AbortBoth) {
        stream.recv.stop(CODE.into()).expect("open");
    }
}

/// Ends a data stream; the broker's half ends as the client's did.
async fn end(broker: &Broker, session: &Session, stream: &mut Stream, way: Way) {
    let resets = session.connection.stats().frame_rx.reset_stream;
    leave(stream, way);
    match way {
        Way::Graceful => assert_eq!(stream.end().await, End::Fin),
        Way::AbortSend => assert_eq!(stream.end().await, End::Reset(CODE.into())),
        Way::AbortReceive => assert_eq!(stream.stopped().await, Some(CODE.into())),
        // A client that wants to hear no more of a stream is told nothing of its end: the frame itself has to do, and
        // what the broker says of it.
        Way::AbortBoth => {
            let id = quinn::VarInt::from(stream.send.id()).into_inner();
            let told = |event: &BrokerEvent| match &event.kind {
                BrokerEventKind::DataStreamAborted { stream, reason, .. } => {
                    *stream == id && reason.ends_with(&format!("code {CODE:#x}"))
                }
                _ => false,
            };
            within("RESET_STREAM", async {
                while session.connection.stats().frame_rx.reset_stream == resets
                    || !broker.events().events().iter().any(told)
                {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
        }
    }
}

async fn session(broker: &Broker, raw: &Raw) -> Session {
    let session = raw.session("c").await;
    within("one client", async {
        while broker.client_ids() != ["c"] {
            tokio::task::yield_now().await;
        }
    })
    .await;
    session
}

#[tokio::test]
async fn every_end_of_a_publishing_stream_leaves_the_others_and_a_new_one_takes_its_place() {
    let broker = start(BrokerOptions::default()).await;
    let raw = Raw::new(&broker);
    let mut session = session(&broker, &raw).await;
    let mut subscriber = session.stream().await;
    subscriber.subscribe("t", 1).await;
    for (n, way) in (0u8..).zip(WAYS) {
        let mut publisher = session.stream().await;
        publisher.publish("t", &[n, 0], 1).await;
        publisher.acked(1).await;
        assert_eq!(subscriber.message().await.payload, [n, 0], "{way:?}");
        end(&broker, &session, &mut publisher, way).await;
        let mut next = session.stream().await;
        next.publish("t", &[n, 1], 1).await;
        next.acked(1).await;
        assert_eq!(subscriber.message().await.payload, [n, 1], "{way:?}");
        end(&broker, &session, &mut next, Way::Graceful).await;
    }
    session.control.publish("t", b"x", 1).await;
    session.control.acked(1).await;
    broker.shut_down().await;
}

#[tokio::test]
async fn every_end_of_a_subscribing_stream_ends_its_subscription_alone() {
    let broker = start(BrokerOptions::default()).await;
    let raw = Raw::new(&broker);
    let mut session = session(&broker, &raw).await;
    let mut other = session.stream().await;
    other.subscribe("t", 1).await;
    for (n, way) in (0u8..).zip(WAYS) {
        let mut killed = session.stream().await;
        killed.subscribe("t", 1).await;
        end(&broker, &session, &mut killed, way).await;
        session.control.publish("t", &[n], 1).await;
        session.control.acked(1).await;
        assert_eq!(other.message().await.payload, [n], "{way:?}: the other subscriber has it");
        other.silence().await;
        // And its place can be taken by a stream with the same packet identifiers.
        let mut again = session.stream().await;
        again.subscribe("t/again", 1).await;
        session.control.publish("t/again", &[n], 2).await;
        session.control.acked(2).await;
        assert_eq!(again.message().await.payload, [n], "{way:?}");
        end(&broker, &session, &mut again, Way::Graceful).await;
    }
    broker.shut_down().await;
}

#[tokio::test]
async fn after_every_end_of_the_control_stream_the_client_comes_back() {
    let broker = start(BrokerOptions::default()).await;
    let raw = Raw::new(&broker);
    for way in WAYS {
        let mut session = session(&broker, &raw).await;
        let mut data = session.stream().await;
        data.subscribe("t", 1).await;
        leave(&mut session.control, way);
        assert_eq!(close_code(&session.connection).await, 1, "{way:?}");
        assert_eq!(data.end().await, End::ConnectionLost, "{way:?}");
        let mut back = raw.session("c").await;
        back.control.publish("t", b"x", 1).await;
        back.control.acked(1).await;
        back.control.send_packet(Packet::Disconnect { reason: 0 }).await;
        back.control.send.finish().expect("open");
        assert_eq!(close_code(&back.connection).await, 0, "{way:?}");
    }
    broker.shut_down().await;
}

#[tokio::test]
async fn client_whose_address_changes_goes_on_without_a_handshake() {
    let broker =
        start(BrokerOptions { bind: "0.0.0.0".parse().expect("an address"), ..BrokerOptions::default() })
            .await;
    let mut towards = target(&broker, Transport::Quic);
    towards.address.set_ip("127.0.0.1".parse().expect("an address"));
    let connector = Arc::new(Connector::new(towards).expect("usable settings"));
    let (mut client, _) = TestClient::connect_with(Arc::clone(&connector), options("c")).await;
    client.subscribe("t", Qos::AtLeastOnce).await;
    for last in 2..=3u8 {
        connector.rebind_to(([127, 0, 0, last], 0).into()).expect("all of 127/8 is this machine");
        client.publish("t", &[last], Qos::AtLeastOnce).await;
        assert_eq!(client.message().await.payload, [last]);
    }
    assert_eq!(client.client.log().connections.len(), 1);
    broker.shut_down().await;
}

#[tokio::test]
async fn session_taken_over_from_quic_by_tls_and_back_goes_on_with_every_quality_of_service() {
    let broker = start(BrokerOptions::default()).await;
    let (from, _) = TestClient::connect(target(&broker, Transport::Quic), options("from")).await;
    for subscribed in Qos::ALL {
        let mut wanderer = options(&format!("wanderer-{}", subscribed.bits()));
        wanderer.connect.clean_start = false;
        wanderer.connect.properties = Properties::default().with_u32(property::SESSION_EXPIRY_INTERVAL, 600);
        let (mut owner, present) =
            TestClient::connect(target(&broker, Transport::Quic), wanderer.clone()).await;
        assert!(!present);
        owner.subscribe("taken/#", subscribed).await;
        for transport in [Transport::Tls, Transport::Quic] {
            let (next, present) = TestClient::connect(target(&broker, transport), wanderer.clone()).await;
            assert!(present, "{transport:?} takes the session over");
            let reason = owner.disconnection().await;
            assert!(reason.contains("0x8e"), "{reason}");
            owner = next;
            for published in Qos::ALL {
                from.publish("taken/1", &[published.bits()], published).await;
                let message = owner.message().await;
                assert_eq!(
                    (message.payload.as_slice(), message.qos),
                    (&[published.bits()][..], published.min(subscribed))
                );
            }
        }
        owner.client.disconnect().await;
    }
    broker.shut_down().await;
}
