//! The primitives behind one small trait, so that a board can put its AES and SHA hardware underneath.
//!
//! A provider is a type, never a value: whatever state hardware needs is the board's own. [`Software`]
//! is the default. Public-key operations ([`key_exchange`], [`signature`]) are not part of the trait:
//! they dominate a handshake and are the same software everywhere.

pub(crate) mod der;
pub mod hkdf;
pub mod key_exchange;
mod secret;
pub mod signature;
mod software;

pub use secret::{SECRET_LEN_MAX, Secret};
pub use software::{Software, aead_open, aead_seal, chacha20_open, chacha20_seal};
pub use zeroize::ZeroizeOnDrop;

/// The cipher suites of TLS 1.3 that this client speaks (RFC 8446 B.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CipherSuite {
    /// `TLS_AES_128_GCM_SHA256`, 0x1301.
    Aes128GcmSha256,
    /// `TLS_AES_256_GCM_SHA384`, 0x1302.
    #[cfg(feature = "aes256")]
    Aes256GcmSha384,
    /// `TLS_CHACHA20_POLY1305_SHA256`, 0x1303: the cheapest one without AES hardware.
    ChaCha20Poly1305Sha256,
}

impl CipherSuite {
    /// The code point (RFC 8446 B.4).
    pub const fn id(self) -> u16 {
        match self {
            Self::Aes128GcmSha256 => 0x1301,
            #[cfg(feature = "aes256")]
            Self::Aes256GcmSha384 => 0x1302,
            Self::ChaCha20Poly1305Sha256 => 0x1303,
        }
    }

    /// The suite with that code point, if this build speaks it.
    pub const fn from_id(id: u16) -> Option<Self> {
        match id {
            0x1301 => Some(Self::Aes128GcmSha256),
            #[cfg(feature = "aes256")]
            0x1302 => Some(Self::Aes256GcmSha384),
            0x1303 => Some(Self::ChaCha20Poly1305Sha256),
            _ => None,
        }
    }

    /// Length of the AEAD key, and of the QUIC header protection key, in bytes.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128GcmSha256 => 16,
            #[cfg(feature = "aes256")]
            Self::Aes256GcmSha384 => 32,
            Self::ChaCha20Poly1305Sha256 => 32,
        }
    }

    /// The hash of the transcript and of the key schedule.
    pub const fn hash(self) -> HashAlgorithm {
        match self {
            Self::Aes128GcmSha256 | Self::ChaCha20Poly1305Sha256 => HashAlgorithm::Sha256,
            #[cfg(feature = "aes256")]
            Self::Aes256GcmSha384 => HashAlgorithm::Sha384,
        }
    }
}

/// The hash of a cipher suite.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    #[cfg(feature = "aes256")]
    Sha384,
}

impl HashAlgorithm {
    /// Length of the digest in bytes.
    pub const fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            #[cfg(feature = "aes256")]
            Self::Sha384 => 48,
        }
    }

    /// Always false: a digest has at least 32 bytes.
    pub const fn is_empty(self) -> bool {
        false
    }
}

/// A record or packet did not authenticate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadTag;

/// Length of every AEAD tag in bytes.
pub const TAG_LEN: usize = 16;
/// Length of every AEAD nonce and IV in bytes.
pub const NONCE_LEN: usize = 12;
/// Length of the longest AEAD or header protection key in bytes.
pub const KEY_LEN_MAX: usize = 32;

/// What a board supplies: ciphers for packets and records, and the running hash.
pub trait Crypto: 'static {
    /// Packet or record protection in one direction.
    type AeadKey: AeadKey;
    /// QUIC header protection in one direction.
    type HeaderKey: HeaderKey;
    /// SHA-256 of the transcript and of the key schedule.
    type Sha256: Hash;
    /// SHA-384 of the transcript and of the key schedule.
    #[cfg(feature = "aes256")]
    type Sha384: Hash;
}

/// One direction's AEAD key. It leaves nothing behind in memory.
pub trait AeadKey: Sized + ZeroizeOnDrop {
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

/// One direction's header protection key (RFC 9001 5.4). It leaves nothing behind in memory.
pub trait HeaderKey: Sized + ZeroizeOnDrop {
    /// A key for `suite`.
    fn new(suite: CipherSuite, key: &[u8]) -> Self;

    /// The five-byte mask for a 16-byte ciphertext sample.
    fn mask(&self, sample: &[u8; 16]) -> [u8; 5];
}

/// A running hash whose state can be copied: the transcript is read out at several points. HMAC takes keys in, so it
/// leaves nothing behind in memory.
pub trait Hash: Clone + ZeroizeOnDrop {
    /// Length of a block in bytes; at most [`BLOCK_LEN_MAX`].
    const BLOCK_LEN: usize;
    /// Length of the digest in bytes; at most [`SECRET_LEN_MAX`].
    const LEN: usize;

    /// The hash of nothing yet.
    fn new() -> Self;

    /// Appends `bytes`.
    fn update(&mut self, bytes: &[u8]);

    /// Puts the digest into `out`, which has [`Self::LEN`] bytes.
    fn finish(self, out: &mut [u8]);
}

/// Lets a secret's owner state, where it is compiled, that the secret is erased with it.
pub(crate) const fn is_erased<T: ZeroizeOnDrop>(_: &T) {}

/// Length of the longest hash block in bytes.
#[cfg(feature = "aes256")]
pub const BLOCK_LEN_MAX: usize = 128;
/// Length of the longest hash block in bytes.
#[cfg(not(feature = "aes256"))]
pub const BLOCK_LEN_MAX: usize = 64;
