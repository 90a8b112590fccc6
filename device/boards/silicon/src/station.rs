//! A Wi-Fi station without a radio: when to join, when to try again, when to sleep.
//!
//! ```text
//!            join()                 on_joined()
//!   Idle ------------> Joining ------------------> Joined --- sleep_until() ---> Asleep
//!                      ^    | on_failed()            | on_lost()                    |
//!                      |    v                        v                              |
//!                      +-- Waiting <-----------------+          (time) Joining <----+
//! ```
//! The board asks [`Station::next_action`] what to do with its radio and says what came of it. Time is an
//! argument; nothing here waits.

use device::control::{Event, PowerMode, RadioState, Refusal, Wifi};
use device::time::{Duration, Instant};

use crate::reason::{self, When};

/// What the board does with its radio.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Join this network.
    Join(Wifi),
    /// Leave the network, or give up joining it.
    Leave,
    /// Put this power mode in force.
    Save(PowerMode),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    /// To be asked for.
    Wanted,
    Joining {
        until: Instant,
    },
    Joined,
    Waiting {
        until: Instant,
    },
    Asleep {
        until: Instant,
    },
}

/// The station.
#[derive(Debug)]
pub struct Station {
    wifi: Option<Wifi>,
    state: State,
    /// The network changed while another one was being joined or was joined.
    leave_first: bool,
    failures: u16,
    power: PowerMode,
    power_in_force: PowerMode,
    sleep: Sleep,
    /// Once the network was joined, the interface stays up through a sleep.
    rejoining_after_sleep: bool,
    events: heapless::Deque<Event, EVENTS>,
}

/// Whether this board can sleep and still be reached over its console afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sleep {
    /// Its console survives a sleep.
    Possible,
    /// Its console does not: USB is gone while the clock stands.
    Impossible,
}

/// Failures not yet told to the harness: a harness that does not listen needs the last few only.
const EVENTS: usize = 4;
/// First wait after a failure.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// Longest wait: an access point that restarts takes half a minute.
const RETRY_MAX: Duration = Duration::from_secs(8);
/// Longest time a join may take: a scan of all channels, the handshakes, and the driver's own attempts.
pub const JOIN_MAX: Duration = Duration::from_secs(30);
/// Longest SSID (IEEE 802.11 9.4.2.2).
const SSID_MAX: usize = 32;
/// Passphrase lengths of WPA2-Personal (IEEE 802.11 J.4.1).
const PASSPHRASE: core::ops::RangeInclusive<usize> = 8..=63;
/// A sleep shorter than this saves less than joining anew costs.
pub const SLEEP_MIN: Duration = Duration::from_secs(5);
/// How long before the next thing is due the network is joined again: scan, four-way handshake, DHCP's lease is kept.
pub const REJOIN_LEAD: Duration = Duration::from_secs(2);

impl Station {
    /// A station that knows no network.
    pub const fn new(sleep: Sleep) -> Self {
        Self {
            wifi: None,
            state: State::Idle,
            leave_first: false,
            failures: 0,
            power: PowerMode::None,
            power_in_force: PowerMode::None,
            sleep,
            rejoining_after_sleep: false,
            events: heapless::Deque::new(),
        }
    }

    /// Joins `wifi` from now on, in place of what was joined before.
    ///
    /// # Errors
    /// [`Refusal::BadSetting`] for a name or password that no network can have.
    pub fn join(&mut self, wifi: &Wifi) -> Result<(), Refusal> {
        let password = wifi.password.len();
        if wifi.ssid.is_empty()
            || wifi.ssid.len() > SSID_MAX
            || (password != 0 && !PASSPHRASE.contains(&password))
        {
            return Err(Refusal::BadSetting);
        }
        self.leave_first |= matches!(self.state, State::Joining { .. } | State::Joined);
        self.wifi = Some(wifi.clone());
        self.state = State::Wanted;
        self.failures = 0;
        self.rejoining_after_sleep = false;
        Ok(())
    }

    /// Saves power in this way from now on.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] for light sleep on a board whose console does not survive it.
    pub fn save_power(&mut self, mode: PowerMode) -> Result<(), Refusal> {
        if mode == PowerMode::LightSleep && self.sleep == Sleep::Impossible {
            return Err(Refusal::Unsupported);
        }
        self.power = mode;
        Ok(())
    }

    /// The radio was started, and saves no power yet.
    pub const fn on_started(&mut self) {
        self.power_in_force = PowerMode::None;
    }

    /// What the radio is to do now; asked again until there is nothing.
    pub fn next_action(&mut self, now: Instant) -> Option<Action> {
        if let State::Joining { until } = self.state
            && now >= until
        {
            self.fail(now, reason::TIMEOUT, When::Joining);
            self.leave_first = true;
        }
        if core::mem::take(&mut self.leave_first) {
            return Some(Action::Leave);
        }
        if self.saves_otherwise() {
            self.power_in_force = self.power;
            return Some(Action::Save(self.power));
        }
        if !self.joins_now(now) {
            return None;
        }
        self.rejoining_after_sleep |= matches!(self.state, State::Asleep { .. });
        self.state = State::Joining { until: now + JOIN_MAX };
        self.wifi.clone().map(Action::Join)
    }

    /// Whether [`Station::next_action`] has something to say: what is under way on the radio has to end for it.
    pub fn has_action(&self, now: Instant) -> bool {
        let overdue = matches!(self.state, State::Joining { until } if now >= until);
        overdue || self.leave_first || self.saves_otherwise() || self.joins_now(now)
    }

    /// Another power mode is asked for than is in force. It waits for the end of joining, which it would break off.
    fn saves_otherwise(&self) -> bool {
        self.power != self.power_in_force && !matches!(self.state, State::Joining { .. })
    }

    fn joins_now(&self, now: Instant) -> bool {
        match self.state {
            State::Wanted => true,
            State::Waiting { until } | State::Asleep { until } => now >= until,
            State::Idle | State::Joining { .. } | State::Joined => false,
        }
    }

    /// The network is joined.
    pub fn on_joined(&mut self) {
        if matches!(self.state, State::Joining { .. }) {
            self.state = State::Joined;
            self.failures = 0;
            self.rejoining_after_sleep = false;
        }
    }

    /// Joining failed with the radio's `code`.
    pub fn on_failed(&mut self, now: Instant, code: u16) {
        if matches!(self.state, State::Joining { .. }) {
            self.fail(now, code, When::Joining);
        }
    }

    /// The network is lost with the radio's `code`.
    pub fn on_lost(&mut self, now: Instant, code: u16) {
        if self.state == State::Joined {
            self.fail(now, code, When::Joined);
        }
    }

    fn fail(&mut self, now: Instant, code: u16, when: When) {
        self.rejoining_after_sleep = false;
        self.failures = self.failures.saturating_add(1);
        let doublings = u32::from(self.failures - 1).min(8);
        let wait = RETRY_MIN.saturating_mul(1 << doublings).min(RETRY_MAX);
        self.state = State::Waiting { until: now + wait };
        if self.events.is_full() {
            self.events.pop_front();
        }
        let failure = reason::failure(code, when);
        let _ = self.events.push_back(Event::WifiFailed { failure, code, failures: self.failures });
    }

    /// Takes the oldest failure not yet told.
    pub fn take_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Until when the radio may be off and the processor asleep, if nothing is due before `wake_at`. The board
    /// sleeps if it gets a time, and joins anew when that has come.
    pub fn sleep_until(&mut self, now: Instant, wake_at: Option<Instant>) -> Option<Instant> {
        if self.power != PowerMode::LightSleep || self.state != State::Joined || self.has_action(now) {
            return None;
        }
        // Without anything due there is nothing to wake for but the console, which does not wake.
        let until = Instant::from_micros(wake_at?.as_micros().saturating_sub(REJOIN_LEAD.as_micros()));
        if until.saturating_since(now) < SLEEP_MIN {
            return None;
        }
        self.state = State::Asleep { until };
        Some(until)
    }

    /// The processor is awake, if before its time: the network is joined at once. The radio is the source of entropy, too,
    /// which whatever comes next may ask for.
    pub fn wake(&mut self, now: Instant) {
        if let State::Asleep { until } = &mut self.state {
            *until = now;
        }
    }

    /// Whether the interface is up. A sleep does not take it down: its address and its connections outlive it.
    pub fn link_is_up(&self) -> bool {
        matches!(self.state, State::Joined | State::Asleep { .. }) || self.rejoining_after_sleep
    }

    /// What the radio does.
    pub fn radio_state(&self) -> RadioState {
        match self.state {
            State::Idle => RadioState::Idle,
            State::Wanted | State::Joining { .. } => RadioState::Joining,
            State::Joined => RadioState::Joined,
            State::Waiting { .. } => RadioState::Waiting,
            State::Asleep { .. } => RadioState::Asleep,
        }
    }

    /// The power mode asked for.
    pub const fn power(&self) -> PowerMode {
        self.power
    }

    /// When [`Station::next_action`] has something to say that it does not have now.
    pub const fn due(&self) -> Option<Instant> {
        match self.state {
            State::Joining { until } | State::Waiting { until } | State::Asleep { until } => Some(until),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use device::control::{WifiFailure, clipped};

    use super::*;

    const T0: Instant = Instant::from_micros(1_000_000);

    fn wifi(ssid: &str, password: &str) -> Wifi {
        Wifi { ssid: clipped(ssid), password: clipped(password) }
    }

    fn joined() -> Station {
        let mut station = Station::new(Sleep::Possible);
        station.join(&wifi("lab", "long enough")).expect("valid");
        assert_eq!(station.next_action(T0), Some(Action::Join(wifi("lab", "long enough"))));
        station.on_joined();
        station
    }

    #[test]
    fn it_joins_once_it_knows_a_network() {
        let mut station = Station::new(Sleep::Impossible);
        assert_eq!(station.next_action(T0), None);
        assert_eq!(station.radio_state(), RadioState::Idle);
        station.join(&wifi("open", "")).expect("an open network");
        assert!(matches!(station.next_action(T0), Some(Action::Join(_))));
        assert_eq!(station.next_action(T0), None);
        assert!(!station.link_is_up());
        station.on_joined();
        assert!(station.link_is_up());
    }

    #[test]
    fn names_and_passwords_that_cannot_be_are_refused() {
        let long = "x".repeat(33);
        for (ssid, password) in
            [("", "long enough"), (long.as_str(), ""), ("lab", "short"), ("lab", "1234567")]
        {
            let mut station = Station::new(Sleep::Impossible);
            assert_eq!(station.join(&wifi(ssid, password)), Err(Refusal::BadSetting), "{ssid} {password}");
            assert_eq!(station.next_action(T0), None);
        }
    }

    #[test]
    fn each_failure_is_told_and_doubles_the_wait_up_to_a_limit() {
        let mut station = Station::new(Sleep::Impossible);
        station.join(&wifi("lab", "long enough")).expect("valid");
        let mut now = T0;
        let mut waits = std::vec::Vec::new();
        for failures in 1..=7 {
            assert!(matches!(station.next_action(now), Some(Action::Join(_))));
            station.on_failed(now, 15);
            let failure = WifiFailure::WrongPassword;
            assert_eq!(station.take_event(), Some(Event::WifiFailed { failure, code: 15, failures }));
            assert_eq!(station.next_action(now), None);
            let due = station.due().expect("it tries again");
            waits.push(due.saturating_since(now).as_millis());
            now = due;
        }
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000]);
    }

    #[test]
    fn a_lost_network_is_told_and_joined_again() {
        let mut station = joined();
        station.on_lost(T0, 200);
        assert!(!station.link_is_up());
        let lost = Event::WifiFailed { failure: WifiFailure::Lost, code: 200, failures: 1 };
        assert_eq!(station.take_event(), Some(lost));
        assert!(matches!(station.next_action(T0 + RETRY_MIN), Some(Action::Join(_))));
    }

    #[test]
    fn another_network_is_joined_after_the_first_is_left() {
        let mut station = joined();
        station.join(&wifi("other", "")).expect("valid");
        assert!(station.has_action(T0));
        assert_eq!(station.next_action(T0), Some(Action::Leave));
        // What the radio says of the network that is being left is no failure of the new one.
        station.on_lost(T0, 8);
        assert_eq!(station.take_event(), None);
        assert_eq!(station.next_action(T0), Some(Action::Join(wifi("other", ""))));
    }

    #[test]
    fn the_oldest_failures_give_way_when_nobody_listens() {
        let mut station = Station::new(Sleep::Impossible);
        station.join(&wifi("lab", "long enough")).expect("valid");
        let mut now = T0;
        for _ in 0..6 {
            station.next_action(now);
            station.on_failed(now, 201);
            now = station.due().expect("it tries again");
        }
        let told: std::vec::Vec<_> = core::iter::from_fn(|| station.take_event()).collect();
        let counts: std::vec::Vec<_> = told
            .iter()
            .map(|event| match event {
                Event::WifiFailed { failures, .. } => *failures,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(counts, [3, 4, 5, 6]);
    }

    #[test]
    fn a_join_without_an_end_is_given_up() {
        let mut station = Station::new(Sleep::Impossible);
        station.join(&wifi("lab", "long enough")).expect("valid");
        station.next_action(T0);
        let end = station.due().expect("it does not wait for ever");
        assert_eq!(end, T0 + JOIN_MAX);
        assert!(station.has_action(end));
        assert_eq!(station.next_action(end), Some(Action::Leave));
        assert!(matches!(station.take_event(), Some(Event::WifiFailed { failures: 1, .. })));
        assert!(matches!(station.next_action(end + RETRY_MIN), Some(Action::Join(_))));
    }

    #[test]
    fn a_power_mode_asked_for_while_joining_waits_for_its_end() {
        let mut station = Station::new(Sleep::Impossible);
        station.join(&wifi("lab", "long enough")).expect("valid");
        station.next_action(T0);
        station.save_power(PowerMode::MinimumModemSleep).expect("any board can");
        assert!(!station.has_action(T0));
        assert_eq!(station.next_action(T0), None);
        station.on_joined();
        assert_eq!(station.next_action(T0), Some(Action::Save(PowerMode::MinimumModemSleep)));
    }

    #[test]
    fn a_power_mode_is_put_in_force_without_leaving() {
        let mut station = joined();
        station.save_power(PowerMode::MaximumModemSleep).expect("any board can");
        assert_eq!(station.next_action(T0), Some(Action::Save(PowerMode::MaximumModemSleep)));
        assert_eq!(station.next_action(T0), None);
        assert!(station.link_is_up());
    }

    #[test]
    fn a_radio_that_is_started_again_is_told_the_power_mode_again() {
        let mut station = joined();
        station.save_power(PowerMode::MinimumModemSleep).expect("any board can");
        station.next_action(T0);
        station.on_started();
        assert_eq!(station.next_action(T0), Some(Action::Save(PowerMode::MinimumModemSleep)));
    }

    #[test]
    fn light_sleep_is_refused_where_the_console_would_not_survive_it() {
        let mut station = Station::new(Sleep::Impossible);
        assert_eq!(station.save_power(PowerMode::LightSleep), Err(Refusal::Unsupported));
        assert_eq!(station.power(), PowerMode::None);
    }

    #[test]
    fn it_sleeps_until_shortly_before_something_is_due_and_joins_again() {
        let mut station = joined();
        station.save_power(PowerMode::LightSleep).expect("possible");
        let due = T0 + Duration::from_secs(60);
        assert_eq!(station.sleep_until(T0, Some(due)), None, "the mode is not in force yet");
        assert_eq!(station.next_action(T0), Some(Action::Save(PowerMode::LightSleep)));
        let until = station.sleep_until(T0, Some(due)).expect("a minute is long enough");
        assert_eq!(until, T0 + Duration::from_secs(58));
        assert_eq!(station.radio_state(), RadioState::Asleep);
        assert!(station.link_is_up());
        assert_eq!(station.next_action(until - Duration::from_micros(1)), None);
        assert!(matches!(station.next_action(until), Some(Action::Join(_))));
        assert!(station.link_is_up(), "the address outlives the sleep");
        station.on_failed(until, 201);
        assert!(!station.link_is_up());
    }

    #[test]
    fn a_sleep_that_ends_early_joins_at_once() {
        let mut station = joined();
        station.save_power(PowerMode::LightSleep).expect("possible");
        station.next_action(T0);
        station.sleep_until(T0, Some(T0 + Duration::from_secs(60))).expect("a minute is long enough");
        let woken = T0 + Duration::from_secs(3);
        station.wake(woken);
        assert!(station.has_action(woken));
        assert!(matches!(station.next_action(woken), Some(Action::Join(_))));
        assert!(station.link_is_up(), "the address outlives the sleep");
    }

    #[test]
    fn waking_what_does_not_sleep_changes_nothing() {
        let mut station = joined();
        station.wake(T0);
        assert_eq!(station.next_action(T0), None);
        assert_eq!(station.radio_state(), RadioState::Joined);
    }

    #[test]
    fn short_pauses_and_open_ends_are_not_slept_through() {
        let mut station = joined();
        station.save_power(PowerMode::LightSleep).expect("possible");
        station.next_action(T0);
        assert_eq!(station.sleep_until(T0, Some(T0 + Duration::from_secs(6))), None);
        assert_eq!(station.sleep_until(T0, None), None);
        station.save_power(PowerMode::None).expect("possible");
        station.next_action(T0);
        assert_eq!(station.sleep_until(T0, Some(T0 + Duration::from_secs(60))), None);
    }
}
