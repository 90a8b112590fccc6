//! ChaCha20-Poly1305 (RFC 8439) and QUIC's header protection by ChaCha20 (RFC 9001 5.4.4).
//!
//! The primitives are RustCrypto's; this crate puts them together with concrete types, in one place that firmware
//! compiles for speed while the rest is compiled for size. Every use of ChaCha20 goes through one function, so its
//! unrolled rounds are in flash once.
#![no_std]
#![forbid(unsafe_code)]

use chacha20::cipher::{KeyIvInit, StreamCipherCore};
use chacha20::variants::Ietf;
use chacha20::{ChaChaCore, R20};
use poly1305::Poly1305;
use poly1305::universal_hash::{KeyInit, UniversalHash};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// Length of a key in bytes.
pub const KEY_LEN: usize = 32;
/// Length of a nonce in bytes.
pub const NONCE_LEN: usize = 12;
/// Length of a tag in bytes.
pub const TAG_LEN: usize = 16;

/// Bytes of keystream that one run of the rounds makes.
const BLOCK_LEN: usize = 64;

/// The message did not authenticate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadTag;

/// Encrypts `text` in place and returns the tag over it and `aad` (RFC 8439 2.8).
#[must_use]
pub fn seal(key: &[u8; KEY_LEN], nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
    let mut block = [0; BLOCK_LEN];
    let (mut stream, mac) = start(key, nonce, &mut block);
    apply(&mut stream, &mut block, text);
    wipe(&mut block);
    tag(mac, aad, text)
}

/// Decrypts `text` in place, if `tag` is the one over it and `aad` (RFC 8439 2.8).
///
/// # Errors
/// [`BadTag`], with `text` as it was.
pub fn open(
    key: &[u8; KEY_LEN],
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    text: &mut [u8],
    tag: &[u8; TAG_LEN],
) -> Result<(), BadTag> {
    let mut block = [0; BLOCK_LEN];
    let (mut stream, mac) = start(key, nonce, &mut block);
    let is_good = bool::from(self::tag(mac, aad, text).ct_eq(tag));
    if is_good {
        apply(&mut stream, &mut block, text);
    }
    wipe(&mut block);
    if is_good { Ok(()) } else { Err(BadTag) }
}

/// The mask that hides a QUIC header: the sample's first four bytes are the block counter, the rest is the nonce
/// (RFC 9001 5.4.4).
#[must_use]
pub fn header_mask(key: &[u8; KEY_LEN], sample: &[u8; 16]) -> [u8; 5] {
    let [c0, c1, c2, c3, nonce @ ..] = sample;
    let mut stream = Stream::new(key.into(), nonce.into());
    stream.set_block_pos(u32::from_le_bytes([*c0, *c1, *c2, *c3]));
    let mut block = [0; BLOCK_LEN];
    keystream(&mut stream, &mut block);
    let [a, b, c, d, e, ..] = block;
    wipe(&mut block);
    [a, b, c, d, e]
}

type Stream = ChaChaCore<R20, Ietf>;

/// The next block of keystream. Out of line: its callers share it.
#[inline(never)]
fn keystream(stream: &mut Stream, block: &mut [u8; BLOCK_LEN]) {
    stream.write_keystream_block(block.into());
}

/// Keystream is a secret. Out of line, for its 64 stores.
#[inline(never)]
fn wipe(block: &mut [u8; BLOCK_LEN]) {
    block.zeroize();
}

/// The cipher, behind the block whose first half is the key of the authenticator (RFC 8439 2.6); that stays in `block`.
fn start(key: &[u8; KEY_LEN], nonce: &[u8; NONCE_LEN], block: &mut [u8; BLOCK_LEN]) -> (Stream, Poly1305) {
    let mut stream = Stream::new(key.into(), nonce.into());
    keystream(&mut stream, block);
    let key: &[u8; KEY_LEN] = block.first_chunk().expect("a block has 64 bytes");
    (stream, Poly1305::new(key.into()))
}

/// Encrypts or decrypts, leaving keystream in `block`.
#[inline(never)]
fn apply(stream: &mut Stream, block: &mut [u8; BLOCK_LEN], text: &mut [u8]) {
    for chunk in text.chunks_mut(BLOCK_LEN) {
        keystream(stream, block);
        chunk.iter_mut().zip(&*block).for_each(|(byte, key)| *byte ^= key);
    }
}

/// The tag over `aad` and ciphertext, each filled up to a block, and their lengths.
#[inline(never)]
fn tag(mut mac: Poly1305, aad: &[u8], text: &[u8]) -> [u8; TAG_LEN] {
    mac.update_padded(aad);
    mac.update_padded(text);
    let mut lengths = [0; 16];
    lengths[..8].copy_from_slice(&(aad.len() as u64).to_le_bytes());
    lengths[8..].copy_from_slice(&(text.len() as u64).to_le_bytes());
    mac.update(&[lengths.into()]);
    mac.finalize().into()
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20;
    use chacha20::cipher::{StreamCipher, StreamCipherSeek};
    use chacha20poly1305::ChaCha20Poly1305;
    use chacha20poly1305::aead::AeadInOut;

    use super::*;

    /// RFC 8439 2.8.2; the tag covers the ciphertext that is not spelt out.
    #[test]
    fn the_rfcs_example() {
        let key = core::array::from_fn(|at| 0x80 + at as u8);
        let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
        let aad = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let plain = *b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the \
                       future, sunscreen would be it.";
        let mut text = plain;
        let tag = seal(&key, &nonce, &aad, &mut text);
        assert_eq!(text[..8], [0xd3, 0x1a, 0x8d, 0x34, 0x64, 0x8e, 0x60, 0xdb]);
        assert_eq!(tag, 0x1ae1_0b59_4f09_e26a_7e90_2ecb_d060_0691_u128.to_be_bytes());
        assert_eq!(open(&key, &nonce, &aad, &mut text, &tag), Ok(()));
        assert_eq!(text, plain);
    }

    #[test]
    fn seals_as_rustcrypto_does_at_every_length() {
        let mut draw = draws();
        for len in 0..260 {
            let (key, nonce) = (core::array::from_fn(|_| draw()), core::array::from_fn(|_| draw()));
            let (aad, plain): ([u8; 259], [u8; 259]) =
                (core::array::from_fn(|_| draw()), core::array::from_fn(|_| draw()));
            let (aad, plain) = (&aad[..len * 7 % 40], &plain[..len]);
            let (mut ours, mut theirs) = ([0; 259], [0; 259]);
            let (ours, theirs) = (&mut ours[..len], &mut theirs[..len]);
            ours.copy_from_slice(plain);
            theirs.copy_from_slice(plain);
            let cipher = ChaCha20Poly1305::new((&key).into());
            let expected = cipher.encrypt_inout_detached((&nonce).into(), aad, (&mut *theirs).into());
            let tag = seal(&key, &nonce, aad, ours);
            assert_eq!((&*ours, &tag[..]), (&*theirs, &expected.expect("short")[..]), "{len} bytes");
            assert_eq!(open(&key, &nonce, aad, ours, &tag), Ok(()));
            assert_eq!(ours, plain);
        }
    }

    #[test]
    fn a_changed_bit_of_anything_is_refused_and_the_text_left_alone() {
        let (key, nonce) = ([1; KEY_LEN], [2; NONCE_LEN]);
        let mut text = [3; 70];
        let tag = seal(&key, &nonce, &[4; 20], &mut text);
        for bit in 0..128 {
            let mut wrong = tag;
            wrong[bit / 8] ^= 1 << (bit % 8);
            let before = text;
            assert_eq!(open(&key, &nonce, &[4; 20], &mut text, &wrong), Err(BadTag));
            assert_eq!(text, before);
        }
        assert_eq!(open(&key, &nonce, &[4; 19], &mut text, &tag), Err(BadTag));
        text[69] ^= 1;
        assert_eq!(open(&key, &nonce, &[4; 20], &mut text, &tag), Err(BadTag));
    }

    #[test]
    fn a_mask_is_the_keystream_at_the_samples_block() {
        let mut draw = draws();
        for _ in 0..50 {
            let key = core::array::from_fn(|_| draw());
            let sample: [u8; 16] = core::array::from_fn(|_| draw());
            let (counter, nonce) = sample.split_first_chunk::<4>().expect("16 bytes");
            let nonce: &[u8; NONCE_LEN] = nonce.first_chunk().expect("12 bytes");
            let mut cipher = ChaCha20::new((&key).into(), nonce.into());
            cipher.seek(u64::from(u32::from_le_bytes(*counter)) * 64);
            let mut expected = [0; 5];
            cipher.apply_keystream(&mut expected);
            assert_eq!(header_mask(&key, &sample), expected);
        }
    }

    /// Bytes that look random, always the same.
    fn draws() -> impl FnMut() -> u8 {
        let mut state = 7_u32;
        move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        }
    }
}
