//! Where and with what a run was made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where and with what a run was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of the harness.
    pub harness_version: String,
    /// Git revision, with `-dirty` when the tree had changes.
    pub git_revision: Option<String>,
    /// Compiler of the firmware and the harness.
    pub rustc_version: Option<String>,
    /// The machine the harness ran on.
    pub host: Host,
    /// The board.
    pub board: Board,
    /// The broker.
    pub broker: Broker,
    /// The command line as it was typed.
    pub command_line: Vec<String>,
    /// The exact command that replays this run: same scenario, seeds, board, broker.
    pub replay: String,
    /// The seed all others derive from.
    pub base_seed: u64,
    /// Start of the run, microseconds since the Unix epoch.
    pub started_unix_us: u64,
    /// Wall-clock length of the run.
    pub duration_us: u64,
    /// Anything else worth recording: RSSI, access point channel, Docker version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, String>,
}

/// The machine the harness ran on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Operating system and kernel.
    pub os: String,
    /// Processor model.
    pub cpu: String,
    /// Cores available to the harness.
    pub cores: u32,
    /// One-minute load average when the run started.
    pub load: Option<f32>,
}

/// The board under test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Board {
    /// `host`, `qemu` or `esp32c3`.
    pub name: String,
    /// One line for the reader: what it is.
    pub description: String,
    /// Version or hash of the firmware that ran.
    pub firmware: Option<String>,
    /// Chip and revision, for a physical board.
    pub chip: Option<String>,
    /// MAC address, for a physical board.
    pub mac: Option<String>,
    /// How its times come about.
    pub timing: Timing,
    /// Processor clock that turns instruction counts into estimated milliseconds.
    pub clock_hz: Option<u64>,
    /// Size of the firmware, from its ELF.
    pub footprint: Option<Footprint>,
}

/// How a board's times come about, which decides how they are labelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Timing {
    /// A process or emulator: times include the host's processor and are not board times.
    Emulated,
    /// Silicon: times are those of the board.
    Physical,
}

/// Static size of a firmware image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Footprint {
    /// Flash image, all of it.
    pub flash_bytes: Option<u64>,
    /// Flash of QUIC + TLS + MQTT with their crypto.
    pub flash_client_bytes: Option<u64>,
    /// Static RAM: `.data` + `.bss`.
    pub ram_static_bytes: Option<u64>,
    /// Client state with all buffers of one connection with one stream.
    pub client_state_bytes: Option<u64>,
    /// Bytes by ELF section.
    #[serde(default)]
    pub sections: Vec<SizePart>,
    /// Bytes by crate.
    #[serde(default)]
    pub crates: Vec<SizePart>,
}

/// One part of a size table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizePart {
    /// Section or crate.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
}

/// The broker that ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Broker {
    /// `embedded`, `emqx`, `docker`, `external`.
    pub kind: String,
    /// Product and version.
    pub version: Option<String>,
    /// One line for the reader.
    pub description: String,
    /// Image digest, for a container.
    pub image_digest: Option<String>,
    /// Key type and chain of its certificate.
    pub certificate: Option<String>,
}
