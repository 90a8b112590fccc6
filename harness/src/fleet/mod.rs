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
mod stage;
mod together;
mod usage;
mod worker;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use device::control::Addressing;
use tokio_util::sync::CancellationToken;

pub use self::broker::Storm;
pub use self::merge::{MergeError, merge};
pub use self::shard::{JOB_INDEX, Shard};
pub use self::source::{ORIGIN, source};

use self::broker::FleetBroker;
use self::cores::Brief;
use self::stage::Stage;
use crate::broker::{BrokerError, BrokerSpec, default_port};
use crate::certificates::Certificates;
use crate::link::lan::{self, SharedLink};
use crate::measure::record::{Ending, RunRecord, Transport};
use crate::peer::{Connector, Target};
use crate::run::settings::{self, Destination};
use crate::scenario::Scenario;

/// Most devices in one process: what its LAN has addresses for, one left for the device that goes ahead.
pub const DEVICES_MAX: u32 = lan::BOARDS_MAX - 1;
/// Files a process needs besides one socket for each device.
const FILES_BESIDES: u64 = 64;
/// Files of each thread that drives devices: its event queue, and what that may take beside.
const FILES_PER_THREAD: u64 = 2;
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

/// How long a device waits for its handshake, and then for CONNACK, before it tries anew.
const ATTEMPT_LIMIT_MS: u32 = 20_000;

/// Where a record keeps which shard it is of.
const SHARD: &str = "shard";
/// Where a record keeps the number of the whole fleet's devices.
const FLEET_SIZE: &str = "fleet";
/// Where a record keeps how fast the devices were to come.
const RAMP: &str = "ramp";
/// Where a record keeps what the broker was made to do.
const STORM_KIND: &str = "storm";
/// Where a record keeps how many threads drove its devices.
const THREADS: &str = "threads";

impl Options {
    /// Threads for so many devices: as many as were asked for, but none without a device.
    fn threads_for(&self, devices: u32) -> usize {
        self.threads.clamp(1, devices.max(1) as usize)
    }

    /// The seed of the shard's link and of its trials.
    fn seed_of_shard(&self) -> u64 {
        self.seed.wrapping_add(u64::from(self.shard.index() - 1))
    }
}

/// Files that a fleet has open.
fn open_files(devices: u32, threads: usize) -> u64 {
    u64::from(devices) + FILES_BESIDES + FILES_PER_THREAD * threads as u64
}

/// What a fleet tells while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'p> {
    /// EMQX was wanted first, and another broker takes its place: why.
    StandsIn(&'p str),
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
    /// The user does not want to wait for the broker.
    #[error("interrupted while the broker started; nothing ran")]
    Interrupted,
    /// The broker serves no QUIC.
    #[error("the broker {0} serves no QUIC, which a fleet speaks")]
    NoQuic(String),
    /// Too few open files allowed.
    #[error(
        "{devices} devices on {threads} threads need {needed} open files, and this process may have {allowed}"
    )]
    OpenFiles {
        /// How many devices.
        devices: u32,
        /// How many threads drive them.
        threads: usize,
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
}

impl FleetError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Broker(error) => error.remedy().to_owned(),
            Self::Interrupted => "run it again".to_owned(),
            Self::NoQuic(_) => "name a broker by quic://HOST:PORT".to_owned(),
            Self::OpenFiles { needed, .. } => {
                format!(
                    "raise the limit with `ulimit -Hn {needed}`, choose fewer --threads, or split the fleet with \
                     --shard I/N"
                )
            }
            Self::Settings(_) => "choose another network or shorter names".to_owned(),
            Self::Peer(_) => "see whether the broker accepts clients".to_owned(),
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
    /// Where logs go.
    pub folder: &'f Path,
    /// The command line as it was typed.
    pub command_line: Vec<String>,
    /// The command that repeats the run.
    pub replay: String,
    /// Names its topics and clients, from [`token`](crate::run::token). Shards that should draw the same one still keep
    /// apart.
    pub token: u32,
    /// Ends the run early, with a partial record.
    pub cancel: CancellationToken,
}

impl Fleet<'_> {
    /// Runs the fleet. Devices that fail are part of the record.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub async fn run(self, mut progress: impl FnMut(Progress<'_>)) -> Result<RunRecord, FleetError> {
        let devices = self.options.shard.size(self.options.devices);
        let threads = self.options.threads_for(devices);
        let (needed, allowed) = (open_files(devices, threads), usage::raise_open_files());
        if allowed < needed {
            return Err(FleetError::OpenFiles { devices, threads, needed, allowed });
        }
        let certificates = Arc::new(Certificates::generate().map_err(BrokerError::from)?);
        let log = self.folder.join("broker.log");
        progress(Progress::Phase("starting the broker"));
        let starting = FleetBroker::start(self.broker.clone(), certificates, &log);
        let started = self.cancel.run_until_cancelled(starting).await;
        let broker = started.ok_or(FleetError::Interrupted)??;
        if let Some(why) = broker.stands_in() {
            progress(Progress::StandsIn(why));
        }
        let (brief, link, connector, quic) = match self.prepare(&broker) {
            Ok(prepared) => prepared,
            Err(error) => {
                broker.shut_down().await;
                return Err(error);
            }
        };
        let variant = &self.scenario.variants[0];
        let (limits, idle_timeout) = (self.scenario.limits, variant.connection.idle_timeout);
        let mut stage = Stage::new(devices, limits, idle_timeout, brief, link, connector, broker);
        let (cancel, loss) = (self.cancel.clone(), stage.broker.loss());
        let ended = tokio::select! {
            ended = stage.phases(self.options, quic, &mut progress) => ended,
            () = cancel.cancelled() => Err(Ending::Interrupted { by: "the user".to_owned() }),
            // What became of it is asked below.
            () = loss => Ok(()),
        };
        let ended = match ended {
            Err(interrupted @ Ending::Interrupted { .. }) => Err(interrupted),
            // Whatever was noticed of it: a broker that has gone explains it.
            ended => stage.broker_serves().await.and(ended),
        };
        if ended.is_err() {
            // The phase that was cut short ends here.
            stage.mark();
        }
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

    /// What the fleet is told, its network, and the ways to the broker.
    #[expect(clippy::type_complexity, reason = "the parts of one structure, on their way into it")]
    fn prepare(
        &self,
        broker: &FleetBroker,
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
        let mut settings = settings::settings(variant, &destination, "fleet", self.scenario.limits.connect)
            .map_err(FleetError::Settings)?;
        // A thousand handshakes at once take their time: whoever gives up early makes the others wait for nothing.
        // But brokers forget a handshake after some 10 s, and whoever goes on with it waits for nothing.
        settings.connect_timeout_ms = settings.connect_timeout_ms.min(ATTEMPT_LIMIT_MS);
        settings.answer_timeout_ms = settings.connect_timeout_ms;
        settings.give_up_after_timeouts = 0;
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
            token: self.token,
            shard: self.options.shard,
            first: self.options.shard.first(self.options.devices),
            devices: self.options.shard.size(self.options.devices),
        });
        let link = SharedLink::new(&self.scenario.link, self.options.seed_of_shard(), Instant::now())
            .map_err(|error| FleetError::Settings(error.to_string()))?;
        link.event("start");
        let target = Target::new(Transport::Quic, quic, &trust.server_name, trust.roots);
        let connector = Connector::new(target).map_err(|error| FleetError::Peer(error.to_string()))?;
        Ok((brief, link, Arc::new(connector), quic))
    }
}
