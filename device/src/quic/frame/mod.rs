//! Frames, one file per frame or small family (RFC 9000 19).
//!
//! Decoding borrows from the datagram; encoding either fits or leaves nothing behind.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod ack;
mod close;
mod connection_id;
mod crypto;
mod flow;
mod path;
mod stream;
mod token;

pub use ack::{Ack, AckRanges};
pub use close::ConnectionClose;
pub use connection_id::{NewConnectionId, RetireConnectionId};
pub use crypto::Crypto;
pub use flow::{
    DataBlocked, Direction, MaxData, MaxStreamData, MaxStreams, StreamDataBlocked, StreamsBlocked,
};
pub use path::{PATH_DATA_LEN, PathChallenge, PathResponse};
pub use stream::{ResetStream, StopSending, Stream};
pub use token::NewToken;

use super::error::TransportError;
use crate::codec::{DecodeError, Reader};

/// Frame types (RFC 9000 19, table 3).
pub mod kind {
    /// PADDING.
    pub const PADDING: u64 = 0x00;
    /// PING.
    pub const PING: u64 = 0x01;
    /// ACK without ECN counts.
    pub const ACK: u64 = 0x02;
    /// ACK with ECN counts.
    pub const ACK_ECN: u64 = 0x03;
    /// RESET_STREAM.
    pub const RESET_STREAM: u64 = 0x04;
    /// STOP_SENDING.
    pub const STOP_SENDING: u64 = 0x05;
    /// CRYPTO.
    pub const CRYPTO: u64 = 0x06;
    /// NEW_TOKEN.
    pub const NEW_TOKEN: u64 = 0x07;
    /// STREAM, with the flags of [`super::Stream`] in its low bits.
    pub const STREAM: u64 = 0x08;
    /// The last STREAM type.
    pub const STREAM_LAST: u64 = 0x0f;
    /// MAX_DATA.
    pub const MAX_DATA: u64 = 0x10;
    /// MAX_STREAM_DATA.
    pub const MAX_STREAM_DATA: u64 = 0x11;
    /// MAX_STREAMS for bidirectional streams.
    pub const MAX_STREAMS_BIDI: u64 = 0x12;
    /// MAX_STREAMS for unidirectional streams.
    pub const MAX_STREAMS_UNI: u64 = 0x13;
    /// DATA_BLOCKED.
    pub const DATA_BLOCKED: u64 = 0x14;
    /// STREAM_DATA_BLOCKED.
    pub const STREAM_DATA_BLOCKED: u64 = 0x15;
    /// STREAMS_BLOCKED for bidirectional streams.
    pub const STREAMS_BLOCKED_BIDI: u64 = 0x16;
    /// STREAMS_BLOCKED for unidirectional streams.
    pub const STREAMS_BLOCKED_UNI: u64 = 0x17;
    /// NEW_CONNECTION_ID.
    pub const NEW_CONNECTION_ID: u64 = 0x18;
    /// RETIRE_CONNECTION_ID.
    pub const RETIRE_CONNECTION_ID: u64 = 0x19;
    /// PATH_CHALLENGE.
    pub const PATH_CHALLENGE: u64 = 0x1a;
    /// PATH_RESPONSE.
    pub const PATH_RESPONSE: u64 = 0x1b;
    /// CONNECTION_CLOSE by the transport.
    pub const CONNECTION_CLOSE: u64 = 0x1c;
    /// CONNECTION_CLOSE by the application.
    pub const APPLICATION_CLOSE: u64 = 0x1d;
    /// HANDSHAKE_DONE.
    pub const HANDSHAKE_DONE: u64 = 0x1e;
}

/// A frame borrowed from a decrypted packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// One or more bytes of PADDING.
    Padding,
    /// PING: only there to be acknowledged.
    Ping,
    /// Which packets arrived.
    Ack(Ack<'a>),
    /// The sender gives a stream up.
    ResetStream(ResetStream),
    /// The reader wants no more of a stream.
    StopSending(StopSending),
    /// Handshake bytes.
    Crypto(Crypto<'a>),
    /// A token for the next connection's Initial.
    NewToken(NewToken<'a>),
    /// Stream bytes.
    Stream(Stream<'a>),
    /// Connection-wide credit.
    MaxData(MaxData),
    /// Credit of one stream.
    MaxStreamData(MaxStreamData),
    /// How many streams may be opened.
    MaxStreams(MaxStreams),
    /// The sender lacks connection-wide credit.
    DataBlocked(DataBlocked),
    /// The sender lacks credit of a stream.
    StreamDataBlocked(StreamDataBlocked),
    /// The sender may not open another stream.
    StreamsBlocked(StreamsBlocked),
    /// A further identifier of the sender.
    NewConnectionId(NewConnectionId),
    /// An identifier of the receiver is not needed any more.
    RetireConnectionId(RetireConnectionId),
    /// Asks for an answer on this path.
    PathChallenge(PathChallenge),
    /// The answer.
    PathResponse(PathResponse),
    /// The end of the connection.
    ConnectionClose(ConnectionClose<'a>),
    /// The server has completed the handshake.
    HandshakeDone,
}

impl<'a> Frame<'a> {
    /// Reads the frame at the start of `reader` and its type.
    ///
    /// # Errors
    /// `FRAME_ENCODING_ERROR` names the field that is cut short or out of range; an unknown type is `frame.type`. A type in
    /// a longer form than it needs is a `PROTOCOL_VIOLATION` (RFC 9000 12.4).
    pub fn decode(reader: &mut Reader<'a>) -> Result<(u64, Self), TransportError> {
        let start = reader.position();
        let kind = reader.varint("frame.type")?;
        if reader.position() - start != crate::codec::varint_len(kind) {
            return Err(
                TransportError::violation("a frame type in a longer form than it needs").in_frame(kind)
            );
        }
        Ok((kind, Self::decode_body(kind, reader)?))
    }

    fn decode_body(kind: u64, r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match kind {
            kind::PADDING => {
                let run = r.rest().iter().take_while(|&&byte| byte == 0).count();
                r.take(run, "padding")?;
                Self::Padding
            }
            kind::PING => Self::Ping,
            kind::ACK | kind::ACK_ECN => Self::Ack(Ack::decode(kind, r)?),
            kind::RESET_STREAM => Self::ResetStream(ResetStream::decode(r)?),
            kind::STOP_SENDING => Self::StopSending(StopSending::decode(r)?),
            kind::CRYPTO => Self::Crypto(Crypto::decode(r)?),
            kind::NEW_TOKEN => Self::NewToken(NewToken::decode(r)?),
            kind::STREAM..=kind::STREAM_LAST => Self::Stream(Stream::decode(kind, r)?),
            kind::MAX_DATA => Self::MaxData(MaxData::decode(r)?),
            kind::MAX_STREAM_DATA => Self::MaxStreamData(MaxStreamData::decode(r)?),
            kind::MAX_STREAMS_BIDI | kind::MAX_STREAMS_UNI => Self::MaxStreams(MaxStreams::decode(kind, r)?),
            kind::DATA_BLOCKED => Self::DataBlocked(DataBlocked::decode(r)?),
            kind::STREAM_DATA_BLOCKED => Self::StreamDataBlocked(StreamDataBlocked::decode(r)?),
            kind::STREAMS_BLOCKED_BIDI | kind::STREAMS_BLOCKED_UNI => {
                Self::StreamsBlocked(StreamsBlocked::decode(kind, r)?)
            }
            kind::NEW_CONNECTION_ID => Self::NewConnectionId(NewConnectionId::decode(r)?),
            kind::RETIRE_CONNECTION_ID => Self::RetireConnectionId(RetireConnectionId::decode(r)?),
            kind::PATH_CHALLENGE => Self::PathChallenge(PathChallenge::decode(r)?),
            kind::PATH_RESPONSE => Self::PathResponse(PathResponse::decode(r)?),
            kind::CONNECTION_CLOSE | kind::APPLICATION_CLOSE => {
                Self::ConnectionClose(ConnectionClose::decode(kind, r)?)
            }
            kind::HANDSHAKE_DONE => Self::HandshakeDone,
            _ => return Err(DecodeError { field: "frame.type" }),
        })
    }

    /// Whether a packet with this frame wants an acknowledgement (RFC 9000 13.2).
    pub const fn is_ack_eliciting(&self) -> bool {
        !matches!(self, Self::Padding | Self::Ack(_) | Self::ConnectionClose(_))
    }

    /// Whether this frame may be in Initial and Handshake packets (RFC 9000 12.4).
    pub const fn is_allowed_in_handshake(&self) -> bool {
        matches!(
            self,
            Self::Padding
                | Self::Ping
                | Self::Ack(_)
                | Self::Crypto(_)
                | Self::ConnectionClose(ConnectionClose::Transport { .. })
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Writer;
    use crate::quic::cid::{ConnectionId, ResetToken};
    use crate::quic::{StreamId, error::TransportCode};

    /// Encodes `frame` with `encode`, decodes it, and checks that nothing is left.
    fn round_trip(encode: impl Fn(&mut Writer<'_>), check: impl Fn(&Frame<'_>)) {
        let mut bytes = [0; 256];
        let mut writer = Writer::new(&mut bytes);
        encode(&mut writer);
        let written = writer.len();
        let mut reader = Reader::new(&bytes[..written]);
        let (_, frame) = Frame::decode(&mut reader).expect("own encoding");
        assert!(reader.is_empty());
        check(&frame);
        for cut in 0..written {
            let cut = Frame::decode(&mut Reader::new(&bytes[..cut]));
            let shorter = matches!(cut, Ok((_, Frame::Stream(_) | Frame::Padding)));
            assert!(cut.is_err() || shorter, "a frame cut short is refused");
        }
    }

    #[test]
    fn every_frame_survives_encoding() {
        macro_rules! check {
            ($kind:ident, $value:expr) => {{
                let value = $value;
                round_trip(
                    |w| value.encode(w).expect("fits"),
                    |frame| assert_eq!(frame, &Frame::$kind(value.clone())),
                );
            }};
        }
        let id = StreamId(4);
        check!(ResetStream, ResetStream { id, code: 0x8e, final_size: 70_000 });
        check!(StopSending, StopSending { id, code: 1 });
        check!(Crypto, Crypto { offset: 1_000, data: b"hello" });
        check!(NewToken, NewToken { token: b"token" });
        check!(MaxData, MaxData { limit: 1 << 40 });
        check!(MaxStreamData, MaxStreamData { id, limit: 65_536 });
        check!(MaxStreams, MaxStreams { direction: Direction::Bidirectional, limit: 10 });
        check!(MaxStreams, MaxStreams { direction: Direction::Unidirectional, limit: 1 });
        check!(DataBlocked, DataBlocked { limit: 9 });
        check!(StreamDataBlocked, StreamDataBlocked { id, limit: 8 });
        check!(StreamsBlocked, StreamsBlocked { direction: Direction::Bidirectional, limit: 7 });
        check!(
            NewConnectionId,
            NewConnectionId {
                sequence: 3,
                retire_prior_to: 2,
                cid: ConnectionId::new(&[7; 8]).expect("eight"),
                token: ResetToken([9; 16]),
            }
        );
        check!(RetireConnectionId, RetireConnectionId { sequence: 5 });
        check!(PathChallenge, PathChallenge { data: *b"12345678" });
        check!(PathResponse, PathResponse { data: *b"87654321" });
        check!(ConnectionClose, ConnectionClose::Application { code: 1, reason: b"bye" });
        check!(
            ConnectionClose,
            ConnectionClose::Transport {
                code: TransportCode::PROTOCOL_VIOLATION,
                frame_type: 6,
                reason: b"x"
            }
        );
    }

    #[test]
    fn reserved_and_unknown_types_are_refused() {
        for bytes in [&[0x1f][..], &[0x21], &[0x40, 0x5f], &[0x30]] {
            let error = Frame::decode(&mut Reader::new(bytes)).unwrap_err();
            assert_eq!((error.code, error.reason), (TransportCode::FRAME_ENCODING_ERROR, "frame.type"));
        }
    }

    #[test]
    fn a_type_in_a_longer_form_than_needed_is_refused() {
        for bytes in [&[0x40, 0x01][..], &[0x80, 0, 0, 0x01], &[0xc0, 0, 0, 0, 0, 0, 0, 0x01]] {
            let error = Frame::decode(&mut Reader::new(bytes)).unwrap_err();
            assert_eq!((error.code, error.frame_type), (TransportCode::PROTOCOL_VIOLATION, 1));
        }
    }

    #[test]
    fn a_run_of_padding_is_one_frame() {
        let mut reader = Reader::new(&[0, 0, 0, 1]);
        assert_eq!(Frame::decode(&mut reader), Ok((0, Frame::Padding)));
        assert_eq!(Frame::decode(&mut reader), Ok((1, Frame::Ping)));
    }

    #[test]
    fn a_retirement_beyond_the_new_identifier_is_refused() {
        let mut bytes = [0; 64];
        let mut writer = Writer::new(&mut bytes);
        let frame = NewConnectionId {
            sequence: 1,
            retire_prior_to: 2,
            cid: ConnectionId::new(&[7; 8]).expect("eight"),
            token: ResetToken([9; 16]),
        };
        frame.encode(&mut writer).expect("fits");
        assert!(Frame::decode(&mut Reader::new(writer.written())).is_err());
    }

    #[test]
    fn more_streams_than_identifiers_exist_are_refused() {
        let mut bytes = [0; 16];
        let mut writer = Writer::new(&mut bytes);
        let frame = MaxStreams { direction: Direction::Bidirectional, limit: (1 << 60) + 1 };
        frame.encode(&mut writer).expect("fits");
        assert!(Frame::decode(&mut Reader::new(writer.written())).is_err());
    }

    #[test]
    fn an_empty_new_token_is_refused() {
        assert!(Frame::decode(&mut Reader::new(&[0x07, 0x00])).is_err());
    }
}
