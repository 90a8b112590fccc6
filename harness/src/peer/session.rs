//! The MQTT session of a client, without I/O: packet identifiers, messages in flight, acknowledgements.
//!
//! It outlives connections: what was not acknowledged is sent again on the next one (MQTT 5.0 4.4).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::send_log::SendLog;
use crate::wire::{
    AckKind, Acknowledge, Packet, Publish, Qos, Subscription, SubscriptionReply, Version, reason,
};

/// A message and who wants to know what becomes of it.
pub(super) struct Tagged {
    pub(super) publish: Publish,
    pub(super) sequence: u32,
    pub(super) log: Arc<SendLog>,
}

/// How far a message with QoS 1 or 2 is.
enum Stage {
    /// PUBLISH is out, PUBACK or PUBREC is due.
    Published(Tagged),
    /// PUBREL is out, PUBCOMP is due.
    Released { sequence: u32, log: Arc<SendLog> },
}

struct InFlight {
    packet_id: u16,
    stage: Stage,
}

/// A request a reply is due for.
enum Request {
    Subscribe(Vec<Subscription>, oneshot::Sender<Vec<u8>>),
    Unsubscribe(Vec<String>, oneshot::Sender<Vec<u8>>),
}

pub(super) struct Session {
    version: Version,
    next_packet_id: u16,
    /// Keyed by the order of first sending, which resending keeps.
    in_flight: BTreeMap<u64, InFlight>,
    /// Packet identifiers in flight, to the keys above.
    orders: HashMap<u16, u64>,
    next_order: u64,
    waiting: VecDeque<Tagged>,
    requests: HashMap<u16, Request>,
    subscriptions: Vec<Subscription>,
    received: HashSet<u16>,
    window: usize,
}

impl Session {
    pub(super) fn new(version: Version) -> Self {
        Self {
            version,
            next_packet_id: 1,
            in_flight: BTreeMap::new(),
            orders: HashMap::new(),
            next_order: 0,
            waiting: VecDeque::new(),
            requests: HashMap::new(),
            subscriptions: Vec::new(),
            received: HashSet::new(),
            window: usize::from(u16::MAX),
        }
    }

    pub(super) fn publish(&mut self, message: Tagged) {
        self.waiting.push_back(message);
    }

    pub(super) fn subscribe(
        &mut self,
        wanted: Vec<Subscription>,
        reply: oneshot::Sender<Vec<u8>>,
        out: &mut Vec<u8>,
    ) {
        for subscription in &wanted {
            self.subscriptions.retain(|known| known.filter != subscription.filter);
            self.subscriptions.push(subscription.clone());
        }
        self.request(Request::Subscribe(wanted, reply), out);
    }

    pub(super) fn unsubscribe(
        &mut self,
        filters: Vec<String>,
        reply: oneshot::Sender<Vec<u8>>,
        out: &mut Vec<u8>,
    ) {
        self.subscriptions.retain(|known| !filters.contains(&known.filter));
        self.request(Request::Unsubscribe(filters, reply), out);
    }

    fn request(&mut self, request: Request, out: &mut Vec<u8>) {
        let packet_id = self.packet_id();
        let packet = match &request {
            Request::Subscribe(subscriptions, _) => {
                Packet::Subscribe { packet_id, subscriptions: subscriptions.clone() }
            }
            Request::Unsubscribe(filters, _) => Packet::Unsubscribe { packet_id, filters: filters.clone() },
        };
        out.extend_from_slice(&packet.encode(self.version));
        self.requests.insert(packet_id, request);
    }

    /// Takes up the session on a new connection: writes what has to be sent again.
    pub(super) fn resume(&mut self, session_present: bool, window: u16, out: &mut Vec<u8>) {
        self.window = usize::from(window);
        if !session_present {
            self.received.clear();
            // The broker forgot PUBRECs, too: what was released was delivered.
            self.in_flight.retain(|_, message| match &message.stage {
                Stage::Published(_) => true,
                Stage::Released { sequence, log } => {
                    log.acked(*sequence, reason::SUCCESS);
                    self.orders.remove(&message.packet_id);
                    false
                }
            });
        }
        for message in self.in_flight.values_mut() {
            let packet = match &mut message.stage {
                Stage::Published(tagged) => {
                    tagged.publish.dup = session_present;
                    Packet::Publish(tagged.publish.clone())
                }
                Stage::Released { .. } => {
                    Packet::Acknowledge(Acknowledge::new(AckKind::Pubrel, message.packet_id))
                }
            };
            out.extend_from_slice(&packet.encode(self.version));
        }
        let pending: Vec<_> = self.requests.drain().map(|(_, request)| request).collect();
        if !session_present {
            let again: Vec<_> = self
                .subscriptions
                .iter()
                .filter(|known| {
                    !pending.iter().any(
                        |request| matches!(request, Request::Subscribe(wanted, _) if wanted.contains(known)),
                    )
                })
                .cloned()
                .collect();
            if !again.is_empty() {
                self.request(Request::Subscribe(again, oneshot::channel().0), out);
            }
        }
        for request in pending {
            self.request(request, out);
        }
    }

    /// Writes waiting messages as far as the broker's receive maximum allows.
    pub(super) fn send_waiting(&mut self, out: &mut Vec<u8>, limit: usize) {
        while out.len() < limit {
            let Some(next) = self.waiting.front() else { return };
            if next.publish.qos != Qos::AtMostOnce && self.in_flight.len() >= self.window {
                return;
            }
            let mut message = self.waiting.pop_front().expect("just seen");
            if message.publish.qos != Qos::AtMostOnce {
                message.publish.packet_id = self.packet_id();
            }
            out.extend_from_slice(&Packet::Publish(message.publish.clone()).encode(self.version));
            message.log.sent(message.sequence);
            if message.publish.qos == Qos::AtMostOnce {
                message.log.settle_one();
                continue;
            }
            let packet_id = message.publish.packet_id;
            self.orders.insert(packet_id, self.next_order);
            self.in_flight.insert(self.next_order, InFlight { packet_id, stage: Stage::Published(message) });
            self.next_order += 1;
        }
    }

    /// Takes in a packet; yields a message for the application and writes what is due in answer.
    pub(super) fn handle(&mut self, packet: Packet, out: &mut Vec<u8>) -> Option<Publish> {
        match packet {
            Packet::Publish(publish) => self.on_publish(publish, out),
            Packet::Acknowledge(ack) => {
                self.on_acknowledge(ack, out);
                None
            }
            Packet::Suback(reply) | Packet::Unsuback(reply) => {
                self.on_reply(reply);
                None
            }
            _ => None,
        }
    }

    fn on_publish(&mut self, publish: Publish, out: &mut Vec<u8>) -> Option<Publish> {
        let (kind, fresh) = match publish.qos {
            Qos::AtMostOnce => return Some(publish),
            Qos::AtLeastOnce => (AckKind::Puback, true),
            Qos::ExactlyOnce => (AckKind::Pubrec, self.received.insert(publish.packet_id)),
        };
        let ack = Packet::Acknowledge(Acknowledge::new(kind, publish.packet_id));
        out.extend_from_slice(&ack.encode(self.version));
        fresh.then_some(publish)
    }

    fn on_acknowledge(&mut self, ack: Acknowledge, out: &mut Vec<u8>) {
        if ack.kind == AckKind::Pubrel {
            self.received.remove(&ack.packet_id);
            let complete = Packet::Acknowledge(Acknowledge::new(AckKind::Pubcomp, ack.packet_id));
            out.extend_from_slice(&complete.encode(self.version));
            return;
        }
        let Some(&order) = self.orders.get(&ack.packet_id) else { return };
        let message = self.in_flight.get_mut(&order).expect("both maps hold the same messages");
        match (&message.stage, ack.kind) {
            (Stage::Published(tagged), AckKind::Pubrec) if ack.reason < 0x80 => {
                message.stage = Stage::Released { sequence: tagged.sequence, log: Arc::clone(&tagged.log) };
                let release = Packet::Acknowledge(Acknowledge::new(AckKind::Pubrel, ack.packet_id));
                out.extend_from_slice(&release.encode(self.version));
            }
            (Stage::Published(tagged), AckKind::Puback | AckKind::Pubrec) => {
                tagged.log.acked(tagged.sequence, ack.reason);
                self.settle(order, ack.packet_id);
            }
            (Stage::Released { sequence, log }, AckKind::Pubcomp) => {
                log.acked(*sequence, reason::SUCCESS);
                self.settle(order, ack.packet_id);
            }
            _ => {}
        }
    }

    fn settle(&mut self, order: u64, packet_id: u16) {
        self.in_flight.remove(&order);
        self.orders.remove(&packet_id);
    }

    fn on_reply(&mut self, reply: SubscriptionReply) {
        if let Some(Request::Subscribe(_, waiting) | Request::Unsubscribe(_, waiting)) =
            self.requests.remove(&reply.packet_id)
        {
            // Whoever asked may not wait any more.
            let _ = waiting.send(reply.codes);
        }
    }

    fn packet_id(&mut self) -> u16 {
        loop {
            let id = self.next_packet_id;
            self.next_packet_id = id.checked_add(1).unwrap_or(1);
            if !self.requests.contains_key(&id) && !self.orders.contains_key(&id) {
                return id;
            }
        }
    }
}
