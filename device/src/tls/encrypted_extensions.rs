//! EncryptedExtensions (RFC 8446 4.3.1).
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use super::certificate::ExpectCertificate;
use super::finished::ExpectFinished;
use super::handshake::{Common, Level, Message, Next, State};
use super::message::{extension, finish, kind, read_extensions, unexpected_extension};
use super::{Alert, CipherSuite, Config, Error, Step, Transport, record};
use crate::codec::Reader;
use crate::crypto::Crypto;
use pki_types::ServerName;

/// Handshake keys are in place.
pub(super) struct ExpectEncryptedExtensions {
    /// The suite of the ticket, if 0-RTT was offered with it.
    pub(super) early_data: Option<CipherSuite>,
}

impl ExpectEncryptedExtensions {
    #[inline(never)]
    pub(super) fn handle<'m, C: Crypto>(
        &self,
        common: &mut Common<C>,
        config: &Config<'_>,
        message: &Message<'m>,
    ) -> Result<Next<'m>, Error> {
        message.expect(kind::ENCRYPTED_EXTENSIONS, Level::Handshake)?;
        let quic = common.transport == Transport::Quic;
        let mut transport_parameters = None;
        let mut record_size_limit = None;
        let mut fragment_limit = None;
        let mut early_data_accepted = false;
        let mut alpn = false;
        read_extensions(&mut message.body.clone(), |id, mut value| {
            match id {
                // An acknowledgement that says nothing more; the groups are a hint for next time.
                extension::SERVER_NAME if is_name_sent(config) => {}
                extension::SUPPORTED_GROUPS => return Ok(()),
                extension::ALPN if !config.alpn.is_empty() => {
                    check_alpn(&mut value, config.alpn)?;
                    alpn = true;
                }
                extension::QUIC_TRANSPORT_PARAMETERS if quic => {
                    transport_parameters = Some(value.rest());
                    return Ok(());
                }
                extension::RECORD_SIZE_LIMIT if !quic => {
                    record_size_limit = Some(value.u16("record_size_limit")?);
                }
                extension::MAX_FRAGMENT_LENGTH if !quic => {
                    let code = value.u8("max_fragment_length")?;
                    if record::fragment_code(common.plaintext_len_max) != Some(code) {
                        let cause = "the server selected a max_fragment_length that was not offered";
                        return Err(Error::peer(Alert::ILLEGAL_PARAMETER, cause));
                    }
                    fragment_limit = Some(record::limit_of_code(code));
                }
                extension::EARLY_DATA => {
                    self.check_early_data(common)?;
                    early_data_accepted = true;
                }
                extension::SERVER_NAME | extension::ALPN | extension::QUIC_TRANSPORT_PARAMETERS => {
                    return Err(unoffered("the server sent an extension that was not offered"));
                }
                _ => return Err(unexpected_extension(id)),
            }
            finish(&value, "encrypted_extensions.extension")
        })?;
        if record_size_limit.is_some() && fragment_limit.is_some() {
            // RFC 8449 5.
            let cause = "the server answers both record_size_limit and max_fragment_length";
            return Err(Error::peer(Alert::ILLEGAL_PARAMETER, cause));
        }
        if quic && !alpn && !config.alpn.is_empty() {
            // RFC 9001 8.1.
            let cause = "the server did not select an application protocol";
            return Err(Error::peer(Alert::NO_APPLICATION_PROTOCOL, cause));
        }
        if quic && transport_parameters.is_none() {
            // RFC 9001 8.2.
            let cause = "the server sent no QUIC transport parameters";
            return Err(Error::peer(Alert::MISSING_EXTENSION, cause));
        }
        common.transcript.update(message.bytes);
        let next = if common.resumed {
            State::Finished(ExpectFinished::default())
        } else {
            State::Certificate(ExpectCertificate::default())
        };
        let record_size_limit = record_size_limit.or(fragment_limit);
        let step = Step::EncryptedExtensions { transport_parameters, early_data_accepted, record_size_limit };
        Ok((Some(next), step))
    }

    /// 0-RTT data may be accepted only as it was sent: with the first PSK and its suite (RFC 8446 4.2.10).
    fn check_early_data<C: Crypto>(&self, common: &Common<C>) -> Result<(), Error> {
        match self.early_data {
            None => Err(unoffered("the server accepts 0-RTT data that was not offered")),
            Some(suite) if common.resumed && suite == common.suite => Ok(()),
            Some(_) => Err(Error::peer(
                Alert::ILLEGAL_PARAMETER,
                "the server accepts 0-RTT data without the ticket's key or cipher suite",
            )),
        }
    }
}

/// Whether the ClientHello named the server: an IP address is no name (RFC 6066 3).
fn is_name_sent(config: &Config<'_>) -> bool {
    matches!(ServerName::try_from(config.server_name), Ok(ServerName::DnsName(_)))
}

/// The answer names exactly one protocol, which is the one that was offered (RFC 7301 3.1).
fn check_alpn(value: &mut Reader<'_>, offered: &[u8]) -> Result<(), Error> {
    let mut list = Reader::new(value.vec16("alpn.list")?);
    let selected = list.vec8("alpn.protocol")?;
    finish(&list, "alpn.list")?;
    if selected == offered {
        Ok(())
    } else {
        let cause = "the server selected an application protocol that was not offered";
        Err(Error::peer(Alert::ILLEGAL_PARAMETER, cause))
    }
}

const fn unoffered(cause: &'static str) -> Error {
    Error::peer(Alert::UNSUPPORTED_EXTENSION, cause)
}
