//! The one QMP command that is needed: reset.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Time QEMU has for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// QEMU's monitor.
pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Takes the greeting and leaves capability negotiation.
    pub(super) async fn greet(stream: UnixStream) -> io::Result<Self> {
        let mut qmp = Self { stream: BufReader::new(stream) };
        let mut greeting = String::new();
        qmp.stream.read_line(&mut greeting).await?;
        if !greeting.contains("\"QMP\"") {
            return Err(io::Error::other(format!("no QMP greeting but {greeting:?}")));
        }
        qmp.execute("qmp_capabilities").await?;
        Ok(qmp)
    }

    /// Resets the machine, as its reset line would.
    pub(super) async fn reset(&mut self) -> io::Result<()> {
        self.execute("system_reset").await
    }

    async fn execute(&mut self, command: &str) -> io::Result<()> {
        self.stream.write_all(format!("{{\"execute\":\"{command}\"}}\n").as_bytes()).await?;
        timeout(ANSWER_LIMIT, self.answer(command)).await.map_err(|_| {
            io::Error::other(format!("QEMU did not answer `{command}` within {ANSWER_LIMIT:?}"))
        })?
    }

    /// Reads past events to the answer.
    async fn answer(&mut self, command: &str) -> io::Result<()> {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err(io::Error::other("QEMU closed its monitor"));
            }
            let message: serde_json::Value = serde_json::from_str(&line)?;
            if message.get("return").is_some() {
                return Ok(());
            }
            if let Some(error) = message.get("error") {
                return Err(io::Error::other(format!("QEMU refused `{command}`: {error}")));
            }
        }
    }
}
