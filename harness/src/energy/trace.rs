//! A power analyser's trace: current over time, from CSV.
//!
//! Read are the exports of Nordic's Power Profiler (`Timestamp(ms),Current(uA)`) and of anything else whose heading names a
//! time and a current with their units: `time_s`, `Time(ms)`, `timestamp (us)`; `current_mA`, `Current(uA)`, `I (A)`. A
//! voltage column (`voltage_V`, `Voltage(mV)`) is used where there is one, else the supply's voltage.

use std::fmt;
use std::io::BufRead;

/// Current over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Seconds and watts, by time.
    samples: Vec<(f64, f64)>,
}

/// A trace that cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TraceError {
    /// No column of that kind.
    #[error("the heading `{heading}` names no {what} with its unit\n  remedy: name it such as `{example}`")]
    Column {
        /// The heading.
        heading: String,
        /// What is missing.
        what: &'static str,
        /// A heading that would do.
        example: &'static str,
    },
    /// A line that is no sample.
    #[error(
        "line {line} is no sample: `{text}`\n  remedy: export the trace again, or take the line out; a sample is a number in each column"
    )]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What it says.
        text: String,
    },
    /// Time goes backwards.
    #[error(
        "time goes backwards in line {line}\n  remedy: export one recording at a time, in the order of its samples"
    )]
    Order {
        /// The line's number, from 1.
        line: usize,
    },
    /// The trace ends too early, or begins too late.
    #[error(
        "the trace covers {begin:.3} s to {end:.3} s, {wanted:.3} s is wanted\n  remedy: check --at, the trace's time at the start \
         of the run"
    )]
    NotCovered {
        /// First sample.
        begin: f64,
        /// Last sample.
        end: f64,
        /// The time that is missing.
        wanted: f64,
    },
    /// It cannot be read.
    #[error(
        "the trace cannot be read: {0}\n  remedy: export it as CSV text, with a heading above the samples"
    )]
    Read(String),
}

/// A column with the factor that brings it to seconds, amperes or volts.
#[derive(Clone, Copy)]
struct Column {
    index: usize,
    factor: f64,
}

impl Trace {
    /// Reads CSV; `volts` is the supply, for traces that tell current alone.
    ///
    /// # Errors
    /// [`TraceError`] naming the line.
    pub fn read(csv: impl BufRead, volts: f64) -> Result<Self, TraceError> {
        let mut lines = csv.lines().enumerate();
        let heading = loop {
            match lines.next() {
                Some((_, Ok(line))) if line.trim().is_empty() || line.starts_with('#') => {}
                Some((_, Ok(line))) => break line,
                Some((_, Err(error))) => return Err(TraceError::Read(error.to_string())),
                None => return Err(TraceError::Read("it is empty".to_owned())),
            }
        };
        let missing = |what, example| TraceError::Column { heading: heading.clone(), what, example };
        let time = column(&heading, &["time"], 's').ok_or_else(|| missing("time", "time_s"))?;
        let current =
            column(&heading, &["current", "i "], 'a').ok_or_else(|| missing("current", "current_mA"))?;
        let voltage = column(&heading, &["volt", "u "], 'v');
        let mut samples: Vec<(f64, f64)> = Vec::new();
        for (index, line) in lines {
            let line = line.map_err(|error| TraceError::Read(error.to_string()))?;
            if line.trim().is_empty() {
                continue;
            }
            let number = index + 1;
            let fields: Vec<&str> = line.split([',', ';', '\t']).map(str::trim).collect();
            let value = |column: Column| {
                let number: f64 = fields.get(column.index)?.parse().ok()?;
                number.is_finite().then_some(number * column.factor)
            };
            let bad = || TraceError::Line { line: number, text: line.clone() };
            let (at, current) = (value(time).ok_or_else(bad)?, value(current).ok_or_else(bad)?);
            let volts = match voltage {
                Some(column) => value(column).ok_or_else(bad)?,
                None => volts,
            };
            if samples.last().is_some_and(|&(last, _)| at < last) {
                return Err(TraceError::Order { line: number });
            }
            samples.push((at, current * volts));
        }
        Ok(Self { samples })
    }

    /// Energy from `start` to `end` (seconds of the trace's clock) in microjoules, by trapezoids.
    ///
    /// # Errors
    /// [`TraceError::NotCovered`].
    pub fn microjoules(&self, start: f64, end: f64) -> Result<f64, TraceError> {
        let (begin, last) = match (self.samples.first(), self.samples.last()) {
            (Some(first), Some(last)) => (first.0, last.0),
            _ => (0.0, 0.0),
        };
        for wanted in [start, end] {
            if wanted < begin || wanted > last {
                return Err(TraceError::NotCovered { begin, end: last, wanted });
            }
        }
        let joules: f64 = self
            .samples
            .windows(2)
            .map(|pair| {
                let ((t0, p0), (t1, p1)) = (pair[0], pair[1]);
                let (from, to) = (t0.max(start), t1.min(end));
                if to <= from {
                    return 0.0;
                }
                let power = |at: f64| p0 + (p1 - p0) * (at - t0) / (t1 - t0);
                (power(from) + power(to)) / 2.0 * (to - from)
            })
            .sum();
        Ok(joules * 1e6)
    }
}

/// The column whose heading begins with one of `names` and has a unit of the dimension `symbol`.
fn column(heading: &str, names: &[&str], symbol: char) -> Option<Column> {
    heading.split([',', ';', '\t']).enumerate().find_map(|(index, name)| {
        let name = name.trim().trim_matches('"').to_lowercase();
        if !names.iter().any(|start| name.starts_with(start)) {
            return None;
        }
        let unit: String = name
            .rsplit(['(', '_', '[', ' '])
            .next()?
            .chars()
            .filter(|c| c.is_alphabetic() || *c == 'µ')
            .collect();
        let prefix = unit.strip_suffix(symbol)?;
        let factor = match prefix {
            "" => 1.0,
            "m" => 1e-3,
            "u" | "µ" | "μ" => 1e-6,
            "n" => 1e-9,
            _ => return None,
        };
        Some(Column { index, factor })
    })
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} samples", self.samples.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_profiler_export_is_integrated() {
        let csv = "Timestamp(ms),Current(uA),D0-D7\n0.0,100000,0\n1000.0,100000,0\n2000.0,300000,0\n";
        let trace = Trace::read(csv.as_bytes(), 3.3).unwrap();
        assert!((trace.microjoules(0.0, 1.0).unwrap() - 330_000.0).abs() < 1e-6);
        // From 100 to 200 mA in the first half of the second second.
        assert!((trace.microjoules(1.0, 1.5).unwrap() - 0.5 * 0.15 * 3.3 * 1e6).abs() < 1e-6);
    }

    #[test]
    fn a_voltage_column_is_used() {
        let csv = "time_s;voltage_V;current_mA\n0;5;100\n1;5;100\n";
        let trace = Trace::read(csv.as_bytes(), 3.3).unwrap();
        assert!((trace.microjoules(0.0, 1.0).unwrap() - 500_000.0).abs() < 1e-6);
    }

    #[test]
    fn mistakes_are_named() {
        for (csv, part) in [
            ("", "empty"),
            ("a,b\n1,2\n", "names no time"),
            ("time_s,power\n1,2\n", "names no current"),
            ("time_s,current_mA\n1,x\n", "line 2"),
            ("time_s,current_mA\n1,1\n0,1\n", "backwards in line 3"),
        ] {
            let error = Trace::read(csv.as_bytes(), 3.3).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_the_trace_does_not_cover_is_an_error() {
        let trace = Trace::read("time_s,current_A\n0,1\n1,1\n".as_bytes(), 1.0).unwrap();
        assert!(
            matches!(trace.microjoules(0.5, 1.5), Err(TraceError::NotCovered { wanted, .. }) if wanted == 1.5)
        );
    }
}
