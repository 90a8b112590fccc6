//! What this machine has of RAM: static data from the bottom, one stack from the top, no heap.
//!
//! The stack may grow down to the end of `.bss`, where a locked PMP entry without rights makes the first
//! access beyond it trap. The rest is painted at boot; the highest word that lost its paint is the
//! high-water mark.

use core::arch::asm;

unsafe extern "C" {
    static __eheap: u8;
    static __sdata: u8;
    static _stack_start: u8;
    static __stext: u8;
    static __etext: u8;
}

/// Bytes of the no-access region between static data and stack: larger than any frame of the firmware, so that
/// no call can step over it.
const GUARD_LEN: usize = 4096;
/// End of the 320 KiB of RAM (`memory.x`).
const RAM_END: usize = 0x8005_0000;
/// Addresses behind RAM that an access for want of room hits.
const PAST_END_LEN: usize = 64 * 1024;
const PAINT: u32 = 0x5afe_57ac;

fn guard_start() -> usize {
    // A NAPOT region is aligned to its size.
    ((&raw const __eheap) as usize).next_multiple_of(GUARD_LEN)
}

fn stack_bottom() -> usize {
    guard_start() + GUARD_LEN
}

fn stack_top() -> usize {
    (&raw const _stack_start) as usize
}

/// Paints the unused stack and closes the guard below it.
///
/// Called once, first thing in `main`: only the frames of `main` and of this function are in use.
pub fn init() {
    repaint();
    let napot = guard_start() >> 2 | ((GUARD_LEN >> 3) - 1);
    // L (locked: holds in machine mode too), A = NAPOT, no R, W, X.
    let config: usize = 0b1001_1000;
    // SAFETY: entry 0 covers only the guard, which nothing uses by construction; other addresses match no
    // entry and stay accessible to machine mode.
    unsafe {
        asm!("csrw pmpaddr0, {}", "csrw pmpcfg0, {}", in(reg) napot, in(reg) config, options(nostack));
    }
}

/// Paints the stack below the caller's frame, so that [`stack_high_water`] starts anew.
#[inline(never)]
pub fn repaint() {
    let sp = stack_pointer();
    let mut word = stack_bottom();
    // Leave room for what this loop itself may push.
    while word < sp - 64 {
        // SAFETY: `stack_bottom()..sp - 64` lies in RAM above all static data and below every live frame.
        unsafe { (word as *mut u32).write_volatile(PAINT) };
        word += 4;
    }
}

/// The lower end of the calling function's frame.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let sp: usize;
    // SAFETY: reads the stack pointer, touches neither memory nor flags.
    unsafe { asm!("mv {}, sp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}

/// Reads on past the end of RAM, as a walk over an exhausted pool would; the machine traps.
#[cfg(feature = "faults")]
#[inline(never)]
pub fn exhaust() {
    let mut word = stack_top();
    loop {
        // SAFETY: the first address outside RAM traps, which is the purpose; nothing is written.
        core::hint::black_box(unsafe { (word as *const u32).read_volatile() });
        word += 4;
    }
}

/// The number that QEMU's generic loader put behind the stack; zero if it was not asked to.
pub fn loaded_seed() -> u64 {
    // SAFETY: the linker script keeps the 16 bytes from `_stack_start` to the end of RAM free of objects, and
    // `_stack_start` is aligned to 16.
    unsafe { (stack_top() as *const u64).read_volatile() }
}

/// What whoever started the machine wants of it.
#[derive(Clone, Copy, Debug)]
pub struct BootOptions {
    /// QEMU counts instructions (`-icount`): the counter is worth reading.
    pub counting: bool,
    /// The harness owns the clock ([`crate::lockstep`]).
    pub lockstep: bool,
}

/// Reads the word that QEMU's generic loader put behind the seed; zero if it was not asked to.
pub fn boot_options() -> BootOptions {
    // SAFETY: as in `loaded_seed`; the word is the third of the four.
    let word = unsafe { ((stack_top() + 8) as *const u32).read_volatile() };
    BootOptions { counting: word & 1 != 0, lockstep: word & 2 != 0 }
}

/// Most bytes of stack in use at any time since the last [`repaint`].
pub fn stack_high_water() -> usize {
    let mut word = stack_bottom();
    // SAFETY: the range lies in RAM and holds plain words; volatile, since the compiler knows of no object here.
    while word < stack_top() && unsafe { (word as *const u32).read_volatile() } == PAINT {
        word += 4;
    }
    stack_top() - word
}

/// Whether a stack overflow is what `address` (the trapping access) means.
pub fn in_guard(address: usize) -> bool {
    (guard_start()..stack_bottom()).contains(&address)
}

/// Whether `address` is what lies behind RAM: something walked past the end of what there is.
pub fn is_past_end(address: usize) -> bool {
    (RAM_END..RAM_END + PAST_END_LEN).contains(&address)
}

/// Bytes of `.data` and `.bss`.
pub fn static_len() -> usize {
    (&raw const __eheap) as usize - (&raw const __sdata) as usize
}

/// Bytes between static data and the end of RAM.
pub fn stack_len() -> usize {
    stack_top() - stack_bottom()
}

/// The stack's address range, for the crash report's scan.
pub fn stack_range() -> core::ops::Range<usize> {
    stack_bottom()..stack_top()
}

/// Whether `address` lies in the program's code.
pub fn is_code(address: usize) -> bool {
    ((&raw const __stext) as usize..(&raw const __etext) as usize).contains(&address)
}
