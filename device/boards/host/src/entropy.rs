//! Randomness: from the kernel, or from a seed where a run is to be repeated.

use device::entropy::Entropy;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A ChaCha20 generator keyed once.
pub struct SeededEntropy(ChaCha20Rng);

impl SeededEntropy {
    /// Keyed by the kernel unless there is a seed. A seed is for tests: whoever knows it knows the keys.
    pub fn new(seed: Option<u64>) -> Self {
        Self(match seed {
            Some(seed) => ChaCha20Rng::seed_from_u64(seed),
            None => {
                let mut key = [0; 32];
                let filled = rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty());
                assert_eq!(filled, Ok(32), "the kernel gives 32 bytes at once");
                ChaCha20Rng::from_seed(key)
            }
        })
    }
}

impl Entropy for SeededEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}
