//! What a run on a scripted board needs.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use harness::board::esp32c3::history::{Archive, Happening};

use super::device::{PASSWORD, SSID, Script, Scripted};
use super::{harness, timed};

/// A port that is free for UDP and TCP on loopback; the proxy will listen there.
pub fn free_port() -> SocketAddrV4 {
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let port = udp.local_addr().expect("bound").port();
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

/// A scripted board, the harness's state, and where the proxy listens.
pub struct Bench {
    /// Locks, histories and reports.
    pub state: tempfile::TempDir,
    /// The board.
    pub board: Scripted,
    /// The proxy's address, the one that the board's network leads to.
    pub listen: SocketAddrV4,
}

impl Bench {
    /// A bench with a board that does what `script` says.
    pub fn new(script: Script) -> Self {
        let listen = free_port();
        let state = tempfile::tempdir().expect("a folder");
        Self { state, board: Scripted::start(script, listen), listen }
    }

    /// The command that runs a scenario once with the firmware that is on the board.
    pub fn scenario(&self, name: &str, more: &[&str]) -> Command {
        let mut command = self.flashing_scenario(name, more);
        command.arg("--no-flash");
        command
    }

    /// The command that flashes the board and runs a scenario once.
    pub fn flashing_scenario(&self, name: &str, more: &[&str]) -> Command {
        let mut command = harness(self.state.path());
        command.args(["scenario", name, "--board", "esp32c3", "--repeat", "1", "--format", "json"]);
        command.arg("--port").arg(self.board.port()).arg("--listen").arg(self.listen.to_string());
        command.env("HARNESS_WIFI_SSID", SSID).env("HARNESS_WIFI_PASSWORD", PASSWORD).args(more);
        command
    }

    /// Runs a scenario with the firmware that is on the board.
    pub fn run(&self, name: &str, more: &[&str]) -> (Output, Duration) {
        timed(&mut self.scenario(name, more))
    }

    /// Where this bench keeps the histories of its boards.
    pub fn archive(&self) -> Archive {
        Archive::at(&self.state.path().join("state/boards"))
    }

    /// What was done with the board and what it failed at, oldest first.
    pub fn history(&self) -> Vec<Happening> {
        self.archive().read(&self.board.port().display().to_string()).0
    }

    /// The folders of all reports of a scenario.
    pub fn run_folders(&self, scenario: &str) -> Vec<PathBuf> {
        let runs = self.state.path().join("reports").join(scenario);
        let runs = std::fs::read_dir(&runs).expect("a run").flatten().map(|entry| entry.path());
        runs.filter(|path| path.join("report.json").exists()).collect()
    }

    /// The folder of the one report there is.
    #[track_caller]
    pub fn run_folder(&self, scenario: &str) -> PathBuf {
        self.run_folders(scenario).pop().expect("a report")
    }

    /// A file of the one report there is.
    pub fn report(&self, scenario: &str, file: &str) -> String {
        std::fs::read_to_string(self.run_folder(scenario).join(file)).expect("written")
    }

    /// The report itself.
    pub fn json(&self, scenario: &str) -> serde_json::Value {
        serde_json::from_str(&self.report(scenario, "report.json")).expect("JSON")
    }

    /// That console and report both have each of `parts`.
    #[track_caller]
    pub fn assert_told_and_reported(&self, scenario: &str, told: &str, parts: &[&str]) {
        let report = self.json(scenario);
        let ending = report["record"]["ending"]["cause"]
            .as_str()
            .or(report["record"]["trials"][0]["ending"]["cause"].as_str());
        let ending = ending.unwrap_or_else(|| panic!("nothing failed: {}", report["record"]["ending"]));
        let ending = ending.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in parts {
            assert!(told.contains(part), "`{part}` is missing on the console: {told}");
            assert!(ending.contains(part), "`{part}` is missing in the report: {ending}");
        }
    }
}
