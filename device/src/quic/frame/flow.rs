//! Credit and the lack of it: MAX_DATA, MAX_STREAM_DATA, MAX_STREAMS and their `*_BLOCKED`
//! counterparts (RFC 9000 19.9 to 19.14).
//!
//! ```text
//! type 0x10 | limit                 type 0x14 | limit
//! type 0x11 | stream | limit        type 0x15 | stream | limit
//! type 0x12 or 0x13 | limit         type 0x16 or 0x17 | limit
//! ```

use crate::codec::{DecodeError, NoSpace, Reader, Writer};
use crate::quic::StreamId;

use super::kind;

/// More streams than this cannot be numbered (RFC 9000 19.11).
const STREAMS_MAX: u64 = 1 << 60;

/// Which kind of stream a limit is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Both ends send.
    Bidirectional,
    /// Only the opener sends.
    Unidirectional,
}

macro_rules! one_number {
    ($(#[$doc:meta])* $name:ident, $kind:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $name {
            /// The limit in bytes, counted from the start of the connection.
            pub limit: u64,
        }

        impl $name {
            pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self { limit: r.varint($field)? })
            }

            /// Writes the frame.
            ///
            /// # Errors
            /// [`NoSpace`], with part of it written: the caller truncates.
            pub fn encode(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
                w.varint(kind::$kind)?;
                w.varint(self.limit)
            }
        }
    };
}

macro_rules! of_a_stream {
    ($(#[$doc:meta])* $name:ident, $kind:ident, $id:literal, $limit:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $name {
            /// The stream.
            pub id: StreamId,
            /// The limit in bytes, counted from the start of the stream.
            pub limit: u64,
        }

        impl $name {
            pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self { id: StreamId(r.varint($id)?), limit: r.varint($limit)? })
            }

            /// Writes the frame.
            ///
            /// # Errors
            /// [`NoSpace`], with part of it written: the caller truncates.
            pub fn encode(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
                w.varint(kind::$kind)?;
                w.varint(self.id.0)?;
                w.varint(self.limit)
            }
        }
    };
}

macro_rules! of_a_direction {
    ($(#[$doc:meta])* $name:ident, $bidi:ident, $uni:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $name {
            /// The kind of streams.
            pub direction: Direction,
            /// How many streams, counted from the start of the connection.
            pub limit: u64,
        }

        impl $name {
            pub(super) fn decode(frame: u64, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let direction = match frame {
                    kind::$bidi => Direction::Bidirectional,
                    _ => Direction::Unidirectional,
                };
                let limit = r.varint($field)?;
                if limit > STREAMS_MAX {
                    return Err(DecodeError { field: $field });
                }
                Ok(Self { direction, limit })
            }

            /// Writes the frame.
            ///
            /// # Errors
            /// [`NoSpace`], with part of it written: the caller truncates.
            pub fn encode(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
                w.varint(match self.direction {
                    Direction::Bidirectional => kind::$bidi,
                    Direction::Unidirectional => kind::$uni,
                })?;
                w.varint(self.limit)
            }
        }
    };
}

one_number!(
    /// Connection-wide credit.
    MaxData, MAX_DATA, "max_data.limit"
);
one_number!(
    /// The sender had more to send than connection-wide credit permits.
    DataBlocked, DATA_BLOCKED, "data_blocked.limit"
);
of_a_stream!(
    /// Credit of one stream.
    MaxStreamData, MAX_STREAM_DATA, "max_stream_data.stream", "max_stream_data.limit"
);
of_a_stream!(
    /// The sender had more to send than the stream's credit permits.
    StreamDataBlocked, STREAM_DATA_BLOCKED, "stream_data_blocked.stream", "stream_data_blocked.limit"
);
of_a_direction!(
    /// How many streams may be opened.
    MaxStreams, MAX_STREAMS_BIDI, MAX_STREAMS_UNI, "max_streams.limit"
);
of_a_direction!(
    /// The sender would have opened a further stream.
    StreamsBlocked, STREAMS_BLOCKED_BIDI, STREAMS_BLOCKED_UNI, "streams_blocked.limit"
);
