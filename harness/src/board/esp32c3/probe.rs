//! A look at a hung chip through its own USB debug unit (probe-rs; feature `probe`).
//!
//! The ESP32-C3's USB-Serial-JTAG port is a debug probe, too. A core that loops for ever says nothing on the console, but can
//! be halted there: where it stands and what is on its stack tells why.

use std::fmt::Write as _;
use std::time::Duration;

use probe_rs::probe::DebugProbeSelector;
use probe_rs::probe::list::Lister;
use probe_rs::{MemoryInterface as _, Permissions};

/// Time the core has to stop.
const HALT_LIMIT: Duration = Duration::from_millis(500);
/// Words of stack that are read.
const STACK_WORDS: usize = 256;

/// Halts the core, reads where it stands and its stack, and lets it go on. The text has the form of a crash report, so that the
/// same decoder reads it.
///
/// # Errors
/// What the probe says, in words.
pub fn look(serial: Option<&str>) -> Result<String, String> {
    let selector = DebugProbeSelector {
        vendor_id: 0x303a,
        product_id: 0x1001,
        interface: None,
        serial_number: serial.map(str::to_owned),
    };
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let probe = Lister::new().open(selector).map_err(|error| words(&error))?;
    let mut session = probe.attach("esp32c3", Permissions::new()).map_err(|error| words(&error))?;
    let mut core = session.core(0).map_err(|error| words(&error))?;
    core.halt(HALT_LIMIT).map_err(|error| words(&error))?;
    let (pc, ra, sp) = (core.program_counter(), core.return_address(), core.stack_pointer());
    let [pc, ra, sp]: [u32; 3] = [
        core.read_core_reg(pc).map_err(|error| words(&error))?,
        core.read_core_reg(ra).map_err(|error| words(&error))?,
        core.read_core_reg(sp).map_err(|error| words(&error))?,
    ];
    let mut stack = [0u32; STACK_WORDS];
    // Near the top of RAM less is there; what cannot be read stays zero, which is no code.
    let read = core.read_32(u64::from(sp), &mut stack);
    let resumed = core.run();
    let mut text = format!(
        "CRASH cause=halted by the debugger mcause=0 pc={pc:#010x} ra={ra:#010x} sp={sp:#010x}\nCRASH stack"
    );
    if read.is_ok() {
        for word in stack {
            let _ = write!(text, " {word:08x}");
        }
    }
    text.push('\n');
    resumed.map_err(|error| words(&error))?;
    Ok(text)
}
