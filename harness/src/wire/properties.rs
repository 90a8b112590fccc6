//! MQTT 5.0 properties (2.2.2), kept as they lie on the wire.

use super::{Malformed, Reader, put_binary, put_varint};

/// Property identifiers (MQTT 5.0 table 2-4) the harness uses.
pub mod property {
    /// Session Expiry Interval, u32.
    pub const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    /// Assigned Client Identifier, string.
    pub const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    /// Server Keep Alive, u16.
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    /// Reason String, string.
    pub const REASON_STRING: u8 = 0x1f;
    /// Receive Maximum, u16.
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    /// Topic Alias Maximum, u16.
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    /// Topic Alias, u16.
    pub const TOPIC_ALIAS: u8 = 0x23;
    /// User Property, pair of strings.
    pub const USER_PROPERTY: u8 = 0x26;
    /// Maximum Packet Size, u32.
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
}

/// The encoded properties of one packet, without their length.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Properties(Vec<u8>);

impl Properties {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a property of two bytes.
    #[must_use]
    pub fn with_u16(mut self, id: u8, value: u16) -> Self {
        self.0.push(id);
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Adds a property of four bytes.
    #[must_use]
    pub fn with_u32(mut self, id: u8, value: u32) -> Self {
        self.0.push(id);
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Adds a property of a string.
    #[must_use]
    pub fn with_string(mut self, id: u8, value: &str) -> Self {
        self.0.push(id);
        put_binary(&mut self.0, value.as_bytes());
        self
    }

    /// Adds a user property.
    #[must_use]
    pub fn with_user(mut self, name: &str, value: &str) -> Self {
        self.0.push(property::USER_PROPERTY);
        put_binary(&mut self.0, name.as_bytes());
        put_binary(&mut self.0, value.as_bytes());
        self
    }

    /// The first value of a property of two bytes.
    #[must_use]
    pub fn u16(&self, id: u8) -> Option<u16> {
        let value = self.iter().find(|(found, _)| *found == id)?.1;
        Some(u16::from_be_bytes(value.try_into().ok()?))
    }

    /// The first value of a property of four bytes.
    #[must_use]
    pub fn u32(&self, id: u8) -> Option<u32> {
        let value = self.iter().find(|(found, _)| *found == id)?.1;
        Some(u32::from_be_bytes(value.try_into().ok()?))
    }

    /// The first value of a property of a string.
    #[must_use]
    pub fn string(&self, id: u8) -> Option<&str> {
        let value = self.iter().find(|(found, _)| *found == id)?.1;
        std::str::from_utf8(value.get(2..)?).ok()
    }

    /// The value of the first user property of this name.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&str> {
        self.iter().find_map(|(id, value)| {
            if id != property::USER_PROPERTY {
                return None;
            }
            let mut reader = Reader(value);
            (reader.string("name").ok()? == name).then(|| reader.string("value").ok()).flatten()
        })
    }

    /// The same properties without the user properties whose name `unwanted` picks.
    #[must_use]
    pub fn without_user(&self, unwanted: impl Fn(&str) -> bool) -> Self {
        let mut kept = Vec::with_capacity(self.0.len());
        for (id, value) in self.iter() {
            let name = (id == property::USER_PROPERTY).then(|| Reader(value).string("name").ok()).flatten();
            if !name.is_some_and(&unwanted) {
                kept.push(id);
                kept.extend_from_slice(value);
            }
        }
        Self(kept)
    }

    /// Identifier and encoded value of each property, in order.
    fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut reader = Reader(&self.0);
        std::iter::from_fn(move || {
            let id = reader.u8("property.id").ok()?;
            let length = value_length(id, reader.0).ok()?;
            Some((id, reader.take(length, "property.value").ok()?))
        })
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let length = reader.varint("properties.length")?;
        let bytes = reader.take(length, "properties")?;
        let mut rest = Reader(bytes);
        while !rest.is_empty() {
            let id = rest.u8("property.id")?;
            let length = value_length(id, rest.0)?;
            rest.take(length, "property.value")?;
        }
        Ok(Self(bytes.to_vec()))
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.0.len());
        out.extend_from_slice(&self.0);
    }
}

/// How many bytes the value of property `id` takes at the start of `bytes` (MQTT 5.0 table 2-4).
fn value_length(id: u8, bytes: &[u8]) -> Result<usize, Malformed> {
    let mut reader = Reader(bytes);
    match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => Ok(1),
        0x13 | 0x21 | 0x22 | 0x23 => Ok(2),
        0x02 | 0x11 | 0x18 | 0x27 => Ok(4),
        0x0b => {
            reader.varint("property.varint")?;
            Ok(bytes.len() - reader.0.len())
        }
        0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => {
            Ok(2 + reader.binary("property.string")?.len())
        }
        0x26 => {
            let name = reader.binary("property.name")?.len();
            let value = reader.binary("property.value")?.len();
            Ok(4 + name + value)
        }
        _ => Err(Malformed("property.id")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_properties_are_removed_by_name_and_others_kept_in_order() {
        let properties = Properties::default()
            .with_u16(property::TOPIC_ALIAS, 3)
            .with_user("x-drop", "1")
            .with_user("keep", "2")
            .with_user("x-drop", "3")
            .with_string(property::REASON_STRING, "why");
        let kept = properties.without_user(|name| name == "x-drop");
        assert_eq!(kept.u16(property::TOPIC_ALIAS), Some(3));
        assert_eq!(kept.user("keep"), Some("2"));
        assert_eq!(kept.user("x-drop"), None);
        assert_eq!(kept.string(property::REASON_STRING), Some("why"));
    }

    #[test]
    fn unknown_and_cut_properties_are_malformed() {
        assert_eq!(Properties::read(&mut Reader(&[1, 0x7f])), Err(Malformed("property.id")));
        assert_eq!(Properties::read(&mut Reader(&[2, 0x21, 0x00])), Err(Malformed("property.value")));
        assert_eq!(Properties::read(&mut Reader(&[5, 0x21])), Err(Malformed("properties")));
    }
}
