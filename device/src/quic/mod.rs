//! QUIC version 1, the client's side (RFC 8999, 9000, 9001, 9002): no I/O, no heap.
//!
//! ```text
//!   open_stream, stream_write, ...                         poll_event
//!            |                                                  ^
//!   +--------v--------------------- Connection -----------------|--------+
//!   |  stream   send and receive buffers, flow control                   |
//!   |  connection   dispatch: frames in, frames out, timers, handshake   |
//!   |  recovery, ack   what is in flight, what to acknowledge            |
//!   |  frame, packet, protection   bytes                                 |
//!   +--------^--------------------------------------------------|--------+
//!            |                                                  v
//!   handle_datagram, handle_timeout            poll_transmit, poll_timeout
//! ```
//!
//! The client uses a zero-length connection identifier: every packet it receives is shorter, and the
//! one socket belongs to one connection. Not supported: ECN, DATAGRAM frames, the server's preferred
//! address, unidirectional streams, version 2.

pub mod ack;
pub mod cid;
mod config;
mod connection;
mod crypto_streams;
pub mod error;
mod event;
pub mod frame;
mod keys;
pub mod packet;
mod path;
pub mod protection;
pub mod recovery;
mod stats;
pub mod stream;
mod stream_id;
pub mod transport_parameters;

pub use config::{Config, Context, DATAGRAM_LEN_MAX, DATAGRAM_LEN_MIN, DatagramBuffer, Grease, SessionStore};
pub use connection::{Connection, Read, SENT_PACKETS_MAX, TOKEN_LEN_MAX};
pub use crypto_streams::{CRYPTO_RECEIVE_LEN, CRYPTO_SEND_LEN};
pub use error::{CloseReason, ConnectError, StreamError, TransportCode, TransportError};
pub use event::{EarlyDataOutcome, Event, PHASES, Phase};
pub use recovery::PathChange;
pub use stats::Stats;
pub use stream_id::StreamId;

/// The version this client speaks (RFC 9000 15).
pub const VERSION_1: u32 = 1;
