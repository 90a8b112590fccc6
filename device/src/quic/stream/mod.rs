//! Streams: buffers, states and flow control (RFC 9000 2, 3, 4).
//!
//! ```text
//!   write, finish, reset        read, stop
//!          |                        ^
//!   +------v--------- Streams ------|------+    Streams    which streams there are; credit of the
//!   |  SendBuffer     ReceiveBuffer        |               connection; whose turn it is
//!   +------|------------------------^------+    Stream     the two state machines of RFC 9000 3
//!          v                        |           buffers    bytes, in order, repaired
//!   next_piece, next_control   on_stream, on_reset, ...
//! ```
//!
//! Only bidirectional streams exist here, for that is all MQTT uses; the limit of unidirectional ones that the
//! peer may open is zero.

mod frames;
mod ranges;
mod receive;
mod send;
mod state;
mod table;
#[cfg(test)]
mod tests;

pub use frames::{Control, ControlRecord, StreamPiece, StreamPieceRecord};
pub use ranges::{Full, RANGES, RangeSet};
pub use receive::{BLOCK, Memory, ReceiveBuffer, ReceiveMemory};
pub use send::{Piece, SendBuffer};
pub use state::Read;
pub use table::{BufferHighs, Limits, PeerLimits, StreamEvent, Streams};

/// The peer broke a rule of streams (RFC 9000 20.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// More data than it was allowed to send: FLOW_CONTROL_ERROR.
    FlowControl,
    /// More streams than it was allowed to open: STREAM_LIMIT_ERROR.
    StreamLimit,
    /// A frame for a stream that cannot receive it: STREAM_STATE_ERROR.
    StreamState,
    /// Ends of a stream that contradict each other: FINAL_SIZE_ERROR.
    FinalSize,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::FlowControl => "the peer sent more than its flow control credit",
            Self::StreamLimit => "the peer opened more streams than it may",
            Self::StreamState => "the peer sent a frame for a stream that cannot receive it",
            Self::FinalSize => "the peer changed the final size of a stream",
        })
    }
}

impl core::error::Error for Error {}

/// The caller asked for something a stream cannot do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UseError {
    /// No such stream, or it has ended and been forgotten.
    Unknown,
    /// Every slot for streams of this client is taken: wait until one closes.
    SlotsTaken,
    /// The peer permits no further stream yet: wait for [`StreamEvent::Credit`].
    NoCredit,
    /// The peer does not want this data (STOP_SENDING); the stream has been reset.
    Stopped,
    /// The stream was finished or reset by this end.
    Finished,
}

impl core::fmt::Display for UseError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "no such stream",
            Self::SlotsTaken => "all stream slots are taken; close a stream first",
            Self::NoCredit => "the peer permits no further stream yet; wait for credit",
            Self::Stopped => "the peer stopped this stream",
            Self::Finished => "this end has finished the stream",
        })
    }
}

impl core::error::Error for UseError {}
