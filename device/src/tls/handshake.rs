use super::certificate::{ExpectCertificate, ExpectCertificateVerify};
use super::client_hello::ClientHello;
use super::encrypted_extensions::ExpectEncryptedExtensions;
use super::finished::ExpectFinished;
use super::server_hello::{ExpectServerHello, new_key};
use super::ticket::Tickets;
use super::transcript::Transcript;
use super::{Alert, CipherSuite, Config, Error, NewTicket, Secret, message, record};
use crate::codec::{Reader, Writer};
use crate::crypto::{Crypto, hkdf, is_erased};
use crate::entropy::Entropy;
use crate::redacted::Opaque;
use heapless::Vec;

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
        /// With records: the longest plaintext the server takes, its content type included (RFC 8449).
        record_size_limit: Option<u16>,
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

/// Among the server's transport parameters is a stateless reset token.
impl core::fmt::Debug for Step<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Continue => f.write_str("Continue"),
            Self::SecondClientHello => f.write_str("SecondClientHello"),
            Self::HandshakeKeys { suite, .. } => {
                f.debug_struct("HandshakeKeys").field("suite", suite).finish_non_exhaustive()
            }
            Self::EncryptedExtensions { transport_parameters, early_data_accepted, record_size_limit } => f
                .debug_struct("EncryptedExtensions")
                .field("transport_parameters", &transport_parameters.map(Opaque))
                .field("early_data_accepted", early_data_accepted)
                .field("record_size_limit", record_size_limit)
                .finish(),
            Self::CertificateVerified => f.write_str("CertificateVerified"),
            Self::Complete { suite, .. } => {
                f.debug_struct("Complete").field("suite", suite).finish_non_exhaustive()
            }
            Self::Ticket(ticket) => f.debug_tuple("Ticket").field(ticket).finish(),
        }
    }
}

/// The client's side of one handshake.
pub struct Handshake<C: Crypto> {
    pub(super) state: State,
    pub(super) common: Common<C>,
}

impl<C: Crypto> Handshake<C> {
    /// Starts a handshake and writes the ClientHello message, for [`Level::Initial`].
    ///
    /// `transport_parameters` are QUIC's, already encoded; `None` means TLS over records, where 0-RTT is not
    /// offered whatever `early_data` says.
    ///
    /// # Errors
    /// If the configuration cannot be offered or `out` is too small.
    pub fn start(
        config: &Config<'_>,
        entropy: &mut dyn Entropy,
        transport_parameters: Option<&[u8]>,
        early_data: EarlyData,
        out: &mut Writer<'_>,
    ) -> Result<Self, Error> {
        let transport = if transport_parameters.is_some() { Transport::Quic } else { Transport::Records };
        let mut handshake = Self::new(transport, record::PLAINTEXT_LEN_MAX as u16);
        handshake.begin(config, entropy, transport_parameters.unwrap_or_default(), early_data, out)?;
        Ok(handshake)
    }

    /// Starts a handshake over records of at most `plaintext_len_max` bytes.
    pub(super) fn start_records(
        config: &Config<'_>,
        entropy: &mut dyn Entropy,
        plaintext_len_max: u16,
        out: &mut Writer<'_>,
    ) -> Result<Self, Error> {
        let mut handshake = Self::new(Transport::Records, plaintext_len_max);
        handshake.begin(config, entropy, &[], EarlyData::Omit, out)?;
        Ok(handshake)
    }

    fn new(transport: Transport, plaintext_len_max: u16) -> Self {
        Self { state: State::Failed, common: Common::new(transport, plaintext_len_max) }
    }

    fn begin(
        &mut self,
        config: &Config<'_>,
        entropy: &mut dyn Entropy,
        transport_parameters: &[u8],
        early_data: EarlyData,
        out: &mut Writer<'_>,
    ) -> Result<(), Error> {
        let common = &mut self.common;
        let (Some(&group), false) = (config.groups.first(), config.cipher_suites.is_empty()) else {
            return Err(Error::caller("the configuration names no group or no cipher suite"));
        };
        let ticket = config.ticket.filter(|ticket| ticket.fits::<C>(config));
        let early_data = early_data == EarlyData::Offer
            && common.transport == Transport::Quic
            && ticket.is_some_and(|ticket| ticket.max_early_data > 0);
        let mut state = ExpectServerHello {
            random: [0; 32],
            key: new_key(group, entropy)?,
            transport_parameters: Vec::from_slice(transport_parameters)
                .map_err(|_| Error::caller("the transport parameters are too long to be repeated"))?,
            psk: None,
            early_data: false,
            retried: None,
        };
        entropy.fill(&mut state.random);
        #[cfg(feature = "keylog")]
        {
            common.client_random = state.random;
        }
        let hello = ClientHello {
            random: &state.random,
            key: &state.key,
            transport: common.transport,
            plaintext_len_max: common.plaintext_len_max,
            transport_parameters: &state.transport_parameters,
            cookie: None,
            ticket,
            early_data,
        };
        let early = hello.write(config, &mut common.transcript, out)?;
        if let Some((suite, early)) = ticket.map(|ticket| ticket.suite).zip(early) {
            state.psk = Some(suite);
            if early_data {
                let hash = suite.hash();
                let transcript = common.transcript.hash(hash);
                common.client = hkdf::derive_secret::<C>(hash, &early, b"c e traffic", transcript.as_bytes());
                common.log(config, "CLIENT_EARLY_TRAFFIC_SECRET", &common.client);
                state.early_data = true;
            }
            common.secret = early;
        }
        self.state = State::ServerHello(state);
        Ok(())
    }

    /// The client's early traffic secret, if 0-RTT data is offered, and the suite it is for.
    pub fn early_secret(&self) -> Option<(CipherSuite, &Secret)> {
        let State::ServerHello(state) = &self.state else { return None };
        state.psk.filter(|_| state.early_data).map(|suite| (suite, &self.common.client))
    }

    /// Whether the session was resumed; known with [`Step::HandshakeKeys`].
    pub const fn is_resumed(&self) -> bool {
        self.common.resumed
    }

    /// What is left to do once the handshake is complete; `None` before.
    pub fn tickets(&self) -> Option<Tickets> {
        let State::Connected(tickets) = &self.state else { return None };
        Some(tickets.clone())
    }

    /// Handles one whole message, its 4-byte header included, that arrived at `level`.
    ///
    /// # Errors
    /// The handshake has failed; every later call fails too.
    pub fn handle_message<'m>(
        &mut self,
        config: &Config<'_>,
        entropy: &mut dyn Entropy,
        level: Level,
        message: &'m [u8],
        out: &mut Writer<'_>,
    ) -> Result<Step<'m>, Error> {
        match self.dispatch(config, entropy, level, message, out) {
            Ok((next, step)) => {
                if let Some(next) = next {
                    self.state = next;
                }
                Ok(step)
            }
            Err(error) => {
                self.state = State::Failed;
                Err(error)
            }
        }
    }

    /// Each state's handler has a frame of its own: inlined here, all of them together would lie under the chain's
    /// verification, which needs the stack most.
    fn dispatch<'m>(
        &mut self,
        config: &Config<'_>,
        entropy: &mut dyn Entropy,
        level: Level,
        message: &'m [u8],
        out: &mut Writer<'_>,
    ) -> Result<Next<'m>, Error> {
        let (kind, body) = message::split(message)?;
        let message = Message { kind, level, body, bytes: message };
        let common = &mut self.common;
        match &mut self.state {
            State::ServerHello(state) => state.handle(common, config, entropy, &message, out),
            State::EncryptedExtensions(state) => state.handle(common, config, &message),
            State::Certificate(state) => state.handle(common, config, &message),
            State::CertificateVerify(state) => state.handle(common, &message),
            State::Finished(state) => state.handle(common, config, entropy, &message, out),
            State::Connected(tickets) => tickets.handle::<C>(config, &message),
            State::Failed => Err(Error::caller("the handshake has already failed")),
        }
    }
}

/// What the client waits for.
#[cfg_attr(
    feature = "rsa",
    expect(clippy::large_enum_variant, reason = "there is no heap to box an RSA key")
)]
pub(super) enum State {
    ServerHello(ExpectServerHello),
    EncryptedExtensions(ExpectEncryptedExtensions),
    Certificate(ExpectCertificate),
    CertificateVerify(ExpectCertificateVerify),
    Finished(ExpectFinished),
    Connected(Tickets),
    Failed,
}

/// The next state, if it changes, and what to tell the caller.
pub(super) type Next<'m> = (Option<State>, Step<'m>);

/// What every state needs.
pub(super) struct Common<C: Crypto> {
    pub(super) transport: Transport,
    /// With records: the longest plaintext the client takes.
    pub(super) plaintext_len_max: u16,
    /// The negotiated suite, from the ServerHello on.
    pub(super) suite: CipherSuite,
    pub(super) resumed: bool,
    pub(super) transcript: Transcript<C>,
    /// The Early Secret of an offered PSK, then the Handshake Secret.
    pub(super) secret: Secret,
    /// The client's early traffic secret if 0-RTT is offered, then its handshake traffic secret.
    pub(super) client: Secret,
    /// The server's handshake traffic secret.
    pub(super) server: Secret,
    /// What tells the connections in a key log apart.
    #[cfg(feature = "keylog")]
    pub(super) client_random: [u8; 32],
}

impl<C: Crypto> Common<C> {
    pub(super) fn new(transport: Transport, plaintext_len_max: u16) -> Self {
        Self {
            transport,
            plaintext_len_max,
            suite: CipherSuite::Aes128GcmSha256,
            resumed: false,
            transcript: Transcript::new(),
            secret: Secret::zero(0),
            client: Secret::zero(0),
            server: Secret::zero(0),
            #[cfg(feature = "keylog")]
            client_random: [0; 32],
        }
    }

    /// Erases the secrets that only the handshake needed.
    pub(super) fn forget_handshake_secrets(&mut self) {
        self.secret = Secret::zero(0);
        self.client = Secret::zero(0);
        self.server = Secret::zero(0);
    }

    /// Hands a secret to the key log, if this build has one.
    #[cfg(feature = "keylog")]
    pub(super) fn log(&self, config: &Config<'_>, label: &str, secret: &Secret) {
        if let Some(key_log) = config.key_log {
            key_log.log(label, &self.client_random, secret.as_bytes());
        }
    }

    /// Hands a secret to the key log, if this build has one.
    #[cfg(not(feature = "keylog"))]
    pub(super) fn log(&self, _config: &Config<'_>, _label: &str, _secret: &Secret) {}
}

/// One handshake message, framed.
pub(super) struct Message<'m> {
    pub(super) kind: u8,
    pub(super) level: Level,
    pub(super) body: Reader<'m>,
    /// All of it, header included, as the transcript wants it.
    pub(super) bytes: &'m [u8],
}

impl Message<'_> {
    /// Fails unless this is the message that must come now, under the right keys.
    pub(super) fn expect(&self, kind: u8, level: Level) -> Result<(), Error> {
        if self.kind != kind {
            return Err(Error::peer(Alert::UNEXPECTED_MESSAGE, "a handshake message out of order"));
        }
        if self.level != level {
            let cause = "a handshake message under the wrong keys";
            return Err(Error::peer(Alert::UNEXPECTED_MESSAGE, cause));
        }
        Ok(())
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

/// What a handshake keeps secret is erased with the state that needs it.
const fn _erases<C: Crypto>(hello: &ExpectServerHello, common: &Common<C>) {
    is_erased(&hello.key);
    is_erased(&common.secret);
    is_erased(&common.client);
    is_erased(&common.server);
}
