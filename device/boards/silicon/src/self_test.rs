//! Proves a chip's AES and SHA units at boot: against published answers, and against software on inputs that no
//! constant could have been written for.

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use device::control::{Accelerator, Accelerators};

use crate::accelerated::{INITIAL, Units};

/// Blocks compared with software besides the published ones: enough that no bit of key, text or state is the same
/// in all.
const ROUNDS: u8 = 16;

/// Tests both units and says which one is wrong, if any.
pub fn run<U: Units>() -> Accelerators {
    if !aes_is_right::<U>() {
        Accelerators::Faulty { unit: Accelerator::Aes }
    } else if !sha_is_right::<U>() {
        Accelerators::Faulty { unit: Accelerator::Sha }
    } else {
        Accelerators::Verified
    }
}

/// Whether the AES unit is right. FIPS 197 appendix C.1, then a chain of blocks where each result is the next text
/// and part of the next key.
pub fn aes_is_right<U: Units>() -> bool {
    let mut block: [u8; 16] = core::array::from_fn(|index| 0x11 * index as u8);
    if !U::aes128_encrypt(&core::array::from_fn(|index| index as u8), &mut block) || block != AES_ANSWER {
        return false;
    }
    let mut key = [0x5a; 16];
    for round in 0..ROUNDS {
        let mut expected = block.into();
        aes::Aes128::new(&key.into()).encrypt_block(&mut expected);
        if !U::aes128_encrypt(&key, &mut block) || block != expected.0 {
            return false;
        }
        for (key, block) in key.iter_mut().zip(block) {
            *key ^= block.rotate_left(3) ^ round;
        }
    }
    true
}

/// Whether the SHA unit is right. "abc" of FIPS 180-4's examples, then a chain of blocks, each made of the state
/// before it.
pub fn sha_is_right<U: Units>() -> bool {
    let mut state = INITIAL;
    let mut block = [0; 64];
    block[..4].copy_from_slice(b"abc\x80");
    block[63] = 24;
    if !U::sha256_compress(&mut state, &block) || state != SHA_ANSWER {
        return false;
    }
    for round in 0..ROUNDS {
        for (index, (chunk, word)) in block.chunks_exact_mut(4).zip(state.iter().cycle()).enumerate() {
            chunk.copy_from_slice(&word.rotate_left(u32::from(round) + index as u32).to_be_bytes());
        }
        let mut expected = state;
        sha2::block_api::compress256(&mut expected, core::slice::from_ref(&block));
        if !U::sha256_compress(&mut state, &block) || state != expected {
            return false;
        }
    }
    true
}

const AES_ANSWER: [u8; 16] =
    [0x69, 0xc4, 0xe0, 0xd8, 0x6a, 0x7b, 0x04, 0x30, 0xd8, 0xcd, 0xb7, 0x80, 0x70, 0xb4, 0xc5, 0x5a];
const SHA_ANSWER: [u32; 8] =
    [0xba78_16bf, 0x8f01_cfea, 0x4141_40de, 0x5dae_2223, 0xb003_61a3, 0x9617_7a9c, 0xb410_ff61, 0xf200_15ad];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accelerated::tests::Sound;

    /// Right for the published answers, wrong elsewhere: bytes of a key word swapped, say.
    struct WrongAes;

    impl Units for WrongAes {
        fn aes128_encrypt(key: &[u8; 16], block: &mut [u8; 16]) -> bool {
            let is_done = Sound::aes128_encrypt(key, block);
            if key[0] != 0 {
                block[15] ^= 1;
            }
            is_done
        }
        fn sha256_compress(state: &mut [u32; 8], block: &[u8; 64]) -> bool {
            Sound::sha256_compress(state, block)
        }
        fn trusts(_: Accelerator) -> bool {
            true
        }
    }

    /// Forgets the state it is given, as a unit does that starts anew instead of continuing.
    struct WrongSha;

    impl Units for WrongSha {
        fn aes128_encrypt(key: &[u8; 16], block: &mut [u8; 16]) -> bool {
            Sound::aes128_encrypt(key, block)
        }
        fn sha256_compress(state: &mut [u32; 8], block: &[u8; 64]) -> bool {
            *state = INITIAL;
            Sound::sha256_compress(state, block)
        }
        fn trusts(_: Accelerator) -> bool {
            true
        }
    }

    /// Right, but it says of no block that it is done.
    struct Endless;

    impl Units for Endless {
        fn aes128_encrypt(key: &[u8; 16], block: &mut [u8; 16]) -> bool {
            !Sound::aes128_encrypt(key, block)
        }
        fn sha256_compress(state: &mut [u32; 8], block: &[u8; 64]) -> bool {
            !Sound::sha256_compress(state, block)
        }
        fn trusts(_: Accelerator) -> bool {
            true
        }
    }

    #[test]
    fn units_that_do_not_finish_are_found() {
        assert!(!aes_is_right::<Endless>());
        assert!(!sha_is_right::<Endless>());
    }

    #[test]
    fn sound_units_pass() {
        assert_eq!(run::<Sound>(), Accelerators::Verified);
    }

    #[test]
    fn a_unit_that_is_right_only_for_the_published_answers_is_found() {
        assert_eq!(run::<WrongAes>(), Accelerators::Faulty { unit: Accelerator::Aes });
    }

    #[test]
    fn a_unit_that_cannot_continue_is_found() {
        assert_eq!(run::<WrongSha>(), Accelerators::Faulty { unit: Accelerator::Sha });
    }
}
