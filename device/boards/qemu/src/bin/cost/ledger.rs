//! Tells apart what one call of the client does for several ends: [`Software`] that notes the time.
//!
//! A client's Finished and its CONNECT leave in one datagram, and CONNACK comes beside acknowledgements of the handshake
//! and tickets. Header protection marks the packets within a call, and the first byte of the header tells their level:
//!
//! ```text
//!   sending     | handshake packet ... seal, mask | CONNECT's packet ... seal, mask | rest
//!   receiving   | (call) mask, open, frames       | mask, open, frames: hash ... hash (ticket), CONNACK
//! ```
//! A packet with a long header is the handshake's, from the packet before it, or the begin of the call; so is hashing,
//! but apart: after the handshake only a ticket's key needs it.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use device::crypto::{
    AeadKey, BadTag, CipherSuite, Crypto, Hash, HeaderKey, NONCE_LEN, Software, ZeroizeOnDrop,
};

use super::clock;

/// [`Software`], noted.
pub struct Ledger;

impl Crypto for Ledger {
    type AeadKey = NotedAeadKey;
    type HeaderKey = NotedHeaderKey;
    type Sha256 = NotedSha256;
}

/// Where the packet at hand began: the low half of the counter, as all times here.
static BEGAN: AtomicU32 = AtomicU32::new(0);
/// What is known of the packet at hand.
static PACKET: AtomicU32 = AtomicU32::new(UNKNOWN);
/// Instructions for packets with a long header.
static HANDSHAKE: AtomicU32 = AtomicU32::new(0);
/// Instructions of hashing in other packets.
static TICKETS: AtomicU32 = AtomicU32::new(0);
/// The begin of the first hash of a call, and the end of the last.
static HASHING: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];

const UNKNOWN: u32 = 0;
const OPENED_SHORT: u32 = 1;
const OPENED_LONG: u32 = 2;
const SEALED_SHORT: u32 = 3;
const SEALED_LONG: u32 = 4;

/// The client is about to be called.
pub fn enter(now: u64) {
    BEGAN.store(now as u32, Relaxed);
    PACKET.store(UNKNOWN, Relaxed);
    HASHING[0].store(0, Relaxed);
}

/// The call is over.
pub fn leave(now: u64) {
    let is_long = PACKET.load(Relaxed) == OPENED_LONG;
    end_packet(now as u32);
    if !is_long && HASHING[0].load(Relaxed) != 0 {
        add(&TICKETS, HASHING[1].load(Relaxed).wrapping_sub(HASHING[0].load(Relaxed)));
    }
}

/// Instructions since the last time for handshake packets, and for hashing in others.
pub fn take() -> [u64; 2] {
    [&HANDSHAKE, &TICKETS].map(|sum| {
        let taken = sum.load(Relaxed);
        sum.store(0, Relaxed);
        taken.into()
    })
}

fn end_packet(now: u32) {
    if matches!(PACKET.load(Relaxed), OPENED_LONG | SEALED_LONG) {
        add(&HANDSHAKE, now.wrapping_sub(BEGAN.load(Relaxed)));
        // Hashing was within.
        HASHING[0].store(0, Relaxed);
    }
    if PACKET.load(Relaxed) != UNKNOWN {
        BEGAN.store(now, Relaxed);
    }
    PACKET.store(UNKNOWN, Relaxed);
}

/// The only hart writes these, outside of interrupts; RV32IMC has no atomic addition.
fn add(sum: &AtomicU32, instructions: u32) {
    sum.store(sum.load(Relaxed).wrapping_add(instructions), Relaxed);
}

fn now() -> u32 {
    clock::instructions() as u32
}

fn is_long(header: &[u8]) -> bool {
    header.first().is_some_and(|first| first & 0x80 != 0)
}

type SoftwareAeadKey = <Software as Crypto>::AeadKey;
type SoftwareHeaderKey = <Software as Crypto>::HeaderKey;
type SoftwareSha256 = <Software as Crypto>::Sha256;

/// A packet's key.
pub struct NotedAeadKey(SoftwareAeadKey);

impl ZeroizeOnDrop for NotedAeadKey {}

impl AeadKey for NotedAeadKey {
    fn new(suite: CipherSuite, key: &[u8]) -> Self {
        Self(SoftwareAeadKey::new(suite, key))
    }

    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) {
        PACKET.store(if is_long(aad) { SEALED_LONG } else { SEALED_SHORT }, Relaxed);
        self.0.seal(nonce, aad, buffer);
    }

    fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) -> Result<usize, BadTag> {
        PACKET.store(if is_long(aad) { OPENED_LONG } else { OPENED_SHORT }, Relaxed);
        self.0.open(nonce, aad, buffer)
    }
}

/// A header's key.
pub struct NotedHeaderKey(SoftwareHeaderKey);

impl ZeroizeOnDrop for NotedHeaderKey {}

impl HeaderKey for NotedHeaderKey {
    fn new(suite: CipherSuite, key: &[u8]) -> Self {
        Self(SoftwareHeaderKey::new(suite, key))
    }

    fn mask(&self, sample: &[u8; 16]) -> [u8; 5] {
        // On the way in, a packet begins here and the one before it ends; on the way out, one ends below.
        if PACKET.load(Relaxed) < SEALED_SHORT {
            end_packet(now());
        }
        let mask = self.0.mask(sample);
        if PACKET.load(Relaxed) >= SEALED_SHORT {
            end_packet(now());
        }
        mask
    }
}

/// A hash.
#[derive(Clone)]
pub struct NotedSha256(SoftwareSha256);

impl ZeroizeOnDrop for NotedSha256 {}

impl Hash for NotedSha256 {
    const BLOCK_LEN: usize = SoftwareSha256::BLOCK_LEN;
    const LEN: usize = SoftwareSha256::LEN;

    fn new() -> Self {
        if HASHING[0].load(Relaxed) == 0 {
            HASHING[0].store(now(), Relaxed);
        }
        Self(SoftwareSha256::new())
    }

    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self, out: &mut [u8]) {
        self.0.finish(out);
        HASHING[1].store(now(), Relaxed);
    }
}
