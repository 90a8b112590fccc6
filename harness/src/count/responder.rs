//! The least that a client takes for a broker: everything is accepted and acknowledged, nothing is passed on.

use device::codec::Writer;
use device::mqtt::packet::{Ack, AckKind, Connack, Delivery, FixedHeader, Packet, Publish, Suback};
use device::mqtt::{Duplicate, PacketId, Properties, Property, ReasonCode, Retain, Version};

/// What CONNACK announces.
const RECEIVE_MAXIMUM: u16 = 32;
const TOPIC_ALIAS_MAXIMUM: u16 = 16;
/// Bytes of the longest packet sent.
const PACKET_MAX: usize = 1_024;

/// One session's server.
pub(super) struct Responder {
    version: Version,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    next_id: u16,
}

impl Default for Responder {
    fn default() -> Self {
        Self { version: Version::V5, incoming: Vec::new(), outgoing: Vec::new(), next_id: 1 }
    }
}

impl Responder {
    /// Bytes for the client; whoever sends them takes them out.
    pub(super) const fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing
    }

    /// Takes in bytes of the client.
    pub(super) fn handle_bytes(&mut self, bytes: &[u8]) {
        self.incoming.extend_from_slice(bytes);
        while let Ok(Some(header)) = FixedHeader::peek(&self.incoming) {
            if self.incoming.len() < header.packet_len() {
                return;
            }
            let packet: Vec<u8> = self.incoming.drain(..header.packet_len()).collect();
            self.handle(&packet);
        }
    }

    /// Publishes to the client with QoS 1, whatever it subscribed to.
    pub(super) fn publish(&mut self, topic: &str, payload: &[u8]) {
        let id = PacketId::new(self.next_id).expect("counted up from 1");
        self.next_id += 1;
        self.send(&Packet::Publish(Publish {
            duplicate: Duplicate::No,
            delivery: Delivery::AtLeastOnce(id),
            retain: Retain::No,
            topic,
            properties: Properties::NONE,
            payload,
        }));
    }

    fn handle(&mut self, packet: &[u8]) {
        // A client that cannot be understood gets no answer, and its phase ends at its limit.
        let Ok(packet) = Packet::decode(packet, self.version) else { return };
        match packet {
            Packet::Connect(connect) => {
                self.version = connect.version;
                let list = [
                    Property::ReceiveMaximum(RECEIVE_MAXIMUM),
                    Property::TopicAliasMaximum(TOPIC_ALIAS_MAXIMUM),
                ];
                let properties = Properties::of(&list);
                let (session_present, reason) = (false, ReasonCode::SUCCESS);
                self.send(&Packet::Connack(Connack { session_present, reason, properties }));
            }
            Packet::Publish(publish) => match publish.delivery {
                Delivery::AtMostOnce => {}
                Delivery::AtLeastOnce(id) => self.acknowledge(AckKind::Puback, id),
                Delivery::ExactlyOnce(id) => self.acknowledge(AckKind::Pubrec, id),
            },
            Packet::Ack(AckKind::Pubrel, ack) => self.acknowledge(AckKind::Pubcomp, ack.id),
            Packet::Subscribe(subscribe) => {
                let codes: Vec<u8> = subscribe.filters.iter().map(|filter| filter.qos.bits()).collect();
                let suback = Suback { id: subscribe.id, properties: Properties::NONE, codes: &codes };
                self.send(&Packet::Suback(suback));
            }
            Packet::Pingreq => self.send(&Packet::Pingresp),
            _ => {}
        }
    }

    fn acknowledge(&mut self, kind: AckKind, id: PacketId) {
        self.send(&Packet::Ack(kind, Ack::new(id, ReasonCode::SUCCESS)));
    }

    fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = [0; PACKET_MAX];
        let mut writer = Writer::new(&mut bytes);
        packet.encode(self.version, &mut writer).expect("a responder's packets are small");
        self.outgoing.extend_from_slice(writer.written());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qos_2_publication_is_acknowledged_in_both_steps() {
        let mut responder = Responder::default();
        let id = PacketId::new(7).expect("not zero");
        let mut bytes = [0; 64];
        for (packet, kind) in [
            (
                Packet::Publish(Publish {
                    duplicate: Duplicate::No,
                    delivery: Delivery::ExactlyOnce(id),
                    retain: Retain::No,
                    topic: "t",
                    properties: Properties::NONE,
                    payload: b"p",
                }),
                AckKind::Pubrec,
            ),
            (Packet::Ack(AckKind::Pubrel, Ack::new(id, ReasonCode::SUCCESS)), AckKind::Pubcomp),
        ] {
            let mut writer = Writer::new(&mut bytes);
            packet.encode(Version::V5, &mut writer).expect("it fits");
            // In two pieces, as a stream may bring it.
            let (head, tail) = writer.written().split_at(3);
            responder.handle_bytes(head);
            assert!(responder.outgoing().is_empty());
            responder.handle_bytes(tail);
            let answer = std::mem::take(responder.outgoing());
            let answer = Packet::decode(&answer, Version::V5).expect("a packet");
            assert!(matches!(answer, Packet::Ack(got, ack) if got == kind && ack.id == id), "{answer:?}");
        }
    }
}
