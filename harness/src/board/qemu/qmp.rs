//! The few commands of QEMU's monitor that are needed: reset, and a look at a machine that hangs.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Time QEMU has for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// End of the board's RAM, where its stack begins.
const STACK_END: u64 = 0x8005_0000;
/// Words of the stack that are looked at.
const STACK_WORDS: u64 = 1_024;

/// What a backtrace is made from.
pub(super) struct Registers {
    /// The program counter.
    pub pc: u64,
    /// The return address register.
    pub ra: u64,
    /// Words from the stack pointer up.
    pub stack: Vec<u64>,
}

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
        self.execute("system_reset").await.map(drop)
    }

    /// Registers and the top of the stack, of a machine held still meanwhile.
    pub(super) async fn examine(&mut self) -> io::Result<Registers> {
        // Of a running machine QEMU knows where it was at its last exit from translated code only.
        self.execute("stop").await?;
        let registers = self.registers().await;
        self.execute("cont").await?;
        registers
    }

    async fn registers(&mut self) -> io::Result<Registers> {
        let text = self.monitor("info registers").await?;
        let register = |name: &str| {
            let mut words = text.split_whitespace();
            words.find(|word| *word == name)?;
            u64::from_str_radix(words.next()?, 16).ok()
        };
        let missing = || io::Error::other("QEMU's `info registers` has no pc, ra and sp");
        let pc = register("pc").ok_or_else(missing)?;
        let ra = register("x1/ra").ok_or_else(missing)?;
        let sp = register("x2/sp").ok_or_else(missing)?;
        let room = STACK_END.saturating_sub(sp) / 4;
        let mut stack = Vec::new();
        if room > 0 {
            let dump = self.monitor(&format!("x /{}xw {sp:#x}", room.min(STACK_WORDS))).await?;
            let words = dump.split_whitespace().filter_map(|word| word.strip_prefix("0x"));
            stack.extend(words.filter_map(|word| u64::from_str_radix(word, 16).ok()));
        }
        Ok(Registers { pc, ra, stack })
    }

    /// Runs a command of the monitor for people, and returns what it prints.
    async fn monitor(&mut self, command: &str) -> io::Result<String> {
        let arguments = serde_json::json!({ "command-line": command });
        let text = self.execute_with("human-monitor-command", Some(arguments)).await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    async fn execute(&mut self, command: &str) -> io::Result<serde_json::Value> {
        self.execute_with(command, None).await
    }

    async fn execute_with(
        &mut self,
        command: &str,
        arguments: Option<serde_json::Value>,
    ) -> io::Result<serde_json::Value> {
        let mut message = serde_json::json!({ "execute": command });
        if let Some(arguments) = arguments {
            message["arguments"] = arguments;
        }
        self.stream.write_all(format!("{message}\n").as_bytes()).await?;
        timeout(ANSWER_LIMIT, self.answer(command)).await.map_err(|_| {
            io::Error::other(format!("QEMU did not answer `{command}` within {ANSWER_LIMIT:?}"))
        })?
    }

    /// Reads past events to the answer.
    async fn answer(&mut self, command: &str) -> io::Result<serde_json::Value> {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err(io::Error::other("QEMU closed its monitor"));
            }
            let message: serde_json::Value = serde_json::from_str(&line)?;
            if let Some(value) = message.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = message.get("error") {
                return Err(io::Error::other(format!("QEMU refused `{command}`: {error}")));
            }
        }
    }
}
