//! What lies in a value's memory, for tests that secrets are erased.

use core::ops::{Deref, DerefMut};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Bytes that may hold secrets, erased when dropped: memory that is freed with them would give them to the undefined bytes of
/// whatever is made there next, perhaps by another test with the same secrets.
#[derive(Clone, Debug)]
pub struct Bytes(Vec<u8>);

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        self.0.fill(0);
        core::hint::black_box(&self.0);
    }
}

/// The bytes of `value` as they lie in memory, with what is left of former contents in padding and unused variants.
///
/// The kernel reads them, since Rust has no safe access to bytes that are not initialised.
///
/// # Panics
/// If this process may not read `/proc/self/mem`.
pub fn of<T>(value: &T) -> Bytes {
    let mut bytes = vec![0; size_of::<T>()];
    let memory = File::open("/proc/self/mem").expect("a process may read its own memory");
    memory.read_exact_at(&mut bytes, (&raw const *value).addr() as u64).expect("the value is mapped");
    bytes.into()
}

/// Overwrites what earlier calls have left on this thread's stack. To be called before a value is made that [`of`] is to look
/// at: undefined bytes of it are copied from the stack, which was another test's before, with the same secrets.
#[inline(never)]
pub fn scrub_stack() {
    let mut bytes = [0_u8; SCRUBBED];
    core::hint::black_box(&mut bytes).fill(0);
    core::hint::black_box(&bytes);
}

/// More than any test has been seen to reach down, and a quarter of a test's stack.
const SCRUBBED: usize = 512 * 1024;
