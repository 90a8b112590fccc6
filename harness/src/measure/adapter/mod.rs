//! Metrics from the log of a firmware that does not speak the control protocol: rules turn its lines into marks, memory and
//! events.
//!
//! ```text
//! I (12345) quic: QUIC connection established      --rule-->  mark handshake-complete at 12.345 s
//! Free heap after connect: 39564 bytes             --rule-->  heap 39,564 B, phase "after connect"
//! ```
//! A rule reads what the firmware says about itself. Nothing else is believed of it: messages are counted by the peer, if
//! at all, and a report made this way has no message statistics.

mod rules;

use crate::measure::record::{
    ConnectCause, ConnectFailure, ConnectFailureKind, Connection, Event, EventKind, Handshake, Mark,
    MemorySnapshot, Phase, Trial,
};

pub use rules::{Means, Rule, Rules, RulesError};

/// The rules for the log of emqx/ESP32-QUIC, the proof of concept.
pub const ESP32_QUIC: &str = include_str!("esp32-quic.toml");

/// Reads a log, line by line.
#[derive(Debug)]
pub struct LogReader<'r> {
    rules: &'r Rules,
    /// When the first line came, by the harness, and the device's own time in it.
    epoch: Option<(u64, u64)>,
    connections: Vec<Connection>,
    memory: Vec<MemorySnapshot>,
    events: Vec<Event>,
    finished: bool,
    matched: usize,
}

impl<'r> LogReader<'r> {
    /// A reader that has read nothing.
    pub fn new(rules: &'r Rules) -> Self {
        Self {
            rules,
            epoch: None,
            connections: Vec::new(),
            memory: Vec::new(),
            events: Vec::new(),
            finished: false,
            matched: 0,
        }
    }

    /// Takes a line that came at `at_us` of the trial.
    pub fn line(&mut self, at_us: u64, line: &str) {
        let at_us = self.time(at_us, line);
        let rules = self.rules;
        for rule in &rules.rules {
            if let Some(found) = rule.find(line) {
                self.matched += 1;
                self.take(rule, at_us, found, line);
            }
        }
    }

    /// Whether a rule said that the firmware is done.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Lines that a rule knew.
    pub fn matched(&self) -> usize {
        self.matched
    }

    /// Puts what was read into `trial`.
    pub fn into_trial(self, trial: &mut Trial) {
        trial.connections = self.connections;
        trial.memory = self.memory;
        trial.events.extend(self.events);
        trial.notes.push(format!(
            "read from the log of {} by rules ({} lines matched): what it says of itself; messages were not counted",
            self.rules.firmware, self.matched
        ));
    }

    /// The line's time: the device's own, where the log has it, moved onto the trial's clock by the first line.
    fn time(&mut self, at_us: u64, line: &str) -> u64 {
        let Some(device_us) = idf_time_us(line) else { return at_us };
        let (host, device) = *self.epoch.get_or_insert((at_us, device_us));
        if device_us < device {
            // It started again.
            self.epoch = Some((at_us, device_us));
            return at_us;
        }
        host + (device_us - device)
    }

    fn take(&mut self, rule: &Rule, at_us: u64, found: rules::Found, line: &str) {
        match rule.means {
            Means::Connecting => self.connections.push(Connection {
                cause: if self.connections.is_empty() { ConnectCause::First } else { ConnectCause::Recovery },
                handshake: Handshake::Full,
                started_us: at_us,
                marks: vec![Mark { phase: Phase::FirstPacket, at_us }],
                client_to_connack: None,
                server_to_connack: None,
                round_trips: None,
                failure: None,
            }),
            Means::Mark(phase) => {
                let Some(connection) = self.connections.last_mut() else { return };
                connection.marks.push(Mark { phase, at_us });
                if phase == Phase::Connack {
                    self.event(at_us, EventKind::Connected, line);
                }
            }
            Means::Failed => {
                self.event(at_us, EventKind::Disconnected, line);
                let connack = |connection: &Connection| connection.elapsed_us(Phase::Connack).is_some();
                if let Some(connection) =
                    self.connections.last_mut().filter(|connection| !connack(connection))
                {
                    connection.failure = Some(ConnectFailure {
                        kind: ConnectFailureKind::Other,
                        alert: None,
                        detail: line.trim().to_owned(),
                    });
                }
            }
            Means::HeapFree => {
                let Some(bytes) = found.number else { return };
                let phase = found.phase.unwrap_or_else(|| "log".to_owned());
                let least =
                    self.memory.iter().filter_map(|snapshot| snapshot.heap_free).min().unwrap_or(bytes);
                self.memory.push(MemorySnapshot {
                    at_us,
                    phase,
                    heap_free: Some(bytes),
                    heap_free_min: Some(least.min(bytes)),
                    ..MemorySnapshot::default()
                });
            }
            Means::Fault => self.event(at_us, EventKind::BoardFault, line),
            Means::Event => self.event(at_us, EventKind::Step, line),
            Means::End => self.finished = true,
        }
    }

    fn event(&mut self, at_us: u64, kind: EventKind, line: &str) {
        self.events.push(Event { at_us, kind, detail: line.trim().to_owned() });
    }
}

/// The time in an ESP-IDF log line, `I (12345) tag: ...`, in microseconds.
fn idf_time_us(line: &str) -> Option<u64> {
    let line = line.trim_start_matches(|c: char| {
        c == '\u{1b}' || c == '[' || c == ';' || c.is_ascii_digit() || c == 'm'
    });
    let rest = line.strip_prefix(['I', 'W', 'E', 'D', 'V'])?.strip_prefix(" (")?;
    let (digits, _) = rest.split_once(')')?;
    Some(digits.parse::<u64>().ok()? * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::record::{Role, Transport};

    /// A log as the proof of concept writes it, its figures those of its README; written for this test.
    const LOG: &str = "\
ESP-ROM:esp32c3-api1-20210207
I (3210) main: Free heap before task: 189452 bytes
I (3300) quic_demo: Free heap at task start: 160436 bytes
I (3400) quic_demo: Initializing QUIC client
I (3480) quic_demo: Free heap after QUIC init: 64792 bytes
I (4600) quic_demo: QUIC connection established
I (4610) quic_demo: Calling MQTT_Connect
I (5320) quic_demo: MQTT_Connect returned: 0 (MQTTSuccess)
I (5330) quic_demo: Free heap after MQTT connect: 39564 bytes
I (6000) quic_demo: MQTT subscribe success
";

    fn read(rules: &Rules, log: &str) -> Trial {
        let mut reader = LogReader::new(rules);
        for (index, line) in log.lines().enumerate() {
            // Arrival is jittery; the device's own times are not.
            reader.line(1_000_000 + index as u64 * 7_919, line);
        }
        let mut trial = Trial::new("quic", Transport::Quic, Role::Device, 1);
        reader.into_trial(&mut trial);
        trial
    }

    #[test]
    fn the_proof_of_concept_s_log_yields_its_published_figures() {
        let rules = Rules::parse(ESP32_QUIC).unwrap();
        let trial = read(&rules, LOG);
        let [connection] = &trial.connections[..] else { panic!("{:?}", trial.connections) };
        assert_eq!(connection.elapsed_us(Phase::HandshakeComplete), Some(1_200_000));
        assert_eq!(connection.elapsed_us(Phase::Connack), Some(1_920_000));
        let heaps: Vec<_> = trial.memory.iter().filter_map(|snapshot| snapshot.heap_free).collect();
        assert_eq!(heaps, [189_452, 160_436, 64_792, 39_564]);
        assert_eq!(trial.memory[3].phase, "after MQTT connect");
        assert_eq!(trial.memory[3].heap_free_min, Some(39_564));
    }

    #[test]
    fn a_failed_connect_is_a_failed_connection() {
        let rules = Rules::parse(ESP32_QUIC).unwrap();
        let log =
            "I (100) q: Initializing QUIC client\nI (900) q: MQTT_Connect returned: 7 (MQTTServerRefused)\n";
        let trial = read(&rules, log);
        assert!(
            trial.connections[0].failure.as_ref().is_some_and(|failure| failure.detail.contains("Refused"))
        );
        assert_eq!(trial.connections[0].elapsed_us(Phase::Connack), None);
    }

    #[test]
    fn a_restart_moves_the_clock_on() {
        let rules = Rules::parse(ESP32_QUIC).unwrap();
        let mut reader = LogReader::new(&rules);
        reader.line(1_000_000, "I (5000) q: Initializing QUIC client");
        reader.line(9_000_000, "I (100) q: Initializing QUIC client");
        reader.line(9_600_000, "I (600) q: QUIC connection established");
        let mut trial = Trial::new("quic", Transport::Quic, Role::Device, 1);
        reader.into_trial(&mut trial);
        assert_eq!(trial.connections[1].started_us, 9_000_000);
        assert_eq!(trial.connections[1].elapsed_us(Phase::HandshakeComplete), Some(500_000));
    }
}
