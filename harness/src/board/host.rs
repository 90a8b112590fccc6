//! The host board: this very program, started again as the firmware.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixListener;
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::time::timeout;

use super::folder::Folder;
use super::{Autopsy, BoardError, BoxFuture, Connection, Machine};

/// How long a board that lost its console has to end.
const END_LIMIT: Duration = Duration::from_secs(2);
/// Bytes of standard error that are kept.
const ERRORS_MAX: usize = 16 * 1024;

/// The firmware as a process, killed when this is dropped.
pub struct HostMachine {
    program: PathBuf,
    seed: Option<u64>,
    mac: [u8; 6],
    /// Holds the sockets; removed when dropped.
    directory: Folder,
    nic: Option<std::os::unix::net::UnixListener>,
    child: Option<Child>,
    /// Its standard input: it ends when we let go, whatever it is doing.
    leash: Option<ChildStdin>,
    errors: Arc<Mutex<String>>,
    starts: u32,
}

impl HostMachine {
    /// A board that runs the current executable.
    ///
    /// # Errors
    /// [`BoardError::Start`] if there is no place for its sockets.
    pub fn new(mac: [u8; 6]) -> Result<Self, BoardError> {
        let program = std::env::current_exe()
            .map_err(|error| start_error(format!("the harness cannot find its own executable: {error}")))?;
        Self::with_program(program, mac)
    }

    /// A board that runs `program`, which must know the host board's subcommand.
    ///
    /// # Errors
    /// As [`HostMachine::new`].
    pub fn with_program(program: PathBuf, mac: [u8; 6]) -> Result<Self, BoardError> {
        let directory = Folder::new()
            .map_err(|error| start_error(format!("no temporary directory for its sockets: {error}")))?;
        let nic = std::os::unix::net::UnixListener::bind(directory.path().join("nic"))
            .map_err(|error| start_error(format!("no socket for its NIC: {error}")))?;
        Ok(Self {
            program,
            seed: None,
            mac,
            directory,
            nic: Some(nic),
            child: None,
            leash: None,
            errors: Arc::default(),
            starts: 0,
        })
    }

    /// Makes all randomness of the firmware repeatable, its keys included.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    async fn spawn(&mut self) -> Result<Connection, BoardError> {
        self.kill().await;
        self.errors = Arc::default();
        // A path of its own for each life: the last one's connection may still be closing.
        let console = self.directory.path().join(format!("console-{}", self.starts));
        self.starts += 1;
        let listener = UnixListener::bind(&console)
            .map_err(|error| start_error(format!("no socket for its console: {error}")))?;
        let mut child = Command::new(&self.program)
            .args(self.arguments(console.into()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| start_error(format!("cannot run {}: {error}", self.program.display())))?;
        // Taken out of the child, which would close it as soon as it is waited for.
        self.leash = child.stdin.take();
        if let Some(errors) = child.stderr.take() {
            tokio::spawn(keep_errors(errors, Arc::clone(&self.errors)));
        }
        let child = self.child.insert(child);
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.map_err(|error| start_error(format!("its console: {error}")))?.0,
            ended = child.wait() => {
                let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                // Its last words are read by another task; give it a moment to be done.
                let errors = settled(&self.errors).await;
                return Err(start_error(format!("it ended at once ({status}): {}", errors.trim())));
            }
        };
        let (from_board, to_board) = stream.into_split();
        Ok(Connection { from_board: Box::new(from_board), to_board: Box::new(to_board) })
    }

    fn arguments(&self, console: OsString) -> Vec<OsString> {
        let [a, b, c, d, e, f] = self.mac;
        let mut arguments: Vec<OsString> = vec![
            device_host::SUBCOMMAND.into(),
            "--nic".into(),
            self.directory.path().join("nic").into(),
            "--console".into(),
            console,
            "--mac".into(),
            format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}").into(),
        ];
        if let Some(seed) = self.seed {
            arguments.extend(["--seed".into(), seed.to_string().into()]);
        }
        arguments
    }

    async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails only if it has ended already.
            let _ = child.kill().await;
        }
    }

    async fn examine(&mut self) -> Autopsy {
        let status = match &mut self.child {
            None => None,
            Some(child) => match timeout(END_LIMIT, child.wait()).await {
                Ok(Ok(status)) => Some(status.to_string()),
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => {
                    let _ = child.kill().await;
                    Some(format!("still running {END_LIMIT:?} after its console closed; killed"))
                }
            },
        };
        Autopsy { status, errors: settled(&self.errors).await, ..Autopsy::default() }
    }
}

impl Machine for HostMachine {
    fn start(&mut self) -> BoxFuture<'_, Result<Connection, BoardError>> {
        Box::pin(self.spawn())
    }

    fn stop(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.kill())
    }

    fn autopsy(&mut self) -> BoxFuture<'_, Autopsy> {
        Box::pin(self.examine())
    }

    fn process_id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    fn take_nic(&mut self) -> Option<std::os::unix::net::UnixListener> {
        self.nic.take()
    }
}

fn start_error(what: String) -> BoardError {
    let remedy = "check that the harness may execute itself and write to the temporary directory ($TMPDIR)";
    BoardError::Start { what, remedy: remedy.into() }
}

/// Keeps the first lines of a process's standard error.
async fn keep_errors(stderr: ChildStderr, errors: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() < ERRORS_MAX {
            errors.push_str(&line);
            errors.push('\n');
        }
    }
}

/// The errors, once their reader is done: it holds the other reference.
async fn settled(errors: &Arc<Mutex<String>>) -> String {
    let done = async {
        while Arc::strong_count(errors) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // A grandchild may hold the pipe open; what is there is worth having all the same.
    let _ = timeout(Duration::from_millis(200), done).await;
    errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
