//! The phases of a fleet, one after the other, and what is noted between them.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use device::control::{Sample, Verdict};

use super::assemble::{Marks, Moment};
use super::broker::{FleetBroker, Storm};
use super::cores::{Brief, CoreLog};
use super::worker::{self, Control, Part, Phase, Share};
use super::{CHECK_MESSAGES, Options, Progress};
use crate::broker::BrokerError;
use crate::link::lan::SharedLink;
use crate::measure::record::{Blame, Ending};
use crate::peer::{Arrival, ClientOptions, Clock, Connector, Implementation, Party};
use crate::scenario::Limits;
use crate::wire::{Qos, Version};

/// How often the fleet's counters are looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Time for the last packets and duplicates after a phase is done.
const SETTLE: Duration = Duration::from_millis(300);
/// Time that what was acknowledged has to arrive once a phase was cut short.
const LAST_LIMIT: Duration = Duration::from_secs(2);
/// Time a device has to come back, beyond what noticing the loss may take.
const RETURN_LIMIT: Duration = Duration::from_secs(90);
/// How much longer than asked the ramp may take on a machine that is too slow for it.
const RAMP_LIMIT: Duration = Duration::from_secs(120);

/// A fleet that runs.
pub(super) struct Stage {
    pub(super) epoch: Instant,
    pub(super) devices: u32,
    pub(super) limits: crate::scenario::Limits,
    pub(super) idle_timeout: Duration,
    pub(super) brief: Arc<Brief>,
    pub(super) link: Arc<SharedLink>,
    pub(super) connector: Arc<Connector>,
    pub(super) control: Arc<Control>,
    pub(super) workers: Vec<JoinHandle<std::io::Result<Vec<CoreLog>>>>,
    pub(super) marks: Marks,
    /// What the peer saw, in the phases that publish.
    pub(super) arrivals: [Vec<Arrival>; 2],
    /// The peer while it listens, and to which of these phases: held here, so that what it has seen outlives a phase
    /// that is cut short.
    peer: Option<(usize, Party)>,
    pub(super) broker: FleetBroker,
}

impl Stage {
    /// Nothing has begun yet.
    pub(super) fn new(
        devices: u32,
        limits: Limits,
        idle_timeout: Duration,
        brief: Arc<Brief>,
        link: Arc<SharedLink>,
        connector: Arc<Connector>,
        broker: FleetBroker,
    ) -> Self {
        let (epoch, control) = (link.started(), Arc::new(Control::new()));
        let marks = Marks::new(Moment::take(&control, &link, &broker, epoch));
        let arrivals = Default::default();
        let workers = Vec::new();
        Self {
            epoch,
            devices,
            limits,
            idle_timeout,
            brief,
            link,
            connector,
            control,
            workers,
            marks,
            arrivals,
            peer: None,
            broker,
        }
    }

    /// One device and the peer connect and leave, so that what the process takes once, whatever the number of devices,
    /// is there before the count begins.
    async fn go_ahead(&mut self, broker: SocketAddr) -> Result<(), Ending> {
        let ahead = Arc::new(Control::new());
        let part = Part { number: self.devices, seed: 0, start_us: 0, offset_us: 0 };
        let share = self.share(vec![part], 1, broker, &ahead);
        let worker = std::thread::spawn(move || worker::run(share));
        // Should the user not want to wait for it.
        let ending = EndOnDrop(Arc::clone(&ahead));
        let deadline = Instant::now() + self.limits.connect;
        while ahead.connected.load(Ordering::Relaxed) == 0
            && Instant::now() < deadline
            && !worker.is_finished()
        {
            tokio::time::sleep(LOOK).await;
        }
        self.start_peer().await?.finish().await;
        ahead.begin(Phase::Leave);
        tokio::time::sleep(SETTLE).await;
        drop(ending);
        let ended = tokio::task::spawn_blocking(move || worker.join()).await;
        // Whether it connected is for the fleet itself to find out.
        let ended = ended.expect("joining does not panic");
        if !matches!(ended, Ok(Ok(_))) {
            return Err(lost(&ended));
        }
        let base = Moment::take(&self.control, &self.link, &self.broker, self.epoch);
        self.marks.moments = vec![base];
        Ok(())
    }

    fn share(
        &self,
        parts: Vec<Part>,
        connecting_max: usize,
        broker: SocketAddr,
        control: &Arc<Control>,
    ) -> Share {
        Share {
            connecting_max,
            epoch: self.epoch,
            parts,
            brief: Arc::clone(&self.brief),
            broker,
            link: Arc::clone(&self.link),
            control: Arc::clone(control),
        }
    }

    fn start_workers(&mut self, options: &Options, broker: SocketAddr) -> std::io::Result<()> {
        let workers = options.threads_for(self.devices);
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
            let connecting_max = (options.connecting as usize).div_ceil(workers);
            let share = self.share(parts, connecting_max, broker, &self.control);
            let worker = std::thread::Builder::new()
                .name(format!("fleet-{n}"))
                .stack_size(WORKER_STACK)
                .spawn(move || worker::run(share))?;
            self.workers.push(worker);
        }
        Ok(())
    }

    /// All phases up to the leave; an error is how the run ended instead.
    pub(super) async fn phases(
        &mut self,
        options: &Options,
        broker: SocketAddr,
        progress: &mut impl FnMut(Progress<'_>),
    ) -> Result<(), Ending> {
        progress(Progress::Phase("one device goes ahead"));
        self.go_ahead(broker).await?;
        progress(Progress::Phase("connecting"));
        self.start_workers(options, broker).map_err(|error| Ending::Failed {
            phase: "start".to_owned(),
            cause: format!("cannot start a thread for devices: {error}; choose fewer --threads"),
            blame: Blame::Environment,
        })?;
        let share = f64::from(options.shard.count());
        let ramp = Duration::from_secs_f64(f64::from(self.devices) * share / options.ramp_per_s);
        let connected = |stage: &Self| stage.control.connected.load(Ordering::Relaxed);
        self.wait(ramp + RAMP_LIMIT + self.limits.connect, self.devices, connected, progress).await?;
        self.mark();

        self.link.event("workload");
        progress(Progress::Phase("publishing"));
        self.peer = Some((0, self.start_peer().await?));
        let done = |stage: &Self| stage.control.done.load(Ordering::Relaxed);
        self.control.begin(Phase::Work);
        // Devices begin within one interval of each other.
        let span = options.interval * (options.messages + 1) + self.limits.drain;
        self.wait(span, self.devices, done, progress).await?;
        let messages = u64::from(self.devices) * u64::from(options.messages);
        self.hear_out(messages, self.limits.drain).await?;
        self.mark();

        if options.storm == Storm::None {
            return Ok(());
        }
        self.storm(options, progress).await?;
        progress(Progress::Phase("publishing once more"));
        self.peer = Some((1, self.start_peer().await?));
        self.control.begin(Phase::Check);
        let span = options.interval * (CHECK_MESSAGES + 1) + self.limits.drain;
        self.wait(span, 2 * self.devices, done, progress).await?;
        let messages = u64::from(self.devices) * u64::from(CHECK_MESSAGES);
        self.hear_out(messages, self.limits.drain).await?;
        self.mark();
        Ok(())
    }

    /// The broker goes and comes back; waits until every device that had a session has one again.
    async fn storm(
        &mut self,
        options: &Options,
        progress: &mut impl FnMut(Progress<'_>),
    ) -> Result<(), Ending> {
        progress(Progress::Phase("the broker goes"));
        self.control.begin(Phase::Storm);
        let affected = self.control.connected.load(Ordering::Relaxed);
        self.marks.gone_us = Some(self.now_us());
        self.broker.go(options.storm).await.map_err(|error| failed("storm", &error))?;
        tokio::time::sleep(options.down).await;
        self.broker.come_back().await.map_err(|error| failed("storm", &error))?;
        self.marks.back_us = Some(self.now_us());
        progress(Progress::Phase("the broker is back: reconnecting"));
        let healed = |stage: &Self| stage.control.healed.load(Ordering::Relaxed);
        self.wait(self.idle_timeout + RETURN_LIMIT, affected, healed, progress).await?;
        self.mark();
        Ok(())
    }

    /// Waits until `count` reaches `wanted`, for at most `limit`; the metrics tell who was late. An error is that the
    /// broker or a thread of devices has gone meanwhile.
    async fn wait(
        &mut self,
        limit: Duration,
        wanted: u32,
        count: impl Fn(&Self) -> u32,
        progress: &mut impl FnMut(Progress<'_>),
    ) -> Result<(), Ending> {
        let deadline = Instant::now() + limit;
        let mut told = Instant::now();
        while count(self) < wanted && Instant::now() < deadline {
            if let Some(ended) = self.workers.iter().position(JoinHandle::is_finished) {
                // It has ended: joining it takes no time.
                return Err(lost(&self.workers.swap_remove(ended).join()));
            }
            tokio::time::sleep(LOOK).await;
            if told.elapsed() > Duration::from_secs(1) {
                told = Instant::now();
                progress(Progress::Count(count(self), wanted));
                self.broker_serves().await?;
            }
        }
        Ok(())
    }

    /// Whether the broker is still there; an error is what became of it.
    pub(super) async fn broker_serves(&mut self) -> Result<(), Ending> {
        self.broker.lost().await.map_or(Ok(()), |lost| Err(failed("broker", &lost)))
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

    /// Waits for the last of `messages`, and a little for duplicates, and ends the peer.
    async fn hear_out(&mut self, messages: u64, limit: Duration) -> Result<(), Ending> {
        let wanted = u32::try_from(messages).unwrap_or(u32::MAX);
        let arrived = |stage: &Self| {
            let Some((phase, peer)) = &stage.peer else { return u32::MAX };
            let ours = |run| stage.brief.is_ours(*phase, run);
            // All that arrived is looked through only where it may be enough.
            let count = Some(peer.arrived_count()).filter(|count| *count < wanted as usize);
            u32::try_from(count.unwrap_or_else(|| heard(&peer.arrivals(), ours))).unwrap_or(u32::MAX)
        };
        // Whoever is late is missing in the account.
        let heard = self.wait(limit, wanted, arrived, &mut |_| {}).await;
        if self.peer.is_some() {
            tokio::time::sleep(SETTLE).await;
        }
        if let Some((phase, peer)) = self.peer.take() {
            // Before its leave, too, which the user may not want to wait for.
            self.arrivals[phase] = peer.arrivals();
            self.arrivals[phase] = peer.finish().await.arrivals;
        }
        heard
    }

    /// Messages that the broker has acknowledged to the devices, of the phase that the peer listens to.
    fn acknowledged(&self, logs: &[CoreLog]) -> u64 {
        let Some((phase, _)) = self.peer else { return 0 };
        let acknowledged = |log: &CoreLog| {
            let run = self.brief.run(phase, log.number);
            let of_phase = log.samples.iter().filter(|(of, _)| *of == run);
            of_phase.filter(|(_, sample)| matches!(sample, Sample::Acked { .. })).count() as u64
        };
        logs.iter().map(acknowledged).sum()
    }

    /// Notes where the counters stand.
    pub(super) fn mark(&mut self) {
        let moment = Moment::take(&self.control, &self.link, &self.broker, self.epoch);
        self.marks.moments.push(moment);
    }

    fn now_us(&self) -> u64 {
        Clock::at(self.epoch).now_us()
    }

    /// Ends the devices and collects what they said, and what the peer saw of a phase that was cut short.
    pub(super) async fn leave(&mut self) -> Vec<CoreLog> {
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
                ended => self.marks.failures.push(lost(&ended)),
            }
        }
        // A broker that has gone is known by now.
        let _ = self.hear_out(self.acknowledged(&logs), LAST_LIMIT).await;
        logs
    }
}

/// How a thread of devices ends a run when it ends before it is told to.
fn lost(ended: &std::thread::Result<std::io::Result<Vec<CoreLog>>>) -> Ending {
    let (cause, blame) = match ended {
        Ok(Err(error)) => (
            format!(
                "a thread of devices ended: {error}; see what this machine lacks (open files: `ulimit -n`, memory, \
                 ports), or split the fleet with --shard I/N"
            ),
            Blame::Environment,
        ),
        Ok(Ok(_)) => ("a thread of devices ended before its time".to_owned(), Blame::Harness),
        Err(_) => ("a thread of devices panicked".to_owned(), Blame::Harness),
    };
    Ending::Failed { phase: "devices".to_owned(), cause, blame }
}

/// How an error of the broker ends a run.
fn failed(phase: &str, error: &BrokerError) -> Ending {
    Ending::Failed {
        phase: phase.to_owned(),
        cause: format!("{error}; {}", error.remedy()),
        blame: Blame::Environment,
    }
}

/// Different messages of runs that are `ours`: neither one that came twice nor one of others stands for one that is
/// missing.
fn heard(arrivals: &[Arrival], ours: impl Fn(u32) -> bool) -> usize {
    let intended = arrivals.iter().filter(|arrival| arrival.verdict != Verdict::Foreign && ours(arrival.run));
    intended.map(|arrival| (arrival.run, arrival.sequence)).collect::<HashSet<_>>().len()
}

/// Stack of a worker: far more than the cores take.
const WORKER_STACK: usize = 1 << 20;

/// Ends the devices of a control that nobody holds on to any longer.
struct EndOnDrop(Arc<Control>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.begin(Phase::End);
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::broker::{Broker, BrokerOptions, BrokerSpec};
    use crate::certificates::Certificates;
    use crate::fleet::{Fleet, ORIGIN, Shard, source};
    use crate::scenario::Scenario;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_device_without_a_socket_ends_the_run_by_the_machines_fault() {
        let options = Options {
            devices: 2,
            shard: Shard::WHOLE,
            ramp_per_s: 100.0,
            connecting: 2,
            messages: 1,
            interval: Duration::from_millis(100),
            size: 64,
            qos: 1,
            storm: Storm::None,
            down: Duration::from_secs(1),
            threads: 2,
            seed: 1,
        };
        let scenario = Scenario::parse(ORIGIN, &source(&options, None)).expect("a fleet's scenario");
        let certificates = Arc::new(Certificates::generate().expect("certificates"));
        let broker = Broker::start(BrokerSpec::Embedded, certificates, BrokerOptions::default());
        let broker = FleetBroker::Other(Box::new(broker.await.expect("the embedded broker")));
        let fleet = Fleet {
            options: &options,
            scenario: &scenario,
            broker: BrokerSpec::Embedded,
            folder: std::path::Path::new("."),
            command_line: Vec::new(),
            replay: String::new(),
            token: 1,
            cancel: CancellationToken::new(),
        };
        let (brief, link, connector, _) = fleet.prepare(&broker).expect("prepared");
        let idle_timeout = scenario.variants[0].connection.idle_timeout;
        let mut stage = Stage::new(2, scenario.limits, idle_timeout, brief, link, connector, broker);
        // The system gives nobody a socket towards everybody.
        let everybody = SocketAddr::from(([255, 255, 255, 255], 9));
        let blames = |ended: Result<(), Ending>| {
            let Err(Ending::Failed { cause, blame, .. }) = ended else { panic!("{ended:?}") };
            assert!(cause.contains("no socket for device") && cause.contains("ulimit -n"), "{cause}");
            assert_eq!(blame, Blame::Environment);
        };
        blames(stage.phases(&options, everybody, &mut |_| {}).await);
        // The same for the fleet itself, which counted nobody until then.
        stage.start_workers(&options, everybody).expect("threads");
        blames(stage.wait(Duration::from_secs(600), 2, |_| 0, &mut |_| {}).await);
        stage.leave().await;
        stage.broker.shut_down().await;
    }

    #[test]
    fn neither_a_duplicate_nor_a_message_of_others_stands_for_one_that_is_missing() {
        let arrival = Arrival::example;
        let mut arrivals = Vec::new();
        for (arrival, count) in [
            (arrival(8, 0, Verdict::Intact), 1),
            (arrival(8, 0, Verdict::Intact), 1),
            (arrival(7, 0, Verdict::Intact), 1),
            (arrival(8, 1, Verdict::Foreign), 1),
            (arrival(8, 1, Verdict::Corrupt), 2),
        ] {
            arrivals.push(arrival);
            assert_eq!(heard(&arrivals, |run| run == 8), count, "{arrival:?}");
        }
    }
}
