//! From the keys of a file to a scenario that makes sense: defaults, and what the types alone cannot tell.

use std::ops::Range;
use std::time::Duration;

use device::control::{TOPICS_MAX, payload};
use link::units::{Size, Time};

use super::error::{Mistakes, ScenarioError};
use super::spans::Spans;
use super::spec::{
    ActionName, Anchor, BoardName, ConnectionTable, File, FlowTable, LimitsTable, StepEntry, Streams,
};
use super::{
    Action, Answer, Cipher, ConnectionOptions, Flow, KeyExchange, Limits, Manner, MqttVersion, Pace,
    Reconnect, Resumption, Scenario, SessionState, Step, Variant,
};
use crate::measure::expectation::{Expectation, ExpectationError, Vocabulary};
use crate::measure::metric::nearest;
use crate::measure::record::Transport;

/// Reads a file whole, collecting every mistake it can.
pub(super) fn read(origin: &str, source: &str) -> Result<Scenario, ScenarioError> {
    let mut mistakes = Mistakes::new(origin, source);
    let spans = match Spans::parse(source) {
        Ok(spans) => spans,
        Err(error) => {
            syntax(&mut mistakes, &error);
            return Err(mistakes.into_error().expect("one was just added"));
        }
    };
    let file: File = match toml::from_str(source) {
        Ok(file) => file,
        Err(error) => {
            syntax(&mut mistakes, &error);
            return Err(mistakes.into_error().expect("one was just added"));
        }
    };
    let mut check = Check { spans, mistakes, source };
    let scenario = check.scenario(origin, file);
    match check.mistakes.into_error() {
        Some(error) => Err(error),
        None => Ok(scenario),
    }
}

/// A mistake found by the TOML parser or by serde, with a suggestion where a name is misspelt.
fn syntax(mistakes: &mut Mistakes, error: &toml::de::Error) {
    let message = error.message().trim_end().replace('\n', "; ");
    let quoted: Vec<_> = message.split('`').skip(1).step_by(2).collect();
    let remedy = match quoted.split_first() {
        Some((written, known)) if message.starts_with("unknown") => {
            let list = || format!("there are {}", known.join(", "));
            Some(match nearest(written, known.iter().copied()) {
                Some(near) => format!("did you mean {near}? {}", list()),
                None => list(),
            })
        }
        Some((key, _)) if message.starts_with("missing field") => {
            Some(format!("add {key}; scenarios/README.md describes every key"))
        }
        _ => None,
    };
    let problem = match quoted.first() {
        Some(written) if message.starts_with("unknown field") => format!("there is no key `{written}` here"),
        Some(written) if message.starts_with("unknown variant") => {
            format!("`{written}` is not a choice here")
        }
        Some(key) if message.starts_with("missing field") => format!("the key `{key}` is missing"),
        _ => message,
    };
    // A unit error carries its remedy behind a semicolon.
    let (problem, remedy) = match (problem.split_once("; write "), remedy) {
        (Some((problem, example)), None) => (problem.to_owned(), Some(format!("write {example}"))),
        (_, remedy) => (problem, remedy),
    };
    mistakes.add(error.span().unwrap_or(0..1), problem, remedy);
}

struct Check<'a> {
    spans: Spans<'a>,
    mistakes: Mistakes,
    source: &'a str,
}

impl Check<'_> {
    fn scenario(&mut self, origin: &str, file: File) -> Scenario {
        self.name(origin, &file.name);
        self.question(&file.question);
        let variants = self.variants(&file);
        let names: Vec<_> = variants.iter().map(|variant| variant.name.clone()).collect();
        let expectations = self.expectations(&file.expect, &names);
        let answer = Answer::parse(&file.answer, &names).unwrap_or_else(|error| {
            self.within_string("answer", &error);
            Answer::default()
        });
        let seeds = self.seeds(file.seeds, file.repeat);
        self.link(&file.link);
        let up = file.workload.up.as_ref().and_then(|flow| self.flow("workload.up", flow));
        let down = file.workload.down.as_ref().and_then(|flow| self.flow("workload.down", flow));
        let steps = self.steps(&file.step, up.is_some() || down.is_some());
        let limits = limits(&file.limits, [up, down]);
        Scenario {
            name: file.name,
            question: file.question,
            answer,
            expectations,
            variants,
            seeds,
            reference: file.reference,
            boards: self.boards(file.boards),
            link: file.link,
            up,
            down,
            broker: file.broker,
            steps,
            limits,
            origin: origin.to_owned(),
            source: self.source.to_owned(),
        }
    }

    fn value(&mut self, path: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        let span = self.spans.value(path);
        self.mistakes.add(span, problem, Some(remedy.into()));
    }

    fn name(&mut self, origin: &str, name: &str) {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        {
            self.value("name", format!("{name:?} is no scenario name"), "use a-z, 0-9 and hyphens");
            return;
        }
        let stem = std::path::Path::new(origin).file_stem().and_then(|stem| stem.to_str());
        if origin.ends_with(".toml") && stem.is_some_and(|stem| stem != name) {
            let stem = stem.unwrap_or_default();
            let problem = format!("the scenario is called {name:?}, its file {stem:?}");
            self.value("name", problem, format!("write name = {stem:?}, or rename the file"));
        }
    }

    fn question(&mut self, question: &str) {
        if !question.trim_end().ends_with('?') {
            self.value("question", "a scenario asks a question", "end it with a question mark");
        }
    }

    fn variants(&mut self, file: &File) -> Vec<Variant> {
        let transports = match &file.transports {
            Some(transports) if transports.is_empty() => {
                self.value("transports", "no transport is named", "write for example [\"quic\"]");
                vec![Transport::Quic]
            }
            Some(transports) => transports.clone(),
            None => vec![Transport::Quic],
        };
        if let Some(index) =
            (1..transports.len()).find(|index| transports[..*index].contains(&transports[*index]))
        {
            let problem = format!("{} is named twice", transports[index]);
            self.value(&format!("transports[{index}]"), problem, "name each transport once");
        }
        if file.variant.is_empty() {
            let connection = self.connection("connection", &file.connection, &transports);
            let variant = |transport: &Transport| Variant {
                name: transport.name().to_owned(),
                transport: *transport,
                connection,
            };
            return transports.iter().map(variant).collect();
        }
        if file.transports.is_some() {
            let span = self.spans.key("transports");
            let remedy = "leave transports out: each variant names its own".to_owned();
            self.mistakes.add(span, "a scenario with variants takes no transports", Some(remedy));
        }
        let mut variants: Vec<Variant> = Vec::new();
        for (index, entry) in file.variant.iter().enumerate() {
            let path = format!("variant[{index}]");
            let reserved = ["device", "reference", "all"].contains(&entry.name.as_str());
            if reserved || entry.name.is_empty() || entry.name.contains([',', ' ']) {
                let problem = format!("{:?} is no name for a variant", entry.name);
                self.value(&format!("{path}.name"), problem, "use one word, not device, reference or all");
            }
            if variants.iter().any(|variant| variant.name == entry.name) {
                let problem = format!("two variants are called {:?}", entry.name);
                self.value(&format!("{path}.name"), problem, "give each its own name");
            }
            let table = merge(&entry.connection, &file.connection);
            let connection = self.connection(&format!("{path}.connection"), &table, &[entry.transport]);
            variants.push(Variant { name: entry.name.clone(), transport: entry.transport, connection });
        }
        variants
    }

    fn connection(
        &mut self,
        path: &str,
        table: &ConnectionTable,
        transports: &[Transport],
    ) -> ConnectionOptions {
        let quic = transports.contains(&Transport::Quic);
        let only_quic: [(&str, bool); 4] = [
            ("streams", table.streams == Some(Streams::PerTopic)),
            ("quic_keep_alive", table.quic_keep_alive.is_some()),
            ("initial_rtt", table.initial_rtt.is_some()),
            ("datagram", table.datagram.is_some()),
        ];
        for (key, set) in only_quic {
            if set && !quic {
                let problem = format!("{key} has no effect without QUIC");
                self.value(&format!("{path}.{key}"), problem, "leave it out, or add quic to transports");
            }
        }
        let mqtt = table.mqtt.unwrap_or(MqttVersion::V5);
        if mqtt == MqttVersion::V311 && table.session_expiry.is_some() {
            let remedy = "leave it out, or use mqtt = \"5.0\"";
            self.value(&format!("{path}.session_expiry"), "MQTT 3.1.1 has no session expiry", remedy);
        }
        let datagram = table.datagram.map_or(DATAGRAM_DEFAULT, Size::bytes);
        if !(DATAGRAM_MIN..=DATAGRAM_MAX).contains(&datagram) {
            let problem = format!("datagram = {datagram} B is outside {DATAGRAM_MIN} B to {DATAGRAM_MAX} B");
            self.value(
                &format!("{path}.datagram"),
                problem,
                "QUIC needs 1200 B (RFC 9000 14); Ethernet has 1472 B",
            );
        }
        let time = |value: Option<Time>, default: Duration| value.map_or(default, Time::duration);
        ConnectionOptions {
            mqtt,
            streams: table.streams.unwrap_or(Streams::Single),
            resumption: table.resumption.unwrap_or(Resumption::Ticket),
            key_exchange: table.key_exchange.unwrap_or(KeyExchange::X25519),
            cipher: table.cipher.unwrap_or(Cipher::Any),
            client_certificate: table.client_certificate.unwrap_or(false),
            clean_start: table.clean_start.unwrap_or(true),
            session_expiry: time(table.session_expiry, Duration::from_secs(300)),
            keep_alive: time(table.keep_alive, Duration::from_secs(30)),
            idle_timeout: time(table.idle_timeout, Duration::from_secs(30)),
            quic_keep_alive: time(table.quic_keep_alive, Duration::ZERO),
            // RFC 9002 6.2.2.
            initial_rtt: time(table.initial_rtt, Duration::from_millis(333)),
            datagram: u16::try_from(datagram).unwrap_or(u16::MAX),
            receive_maximum: table.receive_maximum.unwrap_or(16),
            reconnect: table.reconnect.unwrap_or(RECONNECT_DEFAULT),
        }
    }

    fn expectations(&mut self, texts: &[String], variants: &[String]) -> Vec<Expectation> {
        if texts.is_empty() {
            self.value("expect", "nothing is expected, so the scenario cannot fail", "expect something");
        }
        let vocabulary = Vocabulary { variants, boards: &BoardName::NAMES };
        let mut expectations: Vec<Expectation> = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match Expectation::parse(text, vocabulary) {
                Ok(expectation) if expectations.iter().any(|other| other.text == expectation.text) => {
                    self.value(
                        &format!("expect[{index}]"),
                        "this expectation stands here twice",
                        "remove one",
                    );
                }
                Ok(expectation) => expectations.push(expectation),
                Err(error) => self.within_string(&format!("expect[{index}]"), &error),
            }
        }
        expectations
    }

    /// Points at a part of the string at `path`.
    fn within_string(&mut self, path: &str, error: &ExpectationError) {
        let whole = self.spans.value(path);
        let span = part_of_string(self.source, &whole, &error.span);
        self.mistakes.add(span, error.problem.clone(), Some(error.remedy.clone()));
    }

    fn seeds(&mut self, seeds: Option<Vec<u64>>, repeat: Option<u32>) -> Vec<u64> {
        match (seeds, repeat) {
            (Some(_), Some(_)) => {
                self.value("repeat", "seeds and repeat exclude each other", "keep one of them");
                vec![1]
            }
            (Some(seeds), None) => {
                if seeds.is_empty() {
                    self.value("seeds", "no seed is named", "write for example [1, 2, 3]");
                }
                if let Some(index) = (1..seeds.len()).find(|index| seeds[..*index].contains(&seeds[*index])) {
                    let problem = format!("seed {} is named twice", seeds[index]);
                    self.value(
                        &format!("seeds[{index}]"),
                        problem,
                        "the same seed only repeats the same network",
                    );
                }
                seeds
            }
            (None, repeat) => {
                let repeat = repeat.unwrap_or(1);
                if !(1..=REPEAT_MAX).contains(&repeat) {
                    let problem = format!("repeat = {repeat} is outside 1 to {REPEAT_MAX}");
                    self.value("repeat", problem, "write for example 3");
                }
                (1..=u64::from(repeat.min(REPEAT_MAX))).collect()
            }
        }
    }

    fn boards(&mut self, boards: Option<Vec<BoardName>>) -> Vec<BoardName> {
        let boards = boards.unwrap_or_else(|| vec![BoardName::Host, BoardName::Qemu, BoardName::Esp32c3]);
        if boards.is_empty() {
            self.value("boards", "no board is named", "leave boards out to allow all");
        }
        boards
    }

    fn link(&mut self, config: &link::LinkConfig) {
        if let Err(error) = config.validate() {
            // The link says what is wrong and, behind a semicolon, how to mend it.
            let (problem, remedy) =
                error.problem.split_once("; ").unwrap_or((&error.problem, "see scenarios/README.md"));
            self.value(&format!("link.{}", error.key), format!("link.{}: {problem}", error.key), remedy);
        }
        for event in config.events() {
            if Anchor::NAMES.contains(&event) {
                continue;
            }
            let list = format!("there are {}", Anchor::NAMES.join(", "));
            let remedy = match nearest(event, Anchor::NAMES.into_iter()) {
                Some(near) => format!("did you mean {near}? {list}"),
                None => list,
            };
            let span = self.spans.string(event).unwrap_or_else(|| self.spans.value("link"));
            self.mistakes.add(span, format!("no event is called {event:?}"), Some(remedy));
        }
    }

    fn flow(&mut self, path: &str, flow: &FlowTable) -> Option<Flow> {
        let topics = flow.topics.unwrap_or(1);
        if topics == 0 || usize::from(topics) > TOPICS_MAX {
            let problem = format!("topics = {topics} is outside 1 to {TOPICS_MAX}");
            self.value(&format!("{path}.topics"), problem, "a board keeps that many topics");
        }
        let qos = flow.qos.unwrap_or(1);
        if qos > 2 {
            self.value(&format!("{path}.qos"), format!("MQTT has no QoS {qos}"), "write 0, 1 or 2");
        }
        let least = payload::OVERHEAD as u64;
        let size = u16::try_from(flow.size.bytes())
            .ok()
            .filter(|size| (least..=SIZE_MAX).contains(&u64::from(*size)));
        if size.is_none() {
            let problem = format!("a payload of {} is outside {least} B to {SIZE_MAX} B", flow.size);
            let remedy = "each payload carries its own number, time and checksum, and must fit the board";
            self.value(&format!("{path}.size"), problem, remedy);
        }
        if flow.count == 0 {
            self.value(&format!("{path}.count"), "a workload of no messages", "leave the table out instead");
        }
        if flow.interval == Some(Time::ZERO) {
            let remedy = "leave interval out to send as fast as possible";
            self.value(&format!("{path}.interval"), "an interval of nothing", remedy);
        }
        let pace = flow.interval.map_or(Pace::Saturate, |interval| Pace::Every(interval.duration()));
        Some(Flow { topics, qos, size: size?, count: flow.count, pace, retain: flow.retain })
    }

    fn steps(&mut self, entries: &[StepEntry], workload: bool) -> Vec<Step> {
        let steps = entries.iter().enumerate().filter_map(|(index, entry)| {
            let path = format!("step[{index}]");
            if entry.after == Anchor::Workload && !workload {
                let remedy = "add a workload, or write after = \"connected\"";
                self.value(&path, "this step waits for a workload, but there is none", remedy);
            }
            self.step(&path, entry)
        });
        steps.collect()
    }

    fn step(&mut self, path: &str, entry: &StepEntry) -> Option<Step> {
        self.step_keys(path, entry);
        let times = entry.times.unwrap_or(1);
        if times == 0 {
            self.value(&format!("{path}.times"), "a step that is never done", "leave the step out instead");
        }
        if times > 1 && entry.every.is_none() {
            self.value(&format!("{path}.times"), "times needs every", "write for example every = \"5 s\"");
        }
        if times <= 1 && entry.every.is_some() {
            self.value(&format!("{path}.every"), "every needs times", "write for example times = 3");
        }
        let action = self.action(path, entry)?;
        let every = entry.every.map_or(Duration::ZERO, Time::duration);
        Some(Step { after: entry.after, at: entry.at.duration(), times, every, action })
    }

    /// Refuses keys that the step's action does not take.
    fn step_keys(&mut self, path: &str, entry: &StepEntry) {
        use ActionName as A;
        let given = [
            ("for", entry.length.is_some()),
            ("session", entry.session.is_some()),
            ("manner", entry.manner.is_some()),
            ("certificate", entry.certificate.is_some()),
            ("fault", entry.fault.is_some()),
        ];
        let taken: &[&str] = match entry.action {
            A::StopBroker | A::KillBroker | A::FreezeBroker | A::DropUdp | A::Overload => &["for"],
            A::RestartBroker => &["session"],
            A::Reconnect => &["manner"],
            A::RotateCertificate => &["certificate"],
            A::CrashBoard => &["fault"],
            A::Migrate | A::UpdateKeys | A::ResetBoard | A::Kick | A::TakeOver => &[],
        };
        for (key, is_given) in given {
            if is_given && !taken.contains(&key) {
                let span = self.spans.key(&format!("{path}.{key}"));
                let problem = format!("{} takes no {key}", entry.action.name());
                self.mistakes.add(span, problem, Some("leave it out".to_owned()));
            }
        }
    }

    fn action(&mut self, path: &str, entry: &StepEntry) -> Option<Action> {
        use ActionName as A;
        let mut length = || match entry.length.filter(|length| *length != Time::ZERO) {
            Some(length) => Some(length.duration()),
            None => {
                let problem = format!("{} needs to know how long", entry.action.name());
                self.value(&format!("{path}.for"), problem, "write for example for = \"5 s\"");
                None
            }
        };
        Some(match entry.action {
            A::StopBroker => Action::StopBroker(length()?),
            A::KillBroker => Action::KillBroker(length()?),
            A::FreezeBroker => Action::FreezeBroker(length()?),
            A::DropUdp => Action::DropUdp(length()?),
            A::Overload => Action::Overload(length()?),
            A::RestartBroker => Action::RestartBroker(entry.session.unwrap_or(SessionState::Keep)),
            A::Reconnect => Action::Reconnect(entry.manner.unwrap_or(Manner::Graceful)),
            A::RotateCertificate => Action::RotateCertificate(entry.certificate.unwrap_or_default()),
            A::Migrate => Action::Migrate,
            A::UpdateKeys => Action::UpdateKeys,
            A::ResetBoard => Action::ResetBoard,
            A::Kick => Action::Kick,
            A::TakeOver => Action::TakeOver,
            A::CrashBoard => {
                let Some(fault) = entry.fault else {
                    let remedy = "write for example fault = \"panic\"";
                    self.value(path, "crash-board needs to know which fault", remedy);
                    return None;
                };
                Action::CrashBoard(fault)
            }
        })
    }
}

/// Byte range of a part of a string literal; the literal as a whole when escapes shift positions.
fn part_of_string(source: &str, literal: &Range<usize>, part: &Range<usize>) -> Range<usize> {
    let text = &source[literal.clone()];
    let quote = if text.starts_with("\"\"\"") || text.starts_with("'''") { 3 } else { 1 };
    if text.contains('\\') || text.contains('\n') || part.end + 2 * quote > text.len() {
        return literal.clone();
    }
    literal.start + quote + part.start..literal.start + quote + part.end
}

fn limits(table: &LimitsTable, flows: [Option<Flow>; 2]) -> Limits {
    let scheduled = flows.into_iter().flatten().map(|flow| match flow.pace {
        Pace::Every(interval) => interval * flow.count,
        // 20 messages a second is slow even for a bad network; the limit only has to end a hang.
        Pace::Saturate => Duration::from_millis(50) * flow.count,
    });
    let scheduled = scheduled.max().unwrap_or_default();
    let time = |value: Option<Time>, default: Duration| value.map_or(default, Time::duration);
    Limits {
        boot: time(table.boot, Duration::from_secs(20)),
        connect: time(table.connect, Duration::from_secs(20)),
        workload: time(table.workload, scheduled * 2 + Duration::from_secs(20)),
        drain: time(table.drain, Duration::from_secs(15)),
    }
}

/// A variant's options, and the scenario's where it has none.
fn merge(own: &ConnectionTable, base: &ConnectionTable) -> ConnectionTable {
    ConnectionTable {
        mqtt: own.mqtt.or(base.mqtt),
        streams: own.streams.or(base.streams),
        resumption: own.resumption.or(base.resumption),
        key_exchange: own.key_exchange.or(base.key_exchange),
        cipher: own.cipher.or(base.cipher),
        client_certificate: own.client_certificate.or(base.client_certificate),
        clean_start: own.clean_start.or(base.clean_start),
        session_expiry: own.session_expiry.or(base.session_expiry),
        keep_alive: own.keep_alive.or(base.keep_alive),
        idle_timeout: own.idle_timeout.or(base.idle_timeout),
        quic_keep_alive: own.quic_keep_alive.or(base.quic_keep_alive),
        initial_rtt: own.initial_rtt.or(base.initial_rtt),
        datagram: own.datagram.or(base.datagram),
        receive_maximum: own.receive_maximum.or(base.receive_maximum),
        reconnect: own.reconnect.or(base.reconnect),
    }
}

/// Seeds beyond this make a run of days; more are given by --repeat on the command line.
const REPEAT_MAX: u32 = 1000;
/// What the board's buffers hold in one message.
const SIZE_MAX: u64 = 1024;
/// RFC 9000 14.
const DATAGRAM_MIN: u64 = 1200;
const DATAGRAM_DEFAULT: u64 = 1200;
/// Ethernet's 1500 less IP and UDP headers.
const DATAGRAM_MAX: u64 = 1472;
const RECONNECT_DEFAULT: Reconnect =
    Reconnect { first: Time::from_millis(100), max: Time::from_millis(5000), attempts: 100 };

#[cfg(test)]
mod tests;

#[cfg(test)]
mod readme;
