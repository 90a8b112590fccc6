use super::*;

#[test]
fn silence_is_broken_by_pingreq() {
    let mut world = World::connected();
    assert_eq!(world.session.next_timeout(), Some(world.now + Duration::from_secs(60)));
    world.now += Duration::from_secs(60);
    assert_eq!(world.drain(), []);
    assert_eq!(world.sent(Slot::CONTROL)[0].packet(), Packet::Pingreq);
    world.reply(Packet::Pingresp);
    assert_eq!(world.drain(), []);
    assert_eq!(world.session.next_timeout(), Some(world.now + Duration::from_secs(60)));
}

#[test]
fn a_packet_sent_counts_against_the_keep_alive() {
    let mut world = World::connected();
    world.now += Duration::from_secs(59);
    world.publish(&Publication::new("a", b"")).expect("open");
    world.now += Duration::from_secs(59);
    assert_eq!(world.drain(), []);
    assert_eq!(world.sent(Slot::CONTROL).len(), 1, "no PINGREQ");
}

#[test]
fn a_missing_pingresp_ends_the_connection() {
    let mut world = World::connected();
    world.now += Duration::from_secs(60);
    world.drain();
    world.now += world.options.answer_timeout;
    assert_eq!(world.drain(), [Notice::KeepAliveTimeout]);
    assert!(!world.session.is_open());
}

#[test]
fn the_server_sets_the_keep_alive() {
    let mut world = World::new();
    world.connect(&[Property::ServerKeepAlive(5)]);
    assert_eq!(world.session.next_timeout(), Some(world.now + Duration::from_secs(5)));
}

#[test]
fn a_keep_alive_of_zero_is_off() {
    let mut world = World::with(Options { keep_alive_s: 0, ..Options::new("client") });
    world.connect(&[]);
    assert_eq!(world.session.next_timeout(), None);
}
