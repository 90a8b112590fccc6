//! `--pcap`: captures that open decrypted, and no secrets without it.

use std::path::{Path, PathBuf};
use std::process::Command;

const SCENARIO: &str = r#"
name = "captured"
question = "Is the wire captured?"
answer = "{delivery.ratio} of {messages} messages arrived."
transports = ["quic", "tls"]
reference = false
expect = ["delivery.ratio = 100 %"]

[workload.up]
size = "64 B"
count = 3
interval = "20 ms"
"#;

/// Runs the scenario with `options`; returns the files of its report.
fn run(folder: &Path, options: &[&str]) -> Vec<PathBuf> {
    let scenario = folder.join("captured.toml");
    std::fs::write(&scenario, SCENARIO).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_harness"))
        .arg("scenario")
        .arg(&scenario)
        .arg("--reports")
        .arg(folder.join("reports"))
        .args(options)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let runs = std::fs::read_dir(folder.join("reports/captured")).unwrap();
    let [run] = &runs.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()[..] else { panic!("one run") };
    std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn holds(content: &[u8], text: &str) -> bool {
    content.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Labels of the secrets that decrypt a TLS 1.3 or QUIC session (the format of SSLKEYLOGFILE).
const LABELS: [&str; 4] = [
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
    "SERVER_HANDSHAKE_TRAFFIC_SECRET",
    "CLIENT_TRAFFIC_SECRET_0",
    "SERVER_TRAFFIC_SECRET_0",
];

#[test]
fn each_trial_of_a_captured_run_has_its_packets_and_their_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let files = run(folder.path(), &["--pcap"]);
    for name in ["wire-1.pcapng", "wire-2.pcapng"] {
        let path = files.iter().find(|path| path.ends_with(name)).unwrap_or_else(|| panic!("no {name}"));
        let capture = std::fs::read(path).unwrap();
        assert_eq!(capture[..4], 0x0a0d_0d0a_u32.to_le_bytes(), "{name} is no pcapng");
        for label in LABELS {
            assert!(holds(&capture, label), "{label} is missing in {name}");
        }
    }
    assert!(files.iter().any(|path| path.ends_with("mqtt-over-quic.lua")));
}

#[test]
fn a_run_that_is_not_captured_leaves_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    for path in run(folder.path(), &[]) {
        let content = std::fs::read(&path).unwrap();
        assert!(!holds(&content, "TRAFFIC_SECRET"), "{} holds secrets", path.display());
        assert!(path.extension().is_none_or(|extension| extension != "pcapng"), "{}", path.display());
    }
}
