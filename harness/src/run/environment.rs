//! Where a run takes place: recorded so that its figures can be judged and repeated.

use std::process::{Command, Stdio};

use crate::measure::record::Host;

/// The machine this harness runs on.
pub fn host() -> Host {
    Host { os: os(), cpu: cpu(), cores: cores(), load: load() }
}

/// Git revision of the working folder, with `-dirty` when the tree has changes; `None` outside a checkout.
pub fn git_revision() -> Option<String> {
    let workspace = crate::firmware::build::workspace();
    let mut git = Command::new("git");
    git.arg("-C").arg(workspace).args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
    first_line(&mut git)
}

/// The compiler on the path, as it names itself.
pub fn rustc_version() -> Option<String> {
    first_line(Command::new("rustc").arg("--version"))
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let line = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}

fn os() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {} {}", std::env::consts::OS, release.trim(), std::env::consts::ARCH).replace("  ", " ")
}

fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    model.map_or_else(|| "unknown".to_owned(), |model| model.trim_start_matches(['\t', ' ', ':']).to_owned())
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

fn load() -> Option<f32> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}
