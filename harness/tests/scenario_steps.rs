//! Each fault step acted out by the embedded broker, in one short run each: what the device makes of it, and that the
//! report knows of the disturbance.

mod scenario_support;

use scenario_support::{Bench, Ended, tiny};

/// Runs a scenario of some seconds with `steps` and these expectations beside `board.faults = 0`.
fn act_out(steps: &str, expect: &[&str]) -> (Ended, serde_json::Value) {
    let bench = Bench::new();
    let expect: String = expect.iter().map(|text| format!(", {text:?}")).collect();
    let connection = "[connection]\nclean_start = false\nidle_timeout = \"3 s\"\nkeep_alive = \"2 s\"\n\
                      reconnect = { first = \"100 ms\", max = \"500 ms\", attempts = 100 }\n";
    let text = tiny(&expect, &format!("{connection}{steps}")).replace("count = 10", "count = 60");
    let path = bench.file("tiny.toml", &text);
    let ended = bench.run(&["scenario", &path]);
    let report = bench.report();
    (ended, report)
}

/// Kinds of the disturbances that the report knows of.
fn disturbances(report: &serde_json::Value) -> Vec<String> {
    let impairments = report["record"]["trials"][0]["impairments"].as_array().expect("impairments");
    impairments.iter().map(|impairment| impairment["kind"].as_str().expect("a kind").to_owned()).collect()
}

#[test]
fn a_broker_that_stops_is_killed_or_restarts_comes_back_with_its_sessions() {
    for (step, length) in [
        ("stop-broker", "for = \"500 ms\""),
        ("kill-broker", "for = \"500 ms\""),
        ("restart-broker", "session = \"keep\""),
    ] {
        let steps = format!("\n[[step]]\ndo = \"{step}\"\nat = \"500 ms\"\n{length}\n");
        let (ended, report) =
            act_out(&steps, &["delivery.ratio = 100 %", "acknowledged.ratio = 100 %", "reconnects >= 1"]);
        ended.expect(0, &["PASSED"]);
        assert_eq!(disturbances(&report), ["broker-down"], "{step}");
    }
}

#[test]
fn a_broker_that_forgets_its_sessions_is_subscribed_to_anew() {
    let steps = "\n[[step]]\ndo = \"restart-broker\"\nat = \"500 ms\"\nsession = \"lose\"\n";
    // What was under way is lost with the sessions; the service is not.
    let (ended, _) = act_out(
        steps,
        &[
            "acknowledged.ratio = 100 %",
            "delivery.ratio >= 50 %",
            "recovery.time.max <= 8 s",
            "reconnects >= 1",
        ],
    );
    ended.expect(0, &["PASSED"]);
}

#[test]
fn a_frozen_broker_and_lost_udp_are_sat_out() {
    for (step, kind) in [("freeze-broker", "broker-frozen"), ("drop-udp", "broker-down")] {
        let steps = format!("\n[[step]]\ndo = \"{step}\"\nat = \"500 ms\"\nfor = \"1 s\"\n");
        let (ended, report) = act_out(
            &steps,
            &["delivery.ratio = 100 %", "acknowledged.ratio = 100 %", "recovery.time.max <= 8 s"],
        );
        ended.expect(0, &["PASSED"]);
        assert_eq!(disturbances(&report), [kind], "{step}");
    }
}

#[test]
fn a_kicked_board_comes_back_and_loses_nothing() {
    let steps = "\n[[step]]\ndo = \"kick\"\nat = \"500 ms\"\n";
    let (ended, report) = act_out(steps, &["disconnects = 1", "reconnects = 1", "delivery.ratio = 100 %"]);
    ended.expect(0, &["PASSED"]);
    assert_eq!(disturbances(&report), ["kicked"]);
}

#[test]
fn a_kick_that_meets_nobody_is_an_event_and_no_disturbance() {
    // At the moment the broker is back, no client is.
    let steps = "\n[[step]]\ndo = \"restart-broker\"\nat = \"500 ms\"\nsession = \"keep\"\n\
                 \n[[step]]\ndo = \"kick\"\nat = \"500 ms\"\n";
    let (ended, report) = act_out(steps, &["delivery.ratio = 100 %"]);
    ended.expect(0, &["PASSED"]);
    assert_eq!(disturbances(&report), ["broker-down"]);
    let events = report["record"]["trials"][0]["events"].to_string();
    assert!(events.contains("not carried out: the broker serves no client"), "{events}");
}

#[test]
fn a_board_whose_session_is_taken_over_leaves_it() {
    let steps =
        "\n[[step]]\ndo = \"take-over\"\nat = \"500 ms\"\n\n[limits]\nworkload = \"4 s\"\ndrain = \"1 s\"\n";
    let (ended, _) = act_out(steps, &["disconnects = 1", "reconnects = 0", "connections = 1"]);
    ended.expect(0, &["PASSED"]);
}

#[test]
fn an_overloaded_broker_turns_the_board_away_until_it_has_room() {
    let steps = "\n[[step]]\ndo = \"overload\"\nat = \"300 ms\"\nfor = \"1 s\"\n\
                 \n[[step]]\ndo = \"reconnect\"\nat = \"500 ms\"\nmanner = \"abrupt\"\n";
    let (ended, report) =
        act_out(steps, &["connect.failures >= 1", "connections = 2", "delivery.ratio = 100 %"]);
    ended.expect(0, &["PASSED"]);
    assert_eq!(disturbances(&report), ["degraded"]);
}

#[test]
fn an_overloaded_broker_has_room_for_so_many_and_turns_the_board_away_in_either_manner() {
    // The peer, the connection that the board has forgotten without a word, and the new one.
    for (connections, turned_away) in [(3, false), (2, true)] {
        for (turn_away, failure) in
            [("close", "ClosedByApplication (code 0x2)"), ("refuse", "CONNECTION_REFUSED")]
        {
            let steps = format!(
                "\n[[step]]\ndo = \"overload\"\nat = \"300 ms\"\nfor = \"1 s\"\nconnections = {connections}\n\
                 turn_away = \"{turn_away}\"\n\
                 \n[[step]]\ndo = \"reconnect\"\nat = \"500 ms\"\nmanner = \"abrupt\"\n"
            );
            let failures = if turned_away { "connect.failures >= 1" } else { "connect.failures = 0" };
            let (ended, report) = act_out(&steps, &[failures, "connections = 2", "delivery.ratio = 100 %"]);
            ended.expect(0, &["PASSED"]);
            let attempts = report["record"]["trials"][0]["connections"].to_string();
            assert_eq!(attempts.contains(failure), turned_away, "{attempts}");
        }
    }
}

#[test]
fn a_new_certificate_is_accepted_and_a_bad_one_refused_until_it_is_mended() {
    let steps = "\n[[step]]\ndo = \"rotate-certificate\"\nat = \"200 ms\"\n\
                 \n[[step]]\ndo = \"reconnect\"\nat = \"400 ms\"\n\
                 \n[[step]]\ndo = \"rotate-certificate\"\ncertificate = \"expired\"\nat = \"1 s\"\n\
                 \n[[step]]\ndo = \"reconnect\"\nat = \"1200 ms\"\n\
                 \n[[step]]\ndo = \"rotate-certificate\"\nat = \"2 s\"\n";
    let expect = ["connections = 3", "connect.certificate_refusals >= 1", "delivery.ratio = 100 %"];
    let (ended, _) = act_out(steps, &expect);
    ended.expect(0, &["PASSED"]);
}

#[test]
fn a_reconnect_behind_the_last_message_is_waited_for() {
    let bench = Bench::new();
    // All is acknowledged by then, and two round trips take longer than stragglers are waited for.
    let step = "\n[[step]]\ndo = \"reconnect\"\nat = \"1500 ms\"\n";
    let expect = r#", "connections = 2", "connect.failures = 0", "delivery.ratio = 100 %""#;
    let path = bench.file("tiny.toml", &tiny(expect, step).replace("5 ms", "300 ms"));
    bench.run(&["scenario", &path]).expect(0, &["PASSED"]);
}
