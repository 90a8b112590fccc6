//! Finds a compiler for `riscv32imc-unknown-none-elf`.
//!
//! Two ways lead there. Where rustup can download, `rustup target add` has put the target's `core` beside the
//! host's. Where it cannot, Debian's `rustc-web` and `rust-web-src` packages bring a compiler with the library
//! sources, and cargo builds `core` from them (`-Zbuild-std`); the linker is the `rust-lld` that any rustup
//! toolchain ships, or Debian's `ld.lld`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The target of the ESP32-C3 and of the QEMU board.
pub const TARGET: &str = "riscv32imc-unknown-none-elf";

/// Debian's `rustc-web` installs its compiler here; a rustup shim is elsewhere.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// The directory that `rust-web-src` fills, under the compiler's sysroot.
const DEBIAN_LIBRARY: &str = "/usr/lib/rustlib/src/rust/library";

/// For both ways: SHA-256 and AES in loops rather than unrolled; code that the linker may shorten: most of its calls
/// then take 4 bytes instead of 8; registers saved and restored in shared routines, which each board brings
/// (`device/boards/save_restore.s`).
const RUSTFLAGS: &str = "--cfg sha2_backend_soft=\"compact\" --cfg aes_backend_soft=\"compact\" \
                         -Ctarget-feature=+relax,+save-restore";

/// A compiler that reaches [`TARGET`], and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The active toolchain has the target installed.
    Installed {
        /// `rustc --version`.
        version: String,
    },
    /// Debian's compiler builds `core` itself.
    BuildStd {
        /// The compiler.
        rustc: PathBuf,
        /// The linker to hand it.
        linker: PathBuf,
        /// `rustc --version`.
        version: String,
    },
}

/// Nothing on this machine compiles for the target.
#[derive(Debug, thiserror::Error)]
#[error(
    "no compiler for {TARGET}: {missing}\n  remedy: `rustup target add {TARGET}`, or, where rustup cannot download, \
     `apt-get install rustc-web rust-web-src` (Debian)"
)]
pub struct ToolchainError {
    missing: String,
}

impl Toolchain {
    /// Looks at the active toolchain first, then at Debian's packages.
    ///
    /// # Errors
    /// [`ToolchainError`] with the remedy, if neither will do.
    pub fn find() -> Result<Self, ToolchainError> {
        let installed = target_is_installed("rustc");
        if let Some(version) = installed {
            return Ok(Self::Installed { version });
        }
        let rustc = PathBuf::from(DEBIAN_RUSTC);
        let Some(version) = output(&rustc, &["--version"]) else {
            return Err(ToolchainError {
                missing: "the active toolchain lacks the target, and Debian's rustc-web is not installed"
                    .into(),
            });
        };
        if !Path::new(DEBIAN_LIBRARY).join("core/src/lib.rs").exists() {
            return Err(ToolchainError {
                missing: format!("{DEBIAN_LIBRARY} is missing (package rust-web-src)"),
            });
        }
        let linker = find_linker().ok_or_else(|| ToolchainError {
            missing: "no rust-lld in the active toolchain and no ld.lld on the path (package lld)".into(),
        })?;
        Ok(Self::BuildStd { rustc, linker, version })
    }

    /// The compiler's own version line.
    pub fn version(&self) -> &str {
        match self {
            Self::Installed { version } | Self::BuildStd { version, .. } => version,
        }
    }

    /// What to tell where a budget is exceeded: the budgets were measured with a `core` that is built for size with the
    /// firmware.
    pub fn remark(&self) -> Option<&'static str> {
        match self {
            Self::Installed { .. } => Some(
                "this compiler brings a `core` that was built for speed, the budgets were measured with one that is built for \
                 size: to measure as CI does, remove the target from the toolchain and install Debian's rustc-web and \
                 rust-web-src",
            ),
            Self::BuildStd { .. } => None,
        }
    }

    /// Sets up a `cargo` command to build for [`TARGET`], with `flags` for the compiler besides the usual ones.
    pub fn configure(&self, cargo: &mut Command, flags: &str) {
        // A cargo that runs this harness exports these for the host build; they must not reach the firmware's.
        for variable in
            ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR", "RUSTC"]
        {
            cargo.env_remove(variable);
        }
        cargo.args(["--target", TARGET]);
        cargo.env("CARGO_TARGET_RISCV32IMC_UNKNOWN_NONE_ELF_RUSTFLAGS", format!("{RUSTFLAGS}{flags}"));
        // The compiler is a release; some flags and building its own library are unstable.
        cargo.env("RUSTC_BOOTSTRAP", "1");
        if let Self::BuildStd { rustc, linker, .. } = self {
            cargo
                .arg("-Zbuild-std=core,alloc")
                .env("RUSTC", rustc)
                .env("CARGO_TARGET_RISCV32IMC_UNKNOWN_NONE_ELF_LINKER", linker);
        }
    }
}

/// Flags that take this machine's folders out of an image: they begin the names of source files in panic messages,
/// fifteen kilobytes of them, and are nobody's business.
pub fn without_folders(workspace: &Path) -> String {
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(Path::new(&home).join(".cargo"))
    });
    let sources = cargo_home.and_then(|home| std::fs::read_dir(home.join("registry/src")).ok());
    let registries = sources.into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let folders = registries.chain([DEBIAN_LIBRARY.into(), workspace.to_owned()]);
    folders
        .map(|folder| folder.display().to_string())
        // Flags are parted by spaces.
        .filter(|folder| !folder.contains(char::is_whitespace))
        .map(|folder| format!(" --remap-path-prefix={folder}/="))
        .collect()
}

fn target_is_installed(rustc: &str) -> Option<String> {
    let rustc = Path::new(rustc);
    let libraries = output(rustc, &["--print", "target-libdir", "--target", TARGET])?;
    let has_core = std::fs::read_dir(&libraries)
        .ok()?
        .filter_map(Result::ok)
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"));
    if has_core { output(rustc, &["--version"]) } else { None }
}

fn find_linker() -> Option<PathBuf> {
    let sysroot = output(Path::new("rustc"), &["--print", "sysroot"]);
    let host = output(Path::new("rustc"), &["--print", "host-tuple"]);
    if let (Some(sysroot), Some(host)) = (sysroot, host) {
        let lld = Path::new(&sysroot).join("lib/rustlib").join(host).join("bin/rust-lld");
        if lld.exists() {
            return Some(lld);
        }
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join("ld.lld"))
        .find(|lld| lld.exists())
}

fn output(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).env_remove("RUSTC_WRAPPER").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_target_needs_no_further_flags() {
        let mut cargo = Command::new("cargo");
        Toolchain::Installed { version: "rustc 1.95.0".into() }.configure(&mut cargo, "");
        let arguments: Vec<_> = cargo.get_args().collect();
        assert_eq!(arguments, ["--target", TARGET]);
    }

    #[test]
    fn only_a_compiler_that_the_budgets_were_not_measured_with_is_remarked_on() {
        let version = String::new();
        let installed = Toolchain::Installed { version: version.clone() };
        assert!(installed.remark().is_some_and(|remark| remark.contains("rust-web-src")));
        let measured =
            Toolchain::BuildStd { rustc: "/c/rustc".into(), linker: "/l/rust-lld".into(), version };
        assert_eq!(measured.remark(), None);
    }

    #[test]
    fn build_std_names_its_compiler_and_linker() {
        let mut cargo = Command::new("cargo");
        let toolchain = Toolchain::BuildStd {
            rustc: "/c/rustc".into(),
            linker: "/l/rust-lld".into(),
            version: String::new(),
        };
        toolchain.configure(&mut cargo, "");
        let set = |name: &str| {
            let value = cargo.get_envs().find(|(key, _)| *key == name).and_then(|(_, value)| value);
            value.map(|value| value.to_string_lossy().into_owned())
        };
        assert_eq!(set("RUSTC").as_deref(), Some("/c/rustc"));
        assert_eq!(set("CARGO_TARGET_RISCV32IMC_UNKNOWN_NONE_ELF_LINKER").as_deref(), Some("/l/rust-lld"));
        assert!(cargo.get_args().any(|argument| argument == "-Zbuild-std=core,alloc"));
        let flags = set("CARGO_TARGET_RISCV32IMC_UNKNOWN_NONE_ELF_RUSTFLAGS");
        assert_eq!(flags.as_deref(), Some(RUSTFLAGS));
    }

    #[test]
    fn flags_of_a_board_follow_the_usual_ones() {
        let mut cargo = Command::new("cargo");
        Toolchain::Installed { version: String::new() }.configure(&mut cargo, " -Cmore");
        let flags =
            cargo.get_envs().find_map(|(key, value)| key.to_str()?.ends_with("_RUSTFLAGS").then_some(value?));
        assert_eq!(flags.unwrap().to_str(), Some(format!("{RUSTFLAGS} -Cmore").as_str()));
    }

    #[test]
    fn the_checkout_s_folder_is_taken_out_of_images() {
        let flags = without_folders(Path::new("/home/somebody/checkout"));
        assert!(flags.contains(" --remap-path-prefix=/home/somebody/checkout/="), "{flags}");
        assert!(!without_folders(Path::new("/with a space")).contains("space"));
    }

    #[test]
    fn the_error_names_both_remedies() {
        let text = ToolchainError { missing: "nothing".into() }.to_string();
        assert!(text.contains("rustup target add riscv32imc-unknown-none-elf"));
        assert!(text.contains("apt-get install rustc-web rust-web-src"));
    }
}
