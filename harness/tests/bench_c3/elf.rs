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

/// Header, contents, names, section headers; no symbols, no segments.
fn write(sections: &[Section]) -> Vec<u8> {
    const HEADER: usize = 52;
    let mut file = vec![0; HEADER];
    let (mut names, mut headers) = (vec![0u8], vec![0u8; 40]);
    let mut add = |file: &mut Vec<u8>, name: &str, kind: u32, flags: u32, address: u32, bytes: &[u8]| {
        file.resize(file.len().next_multiple_of(4), 0);
        let offset = file.len() as u32;
        file.extend_from_slice(bytes);
        let words = [names.len() as u32, kind, flags, address, offset, bytes.len() as u32, 0, 0, 4, 0];
        headers.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        names.extend_from_slice(name.as_bytes());
        names.push(0);
    };
    for section in sections {
        add(&mut file, section.name, 1, section.flags, section.address, &section.bytes);
    }
    // The names' own section comes last, with its own name among them.
    let all: Vec<u8> = sections
        .iter()
        .map(|section| section.name)
        .chain([".shstrtab"])
        .flat_map(|name| name.bytes().chain([0]))
        .collect();
    let all = [&[0u8][..], &all].concat();
    add(&mut file, ".shstrtab", 3, 0, 0, &all);
    file.resize(file.len().next_multiple_of(4), 0);
    let table = file.len() as u32;
    file.extend_from_slice(&headers);

    let count = sections.len() as u16 + 2;
    file[..16].copy_from_slice(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0");
    // Executable, RISC-V, version 1.
    file[16..24].copy_from_slice(&[2, 0, 243, 0, 1, 0, 0, 0]);
    file[24..28].copy_from_slice(&sections.last().map_or(0, |section| section.address).to_le_bytes());
    file[32..36].copy_from_slice(&table.to_le_bytes());
    for (at, value) in [(40, HEADER as u16), (46, 40), (48, count), (50, count - 1)] {
        file[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    file
}
