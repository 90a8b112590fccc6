//! Frames about streams, and what is remembered of them until their packet is acknowledged or lost.

use super::Piece;
use crate::quic::StreamId;

/// A frame about streams other than STREAM itself. Compact: it is part of what is remembered per packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// MAX_DATA.
    MaxData {
        /// The new limit.
        limit: u64,
    },
    /// MAX_STREAMS for bidirectional streams.
    MaxStreams {
        /// The new limit.
        limit: u64,
    },
    /// MAX_STREAM_DATA.
    MaxStreamData {
        /// The stream.
        id: StreamId,
        /// The new limit.
        limit: u64,
    },
    /// RESET_STREAM.
    ResetStream {
        /// The stream.
        id: StreamId,
        /// The application's code.
        code: u64,
        /// Where the stream ends.
        final_size: u64,
    },
    /// STOP_SENDING.
    StopSending {
        /// The stream.
        id: StreamId,
        /// The application's code.
        code: u64,
    },
    /// DATA_BLOCKED.
    DataBlocked {
        /// The limit that holds this end back.
        limit: u64,
    },
    /// STREAM_DATA_BLOCKED.
    StreamDataBlocked {
        /// The stream.
        id: StreamId,
        /// The limit that holds this end back.
        limit: u64,
    },
    /// STREAMS_BLOCKED for bidirectional streams.
    StreamsBlocked {
        /// The limit that holds this end back.
        limit: u64,
    },
}

/// What to remember of a [`Control`] frame until its packet is acknowledged or lost: 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControlRecord {
    pub(super) kind: ControlKind,
    pub(super) id: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ControlKind {
    MaxData,
    MaxStreams,
    MaxStreamData,
    ResetStream,
    StopSending,
    DataBlocked,
    StreamDataBlocked,
    StreamsBlocked,
}

impl Control {
    /// What to remember of the frame.
    pub fn record(&self) -> ControlRecord {
        let (kind, id) = match *self {
            Self::MaxData { .. } => (ControlKind::MaxData, 0),
            Self::MaxStreams { .. } => (ControlKind::MaxStreams, 0),
            Self::MaxStreamData { id, .. } => (ControlKind::MaxStreamData, id.0),
            Self::ResetStream { id, .. } => (ControlKind::ResetStream, id.0),
            Self::StopSending { id, .. } => (ControlKind::StopSending, id.0),
            Self::DataBlocked { .. } => (ControlKind::DataBlocked, 0),
            Self::StreamDataBlocked { id, .. } => (ControlKind::StreamDataBlocked, id.0),
            Self::StreamsBlocked { .. } => (ControlKind::StreamsBlocked, 0),
        };
        ControlRecord { kind, id: id as u32 }
    }
}

/// Bytes of a stream to be put into one STREAM frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamPiece {
    /// The stream.
    pub id: StreamId,
    /// Offset of the first byte.
    pub offset: u64,
    /// How many bytes; zero only together with `fin`.
    pub len: usize,
    /// Whether the stream ends behind them.
    pub fin: bool,
}

/// What to remember of a [`StreamPiece`] until its packet is acknowledged or lost: 12 bytes.
///
/// Offsets are kept modulo 2^32: what is in flight lies within one window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamPieceRecord {
    pub(super) id: u32,
    offset: u32,
    len: u16,
    fin: bool,
}

impl StreamPiece {
    /// What to remember of the piece.
    pub fn record(&self) -> StreamPieceRecord {
        StreamPieceRecord {
            id: self.id.0 as u32,
            offset: self.offset as u32,
            len: self.len as u16,
            fin: self.fin,
        }
    }
}

impl StreamPieceRecord {
    /// The piece, given that it began at or before `sent`, less than 2^31 bytes ago.
    pub(super) fn piece(self, sent: u64) -> Option<Piece> {
        let behind = (sent as u32).wrapping_sub(self.offset);
        let offset = sent.checked_sub(u64::from(behind))?;
        Some(Piece { offset, len: usize::from(self.len), fin: self.fin })
    }
}
