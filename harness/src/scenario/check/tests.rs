use std::time::Duration;

use miette::{GraphicalReportHandler, GraphicalTheme};

use super::super::{Action, MqttVersion, Pace, Scenario, SessionState, Streams};
use super::*;

const GOOD: &str = r#"name = "good"
question = "Does it work?"
answer = "{delivery.ratio} arrived."
transports = ["quic", "tls"]
seeds = [7, 9]
reference = true
expect = [
    "delivery.ratio = 100 %",
    "publish.latency.p99 <= 2 s for quic",
]

[link.both]
delay = "20 ms"
loss = "5 %"

[[link.rebind]]
after = "workload"
at = "2 s"

[workload.up]
topics = 2
qos = 1
size = "64 B"
count = 100
interval = "20 ms"

[connection]
streams = "per-topic"

[[step]]
do = "restart-broker"
at = "3 s"
session = "lose"

[limits]
connect = "8 s"
"#;

#[test]
fn a_good_file_is_read_whole() {
    let scenario =
        Scenario::parse("good.toml", GOOD).unwrap_or_else(|e| panic!("{:?}", miette::Report::new(e)));
    assert_eq!(scenario.variants.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), ["quic", "tls"]);
    assert_eq!(scenario.seeds, [7, 9]);
    let up = scenario.up.unwrap();
    assert_eq!((up.topics, up.size, up.pace), (2, 64, Pace::Every(Duration::from_millis(20))));
    assert_eq!(scenario.down, None);
    assert_eq!(scenario.steps[0].action, Action::RestartBroker(SessionState::Lose));
    assert_eq!(scenario.limits.connect, Duration::from_secs(8));
    assert_eq!(scenario.link.path(link::Direction::Up).delay, Some(link::units::Time::from_millis(20)));
    assert_eq!(scenario.expectations[1].variants, ["quic"]);
}

/// The error of `GOOD` with one piece replaced, as a terminal would show it.
fn shown(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from:?} is not in the file");
    let error = Scenario::parse("good.toml", &GOOD.replacen(from, to, 1)).expect_err(to);
    let mut text = String::new();
    GraphicalReportHandler::new_themed(GraphicalTheme::none())
        .with_width(100)
        .render_report(&mut text, &error)
        .unwrap();
    text
}

/// Position, problem and remedy of each mistake.
fn mistakes(from: &str, to: &str) -> Vec<String> {
    use miette::Diagnostic as _;
    assert!(GOOD.contains(from), "{from:?} is not in the file");
    let error = Scenario::parse("good.toml", &GOOD.replacen(from, to, 1)).expect_err(to);
    let one = |error: &dyn miette::Diagnostic| {
        format!("{error} | {}", error.help().map(|help| help.to_string()).unwrap_or_default())
    };
    std::iter::once(one(&error)).chain(error.related().into_iter().flatten().map(one)).collect()
}

#[test]
fn a_mistake_shows_file_line_column_text_and_remedy() {
    let text = shown("loss = \"5 %\"", "loss = \"130 %\"");
    println!("{text}");
    for part in ["good.toml:14:8", "loss = \"130 %\"", "outside 0 % to 100 %", "help: write for example"] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[test]
fn each_mistake_is_answered_with_its_remedy() {
    let cases = [
        ("count = 100", "cuont = 100", "good.toml:24:1: there is no key `cuont` here | did you mean count?"),
        (
            "delay = \"20 ms\"",
            "dealy = \"20 ms\"",
            "good.toml:13:1: there is no key `dealy` here | did you mean delay?",
        ),
        (
            "delay = \"20 ms\"",
            "delay = \"-20 ms\"",
            "good.toml:13:9: \"-20 ms\" is no time: it is negative | write for example",
        ),
        ("delay = \"20 ms\"", "delay = \"20\"", "good.toml:13:9: \"20\" is no time: its unit is missing"),
        (
            "delay = \"20 ms\"",
            "delay = 20",
            "good.toml:13:9: invalid type: integer `20`, expected a time with its unit",
        ),
        (
            "\"quic\", \"tls\"",
            "\"quik\", \"tls\"",
            "good.toml:4:15: `quik` is not a choice here | did you mean quic?",
        ),
        ("\"quic\", \"tls\"", "\"tls\", \"tls\"", "good.toml:4:22: tls is named twice"),
        ("question = \"Does it work?\"\n", "", "good.toml:1:1: the key `question` is missing | add question"),
        ("work?", "work", "good.toml:2:12: a scenario asks a question | end it with a question mark"),
        ("\"good\"", "\"bad\"", "good.toml:1:8: the scenario is called \"bad\", its file \"good\""),
        ("\"good\"", "\"Good One\"", "good.toml:1:8: \"Good One\" is no scenario name"),
        ("qos = 1", "qos = 3", "good.toml:22:7: MQTT has no QoS 3 | write 0, 1 or 2"),
        ("topics = 2", "topics = 99", "good.toml:21:10: topics = 99 is outside 1 to 8"),
        ("\"64 B\"", "\"8 B\"", "good.toml:23:8: a payload of 8 B is outside 24 B to 1024 B"),
        ("count = 100", "count = 0", "good.toml:24:9: a workload of no messages"),
        (
            "\"workload\"",
            "\"worklod\"",
            "good.toml:17:9: no event is called \"worklod\" | did you mean workload?",
        ),
        ("session = \"lose\"", "for = \"5 s\"", "good.toml:33:1: restart-broker takes no for | leave it out"),
        (
            "do = \"restart-broker\"",
            "do = \"restart-brokr\"",
            "`restart-brokr` is not a choice here | did you mean restart-broker?",
        ),
        (
            "do = \"restart-broker\"\nat = \"3 s\"\nsession = \"lose\"",
            "do = \"freeze-broker\"",
            "freeze-broker needs to know how long | write for example for = \"5 s\"",
        ),
        (
            "for quic",
            "for quick",
            "good.toml:9:37: \"quick\" is no variant or role of this scenario | did you mean quic?",
        ),
        (
            "publish.latency.p99",
            "publish.latncy.p99",
            "good.toml:9:6: there is no metric publish.latncy | did you mean publish.latency.p99?",
        ),
        (
            "{delivery.ratio}",
            "{delivery.rate}",
            "good.toml:3:12: there is no metric delivery.rate | did you mean delivery.ratio?",
        ),
        ("seeds = [7, 9]", "seeds = [7, 7]", "good.toml:5:13: seed 7 is named twice"),
        (
            "seeds = [7, 9]",
            "seeds = [7, 9]\nrepeat = 2",
            "good.toml:6:10: seeds and repeat exclude each other",
        ),
        (
            "streams = \"per-topic\"",
            "datagram = \"900 B\"",
            "good.toml:28:12: datagram = 900 B is outside 1200 B to 1472 B",
        ),
        (
            "loss = \"5 %\"",
            "queue = \"5 packets\"",
            "good.toml:14:9: link.both.queue: a queue forms only before a bottleneck | give a rate as well",
        ),
        (
            "loss = \"5 %\"",
            "corrupt = { probability = \"5 %\", bits = 0 }",
            "good.toml:14:41: link.both.corrupt.bits: 0 is not between 1 and 8 | leave bits out for one",
        ),
        (
            "[[link.rebind]]",
            "[link.up]\nloss = { run_max = 0, random = \"1 %\" }\n\n[[link.rebind]]",
            "good.toml:17:20: link.up.loss.run_max: 0 would lose nothing",
        ),
        (
            "at = \"2 s\"",
            "at = \"2 s\"\ncount = 3",
            "good.toml:19:9: link.rebind[0].count: it needs a period to repeat with | write for example period",
        ),
        (
            "loss = \"5 %\"",
            "loss = { packets = \"7-2\" }",
            "the range ends before it starts | write for example \"2-7, 9\"",
        ),
        (
            "count = 100",
            "count = -100",
            "expected a whole number from 0 to 4294967295 | write a whole number from 0",
        ),
        ("count = 100", "count = 4000000000", "good.toml:24:9: 4000000000 messages are more than 1000000"),
        (
            "interval = \"20 ms\"",
            "interval = \"2 h\"",
            "good.toml:25:12: an interval of 7200 s is longer than 3600 s",
        ),
        ("interval = \"20 ms\"", "interval = \"20 ns\"", "an interval of 20 ns | leave interval out"),
        ("connect = \"8 s\"", "connect = \"0 s\"", "good.toml:36:11: a limit of no time for connect"),
        (
            "streams = \"per-topic\"",
            "keep_alive = \"500 ms\"",
            "good.toml:28:14: keep_alive = 500 ms is outside 1 s to 65535 s | write a time between them",
        ),
        (
            "streams = \"per-topic\"",
            "idle_timeout = \"1 us\"",
            "idle_timeout = 1 us is outside 1 ms to 86400 s",
        ),
        (
            "[limits]",
            "[limits",
            "good.toml:35:8: unclosed table, expected `]` | a line is `key = value`, a table",
        ),
        ("seeds = [7, 9]", "seeds [7, 9]", "| a line is `key = value`"),
        ("seeds = [7, 9]", "seeds = [7, nine]", "| a line is `key = value`"),
        ("seeds = [7, 9]", "name = \"good\"", "good.toml:5:1: duplicate key | keep one of them"),
        (
            "reference = true",
            "reference = \"yes\"",
            "invalid type: string \"yes\", expected a boolean | write a boolean",
        ),
        (
            "\"delivery.ratio = 100 %\"",
            "\"delivery.ratio <= 100 %\"",
            "good.toml:8:24: delivery.ratio ≤ 100 % can never fail | write a limit that a run can meet or miss",
        ),
        (
            "at = \"3 s\"",
            "at = \"10 min\"",
            "good.toml:32:6: this step comes when the workload's time (39s) is over | write an earlier time, or a longer limits.workload",
        ),
        (
            "[limits]",
            "[refusal]\nalerts = []\n\n[limits]",
            "no alert is named, so any failure would pass | write for example alerts = [\"unknown-ca\"]",
        ),
        (
            "[limits]",
            "[refusal]\nalerts = [\"unknown-ca\"]\n\n[limits]",
            "a scenario with [refusal] takes no workload.up | a client that is refused does nothing else; leave it out",
        ),
    ];
    for (from, to, expected) in cases {
        let found = mistakes(from, to);
        assert!(
            found.iter().any(|mistake| mistake.contains(expected)),
            "{to:?} gave {found:#?}, not {expected:?}"
        );
    }
}

#[test]
fn what_only_a_client_that_does_not_run_could_fail_is_refused() {
    let named = GOOD.replacen("delivery.ratio = 100 %", "delivery.ratio = 100 % for reference", 1);
    assert!(Scenario::parse("good.toml", &named).is_ok());
    let error = Scenario::parse("good.toml", &named.replace("reference = true", "reference = false"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("good.toml:8:5: this speaks of the reference client"), "{error}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = GOOD
        .replace("qos = 1", "qos = 4")
        .replace("seeds = [7, 9]", "seeds = []")
        .replace("100 %\"", "140 %\"");
    let error = Scenario::parse("good.toml", &text).unwrap_err();
    use miette::Diagnostic as _;
    assert_eq!(error.related().unwrap().count(), 2);
    assert_eq!(error.position().unwrap().0, 5, "the first in the file comes first");
}

#[test]
fn variants_override_the_connection() {
    let text = GOOD.replace("transports = [\"quic\", \"tls\"]\n", "").replace("for quic", "for streams, tls")
        + r#"
[[variant]]
name = "streams"
transport = "quic"

[[variant]]
name = "tls"
transport = "tls"
connection = { mqtt = "3.1.1", streams = "single" }
"#;
    let scenario =
        Scenario::parse("good.toml", &text).unwrap_or_else(|e| panic!("{:?}", miette::Report::new(e)));
    assert_eq!(scenario.variant("streams").unwrap().connection.streams, Streams::PerTopic);
    let tls = scenario.variant("tls").unwrap().connection;
    assert_eq!((tls.streams, tls.mqtt), (Streams::Single, MqttVersion::V311));
}

#[test]
fn a_client_that_is_to_be_refused_makes_one_attempt() {
    let text = "name = \"x\"\nquestion = \"x?\"\nanswer = \"x\"\nexpect = [\"connections = 0\"]\n\
                [refusal]\nalerts = [\"unknown-ca\"]\n";
    let scenario = Scenario::parse("x.toml", text).unwrap_or_else(|e| panic!("{:?}", miette::Report::new(e)));
    assert_eq!(scenario.variants[0].connection.reconnect.attempts, 0);
    assert_eq!(scenario.refusal.unwrap().alerts[0].code(), 48);
}

#[test]
fn seeds_can_be_given_from_outside() {
    let scenario = Scenario::parse("good.toml", GOOD).unwrap();
    assert_eq!(scenario.seeds_for(None, None), [7, 9]);
    assert_eq!(scenario.seeds_for(None, Some(1)), [7]);
    assert_eq!(scenario.seeds_for(None, Some(4)), [7, 9, 10, 11]);
    assert_eq!(scenario.seeds_for(Some(40), None), [40, 41]);
    assert_eq!(scenario.seeds_for(Some(40), Some(3)), [40, 41, 42]);
}

#[test]
fn any_transport_can_be_asked_for() {
    let mut scenario = Scenario::parse("good.toml", GOOD).unwrap();
    scenario.restrict_to(&[Transport::Tcp, Transport::Quic, Transport::Tcp]);
    assert_eq!(
        scenario.variants.iter().map(|v| v.transport).collect::<Vec<_>>(),
        [Transport::Tcp, Transport::Quic]
    );
}
