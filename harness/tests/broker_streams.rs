//! EMQX's rules for the streams of a connection, held against the embedded broker: what EMQX's own tests hold
//! a QUIC client to.

mod support;

use std::time::Duration;

use harness::broker::{BrokerOptions, EarlyData, StreamCredit};
use harness::wire::{AckKind, Acknowledge, Connect, Packet, Publish, Qos, Subscription, Version, property};
use support::raw::{End, Raw, Stream, close_code};
use support::{start, within};

#[tokio::test]
async fn message_comes_on_the_stream_that_subscribed() {
    let broker = start(BrokerOptions::default()).await;
    let mut session = Raw::new(&broker).session("c").await;
    let mut subscriber = session.stream().await;
    subscriber.subscribe("t", 1).await;
    let mut publisher = session.stream().await;
    publisher.publish("t", b"x", 1).await;
    publisher.acked(1).await;
    assert_eq!(subscriber.message().await.payload, b"x");
    session.control.silence().await;
    broker.shut_down().await;
}

#[tokio::test]
async fn each_stream_has_packet_identifiers_of_its_own() {
    let broker = start(BrokerOptions::default()).await;
    let session = Raw::new(&broker).session("c").await;
    let mut subscriber = session.stream().await;
    subscriber.subscribe("t/#", 1).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(session.stream().await);
    }
    for packet_id in 1..=100u16 {
        for (n, stream) in streams.iter_mut().enumerate() {
            stream.publish(&format!("t/{n}"), &packet_id.to_be_bytes(), packet_id).await;
        }
    }
    for stream in &mut streams {
        for packet_id in 1..=100 {
            stream.acked(packet_id).await;
        }
    }
    let mut next = [1u16; 5];
    for _ in 0..500 {
        let message = subscriber.message().await;
        let n: usize = message.topic[2..].parse().expect("t/N");
        assert_eq!(message.payload, next[n].to_be_bytes(), "in the order of its stream");
        next[n] += 1;
    }
    broker.shut_down().await;
}

#[tokio::test]
async fn incomplete_packet_on_one_stream_does_not_hold_up_another() {
    let broker = start(BrokerOptions::default()).await;
    let mut session = Raw::new(&broker).session("c").await;
    let mut publish = Publish::new("t", vec![7; 200], Qos::AtLeastOnce);
    publish.packet_id = 1;
    let bytes = Packet::Publish(publish).encode(Version::V5);
    let mut slow = session.stream().await;
    slow.send(&bytes[..50]).await;
    let mut quick = session.stream().await;
    quick.publish("t", b"x", 1).await;
    quick.acked(1).await;
    session.control.publish("t", b"x", 1).await;
    session.control.acked(1).await;
    slow.silence().await;
    slow.send(&bytes[50..]).await;
    slow.acked(1).await;
    broker.shut_down().await;
}

#[tokio::test]
async fn large_messages_pass_whatever_their_packet_boundaries() {
    let broker = start(BrokerOptions::default()).await;
    let session = Raw::new(&broker).session("c").await;
    let mut subscriber = session.stream().await;
    subscriber.subscribe("t", 1).await;
    let mut publisher = session.stream().await;
    let payload: Vec<u8> = (0..300_000u32).map(|n| n.to_be_bytes()[3]).collect();
    let mut publish = Publish::new("t", payload.clone(), Qos::AtLeastOnce);
    let mut bytes = Vec::new();
    for packet_id in 1..=2 {
        publish.packet_id = packet_id;
        bytes.extend(Packet::Publish(publish.clone()).encode(Version::V5));
    }
    let sending = async {
        for chunk in bytes.chunks(7_001) {
            publisher.send(chunk).await;
        }
        publisher.acked(1).await;
        publisher.acked(2).await;
    };
    let receiving = async {
        for _ in 0..2 {
            assert!(subscriber.message().await.payload == payload);
        }
    };
    tokio::join!(sending, receiving);
    broker.shut_down().await;
}

#[tokio::test]
async fn subscriptions_belong_to_their_stream() {
    let broker = start(BrokerOptions::default()).await;
    let session = Raw::new(&broker).session("c").await;
    let mut a = session.stream().await;
    let mut b = session.stream().await;
    a.subscribe("t", 1).await;
    b.subscribe("t", 1).await;
    let mut publisher = session.stream().await;
    publisher.publish("t", b"twice", 1).await;
    assert_eq!(a.message().await.payload, b"twice");
    assert_eq!(b.message().await.payload, b"twice");

    let mut other = session.stream().await;
    other.send_packet(Packet::Unsubscribe { packet_id: 9, filters: vec!["t".into()] }).await;
    match other.packet().await {
        Packet::Unsuback(reply) => assert_eq!(reply.codes, [0x11], "no subscription existed"),
        unexpected => panic!("{unexpected:?}"),
    }
    publisher.publish("t", b"still", 2).await;
    assert_eq!(a.message().await.payload, b"still");
    broker.shut_down().await;
}

#[tokio::test]
async fn data_sent_before_connack_are_taken_once_connect_succeeded() {
    let broker = start(BrokerOptions::default()).await;
    let connection = Raw::new(&broker).connect().await;
    let mut control = Stream::open(&connection).await;
    let mut data = Stream::open(&connection).await;
    data.publish("t", b"early", 1).await;
    data.silence().await;
    control.send(&Connect::new(Version::V5, "c").encode()).await;
    assert_eq!(control.connack().await.code, 0);
    data.acked(1).await;
    broker.shut_down().await;
}

#[tokio::test]
async fn refused_connect_ends_the_connection_and_its_data_streams() {
    let broker = start(BrokerOptions::default()).await;
    let connection = Raw::new(&broker).connect().await;
    let mut control = Stream::open(&connection).await;
    let mut data = Stream::open(&connection).await;
    data.publish("t", b"early", 1).await;
    let mut connect = Connect::new(Version::V5, "with/slash");
    connect.properties = connect.properties.with_u32(property::MAXIMUM_PACKET_SIZE, 0);
    control.send(&connect.encode()).await;
    assert!(control.connack().await.code >= 0x80);
    assert_eq!(data.end().await, End::ConnectionLost);
    broker.shut_down().await;
}

#[tokio::test]
async fn a_ping_on_a_data_stream_is_taken_without_an_answer_and_the_stream_lives() {
    let broker = start(BrokerOptions::default()).await;
    let session = Raw::new(&broker).session("c").await;
    let mut stream = session.stream().await;
    stream.subscribe("t", 1).await;
    stream.send_packet(Packet::Pingreq).await;
    // The next two packets are these: no PINGRESP came between, no reset.
    stream.publish("other", b"after", 2).await;
    stream.acked(2).await;
    let mut publisher = session.stream().await;
    publisher.publish("t", b"still subscribed", 1).await;
    assert_eq!(stream.message().await.payload, b"still subscribed");
    broker.shut_down().await;
}

#[tokio::test]
async fn packets_that_open_or_end_a_client_end_a_data_stream() {
    let broker = start(BrokerOptions::default()).await;
    let mut session = Raw::new(&broker).session("c").await;
    let forbidden =
        [Connect::new(Version::V5, "c").encode(), Packet::Disconnect { reason: 0 }.encode(Version::V5)];
    for bytes in forbidden {
        let mut stream = session.stream().await;
        stream.send(&bytes).await;
        assert_eq!(stream.end().await, End::Reset(0x81));
    }
    session.control.send_packet(Packet::Pingreq).await;
    assert_eq!(session.control.packet().await, Packet::Pingresp);
    broker.shut_down().await;
}

#[tokio::test]
async fn malformed_or_oversized_packet_ends_its_data_stream_alone() {
    let options = BrokerOptions { packet_size_max: 4_096, ..BrokerOptions::default() };
    let broker = start(options).await;
    let mut session = Raw::new(&broker).session("c").await;
    let mut subscriber = session.stream().await;
    subscriber.subscribe("t", 1).await;
    let mut bad_qos = Packet::Publish(Publish::new("t", *b"x", Qos::AtMostOnce)).encode(Version::V5);
    bad_qos[0] |= 0x06;
    let cases: [(&[u8], u64); 4] = [
        (&[0x00, 0x00], 0x81),
        (&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01], 0x81),
        (&bad_qos, 0x81),
        // The header alone says it.
        (&[0x30, 0x80, 0x80, 0x01], 0x95),
    ];
    for (bytes, code) in cases {
        let mut stream = session.stream().await;
        stream.send(bytes).await;
        assert_eq!(stream.end().await, End::Reset(code), "{bytes:02x?}");
        assert_eq!(stream.stopped().await, Some(code));
    }
    session.control.publish("t", b"alive", 1).await;
    session.control.acked(1).await;
    assert_eq!(subscriber.message().await.payload, b"alive");
    broker.shut_down().await;
}

#[tokio::test]
async fn malformed_byte_on_the_control_stream_brings_disconnect_0x81() {
    let broker = start(BrokerOptions::default()).await;
    let mut session = Raw::new(&broker).session("c").await;
    session.control.send(&[0x00]).await;
    assert_eq!(session.control.packet().await, Packet::Disconnect { reason: 0x81 });
    assert_eq!(session.control.end().await, End::Fin);
    assert_eq!(close_code(&session.connection).await, 1);
    broker.shut_down().await;
}

#[tokio::test]
async fn fin_on_a_data_stream_is_answered_by_fin_after_what_was_due() {
    let broker = start(BrokerOptions::default()).await;
    let mut session = Raw::new(&broker).session("c").await;
    let mut stream = session.stream().await;
    for packet_id in 1..=20 {
        stream.publish("t", b"x", packet_id).await;
    }
    stream.send.finish().expect("open");
    for packet_id in 1..=20 {
        stream.acked(packet_id).await;
    }
    assert_eq!(stream.end().await, End::Fin);
    session.control.publish("t", b"x", 1).await;
    session.control.acked(1).await;
    broker.shut_down().await;
}

#[tokio::test]
async fn aborts_of_a_data_stream_are_echoed_with_their_code() {
    let broker = start(BrokerOptions::default()).await;
    let mut session = Raw::new(&broker).session("c").await;
    for (abort_send, abort_receive) in [(true, false), (false, true), (true, true)] {
        let mut stream = session.stream().await;
        stream.subscribe("t", 1).await;
        if abort_send {
            stream.send.reset(77u32.into()).expect("open");
        }
        if abort_receive {
            stream.recv.stop(77u32.into()).expect("open");
        } else {
            assert_eq!(stream.end().await, End::Reset(77));
        }
        if !abort_send {
            assert_eq!(stream.stopped().await, Some(77));
        }
        // The subscription is gone with the stream; the connection is not.
        session.control.publish("t", b"x", 1).await;
        session.control.acked(1).await;
    }
    broker.shut_down().await;
}

#[tokio::test]
async fn the_end_of_the_control_stream_is_the_end_of_the_connection() {
    let broker = start(BrokerOptions::default()).await;
    let raw = Raw::new(&broker);

    let mut session = raw.session("c").await;
    let mut data = session.stream().await;
    data.subscribe("t", 1).await;
    session.control.send_packet(Packet::Disconnect { reason: 0 }).await;
    session.control.send.finish().expect("open");
    assert_eq!(session.control.end().await, End::Fin);
    assert_eq!(close_code(&session.connection).await, 0);
    assert_eq!(data.end().await, End::ConnectionLost);

    let mut session = raw.session("c").await;
    session.control.send.finish().expect("open");
    assert_eq!(session.control.end().await, End::Fin);
    assert_eq!(close_code(&session.connection).await, 1);

    let mut session = raw.session("c").await;
    session.control.send.reset(55u32.into()).expect("open");
    assert!(matches!(session.control.end().await, End::Reset(55) | End::ConnectionLost));
    assert_eq!(close_code(&session.connection).await, 1);

    let mut session = raw.session("c").await;
    session.control.recv.stop(56u32.into()).expect("open");
    assert_eq!(close_code(&session.connection).await, 1);

    // And none of it keeps the client from coming back.
    raw.session("c").await;
    broker.shut_down().await;
}

#[tokio::test]
async fn quality_of_service_2_runs_its_course_on_a_data_stream_and_a_repeated_publish_counts_once() {
    let broker = start(BrokerOptions::default()).await;
    let session = Raw::new(&broker).session("c").await;
    let mut subscriber = session.stream().await;
    let subscriptions = vec![Subscription { filter: "t".into(), qos: Qos::ExactlyOnce }];
    subscriber.send_packet(Packet::Subscribe { packet_id: 1, subscriptions }).await;
    assert!(matches!(subscriber.packet().await, Packet::Suback(_)));

    let mut publisher = session.stream().await;
    let mut publish = Publish::new("t", *b"once", Qos::ExactlyOnce);
    publish.packet_id = 5;
    publisher.send_packet(Packet::Publish(publish.clone())).await;
    let received = Packet::Acknowledge(Acknowledge::new(AckKind::Pubrec, 5));
    assert_eq!(publisher.packet().await, received);
    publish.dup = true;
    publisher.send_packet(Packet::Publish(publish)).await;
    assert_eq!(publisher.packet().await, received);
    publisher.send_packet(Packet::Acknowledge(Acknowledge::new(AckKind::Pubrel, 5))).await;
    assert_eq!(publisher.packet().await, Packet::Acknowledge(Acknowledge::new(AckKind::Pubcomp, 5)));

    let Packet::Publish(delivered) = subscriber.packet().await else { panic!("no PUBLISH") };
    assert_eq!(delivered.qos, Qos::ExactlyOnce);
    for (sent, answer) in [(AckKind::Pubrec, AckKind::Pubrel)] {
        subscriber.send_packet(Packet::Acknowledge(Acknowledge::new(sent, delivered.packet_id))).await;
        assert_eq!(
            subscriber.packet().await,
            Packet::Acknowledge(Acknowledge::new(answer, delivered.packet_id))
        );
    }
    subscriber
        .send_packet(Packet::Acknowledge(Acknowledge::new(AckKind::Pubcomp, delivered.packet_id)))
        .await;
    subscriber.silence().await;
    broker.shut_down().await;
}

#[tokio::test]
async fn stream_credit_can_come_after_the_handshake_only() {
    let options = BrokerOptions { stream_credit: StreamCredit::AfterHandshake, ..BrokerOptions::default() };
    let broker = start(options).await;
    let raw = Raw::new(&broker);
    let session = raw.session("c").await;
    assert!(session.connection.stats().frame_rx.max_streams_bidi > 0, "MAX_STREAMS came in a packet");
    session.connection.close(0u32.into(), b"");

    // The remembered parameters allow no stream, so 0-RTT has to wait for the handshake.
    let (connection, accepted) = raw.connecting().into_0rtt().expect("a ticket");
    let opening = tokio::time::timeout(Duration::ZERO, connection.open_bi()).await;
    assert!(opening.is_err(), "a stream before the handshake");
    assert!(within("the handshake", accepted).await, "0-RTT itself is on");
    Stream::open(&connection).await;
    broker.shut_down().await;
}

#[tokio::test]
async fn connect_and_publish_sent_in_0_rtt_are_answered() {
    let broker = start(BrokerOptions::default()).await;
    let raw = Raw::new(&broker);
    raw.session("c").await;
    let (connection, accepted) = raw.connecting().into_0rtt().expect("a ticket");
    let mut control = Stream::open(&connection).await;
    control.send(&Connect::new(Version::V5, "c").encode()).await;
    control.publish("t", b"early", 1).await;
    let mut data = Stream::open(&connection).await;
    data.publish("t", &[1; 20_000], 1).await;
    assert_eq!(control.connack().await.code, 0);
    control.acked(1).await;
    data.acked(1).await;
    assert!(within("the handshake", accepted).await, "0-RTT is accepted");
    // And the streams go on after it.
    control.publish("t", b"later", 2).await;
    control.acked(2).await;
    broker.shut_down().await;
}

#[tokio::test]
async fn refused_0_rtt_leaves_a_connection_that_works() {
    let mut broker = start(BrokerOptions::default()).await;
    let raw = Raw::new(&broker);
    raw.session("c").await;
    // A rotation forgets the tickets.
    let rotate = harness::broker::Fault::RotateCertificate(harness::certificates::Flaw::None);
    broker.apply(&rotate).await.expect("it runs");
    let (connection, accepted) = raw.connecting().into_0rtt().expect("a ticket");
    assert!(!within("the handshake", accepted).await, "0-RTT is refused");
    let mut control = Stream::open(&connection).await;
    control.send(&Connect::new(Version::V5, "c").encode()).await;
    assert_eq!(control.connack().await.code, 0);
    broker.shut_down().await;
}

#[tokio::test]
async fn a_broker_that_takes_no_0_rtt_data_gives_tickets_that_allow_none_and_resumes_all_the_same() {
    let options = BrokerOptions { early_data: EarlyData::Reject, ..BrokerOptions::default() };
    let broker = start(options).await;
    let raw = Raw::new(&broker);
    let full = raw.session("c").await.connection.stats().udp_rx.bytes;
    let connecting = raw.connecting().into_0rtt().err().expect("nothing may be sent early");
    let connection = within("the handshake", connecting).await.expect("a connection");
    assert!(connection.stats().udp_rx.bytes < full, "the certificate does not come a second time");
    let mut control = Stream::open(&connection).await;
    control.send(&Connect::new(Version::V5, "c").encode()).await;
    assert_eq!(control.connack().await.code, 0);
    broker.shut_down().await;
}

#[tokio::test]
async fn every_quality_of_service_meets_every_other_on_data_streams() {
    let broker = start(BrokerOptions::default()).await;
    let session = Raw::new(&broker).session("c").await;
    for subscribed in Qos::ALL {
        let topic = format!("t/{}", subscribed.bits());
        let mut subscriber = session.stream().await;
        let subscriptions = vec![Subscription { filter: topic.clone(), qos: subscribed }];
        subscriber.send_packet(Packet::Subscribe { packet_id: 1, subscriptions }).await;
        let Packet::Suback(granted) = subscriber.packet().await else { panic!("no SUBACK") };
        assert_eq!(granted.codes, [subscribed.bits()]);
        let mut publisher = session.stream().await;
        for published in Qos::ALL {
            let mut publish = Publish::new(&topic, vec![published.bits()], published);
            publish.packet_id = if published == Qos::AtMostOnce { 0 } else { 7 };
            publisher.send_packet(Packet::Publish(publish)).await;
            sent(&mut publisher, published, 7).await;
            let Packet::Publish(message) = subscriber.packet().await else { panic!("no PUBLISH") };
            let what = (message.payload.as_slice(), message.qos);
            assert_eq!(what, (&[published.bits()][..], published.min(subscribed)));
            received(&mut subscriber, message.qos, message.packet_id).await;
        }
        publisher.silence().await;
        subscriber.silence().await;
    }
    broker.shut_down().await;
}

/// The answers that a publisher waits for.
async fn sent(stream: &mut Stream, qos: Qos, packet_id: u16) {
    let packet = |kind| Packet::Acknowledge(Acknowledge::new(kind, packet_id));
    match qos {
        Qos::AtMostOnce => {}
        Qos::AtLeastOnce => stream.acked(packet_id).await,
        Qos::ExactlyOnce => {
            assert_eq!(stream.packet().await, packet(AckKind::Pubrec));
            stream.send_packet(packet(AckKind::Pubrel)).await;
            assert_eq!(stream.packet().await, packet(AckKind::Pubcomp));
        }
    }
}

/// The answers that a publisher waits for, given.
async fn received(stream: &mut Stream, qos: Qos, packet_id: u16) {
    let packet = |kind| Packet::Acknowledge(Acknowledge::new(kind, packet_id));
    match qos {
        Qos::AtMostOnce => {}
        Qos::AtLeastOnce => stream.send_packet(packet(AckKind::Puback)).await,
        Qos::ExactlyOnce => {
            stream.send_packet(packet(AckKind::Pubrec)).await;
            assert_eq!(stream.packet().await, packet(AckKind::Pubrel));
            stream.send_packet(packet(AckKind::Pubcomp)).await;
        }
    }
}

#[tokio::test]
async fn unidirectional_stream_is_refused_and_the_connection_goes_on() {
    let broker = start(BrokerOptions::default()).await;
    let mut session = Raw::new(&broker).session("c").await;
    let mut uni = within("credit", session.connection.open_uni()).await.expect("one is granted");
    uni.write_all(b"x").await.expect("open");
    assert!(within("STOP_SENDING", uni.stopped()).await.expect("a connection").is_some());
    session.control.publish("t", b"x", 1).await;
    session.control.acked(1).await;
    broker.shut_down().await;
}
