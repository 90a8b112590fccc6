use super::{
    AeadKey, BadTag, CipherSuite, Crypto, Hash, HeaderKey, KEY_LEN_MAX, NONCE_LEN, TAG_LEN, is_erased,
};
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes_gcm::aead::{AeadInOut, Nonce};
use sha2::block_api::Sha256VarCore;
#[cfg(feature = "aes256")]
use sha2::block_api::Sha512VarCore;
use sha2::digest::block_api::{Buffer, UpdateCore, VariableOutputCore};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// RustCrypto's portable implementations: constant time, `core` only.
#[derive(Clone, Copy, Debug)]
pub struct Software;

impl Crypto for Software {
    type AeadKey = SoftwareAeadKey;
    type HeaderKey = SoftwareHeaderKey;
    type Sha256 = Sha256;
    #[cfg(feature = "aes256")]
    type Sha384 = Sha384;
}

/// A raw key and its suite.
///
/// The AES round keys are expanded anew for each packet: in the bitsliced form that constant time asks for
/// they take 352 bytes (AES-128) or 480 (AES-256), and a connection has up to a dozen live keys.
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

    fn aes128(&self) -> &[u8; 16] {
        self.bytes.first_chunk().expect("a key array has 32 bytes")
    }
}

impl Drop for RawKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl ZeroizeOnDrop for RawKey {}

/// [`Software`]'s AEAD key: 33 bytes whatever the suite.
pub struct SoftwareAeadKey(RawKey);

impl ZeroizeOnDrop for SoftwareAeadKey {}

impl AeadKey for SoftwareAeadKey {
    fn new(suite: CipherSuite, key: &[u8]) -> Self {
        Self(RawKey::new(suite, key))
    }

    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) {
        match self.0.suite {
            CipherSuite::Aes128GcmSha256 => {
                aead_seal(&aes_gcm::Aes128Gcm::new(self.0.aes128().into()), nonce, aad, buffer);
            }
            #[cfg(feature = "aes256")]
            CipherSuite::Aes256GcmSha384 => {
                aead_seal(&aes_gcm::Aes256Gcm::new((&self.0.bytes).into()), nonce, aad, buffer);
            }
            CipherSuite::ChaCha20Poly1305Sha256 => {
                chacha20_seal(&self.0.bytes, nonce, aad, buffer);
            }
        }
    }

    fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) -> Result<usize, BadTag> {
        match self.0.suite {
            CipherSuite::Aes128GcmSha256 => {
                aead_open(&aes_gcm::Aes128Gcm::new(self.0.aes128().into()), nonce, aad, buffer)
            }
            #[cfg(feature = "aes256")]
            CipherSuite::Aes256GcmSha384 => {
                aead_open(&aes_gcm::Aes256Gcm::new((&self.0.bytes).into()), nonce, aad, buffer)
            }
            CipherSuite::ChaCha20Poly1305Sha256 => chacha20_open(&self.0.bytes, nonce, aad, buffer),
        }
    }
}

/// [`AeadKey::seal`] with an AEAD of the `aead` crate's family, whatever computes its blocks.
pub fn aead_seal<A>(cipher: &A, nonce: &[u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8])
where
    A: AeadInOut,
    for<'a> &'a Nonce<A>: From<&'a [u8; NONCE_LEN]>,
{
    let (text, tag_out) = buffer.split_at_mut(buffer.len() - TAG_LEN);
    let tag = cipher
        .encrypt_inout_detached(nonce.into(), aad, text.into())
        .expect("buffers are far below the AEAD's length limit");
    tag_out.copy_from_slice(&tag);
}

/// [`AeadKey::open`] with an AEAD of the `aead` crate's family.
///
/// # Errors
/// [`BadTag`] if the tag is wrong or missing.
pub fn aead_open<A>(
    cipher: &A,
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    buffer: &mut [u8],
) -> Result<usize, BadTag>
where
    A: AeadInOut,
    for<'a> &'a Nonce<A>: From<&'a [u8; NONCE_LEN]>,
{
    let len = buffer.len().checked_sub(TAG_LEN).ok_or(BadTag)?;
    let (text, tag) = buffer.split_at_mut(len);
    let tag = (&*tag).try_into().map_err(|_| BadTag)?;
    cipher.decrypt_inout_detached(nonce.into(), aad, text.into(), tag).map_err(|_| BadTag)?;
    Ok(len)
}

/// [`AeadKey::seal`] with ChaCha20-Poly1305.
pub fn chacha20_seal(key: &[u8; KEY_LEN_MAX], nonce: &[u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) {
    let (text, tag) = buffer.split_last_chunk_mut::<TAG_LEN>().expect("the caller left room for the tag");
    *tag = chachapoly::seal(key, nonce, aad, text);
}

/// [`AeadKey::open`] with ChaCha20-Poly1305.
///
/// # Errors
/// [`BadTag`].
pub fn chacha20_open(
    key: &[u8; KEY_LEN_MAX],
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    buffer: &mut [u8],
) -> Result<usize, BadTag> {
    let (text, tag) = buffer.split_last_chunk_mut::<TAG_LEN>().ok_or(BadTag)?;
    chachapoly::open(key, nonce, aad, text, tag).map_err(|chachapoly::BadTag| BadTag)?;
    Ok(text.len())
}

/// [`Software`]'s header protection key: 33 bytes whatever the suite.
pub struct SoftwareHeaderKey(RawKey);

impl ZeroizeOnDrop for SoftwareHeaderKey {}

impl HeaderKey for SoftwareHeaderKey {
    fn new(suite: CipherSuite, key: &[u8]) -> Self {
        Self(RawKey::new(suite, key))
    }

    fn mask(&self, sample: &[u8; 16]) -> [u8; 5] {
        match self.0.suite {
            CipherSuite::Aes128GcmSha256 => aes_mask(&aes::Aes128::new(self.0.aes128().into()), sample),
            #[cfg(feature = "aes256")]
            CipherSuite::Aes256GcmSha384 => aes_mask(&aes::Aes256::new((&self.0.bytes).into()), sample),
            CipherSuite::ChaCha20Poly1305Sha256 => chachapoly::header_mask(&self.0.bytes, sample),
        }
    }
}

fn aes_mask<A>(cipher: &A, sample: &[u8; 16]) -> [u8; 5]
where
    A: BlockCipherEncrypt<BlockSize = aes::cipher::consts::U16>,
{
    let mut block = (*sample).into();
    cipher.encrypt_block(&mut block);
    let [a, b, c, d, e, ..] = block.0;
    [a, b, c, d, e]
}

/// [`Software`]'s SHA-256.
///
/// Of the crate's block-level part: its finished type, cut to length for each of the family, leaves the digest behind
/// on the stack, and a digest may be a key (digest 0.11, `CtOutWrapper::finalize_fixed_core`).
#[derive(Clone)]
pub struct Sha256 {
    core: Sha256VarCore,
    buffer: Buffer<Sha256VarCore>,
}

impl ZeroizeOnDrop for Sha256 {}

impl Hash for Sha256 {
    const BLOCK_LEN: usize = 64;
    const LEN: usize = 32;

    fn new() -> Self {
        let core = Sha256VarCore::new(Self::LEN).expect("one of its two lengths");
        Self { core, buffer: Default::default() }
    }

    fn update(&mut self, bytes: &[u8]) {
        let Self { core, buffer } = self;
        buffer.digest_blocks(bytes, |blocks| core.update_blocks(blocks));
    }

    fn finish(mut self, out: &mut [u8]) {
        let out = out.try_into().expect("the caller gives as much room as a digest takes");
        self.core.finalize_variable_core(&mut self.buffer, out);
    }
}

/// [`Software`]'s SHA-384, of the block-level part as [`Sha256`].
#[cfg(feature = "aes256")]
#[derive(Clone)]
pub struct Sha384 {
    core: Sha512VarCore,
    buffer: Buffer<Sha512VarCore>,
}

#[cfg(feature = "aes256")]
impl ZeroizeOnDrop for Sha384 {}

#[cfg(feature = "aes256")]
impl Hash for Sha384 {
    const BLOCK_LEN: usize = 128;
    const LEN: usize = 48;

    fn new() -> Self {
        let core = Sha512VarCore::new(Self::LEN).expect("one of its four lengths");
        Self { core, buffer: Default::default() }
    }

    fn update(&mut self, bytes: &[u8]) {
        let Self { core, buffer } = self;
        buffer.digest_blocks(bytes, |blocks| core.update_blocks(blocks));
    }

    fn finish(mut self, out: &mut [u8]) {
        let mut whole = zeroize::Zeroizing::new([0; 64]);
        self.core.finalize_variable_core(&mut self.buffer, (&mut *whole).into());
        out.copy_from_slice(&whole[..Self::LEN]);
    }
}

/// What the owners of primitives promise, these keep.
const _: fn(&Sha256, &aes_gcm::Aes128Gcm, &aes::Aes128) = |hash, gcm, aes| {
    is_erased(&hash.core);
    is_erased(&hash.buffer);
    is_erased(gcm);
    is_erased(aes);
};
