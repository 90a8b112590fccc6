//! Writing the flash by the chip's ROM loader, through the espflash library.
//!
//! ```text
//! reset into the loader -> chip and revision -> for each region: same MD5? skip : write, verify -> reset into firmware
//! ```
//! The library blocks; it runs on a thread of its own that this module waits for no longer than it may.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use espflash::connection::{Connection, ResetAfterOperation, ResetBeforeOperation};
use espflash::flasher::{FlashSize, Flasher};
use espflash::image_format::Segment;
use espflash::target::{Chip, ProgressCallbacks};
use serde::Serialize;
use serialport::UsbPortInfo;

use super::Fault;
use super::image::{Image, Region, chain};
use super::mac::Mac;
use super::port::{BAUD, Port, Wiring};
use super::recovery::{Attempt, Means, Rung, power_cycle, reenumerate, reopen};

/// Time for reset, write and verify of a whole image over a slow bridge.
pub const LIMIT: Duration = Duration::from_secs(180);

/// What carries out the loader's commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Loader {
    /// espflash's stub in RAM: compressed transfer, quick MD5.
    #[default]
    Stub,
    /// The ROM alone.
    Rom,
}

/// What to do with regions that hold the right bytes already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Same {
    /// Leave them.
    #[default]
    Skip,
    /// Write them all the same.
    Write,
}

/// How to flash.
#[derive(Clone, Debug)]
pub struct Options {
    /// What carries out the commands.
    pub loader: Loader,
    /// What to do with regions that are right.
    pub same: Same,
    /// Speed over a bridge after the loader answered at the usual one.
    pub baud: u32,
    /// Time for all of it.
    pub limit: Duration,
    /// What the recovery ladder may use.
    pub means: Means,
}

impl Default for Options {
    fn default() -> Self {
        Self { loader: Loader::Stub, same: Same::Skip, baud: BAUD, limit: LIMIT, means: Means::default() }
    }
}

/// The chip, as it told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChipInfo {
    /// `esp32c3`.
    pub chip: String,
    /// Silicon revision.
    pub revision: Option<(u32, u32)>,
    /// Its address.
    pub mac: Option<Mac>,
    /// Size of its flash.
    pub flash: String,
    /// What it has.
    pub features: Vec<String>,
}

impl ChipInfo {
    /// Chip and revision in one word or two.
    pub fn name(&self) -> String {
        let revision = self.revision.map(|(major, minor)| format!(" v{major}.{minor}"));
        format!("{}{}", self.chip, revision.unwrap_or_default())
    }
}

/// What a flashing thread tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The loader answers.
    Chip(ChipInfo),
    /// A region begins.
    Region {
        /// Its address.
        address: u32,
        /// Its length.
        len: usize,
    },
    /// So much of the region is written.
    Progress {
        /// Blocks written.
        done: usize,
        /// Blocks to write.
        of: usize,
    },
    /// The region is read back.
    Verifying,
    /// The region is done.
    Done {
        /// It held the right bytes already.
        skipped: bool,
    },
    /// The recovery ladder did something.
    Recovery(Attempt),
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flashed {
    /// The chip.
    pub chip: ChipInfo,
    /// Bytes written.
    pub written: usize,
    /// Bytes that were right already.
    pub skipped: usize,
    /// Length of the application, and of the room its partition has on this chip; `None` for a ready image.
    #[serde(skip)]
    pub application: Option<(u64, u64)>,
}

/// Writes `image` to the board at `port` and starts it. Blocks; `tell` hears each step.
///
/// # Errors
/// A [`Fault`]: of the port, of the chip, of the flash, or of the time.
pub fn flash(
    port: &Path,
    product: Option<u16>,
    image: &Image,
    options: &Options,
    tell: impl FnMut(Step),
) -> Result<Flashed, Fault> {
    run(port, product, options, Some(image.clone()), "flashing", tell)
}

/// Asks the chip at `port` what it is, and starts its firmware again. Blocks.
///
/// # Errors
/// As [`flash`].
pub fn probe(port: &Path, product: Option<u16>, options: &Options) -> Result<ChipInfo, Fault> {
    run(port, product, options, None, "asking the chip", |_| {}).map(|flashed| flashed.chip)
}

fn run(
    port: &Path,
    product: Option<u16>,
    options: &Options,
    image: Option<Image>,
    what: &'static str,
    mut tell: impl FnMut(Step),
) -> Result<Flashed, Fault> {
    let deadline = Instant::now() + options.limit;
    let (steps, heard) = channel();
    let (path, options) = (port.to_path_buf(), options.clone());
    let limit = options.limit;
    let thread = std::thread::Builder::new().name("flash".to_owned()).spawn(move || {
        let tell = move |step| {
            // Nobody listens any more once the time is over.
            let _ = steps.send(step);
        };
        Work { path, product, options, tell: Box::new(tell) }.climb(image.as_ref())
    });
    let thread = thread.map_err(|error| Fault::Flash { port: port.into(), cause: error.to_string() })?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match heard.recv_timeout(left) {
            Ok(step) => tell(step),
            Err(RecvTimeoutError::Disconnected) => break,
            // The thread ends with its next command's own time limit, or with the process.
            Err(RecvTimeoutError::Timeout) => {
                return Err(Fault::TimeLimit { what, limit, port: port.into() });
            }
        }
    }
    let panicked = |_| Fault::Flash { port: port.into(), cause: "the flashing library panicked".to_owned() };
    thread.join().map_err(panicked)?
}

struct Work {
    path: PathBuf,
    product: Option<u16>,
    options: Options,
    tell: Box<dyn FnMut(Step) + Send>,
}

impl Work {
    /// Tries, and tries again after each rung of the ladder that the board has. Reset and re-open are part of every
    /// try.
    fn climb(mut self, image: Option<&Image>) -> Result<Flashed, Fault> {
        let mut attempts = Vec::new();
        let mut outcome = self.once(image);
        for rung in [Rung::Reopen, Rung::Reenumerate, Rung::PowerCycle] {
            match &outcome {
                Err(fault) if fault.is_recoverable() => {}
                _ => return outcome,
            }
            let Some(done) = self.recover(rung) else { continue };
            if done.is_ok() {
                outcome = match (self.once(image), outcome) {
                    // That the port is not there says less than that it vanished.
                    (Err(Fault::NoPort { .. }), Err(pulled @ Fault::Pulled { .. })) => Err(pulled),
                    (outcome, _) => outcome,
                };
            }
            let became = match (&done, &outcome) {
                (Err(cause), _) => cause.clone(),
                (Ok(done), Ok(_)) => format!("{done}; then it worked"),
                (Ok(done), Err(_)) => format!("{done}; the same again"),
            };
            let attempt = Attempt { rung, outcome: became };
            (self.tell)(Step::Recovery(attempt.clone()));
            attempts.push(attempt);
        }
        match outcome {
            Err(Fault::NoLoader { port, cause, .. }) => Err(Fault::NoLoader { port, cause, tried: attempts }),
            other => other,
        }
    }

    /// Does what `rung` can; `None` where the board has no means for it.
    fn recover(&self, rung: Rung) -> Option<Result<String, String>> {
        let Means { usb_device, power_cycle: command, mac } = &self.options.means;
        let wait = |future: std::pin::Pin<Box<dyn Future<Output = Result<String, String>> + '_>>| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| error.to_string())?.block_on(future)
        };
        match rung {
            Rung::Reset => None,
            Rung::Reopen => Some(wait(Box::pin(async {
                let done = reopen(&self.path, *mac).await?;
                Ok(if done.is_empty() { "closed and opened".to_owned() } else { done })
            }))),
            Rung::Reenumerate => {
                usb_device.as_deref().map(|device| wait(Box::pin(reenumerate(device, &self.path, *mac))))
            }
            Rung::PowerCycle => command.as_deref().map(|command| {
                wait(Box::pin(async {
                    power_cycle(command, &self.path, *mac).await.map_err(|fault| fault.to_string())
                }))
            }),
        }
    }

    fn once(&mut self, image: Option<&Image>) -> Result<Flashed, Fault> {
        let mut flasher = self.connect()?;
        let (chip, size) = self.identify(&mut flasher)?;
        (self.tell)(Step::Chip(chip.clone()));
        let mut flashed = Flashed { chip, written: 0, skipped: 0, application: None };
        if flasher.chip() != Chip::Esp32c3 {
            return Err(Fault::WrongChip { port: self.path.clone(), found: flashed.chip.name() });
        }
        let Some(image) = image else {
            self.leave(flasher)?;
            return Ok(flashed);
        };
        let image = &image.fitting(size)?;
        flashed.application = image.application;
        // In one call: the library ends each with a restart of the chip.
        let segments: Vec<_> =
            image.regions.iter().map(|region| Segment::new(region.address, &region.bytes)).collect();
        let mut relay =
            Relay { tell: &mut self.tell, regions: &image.regions, total: 0, skipped: Vec::new() };
        relay.begin();
        let written = flasher.write_bins_to_flash(&segments, &mut relay);
        let skipped = relay.skipped;
        if let Err(error) = written {
            let at = image.regions.get(skipped.len());
            return Err(self.explain(&error, at));
        }
        for (region, skipped) in image.regions.iter().zip(skipped) {
            *(if skipped { &mut flashed.skipped } else { &mut flashed.written }) += region.bytes.len();
        }
        self.leave(flasher)?;
        Ok(flashed)
    }

    fn connect(&self) -> Result<Flasher, Fault> {
        let port = Port::open(&self.path, self.product)?;
        let (before, after) = match port.wiring() {
            Wiring::UsbSerialJtag => (ResetBeforeOperation::UsbReset, ResetAfterOperation::NoReset),
            Wiring::Bridge => (ResetBeforeOperation::DefaultReset, ResetAfterOperation::NoReset),
            // Somebody has put the chip into its loader, or its emulation never leaves it.
            Wiring::Bare => (ResetBeforeOperation::NoReset, ResetAfterOperation::NoReset),
        };
        let baud = (port.wiring() == Wiring::Bridge).then_some(self.options.baud);
        let info = UsbPortInfo {
            vid: 0,
            pid: self.product.filter(|_| port.wiring() != Wiring::Bare).unwrap_or_default(),
            serial_number: None,
            manufacturer: None,
            product: None,
            // probe-rs asks the crate for this field.
            #[cfg(feature = "probe")]
            interface: None,
        };
        let connection = Connection::new(port.into_tty(), info, after, before, BAUD);
        let stub = self.options.loader == Loader::Stub;
        let skip = self.options.same == Same::Skip;
        Flasher::connect(connection, stub, true, skip, None, baud).map_err(|error| match error {
            espflash::Error::ChipDetectError(found) => Fault::WrongChip { port: self.path.clone(), found },
            error if !self.path.exists() => self.explain(&error, None),
            error => Fault::NoLoader { port: self.path.clone(), cause: chain(&error), tried: Vec::new() },
        })
    }

    fn identify(&self, flasher: &mut Flasher) -> Result<(ChipInfo, FlashSize), Fault> {
        let info = flasher.device_info().map_err(|error| self.explain(&error, None))?;
        let chip = ChipInfo {
            chip: info.chip.to_string(),
            revision: info.revision,
            mac: info.mac_address.and_then(|mac| mac.parse().ok()),
            flash: info.flash_size.to_string(),
            features: info.features,
        };
        Ok((chip, info.flash_size))
    }

    /// Starts the firmware. Without lines the end of the writing has done so.
    fn leave(&self, flasher: Flasher) -> Result<(), Fault> {
        let product = self.product;
        let tty: espflash::connection::Port = flasher.into();
        drop(tty);
        let mut port = Port::open(&self.path, product)?;
        if port.wiring() == Wiring::Bare {
            return Ok(());
        }
        port.reset(super::port::Into::Firmware)
    }

    /// The fault behind an error of the library, while `region` was worked on.
    fn explain(&self, error: &espflash::Error, region: Option<&Region>) -> Fault {
        let port = self.path.clone();
        match (error, region) {
            (espflash::Error::VerifyFailed, Some(region)) => {
                Fault::Verify { port, address: region.address, len: region.bytes.len() }
            }
            _ if !self.path.exists() || is_broken(error) => Fault::Pulled { port },
            (error, _) => Fault::Flash { port, cause: chain(error) },
        }
    }
}

/// Whether the port itself has gone.
fn is_broken(error: &espflash::Error) -> bool {
    let text = chain(error);
    ["Broken pipe", "No such device", "Input/output error", "I/O error"]
        .iter()
        .any(|cause| text.contains(cause))
}

/// The library's progress as steps.
struct Relay<'t> {
    tell: &'t mut Box<dyn FnMut(Step) + Send>,
    regions: &'t [Region],
    total: usize,
    /// Of each region that is done, whether it held the right bytes already.
    skipped: Vec<bool>,
}

impl Relay<'_> {
    /// The next region's turn has come.
    fn begin(&mut self) {
        if let Some(region) = self.regions.get(self.skipped.len()) {
            (self.tell)(Step::Region { address: region.address, len: region.bytes.len() });
        }
    }
}

impl ProgressCallbacks for Relay<'_> {
    fn init(&mut self, _address: u32, total: usize) {
        self.total = total;
    }

    fn update(&mut self, done: usize) {
        (self.tell)(Step::Progress { done, of: self.total });
    }

    fn verifying(&mut self) {
        (self.tell)(Step::Verifying);
    }

    fn finish(&mut self, skipped: bool) {
        self.skipped.push(skipped);
        (self.tell)(Step::Done { skipped });
        self.begin();
    }
}
