//! HMAC (RFC 2104) and HKDF (RFC 5869) as TLS 1.3 uses them (RFC 8446 7.1).
//!
//! Generic over the provider, so that SHA hardware serves the key schedule too. Every output of the key
//! schedule is at most one digest long, so Expand is a single HMAC.

use super::{BLOCK_LEN_MAX, Crypto, Hash, HashAlgorithm, Secret};
use zeroize::Zeroize;

/// Longest `label` of [`expand_label`] in bytes, without the `tls13 ` in front.
pub const LABEL_LEN_MAX: usize = 12;

/// HKDF-Extract: the pseudorandom key of `salt` and `input` (RFC 5869 2.2).
pub fn extract<C: Crypto>(hash: HashAlgorithm, salt: &[u8], input: &[u8]) -> Secret {
    hmac::<C>(hash, salt, &[input])
}

/// HKDF-Expand-Label of RFC 8446 7.1, with `tls13 ` put in front of `label`.
///
/// # Panics
/// If `out` is longer than one digest, `label` than [`LABEL_LEN_MAX`] or `context` than 255 bytes: none of
/// the three comes from the network without such a bound.
pub fn expand_label<C: Crypto>(
    hash: HashAlgorithm,
    secret: &Secret,
    label: &[u8],
    context: &[u8],
    out: &mut [u8],
) {
    assert!(out.len() <= hash.len() && label.len() <= LABEL_LEN_MAX && context.len() <= 255);
    let label_len = (PREFIX.len() + label.len()) as u8;
    let head = [0, out.len() as u8, label_len];
    let parts: [&[u8]; 6] = [&head, PREFIX, label, &[context.len() as u8], context, &[1]];
    let block = hmac::<C>(hash, secret.as_bytes(), &parts);
    out.copy_from_slice(&block.as_bytes()[..out.len()]);
}

/// Derive-Secret of RFC 8446 7.1; `transcript` is the hash of the messages.
pub fn derive_secret<C: Crypto>(
    hash: HashAlgorithm,
    secret: &Secret,
    label: &[u8],
    transcript: &[u8],
) -> Secret {
    let mut derived = Secret::zero(hash.len());
    expand_label::<C>(hash, secret, label, transcript, derived.as_mut_bytes());
    derived
}

/// The digest of `parts`, one after the other.
pub fn digest<C: Crypto>(hash: HashAlgorithm, parts: &[&[u8]]) -> Secret {
    match hash {
        HashAlgorithm::Sha256 => digest_with::<C::Sha256>(parts),
        #[cfg(feature = "aes256")]
        HashAlgorithm::Sha384 => digest_with::<C::Sha384>(parts),
    }
}

/// HMAC of `parts`, one after the other, under `key` (RFC 2104).
pub fn hmac<C: Crypto>(hash: HashAlgorithm, key: &[u8], parts: &[&[u8]]) -> Secret {
    match hash {
        HashAlgorithm::Sha256 => hmac_with::<C::Sha256>(key, parts),
        #[cfg(feature = "aes256")]
        HashAlgorithm::Sha384 => hmac_with::<C::Sha384>(key, parts),
    }
}

const PREFIX: &[u8] = b"tls13 ";

fn digest_with<H: Hash>(parts: &[&[u8]]) -> Secret {
    let mut hash = H::new();
    parts.iter().for_each(|part| hash.update(part));
    let mut digest = Secret::zero(H::LEN);
    hash.finish(digest.as_mut_bytes());
    digest
}

fn hmac_with<H: Hash>(key: &[u8], parts: &[&[u8]]) -> Secret {
    let mut pad = [0; BLOCK_LEN_MAX];
    if key.len() <= H::BLOCK_LEN {
        pad[..key.len()].copy_from_slice(key);
    } else {
        pad[..H::LEN].copy_from_slice(digest_with::<H>(&[key]).as_bytes());
    }
    let pad_block = &mut pad[..H::BLOCK_LEN];

    pad_block.iter_mut().for_each(|byte| *byte ^= 0x36);
    let mut inner = H::new();
    inner.update(pad_block);
    parts.iter().for_each(|part| inner.update(part));
    let mut tag = Secret::zero(H::LEN);
    inner.finish(tag.as_mut_bytes());

    pad_block.iter_mut().for_each(|byte| *byte ^= 0x36 ^ 0x5c);
    let mut outer = H::new();
    outer.update(pad_block);
    outer.update(tag.as_bytes());
    outer.finish(tag.as_mut_bytes());
    pad.zeroize();
    tag
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Software;

    #[test]
    fn hmac_sha256_of_rfc_4231_case_2() {
        let tag = hmac::<Software>(HashAlgorithm::Sha256, b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(
            tag.as_bytes(),
            [
                0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24, 0x26, 0x08, 0x95, 0x75,
                0xc7, 0x5a, 0x00, 0x3f, 0x08, 0x9d, 0x27, 0x39, 0x83, 0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec,
                0x38, 0x43
            ]
        );
    }

    #[test]
    fn hmac_sha256_of_rfc_4231_case_6_hashes_a_long_key() {
        let data: &[u8] = b"Test Using Larger Than Block-Size Key - Hash Key First";
        let tag = hmac::<Software>(HashAlgorithm::Sha256, &[0xaa; 131], &[data]);
        assert_eq!(tag.as_bytes()[..8], [0x60, 0xe4, 0x31, 0x59, 0x1e, 0xe0, 0xb6, 0x7f]);
    }
}
