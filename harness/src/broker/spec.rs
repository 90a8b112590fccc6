//! Which broker a run uses, as the command line and scenario files name it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::measure::Transport;

/// The EMQX release the harness is held against; the last one under Apache-2.0.
pub const EMQX_TAG: &str = "5.8.9";

/// The port a broker listens at unless told otherwise.
#[must_use]
pub fn default_port(transport: Transport) -> u16 {
    match transport {
        Transport::Quic => 14_567,
        Transport::Tls => 8_883,
        Transport::Tcp => 1_883,
    }
}

/// The URL scheme brokers and clients use.
#[must_use]
pub fn scheme(transport: Transport) -> &'static str {
    match transport {
        Transport::Quic => "quic",
        Transport::Tls => "mqtts",
        Transport::Tcp => "mqtt",
    }
}

/// The address of a broker that is already running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalBroker {
    /// How it is spoken to.
    pub transport: Transport,
    /// Host name or address; also the name its certificate must bear.
    pub host: String,
    /// UDP port for QUIC, TCP port otherwise.
    pub port: u16,
    /// PEM file with the root to trust, in place of the system's.
    pub ca: Option<PathBuf>,
}

/// Which broker to run against.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum BrokerSpec {
    /// EMQX of the pinned tag where a Docker engine has its image already; otherwise the embedded one, and whoever
    /// runs it is told.
    Auto,
    /// The one inside this process, with EMQX's stream semantics.
    #[default]
    Embedded,
    /// EMQX in Docker, of the given image tag.
    Emqx {
        /// Tag of `emqx/emqx`.
        tag: String,
    },
    /// Any image in Docker that serves the same ports and reads the same settings.
    Docker {
        /// Image reference, with tag or digest.
        image: String,
    },
    /// The one `docker compose up` in this repository started.
    Compose,
    /// One that is running somewhere.
    External(ExternalBroker),
}

impl BrokerSpec {
    /// Names the root certificate file an external TLS or QUIC broker is verified against.
    ///
    /// # Errors
    /// When this broker brings its own authority, or speaks without TLS.
    pub fn with_ca(mut self, path: PathBuf) -> Result<Self, SpecError> {
        match &mut self {
            Self::External(external) if external.transport != Transport::Tcp => {
                external.ca = Some(path);
                Ok(self)
            }
            _ => Err(SpecError::CaWithoutTls(self.to_string())),
        }
    }
}

/// A broker was named in a way the harness does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// None of the forms.
    #[error(
        "`{0}` names no broker; use `auto`, `embedded`, `emqx`, `emqx:TAG`, `docker:IMAGE`, `compose`, \
         `quic://HOST:PORT`, `mqtts://HOST:PORT` or `mqtt://HOST:PORT`"
    )]
    Unknown(String),
    /// The part after the colon is empty.
    #[error("`{0}` lacks what follows the colon; for example `emqx:{EMQX_TAG}` or `docker:my-broker:latest`")]
    Empty(String),
    /// Not the name of an image.
    #[error(
        "`{0}` names no image: a repository in lower case, then `:TAG` or `@DIGEST`; for example `emqx:{EMQX_TAG}` \
         or `docker:my-broker:latest`"
    )]
    Image(String),
    /// No host in a URL.
    #[error("`{0}` has no host; write {scheme}://HOST:PORT", scheme = .0.split(':').next().unwrap_or("quic"))]
    NoHost(String),
    /// An IPv6 address without brackets.
    #[error("`{0}` holds an IPv6 address without brackets; write {scheme}://[ADDRESS]:PORT", scheme = .0.split(':').next().unwrap_or("quic"))]
    Brackets(String),
    /// The port is not one.
    #[error("`{port}` in `{url}` is no port; give a number from 1 to 65535")]
    Port {
        /// The whole text.
        url: String,
        /// What stands in the port's place.
        port: String,
    },
    /// Something follows the port.
    #[error("`{0}` goes on after the port; leave out path, user and options: SCHEME://HOST:PORT")]
    TrailingPath(String),
    /// A root certificate was given where none is used.
    #[error(
        "`--ca` says which root an external quic:// or mqtts:// broker is verified against; `{0}` has no use for it"
    )]
    CaWithoutTls(String),
}

impl FromStr for BrokerSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let image = |rest: &str, valid: fn(&str) -> bool| match rest {
            "" => Err(SpecError::Empty(text.to_owned())),
            rest if valid(rest) => Ok(rest.to_owned()),
            _ => Err(SpecError::Image(text.to_owned())),
        };
        for transport in Transport::ALL {
            if let Some(rest) = text.strip_prefix(scheme(transport)).and_then(|rest| rest.strip_prefix("://"))
            {
                return Ok(Self::External(parse_authority(text, transport, rest)?));
            }
        }
        match text {
            "auto" => return Ok(Self::Auto),
            "embedded" => return Ok(Self::Embedded),
            "compose" => return Ok(Self::Compose),
            "emqx" => {
                return Ok(Self::Emqx { tag: EMQX_TAG.to_owned() });
            }
            _ => {}
        }
        if let Some(tag) = text.strip_prefix("emqx:") {
            return Ok(Self::Emqx { tag: image(tag, is_tag)? });
        }
        if let Some(reference) = text.strip_prefix("docker:") {
            return Ok(Self::Docker { image: image(reference, is_reference)? });
        }
        Err(SpecError::Unknown(text.to_owned()))
    }
}

/// Whether Docker takes it for a tag.
fn is_tag(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    !text.is_empty() && text.chars().all(fits) && !text.starts_with(['.', '-'])
}

/// Whether Docker takes it for `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`, as far as typing errors go.
fn is_reference(text: &str) -> bool {
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    // A colon before a slash belongs to a registry's port.
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    };
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c);
    let mut parts = name.rsplit('/');
    let (last, host) = (parts.next().unwrap_or_default(), parts.next_back());
    let host_fits =
        |host: &str| !host.is_empty() && host.chars().all(|c| fits(c.to_ascii_lowercase()) || c == ':');
    !last.is_empty()
        && last.chars().all(fits)
        && parts.all(|part| !part.is_empty() && part.chars().all(fits))
        && host.is_none_or(host_fits)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(|digest| digest.split_once(':').is_some_and(|(_, hex)| is_tag(hex)))
}

fn parse_authority(text: &str, transport: Transport, rest: &str) -> Result<ExternalBroker, SpecError> {
    if rest.contains(['/', '@', '?', '#']) {
        return Err(SpecError::TrailingPath(text.to_owned()));
    }
    let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']').ok_or_else(|| SpecError::NoHost(text.to_owned()))?;
        (host, after.strip_prefix(':'))
    } else {
        match rest.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        }
    };
    if host.contains(':') && !rest.starts_with('[') {
        return Err(SpecError::Brackets(text.to_owned()));
    }
    if host.is_empty() {
        return Err(SpecError::NoHost(text.to_owned()));
    }
    let port = match port {
        None => default_port(transport),
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| SpecError::Port { url: text.to_owned(), port: port.to_owned() })?,
    };
    Ok(ExternalBroker { transport, host: host.to_owned(), port, ca: None })
}

impl fmt::Display for BrokerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Embedded => f.write_str("embedded"),
            Self::Emqx { tag } => write!(f, "emqx:{tag}"),
            Self::Docker { image } => write!(f, "docker:{image}"),
            Self::Compose => f.write_str("compose"),
            Self::External(external) => external.fmt(f),
        }
    }
}

impl fmt::Display for ExternalBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = scheme(self.transport);
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BrokerSpec, SpecError> {
        text.parse()
    }

    #[test]
    fn every_form_reads_back_as_it_is_written() {
        for text in [
            "auto",
            "embedded",
            "emqx:5.8.9",
            "emqx:6.2.2",
            "docker:local/broker:dev",
            "docker:emqx/emqx@sha256:0123",
            "docker:Registry.example:5000/mirror/emqx/emqx:5.8.9-RC1",
            "docker:broker",
            "compose",
            "quic://broker.example:14567",
            "mqtts://192.0.2.1:8884",
            "mqtt://[2001:db8::1]:1883",
        ] {
            assert_eq!(parse(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn short_forms_get_the_pinned_tag_and_the_usual_port() {
        assert_eq!(parse("emqx"), Ok(BrokerSpec::Emqx { tag: EMQX_TAG.to_owned() }));
        assert_eq!(parse("quic://b").expect("a broker").to_string(), "quic://b:14567");
        assert_eq!(parse("mqtts://b").expect("a broker").to_string(), "mqtts://b:8883");
    }

    #[test]
    fn mistakes_say_what_to_write_instead() {
        assert_eq!(parse("emqx:"), Err(SpecError::Empty("emqx:".into())));
        assert_eq!(parse("docker:"), Err(SpecError::Empty("docker:".into())));
        for text in [
            "emqx:5.8.9 ",
            "emqx:5 8",
            "docker:UPPER CASE",
            "docker:My-Broker:1",
            "docker:a//b",
            "docker:broker:",
            "docker:broker@",
            "docker:/broker",
        ] {
            assert_eq!(parse(text), Err(SpecError::Image(text.into())));
        }
        assert_eq!(parse("quic://"), Err(SpecError::NoHost("quic://".into())));
        assert!(parse("quic://").expect_err("no host").to_string().contains("quic://HOST:PORT"));
        assert_eq!(parse("mqtt://b/x"), Err(SpecError::TrailingPath("mqtt://b/x".into())));
        assert_eq!(parse("mqtt://::1"), Err(SpecError::Brackets("mqtt://::1".into())));
        for port in ["0", "65536", "x", ""] {
            let url = format!("quic://b:{port}");
            assert!(matches!(parse(&url), Err(SpecError::Port { .. })), "{url}");
        }
        let unknown = parse("mosquitto").expect_err("not known");
        assert!(unknown.to_string().contains("`embedded`"));
    }

    #[test]
    fn a_ca_file_fits_only_external_brokers_with_tls() {
        let ca = PathBuf::from("ca.pem");
        let quic = parse("quic://b").and_then(|spec| spec.with_ca(ca.clone()));
        assert!(matches!(quic, Ok(BrokerSpec::External(ExternalBroker { ca: Some(_), .. }))));
        for text in ["mqtt://b", "embedded", "emqx"] {
            assert!(matches!(
                parse(text).and_then(|spec| spec.with_ca(ca.clone())),
                Err(SpecError::CaWithoutTls(_))
            ));
        }
    }
}
