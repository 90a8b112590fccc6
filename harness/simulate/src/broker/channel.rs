//! Packet identifiers, subscriptions and deliveries of one stream.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use device::codec::Writer;
use device::mqtt::packet::{Delivery, Packet, Publish};
use device::mqtt::{Duplicate, PacketId, Properties, Qos, Retain, Version, topic};

/// Packet identifiers and subscriptions: of a session, or of a data stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Channel {
    pub(super) subscriptions: BTreeMap<String, Granted>,
    /// QoS 2 identifiers received and not yet released.
    pub(super) received: BTreeSet<u16>,
    /// Deliveries without their last acknowledgement.
    pub(super) sent: BTreeMap<u16, Sent>,
    waiting: VecDeque<Sent>,
    next_id: u16,
}

/// What a subscription was granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    pub(super) qos: Qos,
    /// Whether messages keep the retain flag they were published with.
    pub(super) retain_as_published: bool,
}

/// A message to be delivered.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    topic: String,
    payload: Vec<u8>,
    qos: Qos,
    retain: Retain,
    pub(super) is_released: bool,
}

impl Channel {
    /// Queues a message if a subscription matches: once, however many do.
    pub(super) fn offer(&mut self, topic: &str, payload: &[u8], qos: Qos, retain: Retain) {
        let matching = self.subscriptions.iter().filter(|(filter, _)| topic::matches(filter, topic));
        let granted = matching.map(|(_, granted)| *granted).max_by_key(|granted| granted.qos);
        if let Some(granted) = granted {
            let retain = if granted.retain_as_published { retain } else { Retain::No };
            self.push(topic, payload, qos.min(granted.qos), retain);
        }
    }

    /// Queues a message.
    pub(super) fn push(&mut self, topic: &str, payload: &[u8], qos: Qos, retain: Retain) {
        let (topic, payload) = (topic.to_owned(), payload.to_vec());
        self.waiting.push_back(Sent { topic, payload, qos, retain, is_released: false });
    }

    /// Sends queued messages as far as the client's receive maximum allows.
    pub(super) fn deliver(&mut self, receive_maximum: u16, version: Version, outgoing: &mut VecDeque<u8>) {
        while let Some(next) = self.waiting.front() {
            if next.qos == Qos::AtMostOnce {
                encode(&Packet::Publish(next.publish(None, Duplicate::No)), version, outgoing);
                self.waiting.pop_front();
                continue;
            }
            if self.sent.len() >= usize::from(receive_maximum) {
                return;
            }
            let id = loop {
                self.next_id = self.next_id.checked_add(1).unwrap_or(1);
                if !self.sent.contains_key(&self.next_id) {
                    break self.next_id;
                }
            };
            let id = PacketId::new(id).expect("never zero");
            encode(&Packet::Publish(next.publish(Some(id), Duplicate::No)), version, outgoing);
            let sent = self.waiting.pop_front().expect("just seen");
            self.sent.insert(id.value(), sent);
        }
    }
}

impl Sent {
    pub(super) fn publish(&self, id: Option<PacketId>, duplicate: Duplicate) -> Publish<'_> {
        Publish {
            duplicate,
            delivery: match (self.qos, id) {
                (Qos::AtLeastOnce, Some(id)) => Delivery::AtLeastOnce(id),
                (Qos::ExactlyOnce, Some(id)) => Delivery::ExactlyOnce(id),
                _ => Delivery::AtMostOnce,
            },
            retain: self.retain,
            topic: &self.topic,
            properties: Properties::NONE,
            payload: &self.payload,
        }
    }
}

pub(super) fn encode(packet: &Packet<'_>, version: Version, outgoing: &mut VecDeque<u8>) {
    let mut bytes = [0; 4096];
    let mut w = Writer::new(&mut bytes);
    packet.encode(version, &mut w).expect("simulated messages are small");
    outgoing.extend(w.written());
}
