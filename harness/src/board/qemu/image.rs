//! The flash of QEMU's `virt` machine as a file.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use super::{REBUILD, start_error};
use crate::board::BoardError;
use crate::firmware::elf::Elf;

/// Where bank 0 appears.
const FLASH_BASE: u64 = 0x2000_0000;
/// Flash of the board's `memory.x`.
const FLASH_LEN: u64 = 4 << 20;
/// Size QEMU expects of a bank's file; sparse, so that it costs no disk.
const BANK_LEN: u64 = 32 << 20;

/// Writes `elf`'s flash contents to `path`.
pub(crate) fn write(elf: &Elf, path: &Path) -> Result<(), BoardError> {
    let image = elf
        .flash_image(FLASH_BASE, FLASH_LEN)
        .map_err(|error| start_error(error.to_string(), "see `harness size --board qemu`"))?;
    if image.is_empty() {
        return Err(start_error(format!("{} has nothing at {FLASH_BASE:#x}", elf.path().display()), REBUILD));
    }
    let written = File::create(path).and_then(|mut file| {
        file.write_all(&image)?;
        file.set_len(BANK_LEN)
    });
    written.map_err(|error| start_error(format!("cannot write {}: {error}", path.display()), "check $TMPDIR"))
}
