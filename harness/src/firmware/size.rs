//! What takes flash and RAM: sections, crates and layers of a firmware, held against its budgets.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::elf::{Elf, ElfError, Section, Symbol};

/// Sizes of one firmware. Bytes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Sizes {
    /// Everything stored in flash: code, constants, initial values.
    pub flash: u64,
    /// `.data` and `.bss`.
    pub ram_static: u64,
    /// RAM that linking left for the main stack: what no section takes.
    pub stack_room: u64,
    /// Sections that occupy memory.
    pub sections: Vec<Part>,
    /// Flash by crate; what has no symbol (strings, tables, padding) is one part of its own.
    pub crates: Vec<Part>,
    /// Flash of crate `device` by module.
    pub layers: Vec<Part>,
    /// The client and its parts in RAM, in a program that has markers for them.
    pub states: Vec<Part>,
}

/// One row of a size table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Section, crate or module.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
}

/// How the names of statics begin whose only purpose is to tell the size of a type on the target.
const SIZE_MARKER: &str = "SIZE_OF_";

/// The name under which flash without a symbol is listed.
pub const UNATTRIBUTED: &str = "(constants and padding)";

/// The section in which linker scripts reserve the rest of RAM for the main stack.
const STACK: &str = ".stack";
/// Sections that linker scripts reserve without content: riscv-rt's stack and heap, esp-hal's dummies.
const RESERVATIONS: [&str; 6] = [STACK, ".heap", ".uninit", ".rotext_dummy", ".rwdata_dummy", ".text.dummy"];

impl Sizes {
    /// Measures `elf`; addresses in `ram` are RAM, all others flash.
    ///
    /// # Errors
    /// [`ElfError`], if the file cannot be read as a firmware.
    pub fn measure(elf: &Elf, ram: std::ops::Range<u64>) -> Result<Self, ElfError> {
        let all = elf.sections()?;
        let stack_room = all.iter().filter(|section| section.name == STACK).map(|section| section.len).sum();
        let sections: Vec<Section> =
            all.into_iter().filter(|section| !RESERVATIONS.contains(&section.name.as_str())).collect();
        let stored = |section: &&Section| section.stored;
        let flash: u64 = sections.iter().filter(stored).map(|section| section.len).sum();
        let ram_static: u64 =
            sections.iter().filter(|section| ram.contains(&section.address)).map(|section| section.len).sum();

        let in_flash = |symbol: &Symbol| {
            let holds = |section: &&Section| {
                (section.address..section.address + section.len).contains(&symbol.address)
            };
            sections.iter().filter(stored).any(|section| holds(&section))
        };
        let (mut crates, mut layers) = (BTreeMap::new(), BTreeMap::new());
        let mut attributed = 0;
        let symbols = elf.symbols()?;
        let states: Vec<_> = symbols.iter().filter_map(state).collect();
        let markers: u64 = states.iter().map(|state| state.bytes).sum();
        for symbol in symbols.iter().filter(|symbol| in_flash(symbol)) {
            let (owner, module) = owner(&symbol.name);
            attributed += symbol.len;
            *crates.entry(owner.clone()).or_default() += symbol.len;
            if owner == "device" {
                *layers.entry(format!("device::{module}")).or_default() += symbol.len;
            }
        }
        crates.insert(UNATTRIBUTED.to_owned(), flash.saturating_sub(attributed));
        Ok(Self {
            flash,
            ram_static: ram_static.saturating_sub(markers),
            stack_room,
            states,
            sections: sections
                .into_iter()
                .map(|section| Part { name: section.name, bytes: section.len })
                .collect(),
            crates: largest_first(crates),
            layers: largest_first(layers),
        })
    }
}

fn largest_first(parts: BTreeMap<String, u64>) -> Vec<Part> {
    let mut parts: Vec<_> = parts.into_iter().map(|(name, bytes)| Part { name, bytes }).collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    parts
}

/// What a marker tells: `SIZE_OF_TLS_HANDSHAKE` the size of the `tls handshake`.
fn state(symbol: &Symbol) -> Option<Part> {
    let name = symbol.name.rsplit("::").next()?.strip_prefix(SIZE_MARKER)?;
    Some(Part { name: name.to_ascii_lowercase().replace('_', " "), bytes: symbol.len })
}

/// The crate that a symbol's code comes from, and the module below it.
///
/// `<device::tls::Handshake<C> as core::fmt::Debug>::fmt` belongs to `device`, module `tls`: the first path of a
/// qualified name is the type that the code was written for.
fn owner(symbol: &str) -> (String, String) {
    let path = symbol
        .trim_start_matches(['<', '&', '*', '(', '['])
        .trim_start_matches("mut ")
        .trim_start_matches("dyn ");
    let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(path.len());
    let mut parts = path[..end].split("::").filter(|part| !part.is_empty());
    match (parts.next(), parts.next()) {
        (Some(owner), Some(module)) => (owner.to_owned(), module.to_owned()),
        // Compiler intrinsics and libc-like functions have no path.
        _ => ("(intrinsics)".to_owned(), String::new()),
    }
}

/// Ceilings from `device/boards/budgets.toml`. Bytes.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// Firmware by name: `qemu`, `client-only`, `esp32c3`.
    pub firmware: BTreeMap<String, FirmwareBudget>,
    /// The client's state in RAM, and what it sends.
    pub client: ClientBudget,
    /// What the client computes.
    pub instructions: InstructionBudget,
}

/// Ceilings of the client on RV32IMC, in instructions.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct InstructionBudget {
    /// A full handshake, leaf <- intermediate <- root P-256 verified, the first Initial included.
    pub handshake: u64,
    /// The same in percent of its public-key operations.
    pub handshake_percent: u64,
    /// From the end of the handshake to CONNACK.
    pub connect: u64,
    /// A 64 B message, sent.
    pub publish_qos0: u64,
    /// A 64 B message, acknowledged.
    pub publish_qos1: u64,
}

/// Ceilings of one firmware. Bytes.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct FirmwareBudget {
    /// Flash image.
    pub flash: u64,
    /// Data, bss, code in RAM, and heap.
    pub ram_static: Option<u64>,
    /// Least room for the main stack.
    pub stack_room: Option<u64>,
}

/// Ceilings of the client wherever it runs. Bytes.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ClientBudget {
    /// State with all buffers of one connection with one stream.
    pub state: u64,
    /// Stack high-water of a full handshake.
    pub stack: u64,
    /// State, stack and all.
    pub ram: u64,
    /// UDP payload that the client sends up to CONNACK.
    pub bytes_to_connack: u64,
}

impl Budgets {
    /// Reads the budgets file.
    ///
    /// # Errors
    /// The file and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_belongs_to_the_type_it_was_written_for() {
        let cases = [
            ("device::quic::Connection<C>::poll", "device", "quic"),
            ("<device::tls::Handshake<C> as core::fmt::Debug>::fmt", "device", "tls"),
            ("<&mut device::mqtt::Session as core::fmt::Write>::write_str", "device", "mqtt"),
            ("core::slice::index::slice_end_index_len_fail", "core", "slice"),
        ];
        for (symbol, owner_crate, module) in cases {
            assert_eq!(owner(symbol), (owner_crate.to_owned(), module.to_owned()), "{symbol}");
        }
    }

    #[test]
    fn a_marker_tells_the_size_of_its_type() {
        let symbol = |name: &str| Symbol { name: name.into(), address: 0, len: 7 };
        let part = state(&symbol("client_only::SIZE_OF_TLS_HANDSHAKE"));
        assert_eq!(part, Some(Part { name: "tls handshake".into(), bytes: 7 }));
        assert_eq!(state(&symbol("client_only::main")), None);
    }

    #[test]
    fn a_function_without_a_path_is_an_intrinsic() {
        assert_eq!(owner("memcpy").0, "(intrinsics)");
    }

    #[test]
    fn the_budgets_in_the_tree_parse() {
        let path = crate::firmware::build::workspace().join("device/boards/budgets.toml");
        let budgets = Budgets::read(&path).expect("the committed file is valid");
        assert!(budgets.client.state <= 16 * 1024);
        assert!(budgets.firmware.contains_key("client-only"));
    }
}
