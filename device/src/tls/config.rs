use super::ticket::Ticket;
use crate::crypto::CipherSuite;
use crate::crypto::key_exchange::NamedGroup;
use pki_types::TrustAnchor;

/// What the client insists on and offers. A view, built per call; nothing of it is kept in the state.
///
/// It must stay the same (but for the time) from `start` until the handshake is complete.
#[derive(Clone, Copy)]
pub struct Config<'a> {
    /// Whose certificates are believed.
    pub trust_anchors: &'a [TrustAnchor<'a>],
    /// The server's DNS name or IP address: what its certificate must be for. A DNS name is sent as SNI.
    pub server_name: &'a str,
    /// The application protocol, e.g. `mqtt`; empty offers none (RFC 7301). Required with QUIC.
    pub alpn: &'a [u8],
    /// Cipher suites by preference, at least one.
    pub cipher_suites: &'a [CipherSuite],
    /// Groups by preference, at least one. The first gets a key share; another costs a round trip.
    pub groups: &'a [NamedGroup],
    /// The wall clock, in seconds since 1970: for certificate validity and ticket age.
    pub unix_time_s: u64,
    /// The identity to show if the server asks for one.
    pub client_auth: Option<ClientAuth<'a>>,
    /// A ticket of an earlier connection, to be resumed. It is offered only if it is fresh and was earned with the
    /// same server name, trust anchors, protocol and client certificate.
    pub ticket: Option<&'a Ticket>,
    /// Where secrets are logged for a packet analyser.
    #[cfg(feature = "keylog")]
    pub key_log: Option<&'a dyn KeyLog>,
}

impl<'a> Config<'a> {
    /// ChaCha20-Poly1305 before AES-128-GCM, X25519 before P-256, no identity, no ticket.
    ///
    /// ChaCha20-Poly1305 comes first because it costs a third of AES-GCM without AES hardware.
    pub const fn new(
        trust_anchors: &'a [TrustAnchor<'a>],
        server_name: &'a str,
        alpn: &'a [u8],
        unix_time_s: u64,
    ) -> Self {
        Self {
            trust_anchors,
            server_name,
            alpn,
            cipher_suites: DEFAULT_CIPHER_SUITES,
            groups: &[NamedGroup::X25519, NamedGroup::P256],
            unix_time_s,
            client_auth: None,
            ticket: None,
            #[cfg(feature = "keylog")]
            key_log: None,
        }
    }
}

const DEFAULT_CIPHER_SUITES: &[CipherSuite] = &[
    CipherSuite::ChaCha20Poly1305Sha256,
    CipherSuite::Aes128GcmSha256,
    #[cfg(feature = "aes256")]
    CipherSuite::Aes256GcmSha384,
];

/// A client certificate and its ECDSA P-256 key.
#[derive(Clone, Copy)]
pub struct ClientAuth<'a> {
    /// The certificate chain in DER, the client's own certificate first.
    pub certificates: &'a [&'a [u8]],
    /// The private scalar of the first certificate's P-256 key, big-endian.
    pub private_key: &'a [u8; 32],
}

/// Receives secrets in the terms of the NSS key log format. For test builds: who reads them reads the traffic.
#[cfg(feature = "keylog")]
pub trait KeyLog {
    /// `label` is e.g. `CLIENT_HANDSHAKE_TRAFFIC_SECRET`.
    fn log(&self, label: &str, client_random: &[u8; 32], secret: &[u8]);
}
