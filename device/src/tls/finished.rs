//! The server's Finished and the client's last flight (RFC 8446 4.4.4, 4.4.2, 4.4.3).

use super::certificate::{CLIENT_CONTEXT, SignedContent};
use super::handshake::{Common, Level, Message, Next, State};
use super::key_schedule::{finished_mac, master_secret};
use super::message::{self, kind};
use super::ticket::Tickets;
use super::{Alert, ClientAuth, Config, Error, Step};
use crate::codec::{NoSpace, Writer};
use crate::crypto::{Crypto, hkdf, signature};
use crate::entropy::Entropy;

/// What the server wants to see of the client.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ClientIdentity {
    /// Nothing.
    #[default]
    NotRequested,
    /// A certificate, which the client has.
    Show,
    /// A certificate, which the client does not have: an empty one says so.
    Decline,
}

/// The server is authenticated, by certificate or by PSK.
#[derive(Default)]
pub(super) struct ExpectFinished {
    pub(super) client_identity: ClientIdentity,
}

impl ExpectFinished {
    #[inline(never)]
    pub(super) fn handle<'m, C: Crypto>(
        &self,
        common: &mut Common<C>,
        config: &Config<'_>,
        entropy: &mut dyn Entropy,
        message: &Message<'m>,
        out: &mut Writer<'_>,
    ) -> Result<Next<'m>, Error> {
        message.expect(kind::FINISHED, Level::Handshake)?;
        let hash = common.suite.hash();
        let expected = finished_mac::<C>(hash, &common.server, &common.transcript.hash(hash));
        if message.body.remaining() != hash.len() {
            return Err(Error::peer(Alert::DECODE_ERROR, "finished.verify_data"));
        }
        if !expected.matches(message.body.rest()) {
            return Err(Error::peer(Alert::DECRYPT_ERROR, "the server's Finished is wrong"));
        }
        common.transcript.update(message.bytes);
        let master = master_secret::<C>(hash, &common.secret);
        let transcript = common.transcript.hash(hash);
        let derive = |label: &[u8]| hkdf::derive_secret::<C>(hash, &master, label, transcript.as_bytes());
        let (client, server) = (derive(b"c ap traffic"), derive(b"s ap traffic"));
        common.log(config, "CLIENT_TRAFFIC_SECRET_0", &client);
        common.log(config, "SERVER_TRAFFIC_SECRET_0", &server);

        let start = out.len();
        self.write_flight(common, config, entropy, out).inspect_err(|_| out.truncate(start))?;
        let transcript = common.transcript.hash(hash);
        let resumption = hkdf::derive_secret::<C>(hash, &master, b"res master", transcript.as_bytes());
        common.forget_handshake_secrets();
        let step = Step::Complete { suite: common.suite, client, server };
        let tickets = Tickets { suite: common.suite, resumption };
        Ok((Some(State::Connected(tickets)), step))
    }

    fn write_flight<C: Crypto>(
        &self,
        common: &mut Common<C>,
        config: &Config<'_>,
        entropy: &mut dyn Entropy,
        out: &mut Writer<'_>,
    ) -> Result<(), Error> {
        match (self.client_identity, config.client_auth) {
            (ClientIdentity::NotRequested, _) => {}
            (ClientIdentity::Show, Some(auth)) => {
                write_certificate(common, auth.certificates, out)?;
                write_certificate_verify(common, auth, entropy, out)?;
            }
            _ => write_certificate(common, &[], out)?,
        }
        let start = out.len();
        let hash = common.suite.hash();
        let mac = finished_mac::<C>(hash, &common.client, &common.transcript.hash(hash));
        message::write(out, kind::FINISHED, |out| Ok(out.put(mac.as_bytes())?))?;
        common.transcript.update(&out.written()[start..]);
        Ok(())
    }
}

fn write_certificate<C: Crypto>(
    common: &mut Common<C>,
    certificates: &[&[u8]],
    out: &mut Writer<'_>,
) -> Result<(), Error> {
    let start = out.len();
    message::write(out, kind::CERTIFICATE, |out| {
        out.vec8(|_| Ok::<_, NoSpace>(()))?;
        out.vec24(|out| {
            certificates.iter().try_for_each(|certificate| {
                out.vec24(|out| out.put(certificate))?;
                out.vec16(|_| Ok::<_, NoSpace>(()))
            })
        })?;
        Ok(())
    })?;
    common.transcript.update(&out.written()[start..]);
    Ok(())
}

fn write_certificate_verify<C: Crypto>(
    common: &mut Common<C>,
    auth: ClientAuth<'_>,
    entropy: &mut dyn Entropy,
    out: &mut Writer<'_>,
) -> Result<(), Error> {
    let content = SignedContent::new(CLIENT_CONTEXT, &common.transcript.hash(common.suite.hash()));
    let signature = signature::sign_p256(auth.private_key, content.as_bytes(), entropy)
        .ok_or(Error::caller("the client's private key is no P-256 scalar"))?;
    let start = out.len();
    message::write(out, kind::CERTIFICATE_VERIFY, |out| {
        out.u16(signature::ECDSA_SECP256R1_SHA256)?;
        Ok(out.vec16(|out| out.put(signature.as_bytes()))?)
    })?;
    common.transcript.update(&out.written()[start..]);
    Ok(())
}
