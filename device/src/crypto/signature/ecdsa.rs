//! ECDSA over P-256 and P-384 (FIPS 186-5 6).

use super::p256_vartime;
use crate::codec::Reader;
use crate::crypto::der;
use crate::entropy::Entropy;
use p256::ecdsa::Signature;
use p256::elliptic_curve::ops::{Invert, Reduce};
use p256::{NistP256, Scalar, U256};
use pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

/// ECDSA with P-256 and SHA-256.
#[derive(Debug)]
pub(super) struct P256Sha256;
pub(super) static P256_SHA256: P256Sha256 = P256Sha256;

impl SignatureVerificationAlgorithm for P256Sha256 {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        verify_p256(key, &Sha256::digest(message), signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA256
    }
}

/// FIPS 186-5 6.4.2; `digest` has at least 32 bytes, of which the first 32 count.
///
/// Keys are uncompressed points (RFC 5480 2.2 leaves compressed ones to choice): a square root more would cost 4 KB.
fn verify_p256(key: &[u8], digest: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
    let Some(key) = p256_vartime::Key::from_sec1(key) else { return Err(InvalidSignature) };
    // By reference: taken apart, they would lie on the stack twice.
    let Some((u1, u2, r)) = &verification_scalars(digest, signature) else { return Err(InvalidSignature) };
    if p256_vartime::x_matches(u1, u2, &key, r) { Ok(()) } else { Err(InvalidSignature) }
}

/// The factors of the generator and of the key, and the r to be met. Out of line, so that what the inversion takes of
/// the stack is free again before the multiplication.
#[inline(never)]
fn verification_scalars(digest: &[u8], signature: &[u8]) -> Option<(Scalar, Scalar, Scalar)> {
    let (r, s) = read_signature(signature)?.split_scalars();
    let z = Scalar::reduce(&U256::from_be_slice(&digest[..32]));
    let inverse = s.invert_vartime();
    Some((z * *inverse, *r * *inverse, *r))
}

/// r and s, both above zero and below the order (RFC 3279 2.2.3), in strict DER.
fn read_signature(bytes: &[u8]) -> Option<Signature> {
    let mut reader = Reader::new(bytes);
    let mut fields = Reader::new(der::value(&mut reader, der::SEQUENCE, "signature").ok()?);
    let [r, s] = [read_integer(&mut fields)?, read_integer(&mut fields)?];
    if !reader.is_empty() || !fields.is_empty() {
        return None;
    }
    Signature::from_scalars(r, s).ok()
}

fn read_integer(fields: &mut Reader<'_>) -> Option<[u8; 32]> {
    let digits = der::positive(fields, "signature.integer").ok()?;
    let mut integer = [0; 32];
    integer[32_usize.checked_sub(digits.len())?..].copy_from_slice(digits);
    Some(integer)
}

#[cfg(feature = "p384")]
mod with_p384 {
    use super::verify_p256;
    use p384::ecdsa::signature::hazmat::PrehashVerifier;
    use pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
    use sha2::{Digest, Sha256, Sha384};

    /// ECDSA with P-256 and SHA-384: certificates only.
    #[derive(Debug)]
    pub(in crate::crypto::signature) struct P256Sha384;
    pub(in crate::crypto::signature) static P256_SHA384: P256Sha384 = P256Sha384;

    impl SignatureVerificationAlgorithm for P256Sha384 {
        fn verify_signature(
            &self,
            key: &[u8],
            message: &[u8],
            signature: &[u8],
        ) -> Result<(), InvalidSignature> {
            verify_p256(key, &Sha384::digest(message), signature)
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_P256
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_SHA384
        }
    }

    /// ECDSA with P-384 and SHA-256: certificates only.
    #[derive(Debug)]
    pub(in crate::crypto::signature) struct P384Sha256;
    pub(in crate::crypto::signature) static P384_SHA256: P384Sha256 = P384Sha256;

    impl SignatureVerificationAlgorithm for P384Sha256 {
        fn verify_signature(
            &self,
            key: &[u8],
            message: &[u8],
            signature: &[u8],
        ) -> Result<(), InvalidSignature> {
            verify_p384(key, &Sha256::digest(message), signature)
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_P384
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_SHA256
        }
    }

    /// ECDSA with P-384 and SHA-384.
    #[derive(Debug)]
    pub(in crate::crypto::signature) struct P384Sha384;
    pub(in crate::crypto::signature) static P384_SHA384: P384Sha384 = P384Sha384;

    impl SignatureVerificationAlgorithm for P384Sha384 {
        fn verify_signature(
            &self,
            key: &[u8],
            message: &[u8],
            signature: &[u8],
        ) -> Result<(), InvalidSignature> {
            verify_p384(key, &Sha384::digest(message), signature)
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_P384
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_SHA384
        }
    }

    fn verify_p384(key: &[u8], digest: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidSignature)?;
        let signature = p384::ecdsa::Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        key.verify_prehash(digest, &signature).map_err(|_| InvalidSignature)
    }
}

#[cfg(feature = "p384")]
pub(super) use with_p384::{P256_SHA384, P384_SHA256, P384_SHA384};

/// A DER-encoded ECDSA signature (RFC 3279 2.2.3).
pub struct EcdsaSignature(heapless::Vec<u8, SIGNATURE_LEN_MAX>);

/// A SEQUENCE of two INTEGERs of at most 33 bytes, each behind two bytes.
const SIGNATURE_LEN_MAX: usize = 2 + 2 * (2 + 33);

impl EcdsaSignature {
    /// The encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn new(signature: &Signature) -> Self {
        let bytes = signature.to_bytes();
        let (r, s) = bytes.split_at(32);
        let mut der = heapless::Vec::new();
        let mut put = |part: &[u8]| der.extend_from_slice(part).expect("SIGNATURE_LEN_MAX is the longest");
        put(&[der::SEQUENCE, (integer_len(r) + integer_len(s)) as u8 + 4]);
        for integer in [r, s] {
            let len = integer_len(integer);
            put(&[der::INTEGER, len as u8]);
            // A leading zero keeps the number positive.
            put(&[0][..len.saturating_sub(integer.len())]);
            put(&integer[integer.len().saturating_sub(len)..]);
        }
        Self(der)
    }
}

/// Bytes that DER takes for a number: without leading zeros, but with a bit for the sign.
fn integer_len(integer: &[u8]) -> usize {
    let zeros = integer.iter().take_while(|&&byte| byte == 0).count();
    let sign = integer.get(zeros).is_none_or(|&first| first & 0x80 != 0);
    integer.len() - zeros + usize::from(sign)
}

/// Signs `message` with SHA-256 under the P-256 scalar `key`; `None` if that is no valid scalar.
///
/// The nonce is RFC 6979's, with fresh randomness as additional data: neither a weak entropy source nor an
/// induced fault in a repeated signature gives the key away (RFC 6979 3.6).
pub fn sign_p256(key: &[u8; 32], message: &[u8], entropy: &mut dyn Entropy) -> Option<EcdsaSignature> {
    let key = Zeroizing::new(p256::SecretKey::from_slice(key).ok()?.to_nonzero_scalar());
    let mut salt = [0; 32];
    entropy.fill(&mut salt);
    let digest = Sha256::digest(message);
    let (signature, _) = ::ecdsa::hazmat::sign_prehashed_rfc6979::<NistP256, Sha256>(&key, &digest, &salt);
    salt.zeroize();
    Some(EcdsaSignature::new(&signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(r: [u8; 32], s: [u8; 32]) -> Signature {
        Signature::from_scalars(r, s).expect("below the order and not zero")
    }

    fn number(first: &[u8]) -> [u8; 32] {
        let mut bytes = [0x11; 32];
        bytes[..first.len()].copy_from_slice(first);
        bytes
    }

    #[test]
    fn integers_of_any_length_keep_their_value_and_agree_with_another_encoder() {
        let firsts: [&[u8]; 6] = [&[0x7f], &[0x80], &[0, 0x80], &[0, 0, 1], &[0; 31], &[0x01]];
        for r in firsts {
            for s in firsts {
                let signature = signature(number(r), number(s));
                let der = EcdsaSignature::new(&signature);
                assert_eq!(der.as_bytes(), signature.to_der().as_bytes(), "{r:?} {s:?}");
                assert_eq!(read_signature(der.as_bytes()), Some(signature), "{r:?} {s:?}");
            }
        }
    }

    #[test]
    fn der_that_is_not_the_shortest_or_not_alone_is_refused() {
        let good = EcdsaSignature::new(&signature(number(&[0x10]), number(&[0x20])));
        let good = good.as_bytes();
        let mut tail = heapless::Vec::<u8, 80>::from_slice(good).expect("room");
        tail.push(0).expect("room");
        assert_eq!(read_signature(&tail), None, "a byte behind the sequence");
        let mut long = heapless::Vec::<u8, 80>::from_slice(&[0x30, 0x81]).expect("room");
        long.extend_from_slice(&good[1..]).expect("room");
        assert_eq!(read_signature(&long), None, "a length in two bytes that fits one");
        let mut padded = heapless::Vec::<u8, 80>::from_slice(&[0x30, good[1] + 1, 2, 33, 0]).expect("room");
        padded.extend_from_slice(&good[4..]).expect("room");
        assert_eq!(read_signature(&padded), None, "a leading zero without need");
        assert_eq!(read_signature(&good[..good.len() - 1]), None, "cut off");
    }
}
