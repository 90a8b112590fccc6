//! What the harness does with EMQX alone: how it knows that it is ready, its commands and its API, by an image of
//! `support/emqx_stub.rs`, which does in the forms that EMQX knows what is asked of it, or fails to. Runs when
//! `HARNESS_DOCKER_IMAGE` names an image that `harness/docker/build-image.sh` made, as CI does on a machine with Docker.

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use harness::broker::{Broker, BrokerError, BrokerOptions, BrokerSpec, Fault};
use harness::certificates::{Certificates, Flaw};
use harness::measure::Transport;
use harness::peer::Connector;
use support::{TestClient, options};

/// One test with containers at a time: each counts those of this process.
static ENGINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The stub's program, built as the tests themselves were.
fn stub() -> &'static Path {
    static STUB: OnceLock<PathBuf> = OnceLock::new();
    STUB.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        // What cargo tells a test about its package would make it build half of the dependencies anew.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text == "OUT_DIR" || text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(&name);
            }
        }
        let built = cargo
            .args(["build", "--quiet", "--locked", "--package", "harness", "--example", "emqx_stub"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo");
        assert!(built.success(), "the stub does not build");
        // target/debug/deps/broker_emqx-...
        let own = std::env::current_exe().expect("a program");
        let built = own.parent().and_then(Path::parent).expect("a target folder").join("examples/emqx_stub");
        // Without what debuggers want of it, which is most of it; not all machines can take that out.
        let stripped = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emqx_stub");
        let strip = Command::new("strip").arg("-o").arg(&stripped).arg(&built).status();
        if strip.is_ok_and(|strip| strip.success()) { stripped } else { built }
    })
}

/// An image of the stub that runs as EMQX's does, as uid 1000; removed with the test.
struct Image(String);

impl Image {
    /// One that fails in the ways of `flaws`, and whose folder of certificates has that mode; `None` without an engine.
    fn build(name: &str, flaws: &str, folder_mode: u32) -> Option<Self> {
        let Ok(base) = std::env::var("HARNESS_DOCKER_IMAGE") else {
            eprintln!("HARNESS_DOCKER_IMAGE is not set: no container is started");
            return None;
        };
        let context = tempfile::tempdir().expect("a folder");
        let emqx = context.path().join("opt/emqx");
        for folder in ["bin", "etc/certs"] {
            std::fs::create_dir_all(emqx.join(folder)).expect("a folder");
        }
        let mode = std::fs::Permissions::from_mode(folder_mode);
        std::fs::set_permissions(emqx.join("etc/certs"), mode).expect("own folder");
        std::fs::hard_link(stub(), emqx.join("bin/emqx"))
            .or_else(|_| std::fs::copy(stub(), emqx.join("bin/emqx")).map(drop))
            .expect("the stub");
        // What differs comes last: the engine keeps the layer with the program.
        let dockerfile = format!(
            "FROM {base}\nENTRYPOINT [\"/opt/emqx/bin/emqx\"]\nUSER 1000\nCOPY opt/ /opt/\nENV EMQX_STUB={flaws}\n"
        );
        std::fs::write(context.path().join("Dockerfile"), dockerfile).expect("a file");
        let image = Self(format!("harness-stub-{name}-{}", std::process::id()));
        let built = Command::new("docker")
            .env("DOCKER_BUILDKIT", "0")
            .args(["build", "-q", "-t", &format!("emqx/emqx:{}", image.0)])
            .arg(context.path())
            .output()
            .expect("the client");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Some(image)
    }

    async fn start(&self, options: BrokerOptions) -> Result<Broker, BrokerError> {
        let certificates = Arc::new(Certificates::generate().expect("an authority"));
        Broker::start(BrokerSpec::Emqx { tag: self.0.clone() }, certificates, options).await
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", &format!("emqx/emqx:{}", self.0)]).output();
    }
}

/// Containers this process made that are still there.
fn own_containers() -> String {
    let filter = format!("label=harness.owner.pid={}", std::process::id());
    let listed =
        Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().expect("the client");
    String::from_utf8(listed.stdout).expect("identifiers")
}

/// The leaf that a listener presents to a client that trusts the run's authority, and whether that was satisfied.
async fn presented(broker: &Broker, transport: Transport) -> (Vec<u8>, bool) {
    let connector = Arc::new(Connector::new(broker.target(transport).expect("published")).expect("settings"));
    let clock = harness::peer::Clock::start();
    let (events, _kept) = tokio::sync::mpsc::unbounded_channel();
    let client = harness::peer::Client::start(Arc::clone(&connector), options("looker"), clock, events);
    let content = support::within("a handshake", client.connected()).await.is_ok();
    client.disconnect().await;
    (connector.presented_chain().first().map(|leaf| leaf.to_vec()).unwrap_or_default(), content)
}

#[tokio::test]
async fn a_broker_that_runs_as_another_user_is_kicked_and_rotated_as_emqx_is() {
    let Some(image) = Image::build("fine", "", 0o755) else { return };
    let _alone = ENGINE.lock().await;
    let mut broker =
        image.start(BrokerOptions::default()).await.expect("it is ready by status and listeners");
    assert!(broker.describe().product.contains(&image.0), "{}", broker.describe());

    let quic = broker.target(Transport::Quic).expect("published");
    let (mut client, _) = TestClient::connect(quic, options("board")).await;
    broker.apply(&Fault::Kick { client_id: "board".into() }).await.expect("it is there");
    let reason = client.disconnection().await;
    // Administrative action.
    assert!(reason.contains("0x98"), "{reason}");
    client.client.disconnect().await;
    let nobody = broker.apply(&Fault::Kick { client_id: "nobody".into() }).await;
    assert!(matches!(nobody, Err(BrokerError::NoSuchClient { .. })), "{nobody:?}");

    for transport in [Transport::Quic, Transport::Tls] {
        let (before, content) = presented(&broker, transport).await;
        assert!(content && !before.is_empty());
        broker.apply(&Fault::RotateCertificate(Flaw::None)).await.expect("another certificate");
        let (after, content) = presented(&broker, transport).await;
        assert!(content && before != after, "{transport}");
        broker.apply(&Fault::RotateCertificate(Flaw::WrongName)).await.expect("a wrong certificate");
        let (wrong, content) = presented(&broker, transport).await;
        assert!(!content && !wrong.is_empty() && wrong != after, "{transport}");
        broker.apply(&Fault::RotateCertificate(Flaw::None)).await.expect("a right certificate");
    }
    broker.apply(&Fault::Freeze).await.expect("it runs");
    let frozen = broker.apply(&Fault::RotateCertificate(Flaw::None)).await;
    assert!(matches!(frozen, Err(BrokerError::FaultOutOfPlace { .. })), "{frozen:?}");
    broker.shut_down().await;
    assert_eq!(own_containers(), "");
}

#[tokio::test]
async fn a_certificate_that_is_not_put_to_use_is_told() {
    for (name, flaws, words) in [
        ("cache", "pem_cache_clean_all=1", "`/opt/emqx/bin/emqx ctl pem_cache clean all`"),
        ("form", "unknown=pem_cache_clean_all", "ctl pem_cache clean all` in the container of `emqx/emqx:"),
        ("kept", "fails=pem_cache_clean_all", "does not say that it was done:\nPEM cache clean FAILED"),
        (
            "closed",
            "fails=listeners_restart_quic:default",
            "does not say that it was done:\nFailed to restart quic:default listener: eaddrinuse",
        ),
        (
            "restart",
            "listeners_restart_ssl:default=3",
            "ends with exit code 3:\nNode 'emqx@127.0.0.1' not responding",
        ),
        ("deaf", "deaf", "the quic listener in the container"),
    ] {
        let Some(image) = Image::build(name, flaws, 0o755) else { return };
        let _alone = ENGINE.lock().await;
        let mut broker = image.start(BrokerOptions::default()).await.expect("it is ready");
        let rotated = broker.apply(&Fault::RotateCertificate(Flaw::None)).await;
        let error = rotated.expect_err(flaws);
        assert!(error.to_string().contains(words), "{flaws}: {error}");
        let known = matches!(error, BrokerError::Command { .. } | BrokerError::NotRotated { .. });
        assert!(known && !error.remedy().is_empty(), "{flaws}: {error:?}");
        broker.shut_down().await;
    }
}

#[tokio::test]
async fn a_broker_that_never_is_ready_is_given_up_with_what_was_missing() {
    for (name, flaws, words) in [
        ("status", "status=503", "the status endpoint answers 503"),
        ("quic", "quic=stopped", "does not show quic:default running"),
        // The time it has as a whole ends the wait for a command that has more.
        ("hung", "hangs=listeners", "it was still being asked"),
        ("ctl", "listeners=1", "`/opt/emqx/bin/emqx ctl listeners` in the container"),
    ] {
        let Some(image) = Image::build(name, flaws, 0o755) else { return };
        let _alone = ENGINE.lock().await;
        let options = BrokerOptions { ready_limit: Duration::from_secs(4), ..BrokerOptions::default() };
        let error = image.start(options).await.err().expect("it never is");
        let BrokerError::NotReady { reason, log, .. } = &error else { panic!("{flaws}: {error}") };
        assert!(reason.contains(words), "{flaws}: {reason}");
        assert!(log.contains("EMQX stub is running now!"), "{flaws}: {log}");
        assert_eq!(own_containers(), "", "{flaws}");
    }
}

#[tokio::test]
async fn a_key_that_the_brokers_user_cannot_read_is_shown_by_its_last_lines() {
    let Some(image) = Image::build("unreadable", "", 0o700) else { return };
    let _alone = ENGINE.lock().await;
    let error = image.start(BrokerOptions::default()).await.err().expect("it cannot start");
    let BrokerError::ContainerExited { status, log, .. } = &error else { panic!("{error}") };
    assert_eq!(status, "exit code 1");
    assert!(log.contains("/opt/emqx/etc/certs/harness.pem: Permission denied"), "{log}");
    assert_eq!(own_containers(), "");
}
