//! Properties (MQTT 5.0 2.2.2): a length, then identifier and value, each at most once but for user
//! properties and, in PUBLISH, subscription identifiers.
//!
//! ```text
//! Property Length (variable byte integer) { Identifier (1 byte), Value }*
//! ```

use super::{PacketType, varint};
use crate::codec::{NoSpace, Reader, Writer};
use crate::mqtt::{Error, topic};
use crate::redacted::Opaque;

/// One property and its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Property<'a> {
    /// 0x01: whether the payload is text.
    PayloadFormatIndicator(u8),
    /// 0x02: lifetime of the message in seconds.
    MessageExpiryInterval(u32),
    /// 0x03: what the payload is.
    ContentType(&'a str),
    /// 0x08: where an answer goes.
    ResponseTopic(&'a str),
    /// 0x09: what the answer belongs to.
    CorrelationData(&'a [u8]),
    /// 0x0b: the number given to a subscription.
    SubscriptionIdentifier(u32),
    /// 0x11: lifetime of the session after the connection, in seconds.
    SessionExpiryInterval(u32),
    /// 0x12: the client identifier the server chose.
    AssignedClientIdentifier(&'a str),
    /// 0x13: the keep alive the server wants, in seconds.
    ServerKeepAlive(u16),
    /// 0x15: extended authentication's method.
    AuthenticationMethod(&'a str),
    /// 0x16: extended authentication's data.
    AuthenticationData(Opaque<'a>),
    /// 0x17: whether reason strings are wanted.
    RequestProblemInformation(u8),
    /// 0x18: delay of the will in seconds.
    WillDelayInterval(u32),
    /// 0x19: whether response information is wanted.
    RequestResponseInformation(u8),
    /// 0x1a: basis of a response topic.
    ResponseInformation(&'a str),
    /// 0x1c: another server to use.
    ServerReference(&'a str),
    /// 0x1f: text for a human.
    ReasonString(&'a str),
    /// 0x21: how many QoS 1 and 2 publications may be unacknowledged.
    ReceiveMaximum(u16),
    /// 0x22: highest topic alias accepted.
    TopicAliasMaximum(u16),
    /// 0x23: a number for the topic.
    TopicAlias(u16),
    /// 0x24: highest QoS the server supports.
    MaximumQos(u8),
    /// 0x25: whether the server retains messages.
    RetainAvailable(u8),
    /// 0x26: a name and a value of the application's own.
    UserProperty(&'a str, &'a str),
    /// 0x27: largest packet accepted, in bytes.
    MaximumPacketSize(u32),
    /// 0x28: whether wildcards may be subscribed to.
    WildcardSubscriptionAvailable(u8),
    /// 0x29: whether subscription identifiers are supported.
    SubscriptionIdentifierAvailable(u8),
    /// 0x2a: whether shared subscriptions are supported.
    SharedSubscriptionAvailable(u8),
}

/// Where properties stand: a place, or several of which each has to allow a property.
#[derive(Clone, Copy)]
pub(in crate::mqtt) struct Place(u16);

impl Place {
    /// CONNECT.
    pub(in crate::mqtt) const CONNECT: Self = Self(CONNECT);
    /// The will in CONNECT.
    pub(in crate::mqtt) const WILL: Self = Self(WILL);
    /// A PUBLISH of the application's. A will has neither of what is not the application's to choose: the topic alias and
    /// the subscription identifier.
    pub(in crate::mqtt) const PUBLICATION: Self = Self(PUBLISH | WILL);
}

/// Where a property may stand: packet types by their bit, and the will by bit 0.
const WILL: u16 = 1;
const CONNECT: u16 = PacketType::Connect.bit();
const CONNACK: u16 = PacketType::Connack.bit();
const PUBLISH: u16 = PacketType::Publish.bit();
const ACKS: u16 = PacketType::Puback.bit()
    | PacketType::Pubrec.bit()
    | PacketType::Pubrel.bit()
    | PacketType::Pubcomp.bit();
const SUBSCRIBE: u16 = PacketType::Subscribe.bit();
const SUBACKS: u16 = PacketType::Suback.bit() | PacketType::Unsuback.bit();
const UNSUBSCRIBE: u16 = PacketType::Unsubscribe.bit();
const DISCONNECT: u16 = PacketType::Disconnect.bit();
const AUTH: u16 = PacketType::Auth.bit();

/// The packets that may hold property `id` (MQTT 5.0 table 2-4); zero for an unknown one.
const fn places(id: u8) -> u16 {
    match id {
        0x01..=0x03 | 0x08 | 0x09 => PUBLISH | WILL,
        0x0b => PUBLISH | SUBSCRIBE,
        0x11 => CONNECT | CONNACK | DISCONNECT,
        0x12 | 0x13 | 0x1a | 0x24 | 0x25 | 0x28..=0x2a => CONNACK,
        0x15 | 0x16 => CONNECT | CONNACK | AUTH,
        0x17 | 0x19 => CONNECT,
        0x18 => WILL,
        0x1c => CONNACK | DISCONNECT,
        0x1f => CONNACK | ACKS | SUBACKS | DISCONNECT | AUTH,
        0x21 | 0x22 | 0x27 => CONNECT | CONNACK,
        0x23 => PUBLISH,
        0x26 => {
            CONNECT | CONNACK | PUBLISH | WILL | ACKS | SUBSCRIBE | SUBACKS | UNSUBSCRIBE | DISCONNECT | AUTH
        }
        _ => 0,
    }
}

impl<'a> Property<'a> {
    const fn id(&self) -> u8 {
        match self {
            Self::PayloadFormatIndicator(_) => 0x01,
            Self::MessageExpiryInterval(_) => 0x02,
            Self::ContentType(_) => 0x03,
            Self::ResponseTopic(_) => 0x08,
            Self::CorrelationData(_) => 0x09,
            Self::SubscriptionIdentifier(_) => 0x0b,
            Self::SessionExpiryInterval(_) => 0x11,
            Self::AssignedClientIdentifier(_) => 0x12,
            Self::ServerKeepAlive(_) => 0x13,
            Self::AuthenticationMethod(_) => 0x15,
            Self::AuthenticationData(_) => 0x16,
            Self::RequestProblemInformation(_) => 0x17,
            Self::WillDelayInterval(_) => 0x18,
            Self::RequestResponseInformation(_) => 0x19,
            Self::ResponseInformation(_) => 0x1a,
            Self::ServerReference(_) => 0x1c,
            Self::ReasonString(_) => 0x1f,
            Self::ReceiveMaximum(_) => 0x21,
            Self::TopicAliasMaximum(_) => 0x22,
            Self::TopicAlias(_) => 0x23,
            Self::MaximumQos(_) => 0x24,
            Self::RetainAvailable(_) => 0x25,
            Self::UserProperty(..) => 0x26,
            Self::MaximumPacketSize(_) => 0x27,
            Self::WildcardSubscriptionAvailable(_) => 0x28,
            Self::SubscriptionIdentifierAvailable(_) => 0x29,
            Self::SharedSubscriptionAvailable(_) => 0x2a,
        }
    }

    /// Whether a `packet` may hold it (table 2-4).
    pub const fn belongs_to(&self, packet: PacketType) -> bool {
        places(self.id()) & packet.bit() != 0
    }

    fn encode(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        w.u8(self.id())?;
        match *self {
            Self::PayloadFormatIndicator(value)
            | Self::RequestProblemInformation(value)
            | Self::RequestResponseInformation(value)
            | Self::MaximumQos(value)
            | Self::RetainAvailable(value)
            | Self::WildcardSubscriptionAvailable(value)
            | Self::SubscriptionIdentifierAvailable(value)
            | Self::SharedSubscriptionAvailable(value) => w.u8(value),
            Self::ServerKeepAlive(value)
            | Self::ReceiveMaximum(value)
            | Self::TopicAliasMaximum(value)
            | Self::TopicAlias(value) => w.u16(value),
            Self::MessageExpiryInterval(value)
            | Self::SessionExpiryInterval(value)
            | Self::WillDelayInterval(value)
            | Self::MaximumPacketSize(value) => w.u32(value),
            Self::SubscriptionIdentifier(value) => varint::encode(w, value),
            Self::ContentType(text)
            | Self::ResponseTopic(text)
            | Self::AssignedClientIdentifier(text)
            | Self::AuthenticationMethod(text)
            | Self::ResponseInformation(text)
            | Self::ServerReference(text)
            | Self::ReasonString(text) => super::put_string(w, text),
            Self::CorrelationData(data) | Self::AuthenticationData(Opaque(data)) => {
                super::put_binary(w, data)
            }
            Self::UserProperty(name, value) => {
                super::put_string(w, name)?;
                super::put_string(w, value)
            }
        }
    }

    fn decode(r: &mut Reader<'a>) -> Result<Self, Error> {
        Ok(match r.u8("properties.identifier")? {
            0x01 => Self::PayloadFormatIndicator(flag(r, "properties.payload_format_indicator")?),
            0x02 => Self::MessageExpiryInterval(r.u32("properties.message_expiry_interval")?),
            0x03 => Self::ContentType(super::string(r, "properties.content_type")?),
            0x08 => Self::ResponseTopic(response_topic(r)?),
            0x09 => Self::CorrelationData(r.vec16("properties.correlation_data")?),
            0x0b => Self::SubscriptionIdentifier(subscription_identifier(r)?),
            0x11 => Self::SessionExpiryInterval(r.u32("properties.session_expiry_interval")?),
            0x12 => {
                Self::AssignedClientIdentifier(super::string(r, "properties.assigned_client_identifier")?)
            }
            0x13 => Self::ServerKeepAlive(r.u16("properties.server_keep_alive")?),
            0x15 => Self::AuthenticationMethod(super::string(r, "properties.authentication_method")?),
            0x16 => Self::AuthenticationData(Opaque(r.vec16("properties.authentication_data")?)),
            0x17 => Self::RequestProblemInformation(flag(r, "properties.request_problem_information")?),
            0x18 => Self::WillDelayInterval(r.u32("properties.will_delay_interval")?),
            0x19 => Self::RequestResponseInformation(flag(r, "properties.request_response_information")?),
            0x1a => Self::ResponseInformation(super::string(r, "properties.response_information")?),
            0x1c => Self::ServerReference(super::string(r, "properties.server_reference")?),
            0x1f => Self::ReasonString(super::string(r, "properties.reason_string")?),
            0x21 => Self::ReceiveMaximum(non_zero(r, "properties.receive_maximum")?),
            0x22 => Self::TopicAliasMaximum(r.u16("properties.topic_alias_maximum")?),
            0x23 => Self::TopicAlias(r.u16("properties.topic_alias")?),
            0x24 => Self::MaximumQos(flag(r, "properties.maximum_qos")?),
            0x25 => Self::RetainAvailable(flag(r, "properties.retain_available")?),
            0x26 => Self::UserProperty(
                super::string(r, "properties.user_property.name")?,
                super::string(r, "properties.user_property.value")?,
            ),
            0x27 => Self::MaximumPacketSize(match r.u32("properties.maximum_packet_size")? {
                0 => return Err(Error::protocol("properties.maximum_packet_size")),
                size => size,
            }),
            0x28 => {
                Self::WildcardSubscriptionAvailable(flag(r, "properties.wildcard_subscription_available")?)
            }
            0x29 => Self::SubscriptionIdentifierAvailable(flag(
                r,
                "properties.subscription_identifier_available",
            )?),
            0x2a => Self::SharedSubscriptionAvailable(flag(r, "properties.shared_subscription_available")?),
            _ => return Err(Error::malformed("properties.identifier")),
        })
    }
}

fn flag(r: &mut Reader<'_>, field: &'static str) -> Result<u8, Error> {
    match r.u8(field)? {
        value @ 0..=1 => Ok(value),
        _ => Err(Error::protocol(field)),
    }
}

fn non_zero(r: &mut Reader<'_>, field: &'static str) -> Result<u16, Error> {
    match r.u16(field)? {
        0 => Err(Error::protocol(field)),
        value => Ok(value),
    }
}

fn subscription_identifier(r: &mut Reader<'_>) -> Result<u32, Error> {
    let field = "properties.subscription_identifier";
    match varint::decode(r, field)? {
        0 => Err(Error::protocol(field)),
        value => Ok(value),
    }
}

fn response_topic<'a>(r: &mut Reader<'a>) -> Result<&'a str, Error> {
    let field = "properties.response_topic";
    let name = super::string(r, field)?;
    if topic::is_topic_name(name) { Ok(name) } else { Err(Error::protocol(field)) }
}

/// A packet's properties: a list to be sent, or validated bytes that came.
#[derive(Clone, Copy)]
pub struct Properties<'a>(Source<'a>);

impl core::fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[derive(Clone, Copy)]
enum Source<'a> {
    List(&'a [Property<'a>]),
    /// Identifiers and values without the length; decodes without error.
    Wire(&'a [u8]),
}

impl<'a> Properties<'a> {
    /// No properties.
    pub const NONE: Self = Self(Source::List(&[]));

    /// These properties.
    pub const fn of(list: &'a [Property<'a>]) -> Self {
        Self(Source::List(list))
    }

    /// Properties that [`Properties::write_values`] wrote.
    pub(crate) const fn from_values(bytes: &'a [u8]) -> Self {
        Self(Source::Wire(bytes))
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        match self.0 {
            Source::List(list) => list.is_empty(),
            Source::Wire(bytes) => bytes.is_empty(),
        }
    }

    /// Size of the values if they came from the wire; zero for a list.
    pub(in crate::mqtt) const fn wire_len(&self) -> usize {
        match self.0 {
            Source::List(_) => 0,
            Source::Wire(bytes) => bytes.len(),
        }
    }

    /// The properties in their order.
    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        let (list, bytes) = match self.0 {
            Source::List(list) => (list, &[][..]),
            Source::Wire(bytes) => (&[][..], bytes),
        };
        let mut wire = Reader::new(bytes);
        list.iter().copied().chain(core::iter::from_fn(move || Property::decode(&mut wire).ok()))
    }

    /// The first value that `select` picks.
    pub fn find<T>(&self, select: impl FnMut(Property<'a>) -> Option<T>) -> Option<T> {
        self.iter().find_map(select)
    }

    /// Reads the properties of a `packet`.
    pub(super) fn decode(r: &mut Reader<'a>, packet: PacketType) -> Result<Self, Error> {
        Self::decode_at(r, Place(packet.bit()))
    }

    /// Reads the properties of a will.
    pub(super) fn decode_will(r: &mut Reader<'a>) -> Result<Self, Error> {
        Self::decode_at(r, Place::WILL)
    }

    fn decode_at(r: &mut Reader<'a>, place: Place) -> Result<Self, Error> {
        let len = varint::decode(r, "properties.length")?;
        let bytes = r.take(len as usize, "properties.length")?;
        let mut values = Reader::new(bytes);
        let mut seen = 0_u64;
        while !values.is_empty() {
            let id = Property::decode(&mut values)?.id();
            if places(id) & place.0 != place.0 {
                return Err(Error::protocol("properties.identifier"));
            }
            let repeats = id == 0x26 || (id == 0x0b && place.0 == PUBLISH);
            if seen & 1 << id != 0 && !repeats {
                return Err(Error::protocol("properties.duplicate"));
            }
            seen |= 1 << id;
        }
        Ok(Self(Source::Wire(bytes)))
    }

    /// Judges properties that are to be sent as their receiver does, by what `buffer` shows of them then.
    ///
    /// # Errors
    /// `NoSpace` if `buffer` does not hold them, else what the receiver would object to.
    pub(in crate::mqtt) fn check(
        &self,
        place: Place,
        buffer: &mut [u8],
    ) -> Result<Result<(), Error>, NoSpace> {
        let mut w = Writer::new(buffer);
        self.encode(&mut w)?;
        Ok(Properties::decode_at(&mut Reader::new(w.written()), place).map(drop))
    }

    /// Writes the values with their length in front.
    pub(super) fn encode(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        self.encode_after(None, w)
    }

    /// Writes `first` and then the values, with their common length in front.
    pub(super) fn encode_after(
        &self,
        first: Option<Property<'_>>,
        w: &mut Writer<'_>,
    ) -> Result<(), NoSpace> {
        super::with_length(w, 0, |w| {
            if let Some(first) = first {
                first.encode(w)?;
            }
            self.write_values(w)
        })
    }

    /// Writes the values without their length.
    pub(crate) fn write_values(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        match self.0 {
            Source::List(list) => list.iter().try_for_each(|property| property.encode(w)),
            Source::Wire(bytes) => w.put(bytes),
        }
    }
}

impl PartialEq for Properties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Properties<'_> {}

impl Default for Properties<'_> {
    fn default() -> Self {
        Self::NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::ReasonCode;

    fn decode(bytes: &[u8], packet: PacketType) -> Result<Properties<'_>, Error> {
        Properties::decode(&mut Reader::new(bytes), packet)
    }

    #[test]
    fn values_of_each_shape_are_read() {
        let bytes = [
            25, 0x01, 1, 0x02, 0, 0, 0, 60, 0x0b, 0x80, 0x01, 0x09, 0, 2, 7, 8, 0x26, 0, 1, b'k', 0, 1, b'v',
            0x23, 0, 5, 0xff,
        ];
        let properties = decode(&bytes, PacketType::Publish).expect("all belong to PUBLISH");
        let expected = [
            Property::PayloadFormatIndicator(1),
            Property::MessageExpiryInterval(60),
            Property::SubscriptionIdentifier(128),
            Property::CorrelationData(&[7, 8]),
            Property::UserProperty("k", "v"),
            Property::TopicAlias(5),
        ];
        assert_eq!(properties, Properties::of(&expected));
        let mut out = [0; 32];
        let mut w = Writer::new(&mut out);
        properties.encode(&mut w).expect("fits");
        assert_eq!(w.written(), &bytes[..25 + 1]);
    }

    #[test]
    fn a_long_list_gets_a_longer_length() {
        let text = "x".repeat(300);
        let list = [Property::ReasonString(&text)];
        let mut out = [0; 400];
        let mut w = Writer::new(&mut out);
        Properties::of(&list).encode(&mut w).expect("fits");
        assert_eq!(w.written()[..5], [0xaf, 0x02, 0x1f, 0x01, 0x2c]);
        assert_eq!(decode(w.written(), PacketType::Puback), Ok(Properties::of(&list)));
    }

    #[test]
    fn a_property_in_the_wrong_packet_is_a_protocol_error() {
        let error = decode(&[3, 0x21, 0, 1], PacketType::Publish).unwrap_err();
        assert_eq!(error.reason, ReasonCode::PROTOCOL_ERROR);
        assert!(decode(&[3, 0x21, 0, 1], PacketType::Connack).is_ok());
        assert!(Properties::decode_will(&mut Reader::new(&[5, 0x18, 0, 0, 0, 1])).is_ok());
        assert!(decode(&[5, 0x18, 0, 0, 0, 1], PacketType::Connect).is_err(), "of the will only");
    }

    #[test]
    fn only_user_properties_and_publish_subscription_identifiers_repeat() {
        let twice = [6, 0x21, 0, 1, 0x21, 0, 1];
        assert_eq!(decode(&twice, PacketType::Connack).unwrap_err(), Error::protocol("properties.duplicate"));
        assert!(decode(&[4, 0x0b, 1, 0x0b, 2], PacketType::Publish).is_ok());
        assert!(decode(&[4, 0x0b, 1, 0x0b, 2], PacketType::Subscribe).is_err());
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for bytes in [&[3, 0x21, 0, 0][..], &[5, 0x27, 0, 0, 0, 0], &[2, 0x24, 2], &[2, 0x25, 7]] {
            let error = decode(bytes, PacketType::Connack).unwrap_err();
            assert_eq!(error.reason, ReasonCode::PROTOCOL_ERROR, "{bytes:?}");
        }
        assert!(decode(&[2, 0x0b, 0], PacketType::Publish).is_err(), "subscription identifier zero");
        assert_eq!(
            decode(&[2, 0x7f, 0], PacketType::Publish),
            Err(Error::malformed("properties.identifier"))
        );
        assert_eq!(decode(&[9, 0x21], PacketType::Connack), Err(Error::malformed("properties.length")));
    }
}
