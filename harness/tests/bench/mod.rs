//! A test bench: a host board, a link, the embedded broker.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use device::control::{
    Addressing, BlobKind, CipherChoice, Congestion, Event, KeyExchange, MqttSettings, MqttVersion, Pattern,
    QuicSettings, Reconnection, Report, Request, Resumption, Sample, Settings, StreamMode, Subscription,
    Transport, Workload, WorkloadResult, clipped,
};
use harness::board::{Board, HostMachine, Options, Output};
use harness::broker::{Broker, BrokerOptions, BrokerSpec};
use harness::certificates::{Certificates, SERVER_NAME};
use harness::link::{FramePath, GatewayConfig, LinkHandle, Nic, Protocol, Setup};

pub const LIMIT: Duration = Duration::from_secs(20);
const MAC: [u8; 6] = [0x02, 0x4d, 0x51, 77, 0, 2];
/// Services on the gateway's address, as EMQX numbers them.
const QUIC_PORT: u16 = 14_567;
const TLS_PORT: u16 = 8883;
const TCP_PORT: u16 = 1883;

pub struct Bench {
    pub board: Board,
    /// Kept for their lives' sake.
    _broker: Broker,
    _link: LinkHandle,
    pub certificates: Arc<Certificates>,
}

impl Bench {
    /// A bench with the impairments of `link`, as a scenario writes them.
    pub async fn new(link: &str, options: BrokerOptions) -> Self {
        let certificates = Arc::new(Certificates::generate().expect("an authority"));
        let broker = Broker::start(BrokerSpec::Embedded, Arc::clone(&certificates), options)
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
        let program = PathBuf::from(env!("CARGO_BIN_EXE_harness"));
        let machine = HostMachine::with_program(program, MAC).expect("a directory").seeded(7);
        let mut board = Board::start(machine, Options::new()).await.expect("the board starts");
        let at = broker.addresses();
        let gateway = GatewayConfig::default()
            .with_service(Protocol::Udp, QUIC_PORT, at.quic.expect("served"))
            .with_service(Protocol::Tcp, TLS_PORT, at.tls.expect("served"))
            .with_service(Protocol::Tcp, TCP_PORT, at.tcp.expect("served"));
        let nic = Nic::Listener(board.take_nic().expect("a virtual NIC"));
        let setup = Setup {
            config: toml::from_str(link).expect("a link configuration"),
            seed: 7,
            ..Setup::default()
        };
        let link = FramePath { setup, nic, gateway }.start().expect("a link");
        Self { board, _broker: broker, _link: link, certificates }
    }

    /// Sends the authority's certificate and `settings`.
    pub async fn configure(&mut self, settings: Settings) {
        let root = self.certificates.root().clone();
        self.board.send_blob(BlobKind::TrustAnchor, &root).await.expect("stored");
        self.board.command(Request::Configure(settings)).await.expect("good settings");
    }

    /// Connects and waits for CONNACK.
    pub async fn connect(&mut self) {
        self.board.command(Request::Connect).await.expect("configured");
        self.connected().await;
    }

    pub async fn connected(&mut self) {
        self.event("CONNACK", |event| matches!(event, Event::MqttConnected { .. }).then_some(())).await;
    }

    pub async fn event<T>(&mut self, what: &'static str, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        let mut seen = Vec::new();
        let found = self.board.wait_for(what, LIMIT, |report| match report {
            Report::Event { event, .. } => {
                seen.push(event.clone());
                wanted(event)
            }
            _ => None,
        });
        match found.await {
            Ok(found) => found,
            Err(error) => panic!("{error}; events: {seen:#?}"),
        }
    }

    pub async fn subscribe(&mut self, filter: &str, qos: u8) {
        self.board
            .command(Request::Subscribe(Subscription { filter: clipped(filter), qos }))
            .await
            .expect("connected");
        let reason = self.event("SUBACK", |event| match event {
            Event::Subscribed { reason, .. } => Some(*reason),
            _ => None,
        });
        assert_eq!(reason.await, qos);
    }

    /// Runs a workload to its end, and until `received` messages came back.
    pub async fn run(&mut self, workload: Workload, received: usize) -> Outcome {
        self.board.command(Request::StartWorkload(workload)).await.expect("a good workload");
        let mut outcome = Outcome::default();
        while outcome.result.is_none() || outcome.received.len() < received {
            match self.board.next(LIMIT).await {
                Ok(Some(output)) => outcome.take(output.what),
                Ok(None) => panic!("nothing for {LIMIT:?}: {outcome:#?}"),
                Err(error) => panic!("{error}: {outcome:#?}"),
            }
        }
        outcome
    }
}

/// What a workload brought.
#[derive(Debug, Default)]
pub struct Outcome {
    pub result: Option<WorkloadResult>,
    pub published: Vec<u32>,
    pub acked: Vec<u32>,
    pub received: Vec<Sample>,
    pub events: Vec<Event>,
}

impl Outcome {
    fn take(&mut self, output: Output) {
        match output {
            Output::Report(Report::Samples(batch)) => {
                for sample in batch.samples {
                    match sample {
                        Sample::Published { sequence, .. } => self.published.push(sequence),
                        Sample::Acked { sequence, .. } => self.acked.push(sequence),
                        Sample::Received { .. } => self.received.push(sample),
                        Sample::Failed { .. } => panic!("{sample:?}"),
                    }
                }
            }
            Output::Report(Report::WorkloadDone(result)) => self.result = Some(result),
            Output::Report(Report::Event { event, .. }) => self.events.push(event),
            _ => {}
        }
    }
}

pub fn workload(count: u32, qos: u8) -> Workload {
    Workload {
        run: 1,
        topics: [clipped("bench/a"), clipped("bench/b")].into_iter().collect(),
        qos,
        retain: false,
        size: 64,
        count,
        pattern: Pattern::Every { interval_us: 5_000 },
        seed: 7,
        drain_ms: 10_000,
    }
}

pub fn settings(transport: Transport) -> Settings {
    let port = match transport {
        Transport::Quic => QUIC_PORT,
        Transport::Tls => TLS_PORT,
        Transport::Tcp => TCP_PORT,
    };
    Settings {
        addressing: Addressing::Static {
            address: [10, 77, 0, 2].into(),
            prefix: 24,
            gateway: Some([10, 77, 0, 1].into()),
        },
        local_port: 0,
        broker: ([10, 77, 0, 1], port).into(),
        transport,
        server_name: clipped(SERVER_NAME),
        unix_time_s: SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs(),
        key_exchange: KeyExchange::X25519,
        ciphers: CipherChoice::Any,
        resumption: Resumption::Ticket,
        quic: QuicSettings {
            streams: StreamMode::Single,
            congestion: Congestion::NewReno,
            datagram_max: 1200,
            idle_timeout_ms: 30_000,
            keep_alive_ms: 0,
            key_update_packets: 0,
        },
        mqtt: MqttSettings {
            version: MqttVersion::V5,
            client_id: clipped("bench"),
            keep_alive_s: 60,
            clean_start: true,
            session_expiry_s: 60,
            username: None,
            password: None,
            will: None,
        },
        reconnection: Reconnection::Never,
        connect_timeout_ms: 10_000,
        answer_timeout_ms: 10_000,
        migrate_after_timeouts: 0,
        give_up_after_timeouts: 0,
    }
}
