//! Entropy from the chip's true random number generator.
//!
//! Its numbers are random only while the radio or the ADC feeds it noise (ESP32-C3 TRM 25.3): the radio is started
//! before the agent, and a generator without a source is an error here, never a weak number.

use device::entropy::Entropy;
use esp_hal::rng::Trng;

/// The generator.
pub struct Hardware;

impl Entropy for Hardware {
    fn fill(&mut self, bytes: &mut [u8]) {
        // Taken anew for each call: the radio could not be stopped for a sleep while one is held.
        let generator = Trng::try_new().expect("the radio runs, which is the generator's source of noise");
        generator.read(bytes);
    }
}
