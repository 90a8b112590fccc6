//! A bench without silicon: an emulated ROM loader and a scripted board, each behind a pseudo-terminal.
#![allow(dead_code, reason = "each test uses the part it needs")]

pub mod bench;
pub mod device;
pub mod elf;
pub mod pty;
pub mod rom;

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

/// The harness with its own locks and histories, so that no test meets another's.
pub fn harness(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command.env("HARNESS_LOCKS", state.join("locks")).env("HARNESS_STATE", state.join("state"));
    command.env("HARNESS_SYS_CLASS_TTY", state.join("no-ports")).env_remove("HARNESS_BOARDS");
    command.env_remove("HARNESS_WIFI_SSID").env_remove("HARNESS_WIFI_PASSWORD");
    command.current_dir(state).stdin(Stdio::null());
    command
}

/// A made-up sysfs and `/dev` in which a board's USB-Serial-JTAG port leads to a pseudo-terminal.
pub struct Usb {
    root: PathBuf,
    port: PathBuf,
}

impl Usb {
    /// The chip's address, which is its USB serial number.
    pub const MAC: &str = "02:00:4D:51:C3:03";

    /// Plugs in `port`, a pseudo-terminal, as `ttyACM0`.
    pub fn plug(state: &Path, port: &Path) -> Self {
        let usb = Self { root: state.join("usb"), port: port.into() };
        let interface = usb.device().join("1-1.2:1.0");
        let class = usb.root.join("class/ttyACM0");
        for folder in [&interface, &class, &usb.root.join("dev")] {
            std::fs::create_dir_all(folder).expect("room");
        }
        let facts =
            [("idVendor", "303a"), ("idProduct", "1001"), ("product", "USB JTAG"), ("serial", Self::MAC)];
        for (name, text) in facts {
            std::fs::write(usb.device().join(name), format!("{text}\n")).expect("room");
        }
        symlink(&interface, class.join("device")).expect("room");
        usb.connect();
        usb
    }

    /// The USB device in sysfs.
    pub fn device(&self) -> PathBuf {
        self.root.join("devices/1-1.2")
    }

    /// The switch by which the kernel forgets the device and finds it again.
    pub fn authorized(&self) -> PathBuf {
        self.device().join("authorized")
    }

    /// Its port.
    pub fn tty(&self) -> PathBuf {
        self.root.join("dev/ttyACM0")
    }

    /// Who may open the port.
    pub fn permit(&self, mode: u32) {
        std::fs::set_permissions(&self.port, Permissions::from_mode(mode)).expect("ours");
    }

    /// The port appears.
    pub fn connect(&self) {
        symlink(&self.port, self.tty()).expect("room");
    }

    /// The port goes.
    pub fn disconnect(&self) {
        std::fs::remove_file(self.tty()).expect("it was there");
    }

    /// Lets the harness look here.
    pub fn show(&self, command: &mut Command) {
        command.env("HARNESS_SYS_CLASS_TTY", self.root.join("class"));
        command.env("HARNESS_DEV", self.root.join("dev"));
    }
}

/// Runs `command` and says how long it took.
pub fn timed(command: &mut Command) -> (Output, Duration) {
    let start = Instant::now();
    let output = command.output().expect("the harness was built");
    (output, start.elapsed())
}

/// Runs `act` such that what it starts may open only what its user may: root may open anything.
pub fn without_root_s_rights<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        for right in [CapabilitySet::DAC_OVERRIDE, CapabilitySet::DAC_READ_SEARCH] {
            // Whoever is not root has neither and may take none away.
            let _ = remove_capability_from_bounding_set(right);
        }
        act()
    });
    thread.join().expect("no panic")
}

/// What it wrote to stderr, in one line: long messages are wrapped for a person.
pub fn errors(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
}
