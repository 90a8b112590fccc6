//! Metrics of many devices together.

use super::{one, quotient, samples};
use crate::measure::record::{Fleet, Trial};
use crate::measure::stats::Observed;

pub(crate) fn devices(trial: &Trial) -> Option<Observed> {
    one(f64::from(trial.fleet.as_ref()?.devices))
}

pub(crate) fn connected(trial: &Trial) -> Option<Observed> {
    let fleet = trial.fleet.as_ref()?;
    quotient(f64::from(fleet.connected), f64::from(fleet.devices))
}

pub(crate) fn recovery_time(trial: &Trial) -> Option<Observed> {
    let recoveries = &trial.fleet.as_ref()?.recoveries_us;
    samples(recoveries.iter().map(|recovery| recovery.map_or(f64::INFINITY, |us| us as f64)))
}

/// A figure of the whole fleet, shared among its devices.
fn per_device(trial: &Trial, figure: impl Fn(&Fleet) -> Option<u64>) -> Option<Observed> {
    let fleet = trial.fleet.as_ref()?;
    if fleet.devices == 0 {
        return None;
    }
    one(figure(fleet)? as f64 / f64::from(fleet.devices))
}

pub(crate) fn memory(trial: &Trial) -> Option<Observed> {
    per_device(trial, |fleet| fleet.memory_bytes)
}

pub(crate) fn cpu(trial: &Trial) -> Option<Observed> {
    per_device(trial, |fleet| Some(fleet.cpu_us))
}

pub(crate) fn turns(trial: &Trial) -> Option<Observed> {
    per_device(trial, |fleet| Some(fleet.turns))
}

pub(crate) fn broker_memory(trial: &Trial) -> Option<Observed> {
    per_device(trial, |fleet| fleet.broker_memory_bytes)
}

pub(crate) fn broker_cpu(trial: &Trial) -> Option<Observed> {
    per_device(trial, |fleet| fleet.broker_cpu_us)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::record::{Role, Transport};

    fn trial() -> Trial {
        let fleet = Fleet {
            devices: 4,
            connected: 3,
            recoveries_us: vec![Some(10), None],
            memory_bytes: Some(4096),
            cpu_us: 100,
            ..Fleet::default()
        };
        Trial { fleet: Some(fleet), ..Trial::new("fleet", Transport::Quic, Role::Device, 1) }
    }

    #[test]
    fn figures_are_shared_among_the_devices() {
        assert_eq!(memory(&trial()), one(1024.0));
        assert_eq!(cpu(&trial()), one(25.0));
        assert_eq!(connected(&trial()), quotient(3.0, 4.0));
        assert_eq!(broker_cpu(&trial()), None, "nobody measured it");
    }

    #[test]
    fn a_device_that_never_came_back_has_an_infinite_recovery() {
        assert_eq!(recovery_time(&trial()), samples([10.0, f64::INFINITY].into_iter()));
    }

    #[test]
    fn a_trial_of_one_board_is_no_fleet() {
        let single = Trial::new("quic", Transport::Quic, Role::Device, 1);
        assert_eq!((devices(&single), memory(&single), recovery_time(&single)), (None, None, None));
    }
}
