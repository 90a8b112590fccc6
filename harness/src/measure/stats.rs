//! Percentiles and 95 % bootstrap intervals, all of them seeded.
//!
//! Samples come in clusters, one cluster for each seed. A message that never arrived is a sample of infinite
//! size, so a failure moves every percentile the way it should and none is dropped. The interval is a
//! two-stage bootstrap: seeds are drawn with replacement, then samples within each drawn seed (Davison and
//! Hinkley, "Bootstrap Methods and their Application", 3.8). With a handful of seeds it is somewhat narrow;
//! reports therefore give the number of seeds beside it.

use serde::{Deserialize, Serialize};

/// A number drawn from samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Statistic {
    /// Median.
    #[serde(rename = "p50")]
    P50,
    /// 90th percentile.
    #[serde(rename = "p90")]
    P90,
    /// 99th percentile.
    #[serde(rename = "p99")]
    P99,
    /// 99.9th percentile.
    #[serde(rename = "p99.9")]
    P999,
    /// Largest.
    #[serde(rename = "max")]
    Max,
    /// Smallest.
    #[serde(rename = "min")]
    Min,
    /// Arithmetic mean.
    #[serde(rename = "mean")]
    Mean,
    /// Sum over all trials.
    #[serde(rename = "total")]
    Total,
    /// How many samples there are.
    #[serde(rename = "count")]
    Count,
    /// How many of them failed: timed out, were lost, never came.
    #[serde(rename = "failed")]
    Failed,
}

impl Statistic {
    /// Every statistic.
    pub const ALL: [Self; 10] = [
        Self::P50,
        Self::P90,
        Self::P99,
        Self::P999,
        Self::Max,
        Self::Min,
        Self::Mean,
        Self::Total,
        Self::Count,
        Self::Failed,
    ];

    /// Its name in expectations.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Max => "max",
            Self::Min => "min",
            Self::Mean => "mean",
            Self::Total => "total",
            Self::Count => "count",
            Self::Failed => "failed",
        }
    }

    /// Words for a reader.
    #[must_use]
    pub fn doc(self) -> &'static str {
        match self {
            Self::P50 => "median",
            Self::P90 => "90th percentile",
            Self::P99 => "99th percentile",
            Self::P999 => "99.9th percentile",
            Self::Max => "largest value",
            Self::Min => "smallest value",
            Self::Mean => "arithmetic mean",
            Self::Total => "sum over all trials",
            Self::Count => "number of samples",
            Self::Failed => "number of samples that timed out or never came",
        }
    }
}

/// The samples of one seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Seed they belong to.
    pub seed: u64,
    /// What was observed.
    pub observed: Observed,
}

/// What one trial yields for one metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Observed {
    /// Values, infinite where something failed.
    Samples(Vec<f64>),
    /// A share or a quotient, pooled as sum over sum.
    Quotient {
        /// Numerator.
        part: f64,
        /// Denominator.
        whole: f64,
    },
}

/// A 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    #[serde(with = "finite")]
    pub low: f64,
    /// Upper end.
    #[serde(with = "finite")]
    pub high: f64,
}

/// JSON has no infinity: it is written as the text `"inf"`.
pub mod finite {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form {
        Number(f64),
        Text(String),
    }

    /// Writes a number, or `"inf"`, `"-inf"`, `"nan"`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        let form = if value.is_finite() { Form::Number(*value) } else { Form::Text(value.to_string()) };
        form.serialize(serializer)
    }

    /// Reads what [`serialize`] wrote.
    ///
    /// # Errors
    /// Those of the deserializer, and a text that is no number.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Form::deserialize(deserializer)? {
            Form::Number(value) => Ok(value),
            Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// One statistic of all clusters together; `None` without samples.
#[must_use]
pub fn statistic(clusters: &[Cluster], statistic: Statistic) -> Option<f64> {
    let pool = Pool::new(clusters);
    pool.statistic(&pool.once(), statistic)
}

/// The 95 % interval of [`statistic`]. `None` when there is nothing to vary: one seed with one value.
#[must_use]
pub fn interval(clusters: &[Cluster], statistic: Statistic, seed: u64) -> Option<Interval> {
    intervals(clusters, &[statistic], seed).pop()?
}

/// [`interval`] of several statistics at the price of one.
#[must_use]
pub fn intervals(clusters: &[Cluster], statistics: &[Statistic], seed: u64) -> Vec<Option<Interval>> {
    let pool = Pool::new(clusters);
    if !pool.varies() {
        return vec![None; statistics.len()];
    }
    let mut random = Random(seed);
    let mut drawn = Vec::new();
    let mut replicates = vec![Vec::new(); statistics.len()];
    for _ in 0..pool.replicates() {
        draw(pool.clusters.len(), &mut random, &mut drawn);
        let weights = pool.resample(&drawn, &mut random);
        for (value, replicates) in pool.statistics(&weights, statistics).into_iter().zip(&mut replicates) {
            replicates.extend(value);
        }
    }
    replicates.into_iter().map(middle).collect()
}

/// The 95 % interval of `statistic(b) - statistic(a)`. Clusters with equal seeds are drawn together, as the
/// same seed puts both under the same network.
#[must_use]
pub fn difference(a: &[Cluster], b: &[Cluster], statistic: Statistic, seed: u64) -> Option<Interval> {
    let paired = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.seed == b.seed);
    let (a, b) = (Pool::new(a), Pool::new(b));
    if !a.varies() && !b.varies() {
        return None;
    }
    let mut random = Random(seed);
    let (mut drawn_a, mut drawn_b) = (Vec::new(), Vec::new());
    let replicates = (0..a.replicates().min(b.replicates())).filter_map(|_| {
        draw(a.clusters.len(), &mut random, &mut drawn_a);
        if paired {
            drawn_b.clone_from(&drawn_a);
        } else {
            draw(b.clusters.len(), &mut random, &mut drawn_b);
        }
        let from = a.statistic(&a.resample(&drawn_a, &mut random), statistic)?;
        let to = b.statistic(&b.resample(&drawn_b, &mut random), statistic)?;
        // Two that both never end do not differ.
        Some(if from == to { 0.0 } else { to - from })
    });
    middle(replicates.collect())
}

/// Most work one interval may cost, in samples drawn; replicates are cut down to it.
const DRAWS_MAX: usize = 400_000;
/// Enough for the ends of a 95 % interval to settle within a few percent of its width.
const REPLICATES_MAX: usize = 1000;
/// Below this the 2.5 % ends rest on fewer than five replicates.
const REPLICATES_MIN: usize = 200;

/// Clusters pooled and sorted once, so that each replicate is a weighting instead of a sort.
struct Pool {
    clusters: Vec<Members>,
    /// All samples, ascending.
    values: Vec<f64>,
    quotient: bool,
}

enum Members {
    /// Positions in `Pool::values`.
    Samples(Vec<u32>),
    Quotient(f64, f64),
}

/// How often each sample counts, and the quotient of what was drawn.
struct Weights {
    counts: Vec<u32>,
    /// Sum of `counts`.
    drawn: u64,
    part: f64,
    whole: f64,
}

impl Pool {
    fn new(clusters: &[Cluster]) -> Self {
        let mut order = Vec::new();
        for (cluster, c) in clusters.iter().enumerate() {
            if let Observed::Samples(values) = &c.observed {
                order.extend(values.iter().map(|value| (*value, cluster)));
            }
        }
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut members: Vec<_> = clusters
            .iter()
            .map(|c| match c.observed {
                Observed::Samples(_) => Members::Samples(Vec::new()),
                Observed::Quotient { part, whole } => Members::Quotient(part, whole),
            })
            .collect();
        for (position, (_, cluster)) in order.iter().enumerate() {
            if let Members::Samples(positions) = &mut members[*cluster] {
                positions.push(u32::try_from(position).expect("a run has fewer than 2^32 samples"));
            }
        }
        let quotient = members.iter().any(|m| matches!(m, Members::Quotient(..)));
        Self { clusters: members, values: order.into_iter().map(|(value, _)| value).collect(), quotient }
    }

    /// Whether resampling can change anything.
    fn varies(&self) -> bool {
        self.clusters.len() > 1 || self.values.len() > 1
    }

    fn replicates(&self) -> usize {
        (DRAWS_MAX / self.values.len().max(1)).clamp(REPLICATES_MIN, REPLICATES_MAX)
    }

    fn once(&self) -> Weights {
        let drawn = self.values.len() as u64;
        let mut weights = Weights { counts: vec![1; self.values.len()], drawn, part: 0.0, whole: 0.0 };
        for cluster in &self.clusters {
            if let Members::Quotient(part, whole) = cluster {
                weights.part += part;
                weights.whole += whole;
            }
        }
        weights
    }

    fn resample(&self, drawn: &[usize], random: &mut Random) -> Weights {
        let mut weights = Weights { counts: vec![0; self.values.len()], drawn: 0, part: 0.0, whole: 0.0 };
        for cluster in drawn {
            match &self.clusters[*cluster] {
                Members::Samples(positions) => {
                    weights.drawn += positions.len() as u64;
                    for _ in 0..positions.len() {
                        weights.counts[positions[random.below(positions.len())] as usize] += 1;
                    }
                }
                Members::Quotient(part, whole) => {
                    weights.part += part;
                    weights.whole += whole;
                }
            }
        }
        weights
    }

    fn statistic(&self, weights: &Weights, statistic: Statistic) -> Option<f64> {
        self.statistics(weights, &[statistic])[0]
    }

    /// Several statistics in one pass over the samples: reports draw thousands of replicates.
    fn statistics(&self, weights: &Weights, statistics: &[Statistic]) -> Vec<Option<f64>> {
        if self.quotient {
            let quotient = (weights.whole > 0.0).then(|| weights.part / weights.whole);
            return vec![quotient; statistics.len()];
        }
        let count = weights.drawn as f64;
        // Nearest rank: the smallest value that at least this share of samples does not exceed.
        let rank = |quantile: f64| ((quantile * count).ceil() as u64).max(1);
        let ranks = QUANTILES.map(rank);
        let mut at_rank = [f64::NAN; QUANTILES.len()];
        let (mut seen, mut next, mut sum, mut failed) = (0, 0, 0.0, 0.0);
        let (mut least, mut most) = (f64::NAN, f64::NAN);
        for (value, times) in self.values.iter().zip(&weights.counts) {
            if *times == 0 {
                continue;
            }
            if seen == 0 {
                least = *value;
            }
            most = *value;
            seen += u64::from(*times);
            sum += value * f64::from(*times);
            if value.is_infinite() {
                failed += f64::from(*times);
            }
            while next < ranks.len() && seen >= ranks[next] {
                at_rank[next] = *value;
                next += 1;
            }
        }
        let one = |statistic: &Statistic| match statistic {
            Statistic::Count => Some(count),
            Statistic::Failed => Some(failed),
            _ if seen == 0 => None,
            Statistic::P50 => Some(at_rank[0]),
            Statistic::P90 => Some(at_rank[1]),
            Statistic::P99 => Some(at_rank[2]),
            Statistic::P999 => Some(at_rank[3]),
            Statistic::Max => Some(most),
            Statistic::Min => Some(least),
            Statistic::Mean => Some(sum / count),
            Statistic::Total => Some(sum),
        };
        statistics.iter().map(one).collect()
    }
}

/// Quantiles of the percentiles, ascending.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

fn draw(clusters: usize, random: &mut Random, drawn: &mut Vec<usize>) {
    drawn.clear();
    drawn.extend((0..clusters).map(|_| random.below(clusters)));
}

/// The middle 95 % of replicates.
fn middle(mut replicates: Vec<f64>) -> Option<Interval> {
    if replicates.len() < REPLICATES_MIN / 2 {
        return None;
    }
    replicates.sort_by(f64::total_cmp);
    let last = replicates.len() - 1;
    let low = (last as f64 * 0.025).floor() as usize;
    let high = (last as f64 * 0.975).ceil() as usize;
    Some(Interval { low: replicates[low], high: replicates[high] })
}

/// SplitMix64: resampling needs speed and repeatability, not unpredictability.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

/// A stable 64-bit hash of a name (FNV-1a), to give each metric its own stream of draws.
#[must_use]
pub fn seed_of(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(seed: u64, values: impl IntoIterator<Item = f64>) -> Cluster {
        Cluster { seed, observed: Observed::Samples(values.into_iter().collect()) }
    }

    fn quotient(seed: u64, part: f64, whole: f64) -> Cluster {
        Cluster { seed, observed: Observed::Quotient { part, whole } }
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let clusters = [samples(1, (1..=50).map(f64::from)), samples(2, (51..=100).map(f64::from))];
        let of = |s| statistic(&clusters, s).unwrap();
        assert_eq!(of(Statistic::P50), 50.0);
        assert_eq!(of(Statistic::P90), 90.0);
        assert_eq!(of(Statistic::P99), 99.0);
        assert_eq!(of(Statistic::P999), 100.0);
        assert_eq!((of(Statistic::Min), of(Statistic::Max)), (1.0, 100.0));
        assert_eq!((of(Statistic::Mean), of(Statistic::Total)), (50.5, 5050.0));
        assert_eq!(of(Statistic::Count), 100.0);
    }

    #[test]
    fn one_sample_is_every_percentile() {
        let clusters = [samples(1, [7.0])];
        for s in [Statistic::P50, Statistic::P99, Statistic::P999, Statistic::Max] {
            assert_eq!(statistic(&clusters, s), Some(7.0));
        }
        assert_eq!(interval(&clusters, Statistic::P50, 1), None);
    }

    #[test]
    fn nothing_measured_is_not_zero() {
        assert_eq!(statistic(&[], Statistic::P50), None);
        assert_eq!(statistic(&[samples(1, [])], Statistic::Mean), None);
        assert_eq!(statistic(&[quotient(1, 0.0, 0.0)], Statistic::Mean), None);
        assert_eq!(interval(&[samples(1, []), samples(2, [])], Statistic::P50, 1), None);
    }

    #[test]
    fn what_never_came_counts_as_beyond_every_limit() {
        let clusters = [samples(1, (1..=97).map(f64::from).chain([f64::INFINITY; 3]))];
        assert_eq!(statistic(&clusters, Statistic::P90), Some(90.0));
        assert_eq!(statistic(&clusters, Statistic::P99), Some(f64::INFINITY));
        assert_eq!(statistic(&clusters, Statistic::Failed), Some(3.0));
        assert_eq!(statistic(&clusters, Statistic::Count), Some(100.0));
    }

    #[test]
    fn shares_pool_as_sum_over_sum() {
        let clusters = [quotient(1, 100.0, 100.0), quotient(2, 0.0, 300.0)];
        assert_eq!(statistic(&clusters, Statistic::Mean), Some(0.25));
    }

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let clusters: Vec<_> = (0..3).map(|s| samples(s, (0..40).map(|i| f64::from(i * i % 17)))).collect();
        let first = interval(&clusters, Statistic::P90, 9);
        assert_eq!(first, interval(&clusters, Statistic::P90, 9));
        assert!(first.is_some());
    }

    /// Normal by the sum of twelve uniforms: good enough in the middle 95 %.
    fn normal(random: &mut Random) -> f64 {
        (0..12).map(|_| random.next() as f64 / u64::MAX as f64).sum::<f64>() - 6.0
    }

    #[test]
    fn the_interval_covers_the_truth_about_as_often_as_it_says() {
        // Ten seeds whose means differ, eight samples each; the true median is 0.
        let mut random = Random(0x5eed);
        let rounds: u32 = 80;
        let covered = (0..rounds)
            .filter(|round| {
                let clusters: Vec<_> = (0..10)
                    .map(|seed| {
                        let shift = normal(&mut random);
                        samples(seed, (0..8).map(|_| shift + normal(&mut random)).collect::<Vec<_>>())
                    })
                    .collect();
                let interval = interval(&clusters, Statistic::Mean, u64::from(*round)).unwrap();
                (interval.low..=interval.high).contains(&0.0)
            })
            .count();
        let share = covered as f64 / f64::from(rounds);
        assert!((0.86..=0.995).contains(&share), "{covered} of {rounds} intervals held the truth");
    }

    #[test]
    fn the_interval_narrows_with_more_seeds() {
        let width = |seeds: u64| {
            let mut random = Random(3);
            let clusters: Vec<_> = (0..seeds).map(|s| samples(s, [normal(&mut random)])).collect();
            let interval = interval(&clusters, Statistic::Mean, 1).unwrap();
            interval.high - interval.low
        };
        assert!(width(100) < width(10) * 0.6, "{} {}", width(100), width(10));
    }

    #[test]
    fn a_shift_shared_by_seed_is_seen_through_the_noise() {
        // Seeds differ by far more than the two sides do; pairing takes that away.
        let mut random = Random(11);
        let levels: Vec<f64> = (0..8).map(|_| 1000.0 * normal(&mut random)).collect();
        let side = |shift: f64| -> Vec<_> {
            levels.iter().enumerate().map(|(seed, level)| samples(seed as u64, [level + shift])).collect()
        };
        let paired = difference(&side(0.0), &side(5.0), Statistic::Mean, 1).unwrap();
        assert!((paired.low - 5.0).abs() < 1e-6 && (paired.high - 5.0).abs() < 1e-6, "{paired:?}");
        let mut other = side(5.0);
        other.iter_mut().for_each(|cluster| cluster.seed += 100);
        let unpaired = difference(&side(0.0), &other, Statistic::Mean, 1).unwrap();
        assert!(unpaired.low < 0.0 && unpaired.high > 5.0, "{unpaired:?}");
    }

    #[test]
    fn equal_sides_do_not_differ() {
        let side: Vec<_> = (0..5).map(|s| samples(s, (0..30).map(|i| f64::from((i * 7 + 3) % 11)))).collect();
        let interval = difference(&side, &side, Statistic::P90, 4).unwrap();
        assert!(interval.low <= 0.0 && interval.high >= 0.0);
        let never: Vec<_> = (0..5).map(|s| samples(s, [f64::INFINITY])).collect();
        let interval = difference(&never, &never, Statistic::P90, 4).unwrap();
        assert_eq!((interval.low, interval.high), (0.0, 0.0));
    }

    #[test]
    fn infinity_survives_json() {
        let interval = Interval { low: 1.5, high: f64::INFINITY };
        let json = serde_json::to_string(&interval).unwrap();
        assert_eq!(json, r#"{"low":1.5,"high":"inf"}"#);
        assert_eq!(serde_json::from_str::<Interval>(&json).unwrap(), interval);
    }
}
