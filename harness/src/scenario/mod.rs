//! Scenarios: one TOML file, one question, one verdict that can fail.
//!
//! A file is read strictly. Unknown keys, wrong units, impossible values and expectations on metrics that
//! do not exist are refused before anything starts, with their place in the file and the remedy.

mod answer;
mod check;
mod error;
pub mod library;
mod spans;
mod spec;

use std::time::Duration;

use link::LinkConfig;

use crate::measure::expectation::Expectation;
use crate::measure::record::{Role, Transport};

pub use answer::Answer;
pub use error::ScenarioError;
pub use spec::{
    Alert, Anchor, BoardFault, BoardName, BrokerOptions, Certificate, Chain, Cipher, ClientCertificates,
    KeyExchange, Manner, MqttVersion, Reconnect, Refusal, RefusedBy, Resumption, SessionState, StreamCredit,
    Streams, TurnAway,
};

/// A scenario that makes sense.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name: letters, digits and hyphens.
    pub name: String,
    /// The question it asks.
    pub question: String,
    /// The answer, to be filled with figures.
    pub answer: Answer,
    /// What is expected.
    pub expectations: Vec<Expectation>,
    /// What is compared, in order: at least one, names unique.
    pub variants: Vec<Variant>,
    /// Seeds, one trial each; not empty, no two equal.
    pub seeds: Vec<u64>,
    /// Whether the reference client runs the same workload.
    pub reference: bool,
    /// Boards it makes sense on.
    pub boards: Vec<BoardName>,
    /// The network, already validated. Its schedules count from [`Anchor`] names.
    pub link: LinkConfig,
    /// Messages the board publishes.
    pub up: Option<Flow>,
    /// Messages the board receives.
    pub down: Option<Flow>,
    /// What kind of broker it needs.
    pub broker: BrokerOptions,
    /// What is done when, in the order of the file.
    pub steps: Vec<Step>,
    /// The ending it wants, where that is a refused connection.
    pub refusal: Option<Refusal>,
    /// Longest time each phase may take.
    pub limits: Limits,
    /// File it came from.
    pub origin: String,
    /// The text it was read from.
    pub source: String,
}

/// One of the things a scenario compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name; the transport's unless the scenario names variants itself.
    pub name: String,
    /// Its transport.
    pub transport: Transport,
    /// Its connection options.
    pub connection: ConnectionOptions,
}

/// Options of the client's connection, all decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// Version of MQTT.
    pub mqtt: MqttVersion,
    /// How topics use QUIC streams.
    pub streams: Streams,
    /// What later connections may take from the first.
    pub resumption: Resumption,
    /// Key exchange offered.
    pub key_exchange: KeyExchange,
    /// Cipher suites offered.
    pub cipher: Cipher,
    /// Whether the client shows a certificate.
    pub client_certificate: bool,
    /// Whether the session starts clean.
    pub clean_start: bool,
    /// How long the broker keeps the session; MQTT 5 only.
    pub session_expiry: Duration,
    /// MQTT keep-alive; zero for none.
    pub keep_alive: Duration,
    /// Silence after which the client gives a QUIC connection up.
    pub idle_timeout: Duration,
    /// Interval of QUIC PINGs on a silent connection; zero for none.
    pub quic_keep_alive: Duration,
    /// Largest UDP payload the client sends.
    pub datagram: u16,
    /// What the client does when its connection is lost.
    pub reconnect: Reconnect,
}

/// Messages in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Topics, used in turn.
    pub topics: u16,
    /// MQTT quality of service: 0, 1 or 2.
    pub qos: u8,
    /// Payload bytes of each message.
    pub size: u16,
    /// Messages in all.
    pub count: u32,
    /// How they are paced.
    pub pace: Pace,
    /// Whether they are retained.
    pub retain: bool,
}

/// How messages follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// One every so often, whether or not the one before got through.
    Every(Duration),
    /// As fast as the client takes them.
    Saturate,
}

/// Something done at a moment of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it counts from.
    pub after: Anchor,
    /// When.
    pub at: Duration,
    /// How often in all.
    pub times: u32,
    /// From begin to begin when it is done more than once.
    pub every: Duration,
    /// What is done.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The client leaves its connection and makes a new one.
    Reconnect(Manner),
    /// The client moves its QUIC connection to a new port.
    Migrate,
    /// The client updates its QUIC keys.
    UpdateKeys,
    /// The board is reset.
    ResetBoard,
    /// The firmware is made to fail.
    CrashBoard(BoardFault),
    /// The broker is stopped gracefully and started again after a while.
    StopBroker(Duration),
    /// The broker is killed and started again after a while.
    KillBroker(Duration),
    /// The broker is paused for a while.
    FreezeBroker(Duration),
    /// The broker is restarted at once.
    RestartBroker(SessionState),
    /// The broker's UDP port hears nothing for a while.
    DropUdp(Duration),
    /// The broker ends the client's session.
    Kick,
    /// The peer connects with the client's identifier.
    TakeOver,
    /// The broker changes its certificate.
    RotateCertificate(Certificate),
    /// The broker turns new connections away for a while.
    Overload {
        /// For how long.
        length: Duration,
        /// Connections it has room for; those it has already stay.
        connections: u32,
        /// What becomes of further ones.
        turn_away: TurnAway,
    },
}

/// Longest time each phase of a trial may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From reset to the board's network being up.
    pub boot: Duration,
    /// From the call to CONNACK and SUBACK.
    pub connect: Duration,
    /// From the first intended message to the last.
    pub workload: Duration,
    /// From the last intended message to the last acknowledgement or arrival.
    pub drain: Duration,
}

impl Scenario {
    /// Reads a scenario. `origin` names the file in messages.
    ///
    /// # Errors
    /// Every mistake found, each with its place and remedy.
    pub fn parse(origin: &str, source: &str) -> Result<Self, ScenarioError> {
        check::read(origin, source)
    }

    /// The seeds of a run: the scenario's own, or `repeat` of them counted up from `base`.
    #[must_use]
    pub fn seeds_for(&self, base: Option<u64>, repeat: Option<u32>) -> Vec<u64> {
        let count = repeat.map_or(self.seeds.len(), |repeat| repeat.max(1) as usize);
        let Some(base) = base else {
            let last = self.seeds.last().copied().unwrap_or(1);
            let further = (1..).map(|step| last.wrapping_add(step));
            return self.seeds.iter().copied().chain(further).take(count).collect();
        };
        (0..count as u64).map(|step| base.wrapping_add(step)).collect()
    }

    /// Roles that run the workload.
    #[must_use]
    pub fn roles(&self) -> &'static [Role] {
        if self.reference { &[Role::Device, Role::Reference] } else { &[Role::Device] }
    }

    /// The variant of that name.
    #[must_use]
    pub fn variant(&self, name: &str) -> Option<&Variant> {
        self.variants.iter().find(|variant| variant.name == name)
    }

    /// Keeps only variants of these transports; one that no variant uses is added with the first variant's
    /// options, so that `--transport` works on every scenario.
    pub fn restrict_to(&mut self, transports: &[Transport]) {
        let options = self.variants[0].connection;
        let mut kept = Vec::new();
        for (index, transport) in transports.iter().enumerate() {
            if transports[..index].contains(transport) {
                continue;
            }
            let before = kept.len();
            kept.extend(self.variants.iter().filter(|variant| variant.transport == *transport).cloned());
            if kept.len() == before {
                let name = transport.name().to_owned();
                kept.push(Variant { name, transport: *transport, connection: options });
            }
        }
        self.variants = kept;
    }
}
