//! Exit codes.

use std::process::ExitCode;

/// How a command ended, for the caller's script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Everything asked for holds.
    Passed,
    /// An expectation, a budget or a comparison failed.
    Failed,
    /// The command line or a scenario file is wrong.
    Usage,
    /// Board, broker, Docker, port: the environment.
    Environment,
    /// The harness itself failed.
    Bug,
}

impl Exit {
    /// The worse of two: of several runs, the process tells the one that matters most.
    pub fn worst(self, other: Self) -> Self {
        let rank = |exit| match exit {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::Environment => 2,
            Self::Usage => 3,
            Self::Bug => 4,
        };
        if rank(other) > rank(self) { other } else { self }
    }

    /// The word for readers.
    pub fn label(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Environment => "environment",
            Self::Bug => "a bug in the harness",
        }
    }

    /// [`Exit::Passed`] or [`Exit::Failed`].
    pub fn from_verdict(passed: bool) -> Self {
        if passed { Self::Passed } else { Self::Failed }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Passed => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Environment => 3,
            Exit::Bug => 101,
        })
    }
}
