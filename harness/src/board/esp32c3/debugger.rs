//! A look into a core that runs but does not answer, through the debug unit of its own USB port.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::port::USB_SERIAL_JTAG;
use crate::board::{Place, qemu};
use crate::firmware::elf::Elf;

/// Halts the core, tells where it stands in the form of a crash report, and lets it go on; or says why it cannot.
pub type Ask = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// What can be asked where a core stands.
#[derive(Clone)]
pub enum Debugger {
    /// Its debug unit.
    Unit(Ask),
    /// Nothing; this is why, and what it would take.
    Absent(&'static str),
}

/// Time a look may take: a wedged USB device answers its debugger no more than its console.
const LIMIT: Duration = Duration::from_secs(10);

const NO_UNIT: &str = "to see where it stands, connect the chip's own USB port (USB-Serial-JTAG), whose debug unit the feature `probe` \
                       of the harness asks; this port has none";
#[cfg(not(feature = "probe"))]
const NO_PROBE: &str = "to see where it stands, run `cargo run -p harness --features probe -- ...`: it halts the core over this USB port, \
                        which this build of the harness cannot";

impl Debugger {
    /// The debugger of a port whose USB product this is, with its serial number.
    pub fn of_port(product: Option<u16>, serial: Option<String>) -> Self {
        match product {
            Some(USB_SERIAL_JTAG) => Self::of_unit(serial),
            _ => Self::Absent(NO_UNIT),
        }
    }

    #[cfg(feature = "probe")]
    fn of_unit(serial: Option<String>) -> Self {
        Self::Unit(Arc::new(move || super::probe::look(serial.as_deref())))
    }

    #[cfg(not(feature = "probe"))]
    fn of_unit(_: Option<String>) -> Self {
        Self::Absent(NO_PROBE)
    }

    /// Where the core stands, in functions and lines of `elf` as far as it is known.
    pub async fn look(&self, elf: Option<&Elf>) -> Place {
        self.look_within(elf, LIMIT).await
    }

    async fn look_within(&self, elf: Option<&Elf>, limit: Duration) -> Place {
        let ask = match self {
            Self::Absent(why) => return Place::unknown(*why),
            Self::Unit(ask) => Arc::clone(ask),
        };
        let (sender, told) = oneshot::channel();
        // A thread of its own: one that waits for USB for ever must not hold up the end of the process.
        let asked = std::thread::Builder::new().name("debugger".to_owned()).spawn(move || {
            // Nobody listens any more if it took too long.
            let _ = sender.send(ask());
        });
        let told = match asked {
            Ok(_) => timeout(limit, told).await,
            Err(error) => return Place::unknown(format!("the debug unit was not asked: {error}")),
        };
        match told {
            Ok(Ok(Ok(report))) => Place { backtrace: frames(elf, &report), unknown: None },
            Ok(Ok(Err(cause))) => Place::unknown(format!("the debug unit tells nothing: {cause}")),
            Ok(Err(_)) => Place::unknown("the debug unit's thread panicked; this is a bug in the harness"),
            Err(_) => Place::unknown(format!("the debug unit tells nothing within {limit:?}")),
        }
    }
}

/// The frames of a report; its registers where no function is known.
fn frames(elf: Option<&Elf>, report: &str) -> Vec<String> {
    let decoded = elf.and_then(|elf| qemu::decode(elf, report)).map(|autopsy| autopsy.backtrace);
    match decoded {
        Some(frames) if !frames.is_empty() => frames,
        _ => {
            let registers = report.lines().next().unwrap_or_default();
            let registers = registers.find("pc=").map_or(registers, |start| &registers[start..]);
            vec![registers.to_owned()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "CRASH cause=halted by the debugger mcause=0 pc=0x42000010 ra=0x42000020 sp=0x3fc9a000\nCRASH stack 42000010\n";

    #[tokio::test]
    async fn without_an_elf_the_registers_are_told() {
        let debugger = Debugger::Unit(Arc::new(|| Ok(REPORT.to_owned())));
        assert_eq!(debugger.look(None).await.backtrace, ["pc=0x42000010 ra=0x42000020 sp=0x3fc9a000"]);
    }

    #[tokio::test]
    async fn what_the_unit_complains_of_is_told() {
        let place = Debugger::Unit(Arc::new(|| Err("no probe".to_owned()))).look(None).await;
        assert_eq!(place, Place::unknown("the debug unit tells nothing: no probe"));
    }

    #[tokio::test]
    async fn a_unit_that_never_answers_is_given_up_on() {
        let (_open, never) = std::sync::mpsc::channel::<()>();
        let never = std::sync::Mutex::new(never);
        let ask = move || {
            let _ = never.lock().expect("not poisoned").recv();
            Err("too late".to_owned())
        };
        let place = Debugger::Unit(Arc::new(ask)).look_within(None, Duration::from_millis(50)).await;
        assert_eq!(place, Place::unknown("the debug unit tells nothing within 50ms"));
    }

    #[tokio::test]
    async fn what_a_look_would_take_is_told_where_there_is_none() {
        let bridge = Debugger::of_port(None, None).look(None).await.unknown.expect("no unit");
        assert!(bridge.contains("USB-Serial-JTAG"), "{bridge}");
        #[cfg(not(feature = "probe"))]
        {
            let own = Debugger::of_port(Some(USB_SERIAL_JTAG), None).look(None).await.unknown;
            assert!(own.expect("no probe-rs").contains("--features probe"));
        }
    }
}
