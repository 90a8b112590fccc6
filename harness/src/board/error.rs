//! What goes wrong with a board, where, and what to do about it.

use std::io;
use std::time::Duration;

use device::control::{AbandonReason, BlobKind, Refusal};

use super::{Autopsy, Place};

/// A board could not be used, or stopped being usable.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum BoardError {
    /// It could not be started.
    #[error("the board did not start: {what}")]
    #[diagnostic(help("{remedy}"))]
    Start {
        /// What happened.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// A tethered board cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tethered(#[from] super::esp32c3::Fault),
    /// It is gone.
    #[error("the board died: {0}")]
    #[diagnostic(help("{}", .0.remedy()))]
    Died(Box<Death>),
    /// It did not do something in time.
    #[error("no sign of {what} within {limit:?}")]
    #[diagnostic(help(
        "the console (its log, or `harness monitor`) shows what the board did instead; it may hang"
    ))]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// It runs, but no longer does anything that can be seen.
    #[error("the board hangs: no answer to {what} within {limit:?}{}", at(&place.backtrace))]
    #[diagnostic(help("{}", look(place)))]
    Hung {
        /// What it was asked.
        what: &'static str,
        /// How long it had.
        limit: Duration,
        /// Where it stands, as far as the board can be looked into.
        place: Place,
    },
    /// It did not carry a command out.
    #[error("the board refused {request}: {}", explain(*refusal))]
    #[diagnostic(help("{}", remedy(*refusal)))]
    Refused {
        /// The command.
        request: &'static str,
        /// Why.
        refusal: Refusal,
    },
    /// It carried a command out, and the broker's limits left it without an end.
    #[error("the board gave {request} up: {}", explain_abandoned(*reason))]
    #[diagnostic(help("{}", remedy_abandoned(*reason)))]
    Abandoned {
        /// The command.
        request: &'static str,
        /// Why.
        reason: AbandonReason,
    },
    /// Firmware and harness are of different versions.
    #[error("the firmware speaks control protocol {board}, this harness {harness}")]
    #[diagnostic(help("build the firmware from the same revision as the harness and start again"))]
    Protocol {
        /// The board's version.
        board: u16,
        /// The harness's version.
        harness: u16,
    },
    /// A certificate or key is larger than the control channel carries.
    #[error("{kind:?} has {len} bytes, more than the {limit} that a board takes")]
    #[diagnostic(help("use a P-256 certificate; RSA-4096 chains do not fit a small board"))]
    BlobTooLarge {
        /// What it is.
        kind: BlobKind,
        /// Its size.
        len: usize,
        /// The most there may be.
        limit: usize,
    },
    /// The console log cannot be written.
    #[error("cannot write the console log {path}")]
    #[diagnostic(help("check the directory's rights and free space"))]
    Log {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl BoardError {
    /// The error with its remedy, as logs and reports tell it.
    pub fn told(&self) -> String {
        match miette::Diagnostic::help(self) {
            Some(help) => format!("{self}\n  remedy: {help}"),
            None => self.to_string(),
        }
    }
}

/// What is known about the end of a board.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Death {
    /// Its panic report.
    pub panic: Option<String>,
    /// How its process or machine ended.
    pub status: Option<String>,
    /// What it said outside its console.
    pub errors: String,
    /// The cause in a few words, where its machine could tell.
    pub cause: Option<String>,
    /// Functions and lines, innermost first, where its machine could tell.
    pub backtrace: Vec<String>,
    /// What to do, where something outside the firmware ended it: a cable that was pulled.
    pub remedy: Option<String>,
}

/// Frames of a backtrace in a one-line message.
const FRAMES_SHOWN: usize = 4;

/// What to do about a board that hangs there.
fn look(place: &Place) -> String {
    match (&place.backtrace[..], &place.unknown) {
        ([], Some(why)) => format!("the console log shows what it did last; {why}"),
        ([], None) => {
            "the console log shows what it did last; run the scenario again with the same seed".to_owned()
        }
        _ => {
            "the console log holds the whole backtrace; run the scenario again with the same seed".to_owned()
        }
    }
}

/// The innermost frames of a backtrace, for the end of a sentence: from the first on that is not of Rust's own library, in
/// which a fault may show (a copy, a check) that its caller has.
pub(super) fn at(backtrace: &[String]) -> String {
    let is_library = |frame: &String| LIBRARY.iter().any(|folder| frame.contains(folder));
    let first = backtrace.iter().position(|frame| !is_library(frame)).unwrap_or(0);
    let shown: Vec<_> = backtrace[first..].iter().take(FRAMES_SHOWN).map(String::as_str).collect();
    if shown.is_empty() { String::new() } else { format!("; at {}", shown.join(" < ")) }
}

/// Where Rust's own library has its sources, whatever folder that was built in.
const LIBRARY: [&str; 2] = ["/library/core/", "/library/compiler-builtins/"];

impl Death {
    /// Adds what the machine could tell.
    pub(super) fn with(self, autopsy: Autopsy) -> Self {
        let Autopsy { cause, status, errors, backtrace, remedy } = autopsy;
        Self { panic: self.panic, cause, status, errors, backtrace, remedy }
    }

    /// What to do about it.
    pub fn remedy(&self) -> &str {
        let own = "the console log holds everything it said; run the scenario again with the same seed";
        self.remedy.as_deref().unwrap_or(own)
    }

    /// The one line that names the cause best.
    pub fn headline(&self) -> String {
        let panic = self.panic.as_deref().and_then(first_line);
        let errors = self.errors.lines().map(str::trim).find(|line| !line.is_empty());
        match (self.cause.as_deref().or(panic).or(errors), &self.status) {
            (Some(cause), Some(status)) => format!("{cause} ({status})"),
            (Some(cause), None) => cause.to_owned(),
            (None, Some(status)) => format!("without a word ({status})"),
            (None, None) => "its console closed without a word".to_owned(),
        }
    }
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.headline(), at(&self.backtrace))
    }
}

/// The message of a panic report: Rust puts it on the line below the place.
fn first_line(panic: &str) -> Option<&str> {
    let mut lines = panic.lines().map(str::trim).filter(|line| !line.is_empty());
    let place = lines.next()?;
    if place.ends_with(':') { lines.next().or(Some(place)) } else { Some(place) }
}

fn explain(refusal: Refusal) -> String {
    match refusal {
        Refusal::Unreadable => "it could not read the command".into(),
        Refusal::NotConfigured => "it has no settings yet".into(),
        Refusal::NotConnected => "there is no connection".into(),
        Refusal::Connected => "there is a connection already".into(),
        Refusal::Busy => "a workload is running".into(),
        Refusal::BlobOrder { expected } => format!("a piece is missing, offset {expected} was due"),
        Refusal::BlobTooLarge { limit } => format!("it stores no more than {limit} bytes of that"),
        Refusal::BadTrustAnchor => "the trust anchor is missing or no certificate".into(),
        Refusal::BadClientKey => "the client certificate or its key is unusable".into(),
        Refusal::BadSetting => "a setting has a value that it does not take".into(),
        Refusal::BadSize { min, max } => format!("payloads have {min} to {max} bytes"),
        Refusal::Full => "a queue is full".into(),
        Refusal::Unsupported => "this board or transport cannot do that".into(),
    }
}

const fn explain_abandoned(reason: AbandonReason) -> &'static str {
    match reason {
        AbandonReason::TooLarge => "its packet is larger than the broker takes",
        AbandonReason::StreamRefused => "the broker closed its data stream again and again",
        AbandonReason::Unsupported => {
            "the broker does not support this quality of service or retained messages"
        }
    }
}

const fn remedy_abandoned(reason: AbandonReason) -> &'static str {
    match reason {
        AbandonReason::TooLarge => "use shorter topics, or raise the broker's Maximum Packet Size",
        AbandonReason::StreamRefused => {
            "use streams = \"single\", or a broker that takes MQTT on several streams; its log says why it closed this one"
        }
        AbandonReason::Unsupported => "ask for a lower qos, or change the broker's limits",
    }
}

const fn remedy(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Unreadable => "build the firmware from the same revision as the harness",
        Refusal::NotConfigured => "send the settings first",
        Refusal::NotConnected => "connect first, or see the console log for why the connection ended",
        Refusal::Connected => "disconnect first",
        Refusal::Busy => "wait for the workload, or stop it",
        Refusal::BlobOrder { .. } => "send the certificate again from its start",
        Refusal::BlobTooLarge { .. } | Refusal::BadTrustAnchor => {
            "use the DER form of a P-256 authority's certificate"
        }
        Refusal::BadClientKey => "use a P-256 key in PKCS#8 with its certificate in DER",
        Refusal::BadSetting => "check addresses, ports, the client id and the datagram size (1200 to 1472)",
        Refusal::BadSize { .. } => "change the workload's size",
        Refusal::Full => "try again after an acknowledgement",
        Refusal::Unsupported => "choose another board or transport for this scenario",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_s_message_is_the_headline() {
        let death = Death {
            panic: Some(
                "\nthread 'board' panicked at src/x.rs:1:2:\nindex out of bounds\n  0: main\n".into(),
            ),
            status: Some("exit status: 101".into()),
            ..Death::default()
        };
        assert_eq!(death.headline(), "index out of bounds (exit status: 101)");
    }

    #[test]
    fn what_rusts_own_library_does_for_a_caller_is_not_the_place() {
        let frame = |name: &str, file: &str| format!("0x2004b654 {name} ({file}:131)");
        let copy = frame(
            "memcpy",
            "/usr/lib/rustlib/src/rust/library/compiler-builtins/compiler-builtins/src/mem/mod.rs",
        );
        let hint = frame("black_box", "/rustc/5980761/library/core/src/hint.rs");
        let own = frame("descend", "device/boards/qemu/src/board.rs");
        assert_eq!(at(&[copy.clone(), hint.clone(), own.clone()]), format!("; at {own}"));
        assert_eq!(at(&[own.clone(), hint.clone()]), format!("; at {own} < {hint}"));
        assert_eq!(at(std::slice::from_ref(&copy)), format!("; at {copy}"), "better than nothing");
    }

    #[test]
    fn the_innermost_frames_of_a_backtrace_are_told() {
        let backtrace: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let death = Death { cause: Some("stack overflow".into()), backtrace, ..Death::default() };
        assert_eq!(death.to_string(), "stack overflow; at a < b < c < d");
        let hung = |place| BoardError::Hung { what: "Ping", limit: Duration::from_secs(5), place };
        let seen = hung(Place { backtrace: vec!["f".into()], unknown: None });
        assert_eq!(seen.to_string(), "the board hangs: no answer to Ping within 5s; at f");
        let unseen = hung(Place::unknown("open its lid"));
        assert_eq!(
            unseen.told(),
            "the board hangs: no answer to Ping within 5s\n  remedy: the console log shows what it did last; open its lid"
        );
    }

    #[test]
    fn a_silent_end_is_told_by_its_status() {
        let death = Death { status: Some("signal: 9 (SIGKILL)".into()), ..Death::default() };
        assert_eq!(death.headline(), "without a word (signal: 9 (SIGKILL))");
    }
}
