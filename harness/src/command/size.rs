//! `harness size --board BOARD`.

use std::fmt::Write as _;

use serde_json::json;

use super::build::{Board, build_with_talk, image};
use super::{Exit, Failure, Format, print, talk};
use crate::firmware::build::{Firmware, workspace};
use crate::firmware::elf::Elf;
use crate::firmware::size::{Budgets, FirmwareBudget, Part, Sizes};
use crate::firmware::toolchain::Toolchain;

/// Arguments of `harness size`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The board whose firmware is measured; the client alone is measured with every RISC-V board.
    #[arg(long, value_enum, default_value = "qemu")]
    board: Board,
}

/// Rows of the crate table; the rest is summed.
const CRATE_ROWS: usize = 20;

struct Measured {
    name: &'static str,
    sizes: Sizes,
    budget: Option<FirmwareBudget>,
    application: Option<Application>,
    /// Ceiling of the client's state, where the firmware tells that.
    state_budget: u64,
}

/// An image that a second-stage bootloader loads: sections with headers, padded to pages.
#[derive(Clone, Copy)]
struct Application {
    len: u64,
    /// Room in its partition.
    partition: u64,
}

/// The proof of concept's application image and its partition (its article), in bytes.
const PROOF_OF_CONCEPT: (u64, u64) = (1_495_136, 1_740_800);

impl Measured {
    /// What the flash budget is held against: the image, where there is one.
    fn flash(&self) -> u64 {
        self.application.map_or(self.sizes.flash, |application| application.len)
    }

    fn within_budget(&self) -> bool {
        let state = self.state().is_none_or(|bytes| bytes <= self.state_budget);
        state
            && self.budget.as_ref().is_none_or(|budget| {
                self.flash() <= budget.flash
                    && budget.ram_static.is_none_or(|most| self.sizes.ram_static <= most)
                    && budget.stack_room.is_none_or(|least| self.sizes.stack_room >= least)
            })
    }

    fn state(&self) -> Option<u64> {
        self.sizes.states.iter().find(|part| part.name == "client").map(|part| part.bytes)
    }
}

/// Builds, measures and judges.
pub fn run(arguments: &Arguments, format: Format) -> Result<Exit, Failure> {
    let budgets = Budgets::read(&workspace().join("device/boards/budgets.toml"))
        .map_err(|error| Failure::environment(miette::Report::msg(error)))?;
    let mut all = Vec::new();
    for (name, firmware) in firmwares(arguments.board) {
        let path = build_with_talk(firmware)?;
        let measure = Elf::open(&path).and_then(|elf| Sizes::measure(&elf, ram(firmware)));
        let sizes = measure.map_err(|error| Failure::environment(miette::Report::msg(error)))?;
        let application = match firmware {
            Firmware::Esp32c3 => image(&path)?.application,
            _ => None,
        };
        let application = application.map(|(len, partition)| Application { len, partition });
        let budget = budgets.firmware.get(name).cloned();
        all.push(Measured { name, sizes, budget, application, state_budget: budgets.client.state });
    }
    print(&match format {
        Format::Human => human(&all),
        Format::Json => json_text(&all),
    });
    let passed = all.iter().all(Measured::within_budget);
    let remark = Toolchain::find().ok().and_then(|toolchain| toolchain.remark());
    if let Some(remark) = remark.filter(|_| !passed) {
        talk(remark);
    }
    Ok(Exit::from_verdict(passed))
}

fn firmwares(board: Board) -> Vec<(&'static str, Firmware)> {
    match board {
        Board::Qemu => vec![("client-only", Firmware::ClientOnly), ("qemu", Firmware::Qemu)],
        Board::Esp32c3 => vec![("esp32c3", Firmware::Esp32c3)],
    }
}

/// Addresses that are RAM (QEMU `virt`: board's `memory.x`; ESP32-C3 TRM 3.3: internal SRAM on both buses).
fn ram(firmware: Firmware) -> std::ops::Range<u64> {
    match firmware {
        Firmware::Qemu | Firmware::QemuStreams | Firmware::ClientOnly | Firmware::Cost => {
            crate::board::qemu::RAM
        }
        Firmware::Esp32c3 => crate::board::esp32c3::RAM,
    }
}

fn human(all: &[Measured]) -> String {
    let mut text = String::new();
    for measured in all {
        let Sizes { flash, ram_static, stack_room, sections, crates, layers, states } = &measured.sizes;
        let budget = measured.budget.as_ref();
        let judged =
            |bytes: u64| format!("{} B, {}", grouped(bytes), most(bytes, budget.map(|budget| budget.flash)));
        let _ = match measured.application {
            None => writeln!(text, "{}: flash {}", measured.name, judged(*flash)),
            Some(Application { len, partition }) => writeln!(
                text,
                "{}: application image {}; its partition holds {}\n  (the proof of concept's: {} B of {}); code, \
                 constants and data without padding {} B",
                measured.name,
                judged(len),
                grouped(partition),
                grouped(PROOF_OF_CONCEPT.0),
                grouped(PROOF_OF_CONCEPT.1),
                grouped(*flash)
            ),
        };
        let ram = most(*ram_static, budget.and_then(|budget| budget.ram_static));
        let _ = writeln!(text, "  static RAM {} B, {ram}", grouped(*ram_static));
        if let Some(room) = budget.and_then(|budget| budget.stack_room) {
            let verdict = if *stack_room >= room { "at least the" } else { "LESS than the" };
            let _ = writeln!(
                text,
                "  left for the main stack {} B, {verdict} {}",
                grouped(*stack_room),
                grouped(room)
            );
        }
        if let Some(bytes) = measured.state() {
            let verdict = if bytes <= measured.state_budget { "within" } else { "OVER" };
            let (bytes, budget) = (grouped(bytes), grouped(measured.state_budget));
            let _ = writeln!(
                text,
                "  the client's state, datagram buffer included: {bytes} B, {verdict} its budget of {budget}"
            );
        }
        let tables = [
            ("section", sections),
            ("crate (flash)", crates),
            ("layer (flash)", layers),
            ("client and parts (RAM, size_of)", states),
        ];
        for (title, parts) in tables.into_iter().filter(|(_, parts)| !parts.is_empty()) {
            table(&mut text, title, parts);
        }
        text.push('\n');
    }
    text
}

/// How `bytes` stand to a ceiling.
fn most(bytes: u64, budget: Option<u64>) -> String {
    match budget {
        Some(budget) if bytes <= budget => format!("within its budget of {}", grouped(budget)),
        Some(budget) => format!("OVER its budget of {} by {}", grouped(budget), grouped(bytes - budget)),
        None => "no budget".to_owned(),
    }
}

fn table(text: &mut String, title: &str, parts: &[Part]) {
    let _ = writeln!(text, "  {title:<40} {:>10}", "bytes");
    for part in parts.iter().take(CRATE_ROWS) {
        let _ = writeln!(text, "    {:<38} {:>10}", part.name, grouped(part.bytes));
    }
    if let Some(rest) = parts.get(CRATE_ROWS..).filter(|rest| !rest.is_empty()) {
        let sum = rest.iter().map(|part| part.bytes).sum();
        let _ = writeln!(text, "    {:<38} {:>10}", format!("({} more)", rest.len()), grouped(sum));
    }
}

/// A number with commas between its thousands.
pub(super) fn grouped(bytes: u64) -> String {
    let digits = bytes.to_string();
    let first = digits.len() % 3;
    let groups = (first > 0).then(|| &digits[..first]).into_iter();
    let rest = digits.as_bytes()[first..]
        .chunks(3)
        .map(|chunk| std::str::from_utf8(chunk).expect("digits are ASCII"));
    groups.chain(rest).collect::<Vec<_>>().join(",")
}

fn json_text(all: &[Measured]) -> String {
    let parts = |parts: &[Part]| {
        parts.iter().map(|part| json!({ "name": part.name, "bytes": part.bytes })).collect::<Vec<_>>()
    };
    let firmwares: Vec<_> = all
        .iter()
        .map(|measured| {
            json!({
                "firmware": measured.name,
                "flash_bytes": measured.sizes.flash,
                "flash_budget_bytes": measured.budget.as_ref().map(|budget| budget.flash),
                "application_bytes": measured.application.map(|application| application.len),
                "partition_bytes": measured.application.map(|application| application.partition),
                "stack_room_bytes": measured.sizes.stack_room,
                "ram_static_bytes": measured.sizes.ram_static,
                "passed": measured.within_budget(),
                "sections": parts(&measured.sizes.sections),
                "crates": parts(&measured.sizes.crates),
                "layers": parts(&measured.sizes.layers),
                "states": parts(&measured.sizes.states),
                "state_budget_bytes": measured.state_budget,
            })
        })
        .collect();
    format!("{:#}\n", json!(firmwares))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        for (bytes, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_495_136, "1,495,136")] {
            assert_eq!(grouped(bytes), text);
        }
    }

    fn measured(sizes: Sizes, application: Option<Application>) -> Measured {
        let budget = FirmwareBudget { flash: 200_000, ram_static: Some(1_000), stack_room: Some(500) };
        Measured { name: "client-only", sizes, budget: Some(budget), application, state_budget: 16_384 }
    }

    #[test]
    fn a_firmware_over_its_budget_fails_and_says_by_how_much() {
        let sizes = Sizes { flash: 200_001, stack_room: 500, ..Sizes::default() };
        let measured = measured(sizes, None);
        assert!(!measured.within_budget());
        assert!(human(&[measured]).contains("OVER its budget of 200,000 by 1"));
    }

    #[test]
    fn a_client_whose_state_is_over_its_budget_fails() {
        let state = Part { name: "client".into(), bytes: 16_385 };
        let sizes = Sizes { states: vec![state], ..Sizes::default() };
        let measured = measured(Sizes { stack_room: 500, ..sizes }, None);
        assert!(!measured.within_budget());
        assert!(human(&[measured]).contains("16,385 B, OVER its budget of 16,384"));
    }

    #[test]
    fn the_image_is_judged_where_there_is_one() {
        let sizes = Sizes { flash: 199_000, stack_room: 500, ..Sizes::default() };
        let image = |len| Some(Application { len, partition: 4_000_000 });
        assert!(measured(sizes.clone(), image(200_000)).within_budget());
        let over = measured(sizes, image(200_016));
        assert!(!over.within_budget());
        assert!(human(&[over]).contains("image 200,016 B, OVER its budget of 200,000 by 16"));
    }

    #[test]
    fn too_much_static_ram_or_too_little_stack_fails() {
        let fits = Sizes { flash: 1, ram_static: 1_000, stack_room: 500, ..Sizes::default() };
        assert!(measured(fits.clone(), None).within_budget());
        assert!(!measured(Sizes { ram_static: 1_001, ..fits.clone() }, None).within_budget());
        let cramped = measured(Sizes { stack_room: 499, ..fits }, None);
        assert!(!cramped.within_budget());
        assert!(human(&[cramped]).contains("left for the main stack 499 B, LESS than the 500"));
    }
}
