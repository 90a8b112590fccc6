//! ClientHello (RFC 8446 4.1.2), first and second.

use super::key_schedule::{binder_key, early_secret, finished_mac};
use super::message::{self, LEGACY_VERSION, VERSION_1_3, extension, kind, write_extension};
use super::record;
use super::transcript::Transcript;
use super::{Config, Error, Secret, Ticket, Transport};
use crate::codec::{NoSpace, Writer};
use crate::crypto::key_exchange::{PrivateKey, SHARE_LEN_MAX};
use crate::crypto::{Crypto, signature};
use pki_types::ServerName;

/// What varies between connections and between the two ClientHellos of one.
pub(super) struct ClientHello<'a> {
    pub(super) random: &'a [u8; 32],
    pub(super) key: &'a PrivateKey,
    pub(super) transport: Transport,
    pub(super) transport_parameters: &'a [u8],
    /// With records: the longest plaintext the client takes.
    pub(super) plaintext_len_max: u16,
    pub(super) cookie: Option<&'a [u8]>,
    pub(super) ticket: Option<&'a Ticket>,
    pub(super) early_data: bool,
}

impl ClientHello<'_> {
    /// Writes the message, adds it to the transcript and returns the early secret if a PSK is offered.
    pub(super) fn write<C: Crypto>(
        &self,
        config: &Config<'_>,
        transcript: &mut Transcript<C>,
        out: &mut Writer<'_>,
    ) -> Result<Option<Secret>, Error> {
        let start = out.len();
        message::write(out, kind::CLIENT_HELLO, |out| self.write_body(config, out))?;
        let message = &mut out.written_mut()[start..];
        let Some(ticket) = self.ticket else {
            transcript.update(message);
            return Ok(None);
        };
        let hash = ticket.suite.hash();
        let (head, binders) = message.split_at_mut(message.len() - BINDERS_HEAD_LEN - hash.len());
        transcript.update(head);
        let early = early_secret::<C>(hash, Some(&ticket.psk));
        let binder = finished_mac::<C>(hash, &binder_key::<C>(hash, &early), &transcript.hash(hash));
        binders[BINDERS_HEAD_LEN..].copy_from_slice(binder.as_bytes());
        transcript.update(binders);
        Ok(Some(early))
    }

    fn write_body(&self, config: &Config<'_>, out: &mut Writer<'_>) -> Result<(), Error> {
        out.u16(LEGACY_VERSION)?;
        out.put(self.random)?;
        // No session id: QUIC forbids one (RFC 9001 8.4), and records do without the compatibility mode.
        out.vec8(|_| Ok::<_, NoSpace>(()))?;
        out.vec16(|out| config.cipher_suites.iter().try_for_each(|suite| out.u16(suite.id())))?;
        out.vec8(|out| out.u8(0))?;
        out.vec16(|out| self.write_extensions(config, out))
    }

    fn write_extensions(&self, config: &Config<'_>, out: &mut Writer<'_>) -> Result<(), Error> {
        write_server_name(config, out)?;
        write_extension(out, extension::SUPPORTED_VERSIONS, |out| out.vec8(|out| out.u16(VERSION_1_3)))?;
        write_extension(out, extension::SUPPORTED_GROUPS, |out| {
            out.vec16(|out| config.groups.iter().try_for_each(|group| out.u16(group.id())))
        })?;
        write_extension(out, extension::SIGNATURE_ALGORITHMS, |out| {
            out.vec16(|out| signature::offered().try_for_each(|scheme| out.u16(scheme)))
        })?;
        write_extension(out, extension::KEY_SHARE, |out| out.vec16(|out| self.write_key_share(out)))?;
        if !config.alpn.is_empty() {
            write_extension(out, extension::ALPN, |out| {
                out.vec16(|out| out.vec8(|out| out.put(config.alpn)))
            })?;
        }
        // Offered without a ticket too: a server gives tickets only to those who can use them.
        write_extension(out, extension::PSK_KEY_EXCHANGE_MODES, |out| out.vec8(|out| out.u8(PSK_DHE_KE)))?;
        match self.transport {
            Transport::Quic => {
                write_extension(out, extension::QUIC_TRANSPORT_PARAMETERS, |out| {
                    out.put(self.transport_parameters)
                })?;
            }
            Transport::Records => record::write_extensions(self.plaintext_len_max, out)?,
        }
        if let Some(cookie) = self.cookie {
            write_extension(out, extension::COOKIE, |out| out.vec16(|out| out.put(cookie)))?;
        }
        if let Some(ticket) = self.ticket {
            if self.early_data {
                write_extension(out, extension::EARLY_DATA, |_| Ok(()))?;
            }
            write_pre_shared_key(config, ticket, out)?;
        }
        Ok(())
    }

    fn write_key_share(&self, out: &mut Writer<'_>) -> Result<(), NoSpace> {
        let mut share = [0; SHARE_LEN_MAX];
        let len = self.key.share(&mut share);
        out.u16(self.key.group().id())?;
        out.vec16(|out| out.put(&share[..len]))
    }
}

/// An IP address is not sent (RFC 6066 3), only checked against the certificate.
fn write_server_name(config: &Config<'_>, out: &mut Writer<'_>) -> Result<(), Error> {
    let name = ServerName::try_from(config.server_name)
        .map_err(|_| Error::caller("the server name is neither a DNS name nor an IP address"))?;
    let ServerName::DnsName(name) = name else { return Ok(()) };
    write_extension(out, extension::SERVER_NAME, |out| {
        out.vec16(|out| {
            out.u8(NAME_TYPE_HOST)?;
            out.vec16(|out| out.put(name.as_ref().as_bytes()))
        })
    })?;
    Ok(())
}

/// Last of all extensions, with a binder of zeros (RFC 8446 4.2.11).
fn write_pre_shared_key(config: &Config<'_>, ticket: &Ticket, out: &mut Writer<'_>) -> Result<(), NoSpace> {
    let age_ms = config.unix_time_s.saturating_sub(ticket.received_s).saturating_mul(1000);
    write_extension(out, extension::PRE_SHARED_KEY, |out| {
        out.vec16(|out| {
            out.vec16(|out| out.put(&ticket.identity))?;
            out.u32((age_ms as u32).wrapping_add(ticket.age_add))
        })?;
        out.vec16(|out| out.vec8(|out| out.zeros(ticket.suite.hash().len())))
    })
}

/// psk_dhe_ke (RFC 8446 4.2.9): resumption keeps forward secrecy.
const PSK_DHE_KE: u8 = 1;
/// host_name (RFC 6066 3).
const NAME_TYPE_HOST: u8 = 0;
/// The lengths in front of the only binder: of the list and of the binder.
const BINDERS_HEAD_LEN: usize = 3;
