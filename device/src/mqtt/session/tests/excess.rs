//! A server of 3.1.1 with more messages in flight than the client has room for.

use super::*;
use crate::mqtt::Error;
use crate::mqtt::packet::Delivery;

/// Messages the server has in flight at once: three times what the table holds, and some.
const WINDOW: u16 = 100;

const EXCEEDED: Error = Error { reason: ReasonCode::QUOTA_EXCEEDED, field: "publish.packet_id" };

/// How far a message is, in the eyes of a server that forgets nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    Published,
    Released,
    Complete,
}

struct Server {
    messages: Vec<(PacketId, Progress)>,
}

impl Server {
    fn new() -> Self {
        Self { messages: (1..=WINDOW).map(|value| (id(value), Progress::Published)).collect() }
    }

    /// On a new connection everything that is not acknowledged is sent again, in order (4.4).
    fn repeat(&self, world: &mut World<'_>) {
        for &(id, progress) in &self.messages {
            let payload = id.value().to_be_bytes();
            match progress {
                Progress::Published => {
                    world.reply(Packet::Publish(message("a", &payload, Delivery::ExactlyOnce(id))));
                }
                Progress::Released => world.ack(AckKind::Pubrel, id),
                Progress::Complete => {}
            }
        }
    }

    /// Answers what the client has sent; whether there was anything.
    fn answer(&mut self, world: &mut World<'_>) -> bool {
        let sent = world.sent(Slot::CONTROL);
        for packet in &sent {
            match packet.packet() {
                Packet::Ack(AckKind::Pubrec, ack) => {
                    self.advance(ack.id, Progress::Published, Progress::Released);
                    world.ack(AckKind::Pubrel, ack.id);
                }
                Packet::Ack(AckKind::Pubcomp, ack) => {
                    self.advance(ack.id, Progress::Released, Progress::Complete);
                }
                Packet::Pingreq => world.reply(Packet::Pingresp),
                other => panic!("{other:?}"),
            }
        }
        !sent.is_empty()
    }

    fn advance(&mut self, id: PacketId, from: Progress, to: Progress) {
        let message = self.messages.iter_mut().find(|message| message.0 == id).expect("one of them");
        assert_eq!(message.1, from, "{id:?}");
        message.1 = to;
    }
}

/// The number in the message of a notice.
fn number(world: &World<'_>, notice: Notice) -> u16 {
    match world.session.event(notice, &world.rx) {
        Event::Message(message) => u16::from_be_bytes(message.payload.try_into().expect("two bytes")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_message_comes_once_and_in_order_in_as_many_connections_as_it_takes() {
    let mut world = World::connected_v3();
    let mut server = Server::new();
    let (mut arrived, mut connections) = (Vec::new(), 1);
    server.repeat(&mut world);
    loop {
        match world.poll() {
            Some(Notice::Protocol(error)) => {
                assert_eq!(error, EXCEEDED);
                world.reconnect(true);
                connections += 1;
                server.repeat(&mut world);
            }
            Some(notice) => arrived.push(number(&world, notice)),
            None if server.answer(&mut world) => {}
            None => break,
        }
        assert!(connections < 9, "it does not get on: {arrived:?}");
    }
    assert_eq!(arrived, (1..=WINDOW).collect::<Vec<_>>());
    assert!(server.messages.iter().all(|message| message.1 == Progress::Complete));
    assert_eq!(connections, 4, "32 messages each");
    assert_eq!(world.session.stats().duplicates_suppressed, 0);
}

#[test]
fn what_comes_behind_a_message_without_room_waits_with_it_unless_nobody_repeats_it() {
    let mut world = World::connected_v3();
    for value in 1..=33 {
        world.reply(Packet::Publish(message("a", b"x", Delivery::ExactlyOnce(id(value)))));
    }
    assert_eq!(world.drain().len(), 32);
    world.ack(AckKind::Pubrel, id(1));
    world.reply(Packet::Publish(message("a", b"x", Delivery::AtLeastOnce(id(34)))));
    world.reply(Packet::Publish(message("a", b"x", Delivery::AtMostOnce)));
    let notice = world.poll().expect("QoS 0");
    let Event::Message(message) = world.session.event(notice, &world.rx) else { panic!("{notice:?}") };
    assert_eq!(message.qos, Qos::AtMostOnce);
    assert_eq!(world.drain(), []);
    let sent = world.sent(Slot::CONTROL);
    assert_eq!(sent.len(), 32 + 2, "PUBREC, PINGREQ, PUBCOMP: nothing for the last two messages");
    assert_eq!(sent[32].packet(), Packet::Pingreq);
    assert!(sent[33].is_ack(AckKind::Pubcomp, id(1)));
}

#[test]
fn an_answer_to_an_earlier_ping_proves_nothing() {
    let keep_alive_s = 10;
    let version = Version::V3_1_1;
    let mut world = World::with(Options { version, keep_alive_s, ..Options::new("client") });
    world.connect(&[]);
    world.now += Duration::from_secs(10);
    assert_eq!(world.drain(), []);
    assert_eq!(world.sent(Slot::CONTROL)[0].packet(), Packet::Pingreq);
    for value in 1..=33 {
        world.reply(Packet::Publish(message("a", b"x", Delivery::ExactlyOnce(id(value)))));
    }
    assert_eq!(world.drain().len(), 32);
    world.reply(Packet::Pingresp);
    assert_eq!(world.drain(), [], "it was on its way before the server had any PUBREC");
    assert_eq!(world.sent(Slot::CONTROL).last().expect("asked again").packet(), Packet::Pingreq);
    world.reply(Packet::Pingresp);
    assert_eq!(world.drain(), [Notice::Protocol(EXCEEDED)]);
}

#[test]
fn a_server_that_says_no_more_is_not_waited_for() {
    let version = Version::V3_1_1;
    let mut world = World::with(Options { version, keep_alive_s: 0, ..Options::new("client") });
    world.connect(&[]);
    for value in 1..=33 {
        world.reply(Packet::Publish(message("a", b"x", Delivery::ExactlyOnce(id(value)))));
    }
    assert_eq!(world.drain().len(), 32);
    world.now = world.session.next_timeout().expect("the answer is due");
    assert_eq!(world.drain(), [Notice::KeepAliveTimeout]);
}

#[test]
fn a_data_stream_that_exceeds_the_table_is_closed_as_nothing_is_repeated_there() {
    let mut world = World::connected_v3();
    world.session.open_stream(data(1));
    assert_eq!(world.drain(), [Notice::StreamOpened(data(1))]);
    for value in 1..=33 {
        world.reply_on(data(1), Packet::Publish(message("a", b"x", Delivery::ExactlyOnce(id(value)))));
    }
    let told = world.drain();
    let closed = Notice::StreamClosed { slot: data(1), code: None, error: Some(EXCEEDED) };
    assert_eq!(told[32..], [closed, Notice::StreamOpened(data(1))]);
}
