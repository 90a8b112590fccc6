//! What lies in a value's memory, for tests that secrets are erased.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// The bytes of `value` as they lie in memory, with what is left of former contents in padding and unused variants.
///
/// The kernel reads them, since Rust has no safe access to bytes that are not initialised.
///
/// # Panics
/// If this process may not read `/proc/self/mem`.
pub fn of<T>(value: &T) -> Vec<u8> {
    let mut bytes = vec![0; size_of::<T>()];
    let memory = File::open("/proc/self/mem").expect("a process may read its own memory");
    memory.read_exact_at(&mut bytes, (&raw const *value).addr() as u64).expect("the value is mapped");
    bytes
}
