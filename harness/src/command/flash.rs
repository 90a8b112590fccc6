//! `harness flash --board esp32c3`: writes a firmware to a tethered board.

use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::build::build_with_talk;
use super::interrupt::undo_when_interrupted;
use super::tethered::{Which, failure, note};
use super::{Exit, Failure, Format, print, seconds, talk};
use crate::board::esp32c3::Fault;
use crate::board::esp32c3::choose::Chosen;
use crate::board::esp32c3::flash::{self, Flashed, Loader, Options, Same, Step};
use crate::board::esp32c3::history::What;
use crate::board::esp32c3::image::{Image, Layout};
use crate::board::esp32c3::port::BAUD;
use crate::firmware::build::Firmware;

/// Arguments of `harness flash`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The board.
    #[arg(long, value_enum)]
    board: Board,
    #[command(flatten)]
    which: Which,
    /// An ELF, or an image (.bin) that the chip boots; without it this project's firmware is built.
    #[arg(long, value_name = "FILE")]
    firmware: Option<PathBuf>,
    /// Where an image (.bin) goes: 0 for a merged one, 0x10000 for an application alone.
    #[arg(long, value_name = "ADDRESS", default_value = "0", value_parser = address)]
    address: u32,
    /// Partition table, CSV or binary, in place of the usual one.
    #[arg(long, value_name = "FILE")]
    partition_table: Option<PathBuf>,
    /// Second-stage bootloader in place of espflash's.
    #[arg(long, value_name = "FILE")]
    bootloader: Option<PathBuf>,
    /// Write what is there already, too.
    #[arg(long)]
    force: bool,
    /// What carries out the loader's commands.
    #[arg(long, value_enum, default_value_t = Loader::Stub)]
    loader: Loader,
    /// Speed over a USB-UART bridge.
    #[arg(long, default_value_t = BAUD)]
    baud: u32,
    /// Seconds that all of it may take.
    #[arg(long, value_name = "SECONDS", default_value_t = flash::LIMIT.as_secs(), value_parser = seconds())]
    limit: u64,
}

/// Boards that are flashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Board {
    /// The ESP32-C3.
    Esp32c3,
}

/// Writes the firmware and tells what was written.
pub fn run(arguments: &Arguments, format: Format) -> Result<Exit, Failure> {
    let Board::Esp32c3 = arguments.board;
    undo_when_interrupted()?;
    let file = match &arguments.firmware {
        Some(file) => file.clone(),
        None => build_with_talk(Firmware::Esp32c3)?,
    };
    let layout = Layout {
        partition_table: arguments.partition_table.clone(),
        bootloader: arguments.bootloader.clone(),
        address: arguments.address,
    };
    let image = Image::open(&file, &layout).map_err(failure)?;
    check_layout(arguments, &image)?;
    let chosen = arguments.which.choose()?;
    let options = Options {
        loader: arguments.loader,
        same: if arguments.force { Same::Write } else { Same::Skip },
        baud: arguments.baud,
        limit: Duration::from_secs(arguments.limit),
        means: chosen.means(),
    };
    let flashed = write(&chosen, &image, &options)?;
    print(&match format {
        Format::Human => human(&chosen, &flashed),
        Format::Json => {
            let port = chosen.found.port.display().to_string();
            format!(
                "{:#}\n",
                json!({ "port": port, "firmware": file.display().to_string(), "flashed": flashed })
            )
        }
    });
    Ok(Exit::Passed)
}

/// That no option was given that the file leaves without effect.
fn check_layout(arguments: &Arguments, image: &Image) -> Result<(), Failure> {
    let ready = image.application.is_none();
    let (kind, other, options) = if ready {
        let given = [arguments.partition_table.is_some(), arguments.bootloader.is_some()];
        ("a ready image", "ELF", [("--partition-table", given[0]), ("--bootloader", given[1])])
    } else {
        ("an ELF", "image (.bin)", [("--address", arguments.address != 0), ("--address", false)])
    };
    match options.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((option, _)) => Err(Failure::usage(miette::miette!(
            help = format!("leave it out, or name the firmware's {other}"),
            "{option} has no effect on {kind}, which {} is",
            image.path.display()
        ))),
    }
}

/// Flashes with progress on stderr, and notes it in the board's history.
pub fn write(chosen: &Chosen, image: &Image, options: &Options) -> Result<Flashed, Failure> {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent} %").expect("a fixed template");
    bar.set_style(style);
    let product = chosen.found.usb.as_ref().map(|usb| usb.product);
    let flashed = flash::flash(&chosen.found.port, product, image, options, |step| show(&bar, &step));
    bar.finish_and_clear();
    let id = chosen.id();
    match flashed {
        Ok(flashed) => {
            let (chip, flash) = (flashed.chip.name(), flashed.chip.flash.clone());
            note(&id, What::Probe { chip, flash }, None);
            note(&id, What::Flash, None);
            Ok(flashed)
        }
        Err(fault) => {
            // Somebody who gives it less time than usual learns nothing of the board.
            let hurried = matches!(fault, Fault::TimeLimit { .. }) && options.limit < flash::LIMIT;
            if let Some(told) = fault.of_board().filter(|_| !hurried) {
                note(&id, What::Flash, Some(told));
            }
            Err(failure(fault))
        }
    }
}

fn show(bar: &ProgressBar, step: &Step) {
    match step {
        Step::Chip(chip) => talk(&format!("{}, {} of flash", chip.name(), chip.flash)),
        Step::Region { address, len } => {
            bar.reset();
            bar.set_message(format!("{address:#x} ({len} B)"));
        }
        Step::Progress { done, of } => {
            bar.set_length(*of as u64);
            bar.set_position(*done as u64);
        }
        Step::Verifying => bar.set_message("verifying"),
        Step::Done { .. } => {}
        Step::Recovery(attempt) => talk(&format!("recovery: {attempt}")),
    }
}

fn human(chosen: &Chosen, flashed: &Flashed) -> String {
    let mut text = format!("{} on {}: ", flashed.chip.name(), chosen.found.port.display());
    text.push_str(&match (flashed.written, flashed.skipped) {
        (0, skipped) => format!("{skipped} B are there already, nothing was written\n"),
        (written, 0) => format!("{written} B written and verified\n"),
        (written, skipped) => format!("{written} B written and verified, {skipped} B were there already\n"),
    });
    if let Some((len, room)) = flashed.application {
        text.push_str(&format!("application: {len} of {room} B\n"));
    }
    text
}

fn address(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    let address = parsed.map_err(|_| format!("`{text}` is no address such as 0x10000"))?;
    if address % 4096 == 0 {
        Ok(address)
    } else {
        Err(format!("{text} is no multiple of 4096, a flash sector"))
    }
}
