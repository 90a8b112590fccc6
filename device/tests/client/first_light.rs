use device::client::{Client, Event, Phase, Publication, Slot};
use device::crypto::Software;
use device::mqtt::{Qos, ReasonCode, Session};

use crate::world::{Play, world};

#[test]
fn connect_subscribe_publish_receive() {
    let mut world = world(1);
    world.connect();
    world.subscribe(Slot::CONTROL, "sensor/+", Qos::AtLeastOnce);
    for (index, qos) in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce].into_iter().enumerate() {
        world.publish(&Publication::new("sensor/1", &[index as u8; 64]).qos(qos));
    }
    world.until(10, "echoes", |world| world.client.messages().count() == 3);
    world.until(10, "acknowledgements", |world| world.client.acknowledged() == 2);
    let published: Vec<_> =
        world.server.service.published.iter().map(|message| (message.qos, message.payload.len())).collect();
    assert_eq!(published, [(Qos::AtMostOnce, 64), (Qos::AtLeastOnce, 64), (Qos::ExactlyOnce, 64)]);
    let received: Vec<_> = world.client.messages().map(|message| (message.payload[0], message.qos)).collect();
    assert_eq!(received, [(0, Qos::AtMostOnce), (1, Qos::AtLeastOnce), (2, Qos::AtLeastOnce)]);
}

#[test]
fn connack_takes_two_round_trips() {
    let mut world = world(2);
    world.connect();
    let elapsed_ms = world.now().elapsed().as_millis();
    assert!((60..75).contains(&elapsed_ms), "{elapsed_ms} ms on a path of 30 ms");
    let phases = world.client.stats().phases;
    let order = [
        Phase::Started,
        Phase::ServerHello,
        Phase::CertificateVerified,
        Phase::HandshakeComplete,
        Phase::ConnectSent,
        Phase::Connack,
    ];
    let times: Vec<_> = order.map(|phase| phases.at(phase).expect("each phase is passed")).into();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn disconnect_is_heard_by_the_broker_before_the_close() {
    let mut world = world(3);
    world.connect();
    let now = world.now();
    world.client.disconnect(now);
    world.until(5, "end", |world| world.client.has(|event| *event == Event::Stopped));
    assert_eq!(world.server.service.disconnects, [ReasonCode::SUCCESS]);
    world.run_for(core::time::Duration::from_secs(60));
    assert_eq!(world.client.connections(), 1, "no reconnect after an orderly end");
}

#[test]
fn the_state_of_a_client_is_bounded() {
    let (client, session) = (size_of::<Client<Software>>(), size_of::<Session>());
    println!("size_of::<Client<Software>>() = {client}, of which the MQTT session {session}");
    // The budget is that of the firmware, which has neither RSA keys of 4,096 bits nor secrets of 48 bytes.
    let features = if cfg!(any(feature = "rsa", feature = "aes256")) { 1024 } else { 0 };
    assert!(client <= 16 * 1024 + features, "{client} bytes");
    assert!(session <= 4 * 1024, "{session} bytes");
}
