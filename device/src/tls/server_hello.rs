//! ServerHello and HelloRetryRequest (RFC 8446 4.1.3, 4.1.4).
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use super::client_hello::ClientHello;
use super::encrypted_extensions::ExpectEncryptedExtensions;
use super::handshake::{Common, Level, Message, Next, State};
use super::key_schedule::{early_secret, handshake_secret};
use super::message::{
    LEGACY_VERSION, VERSION_1_3, extension, finish, kind, read_extensions, unexpected_extension,
};
use super::{Alert, CipherSuite, Config, Error, NamedGroup, Secret, Step};
use crate::codec::{Reader, Writer};
use crate::crypto::key_exchange::PrivateKey;
use crate::crypto::{Crypto, hkdf};
use crate::entropy::Entropy;
use heapless::Vec;

/// Longest transport parameters in bytes: a second ClientHello must repeat them. This client's own take
/// about 70, at their longest this much.
pub(super) const TRANSPORT_PARAMETERS_LEN_MAX: usize = 96;

/// A ClientHello is out.
pub(super) struct ExpectServerHello {
    pub(super) random: [u8; 32],
    pub(super) key: PrivateKey,
    pub(super) transport_parameters: Vec<u8, TRANSPORT_PARAMETERS_LEN_MAX, u8>,
    /// The offered PSK's suite; [`Common::secret`] is its early secret.
    pub(super) psk: Option<CipherSuite>,
    /// Whether 0-RTT is offered; [`Common::client`] is the client's early traffic secret then.
    pub(super) early_data: bool,
    /// The suite a HelloRetryRequest named, if there was one.
    pub(super) retried: Option<CipherSuite>,
}

/// A ServerHello or HelloRetryRequest, syntax checked.
struct ServerHello<'m> {
    suite: CipherSuite,
    key_share: Option<Reader<'m>>,
    selected_psk: Option<u16>,
    cookie: Option<&'m [u8]>,
}

impl ExpectServerHello {
    #[inline(never)]
    pub(super) fn handle<'m, C: Crypto>(
        &mut self,
        common: &mut Common<C>,
        config: &Config<'_>,
        entropy: &mut dyn Entropy,
        message: &Message<'m>,
        out: &mut Writer<'_>,
    ) -> Result<Next<'m>, Error> {
        message.expect(kind::SERVER_HELLO, Level::Initial)?;
        let mut body = message.body.clone();
        let is_retry = is_retry(&body);
        let hello = ServerHello::parse(&mut body, config, is_retry)?;
        if self.retried.is_some_and(|suite| suite != hello.suite) {
            return Err(illegal("the server changed the cipher suite after its HelloRetryRequest"));
        }
        if is_retry {
            self.retry(common, config, entropy, message.bytes, &hello, out)
        } else {
            self.accept(common, config, message.bytes, &hello)
        }
    }

    fn accept<'m, C: Crypto>(
        &mut self,
        common: &mut Common<C>,
        config: &Config<'_>,
        message: &[u8],
        hello: &ServerHello<'_>,
    ) -> Result<Next<'m>, Error> {
        let hash = hello.suite.hash();
        let early = match (hello.selected_psk, self.psk) {
            (None, _) => early_secret::<C>(hash, None),
            (Some(0), Some(suite)) if suite.hash() == hash => common.secret.clone(),
            (Some(0), Some(_)) => return Err(illegal("the PSK's hash is not the cipher suite's")),
            (Some(_), Some(_)) => return Err(illegal("the server selected a PSK that was not offered")),
            (Some(_), None) => {
                return Err(Error::peer(
                    Alert::UNSUPPORTED_EXTENSION,
                    "the server resumes what was not offered",
                ));
            }
        };
        let mut share = hello
            .key_share
            .clone()
            .ok_or(Error::peer(Alert::MISSING_EXTENSION, "the ServerHello has no key share"))?;
        if share.u16("key_share.group")? != self.key.group().id() {
            return Err(illegal("the server's key share is of another group than the client's"));
        }
        let public = share.vec16("key_share.key_exchange")?;
        finish(&share, "key_share.length")?;
        let shared =
            self.key.agree(public).ok_or(illegal("the server's key share is no valid public key"))?;

        common.suite = hello.suite;
        common.resumed = hello.selected_psk.is_some();
        common.transcript.choose(hash);
        common.transcript.update(message);
        common.secret = handshake_secret::<C>(hash, &early, &*shared);
        let transcript = common.transcript.hash(hash);
        let derive =
            |label: &[u8]| hkdf::derive_secret::<C>(hash, &common.secret, label, transcript.as_bytes());
        let (client, server) = (derive(b"c hs traffic"), derive(b"s hs traffic"));
        common.log(config, "CLIENT_HANDSHAKE_TRAFFIC_SECRET", &client);
        common.log(config, "SERVER_HANDSHAKE_TRAFFIC_SECRET", &server);
        common.client = client.clone();
        common.server = server.clone();
        let next = ExpectEncryptedExtensions { early_data: self.psk.filter(|_| self.early_data) };
        Ok((
            Some(State::EncryptedExtensions(next)),
            Step::HandshakeKeys { suite: hello.suite, client, server },
        ))
    }

    fn retry<'m, C: Crypto>(
        &mut self,
        common: &mut Common<C>,
        config: &Config<'_>,
        entropy: &mut dyn Entropy,
        message: &[u8],
        hello: &ServerHello<'_>,
        out: &mut Writer<'_>,
    ) -> Result<Next<'m>, Error> {
        if self.retried.is_some() {
            return Err(Error::peer(Alert::UNEXPECTED_MESSAGE, "the server sent a second HelloRetryRequest"));
        }
        if hello.selected_psk.is_some() {
            return Err(unexpected_extension(extension::PRE_SHARED_KEY));
        }
        if let Some(mut share) = hello.key_share.clone() {
            let id = share.u16("key_share.selected_group")?;
            finish(&share, "key_share.length")?;
            let group = NamedGroup::from_id(id).filter(|group| config.groups.contains(group));
            let group = group.ok_or(illegal("the server asks for a group that was not offered"))?;
            if group == self.key.group() {
                return Err(illegal("the server asks for the key share it already has"));
            }
            self.key = new_key(group, entropy)?;
        } else if hello.cookie.is_none() {
            return Err(illegal("the HelloRetryRequest would change nothing"));
        }
        let hash = hello.suite.hash();
        common.transcript.choose(hash);
        common.transcript.restart_with_hash(hash);
        common.transcript.update(message);
        // A PSK that no longer fits the suite's hash is dropped (RFC 8446 4.1.2); a ticket that is no longer
        // lent is dropped too.
        let ticket = config.ticket.filter(|ticket| self.psk.is_some() && ticket.suite.hash() == hash);
        let second = ClientHello {
            random: &self.random,
            key: &self.key,
            transport: common.transport,
            transport_parameters: &self.transport_parameters,
            plaintext_len_max: common.plaintext_len_max,
            cookie: hello.cookie,
            ticket,
            early_data: false,
        };
        let early = second.write(config, &mut common.transcript, out)?;
        self.psk = ticket.filter(|_| early.is_some()).map(|ticket| ticket.suite);
        common.secret = early.unwrap_or(Secret::zero(0));
        common.client = Secret::zero(0);
        self.early_data = false;
        self.retried = Some(hello.suite);
        Ok((None, Step::SecondClientHello))
    }
}

impl<'m> ServerHello<'m> {
    fn parse(body: &mut Reader<'m>, config: &Config<'_>, is_retry: bool) -> Result<Self, Error> {
        if body.u16("server_hello.legacy_version")? != LEGACY_VERSION {
            return Err(Error::peer(Alert::PROTOCOL_VERSION, "the server does not speak TLS 1.3"));
        }
        let random: [u8; 32] = body.array("server_hello.random")?;
        let session_id = body.vec8("server_hello.legacy_session_id_echo")?;
        let suite = body.u16("server_hello.cipher_suite")?;
        let compression = body.u8("server_hello.legacy_compression_method")?;

        let mut version = None;
        let mut key_share = None;
        let mut selected_psk = None;
        let mut cookie = None;
        let mut unexpected = None;
        // A TLS 1.2 ServerHello may end here; it then has no version extension either.
        if !body.is_empty() {
            read_extensions(body, |id, mut value| {
                match id {
                    extension::SUPPORTED_VERSIONS => version = Some(value.u16("supported_versions")?),
                    // Its contents differ between the two messages; the caller reads them.
                    extension::KEY_SHARE => {
                        key_share = Some(value);
                        return Ok(());
                    }
                    extension::PRE_SHARED_KEY => selected_psk = Some(value.u16("pre_shared_key")?),
                    extension::COOKIE if is_retry => cookie = Some(value.vec16("cookie")?),
                    // Not yet an error: a TLS 1.2 server is to be told that it is one.
                    _ => {
                        unexpected = Some(id);
                        return Ok(());
                    }
                }
                finish(&value, "server_hello.extension")
            })?;
        }
        check_version(version, &random)?;
        if let Some(id) = unexpected {
            return Err(unexpected_extension(id));
        }
        if !session_id.is_empty() {
            return Err(illegal("the server echoes a session id that was not sent"));
        }
        if compression != 0 {
            return Err(illegal("the server selected compression"));
        }
        if cookie.is_some_and(<[u8]>::is_empty) {
            return Err(Error::peer(Alert::DECODE_ERROR, "cookie"));
        }
        let suite = CipherSuite::from_id(suite).filter(|suite| config.cipher_suites.contains(suite));
        let suite = suite.ok_or(illegal("the server selected a cipher suite that was not offered"))?;
        Ok(Self { suite, key_share, selected_psk, cookie })
    }
}

/// A server that speaks TLS 1.3 and yet selects less must have been made to (RFC 8446 4.1.3).
fn check_version(version: Option<u16>, random: &[u8; 32]) -> Result<(), Error> {
    match version {
        Some(VERSION_1_3) => Ok(()),
        Some(_) => Err(illegal("the server selected a TLS version that was not offered")),
        None if random.ends_with(b"DOWNGRD\x01") || random.ends_with(b"DOWNGRD\x00") => {
            Err(illegal("someone made the server fall back to an older TLS version"))
        }
        None => Err(Error::peer(Alert::PROTOCOL_VERSION, "the server does not speak TLS 1.3")),
    }
}

fn is_retry(body: &Reader<'_>) -> bool {
    let mut ahead = body.clone();
    ahead.u16("").is_ok() && ahead.array::<32>("").is_ok_and(|random| random == RETRY_RANDOM)
}

/// A fresh key share of `group`.
pub(super) fn new_key(group: NamedGroup, entropy: &mut dyn Entropy) -> Result<PrivateKey, Error> {
    PrivateKey::generate(group, entropy).ok_or(Error::resource("the entropy source returns no usable scalar"))
}

const fn illegal(cause: &'static str) -> Error {
    Error::peer(Alert::ILLEGAL_PARAMETER, cause)
}

/// SHA-256 of "HelloRetryRequest" (RFC 8446 4.1.3).
const RETRY_RANDOM: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];
