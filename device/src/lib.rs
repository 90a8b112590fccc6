//! MQTT over QUIC for microcontrollers: `no_std`, no heap, no I/O, certificates always verified.
//!
//! ```text
//!   node       the agent: commands in, workload and client driven, telemetry out
//!     |  \___ net       smoltcp: UDP under QUIC, TCP under the baseline        control   its messages
//!     v
//!   client     connection policy: reconnect, resume, 0-RTT, migrate; the one module that names all below
//!     |
//!     +-> mqtt     session over byte streams: QoS 0-2, subscriptions, data streams; packets of 5.0 and 3.1.1
//!     |
//!     +-> quic     one connection: handshake, streams, loss recovery, flow control, key update, migration
//!           |
//!           +-> tls     TLS 1.3 client handshake, tickets, 0-RTT; records for the TCP baseline
//!                 |
//!                 +-> crypto    ciphers, hashes and curves behind a trait      codec    bytes in wire order
//! ```
//!
//! Arrows never turn back. Every layer is sans-IO: time is an argument ([`time`]), randomness a loan
//! ([`entropy`]), memory is inline and bounded by named constants, and configuration is borrowed for each call.
//!
//! # Example
//! The owner brings a socket, a clock and entropy; after every call it drains
//! [`poll_output`](client::Client::poll_output).
//!
//! ```no_run
//! use device::client::{Client, Config, Context, Event, Output, Policy, Publication};
//! use device::crypto::Software;
//! use device::mqtt::{Filter, Options, Qos, Slot};
//! use device::{entropy::Entropy, quic, time::Instant, tls};
//!
//! # trait Board: Entropy {
//! #     fn now(&self) -> Instant;
//! #     fn unix_time_s(&self) -> u64;
//! #     fn send(&mut self, datagram: &[u8]);
//! #     fn receive(&mut self, until: Option<Instant>, datagram: &mut [u8]) -> Option<usize>;
//! # }
//! fn run(board: &mut dyn Board, trust_anchors: &[pki_types::TrustAnchor<'_>]) {
//!     let mut client = Client::<Software>::new();
//!     let mut datagram = [0; 1472];
//!     let mut is_started = false;
//!     loop {
//!         let now = board.now();
//!         let config = Config {
//!             tls: tls::Config::new(trust_anchors, "broker.example", b"mqtt", board.unix_time_s()),
//!             quic: quic::Config::new(),
//!             mqtt: Options::new("sensor-17"),
//!             policy: Policy::DEFAULT,
//!         };
//!         let mut ctx = Context { now, config: &config, entropy: board };
//!         if !is_started {
//!             is_started = true;
//!             client.connect(&mut ctx);
//!             let filters = [Filter::new("sensor-17/set", Qos::AtLeastOnce)];
//!             client.subscribe(&mut ctx, Slot::CONTROL, &filters).expect("the table is empty");
//!         }
//!         let due = loop {
//!             let mut ctx = Context { now, config: &config, entropy: board };
//!             match client.poll_output(&mut ctx, &mut datagram) {
//!                 Output::Transmit(len) => board.send(&datagram[..len]),
//!                 Output::Event { event: Event::Connected(_), .. } => {
//!                     let hello = Publication::new("sensor-17/state", b"on").qos(Qos::AtLeastOnce);
//!                     client.publish(&mut ctx, &hello).expect("the store is empty");
//!                 }
//!                 Output::Event { event: Event::Message(message), .. } => {
//!                     let _ = (message.topic, message.payload);
//!                 }
//!                 Output::Event { .. } => {}
//!                 Output::WaitUntil(due) => break due,
//!             }
//!         };
//!         let received = board.receive(due, &mut datagram);
//!         let mut ctx = Context { now: board.now(), config: &config, entropy: board };
//!         match received {
//!             Some(len) => client.handle_datagram(&mut ctx, &mut datagram[..len]),
//!             None => client.handle_timeout(&mut ctx),
//!         }
//!     }
//! }
//! ```
//!
//! With these defaults a quiet connection lives on: QUIC gives it up after 30 s without a packet, but sends a PING after
//! 15 ([`quic::Config::new`]); MQTT asks for the broker after 60 s ([`mqtt::Options::new`]).
//!
//! # Bounds
//! Largest packet received 1152 bytes ([`mqtt::session::RX_PACKET_MAX`], announced to the server), less with three or
//! four streams, which share their memory ([`client::Client`]); largest sent 1152; topics up to 128 bytes; 16
//! unacknowledged publications in 2064 bytes; subscriptions in 320 bytes; 16 unacknowledged messages from the server, or
//! 10, 8 or 6 on each of two, three or four streams (announced as receive maximum); 24 sent packets remembered ([`quic::SENT_PACKETS_MAX`]). What does not fit is
//! refused as [`Full`](mqtt::RequestError::Full) and leaves nothing behind.
//!
//! Handshake: the server's Certificate message up to 4096 bytes ([`quic::CRYPTO_RECEIVE_LEN`]) with five intermediates;
//! the client's last flight up to 1152 ([`quic::CRYPTO_SEND_LEN`]), which leaves about 1000 for a certificate chain of its
//! own; tickets up to 512 ([`tls::TICKET_LEN_MAX`]), tokens up to 192 ([`quic::TOKEN_LEN_MAX`]).
//!
//! # Secrets
//! Keys and secrets are erased when they are replaced or dropped, those of a connection as soon as it is over;
//! [`crypto::ZeroizeOnDrop`] is demanded of whatever implements [`crypto::Crypto`]. Not erased are the caller's loans
//! (password, client key) and what was copied of them into buffers: CONNECT lies in the control stream's send buffer
//! until later packets take its place. Moving a value may leave a copy on the stack, which no safe code can reach. `Debug`
//! shows no password, key, ticket, token or buffer.
//!
//! # Not supported
//! * QUIC: version 2, ECN, DATAGRAM frames, unidirectional streams, the server's preferred address.
//! * TLS: versions before 1.3, RSA signatures without the feature `rsa`, certificates with a compressed P-256 key, client
//!   keys other than P-256, external pre-shared keys, CRLs and OCSP, 0-RTT over TCP. An issuer has to be a CA by its basic
//!   constraints; that its key usage permits signing certificates is not checked (webpki does not read it).
//! * MQTT: extended authentication (AUTH is refused), subscription identifiers of our own, an identifier assigned
//!   by the server, a session that outlives a reboot of the device.
//! * Exactly-once delivery on EMQX's data streams holds for as long as the stream lives: the broker forgets them
//!   with their connection.
//! * More than 32 QoS 1 and 2 messages in flight from a server of 3.1.1, which cannot be told of a receive maximum. Those
//!   beyond stay unacknowledged, and once the server has the acknowledgements of the others the connection ends with
//!   [`QUOTA_EXCEEDED`](mqtt::ReasonCode::QUOTA_EXCEEDED) (3.1.1: 4.8): the rest comes, in order, on the next one, if the
//!   session outlives it. To stop reading until PUBREL makes room would wait for ever: PUBREL comes on the same stream,
//!   behind what is not read. On a data stream, which the broker forgets, the stream ends at once.
//! * Sending packets larger than a stream's send buffer; receiving messages larger than the receive buffer (an
//!   error in 5.0, skipped and acknowledged in 3.1.1).
#![no_std]
#![forbid(unsafe_code)]
// Nothing that the network sends may panic. `expect` states a local proof; where bytes of the network are taken apart,
// indexing needs one, too.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic, clippy::unreachable))]

pub mod client;
pub mod codec;
pub mod control;
pub mod crypto;
pub mod entropy;
pub mod mqtt;
pub mod net;
pub mod node;
pub mod quic;
mod redacted;
pub mod time;
pub mod tls;
