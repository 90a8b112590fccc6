//! Outgoing QoS 1 and 2 publications, kept until their last acknowledgement (4.3, 4.4).
//!
//! Topic, properties and payload of each stand one behind another in a byte arena, in the order of
//! publication; a hole left by an acknowledgement is closed only when room is needed. The arena is the
//! bound: nothing else grows with what the application publishes.

use heapless::Vec;

use super::{Publication, Replay, RequestError, Slot, Token};
use crate::codec::Writer;
use crate::mqtt::packet::{Delivery, Publish};
use crate::mqtt::{Duplicate, Properties, Qos, Retain};

/// Bytes for stored publications: two of 1,000 bytes with their topics, so that one is under way while the other's
/// acknowledgement is, or twenty of 64 bytes.
pub(super) const STORE_BYTES: usize = 2064;

/// Publications in the store: 16 cover a window of 16 messages per round trip.
pub(super) const STORE_COUNT: usize = 16;

/// What is to happen next with a stored publication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// PUBLISH is to be written.
    PublishDue,
    /// PUBLISH is written: PUBACK or PUBREC is to come.
    Published,
    /// PUBREC came: PUBREL is to be written.
    PubrelDue,
    /// PUBREL is written: PUBCOMP is to come.
    Released,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    offset: u16,
    topic_len: u8,
    properties_len: u16,
    payload_len: u16,
    pub(super) token: Token,
    pub(super) phase: Phase,
    pub(super) qos: Qos,
    pub(super) replay: Replay,
    retain: Retain,
    published: Published,
}

/// When a stored publication's PUBLISH was last written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Published {
    /// Never, or to a session that its server has lost.
    Never,
    /// On an earlier connection or stream.
    Before,
    /// On the present one.
    Now,
}

impl Entry {
    const fn len(&self) -> usize {
        self.topic_len as usize + self.properties_len as usize + self.payload_len as usize
    }

    const fn end(&self) -> usize {
        self.offset as usize + self.len()
    }

    const fn is_due(&self) -> bool {
        matches!(self.phase, Phase::PublishDue | Phase::PubrelDue)
    }
}

pub(super) struct Store {
    bytes: [u8; STORE_BYTES],
    entries: Vec<Entry, STORE_COUNT>,
    /// How many entries are due: the pump looks no further when there are none.
    due: u8,
}

impl Store {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; STORE_BYTES], entries: Vec::new(), due: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> usize {
        self.entries.iter().map(Entry::len).sum()
    }

    pub(super) const fn has_due(&self) -> bool {
        self.due > 0
    }

    pub(super) fn entry(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    /// Whether `token` is in use.
    pub(super) fn contains(&self, token: Token) -> bool {
        self.entries.iter().any(|entry| entry.token == token)
    }

    /// Publications written whose last acknowledgement is to come: what the server's receive maximum
    /// counts, which begins anew with each connection (4.9).
    pub(super) fn in_flight(&self) -> usize {
        self.entries.iter().filter(|entry| entry.published == Published::Now).count()
    }

    /// Stores a publication behind all others.
    ///
    /// # Errors
    /// `TooLarge` if it can never fit, `Full` if it does not fit now.
    pub(super) fn push(&mut self, token: Token, publication: &Publication<'_>) -> Result<(), RequestError> {
        if self.entries.is_full() {
            return Err(RequestError::Full);
        }
        let mut placed = self.append(publication);
        if placed.is_none() {
            self.compact();
            placed = self.append(publication);
        }
        let Some((offset, properties_len)) = placed else {
            let is_hopeless = self.entries.is_empty();
            return Err(if is_hopeless { RequestError::TooLarge } else { RequestError::Full });
        };
        let entry = Entry {
            offset,
            topic_len: publication.topic.len() as u8,
            properties_len,
            payload_len: publication.payload.len() as u16,
            token,
            phase: Phase::PublishDue,
            qos: publication.qos,
            replay: publication.replay,
            retain: publication.retain,
            published: Published::Never,
        };
        self.entries.push(entry).map_err(|_| RequestError::Full)?;
        self.due += 1;
        Ok(())
    }

    /// Copies the parts behind the last entry; returns where they are and how long the properties are.
    fn append(&mut self, publication: &Publication<'_>) -> Option<(u16, u16)> {
        let tail = self.entries.last().map_or(0, Entry::end);
        let mut w = Writer::new(&mut self.bytes[tail..]);
        w.put(publication.topic.as_bytes()).ok()?;
        let before = w.len();
        publication.properties.write_values(&mut w).ok()?;
        let properties_len = w.len() - before;
        w.put(publication.payload).ok()?;
        Some((tail as u16, properties_len as u16))
    }

    /// Closes the holes.
    fn compact(&mut self) {
        let mut tail = 0;
        for entry in &mut self.entries {
            let start = usize::from(entry.offset);
            self.bytes.copy_within(start..start + entry.len(), tail);
            entry.offset = tail as u16;
            tail += entry.len();
        }
    }

    /// The PUBLISH of entry `index`.
    pub(super) fn publish(&self, index: usize) -> Option<Publish<'_>> {
        let entry = self.entries.get(index)?;
        let bytes = &self.bytes[usize::from(entry.offset)..entry.end()];
        let (topic, rest) = bytes.split_at(usize::from(entry.topic_len));
        let (properties, payload) = rest.split_at(usize::from(entry.properties_len));
        let delivery = match entry.qos {
            Qos::ExactlyOnce => Delivery::ExactlyOnce(entry.token.id),
            _ => Delivery::AtLeastOnce(entry.token.id),
        };
        Some(Publish {
            duplicate: match entry.published {
                Published::Never => Duplicate::No,
                _ => Duplicate::Yes,
            },
            delivery,
            retain: entry.retain,
            topic: core::str::from_utf8(topic).ok()?,
            properties: Properties::from_values(properties),
            payload,
        })
    }

    /// What was due of entry `index` is written.
    pub(super) fn on_written(&mut self, index: usize) {
        if let Some(entry) = self.entries.get_mut(index).filter(|entry| entry.is_due()) {
            (entry.phase, entry.published) = match entry.phase {
                Phase::PublishDue => (Phase::Published, Published::Now),
                _ => (Phase::Released, entry.published),
            };
            self.due -= 1;
        }
    }

    /// PUBACK, PUBCOMP, or a PUBREC that refuses: forgets the publication. False if none waits for that.
    pub(super) fn on_complete(&mut self, token: Token, qos: Qos, phase: Phase) -> bool {
        let found = self
            .entries
            .iter()
            .position(|entry| entry.token == token && entry.qos == qos && entry.phase == phase);
        found.is_some_and(|index| {
            self.entries.remove(index);
            true
        })
    }

    /// PUBREC: the message has arrived, only its identifier is kept. False if none waits for that.
    ///
    /// A repeated PUBREC after a reconnect asks for PUBREL once more.
    pub(super) fn on_received(&mut self, token: Token) -> bool {
        let waits = |entry: &&mut Entry| {
            entry.token == token && entry.qos == Qos::ExactlyOnce && entry.phase != Phase::PublishDue
        };
        let Some(entry) = self.entries.iter_mut().find(waits) else {
            return false;
        };
        if entry.phase != Phase::PubrelDue {
            entry.phase = Phase::PubrelDue;
            self.due += 1;
        }
        entry.topic_len = 0;
        entry.properties_len = 0;
        entry.payload_len = 0;
        true
    }

    /// The stream of `slot` is gone: everything written on it is due again.
    pub(super) fn on_stream_lost(&mut self, slot: Slot) {
        for entry in self.entries.iter_mut().filter(|entry| entry.token.slot == slot) {
            entry.phase = match entry.phase {
                Phase::PublishDue | Phase::Published => Phase::PublishDue,
                Phase::PubrelDue | Phase::Released => Phase::PubrelDue,
            };
            if entry.published == Published::Now {
                entry.published = Published::Before;
            }
        }
        self.count_due();
    }

    /// The server does not know the session of `slot`: what it has not acknowledged is new to it. Returns
    /// how many publications were sent before and are sent anew.
    ///
    /// Entries already written on the present connection are left alone.
    pub(super) fn on_session_lost(&mut self, slot: Slot) -> usize {
        let mut count = 0;
        let due = |entry: &&mut Entry| entry.token.slot == slot && entry.phase == Phase::PublishDue;
        for entry in self.entries.iter_mut().filter(due) {
            count += usize::from(entry.published != Published::Never);
            entry.published = Published::Never;
        }
        count
    }

    /// Takes out one publication whose PUBREL has nobody left to answer it.
    pub(super) fn take_released(&mut self, slot: Slot) -> Option<Token> {
        let index = self
            .entries
            .iter()
            .position(|entry| entry.token.slot == slot && entry.phase == Phase::PubrelDue)?;
        let entry = self.entries.remove(index);
        self.due -= 1;
        Some(entry.token)
    }

    /// Gives up entry `index`, if it is due.
    pub(super) fn abandon(&mut self, index: usize) -> bool {
        let is_due = self.entries.get(index).is_some_and(Entry::is_due);
        if is_due {
            self.entries.remove(index);
            self.due -= 1;
        }
        is_due
    }

    /// Gives up the first entry of `slot`, if it is due.
    pub(super) fn abandon_first(&mut self, slot: Slot) -> Option<Token> {
        let index = self.entries.iter().position(|entry| entry.token.slot == slot)?;
        let token = self.entries[index].token;
        self.abandon(index).then_some(token)
    }

    fn count_due(&mut self) {
        self.due = self.entries.iter().filter(|entry| entry.is_due()).count() as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::PacketId;

    fn token(id: u16) -> Token {
        Token { slot: Slot::CONTROL, id: PacketId::new(id).expect("not zero") }
    }

    fn publication<'a>(payload: &'a [u8], qos: Qos) -> Publication<'a> {
        Publication::new("topic", payload).qos(qos)
    }

    #[test]
    fn what_is_stored_comes_back_whole() {
        let mut store = Store::new();
        let list = [crate::mqtt::Property::ContentType("x")];
        let first = Publication {
            properties: Properties::of(&list),
            retain: Retain::Yes,
            ..publication(b"payload", Qos::ExactlyOnce)
        };
        store.push(token(1), &first).expect("empty");
        let publish = store.publish(0).expect("stored");
        assert_eq!((publish.topic, publish.payload), ("topic", &b"payload"[..]));
        assert_eq!(publish.properties, Properties::of(&list));
        assert_eq!(publish.delivery, Delivery::ExactlyOnce(token(1).id));
        assert_eq!((publish.retain, publish.duplicate), (Retain::Yes, Duplicate::No));
    }

    #[test]
    fn holes_are_closed_when_room_is_needed() {
        let mut store = Store::new();
        let payload = [7; STORE_BYTES / 3 - 10];
        for id in 1..=3 {
            store.push(token(id), &publication(&payload, Qos::AtLeastOnce)).expect("three fit");
        }
        assert_eq!(store.push(token(4), &publication(&payload, Qos::AtLeastOnce)), Err(RequestError::Full));
        assert_eq!(store.len(), 3, "nothing half-written");
        store.on_written(0);
        store.on_written(1);
        assert!(store.on_complete(token(1), Qos::AtLeastOnce, Phase::Published));
        let other = [9; STORE_BYTES / 3 - 10];
        store.push(token(4), &publication(&other, Qos::AtLeastOnce)).expect("the first left room");
        assert_eq!(store.publish(0).expect("second").payload, payload);
        assert_eq!(store.publish(1).expect("third").payload, payload);
        assert_eq!(store.publish(2).expect("fourth").payload, other);
    }

    #[test]
    fn only_what_is_due_is_given_up() {
        let mut store = Store::new();
        store.push(token(1), &publication(b"x", Qos::AtLeastOnce)).expect("empty");
        store.on_written(0);
        assert_eq!(store.abandon_first(Slot::CONTROL), None, "its acknowledgement may come");
        assert_eq!(store.len(), 1);
        store.on_stream_lost(Slot::CONTROL);
        assert_eq!(store.abandon_first(Slot::CONTROL), Some(token(1)));
        assert_eq!((store.len(), store.has_due()), (0, false));
    }

    #[test]
    fn a_publication_larger_than_the_store_never_fits() {
        let payload = [0; STORE_BYTES];
        let result = Store::new().push(token(1), &publication(&payload, Qos::AtLeastOnce));
        assert_eq!(result, Err(RequestError::TooLarge));
    }

    #[test]
    fn pubrec_frees_the_payload_and_pubcomp_the_identifier() {
        let mut store = Store::new();
        store.push(token(1), &publication(b"x", Qos::ExactlyOnce)).expect("empty");
        assert!(!store.on_received(token(1)), "not yet published");
        store.on_written(0);
        assert!(store.on_received(token(1)));
        assert_eq!(store.bytes(), 0);
        assert!(!store.on_complete(token(1), Qos::ExactlyOnce, Phase::Released), "PUBREL is not yet sent");
        store.on_written(0);
        assert!(store.on_complete(token(1), Qos::ExactlyOnce, Phase::Released));
        assert!(!store.has_due() && !store.contains(token(1)));
    }

    #[test]
    fn a_lost_stream_makes_everything_due_and_marks_duplicates() {
        let mut store = Store::new();
        store.push(token(1), &publication(b"a", Qos::AtLeastOnce)).expect("empty");
        store.push(token(2), &publication(b"b", Qos::ExactlyOnce)).expect("room");
        store.push(token(3), &publication(b"c", Qos::AtLeastOnce)).expect("room");
        store.on_written(0);
        store.on_written(1);
        assert!(store.on_received(token(2)));
        store.on_written(1);
        store.on_stream_lost(Slot::CONTROL);
        assert_eq!(store.entry(0).map(|entry| entry.phase), Some(Phase::PublishDue));
        assert_eq!(store.entry(1).map(|entry| entry.phase), Some(Phase::PubrelDue));
        assert_eq!(store.publish(0).map(|publish| publish.duplicate), Some(Duplicate::Yes));
        assert_eq!(store.publish(2).map(|publish| publish.duplicate), Some(Duplicate::No));
        assert_eq!(store.due, 3);
        assert_eq!(store.on_session_lost(Slot::CONTROL), 1);
        assert_eq!(store.publish(0).map(|publish| publish.duplicate), Some(Duplicate::No));
        assert_eq!(store.take_released(Slot::CONTROL), Some(token(2)));
        assert_eq!(store.take_released(Slot::CONTROL), None);
    }
}
