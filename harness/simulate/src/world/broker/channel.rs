//! One space of packet identifiers: what is under way in both directions, and who has subscribed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::packet::{self, Packet, Publish};

/// A message under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Its QoS.
    pub qos: u8,
}

/// State of a session, or of a data stream.
#[derive(Debug, Default)]
pub(super) struct Channel {
    subscriptions: Vec<(String, u8)>,
    queue: VecDeque<Message>,
    in_flight: BTreeMap<u16, Outgoing>,
    /// The order in which `in_flight` was sent.
    order: VecDeque<u16>,
    /// In-flight packets to be written, first after a reconnect.
    unsent: VecDeque<u16>,
    /// QoS 2 messages taken whose PUBREL has not come.
    taken: BTreeSet<u16>,
    next_id: u16,
}

#[derive(Debug)]
struct Outgoing {
    message: Message,
    dup: bool,
    /// PUBREC has come: from now on PUBREL is repeated, not PUBLISH.
    released: bool,
}

/// What a packet led to.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    pub(super) published: Option<Message>,
    pub(super) violation: Option<String>,
}

impl Channel {
    /// Takes a message if someone has subscribed to it. QoS 0 is not kept for those who are away.
    pub(super) fn offer(&mut self, message: &Message, online: bool) -> bool {
        let granted = self.subscriptions.iter().filter(|(filter, _)| matches(filter, &message.topic));
        let Some(&(_, qos)) = granted.max_by_key(|(_, qos)| *qos) else { return false };
        let qos = qos.min(message.qos);
        if qos == 0 && !online {
            return false;
        }
        self.queue.push_back(Message { qos, ..message.clone() });
        true
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

    /// Writes what may be written now.
    pub(super) fn transmit(&mut self, v5: bool, receive_maximum: u16, output: &mut Vec<u8>) {
        while let Some(id) = self.unsent.pop_front() {
            let Some(outgoing) = self.in_flight.get(&id) else { continue };
            output.extend(if outgoing.released {
                packet::acknowledgement(6, id)
            } else {
                encode(v5, &outgoing.message, id, outgoing.dup)
            });
        }
        // 3.1.1 announces none.
        let window = if receive_maximum == 0 { 16 } else { usize::from(receive_maximum) };
        while let Some(message) = self.queue.front() {
            if message.qos > 0 && self.in_flight.len() >= window {
                return;
            }
            let Some(message) = self.queue.pop_front() else { return };
            if message.qos == 0 {
                output.extend(encode(v5, &message, 0, false));
                continue;
            }
            let id = self.free_id();
            output.extend(encode(v5, &message, id, false));
            self.order.push_back(id);
            self.in_flight.insert(id, Outgoing { message, dup: false, released: false });
        }
    }

    pub(super) fn on_packet(
        &mut self,
        v5: bool,
        aliases: &mut BTreeMap<u16, String>,
        packet: Packet,
    ) -> Answer {
        let mut answer = Answer::default();
        match packet {
            Packet::Publish(publish) => self.on_publish(publish, aliases, &mut answer),
            Packet::Pubrel(id) => {
                self.taken.remove(&id);
                answer.bytes = packet::acknowledgement(7, id);
            }
            Packet::Puback(id) => match self.in_flight.get(&id) {
                Some(outgoing) if outgoing.message.qos == 1 => self.done(id),
                _ => answer.violation = Some(format!("PUBACK {id} of nothing")),
            },
            Packet::Pubrec(id, refused) => match self.in_flight.get_mut(&id) {
                Some(outgoing) if outgoing.message.qos == 2 && !refused => {
                    outgoing.released = true;
                    answer.bytes = packet::acknowledgement(6, id);
                }
                Some(outgoing) if outgoing.message.qos == 2 => self.done(id),
                _ => answer.violation = Some(format!("PUBREC {id} of nothing")),
            },
            Packet::Pubcomp(id) => match self.in_flight.get(&id) {
                Some(outgoing) if outgoing.released => self.done(id),
                _ => answer.violation = Some(format!("PUBCOMP {id} of nothing")),
            },
            Packet::Subscribe(id, filters) => {
                let codes: Vec<u8> = filters.iter().map(|(_, options)| options & 3).collect();
                for (filter, options) in filters {
                    self.subscriptions.retain(|(known, _)| *known != filter);
                    self.subscriptions.push((filter, options & 3));
                }
                answer.bytes = packet::subscription_acknowledgement(9, v5, id, &codes);
            }
            Packet::Unsubscribe(id, filters) => {
                let known = |filter: &String| self.subscriptions.iter().any(|(known, _)| known == filter);
                let codes: Vec<u8> =
                    filters.iter().map(|filter| if known(filter) { 0 } else { 0x11 }).collect();
                self.subscriptions.retain(|(known, _)| !filters.contains(known));
                answer.bytes = packet::subscription_acknowledgement(11, v5, id, &codes);
            }
            Packet::Pingreq => answer.bytes = packet::pingresp(),
            Packet::Connect(_) | Packet::Disconnect => {}
        }
        answer
    }

    fn on_publish(&mut self, publish: Publish, aliases: &mut BTreeMap<u16, String>, answer: &mut Answer) {
        let Publish { topic, alias, qos, id, payload, .. } = publish;
        let topic = match alias {
            Some(alias) if topic.is_empty() => match aliases.get(&alias) {
                Some(topic) => topic.clone(),
                None => {
                    answer.violation = Some(format!("topic alias {alias} of nothing"));
                    return;
                }
            },
            Some(alias) => {
                aliases.insert(alias, topic.clone());
                topic
            }
            None => topic,
        };
        let message = Message { topic, payload, qos };
        match qos {
            0 => answer.published = Some(message),
            1 => {
                answer.published = Some(message);
                answer.bytes = packet::acknowledgement(4, id);
            }
            _ => {
                if self.taken.insert(id) {
                    answer.published = Some(message);
                }
                answer.bytes = packet::acknowledgement(5, id);
            }
        }
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

fn encode(v5: bool, message: &Message, id: u16, dup: bool) -> Vec<u8> {
    let Message { topic, payload, qos } = message.clone();
    packet::publish_packet(v5, &Publish { dup, qos, retain: false, id, topic, alias: None, payload })
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
    use super::matches;

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
}
