//! Session tickets (RFC 8446 4.6.1).

use super::handshake::{Common, Level, Message, Next};
use super::message::{extension, finish, kind, read_extensions};
use super::{Alert, Config, Error, Step};
use crate::crypto::{CipherSuite, Crypto, Secret, hkdf};
use heapless::Vec;

/// Longest ticket kept, in bytes. Stateless ones carry the server's session state: 100 to 250 bytes with
/// common servers, more if the client showed a certificate. A longer one is ignored.
pub const TICKET_LEN_MAX: usize = 512;
/// Longest application protocol a ticket remembers, in bytes; 0-RTT is not offered with a longer one.
pub const TICKET_ALPN_LEN_MAX: usize = 16;
/// Room for what the transport remembers with a ticket, in bytes: QUIC keeps the server's limits for 0-RTT.
pub const TICKET_APPLICATION_LEN_MAX: usize = 64;

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
    pub(crate) alpn: Vec<u8, TICKET_ALPN_LEN_MAX>,
    application: Vec<u8, TICKET_APPLICATION_LEN_MAX>,
}

impl Ticket {
    /// Whether the ticket may still be offered at `unix_time_s`.
    pub const fn is_fresh(&self, unix_time_s: u64) -> bool {
        unix_time_s >= self.received_s && unix_time_s - self.received_s < self.lifetime_s as u64
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
    pub(crate) max_early_data: u32,
    pub(crate) alpn: Vec<u8, TICKET_ALPN_LEN_MAX>,
}

impl NewTicket<'_> {
    /// A copy that lasts, or `None` if the ticket is longer than [`TICKET_LEN_MAX`].
    pub fn to_ticket(&self) -> Option<Ticket> {
        Some(Ticket {
            identity: Vec::from_slice(self.identity).ok()?,
            psk: self.psk.clone(),
            suite: self.suite,
            age_add: self.age_add,
            lifetime_s: self.lifetime_s,
            received_s: self.received_s,
            max_early_data: self.max_early_data,
            alpn: self.alpn.clone(),
            application: Vec::new(),
        })
    }

    /// Seconds the ticket may be used.
    pub const fn lifetime_s(&self) -> u32 {
        self.lifetime_s
    }

    /// Bytes of 0-RTT data the server accepts: 0 for none.
    pub const fn max_early_data(&self) -> u32 {
        self.max_early_data
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

/// The handshake is complete; the server may give tickets.
pub(super) struct ExpectTicket {
    /// The resumption master secret.
    pub(super) resumption: Secret,
}

impl ExpectTicket {
    pub(super) fn handle<'m, C: Crypto>(
        &self,
        common: &Common<C>,
        config: &Config<'_>,
        message: &Message<'m>,
    ) -> Result<Next<'m>, Error> {
        message.expect(kind::NEW_SESSION_TICKET, Level::Application)?;
        let mut body = message.body.clone();
        let lifetime_s = body.u32("new_session_ticket.lifetime")?;
        let age_add = body.u32("new_session_ticket.age_add")?;
        let nonce = body.vec8("new_session_ticket.nonce")?;
        let identity = body.vec16("new_session_ticket.ticket")?;
        let mut max_early_data = 0;
        read_extensions(&mut body, |id, mut value| {
            if id == extension::EARLY_DATA {
                max_early_data = value.u32("early_data.max_size")?;
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
        if lifetime_s == 0 {
            return Ok((None, Step::Continue));
        }
        let hash = common.suite.hash();
        let mut psk = Secret::zero(hash.len());
        hkdf::expand_label::<C>(hash, &self.resumption, b"resumption", nonce, psk.as_mut_bytes());
        let alpn = Vec::from_slice(config.alpn).ok();
        let ticket = NewTicket {
            identity,
            psk,
            suite: common.suite,
            age_add,
            lifetime_s,
            received_s: config.unix_time_s,
            // 0-RTT needs the same protocol again: without room to remember it, no 0-RTT.
            max_early_data: if alpn.is_some() { max_early_data } else { 0 },
            alpn: alpn.unwrap_or_default(),
        };
        Ok((None, Step::Ticket(ticket)))
    }
}

/// Seven days (RFC 8446 4.6.1).
const LIFETIME_S_MAX: u32 = 604_800;
