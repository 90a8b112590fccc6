//! What goes wrong with a board on a bench: each fault by its name, with its remedy.

use std::path::PathBuf;
use std::time::Duration;

use device::control::PowerMode;

use super::recovery::{Attempt, attempts_of};

/// A tethered board cannot be used.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Fault {
    /// Nothing that could be a board is plugged in.
    #[error("no board: no USB serial port of an ESP32-C3 is there{}", others_of(.others))]
    #[diagnostic(
        code("board::none"),
        help(
            "connect the board with a cable that carries data; it appears as ttyACM0 (USB-Serial-JTAG) or ttyUSB0 (bridge). \
         `harness boards` lists what is found, --port PATH names a port that is not"
        )
    )]
    None {
        /// Serial ports that are none of a board we know.
        others: Vec<PathBuf>,
    },
    /// There is a choice, and none was made.
    #[error("{} boards and none named:{}", .boards.len(), lines_of(.boards))]
    #[diagnostic(
        code("board::several"),
        help("name one with --mac MAC, --port PATH, or --name NAME from boards.toml")
    )]
    Several {
        /// One line for each.
        boards: Vec<String>,
    },
    /// The board that was named is not there.
    #[error("the board {wanted} is not there{}", if .found.is_empty() { "; no board is".to_owned() } else { format!("; these are:{}", lines_of(.found)) })]
    #[diagnostic(
        code("board::absent"),
        help("check its cable and the name; `harness boards` lists what is found")
    )]
    Absent {
        /// What was asked for.
        wanted: String,
        /// What there is.
        found: Vec<String>,
    },
    /// All boards that could be picked are in use or in quarantine.
    #[error("no board is free:{}", lines_of(.boards))]
    #[diagnostic(
        code("board::none-free"),
        help(
            "wait for the other process, or for one in quarantine: `harness boards --verify` tries it again"
        )
    )]
    NoneFree {
        /// One line for each.
        boards: Vec<String>,
    },
    /// Another harness has it.
    #[error("the board {board} is in use by {holder}")]
    #[diagnostic(code("board::locked"), help("wait for that process or end it; its lock goes with it"))]
    Locked {
        /// The board.
        board: String,
        /// Who has it.
        holder: String,
    },
    /// The lock cannot be made.
    #[error("cannot lock the board {board}: {cause}")]
    #[diagnostic(
        code("board::lock"),
        help("check the rights of the lock folder, or set HARNESS_LOCKS to another one")
    )]
    Lock {
        /// The board.
        board: String,
        /// Why.
        cause: String,
    },
    /// The board is in quarantine.
    #[error("the board {board} is in quarantine: {why}")]
    #[diagnostic(
        code("board::quarantine"),
        help(
            "`harness boards --verify` with its --mac, --port or --name tries it again and lifts a quarantine that its history put on it; one in \
         boards.toml is lifted there"
        )
    )]
    Quarantined {
        /// The board.
        board: String,
        /// Why.
        why: String,
    },
    /// The hardware map cannot be read.
    #[error("the hardware map {} is wrong: {cause}", path.display())]
    #[diagnostic(code("board::map"), help("`harness boards --help` shows the keys of boards.toml"))]
    Map {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line.
        cause: String,
    },
    /// The port is not there.
    #[error("there is no port {}", port.display())]
    #[diagnostic(
        code("board::no-port"),
        help("check the cable; `harness boards` lists the ports that are there")
    )]
    NoPort {
        /// The port.
        port: PathBuf,
    },
    /// Another program has the port open.
    #[error("the port {} is busy: {holder}", port.display())]
    #[diagnostic(
        code("board::busy"),
        help("close the other program (a serial monitor, ModemManager) and start again")
    )]
    Busy {
        /// The port.
        port: PathBuf,
        /// Who has it open.
        holder: String,
    },
    /// The port may not be opened.
    #[error("the port {} may not be opened by this user", port.display())]
    #[diagnostic(
        code("board::permission"),
        help(
            "join the group that owns it (`sudo usermod -aG {group} $USER`, then log in again), or add the udev rule\n  \
         SUBSYSTEM==\"tty\", ATTRS{{idVendor}}==\"{vendor:04x}\", MODE=\"0660\", TAG+=\"uaccess\"\nas \
         /etc/udev/rules.d/70-esp32c3.rules and run `sudo udevadm control --reload && sudo udevadm trigger`"
        )
    )]
    NoPermission {
        /// The port.
        port: PathBuf,
        /// The group that owns it.
        group: String,
        /// The USB vendor id of what it belongs to.
        vendor: u16,
    },
    /// There is something else than a port.
    #[error("{} is no serial port", port.display())]
    #[diagnostic(
        code("board::not-serial"),
        help(
            "name a serial port, such as /dev/ttyACM0 or /dev/ttyUSB0; `harness boards` lists those of boards"
        )
    )]
    NotSerial {
        /// What was named.
        port: PathBuf,
    },
    /// The port cannot be used for another reason.
    #[error("the port {} cannot be used: {cause}", port.display())]
    #[diagnostic(
        code("board::port"),
        help("unplug the board and plug it in again; `dmesg` tells what the kernel saw")
    )]
    Port {
        /// The port.
        port: PathBuf,
        /// What the operating system says.
        cause: String,
    },
    /// The board vanished while it was used.
    #[error("the port {} vanished while in use: the cable was pulled, or the board lost its power", port.display())]
    #[diagnostic(
        code("board::pulled"),
        help("check cable, hub and supply; a brown-out is told by the next boot's reset reason")
    )]
    Pulled {
        /// The port.
        port: PathBuf,
    },
    /// It is another chip.
    #[error("wrong chip: {} has an {found}, the firmware is for an esp32c3", port.display())]
    #[diagnostic(code("board::wrong-chip"), help("name another board with --mac or --port"))]
    WrongChip {
        /// The port.
        port: PathBuf,
        /// What it is.
        found: String,
    },
    /// The firmware file is not one for this chip.
    #[error("{} is no firmware for the ESP32-C3: {cause}", path.display())]
    #[diagnostic(
        code("board::wrong-elf"),
        help("`harness build --board esp32c3` builds it and prints its path")
    )]
    WrongElf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// An image without a bootloader is to go where one lies.
    #[error("{} is an application alone: at address 0 it would lie where the bootloader belongs", path.display())]
    #[diagnostic(
        code("board::application-alone"),
        help(
            "`harness flash --board esp32c3 --firmware {} --address 0x10000` writes it behind the bootloader that is there (a scenario \
         runs it with --no-flash then); or name its ELF, from which all of it is made",
            path.display()
        )
    )]
    ApplicationAlone {
        /// The file.
        path: PathBuf,
    },
    /// The image does not fit.
    #[error("the image of {} takes {len} B, {room} B are there for it", path.display())]
    #[diagnostic(
        code("board::too-large"),
        help(
            "`harness size --board esp32c3` tells what takes them; `harness flash --partition-table FILE` gives the application more room"
        )
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes in flash.
        len: u64,
        /// Bytes of its partition, or of the flash.
        room: u64,
    },
    /// What was read back is not what was written.
    #[error("flash verify failed at {address:#x} ({len} B) on {}: what is there is not what was written", port.display())]
    #[diagnostic(
        code("board::verify"),
        help(
            "flash again with another cable or supply; if it fails at the same place, the flash is worn out"
        )
    )]
    Verify {
        /// The port.
        port: PathBuf,
        /// Start of the region.
        address: u32,
        /// Its length.
        len: usize,
    },
    /// The ROM's loader does not answer.
    #[error("the ROM loader on {} does not answer: {cause}{}", port.display(), attempts_of(.tried))]
    #[diagnostic(
        code("board::no-loader"),
        help(
            "hold BOOT, press RESET, release BOOT, and flash again; a board that deep-sleeps or has its USB pins in use needs that"
        )
    )]
    NoLoader {
        /// The port.
        port: PathBuf,
        /// What happened.
        cause: String,
        /// What was tried.
        tried: Vec<Attempt>,
    },
    /// Flashing failed midway.
    #[error("flashing over {} failed: {cause}", port.display())]
    #[diagnostic(
        code("board::flash"),
        help(
            "flash again; against a noisy line a shorter cable helps, and behind a bridge `harness flash --baud 57600`"
        )
    )]
    Flash {
        /// The port.
        port: PathBuf,
        /// What happened.
        cause: String,
    },
    /// Something took longer than it may.
    #[error("{what} took longer than {limit:?} on {}", port.display())]
    #[diagnostic(
        code("board::time"),
        help(
            "reset the board by hand and start again; `harness flash --limit SECONDS` gives flashing more time"
        )
    )]
    TimeLimit {
        /// What.
        what: &'static str,
        /// How long it may take.
        limit: Duration,
        /// The port.
        port: PathBuf,
    },
    /// The board waits for a download instead of running its firmware.
    #[error("the board on {} is in download mode and does not run its firmware{}", port.display(), attempts_of(.tried))]
    #[diagnostic(
        code("board::download-mode"),
        help(
            "release BOOT (GPIO9 must be high at reset) and press RESET; a board strapped to ground there never leaves it"
        )
    )]
    DownloadMode {
        /// The port.
        port: PathBuf,
        /// What was tried.
        tried: Vec<Attempt>,
    },
    /// Nothing comes.
    #[error("the board on {} is silent{}", port.display(), attempts_of(.tried))]
    #[diagnostic(
        code("board::silent"),
        help("check that it has power; a power-cycle command in boards.toml lets the harness try that too")
    )]
    Silent {
        /// The port.
        port: PathBuf,
        /// What was tried.
        tried: Vec<Attempt>,
    },
    /// What comes is nothing that firmware or ROM would say.
    #[error("garbage on {}: {bytes} byte(s) that are neither text nor frames, such as {sample}{}", port.display(), attempts_of(.tried))]
    #[diagnostic(
        code("board::garbage"),
        help(
            "over a bridge the speed of its console is wrong, 115200 baud are expected; over USB-Serial-JTAG flash again"
        )
    )]
    Garbage {
        /// The port.
        port: PathBuf,
        /// How many bytes.
        bytes: usize,
        /// The first of them in hexadecimal.
        sample: String,
        /// What was tried.
        tried: Vec<Attempt>,
    },
    /// It runs our firmware, and no reset gets through to it.
    #[error("the board on {} answers, but none of what should restart it does{}", port.display(), attempts_of(.tried))]
    #[diagnostic(
        code("board::no-restart"),
        help(
            "press RESET; behind a bridge DTR and RTS must lead to BOOT and EN. A power-cycle command in boards.toml lets the \
         harness restart it without them"
        )
    )]
    NoRestart {
        /// The port.
        port: PathBuf,
        /// What was tried.
        tried: Vec<Attempt>,
    },
    /// The flash holds no firmware, or none that boots.
    #[error("the board on {} has no firmware that boots: {said}{}", port.display(), attempts_of(.tried))]
    #[diagnostic(code("board::no-firmware"), help("`harness flash --board esp32c3` writes it"))]
    NoFirmware {
        /// The port.
        port: PathBuf,
        /// What the ROM or the bootloader said.
        said: String,
        /// What was tried.
        tried: Vec<Attempt>,
    },
    /// It runs, but not our firmware.
    #[error("the board on {} runs, but not this project's firmware; it said: {said}{}", port.display(), attempts_of(.tried))]
    #[diagnostic(
        code("board::foreign"),
        help(
            "`harness flash --board esp32c3` writes it; to measure another firmware use --firmware FILE --adapter log:RULES.toml"
        )
    )]
    Foreign {
        /// The port.
        port: PathBuf,
        /// Its last line.
        said: String,
        /// What was tried.
        tried: Vec<Attempt>,
    },
    /// It crashes before it says anything.
    #[error("the firmware on {} crashes when it starts: {report}", port.display())]
    #[diagnostic(
        code("board::crash"),
        help("`harness monitor` shows all it says; flash a firmware that is known to work")
    )]
    Crashes {
        /// The port.
        port: PathBuf,
        /// The crash report, decoded as far as the ELF is known.
        report: String,
    },
    /// The power-cycle command failed.
    #[error("the power-cycle command `{command}` failed: {cause}")]
    #[diagnostic(code("board::power"), help("run it by hand and correct `power-cycle` in boards.toml"))]
    Power {
        /// The command.
        command: String,
        /// What happened.
        cause: String,
    },
    /// The firmware cannot save power that way.
    #[error("the firmware on the board refuses the power mode {mode:?}")]
    #[diagnostic(
        code("board::power-mode"),
        help(
            "USB does not survive a light sleep: build the firmware with `--features uart-console` and use a bridge on UART0"
        )
    )]
    PowerMode {
        /// The mode.
        mode: PowerMode,
    },
    /// The network does not take the password.
    #[error("the Wi-Fi network `{ssid}` does not accept the password")]
    #[diagnostic(
        code("wifi::password"),
        help(
            "correct the password (case counts); some access points also say so when their client list is full"
        )
    )]
    WrongPassword {
        /// The network.
        ssid: String,
    },
    /// The network is not there.
    #[error("the board finds no Wi-Fi network `{ssid}`: the access point is off, out of range, or on 5 GHz")]
    #[diagnostic(
        code("wifi::no-network"),
        help("switch the access point on, move the board nearer, and use 2.4 GHz, the chip's only band")
    )]
    NoNetwork {
        /// The network.
        ssid: String,
    },
    /// The network was not joined for another reason.
    #[error("the board did not join the Wi-Fi network `{ssid}`: {cause}")]
    #[diagnostic(
        code("wifi::not-joined"),
        help("the console log shows the radio's own words; WPA2 is what this firmware speaks")
    )]
    NotJoined {
        /// The network.
        ssid: String,
        /// Why.
        cause: String,
    },
    /// The network went away in the run.
    #[error("the board lost the Wi-Fi network `{ssid}` and did not get back to it: {cause}")]
    #[diagnostic(
        code("wifi::lost"),
        help(
            "switch the access point on again, or move the board nearer to it, and run again; the access point's own log tells \
         whether it sent the board away"
        )
    )]
    Lost {
        /// The network.
        ssid: String,
        /// What the radio told, first and last.
        cause: String,
    },
    /// The network gave no address.
    #[error("the board joined the Wi-Fi network, but no DHCP server gave it an address within {limit:?}")]
    #[diagnostic(
        code("wifi::no-dhcp"),
        help(
            "check that the network has a DHCP server with a free address, and that the access point passes broadcasts on (client \
         isolation)"
        )
    )]
    NoDhcp {
        /// How long it was waited for.
        limit: Duration,
    },
    /// A device that is to impair the board's network does not.
    #[error("the device {device} impairs nothing: {cause}")]
    #[diagnostic(
        code("network::unimpaired"),
        help(
            "`sudo tc qdisc add dev {device} root netem loss 3%` has it lose packets, `sudo tc qdisc del dev {device} root` ends that; \
         `ip link` lists the devices"
        )
    )]
    Unimpaired {
        /// The device.
        device: String,
        /// What was found.
        cause: String,
    },
    /// This machine has no address the board could reach.
    #[error("this machine has no address that the board can reach: {cause}")]
    #[diagnostic(
        code("lan::no-address"),
        help("name one with --listen ADDRESS, that of the interface in the board's network")
    )]
    NoAddress {
        /// Why.
        cause: String,
    },
    /// The firmware cannot join networks.
    #[error("the firmware on the board has no Wi-Fi")]
    #[diagnostic(
        code("wifi::unsupported"),
        help("flash the esp32c3 firmware; `harness flash --board esp32c3` writes it")
    )]
    NoRadio,
    /// There are no credentials for the network.
    #[error("no Wi-Fi credentials for the board")]
    #[diagnostic(
        code("wifi::no-credentials"),
        help(
            "set HARNESS_WIFI_SSID and HARNESS_WIFI_PASSWORD, or name a file with --wifi FILE (keys ssid and password), or run \
         at a terminal to be asked"
        )
    )]
    NoCredentials,
    /// The credentials cannot be used.
    #[error("the Wi-Fi credentials from {source_name} cannot be used: {cause}")]
    #[diagnostic(
        code("wifi::credentials"),
        help("an SSID has 1 to 32 bytes; a WPA2 password 8 to 63, none for an open network")
    )]
    Credentials {
        /// Where they came from.
        source_name: String,
        /// What is wrong; never the password.
        cause: String,
    },
}

fn lines_of(items: &[String]) -> String {
    items.iter().map(|item| format!("\n  {item}")).collect()
}

fn others_of(ports: &[PathBuf]) -> String {
    if ports.is_empty() {
        return String::new();
    }
    let names: Vec<_> = ports.iter().map(|port| port.display().to_string()).collect();
    format!(" (other serial ports: {})", names.join(", "))
}
