//! The arguments of the hidden subcommand.

/// What the harness tells the process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Arguments {
    pub(crate) nic: String,
    pub(crate) console: String,
    pub(crate) seed: Option<u64>,
    pub(crate) mac: [u8; 6],
}

/// Locally administered; the last three bytes spell the board's usual address, 10.77.0.2.
const DEFAULT_MAC: [u8; 6] = [0x02, 0x4d, 0x51, 77, 0, 2];

impl Arguments {
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let (mut nic, mut console, mut seed, mut mac) = (None, None, None, DEFAULT_MAC);
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                "--nic" => nic = Some(value()?),
                "--console" => console = Some(value()?),
                "--seed" => {
                    let text = value()?;
                    seed = Some(text.parse().map_err(|_| format!("--seed {text}: not a whole number"))?);
                }
                "--mac" => {
                    let text = value()?;
                    mac = parse_mac(&text)
                        .ok_or_else(|| format!("--mac {text}: not of the form 02:00:00:00:00:01"))?;
                }
                _ => return Err(format!("unknown argument {name}")),
            }
        }
        Ok(Self {
            nic: nic.ok_or("--nic PATH is missing")?,
            console: console.ok_or("--console PATH is missing")?,
            seed,
            mac,
        })
    }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    (parts.next().is_none() && mac[0] & 1 == 0).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Arguments, String> {
        Arguments::parse(text.split_whitespace().map(String::from))
    }

    #[test]
    fn all_arguments_are_read() {
        let arguments = parse("--nic /n --console /c --seed 7 --mac 02:00:00:00:00:0a").expect("right");
        let expected =
            Arguments { nic: "/n".into(), console: "/c".into(), seed: Some(7), mac: [2, 0, 0, 0, 0, 10] };
        assert_eq!(arguments, expected);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("--nic /n", "--console"),
            ("--nic", "needs a value"),
            ("--nic /n --console /c --seed x", "--seed x"),
            ("--nic /n --console /c --mac 01:00:00:00:00:0a", "--mac"),
            ("--what", "unknown"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
