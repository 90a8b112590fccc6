//! What a process takes from its machine, as far as the kernel tells (proc(5)).

use std::time::Duration;

/// Memory and processor time of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Resident memory in bytes.
    pub(super) memory_bytes: Option<u64>,
    /// Processor time, all threads.
    pub(super) cpu: Option<Duration>,
}

/// What the process `pid` takes now; this one for `None`. Empty where there is no `/proc`, or no such process.
pub(super) fn of(pid: Option<u32>) -> Usage {
    let folder = pid.map_or_else(|| "/proc/self".to_owned(), |pid| format!("/proc/{pid}"));
    let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).ok();
    Usage {
        memory_bytes: read("status").and_then(|status| resident(&status)),
        cpu: read("stat").and_then(|stat| cpu(&stat, rustix::param::clock_ticks_per_second())),
    }
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Fields 14 and 15: time in user and kernel mode, in clock ticks.
fn cpu(stat: &str, ticks_per_s: u64) -> Option<Duration> {
    // The command may hold spaces and parentheses; the third field follows the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + kernel) * 1000 / ticks_per_s.max(1)))
}

/// Raises the number of files this process may have open as far as it is allowed, and returns the number.
pub(super) fn raise_open_files() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = getrlimit(Resource::Nofile);
        }
    }
    limit.current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_the_kernel_writes_them() {
        assert_eq!(resident("VmPeak:\t  9 kB\nVmRSS:\t  123 kB\n"), Some(123 * 1024));
        let stat = "12 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(cpu(stat, 100), Some(Duration::from_secs(3)));
        assert_eq!((resident(""), cpu("", 100)), (None, None));
    }

    #[test]
    fn a_process_that_takes_memory_is_seen_to() {
        let before = of(None).memory_bytes;
        let taken = std::hint::black_box(vec![1u8; 32 << 20]);
        let after = of(None).memory_bytes;
        // Where the kernel does not tell, nothing is made up.
        let (Some(before), Some(after)) = (before, after) else {
            assert_eq!((before, after), (None, None));
            return;
        };
        assert!(after >= before + (16 << 20), "{before} {after} {}", taken.len());
        assert_eq!(of(Some(u32::MAX)), Usage::default());
    }
}
