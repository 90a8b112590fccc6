//! One space of packet identifiers: what is under way in both directions, and who has subscribed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::packet::{self, Packet, Publish, Wanted};

/// A message under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) qos: u8,
    pub(super) retain: bool,
}

/// The last retained message of each topic.
pub(super) type Retained = BTreeMap<String, Message>;

/// What a connection takes and is promised to keep to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Whether it speaks 5.0.
    pub(super) v5: bool,
    /// Messages of QoS 1 and 2 that may be under way to the client on each stream.
    pub(super) window: u16,
    /// The same from the client; of 3.1.1 nobody could ask it.
    pub(super) receive_maximum: u16,
    /// The highest topic alias from the client.
    pub(super) alias_maximum: u16,
}

/// State of a session, or of a data stream.
#[derive(Debug, Default)]
pub(super) struct Channel {
    subscriptions: Vec<Wanted>,
    queue: VecDeque<Message>,
    in_flight: BTreeMap<u16, Outgoing>,
    /// The order in which `in_flight` was sent.
    order: VecDeque<u16>,
    /// In-flight packets to be written, first after a reconnect.
    unsent: VecDeque<u16>,
    /// QoS 2 messages taken whose PUBREL has not come.
    taken: BTreeMap<u16, Message>,
    next_id: u16,
}

#[derive(Debug)]
struct Outgoing {
    message: Message,
    dup: bool,
    /// PUBREC has come: from now on PUBREL is repeated, not PUBLISH.
    released: bool,
}

/// What one connection adds to a channel in the direction from the client.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    aliases: BTreeMap<u16, String>,
    /// Messages published on this connection whose last acknowledgement is not written.
    in_flight: BTreeSet<u16>,
}

/// What a packet led to.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// To be written at once.
    pub(super) bytes: Vec<u8>,
    /// To be written as soon as the broker acknowledges, and the identifier that is free from then on.
    pub(super) acknowledgement: Option<(Vec<u8>, Option<u16>)>,
    pub(super) published: Option<(Message, bool)>,
    /// Whether the client has as many messages in flight as it may.
    pub(super) is_full: bool,
    /// What the standard forbids.
    pub(super) violation: Option<String>,
    /// An answer to nothing that was sent.
    pub(super) unfounded: Option<String>,
}

impl Channel {
    /// Takes a message if someone has subscribed to it: once, however many have. QoS 0 is not kept for those who are away.
    pub(super) fn offer(&mut self, message: &Message, online: bool) -> bool {
        let granted = self.subscriptions.iter().filter(|wanted| matches(&wanted.filter, &message.topic));
        let Some(granted) = granted.max_by_key(|wanted| wanted.qos) else { return false };
        let qos = granted.qos.min(message.qos);
        let retain = message.retain && granted.retain_as_published;
        if qos == 0 && !online {
            return false;
        }
        self.queue.push_back(Message { qos, retain, ..message.clone() });
        true
    }

    /// Whether someone has subscribed to it.
    pub(super) fn wants(&self, topic: &str) -> bool {
        self.subscriptions.iter().any(|wanted| matches(&wanted.filter, topic))
    }

    /// Messages not completely acknowledged.
    pub(super) fn pending(&self) -> usize {
        self.queue.len() + self.in_flight.len()
    }

    /// What is pending, in words.
    pub(super) fn describe(&self) -> String {
        let describe = |(id, outgoing): (&u16, &Outgoing)| {
            let stage = if outgoing.released { "PUBCOMP" } else { "PUBACK or PUBREC" };
            format!("{id} (QoS {}) waits for {stage}", outgoing.message.qos)
        };
        let in_flight: Vec<String> = self.in_flight.iter().map(describe).collect();
        format!("{} queued, in flight: {in_flight:?}, unsent: {:?}", self.queue.len(), self.unsent)
    }

    /// A connection continues the session: what is in flight is sent again, in order (4.4).
    pub(super) fn reconnect(&mut self) {
        self.queue.retain(|message| message.qos > 0);
        self.unsent = self.order.clone();
        for outgoing in self.in_flight.values_mut() {
            outgoing.dup = true;
        }
    }

    /// Writes what may be written now. Says whether more waits until the client acknowledges.
    pub(super) fn transmit(&mut self, limits: Limits, output: &mut Vec<u8>) -> bool {
        let v5 = limits.v5;
        while let Some(id) = self.unsent.pop_front() {
            let Some(outgoing) = self.in_flight.get(&id) else { continue };
            output.extend(if outgoing.released {
                packet::acknowledgement(6, id, 0)
            } else {
                encode(v5, &outgoing.message, id, outgoing.dup)
            });
        }
        while let Some(message) = self.queue.front() {
            if message.qos > 0 && self.in_flight.len() >= limits.window.into() {
                return true;
            }
            let Some(message) = self.queue.pop_front() else { break };
            if message.qos == 0 {
                output.extend(encode(v5, &message, 0, false));
                continue;
            }
            let id = self.free_id();
            output.extend(encode(v5, &message, id, false));
            self.order.push_back(id);
            self.in_flight.insert(id, Outgoing { message, dup: false, released: false });
        }
        false
    }

    pub(super) fn on_packet(
        &mut self,
        limits: Limits,
        inbound: &mut Inbound,
        retained: &Retained,
        packet: Packet,
    ) -> Answer {
        let v5 = limits.v5;
        let mut answer = Answer::default();
        match packet {
            Packet::Publish(publish) => self.on_publish(publish, limits, inbound, &mut answer),
            Packet::Pubrel(id) => {
                let known = self.taken.remove(&id).is_some();
                let reason = if known || !v5 { 0 } else { NOT_FOUND };
                answer.acknowledgement = Some((packet::acknowledgement(7, id, reason), Some(id)));
            }
            Packet::Puback(id) => match self.in_flight.get(&id) {
                Some(outgoing) if outgoing.message.qos == 1 => self.done(id),
                _ => answer.unfounded = Some(format!("PUBACK {id} of nothing")),
            },
            Packet::Pubrec(id, refused) => match self.in_flight.get_mut(&id) {
                Some(outgoing) if outgoing.message.qos == 2 && !refused => {
                    outgoing.released = true;
                    answer.bytes = packet::acknowledgement(6, id, 0);
                }
                Some(outgoing) if outgoing.message.qos == 2 => self.done(id),
                _ => answer.unfounded = Some(format!("PUBREC {id} of nothing")),
            },
            Packet::Pubcomp(id) => match self.in_flight.get(&id) {
                Some(outgoing) if outgoing.released => self.done(id),
                _ => answer.unfounded = Some(format!("PUBCOMP {id} of nothing")),
            },
            Packet::Subscribe(id, filters) => {
                let codes: Vec<u8> = filters.iter().map(|wanted| wanted.qos).collect();
                for wanted in filters {
                    self.subscribe(wanted, retained);
                }
                answer.bytes = packet::subscription_acknowledgement(9, v5, id, &codes);
            }
            Packet::Unsubscribe(id, filters) => {
                let known =
                    |filter: &String| self.subscriptions.iter().any(|wanted| wanted.filter == *filter);
                let codes: Vec<u8> =
                    filters.iter().map(|filter| if known(filter) { 0 } else { 0x11 }).collect();
                self.subscriptions.retain(|wanted| !filters.contains(&wanted.filter));
                answer.bytes = packet::subscription_acknowledgement(11, v5, id, &codes);
            }
            Packet::Pingreq => answer.bytes = packet::pingresp(),
            Packet::Connect(_) | Packet::Disconnect(_) => {}
        }
        answer
    }

    /// Notes a subscription, and queues the retained messages it asks for (3.3.1.3).
    fn subscribe(&mut self, wanted: Wanted, retained: &Retained) {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|known| known.filter != wanted.filter);
        let is_new = self.subscriptions.len() == before;
        let sends = wanted.retain_handling == 0 || (wanted.retain_handling == 1 && is_new);
        for message in retained.values().filter(|message| sends && matches(&wanted.filter, &message.topic)) {
            let qos = wanted.qos.min(message.qos);
            self.queue.push_back(Message { qos, ..message.clone() });
        }
        self.subscriptions.push(wanted);
    }

    fn on_publish(&mut self, publish: Publish, limits: Limits, inbound: &mut Inbound, answer: &mut Answer) {
        let Publish { dup, topic, alias, qos, id, payload, retain } = publish;
        let topic = match inbound.resolve(topic, alias, limits.alias_maximum) {
            Ok(topic) => topic,
            Err(violation) => {
                answer.violation = Some(violation);
                return;
            }
        };
        let message = Message { topic, payload, qos, retain };
        if qos == 0 {
            answer.published = Some((message, dup));
            return;
        }
        answer.violation = self.broken_rule(limits, inbound, id, dup, &message);
        inbound.in_flight.insert(id);
        answer.is_full = inbound.in_flight.len() == limits.receive_maximum.into();
        if qos == 1 {
            answer.published = Some((message, dup));
            answer.acknowledgement = Some((packet::acknowledgement(4, id, 0), Some(id)));
            return;
        }
        if self.taken.insert(id, message.clone()).is_none() {
            answer.published = Some((message, dup));
        }
        answer.acknowledgement = Some((packet::acknowledgement(5, id, 0), None));
    }

    /// What is wrong with a message of QoS 1 or 2, if anything is.
    fn broken_rule(
        &self,
        limits: Limits,
        inbound: &Inbound,
        id: u16,
        dup: bool,
        message: &Message,
    ) -> Option<String> {
        // Over QUIC nothing is repeated on the stream it went out on (4.4).
        if inbound.in_flight.contains(&id) {
            return Some(format!("packet identifier {id} is used again while it is in flight"));
        }
        if let Some(taken) = self.taken.get(&id)
            && (!dup || taken.payload != message.payload || taken.topic != message.topic)
        {
            return Some(format!("packet identifier {id} is used again before PUBREL"));
        }
        let maximum = limits.receive_maximum;
        (limits.v5 && inbound.in_flight.len() >= maximum.into())
            .then(|| format!("more than the {maximum} messages of the receive maximum in flight"))
    }

    fn done(&mut self, id: u16) {
        self.in_flight.remove(&id);
        self.order.retain(|&other| other != id);
    }

    fn free_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if !self.in_flight.contains_key(&self.next_id) {
                return self.next_id;
            }
        }
    }
}

impl Inbound {
    /// An acknowledgement that frees this identifier is written.
    pub(super) fn on_acknowledged(&mut self, id: u16) {
        self.in_flight.remove(&id);
    }

    /// The topic that a name, an alias or both stand for (3.3.2.3.4).
    fn resolve(&mut self, topic: String, alias: Option<u16>, maximum: u16) -> Result<String, String> {
        let Some(alias) = alias else { return Ok(topic) };
        if alias > maximum {
            return Err(format!("topic alias {alias} is above the maximum of {maximum}"));
        }
        if topic.is_empty() {
            return self
                .aliases
                .get(&alias)
                .cloned()
                .ok_or_else(|| format!("topic alias {alias} of nothing"));
        }
        self.aliases.insert(alias, topic.clone());
        Ok(topic)
    }
}

/// Packet identifier not found.
const NOT_FOUND: u8 = 0x92;

fn encode(v5: bool, message: &Message, id: u16, dup: bool) -> Vec<u8> {
    let Message { topic, payload, qos, retain } = message.clone();
    packet::publish_packet(v5, &Publish { dup, qos, retain, id, topic, alias: None, payload })
}

/// Whether a topic filter matches a topic (4.7).
fn matches(filter: &str, topic: &str) -> bool {
    let mut topic_levels = topic.split('/');
    for level in filter.split('/') {
        match (level, topic_levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(other)) if level == other => {}
            _ => return false,
        }
    }
    topic_levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_in_4_7() {
        for (filter, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/+", "a/b", true),
            ("a/+", "a/b/c", false),
            ("a/#", "a/b/c", true),
            ("a/#", "a", true),
            ("#", "a/b", true),
            ("a", "a/b", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    const LIMITS: Limits = Limits { v5: true, window: 4, receive_maximum: 2, alias_maximum: 1 };

    fn publish(qos: u8, id: u16, payload: &[u8]) -> Publish {
        let (topic, payload) = ("a".to_owned(), payload.to_vec());
        Publish { dup: false, qos, retain: false, id, topic, alias: None, payload }
    }

    /// What the last of these packets is blamed for; nothing is acknowledged in between.
    fn blamed(packets: &[Publish]) -> Option<String> {
        let (mut channel, mut inbound) = (Channel::default(), Inbound::default());
        let mut answer = Answer::default();
        for publish in packets {
            assert_eq!(answer.violation, None);
            answer =
                channel.on_packet(LIMITS, &mut inbound, &Retained::new(), Packet::Publish(publish.clone()));
        }
        answer.violation
    }

    #[test]
    fn what_the_client_may_not_do_is_found() {
        let [one, two, three] = [1, 2, 3].map(|id| publish(1, id, b"x"));
        assert_eq!(blamed(&[one.clone(), two.clone()]), None);
        let blame = blamed(&[one.clone(), two.clone(), three]).expect("one too many");
        assert!(blame.contains("receive maximum"), "{blame}");
        let blame = blamed(&[one.clone(), one.clone()]).expect("an identifier in flight");
        assert!(blame.contains("in flight"), "{blame}");
        let aliased = Publish { alias: Some(2), ..two };
        assert!(blamed(&[aliased]).expect("an alias above the maximum").contains("maximum of 1"));
        let unknown = Publish { alias: Some(1), topic: String::new(), ..one };
        assert!(blamed(&[unknown]).expect("an alias without a name").contains("of nothing"));
    }

    #[test]
    fn a_message_of_qos_2_that_is_repeated_on_another_connection_keeps_its_identifier() {
        let mut channel = Channel::default();
        let none = Retained::new();
        let first = Packet::Publish(publish(2, 7, b"x"));
        assert!(channel.on_packet(LIMITS, &mut Inbound::default(), &none, first).published.is_some());
        let again = |dup, payload: &[u8]| Packet::Publish(Publish { dup, ..publish(2, 7, payload) });
        let answer = channel.on_packet(LIMITS, &mut Inbound::default(), &none, again(true, b"x"));
        assert_eq!((answer.violation, answer.published), (None, None));
        for (dup, payload) in [(false, b"x"), (true, b"y")] {
            let answer = channel.on_packet(LIMITS, &mut Inbound::default(), &none, again(dup, payload));
            assert!(answer.violation.expect("another message").contains("before PUBREL"));
        }
    }
}
