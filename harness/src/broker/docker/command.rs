//! Commands of the broker's own, run in its container.

use std::time::Duration;

use testcontainers::core::{ExecCommand, ExecResult};

use super::engine::{DAEMON_LIMIT, docker_error};
use super::{Containerized, State};
use crate::broker::error::BrokerError;

/// The daemon knows the exit code a moment after the output ends.
const CODE_PAUSE: Duration = Duration::from_millis(20);

impl Containerized {
    /// What `command` writes to its standard output.
    ///
    /// # Errors
    /// When it cannot be run, does not end, or ends with another exit code than 0.
    pub(super) async fn exec(&self, command: &[&str]) -> Result<String, BrokerError> {
        self.run(command).await.map(|outcome| outcome.stdout)
    }

    /// Runs a `command` whose exit code alone does not say that it was done: its standard output does, to `done`.
    ///
    /// # Errors
    /// As [`Self::exec`], and when its output says otherwise.
    pub(super) async fn exec_done(
        &self,
        command: &[&str],
        done: fn(&str) -> bool,
    ) -> Result<(), BrokerError> {
        let outcome = self.run(command).await?;
        if done(&outcome.stdout) {
            return Ok(());
        }
        Err(self.command_error(command, "does not say that it was done".into(), outcome.told()))
    }

    fn command_error(&self, command: &[&str], ending: String, output: String) -> BrokerError {
        BrokerError::Command { image: self.image.clone(), command: command.join(" "), ending, output }
    }

    async fn run(&self, command: &[&str]) -> Result<Outcome, BrokerError> {
        let failed = |ending: String, output: String| self.command_error(command, ending, output);
        let (State::Running(container) | State::Paused(container)) = &self.state else {
            return Err(failed("cannot be run: the container does not run".into(), String::new()));
        };
        let asked = ExecCommand::new(command.iter().copied());
        let run = async { outcome(container.exec(asked).await?).await };
        let outcome = tokio::time::timeout(DAEMON_LIMIT, run).await.map_err(|_| {
            failed(format!("does not end within {} s", DAEMON_LIMIT.as_secs()), String::new())
        })?;
        let outcome =
            outcome.map_err(|error| docker_error(&format!("run `{}`", command.join(" ")), &error))?;
        if outcome.code == 0 {
            return Ok(outcome);
        }
        Err(failed(format!("ends with exit code {}", outcome.code), outcome.told()))
    }
}

/// How a command ended.
struct Outcome {
    code: i64,
    stdout: String,
    stderr: String,
}

impl Outcome {
    /// What it wrote, errors last.
    fn told(&self) -> String {
        format!("{}{}", self.stdout, self.stderr).trim_end().to_owned()
    }
}

async fn outcome(mut running: ExecResult) -> Result<Outcome, testcontainers::TestcontainersError> {
    let stdout = running.stdout_to_vec().await?;
    let stderr = running.stderr_to_vec().await?;
    let code = loop {
        match running.exit_code().await? {
            Some(code) => break code,
            None => tokio::time::sleep(CODE_PAUSE).await,
        }
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Outcome { code, stdout: text(stdout), stderr: text(stderr) })
}
