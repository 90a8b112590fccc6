//! Version Negotiation (RFC 8999 6).
//!
//! ```text
//! 1 U U U U U U U | 0 (4) | len, destination id | len, source id | version (4) *
//! ```

use crate::codec::{DecodeError, Reader};

use super::own_cid;

/// The server speaks these versions and not the one it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VersionNegotiation<'a> {
    /// The server's identifier: the destination of the packet it answers.
    pub source: &'a [u8],
    /// What it speaks.
    pub versions: Versions<'a>,
}

/// A list of versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions<'a>(&'a [u8]);

impl<'a> VersionNegotiation<'a> {
    pub(super) fn parse(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        own_cid(r)?;
        let source = r.vec8("version_negotiation.source_connection_id")?;
        let versions = r.take(r.remaining(), "version_negotiation.versions")?;
        if versions.is_empty() || !versions.len().is_multiple_of(4) {
            return Err(DecodeError { field: "version_negotiation.versions" });
        }
        Ok(Self { source, versions: Versions(versions) })
    }
}

impl Versions<'_> {
    /// Whether `version` is in the list.
    pub fn contains(&self, version: u32) -> bool {
        self.0.chunks_exact(4).any(|bytes| bytes == version.to_be_bytes())
    }
}
