//! `harness demo`: the proof of concept's walk-through as one command. The board joins Wi-Fi, connects, subscribes,
//! publishes, and what came back is told, with the heap at each step.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use device::control::{
    Addressing, BlobKind, CipherChoice, Congestion, Event, KeyExchange, Memory, MqttSettings, MqttVersion,
    Name, Pattern, QuicSettings, Reconnection, Report, Request, Resumption, Sample, Settings, StreamMode,
    Subscription, Topic, Transport, Workload,
};

use super::interrupt::take_over;
use super::{Exit, Failure, print, tethered};
use crate::board::esp32c3::Fault;
use crate::board::esp32c3::wifi::{Lost, words};
use crate::board::{Board, BoardError, Options, Output};
use crate::broker::{Broker, BrokerError, BrokerOptions, BrokerSpec, sweep_leftovers};
use crate::certificates::Certificates;
use crate::measure::record;
use crate::run::describe;

/// Arguments of `harness demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = SECRETS)]
pub struct Arguments {
    /// The board.
    #[arg(long, value_enum, default_value = "esp32c3")]
    board: DemoBoard,
    /// The broker: quic://HOST:PORT, mqtts://HOST:PORT or mqtt://HOST:PORT.
    #[arg(long)]
    broker: BrokerSpec,
    /// Root certificate (PEM) that the broker is verified against.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// How many messages.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    count: u32,
    #[command(flatten)]
    tethered: tethered::BoardArguments,
}

const SECRETS: &str = "Wi-Fi credentials come from HARNESS_WIFI_SSID and HARNESS_WIFI_PASSWORD, from --wifi FILE, or from a \
                       prompt; the broker's user from HARNESS_MQTT_USERNAME and HARNESS_MQTT_PASSWORD.";

/// Boards that can show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum DemoBoard {
    /// The ESP32-C3.
    Esp32c3,
}

/// Time each step may take.
const STEP: Duration = Duration::from_secs(30);
/// What a network without DHCP does not give.
const ADDRESS: &str = "an address from DHCP";
/// Bytes of each message.
const SIZE: u16 = 64;

/// Walks through it.
pub fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let DemoBoard::Esp32c3 = arguments.board;
    let BrokerSpec::External(external) = arguments.broker.clone() else {
        return Err(Failure::usage(miette::miette!(
            help = "name it as quic://HOST:14567; `harness broker` serves one on this machine",
            "the demo needs a broker that runs elsewhere"
        )));
    };
    let transport = external.transport;
    let mut spec = arguments.broker.clone();
    if let Some(ca) = &arguments.ca {
        spec = spec.with_ca(ca.clone()).map_err(|error| Failure::usage(miette::Report::msg(error)))?;
    }
    let tethered = arguments.tethered.without_link()?;
    check_host(&external.host, tethered.which.port.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::environment(miette::miette!("no runtime: {error}")))?;
    // First what needs no board: a broker that is not there shows before one is flashed.
    let broker = runtime.block_on(async {
        sweep_leftovers().await;
        let certificates =
            Certificates::generate().map_err(|error| Failure::environment(miette::Report::msg(error)))?;
        let broker = Broker::start(spec, Arc::new(certificates), BrokerOptions::default()).await;
        broker.map_err(|error| {
            let told = miette::miette!(help = error.remedy(), "{error}");
            match error {
                // What --ca names.
                BrokerError::File { .. } | BrokerError::NoCertificate(_) => Failure::usage(told),
                _ => Failure::environment(told),
            }
        })
    })?;
    let board = match tethered.prepare() {
        Ok(board) => board,
        Err(failure) => {
            runtime.block_on(broker.shut_down());
            return Err(failure);
        }
    };
    runtime.block_on(async {
        let mut signals = take_over();
        print("resetting the board and joining Wi-Fi\n");
        let network = board.network().unwrap_or_default().to_owned();
        let interrupted = || Failure::environment(miette::miette!("interrupted"));
        let board = tokio::select! {
            board = board.start(Options::default()) => board.map_err(Failure::environment)?,
            () = signals.any() => return Err(interrupted()),
        };
        let mut walk = Walk { board, start: Instant::now(), down: 0, network, lost: None };
        let walked = tokio::select! {
            walked = walk.through(&broker, transport, arguments.count) => walked.map_err(Failure::environment),
            () = signals.any() => Err(interrupted()),
        };
        walk.board.kill().await;
        broker.shut_down().await;
        walked?;
        Ok(Exit::Passed)
    })
}

/// That a board can reach `host`: its own loopback is not this machine. One behind a pseudo-terminal is a program here.
fn check_host(host: &str, port: Option<&Path>) -> Result<(), Failure> {
    let loopback = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    if loopback && !port.is_some_and(|port| port.starts_with("/dev/pts")) {
        return Err(Failure::usage(miette::miette!(
            help =
                "name this machine by its address in the board's network, and have the broker listen there",
            "the board would look for a broker at `{host}` on itself"
        )));
    }
    Ok(())
}

struct Walk {
    board: Board,
    start: Instant,
    /// Messages that came back.
    down: u32,
    /// The wireless network.
    network: String,
    /// Why the board is not there any more, if it is not.
    lost: Option<Lost>,
}

impl Walk {
    fn say(&self, text: &str) {
        print(&format!("{:>7.3} s  {text}\n", self.start.elapsed().as_secs_f64()));
    }

    async fn through(
        &mut self,
        broker: &Broker,
        transport: record::Transport,
        count: u32,
    ) -> Result<(), BoardError> {
        let settings = settings(broker, transport)?;
        if let Some(anchor) = broker.trust().anchor {
            self.board.send_blob(BlobKind::TrustAnchor, &anchor).await?;
        }
        let address = settings.broker;
        self.board.command(Request::Configure(settings)).await?;
        self.until(ADDRESS, |event| matches!(event, Event::AddressAcquired { .. })).await?;
        self.say(&format!("connecting to {address} over {transport}"));
        self.board.command(Request::Connect).await?;
        self.until("CONNACK", |event| matches!(event, Event::MqttConnected { .. })).await?;
        // What the board is made of, its radio and its heap, once all of it is at work.
        self.board.command(Request::Inspect).await?;
        let topic: Topic =
            format!("harness/demo/{:08x}", unix_s() as u32).as_str().try_into().expect("it is short");
        let subscription = Subscription { filter: topic.clone(), qos: 1 };
        self.board.command(Request::Subscribe(subscription)).await?;
        self.until("SUBACK", |event| matches!(event, Event::Subscribed { .. })).await?;
        self.say(&format!("publishing {count} messages of {SIZE} B to {topic}"));
        self.board.command(Request::StartWorkload(workload(topic, count))).await?;
        self.exchange(count).await?;
        self.board.command(Request::Disconnect).await?;
        self.until("the end of the connection", |event| matches!(event, Event::Disconnected(_))).await?;
        self.say("done");
        Ok(())
    }

    /// Tells what comes until `wanted` does; a connection that fails ends the waiting with its cause.
    async fn until(&mut self, what: &'static str, wanted: impl Fn(&Event) -> bool) -> Result<(), BoardError> {
        let deadline = Instant::now() + STEP;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(output) = self.board.next(left).await? else {
                return Err(match self.lost {
                    Some(lost) => lost.fault(&self.network).into(),
                    None if what == ADDRESS => Fault::NoDhcp { limit: STEP }.into(),
                    None => BoardError::Timeout { what, limit: STEP },
                });
            };
            let Output::Report(report) = output.what else { continue };
            self.tell(&report);
            if let Report::Event { event, .. } = &report {
                if wanted(event) {
                    return Ok(());
                }
                self.check(what, event)?;
            }
        }
    }

    /// A connection that ended, or a command that was given up, while `what` was waited for.
    fn check(&self, what: &str, event: &Event) -> Result<(), BoardError> {
        if let Event::Abandoned { reason, .. } = *event {
            return Err(BoardError::Abandoned { request: "Subscribe", reason });
        }
        let Event::Disconnected(why) = event else { return Ok(()) };
        Err(match self.lost {
            Some(lost) => lost.fault(&self.network).into(),
            None => BoardError::Start {
                what: format!("no {what}: {}", describe(why)),
                remedy: "check the broker's address, port and certificate (--ca)".to_owned(),
            },
        })
    }

    /// Until every message was acknowledged and has come back.
    async fn exchange(&mut self, count: u32) -> Result<(), BoardError> {
        let what = "every message to come back";
        let limit = STEP + Duration::from_secs(count.into());
        let deadline = Instant::now() + limit;
        let mut done = false;
        while !(done && self.down >= count) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(output) = self.board.next(left).await? else {
                return Err(match self.lost {
                    Some(lost) => lost.fault(&self.network).into(),
                    None => BoardError::Timeout { what, limit },
                });
            };
            let Output::Report(report) = output.what else { continue };
            self.tell(&report);
            if let Report::Event { event, .. } = &report {
                self.check(what, event)?;
            }
            done |= matches!(report, Report::WorkloadDone(_));
        }
        Ok(())
    }

    fn tell(&mut self, report: &Report) {
        if let Report::Event { event, .. } = report {
            Lost::follow(&mut self.lost, event);
        }
        match report {
            Report::Event { event: Event::WifiFailed { failure, code, .. }, .. } => {
                self.say(&format!("Wi-Fi failed: {} (code {code})", words(*failure)));
            }
            Report::Event { event: Event::Connecting { attempt, .. }, .. } => {
                self.say(&format!("attempt {attempt}: first packet"));
            }
            Report::Event { event: Event::Handshake(phase), .. } => {
                self.say(&format!("handshake: {phase:?}"));
            }
            Report::Event { event: Event::AddressAcquired { address, prefix }, .. } => {
                self.say(&format!("address {address}/{prefix}"));
            }
            Report::Event { event: Event::MqttConnected { session_present, .. }, .. } => {
                self.say(&format!("CONNACK, session {}", if *session_present { "present" } else { "new" }));
            }
            Report::Event { event: Event::Subscribed { reason, .. }, .. } => {
                self.say(&format!("SUBACK, granted {reason}"));
            }
            Report::Event { event: Event::Disconnected(why), .. } => {
                self.say(&format!("disconnected: {:?}", why.cause));
            }
            Report::Samples(samples) => samples.samples.iter().for_each(|sample| self.tell_sample(sample)),
            Report::Memory(memory) => {
                if let Some(line) = memory_line(memory) {
                    self.say(&line);
                }
            }
            report => {
                if let Some(line) = inspection_line(report) {
                    self.say(&line);
                }
            }
        }
    }

    fn tell_sample(&mut self, sample: &Sample) {
        match sample {
            Sample::Acked { sequence, .. } => self.say(&format!("message {sequence}: PUBACK")),
            Sample::Received { sequence, intended_us, at_us, size, verdict, .. } => {
                self.down += 1;
                let ms = at_us.saturating_sub(*intended_us) as f64 / 1e3;
                self.say(&format!("message {sequence}: came back after {ms:.1} ms, {size} B, {verdict:?}"));
            }
            Sample::Failed { sequence, reason, .. } => {
                self.say(&format!("message {sequence}: failed, reason {reason:#04x}"));
            }
            Sample::Published { .. } => {}
        }
    }
}

/// What the board tells of itself when it is inspected.
fn inspection_line(report: &Report) -> Option<String> {
    Some(match report {
        Report::Hardware(hardware) => {
            let (major, minor) = hardware.revision;
            format!(
                "{} v{major}.{minor} at {} MHz, started by {:?} ({:#04x}); AES and SHA units: {:?}",
                hardware.chip, hardware.cpu_mhz, hardware.reset, hardware.reset_code, hardware.accelerators
            )
        }
        Report::Radio(radio) => {
            let number = |value: Option<i16>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
            format!(
                "radio {:?}, channel {}, {} dBm, power mode {:?}",
                radio.state,
                number(radio.channel.map(i16::from)),
                number(radio.rssi_dbm.map(i16::from)),
                radio.power
            )
        }
        Report::Heap(heap) => {
            format!("heap {} B, {} B used, {} B at most so far", heap.size, heap.used, heap.used_max)
        }
        Report::Activity(activity) => format!(
            "since the start {:.3} s: processor busy {:.3} s, light sleep {:.3} s, radio on {:.3} s",
            activity.at_us as f64 / 1e6,
            activity.cpu_busy_us as f64 / 1e6,
            activity.light_sleep_us as f64 / 1e6,
            activity.radio_on_us as f64 / 1e6
        ),
        _ => return None,
    })
}

fn memory_line(memory: &Memory) -> Option<String> {
    let free = memory.heap_free?;
    let least = memory.heap_free_min.map_or_else(String::new, |least| format!(", {least} B at least so far"));
    Some(format!("{:?}: free heap {free} B{least}", memory.phase))
}

fn settings(broker: &Broker, transport: record::Transport) -> Result<Settings, BoardError> {
    let wrong = |what: String| BoardError::Start { what, remedy: "use a shorter name".to_owned() };
    let address = broker.addresses().get(transport).ok_or_else(|| BoardError::Start {
        what: format!("the broker does not serve {transport}"),
        remedy: "name the transport it serves".to_owned(),
    })?;
    let name =
        |text: &str| Name::try_from(text).map_err(|_| wrong(format!("`{text}` is longer than 64 bytes")));
    let secret = |variable: &str| std::env::var(variable).ok().map(|text| name(&text)).transpose();
    Ok(Settings {
        addressing: Addressing::Dhcp,
        local_port: 0,
        broker: address,
        transport: match transport {
            record::Transport::Quic => Transport::Quic,
            record::Transport::Tls => Transport::Tls,
            record::Transport::Tcp => Transport::Tcp,
        },
        server_name: name(&broker.trust().server_name)?,
        unix_time_s: unix_s(),
        key_exchange: KeyExchange::X25519,
        ciphers: CipherChoice::Any,
        resumption: Resumption::Ticket,
        quic: QuicSettings {
            streams: StreamMode::Single,
            congestion: Congestion::NewReno,
            datagram_max: 1200,
            idle_timeout_ms: 60_000,
            keep_alive_ms: 15_000,
            key_update_packets: 0,
        },
        mqtt: MqttSettings {
            version: MqttVersion::V5,
            client_id: name(&format!("demo-{:08x}", unix_s() as u32 ^ std::process::id()))?,
            keep_alive_s: 60,
            clean_start: true,
            session_expiry_s: 0,
            username: secret("HARNESS_MQTT_USERNAME")?,
            password: secret("HARNESS_MQTT_PASSWORD")?,
            will: None,
        },
        reconnection: Reconnection::Never,
        connect_timeout_ms: 20_000,
        answer_timeout_ms: 10_000,
        migrate_after_timeouts: 3,
        give_up_after_timeouts: 7,
    })
}

fn workload(topic: Topic, count: u32) -> Workload {
    Workload {
        run: 1,
        topics: std::iter::once(topic).collect(),
        qos: 1,
        retain: false,
        size: SIZE,
        count,
        pattern: Pattern::Every { interval_us: 1_000_000 },
        seed: 1,
        drain_ms: 10_000,
    }
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
