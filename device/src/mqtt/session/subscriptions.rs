//! Subscriptions and the requests about them, remembered so that they can be renewed (3.8-3.11).
//!
//! One record per filter and slot stands in a byte arena, in the order of request:
//!
//! ```text
//! Length (1 byte), Slot (1), Options (1), State (1), Packet Identifier (2), Filter
//! ```
//!
//! The records of one request share its packet identifier. A request is written when its stream has
//! room, and again after a reconnect, so it is never half-written and never lost.

use super::{RequestError, Slot, Token};
use crate::mqtt::{Filter, PacketId, topic};

/// Bytes for all records: eight filters of 32 bytes.
pub(super) const BYTES: usize = 320;

/// Longest filter in bytes.
const FILTER_MAX: usize = 200;

/// Among the options of a record that no subscription stands behind: one is being asked for, or an UNSUBSCRIBE asks for its
/// end all the same.
const UNKNOWN: u8 = 1 << 7;

const HEAD: usize = 6;
const SLOT: usize = 1;
const OPTIONS: usize = 2;
const STATE: usize = 3;
const ID: usize = 4;

/// Where a record stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum State {
    /// SUBSCRIBE is to be written.
    SubscribeDue,
    /// SUBSCRIBE is written.
    Subscribing,
    /// The server granted it.
    Granted,
    /// UNSUBSCRIBE is to be written.
    UnsubscribeDue,
    /// UNSUBSCRIBE is written.
    Unsubscribing,
}

impl State {
    const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::SubscribeDue,
            1 => Self::Subscribing,
            2 => Self::Granted,
            3 => Self::UnsubscribeDue,
            _ => Self::Unsubscribing,
        }
    }
}

/// What an answer says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Codes<'a> {
    /// One reason code for each filter, in their order.
    Each(&'a [u8]),
    /// The same for all.
    All(u8),
}

#[derive(Clone, Copy, Debug)]
struct Record {
    position: usize,
    len: usize,
    token: Token,
    options: u8,
    state: State,
}

#[derive(Clone)]
pub(super) struct Subscriptions {
    bytes: [u8; BYTES],
    len: usize,
    due: u8,
}

impl Subscriptions {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; BYTES], len: 0, due: 0 }
    }

    /// Bytes in use.
    pub(super) const fn bytes(&self) -> usize {
        self.len
    }

    pub(super) const fn has_due(&self) -> bool {
        self.due > 0
    }

    /// Whether `token` belongs to a request without an answer.
    pub(super) fn contains(&self, token: Token) -> bool {
        self.records().any(|record| record.token == token && record.state != State::Granted)
    }

    /// Notes a SUBSCRIBE. A filter that is subscribed to already gets the new options.
    ///
    /// # Errors
    /// `FilterInvalid`, also for a filter that is named twice, or `Full` without room or while an earlier request about a
    /// filter is unanswered.
    pub(super) fn subscribe(&mut self, token: Token, filters: &[Filter<'_>]) -> Result<(), RequestError> {
        if filters.iter().any(|filter| filter.no_local && filter.filter.starts_with("$share/")) {
            return Err(RequestError::FilterInvalid);
        }
        let request = |index| {
            let filter: &Filter<'_> = filters.get(index)?;
            Some((filter.filter, filter.options(crate::mqtt::Version::V5)))
        };
        self.request(token, &request, State::SubscribeDue)
    }

    /// Notes an UNSUBSCRIBE.
    ///
    /// # Errors
    /// As for [`Self::subscribe`].
    pub(super) fn unsubscribe(&mut self, token: Token, filters: &[&str]) -> Result<(), RequestError> {
        let request = |index| filters.get(index).map(|filter: &&str| (*filter, UNKNOWN));
        self.request(token, &request, State::UnsubscribeDue)
    }

    /// `request` gives the filters and their options by their place.
    fn request<'f>(
        &mut self,
        token: Token,
        request: &dyn Fn(usize) -> Option<(&'f str, u8)>,
        state: State,
    ) -> Result<(), RequestError> {
        let requests = || (0..).map_while(request);
        let is_valid = |filter: &str| topic::is_topic_filter(filter) && filter.len() <= FILTER_MAX;
        if request(0).is_none() || !requests().all(|(filter, _)| is_valid(filter)) {
            return Err(RequestError::FilterInvalid);
        }
        let mut needed = 0;
        for (filter, _) in requests() {
            // One code answers each, and there is one record to keep it in.
            if requests().filter(|(other, _)| *other == filter).count() > 1 {
                return Err(RequestError::FilterInvalid);
            }
            match self.find(token.slot, filter) {
                Some(record) if record.state != State::Granted => return Err(RequestError::Full),
                Some(_) => {}
                None => needed += HEAD + filter.len(),
            }
        }
        if self.len + needed > BYTES {
            return Err(RequestError::Full);
        }
        for (filter, mut options) in requests() {
            // Behind the others even if it is there already: the codes come in the order of the request.
            if let Some(record) = self.find(token.slot, filter) {
                self.remove(record.position);
                if options == UNKNOWN {
                    options = record.options;
                }
            } else {
                options |= UNKNOWN;
            }
            let position = self.append(filter);
            let [high, low] = token.id.value().to_be_bytes();
            let head = &mut self.bytes[position..position + HEAD];
            head[SLOT..].copy_from_slice(&[token.slot.index() as u8, options, state as u8, high, low]);
        }
        self.count_due();
        Ok(())
    }

    /// Appends the filter behind a head to be filled; the room was checked.
    fn append(&mut self, filter: &str) -> usize {
        let position = self.len;
        self.len = position + HEAD + filter.len();
        self.bytes[position] = filter.len() as u8;
        self.bytes[position + HEAD..self.len].copy_from_slice(filter.as_bytes());
        position
    }

    /// The first request to be written on `slot`, and whether it is UNSUBSCRIBE.
    pub(super) fn due(&self, slot: Slot) -> Option<(Token, State)> {
        self.records()
            .find(|record| {
                record.token.slot == slot
                    && matches!(record.state, State::SubscribeDue | State::UnsubscribeDue)
            })
            .map(|record| (record.token, record.state))
    }

    /// The filters of the request `token` in `state`, in their order.
    pub(super) fn filters(&self, token: Token, state: State) -> impl Iterator<Item = Filter<'_>> {
        self.records()
            .filter(move |record| record.token == token && record.state == state)
            .filter_map(|record| Filter::from_options(self.filter(&record), record.options & !UNKNOWN).ok())
    }

    /// The request is written.
    pub(super) fn on_written(&mut self, token: Token, state: State) {
        let next = match state {
            State::SubscribeDue => State::Subscribing,
            _ => State::Unsubscribing,
        };
        self.change(|record| (record.token == token && record.state == state).then_some(next));
    }

    /// SUBACK came, or UNSUBACK for a request that is [`State::Unsubscribing`]: filters refused are forgotten, those not
    /// let go are kept. False if the codes do not answer an open request.
    ///
    /// Or the request cannot be written: what it was to subscribe to anew is forgotten. What is subscribed to already is
    /// asked for once more without that, as the server may have lost it with its session.
    pub(super) fn on_answer(&mut self, token: Token, state: State, codes: Codes<'_>) -> bool {
        let asked = |record: &Record| record.token == token && record.state == state;
        let count = self.records().filter(asked).count();
        if count == 0 || matches!(codes, Codes::Each(codes) if codes.len() != count) {
            return false;
        }
        let mut index = 0;
        let mut position = 0;
        while let Some(record) = self.record(position) {
            let mut is_left = true;
            if asked(&record) {
                let code = match codes {
                    Codes::Each(codes) => codes.get(index).copied().unwrap_or_default(),
                    Codes::All(code) => code,
                };
                index += 1;
                is_left = match state {
                    State::Subscribing => code < 0x80,
                    _ => code >= 0x80 && record.options & UNKNOWN == 0,
                };
            }
            if is_left {
                if asked(&record) {
                    if state == State::SubscribeDue {
                        self.bytes[position + OPTIONS] |= UNKNOWN;
                    } else {
                        self.bytes[position + OPTIONS] &= !UNKNOWN;
                        self.bytes[position + STATE] = State::Granted as u8;
                    }
                }
                position += record.len;
            } else {
                self.remove(position);
            }
        }
        self.count_due();
        true
    }

    /// The stream of `slot` is gone: requests without an answer are due again.
    pub(super) fn on_stream_lost(&mut self, slot: Slot) {
        self.change(|record| match record.state {
            _ if record.token.slot != slot => None,
            State::Subscribing => Some(State::SubscribeDue),
            State::Unsubscribing => Some(State::UnsubscribeDue),
            _ => None,
        });
    }

    /// Whether anything is granted on `slot`.
    pub(super) fn has_granted(&self, slot: Slot) -> bool {
        self.records().any(|record| record.token.slot == slot && record.state == State::Granted)
    }

    /// The server forgot what was granted on a slot: one filter of it is asked for again, as the request `token`.
    ///
    /// Each by itself: a packet with all of them might be larger than the server takes.
    pub(super) fn renew(&mut self, token: Token) {
        let granted = |record: &Record| record.token.slot == token.slot && record.state == State::Granted;
        let Some(Record { position, .. }) = self.records().find(granted) else { return };
        self.bytes[position + OPTIONS] |= UNKNOWN;
        self.bytes[position + STATE] = State::SubscribeDue as u8;
        self.bytes[position + ID..position + HEAD].copy_from_slice(&token.id.value().to_be_bytes());
        self.count_due();
    }

    fn change(&mut self, next: impl Fn(&Record) -> Option<State>) {
        let mut position = 0;
        while let Some(record) = self.record(position) {
            if let Some(state) = next(&record) {
                self.bytes[position + STATE] = state as u8;
            }
            position += record.len;
        }
        self.count_due();
    }

    fn count_due(&mut self) {
        let due = |record: &Record| matches!(record.state, State::SubscribeDue | State::UnsubscribeDue);
        self.due = self.records().filter(due).count() as u8;
    }

    fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let mut position = 0;
        core::iter::from_fn(move || {
            let record = self.record(position)?;
            position += record.len;
            Some(record)
        })
    }

    fn record(&self, position: usize) -> Option<Record> {
        if position >= self.len {
            return None;
        }
        let head = &self.bytes[position..position + HEAD];
        Some(Record {
            position,
            len: HEAD + usize::from(head[0]),
            token: Token {
                slot: Slot::new(usize::from(head[SLOT]))?,
                id: PacketId::new(u16::from_be_bytes([head[ID], head[ID + 1]]))?,
            },
            options: head[OPTIONS],
            state: State::from_byte(head[STATE]),
        })
    }

    fn filter(&self, record: &Record) -> &str {
        let bytes = &self.bytes[record.position + HEAD..record.position + record.len];
        core::str::from_utf8(bytes).unwrap_or_default()
    }

    fn find(&self, slot: Slot, filter: &str) -> Option<Record> {
        self.records().find(|record| record.token.slot == slot && self.filter(record) == filter)
    }

    fn remove(&mut self, position: usize) {
        if let Some(record) = self.record(position) {
            self.bytes.copy_within(position + record.len..self.len, position);
            self.len -= record.len;
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::mqtt::Qos;
    use std::vec::Vec;

    fn token(id: u16) -> Token {
        Token { slot: Slot::CONTROL, id: PacketId::new(id).expect("not zero") }
    }

    fn names(subscriptions: &Subscriptions, id: u16, state: State) -> Vec<&str> {
        subscriptions.filters(token(id), state).map(|filter| filter.filter).collect()
    }

    fn answer(subscriptions: &mut Subscriptions, id: u16, state: State, codes: &[u8]) -> bool {
        subscriptions.on_answer(token(id), state, Codes::Each(codes))
    }

    #[test]
    fn granted_filters_are_renewed_and_refused_ones_forgotten() {
        let mut subscriptions = Subscriptions::new();
        let filters = [
            Filter::new("a/+", Qos::AtLeastOnce),
            Filter::new("b", Qos::AtMostOnce),
            Filter::new("c", Qos::ExactlyOnce),
        ];
        subscriptions.subscribe(token(1), &filters).expect("room");
        assert_eq!(subscriptions.due(Slot::CONTROL), Some((token(1), State::SubscribeDue)));
        subscriptions.on_written(token(1), State::SubscribeDue);
        assert!(!subscriptions.has_due());
        assert!(!answer(&mut subscriptions, 1, State::Subscribing, &[0, 0]), "one code is missing");
        assert!(answer(&mut subscriptions, 1, State::Subscribing, &[1, 0x87, 2]));
        assert!(!subscriptions.contains(token(1)), "the identifier is free again");
        subscriptions.renew(token(7));
        subscriptions.renew(token(8));
        assert!(!subscriptions.has_granted(Slot::CONTROL));
        assert_eq!(names(&subscriptions, 7, State::SubscribeDue), ["a/+"]);
        assert_eq!(names(&subscriptions, 8, State::SubscribeDue), ["c"]);
    }

    #[test]
    fn unsubscribing_forgets_the_record() {
        let mut subscriptions = Subscriptions::new();
        subscriptions.subscribe(token(1), &[Filter::new("a", Qos::AtMostOnce)]).expect("room");
        assert_eq!(subscriptions.unsubscribe(token(2), &["a"]), Err(RequestError::Full), "unanswered");
        subscriptions.on_written(token(1), State::SubscribeDue);
        assert!(answer(&mut subscriptions, 1, State::Subscribing, &[0]));
        subscriptions.unsubscribe(token(2), &["a", "unknown"]).expect("room");
        subscriptions.on_written(token(2), State::UnsubscribeDue);
        assert!(!answer(&mut subscriptions, 2, State::Unsubscribing, &[0]), "one code is missing");
        assert!(answer(&mut subscriptions, 2, State::Unsubscribing, &[0, 0x11]));
        assert!(!answer(&mut subscriptions, 2, State::Unsubscribing, &[0, 0x11]));
        assert_eq!(subscriptions.bytes(), 0);
    }

    #[test]
    fn a_subscription_that_the_server_does_not_let_go_is_kept_with_its_options() {
        let mut subscriptions = Subscriptions::new();
        let filter = Filter { no_local: true, ..Filter::new("a", Qos::ExactlyOnce) };
        subscriptions.subscribe(token(1), &[filter]).expect("room");
        subscriptions.on_written(token(1), State::SubscribeDue);
        assert!(answer(&mut subscriptions, 1, State::Subscribing, &[2]));
        subscriptions.unsubscribe(token(2), &["unknown", "a"]).expect("room");
        assert_eq!(names(&subscriptions, 2, State::UnsubscribeDue), ["unknown", "a"]);
        subscriptions.on_written(token(2), State::UnsubscribeDue);
        assert!(answer(&mut subscriptions, 2, State::Unsubscribing, &[0x87, 0x87]));
        subscriptions.renew(token(3));
        assert!(!subscriptions.has_granted(Slot::CONTROL), "what never was one is none");
        let renewed: Vec<_> = subscriptions.filters(token(3), State::SubscribeDue).collect();
        assert_eq!(renewed, [filter]);
    }

    #[test]
    fn filters_keep_the_order_of_the_request_though_one_is_known() {
        let mut subscriptions = Subscriptions::new();
        subscriptions.subscribe(token(1), &[Filter::new("a", Qos::AtLeastOnce)]).expect("room");
        subscriptions.on_written(token(1), State::SubscribeDue);
        assert!(answer(&mut subscriptions, 1, State::Subscribing, &[1]));
        let both = [Filter::new("b", Qos::AtLeastOnce), Filter::new("a", Qos::AtLeastOnce)];
        subscriptions.subscribe(token(2), &both).expect("room");
        assert_eq!(names(&subscriptions, 2, State::SubscribeDue), ["b", "a"]);
        subscriptions.on_written(token(2), State::SubscribeDue);
        assert!(answer(&mut subscriptions, 2, State::Subscribing, &[0x87, 1]));
        subscriptions.renew(token(3));
        assert_eq!(names(&subscriptions, 3, State::SubscribeDue), ["a"]);
    }

    #[test]
    fn a_request_that_does_not_fit_leaves_nothing_behind() {
        let mut subscriptions = Subscriptions::new();
        let long = "x".repeat(120);
        let other = "y".repeat(120);
        subscriptions.subscribe(token(1), &[Filter::new(&long, Qos::AtMostOnce)]).expect("room");
        let bytes = subscriptions.bytes();
        let two = [Filter::new("short", Qos::AtMostOnce), Filter::new(&other, Qos::AtMostOnce)];
        subscriptions.subscribe(token(2), &two).expect("room for both");
        let third = [Filter::new("z", Qos::AtMostOnce), Filter::new(&long[1..], Qos::AtMostOnce)];
        assert_eq!(subscriptions.subscribe(token(3), &third), Err(RequestError::Full));
        assert_eq!(names(&subscriptions, 3, State::SubscribeDue).len(), 0);
        assert_eq!(subscriptions.bytes(), bytes + 2 * HEAD + 5 + 120);
    }

    #[test]
    fn invalid_filters_are_refused() {
        let mut subscriptions = Subscriptions::new();
        assert_eq!(subscriptions.subscribe(token(1), &[]), Err(RequestError::FilterInvalid));
        let bad = [Filter::new("a#", Qos::AtMostOnce)];
        assert_eq!(subscriptions.subscribe(token(1), &bad), Err(RequestError::FilterInvalid));
        let twice = [Filter::new("a", Qos::AtMostOnce), Filter::new("a", Qos::AtLeastOnce)];
        assert_eq!(subscriptions.subscribe(token(1), &twice), Err(RequestError::FilterInvalid));
        assert_eq!(subscriptions.unsubscribe(token(1), &["a", "a"]), Err(RequestError::FilterInvalid));
        let shared = [Filter { no_local: true, ..Filter::new("$share/g/a", Qos::AtMostOnce) }];
        assert_eq!(subscriptions.subscribe(token(1), &shared), Err(RequestError::FilterInvalid));
    }

    #[test]
    fn a_lost_stream_makes_unanswered_requests_due() {
        let mut subscriptions = Subscriptions::new();
        subscriptions.subscribe(token(1), &[Filter::new("a", Qos::AtMostOnce)]).expect("room");
        subscriptions.on_written(token(1), State::SubscribeDue);
        subscriptions.on_stream_lost(Slot::CONTROL);
        assert_eq!(subscriptions.due(Slot::CONTROL), Some((token(1), State::SubscribeDue)));
        assert!(!subscriptions.has_granted(Slot::CONTROL));
    }
}
