//! Carries out the link's decisions: keeps packets until they are due, and writes down what happened.

use std::sync::Arc;
use std::time::{Duration, Instant};

use link::{Delivery, Direction, InFlight, Link, LogLine, Performed};

use super::handle::{Happening, Occurrence, Setup, SetupError, Shared, lock, since};
use super::writer::Writer;

/// A packet that is due.
pub(super) struct Due<P> {
    pub(super) direction: Direction,
    pub(super) packet: P,
    /// How it is damaged.
    pub(super) delivery: Delivery,
}

/// The link and the packets on their way.
pub(super) struct Shaper<P> {
    link: Link,
    in_flight: InFlight<Due<P>>,
    started: Instant,
    writer: Writer,
    shared: Arc<Shared>,
}

/// Most packets on their way at once. At 1,500 B each that is 100 MB: a delay-bandwidth product no profile
/// comes near. What goes beyond is dropped as undeliverable.
const IN_FLIGHT_MAX: usize = 65_536;

impl<P: Clone> Shaper<P> {
    pub(super) fn new(setup: &Setup, started: Instant, shared: Arc<Shared>) -> Result<Self, SetupError> {
        let link = Link::new(&setup.config, setup.seed)?;
        let mut writer = Writer::start(setup)?;
        writer.line(|| LogLine::Start { config: Box::new(setup.config.clone()), seed: setup.seed });
        Ok(Self { link, in_flight: InFlight::new(), started, writer, shared })
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Time since the link's start.
    pub(super) fn now(&self) -> Duration {
        since(self.started)
    }

    /// Sends a packet of `size` bytes into the link at this moment. `connection` is for the log.
    pub(super) fn offer(&mut self, direction: Direction, packet: P, size: usize, connection: Option<u32>) {
        self.offer_at(self.now(), direction, packet, size, connection);
    }

    /// The same at `now`, for a carrier that may lose nothing and has asked [`Self::dark_until`] of that moment.
    pub(super) fn offer_at(
        &mut self,
        now: Duration,
        direction: Direction,
        packet: P,
        size: usize,
        connection: Option<u32>,
    ) {
        let mut fate = self.link.offer(direction, now, size);
        fate.record.connection = connection;
        self.writer.line(|| LogLine::Packet(fate.record));
        {
            let mut collector = lock(&self.shared.collector);
            collector.on_offer(&fate.record);
            if self.in_flight.len() >= IN_FLIGHT_MAX {
                collector.stats.direction_mut(direction).undeliverable += 1;
                return;
            }
        }
        let mut deliveries = fate.deliveries();
        let Some(first) = deliveries.next() else { return };
        if let Some(copy) = deliveries.next() {
            self.in_flight.push(copy.at, Due { direction, packet: packet.clone(), delivery: copy });
        }
        self.in_flight.push(first.at, Due { direction, packet, delivery: first });
    }

    /// The next packet that is due.
    pub(super) fn pop_due(&mut self) -> Option<Due<P>> {
        // The clock is read only when there is something to compare it with.
        self.in_flight.next_at()?;
        self.in_flight.pop_due(self.now()).map(|(_, due)| due)
    }

    /// Counts a packet that has left for good, against its schedule.
    pub(super) fn delivered(&mut self, direction: Direction, delivery: &Delivery, bytes: usize) {
        let late = self.now().saturating_sub(delivery.at);
        lock(&self.shared.collector).on_delivery(direction, bytes, late);
    }

    /// Counts a packet nobody could take.
    pub(super) fn undeliverable(&mut self, direction: Direction) {
        lock(&self.shared.collector).stats.direction_mut(direction).undeliverable += 1;
    }

    /// Counts a packet that its receiver would have discarded for its checksum.
    pub(super) fn checksum_failed(&mut self, direction: Direction) {
        lock(&self.shared.collector).stats.direction_mut(direction).checksum_failed += 1;
    }

    /// Adds a frame to the capture.
    pub(super) fn capture(&mut self, frame: &[u8]) {
        self.writer.frame(frame);
    }

    /// When the next packet or action is due.
    pub(super) fn next_at(&self) -> Option<Duration> {
        [self.in_flight.next_at(), self.link.next_action_at()].into_iter().flatten().min()
    }

    pub(super) fn on_event(&mut self, name: String) {
        let now = self.now();
        self.link.on_event(&name, now);
        let time_us = now.as_micros() as u64;
        self.writer.line(|| LogLine::Event { time_us, name: name.clone() });
        self.happened(Happening::Event { name });
    }

    /// The next scheduled action whose moment has come.
    pub(super) fn poll_action(&mut self) -> Option<Performed> {
        let performed = self.link.poll_action(self.now())?;
        self.writer.line(|| LogLine::Action(performed));
        Some(performed)
    }

    /// If nothing passes now, until when.
    pub(super) fn dark_until(&mut self, direction: Direction, now: Duration) -> Option<Duration> {
        self.link.dark_until(direction, now)
    }

    /// Puts something on the time line.
    pub(super) fn happened(&mut self, what: Happening) {
        let time_us = self.now().as_micros() as u64;
        lock(&self.shared.timeline).push(Occurrence { time_us, what });
    }

    /// Publishes the hash over all fates so far.
    pub(super) fn publish_hash(&mut self) {
        lock(&self.shared.collector).stats.fate_hash = self.link.fate_hash();
    }

    /// Writes out the log.
    pub(super) fn finish(&mut self) {
        self.publish_hash();
        if let Err(error) = self.writer.finish() {
            self.shared.fail(format!("cannot write the link's log: {error}; it is incomplete"));
        }
    }
}
