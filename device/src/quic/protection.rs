//! Packet protection (RFC 9001 5): keys per level, nonces, header protection, Retry integrity.

use crate::crypto::{
    AeadKey, BadTag, CipherSuite, Crypto, HashAlgorithm, HeaderKey, KEY_LEN_MAX, NONCE_LEN, Secret, TAG_LEN,
    hkdf,
};
use core::ops::Range;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::cid::{CID_LEN_MAX, ConnectionId};
use super::packet::{
    FORM_LONG, NUMBER_LEN, RESERVED_LONG, RESERVED_SHORT, RETRY_PACKET_LEN_MAX, RetryPacket, decode_number,
};

/// Bytes of ciphertext that header protection samples (RFC 9001 5.4.2).
pub const SAMPLE_LEN: usize = 16;
/// The sample starts this far behind the start of the packet number, whatever its length.
pub const SAMPLE_OFFSET: usize = 4;

/// "38762cf7..." of RFC 9001 5.2.
const INITIAL_SALT: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc,
    0xbb, 0x7f, 0x0a,
];
/// The fixed key and nonce of RFC 9001 5.8.
const RETRY_KEY: [u8; 16] =
    [0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e];
const RETRY_NONCE: [u8; NONCE_LEN] = [0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb];

/// AEAD key and IV of one direction.
pub struct PacketKey<C: Crypto> {
    aead: C::AeadKey,
    iv: [u8; NONCE_LEN],
}

impl<C: Crypto> Drop for PacketKey<C> {
    fn drop(&mut self) {
        self.iv.zeroize();
    }
}

impl<C: Crypto> ZeroizeOnDrop for PacketKey<C> {}

impl<C: Crypto> PacketKey<C> {
    /// Derives "quic key" and "quic iv" (RFC 9001 5.1).
    pub fn derive(suite: CipherSuite, secret: &Secret) -> Self {
        let mut key = [0; KEY_LEN_MAX];
        let key = &mut key[..suite.key_len()];
        hkdf::expand_label::<C>(suite.hash(), secret, b"quic key", &[], key);
        let mut iv = [0; NONCE_LEN];
        hkdf::expand_label::<C>(suite.hash(), secret, b"quic iv", &[], &mut iv);
        let aead = C::AeadKey::new(suite, key);
        key.zeroize();
        Self { aead, iv }
    }

    /// The IV, exclusive or the packet number (RFC 9001 5.3).
    fn nonce(&self, number: u64) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }

    fn seal(&self, number: u64, packet: &mut [u8], header_len: usize) {
        let (header, payload) = packet.split_at_mut(header_len);
        self.aead.seal(&self.nonce(number), header, payload);
    }

    /// Decrypts the payload behind `header_len` bytes in place and returns its length.
    ///
    /// # Errors
    /// [`BadTag`]: the packet is not from the peer.
    pub fn open(&self, number: u64, packet: &mut [u8], header_len: usize) -> Result<usize, BadTag> {
        let (header, payload) = packet.split_at_mut(header_len);
        if payload.len() < TAG_LEN {
            return Err(BadTag);
        }
        self.aead.open(&self.nonce(number), header, payload)
    }
}

/// A header protection key.
pub struct HeaderProtection<C: Crypto>(C::HeaderKey);

impl<C: Crypto> ZeroizeOnDrop for HeaderProtection<C> {}

/// What header protection hid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unprotected {
    /// The first byte.
    pub first: u8,
    /// The full packet number.
    pub number: u64,
    /// Bytes up to the payload.
    pub header_len: usize,
}

impl Unprotected {
    /// Whether the reserved bits are zero, as they have to be in an authentic packet.
    pub const fn reserved_bits_are_zero(&self) -> bool {
        let reserved = if self.first & FORM_LONG != 0 { RESERVED_LONG } else { RESERVED_SHORT };
        self.first & reserved == 0
    }
}

impl<C: Crypto> HeaderProtection<C> {
    /// Derives "quic hp" (RFC 9001 5.1).
    pub fn derive(suite: CipherSuite, secret: &Secret) -> Self {
        let mut key = [0; KEY_LEN_MAX];
        let key = &mut key[..suite.key_len()];
        hkdf::expand_label::<C>(suite.hash(), secret, b"quic hp", &[], key);
        let header = C::HeaderKey::new(suite, key);
        key.zeroize();
        Self(header)
    }

    fn mask(&self, packet: &[u8], number_at: usize) -> Option<[u8; 5]> {
        let sample = packet.get(number_at + SAMPLE_OFFSET..)?.first_chunk::<SAMPLE_LEN>()?;
        Some(self.0.mask(sample))
    }

    /// Hides the first byte's low bits and the packet number.
    fn apply(&self, packet: &mut [u8], number: Range<usize>) {
        let mask = self.mask(packet, number.start).expect("a sealed packet holds a sample");
        packet[0] ^= mask[0] & first_byte_mask(packet[0]);
        for (byte, mask) in packet[number].iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
        }
    }

    /// Uncovers the header in place; `None` if the packet is too short to have been protected.
    pub fn remove(&self, packet: &mut [u8], number_at: usize, expected: u64) -> Option<Unprotected> {
        let mask = self.mask(packet, number_at)?;
        packet[0] ^= mask[0] & first_byte_mask(packet[0]);
        let first = packet[0];
        let len = usize::from(first & NUMBER_LEN) + 1;
        let mut truncated = 0;
        for (byte, mask) in packet[number_at..number_at + len].iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
            truncated = truncated << 8 | u32::from(*byte);
        }
        Some(Unprotected {
            first,
            number: decode_number(truncated, len, expected),
            header_len: number_at + len,
        })
    }
}

const fn first_byte_mask(first: u8) -> u8 {
    if first & FORM_LONG != 0 { 0x0f } else { 0x1f }
}

/// Keys of one direction of a level that has no key updates.
pub struct Direction<C: Crypto> {
    /// For the payload.
    pub packet: PacketKey<C>,
    /// For the header.
    pub header: HeaderProtection<C>,
}

impl<C: Crypto> Direction<C> {
    /// Both keys from a traffic secret.
    pub fn derive(suite: CipherSuite, secret: &Secret) -> Self {
        Self { packet: PacketKey::derive(suite, secret), header: HeaderProtection::derive(suite, secret) }
    }
}

/// Keys of both directions of a level.
pub struct LevelKeys<C: Crypto> {
    /// What this end sends with.
    pub local: Direction<C>,
    /// What the peer sends with.
    pub remote: Direction<C>,
}

impl<C: Crypto> LevelKeys<C> {
    /// The Initial keys of a client whose first packet went to `destination` (RFC 9001 5.2).
    pub fn initial(destination: &ConnectionId) -> Self {
        let hash = HashAlgorithm::Sha256;
        let suite = CipherSuite::Aes128GcmSha256;
        let initial = hkdf::extract::<C>(hash, &INITIAL_SALT, destination.as_bytes());
        let client = hkdf::derive_secret::<C>(hash, &initial, b"client in", &[]);
        let server = hkdf::derive_secret::<C>(hash, &initial, b"server in", &[]);
        Self::derive(suite, &client, &server)
    }

    /// Keys from this client's and the server's traffic secrets.
    pub fn derive(suite: CipherSuite, client: &Secret, server: &Secret) -> Self {
        Self { local: Direction::derive(suite, client), remote: Direction::derive(suite, server) }
    }
}

/// Encrypts a packet in place: `packet` holds header, payload and room for the tag.
pub fn protect<C: Crypto>(
    packet: &mut [u8],
    number: u64,
    number_at: Range<usize>,
    key: &PacketKey<C>,
    header: &HeaderProtection<C>,
) {
    key.seal(number, packet, number_at.end);
    header.apply(packet, number_at);
}

/// Whether a Retry answers the Initial that went to `original` (RFC 9001 5.8).
pub fn is_retry_authentic<C: Crypto>(retry: &RetryPacket<'_>, original: &ConnectionId) -> bool {
    let mut pseudo = [0; 1 + CID_LEN_MAX + RETRY_PACKET_LEN_MAX];
    let head = 1 + original.len();
    let Some(covered) = pseudo.get_mut(head..head + retry.covered.len()) else { return false };
    covered.copy_from_slice(retry.covered);
    pseudo[0] = original.len() as u8;
    pseudo[1..head].copy_from_slice(original.as_bytes());
    let key = C::AeadKey::new(CipherSuite::Aes128GcmSha256, &RETRY_KEY);
    let mut tag = retry.tag;
    key.open(&RETRY_NONCE, &pseudo[..head + retry.covered.len()], &mut tag).is_ok()
}

#[cfg(test)]
#[path = "protection_vectors.rs"]
mod tests;
