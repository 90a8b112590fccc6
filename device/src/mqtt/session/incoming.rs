//! Received QoS 1 and 2 messages: which acknowledgements are owed, and which identifiers are known (4.3).

use heapless::Vec;

use super::{Slot, Token};
use crate::mqtt::ReasonCode;
use crate::mqtt::packet::AckKind;

/// The table, shared by all streams.
const ENTRIES: usize = 32;

/// QoS 1 and 2 messages the server may have in flight to us on each of `streams`; announced as receive maximum. EMQX keeps
/// count for each stream by itself, so none gets more than its share of the table. One share more is for identifiers that
/// the control stream's session knows from an earlier connection, which count towards no maximum.
pub(super) const fn receive_maximum(streams: usize) -> u8 {
    (ENTRIES / (streams + 1)) as u8
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// QoS 1: PUBACK is to be written; nothing is remembered after.
    PubackDue,
    /// QoS 2: PUBREC is to be written.
    PubrecDue,
    /// QoS 2: the identifier is known until PUBREL.
    Known,
    /// The same, from an earlier connection: unless the message is repeated, it is not in flight on this one.
    KnownBefore,
    /// QoS 2: PUBCOMP is to be written; nothing is remembered after.
    PubcompDue(ReasonCode),
    /// PUBREC came for a publication that is not known: PUBREL is to be written, to end the matter.
    StrayPubrelDue,
}

impl State {
    /// Whether the identifier is a QoS 2 message's that was delivered.
    const fn is_known(self) -> bool {
        matches!(self, Self::PubrecDue | Self::Known | Self::KnownBefore)
    }

    /// Whether something is to be written.
    const fn is_due(self) -> bool {
        !matches!(self, Self::Known | Self::KnownBefore)
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    token: Token,
    state: State,
}

/// What became of a received PUBLISH.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Accepted {
    /// It is new: deliver it.
    New,
    /// It was delivered before: acknowledge only.
    Repeated,
    /// There is no room.
    Overflow,
}

pub(super) struct Incoming {
    entries: Vec<Entry, ENTRIES>,
    due: u8,
}

impl Incoming {
    pub(super) const fn new() -> Self {
        Self { entries: Vec::new(), due: 0 }
    }

    pub(super) const fn has_due(&self) -> bool {
        self.due > 0
    }

    /// Whether another packet may be read: one more acknowledgement could be noted.
    ///
    /// What waits for room in a stream leaves the table by itself; what waits for the server does not, and is
    /// the server's fault.
    pub(super) fn has_room(&self) -> bool {
        !self.entries.is_full() || self.due == 0
    }

    /// Whether the server has more messages in flight on `slot` than it may: PUBACK and PUBREC are not written, or PUBREL
    /// has not come (3.3.4).
    pub(super) fn exceeds(&self, maximum: u8, slot: Slot) -> bool {
        let in_flight = |entry: &&Entry| {
            entry.token.slot == slot
                && matches!(entry.state, State::PubackDue | State::PubrecDue | State::Known)
        };
        self.entries.iter().filter(in_flight).count() > usize::from(maximum)
    }

    /// A QoS 1 message came.
    pub(super) fn on_at_least_once(&mut self, token: Token) -> Accepted {
        self.insert(token, State::PubackDue)
    }

    /// A QoS 2 message came.
    pub(super) fn on_exactly_once(&mut self, token: Token) -> Accepted {
        let known = self.entries.iter_mut().find(|entry| entry.token == token && entry.state.is_known());
        match known {
            Some(entry) => {
                if entry.state != State::PubrecDue {
                    entry.state = State::PubrecDue;
                    self.due += 1;
                }
                Accepted::Repeated
            }
            None => self.insert(token, State::PubrecDue),
        }
    }

    /// PUBREL came. False if there is no room for the answer.
    pub(super) fn on_release(&mut self, token: Token) -> bool {
        let known = self.entries.iter_mut().find(|entry| entry.token == token && entry.state.is_known());
        match known {
            Some(entry) => {
                if entry.state != State::PubrecDue {
                    self.due += 1;
                }
                entry.state = State::PubcompDue(ReasonCode::SUCCESS);
                true
            }
            None => {
                let state = State::PubcompDue(ReasonCode::PACKET_IDENTIFIER_NOT_FOUND);
                self.insert(token, state) == Accepted::New
            }
        }
    }

    /// PUBREC came for a publication that is not known. Without room for the answer there is none.
    pub(super) fn on_unknown_received(&mut self, token: Token) {
        self.insert(token, State::StrayPubrelDue);
    }

    fn insert(&mut self, token: Token, state: State) -> Accepted {
        if self.entries.push(Entry { token, state }).is_err() {
            return Accepted::Overflow;
        }
        self.due += 1;
        Accepted::New
    }

    /// The oldest acknowledgement owed on `slot`.
    pub(super) fn due(&self, slot: Slot) -> Option<(usize, Token, AckKind, ReasonCode)> {
        self.entries.iter().enumerate().filter(|(_, entry)| entry.token.slot == slot).find_map(
            |(index, entry)| {
                let (kind, reason) = match entry.state {
                    State::PubackDue => (AckKind::Puback, ReasonCode::SUCCESS),
                    State::PubrecDue => (AckKind::Pubrec, ReasonCode::SUCCESS),
                    State::PubcompDue(reason) => (AckKind::Pubcomp, reason),
                    State::StrayPubrelDue => (AckKind::Pubrel, ReasonCode::PACKET_IDENTIFIER_NOT_FOUND),
                    State::Known | State::KnownBefore => return None,
                };
                Some((index, entry.token, kind, reason))
            },
        )
    }

    /// The acknowledgement of entry `index` is written.
    pub(super) fn on_written(&mut self, index: usize) {
        let Some(entry) = self.entries.get_mut(index) else { return };
        match entry.state {
            State::Known | State::KnownBefore => return,
            State::PubrecDue => entry.state = State::Known,
            State::PubackDue | State::PubcompDue(_) | State::StrayPubrelDue => {
                self.entries.remove(index);
            }
        }
        self.due -= 1;
    }

    /// The connection is gone: the server repeats what it has no acknowledgement for. QoS 2 identifiers stay
    /// known.
    pub(super) fn on_connection_lost(&mut self) {
        self.entries.retain(|entry| entry.state.is_known());
        for entry in &mut self.entries {
            entry.state = State::KnownBefore;
        }
        self.due = 0;
    }

    /// The server forgot the session of `slot`.
    pub(super) fn on_session_lost(&mut self, slot: Slot) {
        self.entries.retain(|entry| entry.token.slot != slot);
        self.due = self.entries.iter().filter(|entry| entry.state.is_due()).count() as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::super::SLOTS;
    use super::*;
    use crate::mqtt::PacketId;

    fn token(id: u16) -> Token {
        Token { slot: Slot::CONTROL, id: PacketId::new(id).expect("not zero") }
    }

    fn next(incoming: &Incoming) -> Option<(AckKind, ReasonCode)> {
        incoming.due(Slot::CONTROL).map(|(_, _, kind, reason)| (kind, reason))
    }

    #[test]
    fn a_qos_2_message_is_new_once_until_it_is_released() {
        let mut incoming = Incoming::new();
        assert_eq!(incoming.on_exactly_once(token(1)), Accepted::New);
        incoming.on_written(0);
        assert_eq!(incoming.on_exactly_once(token(1)), Accepted::Repeated);
        assert_eq!(next(&incoming), Some((AckKind::Pubrec, ReasonCode::SUCCESS)));
        incoming.on_written(0);
        assert!(incoming.on_release(token(1)));
        assert_eq!(next(&incoming), Some((AckKind::Pubcomp, ReasonCode::SUCCESS)));
        incoming.on_written(0);
        assert!(!incoming.has_due());
        assert_eq!(incoming.on_exactly_once(token(1)), Accepted::New, "a new message may use it again");
    }

    #[test]
    fn releasing_an_unknown_identifier_is_answered_with_not_found() {
        let mut incoming = Incoming::new();
        assert!(incoming.on_release(token(9)));
        assert_eq!(next(&incoming), Some((AckKind::Pubcomp, ReasonCode::PACKET_IDENTIFIER_NOT_FOUND)));
    }

    #[test]
    fn identifiers_outlive_the_connection_but_not_the_session() {
        let mut incoming = Incoming::new();
        incoming.on_exactly_once(token(1));
        incoming.on_at_least_once(token(2));
        incoming.on_connection_lost();
        assert!(!incoming.has_due());
        assert_eq!(incoming.on_exactly_once(token(1)), Accepted::Repeated);
        incoming.on_session_lost(Slot::CONTROL);
        assert_eq!(incoming.on_exactly_once(token(1)), Accepted::New);
    }

    #[test]
    fn what_an_earlier_connection_left_is_not_in_flight_until_it_is_repeated() {
        let mut incoming = Incoming::new();
        let maximum = receive_maximum(1);
        for id in 1..=maximum.into() {
            incoming.on_exactly_once(token(id));
        }
        incoming.on_connection_lost();
        for id in 101..=100 + u16::from(maximum) {
            assert_eq!(incoming.on_exactly_once(token(id)), Accepted::New);
            assert!(!incoming.exceeds(maximum, Slot::CONTROL), "{id}");
        }
        assert_eq!(incoming.on_exactly_once(token(1)), Accepted::Repeated);
        assert!(incoming.exceeds(maximum, Slot::CONTROL));
    }

    #[test]
    fn every_stream_has_room_for_what_was_announced_beside_what_was_known_before() {
        for streams in 1..=SLOTS {
            let mut incoming = Incoming::new();
            let maximum = u16::from(receive_maximum(streams));
            assert!(maximum >= 6, "{streams} streams");
            for id in 1..=maximum {
                incoming.on_exactly_once(token(id));
            }
            incoming.on_connection_lost();
            for slot in Slot::all().take(streams) {
                for number in 101..=100 + maximum {
                    let accepted = incoming.on_exactly_once(Token { slot, ..token(number) });
                    assert_eq!(accepted, Accepted::New, "{number} on {slot:?} of {streams}");
                }
            }
        }
    }

    #[test]
    fn a_full_table_overflows() {
        let mut incoming = Incoming::new();
        for id in 1..=ENTRIES as u16 {
            assert_eq!(incoming.on_exactly_once(token(id)), Accepted::New);
            incoming.on_written(usize::from(id) - 1);
        }
        assert!(incoming.has_room(), "reading goes on, to see the PUBRELs");
        assert_eq!(incoming.on_exactly_once(token(999)), Accepted::Overflow);
    }
}
