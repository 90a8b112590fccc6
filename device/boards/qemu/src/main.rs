//! The QEMU board.
#![no_std]
#![no_main]

mod clock;
mod interrupts;
mod memory;
mod mmio;
mod nic;
mod power;
mod trap;
mod uart;

use core::fmt::Write as _;

#[riscv_rt::entry]
fn main() -> ! {
    memory::init();
    uart::init();
    interrupts::init();
    let _ = writeln!(
        uart::Text,
        "hello static={} stack={} high={}",
        memory::static_len(),
        memory::stack_len(),
        memory::stack_high_water()
    );
    static mut NIC: Option<nic::Nic> = None;
    power::exit(0)
}
