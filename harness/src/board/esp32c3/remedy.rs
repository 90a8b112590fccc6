//! What is to be done about a fault: by the person who reads of it, by the recovery ladder, by the board's history.

use super::Fault;

impl Fault {
    /// Whether another rung of the recovery ladder may help.
    pub fn is_recoverable(&self) -> bool {
        matches!(
            self,
            Self::Silent { .. }
                | Self::Garbage { .. }
                | Self::DownloadMode { .. }
                | Self::NoRestart { .. }
                | Self::Pulled { .. }
                | Self::NoPort { .. }
                | Self::Port { .. }
                | Self::NoLoader { .. }
        )
    }

    /// Whether it counts against the board: what a wrong password, a missing network or another program on the port does
    /// says nothing about it, nor does a firmware that is not there or not ours.
    pub fn is_of_board(&self) -> bool {
        self.is_recoverable()
            || matches!(
                self,
                Self::Crashes { .. } | Self::TimeLimit { .. } | Self::Verify { .. } | Self::Flash { .. }
            )
    }

    /// What counts against the board, in a line.
    pub fn of_board(&self) -> Option<String> {
        self.is_of_board().then(|| self.to_string().lines().next().unwrap_or_default().to_owned())
    }

    /// The remedy.
    pub fn remedy(&self) -> String {
        miette::Diagnostic::help(self).map_or_else(String::new, |help| help.to_string())
    }

    /// The fault with its remedy, as lists, logs and reports tell it.
    pub fn told(&self) -> String {
        format!("{self}\n  remedy: {}", self.remedy())
    }
}
