//! Which part of a fleet this process runs.

use std::fmt;
use std::str::FromStr;

/// Part `index` of `count`, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shard {
    index: u32,
    count: u32,
}

/// What Kubernetes tells each pod of an indexed Job: its number, counted from 0.
pub const JOB_INDEX: &str = "JOB_COMPLETION_INDEX";

impl Shard {
    /// All of it.
    pub const WHOLE: Self = Self { index: 1, count: 1 };

    /// Its number, from 1.
    #[must_use]
    pub fn index(self) -> u32 {
        self.index
    }

    /// How many there are.
    #[must_use]
    pub fn count(self) -> u32 {
        self.count
    }

    /// How many of `devices` are in it: as many as in the others, or one more.
    #[must_use]
    pub fn size(self, devices: u32) -> u32 {
        devices / self.count + u32::from(self.index <= devices % self.count)
    }

    /// How many of `devices` come before it.
    #[must_use]
    pub fn first(self, devices: u32) -> u32 {
        (self.index - 1) * (devices / self.count) + (self.index - 1).min(devices % self.count)
    }

    fn parse(text: &str, job_index: Option<&str>) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no shard; write I/N with I from 1 to N, such as 1/4, or job/N");
        let (index, count) = text.split_once('/').ok_or_else(wrong)?;
        let count: u32 = count.parse().map_err(|_| wrong())?;
        let index = if index == "job" {
            let number = job_index.ok_or_else(|| {
                format!("`{text}` needs the variable {JOB_INDEX}, which an indexed Job sets")
            })?;
            let number: u32 =
                number.parse().map_err(|_| format!("{JOB_INDEX}={number} is no whole number"))?;
            number.checked_add(1).ok_or_else(wrong)?
        } else {
            index.parse().map_err(|_| wrong())?
        };
        if (1..=count).contains(&index) { Ok(Self { index, count }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text, std::env::var(JOB_INDEX).ok().as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_all_devices_and_none_twice() {
        for (devices, count) in [(10, 3), (1000, 7), (3, 3), (5, 1), (2, 4)] {
            let mut next = 0;
            for index in 1..=count {
                let shard = Shard { index, count };
                assert_eq!(shard.first(devices), next, "{shard} of {devices}");
                next += shard.size(devices);
            }
            assert_eq!(next, devices);
        }
    }

    #[test]
    fn a_job_counts_its_pods_from_zero() {
        assert_eq!(Shard::parse("job/4", Some("0")), Ok(Shard { index: 1, count: 4 }));
        assert_eq!(Shard::parse("job/4", Some("3")), Ok(Shard { index: 4, count: 4 }));
        assert!(Shard::parse("job/4", Some("4")).is_err());
        assert!(Shard::parse("job/4", None).unwrap_err().contains(JOB_INDEX));
    }

    #[test]
    fn mistakes_say_what_to_write() {
        for text in ["0/4", "5/4", "1/0", "1", "/", "a/b", "1/4/2", "-1/4"] {
            assert!(Shard::parse(text, None).unwrap_err().contains("1/4"), "{text}");
        }
        assert_eq!(Shard::parse("2/4", None).map(|shard| shard.to_string()), Ok("2/4".to_owned()));
    }
}
