//! RSA signatures: PKCS#1 v1.5 (certificates only) and PSS (RFC 8017 8), verified without a heap.
//!
//! Moduli of 2,048 to 4,096 bits, computed with in the next of three fixed widths. Verification takes 3 to
//! 4 KB of stack more than an elliptic curve's at 4,096 bits.

use crate::codec::Reader;
use crate::crypto::der;
use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U64, U2048, U3072, U4096, Uint};
use pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use sha2::digest::Output;
use sha2::{Digest, Sha256, Sha384, Sha512};

/// Length of the longest modulus in bytes.
const MODULUS_LEN_MAX: usize = 512;
/// Length of the shortest modulus in bits: below it RSA is no longer considered safe.
const MODULUS_BITS_MIN: usize = 2048;
/// Length of the longest public exponent in bytes; 65,537 is what keys have.
const EXPONENT_LEN_MAX: usize = 4;
/// Length of the longest RSAPublicKey structure in bytes: two integers and their headers.
pub(super) const PUBLIC_KEY_LEN_MAX: usize = MODULUS_LEN_MAX + EXPONENT_LEN_MAX + 12;

macro_rules! algorithms {
    ($($(#[$doc:meta])* $type:ident, $name:ident, $hash:ident, $id:ident, $verify:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $type;
        pub(super) static $name: $type = $type;

        impl SignatureVerificationAlgorithm for $type {
            fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
                let digest = $hash::digest(message);
                verify(key, signature, |encoded, bits| $verify(encoded, bits, &digest)).ok_or(InvalidSignature)
            }

            fn public_key_alg_id(&self) -> AlgorithmIdentifier {
                alg_id::RSA_ENCRYPTION
            }

            fn signature_alg_id(&self) -> AlgorithmIdentifier {
                alg_id::$id
            }
        }
    )*};
}

algorithms! {
    /// PKCS#1 v1.5 with SHA-256.
    Pkcs1Sha256, PKCS1_SHA256, Sha256, RSA_PKCS1_SHA256, |e: &[u8], _, d: &[u8]| is_pkcs1(e, &SHA256_PREFIX, d);
    /// PKCS#1 v1.5 with SHA-384.
    Pkcs1Sha384, PKCS1_SHA384, Sha384, RSA_PKCS1_SHA384, |e: &[u8], _, d: &[u8]| is_pkcs1(e, &SHA384_PREFIX, d);
    /// PKCS#1 v1.5 with SHA-512.
    Pkcs1Sha512, PKCS1_SHA512, Sha512, RSA_PKCS1_SHA512, |e: &[u8], _, d: &[u8]| is_pkcs1(e, &SHA512_PREFIX, d);
    /// PSS with SHA-256, its mask too, and a salt as long.
    PssSha256, PSS_SHA256, Sha256, RSA_PSS_SHA256, is_pss::<Sha256>;
    /// PSS with SHA-384, its mask too, and a salt as long.
    PssSha384, PSS_SHA384, Sha384, RSA_PSS_SHA384, is_pss::<Sha384>;
    /// PSS with SHA-512, its mask too, and a salt as long.
    PssSha512, PSS_SHA512, Sha512, RSA_PSS_SHA512, is_pss::<Sha512>;
}

/// Raises the signature to the public exponent and shows `check` the result and the modulus's bits.
fn verify(key: &[u8], signature: &[u8], check: impl FnOnce(&mut [u8], usize) -> bool) -> Option<()> {
    let mut reader = Reader::new(key);
    let mut fields = Reader::new(der::value(&mut reader, der::SEQUENCE, "rsa.key").ok()?);
    let modulus = der::positive(&mut fields, "rsa.modulus").ok()?;
    let exponent = der::positive(&mut fields, "rsa.exponent").ok()?;
    let bits = modulus.len() * 8 - modulus[0].leading_zeros() as usize;
    let odd = exponent[exponent.len() - 1] & 1 == 1 && exponent != [1];
    let valid = reader.is_empty()
        && fields.is_empty()
        && (MODULUS_BITS_MIN..=MODULUS_LEN_MAX * 8).contains(&bits)
        && exponent.len() <= EXPONENT_LEN_MAX
        && odd
        && signature.len() == modulus.len();
    if !valid {
        return None;
    }
    let exponent = exponent.iter().fold(0, |value, &byte| value << 8 | u64::from(byte));
    let mut encoded = [0; MODULUS_LEN_MAX];
    let encoded = &mut encoded[..modulus.len()];
    match bits {
        0..=2048 => power::<{ U2048::LIMBS }>(signature, exponent, modulus, encoded)?,
        2049..=3072 => power::<{ U3072::LIMBS }>(signature, exponent, modulus, encoded)?,
        _ => power::<{ U4096::LIMBS }>(signature, exponent, modulus, encoded)?,
    }
    check(encoded, bits).then_some(())
}

/// `out` = `base` ^ `exponent` mod `modulus`; all three byte strings have the same length.
#[inline(never)]
fn power<const LIMBS: usize>(base: &[u8], exponent: u64, modulus: &[u8], out: &mut [u8]) -> Option<()> {
    let modulus = integer::<LIMBS>(modulus);
    let base = integer::<LIMBS>(base);
    if base >= modulus {
        return None;
    }
    let parameters = FixedMontyParams::new_vartime(Odd::new(modulus).into_option()?);
    let result = FixedMontyForm::new(&base, &parameters).pow_vartime(&U64::from_u64(exponent)).retrieve();
    let bytes = result.to_be_bytes();
    let bytes = bytes.as_ref();
    out.copy_from_slice(&bytes[bytes.len() - out.len()..]);
    Some(())
}

fn integer<const LIMBS: usize>(bytes: &[u8]) -> Uint<LIMBS> {
    let mut padded = [0; MODULUS_LEN_MAX];
    let padded = &mut padded[..Uint::<LIMBS>::BYTES];
    let start = padded.len() - bytes.len();
    padded[start..].copy_from_slice(bytes);
    Uint::from_be_slice(padded)
}

/// EMSA-PKCS1-v1_5 (RFC 8017 9.2): 00 01 ff .. ff 00, the hash's name, the digest.
fn is_pkcs1(encoded: &[u8], prefix: &[u8; 19], digest: &[u8]) -> bool {
    let Some((padding, tail)) = encoded.split_at_checked(encoded.len() - prefix.len() - digest.len()) else {
        return false;
    };
    let [0, 1, ones @ .., 0] = padding else { return false };
    ones.iter().all(|&byte| byte == 0xff) && tail.starts_with(prefix) && tail.ends_with(digest)
}

/// EMSA-PSS (RFC 8017 9.1.2) with a salt as long as the digest, as TLS 1.3 demands (RFC 8446 4.2.3).
fn is_pss<D: Digest>(encoded: &mut [u8], modulus_bits: usize, digest: &[u8]) -> bool {
    // One bit less than the modulus: with 8n + 1 bits the first byte is no part of it.
    let bits = modulus_bits - 1;
    let (lead, encoded) = encoded.split_at_mut(encoded.len() - bits.div_ceil(8));
    let Some((&mut 0xbc, rest)) = encoded.split_last_mut() else { return false };
    let (block, hash) = rest.split_at_mut(rest.len() - digest.len());
    let unused = !(0xff_u8 >> (bits.div_ceil(8) * 8 - bits));
    if lead.iter().any(|&byte| byte != 0) || block[0] & unused != 0 {
        return false;
    }
    for (counter, part) in (0_u32..).zip(block.chunks_mut(digest.len())) {
        let mask: Output<D> = D::new().chain_update(&*hash).chain_update(counter.to_be_bytes()).finalize();
        part.iter_mut().zip(&mask).for_each(|(byte, mask)| *byte ^= mask);
    }
    block[0] &= !unused;
    let (padding, salt) = block.split_at(block.len() - digest.len());
    let Some((&1, zeros)) = padding.split_last() else { return false };
    let expected = D::new().chain_update([0; 8]).chain_update(digest).chain_update(salt).finalize();
    zeros.iter().all(|&byte| byte == 0) && expected[..] == *hash
}

/// DigestInfo up to the digest (RFC 8017 9.2, note 1).
const SHA256_PREFIX: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
    0x04, 0x20,
];
const SHA384_PREFIX: [u8; 19] = [
    0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00,
    0x04, 0x30,
];
const SHA512_PREFIX: [u8; 19] = [
    0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00,
    0x04, 0x40,
];
