//! The key schedule (RFC 8446 7.1).

use crate::crypto::{Crypto, HashAlgorithm, Secret, hkdf};

/// Early Secret: from a pre-shared key, or from nothing.
pub(super) fn early_secret<C: Crypto>(hash: HashAlgorithm, psk: Option<&Secret>) -> Secret {
    let none = Secret::zero(hash.len());
    hkdf::extract::<C>(hash, &[], psk.unwrap_or(&none).as_bytes())
}

/// Handshake Secret: Early Secret and the Diffie-Hellman result.
pub(super) fn handshake_secret<C: Crypto>(hash: HashAlgorithm, early: &Secret, shared: &[u8]) -> Secret {
    hkdf::extract::<C>(hash, derived::<C>(hash, early).as_bytes(), shared)
}

/// Master Secret.
pub(super) fn master_secret<C: Crypto>(hash: HashAlgorithm, handshake: &Secret) -> Secret {
    let none = Secret::zero(hash.len());
    hkdf::extract::<C>(hash, derived::<C>(hash, handshake).as_bytes(), none.as_bytes())
}

/// The MAC of a Finished message or of a PSK binder under `base` (RFC 8446 4.4.4).
pub(super) fn finished_mac<C: Crypto>(hash: HashAlgorithm, base: &Secret, transcript: &Secret) -> Secret {
    let key = hkdf::derive_secret::<C>(hash, base, b"finished", &[]);
    hkdf::hmac::<C>(hash, key.as_bytes(), &[transcript.as_bytes()])
}

/// The binder key of a resumption PSK.
pub(super) fn binder_key<C: Crypto>(hash: HashAlgorithm, early: &Secret) -> Secret {
    hkdf::derive_secret::<C>(hash, early, b"res binder", hkdf::digest::<C>(hash, &[]).as_bytes())
}

fn derived<C: Crypto>(hash: HashAlgorithm, secret: &Secret) -> Secret {
    hkdf::derive_secret::<C>(hash, secret, b"derived", hkdf::digest::<C>(hash, &[]).as_bytes())
}
