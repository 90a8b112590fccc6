use super::message::kind;
use crate::crypto::{Crypto, Hash, HashAlgorithm, Secret};

/// The running hash of all handshake messages (RFC 8446 4.4.1).
///
/// Until the ServerHello chooses the suite, every hash that an offered suite may need runs along; with
/// SHA-384 compiled out that is one.
pub(super) struct Transcript<C: Crypto> {
    sha256: Option<C::Sha256>,
    #[cfg(feature = "aes256")]
    sha384: Option<C::Sha384>,
}

impl<C: Crypto> Transcript<C> {
    pub(super) fn new() -> Self {
        Self {
            sha256: Some(Hash::new()),
            #[cfg(feature = "aes256")]
            sha384: Some(Hash::new()),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        if let Some(hash) = &mut self.sha256 {
            hash.update(bytes);
        }
        #[cfg(feature = "aes256")]
        if let Some(hash) = &mut self.sha384 {
            hash.update(bytes);
        }
    }

    /// Keeps the chosen suite's hash only.
    pub(super) fn choose(&mut self, hash: HashAlgorithm) {
        match hash {
            HashAlgorithm::Sha256 => {
                #[cfg(feature = "aes256")]
                {
                    self.sha384 = None;
                }
            }
            #[cfg(feature = "aes256")]
            HashAlgorithm::Sha384 => self.sha256 = None,
        }
    }

    /// The hash of everything so far.
    pub(super) fn hash(&self, hash: HashAlgorithm) -> Secret {
        let mut digest = Secret::zero(hash.len());
        match hash {
            HashAlgorithm::Sha256 => read_out(&self.sha256, digest.as_mut_bytes()),
            #[cfg(feature = "aes256")]
            HashAlgorithm::Sha384 => read_out(&self.sha384, digest.as_mut_bytes()),
        }
        digest
    }

    /// Replaces the first ClientHello by its hash, as a HelloRetryRequest demands (RFC 8446 4.4.1).
    pub(super) fn restart_with_hash(&mut self, hash: HashAlgorithm) {
        let first = self.hash(hash);
        *self = Self::new();
        self.choose(hash);
        self.update(&[kind::MESSAGE_HASH, 0, 0, hash.len() as u8]);
        self.update(first.as_bytes());
    }
}

fn read_out<H: Hash>(hash: &Option<H>, out: &mut [u8]) {
    hash.clone().expect("the chosen hash is never dropped").finish(out);
}
