//! What the broker tests share: a broker on free ports, clients of the harness's own, and a bare QUIC client
//! that can break the rules.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::allow_attributes, reason = "`expect` would fail in the binary that uses everything")]

pub mod raw;

use std::sync::Arc;
use std::time::Duration;

use device::control::Resumption;
use harness::broker::{Broker, BrokerOptions, BrokerSpec};
use harness::certificates::{Certificates, SERVER_NAME};
use harness::measure::Transport;
use harness::peer::{Client, ClientEvent, ClientOptions, Clock, Connector, SendLog, Target};
use harness::wire::{Publish, Qos, Subscription, Version};
use tokio::sync::mpsc;

/// Longest a step of a test may take.
pub const LIMIT: Duration = Duration::from_secs(5);

pub async fn start(options: BrokerOptions) -> Broker {
    let certificates = Arc::new(Certificates::generate().expect("an authority"));
    Broker::start(BrokerSpec::Embedded, certificates, options).await.expect("an embedded broker")
}

pub fn target(broker: &Broker, transport: Transport) -> Target {
    let address = broker.addresses().get(transport).expect("a listener");
    Target::new(transport, address, SERVER_NAME, broker.certificates().trust())
}

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took longer than {LIMIT:?}"),
    }
}

/// A client of the harness with what it received.
pub struct TestClient {
    pub client: Client,
    pub events: mpsc::UnboundedReceiver<ClientEvent>,
    pub clock: Clock,
}

impl TestClient {
    pub async fn connect(target: Target, options: ClientOptions) -> (Self, bool) {
        let connector = Arc::new(Connector::new(target).expect("usable settings"));
        Self::connect_with(connector, options).await
    }

    pub async fn connect_with(connector: Arc<Connector>, options: ClientOptions) -> (Self, bool) {
        let (sender, events) = mpsc::unbounded_channel();
        let clock = Clock::start();
        let client = Client::start(connector, options, clock, sender);
        let session_present = within("connecting", client.connected()).await.expect("a connection");
        (Self { client, events, clock }, session_present)
    }

    pub async fn subscribe(&self, filter: &str, qos: Qos) -> u8 {
        let wanted = vec![Subscription { filter: filter.to_owned(), qos }];
        within("subscribing", self.client.subscribe(wanted)).await.expect("a running client")[0]
    }

    /// Publishes and waits until it is settled.
    pub async fn publish(&self, topic: &str, payload: &[u8], qos: Qos) -> harness::peer::Sending {
        self.publish_all(vec![Publish::new(topic, payload, qos)]).await[0]
    }

    pub async fn publish_all(&self, messages: Vec<Publish>) -> Vec<harness::peer::Sending> {
        let log = SendLog::new(self.clock);
        let count = messages.len();
        for (sequence, message) in messages.into_iter().enumerate() {
            let sequence = u32::try_from(sequence).expect("few messages");
            self.client.publish(message, sequence, self.clock.now_us(), &log);
        }
        within("publishing", log.settled(count)).await;
        log.sendings()
    }

    /// The next message.
    pub async fn message(&mut self) -> Publish {
        let next = async {
            loop {
                match self.events.recv().await.expect("a running client") {
                    ClientEvent::Message { publish, .. } => return publish,
                    ClientEvent::Disconnected { reason } => panic!("disconnected: {reason}"),
                    _ => {}
                }
            }
        };
        within("a message", next).await
    }

    /// Why the client was disconnected.
    pub async fn disconnection(&mut self) -> String {
        let next = async {
            loop {
                if let ClientEvent::Disconnected { reason } =
                    self.events.recv().await.expect("a running client")
                {
                    return reason;
                }
            }
        };
        within("a disconnection", next).await
    }

    /// No message arrives for a moment.
    pub async fn silence(&mut self) {
        let waited = tokio::time::timeout(Duration::from_millis(100), self.message()).await;
        assert!(waited.is_err(), "unexpected: {waited:?}");
    }
}

pub fn options(client_id: &str) -> ClientOptions {
    ClientOptions::new(Version::V5, client_id)
}

pub fn resuming(mut target: Target, resumption: Resumption) -> Target {
    target.resumption = resumption;
    target
}
