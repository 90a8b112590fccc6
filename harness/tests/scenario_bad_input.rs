//! Whatever a user gets wrong is refused before anything starts, with its place and its remedy, and nothing hangs.

mod scenario_support;
mod support;

use std::path::Path;
use std::time::Duration;

use harness::broker::BrokerOptions;
use harness::certificates::{Certificates, Flaw};
use scenario_support::{Bench, tiny};

#[test]
fn an_unknown_scenario_is_answered_with_the_nearest_name_and_the_list() {
    let bench = Bench::new();
    let ended = bench.run(&["scenario", "lossy-wify"]);
    ended.expect(
        2,
        &["there is no scenario \"lossy-wify\"", "did you mean lossy-wifi?", "broker-restart", "soak"],
    );
    assert!(bench.reports().is_empty(), "nothing was started");
}

#[test]
fn a_mistake_in_a_file_shows_its_place_its_text_and_its_remedy() {
    let bench = Bench::new();
    let good = tiny("", "");
    let cases: &[(&str, &str, &[&str])] = &[
        ("delay = \"5 ms\"", "delay = 5 ms", &["tiny.toml:7:", "delay = 5 ms", "help: "]),
        ("delay = \"5 ms\"", "dealy = \"5 ms\"", &["tiny.toml:7:1", "no key `dealy`", "did you mean delay?"]),
        (
            "delay = \"5 ms\"",
            "delay = \"-5 ms\"",
            &["tiny.toml:7:9", "it is negative", "help: write for example"],
        ),
        (
            "delay = \"5 ms\"",
            "loss = \"130 %\"",
            &["tiny.toml:7:8", "outside 0 % to 100 %", "help: write for example"],
        ),
        ("[link.both]", "[link.both", &["tiny.toml:6:", "unclosed table", "help: a line is"]),
        ("size = \"64 B\"", "size = 64", &["tiny.toml:10:8", "expected a size", "help: write"]),
        (
            "board.faults = 0",
            "board.fault = 0",
            &["tiny.toml:4:12", "there is no metric board.fault", "did you mean board.faults?"],
        ),
        (
            "board.faults = 0",
            "board.faults >= 0",
            &["tiny.toml:4:28", "can never fail", "help: write a limit"],
        ),
        ("name = \"tiny\"", "name = \"other\"", &["tiny.toml:1:8", "write name = \"tiny\""]),
    ];
    for (from, to, words) in cases {
        assert!(good.contains(from), "{from}");
        let path = bench.file("tiny.toml", &good.replacen(from, to, 1));
        bench.run(&["scenario", &path]).expect(2, words);
        assert!(bench.reports().is_empty(), "{to}: nothing was started");
    }
}

#[test]
fn a_command_line_that_makes_no_sense_is_refused() {
    let bench = Bench::new();
    let tiny = bench.file("tiny.toml", &tiny("", ""));
    let figure = "[[figure]]\nmetric = \"lost\"\nvariant = \"quic\"\nwas = 0.0\nat_most = 0.0\n";
    let baseline = |scenario: &str| {
        let text =
            format!("schema = 1\nscenario = {scenario:?}\nboard = \"host\"\nmade_from = \"\"\n{figure}");
        bench.file(&format!("{scenario}-host.toml"), &text)
    };
    let (foreign, own) = (baseline("hello"), baseline("tiny"));
    let cases: &[(&[&str], &[&str])] = &[
        (&["scenario", "no/such.toml"], &["cannot read scenario file no/such.toml", "lossy-wifi"]),
        (&["scenario", &tiny, "--repeat", "0"], &["--repeat", "1..=10000"]),
        (&["scenario", &tiny, "--repeat", "10001"], &["--repeat", "1..=10000"]),
        (&["scenario", &tiny, "--transport", "quik"], &["there is no transport `quik`", "quic, tls or tcp"]),
        (&["scenario", &tiny, "--board", "esp8266"], &["--board", "host"]),
        (&["scenario", &tiny, "--broker", "mosquitto"], &["`mosquitto` names no broker", "docker:IMAGE"]),
        (&["scenario", &tiny, "--broker", "quic://"], &["has no host"]),
        (&["scenario", &tiny, "--ca", "no-such.pem"], &["no-such.pem"]),
        (&["scenario", &tiny, "--baseline", "no-such.toml"], &["no-such.toml"]),
        (&["scenario", &tiny, "--baseline", &foreign], &["hello on host", "tiny on host"]),
        (
            &["scenario", &tiny, "--transport", "tcp", "--baseline", &own],
            &["tiny-host.toml", "holds nothing of tcp", "--write-baseline"],
        ),
        (&["scenario", "memory", "--board", "host"], &["does not run on the board `host`", "choose one of"]),
    ];
    for (arguments, words) in cases {
        bench.run(arguments).expect(2, words);
        assert!(bench.reports().is_empty(), "{arguments:?}: nothing was started");
    }
}

#[test]
fn an_existing_baseline_or_report_is_never_overwritten() {
    let bench = Bench::new();
    let path = bench.file("tiny.toml", &tiny("", ""));
    let kept = bench.file("kept.toml", "mine");
    bench
        .run(&["scenario", &path, "--write-baseline", &kept])
        .expect(2, &["exists already", "choose another file"]);
    assert_eq!(std::fs::read_to_string(&kept).expect("it is there"), "mine");
    // Two runs that start within one second want the same folder.
    let both = [(); 2].map(|()| bench.command(&["scenario", &path]).spawn().expect("the harness starts"));
    for child in both {
        scenario_support::finish(child).expect(0, &["PASSED"]);
    }
    assert_eq!(bench.reports().len(), 2, "each has its own");
}

#[test]
fn a_reports_folder_that_cannot_be_written_is_the_environments_fault() {
    let bench = Bench::new();
    let path = bench.file("tiny.toml", &tiny("", ""));
    let file = bench.file("in-the-way", "");
    bench.run(&["scenario", &path, "--reports", &file]).expect(3, &["cannot write", "--reports"]);
}

#[test]
fn a_broker_that_is_not_there_is_told_at_once() {
    let bench = Bench::new();
    let path = bench.file("tiny.toml", &tiny("", ""));
    // A port that was free a moment ago.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    for scheme in ["mqtt", "quic"] {
        let url = format!("{scheme}://127.0.0.1:{port}");
        let ca = bench.file("ca.pem", &Certificates::generate().expect("an authority").root_pem());
        let mut arguments = vec!["scenario", &path, "--broker", &url];
        if scheme == "quic" {
            arguments.extend(["--ca", &ca]);
        }
        let ended = bench.run(&arguments);
        ended.expect(3, &[&url, "help: "]);
        assert!(ended.took < Duration::from_secs(20), "{ended:?}");
    }
    let ended = bench.run(&["scenario", &path, "--broker", "mqtt://no-such-host.invalid:1883"]);
    ended.expect(3, &["no-such-host.invalid", "help: "]);
}

#[test]
fn a_port_that_is_taken_is_named_with_its_remedy() {
    let bench = Bench::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let arguments = ["broker", "--quic", "0", "--tls", "0", "--tcp", &port];
    bench.run(&arguments).expect(3, &[&port, "in use", "help: "]);
}

/// A broker somewhere with a flaw, its root in a file, and its address over QUIC.
async fn flawed(bench: &Bench, certificate: Flaw) -> (harness::broker::Broker, String, String) {
    let broker = support::start(BrokerOptions { certificate, ..BrokerOptions::default() }).await;
    let ca = bench.file("ca.pem", &broker.certificates().root_pem());
    let address = broker.addresses().quic.expect("a listener");
    (broker, ca, format!("quic://{address}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_be_trusted_is_an_environment_error_with_its_reason() {
    let cases = [
        (Flaw::WrongName, "127.0.0.1"),
        (Flaw::Expired, "expired"),
        (Flaw::None, "is not signed by the root"),
    ];
    for (flaw, word) in cases {
        let bench = Bench::new();
        let path = bench.file("tiny.toml", &tiny("", ""));
        let (broker, ca, url) = flawed(&bench, flaw).await;
        let other = Certificates::generate().expect("an authority").root_pem();
        let ca = if flaw == Flaw::None { bench.file("other.pem", &other) } else { ca };
        let ended = bench.run(&["scenario", &path, "--broker", &url, "--ca", &ca]);
        ended.expect(3, &["certificate", word, "help: "]);
        assert!(ended.took < Duration::from_secs(20), "{ended:?}");
        broker.shut_down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transport_that_the_broker_lacks_is_refused_before_anything_starts() {
    let bench = Bench::new();
    let path = bench.file("tiny.toml", &tiny("", ""));
    let broker = support::start(BrokerOptions::default()).await;
    let url = format!("mqtt://{}", broker.addresses().tcp.expect("a listener"));
    bench.run(&["scenario", &path, "--broker", &url]).expect(
        3,
        &["`tiny` wants quic", &url, "does not serve", "help: run what it serves: `--transport tcp`"],
    );
    assert!(bench.reports().is_empty(), "nothing was started");
    bench.run(&["scenario", &path, "--broker", &url, "--transport", "tcp"]).expect(0, &["PASSED", &url]);
    broker.shut_down().await;
}

/// Who runs a broker gives it its certificates: a scenario that lives of others must neither pass nor blame the device.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_cannot_be_given_is_refused_before_anything_starts() {
    let bench = Bench::new();
    let (broker, ca, url) = flawed(&bench, Flaw::None).await;
    let known = tiny("", "").replace("[link.both]", "[connection]\nclient_certificate = true\n\n[link.both]");
    let known = bench.file("known.toml", &known.replace("\"tiny\"", "\"known\""));
    let leaf = tiny("", "").replace("[link.both]", "[broker]\nchain = \"leaf\"\n\n[link.both]");
    let leaf = bench.file("leaf.toml", &leaf.replace("\"tiny\"", "\"leaf\""));
    let late =
        tiny("", "").replace("[link.both]", "[broker]\nstream_credit = \"after-handshake\"\n\n[link.both]");
    let late = bench.file("late.toml", &late.replace("\"tiny\"", "\"late\""));
    for (name, scenario, words) in [
        ("mtls", "mtls", "refuse clients without a certificate"),
        ("no-certificate", "no-certificate", "refuse clients without a certificate"),
        ("bad-certificate", "bad-certificate", "show a certificate of an authority that nobody trusts"),
        ("wrong-name", "wrong-name", "show a certificate of another name"),
        ("expired-certificate", "expired-certificate", "show a certificate that is expired"),
        ("known", &known, "know clients by certificates"),
        ("leaf", &leaf, "show a certificate without an intermediate"),
        ("late", &late, "grant streams only after the handshake"),
    ] {
        let (wants, help) =
            (format!("`{name}` wants the broker to {words}"), "help: run it with `--broker embedded`");
        for arguments in [
            &["scenario", scenario, "--transport", "quic", "--broker", &url, "--ca", &ca][..],
            &["scenario", scenario, "--broker", "compose"],
        ] {
            bench.run(arguments).expect(2, &[&wants, "the harness did not start it", help]);
        }
    }
    assert!(bench.reports().is_empty(), "nothing was started");
    broker.shut_down().await;
}

/// The device's own check, with the main job: pointed at a wrong authority it must not connect.
#[test]
fn a_client_pointed_at_a_wrong_authority_fails_the_run_and_says_why() {
    let bench = Bench::new();
    let wrong = bench.file("wrong.pem", &Certificates::generate().expect("an authority").root_pem());
    let main_job = include_str!("../../scenarios/lossy-wifi.toml");
    let hurried = main_job.replace("[limits]\n", "[limits]\nconnect = \"3 s\"\n");
    let path = bench.file("lossy-wifi.toml", &hurried);
    let ended = bench.run(&["scenario", &path, "--repeat", "1", "--ca", &wrong]);
    ended.expect(1, &["FAILED", "TlsRefused", "certificate"]);
    let report = bench.report();
    let trials = report["record"]["trials"].as_array().expect("trials");
    assert_eq!(trials.len(), 2, "device and reference client");
    for trial in trials {
        let attempts = trial["connections"].as_array().expect("attempts");
        assert_eq!(attempts[0]["failure"]["kind"], "certificate", "{}", attempts[0]);
        for attempt in attempts {
            let reached = attempt["marks"].as_array().expect("marks");
            assert!(reached.iter().all(|mark| mark["phase"] != "connack"), "{attempt}");
        }
    }
    assert!(Path::new(&wrong).exists());
}
