//! `harness build --board BOARD`.

use std::path::Path;

use super::{Exit, Failure, print, talk};
use crate::board::esp32c3::image::{Image, Layout};
use crate::firmware::build::{self, BuildError, Firmware, Variation};
use crate::firmware::secrets;

/// Arguments of `harness build`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The board.
    #[arg(long, value_enum)]
    board: Board,
    /// Features of the firmware besides its usual ones, such as uart-console of the ESP32-C3.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    features: Vec<String>,
    /// Leave out the features it has by default.
    #[arg(long)]
    no_default_features: bool,
    /// Only find out whether it compiles, warnings being errors; no image is made.
    #[arg(long)]
    check: bool,
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

/// Builds and prints the ELF's path, and the image's where the board is flashed with one.
pub fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let firmware = arguments.board.firmware();
    let variation = Variation { features: arguments.features.clone(), bare: arguments.no_default_features };
    if arguments.check {
        build::check(firmware, &variation, talk).map_err(failed)?;
        return Ok(Exit::Passed);
    }
    let elf = build::build_variation(firmware, &variation, talk).map_err(failed)?;
    print(&format!("{}\n", elf.display()));
    if arguments.board == Board::Esp32c3 {
        let path = elf.with_extension("bin");
        std::fs::write(&path, merged(&image(&elf)?)).map_err(|error| {
            let text = format!("cannot write {}: {error}", path.display());
            Failure::environment(miette::Report::msg(text))
        })?;
        print(&format!("{}\n", path.display()));
    }
    Ok(Exit::Passed)
}

/// The flashable image of an ESP32-C3 firmware: bootloader, partition table, application. Checked: the application
/// fits its partition, and there is no secret in it.
pub fn image(elf: &Path) -> Result<Image, Failure> {
    let image = Image::open(elf, &Layout::default())
        .map_err(|fault| Failure::environment(miette::Report::new(fault)))?;
    for region in &image.regions {
        let variables = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        secrets::check(&region.bytes, variables)
            .map_err(|secret| Failure::environment(miette::Report::msg(secret.to_string())))?;
    }
    Ok(image)
}

/// All regions in one file for address 0; what lies between them is erased flash.
fn merged(image: &Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    for region in &image.regions {
        let start = region.address as usize;
        if bytes.len() < start + region.bytes.len() {
            bytes.resize(start + region.bytes.len(), 0xff);
        }
        bytes[start..start + region.bytes.len()].copy_from_slice(&region.bytes);
    }
    bytes
}

/// Builds `firmware`, cargo's lines going to stderr.
pub fn build_with_talk(firmware: Firmware) -> Result<std::path::PathBuf, Failure> {
    build::build(firmware, talk).map_err(failed)
}

fn failed(error: BuildError) -> Failure {
    Failure::environment(miette::Report::msg(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::esp32c3::image::Region;

    #[test]
    fn regions_lie_at_their_addresses_in_the_merged_image() {
        let region = |address, byte| Region { address, bytes: vec![byte; 4] };
        let image = Image {
            path: "fw".into(),
            regions: vec![region(8, 2), region(0, 1)],
            application: None,
            layout: Layout::default(),
        };
        assert_eq!(merged(&image), [1, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 2, 2, 2, 2]);
    }
}
