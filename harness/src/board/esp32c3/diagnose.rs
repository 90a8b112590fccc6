//! What is wrong with a board that did not start as it should, told from what it said.

use std::path::Path;

use super::Fault;
use super::rom::{Banner, decode_crash, invalid_header};
use super::stream::Evidence;
use crate::firmware::elf::Elf;

/// What is wrong with the board on `port` that said that much and no more.
pub(super) fn diagnose(port: &Path, elf: Option<&Elf>, evidence: &Evidence) -> Fault {
    let text = &evidence.text;
    if let Some(fault) = told_by_rom(port, text) {
        return fault;
    }
    let (port, tried) = (port.to_path_buf(), Vec::new());
    let crash = decode_crash(elf, text);
    if !crash.is_empty() {
        return Fault::Crashes { port, report: crash };
    }
    // Noise has a byte here and there that reads as text.
    let is_text = evidence.text_bytes * 2 > evidence.heard;
    let last_line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    match (evidence.heard, evidence.reports, last_line) {
        (0, ..) => Fault::Silent { port, tried },
        (_, 1.., _) => Fault::NoRestart { port, tried },
        (_, 0, Some(said)) if is_text => Fault::Foreign { port, said: said.to_owned(), tried },
        (bytes, 0, _) => {
            let sample: Vec<_> = evidence.first.iter().map(|byte| format!("{byte:02x}")).collect();
            Fault::Garbage { port, bytes, sample: sample.join(" "), tried }
        }
    }
}

/// What the ROM says that keeps any firmware from running.
pub(super) fn told_by_rom(port: &Path, text: &str) -> Option<Fault> {
    let (port, tried) = (port.to_path_buf(), Vec::new());
    let waits = Banner::last_in(text).is_some_and(|banner| banner.is_download());
    if waits || text.contains("waiting for download") {
        return Some(Fault::DownloadMode { port, tried });
    }
    invalid_header(text).map(|said| Fault::NoFirmware { port, said: said.to_owned(), tried })
}

#[cfg(test)]
mod tests {
    use device::control::frame::{FRAME_MAX, encode};
    use device::control::{Answer, Report};

    use super::*;

    fn heard<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Fault {
        let mut evidence = Evidence::default();
        chunks.into_iter().for_each(|chunk| evidence.hear(chunk));
        diagnose(Path::new("/dev/ttyACM0"), None, &evidence)
    }

    #[test]
    fn seconds_of_noise_are_garbage_and_another_firmware_s_log_is_not() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut byte = || {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        for _ in 0..20 {
            let noise: Vec<u8> = (0..50_000).map(|_| byte()).collect();
            let fault = heard(noise.chunks(500));
            assert!(matches!(fault, Fault::Garbage { bytes: 50_000, .. }), "{fault}");
            assert!(fault.is_recoverable() && fault.is_of_board());
        }
        let log = "\u{1b}[0;32mI (312) main_task: 21 °C\u{1b}[0m\r\n".as_bytes();
        let fault = heard([log; 3]);
        assert!(matches!(&fault, Fault::Foreign { said, .. } if said.contains("main_task")), "{fault}");
        assert!(!fault.is_recoverable() && !fault.is_of_board());
    }

    #[test]
    fn a_board_that_talks_but_does_not_restart_climbs_the_ladder() {
        let mut frame = [0; FRAME_MAX];
        let len = encode(&Report::Reply { sequence: 7, answer: Answer::Done }, &mut frame).unwrap();
        let fault = heard([&frame[..len]]);
        assert!(matches!(fault, Fault::NoRestart { .. }) && fault.is_recoverable(), "{fault}");
    }
}
