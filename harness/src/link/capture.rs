//! Packet captures in the classic pcap format, as Wireshark and tcpdump read it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where to capture the board's wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// The capture: every Ethernet frame as the board sees it, that is sent frames before the link and
    /// received frames after it.
    pub pcap: PathBuf,
    /// Where the run keeps the TLS secrets of the captured connections (NSS key log format).
    pub keylog: Option<PathBuf>,
}

impl Capture {
    /// The command that opens the capture, decrypted if there are keys.
    #[must_use]
    pub fn wireshark_command(&self) -> String {
        match &self.keylog {
            Some(keylog) => {
                format!("wireshark -o tls.keylog_file:{} {}", keylog.display(), self.pcap.display())
            }
            None => format!("wireshark {}", self.pcap.display()),
        }
    }
}

/// Link type 1: Ethernet.
const LINKTYPE_ETHERNET: u32 = 1;

/// Frames are never cut.
const SNAP_LEN: u32 = 65_535;

/// Writes the file header: microsecond time stamps, little-endian.
pub(super) fn write_header(file: &mut impl Write) -> io::Result<()> {
    file.write_all(&0xa1b2_c3d4_u32.to_le_bytes())?;
    file.write_all(&2u16.to_le_bytes())?;
    file.write_all(&4u16.to_le_bytes())?;
    file.write_all(&[0; 8])?;
    file.write_all(&SNAP_LEN.to_le_bytes())?;
    file.write_all(&LINKTYPE_ETHERNET.to_le_bytes())
}

/// Appends one frame.
pub(super) fn write_frame(file: &mut impl Write, at: SystemTime, frame: &[u8]) -> io::Result<()> {
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let len = u32::try_from(frame.len()).unwrap_or(SNAP_LEN).min(SNAP_LEN);
    file.write_all(&(at.as_secs() as u32).to_le_bytes())?;
    file.write_all(&at.subsec_micros().to_le_bytes())?;
    file.write_all(&len.to_le_bytes())?;
    file.write_all(&len.to_le_bytes())?;
    file.write_all(&frame[..len as usize])
}
