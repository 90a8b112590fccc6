//! Entropy of an emulated machine: a generator seeded by whoever started it, so that a run replays.
//!
//! The seed is put at the end of RAM by QEMU's generic loader, at power-on and at every reset:
//! `-device loader,addr=0x8004fff0,data=SEED,data-len=8`. A machine that holds nothing worth protecting
//! needs no better source; boards of silicon use their hardware.

use device::entropy::Entropy;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::{clock, memory};

/// Bits of the microsecond clock that do not matter: a first boot is always in tick zero and replays
/// exactly, a reset after a tenth of a second draws other keys and connection IDs than the boot before.
const RESET_TICK_BITS: u32 = 17;

/// The seeded generator.
pub struct Seeded(ChaCha20Rng);

impl Seeded {
    /// Reads the seed that QEMU was given.
    pub fn new() -> Self {
        Self::at(clock::now().as_micros() >> RESET_TICK_BITS)
    }

    /// The same, whatever the time is.
    pub fn frozen() -> Self {
        Self::at(0)
    }

    fn at(tick: u64) -> Self {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&memory::loaded_seed().to_le_bytes());
        seed[8..16].copy_from_slice(&tick.to_le_bytes());
        Self(ChaCha20Rng::from_seed(seed))
    }
}

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}
