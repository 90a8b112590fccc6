//! Faults are fatal: they are reported over the console in the form of all boards, and the chip restarts.
//!
//! ```text
//! CRASH cause=<text> mcause=0x.. pc=0x.. sp=0x.. ra=0x.. address=0x..
//! CRASH stack 0x.. 0x.. ...
//! CRASH end
//! ```
//! The harness decodes the addresses with the ELF. A main loop that hangs is reported the same way by the
//! watchdog's interrupt.

use core::fmt::Write as _;

use esp_hal::trapframe::TrapFrame;

use crate::console::Text;
use crate::{memory, power};

/// Return-address candidates in a report: deeper frames rarely help, and each line costs console time.
const MAX_FRAMES: usize = 48;

/// What esp-hal calls for every exception, on the stack of whatever caused it, above its saved registers.
#[unsafe(no_mangle)]
unsafe extern "C" fn ExceptionHandler(frame: &TrapFrame) -> ! {
    let cause = riscv::register::mcause::read().bits() & 0x7fff_ffff;
    let pc = riscv::register::mepc::read();
    let address = riscv::register::mtval::read();
    let sp = core::ptr::from_ref(frame).addr() + size_of::<TrapFrame>();
    let text = match cause {
        // The scheduler's check of the stack pointer reports this number, which the standard reserves.
        14 => "stack overflow",
        // The word at the end of the stack is watched for writes.
        3 if !memory::has_stack_left(sp) => "stack overflow",
        3 => "breakpoint",
        0 | 1 => "instruction access fault",
        2 => "illegal instruction",
        4 | 6 => "misaligned access",
        5 => "load access fault",
        7 => "store access fault",
        11 => "environment call",
        _ => "unexpected exception",
    };
    let mut report = Text::default();
    // Where nobody listens, a report cut short is all there can be.
    let _ = writeln!(
        report,
        "\r\nCRASH cause={text} mcause={cause:#x} pc={pc:#010x} sp={sp:#010x} ra={:#010x} address={address:#010x}",
        frame.ra
    );
    backtrace(&mut report, sp);
    power::reboot()
}

/// Prints the words above `sp` that can be return addresses; the harness keeps those that follow a call.
fn backtrace(report: &mut Text, sp: usize) {
    let range = memory::scan_range(sp);
    let mut left = MAX_FRAMES;
    let _ = write!(report, "CRASH stack");
    for word in range.step_by(4) {
        // SAFETY: `scan_range` is aligned and lies within RAM, which is always readable.
        let value = unsafe { (word as *const usize).read_volatile() };
        if memory::is_code(value) {
            let _ = write!(report, " {value:#010x}");
            left -= 1;
        }
        if left == 0 {
            break;
        }
    }
    let _ = writeln!(report, "\r\nCRASH end\r");
}

fn stack_pointer() -> usize {
    let sp: usize;
    // SAFETY: reads the stack pointer, touches neither memory nor flags.
    unsafe { core::arch::asm!("mv {}, sp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}

/// Reports where the main loop hangs. Called in the watchdog's interrupt.
pub fn report_hang() {
    let (pc, sp) = (riscv::register::mepc::read(), stack_pointer());
    let mut report = Text::default();
    let _ = writeln!(
        report,
        "\r\nCRASH cause=hang mcause=0x0 pc={pc:#010x} sp={sp:#010x} ra=0x00000000 address=0x00000000"
    );
    backtrace(&mut report, sp);
}

/// Tells the message alone: the place is on the stack, where functions that never return leave their return addresses, too
/// (the build asks for unwind tables). File names and lines in the image would take 23 KB.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let sp = stack_pointer();
    let mut report = Text::default();
    let _ = writeln!(report, "\r\nCRASH cause=panic sp={sp:#010x} panicked: {}", info.message());
    backtrace(&mut report, sp);
    power::reboot()
}
