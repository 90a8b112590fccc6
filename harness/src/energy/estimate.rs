//! An estimate of energy from times, packets and the data sheet's currents. It is an estimate, and says so wherever it is
//! shown.
//!
//! ```text
//! E = V * (I_receive * duration + (I_transmit - I_receive) * airtime)
//! ```
//! Without modem sleep the receiver listens all the time, and the chip's current while it does includes the processor at
//! work. What transmission adds is the time its packets take on the air. Both make it an upper bound of what the protocol
//! is to blame for, and comparable between protocols at the same bench.

use crate::measure::record::{Activity, Trial, Wire, WirePhase};

/// What an ESP32-C3 draws.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Currents {
    /// Supply in volts.
    pub volts: f64,
    /// Receiving or listening, in amperes.
    pub receive: f64,
    /// Transmitting, in amperes.
    pub transmit: f64,
    /// Rate on the air in bits per second.
    pub rate: f64,
    /// Time a packet takes on the air besides its bytes (preamble, acknowledgement, spacing), in seconds.
    pub per_packet_s: f64,
}

impl Currents {
    /// ESP32-C3 series data sheet, table "Current consumption in active mode": receiving 802.11b/g/n HT20 84 mA,
    /// transmitting 802.11g at 54 Mbit/s and 19 dBm 285 mA, at 3.3 V. A station next to its access point sends at high
    /// rates; 24 Mbit/s is taken for one that is not, with 100 us of preamble, spacing and acknowledgement.
    pub const ESP32C3: Self =
        Self { volts: 3.3, receive: 0.084, transmit: 0.285, rate: 24e6, per_packet_s: 100e-6 };

    /// Energy of `duration_s` in which `sent` went out, in microjoules.
    pub fn microjoules(&self, duration_s: f64, sent: Wire) -> f64 {
        let airtime_s = sent.bytes as f64 * 8.0 / self.rate + sent.packets as f64 * self.per_packet_s;
        let airtime_s = airtime_s.min(duration_s);
        self.volts * (self.receive * duration_s + (self.transmit - self.receive) * airtime_s) * 1e6
    }

    /// How the figures came about, for a report.
    pub fn note(&self) -> String {
        format!(
            "energy is an ESTIMATE from times, packets and data-sheet currents: {} V, {} mA receiving, {} mA transmitting at {} \
             Mbit/s, no modem sleep; a power analyser's trace replaces it (`harness energy`)",
            self.volts,
            self.receive * 1e3,
            self.transmit * 1e3,
            self.rate / 1e6
        )
    }
}

/// What the board sent in an activity's phase.
pub(super) fn sent(trial: &Trial, activity: Activity) -> Wire {
    let phase = if activity == Activity::PublishQos1 { WirePhase::Workload } else { WirePhase::Connect };
    trial.wire.iter().find(|count| count.phase == phase).map_or_else(Wire::default, |count| count.up)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_for_a_second_and_sending_a_packet_add_up() {
        let quiet = Currents::ESP32C3.microjoules(1.0, Wire::default());
        assert!((quiet - 277_200.0).abs() < 0.1, "{quiet}");
        let packet = Currents::ESP32C3.microjoules(1.0, Wire { packets: 1, bytes: 1_200 });
        // 500 us on the air at 201 mA more and 3.3 V.
        assert!((packet - quiet - 331.65).abs() < 0.01, "{}", packet - quiet);
    }

    #[test]
    fn more_airtime_than_time_is_cut() {
        let burst = Currents::ESP32C3.microjoules(0.001, Wire { packets: 100, bytes: 120_000 });
        assert!((burst - 3.3 * 0.285 * 1e3).abs() < 0.01, "{burst}");
    }
}
