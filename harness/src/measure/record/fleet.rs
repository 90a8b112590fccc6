//! Many devices in one trial.

use serde::{Deserialize, Serialize};

/// Many devices in one trial: what no single device tells. A merged report has one for each shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    /// Devices in this process.
    pub devices: u32,
    /// Devices that had a session when the phase ended.
    pub connected: u32,
    /// Working connections that were lost, of all devices.
    pub outages: Vec<Outage>,
    /// From the broker's return to each device's CONNACK, microseconds; `None` for one that never came back.
    #[serde(default)]
    pub recoveries_us: Vec<Option<u64>>,
    /// Bytes of one device's state by its types: the firmware core with its buffers.
    pub state_bytes: u64,
    /// By how much the process's resident memory grew since before the first device, bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time of the threads that drive devices, link included, microseconds.
    pub cpu_us: u64,
    /// Calls of the devices' cores.
    pub turns: u64,
    /// By how much the broker's resident memory grew since before the first device, bytes.
    pub broker_memory_bytes: Option<u64>,
    /// Processor time of the broker, microseconds.
    pub broker_cpu_us: Option<u64>,
}

/// A working connection that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// When its device noticed.
    pub lost_us: u64,
    /// The CONNACK of the next.
    pub again_us: Option<u64>,
}
