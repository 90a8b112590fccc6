//! A firmware ELF made for a test: what a linker would leave of a small program for the ESP32-C3.

/// A section of the file to be.
struct Section {
    name: &'static str,
    address: u32,
    flags: u32,
    bytes: Vec<u8>,
}

/// Allocated, and allocated and executable.
const DATA: u32 = 2;
const CODE: u32 = 2 | 4;

/// An application with its descriptor, `code_len` bytes of code and some data for RAM; `seed` varies the contents.
pub fn application(code_len: usize, seed: u8) -> Vec<u8> {
    let mut descriptor = vec![0; 256];
    descriptor[..4].copy_from_slice(&0xabcd_5432u32.to_le_bytes());
    descriptor[48..52].copy_from_slice(b"test");
    write(&[
        Section { name: ".flash.appdesc", address: 0x3c00_0020, flags: DATA, bytes: descriptor },
        Section { name: ".rodata", address: 0x3c00_0120, flags: DATA, bytes: noise(3_001, seed) },
        Section { name: ".rwtext", address: 0x4038_0000, flags: CODE, bytes: noise(1_000, seed ^ 1) },
        Section { name: ".data", address: 0x3fc8_0400, flags: DATA | 1, bytes: noise(400, seed ^ 2) },
        Section { name: ".text", address: 0x4201_0020, flags: CODE, bytes: noise(code_len, seed ^ 3) },
    ])
}

/// Where [`with_functions`] has its code.
const CODE_START: u32 = 0x4201_0020;
/// In [`with_functions`]: an instruction of `read_register`, which no call comes before.
pub const FAULT: u32 = CODE_START + 0x24;
/// In [`with_functions`]: where `connect_to_broker` goes on after its call of `read_register`.
pub const RETURN: u32 = CODE_START + 12;

/// A program of two functions, the first of which calls the second, with their names and a label.
pub fn with_functions() -> Vec<u8> {
    const NOP: u32 = 0x0000_0013;
    let mut code = [NOP; 16];
    // `jal ra` from the third instruction to the ninth; `lw a0, 0(zero)`.
    (code[2], code[9]) = (12 << 21 | 0xef, 0x0000_2503);
    let bytes = code.iter().flat_map(|instruction| instruction.to_le_bytes()).collect();
    let text = Section { name: ".text", address: CODE_START, flags: CODE, bytes };
    write_with(
        &[text],
        &[
            // As a jump's target leaves one in code that the linker may shorten.
            (".L7", CODE_START + 0x24, 0),
            ("connect_to_broker", CODE_START, 0x20),
            ("read_register", CODE_START + 0x20, 0x20),
        ],
    )
}

/// A RISC-V ELF whose code lies where another board has its flash.
pub fn for_another_board() -> Vec<u8> {
    write(&[Section { name: ".text", address: 0x2000_0000, flags: CODE, bytes: noise(64, 9) }])
}

/// Bytes that do not compress and repeat for the same seed.
fn noise(len: usize, seed: u8) -> Vec<u8> {
    let mut state = 0x9e37_79b9u32 ^ u32::from(seed) << 8;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// An ELF without symbols.
fn write(sections: &[Section]) -> Vec<u8> {
    write_with(sections, &[])
}

/// Header, contents, names, section headers; no segments. A symbol is a function's name, address and length, or a label's, which has
/// no length and comes before all functions.
fn write_with(sections: &[Section], symbols: &[(&str, u32, u32)]) -> Vec<u8> {
    const HEADER: usize = 52;
    const PROGBITS: u32 = 1;
    let mut table = Table { file: vec![0; HEADER], names: vec![0], headers: vec![0; 40], count: 1 };
    for section in sections {
        table.add(section.name, [PROGBITS, section.flags, section.address], [0, 0, 4, 0], &section.bytes);
    }
    if !symbols.is_empty() {
        let (mut entries, mut strings) = (vec![0; 16], vec![0]);
        for (name, address, len) in symbols {
            let words = [strings.len() as u32, *address, *len];
            entries.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            // A global function, or a local label, of the first section.
            entries.extend([if *len > 0 { 0x12 } else { 0 }, 0, 1, 0]);
            strings.extend_from_slice(name.as_bytes());
            strings.push(0);
        }
        let strings_index = table.count + 1;
        let first_global = 1 + symbols.iter().filter(|(_, _, len)| *len == 0).count() as u32;
        table.add(".symtab", [2, 0, 0], [strings_index, first_global, 4, 16], &entries);
        table.add(".strtab", [3, 0, 0], [0, 0, 1, 0], &strings);
    }
    table.finish(sections.last().map_or(0, |section| section.address))
}

/// A file in the making.
struct Table {
    file: Vec<u8>,
    names: Vec<u8>,
    headers: Vec<u8>,
    count: u32,
}

impl Table {
    /// A section: kind, flags and address; link, information, alignment and entry size; contents.
    fn add(&mut self, name: &str, what: [u32; 3], how: [u32; 4], bytes: &[u8]) {
        self.file.resize(self.file.len().next_multiple_of(4), 0);
        let place = [self.file.len() as u32, bytes.len() as u32];
        self.file.extend_from_slice(bytes);
        let name_at = [self.names.len() as u32];
        let words = name_at.iter().chain(&what).chain(&place).chain(&how);
        self.headers.extend(words.flat_map(|word| word.to_le_bytes()));
        self.names.extend_from_slice(name.as_bytes());
        self.names.push(0);
        self.count += 1;
    }

    fn finish(mut self, entry: u32) -> Vec<u8> {
        // The names' own section comes last, with its own name among them.
        let names = [&self.names[..], b".shstrtab\0"].concat();
        self.add(".shstrtab", [3, 0, 0], [0, 0, 1, 0], &names);
        let Self { mut file, headers, count, .. } = self;
        file.resize(file.len().next_multiple_of(4), 0);
        let table = file.len() as u32;
        file.extend_from_slice(&headers);
        file[..16].copy_from_slice(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0");
        // Executable, RISC-V, version 1.
        file[16..24].copy_from_slice(&[2, 0, 243, 0, 1, 0, 0, 0]);
        file[24..28].copy_from_slice(&entry.to_le_bytes());
        file[32..36].copy_from_slice(&table.to_le_bytes());
        let count = count as u16;
        for (at, value) in [(40, 52), (46, 40), (48, count), (50, count - 1)] {
            file[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        file
    }
}
