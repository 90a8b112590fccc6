//! TLS 1.3 client handshake (RFC 8446), for QUIC (RFC 9001) and for records over a byte stream.
//!
//! [`Handshake`] takes whole handshake messages and answers with [`Step`]s: whoever carries the bytes
//! (QUIC's CRYPTO streams, or records) buffers them, so that the certificate chain is verified where it
//! lies. Certificates are always verified; there is no way to switch that off.
//!
//! ```text
//!   start ---> ClientHello                       config: trust anchors, name, ALPN, clock
//!   ServerHello          -> HandshakeKeys        (or HelloRetryRequest -> SecondClientHello)
//!   EncryptedExtensions  -> EncryptedExtensions
//!   Certificate          -> Continue             chain, name, time, key usage
//!   CertificateVerify    -> CertificateVerified
//!   Finished             -> Complete             `out` holds the client's flight
//!   NewSessionTicket     -> Ticket
//! ```
//!
//! Cipher suites: ChaCha20-Poly1305 and AES-128-GCM, with feature `aes256` AES-256-GCM. Key shares: X25519
//! and P-256. Server signatures: ECDSA P-256, with features `p384`, `ed25519` and `rsa` those too. Client
//! certificates: ECDSA P-256.
//!
//! Not supported: TLS 1.2 and older, external pre-shared keys, resumption without a key exchange (psk_ke),
//! authentication after the handshake, revocation (CRL, OCSP), certificate transparency, certificate
//! compression, Encrypted Client Hello, exporters, and 0-RTT over records.

mod certificate;
mod client_hello;
mod config;
mod encrypted_extensions;
mod error;
mod finished;
mod handshake;
mod key_schedule;
mod leaf;
mod message;
pub mod record;
#[cfg(test)]
mod rfc8448;
mod server_hello;
mod ticket;
mod transcript;

#[cfg(feature = "keylog")]
pub use config::KeyLog;
pub use config::{ClientAuth, Config};
pub use error::{Alert, Error, Fault};
pub use handshake::{EarlyData, Handshake, Level, Step, Transport, next_application_secret};
pub(crate) use message::kind::{CERTIFICATE_REQUEST, NEW_SESSION_TICKET};
pub(crate) use ticket::Scope;
pub use ticket::{NewTicket, TICKET_APPLICATION_LEN_MAX, TICKET_LEN_MAX, Ticket, Tickets};

pub use crate::crypto::key_exchange::NamedGroup;
pub use crate::crypto::{CipherSuite, Secret};
pub use pki_types::TrustAnchor;
