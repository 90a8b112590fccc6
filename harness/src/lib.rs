//! Hardware-in-the-loop test and benchmark harness for MQTT over QUIC.
#![forbid(unsafe_code)]

pub mod board;
pub mod broker;
pub mod certificates;
pub mod command;
pub mod cost;
pub mod count;
pub mod energy;
pub mod firmware;
pub mod fleet;
pub mod link;
pub mod measure;
pub mod peer;
pub mod report;
pub mod run;
pub mod scenario;
pub mod wire;
