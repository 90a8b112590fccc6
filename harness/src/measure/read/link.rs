//! Metrics of the emulated network itself.

use super::{one, quotient};
use crate::measure::record::{LinkStats, Trial};
use crate::measure::stats::Observed;

pub(crate) fn loss(link: Option<&LinkStats>) -> Option<Observed> {
    let link = link?;
    let dropped = link.lost + link.queue_drops + link.blackout_drops + link.oversized;
    quotient(dropped as f64, link.offered as f64)
}

pub(crate) fn lateness(trial: &Trial) -> Option<Observed> {
    let late = [&trial.link_up, &trial.link_down].into_iter().flatten().filter_map(|link| link.late_p99_us);
    one(late.max()? as f64)
}
