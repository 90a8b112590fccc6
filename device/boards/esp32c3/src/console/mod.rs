//! The byte stream to the harness: USB-Serial-JTAG, or UART0 with the feature `uart-console`.
//!
//! Both are polled, without a buffer of their own: the agent has one, and the hardware's 64 bytes (USB) or 128
//! (UART) are enough between two polls. An interrupt only wakes the main loop. Bytes that arrive while the FIFO is
//! full wait at the USB host; UART0 loses them, which the frame's checksum tells and the harness repeats.

#[cfg(feature = "uart-console")]
mod uart0;
#[cfg(not(feature = "uart-console"))]
mod usb;

use device::node::Console;
use device::time::{Duration, Instant};
use silicon::patience::{Patience, Verdict};

use crate::clock;

#[cfg(feature = "uart-console")]
use uart0 as port;
#[cfg(not(feature = "uart-console"))]
use usb as port;

pub use port::SLEEP;

/// The console.
pub struct Serial {
    _port: port::Port,
    patience: Patience,
    /// When a byte last came or went: a conversation is no time to sleep.
    active_at: Instant,
}

impl Serial {
    /// The console on its peripheral.
    pub fn new(peripheral: port::Peripheral) -> Self {
        Self { _port: port::init(peripheral), patience: Patience::new(), active_at: Instant::ZERO }
    }

    /// Whether bytes have arrived that nobody took.
    pub fn has_input(&self) -> bool {
        port::has_input()
    }

    /// Lets the next arrival ring the doorbell.
    pub fn arm(&self) {
        port::arm();
    }

    /// When a byte last came or went.
    pub fn active_at(&self) -> Instant {
        self.active_at
    }

    /// Waits until what was written is out.
    pub fn drain(&self) {
        let start = clock::now();
        while !port::is_drained() && clock::now().saturating_since(start) < DRAIN_MAX {}
    }
}

/// Longest wait for a FIFO to empty: 128 bytes at 115,200 baud take 11 ms; USB asks every millisecond.
const DRAIN_MAX: Duration = Duration::from_millis(50);

impl Console for Serial {
    fn read(&mut self, bytes: &mut [u8]) -> usize {
        let mut len = 0;
        while let Some(slot) = bytes.get_mut(len) {
            let Some(byte) = port::read() else { break };
            *slot = byte;
            len += 1;
        }
        if len > 0 {
            self.active_at = clock::now();
        }
        len
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.iter().take_while(|&&byte| port::try_write(byte)).count();
        if len > 0 {
            port::flush();
            self.patience.on_progress();
            self.active_at = clock::now();
            return len;
        }
        match self.patience.on_stuck(clock::now()) {
            Verdict::Wait => 0,
            Verdict::Drop => bytes.len(),
        }
    }
}

/// Text for people, written without buffering; used by crash reports. Where nobody listens it gives up once and for all:
/// the chip is to restart before the watchdog makes it.
#[derive(Default)]
pub struct Text {
    is_deaf: bool,
}

impl core::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        if self.is_deaf {
            return Err(core::fmt::Error);
        }
        let mut patience = Patience::new();
        for byte in text.bytes() {
            while !port::try_write(byte) {
                port::flush();
                if patience.on_stuck(clock::now()) == Verdict::Drop {
                    self.is_deaf = true;
                    return Err(core::fmt::Error);
                }
            }
            patience.on_progress();
        }
        port::flush();
        Ok(())
    }
}
