//! SUBSCRIBE and SUBACK (MQTT 5.0 3.8, 3.9, MQTT 3.1.1 likewise): asks for messages, and the answer.
//!
//! ```text
//! SUBSCRIBE: Packet Identifier (2 bytes), [Properties], { Topic Filter (string), Options (1 byte) }+
//! SUBACK:    Packet Identifier (2 bytes), [Properties], { Reason Code (1 byte) }+
//! ```

use super::{PacketType, Properties, framed, packet_id, properties, put_properties, put_string, string};
use crate::codec::{NoSpace, Reader, Writer};
use crate::mqtt::{Error, Filter, PacketId, Qos, ReasonCode, RetainHandling, Version, topic};

/// Asks for messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscribe<'a> {
    /// Identifies the request.
    pub id: PacketId,
    /// Properties (5.0).
    pub properties: Properties<'a>,
    /// At least one filter.
    pub filters: Filters<'a>,
}

/// The filters of a SUBSCRIBE: a list to be sent, or validated bytes that came.
#[derive(Clone, Copy, Debug)]
pub struct Filters<'a>(Source<'a>);

#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    List(&'a [Filter<'a>]),
    Wire(&'a [u8], Version),
}

impl<'a> Filters<'a> {
    /// These filters.
    pub const fn of(list: &'a [Filter<'a>]) -> Self {
        Self(Source::List(list))
    }

    /// The filters in their order.
    pub fn iter(&self) -> impl Iterator<Item = Filter<'a>> + use<'a> {
        let (list, bytes, version) = match self.0 {
            Source::List(list) => (list, &[][..], Version::V5),
            Source::Wire(bytes, version) => (&[][..], bytes, version),
        };
        let mut wire = Reader::new(bytes);
        list.iter().copied().chain(core::iter::from_fn(move || Filter::decode(&mut wire, version).ok()))
    }

    fn decode(bytes: &'a [u8], version: Version) -> Result<Self, Error> {
        let mut r = Reader::new(bytes);
        Filter::decode(&mut r, version)?;
        while !r.is_empty() {
            Filter::decode(&mut r, version)?;
        }
        Ok(Self(Source::Wire(bytes, version)))
    }
}

impl PartialEq for Filters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Filters<'_> {}

const NO_LOCAL: u8 = 1 << 2;
const RETAIN_AS_PUBLISHED: u8 = 1 << 3;
const RETAIN_HANDLING_SHIFT: u8 = 4;

impl<'a> Filter<'a> {
    fn decode(r: &mut Reader<'a>, version: Version) -> Result<Self, Error> {
        let filter = string(r, "subscribe.filter")?;
        if !topic::is_topic_filter(filter) {
            return Err(Error { reason: ReasonCode::TOPIC_FILTER_INVALID, field: "subscribe.filter" });
        }
        let parsed = Self::from_options(filter, r.u8("subscribe.options")?)?;
        if version == Version::V3_1_1 && parsed.options(Version::V5) != parsed.qos.bits() {
            return Err(Error::malformed("subscribe.options"));
        }
        // No Local on a shared subscription is a protocol error (MQTT-3.8.3-4).
        if parsed.no_local && filter.starts_with("$share/") {
            return Err(Error::protocol("subscribe.no_local"));
        }
        Ok(parsed)
    }

    /// From the byte of options.
    pub(in crate::mqtt) fn from_options(filter: &'a str, options: u8) -> Result<Self, Error> {
        let field = "subscribe.options";
        let retain_handling = match options >> RETAIN_HANDLING_SHIFT {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            3 => return Err(Error::protocol(field)),
            _ => return Err(Error::malformed(field)),
        };
        Ok(Self {
            filter,
            qos: Qos::from_bits(options & 3).ok_or(Error::malformed(field))?,
            no_local: options & NO_LOCAL != 0,
            retain_as_published: options & RETAIN_AS_PUBLISHED != 0,
            retain_handling,
        })
    }

    /// The byte of options.
    pub(in crate::mqtt) const fn options(&self, version: Version) -> u8 {
        let mut options = self.qos.bits();
        if matches!(version, Version::V5) {
            if self.no_local {
                options |= NO_LOCAL;
            }
            if self.retain_as_published {
                options |= RETAIN_AS_PUBLISHED;
            }
            options |= (self.retain_handling as u8) << RETAIN_HANDLING_SHIFT;
        }
        options
    }
}

impl<'a> Subscribe<'a> {
    /// Decodes the packet without its fixed header.
    ///
    /// # Errors
    /// `TOPIC_FILTER_INVALID`, malformed or protocol error.
    pub fn decode(body: &'a [u8], version: Version) -> Result<Self, Error> {
        let mut r = Reader::new(body);
        let id = packet_id(&mut r, "subscribe.packet_id")?;
        let properties = properties(&mut r, PacketType::Subscribe, version)?;
        if r.is_empty() {
            return Err(Error::protocol("subscribe.filters"));
        }
        Ok(Self { id, properties, filters: Filters::decode(r.rest(), version)? })
    }

    /// Encodes the packet.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn encode(&self, version: Version, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        Self::encode_filters(self.id, self.properties, self.filters.iter(), version, w)
    }

    /// Encodes a packet of filters from anywhere.
    pub(in crate::mqtt) fn encode_filters<'f>(
        id: PacketId,
        properties: Properties<'_>,
        mut filters: impl Iterator<Item = Filter<'f>>,
        version: Version,
        w: &mut Writer<'_>,
    ) -> Result<(), NoSpace> {
        framed(w, PacketType::Subscribe.first_byte(), 0, |w| {
            w.u16(id.value())?;
            put_properties(w, properties, version)?;
            filters.try_for_each(|filter| {
                put_string(w, filter.filter)?;
                w.u8(filter.options(version))
            })
        })
    }
}

/// Answers SUBSCRIBE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Suback<'a> {
    /// Of which request.
    pub id: PacketId,
    /// Properties (5.0).
    pub properties: Properties<'a>,
    /// For each filter the granted QoS, or a failure.
    pub codes: &'a [u8],
}

impl<'a> Suback<'a> {
    /// Decodes the packet without its fixed header.
    ///
    /// # Errors
    /// Malformed or protocol error.
    pub fn decode(body: &'a [u8], version: Version) -> Result<Self, Error> {
        let mut r = Reader::new(body);
        let id = packet_id(&mut r, "suback.packet_id")?;
        let properties = properties(&mut r, PacketType::Suback, version)?;
        if r.is_empty() {
            return Err(Error::protocol("suback.codes"));
        }
        // 3.1.1 knows 0, 1, 2 and 0x80; so does 5.0, and more failures.
        if r.rest().iter().any(|&code| (3..0x80).contains(&code)) {
            return Err(Error::protocol("suback.codes"));
        }
        Ok(Self { id, properties, codes: r.rest() })
    }

    /// Encodes the packet.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn encode(&self, version: Version, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        framed(w, PacketType::Suback.first_byte(), 0, |w| {
            w.u16(self.id.value())?;
            put_properties(w, self.properties, version)?;
            w.put(self.codes)
        })
    }
}
