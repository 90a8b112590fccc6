use super::key::RecordKey;
use super::outgoing::Outgoing;
use super::{HEADER_LEN, INCOMING_LEN, OUTGOING_LEN, OVERHEAD, PLAINTEXT_LEN_MAX, content};
use crate::crypto::Crypto;
use crate::entropy::Entropy;
use crate::tls::message::{self, kind};
use crate::tls::{Alert, Config, Error, Fault, Handshake, Level, Step};
use core::ops::Range;

/// A TLS 1.3 client over a byte stream.
///
/// `IN` is the size of the buffer that holds one incoming record or handshake message, `OUT` of the one for
/// outgoing records. The server is asked for records that fit `IN` (RFC 8449, RFC 6066 4).
pub struct TlsStream<C: Crypto, const IN: usize = INCOMING_LEN, const OUT: usize = OUTGOING_LEN> {
    handshake: Handshake<C>,
    phase: Phase,
    read_key: Option<RecordKey<C>>,
    /// First the part of a handshake message that came in earlier records, then the record being received.
    incoming: [u8; IN],
    /// Length of the former.
    fragment_len: usize,
    /// End of the latter.
    received: usize,
    /// Decrypted application data within `incoming`, not yet read.
    readable: Range<usize>,
    outgoing: Outgoing<C, OUT>,
    /// The server wants new keys; answered with the next write.
    owes_key_update: bool,
    received_close: bool,
    sent_close: bool,
    /// An alert that found no room yet.
    owed_alert: Option<[u8; 2]>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The peer's messages come in plaintext.
    Initial,
    /// They come under handshake keys.
    Handshake,
    /// Data flows.
    Connected,
    /// An error was returned.
    Failed,
}

/// The stream takes no more data: it is closed, has failed, or is not connected yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed;

impl core::fmt::Display for Closed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the TLS stream takes no data: it is not connected, closed or failed")
    }
}

impl core::error::Error for Closed {}

impl<C: Crypto, const IN: usize, const OUT: usize> TlsStream<C, IN, OUT> {
    /// Starts a connection; the ClientHello is ready in [`Self::transmit`].
    ///
    /// # Errors
    /// If the configuration cannot be offered, or does not fit `OUT`.
    pub fn new(config: &Config<'_>, entropy: &mut dyn Entropy) -> Result<Self, Error> {
        let plaintext_len_max = IN.saturating_sub(OVERHEAD).min(PLAINTEXT_LEN_MAX) as u16;
        if plaintext_len_max < RECORD_SIZE_LIMIT_MIN {
            return Err(Error::caller("the buffer for incoming records is too small"));
        }
        let mut outgoing = Outgoing::new();
        let handshake = outgoing
            .write_messages(|out| Handshake::start_records(config, entropy, plaintext_len_max, out))?;
        Ok(Self {
            handshake,
            phase: Phase::Initial,
            read_key: None,
            incoming: [0; IN],
            fragment_len: 0,
            received: 0,
            readable: 0..0,
            outgoing,
            owes_key_update: false,
            received_close: false,
            sent_close: false,
            owed_alert: None,
        })
    }

    /// Takes bytes from the socket and returns how many. Fewer than offered means that data must be
    /// [read](Self::read) first, or that the handshake has become complete: what follows may be a ticket, and the one in
    /// [`Config::ticket`] is not needed any more.
    ///
    /// `on_step` sees each step of the handshake, tickets included.
    ///
    /// # Errors
    /// The connection has failed; what is left in [`Self::transmit`] tells the server why.
    pub fn handle_bytes(
        &mut self,
        config: &Config<'_>,
        entropy: &mut dyn Entropy,
        bytes: &[u8],
        on_step: &mut dyn FnMut(&Step<'_>),
    ) -> Result<usize, Error> {
        if self.phase == Phase::Failed {
            return Err(Error::caller("the TLS stream has already failed"));
        }
        self.take_records(config, entropy, bytes, on_step).inspect_err(|error| self.fail(*error))
    }

    /// Bytes for the socket.
    pub fn transmit(&self) -> &[u8] {
        self.outgoing.pending()
    }

    /// The socket has taken the first `len` bytes of [`Self::transmit`].
    pub fn on_transmitted(&mut self, len: usize) {
        self.outgoing.on_sent(len);
        self.pay_alert();
    }

    /// Whether data can be written: the server is authenticated and nobody has closed.
    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Connected && !self.sent_close && !self.received_close
    }

    /// Whether the session was resumed.
    pub const fn is_resumed(&self) -> bool {
        self.handshake.is_resumed()
    }

    /// Whether the server has said that it sends no more, and all it sent has been read.
    ///
    /// A TCP connection that ends without this was cut off (RFC 8446 6.1).
    pub fn is_finished(&self) -> bool {
        self.received_close && self.readable.is_empty()
    }

    /// How many bytes [`Self::read`] returns now.
    pub fn readable(&self) -> usize {
        self.readable.len()
    }

    /// How many bytes [`Self::write`] takes now.
    pub fn writable(&mut self) -> usize {
        if self.is_connected() && self.pay_key_update() { self.outgoing.room() } else { 0 }
    }

    /// Copies received data into `out` and returns how much.
    pub fn read(&mut self, out: &mut [u8]) -> usize {
        let len = out.len().min(self.readable.len());
        out[..len].copy_from_slice(&self.incoming[self.readable.start..][..len]);
        self.readable.start += len;
        len
    }

    /// Protects what fits of `data` and returns how much: 0 if the socket must take bytes first.
    ///
    /// # Errors
    /// [`Closed`] unless the stream [is connected](Self::is_connected).
    pub fn write(&mut self, data: &[u8]) -> Result<usize, Closed> {
        self.write_parts(data, &[])
    }

    /// The same for `head` with `body` behind it, which share their records: two calls of [`Self::write`] would
    /// take more room, for each record has a header and a tag.
    ///
    /// # Errors
    /// [`Closed`] unless the stream [is connected](Self::is_connected).
    pub fn write_parts(&mut self, head: &[u8], body: &[u8]) -> Result<usize, Closed> {
        if !self.is_connected() {
            return Err(Closed);
        }
        if self.outgoing.key_mut().is_some_and(|key| key.is_worn()) {
            self.owes_key_update = true;
        }
        if !self.pay_key_update() {
            return Ok(0);
        }
        Ok(self.outgoing.write(content::APPLICATION_DATA, head, body))
    }

    /// Changes the keys of the data this side sends, before the next of it (RFC 8446 4.6.3).
    pub const fn update_keys(&mut self) {
        self.owes_key_update = true;
    }

    /// Says that no more data will be sent. Data already written still goes out.
    pub fn close(&mut self) {
        if self.phase != Phase::Failed && !self.sent_close {
            self.sent_close = true;
            self.send_alert([ALERT_WARNING, Alert::CLOSE_NOTIFY.0]);
        }
    }

    fn fail(&mut self, error: Error) {
        self.phase = Phase::Failed;
        if error.fault != Fault::PeerAlert {
            self.send_alert([ALERT_FATAL, error.alert.0]);
        }
    }

    fn send_alert(&mut self, alert: [u8; 2]) {
        self.owed_alert = Some(alert);
        self.pay_alert();
    }

    fn pay_alert(&mut self) {
        if let Some(alert) = self.owed_alert.filter(|alert| self.outgoing.room() >= alert.len()) {
            self.outgoing.write(content::ALERT, &alert, &[]);
            self.owed_alert = None;
        }
    }

    fn take_records(
        &mut self,
        config: &Config<'_>,
        entropy: &mut dyn Entropy,
        bytes: &[u8],
        on_step: &mut dyn FnMut(&Step<'_>),
    ) -> Result<usize, Error> {
        let mut taken = 0;
        while self.readable.is_empty() {
            if self.received_close {
                // Whatever follows the closure alert does not count (RFC 8446 6.1).
                return Ok(bytes.len());
            }
            let start = self.fragment_len;
            let missing = self.record_len()? - (self.received - start);
            let available = &bytes[taken..];
            let len = missing.min(available.len());
            self.incoming[self.received..][..len].copy_from_slice(&available[..len]);
            self.received += len;
            taken += len;
            if len < missing {
                break;
            }
            if self.received - start > HEADER_LEN {
                let record = start..self.received;
                self.received = start;
                let was_connected = self.phase == Phase::Connected;
                self.handle_record(config, entropy, record, on_step)?;
                if self.phase == Phase::Connected && !was_connected {
                    break;
                }
            }
        }
        Ok(taken)
    }

    /// Length of the record being received; of its header until that is complete.
    fn record_len(&self) -> Result<usize, Error> {
        let record = &self.incoming[self.fragment_len..self.received];
        let [content_type, _, _, high, low, ..] = *record else {
            let room = IN - self.fragment_len;
            return if room > HEADER_LEN { Ok(HEADER_LEN) } else { Err(message_too_long()) };
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if !(content::CHANGE_CIPHER_SPEC..=content::APPLICATION_DATA).contains(&content_type) {
            return Err(unexpected("a record of an unknown type; does the server speak TLS on this port?"));
        }
        if len == 0 {
            return Err(unexpected("an empty record"));
        }
        if len > PLAINTEXT_LEN_MAX + EXPANSION_MAX {
            return Err(Error::peer(Alert::RECORD_OVERFLOW, "a record is longer than TLS 1.3 allows"));
        }
        if HEADER_LEN + len > IN - self.fragment_len {
            return Err(if self.fragment_len > 0 { message_too_long() } else { record_too_long() });
        }
        Ok(HEADER_LEN + len)
    }

    fn handle_record(
        &mut self,
        config: &Config<'_>,
        entropy: &mut dyn Entropy,
        record: Range<usize>,
        on_step: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), Error> {
        let (header, body) = self.incoming[record.clone()].split_at_mut(HEADER_LEN);
        let outer_type = header[0];
        if outer_type == content::CHANGE_CIPHER_SPEC {
            // Middlebox compatibility (RFC 8446 D.4): ignored while the handshake lasts.
            let expected = matches!(self.phase, Phase::Initial | Phase::Handshake) && body == [1];
            return if expected { Ok(()) } else { Err(unexpected("a misplaced change_cipher_spec")) };
        }
        let (content_type, len) = match &mut self.read_key {
            None => (outer_type, body.len()),
            Some(key) if outer_type == content::APPLICATION_DATA => {
                let len = key.open(header, body).map_err(|_| {
                    Error::peer(Alert::BAD_RECORD_MAC, "a record was altered, or protected with other keys")
                })?;
                content_of(&body[..len])?
            }
            Some(_) => return Err(unexpected("a record is not protected")),
        };
        let text = record.start + HEADER_LEN..record.start + HEADER_LEN + len;
        if self.fragment_len > 0 && content_type != content::HANDSHAKE {
            return Err(unexpected("a handshake message is interrupted by other data"));
        }
        match content_type {
            content::HANDSHAKE if len == 0 => Err(unexpected("an empty handshake record")),
            content::HANDSHAKE => {
                self.incoming.copy_within(text, record.start);
                self.fragment_len = record.start + len;
                self.received = self.fragment_len;
                self.handle_messages(config, entropy, on_step)
            }
            content::ALERT => self.handle_alert(text),
            content::APPLICATION_DATA if self.phase == Phase::Connected => {
                self.readable = text;
                Ok(())
            }
            _ => Err(unexpected("a record at the wrong time")),
        }
    }

    /// Handles the whole handshake messages at the front of `incoming` and keeps the rest.
    fn handle_messages(
        &mut self,
        config: &Config<'_>,
        entropy: &mut dyn Entropy,
        on_step: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), Error> {
        let mut start = 0;
        while let Some(len) = message::whole_len(&self.incoming[start..self.fragment_len]) {
            let message = start..start + len;
            start = message.end;
            let changes_keys = self.handle_message(config, entropy, message, on_step)?;
            if changes_keys && start != self.fragment_len {
                return Err(unexpected("a handshake message spans a change of keys"));
            }
        }
        self.incoming.copy_within(start..self.fragment_len, 0);
        self.fragment_len -= start;
        self.received = self.fragment_len;
        Ok(())
    }

    /// Handles one message; returns whether the keys of what follows are others.
    fn handle_message(
        &mut self,
        config: &Config<'_>,
        entropy: &mut dyn Entropy,
        range: Range<usize>,
        on_step: &mut dyn FnMut(&Step<'_>),
    ) -> Result<bool, Error> {
        let message = &self.incoming[range];
        let level = match self.phase {
            Phase::Initial => Level::Initial,
            Phase::Handshake => Level::Handshake,
            Phase::Connected | Phase::Failed => Level::Application,
        };
        if level == Level::Application && message[0] == kind::KEY_UPDATE {
            self.owes_key_update |= read_key_update(message)?;
            self.read_key.iter_mut().for_each(RecordKey::update);
            return Ok(true);
        }
        let step = self
            .outgoing
            .write_messages(|out| self.handshake.handle_message(config, entropy, level, message, out));
        if let Ok(step) = &step {
            on_step(step);
        }
        follow(step, &mut self.phase, &mut self.outgoing, &mut self.read_key)
    }

    fn handle_alert(&mut self, text: Range<usize>) -> Result<(), Error> {
        let [_level, description] = self.incoming[text] else {
            return Err(Error::peer(Alert::DECODE_ERROR, "alert"));
        };
        match Alert(description) {
            Alert::CLOSE_NOTIFY => {
                self.received_close = true;
                Ok(())
            }
            Alert::USER_CANCELED => Ok(()),
            alert => {
                let cause = "the server ended the connection with this alert";
                Err(Error { alert, fault: Fault::PeerAlert, cause })
            }
        }
    }

    /// Sends a KeyUpdate that is due; false if there is no room for it yet.
    fn pay_key_update(&mut self) -> bool {
        if !self.owes_key_update {
            return true;
        }
        if self.outgoing.room() < KEY_UPDATE_MESSAGE.len() {
            return false;
        }
        self.outgoing.write(content::HANDSHAKE, &KEY_UPDATE_MESSAGE, &[]);
        if let Some(key) = self.outgoing.key_mut() {
            key.update();
        }
        self.owes_key_update = false;
        true
    }
}

/// Changes the keys as a step asks for; returns whether it did. Out of line: the keys need not lie under the chain's
/// verification.
#[inline(never)]
fn follow<C: Crypto, const OUT: usize>(
    step: Result<Step<'_>, Error>,
    phase: &mut Phase,
    outgoing: &mut Outgoing<C, OUT>,
    read_key: &mut Option<RecordKey<C>>,
) -> Result<bool, Error> {
    match step? {
        Step::HandshakeKeys { suite, client, server } => {
            *phase = Phase::Handshake;
            outgoing.set_key(RecordKey::new(suite, client));
            *read_key = Some(RecordKey::new(suite, server));
            Ok(true)
        }
        Step::EncryptedExtensions { record_size_limit: Some(limit), .. } => {
            if limit < RECORD_SIZE_LIMIT_MIN {
                let cause = "the server's record_size_limit is below 64";
                return Err(Error::peer(Alert::ILLEGAL_PARAMETER, cause));
            }
            outgoing.set_record_size_limit(limit);
            Ok(false)
        }
        Step::Complete { suite, client, server } => {
            *phase = Phase::Connected;
            outgoing.set_key(RecordKey::new(suite, client));
            *read_key = Some(RecordKey::new(suite, server));
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// The content type and the length of what a record protects: padding zeros follow the type (RFC 8446 5.4).
fn content_of(inner: &[u8]) -> Result<(u8, usize), Error> {
    let padded = inner.iter().rposition(|&byte| byte != 0);
    let len = padded.ok_or(unexpected("a record without a content type"))?;
    Ok((inner[len], len))
}

/// Whether the peer asks for new keys in return (RFC 8446 4.6.3).
fn read_key_update(message: &[u8]) -> Result<bool, Error> {
    let (_, mut body) = message::split(message)?;
    let request = body.u8("key_update.request")?;
    message::finish(&body, "key_update")?;
    match request {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::peer(Alert::ILLEGAL_PARAMETER, "a KeyUpdate with an unknown request")),
    }
}

const fn unexpected(cause: &'static str) -> Error {
    Error::peer(Alert::UNEXPECTED_MESSAGE, cause)
}

const fn record_too_long() -> Error {
    let cause = "a record exceeds the limit the server was asked to keep; enlarge the incoming buffer, or let the server support record_size_limit or max_fragment_length";
    Error { alert: Alert::RECORD_OVERFLOW, fault: Fault::Resource, cause }
}

const fn message_too_long() -> Error {
    Error::resource("a handshake message exceeds the incoming buffer; shorten the server's certificate chain")
}

/// A KeyUpdate that asks for nothing in return.
const KEY_UPDATE_MESSAGE: [u8; 5] = [kind::KEY_UPDATE, 0, 0, 1, 0];
/// What protection may add to a record's plaintext (RFC 8446 5.2).
const EXPANSION_MAX: usize = 256;
/// Smallest record_size_limit allowed (RFC 8449 4).
const RECORD_SIZE_LIMIT_MIN: u16 = 64;
const ALERT_WARNING: u8 = 1;
const ALERT_FATAL: u8 = 2;
