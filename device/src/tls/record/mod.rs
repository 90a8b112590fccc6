//! TLS 1.3 over a byte stream (RFC 8446 5).

pub(super) mod size_limit;

pub use size_limit::PLAINTEXT_LEN_MAX;
