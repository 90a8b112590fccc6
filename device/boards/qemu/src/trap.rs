//! Every trap is fatal: it is reported over the console on a stack of its own, and the machine ends.
//!
//! Interrupts are never taken ([`crate::interrupts`]), so a trap means a fault: a stack overflow (the guard of
//! [`crate::memory`]), an access outside RAM, an illegal instruction. The report has a fixed form that the
//! harness recognises and decodes with the ELF:
//!
//! ```text
//! CRASH cause=<text> mcause=0x.. pc=0x.. sp=0x.. ra=0x.. address=0x..
//! CRASH stack 0x.. 0x.. ...
//! CRASH end
//! ```

use core::arch::global_asm;
use core::fmt::Write as _;

use crate::{memory, power, uart::Text};

/// Exit status of QEMU after a trap.
const EXIT_TRAP: u16 = 3;
/// Exit status of QEMU after a Rust panic.
const EXIT_PANIC: u16 = 2;

/// Return-address candidates in a report: deeper frames rarely help, and each line costs console time.
const MAX_FRAMES: usize = 48;

/// Bytes of the trap stack: `core::fmt` takes under 1 KiB on RV32IMC.
const TRAP_STACK_LEN: usize = 2048;

#[repr(C, align(16))]
struct TrapStack([u8; TRAP_STACK_LEN]);

#[unsafe(no_mangle)]
static mut TRAP_STACK: TrapStack = TrapStack([0; TRAP_STACK_LEN]);

// `_start_trap` is the name under which riscv-rt installs the trap vector. The interrupted stack pointer may
// be what is broken, so nothing is pushed on it. A trap within the report itself ends at `halt`.
global_asm!(
    ".section .trap.start, \"ax\"",
    ".balign 4",
    ".global _start_trap",
    "_start_trap:",
    "mv a0, sp",
    "mv a1, ra",
    "la sp, TRAP_STACK + {len}",
    "la t0, 1f",
    "csrw mtvec, t0",
    "call {report}",
    ".balign 4",
    "1: li t0, 0x00100000",
    "li t1, 0x00033333",
    "sw t1, 0(t0)",
    "2: j 2b",
    len = const TRAP_STACK_LEN,
    report = sym report,
);

extern "C" fn report(sp: usize, ra: usize) -> ! {
    let cause = riscv::register::mcause::read().bits();
    let pc = riscv::register::mepc::read();
    let address = riscv::register::mtval::read();
    let text = match cause {
        5 | 7 if memory::in_guard(address) => "stack overflow",
        5 | 7 if memory::is_past_end(address) => "memory exhausted: access past the end of RAM",
        0 | 1 => "instruction access fault",
        2 => "illegal instruction",
        3 => "breakpoint",
        4 | 6 => "misaligned access",
        5 => "load access fault",
        7 => "store access fault",
        11 => "environment call",
        _ => "unexpected interrupt",
    };
    // The console never fails; a short report is better than none. The zero ends a frame that was interrupted.
    let _ = writeln!(
        Text,
        "\0\r\nCRASH cause={text} mcause={cause:#x} pc={pc:#010x} sp={sp:#010x} ra={ra:#010x} address={address:#010x}"
    );
    backtrace(sp);
    power::exit(EXIT_TRAP)
}

/// Prints the words above `sp` that can be return addresses; the harness keeps those that follow a call.
fn backtrace(sp: usize) {
    let stack = memory::stack_range();
    let mut word = sp.clamp(stack.start, stack.end).next_multiple_of(4);
    let mut left = MAX_FRAMES;
    let _ = write!(Text, "CRASH stack");
    while word < stack.end && left > 0 {
        // SAFETY: `word` is aligned and within the stack's RAM, which is always readable.
        let value = unsafe { (word as *const usize).read_volatile() };
        if memory::is_code(value) {
            let _ = write!(Text, " {value:#010x}");
            left -= 1;
        }
        word += 4;
    }
    let _ = writeln!(Text, "\r\nCRASH end\r");
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let sp: usize;
    // SAFETY: reads the stack pointer, touches neither memory nor flags.
    unsafe { core::arch::asm!("mv {}, sp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    let _ = writeln!(Text, "\0\r\nCRASH cause=panic sp={sp:#010x} {info}");
    backtrace(sp);
    power::exit(EXIT_PANIC)
}
