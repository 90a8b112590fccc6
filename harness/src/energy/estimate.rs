//! An estimate of energy from times, packets and the data sheet's currents. It is an estimate, and says so wherever it is
//! shown.
//!
//! ```text
//! E = V * (I_waiting * duration + (I_working - I_idle) * busy + (I_transmit - I_receive) * airtime)
//! ```
//! `I_waiting` is the current of receiving for the time that the radio was started, of the idle processor for the time it was
//! not, and of light sleep, as the board's own account of its time has it ([`Use`]); so has it the time that the processor was
//! busy, which adds what it takes beyond waiting. A radio that is started is taken to listen all the time: how long it slept
//! between beacons only its hardware knows. What transmission adds is the time its packets take on the air, from the link's
//! count of them: the board's own figure is a bound at the lowest rate, some twenty times that.
//!
//! It is no bound in either direction. It is too much where the radio slept, and for each packet: the firmware sends at 5 dBm,
//! and the data sheet's current is that of 19 dBm. It is too little where packets took a lower rate or went out again. It is
//! comparable between protocols at the same bench.

use device::control;

use crate::measure::record::Wire;

/// What an ESP32-C3 draws.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Currents {
    /// Supply in volts.
    pub volts: f64,
    /// Receiving or listening, in amperes.
    pub receive: f64,
    /// Transmitting, in amperes.
    pub transmit: f64,
    /// The processor at work without the radio, in amperes.
    pub busy: f64,
    /// The processor waiting for an interrupt without the radio, in amperes.
    pub idle: f64,
    /// In light sleep, in amperes.
    pub asleep: f64,
    /// Rate on the air in bits per second.
    pub rate: f64,
    /// Time a packet takes on the air besides its bytes (preamble, acknowledgement, spacing), in seconds.
    pub per_packet_s: f64,
}

impl Currents {
    /// ESP32-C3 Series Datasheet v2.4, section 5.6, at 3.3 V: receiving 802.11b/g/n HT20 84 mA and transmitting 802.11g at
    /// 54 Mbit/s and 19 dBm 285 mA (table 5-7); modem sleep at 160 MHz with the clocks of all peripherals on 28 mA while the
    /// processor runs and 21 mA while it is idle (table 5-8); light sleep 130 uA (table 5-9). A station next to its access
    /// point sends at high rates; 24 Mbit/s is taken for one that is not, with 100 us of preamble, spacing and
    /// acknowledgement.
    pub const ESP32C3: Self = Self {
        volts: 3.3,
        receive: 0.084,
        transmit: 0.285,
        busy: 0.028,
        idle: 0.021,
        asleep: 130e-6,
        rate: 24e6,
        per_packet_s: 100e-6,
    };

    /// Energy of `duration_s` spent as `spent` tells, in which `sent` went out, in microjoules.
    pub fn microjoules(&self, duration_s: f64, spent: Use, sent: Wire) -> f64 {
        let airtime_s = sent.bytes as f64 * 8.0 / self.rate + sent.packets as f64 * self.per_packet_s;
        let airtime_s = airtime_s.min(duration_s);
        let awake = (1.0 - spent.radio - spent.asleep).max(0.0);
        let waiting = self.receive * spent.radio + self.idle * awake + self.asleep * spent.asleep;
        let working = (self.busy - self.idle) * spent.busy;
        self.volts * ((waiting + working) * duration_s + (self.transmit - self.receive) * airtime_s) * 1e6
    }

    /// How the figures came about, for a report.
    pub fn note(&self) -> String {
        format!(
            "energy is an ESTIMATE from times, packets and data-sheet currents: {} V, {:.0} mA receiving while the radio is on, \
             {:.0} mA transmitting at {} Mbit/s and 19 dBm, though the firmware sends at 5 dBm, {:.0} mA without the radio, {:.0} mA \
             more while the processor is busy, {:.0} uA in light sleep; a power analyser's trace replaces it (`harness energy`)",
            self.volts,
            self.receive * 1e3,
            self.transmit * 1e3,
            self.rate / 1e6,
            self.idle * 1e3,
            (self.busy - self.idle) * 1e3,
            self.asleep * 1e6
        )
    }
}

/// How a board spent a stretch of time, in parts of it. The rest is the processor awake without the radio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Use {
    /// The radio was started.
    pub radio: f64,
    /// The chip was in light sleep.
    pub asleep: f64,
    /// The processor was busy, with the radio on or without it.
    pub busy: f64,
}

impl Use {
    /// The radio on and the processor busy all the time: what is taken where the board told nothing.
    pub const LISTENING: Self = Self { radio: 1.0, asleep: 0.0, busy: 1.0 };

    /// Between two accounts that enclose `start_us..end_us`, both on the trial's clock and of the same life of the board;
    /// the closest there are.
    pub fn of(accounts: &[Account], start_us: u64, end_us: u64) -> Option<Self> {
        let before = accounts.iter().rposition(|account| account.at_us <= start_us)?;
        let after = accounts.iter().position(|account| account.at_us >= end_us)?;
        let (first, last) = (accounts.get(before)?, accounts.get(after)?);
        let between = |read: fn(&control::Activity) -> u64| read(&last.told).checked_sub(read(&first.told));
        let elapsed = between(|told| told.at_us).filter(|&elapsed| elapsed > 0)? as f64;
        // Another life counts from zero again.
        if first.life != last.life {
            return None;
        }
        let part = |us: u64| (us as f64 / elapsed).min(1.0);
        let (radio, asleep) = (between(|told| told.radio_on_us)?, between(|told| told.light_sleep_us)?);
        let busy = between(|told| told.cpu_busy_us)?;
        Some(Self { radio: part(radio), asleep: part(asleep), busy: part(busy) })
    }
}

/// What a board told of its time since it started.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Account {
    /// When, on the trial's clock.
    pub at_us: u64,
    /// Counts the board's starts.
    pub life: usize,
    /// Its words.
    pub told: control::Activity,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_for_a_second_and_sending_a_packet_add_up() {
        let quiet = Currents::ESP32C3.microjoules(1.0, Use::LISTENING, Wire::default());
        assert!((quiet - 300_300.0).abs() < 0.1, "{quiet}");
        let sent = Wire { packets: 1, bytes: 1_200 };
        let packet = Currents::ESP32C3.microjoules(1.0, Use::LISTENING, sent);
        // 500 us on the air at 201 mA more and 3.3 V.
        assert!((packet - quiet - 331.65).abs() < 0.01, "{}", packet - quiet);
    }

    #[test]
    fn more_airtime_than_time_is_cut() {
        let sent = Wire { packets: 100, bytes: 120_000 };
        let burst = Currents::ESP32C3.microjoules(0.001, Use::LISTENING, sent);
        assert!((burst - 3.3 * (0.285 + 0.007) * 1e3).abs() < 0.01, "{burst}");
    }

    #[test]
    fn a_board_that_sleeps_takes_what_its_own_account_says() {
        let asleep = Use { radio: 0.25, asleep: 0.5, busy: 0.125 };
        let taken = Currents::ESP32C3.microjoules(1.0, asleep, Wire::default());
        let expected = 3.3e6 * (0.084 * 0.25 + 0.021 * 0.25 + 130e-6 * 0.5 + 0.007 * 0.125);
        assert!((taken - expected).abs() < 0.1, "{taken}");
    }

    fn account(at_us: u64, life: usize, radio_on_us: u64, light_sleep_us: u64) -> Account {
        // The board's clock runs 500 us ahead of the trial's.
        let told = control::Activity {
            at_us: at_us + 500,
            radio_on_us,
            light_sleep_us,
            cpu_busy_us: radio_on_us / 2,
            ..control::Activity::default()
        };
        Account { at_us, life, told }
    }

    #[test]
    fn the_accounts_around_a_stretch_of_time_tell_how_it_was_spent() {
        let accounts = [account(0, 0, 0, 0), account(1_000, 0, 1_000, 0), account(3_000, 0, 1_500, 1_500)];
        assert_eq!(Use::of(&accounts, 1_200, 2_900), Some(Use { radio: 0.25, asleep: 0.75, busy: 0.125 }));
        let listening = Use { busy: 0.5, ..Use::LISTENING };
        assert_eq!(Use::of(&accounts, 100, 900), Some(listening));
        let [at_work, waiting] = [listening, Use { busy: 0.1, ..listening }]
            .map(|spent| Currents::ESP32C3.microjoules(1.0, spent, Wire::default()));
        assert!((at_work - waiting - 3.3e6 * 0.007 * 0.4).abs() < 0.1, "{at_work} {waiting}");
        assert_eq!(Use::of(&accounts, 1_200, 3_100), None, "nothing was told afterwards");
    }

    #[test]
    fn accounts_of_two_lives_are_not_subtracted() {
        let accounts = [account(0, 0, 10, 0), account(3_000, 1, 20, 0)];
        assert_eq!(Use::of(&accounts, 100, 2_000), None);
    }
}
