use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of the longest hash output, and so of the longest secret, in bytes.
#[cfg(feature = "aes256")]
pub const SECRET_LEN_MAX: usize = 48;
/// Length of the longest hash output, and so of the longest secret, in bytes.
#[cfg(not(feature = "aes256"))]
pub const SECRET_LEN_MAX: usize = 32;

/// A hash-sized value of the key schedule: erased when dropped, compared in constant time, never printed.
#[derive(Clone)]
pub struct Secret {
    bytes: [u8; SECRET_LEN_MAX],
    len: u8,
}

impl Secret {
    /// `len` zero bytes, to be filled.
    ///
    /// # Panics
    /// If `len` exceeds [`SECRET_LEN_MAX`]; lengths come from the hash, never from the network.
    pub const fn zero(len: usize) -> Self {
        assert!(len <= SECRET_LEN_MAX);
        Self { bytes: [0; SECRET_LEN_MAX], len: len as u8 }
    }

    /// A copy of `bytes`, or `None` if they exceed [`SECRET_LEN_MAX`].
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > SECRET_LEN_MAX {
            return None;
        }
        let mut secret = Self::zero(bytes.len());
        secret.as_mut_bytes().copy_from_slice(bytes);
        Some(secret)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The bytes, to be filled.
    pub fn as_mut_bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[..usize::from(self.len)]
    }

    /// Whether `other` holds the same bytes; takes the same time wherever they differ.
    pub fn matches(&self, other: &[u8]) -> bool {
        self.as_bytes().ct_eq(other).into()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl ZeroizeOnDrop for Secret {}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.as_bytes())
    }
}

impl Eq for Secret {}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Secret({} bytes)", self.len)
    }
}
