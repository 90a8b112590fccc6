//! What a connection tells its user.

use super::StreamId;
use super::error::CloseReason;

/// A step of the handshake, in the order of a clean one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// The first Initial was put together.
    Started,
    /// The server demanded address validation.
    Retried,
    /// The ServerHello arrived: handshake keys exist.
    ServerHello,
    /// The server has proven its identity (skipped when a session is resumed).
    CertificateVerified,
    /// The server's Finished arrived: 1-RTT keys exist.
    Complete,
    /// The server confirmed: handshake keys are gone.
    Confirmed,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; PHASES] = [
        Self::Started,
        Self::Retried,
        Self::ServerHello,
        Self::CertificateVerified,
        Self::Complete,
        Self::Confirmed,
    ];
}

/// How many [`Phase`]s there are.
pub const PHASES: usize = 6;

/// What became of 0-RTT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EarlyDataOutcome {
    /// None was offered.
    NotOffered,
    /// The server took it.
    Accepted,
    /// The server refused it; what was sent goes out again as 1-RTT.
    Rejected,
}

/// Something happened on the connection. Polled, never lost: state is kept, not a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The handshake reached a phase, in the call just made.
    Handshake(Phase),
    /// The handshake is complete.
    Connected {
        /// Whether a session was resumed.
        resumed: bool,
        /// What became of 0-RTT.
        early_data: EarlyDataOutcome,
    },
    /// `open_stream` may succeed now.
    StreamsAvailable,
    /// The server opened a stream.
    StreamOpened(StreamId),
    /// There is something to read, or the end of the stream.
    StreamReadable(StreamId),
    /// A write that found the buffer full may go on.
    StreamWritable(StreamId),
    /// All that was written, and the end of it, has arrived.
    StreamFinished(StreamId),
    /// The peer reset its side.
    StreamReset {
        /// The stream.
        id: StreamId,
        /// The application's reason.
        code: u64,
    },
    /// The peer does not want to read this stream any more.
    StreamStopped {
        /// The stream.
        id: StreamId,
        /// The application's reason.
        code: u64,
    },
    /// A session ticket went to the [`super::SessionStore`].
    TicketStored,
    /// An address validation token went to the [`super::SessionStore`].
    TokenStored,
    /// The path after a change of the local address works.
    PathValidated,
    /// The path after a change of the local address did not answer; the connection carries on trying
    /// until its idle timeout.
    PathFailed,
    /// Keys changed, at the request of either end.
    KeyUpdated,
    /// The connection is over.
    Closed(CloseReason),
}
