//! Runs the harness as its users do: as a process, in a folder of its own, never for longer than a limit.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::allow_attributes, reason = "`expect` would fail in the binary that uses everything")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest a run of these tests may take: a hang is a failure.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A folder for scenario files and reports.
pub struct Bench {
    pub folder: tempfile::TempDir,
}

/// How a run of the harness ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Ended {
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// The process ended with `code` and said each of `words`, whatever way the lines were broken.
    #[track_caller]
    pub fn expect(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code(), code, "{self:#?}");
        let said = format!("{} {}", unwrapped(&self.stderr), unwrapped(&self.stdout));
        for word in words {
            assert!(said.contains(word), "{word:?} is missing in\n{said}\n{self:#?}");
        }
    }
}

/// Text without the frame and line breaks that a terminal's width gives it.
fn unwrapped(text: &str) -> String {
    let lines = text.lines().map(|line| line.trim_matches(|c: char| c.is_whitespace() || "│·".contains(c)));
    lines.collect::<Vec<_>>().join(" ")
}

impl Bench {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    /// A path in the bench's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file in the bench's folder; its path as the command line takes it.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("the folder is writable");
        path.display().to_string()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
        command.current_dir(self.folder.path()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_remove("RUST_LOG");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        finish(self.command(arguments).spawn().expect("the harness starts"))
    }

    /// Reports written so far, in order of their names.
    pub fn reports(&self) -> Vec<PathBuf> {
        let folders = |path: &Path| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(path).into_iter().flatten();
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect()
        };
        let mut reports: Vec<_> =
            folders(&self.path("reports")).iter().flat_map(|path| folders(path)).collect();
        reports.sort();
        reports
    }

    /// The only report, read.
    #[track_caller]
    pub fn report(&self) -> serde_json::Value {
        let reports = self.reports();
        assert_eq!(reports.len(), 1, "{reports:?}");
        read(&reports[0])
    }
}

/// A folder's report.
#[track_caller]
pub fn read(folder: &Path) -> serde_json::Value {
    let text = std::fs::read(folder.join("report.json"));
    let text = text.unwrap_or_else(|error| panic!("no report in {}: {error}", folder.display()));
    serde_json::from_slice(&text).expect("JSON")
}

/// Waits for a process to end, reading what it says; one that takes too long is killed, which fails the test.
#[track_caller]
pub fn finish(mut child: Child) -> Ended {
    let began = Instant::now();
    let readers = [
        child.stdout.take().map(|pipe| read_to_end(Box::new(pipe))),
        child.stderr.take().map(|pipe| read_to_end(Box::new(pipe))),
    ];
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is a child of ours") {
            break status;
        }
        if began.elapsed() > LIMIT {
            child.kill().expect("it is a child of ours");
            panic!("the harness hangs: {readers:?}", readers = readers.map(said));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let took = began.elapsed();
    let [stdout, stderr] = readers.map(said);
    Ended { status, stdout, stderr, took }
}

type Reader = std::thread::JoinHandle<String>;

fn read_to_end(mut pipe: Box<dyn std::io::Read + Send>) -> Reader {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn said(reader: Option<Reader>) -> String {
    reader.map(|reader| reader.join().expect("it only reads")).unwrap_or_default()
}

/// A scenario of a second: ten messages each way. `more` is put at its end, `expect` into its expectations.
pub fn tiny(expect: &str, more: &str) -> String {
    format!(
        r#"name = "tiny"
question = "Does it work?"
answer = "{{delivery.ratio}} arrived."
expect = ["board.faults = 0"{expect}]

[link.both]
delay = "5 ms"

[workload.up]
size = "64 B"
count = 10
interval = "50 ms"

[workload.down]
size = "64 B"
count = 10
interval = "50 ms"
{more}"#
    )
}
