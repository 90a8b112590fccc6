//! Why the chip started, how it restarts, and what watches over it: the brown-out detector and a watchdog.

use device::control::ResetReason;
use esp_hal::interrupt::InterruptConfigurable as _;
use esp_hal::peripherals::{LPWR, TIMG0};
use esp_hal::rtc_cntl::{SocResetReason, WakeLock, wakeup_cause};
use esp_hal::system::{reset_reason, software_reset};
use esp_hal::time::Duration;
use esp_hal::timer::timg::{MwdtStage, MwdtStageAction, Wdt};

use crate::trap;

/// Why the chip started, and its own number for it (ESP32-C3 TRM 9.1.2, table 9-1).
pub fn reason() -> (ResetReason, u8) {
    let Some(reason) = reset_reason() else {
        return (ResetReason::Unknown, 0);
    };
    use SocResetReason as R;
    let told = match reason {
        R::ChipPowerOn => ResetReason::PowerOn,
        R::CoreSw | R::Cpu0Sw | R::CoreDeepSleep => ResetReason::Software,
        R::CoreMwdt0
        | R::CoreMwdt1
        | R::CoreRtcWdt
        | R::Cpu0Mwdt0
        | R::Cpu0RtcWdt
        | R::SysRtcWdt
        | R::Cpu0Mwdt1
        | R::SysSuperWdt => ResetReason::Watchdog,
        R::SysBrownOut => ResetReason::BrownOut,
        R::CoreUsbUart | R::CoreUsbJtag => ResetReason::External,
        R::SysClkGlitch | R::CoreEfuseCrc | R::CorePwrGlitch => ResetReason::Unknown,
    };
    (told, reason as u8)
}

/// Restarts the chip.
pub fn reboot() -> ! {
    software_reset()
}

/// Lets the brown-out detector reset the chip and leave that as the reason, at its default threshold.
pub fn watch_supply() {
    LPWR::regs().brown_out().modify(|_, w| {
        w.brown_out_ena().set_bit();
        // A reset of the whole system: its reason is kept apart from a power-on.
        w.brown_out_rst_sel().set_bit();
        w.brown_out_rst_ena().set_bit()
    });
}

/// Waits as `wait` does, in light sleep if nothing but the console's receiver keeps the chip awake: its driver does so for
/// as long as it exists. Returns whether the chip slept: it then tells what woke it.
pub fn in_light_sleep(wait: impl FnOnce()) -> bool {
    WakeLock::release();
    let may_sleep = !WakeLock::is_active();
    wait();
    WakeLock::acquire();
    may_sleep && !wakeup_cause().is_empty()
}

/// How long the main loop may be away: a handshake computes for a third of a second at a time.
const HANG: Duration = Duration::from_secs(5);
/// Time for the report of a hang before the chip is reset.
const REPORT: Duration = Duration::from_secs(1);

/// The watchdog: reports the main loop if it does not come back, then resets the chip.
pub struct Watchdog(Wdt<TIMG0<'static>>);

impl Watchdog {
    /// Starts watching.
    pub fn start(wdt: Wdt<TIMG0<'static>>) -> Self {
        let mut watchdog = Self(wdt);
        watchdog.0.set_interrupt_handler(on_hang);
        watchdog.resume();
        watchdog
    }

    /// The main loop came round.
    pub fn feed(&mut self) {
        self.0.feed();
    }

    /// Stops watching, for a sleep.
    pub fn pause(&mut self) {
        self.0.disable();
    }

    /// Watches again.
    pub fn resume(&mut self) {
        // Enabling sets the stages to their defaults: what they do comes after. On this chip an action is in force only once
        // the configuration is updated, which setting a time-out does and setting an action does not.
        self.0.enable();
        self.0.set_stage_action(MwdtStage::Stage0, MwdtStageAction::Interrupt);
        self.0.set_stage_action(MwdtStage::Stage1, MwdtStageAction::ResetSystem);
        self.0.set_timeout(MwdtStage::Stage0, HANG);
        self.0.set_timeout(MwdtStage::Stage1, REPORT);
        TIMG0::regs().int_ena().modify(|_, w| w.wdt().set_bit());
        self.0.feed();
    }
}

/// The main loop hangs with interrupts on: tells where, and lets the second stage reset the chip, so that the
/// watchdog is the reason.
#[esp_hal::handler]
fn on_hang() {
    trap::report_hang();
    loop {
        core::hint::spin_loop();
    }
}
