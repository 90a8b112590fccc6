//! UNSUBSCRIBE and UNSUBACK (MQTT 5.0 3.10, 3.11, MQTT 3.1.1 likewise): ends subscriptions.
//!
//! ```text
//! UNSUBSCRIBE: Packet Identifier (2 bytes), [Properties], { Topic Filter (string) }+
//! UNSUBACK:    Packet Identifier (2 bytes), [Properties], [{ Reason Code (1 byte) }+]
//! ```
//!
//! UNSUBACK has reason codes in 5.0 only.

use super::{PacketType, Properties, framed, packet_id, properties, put_properties, put_string, string};
use crate::codec::{NoSpace, Reader, Writer};
use crate::mqtt::{Error, PacketId, ReasonCode, Version, topic};

/// Ends subscriptions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsubscribe<'a> {
    /// Identifies the request.
    pub id: PacketId,
    /// Properties (5.0).
    pub properties: Properties<'a>,
    /// At least one filter.
    pub filters: Names<'a>,
}

/// The filters of an UNSUBSCRIBE: a list to be sent, or validated bytes that came.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a>(Source<'a>);

#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    List(&'a [&'a str]),
    Wire(&'a [u8]),
}

impl<'a> Names<'a> {
    /// These filters.
    pub const fn of(list: &'a [&'a str]) -> Self {
        Self(Source::List(list))
    }

    /// The filters in their order.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let (list, bytes) = match self.0 {
            Source::List(list) => (list, &[][..]),
            Source::Wire(bytes) => (&[][..], bytes),
        };
        let mut wire = Reader::new(bytes);
        list.iter().copied().chain(core::iter::from_fn(move || filter(&mut wire).ok()))
    }
}

impl PartialEq for Names<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Names<'_> {}

fn filter<'a>(r: &mut Reader<'a>) -> Result<&'a str, Error> {
    let filter = string(r, "unsubscribe.filter")?;
    if topic::is_topic_filter(filter) {
        Ok(filter)
    } else {
        Err(Error { reason: ReasonCode::TOPIC_FILTER_INVALID, field: "unsubscribe.filter" })
    }
}

impl<'a> Unsubscribe<'a> {
    /// Decodes the packet without its fixed header.
    ///
    /// # Errors
    /// `TOPIC_FILTER_INVALID`, malformed or protocol error.
    pub fn decode(body: &'a [u8], version: Version) -> Result<Self, Error> {
        let mut r = Reader::new(body);
        let id = packet_id(&mut r, "unsubscribe.packet_id")?;
        let properties = properties(&mut r, PacketType::Unsubscribe, version)?;
        if r.is_empty() {
            return Err(Error::protocol("unsubscribe.filters"));
        }
        let bytes = r.rest();
        while !r.is_empty() {
            filter(&mut r)?;
        }
        Ok(Self { id, properties, filters: Names(Source::Wire(bytes)) })
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
        mut filters: impl Iterator<Item = &'f str>,
        version: Version,
        w: &mut Writer<'_>,
    ) -> Result<(), NoSpace> {
        framed(w, PacketType::Unsubscribe.first_byte(), 0, |w| {
            w.u16(id.value())?;
            put_properties(w, properties, version)?;
            filters.try_for_each(|filter| put_string(w, filter))
        })
    }
}

/// Answers UNSUBSCRIBE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsuback<'a> {
    /// Of which request.
    pub id: PacketId,
    /// Properties (5.0).
    pub properties: Properties<'a>,
    /// One reason code for each filter (5.0), none in 3.1.1.
    pub codes: &'a [u8],
}

impl<'a> Unsuback<'a> {
    /// Decodes the packet without its fixed header.
    ///
    /// # Errors
    /// Malformed or protocol error.
    pub fn decode(body: &'a [u8], version: Version) -> Result<Self, Error> {
        let mut r = Reader::new(body);
        let id = packet_id(&mut r, "unsuback.packet_id")?;
        let properties = properties(&mut r, PacketType::Unsuback, version)?;
        match version {
            Version::V3_1_1 => super::empty(r.rest(), "unsuback")?,
            Version::V5 if r.is_empty() => return Err(Error::protocol("unsuback.codes")),
            Version::V5 => {}
        }
        Ok(Self { id, properties, codes: r.rest() })
    }

    /// Encodes the packet.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn encode(&self, version: Version, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        framed(w, PacketType::Unsuback.first_byte(), 0, |w| {
            w.u16(self.id.value())?;
            put_properties(w, self.properties, version)?;
            match version {
                Version::V3_1_1 => Ok(()),
                Version::V5 => w.put(self.codes),
            }
        })
    }
}
