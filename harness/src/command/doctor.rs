//! `harness doctor`: what this machine has and lacks, each with its remedy.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::{Exit, Failure, Format, print};
use crate::board::{BoardError, qemu};
use crate::broker::{EMQX_TAG, docker_engine};
use crate::firmware::toolchain::Toolchain;

/// One thing that some part of the harness needs.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    name: &'static str,
    /// What it is needed for.
    purpose: &'static str,
    /// What was found, or how to get it.
    state: Result<String, String>,
}

/// Looks at everything and prints it. A machine without a board or Docker is a fine machine: always passes.
pub fn run(format: Format) -> Result<Exit, Failure> {
    let findings = [host_board(), riscv_target(), qemu(), docker(), serial_ports()];
    print(&match format {
        Format::Human => human(&findings),
        Format::Json => json_text(&findings),
    });
    Ok(Exit::Passed)
}

fn host_board() -> Finding {
    Finding { name: "host board", purpose: "--board host", state: Ok("part of this program".to_owned()) }
}

fn riscv_target() -> Finding {
    let state = Toolchain::find()
        .map(|toolchain| {
            let way = match &toolchain {
                Toolchain::Installed { .. } => "target installed",
                Toolchain::BuildStd { .. } => "builds core from Debian's rust-web-src",
            };
            format!("{} ({way})", toolchain.version())
        })
        .map_err(|error| error.to_string());
    Finding { name: "RISC-V compiler", purpose: "firmware for --board qemu and --board esp32c3", state }
}

fn qemu() -> Finding {
    let state = qemu::find().map_err(|error| match error {
        BoardError::Start { what, remedy } => format!("{what}\n  remedy: {remedy}"),
        other => other.to_string(),
    });
    Finding { name: "QEMU", purpose: "--board qemu", state }
}

/// The engine that the harness would use, which need not be the one the `docker` program speaks to.
fn docker() -> Finding {
    let asked = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime can be started: {error}"))
        .and_then(|runtime| {
            runtime
                .block_on(docker_engine())
                .map_err(|error| format!("{error}\n  remedy: {}", error.remedy()))
        });
    let state = asked.map(|engine| {
        let emqx = match engine.emqx_missing {
            None => format!("emqx/emqx:{EMQX_TAG} is here: scenarios use it unless told otherwise"),
            Some(why) => format!("{why}: scenarios use the embedded broker, and say so"),
        };
        format!("engine {}\n  {emqx}", engine.version)
    });
    Finding { name: "Docker", purpose: "--broker emqx, --broker docker:IMAGE", state }
}

/// Where Linux lists the ports that USB boards appear at.
const DEVICES: &str = "/dev";
const PORT_PREFIXES: [&str; 3] = ["ttyACM", "ttyUSB", "cu.usb"];

fn serial_ports() -> Finding {
    let mut ports: Vec<_> = std::fs::read_dir(DEVICES)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| PORT_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    ports.sort();
    let state = if ports.is_empty() {
        Err("no USB serial port\n  remedy: connect the board; its USB-Serial-JTAG port appears as ttyACM0"
            .to_owned())
    } else {
        let barred = |name: &&String| {
            std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(Path::new(DEVICES).join(name))
                .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
        };
        match ports.iter().find(barred) {
            Some(port) => Err(format!(
                "{DEVICES}/{port} may not be opened\n  remedy: `usermod -aG dialout $USER` and log in again"
            )),
            None => Ok(ports.join(", ")),
        }
    };
    Finding { name: "serial ports", purpose: "--board esp32c3", state }
}

fn human(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { name, purpose, state } in findings {
        let (mark, detail) = match state {
            Ok(found) => ("has  ", found),
            Err(remedy) => ("lacks", remedy),
        };
        let _ = writeln!(text, "{mark} {name:<16} for {purpose}\n      {}", detail.replace('\n', "\n    "));
    }
    text
}

fn json_text(findings: &[Finding]) -> String {
    let rows: Vec<_> = findings
        .iter()
        .map(|Finding { name, purpose, state }| match state {
            Ok(found) => json!({ "name": name, "purpose": purpose, "present": true, "detail": found }),
            Err(remedy) => json!({ "name": name, "purpose": purpose, "present": false, "remedy": remedy }),
        })
        .collect();
    format!("{:#}\n", json!(rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_comes_with_its_remedy() {
        let finding =
            Finding { name: "QEMU", purpose: "--board qemu", state: Err("remedy: install it".to_owned()) };
        assert!(human(&[finding]).contains("lacks QEMU"));
    }
}
