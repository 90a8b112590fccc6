//! Brokers in containers. What needs an image runs when `HARNESS_DOCKER_IMAGE` names one that
//! `harness/docker/build-image.sh` made, as CI does on a machine with Docker; what needs none runs always.

mod support;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use harness::broker::{
    Broker, BrokerError, BrokerOptions, BrokerSpec, ClientAuthentication, Durability, Fault, SessionState,
};
use harness::certificates::Certificates;
use harness::measure::Transport;
use harness::wire::{Properties, Qos, property};
use support::{TestClient, options};

/// One test with containers at a time: each counts those of this process.
static ENGINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The image to test with; says so where there is none.
fn image() -> Option<String> {
    let image = std::env::var("HARNESS_DOCKER_IMAGE").ok();
    if image.is_none() {
        eprintln!("HARNESS_DOCKER_IMAGE is not set: no container is started");
    }
    image
}

async fn start(image: &str, options: BrokerOptions) -> Result<Broker, BrokerError> {
    let certificates = Arc::new(Certificates::generate().expect("an authority"));
    Broker::start(BrokerSpec::Docker { image: image.to_owned() }, certificates, options).await
}

/// Containers this process made that are still there.
fn own_containers() -> String {
    let filter = format!("label=harness.owner.pid={}", std::process::id());
    let listed =
        Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().expect("the client");
    String::from_utf8(listed.stdout).expect("identifiers")
}

#[tokio::test]
async fn missing_engine_or_image_is_told_with_its_remedy() {
    for spec in ["docker:harness-test/there-is-no-such-image:1", "emqx:there-is-no-such-tag"] {
        let certificates = Arc::new(Certificates::generate().expect("an authority"));
        let spec: BrokerSpec = spec.parse().expect("a broker");
        let error = Broker::start(spec, certificates, BrokerOptions::default()).await.err();
        match error.expect("there is no such image") {
            BrokerError::NoDocker(_) => {}
            error @ BrokerError::NoImage { .. } => assert!(error.remedy().contains("docker pull"), "{error}"),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn container_serves_suffers_and_leaves_nothing_behind() {
    let Some(image) = image() else { return };
    let _alone = ENGINE.lock().await;
    let persistent = BrokerOptions { durability: Durability::Disk, ..BrokerOptions::default() };
    let mut broker = start(&image, persistent).await.expect("a container");
    let description = broker.describe();
    assert!(description.image_digest.as_deref().is_some_and(|digest| digest.contains("sha256:")));
    let addresses = broker.addresses();
    let target = |broker: &Broker, transport| broker.target(transport).expect("published");

    let mut durable = options("durable");
    durable.connect.clean_start = false;
    durable.connect.properties = Properties::default().with_u32(property::SESSION_EXPIRY_INTERVAL, 600);
    for (end, sessions, kept) in [
        (Fault::Stop, SessionState::Kept, true),
        (Fault::Kill, SessionState::Kept, true),
        (Fault::Kill, SessionState::Lost, false),
    ] {
        let (client, _) = TestClient::connect(target(&broker, Transport::Tls), durable.clone()).await;
        client.subscribe("d", Qos::AtLeastOnce).await;
        client.client.disconnect().await;
        // The store writes behind.
        tokio::time::sleep(Duration::from_millis(300)).await;
        broker.apply(&end).await.expect("it runs");
        broker.apply(&Fault::Start(sessions)).await.expect("it is down");
        assert_eq!(broker.addresses(), addresses);
        let (mut client, present) =
            TestClient::connect(target(&broker, Transport::Quic), durable.clone()).await;
        assert_eq!(present, kept, "{end:?} {sessions:?}");
        if kept {
            client.publish("d", b"still", Qos::AtLeastOnce).await;
            assert_eq!(client.message().await.payload, b"still");
        }
        client.client.disconnect().await;
    }

    let (client, _) = TestClient::connect(target(&broker, Transport::Quic), options("c")).await;
    broker.apply(&Fault::Freeze).await.expect("it runs");
    {
        let mut publishing = std::pin::pin!(client.publish("t", b"x", Qos::AtLeastOnce));
        let frozen = tokio::time::timeout(Duration::from_millis(300), &mut publishing).await;
        assert!(frozen.is_err(), "it answers while frozen");
        broker.apply(&Fault::Resume).await.expect("it is frozen");
        assert!(publishing.await.acked_us.is_some());
    }
    assert!(matches!(broker.apply(&Fault::DropUdp).await, Err(BrokerError::FaultUnsupported { .. })));
    assert!(broker.log().expect("a container has a log").contains("ready"));
    broker.shut_down().await;
    assert_eq!(own_containers(), "");
}

/// An image like `image`, but with another entry point; removed with the test.
struct Variation(String);

impl Variation {
    fn of(image: &str, name: &str, entry_point: &[&str]) -> Self {
        let tag = format!("{image}-{name}");
        let folder = tempfile::tempdir().expect("a folder");
        let dockerfile = format!("FROM {image}\nENTRYPOINT {}\n", serde_json::json!(entry_point));
        std::fs::write(folder.path().join("Dockerfile"), dockerfile).expect("a file");
        let built = Command::new("docker")
            .env("DOCKER_BUILDKIT", "0")
            .args(["build", "-q", "-t", &tag])
            .arg(folder.path())
            .output()
            .expect("the client");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Self(tag)
    }
}

impl Drop for Variation {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", &self.0]).output();
    }
}

#[tokio::test]
async fn container_that_ends_at_once_shows_its_last_lines() {
    let Some(image) = image() else { return };
    let _alone = ENGINE.lock().await;
    let unreadable = ["/harness", "broker", "--certificate", "/not/there.pem", "--key", "/not/there.key"];
    for (name, entry_point, code, words) in [
        ("option", &["/harness", "broker", "--no-such-option"][..], 2, "--no-such-option"),
        ("certificate", &unreadable, 3, "/not/there.pem"),
    ] {
        let broken = Variation::of(&image, name, entry_point);
        let error = start(&broken.0, BrokerOptions::default()).await.err().expect("it ends at once");
        let BrokerError::ContainerExited { log, status, .. } = &error else { panic!("{error}") };
        assert!(log.contains(words), "{log}");
        assert_eq!(*status, format!("exit code {code}"));
    }
    assert_eq!(own_containers(), "");
}

#[tokio::test]
async fn clients_without_a_certificate_are_turned_away_where_the_run_wants_that() {
    let Some(image) = image() else { return };
    let _alone = ENGINE.lock().await;
    let required = ClientAuthentication::Required;
    let options = BrokerOptions { client_authentication: required, ..BrokerOptions::default() };
    // That it starts at all is the point: until strangers are refused it is not ready.
    let broker = start(&image, options).await.expect("the image knows the setting");
    let mut target = broker.target(Transport::Quic).expect("published");
    target.identity = Some(broker.certificates().client("c").expect("a certificate"));
    let (client, _) = TestClient::connect(target, support::options("c")).await;
    client.client.disconnect().await;
    broker.shut_down().await;
}

#[tokio::test]
async fn port_that_is_taken_is_named() {
    let Some(image) = image() else { return };
    let _alone = ENGINE.lock().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let mut options = BrokerOptions::default();
    options.ports.tcp = port;
    let error = start(&image, options).await.err().expect("the port is taken");
    assert!(
        matches!(&error, BrokerError::PortInUse { transport: Transport::Tcp, address } if address.port() == port),
        "{error}"
    );
}

#[tokio::test]
async fn dropped_broker_takes_its_container_along() {
    let Some(image) = image() else { return };
    let _alone = ENGINE.lock().await;
    let broker = start(&image, BrokerOptions::default()).await.expect("a container");
    assert_ne!(own_containers(), "");
    drop(broker);
    let started = std::time::Instant::now();
    while !own_containers().is_empty() {
        assert!(started.elapsed() < Duration::from_secs(30), "it is still there");
        // Its removal is a task of this runtime.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
