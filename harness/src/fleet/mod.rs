//! A fleet: many firmware cores in one process against one broker through one link.
//!
//! ```text
//! run -> broker (a process, a container, or one elsewhere) <---- peer: counts what arrives
//!     -> worker threads: heap of times, sockets -> cores        link: shared by all
//!     -> phases: ramp, work, storm, check, leave -> record of two trials, `fleet` and `storm`
//! ```
//! Every core is the same [`Node`](device::node::Node) that boards run, told what to do over its console in the
//! words of the control channel. Their clock is the run's own, so nothing has to be estimated.

mod assemble;
mod broker;
mod cores;
mod merge;
mod shard;
mod source;
mod usage;
mod worker;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use device::control::Addressing;
use tokio_util::sync::CancellationToken;

pub use self::broker::Storm;
pub use self::merge::{MergeError, merge};
pub use self::shard::{JOB_INDEX, Shard};
pub use self::source::{ORIGIN, source};

use self::assemble::{Marks, Moment};
use self::broker::FleetBroker;
use self::cores::{Brief, CoreLog};
use self::usage::Usage;
use self::worker::{Control, Part, Phase, Share};
use crate::broker::{BrokerError, BrokerSpec, default_port};
use crate::certificates::Certificates;
use crate::link::lan::{self, SharedLink};
use crate::measure::record::{Blame, Ending, RunRecord, Transport};
use crate::peer::{Arrival, ClientOptions, Clock, Connector, Implementation, Party, Target};
use crate::run::settings::{self, Destination};
use crate::scenario::Scenario;
use crate::wire::{Qos, Version};

/// Most devices in one process: what its LAN has addresses for.
pub const DEVICES_MAX: u32 = lan::BOARDS_MAX;
/// Files a process needs besides one socket for each device.
const FILES_BESIDES: u64 = 64;
/// How often the fleet's counters are looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Time for the last packets and duplicates after a phase is done.
const SETTLE: Duration = Duration::from_millis(300);
/// Time a device has to come back, beyond what noticing the loss may take.
const RETURN_LIMIT: Duration = Duration::from_secs(40);
/// How much longer than asked the ramp may take on a machine that is too slow for it.
const RAMP_LIMIT: Duration = Duration::from_secs(120);
/// Messages of each device after the storm: one proves that the service is back.
const CHECK_MESSAGES: u32 = 1;

/// What kind of fleet.
#[derive(Clone, Debug)]
pub struct Options {
    /// Devices of the whole fleet, all shards together; at least 1.
    pub devices: u32,
    /// Which part of it runs here.
    pub shard: Shard,
    /// Devices that start per second, all shards together.
    pub ramp_per_s: f64,
    /// Devices that connect for the first time at once, at most; at least 1.
    pub connecting: u32,
    /// Messages each device publishes.
    pub messages: u32,
    /// From one message of a device to its next.
    pub interval: Duration,
    /// Payload bytes.
    pub size: u16,
    /// MQTT quality of service: 0, 1 or 2.
    pub qos: u8,
    /// What happens to the broker after the workload.
    pub storm: Storm,
    /// How long it stays away.
    pub down: Duration,
    /// Threads that drive devices; at least 1.
    pub threads: usize,
    /// The seed all others derive from.
    pub seed: u64,
}

/// Where a record keeps which shard it is of.
const SHARD: &str = "shard";

impl Options {
    /// The seed of the shard's link and of its trials.
    fn seed_of_shard(&self) -> u64 {
        self.seed.wrapping_add(u64::from(self.shard.index() - 1))
    }

    /// The command that repeats the run.
    fn replay(&self, broker: &str, network: Option<&str>) -> String {
        let storm = match self.storm {
            Storm::None => "none",
            Storm::Stop => "stop",
            Storm::Kill => "kill",
        };
        let mut command = format!(
            "cargo run -p harness -- fleet --devices {} --broker {broker} --ramp {} --connecting {} --messages {} \
             --interval {}ms --size {} --qos {} --storm {storm} --down {}ms --threads {} --seed {}",
            self.devices,
            self.ramp_per_s,
            self.connecting,
            self.messages,
            self.interval.as_millis(),
            self.size,
            self.qos,
            self.down.as_millis(),
            self.threads,
            self.seed,
        );
        if self.shard != Shard::WHOLE {
            command += &format!(" --shard {}", self.shard);
        }
        if let Some(network) = network {
            command += &format!(" --network {network}");
        }
        command
    }
}

/// What a fleet tells while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// A phase begins.
    Phase(&'static str),
    /// So many of so many devices are through.
    Count(u32, u32),
}

/// A fleet could not be started.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The broker serves no QUIC.
    #[error("the broker {0} serves no QUIC, which a fleet speaks")]
    NoQuic(String),
    /// Too few open files allowed.
    #[error("{devices} devices need {needed} open files, and this process may have {allowed}")]
    OpenFiles {
        /// How many devices.
        devices: u32,
        /// What they need.
        needed: u64,
        /// What is allowed.
        allowed: u64,
    },
    /// A setting does not fit the control channel, or the network contradicts itself.
    #[error("{0}")]
    Settings(String),
    /// The peer that counts what arrives.
    #[error("the peer that counts what arrives cannot be set up: {0}")]
    Peer(String),
    /// A thread.
    #[error("cannot start a thread for devices: {0}")]
    Thread(std::io::Error),
}

impl FleetError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Broker(error) => error.remedy().to_owned(),
            Self::NoQuic(_) => "name a broker by quic://HOST:PORT".to_owned(),
            Self::OpenFiles { needed, .. } => {
                format!("raise the limit with `ulimit -Hn {needed}`, or split the fleet with --shard I/N")
            }
            Self::Settings(_) => "choose another network or shorter names".to_owned(),
            Self::Peer(_) => "see whether the broker accepts clients".to_owned(),
            Self::Thread(_) => "choose fewer --threads".to_owned(),
        }
    }
}

/// A fleet about to run.
pub struct Fleet<'f> {
    /// What kind.
    pub options: &'f Options,
    /// [`source`], parsed: network, workload, limits.
    pub scenario: &'f Scenario,
    /// Which broker.
    pub broker: BrokerSpec,
    /// Name of the scenario whose network it is, if not the quiet one.
    pub network: Option<&'f str>,
    /// Where logs go.
    pub folder: &'f Path,
    /// The command line as it was typed.
    pub command_line: Vec<String>,
    /// Ends the run early, with a partial record.
    pub cancel: CancellationToken,
}

impl Fleet<'_> {
    /// Runs the fleet. Devices that fail are part of the record.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub async fn run(self, mut progress: impl FnMut(Progress)) -> Result<RunRecord, FleetError> {
        let devices = self.options.shard.size(self.options.devices);
        let (needed, allowed) = (u64::from(devices) + FILES_BESIDES, usage::raise_open_files());
        if allowed < needed {
            return Err(FleetError::OpenFiles { devices, needed, allowed });
        }
        let certificates = Arc::new(Certificates::generate().map_err(BrokerError::from)?);
        let log = self.folder.join("broker.log");
        progress(Progress::Phase("starting the broker"));
        let broker = FleetBroker::start(self.broker.clone(), certificates, &log).await?;
        let mut stage = match self.stage(broker, devices) {
            Ok(stage) => stage,
            Err((broker, error)) => {
                broker.shut_down().await;
                return Err(error);
            }
        };
        let cancel = self.cancel.clone();
        let ended = tokio::select! {
            ended = stage.phases(self.options, &mut progress) => ended,
            () = cancel.cancelled() => Err(Ending::Interrupted { by: "the user".to_owned() }),
        };
        let logs = stage.leave().await;
        if let Some(text) = stage.broker.log()
            && let Err(error) = std::fs::write(&log, text)
        {
            tracing::warn!(%error, "cannot write the broker's log");
        }
        let record = assemble::record(&self, &stage, logs, ended.err());
        stage.broker.shut_down().await;
        Ok(record)
    }

    /// Everything but the phases.
    fn stage(&self, broker: FleetBroker, devices: u32) -> Result<Stage, (FleetBroker, FleetError)> {
        let epoch = Instant::now();
        match self.prepare(&broker, epoch) {
            Ok((brief, link, connector, quic)) => {
                let base = Moment::take(&Control::new(), &link, &broker, Instant::now(), epoch);
                let control = Arc::new(Control::new());
                let mut stage = Stage {
                    epoch,
                    devices,
                    limits: self.scenario.limits,
                    idle_timeout: self.scenario.variants[0].connection.idle_timeout,
                    brief,
                    link,
                    connector,
                    control,
                    workers: Vec::new(),
                    marks: Marks::new(base),
                    arrivals: Default::default(),
                    broker,
                };
                match stage.start_workers(self.options, quic) {
                    Ok(()) => Ok(stage),
                    Err(error) => {
                        stage.control.begin(Phase::End);
                        Err((stage.broker, FleetError::Thread(error)))
                    }
                }
            }
            Err(error) => Err((broker, error)),
        }
    }

    #[expect(clippy::type_complexity, reason = "the parts of one structure, on their way into it")]
    fn prepare(
        &self,
        broker: &FleetBroker,
        epoch: Instant,
    ) -> Result<(Arc<Brief>, Arc<SharedLink>, Arc<Connector>, SocketAddr), FleetError> {
        let quic =
            broker.addresses().quic.ok_or_else(|| FleetError::NoQuic(broker.describe().to_string()))?;
        let trust = broker.trust();
        let variant = &self.scenario.variants[0];
        let destination = Destination {
            broker: SocketAddr::new(IpAddr::V4(lan::GATEWAY), default_port(Transport::Quic)),
            server_name: trust.server_name.clone(),
            // Each device puts its own in.
            addressing: Addressing::Static {
                address: Ipv4Addr::UNSPECIFIED.into(),
                prefix: lan::PREFIX,
                gateway: None,
            },
        };
        let settings = settings::settings(variant, &destination, "fleet", self.scenario.limits.connect)
            .map_err(FleetError::Settings)?;
        let flow = self.scenario.up.expect("the fleet's scenario has a workload");
        let topics = ["fleet".to_owned()];
        let workload = |flow| {
            settings::workload(flow, 0, self.options.seed, &topics, self.scenario.limits.drain)
                .map_err(FleetError::Settings)
        };
        let check = crate::scenario::Flow { count: CHECK_MESSAGES, ..flow };
        let brief = Arc::new(Brief {
            anchor: trust.anchor.as_ref().map_or_else(Vec::new, |anchor| anchor.to_vec()),
            settings,
            workloads: [workload(&flow)?, workload(&check)?],
            token: token(),
            first: self.options.shard.first(self.options.devices),
        });
        let link = SharedLink::new(&self.scenario.link, self.options.seed_of_shard(), epoch)
            .map_err(|error| FleetError::Settings(error.to_string()))?;
        link.event("start");
        let target = Target::new(Transport::Quic, quic, &trust.server_name, trust.roots);
        let connector = Connector::new(target).map_err(|error| FleetError::Peer(error.to_string()))?;
        Ok((brief, link, Arc::new(connector), quic))
    }
}

/// A fleet that runs.
struct Stage {
    epoch: Instant,
    devices: u32,
    limits: crate::scenario::Limits,
    idle_timeout: Duration,
    brief: Arc<Brief>,
    link: Arc<SharedLink>,
    connector: Arc<Connector>,
    control: Arc<Control>,
    workers: Vec<JoinHandle<std::io::Result<Vec<CoreLog>>>>,
    marks: Marks,
    /// What the peer saw, in the phases that publish.
    arrivals: [Vec<Arrival>; 2],
    broker: FleetBroker,
}

impl Stage {
    fn start_workers(&mut self, options: &Options, broker: SocketAddr) -> std::io::Result<()> {
        let workers = options.threads.clamp(1, self.devices.max(1) as usize);
        let ramp_per_s = options.ramp_per_s / f64::from(options.shard.count());
        let interval_us = options.interval.as_micros() as f64;
        let parts: Vec<Part> = (0..self.devices)
            .map(|number| Part {
                number,
                seed: options.seed.wrapping_mul(1 << 20).wrapping_add(u64::from(self.brief.first + number)),
                start_us: (f64::from(number) / ramp_per_s * 1e6) as u64,
                // Spread over one interval, as devices that know nothing of each other are.
                offset_us: (interval_us * f64::from(number) / f64::from(self.devices)) as u64,
            })
            .collect();
        let now_us = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        for (n, parts) in parts.chunks(parts.len().div_ceil(workers)).enumerate() {
            let parts = parts.iter().map(|part| Part { start_us: part.start_us + now_us, ..*part }).collect();
            let share = Share {
                connecting_max: (options.connecting as usize).div_ceil(workers),
                epoch: self.epoch,
                parts,
                brief: Arc::clone(&self.brief),
                broker,
                link: Arc::clone(&self.link),
                control: Arc::clone(&self.control),
            };
            let worker = std::thread::Builder::new()
                .name(format!("fleet-{n}"))
                .stack_size(WORKER_STACK)
                .spawn(move || worker::run(share))?;
            self.workers.push(worker);
        }
        Ok(())
    }

    /// All phases up to the leave; an error is how the run ended instead.
    async fn phases(&mut self, options: &Options, progress: &mut impl FnMut(Progress)) -> Result<(), Ending> {
        progress(Progress::Phase("connecting"));
        let share = f64::from(options.shard.count());
        let ramp = Duration::from_secs_f64(f64::from(self.devices) * share / options.ramp_per_s);
        let connected = |control: &Control| control.connected.load(Ordering::Relaxed);
        self.wait(ramp + RAMP_LIMIT + self.limits.connect, self.devices, connected, progress).await;
        self.mark();

        self.link.event("workload");
        progress(Progress::Phase("publishing"));
        let peer = self.start_peer().await?;
        let done = |control: &Control| control.done.load(Ordering::Relaxed);
        self.control.begin(Phase::Work);
        // Devices begin within one interval of each other.
        let span = options.interval * (options.messages + 1) + self.limits.drain;
        self.wait(span, self.devices, done, progress).await;
        let messages = u64::from(self.devices) * u64::from(options.messages);
        self.arrivals[0] = hear_out(peer, messages, self.limits.drain).await;
        self.mark();

        if options.storm == Storm::None {
            return Ok(());
        }
        self.storm(options, progress).await?;
        progress(Progress::Phase("publishing once more"));
        let peer = self.start_peer().await?;
        self.control.begin(Phase::Check);
        let span = options.interval * (CHECK_MESSAGES + 1) + self.limits.drain;
        self.wait(span, 2 * self.devices, done, progress).await;
        let messages = u64::from(self.devices) * u64::from(CHECK_MESSAGES);
        self.arrivals[1] = hear_out(peer, messages, self.limits.drain).await;
        self.mark();
        Ok(())
    }

    /// The broker goes and comes back; waits until every device that had a session has one again.
    async fn storm(&mut self, options: &Options, progress: &mut impl FnMut(Progress)) -> Result<(), Ending> {
        progress(Progress::Phase("the broker goes"));
        self.control.begin(Phase::Storm);
        let failed = |error: &BrokerError| Ending::Failed {
            phase: "storm".to_owned(),
            cause: format!("{error}; {}", error.remedy()),
            blame: Blame::Environment,
        };
        let affected = self.control.connected.load(Ordering::Relaxed);
        self.marks.gone_us = Some(self.now_us());
        self.broker.go(options.storm).await.map_err(|error| failed(&error))?;
        tokio::time::sleep(options.down).await;
        self.broker.come_back().await.map_err(|error| failed(&error))?;
        self.marks.back_us = Some(self.now_us());
        progress(Progress::Phase("the broker is back: reconnecting"));
        let healed = |control: &Control| control.healed.load(Ordering::Relaxed);
        self.wait(self.idle_timeout + RETURN_LIMIT, affected, healed, progress).await;
        self.mark();
        Ok(())
    }

    /// Waits until `count` reaches `wanted`, for at most `limit`; the metrics tell who was late.
    async fn wait(
        &self,
        limit: Duration,
        wanted: u32,
        count: impl Fn(&Control) -> u32,
        progress: &mut impl FnMut(Progress),
    ) {
        let deadline = Instant::now() + limit;
        let mut told = Instant::now();
        while count(&self.control) < wanted
            && Instant::now() < deadline
            && self.workers.iter().all(|worker| !worker.is_finished())
        {
            tokio::time::sleep(LOOK).await;
            if told.elapsed() > Duration::from_secs(1) {
                told = Instant::now();
                progress(Progress::Count(count(&self.control), wanted));
            }
        }
    }

    /// Connects the verifying peer and subscribes it to everything the fleet will publish.
    async fn start_peer(&self) -> Result<Party, Ending> {
        let fail = |error: &dyn std::fmt::Display| Ending::Failed {
            phase: "peer".to_owned(),
            cause: error.to_string(),
            blame: Blame::Environment,
        };
        let name = format!("fleet-peer-{:08x}-{}", self.brief.token, self.brief.first);
        let options = ClientOptions::new(Version::V5, &name);
        let clock = Clock::at(self.epoch);
        let peer = Party::start(Implementation::Own, Arc::clone(&self.connector), options, clock)
            .map_err(|error| fail(&error))?;
        peer.connected().await.map_err(|error| fail(&error))?;
        let filter = format!("{}/#", self.brief.root());
        peer.subscribe(&[&filter], Qos::ExactlyOnce).await.map_err(|error| fail(&error))?;
        Ok(peer)
    }

    fn mark(&mut self) {
        let moment = Moment::take(&self.control, &self.link, &self.broker, Instant::now(), self.epoch);
        self.marks.moments.push(moment);
    }

    fn now_us(&self) -> u64 {
        Clock::at(self.epoch).now_us()
    }

    /// Ends the devices and collects what they said.
    async fn leave(&mut self) -> Vec<CoreLog> {
        self.control.begin(Phase::Leave);
        tokio::time::sleep(SETTLE).await;
        self.control.begin(Phase::End);
        let workers = std::mem::take(&mut self.workers);
        let ended = tokio::task::spawn_blocking(move || {
            workers.into_iter().map(JoinHandle::join).collect::<Vec<_>>()
        });
        let mut logs = Vec::new();
        for ended in ended.await.expect("joining does not panic") {
            match ended {
                Ok(Ok(of_worker)) => logs.extend(of_worker),
                Ok(Err(error)) => self.marks.failures.push(format!("a thread of devices ended: {error}")),
                Err(_) => self.marks.failures.push("a thread of devices panicked".to_owned()),
            }
        }
        logs
    }
}

/// Stack of a worker: far more than the cores take.
const WORKER_STACK: usize = 1 << 20;

/// Waits for the last arrivals, and a little for duplicates, and ends the peer.
async fn hear_out(peer: Party, messages: u64, limit: Duration) -> Vec<Arrival> {
    let wanted = usize::try_from(messages).unwrap_or(usize::MAX);
    // Whoever is late is missing in the account.
    let _ = tokio::time::timeout(limit, peer.arrived(wanted)).await;
    tokio::time::sleep(SETTLE).await;
    peer.finish().await.arrivals
}

/// Names this process's topics and clients: no two fleets at one broker see each other's messages. The low bits are
/// zero, as payloads number the devices from there.
fn token() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let folded = since.as_micros() as u64 ^ u64::from(std::process::id()).rotate_left(40);
    ((folded ^ folded >> 29) as u32 & 0x7ffe_0000) | 1 << 30
}

/// What this process takes now.
fn own_usage() -> Usage {
    usage::of(None)
}
