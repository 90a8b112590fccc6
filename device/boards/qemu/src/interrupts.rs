//! Interrupts only wake the main loop: they are enabled in `mie` and at the PLIC but never taken (`mstatus.MIE`
//! stays 0), so there is no handler and no shared state. After `wfi` the pending ones are claimed and completed.

use riscv::register::mie;

use crate::mmio::{PLIC, read32, write32};

/// PLIC source of virtio-mmio slot 7.
pub const IRQ_NIC: u32 = 8;
/// PLIC source of the UART.
pub const IRQ_UART: u32 = 10;

const PRIORITY: usize = PLIC;
const ENABLE: usize = PLIC + 0x2000;
const THRESHOLD: usize = PLIC + 0x20_0000;
const CLAIM: usize = PLIC + 0x20_0004;

/// Lets the NIC, the UART and the timer end a `wfi`.
pub fn init() {
    for source in [IRQ_NIC, IRQ_UART] {
        write32(PRIORITY + 4 * source as usize, 1);
    }
    write32(ENABLE, 1 << IRQ_NIC | 1 << IRQ_UART);
    write32(THRESHOLD, 0);
    // SAFETY: `mstatus.MIE` is 0 and stays so: enabling sources here only makes `wfi` return, no trap is taken.
    unsafe {
        mie::set_mtimer();
        mie::set_mext();
    }
}

/// Completes every pending interrupt and says whether the NIC raised one.
pub fn acknowledge() -> bool {
    let mut nic = false;
    loop {
        let source = read32(CLAIM);
        if source == 0 {
            return nic;
        }
        nic |= source == IRQ_NIC;
        write32(CLAIM, source);
    }
}
