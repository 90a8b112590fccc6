use crate::crypto::{AeadKey, BadTag, CipherSuite, Crypto, KEY_LEN_MAX, NONCE_LEN, Secret, hkdf};
use crate::tls::{Transport, next_application_secret};
use zeroize::Zeroize;

/// One direction's protection (RFC 8446 5.3, 7.3).
pub(in crate::tls) struct RecordKey<C: Crypto> {
    suite: CipherSuite,
    secret: Secret,
    key: C::AeadKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl<C: Crypto> Drop for RecordKey<C> {
    fn drop(&mut self) {
        self.iv.zeroize();
    }
}

impl<C: Crypto> RecordKey<C> {
    pub(in crate::tls) fn new(suite: CipherSuite, secret: Secret) -> Self {
        let mut bytes = [0; KEY_LEN_MAX];
        let key = &mut bytes[..suite.key_len()];
        hkdf::expand_label::<C>(suite.hash(), &secret, b"key", &[], key);
        let aead = C::AeadKey::new(suite, key);
        bytes.zeroize();
        let mut iv = [0; NONCE_LEN];
        hkdf::expand_label::<C>(suite.hash(), &secret, b"iv", &[], &mut iv);
        Self { suite, secret, key: aead, iv, sequence: 0 }
    }

    /// The key after a KeyUpdate (RFC 8446 7.2).
    pub(in crate::tls) fn update(&mut self) {
        let next = next_application_secret::<C>(Transport::Records, self.suite, &self.secret);
        *self = Self::new(self.suite, next);
    }

    /// Whether so many records were protected that the key should change (RFC 8446 5.5).
    pub(in crate::tls) const fn is_worn(&self) -> bool {
        self.sequence >= RECORDS_PER_KEY
    }

    /// Protects all of `text` but the last 16 bytes, which become the tag.
    pub(in crate::tls) fn seal(&mut self, header: &[u8], text: &mut [u8]) {
        let nonce = self.next_nonce();
        self.key.seal(&nonce, header, text);
    }

    /// Removes protection and returns the plaintext's length.
    pub(in crate::tls) fn open(&mut self, header: &[u8], text: &mut [u8]) -> Result<usize, BadTag> {
        let nonce = self.next_nonce();
        self.key.open(&nonce, header, text)
    }

    fn next_nonce(&mut self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        let sequence = self.sequence.to_be_bytes();
        nonce[NONCE_LEN - sequence.len()..].iter_mut().zip(sequence).for_each(|(byte, s)| *byte ^= s);
        // Keys are updated long before 2^64 records; a peer cannot send as many.
        self.sequence += 1;
        nonce
    }
}

/// Below AES-GCM's 2^24.5 full-size records (RFC 8446 5.5).
const RECORDS_PER_KEY: u64 = 1 << 23;
