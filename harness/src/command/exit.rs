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
}

impl Exit {
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
        })
    }
}
