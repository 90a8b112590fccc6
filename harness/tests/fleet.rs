//! A small fleet from the command line: to the end, in shards, and when things go wrong. `.ci/run` runs a large one.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use harness::broker::BrokerSpec;
use harness::fleet::{Fleet, ORIGIN, Options, Storm, source};
use harness::measure::Fate;
use harness::scenario::Scenario;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

fn harness() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command.stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    harness().args(arguments).output().expect("the harness")
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The only report below `folder`.
fn report(folder: &Path) -> Value {
    let mut runs: Vec<_> =
        std::fs::read_dir(folder).expect("reports").map(|run| run.expect("a run")).collect();
    assert_eq!(runs.len(), 1);
    let text = std::fs::read_to_string(runs.remove(0).path().join("report.json")).expect("a report");
    serde_json::from_str(&text).expect("JSON")
}

/// A statistic of a metric of a variant.
fn metric(report: &Value, name: &str, variant: &str, statistic: &str) -> f64 {
    let metrics = report["metrics"].as_array().expect("metrics");
    let found = metrics.iter().find(|metric| metric["metric"] == name && metric["variant"] == variant);
    let statistics = found.unwrap_or_else(|| panic!("{name} of {variant}"))["statistics"].as_array();
    let found = statistics.expect("statistics").iter().find(|found| found["statistic"] == statistic);
    let value = &found.unwrap_or_else(|| panic!("{statistic} of {name}"))["value"];
    value.as_f64().unwrap_or_else(|| panic!("{name}.{statistic} is {value}"))
}

#[test]
fn every_device_connects_publishes_and_comes_back_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let reports = folder.path().to_str().expect("UTF-8");
    let output = run(&[
        "fleet",
        "--devices",
        "12",
        "--ramp",
        "50",
        "--messages",
        "3",
        "--interval",
        "200ms",
        "--storm",
        "stop",
        "--down",
        "200ms",
        "--threads",
        "2",
        "--network",
        "lossy-wifi",
        "--reports",
        reports,
    ]);
    let report = report(&folder.path().join("fleet"));
    for variant in ["fleet", "storm"] {
        assert_eq!(metric(&report, "fleet.connected.ratio", variant, "mean"), 1.0, "{}", told(&output));
        assert_eq!(metric(&report, "delivery.ratio", variant, "mean"), 1.0, "{}", told(&output));
        assert_eq!(metric(&report, "fleet.devices", variant, "total"), 12.0);
    }
    assert_eq!(metric(&report, "messages", "fleet", "total"), 36.0);
    assert_eq!(metric(&report, "reconnects", "storm", "max"), 12.0, "each device lost its connection");
    assert!(metric(&report, "fleet.recovery.time", "storm", "max") < 60e6);
    // What is published once all are back tells nothing about how long that took.
    let named =
        |name: &str| report["metrics"].as_array().expect("metrics").iter().any(|m| m["metric"] == name);
    assert!(!named("recovery.time") && named("reconnect.time"));
    let figures = told(&output).split("Figure").last().expect("a table").to_owned();
    assert!(figures.contains("fleet.recovery.time.max"), "{figures}");
    let run = std::fs::read_dir(folder.path().join("fleet")).expect("reports").next().expect("a run");
    let html = std::fs::read_to_string(run.expect("a folder").path().join("report.html")).expect("a page");
    assert!(html.contains("Longest recovery of a device (storm)"));
    assert!(metric(&report, "link.loss.up", "fleet", "mean") > 0.0, "the network is that of the scenario");
    assert!(metric(&report, "fleet.cpu_per_device", "fleet", "mean") > 0.0);
    // The fixed cost of a process weighs more than so few devices: the exit code is for `.ci/run` to judge.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", told(&output));
}

/// A broker on its own, ended with the test.
struct Broker {
    child: Child,
    url: String,
}

impl Broker {
    fn start(ca: &Path) -> Self {
        let mut child = harness()
            .args(["broker", "--quic", "0", "--tls", "0", "--tcp", "0", "--ca"])
            .arg(ca)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the harness");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut url = String::new();
        for line in stdout.lines().map_while(Result::ok) {
            if let Some(quic) = line.strip_prefix("quic ") {
                // The certificate is for the name.
                url = quic.replace("127.0.0.1", "localhost");
            }
            if line == "ready" {
                break;
            }
        }
        assert!(url.starts_with("quic://"), "{url}");
        Self { child, url }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn shards_against_one_broker_merge_into_one_fleet() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    let broker = Broker::start(&ca);
    let (ca, reports) = (ca.to_str().expect("UTF-8"), folder.path().join("shards"));
    let shard = |shard: &str, variable: Option<&str>, reports: &Path, messages: &str| {
        let mut command = harness();
        command.args(["fleet", "--devices", "7", "--ramp", "50", "--messages", messages, "--interval", "1s"]);
        command.args(["--shard", shard, "--broker", &broker.url, "--ca", ca, "--reports"]).arg(reports);
        if let Some(index) = variable {
            command.env("JOB_COMPLETION_INDEX", index);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the harness")
    };
    let ended = |shard: Child| {
        let output = shard.wait_with_output().expect("it ends");
        assert!(matches!(output.status.code(), Some(0 | 1)), "{}", told(&output));
    };
    let merge = |reports: &Path, name: &str| {
        let to = folder.path().join(name);
        harness().arg("merge").arg(reports).arg("--to").arg(to).output().expect("the harness")
    };
    let (together, late) = (reports.join("together"), reports.join("late"));
    let first = shard("1/2", None, &together, "15");
    let second = shard("job/2", Some("1"), &together, "15");
    ended(first);
    ended(shard("1/2", None, &late, "1"));
    let early = merge(&late, "early");
    assert_eq!(early.status.code(), Some(2), "{}", told(&early));
    assert!(told(&early).contains("of 2 shards these are missing: 2"), "{}", told(&early));

    ended(second);
    let merged = merge(&together, "merged");
    assert!(matches!(merged.status.code(), Some(0 | 1)), "{}", told(&merged));
    let whole = report(&folder.path().join("merged/fleet-merged"));
    assert_eq!(metric(&whole, "fleet.devices", "fleet", "total"), 7.0);
    assert_eq!(metric(&whole, "messages", "fleet", "total"), 105.0);
    assert_eq!(metric(&whole, "delivery.ratio", "fleet", "mean"), 1.0);
    assert_eq!(metric(&whole, "duplicates", "fleet", "total"), 0.0);
    let description = whole["record"]["environment"]["board"]["description"].to_string();
    assert!(description.contains("7 firmware cores in 2 processes, 7 of them connected"), "{description}");
    assert!(told(&merged).contains("--shard $shard/2"), "{}", told(&merged));

    // One after the other is no fleet of seven, and no fault of theirs.
    ended(shard("2/2", None, &late, "1"));
    let apart = merge(&late, "apart");
    assert_eq!(apart.status.code(), Some(3), "{}", told(&apart));
    assert!(
        told(&apart).contains("of 7 devices at most 4 were connected at the same time"),
        "{}",
        told(&apart)
    );

    ended(shard("1/2", None, &late, "1"));
    let twice = merge(&late, "twice");
    assert_eq!(twice.status.code(), Some(2), "{}", told(&twice));
    assert!(told(&twice).contains("are both shard 1/2"), "{}", told(&twice));
}

/// Two shards that drew the same token, as good as at the same moment, at the same broker.
#[tokio::test(flavor = "multi_thread")]
async fn shards_with_one_token_at_once_take_nothing_of_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    let broker = Broker::start(&ca);
    let spec: BrokerSpec = broker.url.parse().expect("a URL");
    let spec = spec.with_ca(ca).expect("over TLS");
    let shard = |shard: &str| Options {
        devices: 5,
        shard: shard.parse().expect("a shard"),
        ramp_per_s: 50.0,
        connecting: 5,
        messages: 5,
        interval: Duration::from_millis(500),
        size: 64,
        qos: 1,
        storm: Storm::None,
        down: Duration::from_secs(1),
        threads: 1,
        seed: 1,
    };
    let shards = [shard("1/2"), shard("2/2")];
    let scenario = Scenario::parse(ORIGIN, &source(&shards[0], None)).expect("a fleet's scenario");
    let run = |options| {
        let fleet = Fleet {
            options,
            scenario: &scenario,
            broker: spec.clone(),
            folder: folder.path(),
            command_line: Vec::new(),
            replay: String::new(),
            token: 0x1234_5679,
            cancel: CancellationToken::new(),
        };
        fleet.run(|_| {})
    };
    let (one, two) = tokio::join!(run(&shards[0]), run(&shards[1]));
    for (record, devices) in [(one.expect("a fleet"), 3), (two.expect("a fleet"), 2)] {
        let trial = &record.trials[0];
        assert!(record.ending.is_completed(), "{:?}", record.ending);
        assert_eq!(trial.connections.len(), devices, "nobody takes another's client identifier");
        assert_eq!(trial.messages.len(), 5 * devices);
        let fates: Vec<_> = trial.messages.iter().map(|message| message.fate).collect();
        assert!(fates.iter().all(|fate| *fate == Fate::Delivered), "{fates:?}");
        // What the peer hears of others, too.
        assert!(!trial.notes.iter().any(|note| note.contains("arrived that")), "{:?}", trial.notes);
        assert!(!trial.notes.iter().any(|note| note.contains("first trouble")), "{:?}", trial.notes);
    }
}

#[test]
fn a_broker_that_dies_ends_the_fleet_with_what_became_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = harness();
    command.args(["fleet", "--devices", "4", "--messages", "100", "--interval", "1s", "--reports"]);
    let child = command.arg(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("the harness");
    let talk = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let _talk: Vec<_> = talk.take_while(|line| !line.contains("publishing")).collect();
    let children = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("threads").flatten();
    let children = children.map(|thread| std::fs::read_to_string(thread.path().join("children")));
    let broker = children.flatten().collect::<String>();
    let killed = Command::new("kill").arg("-KILL").arg(broker.trim()).status().expect("kill");
    assert!(killed.success(), "`{broker}` is the one process it started");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    let words = told(&output).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("the embedded broker's process ended during the run (signal: 9"), "{words}");
}

/// The kernel kills whom it likes: the next fleet removes what the broker of a killed one left, its key first of all.
#[test]
fn a_killed_fleet_leaves_no_key_for_long() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let (temporary, reports) = (folder.path().join("tmp"), folder.path().join("reports"));
    std::fs::create_dir(&temporary).expect("a folder");
    let fleet = |devices: &str, messages: &str| {
        let mut command = harness();
        command.args(["fleet", "--devices", devices, "--messages", messages, "--interval", "100ms"]);
        command.args(["--storm", "none", "--reports"]).arg(&reports).env("TMPDIR", &temporary);
        command
    };
    let left = || {
        let folders =
            std::fs::read_dir(&temporary).expect("temporary files").map(|entry| entry.expect("one"));
        folders.map(|folder| folder.path()).collect::<Vec<_>>()
    };
    let mut child = fleet("1", "10000").stderr(Stdio::piped()).spawn().expect("the harness");
    let talk = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let _talk: Vec<_> = talk.take_while(|line| !line.contains("connecting")).collect();
    child.kill().expect("killed");
    child.wait().expect("it ended");
    let of_killed = left();
    assert_eq!(of_killed.len(), 1, "{of_killed:?}");
    let key = std::fs::metadata(of_killed[0].join("key.pem")).expect("the broker's key");
    assert_eq!(key.permissions().mode() & 0o777, 0o600, "nobody else reads it");
    let next = fleet("1", "1").output().expect("the harness");
    assert!(matches!(next.status.code(), Some(0 | 1)), "{}", told(&next));
    assert_eq!(left(), Vec::<std::path::PathBuf>::new());
}

/// Each thread takes files, too: what cannot be is told before anything runs.
#[test]
fn too_few_open_files_are_the_machines_fault_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let harness = env!("CARGO_BIN_EXE_harness");
    let line =
        format!("ulimit -n 264 && exec '{harness}' fleet --devices 200 --threads 200 --reports \"$0\"");
    let output = Command::new("sh").arg("-c").arg(line).arg(folder.path()).output().expect("a shell");
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    let words = told(&output).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("200 devices on 200 threads need 664 open files"), "{words}");
    assert!(words.contains("fewer --threads"), "{words}");
}

/// What was sent, acknowledged and delivered until then is told, and nothing counts as lost.
#[test]
fn an_interrupted_fleet_tells_what_it_did_until_then() {
    for (until, phase, storm) in [("publishing", "fleet", "none"), ("once more", "storm", "stop")] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = harness();
        // Each device has one message to publish in each phase, the last of them seconds later than the first.
        command.args(["fleet", "--devices", "4", "--messages", "1", "--interval", "6s", "--storm", storm]);
        command.args(["--down", "1ms", "--reports"]);
        let child = command.arg(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the harness");
        let talk = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let mut talk = talk.skip_while(|line| !line.contains(until));
        // Each second, it tells how many devices are through: by the second time, some have published.
        let counts = talk.by_ref().filter(|line| line.contains(" of ")).take(2).collect::<Vec<_>>();
        assert_eq!(counts.len(), 2, "it publishes for several seconds: {counts:?}");
        let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(interrupted.expect("kill").success());
        let rest = talk.collect::<String>();
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(1), "{}{rest}", told(&output));

        let report = report(&folder.path().join("fleet"));
        assert_eq!(report["record"]["ending"]["kind"], "interrupted");
        let trials = report["record"]["trials"].as_array().expect("trials");
        let trial = trials.last().expect("the one that was interrupted");
        assert_eq!((&trial["variant"], &trial["ending"]["kind"]), (&phase.into(), &"interrupted".into()));
        let messages = trial["messages"].as_array().expect("messages");
        let of = |told: &dyn Fn(&Value) -> bool| messages.iter().filter(|message| told(message)).count();
        let delivered = of(&|message| message["fate"] == "delivered");
        assert!(delivered > 0 && delivered < messages.len(), "{messages:#?}");
        assert_eq!(
            of(&|message| message["fate"] == "timed-out"),
            messages.len() - delivered,
            "{messages:#?}"
        );
        assert!(of(&|message| !message["acked_us"].is_null()) > 0, "{messages:#?}");
        let vanished = of(&|message| !message["acked_us"].is_null() && message["delivered_us"].is_null());
        assert_eq!(vanished, 0, "it was acknowledged: {messages:#?}");
        let duration_us = trial["duration_us"].as_u64().expect("a duration");
        assert!(duration_us >= 1_000_000, "it published for more than a second: {duration_us} us");
        let late = of(&|message| message["delivered_us"].as_u64().is_some_and(|at_us| at_us > duration_us));
        assert_eq!(late, 0, "{messages:#?}");
        assert_eq!(trial["fleet"]["connected"], 4, "{}", trial["fleet"]);
        let workload = trial["wire"].as_array().expect("counts").last().expect("the workload's").clone();
        assert!(workload["up"]["packets"].as_u64().is_some_and(|packets| packets > 0), "{workload}");
        // What came to its end before is judged as such.
        for whole in &trials[..trials.len() - 1] {
            assert_eq!(whole["ending"]["kind"], "completed");
            let messages = whole["messages"].as_array().expect("messages").iter();
            assert!(messages.clone().count() == 4 && messages.clone().all(|m| m["fate"] == "delivered"));
        }
    }
}

#[test]
fn a_broker_in_place_of_emqx_is_told_and_named_in_the_report() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = harness();
    command.args(["fleet", "--devices", "1", "--messages", "1", "--interval", "50ms", "--storm", "none"]);
    command.args(["--broker", "auto", "--reports"]).arg(folder.path());
    let output = command.env("DOCKER_HOST", "unix:///there/is/no/engine.sock").output().expect("the harness");
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", told(&output));
    assert!(told(&output).contains("warning: EMQX is not used: no Docker engine"), "{}", told(&output));
    let report = report(&folder.path().join("fleet")).to_string();
    assert!(report.contains("in place of EMQX: no Docker engine answers"), "{report}");
}

#[test]
fn what_cannot_be_meant_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let reports = folder.path().to_str().expect("UTF-8");
    for (arguments, part) in [
        (&["--devices", "0"][..], "0 is not in"),
        (&["--devices", "70000"], "choose other --devices or --shard"),
        (&["--devices", "2", "--shard", "3/2"], "1/4"),
        (&["--devices", "2", "--shard", "4/4"], "choose other --devices or --shard"),
        (&["--devices", "2", "--broker", "quic://b", "--storm", "kill"], "leave --storm out"),
        (&["--devices", "2", "--network", "no-such-network"], "no-such-network"),
        (&["--devices", "2", "--interval", "5"], "500ms or 2s"),
    ] {
        let mut all = vec!["fleet", "--reports", reports];
        all.extend(arguments);
        let output = run(&all);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", told(&output));
        assert!(told(&output).contains(part), "{arguments:?}: {}", told(&output));
    }
    let output = run(&["fleet", "--devices", "2", "--broker", "quic://127.0.0.1:9", "--reports", reports]);
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    let output = run(&["merge", reports]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
}

/// The command lines in the recipes are ones this program takes.
#[test]
fn recipes_say_what_the_program_understands() {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/kubernetes");
    let mut commands = 0;
    for recipe in std::fs::read_dir(recipes).expect("recipes") {
        let text = std::fs::read_to_string(recipe.expect("a file").path()).expect("text");
        let (jobs, deadlines) = (text.matches("\nkind: Job\n"), text.matches("\n  activeDeadlineSeconds: "));
        assert_eq!(jobs.count(), deadlines.count(), "a Job without a deadline may be waited for in vain");
        for line in text.lines().filter_map(|line| line.trim().strip_prefix("command: ")) {
            let words: Vec<String> = serde_json::from_str(line).expect("a list in one line");
            assert_eq!(words[0], "/harness");
            // `--help` behind them: they are read, and nothing is run.
            let mut command = harness();
            command.args(&words[1..]).arg("--help").env("JOB_COMPLETION_INDEX", "0");
            let output = command.output().expect("the harness");
            assert_eq!(output.status.code(), Some(0), "{line}: {}", told(&output));
            let help = told(&output);
            for option in words.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(option.as_str()), "{line}: no {option}");
            }
            commands += 1;
        }
    }
    assert_eq!(commands, 3, "broker, fleet, merge");
}
