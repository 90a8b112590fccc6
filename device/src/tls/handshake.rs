use super::{CipherSuite, Config, Error, NewTicket, Secret};
use crate::codec::Writer;
use crate::crypto::{Crypto, hkdf};
use crate::entropy::Entropy;
use core::marker::PhantomData;

/// Which keys protect a handshake message; QUIC's packet number spaces and 0-RTT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// Plaintext records, or Initial packets.
    Initial,
    /// Keys of the early traffic secret: application data only.
    EarlyData,
    /// Keys of the handshake traffic secrets.
    Handshake,
    /// Keys of the application traffic secrets.
    Application,
}

/// Whether 0-RTT data is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EarlyData {
    /// Offer it if the ticket in [`Config::ticket`] allows it.
    Offer,
    /// Do not.
    Omit,
}

/// What a handshake message led to.
#[derive(Debug)]
pub enum Step<'m> {
    /// Nothing to do; feed the next message.
    Continue,
    /// The server sent a HelloRetryRequest: `out` holds the second ClientHello, for [`Level::Initial`].
    /// 0-RTT, if offered, is refused from here on.
    SecondClientHello,
    /// Handshake keys exist, both ways.
    HandshakeKeys {
        /// The negotiated suite.
        suite: CipherSuite,
        /// The client's handshake traffic secret.
        client: Secret,
        /// The server's handshake traffic secret.
        server: Secret,
    },
    /// The server's answer to what was offered.
    EncryptedExtensions {
        /// QUIC's transport parameters; present whenever they were sent.
        transport_parameters: Option<&'m [u8]>,
        /// Whether 0-RTT data counts; if not, it must be sent again.
        early_data_accepted: bool,
    },
    /// The server has proven that it owns a certificate for the configured name.
    CertificateVerified,
    /// The handshake is complete: `out` holds the client's last flight, for [`Level::Handshake`].
    Complete {
        /// The negotiated suite.
        suite: CipherSuite,
        /// The client's first application traffic secret.
        client: Secret,
        /// The server's first application traffic secret.
        server: Secret,
    },
    /// A ticket to resume with later.
    Ticket(NewTicket<'m>),
}

/// The client's side of one handshake.
pub struct Handshake<C: Crypto> {
    crypto: PhantomData<C>,
}

impl<C: Crypto> Handshake<C> {
    /// Starts a handshake and writes the ClientHello message, for [`Level::Initial`].
    ///
    /// `transport_parameters` are QUIC's, already encoded; `None` means TLS over records.
    ///
    /// # Errors
    /// If the configuration cannot be offered or `out` is too small.
    pub fn start(
        _config: &Config<'_>,
        _entropy: &mut dyn Entropy,
        _transport_parameters: Option<&[u8]>,
        _early_data: EarlyData,
        _out: &mut Writer<'_>,
    ) -> Result<Self, Error> {
        Err(Error::caller("not reachable yet"))
    }

    /// The client's early traffic secret, if 0-RTT data was offered, and the suite it is for.
    pub fn early_secret(&self) -> Option<(CipherSuite, &Secret)> {
        None
    }

    /// Whether the session was resumed; known with [`Step::HandshakeKeys`].
    pub fn is_resumed(&self) -> bool {
        false
    }

    /// Handles one whole message, its 4-byte header included, that arrived at `level`.
    ///
    /// # Errors
    /// The handshake has failed; every later call fails too.
    pub fn handle_message<'m>(
        &mut self,
        _config: &Config<'_>,
        _entropy: &mut dyn Entropy,
        _level: Level,
        _message: &'m [u8],
        _out: &mut Writer<'_>,
    ) -> Result<Step<'m>, Error> {
        Err(Error::caller("not reachable yet"))
    }
}

/// What carries the handshake and, later, the data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// QUIC (RFC 9001).
    Quic,
    /// TLS records over a byte stream (RFC 8446 5).
    Records,
}

/// The application traffic secret after a key update (RFC 8446 7.2; RFC 9001 6.1).
pub fn next_application_secret<C: Crypto>(
    transport: Transport,
    suite: CipherSuite,
    secret: &Secret,
) -> Secret {
    let label: &[u8] = match transport {
        Transport::Quic => b"quic ku",
        Transport::Records => b"traffic upd",
    };
    hkdf::derive_secret::<C>(suite.hash(), secret, label, &[])
}
