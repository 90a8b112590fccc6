//! What this board tells and does for the firmware's agent.

use alloc::vec::Vec;

use device::control::{
    Accelerators, Activity, Event, Fault, Hardware, Heap, PowerMode, Refusal, ResetReason, Wifi, clipped,
};
use device::node::{Board, Figures};
use device::time::{Duration, Instant};

use crate::clock::{self, Cycles};
use crate::radio::Radio;
use crate::{memory, power};

/// The ESP32-C3.
pub struct Esp32c3 {
    mac: [u8; 6],
    accelerators: Accelerators,
    cycles: Cycles,
    /// The radio.
    pub radio: Radio,
    /// Where the time went.
    pub times: Times,
    /// Most stack in use since boot, over all phases: a snapshot repaints.
    stack_max: usize,
}

/// Where the main loop's time went since boot.
#[derive(Clone, Copy, Default)]
pub struct Times {
    /// Waiting for the doorbell, with the clocks on; includes the time of the radio's own tasks.
    pub idle: Duration,
    /// In light sleep.
    pub asleep: Duration,
    /// Upper bound of the time spent transmitting.
    pub airtime_max: Duration,
}

impl Esp32c3 {
    /// The board whose station has hardware address `mac`.
    pub fn new(mac: [u8; 6], accelerators: Accelerators, radio: Radio) -> Self {
        let cycles = Cycles::start();
        Self { mac, accelerators, cycles, radio, times: Times::default(), stack_max: 0 }
    }
}

impl Board for Esp32c3 {
    fn name(&self) -> &str {
        "esp32c3"
    }

    fn reset_reason(&self) -> ResetReason {
        power::reason().0
    }

    fn hardware_address(&self) -> [u8; 6] {
        self.mac
    }

    fn now(&self) -> Option<Instant> {
        Some(clock::now())
    }

    fn figures(&mut self) -> Figures {
        let phase = memory::stack_high_water();
        self.stack_max = self.stack_max.max(phase);
        memory::repaint();
        let heap = memory::heap(clock::now());
        Figures {
            heap_free: Some(heap.size - heap.used),
            heap_free_min: Some(heap.size - heap.used_max),
            stack_max: Some(self.stack_max as u32),
            stack_phase_max: Some(phase as u32),
            stack_size: Some(memory::stack_len() as u32),
            static_ram: Some(memory::static_len() as u32),
            instructions: None,
            cycles: Some(self.cycles.read()),
        }
    }

    fn counter(&self) -> Option<u64> {
        Some(self.cycles.read())
    }

    fn link_is_up(&self) -> bool {
        self.radio.link_is_up()
    }

    fn join(&mut self, wifi: &Wifi) -> Result<(), Refusal> {
        self.radio.join(wifi)
    }

    fn save_power(&mut self, mode: PowerMode) -> Result<(), Refusal> {
        self.radio.save_power(mode)
    }

    fn hardware(&self) -> Option<Hardware> {
        let revision = esp_hal::efuse::chip_revision();
        let (reset, reset_code) = power::reason();
        let mut mac = [0; 6];
        mac.copy_from_slice(esp_hal::efuse::base_mac_address().as_bytes());
        Some(Hardware {
            chip: clipped("ESP32-C3"),
            revision: (revision.major, revision.minor),
            mac,
            cpu_mhz: clock::CPU_MHZ,
            reset,
            reset_code,
            accelerators: self.accelerators,
        })
    }

    fn radio(&mut self, now: Instant) -> Option<device::control::Radio> {
        Some(self.radio.report(now))
    }

    fn heap(&self, now: Instant) -> Option<Heap> {
        Some(memory::heap(now))
    }

    fn activity(&self, now: Instant) -> Option<Activity> {
        let Times { idle, asleep, airtime_max } = self.times;
        let awake = now.as_micros().saturating_sub(asleep.as_micros());
        Some(Activity {
            at_us: now.as_micros(),
            cpu_busy_us: awake.saturating_sub(idle.as_micros()),
            cpu_idle_us: idle.as_micros(),
            light_sleep_us: asleep.as_micros(),
            radio_on_us: self.radio.on_time(now).as_micros(),
            radio_transmit_us_max: airtime_max.as_micros(),
        })
    }

    fn take_event(&mut self) -> Option<Event> {
        self.radio.take_event()
    }

    fn crash(&mut self, fault: Fault) {
        match fault {
            Fault::Panic => panic!("asked to panic"),
            Fault::StackOverflow => {
                descend(0);
            }
            // The watchdog ends it.
            Fault::Hang => loop {
                core::hint::spin_loop();
            },
            Fault::Exhaustion => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(core::hint::black_box(Vec::<u8>::with_capacity(1024)));
                }
            }
        }
    }

    fn reboot(&mut self) {
        power::reboot()
    }
}

/// Calls itself until the stack meets its guard.
#[inline(never)]
#[expect(unconditional_recursion, reason = "a fault that the harness provokes to see it reported")]
fn descend(depth: usize) -> usize {
    let frame = core::hint::black_box([depth; 16]);
    descend(depth + 1) + frame[depth % 16]
}
