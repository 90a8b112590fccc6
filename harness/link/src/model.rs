//! The link itself: each packet offered gets its fate at once, in virtual time.

use core::time::Duration;

use crate::bottleneck::{Bottleneck, Varying};
use crate::chance::{CorruptModel, Damage, JitterModel, LossModel};
use crate::config::{ConfigError, Direction, LinkConfig, Path};
use crate::dice::{Dice, Kind};
use crate::fade::FadeModel;
use crate::impairment::{Order, Reorder};
use crate::record::{FateHash, Reason, Record};
use crate::timeline::{Performed, Timeline, micros};
use crate::units::{Percent, Time};

/// A seeded, impaired link between two ends, for any kind of packet.
///
/// It holds no packets: [`offer`](Self::offer) tells when each is to be delivered and how it is damaged;
/// [`InFlight`](crate::InFlight) keeps them until then. Time is counted from the link's start, by whoever
/// drives it. Packets of the same number in the same direction always get the same loss, damage, copies and
/// delay variation under the same seed, whatever the clock does; only blackouts, fades, queue and traces look at time.
#[derive(Clone, Debug)]
pub struct Link {
    lanes: [Lane; 2],
    timeline: Timeline,
}

/// What happens to an offered packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The same for the log.
    pub record: Record,
    deliveries: [Option<Delivery>; 2],
}

impl Fate {
    /// The arrivals of the packet: none, one, or two if it was duplicated.
    pub fn deliveries(&self) -> impl Iterator<Item = Delivery> + use<> {
        self.deliveries.into_iter().flatten()
    }
}

/// One arrival of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When, counted from the link's start.
    pub at: Duration,
    /// Bits to flip.
    pub damage: Option<Damage>,
    /// What is left of the packet, as a fraction of 2^64.
    kept: Option<u64>,
}

impl Delivery {
    /// How many bytes are left of a packet of `len` bytes.
    #[must_use]
    pub fn kept_len(&self, len: usize) -> usize {
        self.kept.map_or(len, |kept| ((u128::from(kept) * len as u128) >> 64) as usize)
    }

    /// Whether the packet arrives shortened.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.kept.is_some()
    }

    /// Damages the packet as decided; returns what is left of it.
    pub fn apply<'a>(&self, packet: &'a mut [u8]) -> &'a mut [u8] {
        if let Some(damage) = &self.damage {
            damage.flip(packet);
        }
        let len = self.kept_len(packet.len());
        &mut packet[..len]
    }
}

/// What IPv4 and UDP headers add to a datagram's payload: to be counted by those who offer payloads alone.
pub const UDP_IPV4_OVERHEAD: usize = 28;

impl Link {
    /// A link as `config` states it, all decisions drawn from `seed`.
    ///
    /// # Errors
    /// Refuses a configuration that contradicts itself.
    pub fn new(config: &LinkConfig, seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        let lanes = Direction::BOTH.map(|direction| Lane::new(direction, &config.path(direction), seed));
        Ok(Self { lanes, timeline: Timeline::new(config) })
    }

    /// Decides what happens to a packet of `size` bytes that is sent now. Sizes include the IP header, so
    /// that rate and MTU mean the same however packets are carried. Moments are rounded down to microseconds.
    pub fn offer(&mut self, direction: Direction, now: Duration, size: usize) -> Fate {
        let now = whole_micros(now);
        let dark = self.timeline.blackout_end(direction, now).is_some();
        self.lanes[direction.index()].offer(now, size, dark)
    }

    /// Tells the link that `name` has happened; schedules that wait for it count from now.
    /// Only the first occurrence of a name counts.
    pub fn on_event(&mut self, name: &str, now: Duration) {
        let now = whole_micros(now);
        self.timeline.on_event(name, now);
        for lane in &mut self.lanes {
            lane.delay.on_event(name, now);
            if let Some(bottleneck) = &mut lane.bottleneck {
                bottleneck.on_event(name, now);
            }
        }
    }

    /// When the next action is due.
    #[must_use]
    pub fn next_action_at(&self) -> Option<Duration> {
        self.timeline.next_at()
    }

    /// The next action whose moment has come, in order of time.
    pub fn poll_action(&mut self, now: Duration) -> Option<Performed> {
        self.timeline.poll(now)
    }

    /// If nothing passes in `direction` now, until when: a blackout or a fade. For carriers that stall instead of losing.
    #[must_use]
    pub fn dark_until(&mut self, direction: Direction, now: Duration) -> Option<Duration> {
        let now = whole_micros(now);
        self.timeline.blackout_end(direction, now).max(self.lanes[direction.index()].fade_end(now))
    }

    /// Packets offered in `direction` so far.
    #[must_use]
    pub fn offered(&self, direction: Direction) -> u64 {
        self.lanes[direction.index()].index
    }

    /// A hash over all fates so far, times left out: equal for equal packets under equal seeds. It does not
    /// depend on how the two directions interleave.
    #[must_use]
    pub fn fate_hash(&self) -> u64 {
        let mut hash = FateHash::new();
        for lane in &self.lanes {
            hash.word(lane.hash.value());
        }
        hash.value()
    }
}

/// One direction.
#[derive(Clone, Debug)]
struct Lane {
    direction: Direction,
    index: u64,
    mtu: u64,
    fade: Option<FadeModel>,
    loss: Option<LossModel>,
    bottleneck: Option<Bottleneck>,
    delay: Varying<Time>,
    jitter: Option<JitterModel>,
    order: Order,
    reorder: Option<(Reorder, Dice)>,
    corrupt: Option<CorruptModel>,
    truncate: Option<(Percent, Dice)>,
    duplicate: Option<(Percent, Dice)>,
    /// The latest arrival so far: what keeps the order.
    latest: Duration,
    hash: FateHash,
}

/// What was decided from the packet's number alone.
struct Decided {
    lost: Option<Reason>,
    jitter_ns: i64,
    reorder: Option<Reorder>,
    damage: Option<Damage>,
    kept: Option<u64>,
    copied: bool,
}

impl Lane {
    fn new(direction: Direction, path: &Path, seed: u64) -> Self {
        let dice = |kind| Dice::new(seed, direction, kind);
        let jitter = path.jitter.map(|jitter| JitterModel::new(jitter.0, seed, direction));
        Self {
            direction,
            index: 0,
            mtu: path.mtu.map_or(u64::MAX, |mtu| mtu.bytes()),
            fade: path.fade.map(|fade| FadeModel::new(fade, seed)),
            loss: path.loss.clone().map(|loss| LossModel::new(loss.0, seed, direction)),
            bottleneck: Bottleneck::new(path, seed, direction),
            delay: Varying::new(path.delay.unwrap_or_default(), path.delay_trace.clone()),
            order: jitter.as_ref().map_or(Order::Keep, |jitter| jitter.table().order),
            jitter,
            reorder: path.reorder.map(|reorder| (reorder, dice(Kind::Reorder))),
            corrupt: path.corrupt.map(|corrupt| CorruptModel::new(corrupt.0, seed, direction)),
            truncate: path.truncate.map(|truncate| (truncate.probability, dice(Kind::Truncate))),
            duplicate: path.duplicate.map(|probability| (probability, dice(Kind::Duplicate))),
            latest: Duration::ZERO,
            hash: FateHash::new(),
        }
    }

    fn offer(&mut self, now: Duration, size: usize, dark: bool) -> Fate {
        self.index += 1;
        let decided = self.decide();
        let mut record = Record {
            time_us: micros(now),
            direction: self.direction,
            index: self.index,
            size: u32::try_from(size).unwrap_or(u32::MAX),
            dropped: None,
            deliver_us: None,
            copy_us: None,
            bits_flipped: 0,
            cut_to: None,
            reordered: false,
            connection: None,
        };
        let mut deliveries = [None; 2];
        match self.pass(&decided, now, size, dark) {
            Err(reason) => record.dropped = Some(reason),
            Ok(left) => {
                let at = self.arrival(left, decided.jitter_ns, decided.reorder);
                let first = Delivery { at, damage: decided.damage, kept: decided.kept };
                record.deliver_us = Some(micros(at));
                record.bits_flipped = decided.damage.map_or(0, |damage| damage.bits());
                record.cut_to = decided.kept.map(|_| first.kept_len(size) as u32);
                record.reordered = decided.reorder.is_some();
                deliveries[0] = Some(first);
                if decided.copied {
                    let jitter_ns = self.jitter.as_mut().map_or(0, |jitter| jitter.decide_copy(self.index));
                    let at = self.arrival(left, jitter_ns, None);
                    record.copy_us = Some(micros(at));
                    deliveries[1] = Some(Delivery { at, damage: None, kept: None });
                }
            }
        }
        self.hash.add(&record, decided.damage.map_or(0, |damage| damage.first_position()));
        Fate { record, deliveries }
    }

    /// Everything that the packet's number decides, drawn for each packet whether it will matter or not:
    /// states such as the burst model's advance by packets, not by survivors.
    fn decide(&mut self) -> Decided {
        let index = self.index;
        Decided {
            lost: self.loss.as_mut().and_then(|loss| loss.decide(index)),
            jitter_ns: self.jitter.as_mut().map_or(0, |jitter| jitter.decide(index)),
            reorder: self.reorder.as_mut().and_then(|(reorder, dice)| {
                let picked = dice.at(index).chance(reorder.probability)
                    || reorder.every.is_some_and(|every| index.is_multiple_of(u64::from(every)));
                picked.then_some(*reorder)
            }),
            damage: self.corrupt.as_mut().and_then(|corrupt| corrupt.decide(index)),
            kept: self.truncate.as_mut().and_then(|(probability, dice)| {
                let mut roll = dice.at(index);
                roll.chance(*probability).then(|| roll.word())
            }),
            copied: self.duplicate.as_mut().is_some_and(|(chance, dice)| dice.at(index).chance(*chance)),
        }
    }

    /// If nothing passes now because of a fade, until when.
    fn fade_end(&mut self, now: Duration) -> Option<Duration> {
        self.fade.as_mut().and_then(|fade| fade.end(now))
    }

    /// When the packet has left the bottleneck, or why it does not get that far.
    fn pass(
        &mut self,
        decided: &Decided,
        now: Duration,
        size: usize,
        dark: bool,
    ) -> Result<Duration, Reason> {
        if size as u64 > self.mtu {
            return Err(Reason::Mtu);
        }
        if dark {
            return Err(Reason::Blackout);
        }
        if self.fade_end(now).is_some() {
            return Err(Reason::Fade);
        }
        if let Some(reason) = decided.lost {
            return Err(reason);
        }
        match &mut self.bottleneck {
            Some(bottleneck) => bottleneck.admit(now, size as u64).ok_or(Reason::QueueFull),
            None => Ok(now),
        }
    }

    /// When a packet that left the bottleneck at `left` arrives.
    fn arrival(&mut self, left: Duration, jitter_ns: i64, reorder: Option<Reorder>) -> Duration {
        let delay = self.delay.at(left).0.duration();
        let varied = if jitter_ns < 0 {
            delay.saturating_sub(Duration::from_nanos(jitter_ns.unsigned_abs()))
        } else {
            delay + Duration::from_nanos(jitter_ns.unsigned_abs())
        };
        let at = left.saturating_add(varied);
        match reorder {
            Some(Reorder { extra_delay: Some(extra), .. }) => at.saturating_add(extra.duration()),
            Some(_) => left,
            None if self.order == Order::Keep => {
                self.latest = self.latest.max(at);
                self.latest
            }
            None => at,
        }
    }
}

fn whole_micros(time: Duration) -> Duration {
    Duration::from_micros(micros(time))
}
