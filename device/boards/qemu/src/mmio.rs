//! Volatile access to the registers of QEMU's `virt` machine (`hw/riscv/virt.c`, memory map).

use core::ptr::{read_volatile, write_volatile};

/// Core-local interruptor: timer compare and time.
pub const CLINT: usize = 0x0200_0000;
/// Platform-level interrupt controller.
pub const PLIC: usize = 0x0c00_0000;
/// SiFive test finisher: ends or resets the machine.
pub const TEST: usize = 0x0010_0000;
/// 16550 UART.
pub const UART: usize = 0x1000_0000;
/// First of eight virtio-mmio slots, 4 KiB apart; QEMU fills them from the last one down.
pub const VIRTIO: usize = 0x1000_1000;

/// Reads the 32-bit register at `address`.
pub fn read32(address: usize) -> u32 {
    // SAFETY: callers pass addresses of the memory map above, which are device registers for the
    // whole life of the machine and never memory of a Rust object.
    unsafe { read_volatile(address as *const u32) }
}

/// Writes the 32-bit register at `address`.
pub fn write32(address: usize, value: u32) {
    // SAFETY: as in `read32`.
    unsafe { write_volatile(address as *mut u32, value) }
}

/// Reads the 8-bit register at `address`.
pub fn read8(address: usize) -> u8 {
    // SAFETY: as in `read32`.
    unsafe { read_volatile(address as *const u8) }
}

/// Writes the 8-bit register at `address`.
pub fn write8(address: usize, value: u8) {
    // SAFETY: as in `read32`.
    unsafe { write_volatile(address as *mut u8, value) }
}
