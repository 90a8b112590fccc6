use super::key::RecordKey;
use super::{HEADER_LEN, OVERHEAD, PLAINTEXT_LEN_MAX, content};
use crate::codec::Writer;
use crate::crypto::{Crypto, TAG_LEN};
use crate::tls::Error;
use crate::tls::message::LEGACY_VERSION;

/// Records on their way to the socket.
pub(super) struct Outgoing<C: Crypto, const LEN: usize> {
    bytes: [u8; LEN],
    start: usize,
    end: usize,
    key: Option<RecordKey<C>>,
    plaintext_len_max: usize,
}

impl<C: Crypto, const LEN: usize> Outgoing<C, LEN> {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; LEN], start: 0, end: 0, key: None, plaintext_len_max: PLAINTEXT_LEN_MAX }
    }

    pub(super) fn pending(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn on_sent(&mut self, len: usize) {
        self.start = self.end.min(self.start + len);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    pub(super) fn set_key(&mut self, key: RecordKey<C>) {
        self.key = Some(key);
    }

    pub(super) const fn key_mut(&mut self) -> Option<&mut RecordKey<C>> {
        self.key.as_mut()
    }

    /// The server's record_size_limit, which counts the content type (RFC 8449 4).
    pub(super) fn set_record_size_limit(&mut self, limit: u16) {
        self.plaintext_len_max = usize::from(limit - 1).min(PLAINTEXT_LEN_MAX);
    }

    /// How many bytes of plaintext [`Self::write`] takes, in as many records as the peer's limit asks for.
    pub(super) fn room(&mut self) -> usize {
        self.compact();
        let free = LEN - self.end;
        let whole = free / (self.plaintext_len_max + OVERHEAD);
        let rest = free % (self.plaintext_len_max + OVERHEAD);
        whole * self.plaintext_len_max + rest.saturating_sub(OVERHEAD)
    }

    /// Adds what fits of `head` and then `body`, both in one record if the peer's limit allows it, and returns how
    /// much that was.
    pub(super) fn write(&mut self, content_type: u8, mut head: &[u8], mut body: &[u8]) -> usize {
        let len = (head.len() + body.len()).min(self.room());
        let mut left = len;
        while left > 0 {
            let record_len = left.min(self.plaintext_len_max);
            let text = &mut self.bytes[self.end + HEADER_LEN..][..record_len];
            let (first, second) = text.split_at_mut(head.len().min(record_len));
            first.copy_from_slice(&head[..first.len()]);
            second.copy_from_slice(&body[..second.len()]);
            head = &head[first.len()..];
            body = &body[second.len()..];
            self.seal_record(self.end, record_len, content_type);
            left -= record_len;
        }
        len
    }

    /// Adds handshake messages written by `body`, in as many records as they need.
    pub(super) fn write_messages<T>(
        &mut self,
        body: impl FnOnce(&mut Writer<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.compact();
        let record = self.end;
        let room = record + HEADER_LEN..LEN.saturating_sub(OVERHEAD - HEADER_LEN);
        let mut out = Writer::new(self.bytes.get_mut(room).unwrap_or_default());
        // The result as it is: a value taken out and put back would lie on the stack twice, under a chain's verification.
        let result = body(&mut out);
        let len = out.len();
        if result.is_ok() {
            self.split_into_records(record, len)?;
        }
        result
    }

    /// Makes room between the fragments of the message at `record`, from the last one down, and seals them
    /// in order.
    fn split_into_records(&mut self, record: usize, len: usize) -> Result<(), Error> {
        if len == 0 {
            return Ok(());
        }
        let fragment = self.plaintext_len_max;
        let overhead = if self.key.is_some() { OVERHEAD } else { HEADER_LEN };
        let count = len.div_ceil(fragment);
        if record + len + count * OVERHEAD > LEN {
            return Err(Error::resource("the outgoing buffer is too small for the handshake messages"));
        }
        for index in (1..count).rev() {
            let from = record + HEADER_LEN + index * fragment;
            let fragment_len = fragment.min(len - index * fragment);
            self.bytes.copy_within(from..from + fragment_len, from + index * overhead);
        }
        for index in 0..count {
            let fragment_len = fragment.min(len - index * fragment);
            self.seal_record(self.end, fragment_len, content::HANDSHAKE);
        }
        Ok(())
    }

    /// Turns the `len` bytes behind the header at `record`, which is the end, into a record.
    fn seal_record(&mut self, record: usize, len: usize, content_type: u8) {
        let (outer_type, body_len) = match self.key {
            Some(_) => (content::APPLICATION_DATA, len + 1 + TAG_LEN),
            None => (content_type, len),
        };
        let [major, minor] = LEGACY_VERSION.to_be_bytes();
        let [high, low] = (body_len as u16).to_be_bytes();
        let header = [outer_type, major, minor, high, low];
        self.bytes[record..][..HEADER_LEN].copy_from_slice(&header);
        let body = &mut self.bytes[record + HEADER_LEN..][..body_len];
        if let Some(key) = &mut self.key {
            body[len] = content_type;
            key.seal(&header, body);
        }
        self.end = record + HEADER_LEN + body_len;
    }

    fn compact(&mut self) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }
}
