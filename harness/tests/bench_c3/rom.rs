//! The serial loader of an ESP32-C3's ROM, and of the stub that espflash loads into its RAM, as far as flashing needs it
//! (Espressif, "Serial Protocol" in the esptool documentation).
//!
//! ```text
//! request   C0  00 op  length(2)  checksum(4)  data                    C0     escaped by SLIP
//! response  C0  01 op  length(2)  value(4)     data  status(4 or 2)    C0     4 status bytes: ROM, 2: stub
//! ```

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use flate2::write::ZlibDecoder;
use harness::board::esp32c3::image::{Image, Layout};
use md5::{Digest as _, Md5};

use super::pty::Pty;

/// Flash of the emulated module.
pub const FLASH_LEN: usize = 4 << 20;

/// What goes wrong on purpose.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Flaw {
    /// Nothing.
    #[default]
    None,
    /// One bit of everything written sticks.
    StuckBit,
    /// The port goes away once so many bytes are written.
    PulledAfter(usize),
    /// It never answers.
    Deaf,
    /// It does not answer until this file is there.
    DeafUntil(PathBuf),
    /// It answers what no loader would.
    Noise,
}

/// What is emulated.
#[derive(Clone, Debug)]
pub struct Chip {
    /// The number in its security information: 5 is the C3, 9 the S3.
    pub id: u32,
    /// Its address, as its efuses hold it.
    pub mac: [u8; 6],
    /// Silicon revision.
    pub revision: (u32, u32),
    /// Bytes of its flash, a power of two.
    pub flash_len: usize,
    /// What goes wrong.
    pub flaw: Flaw,
}

impl Default for Chip {
    fn default() -> Self {
        Self {
            id: 5,
            mac: [0x02, 0, 0x4d, 0x51, 0xc3, 1],
            revision: (0, 4),
            flash_len: FLASH_LEN,
            flaw: Flaw::None,
        }
    }
}

/// A loader that runs on a thread until it is dropped.
pub struct Rom {
    path: PathBuf,
    flash: Arc<Mutex<Vec<u8>>>,
    written: Arc<Mutex<usize>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Rom {
    /// Starts one with an erased flash.
    pub fn start(chip: Chip) -> Self {
        let mut pty = Pty::open();
        let path = pty.path();
        let mut loader = Loader::new(chip);
        let (flash, written) = (Arc::clone(&loader.flash), Arc::clone(&loader.written));
        let stop = Arc::<AtomicBool>::default();
        let theirs = Arc::clone(&stop);
        // Told to start the firmware, it stays a loader.
        let thread = std::thread::spawn(move || while serve(&mut pty, &mut loader, &theirs) == End::Left {});
        Self { path, flash, written, stop, thread: Some(thread) }
    }

    /// Its port.
    pub fn port(&self) -> &Path {
        &self.path
    }

    /// What its flash holds.
    pub fn flash(&self) -> Vec<u8> {
        self.flash.lock().expect("not poisoned").clone()
    }

    /// Bytes written to the flash so far.
    pub fn written(&self) -> usize {
        *self.written.lock().expect("not poisoned")
    }
}

impl Drop for Rom {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// That `flash` holds the image that is made of `firmware`, byte for byte.
#[track_caller]
pub fn assert_holds(flash: &[u8], firmware: &Path) {
    let image = Image::open(firmware, &Layout::default()).expect("a firmware");
    assert_eq!(image.regions.len(), 3, "bootloader, partition table, application");
    for region in &image.regions {
        let start = region.address as usize;
        let there = flash.get(start..start + region.bytes.len());
        assert!(there == Some(&region.bytes[..]), "the flash differs at {start:#x}");
    }
}

/// Takes a firmware as the loader of `chip` does, up to the command to start it; yields what the flash holds then, and
/// nothing if `stop` comes before.
pub fn load(pty: &mut Pty, chip: Chip, stop: &AtomicBool) -> Option<Vec<u8>> {
    let mut loader = Loader::new(chip);
    let left = serve(pty, &mut loader, stop) == End::Left;
    left.then(|| loader.flash.lock().expect("not poisoned").clone())
}

/// Why a loader serves no longer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// It was told to start the firmware.
    Left,
    /// The cable was pulled, or the test is over.
    Stopped,
}

fn serve(pty: &mut Pty, loader: &mut Loader, stop: &AtomicBool) -> End {
    let (mut frame, mut open, mut escaped) = (Vec::new(), false, false);
    let mut bytes = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let len = pty.read(&mut bytes, Duration::from_millis(20));
        for &byte in &bytes[..len] {
            match byte {
                END if open && !frame.is_empty() => {
                    for answer in loader.answer(&frame) {
                        pty.say(&slip(&answer));
                    }
                    open = false;
                    frame.clear();
                    if loader.is_pulled() {
                        return End::Stopped;
                    }
                    if std::mem::take(&mut loader.left) {
                        return End::Left;
                    }
                }
                END => open = true,
                ESCAPE => escaped = true,
                byte if open => {
                    frame.push(match (escaped, byte) {
                        (true, ESCAPED_END) => END,
                        (true, ESCAPED_ESCAPE) => ESCAPE,
                        (_, byte) => byte,
                    });
                    escaped = false;
                }
                _ => {}
            }
        }
    }
    End::Stopped
}

const END: u8 = 0xc0;
const ESCAPE: u8 = 0xdb;
const ESCAPED_END: u8 = 0xdc;
const ESCAPED_ESCAPE: u8 = 0xdd;

fn slip(content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![END];
    for &byte in content {
        match byte {
            END => bytes.extend([ESCAPE, ESCAPED_END]),
            ESCAPE => bytes.extend([ESCAPE, ESCAPED_ESCAPE]),
            byte => bytes.push(byte),
        }
    }
    bytes.push(END);
    bytes
}

/// A download into flash.
struct Download {
    offset: usize,
    block_size: usize,
    /// Inflates a compressed one.
    inflate: Option<ZlibDecoder<Vec<u8>>>,
}

struct Loader {
    chip: Chip,
    flash: Arc<Mutex<Vec<u8>>>,
    written: Arc<Mutex<usize>>,
    /// The stub runs instead of the ROM.
    stub: bool,
    /// It was told to start the firmware.
    left: bool,
    download: Option<Download>,
    registers: Registers,
    /// Where the next inflated bytes go.
    at: usize,
}

/// Outcome of a command: its value and data, or an error code.
type Outcome = Result<(u32, Vec<u8>), u8>;

/// "Received message is invalid".
const INVALID: u8 = 0x05;
/// "Checksum error", as the ROM numbers it.
const BAD_CHECKSUM: u8 = 0x07;

impl Loader {
    /// One with an erased flash.
    fn new(chip: Chip) -> Self {
        let (flash_len, capacity) = (chip.flash_len, chip.flash_len.ilog2());
        Self {
            chip,
            flash: Arc::new(Mutex::new(vec![0xff; flash_len])),
            written: Arc::default(),
            stub: false,
            left: false,
            download: None,
            registers: Registers { capacity, ..Registers::default() },
            at: 0,
        }
    }

    fn is_pulled(&self) -> bool {
        matches!(self.chip.flaw, Flaw::PulledAfter(len) if *self.written.lock().expect("not poisoned") >= len)
    }

    /// The frames that answer one request.
    fn answer(&mut self, request: &[u8]) -> Vec<Vec<u8>> {
        match &self.chip.flaw {
            Flaw::Deaf => return Vec::new(),
            Flaw::DeafUntil(cure) if !cure.exists() => return Vec::new(),
            Flaw::Noise => return vec![vec![0x55, 0xaa, 0x12]],
            _ => {}
        }
        let [0, op, low, high, c0, c1, c2, c3, data @ ..] = request else { return Vec::new() };
        let checksum = u32::from_le_bytes([*c0, *c1, *c2, *c3]);
        if data.len() != usize::from(u16::from_le_bytes([*low, *high])) {
            return vec![self.response(*op, Err(INVALID))];
        }
        let outcome = self.perform(*op, checksum, data);
        let mut answers = vec![self.response(*op, outcome)];
        match *op {
            // The ROM answers a sync eight times.
            0x08 => answers = vec![answers[0].clone(); 8],
            // The stub starts, and says so.
            0x06 => {
                self.stub = true;
                answers.push(b"OHAI".to_vec());
            }
            _ => {}
        }
        answers
    }

    fn response(&self, op: u8, outcome: Outcome) -> Vec<u8> {
        let status_len = if self.stub { 2 } else { 4 };
        let (value, data, status) = match outcome {
            Ok((value, data)) => (value, data, [0, 0, 0, 0]),
            Err(code) => (0, Vec::new(), [1, code, 0, 0]),
        };
        let mut response = vec![0x01, op];
        response.extend(((data.len() + status_len) as u16).to_le_bytes());
        response.extend(value.to_le_bytes());
        response.extend(data);
        response.extend(&status[..status_len]);
        response
    }

    fn perform(&mut self, op: u8, checksum: u32, data: &[u8]) -> Outcome {
        let word = |index: usize| {
            let bytes = data.get(index * 4..index * 4 + 4).ok_or(INVALID)?;
            Ok::<u32, u8>(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
        };
        let done = Ok((0, Vec::new()));
        match op {
            // Sync, RAM download, SPI parameters and attachment, speed.
            0x08 | 0x05 | 0x06 | 0x07 | 0x0b | 0x0d | 0x0f => done,
            0x0a => Ok((self.register(word(0)?), Vec::new())),
            0x09 => {
                self.registers.write(word(0)?, word(1)?);
                done
            }
            0x02 | 0x10 => {
                let (size, block_size, offset) = (word(0)? as usize, word(2)? as usize, word(3)? as usize);
                self.begin(op, size, block_size, offset)?;
                done
            }
            0x03 | 0x11 => {
                let (len, sequence) = (word(0)? as usize, word(1)? as usize);
                let block = data.get(16..16 + len).ok_or(INVALID)?;
                if block.iter().fold(0xef, |sum, byte| sum ^ byte) != checksum as u8 {
                    return Err(BAD_CHECKSUM);
                }
                self.block(op, sequence, block)?;
                done
            }
            0x04 | 0x12 => {
                self.download = None;
                // 0: reboot, which ends a stub.
                self.left = word(0)? == 0;
                self.stub &= !self.left;
                done
            }
            0x13 => {
                let (start, len) = (word(0)? as usize, word(1)? as usize);
                let flash = self.flash.lock().expect("not poisoned");
                let digest = Md5::digest(flash.get(start..start + len).ok_or(INVALID)?);
                // The stub gives bytes, the ROM their digits.
                let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                Ok((0, if self.stub { digest.to_vec() } else { digits.into_bytes() }))
            }
            0x14 => {
                let mut info = vec![0; 12];
                info.extend(self.chip.id.to_le_bytes());
                info.extend(0u32.to_le_bytes());
                Ok((0, info))
            }
            _ => Err(INVALID),
        }
    }

    fn begin(&mut self, op: u8, size: usize, block_size: usize, offset: usize) -> Result<(), u8> {
        let inflate = (op == 0x10).then(|| ZlibDecoder::new(Vec::new()));
        let mut flash = self.flash.lock().expect("not poisoned");
        let erased = offset..(offset + size).next_multiple_of(4096);
        flash.get_mut(erased).ok_or(INVALID)?.fill(0xff);
        self.at = offset;
        self.download = Some(Download { offset, block_size, inflate });
        Ok(())
    }

    fn block(&mut self, op: u8, sequence: usize, block: &[u8]) -> Result<(), u8> {
        let download = self.download.as_mut().ok_or(INVALID)?;
        let (at, bytes) = match &mut download.inflate {
            Some(inflate) if op == 0x11 => {
                inflate.write_all(block).and_then(|()| inflate.flush()).map_err(|_| INVALID)?;
                (self.at, std::mem::take(inflate.get_mut()))
            }
            None if op == 0x03 => (download.offset + sequence * download.block_size, block.to_vec()),
            _ => return Err(INVALID),
        };
        let mut flash = self.flash.lock().expect("not poisoned");
        let room = flash.len().saturating_sub(at).min(bytes.len());
        // Flash can only clear bits.
        for (cell, byte) in flash[at..at + room].iter_mut().zip(&bytes) {
            *cell &= byte;
            if self.chip.flaw == Flaw::StuckBit {
                *cell &= !1;
            }
        }
        self.at = at + room;
        *self.written.lock().expect("not poisoned") += bytes.len();
        Ok(())
    }

    fn register(&self, address: u32) -> u32 {
        let [a, b, c, d, e, f] = self.chip.mac;
        let (major, minor) = self.chip.revision;
        match address {
            // Block 1 of the efuses: the address, then the revision in two pieces.
            0x6000_8844 => u32::from_be_bytes([c, d, e, f]),
            0x6000_8848 => u32::from_be_bytes([0, 0, a, b]),
            0x6000_8850 => (minor & 7) << 18,
            0x6000_8858 => (minor >> 3) << 23 | major << 24,
            address => self.registers.read(address),
        }
    }
}

/// The registers of the flash's SPI unit that reading its identity takes.
#[derive(Default)]
struct Registers {
    /// Of the flash's bytes, the logarithm to base 2.
    capacity: u32,
    command: u32,
    data: u32,
}

impl Registers {
    fn write(&mut self, address: u32, value: u32) {
        match address {
            0x6000_2020 => self.command = value & 0xff,
            // Started: the flash tells who it is.
            0x6000_2000 if self.command == 0x9f => self.data = self.capacity << 16 | 0x40ef,
            0x6000_2058 => self.data = value,
            _ => {}
        }
    }

    fn read(&self, address: u32) -> u32 {
        if address == 0x6000_2058 { self.data } else { 0 }
    }
}
