//! Handshake messages out of CRYPTO frames.

use std::collections::BTreeMap;

use device::codec::Reader;
use device::quic::frame::Frame;

/// A CRYPTO stream, as far as it came.
#[derive(Debug, Default)]
pub(super) struct Crypto(BTreeMap<u64, Vec<u8>>);

impl Crypto {
    pub(super) fn take<'f>(&mut self, frames: impl Iterator<Item = Frame<'f>>) {
        for frame in frames {
            if let Frame::Crypto(crypto) = frame {
                let known = self.0.entry(crypto.offset).or_default();
                if known.len() < crypto.data.len() {
                    *known = crypto.data.to_vec();
                }
            }
        }
    }

    /// The bytes from the start on without a gap.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::new();
        for (&offset, data) in &self.0 {
            let Some(known) = (bytes.len() as u64).checked_sub(offset) else { break };
            bytes.extend(data.iter().skip(known as usize));
        }
        bytes
    }

    pub(super) fn messages(&self) -> Vec<(u8, Vec<u8>)> {
        let bytes = self.bytes();
        let mut reader = Reader::new(&bytes);
        let next = || {
            let kind = reader.u8("message.type").ok()?;
            Some((kind, reader.vec24("message.body").ok()?.to_vec()))
        };
        core::iter::from_fn(next).collect()
    }
}
