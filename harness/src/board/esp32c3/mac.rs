//! What names a board: the address burnt into its chip.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = String;

    /// Reads `7c:df:a1:00:00:01`; upper case and `-` will do.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no MAC address of the form 7c:df:a1:00:00:01");
        let mut mac = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut mac {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(mac)) }
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usb_serial_number_is_an_address() {
        let mac: Mac = "7C:DF:A1:00:0B:01".parse().unwrap();
        assert_eq!(mac, Mac([0x7c, 0xdf, 0xa1, 0, 0x0b, 1]));
        assert_eq!(mac.to_string(), "7c:df:a1:00:0b:01");
    }

    #[test]
    fn what_is_no_address_is_named() {
        for text in ["", "7c:df:a1:00:0b", "7c:df:a1:00:0b:01:02", "7c:df:a1:0:0b:01", "xx:df:a1:00:0b:01"] {
            assert!(text.parse::<Mac>().unwrap_err().contains(text));
        }
    }
}
