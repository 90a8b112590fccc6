//! Signatures: verifying certificates and CertificateVerify, and proving the client's own identity.
//!
//! webpki asks for algorithms as trait objects; the same objects verify CertificateVerify.

mod ecdsa;
#[cfg(feature = "ed25519")]
mod ed25519;
mod p256_field;
mod p256_vartime;
#[cfg(feature = "rsa")]
mod rsa;

pub use ecdsa::{EcdsaSignature, sign_p256};

use pki_types::{AlgorithmIdentifier, SignatureVerificationAlgorithm};

/// `ecdsa_secp256r1_sha256` (RFC 8446 4.2.3).
pub const ECDSA_SECP256R1_SHA256: u16 = 0x0403;

/// Longest public key kept from a certificate, in bytes: an RSA modulus of 4,096 bits.
#[cfg(feature = "rsa")]
pub const PUBLIC_KEY_LEN_MAX: usize = rsa::PUBLIC_KEY_LEN_MAX;
/// Longest public key kept from a certificate, in bytes: an uncompressed P-384 point.
#[cfg(not(feature = "rsa"))]
pub const PUBLIC_KEY_LEN_MAX: usize = 97;

/// What a certificate chain may be signed with.
pub const FOR_CERTIFICATES: &[&dyn SignatureVerificationAlgorithm] = &[
    &ecdsa::P256_SHA256,
    #[cfg(feature = "p384")]
    &ecdsa::P256_SHA384,
    #[cfg(feature = "p384")]
    &ecdsa::P384_SHA256,
    #[cfg(feature = "p384")]
    &ecdsa::P384_SHA384,
    #[cfg(feature = "ed25519")]
    &ed25519::ED25519,
    #[cfg(feature = "rsa")]
    &rsa::PKCS1_SHA256,
    #[cfg(feature = "rsa")]
    &rsa::PKCS1_SHA384,
    #[cfg(feature = "rsa")]
    &rsa::PKCS1_SHA512,
    #[cfg(feature = "rsa")]
    &rsa::PSS_SHA256,
    #[cfg(feature = "rsa")]
    &rsa::PSS_SHA384,
    #[cfg(feature = "rsa")]
    &rsa::PSS_SHA512,
];

/// What CertificateVerify may be signed with, by preference: TLS 1.3 ties the curve to the hash.
const FOR_HANDSHAKES: &[(u16, &dyn SignatureVerificationAlgorithm)] = &[
    (ECDSA_SECP256R1_SHA256, &ecdsa::P256_SHA256),
    #[cfg(feature = "ed25519")]
    (0x0807, &ed25519::ED25519),
    #[cfg(feature = "p384")]
    (0x0503, &ecdsa::P384_SHA384),
    #[cfg(feature = "rsa")]
    (0x0804, &rsa::PSS_SHA256),
    #[cfg(feature = "rsa")]
    (0x0805, &rsa::PSS_SHA384),
    #[cfg(feature = "rsa")]
    (0x0806, &rsa::PSS_SHA512),
];

/// What else a certificate may be signed with: PKCS#1 v1.5, which TLS 1.3 allows nowhere else.
#[cfg(feature = "rsa")]
const OFFERED_FOR_CERTIFICATES: &[u16] = &[0x0401, 0x0501, 0x0601];
/// What else a certificate may be signed with.
#[cfg(not(feature = "rsa"))]
const OFFERED_FOR_CERTIFICATES: &[u16] = &[];

/// The code points to offer in `signature_algorithms`.
pub fn offered() -> impl Iterator<Item = u16> {
    FOR_HANDSHAKES.iter().map(|(scheme, _)| *scheme).chain(OFFERED_FOR_CERTIFICATES.iter().copied())
}

/// The algorithm of code point `scheme`, if it is allowed in CertificateVerify with a key of `key_algorithm`.
pub fn for_handshake(
    scheme: u16,
    key_algorithm: AlgorithmIdentifier,
) -> Option<&'static dyn SignatureVerificationAlgorithm> {
    FOR_HANDSHAKES
        .iter()
        .find(|(id, algorithm)| *id == scheme && algorithm.public_key_alg_id() == key_algorithm)
        .map(|(_, algorithm)| *algorithm)
}

/// The kind of key with that encoded AlgorithmIdentifier, if this build verifies its signatures.
pub fn key_algorithm(encoded: &[u8]) -> Option<AlgorithmIdentifier> {
    FOR_HANDSHAKES
        .iter()
        .map(|(_, algorithm)| algorithm.public_key_alg_id())
        .find(|algorithm| algorithm.as_ref() == encoded)
}
