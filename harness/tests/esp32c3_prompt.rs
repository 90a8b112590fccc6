//! Wi-Fi credentials asked for at a terminal: the password is taken and not shown, and whatever ends the question leaves a
//! terminal that shows what is typed.

mod bench_c3;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bench_c3::bench::Bench;
use bench_c3::device::{PASSWORD, SSID, Script};
use bench_c3::pty::Pty;
use rustix::process::{Pid, Signal, kill_process};

/// Long enough for a busy machine; nothing is judged by it.
const LIMIT: Duration = Duration::from_secs(60);
const QUESTION: &str = "Password (not shown): ";

/// Starts a scenario without credentials, in a session whose terminal is `keyboard`.
fn start(bench: &Bench, keyboard: &Pty) -> Child {
    let mut scenario = bench.scenario("hello", &[]);
    scenario.env_remove("HARNESS_WIFI_SSID").env_remove("HARNESS_WIFI_PASSWORD");
    // It becomes the harness: signals and exit code are the harness's own.
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(scenario.get_program()).args(scenario.get_args());
    for (name, value) in scenario.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(bench.state.path()).stdout(Stdio::null());
    command.stdin(keyboard.terminal()).stderr(keyboard.terminal());
    command.spawn().expect("util-linux is there, and the harness was built")
}

/// Answers the first question, and waits for the second.
fn name_the_network(keyboard: &mut Pty) -> String {
    let mut heard = String::new();
    keyboard.hear(&mut heard, "Wi-Fi network: ", LIMIT);
    assert!(keyboard.echoes(), "a name may be seen");
    keyboard.say(format!("{SSID}\r").as_bytes());
    keyboard.hear(&mut heard, QUESTION, LIMIT);
    assert!(!keyboard.echoes(), "a password may not");
    heard
}

/// Waits for its end; what it says meanwhile is added to `heard`.
fn end(mut harness: Child, keyboard: &mut Pty, heard: &mut String) -> Option<i32> {
    let mut bytes = [0; 1024];
    loop {
        let len = keyboard.read(&mut bytes, Duration::from_millis(20));
        heard.push_str(&String::from_utf8_lossy(&bytes[..len]));
        if let (0, Some(status)) = (len, harness.try_wait().expect("it is ours")) {
            return status.code();
        }
    }
}

#[test]
fn a_password_is_typed_unseen_and_joins_the_network() {
    let bench = Bench::new(Script::default());
    let mut keyboard = Pty::open();
    keyboard.cook();
    let harness = start(&bench, &keyboard);
    let mut heard = name_the_network(&mut keyboard);
    keyboard.say(format!("{PASSWORD}\r").as_bytes());
    let code = end(harness, &mut keyboard, &mut heard);
    assert_eq!(code, Some(0), "{heard}");
    assert!(heard.contains(SSID) && !heard.contains(PASSWORD), "{heard}");
    assert!(keyboard.echoes(), "{heard}");
}

#[test]
fn a_signal_at_the_question_leaves_a_terminal_that_echoes_and_ends_as_other_interrupts() {
    // Ctrl-C as it is typed, and what `kill` sends.
    for typed in [true, false] {
        let bench = Bench::new(Script::default());
        let mut keyboard = Pty::open();
        keyboard.cook();
        let harness = start(&bench, &keyboard);
        let mut heard = name_the_network(&mut keyboard);
        match typed {
            true => keyboard.say(b"\x03"),
            false => kill_process(Pid::from_child(&harness), Signal::TERM).expect("it runs"),
        }
        let code = end(harness, &mut keyboard, &mut heard);
        assert_eq!(code, Some(130), "{heard}");
        assert!(keyboard.echoes(), "typed: {typed}");
    }
}
