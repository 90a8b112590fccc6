//! Writing: what is due out of the tables, into streams with room.

use super::alias::Naming;
use super::store::Phase;
use super::subscriptions::{self, Codes, State as RequestState, Subscriptions};
use super::{
    BeginError, Excess, Notice, Options, PacketBuffer, Publication, Replay, RequestError, Session, Slot,
    State, Streams, TOPIC_MAX, TX_PACKET_MAX, Token,
};
use crate::codec::{NoSpace, Writer};
use crate::mqtt::packet::{
    Ack, AckKind, Connect, Delivery, PINGREQ, Place, Properties, Property, Publish, Subscribe, Unsubscribe,
};
use crate::mqtt::{Duplicate, Filter, Qos, ReasonCode, Retain, Version, topic};
use crate::time::{Duration, Instant};

/// Properties of CONNECT: four of the session's, the rest the caller's.
const CONNECT_PROPERTIES_MAX: usize = 12;

/// Everything in front of a PUBLISH's payload: topic, identifier, and properties up to 128 bytes.
const HEAD_MAX: usize = TOPIC_MAX + 128 + 16;

/// Stands in where only the size matters.
const LONGEST_ALIAS: Option<u16> = Some(u16::MAX);

/// SUBSCRIBE of all filters that the table holds.
const REQUEST_MAX: usize = subscriptions::BYTES + 8;

impl Session {
    pub(super) fn write_connect(
        &mut self,
        options: &Options<'_>,
        streams: &mut dyn Streams,
        rx: &mut PacketBuffer,
    ) -> Result<(), BeginError> {
        check_connect(options, rx).map_err(BeginError::Options)?;
        let mut list = heapless::Vec::<Property<'_>, CONNECT_PROPERTIES_MAX>::new();
        let own = [
            Property::SessionExpiryInterval(options.session_expiry_s),
            Property::ReceiveMaximum(self.receive_maximum.into()),
            Property::MaximumPacketSize(self.packet_max.into()),
            Property::TopicAliasMaximum(super::alias::INCOMING_MAX),
        ];
        for property in own.into_iter().chain(options.properties.iter()) {
            list.push(property).map_err(|_| BeginError::Options("connect.properties"))?;
        }
        let connect = Connect {
            version: options.version,
            clean_start: self.is_fresh,
            keep_alive_s: options.keep_alive_s,
            properties: Properties::of(&list),
            client_id: options.client_id,
            will: options.will,
            user_name: options.user_name,
            password: options.password,
        };
        // Nothing is read before CONNECT is written, so the buffer is free.
        let mut w = Writer::new(rx);
        connect.encode(&mut w).map_err(|_| BeginError::Options("fixed_header.remaining_length"))?;
        if streams.writable(Slot::CONTROL) < w.len() {
            return Err(BeginError::Blocked);
        }
        streams.write(Slot::CONTROL, w.written(), &[]);
        Ok(())
    }

    /// Takes a publication: QoS 0 is written now, QoS 1 and 2 are stored and written as soon as possible.
    ///
    /// # Errors
    /// [`RequestError`]; nothing is stored or written then. QoS 0 that finds its data stream not open has it opened, for
    /// the next attempt.
    pub fn publish(
        &mut self,
        now: Instant,
        options: &Options<'_>,
        publication: &Publication<'_>,
        streams: &mut dyn Streams,
    ) -> Result<Option<Token>, RequestError> {
        let slot = publication.slot;
        self.check_slot(slot, streams.count())?;
        self.check(options.version, publication)?;
        if publication.qos == Qos::AtMostOnce {
            return self.publish_now(now, options.version, publication, streams).map(|()| None);
        }
        self.check_fits(options.version, publication)?;
        let token = self.allocate(slot);
        if let Err(error) = self.store.push(token, publication) {
            self.stats.refused_full += u32::from(error == RequestError::Full);
            return Err(error);
        }
        self.open_stream(slot);
        self.stats.store_bytes_max = self.stats.store_bytes_max.max(self.store.bytes() as u32);
        self.stats.store_count_max = self.stats.store_count_max.max(self.store.len() as u32);
        Ok(Some(token))
    }

    /// Whether anything can be sent on the stream of `slot`, of `count` that there may be.
    fn check_slot(&self, slot: Slot, count: usize) -> Result<(), RequestError> {
        if slot.index() >= count {
            return Err(RequestError::StreamInvalid);
        }
        if self.slots[slot.index()].is_refused() { Err(RequestError::StreamRefused) } else { Ok(()) }
    }

    fn check(&self, version: Version, publication: &Publication<'_>) -> Result<(), RequestError> {
        if publication.topic.len() > TOPIC_MAX || !topic::is_topic_name(publication.topic) {
            return Err(RequestError::TopicInvalid);
        }
        if !publication.properties.is_empty() {
            check_properties(version, publication.properties)?;
        }
        if self.state == State::Open {
            self.check_limits(publication.qos, publication.retain)?;
        }
        if publication.payload.len() > TX_PACKET_MAX {
            return Err(RequestError::TooLarge);
        }
        Ok(())
    }

    /// Encoded once with its topic and an alias for it, its longest form, so that nothing is stored that cannot
    /// be sent.
    fn check_fits(&self, version: Version, publication: &Publication<'_>) -> Result<(), RequestError> {
        let mut head = [0; HEAD_MAX];
        let mut w = Writer::new(&mut head);
        let encoded = self.packet_of(publication).encode_head(version, LONGEST_ALIAS, &mut w);
        let len = w.len() + publication.payload.len();
        let fits = encoded.is_ok() && len <= TX_PACKET_MAX && len as u64 <= self.maximum_packet_size();
        if fits { Ok(()) } else { Err(RequestError::TooLarge) }
    }

    fn maximum_packet_size(&self) -> u64 {
        self.limits.maximum_packet_size.into()
    }

    fn check_limits(&self, qos: Qos, retain: Retain) -> Result<(), RequestError> {
        if qos > self.limits.maximum_qos {
            return Err(RequestError::QosNotSupported);
        }
        if retain == Retain::Yes && !self.limits.retains {
            return Err(RequestError::RetainNotSupported);
        }
        Ok(())
    }

    fn packet_of<'p>(&self, publication: &Publication<'p>) -> Publish<'p> {
        Publish {
            duplicate: Duplicate::No,
            delivery: match publication.qos {
                Qos::AtMostOnce => Delivery::AtMostOnce,
                // Any identifier: only the size matters.
                _ => Delivery::AtLeastOnce(super::FIRST_ID),
            },
            retain: publication.retain,
            topic: publication.topic,
            properties: publication.properties,
            payload: publication.payload,
        }
    }

    fn publish_now(
        &mut self,
        now: Instant,
        version: Version,
        publication: &Publication<'_>,
        streams: &mut dyn Streams,
    ) -> Result<(), RequestError> {
        let slot = publication.slot;
        self.open_stream(slot);
        let may_write = match self.state {
            State::Open => true,
            State::Connecting(replay) => replay == Replay::Safe && publication.replay == Replay::Safe,
            State::Closed => false,
        };
        if !may_write || !self.slots[slot.index()].is_open {
            return Err(RequestError::NotConnected);
        }
        let naming = self.naming(slot, publication.topic);
        let maximum = self.maximum_packet_size().min(TX_PACKET_MAX as u64) as usize;
        let written = put_publish(self.packet_of(publication), naming, version, maximum, slot, streams);
        if let Err(error) = written {
            self.stats.refused_full += u32::from(error == RequestError::Full);
            return Err(error);
        }
        self.on_publish_written(now, slot, naming, publication.topic, Qos::AtMostOnce, Duplicate::No);
        Ok(())
    }

    /// Aliases are used on the control stream only: whether EMQX keeps them apart on data streams is not
    /// specified.
    fn naming(&self, slot: Slot, topic: &str) -> Naming {
        if slot != Slot::CONTROL || self.limits.topic_alias_maximum == 0 {
            return Naming::Name;
        }
        self.aliases_out.name(topic, self.limits.topic_alias_maximum)
    }

    fn on_publish_written(
        &mut self,
        now: Instant,
        slot: Slot,
        naming: Naming,
        topic: &str,
        qos: Qos,
        duplicate: Duplicate,
    ) {
        if let Naming::Define(_) = naming {
            self.aliases_out.on_defined(topic);
        }
        self.on_sent(now, slot);
        self.stats.publishes_sent[usize::from(qos.bits())] += 1;
        if duplicate == Duplicate::Yes {
            self.stats.publishes_resent += 1;
        }
    }

    /// Only the control stream counts for keep alive: brokers differ on the others.
    fn on_sent(&mut self, now: Instant, slot: Slot) {
        if slot == Slot::CONTROL {
            self.last_sent = now;
        }
    }

    /// Subscribes to `filters` on the stream of `slot`.
    ///
    /// # Errors
    /// [`RequestError`]; nothing is noted then.
    pub fn subscribe(
        &mut self,
        slot: Slot,
        filters: &[Filter<'_>],
        streams: &dyn Streams,
    ) -> Result<Token, RequestError> {
        self.check_slot(slot, streams.count())?;
        let token = self.allocate(slot);
        let before = self.subscriptions.clone();
        self.subscriptions.subscribe(token, filters)?;
        self.on_request(token, RequestState::SubscribeDue, &before)
    }

    /// Ends the subscriptions to `filters` on the stream of `slot`.
    ///
    /// # Errors
    /// [`RequestError`]; nothing is noted then.
    pub fn unsubscribe(
        &mut self,
        slot: Slot,
        filters: &[&str],
        streams: &dyn Streams,
    ) -> Result<Token, RequestError> {
        self.check_slot(slot, streams.count())?;
        let token = self.allocate(slot);
        let before = self.subscriptions.clone();
        self.subscriptions.unsubscribe(token, filters)?;
        self.on_request(token, RequestState::UnsubscribeDue, &before)
    }

    /// The request is noted. If this server cannot take it, everything is as `before`.
    fn on_request(
        &mut self,
        token: Token,
        state: RequestState,
        before: &Subscriptions,
    ) -> Result<Token, RequestError> {
        if self.state == State::Open
            && let Err(error) = self.encode_request(token, state, &mut Writer::new(&mut [0; REQUEST_MAX]))
        {
            self.subscriptions.clone_from(before);
            return Err(error);
        }
        self.open_stream(token.slot);
        self.stats.subscription_bytes_max =
            self.stats.subscription_bytes_max.max(self.subscriptions.bytes() as u32);
        Ok(token)
    }

    /// Writes what is due, as far as the streams have room.
    pub(super) fn send(&mut self, now: Instant, streams: &mut dyn Streams) -> Option<Notice> {
        if self.state == State::Open {
            if let Some(notice) = self.open_data_stream(now, streams) {
                return Some(notice);
            }
            if self.incoming.has_due() {
                self.send_acks(now, streams);
            }
            if self.subscriptions.has_due()
                && let Some(notice) = self.send_requests(now, streams)
            {
                return Some(notice);
            }
        }
        if self.store.has_due()
            && let Some(notice) = self.send_stored(now, streams)
        {
            return Some(notice);
        }
        self.send_ping(now, streams);
        None
    }

    /// Opens a data stream that is needed, if the server's limit allows it and has not refused it.
    fn open_data_stream(&mut self, now: Instant, streams: &mut dyn Streams) -> Option<Notice> {
        for slot in Slot::all().skip(1) {
            let state = &mut self.slots[slot.index()];
            if !state.is_wanted || state.is_open {
                continue;
            }
            // Unless it has been told as refused.
            if state.closures <= super::REOPENED_MAX + 1 && now >= state.opened_at + super::STEADY_AFTER {
                state.closures = 0;
            }
            if !state.is_refused() {
                if !streams.open_stream(slot) {
                    continue;
                }
                state.is_open = true;
                state.opened_at = now;
                return Some(Notice::StreamOpened(slot));
            }
            // One more, and it has been told.
            if state.closures == super::REOPENED_MAX + 1 {
                state.closures += 1;
                return Some(Notice::StreamRefused(slot));
            }
            // What it would hold is room that the other streams share.
            if let Some(token) = self.store.abandon_first(slot) {
                return Some(Notice::Abandoned { token, error: RequestError::StreamRefused });
            }
        }
        None
    }

    fn send_acks(&mut self, now: Instant, streams: &mut dyn Streams) {
        for slot in Slot::all() {
            if !self.slots[slot.index()].is_open {
                continue;
            }
            while let Some((index, token, kind, reason)) = self.incoming.due(slot) {
                if !put_ack(kind, Ack::new(token.id, reason), self.version, slot, streams) {
                    break;
                }
                self.incoming.on_written(index);
                self.on_sent(now, slot);
            }
        }
    }

    fn send_requests(&mut self, now: Instant, streams: &mut dyn Streams) -> Option<Notice> {
        for slot in Slot::all() {
            if !self.slots[slot.index()].is_open {
                continue;
            }
            while let Some((token, state)) = self.subscriptions.due(slot) {
                match self.put_request(token, state, streams) {
                    Ok(()) => {
                        self.subscriptions.on_written(token, state);
                        self.on_sent(now, slot);
                    }
                    Err(RequestError::Full) => break,
                    Err(error) => {
                        let code = Codes::All(ReasonCode::PACKET_TOO_LARGE.0);
                        self.subscriptions.on_answer(token, state, code);
                        return Some(Notice::Abandoned { token, error });
                    }
                }
            }
        }
        None
    }

    fn put_request(
        &self,
        token: Token,
        state: RequestState,
        streams: &mut dyn Streams,
    ) -> Result<(), RequestError> {
        let mut bytes = [0; REQUEST_MAX];
        let mut w = Writer::new(&mut bytes);
        self.encode_request(token, state, &mut w)?;
        if streams.writable(token.slot) < w.len() {
            return Err(RequestError::Full);
        }
        streams.write(token.slot, w.written(), &[]);
        Ok(())
    }

    /// Puts together what was noted as `token`, if the server takes that much.
    #[inline(never)] // Two callers: one copy.
    fn encode_request(
        &self,
        token: Token,
        state: RequestState,
        w: &mut Writer<'_>,
    ) -> Result<(), RequestError> {
        let filters = self.subscriptions.filters(token, state);
        let encoded = match state {
            RequestState::SubscribeDue => {
                Subscribe::encode_filters(token.id, Properties::NONE, filters, self.version, w)
            }
            _ => {
                let names = filters.map(|filter| filter.filter);
                Unsubscribe::encode_filters(token.id, Properties::NONE, names, self.version, w)
            }
        };
        if encoded.is_err() || w.len() as u64 > self.maximum_packet_size() {
            return Err(RequestError::TooLarge);
        }
        Ok(())
    }

    /// Writes stored publications in their order; a slot without room stops only itself.
    fn send_stored(&mut self, now: Instant, streams: &mut dyn Streams) -> Option<Notice> {
        let mut blocked = [false; super::SLOTS];
        let mut in_flight = self.store.in_flight();
        let mut index = 0;
        while let Some(entry) = self.store.entry(index).copied() {
            let slot = entry.token.slot;
            let is_blocked = &mut blocked[slot.index()];
            let may_write = match self.state {
                State::Open => true,
                // Order matters: what is not replay-safe holds back what comes after it.
                _ => self.may_send_early(entry.phase, entry.replay),
            };
            *is_blocked |= !self.slots[slot.index()].is_open || !may_write;
            if *is_blocked || matches!(entry.phase, Phase::Published | Phase::Released) {
                index += 1;
                continue;
            }
            if entry.phase == Phase::PubrelDue {
                let ack = Ack::new(entry.token.id, ReasonCode::SUCCESS);
                if put_ack(AckKind::Pubrel, ack, self.version, slot, streams) {
                    self.store.on_written(index);
                    self.on_sent(now, slot);
                } else {
                    *is_blocked = true;
                }
            } else {
                if let Err(error) = self.check_stored(index) {
                    self.store.abandon(index);
                    return Some(Notice::Abandoned { token: entry.token, error });
                }
                if in_flight >= usize::from(self.limits.receive_maximum) {
                    // Holds back every other PUBLISH, but no PUBREL: that is what lets this one go (4.9).
                } else if self.put_stored(now, index, streams) {
                    in_flight += 1;
                } else {
                    blocked[slot.index()] = true;
                }
            }
            index += 1;
        }
        None
    }

    fn may_send_early(&self, phase: Phase, replay: Replay) -> bool {
        self.state == State::Connecting(Replay::Safe) && phase == Phase::PublishDue && replay == Replay::Safe
    }

    /// Whether this server takes the publication at all: its limits may differ from the last one's.
    fn check_stored(&self, index: usize) -> Result<(), RequestError> {
        let Some(publish) = self.store.publish(index) else { return Ok(()) };
        self.check_limits(publish.delivery.qos(), publish.retain)?;
        if self.limits.maximum_packet_size == u32::MAX {
            return Ok(());
        }
        let mut head = [0; HEAD_MAX];
        let mut w = Writer::new(&mut head);
        let fits = publish.encode_head(self.version, LONGEST_ALIAS, &mut w).is_ok()
            && w.len() + publish.payload.len() <= self.limits.maximum_packet_size as usize;
        if fits { Ok(()) } else { Err(RequestError::TooLarge) }
    }

    fn put_stored(&mut self, now: Instant, index: usize, streams: &mut dyn Streams) -> bool {
        let Some((publish, token)) =
            self.store.publish(index).zip(self.store.entry(index).map(|entry| entry.token))
        else {
            return false;
        };
        let slot = token.slot;
        let naming = self.naming(slot, publish.topic);
        let (topic, qos, duplicate) = (publish.topic, publish.delivery.qos(), publish.duplicate);
        // The size was checked before.
        if put_publish(publish, naming, self.version, usize::MAX, slot, streams).is_err() {
            return false;
        }
        if let Naming::Define(_) = naming {
            self.aliases_out.on_defined(topic);
        }
        self.on_publish_written(now, slot, Naming::Name, "", qos, duplicate);
        self.store.on_written(index);
        true
    }

    fn send_ping(&mut self, now: Instant, streams: &mut dyn Streams) {
        if self.state != State::Open || self.answer_due.is_some() {
            return;
        }
        let is_asking = self.excess == Excess::Noted && !self.incoming.has_due();
        let is_due = is_asking || (!self.keep_alive.is_zero() && now >= self.last_sent + self.keep_alive);
        if is_due && put(&PINGREQ, Slot::CONTROL, streams) {
            self.on_sent(now, Slot::CONTROL);
            self.answer_due = Some(now + self.answer_timeout);
            self.stats.pings_sent += 1;
            if is_asking {
                self.excess = Excess::Asked;
            }
        } else if is_due {
            // The stream is full of what the server has not taken yet. Without a later time to try again the timer
            // would fire over and over at this moment.
            self.last_sent = now - self.keep_alive.saturating_sub(PING_RETRY);
        }
    }
}

/// Judges what CONNECT is made of as a server does, which would end this connection and each one after it. Names the
/// field that breaks a rule.
fn check_connect(options: &Options<'_>, buffer: &mut [u8]) -> Result<(), &'static str> {
    // The others are the session's own, or of extended authentication.
    let may_stand = |property: Property<'_>| {
        options.version == Version::V5
            && matches!(
                property,
                Property::RequestProblemInformation(_)
                    | Property::RequestResponseInformation(_)
                    | Property::UserProperty(..)
            )
    };
    if !options.properties.iter().all(may_stand) {
        return Err("connect.properties");
    }
    if options.version == Version::V3_1_1 && options.password.is_some() && options.user_name.is_none() {
        return Err("connect.flags");
    }
    if options.client_id.contains('\0') {
        return Err("connect.client_id");
    }
    if options.user_name.is_some_and(|name| name.contains('\0')) {
        return Err("connect.user_name");
    }
    check_connect_properties(options.properties, Place::CONNECT, buffer)?;
    let Some(will) = &options.will else { return Ok(()) };
    if !topic::is_topic_name(will.topic) {
        return Err("connect.will_topic");
    }
    match options.version {
        Version::V3_1_1 => Ok(()),
        Version::V5 => check_connect_properties(will.properties, Place::WILL, buffer),
    }
}

fn check_connect_properties(
    properties: Properties<'_>,
    place: Place,
    buffer: &mut [u8],
) -> Result<(), &'static str> {
    match properties.check(place, buffer) {
        Ok(judged) => judged.map_err(|error| error.field),
        Err(NoSpace) => Err("fixed_header.remaining_length"),
    }
}

/// Judges a publication's properties as their receiver does. A stored one would end each connection anew.
fn check_properties(version: Version, properties: Properties<'_>) -> Result<(), RequestError> {
    let judged = properties.check(Place::PUBLICATION, &mut [0; HEAD_MAX]);
    match judged.map_err(|NoSpace| RequestError::TooLarge)? {
        Ok(()) if version == Version::V5 => Ok(()),
        _ => Err(RequestError::PropertyInvalid),
    }
}

/// After how long a PINGREQ that found no room is tried again.
const PING_RETRY: Duration = Duration::from_millis(250);

/// Writes an acknowledgement if there is room for all of it.
fn put_ack(kind: AckKind, ack: Ack<'_>, version: Version, slot: Slot, streams: &mut dyn Streams) -> bool {
    let mut bytes = [0; 16];
    let mut w = Writer::new(&mut bytes);
    ack.encode(kind, version, &mut w).is_ok() && put(w.written(), slot, streams)
}

/// Writes a packet if there is room for all of it.
fn put(packet: &[u8], slot: Slot, streams: &mut dyn Streams) -> bool {
    let fits = streams.writable(slot) >= packet.len();
    if fits {
        streams.write(slot, packet, &[]);
    }
    fits
}

/// Writes a PUBLISH if there is room for all of it.
fn put_publish(
    mut publish: Publish<'_>,
    naming: Naming,
    version: Version,
    maximum: usize,
    slot: Slot,
    streams: &mut dyn Streams,
) -> Result<(), RequestError> {
    let alias = match naming {
        Naming::Name => None,
        Naming::Define(alias) => Some(alias),
        Naming::Alias(alias) => {
            publish.topic = "";
            Some(alias)
        }
    };
    let mut head = [0; HEAD_MAX];
    let mut w = Writer::new(&mut head);
    publish.encode_head(version, alias, &mut w).map_err(|_| RequestError::TooLarge)?;
    let len = w.len() + publish.payload.len();
    if len > maximum {
        return Err(RequestError::TooLarge);
    }
    if streams.writable(slot) < len {
        return Err(RequestError::Full);
    }
    streams.write(slot, w.written(), publish.payload);
    Ok(())
}
