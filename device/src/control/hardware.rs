//! What a board of silicon has besides: a radio, power modes, a heap, a chip with an identity.
//!
//! A board that has none of it refuses the requests as [`Unsupported`](super::Refusal::Unsupported).

use serde::{Deserialize, Serialize};

use super::{Name, ResetReason};

/// How to join a wireless network.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wifi {
    /// The network's name, at most 32 bytes.
    pub ssid: Name,
    /// Its password, 8 to 63 bytes; empty for an open network.
    pub password: Name,
}

/// Names the network and keeps its password to itself: credentials stay out of logs.
impl core::fmt::Debug for Wifi {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Wifi").field("ssid", &self.ssid).finish_non_exhaustive()
    }
}

/// What a board saves while it has nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum PowerMode {
    /// The radio listens all the time: least latency.
    #[default]
    None,
    /// The radio sleeps between beacons and wakes for each DTIM.
    MinimumModemSleep,
    /// The radio sleeps for several beacons and may miss group traffic.
    MaximumModemSleep,
    /// As [`PowerMode::MinimumModemSleep`]; besides, when nothing is due for long, the radio is stopped, the
    /// processor sleeps, and the network is joined again before the next message.
    LightSleep,
}

/// Which board this is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hardware {
    /// The chip: `ESP32-C3`.
    pub chip: Name,
    /// Its silicon revision, major and minor.
    pub revision: (u8, u8),
    /// The address its maker burned in: what names a board.
    pub mac: [u8; 6],
    /// Processor clock in MHz.
    pub cpu_mhz: u16,
    /// Why it started.
    pub reset: ResetReason,
    /// The same as the chip's own register tells it.
    pub reset_code: u8,
    /// Which cryptography runs in hardware, and whether it did what software does.
    pub accelerators: Accelerators,
}

/// Cryptography in hardware.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Accelerators {
    /// The firmware was built without.
    Absent,
    /// In use; the self-test at boot agreed with the known answers and with software.
    Verified,
    /// The self-test at boot found the unit named wrong; software does all the work.
    Faulty {
        /// The unit.
        unit: Accelerator,
    },
}

/// A unit that computes cryptography.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Accelerator {
    /// AES.
    Aes,
    /// SHA-2.
    Sha,
}

/// The radio now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Radio {
    /// When.
    pub at_us: u64,
    /// What it does.
    pub state: RadioState,
    /// The access point it is associated with.
    pub bssid: Option<[u8; 6]>,
    /// Its channel.
    pub channel: Option<u8>,
    /// Signal strength in dBm.
    pub rssi_dbm: Option<i8>,
    /// The power mode in force.
    pub power: PowerMode,
}

/// What a radio does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum RadioState {
    /// Off: no credentials yet, or stopped.
    Idle,
    /// Looking for the network or associating.
    Joining,
    /// Associated.
    Joined,
    /// The last attempt failed; the next one is due after a wait.
    Waiting,
    /// Stopped to sleep; the network is joined again by itself.
    Asleep,
}

/// Why a wireless network was not joined, or was lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum WifiFailure {
    /// No access point with that name answered.
    NetworkNotFound,
    /// The access point did not accept the password, or none was given for a protected network.
    WrongPassword,
    /// The network asks for a kind of security that this firmware has not (WPA3 only, enterprise).
    SecurityUnsupported,
    /// The access point refused the association.
    Refused,
    /// The access point fell silent or ended the association.
    Lost,
    /// The radio itself failed.
    RadioFailed,
}

/// The heap now, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Heap {
    /// When.
    pub at_us: u64,
    /// All of it.
    pub size: u32,
    /// Allocated.
    pub used: u32,
    /// Most that was ever allocated.
    pub used_max: u32,
    /// Bytes allocated since boot, where the allocator counts.
    pub allocated_total: Option<u64>,
    /// Bytes freed since boot, where the allocator counts.
    pub freed_total: Option<u64>,
}

/// Where the time went since boot, in microseconds: what an estimate of energy needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Activity {
    /// When.
    pub at_us: u64,
    /// The processor worked.
    pub cpu_busy_us: u64,
    /// The processor waited for an interrupt.
    pub cpu_idle_us: u64,
    /// The chip slept.
    pub light_sleep_us: u64,
    /// The radio was started. How long it slept between beacons meanwhile, only its own hardware knows.
    pub radio_on_us: u64,
    /// Of that, the time frames handed to it take on the air at the lowest rate it may use: an upper bound.
    pub radio_transmit_us_max: u64,
}
