//! TLS 1.3 over a byte stream (RFC 8446 5), without I/O: the baseline that MQTT over QUIC is compared with.
//!
//! [`TlsStream`] takes the bytes a TCP socket received and has the bytes it should send; a board's socket
//! buffers stay the board's. One record is held at a time, decrypted where it lies. 0-RTT is not offered on
//! records: it would need EndOfEarlyData and a second set of write keys for a baseline that does not use it.

mod key;
mod outgoing;
mod size_limit;
mod stream;

#[cfg(test)]
pub(super) use key::RecordKey;
pub(super) use size_limit::{fragment_code, limit_of_code, write_extensions};
pub use stream::{Closed, TlsStream};

/// Length of a record's header in bytes.
pub const HEADER_LEN: usize = 5;
/// What protection adds to a record's plaintext: header, content type and tag.
pub const OVERHEAD: usize = HEADER_LEN + 1 + crate::crypto::TAG_LEN;
/// Longest plaintext of a record (RFC 8446 5.1).
pub const PLAINTEXT_LEN_MAX: usize = 1 << 14;

/// A default size of the buffer for incoming records: 4,096 bytes of plaintext, the largest value of
/// max_fragment_length below the full size, hold a chain of two P-256 certificates in one record.
pub const INCOMING_LEN: usize = 4096 + OVERHEAD;
/// A default size of the buffer for outgoing records: a ClientHello with a long ticket takes 1 KB, a client
/// certificate with its intermediate 1.5 KB.
pub const OUTGOING_LEN: usize = 2048 + OVERHEAD;

/// Content types of records (RFC 8446 5.1).
mod content {
    pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
    pub(super) const ALERT: u8 = 21;
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const APPLICATION_DATA: u8 = 23;
}
