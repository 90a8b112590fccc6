//! What this chip has of RAM: code and static data from the bottom, the main stack from the top, heap in between and
//! in what the bootloader left behind.
//!
//! The upper part of the main stack is painted; the lowest word that lost its paint is the high-water mark.

use core::arch::asm;

use device::control::Heap;
use device::time::Instant;

unsafe extern "C" {
    static _stack_start: u8;
    static _stack_end: u8;
}

/// Heap in the memory that the second-stage bootloader used and the program cannot link to otherwise.
const RECLAIMED: usize = 64 * 1024;
/// Heap beside static data. Together: station mode takes 47 to 57 KB (esp-radio's documentation), a queue of frames
/// to send up to 32 more of 1.6 KB each.
const BESIDE_DATA: usize = 32 * 1024;

/// How much of the stack is painted: three times what a handshake takes. Painting all of it would take a
/// millisecond per report.
const PAINTED: usize = 48 * 1024;
const PAINT: u32 = 0x5afe_57ac;
/// Where the RAM begins that code and data share (ESP32-C3 TRM 3.3.2, less the instruction cache).
const RAM_START: usize = 0x3fc8_0000;
const RAM_END: usize = 0x3fce_0000;

/// Gives the radio its heap.
pub fn init_heap() {
    esp_alloc::heap_allocator!(#[esp_hal::ram(reclaimed)] size: RECLAIMED);
    esp_alloc::heap_allocator!(size: BESIDE_DATA);
}

/// Heap statistics.
pub fn heap(now: Instant) -> Heap {
    let stats = esp_alloc::HEAP.stats();
    Heap {
        at_us: now.as_micros(),
        size: stats.size as u32,
        used: stats.current_usage as u32,
        used_max: stats.max_usage as u32,
        allocated_total: Some(stats.total_allocated),
        freed_total: Some(stats.total_freed),
    }
}

fn stack_top() -> usize {
    (&raw const _stack_start) as usize
}

fn stack_bottom() -> usize {
    (&raw const _stack_end) as usize
}

/// Lowest painted word: above the scheduler's guard at the end of the stack.
fn paint_bottom() -> usize {
    (stack_top() - PAINTED).max(stack_bottom() + 1024)
}

/// Paints the stack below the caller's frame, so that [`stack_high_water`] starts anew. Main task only.
#[inline(never)]
pub fn repaint() {
    let sp: usize;
    // SAFETY: reads the stack pointer, touches neither memory nor flags.
    unsafe { asm!("mv {}, sp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    let mut word = paint_bottom();
    // Leave room for what this loop itself may push.
    while word < sp - 64 {
        // SAFETY: the range lies within the main stack and below every live frame. An interrupt may push and pop there
        // meanwhile, but is over before the next write.
        unsafe { (word as *mut u32).write_volatile(PAINT) };
        word += 4;
    }
}

/// Most bytes of stack in use at any time since the last [`repaint`]; the painted length, if it was more.
pub fn stack_high_water() -> usize {
    let mut word = paint_bottom();
    // SAFETY: the range lies in RAM and holds plain words; volatile, since the compiler knows of no object here.
    while word < stack_top() && unsafe { (word as *const u32).read_volatile() } == PAINT {
        word += 4;
    }
    stack_top() - word
}

/// Bytes of the main stack.
pub fn stack_len() -> usize {
    stack_top() - stack_bottom()
}

/// Bytes of code in RAM, data and bss, without the heap.
pub fn static_len() -> usize {
    stack_bottom() - RAM_START - BESIDE_DATA
}

/// Whether a call at `sp` would still be above the watched word at the end of the main stack.
pub fn has_stack_left(sp: usize) -> bool {
    !(stack_bottom().saturating_sub(1024)..stack_bottom() + 1024).contains(&sp)
}

/// Whether `address` lies on the main stack.
pub fn on_main_stack(address: usize) -> bool {
    (stack_bottom()..stack_top()).contains(&address)
}

/// The words that a crash report at `sp` may scan. Other tasks' stacks lie in the heap: a kilobyte of them.
pub fn scan_range(sp: usize) -> core::ops::Range<usize> {
    let start = sp.clamp(RAM_START, RAM_END).next_multiple_of(4);
    let end = if on_main_stack(sp) { stack_top() } else { (start + 1024).min(RAM_END) };
    start..end
}

/// Whether `address` lies in code: flash or RAM on the instruction bus (ESP32-C3 TRM 3.3).
pub fn is_code(address: usize) -> bool {
    (0x4200_0000..0x4280_0000).contains(&address) || (0x4037_c000..0x403e_0000).contains(&address)
}
