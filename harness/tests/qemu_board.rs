//! The QEMU board as the harness runs it: boot, faults with decoded backtraces, a damaged console, sleep, and no
//! emulator left behind. Not part of plain `cargo test`: QEMU and a RISC-V compiler are needed.

mod scenario_support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use device::control::frame::{self, Decoder, FRAME_MAX, Piece};
use device::control::{
    self, Addressing, Answer, CipherChoice, Congestion, Fault, KeyExchange, MqttSettings, MqttVersion, Phase,
    QuicSettings, Reconnection, Report, Request, Resumption, Settings, StreamMode, Transport, clipped,
};
use harness::board::qemu::QemuMachine;
use harness::board::{Board, BoardError, Death, Machine as _, Options};
use harness::count;
use harness::firmware::build::{Firmware, build};
use harness::measure::record::{Activity, Cost};
use scenario_support::{Bench, tiny};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const MAC: [u8; 6] = [0x02, 0x4d, 0x51, 77, 0, 2];
const LIMIT: Duration = Duration::from_secs(30);

fn firmware() -> &'static Path {
    static ELF: OnceLock<PathBuf> = OnceLock::new();
    ELF.get_or_init(|| build(Firmware::Qemu, |line| eprintln!("{line}")).expect("the firmware builds"))
}

fn machine() -> QemuMachine {
    let tether = PathBuf::from(env!("CARGO_BIN_EXE_harness"));
    QemuMachine::with_tether(tether, firmware(), MAC).expect("an image and a place for sockets").seeded(7)
}

async fn board() -> Board {
    Board::start(machine(), Options::new()).await.expect("the board starts")
}

/// Makes a board fail and waits for its end.
async fn death_by(fault: Fault) -> Death {
    let mut board = board().await;
    assert_eq!(board.command(Request::Crash(fault)).await.expect("answered first"), Answer::Done);
    match board.wait_for("nothing", LIMIT, |_| None::<()>).await.unwrap_err() {
        BoardError::Died(death) => *death,
        error => panic!("{error}"),
    }
}

/// Whether a frame names a function of `file` with a line.
fn has_frame(backtrace: &[String], function: &str, file: &str) -> bool {
    backtrace.iter().any(|frame| frame.contains(function) && frame.contains(&format!("{file}:")))
}

#[tokio::test]
async fn it_boots_and_reports_its_memory() {
    let mut board = board().await;
    assert_eq!(board.boot().board, "qemu");
    let memory = board.wait_for("memory", LIMIT, |report| match report {
        Report::Memory(memory) => Some(*memory),
        _ => None,
    });
    let memory = memory.await.expect("reported at boot");
    assert_eq!(memory.phase, Phase::Boot);
    let (statics, stack) = (memory.static_ram.expect("known"), memory.stack_size.expect("known"));
    // All of the 320 KiB, but for the guard, its alignment and the seed.
    assert!((statics + stack).abs_diff(320 * 1024) <= 2 * 4096 + 16, "{memory:?}");
}

#[tokio::test]
async fn a_panic_is_named_with_its_message_and_place() {
    let death = death_by(Fault::Panic).await;
    let cause = death.cause.as_deref().expect("a crash report");
    assert!(cause.starts_with("panic at src/board.rs:") && cause.ends_with("asked to panic"), "{cause}");
    assert_eq!(death.status.as_deref(), Some("the firmware panicked"));
    assert!(has_frame(&death.backtrace, "fail", "board.rs"), "{:#?}", death.backtrace);
    assert!(has_frame(&death.backtrace, "act", "node/mod.rs"), "{:#?}", death.backtrace);
}

#[tokio::test]
async fn a_stack_overflow_is_named_with_the_recursion() {
    let death = death_by(Fault::StackOverflow).await;
    assert_eq!(death.cause.as_deref(), Some("stack overflow"));
    // The place is the recursion, or what of Rust's library it has called.
    assert!(has_frame(&death.backtrace, "descend", "board.rs"), "{:#?}", death.backtrace);
    let said = death.to_string();
    let (_, place) =
        said.split_once("stack overflow (the firmware trapped); at ").expect("the place is told");
    assert!(place.split_whitespace().nth(1).is_some_and(|name| name.ends_with("descend")), "{death}");
}

#[tokio::test]
async fn exhausted_memory_is_named_with_its_place() {
    let death = death_by(Fault::Exhaustion).await;
    assert_eq!(death.cause.as_deref(), Some("memory exhausted: access past the end of RAM"));
    assert!(has_frame(&death.backtrace, "exhaust", "memory.rs"), "{:#?}", death.backtrace);
    assert!(has_frame(&death.backtrace, "act", "node/mod.rs"), "{:#?}", death.backtrace);
}

#[tokio::test]
async fn a_hang_is_noticed_and_located_and_a_reset_cures_it() {
    let options = Options { command_limit: Duration::from_millis(1_500), ..Options::new() };
    let mut board = Board::start(machine(), options).await.expect("the board starts");
    board.command(Request::Crash(Fault::Hang)).await.expect("answered first");
    let started = Instant::now();
    // Nobody asks it anything: its silence is enough.
    let error = board.wait_for("nothing", LIMIT, |_| None::<()>).await.unwrap_err();
    let BoardError::Hung { place, .. } = &error else { panic!("{error}") };
    let backtrace = &place.backtrace;
    assert!(started.elapsed() < LIMIT);
    assert!(has_frame(backtrace, "hang", "board.rs"), "{backtrace:#?}");
    assert!(has_frame(backtrace, "act", "node/mod.rs"), "{backtrace:#?}");
    board.reset().await.expect("it starts again");
    board.command(Request::Announce).await.expect("it answers again");
}

/// The same from the outside: the run goes on to a failed verdict that names the fault and its place.
#[test]
fn a_run_whose_board_fails_ends_in_a_verdict_that_names_the_fault_and_its_place() {
    firmware();
    for (fault, cause, place) in [
        ("panic", "asked to panic", "board.rs:"),
        ("stack-overflow", "stack overflow", "descend"),
        ("exhaustion", "memory exhausted", "exhaust"),
        ("hang", "the board hangs", "hang"),
    ] {
        let bench = Bench::new();
        let step = format!("\n[[step]]\ndo = \"crash-board\"\nfault = \"{fault}\"\nat = \"200 ms\"\n");
        let path = bench.file("tiny.toml", &tiny("", &step));
        let ended = bench.run(&["scenario", &path, "--board", "qemu"]);
        ended.expect(1, &["FAILED", cause, place]);
        assert!(ended.took < Duration::from_secs(45), "{fault}: {ended:?}");
        let report = bench.report();
        let events = report["record"]["trials"][0]["events"].as_array().expect("events");
        let faults = events.iter().filter(|event| event["kind"] == "board-fault").count();
        assert_eq!(faults, 1, "{fault}: board.faults = 0 must not pass");
    }
}

/// What damage does on the way to the board: frames cut short, bits flipped, noise.
#[tokio::test]
async fn a_damaged_frame_never_loses_the_next_one() {
    let mut machine = machine();
    let connection = machine.start().await.expect("it starts");
    let (mut from, mut to) = (connection.from_board, connection.to_board);
    let encode = |sequence| {
        let command = control::Command { sequence, request: Request::Ping { host_us: 1 } };
        let mut bytes = [0; FRAME_MAX];
        let len = frame::encode(&command, &mut bytes).expect("fits");
        bytes[..len].to_vec()
    };
    let whole = encode(1);
    let mut sequence = 100;
    let mut decoder = Decoder::<FRAME_MAX>::new();
    let mut buffer = [0; 4096];
    for cut in 1..whole.len() {
        let mut damaged = whole.clone();
        if cut % 2 == 0 {
            damaged.truncate(cut)
        } else {
            damaged[cut] ^= 0x55
        };
        sequence += 1;
        to.write_all(&damaged).await.expect("it listens");
        to.write_all(&encode(sequence)).await.expect("it listens");
        let answered = async {
            loop {
                let len = from.read(&mut buffer).await.expect("it is alive");
                assert!(len > 0, "the console closed");
                let mut input = &buffer[..len];
                while let Some(piece) = decoder.next(&mut input) {
                    let Piece::Message(message) = piece else { continue };
                    if let Ok(Report::Reply { sequence: answered, .. }) = Report::decode(message)
                        && answered == sequence
                    {
                        return;
                    }
                }
            }
        };
        let answered = tokio::time::timeout(LIMIT, answered).await;
        answered.unwrap_or_else(|_| panic!("no answer behind a frame damaged at {cut}"));
    }
}

/// Ticks of processor time that a process used, user and system (proc(5): 14th and 15th field).
fn ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    let fields = stat.rsplit_once(')').expect("the name is in parentheses").1;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
}

#[tokio::test]
async fn an_idle_board_uses_no_processor_time() {
    let mut board = board().await;
    board.command(Request::Announce).await.expect("it runs");
    let process = board.process_id().expect("a process");
    // Translation of what ran so far is over by then.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = ticks(process);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = ticks(process) - before;
    // A tick is 10 ms: a main loop that spins uses 200 on a free processor.
    assert!(used <= 6, "{used} ticks in 2 s");
    board.command(Request::Announce).await.expect("it wakes up");
}

#[tokio::test]
async fn nothing_is_left_when_the_board_is_dropped() {
    let board = board().await;
    let process = board.process_id().expect("a process");
    drop(board);
    wait_for_end(process);
}

/// As when the harness is killed: nobody is left to end the emulator but the kernel.
#[test]
fn nothing_is_left_when_the_harness_is_killed() {
    firmware();
    let reports = tempfile::tempdir().expect("a directory");
    let mut harness = Command::new(env!("CARGO_BIN_EXE_harness"))
        .args(["scenario", "soak", "--board", "qemu", "--repeat", "1", "--reports"])
        .arg(reports.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the harness runs");
    let started = Instant::now();
    let emulator = loop {
        if let Some(emulator) = emulator_of(harness.id()) {
            break emulator;
        }
        assert!(started.elapsed() < 10 * LIMIT, "no emulator was started");
        std::thread::sleep(Duration::from_millis(20));
    };
    harness.kill().expect("it runs");
    harness.wait().expect("a child");
    wait_for_end(emulator);
}

/// The child of `parent` that has become QEMU.
fn emulator_of(parent: u32) -> Option<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).ok()?;
    let children = tasks
        .filter_map(Result::ok)
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|children| children.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    children.into_iter().find_map(|child| {
        let name = std::fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        if name.starts_with("qemu-system") { child.parse().ok() } else { None }
    })
}

/// Waits until a process is gone or nothing but its exit status.
fn wait_for_end(process: u32) {
    let started = Instant::now();
    let alive = || {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    };
    while alive() {
        assert!(started.elapsed() < LIMIT, "process {process} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn settings(transport: Transport) -> Settings {
    Settings {
        addressing: Addressing::Dhcp,
        local_port: 0,
        broker: ([0, 0, 0, 0], 0).into(),
        transport,
        server_name: clipped(""),
        unix_time_s: 0,
        key_exchange: KeyExchange::X25519,
        ciphers: CipherChoice::Any,
        resumption: Resumption::Off,
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
            client_id: clipped(""),
            keep_alive_s: 60,
            clean_start: true,
            session_expiry_s: 0,
            username: None,
            password: None,
            will: None,
        },
        reconnection: Reconnection::Never,
        connect_timeout_ms: 20_000,
        answer_timeout_ms: 10_000,
        migrate_after_timeouts: 3,
        give_up_after_timeouts: 7,
    }
}

fn counts(costs: &[Cost], activity: Activity) -> &[u64] {
    costs.iter().find(|cost| cost.activity == activity).map_or(&[], |cost| &cost.instructions)
}

/// The same seed gives the same counts, to the last instruction; and every activity is counted.
#[tokio::test]
async fn instruction_counts_repeat_exactly() {
    for transport in [Transport::Quic, Transport::Tls, Transport::Tcp] {
        let count = |seed| count::measure(machine(), settings(transport), seed, None);
        let costs = count(3).await.expect("counted");
        assert_eq!(costs, count(3).await.expect("counted again"), "{transport:?}");
        for (activity, expected) in [
            (Activity::FirstFlight, [3, 0, 0]),
            (Activity::HandshakeFull, [1, 1, 0]),
            (Activity::HandshakeResumed, [1, 1, 0]),
            (Activity::HandshakeZeroRtt, [1, 0, 0]),
            (Activity::PublicKey, [1, 1, 0]),
            (Activity::Connect, [2, 2, 1]),
            (Activity::PublishQos0, [8, 8, 8]),
            (Activity::PublishQos1, [8, 8, 8]),
            (Activity::PublishQos2, [8, 8, 8]),
            (Activity::Receive, [8, 8, 8]),
        ] {
            let counted = counts(&costs, activity).len();
            assert_eq!(counted, expected[transport as usize], "{activity:?} over {transport:?}: {costs:?}");
        }
    }
}

/// A signature takes more or fewer steps to verify, depending on its bits.
#[tokio::test]
async fn another_seed_gives_other_counts() {
    let count = |seed| count::measure(machine(), settings(Transport::Tls), seed, None);
    let (one, other) = (count(3).await.expect("counted"), count(4).await.expect("counted"));
    assert_ne!(counts(&one, Activity::HandshakeFull), counts(&other, Activity::HandshakeFull));
}
