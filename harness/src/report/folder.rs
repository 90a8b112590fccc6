//! The folder of a run. It is made when the run starts, so that logs go straight into it; it never replaces
//! one that is there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::utc::Utc;
use super::{Report, csv, html, junit};
use crate::measure::record::SCHEMA_VERSION;

/// The folder of one run, `reports/<scenario>/<run>/`.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

/// What can go wrong with a report on disk.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file or folder could not be written.
    #[error("cannot write {}: {source}; check the space and rights there, or choose another folder with --reports", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {}: {source}; give a report folder or its report.json", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no report.
    #[error("{} is no report: {problem}; give a report folder or its report.json", path.display())]
    Malformed {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The report was written by another version.
    #[error("{} has schema {found}, this harness reads {SCHEMA_VERSION}; use the harness that wrote it", path.display())]
    Schema {
        /// Which one.
        path: PathBuf,
        /// Its schema version.
        found: u64,
    },
    /// A baseline cannot be used.
    #[error("{} is no baseline: {problem}; make one with --write-baseline", path.display())]
    Baseline {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A baseline of something else.
    #[error("the baseline is of {baseline}, the run of {run}; give the baseline of this scenario and board")]
    ForeignBaseline {
        /// What the baseline is of.
        baseline: String,
        /// What the run is of.
        run: String,
    },
}

/// Runs of one scenario and seed that start within the same second.
const SAME_SECOND_MAX: u32 = 1000;

impl Folder {
    /// Files a run may leave, by the beginning and end of their names, in the order pages list them. Logs of a
    /// single trial carry its number: `link-3.jsonl`.
    const FILES: [(&'static str, &'static str, &'static str); 9] = [
        ("report", ".json", "everything on this page and the record it was drawn from"),
        ("samples", ".csv", "every message, one a line"),
        ("junit", ".xml", "expectations as test cases, for CI"),
        ("scenario", ".toml", "the scenario as it was run"),
        ("link", ".jsonl", "every decision of the emulated network"),
        ("console", ".log", "what the board said"),
        ("broker", ".log", "what the broker said"),
        ("wire", ".pcapng", "packets on the wire, with the TLS secrets that decrypt them, for Wireshark"),
        (
            "mqtt-over-quic",
            ".lua",
            "for Wireshark to read MQTT in QUIC: `wireshark -X lua_script:mqtt-over-quic.lua wire-1.pcapng`",
        ),
    ];

    /// Makes a folder that was not there: `<root>/<scenario>/<UTC time>-s<seed>`, with a counter if need be.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn create(root: &Path, scenario: &str, started_unix_us: u64, seed: u64) -> Result<Self, ReportError> {
        let parent = root.join(scenario);
        let failed = |path: &Path, source| ReportError::Write { path: path.to_owned(), source };
        fs::create_dir_all(&parent).map_err(|error| failed(&parent, error))?;
        let stem = format!("{}-s{seed}", Utc::from_unix_us(started_unix_us).compact());
        for count in 1..=SAME_SECOND_MAX {
            let name = if count == 1 { stem.clone() } else { format!("{stem}-{count}") };
            let path = parent.join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(&path, error)),
            }
        }
        let full = io::Error::new(io::ErrorKind::AlreadyExists, "a thousand runs started in this second");
        Err(failed(&parent, full))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of a file in it, for the logs of a run: `link.jsonl`, `console.log`, `broker.log`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes the report beside the logs. The page links whatever files are there by then.
    ///
    /// # Errors
    /// A file cannot be written, or is there already.
    pub fn write(&self, report: &Report) -> Result<(), ReportError> {
        let json = serde_json::to_vec(report).expect("a report has string keys only");
        self.put("report.json", &json)?;
        self.put("samples.csv", csv::samples(&report.record).as_bytes())?;
        self.put("junit.xml", junit::document(report).as_bytes())?;
        self.put("scenario.toml", report.record.scenario.source.as_bytes())?;
        self.put("report.html", html::page(report, &self.present()?).as_bytes())
    }

    /// The kinds of files that are there, with their names in order.
    fn present(&self) -> Result<Vec<html::Raw>, ReportError> {
        let failed = |source| ReportError::Read { path: self.path.clone(), source };
        let entries = fs::read_dir(&self.path).map_err(failed)?;
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        // By length first, so that 10 comes after 9.
        names.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        let kinds = Self::FILES.into_iter().map(|(start, end, description)| {
            let of_kind = |name: &&String| {
                let middle = name.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
                middle.is_some_and(|middle| middle.is_empty() || middle.starts_with('-'))
            };
            html::Raw { names: names.iter().filter(of_kind).cloned().collect(), description }
        });
        Ok(kinds.filter(|kind| !kind.names.is_empty()).collect())
    }

    fn put(&self, name: &str, content: &[u8]) -> Result<(), ReportError> {
        let path = self.file(name);
        let written = fs::File::create_new(&path).and_then(|mut file| {
            // Half a report is none: where the disk is full, what others would read as whole must not stay.
            io::Write::write_all(&mut file, content).inspect_err(|_| drop(fs::remove_file(&path)))
        });
        written.map_err(|source| ReportError::Write { path, source })
    }
}

pub(super) fn load(path: &Path) -> Result<Report, ReportError> {
    let path = if path.is_dir() { path.join("report.json") } else { path.to_owned() };
    let text = fs::read(&path).map_err(|source| ReportError::Read { path: path.clone(), source })?;
    let malformed =
        |error: serde_json::Error| ReportError::Malformed { path: path.clone(), problem: error.to_string() };
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(malformed)?;
    match value.get("schema").and_then(serde_json::Value::as_u64) {
        Some(found) if found != u64::from(SCHEMA_VERSION) => return Err(ReportError::Schema { path, found }),
        Some(_) => {}
        None => return Err(ReportError::Malformed { path, problem: "it has no schema version".into() }),
    }
    serde_json::from_value(value).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::sample;
    use crate::scenario::Scenario;

    fn report() -> Report {
        Report::new(sample::record(), &Scenario::parse("sample.toml", sample::SCENARIO).unwrap())
    }

    #[test]
    fn a_report_is_written_whole_and_reads_back() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::create(root.path(), "sample", 1_795_458_195_000_000, 7).unwrap();
        assert!(folder.path().ends_with("sample/20261123T182315Z-s7"));
        for name in ["console-1.log", "console-10.log", "console-2.log", "broker.log"] {
            fs::write(folder.file(name), "hello\n").unwrap();
        }
        let report = report();
        folder.write(&report).unwrap();
        for name in ["report.html", "report.json", "samples.csv", "junit.xml", "scenario.toml"] {
            assert!(fs::metadata(folder.file(name)).unwrap().len() > 100, "{name}");
        }
        let page = fs::read_to_string(folder.file("report.html")).unwrap();
        let at = |name: &str| page.find(&format!("href=\"{name}\"")).unwrap_or_else(|| panic!("{name}"));
        assert!(at("console-2.log") < at("console-10.log") && at("console-10.log") < at("broker.log"));
        assert!(!page.contains("href=\"link"));
        let read = Report::load(folder.path()).unwrap();
        assert_eq!(read, report);
        assert_eq!(read.renewed().unwrap(), report);
    }

    #[test]
    fn an_existing_report_is_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let first = Folder::create(root.path(), "sample", 0, 1).unwrap();
        let second = Folder::create(root.path(), "sample", 0, 1).unwrap();
        assert_ne!(first.path(), second.path());
        assert!(second.path().ends_with("19700101T000000Z-s1-2"));
        let report = report();
        first.write(&report).unwrap();
        let before = fs::read(first.file("report.json")).unwrap();
        assert!(matches!(first.write(&report), Err(ReportError::Write { .. })));
        assert_eq!(fs::read(first.file("report.json")).unwrap(), before);
    }

    #[test]
    fn what_is_no_report_is_named() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("report.json");
        let said = || Report::load(root.path()).unwrap_err().to_string();
        assert!(said().contains("cannot read"), "{}", said());
        fs::write(&path, "{}").unwrap();
        assert!(said().contains("no schema version"), "{}", said());
        fs::write(&path, "{\"schema\": 99}").unwrap();
        assert!(said().contains("has schema 99"), "{}", said());
        fs::write(&path, "{\"schema\": 1}").unwrap();
        assert!(said().contains("missing field"), "{}", said());
        fs::write(&path, "hello").unwrap();
        assert!(said().contains("is no report"), "{}", said());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_with_a_remedy() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("in-the-way");
        fs::write(&file, "").unwrap();
        let error = Folder::create(&file, "sample", 0, 1).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("--reports"), "{error}");
    }
}
