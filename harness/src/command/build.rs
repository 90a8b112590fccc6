//! `harness build --board BOARD`.

use super::{Exit, Failure, print, talk};
use crate::firmware::build::{self, Firmware};

/// Arguments of `harness build`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The board.
    #[arg(long, value_enum)]
    board: Board,
}

/// Boards with a firmware image of their own; the host board is part of the harness.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Board {
    /// The emulated RISC-V board.
    Qemu,
    /// The ESP32-C3.
    Esp32c3,
}

impl Board {
    /// The board's own firmware.
    pub fn firmware(self) -> Firmware {
        match self {
            Self::Qemu => Firmware::Qemu,
            Self::Esp32c3 => Firmware::Esp32c3,
        }
    }
}

/// Builds and prints the ELF's path.
pub fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let elf = build_with_talk(arguments.board.firmware())?;
    print(&format!("{}\n", elf.display()));
    Ok(Exit::Passed)
}

/// Builds `firmware`, cargo's lines going to stderr.
pub fn build_with_talk(firmware: Firmware) -> Result<std::path::PathBuf, Failure> {
    build::build(firmware, talk).map_err(|error| Failure::environment(miette::Report::msg(error)))
}
