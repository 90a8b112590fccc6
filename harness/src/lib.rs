//! Hardware-in-the-loop test and benchmark harness for MQTT over QUIC.
#![forbid(unsafe_code)]

pub mod command;
pub mod firmware;
pub mod measure;
