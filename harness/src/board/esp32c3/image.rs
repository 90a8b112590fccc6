//! What is written to a board's flash: bootloader, partition table and application, or a ready image.

use std::path::{Path, PathBuf};

use espflash::flasher::{FlashData, FlashSettings, FlashSize};
use espflash::image_format::idf::{IdfBootloaderFormat, check_idf_bootloader};
use espflash::target::{Chip, XtalFrequency};

use super::Fault;
use crate::firmware::elf::Elf;

/// Where the C3 sees its flash, code and data.
const FLASH_WINDOWS: [std::ops::Range<u64>; 2] = [0x3c00_0000..0x3c80_0000, 0x4200_0000..0x4280_0000];
/// First byte of an image that the ROM or the bootloader loads.
const IMAGE_MAGIC: u8 = 0xe9;
/// Where such an image names its chip, and the C3's number.
const CHIP_ID: (usize, u16) = (12, 5);
/// What the descriptor of an application begins with, and where: behind the headers of the image and of its first segment.
const DESCRIPTOR: (usize, u32) = (32, 0xabcd_5432);
/// Where the header of the first segment tells its address.
const FIRST_SEGMENT: usize = 24;
/// Flash of the usual modules: what an image is made for until its chip is asked.
const FLASH_SIZE: FlashSize = FlashSize::_4Mb;

/// Bytes for the flash, each region at its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The file it was made from.
    pub path: PathBuf,
    /// What goes where.
    pub regions: Vec<Region>,
    /// Length of the application, and of the room its partition has; `None` for a ready image.
    pub application: Option<(u64, u64)>,
    /// How it was made.
    pub layout: Layout,
}

/// Bytes at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where in flash.
    pub address: u32,
    /// What.
    pub bytes: Vec<u8>,
}

/// How an image is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// A partition table (CSV or binary) in place of the usual one.
    pub partition_table: Option<PathBuf>,
    /// A second-stage bootloader in place of the one that comes with espflash.
    pub bootloader: Option<PathBuf>,
    /// Where a ready image goes.
    pub address: u32,
}

impl Image {
    /// Makes the image of `path`: of an ELF with bootloader and partition table, or of a ready `.bin`.
    ///
    /// # Errors
    /// [`Fault::WrongElf`] or [`Fault::TooLarge`].
    pub fn open(path: &Path, layout: &Layout) -> Result<Self, Fault> {
        Self::sized(path, layout, FLASH_SIZE)
    }

    /// The same for a chip with so much flash: one with less wants a smaller partition, or has no room.
    ///
    /// # Errors
    /// As [`Image::open`].
    pub fn fitting(&self, flash: FlashSize) -> Result<Self, Fault> {
        if flash.size() < FLASH_SIZE.size() {
            return Self::sized(&self.path, &self.layout, flash);
        }
        Ok(self.clone())
    }

    fn sized(path: &Path, layout: &Layout, flash: FlashSize) -> Result<Self, Fault> {
        let wrong = |cause: String| Fault::WrongElf { path: path.into(), cause };
        let bytes = std::fs::read(path).map_err(|error| wrong(format!("it cannot be read: {error}")))?;
        match bytes.first() {
            None => Err(wrong("it is empty".to_owned())),
            Some(&IMAGE_MAGIC) => Self::ready(path, bytes, layout, flash),
            Some(_) if bytes.starts_with(b"\x7fELF") => Self::of_elf(path, &bytes, layout, flash),
            Some(_) => Err(wrong("it is neither an ELF nor an image that the chip boots".to_owned())),
        }
    }

    /// A ready image: an application, or everything merged into one file.
    fn ready(path: &Path, bytes: Vec<u8>, layout: &Layout, flash: FlashSize) -> Result<Self, Fault> {
        let address = layout.address;
        let wrong = |cause: String| Fault::WrongElf { path: path.into(), cause };
        let id = bytes.get(CHIP_ID.0..CHIP_ID.0 + 2).map(|id| u16::from_le_bytes([id[0], id[1]]));
        match id {
            None => return Err(wrong("it is shorter than an image's header".to_owned())),
            Some(id) if id != CHIP_ID.1 => {
                let name =
                    Chip::try_from(id).map_or_else(|_| format!("chip number {id}"), |chip| chip.to_string());
                return Err(wrong(format!("it is for the {name}")));
            }
            Some(_) => {}
        }
        if address == 0 && is_application(&bytes) {
            return Err(Fault::ApplicationAlone { path: path.into() });
        }
        let (end, room) = (u64::from(address) + bytes.len() as u64, u64::from(flash.size()));
        if end > room {
            return Err(Fault::TooLarge { path: path.into(), len: end, room });
        }
        let layout = layout.clone();
        Ok(Self { path: path.into(), regions: vec![Region { address, bytes }], application: None, layout })
    }

    fn of_elf(path: &Path, bytes: &Vec<u8>, layout: &Layout, flash: FlashSize) -> Result<Self, Fault> {
        let wrong = |cause: String| Fault::WrongElf { path: path.into(), cause };
        let elf = Elf::open(path).map_err(|error| wrong(first_line(&error.to_string())))?;
        let sections = elf.sections().map_err(|error| wrong(first_line(&error.to_string())))?;
        let mapped = |address: u64| FLASH_WINDOWS.iter().any(|window| window.contains(&address));
        if !sections.iter().any(|section| section.stored && mapped(section.address)) {
            let at = sections.iter().find(|section| section.stored).map_or(0, |section| section.address);
            return Err(wrong(format!("nothing in it lies in the chip's flash; its code is at {at:#x}")));
        }
        check_idf_bootloader(bytes).map_err(|_| {
            wrong("it has no application descriptor, which the bootloader asks for".to_owned())
        })?;
        let settings = FlashSettings::new(None, Some(flash), None);
        let data = FlashData::new(settings, 0, None, Chip::Esp32c3, XtalFrequency::_40Mhz);
        let (table, bootloader) = (layout.partition_table.as_deref(), layout.bootloader.as_deref());
        let format = IdfBootloaderFormat::new(bytes, &data, table, bootloader, None, None);
        let format = format.map_err(|error| match error {
            espflash::Error::ElfTooBig(len, room) => {
                Fault::TooLarge { path: path.into(), len: len.into(), room: room.into() }
            }
            other => wrong(chain(&other)),
        })?;
        let number = |key: &str| format.metadata().get(key).and_then(|text| text.parse().ok());
        let application = number("app_size").zip(number("part_size"));
        let regions = format
            .flash_segments()
            .map(|segment| Region { address: segment.addr, bytes: padded(segment.data().to_vec()) })
            .collect();
        Ok(Self { path: path.into(), regions, application, layout: layout.clone() })
    }

    /// Bytes of all regions.
    pub fn len(&self) -> usize {
        self.regions.iter().map(|region| region.bytes.len()).sum()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether an image is what a bootloader starts, and no bootloader, which lies in RAM alone.
fn is_application(bytes: &[u8]) -> bool {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let mapped = |address: u32| FLASH_WINDOWS.iter().any(|window| window.contains(&u64::from(address)));
    word(DESCRIPTOR.0) == Some(DESCRIPTOR.1) || word(FIRST_SEGMENT).is_some_and(mapped)
}

/// The loader writes whole words.
fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(4), 0xff);
    bytes
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(bytes: &[u8]) -> Result<Image, Fault> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Image::open(file.path(), &Layout::default())
    }

    fn ready(chip: u16, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        bytes[0] = IMAGE_MAGIC;
        bytes[12..14].copy_from_slice(&chip.to_le_bytes());
        bytes
    }

    #[test]
    fn a_ready_image_is_written_as_it_is() {
        let bytes = ready(5, 4096);
        let image = open(&bytes).unwrap();
        assert_eq!(image.regions, [Region { address: 0, bytes }]);
    }

    #[test]
    fn an_image_for_another_chip_is_named() {
        let fault = open(&ready(9, 4096)).unwrap_err();
        assert!(fault.to_string().contains("esp32s3"), "{fault}");
    }

    #[test]
    fn what_is_no_firmware_is_named() {
        for (bytes, part) in [
            (&b""[..], "empty"),
            (b"hello", "neither an ELF nor an image"),
            (b"\x7fELF\x02\x01\x01\0", "no firmware for the ESP32-C3"),
            (b"\xe9\x01", "shorter"),
        ] {
            let fault = open(bytes).unwrap_err();
            assert!(matches!(fault, Fault::WrongElf { .. }) && fault.to_string().contains(part), "{fault}");
        }
    }

    #[test]
    fn an_application_alone_does_not_go_where_the_bootloader_lies() {
        let (mut described, mut mapped) = (ready(5, 4096), ready(5, 4096));
        described[32..36].copy_from_slice(&0xabcd_5432_u32.to_le_bytes());
        mapped[24..28].copy_from_slice(&0x3c03_0020_u32.to_le_bytes());
        for bytes in [described, mapped] {
            let fault = open(&bytes).unwrap_err();
            assert!(matches!(fault, Fault::ApplicationAlone { .. }), "{fault}");
            assert!(fault.remedy().contains("--address 0x10000"), "{}", fault.remedy());
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &bytes).unwrap();
            let image = Image::open(file.path(), &Layout { address: 0x10000, ..Layout::default() }).unwrap();
            assert_eq!(image.regions, [Region { address: 0x10000, bytes }]);
        }
    }

    #[test]
    fn an_image_larger_than_the_flash_is_named_with_both_sizes() {
        let fault = open(&ready(5, (4 << 20) + 4)).unwrap_err();
        assert!(matches!(fault, Fault::TooLarge { len: 4_194_308, room: 4_194_304, .. }), "{fault}");
    }
}
