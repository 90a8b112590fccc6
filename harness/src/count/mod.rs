//! Exact instruction counts: the emulated board in lockstep with a seeded world in virtual time.
//!
//! ```text
//!  QEMU -icount, firmware in lockstep          World, one clock
//!    Node, client, smoltcp      <- frames ->     20 ms -> host: smoltcp | quinn-proto, or rustls | MQTT responder
//!         |                     <- steps  ->
//!    Report::Cost over the console
//! ```
//! The firmware is the one that runs trials. What it is given, and when, follows from the seed alone: keys and
//! certificates, the server's randomness, the time each frame takes. So each count repeats exactly, however busy the
//! machine is. Nothing is lost and messages do not overlap: these are costs of single activities, not of a bad day.

mod host;
mod machine;
mod quic;
mod responder;
mod stream;
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use device::control::{self, Addressing, BlobKind, Event, Operation, Report, Request, Settings};
use simulate::Seeded;

use crate::board::qemu::{Mode, QemuMachine};
use crate::board::{Board, BoardError, Options};
use crate::measure::record::{Activity, Cost};
use world::World;

/// Messages per quality of service and direction.
const MESSAGES: u32 = 8;
/// Bytes of their payloads.
const PAYLOAD: u16 = 64;
/// Time between two messages: enough for all that one causes, delayed acknowledgements included.
const INTERVAL: Duration = Duration::from_millis(500);
/// Virtual time that each phase may take.
const PHASE_LIMIT: Duration = Duration::from_secs(20);
/// Real time that the machine has to boot: before its report it does nothing but that, as slowly as the host lets it.
const BOOT_LIMIT: Duration = Duration::from_secs(30);
/// Topic of the board's messages, and the filter of those to it.
const TOPIC: &str = "count/up";
const DOWN_TOPIC: &str = "count/down";

/// Why there are no counts.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    /// The board.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// The virtual wire.
    #[error("the board left lockstep: {0}")]
    Wire(#[from] std::io::Error),
    /// Something did not happen in its virtual time.
    #[error("no {what} within {PHASE_LIMIT:?} of virtual time{}", last.as_deref().map(|last| format!(" ({last})")).unwrap_or_default())]
    Missing {
        /// What.
        what: &'static str,
        /// The last disconnection.
        last: Option<String>,
    },
}

/// Counts with `settings` (their addresses, names and time are replaced) on `machine`. What the board says
/// goes to `log`.
///
/// # Errors
/// [`CountError`], naming what failed.
pub async fn measure(
    machine: QemuMachine,
    settings: Settings,
    seed: u64,
    log: Option<PathBuf>,
) -> Result<Vec<Cost>, CountError> {
    let machine = machine.seeded(seed).mode(Mode::Lockstep);
    let options = Options { boot_limit: BOOT_LIMIT, epoch: Instant::now(), log, ..Options::new() };
    let mut board = Board::start(machine, options).await?;
    let seeded = Seeded::new(seed);
    let world = World::start(&mut board, settings.transport, &seeded, seed).await?;
    let mut count = Count { board, world, costs: BTreeMap::new(), last_failure: None };
    count.run(settings, &seeded).await?;
    count.board.kill().await;
    let cost = |(activity, instructions)| Cost { activity, instructions, exact: true };
    Ok(count.costs.into_iter().map(cost).collect())
}

struct Count {
    board: Board,
    world: World,
    costs: BTreeMap<Activity, Vec<u64>>,
    last_failure: Option<String>,
}

impl Count {
    async fn run(&mut self, settings: Settings, seeded: &Seeded) -> Result<(), CountError> {
        let has_tls = settings.transport != control::Transport::Tcp;
        if has_tls {
            let operations = self.world.public_key_costs(seeded).await?;
            self.costs.insert(Activity::PublicKey, vec![operations]);
            self.board.send_blob(BlobKind::TrustAnchor, &seeded.root).await?;
        }
        // The first connection is made in full and earns a ticket; each that follows uses one and earns the next.
        let resumptions: &[_] = match settings.transport {
            control::Transport::Quic => &[control::Resumption::Ticket, control::Resumption::EarlyData],
            control::Transport::Tls => &[control::Resumption::Ticket],
            control::Transport::Tcp => &[],
        };
        let first = resumptions.first().copied().unwrap_or(control::Resumption::Off);
        let settings = self.localized(settings);
        self.configure(&settings, first).await?;
        self.connect().await?;
        self.exchange_messages().await?;
        self.disconnect().await?;
        for resumption in resumptions {
            self.configure(&settings, *resumption).await?;
            self.connect().await?;
            self.disconnect().await?;
        }
        Ok(())
    }

    /// The settings of a trial, moved into this world.
    fn localized(&self, settings: Settings) -> Settings {
        Settings {
            addressing: Addressing::Static {
                address: host::BOARD.into(),
                prefix: host::PREFIX,
                gateway: Some(host::ADDRESS.into()),
            },
            local_port: 40_000,
            broker: (host::ADDRESS, host::PORT).into(),
            server_name: control::clipped(simulate::identity::SERVER_NAME),
            mqtt: control::MqttSettings { client_id: control::clipped("count"), ..settings.mqtt },
            reconnection: control::Reconnection::Never,
            quic: control::QuicSettings { streams: control::StreamMode::Single, ..settings.quic },
            ..settings
        }
    }

    async fn configure(
        &mut self,
        settings: &Settings,
        resumption: control::Resumption,
    ) -> Result<(), CountError> {
        let unix_time_s = self.world.now().unix_s();
        self.ask(Request::Configure(Settings { resumption, unix_time_s, ..settings.clone() })).await?;
        self.until("address", |event| matches!(event, Event::AddressAcquired { .. })).await
    }

    async fn connect(&mut self) -> Result<(), CountError> {
        self.ask(Request::Connect).await?;
        self.until("CONNACK", |event| matches!(event, Event::MqttConnected { .. })).await?;
        // What follows CONNACK (HANDSHAKE_DONE, tickets, acknowledgements) is not to be mixed with messages.
        self.pass(INTERVAL).await
    }

    async fn disconnect(&mut self) -> Result<(), CountError> {
        self.ask(Request::Disconnect).await?;
        self.until("end of the connection", |event| matches!(event, Event::Disconnected(_))).await?;
        self.pass(INTERVAL).await
    }

    async fn exchange_messages(&mut self) -> Result<(), CountError> {
        for qos in 0..=2 {
            let workload = control::Workload {
                run: 1 + u32::from(qos),
                topics: [control::clipped(TOPIC)].into_iter().collect(),
                qos,
                retain: false,
                size: PAYLOAD,
                count: MESSAGES,
                pattern: control::Pattern::Every { interval_us: INTERVAL.as_micros() as u32 },
                seed: 1,
                drain_ms: 2_000,
            };
            self.ask(Request::StartWorkload(workload)).await?;
            self.pass(INTERVAL * (MESSAGES + 1)).await?;
        }
        let subscription = control::Subscription { filter: control::clipped(DOWN_TOPIC), qos: 1 };
        self.ask(Request::Subscribe(subscription)).await?;
        self.until("SUBACK", |event| matches!(event, Event::Subscribed { .. })).await?;
        for _ in 0..MESSAGES {
            self.pass(INTERVAL).await?;
            self.world.publish(DOWN_TOPIC, &[0x55; PAYLOAD as usize]).await?;
        }
        self.pass(INTERVAL).await
    }

    /// Sends a command, and lets the board do in the present what it asks for.
    async fn ask(&mut self, request: Request) -> Result<(), CountError> {
        // The board's clock stands where its last step left it.
        self.world.settle().await?;
        self.board.command(request).await?;
        Ok(self.world.settle().await?)
    }

    /// Lets virtual time pass.
    async fn pass(&mut self, time: Duration) -> Result<(), CountError> {
        let deadline = self.world.now() + time;
        while self.world.advance(deadline).await? {}
        self.listen(|_| false).await.map(drop)
    }

    /// Lets virtual time pass until the board reports an event that `wanted` likes.
    async fn until(&mut self, what: &'static str, wanted: impl Fn(&Event) -> bool) -> Result<(), CountError> {
        let deadline = self.world.now() + PHASE_LIMIT;
        loop {
            if self.listen(&wanted).await? {
                return Ok(());
            }
            if !self.world.advance(deadline).await? {
                return Err(CountError::Missing { what, last: self.last_failure.take() });
            }
        }
    }

    /// Takes in all that the board has said. A ping is answered behind it, so nothing is still under way.
    async fn listen(&mut self, wanted: impl Fn(&Event) -> bool) -> Result<bool, CountError> {
        self.board.command(Request::Ping { host_us: 0 }).await?;
        let mut found = false;
        while let Some(output) = self.board.next(Duration::ZERO).await? {
            match output.what {
                crate::board::Output::Report(Report::Cost(cost)) => {
                    self.costs.entry(activity(cost.operation)).or_default().push(cost.instructions);
                }
                crate::board::Output::Report(Report::Event { event, .. }) => {
                    if let Event::Disconnected(why) = &event {
                        self.last_failure = Some(crate::run::describe(why));
                    }
                    found |= wanted(&event);
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

fn activity(operation: Operation) -> Activity {
    match operation {
        Operation::FirstFlight => Activity::FirstFlight,
        Operation::HandshakeFull => Activity::HandshakeFull,
        Operation::HandshakeResumed => Activity::HandshakeResumed,
        Operation::HandshakeEarly => Activity::HandshakeZeroRtt,
        Operation::Connect => Activity::Connect,
        Operation::PublishQos0 => Activity::PublishQos0,
        Operation::PublishQos1 => Activity::PublishQos1,
        Operation::PublishQos2 => Activity::PublishQos2,
        Operation::Receive => Activity::Receive,
    }
}
