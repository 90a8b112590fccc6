//! Reading: packets out of streams, and what each of them does.

use super::incoming::Accepted;
use super::notice::{Notice, Span, Topic};
use super::store::Phase;
use super::subscriptions::{Codes, State as Request};
use super::{Answer, Excess, PacketBuffer, Session, Slot, State, StreamEnd, Streams, Token};
use crate::mqtt::packet::{
    Ack, AckKind, Auth, Connack, Delivery, Disconnect, FIXED_HEADER_MAX, FixedHeader, PacketType, Publish,
    Suback, Unsuback, empty,
};
use crate::mqtt::{Duplicate, Error, PacketId, Qos, ReasonCode, Retain, Version};

/// Where the next packet of a stream stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Frame {
    /// In its fixed header, of which so many bytes have come.
    Header { bytes: [u8; FIXED_HEADER_MAX], len: u8 },
    /// In its body, of which nothing has been read (or `Session::rx_len` bytes, when gathering).
    Body(FixedHeader),
    /// In the body of a message that is too large.
    Skip(Skip),
}

impl Frame {
    pub(super) const START: Self = Self::Header { bytes: [0; FIXED_HEADER_MAX], len: 0 };
}

/// A message that is too large is dropped piece by piece; only its identifier is of interest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skip {
    qos: Qos,
    size: u32,
    left: u32,
    part: Part,
}

/// The part of a skipped message that comes next; numbers arrive byte by byte.
#[derive(Clone, Copy, Debug)]
enum Part {
    TopicLength(Option<u8>),
    Topic(u16),
    PacketId(Option<u8>),
    Rest(Option<PacketId>),
}

/// What a read led to.
pub(super) enum Step {
    /// Something is to be told.
    Notice(Notice),
    /// A packet was handled: there may be more, and answers to be written.
    Packet,
    /// Nothing can be read now.
    Idle,
}

impl Session {
    /// Reads one packet from the stream whose turn it is.
    pub(super) fn receive(&mut self, streams: &mut dyn Streams, rx: &mut PacketBuffer) -> Step {
        for offset in 0..super::SLOTS {
            let index = (usize::from(self.turn) + offset) % super::SLOTS;
            let Some(slot) = Slot::new(index) else { continue };
            let waits_for_other = self.gathering.is_some_and(|gathering| gathering != slot);
            if !self.slots[index].is_open || waits_for_other || !self.incoming.has_room() {
                continue;
            }
            let step = match self.read_packet(slot, streams, rx) {
                Ok(step) => step,
                Err(error) => Step::Notice(self.fail(slot, error, streams)),
            };
            if !matches!(step, Step::Idle) {
                self.turn = ((index + 1) % super::SLOTS) as u8;
                return step;
            }
        }
        Step::Idle
    }

    fn read_packet(
        &mut self,
        slot: Slot,
        streams: &mut dyn Streams,
        rx: &mut PacketBuffer,
    ) -> Result<Step, Error> {
        if let Frame::Header { .. } = self.slots[slot.index()].frame {
            self.read_header(slot, streams)?;
        }
        match self.slots[slot.index()].frame {
            Frame::Header { .. } => Ok(self.idle_or_ended(slot, streams)),
            Frame::Skip(skip) => Ok(self.skip(slot, skip, streams)),
            Frame::Body(header) => {
                if !self.read_body(slot, &header, streams, rx) {
                    return Ok(self.idle_or_ended(slot, streams));
                }
                self.slots[slot.index()].frame = Frame::START;
                self.stats.receive_packet_max = self.stats.receive_packet_max.max(header.packet_len() as u32);
                self.dispatch(slot, &header, &rx[..self.rx_len])
            }
        }
    }

    /// Reads as much of the fixed header as has come.
    fn read_header(&mut self, slot: Slot, streams: &mut dyn Streams) -> Result<(), Error> {
        let frame = &mut self.slots[slot.index()].frame;
        let Frame::Header { mut bytes, len } = *frame else { return Ok(()) };
        let mut len = usize::from(len);
        loop {
            // No packet is shorter than two bytes; a longer length is read byte by byte.
            let want = if len < 2 { 2 - len } else { 1 };
            let read = streams.read(slot, &mut bytes[len..len + want]);
            len += read;
            if let Some(header) = FixedHeader::peek(&bytes[..len])? {
                *frame = Frame::Body(header);
                break;
            }
            *frame = Frame::Header { bytes, len: len as u8 };
            if read == 0 {
                return Ok(());
            }
        }
        self.rx_len = 0;
        self.check_size(slot)
    }

    /// A packet that is too large: announced as such in 5.0, so an error; in 3.1.1 there is nothing to announce
    /// it with, so messages are skipped.
    fn check_size(&mut self, slot: Slot) -> Result<(), Error> {
        let frame = &mut self.slots[slot.index()].frame;
        let Frame::Body(header) = *frame else { return Ok(()) };
        if header.packet_len() <= usize::from(self.packet_max) {
            return Ok(());
        }
        if self.version == Version::V5 || header.packet_type != PacketType::Publish {
            return Err(Error {
                reason: ReasonCode::PACKET_TOO_LARGE,
                field: "fixed_header.remaining_length",
            });
        }
        *frame = Frame::Skip(Skip {
            qos: Qos::from_bits(header.flags >> 1 & 3).unwrap_or_default(),
            size: header.packet_len() as u32,
            left: header.remaining_len,
            part: Part::TopicLength(None),
        });
        Ok(())
    }

    /// Reads the body into `rx`, as a whole where the stream keeps incomplete packets.
    fn read_body(
        &mut self,
        slot: Slot,
        header: &FixedHeader,
        streams: &mut dyn Streams,
        rx: &mut PacketBuffer,
    ) -> bool {
        let len = header.remaining_len as usize;
        if streams.buffers_whole_packets() && streams.readable(slot) < len {
            return false;
        }
        if self.gathering != Some(slot) {
            self.rx_len = 0;
        }
        while self.rx_len < len {
            let read = streams.read(slot, &mut rx[self.rx_len..len]);
            if read == 0 {
                self.gathering = Some(slot);
                return false;
            }
            self.rx_len += read;
        }
        self.gathering = None;
        true
    }

    fn skip(&mut self, slot: Slot, mut skip: Skip, streams: &mut dyn Streams) -> Step {
        let mut bytes = [0; 32];
        while skip.left > 0 {
            let want = bytes.len().min(skip.left as usize);
            let read = streams.read(slot, &mut bytes[..want]);
            if read == 0 {
                break;
            }
            skip.left -= read as u32;
            for &byte in &bytes[..read] {
                skip.part = skip.part.after(byte, skip.qos);
            }
        }
        if skip.left > 0 {
            self.slots[slot.index()].frame = Frame::Skip(skip);
            return self.idle_or_ended(slot, streams);
        }
        self.slots[slot.index()].frame = Frame::START;
        self.stats.oversize_skipped += 1;
        // Acknowledged all the same: the server would repeat it for ever.
        if let Part::Rest(Some(id)) = skip.part {
            let token = Token { slot, id };
            match skip.qos {
                Qos::ExactlyOnce => self.incoming.on_exactly_once(token),
                _ => self.incoming.on_at_least_once(token),
            };
        }
        Step::Notice(Notice::Oversize { slot, size: skip.size })
    }

    fn idle_or_ended(&mut self, slot: Slot, streams: &mut dyn Streams) -> Step {
        let Some(end) = streams.ended(slot) else {
            return Step::Idle;
        };
        let code = match end {
            StreamEnd::Finished => None,
            StreamEnd::Reset(code) => Some(code),
        };
        if slot == Slot::CONTROL {
            self.state = State::Closed;
            return Step::Notice(Notice::ControlStreamEnded(code));
        }
        streams.close_stream(slot, StreamEnd::Finished);
        self.forget_stream(slot);
        Step::Notice(Notice::StreamClosed { slot, code, error: None })
    }

    /// The peer broke the rules on the stream of `slot`.
    fn fail(&mut self, slot: Slot, error: Error, streams: &mut dyn Streams) -> Notice {
        if slot == Slot::CONTROL {
            // 3.1.1 has no reason codes: the connection is closed without a word (4.8).
            if self.version == Version::V5 {
                self.disconnect(error.reason, streams);
            }
            self.state = State::Closed;
            return Notice::Protocol(error);
        }
        streams.close_stream(slot, StreamEnd::Reset(error.reason.0.into()));
        self.forget_stream(slot);
        Notice::StreamClosed { slot, code: None, error: Some(error) }
    }

    /// Handles the packet with this body.
    fn dispatch(&mut self, slot: Slot, header: &FixedHeader, body: &[u8]) -> Result<Step, Error> {
        let version = self.version;
        if let State::Connecting(_) = self.state
            && !matches!(header.packet_type, PacketType::Connack | PacketType::Disconnect | PacketType::Auth)
        {
            return Err(Error::protocol("connack"));
        }
        let is_data_type =
            (PacketType::Publish as u8..=PacketType::Unsuback as u8).contains(&(header.packet_type as u8));
        if slot != Slot::CONTROL && !is_data_type {
            return Err(Error::protocol("fixed_header.packet_type"));
        }
        match header.packet_type {
            PacketType::Publish => self.on_publish(slot, header.flags, body),
            PacketType::Puback => self.on_ack(slot, AckKind::Puback, body),
            PacketType::Pubrec => self.on_ack(slot, AckKind::Pubrec, body),
            PacketType::Pubrel => self.on_ack(slot, AckKind::Pubrel, body),
            PacketType::Pubcomp => self.on_ack(slot, AckKind::Pubcomp, body),
            PacketType::Suback => self.on_suback(slot, body),
            PacketType::Unsuback => self.on_unsuback(slot, body),
            PacketType::Connack => self.on_connack_packet(body),
            PacketType::Pingresp => {
                empty(body, "pingresp")?;
                self.answer_due = None;
                if self.excess == Excess::Asked {
                    return Err(Error { reason: ReasonCode::QUOTA_EXCEEDED, field: IN_FLIGHT });
                }
                Ok(Step::Packet)
            }
            PacketType::Disconnect if version == Version::V5 => {
                let disconnect = Disconnect::decode(body, version)?;
                self.state = State::Closed;
                Ok(Step::Notice(Notice::ServerDisconnect(disconnect.reason)))
            }
            PacketType::Auth => {
                // CONNECT names no method, so the server may not ask (4.12).
                Auth::decode(body, version)?;
                Err(Error::protocol("auth"))
            }
            _ => Err(Error::protocol("fixed_header.packet_type")),
        }
    }

    fn on_connack_packet(&mut self, body: &[u8]) -> Result<Step, Error> {
        if !matches!(self.state, State::Connecting(_)) {
            return Err(Error::protocol("connack"));
        }
        let connack = Connack::decode(body, self.version)?;
        if connack.session_present && self.is_fresh {
            return Err(Error::protocol("connack.session_present"));
        }
        let answer = Answer::new(&connack);
        Ok(Step::Notice(self.on_connack(&answer)))
    }

    fn on_publish(&mut self, slot: Slot, flags: u8, body: &[u8]) -> Result<Step, Error> {
        let publish = Publish::decode(flags, body, self.version)?;
        let topic = match (publish.topic_alias(), publish.topic) {
            (Some(alias), _) if alias > super::alias::INCOMING_MAX => return Err(ALIAS_INVALID),
            (Some(alias), "") => {
                self.aliases_in.resolve(slot, alias).map_err(|_| ALIAS_INVALID)?;
                Topic::Alias(alias)
            }
            (Some(alias), name) => {
                // A topic that does not fit leaves the alias unknown: its next use is refused.
                self.aliases_in.define(slot, alias, name);
                Topic::Name { len: name.len() as u16 }
            }
            (None, name) => Topic::Name { len: name.len() as u16 },
        };
        let accepted = match publish.delivery {
            Delivery::AtMostOnce => Accepted::New,
            _ if self.excess != Excess::None && slot == Slot::CONTROL => Accepted::Overflow,
            Delivery::AtLeastOnce(id) => self.incoming.on_at_least_once(Token { slot, id }),
            Delivery::ExactlyOnce(id) => self.incoming.on_exactly_once(Token { slot, id }),
        };
        // 3.1.1 cannot announce a maximum: what the table holds is taken.
        if self.version == Version::V5 {
            if accepted == Accepted::Overflow || self.incoming.exceeds(self.receive_maximum, slot) {
                return Err(Error { reason: ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, field: IN_FLIGHT });
            }
        } else if accepted == Accepted::Overflow {
            if slot != Slot::CONTROL {
                // Brokers keep no session for a data stream: nothing would ever be repeated.
                return Err(Error { reason: ReasonCode::QUOTA_EXCEEDED, field: IN_FLIGHT });
            }
            if self.excess == Excess::None {
                self.excess = Excess::Noted;
            }
            return Ok(Step::Packet);
        }
        if accepted == Accepted::Repeated {
            self.stats.duplicates_suppressed += 1;
            return Ok(Step::Packet);
        }
        let qos = publish.delivery.qos();
        self.stats.messages_received[usize::from(qos.bits())] += 1;
        if publish.retain == Retain::No {
            // Retained ones come with each SUBSCRIBE, also from a server that closes the stream after it.
            self.slots[slot.index()].closures = 0;
        }
        let properties_len = values_len(&publish, body.len(), self.version);
        Ok(Step::Notice(Notice::Message(Span {
            slot,
            topic,
            properties_len,
            payload_len: publish.payload.len() as u16,
            qos,
            retain: publish.retain,
            duplicate: match qos {
                Qos::AtLeastOnce => publish.duplicate,
                _ => Duplicate::No,
            },
        })))
    }

    fn on_ack(&mut self, slot: Slot, kind: AckKind, body: &[u8]) -> Result<Step, Error> {
        let ack = Ack::decode(kind, body, self.version)?;
        let token = Token { slot, id: ack.id };
        let is_complete = match kind {
            AckKind::Puback => self.store.on_complete(token, Qos::AtLeastOnce, Phase::Published),
            AckKind::Pubrec if ack.reason.is_error() => {
                self.store.on_complete(token, Qos::ExactlyOnce, Phase::Published)
            }
            AckKind::Pubrec => {
                if !self.store.on_received(token) {
                    self.incoming.on_unknown_received(token);
                }
                false
            }
            AckKind::Pubcomp => self.store.on_complete(token, Qos::ExactlyOnce, Phase::Released),
            AckKind::Pubrel => {
                self.incoming.on_release(token);
                false
            }
        };
        // An answer to nothing is left without one: it may be late, from before a reconnect.
        if !is_complete {
            return Ok(Step::Packet);
        }
        self.stats.publishes_acknowledged += 1;
        self.slots[slot.index()].closures = 0;
        Ok(Step::Notice(Notice::Acknowledged { token, reason: ack.reason }))
    }

    fn on_suback(&mut self, slot: Slot, body: &[u8]) -> Result<Step, Error> {
        let suback = Suback::decode(body, self.version)?;
        let token = Token { slot, id: suback.id };
        if !self.subscriptions.on_answer(token, Request::Subscribing, Codes::Each(suback.codes)) {
            return Err(Error::protocol("suback.packet_id"));
        }
        Ok(Step::Notice(Notice::Subscribed { token, codes: suback.codes.len() as u16 }))
    }

    fn on_unsuback(&mut self, slot: Slot, body: &[u8]) -> Result<Step, Error> {
        let unsuback = Unsuback::decode(body, self.version)?;
        let token = Token { slot, id: unsuback.id };
        let codes = match self.version {
            Version::V5 => Codes::Each(unsuback.codes),
            // It has none: a server that knows no refusal (3.11 of 3.1.1).
            Version::V3_1_1 => Codes::All(0),
        };
        if !self.subscriptions.on_answer(token, Request::Unsubscribing, codes) {
            return Err(Error::protocol("unsuback.packet_id"));
        }
        Ok(Step::Notice(Notice::Unsubscribed { token, codes: unsuback.codes.len() as u16 }))
    }
}

impl Part {
    /// What comes after `byte` of this part.
    fn after(self, byte: u8, qos: Qos) -> Self {
        let after_topic = match qos {
            Qos::AtMostOnce => Self::Rest(None),
            _ => Self::PacketId(None),
        };
        match self {
            Self::TopicLength(None) => Self::TopicLength(Some(byte)),
            Self::TopicLength(Some(high)) => match u16::from_be_bytes([high, byte]) {
                0 => after_topic,
                len => Self::Topic(len),
            },
            Self::Topic(0 | 1) => after_topic,
            Self::Topic(left) => Self::Topic(left - 1),
            Self::PacketId(None) => Self::PacketId(Some(byte)),
            Self::PacketId(Some(high)) => Self::Rest(PacketId::new(u16::from_be_bytes([high, byte]))),
            Self::Rest(id) => Self::Rest(id),
        }
    }
}

/// The field that says how many messages are in flight.
const IN_FLIGHT: &str = "publish.packet_id";
const ALIAS_INVALID: Error = Error { reason: ReasonCode::TOPIC_ALIAS_INVALID, field: "publish.topic_alias" };

/// How many bytes of property values stand right in front of the payload.
fn values_len(publish: &Publish<'_>, body_len: usize, version: Version) -> u16 {
    if version == Version::V3_1_1 || publish.properties.is_empty() {
        return 0;
    }
    publish.properties.wire_len().min(body_len - publish.payload.len()) as u16
}
