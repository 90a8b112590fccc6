//! Messages, and how long everything may take.

use std::time::Duration;

use device::control::{TOPICS_MAX, payload};
use link::units::Time;

use super::super::spec::{FlowTable, LimitsTable};
use super::super::{Flow, Limits, Pace};
use super::Check;

impl Check<'_> {
    pub(super) fn flow(&mut self, path: &str, flow: &FlowTable) -> Option<Flow> {
        let topics = flow.topics.unwrap_or(1);
        if topics == 0 || usize::from(topics) > TOPICS_MAX {
            let problem = format!("topics = {topics} is outside 1 to {TOPICS_MAX}");
            self.value(&format!("{path}.topics"), problem, "a board keeps that many topics");
        }
        let qos = flow.qos.unwrap_or(1);
        if qos > 2 {
            self.value(&format!("{path}.qos"), format!("MQTT has no QoS {qos}"), "write 0, 1 or 2");
        }
        let least = payload::OVERHEAD as u64;
        let size = u16::try_from(flow.size.bytes())
            .ok()
            .filter(|size| (least..=SIZE_MAX).contains(&u64::from(*size)));
        if size.is_none() {
            let problem = format!("a payload of {} is outside {least} B to {SIZE_MAX} B", flow.size);
            let remedy = "each payload carries its own number, time and checksum, and must fit the board";
            self.value(&format!("{path}.size"), problem, remedy);
        }
        if flow.count == 0 {
            self.value(&format!("{path}.count"), "a workload of no messages", "leave the table out instead");
        }
        if flow.count > COUNT_MAX {
            let problem = format!("{} messages are more than {COUNT_MAX}", flow.count);
            let remedy = "each is accounted for in memory; write fewer, or more seeds";
            self.value(&format!("{path}.count"), problem, remedy);
        }
        if let Some(interval) = flow.interval.filter(|interval| *interval < INTERVAL_MIN) {
            let problem = format!("an interval of {interval}");
            let remedy = "leave interval out to send as fast as possible";
            self.value(&format!("{path}.interval"), problem, remedy);
        }
        if let Some(interval) = flow.interval.filter(|interval| *interval > INTERVAL_MAX) {
            let problem = format!("an interval of {interval} is longer than {INTERVAL_MAX}");
            self.value(
                &format!("{path}.interval"),
                problem,
                "write a shorter one: a board counts in 32 bits",
            );
        }
        let pace = flow.interval.map_or(Pace::Saturate, |interval| Pace::Every(interval.duration()));
        Some(Flow { topics, qos, size: size?, count: flow.count, pace, retain: flow.retain })
    }
}

impl Check<'_> {
    /// A phase without any time would fail, whatever the board does.
    pub(super) fn some_time(&mut self, table: &LimitsTable) {
        let limits = [
            ("boot", table.boot),
            ("connect", table.connect),
            ("workload", table.workload),
            ("drain", table.drain),
        ];
        for (key, limit) in limits {
            if limit == Some(Time::ZERO) {
                let remedy = "write for example \"20 s\", or leave it out";
                self.value(&format!("limits.{key}"), format!("a limit of no time for {key}"), remedy);
            }
        }
    }
}

pub(super) fn limits(table: &LimitsTable, flows: [Option<Flow>; 2]) -> Limits {
    let scheduled = flows.into_iter().flatten().map(|flow| match flow.pace {
        Pace::Every(interval) => interval.saturating_mul(flow.count),
        // 20 messages a second is slow even for a bad network; the limit only has to end a hang.
        Pace::Saturate => Duration::from_millis(50).saturating_mul(flow.count),
    });
    let scheduled = scheduled.max().unwrap_or_default();
    let time = |value: Option<Time>, default: Duration| value.map_or(default, Time::duration);
    Limits {
        boot: time(table.boot, Duration::from_secs(20)),
        connect: time(table.connect, Duration::from_secs(20)),
        workload: time(table.workload, scheduled.saturating_mul(2).saturating_add(Duration::from_secs(20))),
        drain: time(table.drain, Duration::from_secs(15)),
    }
}

/// Messages of one direction: an account of each is kept and written.
const COUNT_MAX: u32 = 1_000_000;
/// A workload's interval is told to the board in microseconds of 32 bits.
const INTERVAL_MIN: Time = Time::from_micros(1);
const INTERVAL_MAX: Time = Time::from_millis(60 * 60 * 1000);
/// What the board's buffers hold in one message.
const SIZE_MAX: u64 = 1024;
