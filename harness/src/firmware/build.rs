//! Runs cargo for a board's firmware crate.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::toolchain::{TARGET, Toolchain, ToolchainError};

/// A firmware crate under `device/boards/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// The emulated RISC-V board.
    Qemu,
    /// The same with room for a QUIC stream per topic.
    QemuStreams,
    /// The smallest program that links the client: what its code costs without a board around it.
    ClientOnly,
    /// The client alone, which the harness drives over the console to count its instructions.
    Cost,
    /// The ESP32-C3 with Wi-Fi.
    Esp32c3,
}

impl Firmware {
    /// The folder under `device/boards/`.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Qemu | Self::QemuStreams | Self::ClientOnly | Self::Cost => "qemu",
            Self::Esp32c3 => "esp32c3",
        }
    }

    /// Features of the crate that firmware under test has.
    fn features(self) -> &'static [&'static str] {
        match self {
            // So that a scenario can make it fail.
            Self::Qemu => &["--features", "faults"],
            Self::QemuStreams => &["--features", "faults,streams"],
            Self::ClientOnly | Self::Cost | Self::Esp32c3 => &[],
        }
    }

    /// Compiler flags of its own, each after a space.
    fn flags(self, workspace: &Path) -> String {
        match self {
            // Of a panic the image keeps the message, not the place, which would take 23 KB: the harness reads it off the
            // stack. Functions that never return save their return address only where they are to have unwind tables,
            // which the image does not hold.
            Self::Esp32c3 => {
                let folders = super::toolchain::without_folders(workspace);
                format!("{folders} -Zlocation-detail=none -Cforce-unwind-tables=yes")
            }
            // One copy of functions that came out the same; no address of a function is compared here.
            _ => " -Clink-arg=--icf=all".to_owned(),
        }
    }

    /// The binary's name.
    pub fn binary(self) -> &'static str {
        match self {
            Self::Qemu | Self::QemuStreams => "device-qemu",
            Self::ClientOnly => "client-only",
            Self::Cost => "cost",
            Self::Esp32c3 => "device-esp32c3",
        }
    }
}

/// What of a firmware is chosen when it is built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variation {
    /// Features besides those it has by default, or has under test.
    pub features: Vec<String>,
    /// Without those it has by default.
    pub bare: bool,
}

impl Variation {
    fn arguments(&self) -> Vec<String> {
        let features = (!self.features.is_empty()).then(|| format!("--features={}", self.features.join(",")));
        let bare = self.bare.then(|| "--no-default-features".to_owned());
        bare.into_iter().chain(features).collect()
    }
}

/// Why there is no firmware.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No compiler.
    #[error(transparent)]
    Toolchain(#[from] ToolchainError),
    /// The sources are not where this harness was built.
    #[error(
        "no firmware sources at {0}\n  remedy: run the harness from a checkout of the project, or set HARNESS_WORKSPACE \
         to one"
    )]
    NoSources(PathBuf),
    /// cargo could not be started.
    #[error("cannot run cargo: {0}\n  remedy: install Rust, or set CARGO to the cargo to use")]
    NoCargo(#[source] std::io::Error),
    /// The firmware cannot be put where it is kept.
    #[error("cannot write {path}: {source}\n  remedy: check the folder's rights and free space")]
    NotKept {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The build failed.
    #[error("building {firmware} failed ({status}):\n{tail}")]
    Failed {
        /// Which binary.
        firmware: &'static str,
        /// cargo's exit status.
        status: String,
        /// The last lines cargo printed.
        tail: String,
    },
}

/// Lines of compiler output kept for an error message.
const TAIL_LINES: usize = 40;

/// The folder that holds the workspace's `Cargo.toml`.
pub fn workspace() -> PathBuf {
    match std::env::var_os("HARNESS_WORKSPACE") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the harness is a folder of the workspace")
            .into(),
    }
}

/// Builds `firmware` in its release profile and returns the ELF's path.
///
/// `progress` gets cargo's lines as they come.
///
/// # Errors
/// [`BuildError`]: no compiler, no sources, or cargo's own last words.
pub fn build(firmware: Firmware, progress: impl FnMut(&str)) -> Result<PathBuf, BuildError> {
    build_variation(firmware, &Variation::default(), progress)
}

/// The same for a firmware of another choice.
///
/// # Errors
/// As [`build`].
pub fn build_variation(
    firmware: Firmware,
    variation: &Variation,
    progress: impl FnMut(&str),
) -> Result<PathBuf, BuildError> {
    cargo("build", firmware, variation, "", progress)?;
    let elf = workspace().join(TARGET_DIR).join(TARGET).join("release").join(firmware.binary());
    if firmware == Firmware::QemuStreams {
        // The next build without streams puts its own in that place.
        let kept = elf.with_file_name("device-qemu-streams");
        std::fs::copy(&elf, &kept).map_err(|source| BuildError::NotKept { path: kept.clone(), source })?;
        return Ok(kept);
    }
    Ok(elf)
}

/// Whether a firmware compiles, without an image of it: warnings are errors.
///
/// # Errors
/// As [`build`].
pub fn check(
    firmware: Firmware,
    variation: &Variation,
    progress: impl FnMut(&str),
) -> Result<(), BuildError> {
    cargo("check", firmware, variation, " -Dwarnings", progress)
}

/// Where firmware is built, in the workspace.
const TARGET_DIR: &str = "target/firmware";

/// Has cargo do `what` with `flags` for the compiler besides the firmware's own.
fn cargo(
    what: &str,
    firmware: Firmware,
    variation: &Variation,
    flags: &str,
    mut progress: impl FnMut(&str),
) -> Result<(), BuildError> {
    let toolchain = Toolchain::find()?;
    let workspace = workspace();
    let manifest = workspace.join("device/boards").join(firmware.folder()).join("Cargo.toml");
    if !manifest.exists() {
        return Err(BuildError::NoSources(manifest));
    }
    let target_dir = workspace.join(TARGET_DIR);

    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([what, "--release", "--locked", "--bin", firmware.binary()]);
    cargo.args(firmware.features()).args(variation.arguments());
    cargo.arg("--manifest-path").arg(&manifest).arg("--target-dir").arg(&target_dir);
    toolchain.configure(&mut cargo, &format!("{}{flags}", firmware.flags(&workspace)));
    cargo.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());

    let mut child = cargo.spawn().map_err(BuildError::NoCargo)?;
    let mut tail = std::collections::VecDeque::with_capacity(TAIL_LINES);
    let stderr = child.stderr.take().expect("stderr is piped");
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        progress(&line);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line);
    }
    let status = child.wait().map_err(BuildError::NoCargo)?;
    if !status.success() {
        let tail = Vec::from(tail).join("\n");
        return Err(BuildError::Failed { firmware: firmware.binary(), status: status.to_string(), tail });
    }
    Ok(())
}
