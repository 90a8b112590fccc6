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

/// A stream by the low bits of its number and who opened it.
///
/// Enough to find it again from a packet's record, which outlives its stream by a few probe timeouts at most: within
/// those no slot sees 128 streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ShortId(u8);

impl ShortId {
    pub(super) const fn of(id: StreamId) -> Self {
        // Bit 1 of an identifier says unidirectional (RFC 9000 2.1), which none of these is.
        Self((id.0 >> 1) as u8 & !1 | id.0 as u8 & 1)
    }
}

/// What to remember of a [`Control`] frame until its packet is acknowledged or lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControlRecord {
    pub(super) kind: ControlKind,
    pub(super) stream: ShortId,
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
            Self::MaxData { .. } => (ControlKind::MaxData, StreamId(0)),
            Self::MaxStreams { .. } => (ControlKind::MaxStreams, StreamId(0)),
            Self::MaxStreamData { id, .. } => (ControlKind::MaxStreamData, id),
            Self::ResetStream { id, .. } => (ControlKind::ResetStream, id),
            Self::StopSending { id, .. } => (ControlKind::StopSending, id),
            Self::DataBlocked { .. } => (ControlKind::DataBlocked, StreamId(0)),
            Self::StreamDataBlocked { id, .. } => (ControlKind::StreamDataBlocked, id),
            Self::StreamsBlocked { .. } => (ControlKind::StreamsBlocked, StreamId(0)),
        };
        ControlRecord { kind, stream: ShortId::of(id) }
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

/// What to remember of a [`StreamPiece`] until its packet is acknowledged or lost: 8 bytes.
///
/// Offsets are kept modulo 2^32: what is in flight lies within one window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamPieceRecord {
    offset: u32,
    len: u16,
    pub(super) stream: ShortId,
    fin: bool,
}

impl StreamPiece {
    /// What to remember of the piece.
    pub fn record(&self) -> StreamPieceRecord {
        StreamPieceRecord {
            offset: self.offset as u32,
            len: self.len as u16,
            stream: ShortId::of(self.id),
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
