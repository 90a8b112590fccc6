//! A fleet as a scenario: the text its report is judged by. It does not depend on the number of devices or on the
//! shard, so that the reports of all shards, and what is merged of them, are judged by the same words.

use std::fmt::Write as _;

use super::Options;
use super::broker::Storm;

/// Name of the variant in which devices connect and publish.
pub(super) const FLEET: &str = "fleet";
/// Name of the variant in which the broker goes and comes back.
pub(super) const STORM: &str = "storm";
/// Where the text comes from, for messages.
pub const ORIGIN: &str = "fleet";

/// The network unless a scenario's is taken: a quiet one.
const QUIET: &str = "[link.both]\ndelay = \"5 ms\"\n";

/// The scenario's text. `network` is the `[link]` part of another scenario.
pub fn source(options: &Options, network: Option<&str>) -> String {
    let mut text = String::from("name = \"fleet\"\n");
    let stormy = options.storm != Storm::None;
    let question = if stormy {
        "Do many devices connect, publish and, after a broker restart, all come back?"
    } else {
        "Do many devices connect and publish?"
    };
    // The storm's figures are among the expectations: a sentence speaks of the first variant.
    let answer = "{fleet.devices} devices; half connected within {connect.time.p50}, 99 % within {connect.time.p99}; \
                  {delivery.ratio} of their messages arrived.";
    let _ = writeln!(text, "question = \"{question}\"\nanswer = \"{answer}\"");
    let _ = writeln!(text, "seeds = [{}]", options.seed);
    text.push_str("boards = [\"host\"]\nexpect = [\n");
    for expectation in expectations(options, stormy) {
        let _ = writeln!(text, "    \"{expectation}\",");
    }
    text.push_str("]\n\n");
    for name in [Some(FLEET), stormy.then_some(STORM)].into_iter().flatten() {
        let _ = writeln!(text, "[[variant]]\nname = \"{name}\"\ntransport = \"quic\"\n");
    }
    text.push_str(network.unwrap_or(QUIET));
    let _ = write!(
        text,
        "\n[connection]\nidle_timeout = \"{}\"\nkeep_alive = \"60 s\"\nquic_keep_alive = \"{}\"\n\
         reconnect = {{ first = \"1 s\", max = \"20 s\", attempts = 1000 }}\n\n\
         [workload.up]\nsize = \"{} B\"\nqos = {}\ncount = {}\ninterval = \"{} ms\"\n\n\
         [limits]\nconnect = \"60 s\"\ndrain = \"30 s\"\n",
        IDLE_TIMEOUT,
        KEEP_ALIVE,
        options.size,
        options.qos,
        options.messages,
        options.interval.as_millis()
    );
    text
}

/// Silence after which a device gives its connection up: what a killed broker costs at most before the storm.
const IDLE_TIMEOUT: &str = "30 s";
/// Interval of PINGs on a silent connection: three in an idle timeout.
const KEEP_ALIVE: &str = "10 s";

/// Devices in one process from which on their memory is judged: with fewer, what the process takes for its threads
/// weighs more than they do.
const MEMORY_DEVICES: u32 = 200;

fn expectations(options: &Options, stormy: bool) -> Vec<&'static str> {
    let mut expectations = vec![
        "fleet.connected.ratio = 100 %",
        "connect.failures = 0 for fleet",
        "connect.time.p50 <= 2 s for fleet",
        "connect.time.p99 <= 10 s for fleet",
        "delivery.ratio = 100 %",
        "duplicates = 0",
        "corrupt = 0",
        "fleet.cpu_per_device <= 1 s for fleet",
    ];
    if options.devices / options.shard.count() >= MEMORY_DEVICES {
        expectations.push("fleet.memory_per_device <= 64 KiB");
    }
    if options.qos > 0 {
        expectations.extend([
            "acknowledged.ratio = 100 %",
            "publish.latency.p50 <= 500 ms for fleet",
            "publish.latency.p99 <= 5 s for fleet",
        ]);
    }
    if stormy {
        expectations.push("fleet.recovery.time.max <= 60 s for storm");
    }
    expectations
}
