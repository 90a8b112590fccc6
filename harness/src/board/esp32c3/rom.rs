//! What the ROM and the second-stage bootloader say before the firmware does, and crash text behind it.
//!
//! ```text
//! ESP-ROM:esp32c3-api1-20210207
//! rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)
//! SPIWP:0xee
//! entry 0x403cc710
//! I (24) boot: ESP-IDF v5.1 2nd stage bootloader
//! ```

use crate::board::{Autopsy, qemu};
use crate::firmware::elf::{Elf, Frames};

/// Why the chip started and how, from the ROM's line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Banner {
    /// The reset cause, such as `POWERON`.
    pub reset: String,
    /// The boot mode, such as `SPI_FAST_FLASH_BOOT` or `DOWNLOAD(USB/UART0/1)`.
    pub mode: String,
}

impl Banner {
    /// The last banner in `text`.
    pub fn last_in(text: &str) -> Option<Self> {
        let at = text.rfind("rst:0x")?;
        let line = text[at..].lines().next()?;
        let mut named =
            line.split('(').skip(1).map(|part| part.rsplit_once(')').map_or(part, |(name, _)| name));
        let reset = named.next()?.to_owned();
        // `DOWNLOAD(USB/UART0/1)` has parentheses of its own.
        let mode = line.split_once("boot:")?.1.split_once(" (").map_or("", |(_, mode)| mode);
        Some(Self { reset: first_name(&reset), mode: mode.trim_end().trim_end_matches(')').to_owned() })
    }

    /// Whether a chip in a run starts like that for a reason of its board's, or of a core that stood still.
    pub fn is_of_board(&self) -> bool {
        ["POWERON", "BROWN", "WDT", "GLITCH"].iter().any(|cause| self.reset.contains(cause))
    }

    /// Whether the chip waits for a download.
    pub fn is_download(&self) -> bool {
        self.mode.starts_with("DOWNLOAD") || self.mode.contains("USB_BOOT")
    }
}

fn first_name(text: &str) -> String {
    text.split(')').next().unwrap_or(text).to_owned()
}

/// Where a line of the console comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The ROM or the second-stage bootloader.
    Rom,
    /// The firmware's log.
    Log,
    /// A panic, an exception or what belongs to its report.
    Crash,
}

/// Sorts lines one after the other: a crash report goes on until the chip starts again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sorter {
    crashing: bool,
}

impl Sorter {
    /// Where `line` comes from.
    pub fn sort(&mut self, line: &str) -> Origin {
        if is_rom(line) {
            self.crashing = false;
            return Origin::Rom;
        }
        if CRASH_MARKS.iter().any(|mark| line.contains(mark)) {
            self.crashing = true;
        }
        if self.crashing { Origin::Crash } else { Origin::Log }
    }
}

/// How a crash report of ours, of esp-backtrace, of ESP-IDF begins.
const CRASH_MARKS: [&str; 7] = [
    "CRASH cause=",
    "panicked at",
    "!! A panic occured",
    "Exception '",
    "Guru Meditation Error",
    "abort() was called",
    "Brownout detector was triggered",
];

fn is_rom(line: &str) -> bool {
    let line = line.trim_start();
    let idf_boot = line.len() > 2
        && matches!(line.as_bytes()[0], b'I' | b'W' | b'E')
        && line[1..].trim_start().starts_with('(')
        && line.split_once(") ").is_some_and(|(_, rest)| {
            rest.starts_with("boot") || rest.starts_with("esp_image") || rest.starts_with("flash_parts")
        });
    let plain =
        ["ESP-ROM:", "Build:", "rst:0x", "SPIWP:", "mode:", "load:0x", "entry 0x", "waiting for download"];
    idf_boot || plain.iter().any(|start| line.starts_with(start)) || invalid_header(line).is_some()
}

/// The complaint of a ROM or bootloader that found no image.
pub fn invalid_header(text: &str) -> Option<&str> {
    const COMPLAINTS: [&str; 4] =
        ["invalid header:", "No bootable app partitions", "ets_loader.c", "Image hash failed"];
    text.lines().find(|line| COMPLAINTS.iter().any(|complaint| line.contains(complaint))).map(str::trim)
}

/// The last crash report in `text`, with its addresses turned into functions and lines of `elf`; empty if there is
/// none.
pub fn decode_crash(elf: Option<&Elf>, text: &str) -> String {
    if let Some(Autopsy { cause, backtrace, .. }) = elf.and_then(|elf| qemu::decode(elf, text)) {
        let frames = backtrace.iter().map(|frame| format!("  {frame}"));
        let mut decoded = cause.into_iter().chain(frames).collect::<Vec<_>>().join("\n");
        decoded.push('\n');
        return decoded;
    }
    let Some(start) = CRASH_MARKS.iter().filter_map(|mark| text.rfind(mark)).max() else {
        return String::new();
    };
    let start = text[..start].rfind('\n').map_or(0, |line| line + 1);
    let mut sorter = Sorter::default();
    let report: Vec<&str> =
        text[start..].lines().take_while(|line| sorter.sort(line) == Origin::Crash).take(LINES_MAX).collect();
    let mut decoded = report.join("\n");
    decoded.push('\n');
    if let Some(elf) = elf {
        for frame in backtrace(elf, &report) {
            decoded.push_str("  ");
            decoded.push_str(&frame);
            decoded.push('\n');
        }
    }
    decoded
}

/// Lines of a crash report that are kept.
const LINES_MAX: usize = 120;
/// Addresses of a crash report that are looked up.
const ADDRESSES_MAX: usize = 64;

/// Functions and lines at the addresses in `line`, which a person reads beside it.
pub fn annotate(elf: &Elf, line: &str) -> Vec<String> {
    backtrace(elf, &[line])
}

fn backtrace(elf: &Elf, lines: &[&str]) -> Vec<String> {
    let mut frames = Vec::new();
    for line in lines {
        for (address, kind) in code_addresses(line) {
            frames.extend(elf.backtrace(&[address], kind));
        }
        if frames.len() >= ADDRESSES_MAX {
            break;
        }
    }
    frames
}

/// Numbers in `line` that lie where the chip runs code: flash (0x4200_0000) or RAM (0x4037_c000). The one behind `pc` or
/// `mepc`, in whatever letters, is an instruction; any other is at best a return address.
fn code_addresses(line: &str) -> impl Iterator<Item = (u64, Frames)> {
    let mut name = "";
    line.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).filter_map(move |word| {
        let before = std::mem::replace(&mut name, word);
        let digits = word.strip_prefix("0x").or(Some(word).filter(|word| word.len() == 8))?;
        let address = u64::from_str_radix(digits, 16).ok()?;
        let is_code =
            (0x4200_0000..0x4280_0000).contains(&address) || (0x4037_c000..0x403e_0000).contains(&address);
        let exact = ["pc", "mepc"].iter().any(|register| before.eq_ignore_ascii_case(register));
        is_code.then_some((address, if exact { Frames::Exact } else { Frames::StackScan }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = "ESP-ROM:esp32c3-api1-20210207\r\nBuild:Feb  7 2021\r\nrst:0x15 (USB_UART_CHIP_RESET),boot:0xc \
                        (SPI_FAST_FLASH_BOOT)\r\nSaved PC:0x40381540\r\n";

    #[test]
    fn reset_cause_and_boot_mode_are_read() {
        let banner = Banner::last_in(BOOT).unwrap();
        assert_eq!(
            (banner.reset.as_str(), banner.mode.as_str()),
            ("USB_UART_CHIP_RESET", "SPI_FAST_FLASH_BOOT")
        );
        assert!(!banner.is_download());
    }

    #[test]
    fn a_start_without_power_or_by_a_watchdog_is_the_board_s_and_one_by_command_is_not() {
        for (reset, of_board) in [
            ("rst:0xf (BROWN_OUT_RST),boot:0xc (SPI_FAST_FLASH_BOOT)", true),
            ("rst:0x7 (TG0WDT_SYS_RST),boot:0xc (SPI_FAST_FLASH_BOOT)", true),
            ("rst:0x3 (RTC_SW_SYS_RST),boot:0xc (SPI_FAST_FLASH_BOOT)", false),
            ("rst:0x15 (USB_UART_CHIP_RESET),boot:0xc (SPI_FAST_FLASH_BOOT)", false),
        ] {
            assert_eq!(Banner::last_in(reset).unwrap().is_of_board(), of_board, "{reset}");
        }
    }

    #[test]
    fn a_board_that_waits_for_a_download_is_told() {
        let text = "rst:0x1 (POWERON),boot:0x4 (DOWNLOAD(USB/UART0/1))\r\nwaiting for download\r\n";
        let banner = Banner::last_in(text).unwrap();
        assert!(banner.is_download(), "{banner:?}");
        assert_eq!(banner.reset, "POWERON");
    }

    #[test]
    fn rom_log_and_crash_are_told_apart() {
        let mut sorter = Sorter::default();
        let lines = [
            ("rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)", Origin::Rom),
            ("I (31) boot: chip revision: v0.4", Origin::Rom),
            ("I (812) wifi:new:<6,0>", Origin::Log),
            ("Guru Meditation Error: Core  0 panic'ed (Load access fault)", Origin::Crash),
            ("MEPC    : 0x42012345  RA      : 0x42054321", Origin::Crash),
            ("ESP-ROM:esp32c3-api1-20210207", Origin::Rom),
            ("hello", Origin::Log),
        ];
        for (line, origin) in lines {
            assert_eq!(sorter.sort(line), origin, "{line}");
        }
    }

    #[test]
    fn an_empty_flash_is_told() {
        assert_eq!(invalid_header("x\r\ninvalid header: 0xffffffff\r\n"), Some("invalid header: 0xffffffff"));
        assert_eq!(invalid_header(BOOT), None);
    }

    #[test]
    fn only_addresses_of_code_are_looked_up() {
        let found: Vec<_> = code_addresses("MEPC: 0x42012345 SP: 0x3fc91230 40380010 0x12").collect();
        assert_eq!(found, [(0x4201_2345, Frames::Exact), (0x4038_0010, Frames::StackScan)]);
    }

    #[test]
    fn what_is_behind_pc_is_an_instruction_and_what_is_behind_ra_a_return_address() {
        for line in [
            "CRASH cause=load access fault mcause=0x5 pc=0x42012345 sp=0x3fc91230 ra=0x42054321 address=0x0",
            "MEPC    : 0x42012345  RA      : 0x42054321  SP      : 0x3fc91230",
        ] {
            let found: Vec<_> = code_addresses(line).collect();
            assert_eq!(found, [(0x4201_2345, Frames::Exact), (0x4205_4321, Frames::StackScan)], "{line}");
        }
    }
}
