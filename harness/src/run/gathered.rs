//! What a trial of the board brings in, in the order it comes, and the record made of it in the end.

use std::ops::Range;

use device::control::{Event, Memory, Phase as BoardPhase, Report, Stats, WifiFailure};

use super::connections::{Connections, describe};
use super::journal::Journal;
use crate::board::esp32c3::wifi::{Lost, words};
use crate::board::{self, Output, Timed};
use crate::energy::estimate::Account;
use crate::measure::record::{Direction, MemorySnapshot, Transport, TransportStats, Trial};
use crate::peer::{Arrival, Closing, Ledger, Sending};

/// Everything one trial of the board said and did.
pub struct Gathered {
    /// Every message, from both ends.
    pub ledger: Ledger,
    /// Names the peer's messages in their payloads.
    down_run: u32,
    /// What became of the messages the peer sent.
    pub sendings: Vec<Sending>,
    /// What arrived at the peer.
    pub arrivals: Vec<Arrival>,
    /// When the workload began.
    pub workload_us: Option<u64>,
    /// When its last message was settled.
    pub workload_end_us: Option<u64>,
    /// Reports of the board's present life.
    reports: Vec<Heard>,
    /// Earlier lives, each with its clock.
    lives: Vec<(board::Clock, Vec<Heard>)>,
    /// What the harness did and saw.
    pub journal: Journal,
    /// The phase whose time was over before its end.
    pub missed: Option<&'static str>,
    /// What the radio told, with its code, and how often in a row.
    wifi_failures: Vec<(WifiFailure, u16, u32)>,
    /// Why it is not in its wireless network, if it was and is not.
    pub lost: Option<Lost>,
}

/// Something that matters for the record, in order of its happening.
enum Heard {
    Report(Box<Report>),
    /// A step asked the board to connect anew.
    ReconnectAsked,
}

impl Gathered {
    /// Nothing yet, for a trial whose peer's messages bear `down_run`.
    pub fn new(down_run: u32) -> Self {
        Self {
            ledger: Ledger::new(),
            down_run,
            sendings: Vec::new(),
            arrivals: Vec::new(),
            workload_us: None,
            workload_end_us: None,
            reports: Vec::new(),
            lives: Vec::new(),
            journal: Journal::default(),
            missed: None,
            wifi_failures: Vec::new(),
            lost: None,
        }
    }

    /// Keeps what the board said.
    pub fn on_board(&mut self, output: Timed<Output>) {
        match output.what {
            Output::Report(report) => {
                if let Report::Event { event, .. } = &report {
                    Lost::follow(&mut self.lost, event);
                    if let Event::WifiFailed { failure, code, .. } = event {
                        self.on_wifi_failure(*failure, *code);
                    }
                }
                self.reports.push(Heard::Report(Box::new(report)));
            }
            Output::Damaged(len) => self.journal.note(format!("{len} damaged byte(s) on the console")),
            Output::Text(_) => {}
        }
    }

    /// The radio tries again and again: what it tells every time is counted, not repeated.
    fn on_wifi_failure(&mut self, failure: WifiFailure, code: u16) {
        match self.wifi_failures.last_mut() {
            Some((last, last_code, times)) if (*last, *last_code) == (failure, code) => *times += 1,
            _ => self.wifi_failures.push((failure, code, 1)),
        }
    }

    /// A step is about to make the board connect anew.
    pub fn expect_reconnect(&mut self) {
        self.reports.push(Heard::ReconnectAsked);
    }

    /// The board was reset or is done: what it said belongs to this clock.
    pub fn end_life(&mut self, clock: board::Clock) {
        self.lives.push((clock, std::mem::take(&mut self.reports)));
    }

    /// The cause of the last disconnection that the board reported.
    pub fn last_failure(&self) -> Option<String> {
        self.reports.iter().rev().find_map(|heard| {
            let Heard::Report(report) = heard else { return None };
            match &**report {
                Report::Event { event: Event::Disconnected(why), .. } => Some(describe(why)),
                _ => None,
            }
        })
    }

    /// What the board told of its time, on the trial's clock.
    pub fn accounts(&self) -> Vec<Account> {
        let lives = self.lives.iter().enumerate();
        let accounts = lives.flat_map(|(life, (clock, reports))| {
            reports.iter().filter_map(move |heard| {
                let Heard::Report(report) = heard else { return None };
                let Report::Activity(told) = **report else { return None };
                let at_us = clock.host_us(told.at_us)?.max(0.0) as u64;
                Some(Account { at_us, life, told })
            })
        });
        accounts.collect()
    }

    /// What is missing of the board's own account, if something is: each life tells what its console had no room for.
    pub fn telemetry_dropped(&self) -> Option<String> {
        let (mut samples, mut reports) = (0, 0);
        for (_, life) in &self.lives {
            let told = life.iter().rev().find_map(|heard| match heard {
                Heard::Report(report) => match &**report {
                    Report::Stats(stats) => Some(stats.console),
                    _ => None,
                },
                Heard::ReconnectAsked => None,
            });
            let Some(console) = told else { continue };
            samples += console.samples_dropped;
            reports += console.reports_dropped;
        }
        (samples > 0 || reports > 0).then(|| {
            format!(
                "the board's console had no room for {samples} sample(s) and {reports} report(s) of its own account, so \
                 messages may look lost, and events missing, that were not: do not trust this trial's figures, and run it \
                 again with fewer messages at a time or less load on this machine"
            )
        })
    }

    /// Makes the trial's record, and says when its workload began and ended.
    pub fn into_trial(mut self, trial: &mut Trial, closing: Closing) -> Range<u64> {
        let end_us = trial.duration_us;
        let mut connections = Connections::new(trial.transport);
        let mut snapshots = Vec::new();
        let mut stats = Tally::default();
        for (clock, reports) in std::mem::take(&mut self.lives) {
            let to_trial =
                |device_us: u64| clock.host_us(device_us).map_or(device_us, |us| us.max(0.0) as u64);
            for heard in reports {
                let Heard::Report(report) = heard else {
                    connections.expect_reconnect();
                    continue;
                };
                match *report {
                    Report::Event { at_us, event } => {
                        if matches!(event, Event::Connecting { .. }) {
                            stats.next_connection();
                        }
                        connections.on_event(to_trial(at_us), &event);
                    }
                    Report::Samples(samples) => {
                        for sample in &samples.samples {
                            self.ledger.sample(samples.run, sample, to_trial);
                        }
                    }
                    Report::Memory(memory) => snapshots.push(snapshot(&memory, to_trial(memory.at_us))),
                    Report::Stats(told) => stats.latest = Some(transport_stats(&told)),
                    Report::Boot(_) | Report::Reply { .. } | Report::WorkloadDone(_) => {}
                    // In [`Gathered::accounts`].
                    Report::Activity(_) => {}
                    // They come with it; the trial has what it needs from elsewhere.
                    Report::Hardware(_) | Report::Radio(_) | Report::Heap(_) => {}
                    // Counted apart from trials, where nothing disturbs the count.
                    Report::Cost(_) => {}
                }
            }
            stats.next_connection();
            trial.clock_uncertainty_us = trial.clock_uncertainty_us.max(clock.uncertainty_us());
        }
        self.sendings.iter().for_each(|sending| self.ledger.sending(self.down_run, sending));
        self.arrivals.iter().for_each(|arrival| self.ledger.arrival(Direction::FromBoard, arrival));
        let account = self.ledger.close(closing);
        trial.topics = account.topics;
        trial.messages = account.messages;
        trial.notes.extend(account.contradictions);
        if account.strays.unplanned > 0 {
            trial.notes.push(format!("{} message(s) arrived that nobody planned", account.strays.unplanned));
        }

        (trial.connections, trial.events) = connections.finish();
        trial.memory = snapshots;
        // Of a TCP connection the board counts none of this.
        let counted = trial.transport == Transport::Quic;
        trial.transport_stats = stats.total.filter(|_| counted);
        for (failure, code, times) in self.wifi_failures {
            let times = if times == 1 { String::new() } else { format!(", {times} times in a row") };
            trial.notes.push(format!("the board's Wi-Fi failed: {} (code {code}){times}", words(failure)));
        }
        self.journal.into_trial(trial, end_us);
        let workload_us = self.workload_us.unwrap_or(end_us);
        workload_us..self.workload_end_us.unwrap_or(end_us).max(workload_us)
    }
}

/// What the board's connections counted: it tells of each at its end, and of the present one when asked.
#[derive(Default)]
struct Tally {
    /// Of the connections before.
    total: Option<TransportStats>,
    /// The last that was told of the present one, or of the one that just ended.
    latest: Option<TransportStats>,
}

impl Tally {
    fn next_connection(&mut self) {
        if let Some(latest) = self.latest.take() {
            self.total.get_or_insert_default().add(&latest);
        }
    }
}

fn snapshot(memory: &Memory, at_us: u64) -> MemorySnapshot {
    let phase = match memory.phase {
        BoardPhase::Boot => "boot",
        BoardPhase::NetworkUp => "network up",
        BoardPhase::ConnectStart => "connect",
        BoardPhase::ClientReady => "client ready",
        BoardPhase::HandshakeComplete => "handshake complete",
        BoardPhase::MqttConnected => "connected",
        BoardPhase::WorkloadDone => "workload done",
        BoardPhase::Disconnected => "disconnected",
        BoardPhase::Requested => "end",
    };
    let stack = memory.stack_phase_max.or(memory.stack_max).map(u64::from);
    MemorySnapshot {
        at_us,
        phase: phase.to_owned(),
        heap_used: None,
        heap_free: memory.heap_free.map(u64::from),
        heap_free_min: memory.heap_free_min.map(u64::from),
        stack_high_water: stack,
        client_ram: stack.map(|stack| stack + u64::from(memory.client_bytes)),
    }
}

fn transport_stats(stats: &Stats) -> TransportStats {
    let transport = &stats.transport;
    let some = |count: u32| Some(u64::from(count));
    // Before the first sample there is no smallest, and the estimate is what it starts from.
    let measured = |us: u32| some(us).filter(|_| transport.rtt_min_us > 0);
    TransportStats {
        packets_sent: some(transport.datagrams_sent),
        packets_received: some(transport.datagrams_received),
        packets_lost: some(transport.packets_lost),
        retransmissions: some(transport.packets_lost),
        spurious_losses: some(transport.packets_spurious),
        timeouts: some(transport.pto_count),
        rtt_min_us: measured(transport.rtt_min_us),
        rtt_smoothed_us: measured(transport.rtt_smoothed_us),
        congestion_window: some(transport.congestion_window),
        migrations: some(transport.migrations),
        key_updates: some(transport.key_updates),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(gathered: &mut Gathered, event: Event) {
        gathered.on_board(Timed { at_us: 0, what: Output::Report(Report::Event { at_us: 0, event }) });
    }

    fn tell(gathered: &mut Gathered, transport: device::control::TransportStats) {
        let report = Report::Stats(Stats { transport, ..Stats::default() });
        gathered.on_board(Timed { at_us: 0, what: Output::Report(report) });
    }

    #[test]
    fn a_trial_s_counters_are_those_of_all_its_connections() {
        use device::control::{Resumption, TransportStats as Told};
        let connecting = || Event::Connecting { attempt: 1, resumption: Resumption::Off };
        let told = |datagrams_sent, key_updates, rtt_min_us| Told {
            datagrams_sent,
            key_updates,
            rtt_min_us,
            rtt_smoothed_us: rtt_min_us + 50_000,
            ..Told::default()
        };
        let mut gathered = Gathered::new(1);
        hear(&mut gathered, connecting());
        tell(&mut gathered, told(100, 1, 900));
        // Asked while it goes on, and told at its end.
        tell(&mut gathered, told(700, 1, 800));
        hear(&mut gathered, connecting());
        tell(&mut gathered, told(30, 2, 950));
        // The board was reset, and its last connection never heard anything.
        gathered.end_life(board::Clock::default());
        hear(&mut gathered, connecting());
        tell(&mut gathered, told(2, 0, 0));
        gathered.end_life(board::Clock::default());
        let mut trial = Trial::new("quic", Transport::Quic, crate::measure::record::Role::Device, 1);
        gathered.into_trial(&mut trial, Closing::Complete);
        let stats = trial.transport_stats.expect("told");
        assert_eq!((stats.packets_sent, stats.key_updates), (Some(732), Some(3)));
        assert_eq!((stats.rtt_min_us, stats.rtt_smoothed_us), (Some(800), Some(50_950)));
    }

    #[test]
    fn a_round_trip_that_was_never_measured_is_not_told() {
        let start = device::control::TransportStats { rtt_smoothed_us: 50_000, ..Default::default() };
        let stats = transport_stats(&Stats { transport: start, ..Stats::default() });
        assert_eq!((stats.rtt_min_us, stats.rtt_smoothed_us), (None, None));
    }

    #[test]
    fn what_the_console_dropped_in_any_life_is_told() {
        use device::control::ConsoleStats;

        let told = |gathered: &mut Gathered, samples_dropped, reports_dropped| {
            let console = ConsoleStats { samples_dropped, reports_dropped, ..ConsoleStats::default() };
            let report = Report::Stats(Stats { console, ..Stats::default() });
            gathered.on_board(Timed { at_us: 0, what: Output::Report(report) });
        };
        let mut gathered = Gathered::new(1);
        told(&mut gathered, 0, 0);
        gathered.end_life(board::Clock::default());
        assert_eq!(gathered.telemetry_dropped(), None);
        // The counters of a life grow: its last word counts.
        told(&mut gathered, 2, 0);
        told(&mut gathered, 3, 1);
        gathered.end_life(board::Clock::default());
        told(&mut gathered, 4, 0);
        gathered.end_life(board::Clock::default());
        let dropped = gathered.telemetry_dropped().expect("something was dropped");
        assert!(dropped.contains("7 sample(s) and 1 report(s)"), "{dropped}");
    }

    #[test]
    fn only_the_absence_that_lasts_explains_what_was_missed() {
        let failed = |failure| Event::WifiFailed { failure, code: 1, failures: 1 };
        let mut gathered = Gathered::new(1);
        for event in [failed(WifiFailure::NetworkNotFound), Event::LinkUp] {
            hear(&mut gathered, event);
        }
        assert_eq!(gathered.lost, None, "it came back");
        hear(&mut gathered, failed(WifiFailure::Lost));
        for _ in 0..3 {
            hear(&mut gathered, failed(WifiFailure::NetworkNotFound));
        }
        let lost = Lost { first: WifiFailure::Lost, last: WifiFailure::NetworkNotFound };
        assert_eq!(gathered.lost, Some(lost));
        assert_eq!(gathered.wifi_failures.last(), Some(&(WifiFailure::NetworkNotFound, 1, 3)));
        hear(&mut gathered, Event::LinkUp);
        hear(&mut gathered, failed(WifiFailure::NetworkNotFound));
        let again = WifiFailure::NetworkNotFound;
        assert_eq!(gathered.lost, Some(Lost { first: again, last: again }), "another absence");
    }
}
