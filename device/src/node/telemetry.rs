//! Reports on their way to the console: bounded, in order, and what finds no room is counted.

use super::Console;
use crate::control::{ConsoleStats, Report, SAMPLES_MAX, Sample, Samples, frame};
use crate::time::{Duration, Instant};

/// Room for encoded reports: two full batches of samples and the reports of one event.
const OUTBOX: usize = 2560;
/// What one event may need at once: a batch of samples, the event, memory, statistics.
const EVENT_ROOM: usize = frame::FRAME_MAX + 640;
/// How long a sample waits for company. Longer batches cost the console less; the harness does not
/// need them sooner.
const SAMPLES_AGE_MAX: Duration = Duration::from_millis(50);

/// Encoded reports and the samples not yet encoded.
#[derive(Debug)]
pub(super) struct Telemetry {
    bytes: [u8; OUTBOX],
    len: usize,
    samples: Samples,
    samples_since: Instant,
    stats: ConsoleStats,
    waiting: bool,
}

impl Telemetry {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; OUTBOX],
            len: 0,
            samples: Samples { run: 0, samples: heapless::Vec::new() },
            samples_since: Instant::ZERO,
            stats: ConsoleStats {
                reports: 0,
                reports_dropped: 0,
                samples_dropped: 0,
                frames_damaged: 0,
                pauses: 0,
            },
            waiting: false,
        }
    }

    /// Whether whatever one event causes to be reported fits. While it does not, the agent takes in no
    /// commands, no frames and no events: nothing is dropped, the network waits.
    pub(super) fn has_room(&mut self) -> bool {
        let room = self.room();
        if !room && !self.waiting {
            self.stats.pauses += 1;
        }
        self.waiting = !room;
        room
    }

    /// The same, without counting a pause.
    pub(super) const fn room(&self) -> bool {
        OUTBOX - self.len >= EVENT_ROOM
    }

    /// Queues `report` behind the samples that came before it.
    pub(super) fn report(&mut self, report: &Report) {
        self.flush_samples();
        self.push(report);
    }

    /// Adds a sample to the batch.
    pub(super) fn sample(&mut self, now: Instant, run: u32, sample: Sample) {
        if self.samples.samples.len() == SAMPLES_MAX || self.samples.run != run {
            self.flush_samples();
        }
        if self.samples.samples.is_empty() {
            self.samples_since = now;
            self.samples.run = run;
        }
        if self.samples.samples.push(sample).is_err() {
            self.stats.samples_dropped += 1;
        }
    }

    /// A frame from the harness could not be used.
    pub(super) fn count_damaged(&mut self) {
        self.stats.frames_damaged += 1;
    }

    /// Writes as much as the console takes.
    pub(super) fn flush(&mut self, now: Instant, console: &mut impl Console) {
        if self.samples_due().is_some_and(|due| due <= now) {
            self.flush_samples();
        }
        let mut written = 0;
        while written < self.len {
            match console.write(&self.bytes[written..self.len]) {
                0 => break,
                taken => written += taken,
            }
        }
        self.bytes.copy_within(written..self.len, 0);
        self.len -= written;
    }

    /// When the samples are old enough to be sent.
    pub(super) fn samples_due(&self) -> Option<Instant> {
        (!self.samples.samples.is_empty()).then(|| self.samples_since + SAMPLES_AGE_MAX)
    }

    /// Whether the console owes us room.
    pub(super) const fn has_output(&self) -> bool {
        self.len > 0
    }

    pub(super) const fn stats(&self) -> ConsoleStats {
        self.stats
    }

    fn flush_samples(&mut self) {
        if self.samples.samples.is_empty() {
            return;
        }
        let count = self.samples.samples.len() as u32;
        // Encoded in place of the enum's variant: a copy would cost half a kilobyte of stack.
        let samples = core::mem::take(&mut self.samples);
        if !self.push(&Report::Samples(samples)) {
            self.stats.samples_dropped += count;
        }
    }

    fn push(&mut self, report: &Report) -> bool {
        let pushed = frame::encode(report, &mut self.bytes[self.len..]);
        match pushed {
            Ok(len) => {
                self.len += len;
                self.stats.reports += 1;
                true
            }
            Err(_) => {
                self.stats.reports_dropped += 1;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::control::frame::{Decoder, Piece};
    use crate::control::{Answer, Verdict};

    /// A console that takes `room` bytes.
    struct Sink {
        taken: Vec<u8>,
        room: usize,
    }

    impl Console for Sink {
        fn read(&mut self, _: &mut [u8]) -> usize {
            0
        }

        fn write(&mut self, bytes: &[u8]) -> usize {
            let len = bytes.len().min(self.room);
            self.room -= len;
            self.taken.extend_from_slice(&bytes[..len]);
            len
        }
    }

    fn reports(bytes: &[u8]) -> Vec<Report> {
        let mut decoder = Decoder::<{ frame::FRAME_MAX }>::new();
        let (mut input, mut reports) = (bytes, Vec::new());
        while let Some(piece) = decoder.next(&mut input) {
            let Piece::Message(message) = piece else { panic!("only frames: {piece:?}") };
            reports.push(Report::decode(message).expect("a report"));
        }
        reports
    }

    fn acked(sequence: u32) -> Sample {
        Sample::Acked { sequence, at_us: 7 }
    }

    #[test]
    fn samples_go_out_before_the_report_that_followed_them() {
        let mut telemetry = Telemetry::new();
        telemetry.sample(Instant::ZERO, 1, acked(5));
        let reply = Report::Reply { sequence: 1, answer: Answer::Done };
        telemetry.report(&reply);
        let mut sink = Sink { taken: Vec::new(), room: 4096 };
        telemetry.flush(Instant::ZERO, &mut sink);
        let reports = reports(&sink.taken);
        assert!(matches!(&reports[0], Report::Samples(batch) if batch.samples[..] == [acked(5)]));
        assert_eq!(reports[1], reply);
    }

    #[test]
    fn a_lone_sample_goes_out_when_it_is_old_enough() {
        let mut telemetry = Telemetry::new();
        telemetry.sample(Instant::ZERO, 1, acked(5));
        let mut sink = Sink { taken: Vec::new(), room: 4096 };
        telemetry.flush(Instant::ZERO, &mut sink);
        assert!(sink.taken.is_empty());
        telemetry.flush(telemetry.samples_due().expect("one waits"), &mut sink);
        assert_eq!(reports(&sink.taken).len(), 1);
    }

    #[test]
    fn samples_of_another_run_start_another_batch() {
        let mut telemetry = Telemetry::new();
        telemetry.sample(Instant::ZERO, 1, acked(5));
        telemetry.sample(Instant::ZERO, 2, acked(6));
        let mut sink = Sink { taken: Vec::new(), room: 4096 };
        telemetry.flush(Instant::from_micros(1_000_000), &mut sink);
        let runs: Vec<u32> = reports(&sink.taken)
            .iter()
            .map(|report| match report {
                Report::Samples(batch) => batch.run,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(runs, [1, 2]);
    }

    #[test]
    fn a_slow_console_loses_nothing_and_is_told_apart_from_a_full_queue() {
        let mut telemetry = Telemetry::new();
        let mut sent = 0;
        while telemetry.has_room() {
            telemetry.report(&Report::Reply { sequence: sent, answer: Answer::Done });
            sent += 1;
        }
        let mut sink = Sink { taken: Vec::new(), room: 0 };
        while telemetry.has_output() {
            sink.room = 7;
            telemetry.flush(Instant::ZERO, &mut sink);
        }
        assert_eq!(reports(&sink.taken).len(), sent as usize);
        assert_eq!(telemetry.stats().reports_dropped, 0);
        assert_eq!(telemetry.stats().pauses, 1);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut telemetry = Telemetry::new();
        let sample = Sample::Received {
            run: u32::MAX,
            topic: u16::MAX,
            sequence: u32::MAX,
            intended_us: u64::MAX,
            at_us: u64::MAX,
            size: u16::MAX,
            verdict: Verdict::Intact,
        };
        let count = 200;
        for _ in 0..count {
            telemetry.sample(Instant::ZERO, 1, sample);
        }
        let mut sink = Sink { taken: Vec::new(), room: usize::MAX };
        telemetry.flush(Instant::from_micros(1_000_000), &mut sink);
        let delivered: usize = reports(&sink.taken)
            .iter()
            .map(|report| match report {
                Report::Samples(batch) => batch.samples.len(),
                other => panic!("{other:?}"),
            })
            .sum();
        let stats = telemetry.stats();
        assert!(stats.samples_dropped > 0);
        assert_eq!(delivered + stats.samples_dropped as usize, count);
    }
}
