//! Frames on a byte stream that also carries log text.
//!
//! ```text
//! 0x00  COBS( 0x01  message  CRC-32 of both, little-endian )  0x00
//! ```
//! Text never contains 0x00, so every 0x00 is a boundary and what lies between two of them stands for
//! itself: whatever was lost or damaged before, the next whole frame is read. COBS puts its code byte
//! in front, so the second byte after a boundary is 0x01 in a frame and never in text; text is
//! passed on line by line without waiting for the next boundary. A panic handler writes 0x00 before
//! its text, in case it interrupted a frame.

use serde::Serialize;

use super::crc::{Crc32, crc32};
use super::{BadMessage, MESSAGE_MAX};
use crate::redacted::{Length, redacted_debug};

/// Longest frame in bytes, both boundaries included.
pub const FRAME_MAX: usize = cobs::max_encoding_length(CONTENT_MAX) + 2;

/// Marker, message and CRC.
const CONTENT_MAX: usize = 1 + MESSAGE_MAX + CRC_LEN;
const CRC_LEN: usize = 4;
const BOUNDARY: u8 = 0x00;
const MARKER: u8 = 0x01;

/// Encodes `message` as a frame into `out` and returns the frame's length.
///
/// # Errors
/// [`BadMessage`] when `out` is too small; [`FRAME_MAX`] bytes hold any message.
pub fn encode<T: Serialize + ?Sized>(message: &T, out: &mut [u8]) -> Result<usize, BadMessage> {
    let (first, rest) = out.split_first_mut().ok_or(BadMessage)?;
    *first = BOUNDARY;
    let mut body = Body { cobs: cobs::CobsEncoder::new(rest), crc: Crc32::new() };
    postcard::ser_flavors::Flavor::try_push(&mut body, MARKER).map_err(|_| BadMessage)?;
    let len = 1 + postcard::serialize_with_flavor(message, body).map_err(|_| BadMessage)?;
    *out.get_mut(len).ok_or(BadMessage)? = BOUNDARY;
    Ok(len + 1)
}

/// Stuffs bytes as postcard makes them: no second buffer.
struct Body<'a> {
    cobs: cobs::CobsEncoder<'a>,
    crc: Crc32,
}

impl postcard::ser_flavors::Flavor for Body<'_> {
    type Output = usize;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.crc.push(byte);
        self.cobs.push(&[byte]).map_err(|_| postcard::Error::SerializeBufferFull)
    }

    fn finalize(mut self) -> postcard::Result<usize> {
        let crc = self.crc.value().to_le_bytes();
        self.cobs.push(&crc).map_err(|_| postcard::Error::SerializeBufferFull)?;
        Ok(self.cobs.finalize())
    }
}

/// A piece of the byte stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text, mostly a line with its line feed.
    Text(&'a [u8]),
    /// The message of a frame whose CRC is right.
    Message(&'a [u8]),
    /// What was a frame, or noise.
    Damaged(&'a [u8]),
}

/// Text is there to be shown. Messages hold passwords and keys, and so may what is damaged.
impl core::fmt::Debug for Piece<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (name, bytes) = match self {
            Self::Text(text) => {
                return f.debug_tuple("Text").field(&format_args!("{}", text.escape_ascii())).finish();
            }
            Self::Message(bytes) => ("Message", bytes),
            Self::Damaged(bytes) => ("Damaged", bytes),
        };
        f.debug_tuple(name).field(&Length(bytes.len())).finish()
    }
}

/// Separates frames and text. `N` bounds the longest frame and the longest line of text;
/// [`FRAME_MAX`] is enough for any message.
pub struct Decoder<const N: usize = FRAME_MAX> {
    segment: [u8; N],
    len: usize,
    state: State,
}

redacted_debug! {
    [const N: usize] Decoder<N>, "Decoder", shown: [len, state], length: [segment], hidden: []
}

/// What the bytes in the segment follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// A boundary: this may be a frame.
    Boundary,
    /// A line of text: this is no frame.
    Text,
    /// A frame that was too long: skipped up to the next boundary.
    Overlong,
}

impl<const N: usize> Decoder<N> {
    /// A decoder at the start of a stream, or anywhere within one.
    pub const fn new() -> Self {
        Self { segment: [0; N], len: 0, state: State::Text }
    }

    /// Takes bytes from `input` up to the end of the next piece. `None` when all input is used up.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Piece<'_>> {
        loop {
            let (&byte, rest) = input.split_first()?;
            *input = rest;
            let end = if byte == BOUNDARY { self.on_boundary() } else { self.on_byte(byte) };
            if let Some(kind) = end {
                return Some(self.piece(kind));
            }
        }
    }

    /// What is left at the end of the stream.
    pub fn finish(&mut self) -> Option<Piece<'_>> {
        let kind = self.on_boundary()?;
        Some(self.piece(kind))
    }

    fn on_byte(&mut self, byte: u8) -> Option<Kind> {
        if self.state == State::Overlong {
            return None;
        }
        self.segment[self.len] = byte;
        self.len += 1;
        let may_be_frame = self.may_be_frame();
        let full = self.len == N;
        if full && may_be_frame {
            let end = self.take_segment(State::Overlong);
            return Some(Kind::Damaged(end));
        }
        let line = byte == b'\n' && !may_be_frame && is_text(&self.segment[..self.len]);
        if full || line {
            let kind = if is_text(&self.segment[..self.len]) { Kind::Text } else { Kind::Damaged };
            let end = self.take_segment(State::Text);
            return Some(kind(end));
        }
        None
    }

    fn on_boundary(&mut self) -> Option<Kind> {
        let may_be_frame = self.may_be_frame() && self.len >= 2;
        let end = self.take_segment(State::Boundary);
        if end == 0 {
            return None;
        }
        if !may_be_frame {
            let kind = if is_text(&self.segment[..end]) { Kind::Text } else { Kind::Damaged };
            return Some(kind(end));
        }
        // Decoding overwrites the segment; what fails is reported as far as it still stands.
        match cobs::decode_in_place(&mut self.segment[..end]).ok().and_then(|len| self.checked(len)) {
            Some(len) => Some(Kind::Message(len)),
            None => Some(Kind::Damaged(end)),
        }
    }

    /// The length of marker and message, if the CRC behind them is right.
    fn checked(&self, len: usize) -> Option<usize> {
        let (content, crc) = self.segment[..len].split_last_chunk::<CRC_LEN>()?;
        let right = content.first() == Some(&MARKER) && crc32(content) == u32::from_le_bytes(*crc);
        right.then_some(content.len())
    }

    fn may_be_frame(&self) -> bool {
        self.state == State::Boundary && (self.len < 2 || self.segment[1] == MARKER)
    }

    fn take_segment(&mut self, next: State) -> usize {
        self.state = next;
        core::mem::take(&mut self.len)
    }

    fn piece(&self, kind: Kind) -> Piece<'_> {
        match kind {
            Kind::Text(end) => Piece::Text(&self.segment[..end]),
            Kind::Message(end) => Piece::Message(&self.segment[1..end]),
            Kind::Damaged(end) => Piece::Damaged(&self.segment[..end]),
        }
    }
}

impl<const N: usize> Default for Decoder<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// A piece by its length.
enum Kind {
    Text(usize),
    Message(usize),
    Damaged(usize),
}

/// Whether these are bytes a log would print: UTF-8 without control characters but white space and
/// escape (colours).
fn is_text(bytes: &[u8]) -> bool {
    core::str::from_utf8(bytes).is_ok()
        && bytes.iter().all(|&byte| byte >= b' ' || matches!(byte, b'\n' | b'\r' | b'\t' | 0x1b))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::super::{Command, Fault, Request};
    use super::*;

    fn frame(sequence: u32) -> Vec<u8> {
        let mut out = [0; FRAME_MAX];
        let len = encode(&Command { sequence, request: Request::Ping { host_us: 0 } }, &mut out)
            .expect("a ping is short");
        out[..len].to_vec()
    }

    /// Sequence numbers of the messages in `stream`, and its text.
    fn read(stream: &[u8]) -> (Vec<u32>, Vec<u8>, usize) {
        let mut decoder = Decoder::<FRAME_MAX>::new();
        let (mut messages, mut text, mut damaged) = (Vec::new(), Vec::new(), 0);
        let mut input = stream;
        let mut take = |piece: Piece<'_>| match piece {
            Piece::Text(bytes) => text.extend_from_slice(bytes),
            Piece::Message(bytes) => {
                messages.push(Command::decode(bytes).expect("the CRC is right").sequence);
            }
            Piece::Damaged(_) => damaged += 1,
        };
        while let Some(piece) = decoder.next(&mut input) {
            take(piece);
        }
        if let Some(piece) = decoder.finish() {
            take(piece);
        }
        (messages, text, damaged)
    }

    #[test]
    fn text_between_frames_passes_through() {
        let stream = [&b"boot\n"[..], &frame(1), b"one line\nhalf", &frame(2), &frame(3), b"end"].concat();
        let (messages, text, damaged) = read(&stream);
        assert_eq!(messages, [1, 2, 3]);
        assert_eq!(text, b"boot\none line\nhalfend");
        assert_eq!(damaged, 0);
    }

    #[test]
    fn a_line_of_text_is_passed_on_without_waiting_for_a_frame() {
        let mut decoder = Decoder::<FRAME_MAX>::new();
        let stream = [&frame(1)[..], b"panicked\n"].concat();
        let mut input = &stream[..];
        assert!(matches!(decoder.next(&mut input), Some(Piece::Message(_))));
        assert_eq!(decoder.next(&mut input), Some(Piece::Text(b"panicked\n")));
    }

    #[test]
    fn a_panic_within_a_frame_shows_its_text() {
        let cut = frame(1);
        let stream = [&cut[..cut.len() / 2], b"\0panicked at main\n"].concat();
        let (messages, text, damaged) = read(&stream);
        assert!(messages.is_empty());
        assert_eq!(text, b"panicked at main\n");
        assert_eq!(damaged, 1);
    }

    #[test]
    fn a_frame_that_never_ends_is_bounded_and_the_next_one_is_read() {
        let mut stream = frame(1);
        stream.truncate(6);
        stream.resize(3 * FRAME_MAX, 0x55);
        stream.extend(frame(2));
        assert_eq!(read(&stream).0, [2]);
    }

    #[test]
    fn a_frame_that_does_not_fit_is_refused() {
        let message = Command { sequence: 1, request: Request::Crash(Fault::Hang) };
        let mut out = [0; FRAME_MAX];
        let len = encode(&message, &mut out).expect("short");
        for short in 0..len {
            assert_eq!(encode(&message, &mut out[..short]), Err(BadMessage));
        }
    }

    proptest! {
        #[test]
        fn whatever_came_before_the_next_frame_is_read(garbage: Vec<u8>, sequence: u32) {
            let stream = [&garbage[..], &frame(sequence), b"text\n", &frame(7)].concat();
            let (messages, ..) = read(&stream);
            prop_assert_eq!(messages, [sequence, 7]);
        }

        #[test]
        fn a_truncated_frame_does_not_lose_the_next(cut in 0usize..12, sequence: u32) {
            let whole = frame(1);
            let stream = [&whole[..cut.min(whole.len() - 2)], &frame(sequence)].concat();
            prop_assert_eq!(read(&stream).0, [sequence]);
        }

        #[test]
        fn a_corrupt_frame_is_dropped_and_loses_no_other(at: prop::sample::Index, flip in 1u8.., sequence: u32) {
            let mut middle = frame(1);
            // Its boundaries are shared with its neighbours' and not part of it.
            let at = 1 + at.index(middle.len() - 2);
            middle[at] ^= flip;
            let stream = [&frame(sequence)[..], &middle, &frame(9)].concat();
            prop_assert_eq!(read(&stream).0, [sequence, 9]);
        }

        #[test]
        fn how_the_stream_is_cut_up_makes_no_difference(sizes in prop::collection::vec(1usize..9, 1..60)) {
            let stream = [&frame(1)[..], b"a line\nand", &frame(2), b"\n"].concat();
            let mut decoder = Decoder::<FRAME_MAX>::new();
            let (mut rest, mut messages, mut text) = (&stream[..], 0, Vec::new());
            for size in sizes.iter().cycle() {
                let (mut input, after) = rest.split_at((*size).min(rest.len()));
                rest = after;
                while let Some(piece) = decoder.next(&mut input) {
                    match piece {
                        Piece::Message(_) => messages += 1,
                        Piece::Text(bytes) => text.extend_from_slice(bytes),
                        Piece::Damaged(bytes) => panic!("damaged {bytes:?}"),
                    }
                }
                if rest.is_empty() {
                    break;
                }
            }
            if let Some(Piece::Text(bytes)) = decoder.finish() {
                text.extend_from_slice(bytes);
            }
            prop_assert_eq!(messages, 2);
            prop_assert_eq!(&text[..], b"a line\nand\n");
        }
    }
}
