//! Which boards are plugged in, as the kernel tells: no port is opened, no board disturbed.
//!
//! The chip's own USB-Serial-JTAG port names itself by the chip's MAC address, so such boards are known before they are
//! touched. Behind a bridge the address is known only to the chip: `harness boards --probe` asks it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::mac::Mac;
use super::port::USB_SERIAL_JTAG;

/// Espressif's USB vendor id.
pub(super) const ESPRESSIF: u16 = 0x303a;
/// USB-UART bridges that boards carry: vendor, product, name.
const BRIDGES: [(u16, u16, &str); 9] = [
    (0x10c4, 0xea60, "CP210x"),
    (0x1a86, 0x7523, "CH340"),
    (0x1a86, 0x55d3, "CH343"),
    (0x1a86, 0x55d4, "CH9102"),
    (0x0403, 0x6001, "FT232"),
    (0x0403, 0x6010, "FT2232"),
    (0x0403, 0x6014, "FT232H"),
    (0x0403, 0x6015, "FT231X"),
    (0x303a, 0x1002, "ESP-PROG"),
];

/// Where the kernel tells about ports; a parameter so that a test can tell another story.
#[derive(Clone, Debug)]
pub struct Roots {
    /// `/sys/class/tty`.
    pub class: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
}

impl Default for Roots {
    /// The machine's own, or those that `HARNESS_SYS_CLASS_TTY` and `HARNESS_DEV` name: a container may see them
    /// elsewhere.
    fn default() -> Self {
        let path = |variable: &str, default: &str| {
            std::env::var_os(variable).map_or_else(|| default.into(), PathBuf::from)
        };
        Self { class: path("HARNESS_SYS_CLASS_TTY", "/sys/class/tty"), dev: path("HARNESS_DEV", "/dev") }
    }
}

/// A serial port that is, or may be, a board's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Found {
    /// The port.
    pub port: PathBuf,
    /// Its USB device; `None` for a port that the hardware map or the command line named.
    pub usb: Option<Usb>,
    /// The chip's address, where it is known without asking.
    pub mac: Option<Mac>,
}

/// A USB device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Usb {
    /// Where it hangs: bus and ports, such as `1-1.2`.
    pub path: String,
    /// Its folder in sysfs.
    pub device: PathBuf,
    /// Vendor id.
    pub vendor: u16,
    /// Product id.
    pub product: u16,
    /// What it calls itself.
    pub name: String,
    /// Its serial number.
    pub serial: Option<String>,
}

/// Everything that was found.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Ports that are, or may be, boards', by port.
    pub boards: Vec<Found>,
    /// USB serial ports of other things.
    pub others: Vec<PathBuf>,
}

/// Looks at every serial port there is.
pub fn scan(roots: &Roots) -> Scan {
    let mut scan = Scan::default();
    for entry in fs::read_dir(&roots.class).into_iter().flatten().flatten() {
        let port = roots.dev.join(entry.file_name());
        let Some(usb) = usb_of(&entry.path()) else { continue };
        if !port.exists() {
            continue;
        }
        match recognise(&usb) {
            Some(mac) => scan.boards.push(Found { port, usb: Some(usb), mac }),
            None => scan.others.push(port),
        }
    }
    scan.boards.sort_by(|a, b| a.port.cmp(&b.port));
    scan.others.sort();
    scan
}

/// Whether `usb` may be a board; its address where that is known. An ESP32-S3 or -C6 has the same ids as a C3: the chip
/// is asked before it is written to.
fn recognise(usb: &Usb) -> Option<Option<Mac>> {
    if (usb.vendor, usb.product) == (ESPRESSIF, USB_SERIAL_JTAG) {
        return Some(usb.serial.as_deref().and_then(|serial| serial.parse().ok()));
    }
    BRIDGES.iter().any(|&(vendor, product, _)| (vendor, product) == (usb.vendor, usb.product)).then_some(None)
}

/// The bridge's name, or what the device calls itself.
pub fn kind(usb: &Usb) -> &str {
    if (usb.vendor, usb.product) == (ESPRESSIF, USB_SERIAL_JTAG) {
        return "USB-Serial-JTAG";
    }
    let bridge = BRIDGES.iter().find(|&&(vendor, product, _)| (vendor, product) == (usb.vendor, usb.product));
    bridge.map_or(usb.name.as_str(), |&(_, _, name)| name)
}

/// The USB device that `port` belongs to, if to any.
pub fn usb_at(roots: &Roots, port: &Path) -> Option<Usb> {
    let port = port.canonicalize().ok()?;
    usb_of(&roots.class.join(port.file_name()?))
}

/// The USB device above a port's entry in sysfs.
fn usb_of(class_entry: &Path) -> Option<Usb> {
    let device = fs::canonicalize(class_entry.join("device")).ok()?;
    let folder = device.ancestors().take(LEVELS).find(|folder| folder.join("idVendor").exists())?;
    let text = |name: &str| fs::read_to_string(folder.join(name)).ok().map(|text| text.trim().to_owned());
    let id = |name: &str| u16::from_str_radix(&text(name)?, 16).ok();
    Some(Usb {
        path: folder.file_name()?.to_string_lossy().into_owned(),
        device: folder.into(),
        vendor: id("idVendor")?,
        product: id("idProduct")?,
        name: text("product").unwrap_or_else(|| "unnamed".to_owned()),
        serial: text("serial"),
    })
}

/// From a port up to its USB device: the port itself, its interface, the device.
const LEVELS: usize = 4;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A port in a made-up sysfs.
    pub(crate) fn plug(root: &Path, tty: &str, usb: &str, ids: (&str, &str), serial: &str) -> Roots {
        let roots = Roots { class: root.join("class"), dev: root.join("dev") };
        let device = root.join("devices").join(usb);
        let interface = device.join(format!("{usb}:1.0"));
        fs::create_dir_all(&interface).unwrap();
        fs::create_dir_all(roots.class.join(tty)).unwrap();
        fs::create_dir_all(&roots.dev).unwrap();
        for (name, text) in
            [("idVendor", ids.0), ("idProduct", ids.1), ("product", "a thing"), ("serial", serial)]
        {
            fs::write(device.join(name), format!("{text}\n")).unwrap();
        }
        std::os::unix::fs::symlink(&interface, roots.class.join(tty).join("device")).unwrap();
        fs::write(roots.dev.join(tty), "").unwrap();
        roots
    }

    #[test]
    fn a_board_is_known_by_its_address_before_it_is_touched() {
        let root = tempfile::tempdir().unwrap();
        let roots = plug(root.path(), "ttyACM0", "1-1.2", ("303a", "1001"), "7C:DF:A1:00:00:01");
        plug(root.path(), "ttyUSB0", "1-1.3", ("10c4", "ea60"), "0001");
        plug(root.path(), "ttyACM7", "2-1", ("2341", "0043"), "an Arduino");
        let scan = scan(&roots);
        let [own, bridge] = &scan.boards[..] else { panic!("{scan:?}") };
        assert_eq!(own.mac, Some(Mac([0x7c, 0xdf, 0xa1, 0, 0, 1])));
        let usb = own.usb.as_ref().unwrap();
        assert_eq!((usb.path.as_str(), kind(usb)), ("1-1.2", "USB-Serial-JTAG"));
        assert_eq!((bridge.mac, kind(bridge.usb.as_ref().unwrap())), (None, "CP210x"));
        assert_eq!(scan.others, [roots.dev.join("ttyACM7")]);
        let vendor = |tty: &str| usb_at(&roots, &roots.dev.join(tty)).map(|usb| usb.vendor);
        assert_eq!(
            [vendor("ttyACM0"), vendor("ttyUSB0"), vendor("ttyS0")],
            [Some(0x303a), Some(0x10c4), None]
        );
    }

    #[test]
    fn a_machine_without_serial_ports_has_no_boards() {
        let nowhere = Roots { class: "/no/such".into(), dev: "/no/such".into() };
        assert!(scan(&nowhere).boards.is_empty());
    }
}
