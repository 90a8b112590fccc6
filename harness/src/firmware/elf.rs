//! Reads a firmware ELF: its flash image, sections and symbols, and source lines for addresses.

use std::path::{Path, PathBuf};

use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SectionFlags, SymbolKind};

/// `SHF_ALLOC`: the section occupies memory at run time.
const SHF_ALLOC: u64 = 2;

/// An ELF file in memory.
pub struct Elf {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// What went wrong with an ELF file.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a firmware ELF.
    #[error(
        "{path} is not a 32-bit RISC-V ELF: {cause}\n  remedy: name the ELF that cargo built, not a raw image"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A segment lies outside the flash.
    #[error(
        "{path}: {len} bytes of flash are used, {room} are there\n  remedy: see `harness size` for what takes them"
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes the image needs.
        len: u64,
        /// Bytes the flash has.
        room: u64,
    },
}

/// A section that occupies memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Run-time address.
    pub address: u64,
    /// Bytes.
    pub len: u64,
    /// Whether its bytes are stored in the image (all but `.bss`, stack and heap).
    pub stored: bool,
}

/// A function or object with its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Demangled name.
    pub name: String,
    /// Address.
    pub address: u64,
    /// Bytes.
    pub len: u64,
}

impl Elf {
    /// Reads and checks `path`.
    ///
    /// # Errors
    /// [`ElfError::Read`], or [`ElfError::Format`] for anything but a 32-bit RISC-V ELF.
    pub fn open(path: &Path) -> Result<Self, ElfError> {
        let bytes = std::fs::read(path).map_err(|source| ElfError::Read { path: path.into(), source })?;
        let elf = Self { path: path.into(), bytes };
        let file = elf.file()?;
        if file.architecture() != object::Architecture::Riscv32 {
            return Err(elf.format(format!("its architecture is {:?}", file.architecture())));
        }
        Ok(elf)
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of the flash that starts at `base` and holds `room` bytes, as the image stores them.
    ///
    /// # Errors
    /// [`ElfError::TooLarge`] if a segment passes the end of the flash.
    pub fn flash_image(&self, base: u64, room: u64) -> Result<Vec<u8>, ElfError> {
        let object::File::Elf32(file) = self.file()? else {
            return Err(self.format("it is not ELF32".into()));
        };
        let mut image = Vec::new();
        for segment in file.segments() {
            let data = segment.data().map_err(|error| self.format(error.to_string()))?;
            // The load address: where `.data` waits in flash, not where it runs.
            let physical = u64::from(segment.elf_program_header().p_paddr.get(file.endian()));
            let Some(offset) = physical.checked_sub(base) else { continue };
            let end = offset + data.len() as u64;
            if data.is_empty() || offset >= room {
                continue;
            }
            if end > room {
                return Err(ElfError::TooLarge { path: self.path.clone(), len: end, room });
            }
            let (offset, end) = (offset as usize, end as usize);
            if image.len() < end {
                image.resize(end, 0);
            }
            image[offset..end].copy_from_slice(data);
        }
        Ok(image)
    }

    /// The sections that occupy memory, in file order.
    ///
    /// # Errors
    /// [`ElfError::Format`].
    pub fn sections(&self) -> Result<Vec<Section>, ElfError> {
        let file = self.file()?;
        let sections = file.sections().filter_map(|section| {
            let SectionFlags::Elf { sh_flags, .. } = section.flags() else { return None };
            (sh_flags.0 & SHF_ALLOC != 0 && section.size() > 0).then(|| Section {
                name: section.name().unwrap_or("?").to_owned(),
                address: section.address(),
                len: section.size(),
                stored: section.file_range().is_some(),
            })
        });
        Ok(sections.collect())
    }

    /// Functions and objects with a size, by address.
    ///
    /// # Errors
    /// [`ElfError::Format`].
    pub fn symbols(&self) -> Result<Vec<Symbol>, ElfError> {
        let file = self.file()?;
        let mut symbols: Vec<_> = file
            .symbols()
            .filter(|symbol| {
                symbol.size() > 0 && matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Data)
            })
            .map(|symbol| Symbol {
                name: format!("{:#}", rustc_demangle::demangle(symbol.name().unwrap_or("?"))),
                address: symbol.address(),
                len: symbol.size(),
            })
            .collect();
        symbols.sort_by_key(|symbol| (symbol.address, symbol.len));
        // Identical functions are folded to one address under several names; their bytes count once.
        symbols.dedup_by_key(|symbol| symbol.address);
        Ok(symbols)
    }

    /// Functions and source lines at `addresses`, one line of text per frame, inlined ones included.
    ///
    /// Of a stack scan, addresses that follow no call are left out.
    pub fn backtrace(&self, addresses: &[u64], frames: Frames) -> Vec<String> {
        let Ok(loader) = addr2line::Loader::new(&self.path) else {
            return addresses.iter().map(|address| format!("{address:#010x}")).collect();
        };
        let mut lines = Vec::new();
        for &address in addresses {
            if frames == Frames::StackScan && !self.follows_call(address) {
                continue;
            }
            // A return address names the instruction after the call: look one byte before.
            let probe = if frames == Frames::Exact { address } else { address - 1 };
            self.describe(&loader, address, probe, &mut lines);
        }
        lines
    }

    /// The first code address that comes from `line` of a source file whose path ends in `file`.
    pub fn address_of(&self, file: &str, line: u32) -> Option<u64> {
        let loader = addr2line::Loader::new(&self.path).ok()?;
        let code: Vec<Section> = self.sections().ok()?.into_iter().filter(|section| section.stored).collect();
        code.iter().find_map(|section| {
            let range = loader.find_location_range(section.address, section.address + section.len).ok()?;
            let here = |location: &addr2line::Location<'_>| {
                location.line == Some(line) && location.file.is_some_and(|path| path.ends_with(file))
            };
            range.into_iter().find(|(_, _, location)| here(location)).map(|(address, ..)| address)
        })
    }

    /// Adds a line for each frame at `probe`, shown as `address`.
    fn describe(&self, loader: &addr2line::Loader, address: u64, probe: u64, lines: &mut Vec<String>) {
        let before = lines.len();
        if let Ok(mut frames) = loader.find_frames(probe) {
            while let Ok(Some(frame)) = frames.next() {
                let name = frame
                    .function
                    .as_ref()
                    .and_then(|function| function.demangle().ok().map(|name| name.into_owned()));
                let place = frame.location.map(|location| {
                    format!("{}:{}", location.file.unwrap_or("?"), location.line.unwrap_or_default())
                });
                let name = name.unwrap_or_else(|| "?".to_owned());
                lines.push(format!("{address:#010x} {name} ({})", place.unwrap_or_else(|| "?".to_owned())));
            }
        }
        if lines.len() == before {
            let symbol = loader.find_symbol(probe);
            if symbol.is_some_and(is_millicode) {
                return;
            }
            // Code that the linker may shorten keeps the labels of its jumps: they tell nothing, the function around them does.
            let name = match symbol {
                Some(label) if label.starts_with(".L") => self.function_at(probe),
                symbol => symbol.map(|name| format!("{:#}", rustc_demangle::demangle(name))),
            };
            lines.push(format!("{address:#010x} {}", name.unwrap_or_else(|| "?".to_owned())));
        }
    }

    /// The function that `address` lies in.
    fn function_at(&self, address: u64) -> Option<String> {
        let symbols = self.symbols().ok()?;
        let around = symbols.into_iter().rfind(|symbol| symbol.address <= address)?;
        (address < around.address + around.len).then_some(around.name)
    }

    /// Whether the instruction before `address` is a call (`jal ra`, `jalr ra`, `c.jalr`, `c.jal`).
    fn follows_call(&self, address: u64) -> bool {
        let word = |len: u64| self.read(address.wrapping_sub(len), len as usize);
        let full = word(4).is_some_and(|bytes| {
            let instruction = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let (opcode, destination) = (instruction & 0x7f, instruction >> 7 & 0x1f);
            matches!(opcode, 0x6f | 0x67) && destination == 1
        });
        let short = word(2).is_some_and(|bytes| {
            let instruction = u16::from_le_bytes([bytes[0], bytes[1]]);
            let compressed_jalr = instruction & 0xf07f == 0x9002 && instruction & 0x0f80 != 0;
            let compressed_jal = instruction & 0xe003 == 0x2001;
            compressed_jalr || compressed_jal
        });
        full || short
    }

    fn read(&self, address: u64, len: usize) -> Option<Vec<u8>> {
        let file = self.file().ok()?;
        file.sections()
            .find_map(|section| section.data_range(address, len as u64).ok().flatten().map(<[u8]>::to_vec))
    }

    fn file(&self) -> Result<object::File<'_>, ElfError> {
        object::File::parse(&*self.bytes).map_err(|error| self.format(error.to_string()))
    }

    fn format(&self, cause: String) -> ElfError {
        ElfError::Format { path: self.path.clone(), cause }
    }
}

/// How the addresses of a backtrace were obtained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frames {
    /// The faulting instruction itself.
    Exact,
    /// Words of the stack that lie in code: only those after a call are return addresses.
    StackScan,
}

/// Whether a function is what compilers put in the place of a prologue or an epilogue (RISC-V ELF psABI, `-msave-restore`):
/// it tells nothing that its caller, next in line, does not.
fn is_millicode(symbol: &str) -> bool {
    symbol.starts_with("__riscv_save_") || symbol.starts_with("__riscv_restore_")
}
