//! The QEMU board: the firmware on an emulated RV32IMC machine.
//!
//! QEMU connects to three unix sockets of the harness: the NIC (frames behind a `u32` length, to the link),
//! the console, and QMP for resets. It dies with its harness: by `kill` on drop, and by the kernel's
//! parent-death signal when the harness itself is killed.

mod crash;
mod image;
mod qmp;
mod relay;
pub mod tether;

use std::ffi::OsString;
use std::os::unix::net::UnixListener as NicListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::folder::Folder;
use super::{Autopsy, BoardError, BoxFuture, Connection, Machine, Place};
use crate::firmware::elf::Elf;
use qmp::Qmp;
use relay::Relay;

pub use crash::decode;
pub(crate) use image::write as write_flash;

/// The emulator, from Debian's `qemu-system-misc`.
const QEMU: &str = "qemu-system-riscv32";
/// Exactly the instructions of an ESP32-C3: everything QEMU's generic core has beyond RV32IMC is off. PMP stays, it
/// guards the stack.
const CPU: &str = "rv32,a=off,f=off,d=off,h=off,s=off,u=off,mmu=off,zba=off,zbb=off,zbc=off,zbs=off";
/// Where the firmware looks for its seed (the last 16 bytes of its 320 KiB).
const SEED_ADDRESS: u32 = 0x8004_fff0;
/// Where the firmware looks for what is wanted of it, and the bits for counting and for lockstep
/// (`device/boards/qemu/src/memory.rs`).
const OPTIONS_ADDRESS: u32 = SEED_ADDRESS + 8;
const COUNTING_IN_LOCKSTEP: u32 = 0b11;
/// Addresses of the board's RAM.
pub const RAM: std::ops::Range<u64> = 0x8000_0000..0x8005_0000;
/// Time QEMU has to connect to its sockets.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Time QEMU has to end once its guest has.
const END_LIMIT: Duration = Duration::from_secs(2);

/// How instructions and time relate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// As fast as the host runs it; instructions cannot be counted.
    #[default]
    RealTime,
    /// Instructions are counted, and the clock is whoever's who drives the NIC ([`crate::count`]).
    Lockstep,
}

/// Looks for the emulator and returns its version line.
///
/// # Errors
/// [`BoardError::Start`] with the remedy, if it is missing or does not run.
pub fn find() -> Result<String, BoardError> {
    let output = std::process::Command::new(QEMU).arg("--version").stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            Ok(text.lines().next().unwrap_or_default().to_owned())
        }
        Ok(output) => Err(start_error(format!("{QEMU} does not run ({})", output.status), INSTALL)),
        Err(error) => Err(start_error(format!("no {QEMU}: {error}"), INSTALL)),
    }
}

/// The emulated machine, ended when this is dropped.
pub struct QemuMachine {
    elf: Elf,
    flash: PathBuf,
    nic: Option<NicListener>,
    mac: [u8; 6],
    seed: u64,
    mode: Mode,
    directory: Folder,
    /// The harness's executable, which ties QEMU's life to its own.
    tether: PathBuf,
    starts: u32,
    running: Option<Running>,
}

struct Running {
    child: Child,
    qmp: Qmp,
    relay: Relay,
    errors: tokio::task::JoinHandle<String>,
}

impl QemuMachine {
    /// A machine that runs `elf`.
    ///
    /// # Errors
    /// [`BoardError::Start`] if the image does not fit or cannot be written.
    pub fn new(elf: &Path, mac: [u8; 6]) -> Result<Self, BoardError> {
        let tether = std::env::current_exe()
            .map_err(|error| start_error(format!("no executable: {error}"), REBUILD))?;
        Self::with_tether(tether, elf, mac)
    }

    /// The same, with `tether` for the harness's executable.
    ///
    /// # Errors
    /// As [`QemuMachine::new`].
    pub fn with_tether(tether: PathBuf, elf: &Path, mac: [u8; 6]) -> Result<Self, BoardError> {
        let elf = Elf::open(elf).map_err(|error| start_error(error.to_string(), REBUILD))?;
        let directory = Folder::new()
            .map_err(|error| start_error(format!("no temporary directory: {error}"), "check $TMPDIR"))?;
        let nic = NicListener::bind(directory.path().join(NIC_SOCKET))
            .map_err(|error| start_error(format!("no socket for its NIC: {error}"), "check $TMPDIR"))?;
        let flash = directory.path().join("flash.bin");
        image::write(&elf, &flash)?;
        Ok(Self {
            elf,
            flash,
            nic: Some(nic),
            mac,
            seed: 0,
            mode: Mode::default(),
            directory,
            tether,
            starts: 0,
            running: None,
        })
    }

    /// Whether the firmware has a heap at all: whether any allocator is linked into it.
    ///
    /// # Errors
    /// [`BoardError::Start`] if the ELF has no readable symbols.
    pub fn has_heap(elf: &Path) -> Result<bool, BoardError> {
        let symbols = Elf::open(elf).and_then(|elf| elf.symbols());
        let symbols = symbols.map_err(|error| start_error(error.to_string(), REBUILD))?;
        Ok(symbols.iter().any(|symbol| symbol.name.contains("__rust_alloc") || symbol.name == "malloc"))
    }

    /// Makes all randomness of the firmware repeatable, its keys included.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Chooses how instructions and time relate.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    async fn start_or_reset(&mut self) -> Result<Connection, BoardError> {
        if let Some(running) = &mut self.running
            && matches!(running.child.try_wait(), Ok(None))
        {
            let connection = running.relay.reconnect();
            if running.qmp.reset().await.is_ok() {
                return Ok(connection);
            }
        }
        self.kill().await;
        self.spawn().await
    }

    async fn spawn(&mut self) -> Result<Connection, BoardError> {
        let (console, qmp) = (self.socket("console"), self.socket("qmp"));
        self.starts += 1;
        let listen = |path: &Path| {
            UnixListener::bind(path)
                .map_err(|error| start_error(format!("no socket for QEMU: {error}"), "check $TMPDIR"))
        };
        let (console_listener, qmp_listener) = (listen(&console)?, listen(&qmp)?);
        let mut child = self.command(&console, &qmp).spawn().map_err(|error| {
            start_error(format!("cannot run {}: {error}", self.tether.display()), "build the harness again")
        })?;
        let stderr = child.stderr.take().expect("stderr is piped");
        let errors = tokio::spawn(relay::collect(stderr));

        let connected = async {
            let (console, _) = console_listener.accept().await?;
            let (monitor, _) = qmp_listener.accept().await?;
            Ok::<_, std::io::Error>((console, Qmp::greet(monitor).await?))
        };
        let accepted: Result<(UnixStream, Qmp), String> = tokio::select! {
            accepted = timeout(START_LIMIT, connected) => match accepted {
                Ok(accepted) => accepted.map_err(|error| error.to_string()),
                Err(_) => Err(format!("it did not connect to its sockets within {START_LIMIT:?}")),
            },
            ended = child.wait() => Err(ended.map_or_else(|error| error.to_string(), |status| status.to_string())),
        };
        let (console, qmp) = match accepted {
            Ok(accepted) => accepted,
            Err(cause) => {
                let _ = child.kill().await;
                let said = errors.await.unwrap_or_default();
                return Err(start_error(format!("QEMU: {cause}: {}", said.trim()), INSTALL));
            }
        };
        let (relay, connection) = Relay::start(console);
        self.running = Some(Running { child, qmp, relay, errors });
        Ok(connection)
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}-{}", self.starts))
    }

    fn command(&self, console: &Path, qmp: &Path) -> Command {
        let mut command = Command::new(&self.tether);
        command.args([tether::SUBCOMMAND, QEMU]);
        command.args([
            "-M",
            "virt",
            "-cpu",
            CPU,
            "-m",
            "320K",
            "-bios",
            "none",
            "-display",
            "none",
            "-nodefaults",
        ]);
        command.arg("-drive").arg(with_path("if=pflash,unit=0,format=raw,readonly=on,file=", &self.flash));
        command.arg("-serial").arg(unix(console)).arg("-qmp").arg(unix(qmp));
        // QEMU's `stream` back-end: each frame behind its length.
        command.arg("-netdev").arg(with_path(
            "stream,id=n0,server=off,addr.type=unix,addr.path=",
            &self.directory.path().join(NIC_SOCKET),
        ));
        let [a, b, c, d, e, f] = self.mac;
        command.args(["-global", "virtio-mmio.force-legacy=false", "-device"]);
        command
            .arg(format!("virtio-net-device,netdev=n0,mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"));
        command.arg("-device").arg(format!("loader,addr={SEED_ADDRESS:#x},data={:#x},data-len=8", self.seed));
        if self.mode == Mode::Lockstep {
            let options = format!("loader,addr={OPTIONS_ADDRESS:#x},data={COUNTING_IN_LOCKSTEP},data-len=4");
            command.args(["-device", &options, "-icount", "shift=0"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            // Fails only if it has ended already.
            let _ = running.child.kill().await;
        }
    }

    async fn examine(&mut self) -> Autopsy {
        let Some(mut running) = self.running.take() else { return Autopsy::default() };
        let status = match timeout(END_LIMIT, running.child.wait()).await {
            Ok(status) => status.map_or_else(|error| error.to_string(), |status| describe(status.code())),
            Err(_) => {
                let _ = running.child.kill().await;
                format!("QEMU still ran {END_LIMIT:?} after its console closed; killed")
            }
        };
        let autopsy = decode(&self.elf, &running.relay.last_words()).unwrap_or_default();
        let errors = running.errors.await.unwrap_or_default().trim().to_owned();
        Autopsy { status: Some(status), errors, ..autopsy }
    }

    async fn look(&mut self) -> Place {
        let Some(running) = &mut self.running else { return Place::default() };
        let Ok(registers) = running.qmp.examine().await else { return Place::default() };
        let backtrace = crash::backtrace(&self.elf, Some(registers.pc), Some(registers.ra), &registers.stack);
        Place { backtrace, unknown: None }
    }
}

impl Machine for QemuMachine {
    fn start(&mut self) -> BoxFuture<'_, Result<Connection, BoardError>> {
        Box::pin(self.start_or_reset())
    }

    fn stop(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.kill())
    }

    fn autopsy(&mut self) -> BoxFuture<'_, Autopsy> {
        Box::pin(self.examine())
    }

    fn locate(&mut self) -> BoxFuture<'_, Place> {
        Box::pin(self.look())
    }

    fn process_id(&self) -> Option<u32> {
        self.running.as_ref().and_then(|running| running.child.id())
    }

    fn take_nic(&mut self) -> Option<NicListener> {
        self.nic.take()
    }
}

/// The NIC's socket in the machine's directory.
const NIC_SOCKET: &str = "nic";
pub(crate) const INSTALL: &str =
    "install QEMU 7.2 or newer: `apt-get install qemu-system-misc` (Debian), `brew install qemu` (macOS)";
pub(crate) const REBUILD: &str = "build it again with `harness build --board qemu`";

/// A machine without a NIC whose console connects to the socket `console`, its instructions counted exactly: for
/// programs that measure themselves.
pub(crate) fn bare_command(flash: &Path, console: &Path) -> std::io::Result<std::process::Command> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args([tether::SUBCOMMAND, QEMU, "-M", "virt", "-cpu", CPU, "-m", "320K", "-bios", "none"]);
    command.args(["-display", "none", "-nodefaults", "-icount", "shift=0", "-drive"]);
    command.arg(with_path("if=pflash,unit=0,format=raw,readonly=on,file=", flash));
    command.arg("-serial").arg(unix(console));
    Ok(command)
}

fn start_error(what: String, remedy: &str) -> BoardError {
    BoardError::Start { what, remedy: remedy.to_owned() }
}

fn unix(path: &Path) -> OsString {
    let mut argument = with_path("unix:", path);
    argument.push(",server=off");
    argument
}

fn with_path(prefix: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(prefix);
    argument.push(path);
    argument
}

/// QEMU's exit status in the firmware's terms (the firmware ends the machine through its test finisher).
fn describe(code: Option<i32>) -> String {
    match code {
        Some(0) => "the machine was switched off".to_owned(),
        Some(2) => "the firmware panicked".to_owned(),
        Some(3) => "the firmware trapped".to_owned(),
        Some(code) => format!("QEMU ended with status {code}"),
        None => "QEMU was killed by a signal".to_owned(),
    }
}
