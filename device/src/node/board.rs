//! What a board lends the agent: everything that is not the same everywhere.

use crate::control::{Activity, Event, Fault, Hardware, Heap, PowerMode, Radio, Refusal, ResetReason, Wifi};
use crate::time::Instant;

/// A board's own facts and powers.
pub trait Board {
    /// Kind of board, e.g. `qemu`.
    fn name(&self) -> &str;

    /// Why the board started.
    fn reset_reason(&self) -> ResetReason;

    /// The NIC's address.
    fn hardware_address(&self) -> [u8; 6];

    /// The time now, on the clock whose time [`Node::poll`](super::Node::poll) is given: what takes long, as a
    /// signature does, is over later than it began. `None` where time stands still while the node works.
    fn now(&self) -> Option<Instant> {
        None
    }

    /// Memory and processor figures now.
    fn figures(&mut self) -> Figures;

    /// Instructions retired, or cycles where a board has no such counter; `None` where it has neither.
    /// Read before and after each call of the client, so it must be cheap.
    fn counter(&self) -> Option<u64> {
        None
    }

    /// Whether the NIC has a link.
    fn link_is_up(&self) -> bool {
        true
    }

    /// Starts joining a wireless network; [`Board::link_is_up`] tells the end.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] on boards without a radio.
    fn join(&mut self, _wifi: &Wifi) -> Result<(), Refusal> {
        Err(Refusal::Unsupported)
    }

    /// Saves power in the given way from now on.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] on boards that cannot.
    fn save_power(&mut self, _mode: PowerMode) -> Result<(), Refusal> {
        Err(Refusal::Unsupported)
    }

    /// The chip and its identity; `None` for a board without silicon.
    fn hardware(&self) -> Option<Hardware> {
        None
    }

    /// The radio now; `None` where there is none.
    fn radio(&mut self, _now: Instant) -> Option<Radio> {
        None
    }

    /// The heap now; `None` where there is none.
    fn heap(&self, _now: Instant) -> Option<Heap> {
        None
    }

    /// Where the time went; `None` where nobody counts.
    fn activity(&self, _now: Instant) -> Option<Activity> {
        None
    }

    /// Takes what the board has to tell of itself, such as a network it could not join.
    fn take_event(&mut self) -> Option<Event> {
        None
    }

    /// Fails in the given way, as a fault test wants it. Returns where the board cannot fail like that.
    fn crash(&mut self, fault: Fault);

    /// Restarts.
    fn reboot(&mut self);
}

/// Memory and processor figures. What a board cannot measure is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Free heap in bytes.
    pub heap_free: Option<u32>,
    /// Least free heap since boot in bytes.
    pub heap_free_min: Option<u32>,
    /// Deepest stack use since boot in bytes.
    pub stack_max: Option<u32>,
    /// Deepest stack use since the last call in bytes.
    pub stack_phase_max: Option<u32>,
    /// Stack available in bytes.
    pub stack_size: Option<u32>,
    /// Static RAM (data and bss) in bytes.
    pub static_ram: Option<u32>,
    /// Instructions retired since boot.
    pub instructions: Option<u64>,
    /// Cycles since boot.
    pub cycles: Option<u64>,
}

/// The byte stream to the harness. Neither call waits.
pub trait Console {
    /// Copies what has arrived into `bytes` and returns how many; 0 when there is nothing.
    fn read(&mut self, bytes: &mut [u8]) -> usize;

    /// Writes as many of `bytes` as go out without waiting and returns how many.
    ///
    /// A board whose harness went away takes and drops everything: the agent never waits for nobody.
    fn write(&mut self, bytes: &[u8]) -> usize;
}
