//! What this board tells and does for the firmware's agent.

use device::control::{Fault, ResetReason};
use device::node::{Board, Console, Figures};
use device::time::Instant;

use crate::{clock, memory, power, uart};

/// The emulated machine.
pub struct Qemu {
    mac: [u8; 6],
    /// Most stack in use since boot, over all phases: a snapshot repaints.
    stack_max: usize,
}

impl Qemu {
    /// The board whose NIC has hardware address `mac`.
    pub fn new(mac: [u8; 6]) -> Self {
        Self { mac, stack_max: 0 }
    }
}

impl Board for Qemu {
    fn name(&self) -> &str {
        "qemu"
    }

    fn reset_reason(&self) -> ResetReason {
        // QEMU clears RAM and registers on every reset and keeps no record of its cause.
        ResetReason::PowerOn
    }

    fn hardware_address(&self) -> [u8; 6] {
        self.mac
    }

    fn now(&self) -> Option<Instant> {
        // In lockstep it is the harness that moves time on.
        (!memory::boot_options().lockstep).then(clock::now)
    }

    fn figures(&mut self) -> Figures {
        let phase = memory::stack_high_water();
        self.stack_max = self.stack_max.max(phase);
        memory::repaint();
        Figures {
            // No heap: what is neither static nor stack at its deepest is free.
            heap_free: Some((memory::stack_len().saturating_sub(self.stack_max)) as u32),
            heap_free_min: None,
            stack_max: Some(self.stack_max as u32),
            stack_phase_max: Some(phase as u32),
            stack_size: Some(memory::stack_len() as u32),
            static_ram: Some(memory::static_len() as u32),
            instructions: self.counter(),
            cycles: None,
        }
    }

    fn counter(&self) -> Option<u64> {
        // Without `-icount` QEMU makes the counter follow the host's clock.
        memory::boot_options().counting.then(clock::instructions)
    }

    fn crash(&mut self, fault: Fault) {
        #[cfg(feature = "faults")]
        fail(fault);
        // Firmware that ships cannot be made to fail by command.
        #[cfg(not(feature = "faults"))]
        let _ = fault;
    }

    fn reboot(&mut self) {
        power::reboot()
    }
}

#[cfg(feature = "faults")]
fn fail(fault: Fault) {
    match fault {
        Fault::Panic => panic!("asked to panic"),
        Fault::StackOverflow => {
            descend(0);
        }
        Fault::Hang => hang(),
        Fault::Exhaustion => memory::exhaust(),
    }
}

/// Never returns to the main loop.
#[cfg(feature = "faults")]
#[inline(never)]
fn hang() {
    loop {
        core::hint::spin_loop();
    }
}

/// Calls itself until the stack meets its guard.
#[cfg(feature = "faults")]
#[inline(never)]
#[expect(unconditional_recursion, reason = "a fault that the harness provokes to see it reported")]
fn descend(depth: usize) -> usize {
    let frame = core::hint::black_box([depth; 64]);
    descend(depth + 1) + frame[depth % 64]
}

/// The UART as the agent's console.
pub struct Uart;

impl Console for Uart {
    fn read(&mut self, bytes: &mut [u8]) -> usize {
        let mut len = 0;
        while let Some(slot) = bytes.get_mut(len) {
            let Some(byte) = uart::read() else { break };
            *slot = byte;
            len += 1;
        }
        len
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        bytes.iter().take_while(|&&byte| uart::try_write(byte)).count()
    }
}

/// The UART, waiting until it has taken all: nothing then depends on how fast it is read.
pub struct PatientUart;

impl Console for PatientUart {
    fn read(&mut self, bytes: &mut [u8]) -> usize {
        Uart.read(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        for &byte in bytes {
            while !uart::try_write(byte) {}
        }
        bytes.len()
    }
}
