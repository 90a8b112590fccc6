//! The chip's AES and SHA units (ESP32-C3 TRM 19 and 20), one block at a time.

use core::sync::atomic::{AtomicBool, Ordering};

use device::control::{Accelerator, Accelerators};
use esp_hal::aes::Aes;
use esp_hal::peripherals::{AES, SHA};
use esp_hal::sha::Sha;
use silicon::accelerated::Units;
use silicon::self_test;

/// The units. Only the main task computes cryptography, and the radio's driver brings its own.
pub struct Hardware;

static AES_TRUSTED: AtomicBool = AtomicBool::new(false);
static SHA_TRUSTED: AtomicBool = AtomicBool::new(false);

/// `AES_MODE`: AES-128 encryption.
const ENCRYPT_128: u32 = 0;
/// `SHA_MODE`: SHA-256.
const SHA_256: u8 = 2;

/// Turns the units on and tests them; a unit that fails is not used.
pub fn init(aes: AES<'static>, sha: SHA<'static>) -> Accelerators {
    // The drivers keep the clocks on as long as they exist: for ever.
    core::mem::forget(Aes::new(aes));
    core::mem::forget(Sha::new(sha));
    AES_TRUSTED.store(self_test::aes_is_right::<Hardware>(), Ordering::Relaxed);
    SHA_TRUSTED.store(self_test::sha_is_right::<Hardware>(), Ordering::Relaxed);
    if !Hardware::trusts(Accelerator::Aes) {
        Accelerators::Faulty { unit: Accelerator::Aes }
    } else if !Hardware::trusts(Accelerator::Sha) {
        Accelerators::Faulty { unit: Accelerator::Sha }
    } else {
        Accelerators::Verified
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("chunks of four")))
}

/// Waits while `is_busy`, and returns whether that ended. A unit that hangs is trusted no more: software does the block at
/// hand and all others.
fn await_unit(trusted: &AtomicBool, is_busy: impl Fn() -> bool) -> bool {
    let is_done = (0..READS_MAX).any(|_| !is_busy());
    if !is_done {
        trusted.store(false, Ordering::Relaxed);
    }
    is_done
}

/// A block takes either unit less than a microsecond; this many reads of a register, some milliseconds.
const READS_MAX: u32 = 100_000;

impl Units for Hardware {
    fn aes128_encrypt(key: &[u8; 16], block: &mut [u8; 16]) -> bool {
        let regs = AES::regs();
        // SAFETY: of all writes: the registers take any value; the unit is idle, since every call waits for its end
        // and one that hangs is not asked again.
        regs.mode().write(|w| unsafe { w.bits(ENCRYPT_128) });
        for (index, word) in words(key).enumerate() {
            // SAFETY: see above.
            regs.key(index).write(|w| unsafe { w.bits(word) });
        }
        for (index, word) in words(block).enumerate() {
            // SAFETY: see above.
            regs.text_in(index).write(|w| unsafe { w.bits(word) });
        }
        regs.trigger().write(|w| w.trigger().set_bit());
        let is_done = await_unit(&AES_TRUSTED, || regs.state().read().state().bits() != 0);
        if is_done {
            for (index, out) in block.chunks_exact_mut(4).enumerate() {
                out.copy_from_slice(&regs.text_out(index).read().bits().to_le_bytes());
            }
        }
        for index in 0..key.len() / 4 {
            // SAFETY: see above. Keys do not stay behind.
            regs.key(index).write(|w| unsafe { w.bits(0) });
        }
        is_done
    }

    fn sha256_compress(state: &mut [u32; 8], block: &[u8; 64]) -> bool {
        let regs = SHA::regs();
        // SAFETY: of all writes: the registers take any value; the unit is idle, since every call waits for its end
        // and one that hangs is not asked again.
        regs.mode().write(|w| unsafe { w.mode().bits(SHA_256) });
        // The memory holds the hash as bytes in the standard's order, read as little-endian words.
        for (index, word) in state.iter().enumerate() {
            // SAFETY: see above.
            regs.h_mem(index).write(|w| unsafe { w.bits(word.swap_bytes()) });
        }
        for (index, word) in words(block).enumerate() {
            // SAFETY: see above.
            regs.m_mem(index).write(|w| unsafe { w.bits(word) });
        }
        regs.continue_().write(|w| w.continue_().set_bit());
        let is_done = await_unit(&SHA_TRUSTED, || regs.busy().read().state().bit_is_set());
        if is_done {
            for (index, word) in state.iter_mut().enumerate() {
                *word = regs.h_mem(index).read().bits().swap_bytes();
            }
        }
        is_done
    }

    fn trusts(unit: Accelerator) -> bool {
        match unit {
            Accelerator::Aes => AES_TRUSTED.load(Ordering::Relaxed),
            Accelerator::Sha => SHA_TRUSTED.load(Ordering::Relaxed),
        }
    }
}
