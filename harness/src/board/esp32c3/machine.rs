//! The tethered board as a [`Machine`]: started by a reset, got back by the recovery ladder, examined after its end.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use device::control::{PowerMode, Refusal, Request, Wifi, WifiFailure};
use tokio::time::{Instant, timeout_at};

use super::Fault;
use super::choose::Chosen;
use super::debugger::Debugger;
use super::diagnose::{diagnose, told_by_rom};
use super::port::{self, Port, Wiring};
use super::recovery::{Attempt, Means, Rung, power_cycle, reenumerate, reopen};
use super::rom::{Banner, decode_crash};
use super::stream::{Evidence, Incoming, Memory, Session, command};
use super::wifi;
use crate::board::{Autopsy, BoardError, BoxFuture, Connection, Machine, Place};
use crate::firmware::elf::Elf;

/// How long a board may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From a reset to the boot report: ROM, bootloader and firmware take well under a second.
    pub boot: Duration,
    /// From the credentials to the joined network: scan, association and four-way handshake, tried twice.
    pub join: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { boot: Duration::from_secs(5), join: Duration::from_secs(20) }
    }
}

impl Limits {
    /// Time for every rung of the ladder, the last being a power cycle.
    pub fn ladder(self) -> Duration {
        self.boot * 4 + self.join + Duration::from_secs(45)
    }
}

/// Time an answer may come behind a boot report that was on its way before.
const CONFIRM: Duration = Duration::from_millis(500);

/// Hears what the recovery ladder does.
pub type Listener = Arc<dyn Fn(&Attempt) + Send + Sync>;

/// What a board failed at, in one line each, kept for its history.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<String>>>);

impl Faults {
    fn note(&self, fault: &Fault) {
        if let Some(line) = fault.of_board() {
            self.note_line(line);
        }
    }

    fn note_line(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// The first since this was asked last.
    pub fn take(&self) -> Option<String> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *faults).into_iter().next()
    }
}

/// A board on a serial port.
pub struct TetheredMachine {
    path: PathBuf,
    product: Option<u16>,
    debugger: Debugger,
    means: Means,
    elf: Option<Arc<Elf>>,
    wifi: Option<Wifi>,
    power: Option<PowerMode>,
    limits: Limits,
    listener: Option<Listener>,
    faults: Faults,
    session: Option<Session>,
    memory: Option<Memory>,
}

impl TetheredMachine {
    /// The board that was chosen. Its lock must be held as long as this lives.
    pub fn new(chosen: &Chosen) -> Self {
        let usb = chosen.found.usb.as_ref();
        let mut machine = Self::at(&chosen.found.port, usb.map(|usb| usb.product), chosen.means());
        machine.debugger =
            Debugger::of_port(usb.map(|usb| usb.product), usb.and_then(|usb| usb.serial.clone()));
        machine
    }

    /// The board at `path`.
    pub fn at(path: &Path, product: Option<u16>, means: Means) -> Self {
        Self {
            path: path.into(),
            product,
            debugger: Debugger::of_port(product, None),
            means,
            elf: None,
            wifi: None,
            power: None,
            limits: Limits::default(),
            listener: None,
            faults: Faults::default(),
            session: None,
            memory: None,
        }
    }

    /// The firmware it runs: crash addresses are looked up there.
    #[must_use]
    pub fn with_elf(mut self, elf: Option<Arc<Elf>>) -> Self {
        self.elf = elf;
        self
    }

    /// The network it is to join after each start.
    #[must_use]
    pub fn with_wifi(mut self, wifi: Option<Wifi>) -> Self {
        self.wifi = wifi;
        self
    }

    /// How it is to save power once it has joined the network.
    #[must_use]
    pub fn with_power(mut self, power: Option<PowerMode>) -> Self {
        self.power = power;
        self
    }

    /// How long it may take.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Who hears about recoveries.
    #[must_use]
    pub fn with_listener(mut self, listener: Listener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Where it is noted what the board fails at.
    #[must_use]
    pub fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Who tells where a core stands that does not answer.
    #[must_use]
    pub fn with_debugger(mut self, debugger: Debugger) -> Self {
        self.debugger = debugger;
        self
    }

    /// Resets the board and waits for its boot report, rung by rung.
    ///
    /// # Errors
    /// The [`Fault`] that the last rung left, with all that was tried.
    pub async fn bring_up(&mut self) -> Result<Connection, Fault> {
        let mut attempts: Vec<Attempt> = Vec::new();
        let mut last = None;
        for rung in Rung::LADDER {
            let prepared = match self.prepare(rung).await {
                None => continue,
                Some(prepared) => prepared,
            };
            let (outcome, fault) = match prepared {
                Err(cause) => (cause, None),
                Ok(done) => match self.boot().await {
                    Ok(connection) => {
                        if rung != Rung::Reset {
                            self.tell(&Attempt { rung, outcome: format!("{done}; the board answers") });
                        }
                        return Ok(connection);
                    }
                    Err(fault) if !fault.is_recoverable() => return Err(fault),
                    Err(fault) => {
                        let seen = self.brief(&fault).await;
                        (join(&done, &seen), Some(fault))
                    }
                },
            };
            let attempt = Attempt { rung, outcome };
            self.tell(&attempt);
            attempts.push(attempt);
            // That the port is not there says less than that it vanished.
            last = match (fault, last) {
                (Some(Fault::NoPort { .. }), Some(pulled @ Fault::Pulled { .. })) => Some(pulled),
                (fault, last) => fault.or(last),
            };
        }
        self.session = None;
        let fault = last.unwrap_or(Fault::Silent { port: self.path.clone(), tried: Vec::new() });
        Err(with_attempts(fault, attempts))
    }

    /// Resets the board and gives its console as it is, for a firmware that is not ours. A bare port has no lines: whoever is
    /// behind it goes on.
    ///
    /// # Errors
    /// A [`Fault`] of the port.
    pub fn listen(&mut self) -> Result<Incoming, Fault> {
        self.session = None;
        let mut port = Port::open(&self.path, self.product)?;
        if port.wiring() != Wiring::Bare {
            port.reset(port::Into::Firmware)?;
        }
        let (session, incoming) = Session::start(port)?;
        self.memory = Some(session.memory());
        self.session = Some(session);
        Ok(incoming)
    }

    /// What is wrong with a board that said that much and no more.
    pub fn diagnose(&self, evidence: &Evidence) -> Fault {
        diagnose(&self.path, self.elf.as_deref(), evidence)
    }

    /// What the ROM said that keeps any firmware from running.
    pub fn told_by_rom(&self, evidence: &Evidence) -> Option<Fault> {
        told_by_rom(&self.path, &evidence.text)
    }

    /// Notes what the board failed at.
    pub fn note(&self, fault: &Fault) {
        self.faults.note(fault);
    }

    /// Its port.
    pub fn port(&self) -> &Path {
        &self.path
    }

    /// Does what comes before the reset; `None` where the board has no means for the rung.
    async fn prepare(&mut self, rung: Rung) -> Option<Result<String, String>> {
        self.session = None;
        match rung {
            Rung::Reset => Some(Ok(String::new())),
            Rung::Reopen => Some(reopen(&self.path, self.means.mac).await),
            Rung::Reenumerate => {
                let device = self.means.usb_device.as_deref()?;
                Some(reenumerate(device, &self.path, self.means.mac).await)
            }
            Rung::PowerCycle => {
                let command = self.means.power_cycle.as_deref()?;
                Some(
                    power_cycle(command, &self.path, self.means.mac).await.map_err(|fault| fault.to_string()),
                )
            }
        }
    }

    /// Opens the port, resets the chip and waits for the boot report.
    async fn boot(&mut self) -> Result<Connection, Fault> {
        let mut port = Port::open(&self.path, self.product)?;
        let bare = port.wiring() == Wiring::Bare;
        // Before anything reads the port, so that nothing of the life before is heard. The lines want some 200 ms.
        if bare {
            port.forget_input();
        } else {
            port.reset(port::Into::Firmware)?;
        }
        let (session, mut incoming) = Session::start(port)?;
        let session = self.session.insert(session);
        self.memory = Some(session.memory());
        let outgoing = session.outgoing()?;
        let (mut evidence, mut before) = (Evidence::default(), Vec::new());
        if bare {
            let (sequence, bytes) = command(Request::Reboot);
            evidence.restart = Some(sequence);
            outgoing.send(bytes);
        }
        self.wait_for_boot(&mut incoming, &mut evidence, &mut before).await?;
        if let Some(wifi) = self.wifi.clone() {
            outgoing.send(command(Request::Wifi(wifi.clone())).1);
            self.wait_for_network(&wifi, &mut incoming, &mut evidence, &mut before).await?;
        }
        if let Some(mode) = self.power {
            let (sequence, bytes) = command(Request::Power(mode));
            outgoing.send(bytes);
            self.wait_for_power(mode, sequence, &mut incoming, &mut evidence, &mut before).await?;
        }
        if let Some(session) = &self.session {
            session.expect_no_restart();
        }
        incoming.give_back(before);
        Ok(Connection { from_board: Box::new(incoming), to_board: Box::new(outgoing) })
    }

    /// Hears everything up to the boot report, its frame included.
    async fn wait_for_boot(
        &self,
        incoming: &mut Incoming,
        evidence: &mut Evidence,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let end = Instant::now() + self.limits.boot;
        let mut confirm_until = None;
        while !evidence.booted {
            let deadline = match evidence.unconfirmed {
                true => *confirm_until.get_or_insert(Instant::now() + CONFIRM),
                false => end,
            };
            match timeout_at(deadline, incoming.next()).await {
                Ok(Some(chunk)) => {
                    evidence.hear(&chunk);
                    bytes.extend_from_slice(&chunk);
                }
                Ok(None) => return Err(Fault::Pulled { port: self.path.clone() }),
                // No answer to the restart follows: the board has started by itself.
                Err(_) if evidence.unconfirmed => evidence.booted = true,
                Err(_) => return Err(self.diagnose(evidence)),
            }
        }
        Ok(())
    }

    /// Hears everything until the network is joined. A wrong password ends the waiting: no repetition mends it.
    async fn wait_for_network(
        &self,
        wifi: &Wifi,
        incoming: &mut Incoming,
        evidence: &mut Evidence,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let deadline = Instant::now() + self.limits.join;
        while !evidence.link_up {
            if evidence.refusal == Some(Refusal::Unsupported) {
                return Err(Fault::NoRadio);
            }
            if matches!(evidence.wifi_failure, Some((WifiFailure::WrongPassword, _))) {
                return Err(wifi::fault(&wifi.ssid, evidence.wifi_failure));
            }
            match timeout_at(deadline, incoming.next()).await {
                Ok(Some(chunk)) => {
                    evidence.hear(&chunk);
                    bytes.extend_from_slice(&chunk);
                }
                Ok(None) => return Err(Fault::Pulled { port: self.path.clone() }),
                Err(_) => return Err(wifi::fault(&wifi.ssid, evidence.wifi_failure)),
            }
        }
        Ok(())
    }

    /// Hears everything until the board has taken the power mode.
    async fn wait_for_power(
        &self,
        mode: PowerMode,
        sequence: u32,
        incoming: &mut Incoming,
        evidence: &mut Evidence,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let deadline = Instant::now() + self.limits.boot;
        while evidence.answered != Some(sequence) {
            match timeout_at(deadline, incoming.next()).await {
                Ok(Some(chunk)) => {
                    evidence.hear(&chunk);
                    bytes.extend_from_slice(&chunk);
                }
                Ok(None) => return Err(Fault::Pulled { port: self.path.clone() }),
                Err(_) => {
                    let (port, limit) = (self.path.clone(), self.limits.boot);
                    return Err(Fault::TimeLimit { what: "the answer to a power mode", limit, port });
                }
            }
        }
        match evidence.refusal {
            None => Ok(()),
            Some(_) => Err(Fault::PowerMode { mode }),
        }
    }

    /// What `fault` is in a few words, with the place of a core that says nothing if it can be seen.
    async fn brief(&self, fault: &Fault) -> String {
        let place = match (fault, &self.debugger) {
            (Fault::Silent { .. }, Debugger::Unit(_)) => self.debugger.look(self.elf.as_deref()).await,
            _ => Place::default(),
        };
        format!("{}{place}", brief(fault))
    }

    fn tell(&self, attempt: &Attempt) {
        tracing::info!("recovery of {}: {attempt}", self.path.display());
        if let Some(listener) = &self.listener {
            listener(attempt);
        }
    }

    async fn examine(&mut self) -> Autopsy {
        let Some(memory) = self.memory.clone() else { return Autopsy::default() };
        let mut crash = decode_crash(self.elf.as_deref(), &memory.last_words());
        let mut backtrace = Vec::new();
        if crash.is_empty() && memory.end().is_none() && !memory.restarted() {
            // The port is there, but takes nothing any more.
            let place = self.debugger.look(self.elf.as_deref()).await;
            backtrace = place.backtrace;
            crash = place
                .unknown
                .map(|why| format!("its port takes nothing any more; {why}"))
                .unwrap_or_default();
        }
        let banner = Banner::last_in(&memory.last_words());
        let cause = || banner.as_ref().map_or_else(String::new, |b| format!(", reset cause {}", b.reset));
        let pulled = || Fault::Pulled { port: self.path.clone() };
        let status = match memory.end() {
            None if memory.restarted() => Some(format!("the chip restarted by itself{}", cause())),
            Some(_) if !self.path.exists() => Some(pulled().to_string()),
            Some(cause) => Some(format!("{} ({cause})", pulled())),
            None => None,
        };
        let remedy = memory.end().map(|_| pulled().remedy());
        if remedy.is_some() {
            self.faults.note(&pulled());
        } else if memory.restarted() {
            // A firmware that crashed restarts it, too: that is not the board's fault.
            if banner.as_ref().is_some_and(Banner::is_of_board) {
                self.faults.note_line(format!("it restarted by itself in a run{}", cause()));
            }
        } else {
            self.faults.note_line("its port took nothing any more in a run".to_owned());
        }
        self.session = None;
        Autopsy { status, errors: crash, backtrace, remedy, ..Autopsy::default() }
    }
}

impl Machine for TetheredMachine {
    fn start(&mut self) -> BoxFuture<'_, Result<Connection, BoardError>> {
        Box::pin(async {
            let connection = self.bring_up().await;
            connection.inspect_err(|fault| self.faults.note(fault)).map_err(BoardError::from)
        })
    }

    fn stop(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Some(mut session) = self.session.take() {
                // Without settings the firmware keeps to itself; a bare port has no lines to say so.
                let _ = session.port().reset(port::Into::Firmware);
            }
        })
    }

    fn autopsy(&mut self) -> BoxFuture<'_, Autopsy> {
        Box::pin(self.examine())
    }

    fn locate(&mut self) -> BoxFuture<'_, Place> {
        // Asked for when a command was not answered in time.
        self.faults.note_line("it fell silent in a run".to_owned());
        Box::pin(async { self.debugger.look(self.elf.as_deref()).await })
    }
}

/// A fault in a few words, without port and attempts.
fn brief(fault: &Fault) -> String {
    match fault {
        Fault::Silent { .. } => "it stays silent".to_owned(),
        Fault::Garbage { bytes, .. } => format!("{bytes} bytes of garbage"),
        Fault::DownloadMode { .. } => "it stays in download mode".to_owned(),
        Fault::NoRestart { .. } => "it answers, but does not start again".to_owned(),
        Fault::Pulled { .. } => "the port vanished".to_owned(),
        other => other.to_string(),
    }
}

fn join(done: &str, then: &str) -> String {
    if done.is_empty() { then.to_owned() } else { format!("{done}; {then}") }
}

fn with_attempts(fault: Fault, attempts: Vec<Attempt>) -> Fault {
    match fault {
        Fault::Silent { port, .. } => Fault::Silent { port, tried: attempts },
        Fault::Garbage { port, bytes, sample, .. } => Fault::Garbage { port, bytes, sample, tried: attempts },
        Fault::DownloadMode { port, .. } => Fault::DownloadMode { port, tried: attempts },
        Fault::NoRestart { port, .. } => Fault::NoRestart { port, tried: attempts },
        other => other,
    }
}
