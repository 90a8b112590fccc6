//! ECDSA over P-256 and P-384 (FIPS 186-5 6).

use super::p256_vartime;
use crate::entropy::Entropy;
use p256::elliptic_curve::ops::{Invert, Reduce};
use p256::{NistP256, PublicKey, Scalar, U256};
use pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

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
fn verify_p256(key: &[u8], digest: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
    let key = PublicKey::from_sec1_bytes(key).map_err(|_| InvalidSignature)?;
    let signature = p256::ecdsa::Signature::from_der(signature).map_err(|_| InvalidSignature)?;
    let (r, s) = signature.split_scalars();
    let z = Scalar::reduce(&U256::from_be_slice(&digest[..32]));
    let inverse = s.invert_vartime();
    let u1 = z * *inverse;
    let u2 = *r * *inverse;
    if p256_vartime::x_matches(&u1, &u2, &key, &r) { Ok(()) } else { Err(InvalidSignature) }
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

/// A DER-encoded ECDSA signature.
pub type EcdsaSignature = p256::ecdsa::DerSignature;

/// Signs `message` with SHA-256 under the P-256 scalar `key`; `None` if that is no valid scalar.
///
/// The nonce is RFC 6979's, with fresh randomness as additional data: neither a weak entropy source nor an
/// induced fault in a repeated signature gives the key away (RFC 6979 3.6).
pub fn sign_p256(key: &[u8; 32], message: &[u8], entropy: &mut dyn Entropy) -> Option<EcdsaSignature> {
    let key = p256::SecretKey::from_slice(key).ok()?;
    let mut salt = [0; 32];
    entropy.fill(&mut salt);
    let digest = Sha256::digest(message);
    let (signature, _) =
        ::ecdsa::hazmat::sign_prehashed_rfc6979::<NistP256, Sha256>(&key.to_nonzero_scalar(), &digest, &salt);
    salt.zeroize();
    Some(signature.to_der())
}
