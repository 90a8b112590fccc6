//! The MQTT session.

mod types;

pub use types::{
    Message, Options, Publication, RX_PACKET_MAX, Replay, RequestError, SLOTS, SessionStats, Slot, Start,
    StreamEnd, Streams, TOPIC_MAX, Token,
};
