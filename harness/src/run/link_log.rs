//! Reads a link's decision log back into the report's terms: what was on the wire when, and what became of it.

use std::io::{BufRead as _, BufReader};
use std::ops::Range;
use std::path::Path;

use link::{Action, LogLine, Reason, Record};

use crate::link::{DirectionStats, Summary};
use crate::measure::record::{
    Connection, Direction, Impairment, ImpairmentKind, LinkStats, Phase, Trial, Wire, WireCount, WirePhase,
};

/// A decision log, with times moved onto the trial's clock.
pub struct LinkLog {
    packets: Vec<Record>,
    actions: Vec<(u64, Action)>,
}

impl LinkLog {
    /// Reads the log at `path` of a link that started `offset_us` after the trial.
    ///
    /// # Errors
    /// The line that is no log line, or what the operating system says.
    fn read(path: &Path, offset_us: u64) -> Result<Self, String> {
        let problem = |what: String| format!("cannot read the link's log {}: {what}", path.display());
        let file = std::fs::File::open(path).map_err(|error| problem(error.to_string()))?;
        let mut log = Self { packets: Vec::new(), actions: Vec::new() };
        for (number, line) in BufReader::new(file).lines().enumerate() {
            let line = line.map_err(|error| problem(error.to_string()))?;
            let line = serde_json::from_str(&line)
                .map_err(|error| problem(format!("line {}: {error}", number + 1)))?;
            match line {
                LogLine::Packet(mut record) => {
                    record.time_us += offset_us;
                    record.deliver_us = record.deliver_us.map(|at| at + offset_us);
                    log.packets.push(record);
                }
                LogLine::Action(performed) => {
                    log.actions.push((performed.time_us + offset_us, performed.action));
                }
                LogLine::Start { .. } | LogLine::Event { .. } => {}
            }
        }
        Ok(log)
    }

    /// Fills in what the log knows of a trial: what was on the wire, before, during and after the `workload`, and when
    /// nothing passed. A log that cannot be read is noted.
    pub fn read_into(trial: &mut Trial, path: &Path, offset_us: u64, summary: Summary, workload: Range<u64>) {
        trial.notes.extend(summary.failure);
        let log = match Self::read(path, offset_us) {
            Ok(log) => log,
            Err(problem) => return trial.notes.push(problem),
        };
        trial.impairments.extend(log.impairments(trial.duration_us));
        trial.impairments.sort_by_key(|impairment| impairment.start_us);
        log.count_connections(&mut trial.connections, trial.clock_uncertainty_us.unwrap_or(0));
        if summary.ends_tcp {
            trial.connections.iter_mut().for_each(|connection| connection.round_trips = None);
        }
        trial.wire = log.phases(workload.start, workload.end);
        let stats =
            |direction, way: &DirectionStats| Some(log.stats(direction, Some(way.scheduling_error.p99_us)));
        trial.link_up = stats(link::Direction::Up, &summary.stats.up);
        trial.link_down = stats(link::Direction::Down, &summary.stats.down);
    }

    /// What the link did in one direction. `late_p99_us` comes from the driver that delivered.
    fn stats(&self, direction: link::Direction, late_p99_us: Option<u64>) -> LinkStats {
        let mut stats = LinkStats { late_p99_us, ..LinkStats::default() };
        let mut burst = 0;
        for packet in self.packets.iter().filter(|packet| packet.direction == direction) {
            let size = u64::from(packet.size);
            stats.offered += 1;
            stats.bytes_offered += size;
            burst = if packet.dropped.is_some() { burst + 1 } else { 0 };
            stats.longest_burst = stats.longest_burst.max(burst);
            match packet.dropped {
                Some(Reason::Mtu) => stats.oversized += 1,
                Some(Reason::Blackout) => stats.blackout_drops += 1,
                Some(Reason::QueueFull) => stats.queue_drops += 1,
                Some(Reason::Fade | Reason::ListedLoss | Reason::BurstLoss | Reason::RandomLoss) => {
                    stats.lost += 1;
                }
                None => {
                    let copies = 1 + u64::from(packet.copy_us.is_some());
                    stats.delivered += copies;
                    stats.bytes_delivered += copies * size;
                    stats.duplicated += copies - 1;
                    stats.corrupted += u64::from(packet.bits_flipped > 0);
                    stats.reordered += u64::from(packet.reordered);
                }
            }
        }
        stats
    }

    /// Blackouts and address changes, with those still going on at `end_us` cut there.
    fn impairments(&self, end_us: u64) -> Vec<Impairment> {
        let mut impairments = Vec::new();
        let mut dark: Vec<(u64, Option<link::Direction>)> = Vec::new();
        for &(at_us, action) in &self.actions {
            match action {
                Action::BlackoutStart { direction } => dark.push((at_us, direction)),
                Action::BlackoutEnd { direction } => {
                    if let Some(index) = dark.iter().position(|&(_, open)| open == direction) {
                        impairments.push(blackout(dark.remove(index), at_us));
                    }
                }
                Action::Rebind => impairments.push(moment(at_us, ImpairmentKind::NatRebind, "NAT rebinding")),
                Action::AddressChange => {
                    impairments.push(moment(at_us, ImpairmentKind::AddressChange, "address change"));
                }
            }
        }
        impairments.extend(dark.into_iter().map(|open| blackout(open, end_us)));
        impairments
    }

    /// Packets of both directions by phase: until `workload_us`, until `workload_end_us`, and the rest.
    fn phases(&self, workload_us: u64, workload_end_us: u64) -> Vec<WireCount> {
        let bounds = [
            (WirePhase::Connect, 0, workload_us),
            (WirePhase::Workload, workload_us, workload_end_us),
            (WirePhase::Rest, workload_end_us, u64::MAX),
        ];
        bounds
            .into_iter()
            .map(|(phase, from, to)| WireCount {
                phase,
                up: self.wire(link::Direction::Up, from, to),
                down: self.wire(link::Direction::Down, from, to),
            })
            .collect()
    }

    /// Fills in what each connection had on the wire until its CONNACK: its own packets, not what the one before still
    /// sent. The board's clock is known to within `uncertainty_us`, and what brought the CONNACK must not fall outside.
    fn count_connections(&self, connections: &mut [Connection], uncertainty_us: u64) {
        for connection in connections {
            let Some(connack) = connection.marks.iter().find(|mark| mark.phase == Phase::Connack) else {
                continue;
            };
            // What answers the CONNACK leaves after it was read, on the same tick at the earliest.
            let to = connack.at_us;
            if let Some(own) = self.opened_last(to) {
                let sent = self.between(link::Direction::Up, 0, to);
                connection.client_to_connack =
                    Some(count(sent.filter(|packet| packet.connection == Some(own))));
                connection.server_to_connack = Some(self.arrived(own, to + uncertainty_us));
            }
            self.count_round_trips(connection, uncertainty_us);
        }
    }

    /// Fills in the round trips until the CONNACK, whose time by the link's clock is known to within `uncertainty_us`.
    /// Whatever it is, the CONNACK had arrived at its end, and what the client sent after its beginning came after
    /// the CONNACK; so the count does not hang on it. Where a whole round trip fits into it, it cannot be told.
    fn count_round_trips(&self, connection: &mut Connection, uncertainty_us: u64) {
        let Some(connack) = connection.marks.iter().find(|mark| mark.phase == Phase::Connack) else { return };
        let from = connection.started_us.saturating_sub(uncertainty_us);
        let (earliest, latest) =
            (connack.at_us.saturating_sub(uncertainty_us), connack.at_us + uncertainty_us);
        let trips = self.round_trips(from, earliest, latest);
        connection.round_trips = trips.filter(|_| trips == self.round_trips(from, latest, latest));
    }

    /// Round trips of what was sent from `from_us` to before `to_us` and had arrived at `arrived_us`, counted from
    /// flights: a packet of the board's belongs to the flight after the latest one of the broker's that it had seen,
    /// one of the broker's to the latest flight of the board's that had arrived. Processor time does not count, and
    /// losses count as far as they cost a flight.
    fn round_trips(&self, from_us: u64, to_us: u64, arrived_us: u64) -> Option<f64> {
        // Flights that have arrived on each side, with their times.
        let mut at_broker: Vec<(u64, u32)> = Vec::new();
        let mut at_board: Vec<(u64, u32)> = Vec::new();
        let seen = |arrived: &[(u64, u32)], now_us: u64| {
            arrived.iter().filter(|(at, _)| *at <= now_us).map(|(_, flight)| *flight).max().unwrap_or(0)
        };
        let until = |way| if way == link::Direction::Up { to_us } else { arrived_us };
        let sent = |packet: &&Record| (from_us..until(packet.direction)).contains(&packet.time_us);
        for packet in self.packets.iter().filter(sent) {
            let (flight, arrivals) = match packet.direction {
                link::Direction::Up => (seen(&at_board, packet.time_us) + 1, &mut at_broker),
                link::Direction::Down => (seen(&at_broker, packet.time_us), &mut at_board),
            };
            arrivals.extend(packet.deliver_us.map(|at| (at, flight)));
        }
        let trips = seen(&at_board, arrived_us);
        (trips > 0).then(|| f64::from(trips))
    }

    /// The transport connection that was opened last before `to_us`. A client opens one at a time, so a CONNACK at that
    /// moment came over this one.
    fn opened_last(&self, to_us: u64) -> Option<u32> {
        self.between(link::Direction::Up, 0, to_us).filter_map(|packet| packet.connection).max()
    }

    /// What had arrived of a connection at the board by `by_us`, copies and damaged packets included.
    fn arrived(&self, connection: u32, by_us: u64) -> Wire {
        let own = |packet: &&Record| {
            packet.direction == link::Direction::Down && packet.connection == Some(connection)
        };
        self.packets.iter().filter(own).fold(Wire::default(), |wire, packet| {
            let arrivals = [packet.deliver_us, packet.copy_us].into_iter().flatten();
            let packets = arrivals.filter(|&at_us| at_us <= by_us).count() as u64;
            wire + Wire { packets, bytes: packets * u64::from(packet.size) }
        })
    }

    fn wire(&self, direction: link::Direction, from_us: u64, to_us: u64) -> Wire {
        count(self.between(direction, from_us, to_us))
    }

    /// What was sent in one direction from one moment to before another.
    fn between(&self, direction: link::Direction, from_us: u64, to_us: u64) -> impl Iterator<Item = &Record> {
        self.packets
            .iter()
            .filter(move |packet| packet.direction == direction && (from_us..to_us).contains(&packet.time_us))
    }
}

fn count<'p>(packets: impl Iterator<Item = &'p Record>) -> Wire {
    packets.fold(Wire::default(), |wire, packet| wire + Wire { packets: 1, bytes: u64::from(packet.size) })
}

fn blackout((start_us, direction): (u64, Option<link::Direction>), end_us: u64) -> Impairment {
    let direction = direction.map(|direction| match direction {
        link::Direction::Up => Direction::FromBoard,
        link::Direction::Down => Direction::ToBoard,
    });
    let seconds = (end_us - start_us) as f64 / 1e6;
    Impairment {
        start_us,
        end_us,
        kind: ImpairmentKind::Blackout,
        direction,
        label: format!("blackout {seconds:.1} s"),
    }
}

fn moment(at_us: u64, kind: ImpairmentKind, label: &str) -> Impairment {
    Impairment { start_us: at_us, end_us: at_us, kind, direction: None, label: label.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::record::{ConnectCause, Handshake, Mark};

    fn packet(time_us: u64, direction: link::Direction, dropped: Option<Reason>) -> Record {
        Record {
            time_us,
            direction,
            index: 1,
            size: 100,
            dropped,
            deliver_us: None,
            copy_us: None,
            bits_flipped: 0,
            cut_to: None,
            reordered: false,
            connection: None,
        }
    }

    #[test]
    fn a_log_is_read_back_with_its_times_moved() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("link.jsonl");
        let line = LogLine::Packet(packet(5, link::Direction::Up, None));
        std::fs::write(&path, serde_json::to_string(&line).expect("it serialises") + "\n")
            .expect("it is writable");
        let log = LinkLog::read(&path, 100).expect("a valid log");
        assert_eq!(log.packets[0].time_us, 105);
    }

    #[test]
    fn round_trips_are_counted_from_flights() {
        let sent = |time_us, direction| Record {
            deliver_us: Some(time_us + 50),
            ..packet(time_us, direction, None)
        };
        let (up, down) = (link::Direction::Up, link::Direction::Down);
        let handshake = [
            sent(0, up),
            // The broker's flight in two packets, the first acknowledged before the second is there.
            sent(51, down),
            sent(60, down),
            sent(102, up),
            sent(115, up),
            Record { deliver_us: None, ..packet(116, up, Some(Reason::RandomLoss)) },
            sent(170, down),
        ];
        let log = LinkLog { packets: handshake.to_vec(), actions: Vec::new() };
        assert_eq!(log.round_trips(0, 221, 221), Some(2.0));
        assert_eq!(log.round_trips(0, 102, 102), Some(1.0));
        assert_eq!(log.round_trips(300, 400, 400), None);
    }

    #[test]
    fn round_trips_do_not_hang_on_what_the_board_s_clock_may_be_wrong_by() {
        let sent = |time_us, direction| Record {
            deliver_us: Some(time_us + 50),
            ..packet(time_us, direction, None)
        };
        let (up, down) = (link::Direction::Up, link::Direction::Down);
        // The CONNACK arrives at 250; SUBSCRIBE leaves at 253, and its answer is there at 353.
        let times = [(0, up), (50, down), (105, up), (200, down), (253, up), (303, down)];
        let log = LinkLog { packets: times.map(|(at, way)| sent(at, way)).to_vec(), actions: Vec::new() };
        let count = |started_us, connack_us, uncertainty_us| {
            let mut connection = connected(started_us, connack_us);
            log.count_round_trips(&mut connection, uncertainty_us);
            connection.round_trips
        };
        assert_eq!(count(0, 252, 0), Some(2.0));
        for error in 0..=20 {
            assert_eq!(count(error, 252 - 20 + error, 20), Some(2.0), "early by {}", 20 - error);
            assert_eq!(count(error, 252 + error, 20), Some(2.0), "late by {error}");
        }
        assert_eq!(count(0, 252, 110), None, "SUBSCRIBE and its answer may have come before it");
    }

    fn connected(started_us: u64, connack_us: u64) -> Connection {
        Connection {
            cause: ConnectCause::First,
            handshake: Handshake::Full,
            started_us,
            marks: vec![Mark { phase: Phase::Connack, at_us: connack_us }],
            client_to_connack: None,
            server_to_connack: None,
            round_trips: None,
            failure: None,
        }
    }

    #[test]
    fn a_connection_does_not_answer_for_the_packets_of_the_one_before() {
        let of = |connection, time_us, direction| Record {
            deliver_us: Some(time_us + 5),
            connection,
            ..packet(time_us, direction, None)
        };
        let (up, down) = (link::Direction::Up, link::Direction::Down);
        let packets = vec![
            of(Some(1), 0, up),
            of(Some(1), 10, down),
            // The new one opens while the old one still speaks; and someone asks for a name.
            of(Some(2), 100, up),
            of(Some(1), 101, up),
            of(None, 102, up),
            of(Some(1), 103, down),
            of(Some(2), 110, down),
            of(Some(2), 115, up),
            of(Some(2), 130, down),
        ];
        let mut connections = [connected(0, 20), connected(100, 125)];
        LinkLog { packets, actions: Vec::new() }.count_connections(&mut connections, 0);
        let packets = connections.map(|connection| {
            let way = |wire: Option<Wire>| wire.expect("it was counted").packets;
            (way(connection.client_to_connack), way(connection.server_to_connack))
        });
        assert_eq!(packets, [(1, 1), (2, 1)]);
    }

    #[test]
    fn received_is_what_has_arrived_by_the_connack() {
        let (up, down) = (link::Direction::Up, link::Direction::Down);
        let at = |time_us, direction, deliver_us, copy_us| Record {
            deliver_us,
            copy_us,
            connection: Some(1),
            ..packet(time_us, direction, None)
        };
        let packets = vec![
            at(0, up, Some(50), None),
            at(50, down, None, None),
            at(51, down, Some(101), Some(103)),
            at(52, down, Some(102), Some(300)),
            // Clocks differ by a little, and it is this that the board answers to.
            at(60, down, Some(112), None),
            at(80, down, Some(130), None),
        ];
        let mut connections = [connected(0, 110)];
        LinkLog { packets, actions: Vec::new() }.count_connections(&mut connections, 2);
        assert_eq!(connections[0].server_to_connack, Some(Wire { packets: 4, bytes: 400 }));
    }

    #[test]
    fn a_proxy_that_ends_tcp_leaves_round_trips_unmeasured() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("link.jsonl");
        let way = |time_us, direction| Record {
            deliver_us: Some(time_us + 5),
            connection: Some(1),
            ..packet(time_us, direction, None)
        };
        let lines = [way(1, link::Direction::Up), way(6, link::Direction::Down)]
            .map(|record| serde_json::to_string(&LogLine::Packet(record)).expect("it serialises"));
        std::fs::write(&path, lines.join("\n")).expect("it is writable");
        let round_trips = |ends_tcp| {
            let mut trial =
                Trial::new("tcp", crate::measure::Transport::Tcp, crate::measure::record::Role::Reference, 1);
            trial.connections = vec![connected(0, 20)];
            let (stats, timeline) = (crate::link::Stats::default(), Vec::new());
            let summary = Summary { stats, timeline, failure: None, ends_tcp };
            LinkLog::read_into(&mut trial, &path, 0, summary, 0..20);
            assert!(trial.notes.is_empty(), "{:?}", trial.notes);
            assert_eq!(trial.connections[0].client_to_connack, Some(Wire { packets: 1, bytes: 100 }));
            trial.connections[0].round_trips
        };
        assert_eq!((round_trips(false), round_trips(true)), (Some(1.0), None));
    }

    #[test]
    fn losses_are_counted_by_cause_and_bursts_by_length() {
        let lost = Some(Reason::RandomLoss);
        let fates = [None, lost, lost, None, Some(Reason::QueueFull)];
        let packets = fates.iter().map(|&fate| packet(0, link::Direction::Down, fate)).collect();
        let stats = LinkLog { packets, actions: Vec::new() }.stats(link::Direction::Down, None);
        assert_eq!((stats.offered, stats.delivered, stats.lost, stats.queue_drops), (5, 2, 2, 1));
        assert_eq!(stats.longest_burst, 2);
    }

    #[test]
    fn a_blackout_that_never_ends_ends_with_the_trial() {
        let actions = vec![(10, Action::BlackoutStart { direction: None }), (20, Action::Rebind)];
        let log = LinkLog { packets: Vec::new(), actions };
        let impairments = log.impairments(50);
        let spans: Vec<_> = impairments.iter().map(|i| (i.kind, i.start_us, i.end_us)).collect();
        assert_eq!(spans, [(ImpairmentKind::NatRebind, 20, 20), (ImpairmentKind::Blackout, 10, 50)]);
    }
}
