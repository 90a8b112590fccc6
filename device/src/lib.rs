//! MQTT over QUIC for microcontrollers.
#![no_std]
#![forbid(unsafe_code)]

pub mod client;
pub mod codec;
pub mod control;
pub mod crypto;
pub mod entropy;
pub mod mqtt;
pub mod net;
pub mod node;
pub mod quic;
pub mod time;
pub mod tls;
