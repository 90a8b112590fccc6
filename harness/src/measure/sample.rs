//! A made-up run for tests: plausible shapes from a seeded generator, nothing measured.

use super::record::*;
use super::stats::Random;

/// The scenario the made-up run answers.
pub(crate) const SCENARIO: &str = r#"name = "sample"
question = "Does every message get through?"
answer = "{delivery.ratio} of {messages} messages arrived, 99 % of the publishes acknowledged within {publish.latency.p99}."
transports = ["quic", "tls"]
seeds = [1, 2, 3]
reference = true
expect = [
    "delivery.ratio = 100 % for all",
    "publish.latency.p99 <= 3 s",
    "publish.latency.p50 <= 1.2 x tls for quic",
    "duplicates = 0",
    "stack.high_water <= 14 KiB on qemu",
    "recovery.time.max <= 5 s",
]
[link.both]
delay = "25 ms"
loss = "5 %"
[[link.blackout]]
after = "workload"
at = "1500 ms"
for = "500 ms"
[workload.up]
size = "128 B"
count = 100
interval = "40 ms"
[workload.down]
size = "128 B"
count = 100
interval = "40 ms"
"#;

/// Two transports, two roles, three seeds.
pub(crate) fn record() -> RunRecord {
    let mut trials = Vec::new();
    for (variant, transport, slow) in [("quic", Transport::Quic, 1.0), ("tls", Transport::Tls, 1.6)] {
        for role in [Role::Device, Role::Reference] {
            for seed in 1..=3 {
                trials.push(trial(variant, transport, role, seed, slow));
            }
        }
    }
    RunRecord {
        scenario: ScenarioRecord {
            name: "sample".into(),
            question: "Does every message get through?".into(),
            origin: "sample.toml".into(),
            source: SCENARIO.into(),
            variants: vec!["quic".into(), "tls".into()],
            planned_trials: trials.len(),
        },
        environment: environment(),
        ending: Ending::Completed,
        trials,
    }
}

fn environment() -> Environment {
    let part = |name: &str, bytes| SizePart { name: name.into(), bytes };
    Environment {
        harness_version: "0.1.0".into(),
        git_revision: Some("0123456789ab".into()),
        rustc_version: Some("rustc 1.95.0".into()),
        host: Host { os: "Linux 6.1".into(), cpu: "a processor".into(), cores: 2, load: Some(0.4) },
        board: Board {
            name: "qemu".into(),
            description: "emulated RV32IMC, 320 KiB RAM".into(),
            firmware: Some("device 0.1.0".into()),
            chip: None,
            mac: None,
            timing: Timing::Emulated,
            clock_hz: Some(160_000_000),
            footprint: Some(Footprint {
                flash_bytes: Some(262_144),
                flash_client_bytes: Some(187_204),
                ram_static_bytes: Some(40_112),
                client_state_bytes: Some(15_872),
                sections: vec![part(".text", 201_344), part(".rodata", 40_800), part(".data", 1_024)],
                crates: vec![part("p256", 61_000), part("device", 58_312), part("smoltcp", 30_222)],
            }),
        },
        broker: Broker {
            kind: "embedded".into(),
            version: Some("mqtt5 0.49".into()),
            description: "embedded broker, MQTT over QUIC, TLS and TCP".into(),
            image_digest: None,
            certificate: Some("ECDSA P-256, leaf and intermediate".into()),
        },
        command_line: vec!["harness".into(), "scenario".into(), "sample".into()],
        replay: "cargo run -p harness -- scenario sample --board qemu --seed 1 --repeat 3".into(),
        base_seed: 1,
        started_unix_us: 1_795_000_000_000_000,
        duration_us: 41_000_000,
        extra: std::collections::BTreeMap::new(),
    }
}

fn trial(variant: &str, transport: Transport, role: Role, seed: u64, slow: f64) -> Trial {
    let mut random = Random(seed * 977 + transport as u64 * 31 + role as u64);
    let mut trial = Trial::new(variant, transport, role, seed);
    trial.duration_us = 9_500_000;
    trial.clock_uncertainty_us = Some(120);
    trial.topics = vec!["up/0".into(), "down/0".into()];
    let start = 600_000;
    for sequence in 0..100 {
        for direction in [Direction::FromBoard, Direction::ToBoard] {
            trial.messages.push(message(&mut random, direction, sequence, start, slow));
        }
    }
    trial.connections = vec![connection(transport, role, slow)];
    let event = |at_us, kind, detail: &str| Event { at_us, kind, detail: detail.into() };
    trial.events = vec![event(start - 80_000, EventKind::Connected, "session new")];
    trial.impairments = vec![Impairment {
        start_us: start + 1_500_000,
        end_us: start + 2_000_000,
        kind: ImpairmentKind::Blackout,
        direction: None,
        label: "blackout 500 ms".into(),
    }];
    if role == Role::Device {
        trial.memory = memory();
        trial.costs = costs(slow);
    }
    let wire = |packets, bytes| Wire { packets, bytes };
    trial.wire = vec![
        WireCount { phase: WirePhase::Connect, up: wire(5, 2_410), down: wire(6, 3_900) },
        WireCount {
            phase: WirePhase::Workload,
            up: wire(240, (41_000.0 * slow) as u64),
            down: wire(251, (43_100.0 * slow) as u64),
        },
    ];
    trial.transport_stats = Some(TransportStats {
        packets_sent: Some(245),
        packets_received: Some(231),
        packets_lost: Some(13),
        retransmissions: Some(13 + random.below(4) as u64),
        spurious_losses: Some(random.below(2) as u64),
        timeouts: Some(3),
        rtt_min_us: Some(50_400),
        rtt_smoothed_us: Some(58_000),
        congestion_window: Some(14_720),
        migrations: Some(0),
        key_updates: Some(0),
    });
    let link = LinkStats {
        offered: 256,
        delivered: 243,
        lost: 13,
        bytes_offered: 43_410,
        bytes_delivered: 41_100,
        longest_burst: 3,
        late_p99_us: Some(180),
        ..LinkStats::default()
    };
    trial.link_up = Some(link.clone());
    trial.link_down = Some(link);
    trial
}

/// A message of 64 B that was sent when it was due; delivered and acknowledged at the same time, or lost.
pub(crate) fn one_message(direction: Direction, intended_us: u64, delivered_us: Option<u64>) -> Message {
    Message {
        direction,
        topic: 0,
        sequence: 0,
        qos: 1,
        size: 64,
        intended_us,
        sent_us: Some(intended_us),
        acked_us: delivered_us,
        delivered_us,
        fate: if delivered_us.is_some() { Fate::Delivered } else { Fate::Lost },
    }
}

fn message(random: &mut Random, direction: Direction, sequence: u32, start: u64, slow: f64) -> Message {
    let intended_us = start + u64::from(sequence) * 40_000;
    let jitter = random.below(9_000) as u64;
    let repair =
        if random.below(100) < 8 { (90_000.0 * slow) as u64 + random.below(120_000) as u64 } else { 0 };
    let mut one_way = 25_000 + jitter + repair;
    let blackout = start + 1_500_000..start + 2_000_000;
    if blackout.contains(&(intended_us + 5_000)) {
        one_way += blackout.end - intended_us + (150_000.0 * slow) as u64;
    }
    let lost = sequence == 61 && slow > 1.0 && direction == Direction::ToBoard && random.below(2) == 0;
    Message {
        direction,
        topic: u16::from(direction == Direction::ToBoard),
        sequence,
        qos: 1,
        size: 128,
        intended_us,
        sent_us: Some(intended_us + 300),
        acked_us: (!lost).then_some(intended_us + one_way + 26_000),
        delivered_us: (!lost).then_some(intended_us + one_way),
        fate: if lost { Fate::TimedOut } else { Fate::Delivered },
    }
}

fn connection(transport: Transport, role: Role, slow: f64) -> Connection {
    let cpu = if role == Role::Device { 42_000 } else { 3_000 };
    let at = |phase, us: u64| Mark { phase, at_us: 20_000 + us };
    let scaled = |us: f64| (us * slow) as u64;
    let mut marks = vec![at(Phase::FirstPacket, cpu / 6)];
    if transport != Transport::Quic {
        marks.push(at(Phase::TcpConnected, 51_000));
    }
    marks.extend([
        at(Phase::HandshakeKeys, scaled(53_000.0) + cpu / 3),
        at(Phase::CertificateVerified, scaled(55_000.0) + cpu),
        at(Phase::HandshakeComplete, scaled(56_000.0) + cpu),
        at(Phase::ConnectSent, scaled(56_500.0) + cpu),
        at(Phase::Connack, scaled(108_000.0) + cpu),
        at(Phase::Subscribed, scaled(160_000.0) + cpu),
    ]);
    Connection {
        cause: ConnectCause::First,
        handshake: Handshake::Full,
        started_us: 20_000,
        marks,
        client_to_connack: Some(Wire { packets: 4, bytes: 2_388 }),
        server_to_connack: Some(Wire { packets: 5, bytes: 3_120 }),
        round_trips: Some(if transport == Transport::Quic { 2.0 } else { 3.0 }),
        failure: None,
    }
}

fn memory() -> Vec<MemorySnapshot> {
    let at = |at_us, phase: &str, stack, client| MemorySnapshot {
        at_us,
        phase: phase.into(),
        heap_used: Some(0),
        heap_free: Some(180_000 - client),
        heap_free_min: Some(180_000 - client),
        stack_high_water: Some(stack),
        client_ram: Some(client),
    };
    vec![
        at(0, "boot", 1_200, 0),
        at(10_000, "network up", 2_400, 0),
        at(90_000, "handshake complete", 12_960, 28_800),
        at(130_000, "connected", 12_960, 28_800),
        at(9_000_000, "workload done", 12_960, 28_800),
    ]
}

fn costs(slow: f64) -> Vec<Cost> {
    let cost = |activity, instructions: Vec<u64>| Cost { activity, instructions, exact: true };
    vec![
        cost(Activity::HandshakeFull, vec![28_912_345]),
        cost(Activity::PublicKey, vec![27_010_222]),
        cost(Activity::Connect, vec![(41_233.0 * slow) as u64]),
        cost(Activity::PublishQos1, (0..100).map(|i| 38_000 + i % 7 * 400).collect()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::analysis::groups;
    use super::super::judge::{Status, judge};
    use super::*;
    use crate::measure::{Figure, Metric};
    use crate::scenario::Scenario;

    fn scenario() -> Scenario {
        Scenario::parse("sample.toml", SCENARIO).unwrap_or_else(|e| panic!("{:?}", miette::Report::new(e)))
    }

    #[test]
    fn groups_come_in_the_order_of_the_scenario() {
        let record = record();
        let labels: Vec<_> = groups(&record).iter().map(|group| group.label()).collect();
        assert_eq!(labels, ["quic", "quic reference", "tls", "tls reference"]);
    }

    #[test]
    fn every_metric_of_a_full_record_has_a_sound_estimate() {
        let record = record();
        let groups = groups(&record);
        for metric in Metric::all() {
            for group in &groups[..2] {
                for estimate in group.estimates(metric, super::super::analysis::shown_statistics(metric)) {
                    let Some(estimate) = estimate else { continue };
                    assert!(estimate.value >= 0.0, "{} {estimate:?}", metric.name);
                    if let Some(interval) = estimate.interval {
                        assert!(interval.low <= interval.high, "{} {estimate:?}", metric.name);
                    }
                }
            }
        }
        let device = &groups[0];
        let estimate = device.estimate(Figure::parse("publish.latency.p99").unwrap()).unwrap();
        assert_eq!((estimate.samples, estimate.seeds, estimate.failed), (300, 3, 0));
        assert!(estimate.interval.is_some());
    }

    #[test]
    fn the_device_decides_and_the_reference_is_shown() {
        let verdict = judge(&record(), &scenario());
        let tls = |role| {
            verdict
                .outcomes
                .iter()
                .find(|o| o.expectation.starts_with("delivery.ratio") && o.variant == "tls" && o.role == role)
        };
        assert!(tls(Role::Reference).unwrap().decides, "`for all` makes the reference decide");
        let latency = verdict.outcomes.iter().filter(|o| o.expectation.starts_with("publish.latency.p99"));
        assert_eq!(latency.clone().filter(|o| o.decides).count(), 2);
        assert_eq!(latency.count(), 4);
    }

    #[test]
    fn one_lost_message_fails_the_run() {
        let mut run = record();
        for message in run.trials.iter_mut().flat_map(|trial| &mut trial.messages) {
            message.fate = Fate::Delivered;
            message.delivered_us.get_or_insert(message.intended_us + 1);
            message.acked_us.get_or_insert(message.intended_us + 2);
        }
        let passed = judge(&run, &scenario());
        assert!(passed.passed, "{:#?}", passed.outcomes);
        assert!(passed.answer.starts_with("Yes. 100 % of 600 messages arrived"), "{}", passed.answer);
        run.trials[0].messages[4].fate = Fate::Lost;
        run.trials[0].messages[4].delivered_us = None;
        let failed = judge(&run, &scenario());
        assert!(!failed.passed);
        assert_eq!(failed.answer, "No. quic: delivery.ratio is 99.83 %, expected 100 %.");
    }

    #[test]
    fn a_trial_that_did_not_complete_fails_the_run() {
        let mut run = record();
        let cause = "the board said nothing for 10 s".to_owned();
        run.trials[0].ending = Ending::Failed { phase: "connect".into(), cause, blame: Blame::Subject };
        let verdict = judge(&run, &scenario());
        assert!(!verdict.passed);
        assert_eq!(
            verdict.outcomes[0].explanation,
            "seed 1: failed in phase connect: the board said nothing for 10 s"
        );
        run.trials.truncate(2);
        run.ending = Ending::Interrupted { by: "Ctrl-C".into() };
        let verdict = judge(&run, &scenario());
        assert_eq!(verdict.answer, "No answer: the run was interrupted by Ctrl-C.");
        assert!(verdict.outcomes.iter().any(|o| o.explanation.contains("only 2 of 12 trials")));
        assert!(verdict.outcomes.iter().any(|o| o.variant == "tls" && o.status == Status::NotMeasured));
    }

    #[test]
    fn what_was_not_measured_fails_and_what_does_not_apply_does_not() {
        let mut run = record();
        run.trials.iter_mut().for_each(|trial| trial.memory.clear());
        let verdict = judge(&run, &scenario());
        let stack = |verdict: &super::super::Verdict| {
            verdict.outcomes.iter().find(|o| o.expectation.starts_with("stack")).unwrap().status
        };
        assert_eq!(stack(&verdict), Status::NotMeasured);
        run.environment.board.name = "host".into();
        assert_eq!(stack(&judge(&run, &scenario())), Status::NotApplicable);
        run.scenario.variants = vec!["quic".into()];
        run.trials.retain(|trial| trial.variant == "quic");
        let verdict = judge(&run, &scenario());
        let relative = verdict.outcomes.iter().find(|o| o.expectation.contains("1.2 x tls")).unwrap();
        assert_eq!(relative.status, Status::NotApplicable);
    }

    #[test]
    fn a_record_survives_json() {
        let record = record();
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<RunRecord>(&json).unwrap(), record);
        let verdict = judge(&record, &scenario());
        let json = serde_json::to_string(&verdict).unwrap();
        assert_eq!(serde_json::from_str::<super::super::Verdict>(&json).unwrap(), verdict);
    }
}
