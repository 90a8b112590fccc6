//! A static that is filled once and then lent for ever.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

/// Room for a value whose address must not change: the agent's state, which is too large for a stack.
pub struct Once<T> {
    taken: AtomicBool,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value is reachable only through the one `&'static mut` that `fill` returns, and `fill` succeeds
// once: it is called by the main task only, before any other task of this program exists.
unsafe impl<T> Sync for Once<T> {}

impl<T> Once<T> {
    /// An empty cell.
    pub const fn new() -> Self {
        Self { taken: AtomicBool::new(false), value: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// Puts `value` in place and lends it.
    ///
    /// # Panics
    /// At the second call.
    #[expect(
        clippy::mut_from_ref,
        reason = "it is the only reference: the flag lets nobody take a second one"
    )]
    pub fn fill(&'static self, value: T) -> &'static mut T {
        assert!(!self.taken.load(Ordering::Relaxed), "filled twice");
        self.taken.store(true, Ordering::Relaxed);
        // SAFETY: the flag above makes this the only reference ever taken to the contents.
        unsafe { (*self.value.get()).write(value) }
    }
}
