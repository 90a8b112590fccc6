//! rustls without chance: keys, nonces and certificates that follow from a seed, so that every byte on the wire
//! does.
//!
//! For measurements on a processor whose instructions are counted: how long a signature takes to verify depends on
//! its bits.

use std::sync::{Arc, Mutex, PoisonError};

use device::crypto::key_exchange::{NamedGroup, PrivateKey, SHARE_LEN_MAX};
use device::crypto::signature::sign_p256;
use device::entropy::Entropy;
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::pki_types::{CertificateDer, TrustAnchor};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{Error, PeerMisbehaved, SignatureAlgorithm, SignatureScheme};

use crate::Random;
use crate::identity::{authority, leaf};

/// Streams of the seed, apart from those of [`crate::Server`].
const STREAM_SERVER: u64 = 3_000;
const STREAM_KEYS: u64 = 3_100;

/// A server's cryptography and identity: ECDSA P-256, leaf, intermediate and root.
#[derive(Clone, Debug)]
pub struct Seeded {
    random: SeededRandom,
    key: Arc<Key>,
    /// Leaf and intermediate.
    chain: Vec<CertificateDer<'static>>,
    /// The root certificate, in DER.
    pub root: CertificateDer<'static>,
}

impl Seeded {
    /// The identity and the randomness that follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let key = |number| Key::new(Random::new(seed, STREAM_KEYS + number));
        let (root_key, intermediate_key, leaf_key) = (key(0), key(1), key(2));
        let root_params = authority("Seeded Root", 0, 0);
        let root = root_params.self_signed(&root_key).expect("the parameters are complete").der().clone();
        let issuer = rcgen::Issuer::new(root_params, root_key);
        let params = authority("Seeded Intermediate", 0, 1);
        let intermediate = params.signed_by(&intermediate_key, &issuer).expect("the parameters are complete");
        let intermediate = intermediate.der().clone();
        let issuer = rcgen::Issuer::new(params, intermediate_key);
        let end = leaf(0, 2).signed_by(&leaf_key, &issuer).expect("the parameters are complete");
        let random = SeededRandom::new(seed);
        Self { random, key: Arc::new(leaf_key), chain: vec![end.der().clone(), intermediate], root }
    }

    /// Whom a client must trust.
    ///
    /// # Panics
    /// Never: the root is a certificate.
    #[must_use]
    pub fn anchor(&self) -> TrustAnchor<'static> {
        webpki::anchor_from_trusted_cert(&self.root).expect("rcgen writes valid certificates").to_owned()
    }

    /// A public key as an uncompressed point, and its DER signature over `message`: as hard to verify as those of a
    /// handshake.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> (Vec<u8>, Vec<u8>) {
        (self.key.public.to_vec(), self.key.signature(message))
    }

    /// As [`SeededRandom::provider`].
    #[must_use]
    pub fn provider(&self) -> CryptoProvider {
        self.random.provider()
    }

    /// Shows the identity to every client.
    #[must_use]
    pub fn resolver(&self) -> Arc<SingleCertAndKey> {
        let key: Arc<dyn SigningKey> = self.key.clone();
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(self.chain.clone(), key)))
    }
}

/// One generator for all that a server draws.
#[derive(Clone, Debug)]
pub struct SeededRandom(Arc<Mutex<Random>>);

impl SeededRandom {
    /// What a server draws that follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Random::new(seed, STREAM_SERVER))))
    }

    /// ring's provider with seeded randomness and key exchange. What is leaked for it, some bytes, lives as long as
    /// the process, as rustls demands.
    #[must_use]
    pub fn provider(&self) -> CryptoProvider {
        let group = |group| -> &'static dyn SupportedKxGroup {
            Box::leak(Box::new(Group { group, random: self.clone() }))
        };
        CryptoProvider {
            secure_random: Box::leak(Box::new(self.clone())),
            kx_groups: vec![group(NamedGroup::X25519), group(NamedGroup::P256)],
            ..rustls::crypto::ring::default_provider()
        }
    }

    fn with<R>(&self, draw: impl FnOnce(&mut Random) -> R) -> R {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SecureRandom for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        self.with(|random| Entropy::fill(random, bytes));
        Ok(())
    }
}

/// A group with seeded keys, on the device's own arithmetic.
#[derive(Debug)]
struct Group {
    group: NamedGroup,
    random: SeededRandom,
}

impl SupportedKxGroup for Group {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let key = self.random.with(|random| PrivateKey::generate(self.group, random));
        let key = key.ok_or(Error::FailedToGetRandomBytes)?;
        let mut share = [0; SHARE_LEN_MAX];
        let len = key.share(&mut share);
        Ok(Box::new(Exchange { key, share: share[..len].to_vec() }))
    }

    fn name(&self) -> rustls::NamedGroup {
        self.group.id().into()
    }
}

struct Exchange {
    key: PrivateKey,
    share: Vec<u8>,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let agreed = self.key.agree(peer).ok_or(PeerMisbehaved::InvalidKeyShare)?;
        Ok(SharedSecret::from(&agreed[..]))
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn group(&self) -> rustls::NamedGroup {
        self.key.group().id().into()
    }
}

/// A P-256 key whose signatures follow from the seed and the order in which they are made.
#[derive(Debug)]
struct Key {
    secret: [u8; 32],
    public: [u8; SHARE_LEN_MAX],
    random: Arc<Mutex<Random>>,
}

impl Key {
    fn new(mut random: Random) -> Self {
        let (secret, mut public) = (random.array(), [0; SHARE_LEN_MAX]);
        let pair = PrivateKey::generate(NamedGroup::P256, &mut Fixed(secret));
        pair.expect("not a scalar once in 2^32 seeds").share(&mut public);
        Self { secret, public, random: Arc::new(Mutex::new(random)) }
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let signature = sign_p256(&self.secret, message, &mut *random);
        signature.expect("`new` made sure of the scalar").as_bytes().to_vec()
    }
}

impl rcgen::PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.signature(message))
    }
}

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = SignatureScheme::ECDSA_NISTP256_SHA256;
        let signer = Self { random: self.random.clone(), ..*self };
        offered.contains(&scheme).then(|| Box::new(signer) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.signature(message))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

/// Gives away these bytes.
struct Fixed([u8; 32]);

impl Entropy for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) {
        for (byte, fixed) in bytes.iter_mut().zip(self.0.iter().cycle()) {
            *byte = *fixed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_identity_and_the_same_bytes() {
        let (one, other) = (Seeded::new(7), Seeded::new(7));
        assert_eq!((&one.chain, &one.root), (&other.chain, &other.root));
        assert_ne!(one.root, Seeded::new(8).root);
        let draw = |seeded: &Seeded| {
            let mut bytes = [0; 16];
            seeded.provider().secure_random.fill(&mut bytes).expect("it cannot fail");
            bytes
        };
        assert_eq!(draw(&one), draw(&other));
    }
}
