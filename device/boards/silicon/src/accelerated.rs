//! The client's cryptography on a chip's AES and SHA-256 units.
//!
//! [`Accelerated`] is a [`Crypto`] over whatever implements [`Units`]: one AES-128 block, one SHA-256 block. The
//! modes around them (GCM, the running hash) are software either way, and so is ChaCha20-Poly1305. A unit that
//! is not trusted, because [`self_test`](crate::self_test) found it wrong, is never asked again: software does
//! its work. It also does each block that a unit does not finish.

use core::marker::PhantomData;

use aes::cipher::consts::{U1, U12, U16};
use aes::cipher::inout::InOut;
use aes::cipher::{
    Block, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit,
    ParBlocksSizeUser,
};
use aes_gcm::AesGcm;
use device::control::Accelerator;
use device::crypto::{
    AeadKey, BadTag, CipherSuite, Crypto, Hash, HeaderKey, KEY_LEN_MAX, NONCE_LEN, aead_open, aead_seal,
    chacha20_open, chacha20_seal,
};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What the hardware does. Called from one task only.
///
/// Each returns whether the unit finished. If it did not, what it was given in place is as it was: what such a unit
/// holds is the result before, and as keystream that would encrypt two blocks alike.
pub trait Units: 'static {
    /// Encrypts `block` in place with AES-128.
    #[must_use]
    fn aes128_encrypt(key: &[u8; 16], block: &mut [u8; 16]) -> bool;

    /// Takes one block into the state of a SHA-256 (FIPS 180-4 6.2.2): eight words, in the order of the standard.
    #[must_use]
    fn sha256_compress(state: &mut [u32; 8], block: &[u8; 64]) -> bool;

    /// Whether `unit` passed its self-test.
    fn trusts(unit: Accelerator) -> bool;
}

/// Cryptography on the units of `U`.
pub struct Accelerated<U>(PhantomData<U>);

impl<U: Units> Crypto for Accelerated<U> {
    type AeadKey = AcceleratedAeadKey<U>;
    type HeaderKey = AcceleratedHeaderKey<U>;
    type Sha256 = Sha256<U>;
}

/// AES-128 with a key, on the unit. Where that is not trusted or does not finish, software expands the key anew for each block: slow, and
/// for a chip with a fault only.
struct UnitAes<U> {
    key: [u8; 16],
    units: PhantomData<U>,
}

impl<U> UnitAes<U> {
    const fn new(key: [u8; 16]) -> Self {
        Self { key, units: PhantomData }
    }
}

impl<U: Units> UnitAes<U> {
    fn encrypt(&self, block: &mut [u8; 16]) {
        if U::trusts(Accelerator::Aes) && U::aes128_encrypt(&self.key, block) {
            return;
        }
        let mut text = (*block).into();
        aes::Aes128::new((&self.key).into()).encrypt_block(&mut text);
        *block = text.0;
    }
}

impl<U> Drop for UnitAes<U> {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl<U> BlockSizeUser for UnitAes<U> {
    type BlockSize = U16;
}

/// The unit takes one block at a time.
impl<U> ParBlocksSizeUser for UnitAes<U> {
    type ParBlocksSize = U1;
}

impl<U: Units> BlockCipherEncBackend for UnitAes<U> {
    fn encrypt_block(&self, mut block: InOut<'_, '_, Block<Self>>) {
        let mut bytes = block.get_in().0;
        self.encrypt(&mut bytes);
        *block.get_out() = bytes.into();
    }
}

impl<U: Units> BlockCipherEncrypt for UnitAes<U> {
    fn encrypt_with_backend(&self, f: impl BlockCipherEncClosure<BlockSize = U16>) {
        f.call(self);
    }
}

/// A raw key and its suite; wiped when dropped.
struct RawKey {
    suite: CipherSuite,
    bytes: [u8; KEY_LEN_MAX],
}

impl RawKey {
    fn new(suite: CipherSuite, key: &[u8]) -> Self {
        let mut bytes = [0; KEY_LEN_MAX];
        bytes[..suite.key_len()].copy_from_slice(key);
        Self { suite, bytes }
    }

    /// AES with this key, if the suite asks for it.
    fn aes<U: Units>(&self) -> Option<UnitAes<U>> {
        (self.suite == CipherSuite::Aes128GcmSha256)
            .then(|| UnitAes::new(*self.bytes.first_chunk().expect("a key array has 32 bytes")))
    }
}

impl Drop for RawKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// [`Accelerated`]'s AEAD key: 33 bytes whatever the suite.
pub struct AcceleratedAeadKey<U>(RawKey, PhantomData<U>);

impl<U> ZeroizeOnDrop for AcceleratedAeadKey<U> {}

impl<U: Units> AeadKey for AcceleratedAeadKey<U> {
    fn new(suite: CipherSuite, key: &[u8]) -> Self {
        Self(RawKey::new(suite, key), PhantomData)
    }

    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) {
        match self.0.aes::<U>() {
            Some(aes) => aead_seal(&AesGcm::<_, U12>::from(aes), nonce, aad, buffer),
            None => chacha20_seal(&self.0.bytes, nonce, aad, buffer),
        }
    }

    fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) -> Result<usize, BadTag> {
        match self.0.aes::<U>() {
            Some(aes) => aead_open(&AesGcm::<_, U12>::from(aes), nonce, aad, buffer),
            None => chacha20_open(&self.0.bytes, nonce, aad, buffer),
        }
    }
}

/// [`Accelerated`]'s header protection key: 33 bytes whatever the suite.
pub struct AcceleratedHeaderKey<U>(RawKey, PhantomData<U>);

impl<U> ZeroizeOnDrop for AcceleratedHeaderKey<U> {}

impl<U: Units> HeaderKey for AcceleratedHeaderKey<U> {
    fn new(suite: CipherSuite, key: &[u8]) -> Self {
        Self(RawKey::new(suite, key), PhantomData)
    }

    fn mask(&self, sample: &[u8; 16]) -> [u8; 5] {
        match self.0.aes::<U>() {
            Some(aes) => {
                let mut block = *sample;
                aes.encrypt(&mut block);
                let [a, b, c, d, e, ..] = block;
                [a, b, c, d, e]
            }
            None => chachapoly::header_mask(&self.0.bytes, sample),
        }
    }
}

/// A running SHA-256 whose blocks the unit takes in. Its state is memory, so that any number of them run at a time.
pub struct Sha256<U> {
    state: [u32; 8],
    /// The beginning of the block that is not full yet.
    block: [u8; BLOCK_LEN],
    /// Bytes taken in.
    len: u64,
    units: PhantomData<U>,
}

const BLOCK_LEN: usize = 64;
/// Where the message's length in bits stands in the last block (FIPS 180-4 5.1.1).
const LENGTH_AT: usize = 56;
/// FIPS 180-4 5.3.3.
pub(crate) const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

impl<U> Clone for Sha256<U> {
    fn clone(&self) -> Self {
        Self { state: self.state, block: self.block, len: self.len, units: PhantomData }
    }
}

impl<U> Drop for Sha256<U> {
    fn drop(&mut self) {
        self.state.zeroize();
        self.block.zeroize();
    }
}

impl<U> ZeroizeOnDrop for Sha256<U> {}

impl<U: Units> Sha256<U> {
    fn compress(state: &mut [u32; 8], block: &[u8; BLOCK_LEN]) {
        if !U::trusts(Accelerator::Sha) || !U::sha256_compress(state, block) {
            sha2::block_api::compress256(state, core::slice::from_ref(block));
        }
    }

    /// Bytes in the block that is not full yet.
    const fn held(&self) -> usize {
        (self.len % BLOCK_LEN as u64) as usize
    }
}

impl<U: Units> Hash for Sha256<U> {
    const BLOCK_LEN: usize = BLOCK_LEN;
    const LEN: usize = 32;

    fn new() -> Self {
        Self { state: INITIAL, block: [0; BLOCK_LEN], len: 0, units: PhantomData }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let held = self.held();
            let (taken, rest) = bytes.split_at(bytes.len().min(BLOCK_LEN - held));
            self.block[held..held + taken.len()].copy_from_slice(taken);
            self.len += taken.len() as u64;
            bytes = rest;
            if self.held() == 0 {
                Self::compress(&mut self.state, &self.block);
            }
        }
    }

    fn finish(mut self, out: &mut [u8]) {
        let held = self.held();
        self.block[held..].fill(0);
        self.block[held] = 0x80;
        if held >= LENGTH_AT {
            Self::compress(&mut self.state, &self.block);
            self.block.fill(0);
        }
        self.block[LENGTH_AT..].copy_from_slice(&(self.len * 8).to_be_bytes());
        Self::compress(&mut self.state, &self.block);
        for (word, out) in self.state.iter().zip(out.chunks_exact_mut(4)) {
            out.copy_from_slice(&word.to_be_bytes());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;
    use std::vec::Vec;

    use device::crypto::{Software, TAG_LEN};

    use super::*;

    type SoftwareAead = <Software as Crypto>::AeadKey;
    type SoftwareHeader = <Software as Crypto>::HeaderKey;

    /// Units that work: software in their place.
    pub(crate) struct Sound;

    impl Units for Sound {
        fn aes128_encrypt(key: &[u8; 16], block: &mut [u8; 16]) -> bool {
            let mut text = (*block).into();
            aes::Aes128::new(key.into()).encrypt_block(&mut text);
            *block = text.0;
            true
        }
        fn sha256_compress(state: &mut [u32; 8], block: &[u8; 64]) -> bool {
            sha2::block_api::compress256(state, core::slice::from_ref(block));
            true
        }
        fn trusts(_: Accelerator) -> bool {
            true
        }
    }

    /// Units that failed their test: who asks them nevertheless fails.
    struct Distrusted;

    impl Units for Distrusted {
        fn aes128_encrypt(_: &[u8; 16], _: &mut [u8; 16]) -> bool {
            panic!("a unit that is not trusted was used");
        }
        fn sha256_compress(_: &mut [u32; 8], _: &[u8; 64]) -> bool {
            panic!("a unit that is not trusted was used");
        }
        fn trusts(_: Accelerator) -> bool {
            false
        }
    }

    std::thread_local! {
        /// Blocks that the units of [`Hanging`] still finish: AES, SHA.
        static LEFT: [Cell<u32>; 2] = const { [Cell::new(0), Cell::new(0)] };
    }

    /// Units that passed their test and finish no block any more after some: the hardest case, since they are asked for
    /// each block.
    struct Hanging;

    impl Hanging {
        fn finishes(unit: usize) -> bool {
            LEFT.with(|left| {
                let before = left[unit].get();
                left[unit].set(before.saturating_sub(1));
                before > 0
            })
        }
    }

    impl Units for Hanging {
        fn aes128_encrypt(key: &[u8; 16], block: &mut [u8; 16]) -> bool {
            Self::finishes(0) && Sound::aes128_encrypt(key, block)
        }
        fn sha256_compress(state: &mut [u32; 8], block: &[u8; 64]) -> bool {
            Self::finishes(1) && Sound::sha256_compress(state, block)
        }
        fn trusts(_: Accelerator) -> bool {
            true
        }
    }

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|index| (index * 7 + len) as u8).collect()
    }

    fn digest<H: Hash>(pieces: &[&[u8]]) -> [u8; 32] {
        let mut hash = H::new();
        for piece in pieces {
            hash.update(piece);
        }
        let mut out = [0; 32];
        hash.finish(&mut out);
        out
    }

    fn agrees_with_software<U: Units>() {
        type Reference = <Software as Crypto>::Sha256;
        for len in [0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 128, 1_000] {
            let message = text(len);
            let (head, tail) = message.split_at(len / 3);
            assert_eq!(digest::<Sha256<U>>(&[head, tail]), digest::<Reference>(&[&message]), "{len} bytes");
        }
        for suite in [CipherSuite::Aes128GcmSha256, CipherSuite::ChaCha20Poly1305Sha256] {
            let key = text(suite.key_len());
            let (ours, reference) =
                (AcceleratedAeadKey::<U>::new(suite, &key), SoftwareAead::new(suite, &key));
            for len in [0, 1, 15, 16, 17, 64, 1_200] {
                let (nonce, aad) = ([len as u8; NONCE_LEN], text(len % 40));
                let mut sealed = text(len + TAG_LEN);
                let mut expected = sealed.clone();
                ours.seal(&nonce, &aad, &mut sealed);
                reference.seal(&nonce, &aad, &mut expected);
                assert_eq!(sealed, expected, "{suite:?}, {len} bytes");
                assert_eq!(ours.open(&nonce, &aad, &mut sealed), Ok(len));
                assert_eq!(sealed[..len], text(len + TAG_LEN)[..len]);
                expected[len / 2] ^= 1;
                assert_eq!(ours.open(&nonce, &aad, &mut expected), Err(BadTag));
            }
            let header = AcceleratedHeaderKey::<U>::new(suite, &key);
            assert_eq!(header.mask(&[9; 16]), SoftwareHeader::new(suite, &key).mask(&[9; 16]));
        }
    }

    #[test]
    fn on_its_units_it_does_what_software_does() {
        agrees_with_software::<Sound>();
    }

    #[test]
    fn without_units_to_trust_software_does_the_work() {
        agrees_with_software::<Distrusted>();
    }

    #[test]
    fn a_block_that_a_unit_does_not_finish_is_done_by_software() {
        for finished in 0..200 {
            LEFT.with(|left| left.iter().for_each(|left| left.set(finished)));
            agrees_with_software::<Hanging>();
            let [aes, sha] = LEFT.with(|left| [left[0].get(), left[1].get()]);
            // 211 blocks of AES and 37 of SHA-256 are asked for: the units hang in all of them but the last few.
            assert_eq!((aes, sha), (0, finished.saturating_sub(37)));
        }
    }

    #[test]
    fn a_copied_hash_goes_its_own_way() {
        let mut hash = Sha256::<Sound>::new();
        hash.update(&text(70));
        let copy = hash.clone();
        hash.update(b"more");
        let (mut first, mut second) = ([0; 32], [0; 32]);
        hash.finish(&mut first);
        copy.finish(&mut second);
        assert_eq!(first, digest::<Sha256<Sound>>(&[&text(70), b"more"]));
        assert_eq!(second, digest::<Sha256<Sound>>(&[&text(70)]));
    }
}
