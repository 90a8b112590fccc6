//! STREAM, RESET_STREAM and STOP_SENDING (RFC 9000 19.8, 19.4, 19.5).
//!
//! ```text
//! type 0x08 + OFF 0x04 + LEN 0x02 + FIN 0x01 | stream | [offset] | [length] | data
//! type 0x04 | stream | error code | final size
//! type 0x05 | stream | error code
//! ```

use crate::codec::{DecodeError, NoSpace, Reader, VARINT_MAX, Writer};
use crate::quic::StreamId;
use crate::redacted::redacted_debug;

use super::kind;

const OFF: u64 = 0x04;
const LEN: u64 = 0x02;
const FIN: u64 = 0x01;

/// Bytes of a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stream<'a> {
    /// The stream.
    pub id: StreamId,
    /// Where the bytes belong.
    pub offset: u64,
    /// Whether the stream ends with these bytes.
    pub fin: bool,
    /// The bytes.
    pub data: &'a [u8],
}

redacted_debug! { [] Stream<'_>, "Stream", shown: [id, offset, fin], length: [data], hidden: [] }

impl<'a> Stream<'a> {
    pub(super) fn decode(frame: u64, r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let id = StreamId(r.varint("stream.stream")?);
        let offset = if frame & OFF != 0 { r.varint("stream.offset")? } else { 0 };
        let data = if frame & LEN != 0 {
            r.varint_vec("stream.data")?
        } else {
            r.take(r.remaining(), "stream.data")?
        };
        if offset + data.len() as u64 > VARINT_MAX {
            return Err(DecodeError { field: "stream.offset" });
        }
        Ok(Self { id, offset, fin: frame & FIN != 0, data })
    }

    /// Writes type, stream, offset and length for `len` bytes of data that the caller appends.
    ///
    /// # Errors
    /// [`NoSpace`], with part of it written: the caller truncates.
    pub fn encode_header(
        id: StreamId,
        offset: u64,
        len: usize,
        fin: bool,
        w: &mut Writer<'_>,
    ) -> Result<(), NoSpace> {
        let off = if offset > 0 { OFF } else { 0 };
        w.varint(kind::STREAM | LEN | off | u64::from(fin))?;
        w.varint(id.0)?;
        if offset > 0 {
            w.varint(offset)?;
        }
        w.varint(len as u64)
    }
}

/// The sender gives a stream up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResetStream {
    /// The stream.
    pub id: StreamId,
    /// The application's reason.
    pub code: u64,
    /// How many bytes the stream has in the end.
    pub final_size: u64,
}

impl ResetStream {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: StreamId(r.varint("reset_stream.stream")?),
            code: r.varint("reset_stream.error_code")?,
            final_size: r.varint("reset_stream.final_size")?,
        })
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// [`NoSpace`], with part of it written: the caller truncates.
    pub fn encode(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        w.varint(kind::RESET_STREAM)?;
        w.varint(self.id.0)?;
        w.varint(self.code)?;
        w.varint(self.final_size)
    }
}

/// The reader wants no more of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StopSending {
    /// The stream.
    pub id: StreamId,
    /// The application's reason.
    pub code: u64,
}

impl StopSending {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: StreamId(r.varint("stop_sending.stream")?),
            code: r.varint("stop_sending.error_code")?,
        })
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// [`NoSpace`], with part of it written: the caller truncates.
    pub fn encode(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        w.varint(kind::STOP_SENDING)?;
        w.varint(self.id.0)?;
        w.varint(self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quic::frame::Frame;

    #[test]
    fn header_and_data_make_a_stream_frame() {
        for (offset, fin) in [(0, false), (0, true), (70_000, false), (70_000, true)] {
            let mut bytes = [0; 32];
            let mut w = Writer::new(&mut bytes);
            Stream::encode_header(StreamId(8), offset, 3, fin, &mut w).expect("fits");
            w.put(b"abc").expect("fits");
            let (_, frame) = Frame::decode(&mut Reader::new(w.written())).expect("valid");
            assert_eq!(frame, Frame::Stream(Stream { id: StreamId(8), offset, fin, data: b"abc" }));
        }
    }

    #[test]
    fn without_a_length_the_data_goes_to_the_end() {
        let (_, frame) = Frame::decode(&mut Reader::new(&[0x08, 0, 1, 2, 3])).expect("valid");
        assert_eq!(frame, Frame::Stream(Stream { id: StreamId(0), offset: 0, fin: false, data: &[1, 2, 3] }));
    }

    #[test]
    fn data_beyond_the_largest_offset_is_refused() {
        let mut bytes = [0xff; 11];
        bytes[0] = 0x0c;
        bytes[1] = 0x00;
        assert_eq!(Frame::decode(&mut Reader::new(&bytes)).unwrap_err().reason, "stream.offset");
    }
}
