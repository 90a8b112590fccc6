//! Stands in for EMQX in an image of its own: the embedded broker behind the settings, files, status endpoint, API and
//! command line that the harness uses of EMQX, in the forms that EMQX 5.8.9 knows.
//!
//! Without arguments it serves. As `emqx ctl ...` it has the serving one do that, as EMQX's tool does:
//!
//! - `ctl listeners` lists the listeners;
//! - `ctl pem_cache clean all` forgets the certificates that were read;
//! - `ctl listeners restart NAME` opens a listener anew, with the certificates of the cache or else of the files.
//!
//! Like EMQX's, the tool ends with exit code 0 whenever the node hears it: whether a command was done is told by its
//! words. A form that is not known brings the usage.
//!
//! The variable `EMQX_STUB` makes it fail: `status=CODE` is what the status endpoint answers, `quic=stopped` how the
//! listener is shown, `deaf` has commands do nothing and say that all is well, `fails=WORDS` has the command of those words
//! (`_` between them) say that it failed, `unknown=WORDS` has the node not know it, `hangs=WORDS` has the tool wait for ever, and `WORDS=CODE` is the exit code of a
//! tool that reaches no node.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use harness::broker::{Broker, BrokerError, BrokerOptions, BrokerSpec, Credentials, Fault, Ports};
use harness::certificates::{Certificates, Identity};

/// Where the serving one hears the command line, inside the container.
const CONTROL: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::LOCALHOST), 4370);
const API: u16 = 18_083;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("ctl") => control(&words[1..]),
        None => serve(),
        Some(other) => panic!("`{other}` is no command of this stub"),
    }
}

/// What `EMQX_STUB` says of `name`.
fn flaw(name: &str) -> Option<String> {
    let all = std::env::var("EMQX_STUB").ok()?;
    let mut each = all.split(',').map(|flaw| flaw.split_once('=').unwrap_or((flaw, "")));
    each.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}

/// The value of one of EMQX's settings.
fn setting(name: &str) -> String {
    let variable = format!("EMQX_{}", name.replace('.', "__").to_uppercase());
    std::env::var(&variable).unwrap_or_else(|_| panic!("{variable} is not set"))
}

/// `emqx ctl`: one line to the serving one, and its answer.
fn control(words: &[String]) -> ExitCode {
    if let Some(code) = flaw(&words.join("_")) {
        eprintln!("Node 'emqx@127.0.0.1' not responding to pings.");
        return ExitCode::from(code.parse::<u8>().expect("an exit code"));
    }
    let line = words.join(" ");
    if flaw("deaf").is_some() && line != "listeners" {
        println!("{}", success(&line));
        return ExitCode::SUCCESS;
    }
    if flaw("fails").is_some_and(|failing| failing == words.join("_")) {
        println!("{}", failure(&line, "eaddrinuse"));
        return ExitCode::SUCCESS;
    }
    if flaw("hangs").is_some_and(|hanging| hanging == words.join("_")) {
        loop {
            std::thread::park();
        }
    }
    if flaw("unknown").is_some_and(|unknown| unknown == words.join("_")) {
        print!("{}", usage(&line));
        return ExitCode::SUCCESS;
    }
    let asked = TcpStream::connect(CONTROL).and_then(|mut stream| {
        writeln!(stream, "{line}")?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    });
    match asked {
        Ok(answer) => {
            print!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("no node answers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What EMQX says of a command that it did.
fn success(line: &str) -> String {
    match line.strip_prefix("listeners restart ") {
        Some(name) => format!("Restarted {name} listener successfully."),
        None => "PEM cache clean OK".into(),
    }
}

/// What EMQX says of a command that it could not do.
fn failure(line: &str, reason: &str) -> String {
    match line.strip_prefix("listeners restart ") {
        Some(name) => format!("Failed to restart {name} listener: {reason}"),
        None => format!("PEM cache clean FAILED\n{reason}"),
    }
}

/// What EMQX says of a form that it does not know.
fn usage(line: &str) -> String {
    let commands: &[&str] = match line.split(' ').next() {
        Some("pem_cache") => &["pem_cache clean all", "pem_cache clean node <Node>"],
        _ => &["listeners", "listeners stop    <Identifier>", "listeners restart <Identifier>"],
    };
    commands.iter().map(|command| format!("{command} # as it is done\n")).collect()
}

/// The node: the broker, and the certificates it has read.
struct Node {
    runtime: tokio::runtime::Runtime,
    broker: Option<Broker>,
    /// EMQX's cache of PEM files, by path.
    cache: HashMap<String, Vec<u8>>,
}

fn serve() -> ExitCode {
    assert_eq!(setting("listeners.quic.default.enable"), "true", "there would be no QUIC listener");
    assert_eq!(setting("node.name"), "emqx@127.0.0.1");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut node = Node { runtime, broker: None, cache: HashMap::new() };
    if let Err(error) = node.open() {
        eprintln!("[error] failed_to_start_listener: {error}");
        return ExitCode::from(1);
    }
    let commands = TcpListener::bind(CONTROL).expect("the control port");
    let api = TcpListener::bind((Ipv4Addr::UNSPECIFIED, API)).expect("the API's port");
    println!("EMQX stub is running now!");
    let node = Arc::new(std::sync::Mutex::new(node));
    let shared = Arc::clone(&node);
    std::thread::spawn(move || {
        for stream in api.incoming().map_while(Result::ok) {
            let _ = answer(stream, &shared);
        }
    });
    for mut stream in commands.incoming().map_while(Result::ok) {
        let mut line = String::new();
        let _ = stream.read_to_string(&mut line);
        let text = node.lock().expect("no holder panics").obey(line.trim());
        let _ = stream.write_all(text.as_bytes());
    }
    ExitCode::SUCCESS
}

impl Node {
    /// A file as EMQX reads it: from the cache, if it was read before.
    fn read(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let path = setting(&format!("listeners.quic.default.ssl_options.{name}"));
        if let Some(known) = self.cache.get(&path) {
            return Ok(known.clone());
        }
        let bytes = std::fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
        self.cache.insert(path, bytes.clone());
        Ok(bytes)
    }

    /// Opens the listeners with the certificates that the settings name.
    fn open(&mut self) -> Result<(), String> {
        let (chain, key) = (self.read("certfile")?, self.read("keyfile")?);
        let identity = Identity::from_pem(&chain, &key)?;
        let credentials = Credentials { identity, client_roots: rustls::RootCertStore::empty() };
        let options = BrokerOptions {
            bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            ports: Ports { quic: 14_567, tls: 8_883, tcp: 1_883 },
            credentials: Some(credentials),
            ..BrokerOptions::default()
        };
        let certificates = Arc::new(Certificates::generate().map_err(|error| error.to_string())?);
        if let Some(broker) = self.broker.take() {
            self.runtime.block_on(broker.shut_down());
        }
        let started = Broker::start(BrokerSpec::Embedded, certificates, options);
        self.broker = Some(self.runtime.block_on(started).map_err(|error| error.to_string())?);
        Ok(())
    }

    /// One line of `emqx ctl`.
    fn obey(&mut self, line: &str) -> String {
        match line {
            "listeners" => listeners(),
            "pem_cache clean all" => {
                self.cache.clear();
                success(line) + "\n"
            }
            "listeners restart quic:default" | "listeners restart ssl:default" => match self.open() {
                Ok(()) => success(line) + "\n",
                Err(reason) => failure(line, &reason) + "\n",
            },
            unknown => usage(unknown),
        }
    }

    /// `DELETE /api/v5/clients/ID`.
    fn kick(&mut self, client_id: &str) -> u16 {
        let broker = self.broker.as_mut().expect("it is open");
        let kick = Fault::Kick { client_id: client_id.to_owned() };
        match self.runtime.block_on(broker.apply(&kick)) {
            Ok(()) => 204,
            Err(BrokerError::NoSuchClient { .. }) => 404,
            Err(_) => 500,
        }
    }
}

fn listeners() -> String {
    let runs = flaw("quic").is_none_or(|state| state != "stopped");
    let one = |name: &str, port: u16, runs: bool| {
        // The key is spelt so; QUIC has no limit to show.
        let limit = if name.starts_with("quic") { "" } else { "  max_conns       : infinity\n" };
        format!(
            "{name}\n  listen_on       : 0.0.0.0:{port}\n  acceptors       : 16\n  proxy_protocol  : false\n  \
             enbale          : true\n  running         : {runs}\n  current_conn    : 0\n{limit}"
        )
    };
    [one("ssl:default", 8883, true), one("quic:default", 14_567, runs), one("tcp:default", 1883, true)]
        .concat()
}

/// One request to the status endpoint or the API.
fn answer(mut stream: TcpStream, node: &std::sync::Mutex<Node>) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let first = request.lines().next().unwrap_or_default();
    let status = if first == "GET /status HTTP/1.1" {
        flaw("status").map_or(200, |code| code.parse().expect("a status code"))
    } else if let Some(client_id) = first.strip_prefix("DELETE /api/v5/clients/") {
        if authorized(&request) {
            let client_id = client_id.trim_end_matches(" HTTP/1.1");
            node.lock().expect("no holder panics").kick(client_id)
        } else {
            401
        }
    } else {
        404
    };
    write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

/// Whether the request bears the API key of the bootstrap file.
fn authorized(request: &str) -> bool {
    let keys = std::fs::read_to_string(Path::new(&setting("api_key.bootstrap_file"))).unwrap_or_default();
    let Some((key, "administrator")) = keys.trim().rsplit_once(':') else { return false };
    let wanted = format!("Authorization: Basic {}", harness::certificates::base64(key.as_bytes()));
    request.lines().any(|line| line == wanted)
}
