//! The 16550 console, polled. QEMU holds back its socket while the receive FIFO is full, so nothing is lost.

use crate::mmio::{UART, read8, write8};

const DATA: usize = UART;
const INTERRUPT_ENABLE: usize = UART + 1;
const FIFO_CONTROL: usize = UART + 2;
const LINE_STATUS: usize = UART + 5;

const DATA_READY: u8 = 1;
const TRANSMIT_EMPTY: u8 = 1 << 5;

/// Turns the FIFOs on and asks for an interrupt on received data, which wakes the main loop from `wfi`.
pub fn init() {
    write8(FIFO_CONTROL, 0b0000_0111);
    write8(INTERRUPT_ENABLE, 0b0000_0001);
}

/// Whether a byte has been received.
pub fn has_input() -> bool {
    read8(LINE_STATUS) & DATA_READY != 0
}

/// Takes one received byte.
pub fn read() -> Option<u8> {
    has_input().then(|| read8(DATA))
}

/// Sends one byte, if the transmitter takes it now.
pub fn try_write(byte: u8) -> bool {
    let ready = read8(LINE_STATUS) & TRANSMIT_EMPTY != 0;
    if ready {
        write8(DATA, byte);
    }
    ready
}

/// Text for people, written without buffering; used by the boot banner and by crash reports.
pub struct Text;

impl core::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            while !try_write(byte) {}
        }
        Ok(())
    }
}
