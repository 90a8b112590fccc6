//! The decisions that depend on a packet's number alone, not on time: loss, damage, delay variation.

use crate::config::Direction;
use crate::dice::{Dice, Kind};
use crate::impairment::{CorruptTable, Distribution, FLIPS_MAX, GilbertElliott, JitterTable, LossTable};
use crate::record::Reason;

/// Decides which packets are lost.
#[derive(Clone, Debug)]
pub(crate) struct LossModel {
    table: LossTable,
    random: Dice,
    burst: Dice,
    state: State,
    run: u32,
}

/// The two states of the Gilbert-Elliott model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Good,
    Bad,
}

impl LossModel {
    pub(crate) fn new(table: LossTable, seed: u64, direction: Direction) -> Self {
        Self {
            table,
            random: Dice::new(seed, direction, Kind::RandomLoss),
            burst: Dice::new(seed, direction, Kind::BurstLoss),
            state: State::Good,
            run: 0,
        }
    }

    /// Why packet `index` is lost, if it is. To be asked once per packet, in order.
    pub(crate) fn decide(&mut self, index: u64) -> Option<Reason> {
        let listed = self.table.packets.as_ref().is_some_and(|list| list.contains(index));
        let burst = self.table.burst.is_some_and(|model| self.step(model, index));
        let random = self.table.random.is_some_and(|probability| self.random.at(index).chance(probability));
        let reason = match (listed, burst, random) {
            (true, _, _) => Some(Reason::ListedLoss),
            (_, true, _) => Some(Reason::BurstLoss),
            (_, _, true) => Some(Reason::RandomLoss),
            _ => None,
        };
        limit_run(&mut self.run, self.table.run_max, reason)
    }

    /// Whether the burst model loses this packet; moves on to the next packet's state.
    fn step(&mut self, model: GilbertElliott, index: u64) -> bool {
        let mut roll = self.burst.at(index);
        let (loss, change, other) = match self.state {
            State::Good => (model.loss_good, model.enter, State::Bad),
            State::Bad => (model.loss_bad, model.leave, State::Good),
        };
        let lost = roll.chance(loss);
        if roll.chance(change) {
            self.state = other;
        }
        lost
    }
}

/// Spares a packet that would make a run longer than `run_max`.
fn limit_run<T>(run: &mut u32, run_max: Option<u32>, hit: Option<T>) -> Option<T> {
    let hit = hit.filter(|_| run_max.is_none_or(|limit| *run < limit));
    *run = if hit.is_some() { *run + 1 } else { 0 };
    hit
}

/// Which bits of a damaged packet are flipped: positions as fractions of its length, so that they are the
/// same whatever part of the packet the driver exposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    positions: [u64; FLIPS_MAX],
    count: u8,
}

impl Damage {
    /// Flips the bits. Two positions may fall together only if the packet has fewer bits than flips.
    pub fn flip(&self, packet: &mut [u8]) {
        let bits = packet.len() as u128 * 8;
        if bits == 0 {
            return;
        }
        let mut taken = [u128::MAX; FLIPS_MAX];
        for (i, position) in self.positions[..usize::from(self.count)].iter().enumerate() {
            let mut bit = (u128::from(*position) * bits) >> 64;
            // A second flip of one bit would undo the first: take the next free one.
            let mut tries = 0;
            while taken[..i].contains(&bit) && tries < bits {
                bit = (bit + 1) % bits;
                tries += 1;
            }
            taken[i] = bit;
            packet[(bit / 8) as usize] ^= 0x80 >> (bit % 8);
        }
    }

    /// How many bits are flipped.
    #[must_use]
    pub fn bits(&self) -> u32 {
        u32::from(self.count)
    }

    pub(crate) fn first_position(&self) -> u64 {
        self.positions[0]
    }
}

/// Decides which packets are damaged, and where.
#[derive(Clone, Debug)]
pub(crate) struct CorruptModel {
    table: CorruptTable,
    dice: Dice,
    run: u32,
}

impl CorruptModel {
    pub(crate) fn new(table: CorruptTable, seed: u64, direction: Direction) -> Self {
        Self { table, dice: Dice::new(seed, direction, Kind::Corrupt), run: 0 }
    }

    pub(crate) fn decide(&mut self, index: u64) -> Option<Damage> {
        let mut roll = self.dice.at(index);
        let hit = roll.chance(self.table.probability).then(|| {
            // Two positions per number: a packet's block holds eight numbers, and the decision took one.
            let mut positions = [0; FLIPS_MAX];
            for pair in positions.chunks_mut(2) {
                let word = roll.word();
                pair[0] = word & 0xffff_ffff_0000_0000;
                pair[1] = word << 32;
            }
            Damage { positions, count: self.table.bits as u8 }
        });
        limit_run(&mut self.run, self.table.run_max, hit)
    }
}

/// Draws the delay's variation. Correlation is put on a standard normal variable, which is then mapped to
/// the wanted distribution: neighbours are alike, the distribution stays what was asked for.
#[derive(Clone, Debug)]
pub(crate) struct JitterModel {
    table: JitterTable,
    dice: Dice,
    copies: Dice,
    previous: Option<f64>,
}

impl JitterModel {
    pub(crate) fn new(table: JitterTable, seed: u64, direction: Direction) -> Self {
        let dice = |kind| Dice::new(seed, direction, kind);
        Self { table, dice: dice(Kind::Jitter), copies: dice(Kind::CopyJitter), previous: None }
    }

    pub(crate) fn table(&self) -> &JitterTable {
        &self.table
    }

    /// Nanoseconds to add to packet `index`'s delay. To be asked once per packet, in order.
    pub(crate) fn decide(&mut self, index: u64) -> i64 {
        let fresh = self.dice.at(index).normal();
        let rho = self.table.correlation.fraction();
        let z = match self.previous {
            Some(previous) => rho * previous + libm::sqrt(1.0 - rho * rho) * fresh,
            None => fresh,
        };
        self.previous = Some(z);
        self.offset(z)
    }

    /// The same for the packet's copy, which travels on its own.
    pub(crate) fn decide_copy(&mut self, index: u64) -> i64 {
        let z = self.copies.at(index).normal();
        self.offset(z)
    }

    fn offset(&self, z: f64) -> i64 {
        let spread = self.table.spread.duration().as_nanos() as f64;
        // Probability that a standard normal variable exceeds z.
        let above = 0.5 * libm::erfc(z * core::f64::consts::FRAC_1_SQRT_2);
        let offset = match self.table.distribution {
            Distribution::Uniform => spread * (1.0 - 2.0 * above),
            Distribution::Normal => spread * z,
            // Pareto of shape 3 and scale 2 spreads, shifted to start at zero: its mean is one spread.
            Distribution::Pareto => 2.0 * spread * (libm::cbrt(1.0 / above.max(f64::MIN_POSITIVE)) - 1.0),
            Distribution::Constant => spread,
        };
        offset as i64
    }
}
