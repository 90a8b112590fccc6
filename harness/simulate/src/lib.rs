//! The device client against quinn-proto in virtual time.
//!
//! ```text
//!   Pair
//!     client    device::quic::Connection, or device::client::Client with its MQTT session
//!       |  ^
//!      link     the harness's link model: loss, delay, reordering, corruption, blackouts, rebinding
//!       v  |
//!     server    quinn-proto endpoint over rustls, and a service on its streams: echo, or an MQTT broker
//! ```
//!
//! No sockets, no threads, no sleeps: one clock, which jumps from event to event.
//!
//! # What is identical on every run of a seed
//! Every decision (the link's, the client's entropy, quinn-proto's own generator, the workload) is drawn from the
//! seed. What rustls and ring draw (ephemeral keys, nonces, session identifiers) is not, unless [`ServerOptions`] gives
//! them [`seeded::SeededRandom`] or [`Seeded`], which has an identity of its own beside. Without one, the time, direction,
//! size and fate of each datagram and every verdict repeat as long as no packet is damaged: bytes inside packets differ
//! from run to run, their sizes do not, since the server signs with Ed25519, by a certificate made from a fixed key.
//! What a damaged packet leads to depends on its bytes, so the random [`world`]s have seeded randomness and repeat
//! exactly; [`Trace`] hashes them.

#![forbid(unsafe_code)]

mod broker;
mod clock;
pub mod identity;
#[cfg(target_os = "linux")]
pub mod memory;
mod mqtt_client;
mod pair;
mod quic_client;
mod random;
pub mod reference;
pub mod seeded;
pub mod server;
mod service;
#[cfg(test)]
mod tests;
mod trace;
pub mod wire;
pub mod world;

pub use broker::{Broker, BrokerOptions, Published};
pub use clock::Clock;
pub use mqtt_client::{MqttClient, MqttOptions, Received, Told};
pub use pair::{ClientSide, Pair, PairOptions};
pub use quic_client::{ClientOptions, QuicClient};
pub use random::Random;
pub use seeded::Seeded;
pub use server::{Server, ServerOptions};
pub use service::{Echo, Service, Source};
pub use trace::Trace;
