//! Any MQTT packet that can be written can be read, and says the same.

use device::codec::Writer;
use device::mqtt::packet::{
    Ack, AckKind, Connack, Connect, Delivery, Disconnect, Filters, Names, Packet, Publish, Suback, Subscribe,
    Unsuback, Unsubscribe,
};
use device::mqtt::{
    Duplicate, Filter, PacketId, Properties, Property, Qos, ReasonCode, Retain, RetainHandling, Version, Will,
};
use proptest::prelude::*;

fn round_trip(packet: Packet<'_>, version: Version) {
    let mut bytes = vec![0; 8192];
    let mut w = Writer::new(&mut bytes);
    packet.encode(version, &mut w).expect("8 KiB hold what is generated");
    assert_eq!(Packet::decode(w.written(), version), Ok(packet));
    // Encode either fits or leaves nothing behind.
    let len = w.len();
    let mut w = Writer::new(&mut bytes[..len - 1]);
    assert!(packet.encode(version, &mut w).is_err());
    assert_eq!(w.len(), 0);
}

fn text() -> impl Strategy<Value = String> {
    "[^\u{0}]{0,20}"
}

fn topic() -> impl Strategy<Value = String> {
    "[^\u{0}+#]{1,200}"
}

fn filter() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,8}", "[a-z]{1,5}/\\+", "[a-z]{0,5}/#", "\\$share/[a-z]{1,4}/[a-z]{1,4}"]
}

fn qos() -> impl Strategy<Value = Qos> {
    prop_oneof![Just(Qos::AtMostOnce), Just(Qos::AtLeastOnce), Just(Qos::ExactlyOnce)]
}

fn id() -> impl Strategy<Value = PacketId> {
    (1_u16..).prop_map(|value| PacketId::new(value).expect("not zero"))
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V3_1_1), Just(Version::V5)]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..400)
}

/// 3.1.1 has no properties.
fn properties<'p>(version: Version, list: &'p [Property<'p>]) -> Properties<'p> {
    match version {
        Version::V3_1_1 => Properties::NONE,
        Version::V5 => Properties::of(list),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn connect(
        version in version(),
        clean_start: bool,
        keep_alive_s: u16,
        client_id in text(),
        user in prop::option::of((text(), prop::option::of(bytes()))),
        will in prop::option::of((topic(), bytes(), qos(), any::<bool>(), any::<u32>())),
        receive_maximum in 1_u16..,
        key in text(),
    ) {
        let list = [Property::ReceiveMaximum(receive_maximum), Property::UserProperty(&key, &client_id)];
        let will_list = will.as_ref().map(|will| [Property::WillDelayInterval(will.4)]);
        let will = will.as_ref().zip(will_list.as_ref()).map(|((topic, payload, qos, retain, _), list)| Will {
            topic,
            payload,
            qos: *qos,
            retain: Retain::from_flag(*retain),
            properties: properties(version, list),
        });
        let connect = Connect {
            version,
            clean_start,
            keep_alive_s,
            properties: properties(version, &list),
            client_id: &client_id,
            will,
            user_name: user.as_ref().map(|user| user.0.as_str()),
            password: user.as_ref().and_then(|user| user.1.as_deref()),
        };
        round_trip(Packet::Connect(connect), version);
    }

    #[test]
    fn connack(session_present: bool, maximum in 1_u32.., alias: u16, reason in text()) {
        let list = [
            Property::MaximumPacketSize(maximum),
            Property::TopicAliasMaximum(alias),
            Property::ReasonString(&reason),
        ];
        let connack =
            Connack { session_present, reason: ReasonCode::SUCCESS, properties: Properties::of(&list) };
        round_trip(Packet::Connack(connack), Version::V5);
    }

    #[test]
    fn publish(
        version in version(),
        topic in topic(),
        payload in bytes(),
        delivery in prop_oneof![
            Just(Delivery::AtMostOnce),
            id().prop_map(Delivery::AtLeastOnce),
            id().prop_map(Delivery::ExactlyOnce),
        ],
        repeated: bool,
        retain: bool,
        expiry: u32,
        data in bytes(),
    ) {
        let list = [Property::MessageExpiryInterval(expiry), Property::CorrelationData(&data)];
        let may_repeat = repeated && delivery.id().is_some();
        let publish = Publish {
            duplicate: if may_repeat { Duplicate::Yes } else { Duplicate::No },
            delivery,
            retain: Retain::from_flag(retain),
            topic: &topic,
            properties: properties(version, &list),
            payload: &payload,
        };
        round_trip(Packet::Publish(publish), version);
    }

    #[test]
    fn acknowledgements(
        kind in prop_oneof![
            Just(AckKind::Puback), Just(AckKind::Pubrec), Just(AckKind::Pubrel), Just(AckKind::Pubcomp)
        ],
        id in id(),
        reason: u8,
        why in prop::option::of(text()),
    ) {
        let list = why.as_deref().map(|why| [Property::ReasonString(why)]);
        let list = list.as_ref().map_or(&[][..], |list| &list[..]);
        let ack = Ack { id, reason: ReasonCode(reason), properties: Properties::of(list) };
        round_trip(Packet::Ack(kind, ack), Version::V5);
        round_trip(Packet::Ack(kind, Ack::new(id, ReasonCode::SUCCESS)), Version::V3_1_1);
    }

    #[test]
    fn requests(
        version in version(),
        id in id(),
        filters in prop::collection::vec((filter(), qos(), any::<bool>()), 1..8),
        codes in prop::collection::vec(prop_oneof![0_u8..3, 0x80_u8..], 1..8),
    ) {
        let list: Vec<_> = filters
            .iter()
            .map(|(filter, qos, flag)| {
                let plain = Filter::new(filter, *qos);
                match version {
                    Version::V3_1_1 => plain,
                    Version::V5 => Filter {
                        no_local: *flag && !filter.starts_with("$share"),
                        retain_as_published: *flag,
                        retain_handling: if *flag { RetainHandling::SendIfNew } else { RetainHandling::Send },
                        ..plain
                    },
                }
            })
            .collect();
        let names: Vec<_> = filters.iter().map(|(filter, ..)| filter.as_str()).collect();
        let properties = Properties::NONE;
        round_trip(Packet::Subscribe(Subscribe { id, properties, filters: Filters::of(&list) }), version);
        round_trip(Packet::Unsubscribe(Unsubscribe { id, properties, filters: Names::of(&names) }), version);
        round_trip(Packet::Suback(Suback { id, properties, codes: &codes }), version);
        round_trip(Packet::Unsuback(Unsuback { id, properties, codes: &codes }), Version::V5);
    }

    #[test]
    fn disconnect(reason: u8, expiry: u32, server in text()) {
        let list = [Property::SessionExpiryInterval(expiry), Property::ServerReference(&server)];
        let disconnect = Disconnect { reason: ReasonCode(reason), properties: Properties::of(&list) };
        round_trip(Packet::Disconnect(disconnect), Version::V5);
    }

    #[test]
    fn any_bytes_decode_or_are_refused(data in prop::collection::vec(any::<u8>(), 0..200), version in version()) {
        let _ = Packet::decode(&data, version);
    }
}
