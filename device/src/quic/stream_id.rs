//! Stream identifiers (RFC 9000 2.1).

/// A stream: bit 0 says who opened it, bit 1 whether it goes one way only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The `index`-th bidirectional stream that this client opens, counted from 0.
    pub const fn client_bidirectional(index: u64) -> Self {
        Self(index << 2)
    }

    /// Whether the client opened it.
    pub const fn is_client_initiated(self) -> bool {
        self.0 & 1 == 0
    }

    /// Whether both ends send on it.
    pub const fn is_bidirectional(self) -> bool {
        self.0 & 2 == 0
    }

    /// Its number among the streams of its kind, counted from 0.
    pub const fn index(self) -> u64 {
        self.0 >> 2
    }
}
