//! The Wi-Fi radio: carries out what the [`Station`] decides.
//!
//! The driver's calls are asynchronous. One task makes them all; the main loop polls it, and what it waits for
//! rings the doorbell.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll};

use device::control::{Event, PowerMode, RadioState, Refusal, Wifi};
use device::time::{Duration, Instant};
use esp_hal::peripherals::WIFI;
use esp_radio::wifi::sta::StationConfig;
use esp_radio::wifi::{
    AuthenticationMethodConfig, Config, ConnectionError, ControllerConfig, DisconnectReason, PowerSaveMode,
    WifiController, WifiError,
};
use silicon::reason;
use silicon::station::{Action, Station};

use crate::{clock, console};

/// The radio and the station it plays.
pub struct Radio {
    shared: Rc<Shared>,
    /// The task that owns the controller; none while the radio is off.
    task: Option<Pin<Box<dyn Future<Output = ()>>>>,
    on_since: Instant,
    /// Time the radio was on before it was last started.
    on_before: Duration,
}

/// What the task and the main loop share. Both run on the main task's thread, one at a time.
struct Shared {
    station: RefCell<Station>,
    access_point: Cell<Option<AccessPoint>>,
    /// The main loop wants to know how strong the signal is.
    look: Cell<bool>,
}

/// The access point now.
#[derive(Clone, Copy)]
pub struct AccessPoint {
    /// Its address.
    pub bssid: [u8; 6],
    /// Its channel.
    pub channel: u8,
    /// Its signal in dBm.
    pub rssi_dbm: i8,
}

impl Radio {
    /// The radio, not started.
    pub fn new() -> Self {
        Self {
            shared: Rc::new(Shared {
                station: RefCell::new(Station::new(console::SLEEP)),
                access_point: Cell::new(None),
                look: Cell::new(false),
            }),
            task: None,
            on_since: Instant::ZERO,
            on_before: Duration::ZERO,
        }
    }

    /// Starts the radio. It then is the source of all entropy, too.
    ///
    /// # Errors
    /// The driver's: memory, as a rule.
    pub fn start(&mut self, wifi: WIFI<'static>) -> Result<(), WifiError> {
        let controller = WifiController::new(wifi, ControllerConfig::default())?;
        self.on_since = clock::now();
        self.shared.station.borrow_mut().on_started();
        self.task = Some(Box::pin(run(controller, Rc::clone(&self.shared))));
        Ok(())
    }

    /// Stops the radio: its memory is given back, and the processor may sleep.
    fn stop(&mut self) {
        self.task = None;
        self.shared.access_point.set(None);
        self.on_before = self.on_time(clock::now());
    }

    /// Lets the task go on.
    pub fn poll(&mut self, context: &mut Context<'_>) {
        if self.task.is_none() && self.shared.station.borrow().has_action(clock::now()) {
            // SAFETY: the controller that had the peripheral is gone with the task.
            let wifi = unsafe { WIFI::steal() };
            if self.start(wifi).is_err() {
                // Tells of the failure and tries again after the usual wait.
                let mut station = self.shared.station.borrow_mut();
                while station.next_action(clock::now()).is_some() {}
                station.on_failed(clock::now(), reason::NO_CODE);
            }
        }
        if let Some(task) = &mut self.task {
            // The task never ends.
            let _ = task.as_mut().poll(context);
        }
    }

    /// When [`Radio::poll`] has something to do, besides after the doorbell.
    pub fn due(&self) -> Option<Instant> {
        self.shared.station.borrow().due()
    }

    /// Stops the radio until shortly before `wake_at`, if the station wants to sleep, and says until when.
    pub fn sleep_until(&mut self, wake_at: Option<Instant>) -> Option<Instant> {
        let until = self.shared.station.borrow_mut().sleep_until(clock::now(), wake_at)?;
        self.stop();
        Some(until)
    }

    /// See [`Station::wake`].
    pub fn wake(&self) {
        self.shared.station.borrow_mut().wake(clock::now());
    }

    /// See [`Station::join`].
    pub fn join(&self, wifi: &Wifi) -> Result<(), Refusal> {
        self.shared.station.borrow_mut().join(wifi)
    }

    /// See [`Station::save_power`].
    pub fn save_power(&self, mode: PowerMode) -> Result<(), Refusal> {
        self.shared.station.borrow_mut().save_power(mode)
    }

    /// See [`Station::take_event`].
    pub fn take_event(&self) -> Option<Event> {
        self.shared.station.borrow_mut().take_event()
    }

    /// See [`Station::link_is_up`].
    pub fn link_is_up(&self) -> bool {
        self.shared.station.borrow().link_is_up()
    }

    /// What the radio does.
    pub fn state(&self) -> RadioState {
        self.shared.station.borrow().radio_state()
    }

    /// The report of the radio; asks the driver for the signal.
    pub fn report(&mut self, now: Instant) -> device::control::Radio {
        self.shared.look.set(true);
        self.poll(&mut Context::from_waker(&crate::doorbell::waker()));
        let station = self.shared.station.borrow();
        let access_point = self.shared.access_point.get();
        device::control::Radio {
            at_us: now.as_micros(),
            state: station.radio_state(),
            bssid: access_point.map(|access_point| access_point.bssid),
            channel: access_point.map(|access_point| access_point.channel),
            rssi_dbm: access_point.map(|access_point| access_point.rssi_dbm),
            power: station.power(),
        }
    }

    /// Time the radio was on since boot.
    pub fn on_time(&self, now: Instant) -> Duration {
        match self.task {
            Some(_) => self.on_before + now.saturating_since(self.on_since),
            None => self.on_before,
        }
    }
}

/// Carries out the station's actions, one after the other.
async fn run(mut controller: WifiController<'static>, shared: Rc<Shared>) {
    loop {
        match next(&controller, &shared).await {
            Action::Join(wifi) => join(&mut controller, &shared, &wifi).await,
            Action::Leave => {
                shared.access_point.set(None);
                // Says that it was not connected, if it was not.
                let _ = controller.disconnect_async().await;
            }
            Action::Save(mode) => {
                // The driver takes any mode at any time once it is started.
                let _ = controller.set_power_saving(power_saving(mode));
            }
        }
    }
}

/// The station's next action; meanwhile watches the network that is joined.
async fn next(controller: &WifiController<'static>, shared: &Shared) -> Action {
    loop {
        if let Some(action) = shared.station.borrow_mut().next_action(clock::now()) {
            return action;
        }
        let mut lost = pin!(controller.wait_for_disconnect_async());
        let is_watched = controller.is_connected();
        poll_fn(|context| {
            if shared.station.borrow().has_action(clock::now()) {
                return Poll::Ready(());
            }
            if !is_watched {
                return Poll::Pending;
            }
            if shared.look.take() {
                let found = controller.ap_info().ok();
                shared.access_point.set(found.map(|found| AccessPoint {
                    bssid: found.bssid,
                    channel: found.channel,
                    rssi_dbm: found.signal_strength,
                }));
            }
            let code = match lost.as_mut().poll(context) {
                Poll::Ready(Ok(information)) => code(information.reason),
                // It was gone before anybody watched, or the news of it was.
                Poll::Ready(Err(_)) => UNSPECIFIED,
                Poll::Pending if !controller.is_connected() => UNSPECIFIED,
                Poll::Pending => return Poll::Pending,
            };
            shared.access_point.set(None);
            shared.station.borrow_mut().on_lost(clock::now(), code);
            Poll::Ready(())
        })
        .await;
    }
}

/// Joins `wifi`, unless the station changes its mind.
async fn join(controller: &mut WifiController<'static>, shared: &Shared, wifi: &Wifi) {
    let joined = match station_config(wifi).and_then(|config| controller.set_config(&config)) {
        Err(error) => Err(error.into()),
        Ok(()) => {
            let mut connecting = pin!(controller.connect_async());
            let outcome = poll_fn(|context| {
                if shared.station.borrow().has_action(clock::now()) {
                    return Poll::Ready(None);
                }
                connecting.as_mut().poll(context).map(Some)
            });
            match outcome.await {
                Some(joined) => joined,
                None => return,
            }
        }
    };
    let mut station = shared.station.borrow_mut();
    match joined {
        Ok(_) => {
            shared.look.set(true);
            station.on_joined();
        }
        Err(ConnectionError::Failed(information)) => {
            station.on_failed(clock::now(), code(information.reason))
        }
        Err(_) => station.on_failed(clock::now(), reason::NO_CODE),
    }
}

fn station_config(wifi: &Wifi) -> Result<Config, WifiError> {
    let authentication = if wifi.password.is_empty() {
        AuthenticationMethodConfig::Open
    } else {
        AuthenticationMethodConfig::Wpa2Personal(wifi.password.as_str().try_into()?)
    };
    let station = StationConfig::default()
        .with_ssid(wifi.ssid.as_str().try_into()?)
        .with_authentication(authentication)
        .with_listen_interval(LISTEN_INTERVAL);
    Ok(Config::Station(station))
}

/// Beacons between two that are listened to in maximum modem sleep: about half a second.
const LISTEN_INTERVAL: u16 = 5;

const fn power_saving(mode: PowerMode) -> PowerSaveMode {
    match mode {
        PowerMode::None => PowerSaveMode::None,
        PowerMode::MinimumModemSleep | PowerMode::LightSleep => PowerSaveMode::Minimum,
        PowerMode::MaximumModemSleep => PowerSaveMode::Maximum,
    }
}

/// IEEE 802.11 9.4.1.7: unspecified.
const UNSPECIFIED: u16 = 1;

/// The driver's number of a reason: it hands out names only. Those that mean the same to
/// [`reason::failure`] as an unspecified one are not told apart.
fn code(reason: DisconnectReason) -> u16 {
    use DisconnectReason as R;
    match reason {
        R::AuthenticationExpired => 2,
        R::AuthenticationLeave => 3,
        R::DisassociatedDueToInactivity => 4,
        R::AssociationTooMany => 5,
        R::Class2FrameFromNonAuthenticatedStation => 6,
        R::Class3FrameFromNonAssociatedStation => 7,
        R::AssociationLeave => 8,
        R::AssociationNotAuthenticated => 9,
        R::IeInvalid => 13,
        R::MicFailure => 14,
        R::FourWayHandshakeTimeout => 15,
        R::GroupKeyUpdateTimeout => 16,
        R::IeIn4wayDiffers => 17,
        R::GroupCipherInvalid => 18,
        R::PairwiseCipherInvalid => 19,
        R::AkmpInvalid => 20,
        R::UnsupportedRsnIeVersion => 21,
        R::InvalidRsnIeCapabilities => 22,
        R::_802_1xAuthenticationFailed => 23,
        R::CipherSuiteRejected => 24,
        R::BadCipherOrAkm => 29,
        R::Timeout => reason::TIMEOUT,
        R::BeaconTimeout => 200,
        R::NoAccessPointFound => 201,
        R::AuthenticationFailed => 202,
        R::AssociationFailed => 203,
        R::HandshakeTimeout => 204,
        R::ConnectionFailed => 205,
        R::AccessPointTsfReset => 206,
        R::Roaming => 207,
        R::AssociationComebackTimeTooLong => 208,
        R::SaQueryTimeout => 209,
        R::NoAccessPointFoundWithCompatibleSecurity => 210,
        R::NoAccessPointFoundInAuthmodeThreshold => 211,
        R::NoAccessPointFoundInRssiThreshold => 212,
        _ => UNSPECIFIED,
    }
}
