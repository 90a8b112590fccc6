//! Time from the system timer, cycles from the processor's own counter.

use core::arch::asm;
use core::cell::Cell;

use device::time::Instant;
use silicon::counter::Extended;

/// Processor clock: the highest, which the radio wants and the proof of concept used.
pub const CPU_MHZ: u16 = 160;

/// Microseconds since boot. The timer is set forward after a light sleep.
pub fn now() -> Instant {
    Instant::from_micros(esp_hal::time::Instant::now().duration_since_epoch().as_micros())
}

/// Cycles since boot (ESP32-C3 TRM 1.9: `mpccr`, CSR 0x7e2; `mcycle` does not exist). The hardware counts 32 bits, a
/// turn of 26.8 s; the main loop reads it once a second at least.
pub struct Cycles(Cell<Extended>);

impl Cycles {
    /// Starts counting.
    pub fn start() -> Self {
        // SAFETY: `mpcer` (0x7e0) selects what is counted, bit 0 cycles; `mpcmr` (0x7e1), bit 0, runs the counter. No
        // memory and no other state is touched, and nobody else in this program uses them.
        unsafe { asm!("csrwi 0x7e0, 1", "csrwi 0x7e1, 1", "csrwi 0x7e2, 0", options(nomem, nostack)) };
        Self(Cell::new(Extended::new()))
    }

    /// Cycles now.
    pub fn read(&self) -> u64 {
        let low: u32;
        // SAFETY: reads a counter.
        unsafe { asm!("csrr {}, 0x7e2", out(reg) low, options(nomem, nostack)) };
        let mut extended = self.0.get();
        let cycles = extended.extend(low);
        self.0.set(extended);
        cycles
    }
}
