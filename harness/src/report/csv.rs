//! `samples.csv`: every message of every trial, one a line (RFC 4180). Empty cells mean "never".

use std::fmt::Write as _;

use crate::measure::record::{Direction, RunRecord};

const HEADER: &str = "variant,transport,role,seed,direction,topic,sequence,qos,size_bytes,intended_us,sent_us,\
                      acked_us,delivered_us,fate,publish_latency_us,end_to_end_latency_us";

/// The whole file.
pub(super) fn samples(record: &RunRecord) -> String {
    let mut text = format!("{HEADER}\r\n");
    for trial in &record.trials {
        for message in &trial.messages {
            let topic = trial.topics.get(usize::from(message.topic)).map_or("", String::as_str);
            let direction = match message.direction {
                Direction::FromBoard => "up",
                Direction::ToBoard => "down",
            };
            let since_intended = |at: Option<u64>| at.map(|at| at.saturating_sub(message.intended_us));
            let arrived = message.delivered_us.filter(|_| message.fate.arrived());
            write!(
                text,
                "{},{},{},{},{direction},{},{},{},{},{},{},{},{},{},{},{}\r\n",
                cell(&trial.variant),
                trial.transport,
                trial.role,
                trial.seed,
                cell(topic),
                message.sequence,
                message.qos,
                message.size,
                message.intended_us,
                number(message.sent_us),
                number(message.acked_us),
                number(message.delivered_us),
                message.fate.name(),
                number(since_intended(message.acked_us)),
                number(since_intended(arrived)),
            )
            .expect("writing to a string cannot fail");
        }
    }
    text
}

fn number(value: Option<u64>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// A text cell, quoted where it must be.
fn cell(text: &str) -> String {
    if text.contains(['"', ',', '\r', '\n']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::record::Fate;
    use crate::measure::sample;

    #[test]
    fn every_message_has_its_line_with_every_column() {
        let record = sample::record();
        let text = samples(&record);
        let lines: Vec<_> = text.split_terminator("\r\n").collect();
        let messages: usize = record.trials.iter().map(|trial| trial.messages.len()).sum();
        assert_eq!(lines.len(), messages + 1);
        let columns = HEADER.split(',').count();
        assert!(lines.iter().all(|line| line.split(',').count() == columns));
        let first = &record.trials[0].messages[0];
        assert!(lines[1].starts_with("quic,quic,device,1,up,up/0,0,1,128,"), "{}", lines[1]);
        assert!(lines[1].contains(&format!(",{},delivered,", first.delivered_us.unwrap())));
    }

    #[test]
    fn what_never_came_is_an_empty_cell_and_odd_names_are_quoted() {
        let mut record = sample::record();
        record.trials.truncate(1);
        let trial = &mut record.trials[0];
        trial.messages.truncate(1);
        trial.topics[0] = "a,\"b\"".into();
        trial.messages[0].fate = Fate::Lost;
        trial.messages[0].acked_us = None;
        trial.messages[0].delivered_us = None;
        let text = samples(&record);
        assert!(text.contains("\"a,\"\"b\"\"\""), "{text}");
        assert!(text.ends_with(",,,lost,,\r\n"), "{text}");
    }
}
