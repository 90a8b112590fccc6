//! Brokers the harness did not start: found usable, or refused with a reason and a remedy.

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::broker::{Broker, BrokerError, BrokerOptions, BrokerSpec, Fault};
use harness::certificates::{Certificates, Flaw};
use harness::measure::Transport;
use harness::wire::Qos;
use support::{TestClient, options, start};

/// Stands in for a broker somewhere, with its root in a file.
async fn somewhere(flaw: Flaw) -> (Broker, tempfile::TempDir, PathBuf) {
    let broker = start(BrokerOptions { certificate: flaw, ..BrokerOptions::default() }).await;
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, broker.certificates().root_pem()).expect("a file");
    (broker, folder, ca)
}

async fn reach(url: &str, ca: Option<&PathBuf>) -> Result<Broker, BrokerError> {
    let mut spec: BrokerSpec = url.parse().expect("a URL");
    if let Some(ca) = ca {
        spec = spec.with_ca(ca.clone()).expect("TLS");
    }
    let certificates = Arc::new(Certificates::generate().expect("an authority"));
    let began = Instant::now();
    let reached = Broker::start(spec, certificates, BrokerOptions::default()).await;
    assert!(began.elapsed() < Duration::from_secs(11), "a hang");
    reached
}

fn url(broker: &Broker, transport: Transport, host: &str) -> String {
    let port = broker.addresses().get(transport).expect("a listener").port();
    format!("{}://{host}:{port}", harness::broker::scheme(transport))
}

#[tokio::test]
async fn usable_broker_is_taken_with_its_root_for_the_board() {
    let (broker, _folder, ca) = somewhere(Flaw::None).await;
    for transport in Transport::ALL {
        let ca = (transport != Transport::Tcp).then_some(&ca);
        let mut reached = reach(&url(&broker, transport, "127.0.0.1"), ca).await.expect("usable");
        assert_eq!(reached.addresses().iter().count(), 1);
        let anchor = reached.trust().anchor;
        assert_eq!(anchor.as_ref(), ca.map(|_| broker.certificates().root()));
        let target = reached.target(transport).expect("that listener");
        let (client, _) = TestClient::connect(target, options("c")).await;
        client.publish("t", b"x", Qos::AtLeastOnce).await;
        assert!(matches!(reached.apply(&Fault::Stop).await, Err(BrokerError::FaultUnsupported { .. })));
        reached.shut_down().await;
        client.publish("t", b"it is not ours to stop", Qos::AtLeastOnce).await;
    }
    broker.shut_down().await;
}

#[tokio::test]
async fn wrong_certificates_are_told_apart() {
    for (flaw, host) in [
        (Flaw::None, "127.0.0.1"),
        (Flaw::Expired, "127.0.0.1"),
        (Flaw::NotYetValid, "127.0.0.1"),
        (Flaw::WrongName, "127.0.0.1"),
    ] {
        let (broker, folder, ca) = somewhere(flaw).await;
        let other = folder.path().join("other.pem");
        std::fs::write(&other, Certificates::generate().expect("an authority").root_pem()).expect("a file");
        for transport in [Transport::Quic, Transport::Tls] {
            let ca = if flaw == Flaw::None { &other } else { &ca };
            let error = reach(&url(&broker, transport, host), Some(ca)).await.err().expect("a refusal");
            let right = match flaw {
                Flaw::None => matches!(error, BrokerError::UnknownAuthority { .. }),
                Flaw::WrongName => matches!(error, BrokerError::WrongHost { .. }),
                _ => matches!(error, BrokerError::NotValidNow { .. }),
            };
            assert!(right, "{flaw:?} {transport}: {error}");
            assert!(!error.remedy().is_empty());
        }
        broker.shut_down().await;
    }
}

#[tokio::test]
async fn nobody_there_is_told_at_once_over_tcp() {
    let began = Instant::now();
    for scheme in ["mqtt", "mqtts"] {
        let error = reach(&format!("{scheme}://127.0.0.1:9"), None).await.err().expect("nobody");
        // Without roots on the machine, TLS is not even tried.
        assert!(
            matches!(error, BrokerError::Unreachable { .. } | BrokerError::UnknownAuthority { .. }),
            "{error}"
        );
    }
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn files_without_a_certificate_and_names_without_an_address_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing.pem");
    let error = reach("quic://127.0.0.1:9", Some(&missing)).await.err().expect("no file");
    assert!(matches!(error, BrokerError::File { .. }), "{error}");
    assert!(error.to_string().contains("missing.pem"));
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing").expect("a file");
    let error = reach("quic://127.0.0.1:9", Some(&empty)).await.err().expect("no certificate");
    assert!(matches!(error, BrokerError::NoCertificate(_)), "{error}");
    let error = reach("mqtt://host.invalid:1", None).await.err().expect("no address");
    assert!(matches!(error, BrokerError::Resolve { .. }), "{error}");
}

#[tokio::test]
async fn port_of_another_transport_is_no_broker() {
    let (broker, _folder, ca) = somewhere(Flaw::None).await;
    // TLS to the plain port, plain to the TLS port.
    let port = |transport| broker.addresses().get(transport).expect("a listener").port();
    let error = reach(&format!("mqtts://127.0.0.1:{}", port(Transport::Tcp)), Some(&ca)).await;
    let error = error.err().expect("no TLS there");
    assert!(matches!(error, BrokerError::Handshake { .. } | BrokerError::Unreachable { .. }), "{error}");
    let error = reach(&format!("mqtt://127.0.0.1:{}", port(Transport::Tls)), None).await;
    let error = error.err().expect("no MQTT there");
    assert!(matches!(error, BrokerError::Refused { .. }), "{error}");
    broker.shut_down().await;
}

/// A broker in a container reads the files as another user than the one who made them.
#[test]
fn certificates_for_a_standing_broker_can_be_read_by_any_user_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let issue = "umask 077; exec \"$0\" broker --issue \"$1\"";
    let issued = std::process::Command::new("sh")
        .args(["-c", issue, env!("CARGO_BIN_EXE_harness")])
        .arg(folder.path())
        .output()
        .expect("a shell");
    assert!(issued.status.success(), "{}", String::from_utf8_lossy(&issued.stderr));
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        let file = std::fs::metadata(folder.path().join(name)).expect(name);
        assert_eq!(file.permissions().mode() & 0o777, 0o644, "{name}");
    }
}

/// Docker makes one where it is told to mount a file that is not there yet.
#[test]
fn a_folder_in_the_place_of_a_certificate_is_named_with_its_remedy_and_nothing_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let in_the_way = folder.path().join("key.pem");
    std::fs::create_dir(&in_the_way).expect("a folder");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_harness"))
        .args(["broker", "--issue"])
        .arg(folder.path())
        .output()
        .expect("the harness");
    assert_eq!(output.status.code(), Some(3));
    // A long path is broken where the terminal ends.
    let told: String =
        String::from_utf8_lossy(&output.stderr).split_whitespace().filter(|word| *word != "│").collect();
    let path = in_the_way.display();
    for words in [format!("`{path}`cannotbewritten:itisafolder"), format!("`sudormdir{path}`")] {
        assert!(told.contains(&words), "{words}: {told}");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("it is there").collect();
    assert_eq!(left.len(), 1, "a root without its key would be another puzzle: {left:?}");
}

#[test]
fn a_standing_broker_that_is_not_there_comes_with_the_commands_that_start_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_harness"))
        .args(["scenario", "hello", "--broker", "compose"])
        .current_dir(folder.path())
        .output()
        .expect("the harness");
    assert_eq!(output.status.code(), Some(3));
    let told = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    for words in ["reports/compose-broker/ca.pem", "broker --issue reports/compose-broker", "up -d emqx"] {
        assert!(told.contains(words), "{words}: {told}");
    }
}
