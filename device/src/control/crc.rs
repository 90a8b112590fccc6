/// CRC-32 (IEEE 802.3), as in Ethernet, zlib and PNG, one byte at a time.
///
/// Four bits a step: a 64-byte table where the byte-wise one takes 1 KiB of a microcontroller's flash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crc32(u32);

impl Crc32 {
    /// The checksum of nothing yet.
    pub(super) const fn new() -> Self {
        Self(!0)
    }

    /// Takes in one byte.
    pub(super) fn push(&mut self, byte: u8) {
        let crc = self.0 ^ u32::from(byte);
        let crc = (crc >> 4) ^ TABLE[(crc & 0xf) as usize];
        self.0 = (crc >> 4) ^ TABLE[(crc & 0xf) as usize];
    }

    /// The checksum of what was pushed.
    pub(super) const fn value(self) -> u32 {
        !self.0
    }
}

/// CRC-32 (IEEE 802.3) of `bytes`.
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc32::new();
    bytes.iter().for_each(|&byte| crc.push(byte));
    crc.value()
}

/// The reflected polynomial 0xedb88320, applied four times to each nibble.
const TABLE: [u32; 16] = {
    let mut table = [0; 16];
    let mut nibble = 0;
    while nibble < 16 {
        let mut crc = nibble as u32;
        let mut bit = 0;
        while bit < 4 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[nibble] = crc;
        nibble += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_crc_32_matches() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }
}
