//! What was gathered, made into a record: a trial for connecting and publishing, one for the storm.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use device::crypto::Software;
use device::node::{Node, Storage};

use super::broker::{FleetBroker, Storm};
use super::cores::CoreLog;
use super::source::{FLEET, ORIGIN, STORM};
use super::stage::Stage;
use super::usage::Usage;
use super::worker::{Control, Phase};
use super::{Fleet, Options, usage};
use crate::link::lan::SharedLink;
use crate::link::{DirectionStats, Stats};
use crate::measure::judge::describe;
use crate::measure::record::{
    self, Direction, Ending, Environment, Event, EventKind, Impairment, ImpairmentKind, LinkStats, Outage,
    Role, RunRecord, ScenarioRecord, Timing, Transport, Trial, Wire, WireCount, WirePhase,
};
use crate::peer::{Arrival, Closing, Ledger};
use crate::run::environment;

/// Different complaints of devices that the report lists.
const COMPLAINTS: usize = 5;
/// Contradictions that the report lists.
const CONTRADICTIONS: usize = 5;

/// The counters at one moment.
pub(super) struct Moment {
    at_us: u64,
    stats: Stats,
    own: Usage,
    broker: Usage,
    turns: u64,
    connected: u32,
}

impl Moment {
    pub(super) fn take(control: &Control, link: &SharedLink, broker: &FleetBroker, epoch: Instant) -> Self {
        Self {
            at_us: u64::try_from(epoch.elapsed().as_micros()).unwrap_or(u64::MAX),
            stats: link.stats(),
            own: usage::of(None),
            broker: broker.pid().map_or_else(Usage::default, |pid| usage::of(Some(pid))),
            turns: control.turns.load(Ordering::Relaxed),
            connected: control.connected.load(Ordering::Relaxed),
        }
    }
}

/// What happened when.
pub(super) struct Marks {
    /// Before the first device, and at the end of each phase that came to its end.
    pub(super) moments: Vec<Moment>,
    /// When the broker was told to go.
    pub(super) gone_us: Option<u64>,
    /// When it was back.
    pub(super) back_us: Option<u64>,
    /// What went wrong besides devices.
    pub(super) failures: Vec<Ending>,
}

impl Marks {
    pub(super) fn new(base: Moment) -> Self {
        Self { moments: vec![base], gone_us: None, back_us: None, failures: Vec::new() }
    }

    /// The moment at the end of a phase, or the last there is.
    fn end_of(&self, phase: Phase) -> &Moment {
        let index = (phase as usize + 1).min(self.moments.len() - 1);
        &self.moments[index]
    }
}

/// The record of a fleet that ran; `ended` if something cut it short.
pub(super) fn record(
    fleet: &Fleet<'_>,
    stage: &Stage,
    mut logs: Vec<CoreLog>,
    ended: Option<Ending>,
) -> RunRecord {
    let options = fleet.options;
    let mut ending = ended.unwrap_or_default();
    if let Some(failure) = stage.marks.failures.first().filter(|_| ending.is_completed()) {
        ending = failure.clone();
    }
    let stormy = options.storm != Storm::None;
    // What came to its end before the storm was not cut short by what happened in it.
    let before_storm = match stage.marks.gone_us {
        Some(_) if stage.marks.failures.is_empty() => Ending::Completed,
        _ => ending.clone(),
    };
    let said: Vec<Said> = logs.iter_mut().map(Said::take).collect();
    let split_us = stage.marks.gone_us.unwrap_or(u64::MAX);
    let mut trials = vec![trial(stage, &said, Which::Fleet, split_us, options.seed_of_shard(), before_storm)];
    if stage.marks.gone_us.is_some() {
        trials.push(trial(stage, &said, Which::Storm, split_us, options.seed_of_shard(), ending.clone()));
    }
    let duration_us = u64::try_from(stage.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
    let broker = stage.broker.describe();
    RunRecord {
        scenario: ScenarioRecord {
            name: fleet.scenario.name.clone(),
            question: fleet.scenario.question.clone(),
            origin: ORIGIN.to_owned(),
            source: fleet.scenario.source.clone(),
            variants: fleet.scenario.variants.iter().map(|variant| variant.name.clone()).collect(),
            planned_trials: 1 + usize::from(stormy),
        },
        environment: Environment {
            harness_version: env!("CARGO_PKG_VERSION").to_owned(),
            git_revision: environment::git_revision(),
            rustc_version: environment::rustc_version(),
            host: environment::host(),
            board: record::Board {
                name: "host".to_owned(),
                description: format!("{} firmware cores in one process", stage.devices),
                firmware: Some(env!("CARGO_PKG_VERSION").to_owned()),
                chip: None,
                mac: None,
                timing: Timing::Emulated,
                clock_hz: None,
                footprint: None,
            },
            broker: record::Broker {
                kind: broker.spec,
                version: broker.version,
                description: broker.product,
                image_digest: broker.image_digest,
                certificate: Some(format!("{:?}", stage.broker.certificates().kind())),
            },
            command_line: fleet.command_line.clone(),
            replay: fleet.replay.clone(),
            base_seed: options.seed,
            started_unix_us: now_us.saturating_sub(duration_us),
            duration_us,
            extra: BTreeMap::from([
                (super::FLEET_SIZE.to_owned(), format!("{} devices", options.devices)),
                (super::SHARD.to_owned(), options.shard.to_string()),
                (super::RAMP.to_owned(), ramp(options)),
                (super::STORM_KIND.to_owned(), storm_kind(options)),
                (super::THREADS.to_owned(), options.threads_for(stage.devices).to_string()),
            ]),
        },
        ending,
        trials,
    }
}

fn ramp(options: &Options) -> String {
    let Options { ramp_per_s, connecting, .. } = options;
    format!(
        "{ramp_per_s} devices per second, all shards together; at most {connecting} connect at once in a process"
    )
}

fn storm_kind(options: &Options) -> String {
    let down_ms = options.down.as_millis();
    match options.storm {
        Storm::None => "none".to_owned(),
        Storm::Stop => format!("the broker ended and was away for {down_ms} ms"),
        Storm::Kill => format!("the broker was killed and was away for {down_ms} ms"),
    }
}

/// One device's log, taken apart.
struct Said {
    number: u32,
    connections: Vec<record::Connection>,
    samples: Vec<(u32, device::control::Sample)>,
    outages: Vec<Outage>,
    complaint: Option<String>,
}

impl Said {
    fn take(log: &mut CoreLog) -> Self {
        let empty = crate::run::connections::Connections::new(Transport::Quic);
        let (connections, _) = std::mem::replace(&mut log.connections, empty).finish();
        Self {
            number: log.number,
            connections,
            samples: std::mem::take(&mut log.samples),
            outages: std::mem::take(&mut log.outages),
            complaint: log.complaint.take(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Fleet,
    Storm,
}

/// The trial before or from `split_us` on, on a clock of its own.
fn trial(stage: &Stage, said: &[Said], which: Which, split_us: u64, seed: u64, ending: Ending) -> Trial {
    let marks = &stage.marks;
    let base = &marks.moments[0];
    let (name, number, begin, publishing, end) = match which {
        Which::Fleet => {
            let end = marks.end_of(Phase::Work);
            (FLEET, 0, base, marks.end_of(Phase::Ramp), end)
        }
        Which::Storm => {
            let end = marks.end_of(Phase::Check);
            (STORM, 1, marks.end_of(Phase::Work), marks.end_of(Phase::Storm), end)
        }
    };
    let start_us = if which == Which::Fleet { 0 } else { split_us };
    let ours = |at_us: u64| (at_us >= split_us) == (which == Which::Storm);
    let mut trial = Trial::new(name.to_owned(), Transport::Quic, Role::Device, seed);
    trial.started_us = start_us;
    trial.duration_us = end.at_us.max(publishing.at_us).saturating_sub(start_us);
    trial.clock_uncertainty_us = Some(0);
    trial.ending = ending;
    messages(stage, said, number, publishing.at_us, start_us, &mut trial);
    // Of a phase that was cut short, the last messages arrive while the devices take their leave.
    let settled = trial.messages.iter().filter_map(|message| message.acked_us.max(message.delivered_us));
    trial.duration_us = settled.max().map_or(trial.duration_us, |last_us| trial.duration_us.max(last_us));
    trial.connections = said
        .iter()
        .flat_map(|said| &said.connections)
        .filter(|connection| ours(connection.started_us))
        .map(|connection| shifted(connection, start_us))
        .collect();
    let outages = said.iter().flat_map(|said| &said.outages).filter(|outage| ours(outage.lost_us));
    let outages = outages
        .map(|outage| Outage {
            lost_us: outage.lost_us - start_us,
            again_us: outage.again_us.map(|again_us| again_us.saturating_sub(start_us)),
        })
        .collect();
    if which == Which::Storm {
        storm(marks, start_us, &mut trial);
    }
    let phases: &[Phase] =
        if which == Which::Fleet { &[Phase::Ramp, Phase::Work] } else { &[Phase::Storm, Phase::Check] };
    let cpu: Duration = phases.iter().map(|phase| stage.control.cpu(*phase)).sum();
    let published = trial.messages.len();
    trial.notes.push(shares(
        stage.control.cpu(phases[0]),
        stage.control.cpu(phases[1]),
        stage.devices,
        published,
    ));
    let grown = |now: Option<u64>, before: Option<u64>| Some(now?.saturating_sub(before?));
    trial.fleet = Some(record::Fleet {
        devices: stage.devices,
        connected: end.connected,
        outages,
        recoveries_us: recoveries(marks, said, split_us, which),
        state_bytes: (size_of::<Node<'_, Software>>() + size_of::<Storage<'_, Software>>()) as u64,
        memory_bytes: grown(end.own.memory_bytes, base.own.memory_bytes),
        cpu_us: u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX),
        turns: end.turns - begin.turns,
        broker_memory_bytes: grown(end.broker.memory_bytes, base.broker.memory_bytes),
        broker_cpu_us: match which {
            Which::Fleet => {
                let spent =
                    end.broker.cpu.zip(base.broker.cpu).map(|(now, before)| now.saturating_sub(before));
                spent.and_then(|spent| u64::try_from(spent.as_micros()).ok())
            }
            // A new process since.
            Which::Storm => end.broker.cpu.and_then(|spent| u64::try_from(spent.as_micros()).ok()),
        },
    });
    traffic(begin, publishing, end, &mut trial);
    if which == Which::Fleet {
        trial.notes.push(format!(
            "{} devices of {} bytes of state each, driven by {} turns.",
            stage.devices,
            size_of::<Node<'_, Software>>() + size_of::<Storage<'_, Software>>(),
            end.turns - begin.turns,
        ));
        trial.notes.extend(complaints(said));
        trial.notes.extend(marks.failures.iter().map(describe));
    }
    trial
}

/// Where the processor time went: what a device costs to connect, and what each message costs once it is connected.
/// Fleets of different sizes are compared by these, at the same number of messages per second: a thread that wakes for
/// each message alone pays for its waking, and one that finds several waiting does not.
fn shares(connecting: Duration, publishing: Duration, devices: u32, messages: usize) -> String {
    let each = |spent: Duration, count: usize| spent.as_secs_f64() * 1e3 / count.max(1) as f64;
    format!(
        "Processor time: {:.2} ms to connect each device, {:.3} ms for each message while all were connected.",
        each(connecting, devices as usize),
        each(publishing, messages),
    )
}

/// The account of a trial's messages.
fn messages(stage: &Stage, said: &[Said], number: usize, planned_us: u64, start_us: u64, trial: &mut Trial) {
    let to_trial = |us: u64| us.saturating_sub(start_us);
    let mut ledger = Ledger::new();
    for device in 0..stage.devices {
        let workload = stage.brief.workload(number, device);
        ledger.plan(Direction::FromBoard, &workload, to_trial(planned_us));
    }
    for said in said {
        let run = stage.brief.run(number, said.number);
        for (_, sample) in said.samples.iter().filter(|(of, _)| *of == run) {
            ledger.sample(run, sample, to_trial);
        }
    }
    for arrival in &stage.arrivals[number] {
        let moved = Arrival {
            at_us: to_trial(arrival.at_us),
            intended_us: to_trial(arrival.intended_us),
            ..*arrival
        };
        ledger.arrival(Direction::FromBoard, &moved);
    }
    let closing = if trial.ending.is_completed() { Closing::Complete } else { Closing::Early };
    let account = ledger.close(closing);
    trial.topics = account.topics;
    trial.messages = account.messages;
    let strays = account.strays.foreign + account.strays.unplanned;
    if strays > 0 {
        trial.notes.push(format!("{strays} messages arrived that no device of this process was to send."));
    }
    let contradictions = account.contradictions.len();
    trial.notes.extend(account.contradictions.into_iter().take(CONTRADICTIONS));
    if contradictions > CONTRADICTIONS {
        trial.notes.push(format!("{contradictions} contradictions in all"));
    }
}

fn shifted(connection: &record::Connection, start_us: u64) -> record::Connection {
    let mut connection = connection.clone();
    connection.started_us -= start_us;
    for mark in &mut connection.marks {
        mark.at_us = mark.at_us.saturating_sub(start_us);
    }
    connection
}

fn storm(marks: &Marks, start_us: u64, trial: &mut Trial) {
    let back_us = marks.back_us.map(|back_us| back_us.saturating_sub(start_us));
    trial.impairments.push(Impairment {
        start_us: 0,
        end_us: back_us.unwrap_or(trial.duration_us),
        kind: ImpairmentKind::BrokerDown,
        direction: None,
        label: "broker down".to_owned(),
    });
    let event = |at_us, detail: &str| Event { at_us, kind: EventKind::Broker, detail: detail.to_owned() };
    trial.events.push(event(0, "the broker goes"));
    trial.events.extend(back_us.map(|at_us| event(at_us, "the broker is back")));
}

/// From the broker's return to each device's session.
fn recoveries(marks: &Marks, said: &[Said], split_us: u64, which: Which) -> Vec<Option<u64>> {
    let (Which::Storm, Some(back_us)) = (which, marks.back_us) else { return Vec::new() };
    said.iter()
        .map(|said| {
            // Several connections may be lost in a storm: the last counts.
            let last = said.outages.iter().rfind(|outage| outage.lost_us >= split_us)?;
            last.again_us.map(|again_us| again_us.saturating_sub(back_us))
        })
        .collect()
}

fn traffic(begin: &Moment, publishing: &Moment, end: &Moment, trial: &mut Trial) {
    let wire = |from: &DirectionStats, to: &DirectionStats| Wire {
        packets: to.offered.packets - from.offered.packets,
        bytes: to.offered.bytes - from.offered.bytes,
    };
    let count = |phase, from: &Moment, to: &Moment| WireCount {
        phase,
        up: wire(&from.stats.up, &to.stats.up),
        down: wire(&from.stats.down, &to.stats.down),
    };
    trial.wire =
        vec![count(WirePhase::Connect, begin, publishing), count(WirePhase::Workload, publishing, end)];
    trial.link_up = Some(link_stats(&begin.stats.up, &end.stats.up));
    trial.link_down = Some(link_stats(&begin.stats.down, &end.stats.down));
}

fn link_stats(from: &DirectionStats, to: &DirectionStats) -> LinkStats {
    use link::Reason;
    let dropped = |reasons: &[Reason]| {
        let sum = |stats: &DirectionStats| -> u64 {
            reasons.iter().filter_map(|reason| stats.dropped.get(reason)).sum()
        };
        sum(to) - sum(from)
    };
    LinkStats {
        offered: to.offered.packets - from.offered.packets,
        delivered: to.delivered.packets - from.delivered.packets,
        lost: dropped(&[Reason::Fade, Reason::ListedLoss, Reason::BurstLoss, Reason::RandomLoss]),
        queue_drops: dropped(&[Reason::QueueFull]),
        blackout_drops: dropped(&[Reason::Blackout]),
        oversized: dropped(&[Reason::Mtu]),
        duplicated: to.duplicated - from.duplicated,
        reordered: to.reordered - from.reordered,
        corrupted: to.corrupted - from.corrupted,
        bytes_offered: to.offered.bytes - from.offered.bytes,
        bytes_delivered: to.delivered.bytes - from.delivered.bytes,
        // Counted per packet log, which a fleet does not keep.
        longest_burst: 0,
        late_p99_us: Some(to.scheduling_error.p99_us),
    }
}

/// What devices complained of, most frequent first.
fn complaints(said: &[Said]) -> Vec<String> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for complaint in said.iter().filter_map(|said| said.complaint.as_deref()) {
        *counts.entry(complaint).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(complaint, count)| (std::cmp::Reverse(count), complaint));
    let line = |(complaint, count): (&str, usize)| format!("first trouble of {count} devices: {complaint}");
    counts.into_iter().take(COMPLAINTS).map(line).collect()
}
