//! Time from the CLINT, instructions from `minstret`, and sleep in `wfi`.

use core::sync::atomic::{AtomicU32, Ordering};

use device::time::Instant;

use crate::mmio::{CLINT, read32, write32};

const MTIMECMP: usize = CLINT + 0x4000;
const MTIME: usize = CLINT + 0xbff8;

/// `mtime` ticks per microsecond: QEMU's `virt` counts at 10 MHz.
const TICKS_PER_US: u64 = 10;

/// Microseconds since the machine was started.
pub fn now() -> Instant {
    Instant::from_micros(mtime() / TICKS_PER_US)
}

fn mtime() -> u64 {
    loop {
        let high = read32(MTIME + 4);
        let low = read32(MTIME);
        if read32(MTIME + 4) == high {
            return u64::from(high) << 32 | u64::from(low);
        }
    }
}

/// Instructions retired since reset, as `minstret` counts them, less those that pass in [`sleep_until`].
///
/// Exact under `-icount`; without it QEMU derives the counter from the host's clock.
pub fn instructions() -> u64 {
    let asleep =
        u64::from(ASLEEP_HIGH.load(Ordering::Relaxed)) << 32 | u64::from(ASLEEP_LOW.load(Ordering::Relaxed));
    riscv::register::minstret::read64().wrapping_sub(asleep)
}

// Two halves: RV32IMC has no 64-bit atomics, and there is one hart and no preemption.
static ASLEEP_LOW: AtomicU32 = AtomicU32::new(0);
static ASLEEP_HIGH: AtomicU32 = AtomicU32::new(0);

/// Sleeps until `wake_at` or until a device wants attention.
pub fn sleep_until(wake_at: Instant) {
    let ticks = wake_at.as_micros().saturating_mul(TICKS_PER_US);
    // High word first to all ones, so that no intermediate value lies in the past.
    write32(MTIMECMP + 4, u32::MAX);
    write32(MTIMECMP, ticks as u32);
    write32(MTIMECMP + 4, (ticks >> 32) as u32);
    wait();
}

/// Sleeps until a device wants attention.
pub fn sleep() {
    write32(MTIMECMP + 4, u32::MAX);
    write32(MTIMECMP, u32::MAX);
    wait();
}

fn wait() {
    let before = riscv::register::minstret::read64();
    riscv::asm::wfi();
    let slept = riscv::register::minstret::read64().wrapping_sub(before);

    let asleep =
        u64::from(ASLEEP_HIGH.load(Ordering::Relaxed)) << 32 | u64::from(ASLEEP_LOW.load(Ordering::Relaxed));
    let asleep = asleep.wrapping_add(slept);
    ASLEEP_LOW.store(asleep as u32, Ordering::Relaxed);
    ASLEEP_HIGH.store((asleep >> 32) as u32, Ordering::Relaxed);
}
