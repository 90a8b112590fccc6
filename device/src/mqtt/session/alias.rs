//! Topic aliases (3.3.2.3.4): numbers that stand for topics, in each direction, for one connection.
//!
//! Both tables keep their topics in a byte arena. Outgoing aliases are given to the first topics that fit and
//! never changed: a firmware publishes to few topics. Incoming ones are the server's to change.

use super::Slot;

/// Aliases the server may use towards this client; announced as topic alias maximum.
pub(super) const INCOMING_MAX: u16 = 4;
/// Bytes for the topics of incoming aliases: four of 33 bytes.
const INCOMING_BYTES: usize = 144;
/// Aliases this client uses.
const OUTGOING_MAX: usize = 4;
/// Bytes for the topics of outgoing aliases: four of 32 bytes.
const OUTGOING_BYTES: usize = 128;

/// How a PUBLISH names its topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Naming {
    /// By its name only.
    Name,
    /// By name, and an alias for it is set.
    Define(u16),
    /// By an alias set before.
    Alias(u16),
}

pub(super) struct Outgoing {
    bytes: [u8; OUTGOING_BYTES],
    ends: heapless::Vec<u8, OUTGOING_MAX>,
}

impl Outgoing {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; OUTGOING_BYTES], ends: heapless::Vec::new() }
    }

    /// Aliases live as long as a connection.
    pub(super) fn clear(&mut self) {
        self.ends.clear();
    }

    /// How to name `topic` if the server allows aliases up to `maximum`.
    pub(super) fn name(&self, topic: &str, maximum: u16) -> Naming {
        let mut start = 0;
        for (index, &end) in self.ends.iter().enumerate() {
            let end = usize::from(end);
            if &self.bytes[start..end] == topic.as_bytes() {
                return Naming::Alias(index as u16 + 1);
            }
            start = end;
        }
        let next = self.ends.len() as u16 + 1;
        // An alias costs four bytes: it pays from a topic of that length on.
        let fits = topic.len() > 4 && start + topic.len() <= OUTGOING_BYTES;
        if fits && next <= maximum && usize::from(next) <= OUTGOING_MAX {
            Naming::Define(next)
        } else {
            Naming::Name
        }
    }

    /// The definition that [`Outgoing::name`] proposed for `topic` is written.
    pub(super) fn on_defined(&mut self, topic: &str) {
        let start = self.ends.last().map_or(0, |&end| usize::from(end));
        let end = start + topic.len();
        if end <= OUTGOING_BYTES && self.ends.push(end as u8).is_ok() {
            self.bytes[start..end].copy_from_slice(topic.as_bytes());
        }
    }
}

/// An incoming alias in the arena: slot, alias, length, topic.
pub(super) struct Incoming {
    bytes: [u8; INCOMING_BYTES],
    len: usize,
}

/// Slot, alias and length in front of each topic.
const HEAD: usize = 3;

/// The server uses an alias that it did not set, or one that did not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct UnknownAlias;

impl Incoming {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; INCOMING_BYTES], len: 0 }
    }

    /// Forgets the aliases of `slot`, whose stream is gone.
    pub(super) fn clear(&mut self, slot: Slot) {
        let mut position = 0;
        while position < self.len {
            if self.bytes[position] == slot.index() as u8 {
                self.remove(position);
            } else {
                position = self.next(position);
            }
        }
    }

    /// Sets `alias` on the stream of `slot`. False if the topic does not fit: the alias is then unknown.
    pub(super) fn define(&mut self, slot: Slot, alias: u16, topic: &str) -> bool {
        if let Some(position) = self.find(slot, alias) {
            if self.topic(position) == topic.as_bytes() {
                return true;
            }
            self.remove(position);
        }
        let end = self.len + HEAD + topic.len();
        let (Ok(alias), Ok(len)) = (u8::try_from(alias), u8::try_from(topic.len())) else {
            return false;
        };
        if end > INCOMING_BYTES {
            return false;
        }
        self.bytes[self.len..self.len + HEAD].copy_from_slice(&[slot.index() as u8, alias, len]);
        self.bytes[self.len + HEAD..end].copy_from_slice(topic.as_bytes());
        self.len = end;
        true
    }

    /// The topic of `alias` on the stream of `slot`.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn resolve(&self, slot: Slot, alias: u16) -> Result<&str, UnknownAlias> {
        let position = self.find(slot, alias).ok_or(UnknownAlias)?;
        core::str::from_utf8(self.topic(position)).map_err(|_| UnknownAlias)
    }

    fn find(&self, slot: Slot, alias: u16) -> Option<usize> {
        let mut position = 0;
        while position < self.len {
            let head = &self.bytes[position..position + HEAD];
            if head[0] == slot.index() as u8 && u16::from(head[1]) == alias {
                return Some(position);
            }
            position = self.next(position);
        }
        None
    }

    fn next(&self, position: usize) -> usize {
        position + HEAD + usize::from(self.bytes[position + HEAD - 1])
    }

    fn topic(&self, position: usize) -> &[u8] {
        &self.bytes[position + HEAD..self.next(position)]
    }

    fn remove(&mut self, position: usize) {
        let next = self.next(position);
        self.bytes.copy_within(next..self.len, position);
        self.len -= next - position;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_named_once_and_then_by_its_alias() {
        let mut outgoing = Outgoing::new();
        assert_eq!(outgoing.name("sensor/1", 2), Naming::Define(1));
        outgoing.on_defined("sensor/1");
        assert_eq!(outgoing.name("sensor/1", 2), Naming::Alias(1));
        assert_eq!(outgoing.name("sensor/2", 2), Naming::Define(2));
        outgoing.on_defined("sensor/2");
        assert_eq!(outgoing.name("sensor/3", 2), Naming::Name, "the server allows two");
        assert_eq!(outgoing.name("sensor/2", 2), Naming::Alias(2));
        outgoing.clear();
        assert_eq!(outgoing.name("sensor/2", 2), Naming::Define(1));
        assert_eq!(outgoing.name("sensor/2", 0), Naming::Name);
        assert_eq!(outgoing.name("abcd", 2), Naming::Name, "too short to pay");
    }

    #[test]
    fn incoming_aliases_belong_to_their_stream_and_may_change() {
        let data = Slot::new(1).expect("there are data slots");
        let mut incoming = Incoming::new();
        assert!(incoming.define(Slot::CONTROL, 1, "a"));
        assert!(incoming.define(data, 1, "b"));
        assert!(incoming.define(Slot::CONTROL, 2, "c"));
        assert!(incoming.define(Slot::CONTROL, 1, "longer"));
        assert_eq!(incoming.resolve(Slot::CONTROL, 1), Ok("longer"));
        assert_eq!(incoming.resolve(data, 1), Ok("b"));
        assert_eq!(incoming.resolve(data, 2), Err(UnknownAlias));
        incoming.clear(Slot::CONTROL);
        assert_eq!(incoming.resolve(Slot::CONTROL, 2), Err(UnknownAlias));
        assert_eq!(incoming.resolve(data, 1), Ok("b"));
    }

    #[test]
    fn a_topic_that_does_not_fit_leaves_the_alias_unknown() {
        let mut incoming = Incoming::new();
        assert!(incoming.define(Slot::CONTROL, 1, "old"));
        assert!(!incoming.define(Slot::CONTROL, 1, &"x".repeat(142)));
        assert_eq!(incoming.resolve(Slot::CONTROL, 1), Err(UnknownAlias));
    }
}
