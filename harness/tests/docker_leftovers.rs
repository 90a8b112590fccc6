//! Whatever becomes of a run, none of its containers is left; and without an engine, or when the engine goes, a run
//! says so and ends. What needs an image runs when `HARNESS_DOCKER_IMAGE` names one that
//! `harness/docker/build-image.sh` made, as CI does on a machine with Docker; what needs none runs always.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longest a run of these tests may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// One test with containers at a time: each run sweeps up what killed ones left.
static ENGINE: Mutex<()> = Mutex::new(());

/// The image to test with; says so where there is none.
fn image() -> Option<String> {
    let image = std::env::var("HARNESS_DOCKER_IMAGE").ok();
    if image.is_none() {
        eprintln!("HARNESS_DOCKER_IMAGE is not set: no container is started");
    }
    image
}

/// A scenario of about `messages` times 100 ms, which passes if `expect` holds.
fn scenario(folder: &Path, messages: u32, expect: &str, step: &str) -> std::path::PathBuf {
    let text = format!(
        "name = \"short\"\nquestion = \"Does it end?\"\nanswer = \"{{delivery.ratio}}\"\ntransports = [\"quic\"]\n\
         expect = [\"{expect}\"]\n{step}\n[workload.up]\nsize = \"64 B\"\ncount = {messages}\ninterval = \"100 ms\"\n"
    );
    let path = folder.join("short.toml");
    std::fs::write(&path, text).expect("a file");
    path
}

fn harness(folder: &Path, scenario: &Path, broker: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command.arg("scenario").arg(scenario).args(["--broker", broker]);
    command.arg("--reports").arg(folder.join("reports"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Containers that the process `pid` made and that are still there.
fn containers_of(pid: u32) -> String {
    let filter = format!("label=harness.owner.pid={pid}");
    let listed =
        Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().expect("the client");
    String::from_utf8(listed.stdout).expect("identifiers")
}

/// Waits until the run works with its container: until there is something of its board in the report folder.
fn wait_for_container(child: &Child, folder: &Path) {
    let started = Instant::now();
    let at_work = || {
        let runs = std::fs::read_dir(folder.join("reports/short")).into_iter().flatten().flatten();
        runs.map(|run| run.path().join("link-1.jsonl")).any(|log| log.exists())
    };
    while containers_of(child.id()).is_empty() || !at_work() {
        assert!(started.elapsed() < LIMIT, "no container came up");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill");
    assert!(sent.success());
}

/// Waits for the end, for at most [`LIMIT`].
fn ended(mut child: Child) -> Output {
    let started = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if started.elapsed() > LIMIT {
            let _ = child.kill();
            panic!("the run hangs: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().expect("it has ended")
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn without_an_engine_a_broker_that_was_asked_for_is_an_error_and_the_default_says_what_it_does_instead() {
    let folder = tempfile::tempdir().expect("a folder");
    let scenario = scenario(folder.path(), 3, "delivery.ratio = 100 %", "");
    let without_engine = |broker: &str| {
        let mut command = harness(folder.path(), &scenario, broker);
        ended(command.env("DOCKER_HOST", "unix:///there/is/no/engine.sock").spawn().expect("the harness"))
    };
    for broker in ["emqx", "docker:some/image:1"] {
        let output = without_engine(broker);
        assert_eq!(output.status.code(), Some(3), "{}", told(&output));
        assert!(told(&output).contains("no Docker engine answers"), "{}", told(&output));
        assert!(told(&output).contains("--broker embedded"), "{}", told(&output));
    }
    let output = without_engine("auto");
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(
        told(&output).contains("warning: EMQX is not used: no Docker engine answers"),
        "{}",
        told(&output)
    );
    let reports = std::fs::read_dir(folder.path().join("reports/short")).expect("a report");
    let report = reports.flatten().next().expect("a run").path().join("report.json");
    let report = std::fs::read_to_string(report).expect("a report");
    assert!(report.contains("in place of EMQX: no Docker engine answers"), "the report says so, too");
}

#[test]
fn a_fault_that_a_container_cannot_act_out_is_refused_before_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let step = "[[step]]\ndo = \"drop-udp\"\nat = \"100 ms\"\nfor = \"100 ms\"\n";
    let scenario = scenario(folder.path(), 3, "delivery.ratio = 100 %", step);
    let output =
        ended(harness(folder.path(), &scenario, "docker:some/image:1").spawn().expect("the harness"));
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("drop UDP"), "{}", told(&output));
    assert!(!folder.path().join("reports").exists(), "nothing was run");
}

#[test]
fn success_failure_and_interrupt_leave_no_container() {
    let Some(image) = image() else { return };
    let _alone = ENGINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let broker = format!("docker:{image}");
    let folder = tempfile::tempdir().expect("a folder");
    for (expect, code) in [("delivery.ratio = 100 %", 0), ("delivery.ratio < 1 %", 1)] {
        let scenario = scenario(folder.path(), 3, expect, "");
        let child = harness(folder.path(), &scenario, &broker).spawn().expect("the harness");
        let pid = child.id();
        let output = ended(child);
        assert_eq!(output.status.code(), Some(code), "{}", told(&output));
        assert_eq!(containers_of(pid), "");
        let logs = std::fs::read_dir(folder.path().join("reports/short")).expect("reports").flatten();
        let logs =
            logs.map(|run| std::fs::read_to_string(run.path().join("broker.log")).expect("the broker's log"));
        assert!(logs.into_iter().all(|log| log.contains("ready")), "the container's own words are kept");
    }
    std::fs::remove_dir_all(folder.path().join("reports")).expect("reports");
    let scenario = scenario(folder.path(), 600, "delivery.ratio = 100 %", "");
    for name in ["-INT", "-TERM"] {
        let child = harness(folder.path(), &scenario, &broker).spawn().expect("the harness");
        let pid = child.id();
        wait_for_container(&child, folder.path());
        signal(&child, name);
        let output = ended(child);
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        assert_eq!(containers_of(pid), "", "{name}");
        std::fs::remove_dir_all(folder.path().join("reports")).expect("reports");
    }
}

#[test]
fn an_interrupt_while_the_container_starts_leaves_none() {
    let Some(image) = image() else { return };
    let _alone = ENGINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let broker = format!("docker:{image}");
    let folder = tempfile::tempdir().expect("a folder");
    let scenario = scenario(folder.path(), 600, "delivery.ratio = 100 %", "");
    for delay_ms in [50, 100, 200, 400, 800] {
        let child = harness(folder.path(), &scenario, &broker).spawn().expect("the harness");
        let pid = child.id();
        std::thread::sleep(Duration::from_millis(delay_ms));
        signal(&child, "-INT");
        let output = ended(child);
        // Before it listened for signals; while the broker started, when nothing ran; in a trial, whose report it made.
        let way = (output.status.signal(), output.status.code());
        assert!(matches!(way, (Some(2), _) | (_, Some(3 | 1))), "after {delay_ms} ms: {}", told(&output));
        if way == (None, Some(3)) {
            assert!(told(&output).contains("nothing ran"), "after {delay_ms} ms: {}", told(&output));
        }
        assert_eq!(containers_of(pid), "", "after {delay_ms} ms, {way:?}");
    }
}

#[test]
fn an_interrupt_of_a_fleet_while_its_broker_starts_does_not_wait_for_it() {
    let Some(image) = image() else { return };
    let _alone = ENGINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("docker.sock");
    let engine = Relay::start(&socket);
    // Nobody answers: it would wait for that for half a minute.
    engine.hold();
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command.args(["fleet", "--devices", "2", "--broker", &format!("docker:{image}"), "--reports"]);
    command.arg(folder.path()).env("DOCKER_HOST", format!("unix://{}", socket.display()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the harness");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("starting the broker") {
        line.clear();
        assert!(stderr.read_line(&mut line).expect("text") > 0, "it ended");
    }
    signal(&child, "-INT");
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("text");
    assert_eq!(ended(child).status.code(), Some(3), "{rest}");
    assert!(rest.contains("interrupted while the broker started; nothing ran"), "{rest}");
}

/// The first interrupt ends the run in order, which may take its time; the second does not wait.
#[test]
fn a_second_interrupt_ends_at_once_and_the_next_run_sweeps() {
    let Some(image) = image() else { return };
    let _alone = ENGINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let broker = format!("docker:{image}");
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("docker.sock");
    let engine = Relay::start(&socket);
    let long = scenario(folder.path(), 600, "delivery.ratio = 100 %", "");
    let mut command = harness(folder.path(), &long, &broker);
    command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
    let mut child = command.spawn().expect("the harness");
    let pid = child.id();
    wait_for_container(&child, folder.path());
    // The container cannot be removed: the engine says no word.
    engine.hold();
    signal(&child, "-INT");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let heard = lines.take_while(|line| !line.contains("once more ends at once")).count();
    assert!(child.try_wait().expect("a child").is_none(), "it ends in order, after {heard} lines");
    signal(&child, "-INT");
    let output = ended(child);
    assert_eq!(output.status.code(), Some(130), "{}", told(&output));
    assert_ne!(containers_of(pid), "", "nobody was left to remove it");
    let short = scenario(folder.path(), 3, "delivery.ratio = 100 %", "");
    let output = ended(harness(folder.path(), &short, &broker).spawn().expect("the harness"));
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(containers_of(pid), "");
}

#[test]
fn the_container_of_a_killed_run_is_swept_up_by_the_next_whatever_its_broker() {
    let Some(image) = image() else { return };
    let _alone = ENGINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let broker = format!("docker:{image}");
    let folder = tempfile::tempdir().expect("a folder");
    let long = scenario(folder.path(), 6_000, "delivery.ratio = 100 %", "");
    // It lives all the time: its container is nobody else's business.
    let mut living = Running(Some(harness(folder.path(), &long, &broker).spawn().expect("the harness")));
    wait_for_container(living.child(), folder.path());
    for next in [broker.as_str(), "auto", "embedded", "fleet"] {
        let folder = tempfile::tempdir().expect("a folder");
        let long = scenario(folder.path(), 600, "delivery.ratio = 100 %", "");
        let child = harness(folder.path(), &long, &broker).spawn().expect("the harness");
        let killed = child.id();
        wait_for_container(&child, folder.path());
        signal(&child, "-KILL");
        ended(child);
        assert_ne!(containers_of(killed), "", "nobody was left to remove it");
        let short = scenario(folder.path(), 3, "delivery.ratio = 100 %", "");
        let mut command =
            if next == "fleet" { fleet(folder.path()) } else { harness(folder.path(), &short, next) };
        let child = command.arg("-v").spawn().expect("the harness");
        let next_pid = child.id();
        let output = ended(child);
        // So few devices do not carry the fixed cost of a fleet's process: that is not judged here.
        assert!(matches!(output.status.code(), Some(0)) || next == "fleet", "{next}: {}", told(&output));
        let swept = told(&output).matches("left behind by a harness that was killed").count();
        assert_eq!(swept, 1, "{next}: {}", told(&output));
        assert_eq!(
            (containers_of(killed), containers_of(next_pid)),
            (String::new(), String::new()),
            "{next}"
        );
    }
    let living = living.0.take().expect("it was not taken before");
    let pid = living.id();
    assert_ne!(containers_of(pid), "", "it is in use");
    signal(&living, "-INT");
    ended(living);
    assert_eq!(containers_of(pid), "");
}

/// A run that ends with the test, however that ends.
struct Running(Option<Child>);

impl Running {
    fn child(&self) -> &Child {
        self.0.as_ref().expect("nobody took it")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A small fleet with the embedded broker.
fn fleet(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command.args(["fleet", "--devices", "2", "--messages", "1", "--interval", "50ms", "--storm", "none"]);
    command.arg("--reports").arg(folder.join("fleet"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A run that needs no engine does not speak of one, whether there is none or one that says nothing.
#[test]
fn without_an_engine_nothing_is_swept_and_nothing_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let scenario = scenario(folder.path(), 3, "delivery.ratio = 100 %", "");
    let silent = folder.path().join("silent.sock");
    let _listener = UnixListener::bind(&silent).expect("a socket");
    for socket in [folder.path().join("none.sock"), silent] {
        let mut command = harness(folder.path(), &scenario, "embedded");
        let child = command.env("DOCKER_HOST", format!("unix://{}", socket.display())).spawn();
        let output = ended(child.expect("the harness"));
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        let talk = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(!talk.contains("docker") && !talk.contains("warn"), "{talk}");
    }
}

#[test]
fn an_engine_that_goes_in_the_middle_of_a_run_ends_it_with_an_error() {
    let Some(image) = image() else { return };
    let _alone = ENGINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let broker = format!("docker:{image}");
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("docker.sock");
    let engine = Relay::start(&socket);
    // The freeze comes when the engine is gone.
    let step = "[[step]]\ndo = \"freeze-broker\"\nat = \"4 s\"\nfor = \"1 s\"\n";
    let path = scenario(folder.path(), 100, "delivery.ratio = 100 %", step);
    let mut command = harness(folder.path(), &path, &broker);
    command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
    let child = command.spawn().expect("the harness");
    let pid = child.id();
    wait_for_container(&child, folder.path());
    engine.die();
    let output = ended(child);
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    assert!(told(&output).contains("Docker cannot pause the container"), "{}", told(&output));
    // It could not be removed without the engine: the next run does it.
    let short = scenario(folder.path(), 3, "delivery.ratio = 100 %", "");
    let output = ended(harness(folder.path(), &short, &broker).spawn().expect("the harness"));
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(containers_of(pid), "");
}

/// The container may go while no step has to do with it: whatever the clients make of that, it is not their fault.
#[test]
fn a_container_that_goes_in_the_middle_of_a_run_ends_it_with_its_last_lines() {
    let Some(image) = image() else { return };
    let _alone = ENGINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let broker = format!("docker:{image}");
    // Whoever waits for what cannot come, waits longer than this test does.
    let limits = "[limits]\nworkload = \"600 s\"\ndrain = \"60 s\"\n";
    for (way, engine_dies, statuses) in [
        (&["kill"][..], false, &["exit code 137"][..]),
        // It is killed first.
        (&["rm", "-f"], false, &["exit code 137", "it was removed"]),
        (&["rm", "-f"], true, &["its engine does not tell how: Docker cannot look at the container"]),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = scenario(folder.path(), 6_000, "delivery.ratio = 100 %", limits);
        let socket = folder.path().join("docker.sock");
        let engine = Relay::start(&socket);
        let mut command = harness(folder.path(), &path, &broker);
        let child = command.env("DOCKER_HOST", format!("unix://{}", socket.display())).spawn();
        let child = child.expect("the harness");
        let pid = child.id();
        wait_for_container(&child, folder.path());
        if engine_dies {
            engine.die();
        }
        let ended_it =
            Command::new("docker").args(way).arg(containers_of(pid).trim()).output().expect("docker");
        assert!(ended_it.status.success());
        let output = ended(child);
        assert_eq!(output.status.code(), Some(3), "{way:?}: {}", told(&output));
        // The report wraps its lines.
        let words = told(&output).split_whitespace().collect::<Vec<_>>().join(" ");
        let told_so = |status: &&str| words.contains(&format!("ended during the run ({status}"));
        assert!(statuses.iter().any(told_so), "{way:?}: {words}");
        assert!(engine_dies || !words.contains("cannot remove"), "somebody may have done it: {words}");
        assert!(words.contains("its last lines") && words.contains("ready"), "{way:?}: {words}");
        assert!(words.contains("docker events"), "{way:?}: {words}");
        assert_eq!(containers_of(pid), "", "{way:?}");
    }
}

#[test]
fn a_container_that_goes_under_a_fleet_ends_it_with_its_last_lines() {
    let Some(image) = image() else { return };
    let _alone = ENGINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command.args(["fleet", "--devices", "2", "--messages", "10", "--interval", "60s", "--storm", "none"]);
    command.args(["--broker", &format!("docker:{image}"), "--reports"]).arg(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the harness");
    let pid = child.id();
    let mut talk = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    assert!(talk.any(|line| line.contains("publishing")), "it ended before");
    // From now on its talk is nobody's.
    std::thread::spawn(move || talk.count());
    let killed = Command::new("docker").arg("kill").arg(containers_of(pid).trim()).output().expect("docker");
    assert!(killed.status.success());
    let output = ended(child);
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    let words = told(&output).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("ended during the run (exit code 137)"), "{words}");
    assert!(words.contains("its last lines") && words.contains("ready"), "{words}");
    assert_eq!(containers_of(pid), "");
}

/// Stands between the harness and the engine, so that it can go without taking the engine along.
struct Relay {
    streams: Arc<Mutex<Option<Vec<UnixStream>>>>,
    held: Arc<AtomicBool>,
}

impl Relay {
    fn start(at: &Path) -> Self {
        let listener = UnixListener::bind(at).expect("a socket");
        let streams = Arc::new(Mutex::new(Some(Vec::new())));
        let held = Arc::<AtomicBool>::default();
        let (shared, holding) = (Arc::clone(&streams), Arc::clone(&held));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut open = shared.lock().expect("no holder panics");
                let Some(open) = open.as_mut() else { return };
                let engine = UnixStream::connect("/var/run/docker.sock").expect("the engine");
                for (from, to) in [(&stream, &engine), (&engine, &stream)] {
                    let (from, to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                    let held = Arc::clone(&holding);
                    std::thread::spawn(move || pump(from, to, &held));
                }
                open.extend([stream, engine]);
            }
        });
        Self { streams, held }
    }

    /// From now on nothing passes, and nobody is told.
    fn hold(&self) {
        self.held.store(true, Ordering::Relaxed);
    }

    fn die(self) {
        for stream in self.streams.lock().expect("no holder panics").take().into_iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pump(mut from: UnixStream, mut to: UnixStream, held: &AtomicBool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        while held.load(Ordering::Relaxed) {
            std::thread::park();
        }
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
