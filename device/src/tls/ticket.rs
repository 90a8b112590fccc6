//! Session tickets (RFC 8446 4.6.1).
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use super::handshake::{Level, Message, Next};
use super::message::{self, extension, finish, kind, read_extensions};
use super::{Alert, Config, Error, Step};
use crate::crypto::{CipherSuite, Crypto, Hash, Secret, hkdf, is_erased};
use heapless::Vec;

/// Longest ticket kept, in bytes. Stateless ones carry the server's session state: 100 to 250 bytes with
/// common servers, more if the client showed a certificate. A longer one is ignored.
pub const TICKET_LEN_MAX: usize = 512;
/// Room for what the transport remembers with a ticket, in bytes: QUIC keeps the server's limits for 0-RTT, four numbers.
pub const TICKET_APPLICATION_LEN_MAX: usize = 32;

/// What a later connection needs to resume this one (RFC 8446 4.6.1). Holds a secret; never printed.
#[derive(Clone)]
pub struct Ticket {
    pub(crate) identity: Vec<u8, TICKET_LEN_MAX>,
    pub(crate) psk: Secret,
    pub(crate) suite: CipherSuite,
    pub(crate) age_add: u32,
    pub(crate) lifetime_s: u32,
    pub(crate) received_s: u64,
    pub(crate) max_early_data: u32,
    pub(crate) scope: Scope,
    application: Vec<u8, TICKET_APPLICATION_LEN_MAX>,
}

impl Ticket {
    /// Whether the ticket may still be offered at `unix_time_s`.
    pub const fn is_fresh(&self, unix_time_s: u64) -> bool {
        unix_time_s >= self.received_s && unix_time_s - self.received_s < self.lifetime_s as u64
    }

    /// Whether a connection with `config` may resume: the ticket is fresh, and for the server, the trust, the
    /// protocol and the identity it was earned with.
    pub(super) fn fits<C: Crypto>(&self, config: &Config<'_>) -> bool {
        self.is_fresh(config.unix_time_s)
            && config.cipher_suites.contains(&self.suite)
            && self.scope == Scope::of::<C>(config)
    }

    /// Seconds the ticket may be used after it was received.
    pub const fn lifetime_s(&self) -> u32 {
        self.lifetime_s
    }

    /// Bytes of 0-RTT data the server accepts: 0 for none. QUIC servers say `u32::MAX` and limit by flow
    /// control (RFC 9001 4.6.1).
    pub const fn max_early_data(&self) -> u32 {
        self.max_early_data
    }

    /// What the transport stored with the ticket.
    pub fn application(&self) -> &[u8] {
        &self.application
    }

    /// Stores the transport's own data with the ticket, at most [`TICKET_APPLICATION_LEN_MAX`] bytes.
    ///
    /// # Errors
    /// If `bytes` are longer; what was stored stays.
    pub fn set_application(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let bytes = Vec::from_slice(bytes);
        self.application = bytes.map_err(|_| Error::caller("too much application data for a ticket"))?;
        Ok(())
    }
}

impl core::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Ticket")
            .field("suite", &self.suite)
            .field("lifetime_s", &self.lifetime_s)
            .field("max_early_data", &self.max_early_data)
            .finish_non_exhaustive()
    }
}

/// A ticket just received, borrowing from its message; [`NewTicket::to_ticket`] makes it last.
pub struct NewTicket<'m> {
    pub(crate) identity: &'m [u8],
    pub(crate) psk: Secret,
    pub(crate) suite: CipherSuite,
    pub(crate) age_add: u32,
    pub(crate) lifetime_s: u32,
    pub(crate) received_s: u64,
    /// `None` without the extension.
    pub(crate) max_early_data: Option<u32>,
    pub(crate) scope: Scope,
}

impl NewTicket<'_> {
    /// A copy that lasts, or `None` if the ticket is longer than [`TICKET_LEN_MAX`], or if its lifetime is zero: such a
    /// ticket is to be discarded at once (RFC 8446 4.6.1).
    pub fn to_ticket(&self) -> Option<Ticket> {
        if self.lifetime_s == 0 {
            return None;
        }
        Some(Ticket {
            identity: Vec::from_slice(self.identity).ok()?,
            psk: self.psk.clone(),
            suite: self.suite,
            age_add: self.age_add,
            lifetime_s: self.lifetime_s,
            received_s: self.received_s,
            max_early_data: self.max_early_data(),
            scope: self.scope,
            application: Vec::new(),
        })
    }

    /// Seconds the ticket may be used.
    pub const fn lifetime_s(&self) -> u32 {
        self.lifetime_s
    }

    /// Bytes of 0-RTT data the server accepts: 0 for none.
    pub const fn max_early_data(&self) -> u32 {
        match self.max_early_data {
            Some(max) => max,
            None => 0,
        }
    }
}

impl core::fmt::Debug for NewTicket<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NewTicket")
            .field("len", &self.identity.len())
            .field("lifetime_s", &self.lifetime_s)
            .finish_non_exhaustive()
    }
}

/// Digest of what a ticket was earned with.
///
/// A resumed handshake shows no certificate. So a ticket counts only where the certificate behind it would be
/// accepted again: for the same server name (RFC 8446 4.6.1) and the same trust anchors. 0-RTT needs the same
/// protocol, too (RFC 8446 4.2.10), and a server that resumes still believes the client's former identity.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope([u8; 32]);

impl Scope {
    pub(crate) fn of<C: Crypto>(config: &Config<'_>) -> Self {
        let mut hash = C::Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u32).to_be_bytes());
            hash.update(bytes);
        };
        field(config.server_name.as_bytes());
        field(config.alpn);
        field(config.client_auth.and_then(|client| client.certificates.first().copied()).unwrap_or_default());
        for anchor in config.trust_anchors {
            field(&anchor.subject);
            field(&anchor.subject_public_key_info);
            field(anchor.name_constraints.as_deref().unwrap_or_default());
        }
        let mut digest = [0; 32];
        hash.finish(&mut digest);
        Self(digest)
    }

    /// Enough of it to tell one's own configurations apart.
    pub(crate) fn short(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }
}

/// A complete handshake: the server may give tickets.
#[derive(Clone)]
pub struct Tickets {
    pub(crate) suite: CipherSuite,
    /// The resumption master secret.
    pub(crate) resumption: Secret,
}

impl Tickets {
    /// Handles one whole message, its 4-byte header included, that came under the application's keys.
    ///
    /// # Errors
    /// Of the peer: anything but a well-formed NewSessionTicket.
    pub fn handle_message<'m, C: Crypto>(
        &self,
        config: &Config<'_>,
        message: &'m [u8],
    ) -> Result<Step<'m>, Error> {
        let (kind, body) = message::split(message)?;
        let message = Message { kind, level: Level::Application, body, bytes: message };
        self.handle::<C>(config, &message).map(|(_, step)| step)
    }

    #[inline(never)]
    pub(super) fn handle<'m, C: Crypto>(
        &self,
        config: &Config<'_>,
        message: &Message<'m>,
    ) -> Result<Next<'m>, Error> {
        message.expect(kind::NEW_SESSION_TICKET, Level::Application)?;
        let mut body = message.body.clone();
        let lifetime_s = body.u32("new_session_ticket.lifetime")?;
        let age_add = body.u32("new_session_ticket.age_add")?;
        let nonce = body.vec8("new_session_ticket.nonce")?;
        let identity = body.vec16("new_session_ticket.ticket")?;
        let mut max_early_data = None;
        read_extensions(&mut body, |id, mut value| {
            if id == extension::EARLY_DATA {
                max_early_data = Some(value.u32("early_data.max_size")?);
                finish(&value, "early_data")?;
            }
            Ok(())
        })?;
        if identity.is_empty() {
            return Err(Error::peer(Alert::DECODE_ERROR, "new_session_ticket.ticket"));
        }
        if lifetime_s > LIFETIME_S_MAX {
            return Err(Error::peer(Alert::ILLEGAL_PARAMETER, "a ticket's lifetime exceeds seven days"));
        }
        let hash = self.suite.hash();
        let mut psk = Secret::zero(hash.len());
        hkdf::expand_label::<C>(hash, &self.resumption, b"resumption", nonce, psk.as_mut_bytes());
        let ticket = NewTicket {
            identity,
            psk,
            suite: self.suite,
            age_add,
            lifetime_s,
            received_s: config.unix_time_s,
            max_early_data,
            scope: Scope::of::<C>(config),
        };
        Ok((None, Step::Ticket(ticket)))
    }
}

/// The secrets of tickets are erased with them.
const _: fn(&Ticket, &NewTicket<'_>, &Tickets) = |ticket, new, complete| {
    is_erased(&ticket.psk);
    is_erased(&new.psk);
    is_erased(&complete.resumption);
};

/// Seven days (RFC 8446 4.6.1).
const LIFETIME_S_MAX: u32 = 604_800;
