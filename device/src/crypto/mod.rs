//! The primitives behind one small trait, so that a board can put its AES and SHA hardware underneath.
//!
//! A provider is a type, never a value: whatever state hardware needs is the board's own. [`Software`]
//! is the default.

/// The cipher suites of TLS 1.3 that this client speaks (RFC 8446 B.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CipherSuite {
    /// `TLS_AES_128_GCM_SHA256`, 0x1301.
    Aes128GcmSha256,
    /// `TLS_CHACHA20_POLY1305_SHA256`, 0x1303: the cheapest one without AES hardware.
    ChaCha20Poly1305Sha256,
}

/// A record or packet did not authenticate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadTag;

/// Length of every AEAD tag in bytes.
pub const TAG_LEN: usize = 16;
/// Length of every AEAD nonce and IV in bytes.
pub const NONCE_LEN: usize = 12;

/// What a board supplies: ciphers for packets and records, and the running hash.
pub trait Crypto: 'static {
    /// Packet or record protection in one direction.
    type AeadKey: AeadKey;
    /// QUIC header protection in one direction.
    type HeaderKey: HeaderKey;
}

/// One direction's AEAD key.
pub trait AeadKey: Sized {
    /// A key for `suite`; `key` has that suite's key length (16 or 32 bytes).
    fn new(suite: CipherSuite, key: &[u8]) -> Self;

    /// Encrypts all but the last [`TAG_LEN`] bytes of `buffer` in place and puts the tag there.
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]);

    /// Decrypts `buffer` (ciphertext and tag) in place and returns the plaintext's length.
    ///
    /// # Errors
    /// [`BadTag`], with the contents of `buffer` then unspecified.
    fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) -> Result<usize, BadTag>;
}

/// One direction's header protection key (RFC 9001 5.4).
pub trait HeaderKey: Sized {
    /// A key for `suite`.
    fn new(suite: CipherSuite, key: &[u8]) -> Self;

    /// The five-byte mask for a 16-byte ciphertext sample.
    fn mask(&self, sample: &[u8; 16]) -> [u8; 5];
}
