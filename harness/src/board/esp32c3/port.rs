//! A serial port, opened for this process alone, and its control lines.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use serialport::{SerialPort as _, TTYPort};

use super::Fault;
use super::discover::{ESPRESSIF, Roots, usb_at};

/// Speed of the console where a bridge carries it; USB-Serial-JTAG has none.
pub const BAUD: u32 = 115_200;
/// How long a read waits before it looks whether it should end.
pub(super) const READ_WAIT: Duration = Duration::from_millis(50);
/// USB product id of the chip's own USB-Serial-JTAG port.
pub const USB_SERIAL_JTAG: u16 = 0x1001;

/// How a board hangs on its port, which decides how it is reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wiring {
    /// The chip's own USB port: the lines are commands to its reset unit.
    UsbSerialJtag,
    /// A bridge whose DTR and RTS pull BOOT and EN through two transistors.
    Bridge,
    /// A port without control lines, such as a pseudo-terminal.
    Bare,
}

/// Where the chip goes when it is reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Into {
    /// Its firmware.
    Firmware,
    /// The ROM's loader.
    Loader,
}

/// An open port.
#[derive(Debug)]
pub struct Port {
    path: PathBuf,
    tty: TTYPort,
    wiring: Wiring,
}

impl Port {
    /// Opens `path` for this process alone. `product` is its USB product id, where it has one.
    ///
    /// # Errors
    /// [`Fault::NoPort`], [`Fault::Busy`], [`Fault::NoPermission`] or [`Fault::Port`].
    pub fn open(path: &Path, product: Option<u16>) -> Result<Self, Fault> {
        let name = path.to_str().ok_or_else(|| Fault::NoPort { port: path.into() })?;
        let builder = serialport::new(name, BAUD).timeout(READ_WAIT);
        let mut tty = TTYPort::open(&builder).map_err(|error| explain(path, &error))?;
        // A pseudo-terminal does not know the request.
        let wiring = match (tty.read_clear_to_send(), product) {
            (Err(_), _) => Wiring::Bare,
            (Ok(_), Some(USB_SERIAL_JTAG)) => Wiring::UsbSerialJtag,
            (Ok(_), _) => Wiring::Bridge,
        };
        if wiring != Wiring::Bare {
            release(&mut tty).map_err(|error| explain(path, &error))?;
        }
        Ok(Self { path: path.into(), tty, wiring })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the board hangs on it.
    pub fn wiring(&self) -> Wiring {
        self.wiring
    }

    /// Another handle of the same open port.
    ///
    /// # Errors
    /// [`Fault::Port`].
    pub fn handle(&self) -> Result<TTYPort, Fault> {
        self.tty.try_clone_native().map_err(|error| explain(&self.path, &error))
    }

    /// Gives the port away, as the flasher wants it.
    pub fn into_tty(self) -> TTYPort {
        self.tty
    }

    /// Drops what has arrived and was not read.
    pub fn forget_input(&self) {
        // A port that is gone is found out by the next read.
        let _ = self.tty.clear(serialport::ClearBuffer::Input);
    }

    /// Resets the chip by its control lines. Takes some 200 ms and blocks.
    ///
    /// On USB-Serial-JTAG, RTS falls through (1,1) to reset, with DTR choosing where to (technical reference manual,
    /// 30.3.3). On a bridge, RTS alone holds EN low and DTR alone BOOT.
    ///
    /// # Errors
    /// [`Fault::Pulled`] if the port is gone; [`Fault::Port`] where it has no lines.
    pub fn reset(&mut self, into: Into) -> Result<(), Fault> {
        let Some(steps) = sequence(self.wiring, into) else {
            return Err(Fault::Port { port: self.path.clone(), cause: "it has no control lines".into() });
        };
        drive(&mut self.tty, steps).map_err(|_| Fault::Pulled { port: self.path.clone() })
    }
}

/// The two control lines of a port, which reach the chip one after the other.
trait Lines {
    fn dtr(&mut self, on: bool) -> serialport::Result<()>;
    fn rts(&mut self, on: bool) -> serialport::Result<()>;
    fn forget_input(&mut self);
    fn pause(&mut self, time: Duration) {
        sleep(time);
    }
}

impl Lines for TTYPort {
    fn dtr(&mut self, on: bool) -> serialport::Result<()> {
        self.write_data_terminal_ready(on)
    }

    fn rts(&mut self, on: bool) -> serialport::Result<()> {
        self.write_request_to_send(on)
    }

    fn forget_input(&mut self) {
        // A port that is gone is found out by the next read.
        let _ = self.clear(serialport::ClearBuffer::Input);
    }
}

/// Lets go of both lines, which the kernel raises when a port is opened. RTS goes first: DTR alone off is what resets the
/// chip, or holds it in reset.
fn release(lines: &mut impl Lines) -> serialport::Result<()> {
    lines.rts(false)?;
    lines.dtr(false)
}

/// States of DTR and RTS, each with the milliseconds it is held.
type Steps = &'static [(bool, bool, u64)];

/// What resets the chip, beginning with both lines off; `None` where there are no lines.
fn sequence(wiring: Wiring, into: Into) -> Option<Steps> {
    Some(match (wiring, into) {
        (Wiring::Bare, _) => return None,
        (Wiring::UsbSerialJtag, Into::Firmware) => {
            &[(false, false, 20), (false, true, 100), (false, false, 0)]
        }
        (Wiring::UsbSerialJtag, Into::Loader) => {
            &[(false, false, 100), (true, false, 100), (true, true, 0), (false, true, 100), (false, false, 0)]
        }
        (Wiring::Bridge, Into::Firmware) => &[(false, true, 100), (false, false, 0)],
        (Wiring::Bridge, Into::Loader) => &[(false, true, 100), (true, false, 50), (false, false, 0)],
    })
}

fn drive(lines: &mut impl Lines, steps: Steps) -> serialport::Result<()> {
    for (index, &(dtr, rts, pause_ms)) in steps.iter().enumerate() {
        if index + 1 == steps.len() {
            // Held in reset, the chip is silent: what is still here is of its life before.
            lines.forget_input();
        }
        lines.dtr(dtr)?;
        lines.rts(rts)?;
        lines.pause(Duration::from_millis(pause_ms));
    }
    Ok(())
}

/// The fault behind an error of the port.
fn explain(path: &Path, error: &serialport::Error) -> Fault {
    use serialport::ErrorKind as Kind;
    let port = path.to_path_buf();
    match error.kind() {
        _ if !path.exists() => Fault::NoPort { port },
        Kind::Io(ErrorKind::NotFound) => Fault::NoPort { port },
        Kind::Io(ErrorKind::PermissionDenied) => {
            let vendor = usb_at(&Roots::default(), path).map_or(ESPRESSIF, |usb| usb.vendor);
            Fault::NoPermission { group: group(path), port, vendor }
        }
        // Both exclusive modes, the terminal's and the lock's, are told as "no device".
        Kind::NoDevice => Fault::Busy { holder: holder(path), port },
        _ if !is_terminal(path) => Fault::NotSerial { port },
        _ => Fault::Port { port, cause: error.to_string() },
    }
}

/// Whether `path` is a terminal, as serial ports are; `true` of what cannot be opened.
fn is_terminal(path: &Path) -> bool {
    use std::os::unix::fs::OpenOptionsExt as _;
    // Never ours to control, and no waiting for a carrier.
    let flags = rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
    file.map_or(true, rustix::termios::isatty)
}

/// The name of the group that owns `path`, or `dialout`, which is the usual one.
fn group(path: &Path) -> String {
    let id = fs::metadata(path).map(|metadata| metadata.gid()).ok();
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let named = id.filter(|&id| id != 0).and_then(|id| {
        groups.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse::<u32>().ok()? == id).then(|| name.to_owned())
        })
    });
    named.unwrap_or_else(|| "dialout".to_owned())
}

/// Which process has `path` open, as far as this user may know.
fn holder(path: &Path) -> String {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let own = std::process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let entry = entry.ok()?;
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, entry.path()))
    });
    let holders: Vec<String> = processes
        .filter(|(_, process)| {
            let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten();
            descriptors.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link == target))
        })
        .map(|(pid, process)| {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            if pid == own {
                "this process has it open already".to_owned()
            } else {
                format!("process {pid} ({}) has it open", name.trim())
            }
        })
        .collect();
    if holders.is_empty() { "another user's process has it open".to_owned() } else { holders.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_not_there_is_named() {
        let fault = Port::open(Path::new("/dev/ttyNOPE"), None).unwrap_err();
        assert!(matches!(fault, Fault::NoPort { .. }), "{fault}");
        assert!(fault.to_string().contains("/dev/ttyNOPE"));
    }

    #[test]
    fn what_is_no_serial_port_is_named() {
        for path in ["/dev/null", "/proc/self/status", "/tmp"] {
            let fault = Port::open(Path::new(path), None).unwrap_err();
            assert!(matches!(fault, Fault::NotSerial { .. }), "{fault}");
            assert_eq!(fault.to_string(), format!("{path} is no serial port"));
            assert!(!fault.is_recoverable(), "nothing would help");
        }
    }

    /// A chip on the two lines: as its USB-Serial-JTAG unit takes them, or as two transistors lead them to EN and BOOT.
    struct Model {
        wiring: Wiring,
        dtr: bool,
        rts: bool,
        /// USB-Serial-JTAG: a reset would lead into the loader.
        flag: bool,
        /// Bridge: EN is low. It falls at once, and rises as its capacitor is charged, during a pause.
        held: bool,
        /// Where the resets led to.
        started: Vec<Into>,
    }

    impl Model {
        /// As the kernel opens a port: both lines on.
        fn opened(wiring: Wiring) -> Self {
            Self { wiring, dtr: true, rts: true, flag: false, held: false, started: Vec::new() }
        }

        fn changed(&mut self) {
            match (self.wiring, self.dtr, self.rts) {
                (Wiring::UsbSerialJtag, false, false) => self.flag = false,
                (Wiring::UsbSerialJtag, true, false) => self.flag = true,
                (Wiring::UsbSerialJtag, false, true) => {
                    self.started.push(if self.flag { Into::Loader } else { Into::Firmware });
                }
                (Wiring::Bridge, false, true) => self.held = true,
                _ => {}
            }
        }
    }

    impl Lines for Model {
        fn dtr(&mut self, on: bool) -> serialport::Result<()> {
            if std::mem::replace(&mut self.dtr, on) != on {
                self.changed();
            }
            Ok(())
        }

        fn rts(&mut self, on: bool) -> serialport::Result<()> {
            if std::mem::replace(&mut self.rts, on) != on {
                self.changed();
            }
            Ok(())
        }

        fn forget_input(&mut self) {}

        fn pause(&mut self, _: Duration) {
            if self.held && (self.dtr, self.rts) != (false, true) {
                self.held = false;
                self.started.push(if self.dtr && !self.rts { Into::Loader } else { Into::Firmware });
            }
        }
    }

    #[test]
    fn opening_a_port_neither_resets_nor_holds_its_board() {
        for wiring in [Wiring::UsbSerialJtag, Wiring::Bridge] {
            let mut chip = Model::opened(wiring);
            release(&mut chip).unwrap();
            assert!(!chip.held && chip.started.is_empty(), "{wiring:?}: it restarts");
            assert!(!chip.dtr && !chip.rts, "{wiring:?}: its lines are let go");
        }
    }

    #[test]
    fn the_lines_lead_the_chip_once_to_where_it_is_reset_into() {
        for wiring in [Wiring::UsbSerialJtag, Wiring::Bridge] {
            for into in [Into::Firmware, Into::Loader, Into::Firmware] {
                let mut chip = Model::opened(wiring);
                release(&mut chip).unwrap();
                drive(&mut chip, sequence(wiring, into).unwrap()).unwrap();
                chip.pause(Duration::ZERO);
                assert_eq!(chip.started, [into], "{wiring:?}");
                assert!(!chip.held && !chip.dtr && !chip.rts, "{wiring:?}: it runs");
            }
        }
        assert_eq!(sequence(Wiring::Bare, Into::Firmware), None);
    }

    #[test]
    fn a_port_that_may_not_be_opened_comes_with_group_and_udev_rule() {
        let refused = serialport::Error::new(
            serialport::ErrorKind::Io(ErrorKind::PermissionDenied),
            "Permission denied",
        );
        let fault = explain(Path::new("/dev/null"), &refused);
        assert!(matches!(fault, Fault::NoPermission { .. }), "{fault}");
        let remedy = fault.remedy();
        assert!(remedy.contains("usermod -aG dialout") && remedy.contains("303a"), "{remedy}");
    }
}
