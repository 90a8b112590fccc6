//! What the main loop sleeps on: rung by the radio when a frame came or went, and by the console's interrupt.

use core::sync::atomic::{AtomicPtr, Ordering};
use core::task::{RawWaker, RawWakerVTable, Waker};

use device::time::Instant;
use esp_radio_rtos_driver::semaphore::{SemaphoreHandle, SemaphoreKind, SemaphorePtr};

/// The semaphore, once there is a scheduler.
static BELL: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Hangs up the bell. Needs the scheduler.
pub fn init() {
    let bell = SemaphoreHandle::new(SemaphoreKind::Counting { max: 1, initial: 0 });
    BELL.store(bell.leak().as_ptr(), Ordering::Release);
}

fn with_bell<R>(act: impl FnOnce(&SemaphoreHandle) -> R) -> Option<R> {
    let bell = SemaphorePtr::new(BELL.load(Ordering::Acquire))?;
    // SAFETY: the pointer is that of the semaphore leaked by `init`, which is never deleted.
    Some(act(unsafe { SemaphoreHandle::ref_from_ptr(&bell) }))
}

/// Rings from a task.
fn ring() {
    with_bell(SemaphoreHandle::give);
}

/// Rings from an interrupt.
pub fn ring_from_interrupt() {
    with_bell(|bell| bell.try_give_from_isr(None));
}

/// Waits until the bell rings or `until` has come.
pub fn wait_until(until: Instant) {
    // The scheduler counts the same microseconds since boot.
    with_bell(|bell| bell.take_with_deadline(Some(until.as_micros())));
}

/// A waker that rings.
pub fn waker() -> Waker {
    const VTABLE: RawWakerVTable = RawWakerVTable::new(|_| RAW, |_| ring(), |_| ring(), |_| {});
    const RAW: RawWaker = RawWaker::new(core::ptr::null(), &VTABLE);
    // SAFETY: the functions ignore their data pointer and may be called from any task; there is nothing to drop.
    unsafe { Waker::from_raw(RAW) }
}
