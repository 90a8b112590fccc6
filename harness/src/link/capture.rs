//! Packet captures as pcapng, which Wireshark and tshark open (draft-ietf-opsawg-pcapng).
//!
//! Frames are appended while the link runs. When it ends, the TLS secrets that the run logged meanwhile are put
//! before the first frame as a Decryption Secrets Block, so that one file opens decrypted, 0-RTT data included.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where to capture the board's wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// The capture: every Ethernet frame as the board sees it, that is sent frames before the link and
    /// received frames after it. The file must not exist yet.
    pub file: PathBuf,
    /// Where the run logs TLS secrets, in the format of SSLKEYLOGFILE. What is added to it while the link runs
    /// becomes part of the capture: whoever has that can read the traffic.
    pub key_log: Option<PathBuf>,
}

/// What Wireshark has to be told to read MQTT in QUIC streams, as a file to put beside captures.
pub const MQTT_OVER_QUIC_LUA: &str = "\
-- Wireshark reads the streams of QUIC connections with the ALPN `mqtt` as MQTT:
--   wireshark -X lua_script:mqtt-over-quic.lua wire-1.pcapng
DissectorTable.get(\"quic.proto\"):add(\"mqtt\", Dissector.get(\"mqtt\"))
";

/// A capture being written.
pub(super) struct Recorder {
    path: PathBuf,
    file: BufWriter<File>,
    /// The key log, and how long it was when the capture began.
    key_log: Option<(PathBuf, u64)>,
}

impl Recorder {
    /// Creates the file and writes its header.
    pub(super) fn create(capture: &Capture) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(64 * 1024, File::create_new(&capture.file)?);
        file.write_all(&header())?;
        let key_log = capture.key_log.clone().map(|path| {
            let length = fs::metadata(&path).map_or(0, |log| log.len());
            (path, length)
        });
        Ok(Self { path: capture.file.clone(), file, key_log })
    }

    /// Appends one frame as an Enhanced Packet Block.
    pub(super) fn frame(&mut self, at: SystemTime, frame: &[u8]) -> io::Result<()> {
        let at_us = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
        let length = u32::try_from(frame.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut body = Vec::with_capacity(20 + frame.len() + 3);
        for field in [0, (at_us >> 32) as u32, at_us as u32, length, length] {
            body.extend(field.to_le_bytes());
        }
        pad_after(&mut body, frame);
        self.file.write_all(&block(ENHANCED_PACKET, &body))
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    /// Closes the file; with secrets in it, if there are any.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        let Some((key_log, from)) = self.key_log.take() else { return Ok(()) };
        let secrets = added_since(&key_log, from)?;
        if secrets.is_empty() {
            return Ok(());
        }
        // In place of the file only once it is whole: a full disk must not cost the frames.
        let whole = self.path.with_extension("pcapng.new");
        self.with_secrets(&secrets, &whole)
            .and_then(|()| fs::rename(&whole, &self.path))
            .inspect_err(|_| drop(fs::remove_file(&whole)))
    }

    fn with_secrets(&self, secrets: &[u8], whole: &Path) -> io::Result<()> {
        let header = header();
        let mut frames = File::open(&self.path)?;
        frames.seek(SeekFrom::Start(header.len() as u64))?;
        let mut file = BufWriter::new(File::create(whole)?);
        file.write_all(&header)?;
        file.write_all(&decryption_secrets(secrets)?)?;
        io::copy(&mut frames, &mut file)?;
        file.flush()
    }
}

/// What was appended to the log after its first `from` bytes; nothing if there is no log.
fn added_since(log: &Path, from: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(log) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(from))?;
    let mut added = Vec::new();
    file.read_to_end(&mut added)?;
    Ok(added)
}

/// Block types (draft-ietf-opsawg-pcapng 11.1).
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const DECRYPTION_SECRETS: u32 = 10;
/// Tells readers the byte order of the section.
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Secrets in the format of SSLKEYLOGFILE ("TLSK").
const SECRETS_TLS_KEY_LOG: u32 = 0x544c_534b;
/// Link type 1: Ethernet.
const LINKTYPE_ETHERNET: u16 = 1;
/// Options: end, name of an interface, name of the application that wrote a section.
const OPT_END: u16 = 0;
const IF_NAME: u16 = 2;
const SHB_USERAPPL: u16 = 4;

/// Section Header Block and the description of the one interface; time stamps are in microseconds by default.
fn header() -> Vec<u8> {
    let mut section = BYTE_ORDER_MAGIC.to_le_bytes().to_vec();
    section.extend(1u16.to_le_bytes());
    section.extend(0u16.to_le_bytes());
    // Length of the section: not known while it is written.
    section.extend(u64::MAX.to_le_bytes());
    option(&mut section, SHB_USERAPPL, concat!("harness ", env!("CARGO_PKG_VERSION")));
    let mut interface = LINKTYPE_ETHERNET.to_le_bytes().to_vec();
    interface.extend(0u16.to_le_bytes());
    // Frames are never cut.
    interface.extend(0u32.to_le_bytes());
    option(&mut interface, IF_NAME, "board");
    [block(SECTION_HEADER, &section), block(INTERFACE_DESCRIPTION, &interface)].concat()
}

fn decryption_secrets(secrets: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(secrets.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut body = SECRETS_TLS_KEY_LOG.to_le_bytes().to_vec();
    body.extend(length.to_le_bytes());
    pad_after(&mut body, secrets);
    Ok(block(DECRYPTION_SECRETS, &body))
}

/// The last options of a block: one text and the end.
fn option(body: &mut Vec<u8>, code: u16, text: &str) {
    body.extend(code.to_le_bytes());
    body.extend((text.len() as u16).to_le_bytes());
    pad_after(body, text.as_bytes());
    body.extend(OPT_END.to_le_bytes());
    body.extend(0u16.to_le_bytes());
}

/// Appends `bytes` and fills up to a multiple of four.
fn pad_after(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend(bytes);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Type, total length, body, total length again. Bodies come padded.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes()[..], &length, body, &length].concat()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The blocks of a capture: types and bodies. Panics where the two lengths of a block differ.
    pub(in crate::link) fn blocks(mut capture: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
        let mut blocks = Vec::new();
        while !capture.is_empty() {
            let length = word(&capture[4..]) as usize;
            assert_eq!(word(&capture[length - 4..length]) as usize, length, "block {}", blocks.len());
            assert_eq!(length % 4, 0);
            blocks.push((word(capture), capture[8..length - 4].to_vec()));
            capture = &capture[length..];
        }
        blocks
    }

    /// The frame in an Enhanced Packet Block.
    pub(in crate::link) fn frame_of(body: &[u8]) -> &[u8] {
        let length = u32::from_le_bytes(body[12..16].try_into().unwrap()) as usize;
        &body[20..20 + length]
    }

    #[test]
    fn secrets_logged_meanwhile_come_before_the_first_frame() {
        let folder = tempfile::tempdir().unwrap();
        let (file, key_log) = (folder.path().join("wire-1.pcapng"), folder.path().join("keys"));
        fs::write(&key_log, "EARLIER aa bb\n").unwrap();
        let capture = Capture { file: file.clone(), key_log: Some(key_log.clone()) };
        let mut recorder = Recorder::create(&capture).unwrap();
        let at = UNIX_EPOCH + std::time::Duration::from_micros(0x1_0000_0002);
        recorder.frame(at, b"hello").unwrap();
        let mut log = File::options().append(true).open(&key_log).unwrap();
        log.write_all(b"CLIENT_TRAFFIC_SECRET_0 cc dd\n").unwrap();
        recorder.frame(at, b"hello again").unwrap();
        recorder.finish().unwrap();

        let blocks = blocks(&fs::read(&file).unwrap());
        let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(
            kinds,
            [SECTION_HEADER, INTERFACE_DESCRIPTION, DECRYPTION_SECRETS, ENHANCED_PACKET, ENHANCED_PACKET]
        );
        let secrets = &blocks[2].1;
        assert_eq!(&secrets[..8], [0x4b, 0x53, 0x4c, 0x54, 30, 0, 0, 0]);
        assert_eq!(&secrets[8..38], b"CLIENT_TRAFFIC_SECRET_0 cc dd\n");
        assert_eq!(blocks[3].1[4..12], [1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!((frame_of(&blocks[3].1), frame_of(&blocks[4].1)), (&b"hello"[..], &b"hello again"[..]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn without_a_key_log_there_are_no_secrets() {
        let folder = tempfile::tempdir().unwrap();
        for key_log in [None, Some(folder.path().join("never-written"))] {
            let file = folder.path().join(format!("{}.pcapng", key_log.is_some()));
            let mut recorder = Recorder::create(&Capture { file: file.clone(), key_log }).unwrap();
            recorder.frame(SystemTime::now(), b"hello").unwrap();
            recorder.finish().unwrap();
            let blocks = blocks(&fs::read(&file).unwrap());
            assert!(blocks.iter().all(|(kind, _)| *kind != DECRYPTION_SECRETS));
        }
    }

    #[test]
    fn an_existing_capture_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wire-1.pcapng");
        fs::write(&file, "precious").unwrap();
        assert!(Recorder::create(&Capture { file: file.clone(), key_log: None }).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"precious");
    }
}
