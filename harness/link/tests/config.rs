//! Link configurations as scenarios write them.

use link::{Blackout, Direction, LinkConfig, Profile, Queue};

fn parse(text: &str) -> LinkConfig {
    toml::from_str(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// The message a user gets for `text`.
fn refusal(text: &str) -> String {
    match toml::from_str::<LinkConfig>(text) {
        Err(error) => error.to_string(),
        Ok(config) => config.validate().expect_err("the text must be refused").to_string(),
    }
}

#[test]
fn a_full_configuration_is_read_and_written_back() {
    let text = r#"
        profile = "3g"
        rebind = [{ after = "handshake complete", at = "1 s", period = "5 s" }]
        address_change = [{ at = "10 s" }]

        [both]
        delay = "20 ms"
        jitter = "5 ms"
        loss = "5 %"

        [up]
        jitter = { spread = "3 ms", distribution = "pareto", correlation = "25 %", order = "free" }
        loss = { random = "1 %", burst = { enter = "2 %", leave = "30 %", loss_bad = "90 %" }, packets = "2-7, 9", run_max = 3 }
        duplicate = "1 %"
        reorder = { probability = "2 %", extra_delay = "10 ms" }
        corrupt = { probability = "1 %", bits = 2, checksum = "stale" }
        truncate = { probability = "1 %" }
        rate = "1 Mbit/s"
        queue = "25 packets"
        background = "200 kbit/s"
        mtu = "1400 B"

        [down]
        corrupt = "0.5 %"
        delay_trace = { steps = [["0 s", "20 ms"], ["5 s", "80 ms"]], period = "10 s", after = "connected" }
        rate_trace = { steps = [["0 s", "1 Mbit/s"], ["5 s", "100 kbit/s"]] }
        queue = "64 KiB"

        [[blackout]]
        after = "connected"
        at = "5 s"
        for = "2 s"
        period = "7 s"
        count = 3
        direction = "down"
    "#;
    let config = parse(text);
    config.validate().expect("the configuration is sound");
    assert_eq!(config.profile, Some(Profile::ThirdGeneration));
    assert_eq!(
        config.path(Direction::Up).delay,
        Some("20 ms".parse().unwrap()),
        "both wins over the profile"
    );
    assert_eq!(config.path(Direction::Down).queue, Some(Queue::Bytes("64 KiB".parse().unwrap())));
    assert_eq!(config.path(Direction::Down).rate, None, "a trace replaces the profile's rate");
    assert_eq!(config.events().collect::<Vec<_>>(), ["connected", "connected", "handshake complete"]);

    let written = toml::to_string(&config).expect("a configuration can be written");
    assert_eq!(parse(&written), config, "{written}");
}

#[test]
fn profiles_have_the_names_that_are_listed() {
    for (name, profile) in Profile::ALL {
        assert_eq!(parse(&format!("profile = {name:?}")).profile, Some(profile));
        LinkConfig::profile(profile).validate().expect("a profile is sound");
    }
}

#[test]
fn mistakes_are_refused_with_what_and_how() {
    let cases = [
        ("both.loss = \"130 %\"", "outside 0 % to 100 %"),
        ("both.loss = 5", "a percentage such as \"5 %\", or a table"),
        ("both.loss = { random = \"130 %\" }", "outside 0 % to 100 %"),
        ("both.loss = { chance = \"1 %\" }", "unknown field `chance`"),
        ("both.loss = {}", "names no loss"),
        ("both.delay = \"-5 ms\"", "it is negative"),
        ("both.delay = 20", "a time with its unit, in quotes"),
        ("both.delay = \"20\"", "its unit is missing"),
        ("both.lag = \"20 ms\"", "unknown field `lag`"),
        ("sideways = {}", "unknown field `sideways`"),
        ("both.queue = \"25 packets\"", "link.up.queue: a queue forms only before a bottleneck"),
        ("both = { rate = \"1 Mbit/s\", queue = \"many\" }", "no queue length"),
        ("both = { rate = \"1 Mbit/s\", queue = \"0 packets\" }", "give it room"),
        ("both.rate = \"0 bit/s\"", "use a blackout"),
        ("down.mtu = \"60 B\"", "link.down.mtu: IPv4 packets need at least 68 B"),
        ("down.reorder = { extra_delay = \"1 ms\" }", "it picks no packet"),
        ("down.corrupt = { probability = \"1 %\", bits = 9 }", "9 is not between 1 and 8"),
        ("down.loss = { packets = \"7-2\" }", "the range ends before it starts"),
        ("down.loss = { packets = \"0\" }", "the first packet is number 1"),
        ("down.loss = { burst = { enter = \"1 %\", leave = \"0 %\" } }", "never leaves the bad state"),
        (
            "down.fade = { every = \"50 ms\", last = \"50 ms\" }",
            "down.fade.every: fades of 50 ms every 50 ms leave",
        ),
        ("both.fade = { every = \"1 s\", last = \"900 us\" }", "up.fade.last: 900 us is shorter than 1 ms"),
        ("down.rate_trace = { steps = [] }", "it has no steps"),
        ("down.rate_trace = { steps = [[\"0 s\", \"0 bit/s\"]] }", "ends at 0 bit/s for ever"),
        ("down.delay_trace = { steps = [[\"2 s\", \"1 ms\"], [\"1 s\", \"2 ms\"]] }", "ascending order"),
        (
            "down.delay_trace = { steps = [[\"2 s\", \"1 ms\"]], period = \"1 s\" }",
            "ends before its last step",
        ),
        ("[[blackout]]\nat = \"1 s\"", "missing field `for`"),
        ("[[blackout]]\nfor = \"0 s\"", "has no effect"),
        ("[[blackout]]\nfor = \"2 s\"\nperiod = \"1 s\"", "blackout[0].period: 1 s is shorter than 2 s"),
        ("[[rebind]]\ncount = 3", "link.rebind[0].count: it needs a period"),
        ("profile = \"5g\"", "unknown variant `5g`"),
    ];
    for (text, expected) in cases {
        let message = refusal(text);
        assert!(message.contains(expected), "{text}: expected {expected:?} in\n{message}");
    }
}

#[test]
fn a_blackout_needs_only_its_length() {
    let config = parse("[[blackout]]\nfor = \"2 s\"");
    let expected = Blackout {
        at: "0 s".parse().unwrap(),
        after: None,
        length: "2 s".parse().unwrap(),
        period: None,
        count: None,
        direction: None,
    };
    assert_eq!(config.blackout, [expected]);
}
