//! Ephemeral Diffie-Hellman over X25519 (RFC 7748) and P-256 (RFC 8446 4.2.8.2).

use crate::entropy::Entropy;
use p256::AffinePoint;
use p256::elliptic_curve::point::AffineCoordinates;
use p256::elliptic_curve::sec1::ToSec1Point;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The groups this client speaks (RFC 8446 4.2.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NamedGroup {
    /// `x25519`, 0x001d: the cheapest by far.
    X25519,
    /// `secp256r1`, 0x0017.
    P256,
}

impl NamedGroup {
    /// The code point (RFC 8446 4.2.7).
    pub const fn id(self) -> u16 {
        match self {
            Self::X25519 => 0x001d,
            Self::P256 => 0x0017,
        }
    }

    /// The group with that code point, if this client speaks it.
    pub const fn from_id(id: u16) -> Option<Self> {
        match id {
            0x001d => Some(Self::X25519),
            0x0017 => Some(Self::P256),
            _ => None,
        }
    }

    /// Length of a key share in bytes.
    pub const fn share_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::P256 => 65,
        }
    }
}

/// Length of the longest key share in bytes: an uncompressed P-256 point.
pub const SHARE_LEN_MAX: usize = 65;

/// A key pair's private half, erased when dropped.
pub struct PrivateKey {
    group: NamedGroup,
    scalar: [u8; 32],
}

impl PrivateKey {
    /// A fresh key, or `None` if `entropy` keeps returning bytes that are no P-256 scalar.
    pub fn generate(group: NamedGroup, entropy: &mut dyn Entropy) -> Option<Self> {
        let mut key = Self { group, scalar: [0; 32] };
        for _ in 0..SCALAR_ATTEMPTS_MAX {
            entropy.fill(&mut key.scalar);
            if group == NamedGroup::X25519 || key.p256().is_some() {
                return Some(key);
            }
        }
        None
    }

    /// The group of the key.
    pub const fn group(&self) -> NamedGroup {
        self.group
    }

    /// Puts the public key share into `out` and returns its length.
    pub fn share(&self, out: &mut [u8; SHARE_LEN_MAX]) -> usize {
        match self.group {
            NamedGroup::X25519 => {
                // The ladder, not the Edwards base table: as fast without tables, and one code for both.
                let public = x25519_dalek::x25519(self.scalar, x25519_dalek::X25519_BASEPOINT_BYTES);
                out[..public.len()].copy_from_slice(&public);
            }
            NamedGroup::P256 => {
                let secret = self.p256().expect("`generate` accepted the scalar");
                out.copy_from_slice(secret.public_key().to_sec1_point(false).as_bytes());
            }
        }
        self.group.share_len()
    }

    /// The secret shared with the owner of the key share `peer`, or `None` if that is not a valid public
    /// key: a wrong length, a point off the curve, or (X25519) an all-zero result (RFC 8446 7.4).
    pub fn agree(&self, peer: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
        let mut shared = Zeroizing::new([0; 32]);
        match self.group {
            NamedGroup::X25519 => {
                let peer: [u8; 32] = peer.try_into().ok()?;
                *shared = x25519_dalek::x25519(self.scalar, peer);
                if shared.ct_eq(&[0; 32]).into() {
                    return None;
                }
            }
            NamedGroup::P256 => {
                // Compressed and hybrid encodings are not allowed (RFC 8446 4.2.8.2).
                let (4, [x, y]) = split_point(peer)? else { return None };
                let peer = AffinePoint::from_coordinates(x.into(), y.into()).into_option()?;
                let secret = self.p256()?;
                let scalar = Zeroizing::new(secret.to_nonzero_scalar());
                // By reference: a copy would stay on the stack.
                let scalar: &p256::NonZeroScalar = &scalar;
                let agreed = p256::ecdh::diffie_hellman(scalar, peer);
                shared.copy_from_slice(agreed.raw_secret_bytes());
            }
        }
        Some(shared)
    }

    fn p256(&self) -> Option<p256::SecretKey> {
        p256::SecretKey::from_slice(&self.scalar).ok()
    }
}

/// The tag and the coordinates of an uncompressed point (SEC 1 2.3.3).
pub(super) fn split_point(bytes: &[u8]) -> Option<(u8, [&[u8; 32]; 2])> {
    let bytes: &[u8; SHARE_LEN_MAX] = bytes.try_into().ok()?;
    let (tag, coordinates) = bytes.split_first()?;
    let (x, y) = coordinates.split_first_chunk()?;
    Some((*tag, [x, y.try_into().ok()?]))
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.scalar.zeroize();
    }
}

impl ZeroizeOnDrop for PrivateKey {}

/// A random 256-bit string is no P-256 scalar once in 2^32; more often means broken entropy.
const SCALAR_ATTEMPTS_MAX: usize = 4;
