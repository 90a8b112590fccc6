//! An MQTT client that keeps its session over connections, and a log of both.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use device::control::Reconnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::connector::{
    Attempt, ConnectError, Connector, Early, Wired, quic_stats, quic_wire, received_alert,
    received_quic_alert,
};
use super::reporter::Reporter;
use super::send_log::SendLog;
use super::session::{Session, Tagged};
use super::{Clock, rumqttc};
use crate::measure::record::{ConnectCause, Connection, Event, Phase, TransportStats};
use crate::wire::{Connack, Connect, Frame, Packet, Publish, Subscription, Version, property, reason};

/// Bytes that may wait to be written before publishing pauses.
const OUT_LIMIT: usize = 64 * 1024;
/// Time a client has to say goodbye: a broker that is frozen takes no DISCONNECT.
const END_LIMIT: Duration = Duration::from_secs(5);
const READ_CHUNK: usize = 16 * 1024;

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Its CONNECT.
    pub connect: Connect,
    /// What it does when a connection ends unasked.
    pub reconnection: Reconnection,
    /// Time an attempt has until CONNACK.
    pub connect_limit: Duration,
    /// Time the broker has for PINGRESP.
    pub answer_limit: Duration,
}

impl ClientOptions {
    /// A client that does not reconnect.
    #[must_use]
    pub fn new(version: Version, client_id: &str) -> Self {
        Self {
            connect: Connect::new(version, client_id),
            reconnection: Reconnection::Never,
            connect_limit: Duration::from_secs(10),
            answer_limit: Duration::from_secs(10),
        }
    }
}

/// Something a client has to tell.
#[derive(Debug, Clone)]
pub enum ClientEvent {
    /// CONNACK accepted the session.
    Connected {
        /// Whether the broker still had it.
        session_present: bool,
    },
    /// A message arrived.
    Message {
        /// The message.
        publish: Publish,
        /// When its last byte was read.
        at: Instant,
    },
    /// The connection is over, or an attempt failed.
    Disconnected {
        /// Why.
        reason: String,
    },
    /// No further attempt will follow.
    GaveUp,
}

/// What a client keeps about its connections.
#[derive(Debug, Clone, Default)]
pub struct ClientLog {
    /// Every attempt to connect.
    pub connections: Vec<Connection>,
    /// What happened when.
    pub events: Vec<Event>,
    /// What the transport counted, over all connections; QUIC only.
    pub stats: Option<TransportStats>,
}

pub(super) enum Command {
    Publish(Tagged),
    Subscribe(Vec<Subscription>, oneshot::Sender<Vec<u8>>),
    Unsubscribe(Vec<String>, oneshot::Sender<Vec<u8>>),
    Reconnect,
    Disconnect,
}

/// Why a request to a client has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client is not running any more")]
pub struct NotRunning;

/// A client, running in a task of its own.
#[derive(Debug)]
pub struct Client {
    commands: mpsc::UnboundedSender<Command>,
    outcome: watch::Receiver<Option<Result<bool, ConnectError>>>,
    log: Arc<Mutex<ClientLog>>,
    leave: CancellationToken,
    abort: CancellationToken,
    ended: CancellationToken,
}

impl Client {
    /// Starts a client of the harness's own; it connects at once. What it has to tell goes to `events`.
    #[must_use]
    pub fn start(
        connector: Arc<Connector>,
        options: ClientOptions,
        clock: Clock,
        events: mpsc::UnboundedSender<ClientEvent>,
    ) -> Self {
        Self::spawn(options, clock, events, |reporter, commands| {
            let session = Session::new(reporter.options.connect.version);
            Actor { session, connector, commands, reporter }.run()
        })
    }

    /// Starts rumqttc as the client, for MQTT 5.0 over TLS or TCP.
    ///
    /// # Errors
    /// When rumqttc does not speak that transport or version.
    pub fn start_rumqttc(
        connector: Arc<Connector>,
        options: ClientOptions,
        clock: Clock,
        events: mpsc::UnboundedSender<ClientEvent>,
    ) -> Result<Self, ConnectError> {
        let settings = rumqttc::settings(&connector, &options)?;
        Ok(Self::spawn(options, clock, events, |reporter, commands| {
            rumqttc::run(settings, connector, reporter, commands)
        }))
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(
        options: ClientOptions,
        clock: Clock,
        events: mpsc::UnboundedSender<ClientEvent>,
        run: impl FnOnce(Reporter, mpsc::UnboundedReceiver<Command>) -> F,
    ) -> Self {
        let (commands, commands_rx) = mpsc::unbounded_channel();
        let (outcome_tx, outcome) = watch::channel(None);
        let log = Arc::new(Mutex::default());
        let leave = CancellationToken::new();
        let abort = CancellationToken::new();
        let reporter = Reporter {
            options,
            clock,
            events,
            outcome: outcome_tx,
            log: Arc::clone(&log),
            leave: leave.clone(),
        };
        let run = run(reporter, commands_rx);
        let ended = CancellationToken::new();
        let (token, guard) = (abort.clone(), ended.clone().drop_guard());
        tokio::spawn(async move {
            // However it ends: a panic, too, is an end.
            let _guard = guard;
            token.run_until_cancelled(run).await;
        });
        Self { commands, outcome, log, leave, abort, ended }
    }

    /// Waits for the first CONNACK; yields whether the broker had a session.
    ///
    /// # Errors
    /// Why the first attempt failed. With reconnection on, later ones may still succeed.
    pub async fn connected(&self) -> Result<bool, ConnectError> {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().expect("that is what was waited for"),
            Err(_) => Err(ConnectError::closed("the client was stopped")),
        }
    }

    /// Publishes a message that was due at `intended_us`; `log` learns what becomes of it under `sequence`.
    pub fn publish(&self, publish: Publish, sequence: u32, intended_us: u64, log: &Arc<SendLog>) {
        log.due(sequence, intended_us);
        let tagged = Tagged { publish, sequence, log: Arc::clone(log) };
        // A client that has ended sends nothing more, which its log shows.
        let _ = self.commands.send(Command::Publish(tagged));
    }

    /// Subscribes; yields the codes of SUBACK.
    ///
    /// # Errors
    /// [`NotRunning`] when the client ended before the answer.
    pub async fn subscribe(&self, subscriptions: Vec<Subscription>) -> Result<Vec<u8>, NotRunning> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Subscribe(subscriptions, reply)).map_err(|_| NotRunning)?;
        answer.await.map_err(|_| NotRunning)
    }

    /// Unsubscribes; yields the codes of UNSUBACK.
    ///
    /// # Errors
    /// [`NotRunning`] when the client ended before the answer.
    pub async fn unsubscribe(&self, filters: Vec<String>) -> Result<Vec<u8>, NotRunning> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Unsubscribe(filters, reply)).map_err(|_| NotRunning)?;
        answer.await.map_err(|_| NotRunning)
    }

    /// Gives the connection up without a word and opens a new one.
    pub fn reconnect(&self) {
        let _ = self.commands.send(Command::Reconnect);
    }

    /// What it kept about its connections so far.
    #[must_use]
    pub fn log(&self) -> ClientLog {
        self.log.lock().expect("no holder of this lock panics").clone()
    }

    /// Ends with a DISCONNECT, after everything published before was handed to the transport. While there is
    /// no connection, it ends without.
    pub async fn disconnect(self) -> ClientLog {
        self.end().await
    }

    /// As [`Self::disconnect`], for a client that is shared.
    pub(super) async fn end(&self) -> ClientLog {
        self.leave.cancel();
        let _ = self.commands.send(Command::Disconnect);
        if tokio::time::timeout(END_LIMIT, self.ended.cancelled()).await.is_err() {
            self.abort.cancel();
            self.ended.cancelled().await;
        }
        self.log()
    }

    /// Ends without a DISCONNECT: the connection closes under the session.
    pub async fn vanish(self) -> ClientLog {
        self.abort.cancel();
        self.ended.cancelled().await;
        self.log()
    }
}

/// A client of our own codec.
struct Actor {
    session: Session,
    connector: Arc<Connector>,
    commands: mpsc::UnboundedReceiver<Command>,
    reporter: Reporter,
}

impl Drop for Client {
    /// A client nobody holds any more ends, with a DISCONNECT if it can.
    fn drop(&mut self) {
        self.leave.cancel();
    }
}

/// Why a connection ended.
enum End {
    Lost(String),
    Asked,
    Over,
}

impl Actor {
    async fn run(mut self) {
        let mut cause = ConnectCause::First;
        let mut failures = 0;
        loop {
            match self.connect(cause).await {
                Ok((wired, window, session_present)) => {
                    failures = 0;
                    self.reporter.connected(session_present);
                    match self.serve(wired, session_present, window).await {
                        End::Over => return,
                        End::Asked => {
                            cause = ConnectCause::Step;
                            continue;
                        }
                        End::Lost(reason) => self.reporter.disconnected(reason),
                    }
                }
                Err(error) => {
                    failures += 1;
                    self.reporter.failed(error);
                }
            }
            cause = ConnectCause::Recovery;
            if !self.reporter.back_off(failures).await {
                return;
            }
        }
    }

    /// One attempt, with its entry in the log.
    async fn connect(&mut self, cause: ConnectCause) -> Result<(Wired, u16, bool), ConnectError> {
        let clock = self.reporter.clock;
        let started_us = clock.now_us();
        let mut attempt = Attempt::new(clock, self.connector.target().transport);
        let limit = self.reporter.options.connect_limit;
        let outcome = tokio::time::timeout(limit, self.handshake(&mut attempt, cause))
            .await
            .unwrap_or(Err(ConnectError::TimedOut(limit)));
        let wire = match &outcome {
            Ok((wired, ..)) => wired.quic.as_ref().map(quic_wire),
            Err(_) => None,
        };
        self.reporter.attempted(cause, started_us, attempt, wire, outcome.as_ref().err());
        outcome
    }

    async fn handshake(
        &self,
        attempt: &mut Attempt,
        cause: ConnectCause,
    ) -> Result<(Wired, u16, bool), ConnectError> {
        let mut wired = self.connector.open(attempt).await?;
        let mut connect = self.reporter.options.connect.clone();
        // A clean start is for the first connection; later ones want their session back.
        connect.clean_start &= cause == ConnectCause::First;
        let packet = connect.encode();
        attempt.mark(Phase::ConnectSent);
        write_all(&mut wired, &packet).await?;
        if self.connector.settle_early(&mut wired, attempt).await? == Early::Refused {
            write_all(&mut wired, &packet).await?;
        }
        let connack = read_connack(&mut wired, connect.version).await?;
        attempt.mark(Phase::Connack);
        if connack.code != reason::SUCCESS {
            return Err(ConnectError::Refused(connack.code));
        }
        let window = connack.properties.u16(property::RECEIVE_MAXIMUM).unwrap_or(u16::MAX);
        Ok((wired, window, connack.session_present))
    }

    /// Serves one connection to its end.
    async fn serve(&mut self, mut wired: Wired, session_present: bool, window: u16) -> End {
        let mut out = Vec::new();
        self.session.resume(session_present, window, &mut out);
        let end = self.exchange(&mut wired, out).await;
        if let Some(connection) = &wired.quic {
            let stats = quic_stats(connection);
            self.reporter.log().stats.get_or_insert_default().add(&stats);
        }
        match end {
            End::Over => {
                // The broker may close first; both are fine.
                let _ = wired.writer.shutdown().await;
                if let Some(connection) = &wired.quic {
                    let ended = tokio::time::timeout(Duration::from_secs(1), connection.closed());
                    let _ = ended.await;
                    connection.close(0u32.into(), b"");
                    self.connector.flush().await;
                }
            }
            End::Asked | End::Lost(_) => {
                if let Some(connection) = &wired.quic {
                    connection.close(0u32.into(), b"");
                }
            }
        }
        end
    }

    async fn exchange(&mut self, wired: &mut Wired, mut out: Vec<u8>) -> End {
        let version = self.reporter.options.connect.version;
        let keep_alive = match self.reporter.options.connect.keep_alive_s {
            0 => Duration::MAX / 4,
            s => Duration::from_secs(u64::from(s)) * 3 / 4,
        };
        let mut buf = Vec::new();
        let mut chunk = vec![0; READ_CHUNK];
        let mut last_sent = tokio::time::Instant::now();
        let mut ping_sent = None;
        let mut leaving = false;
        loop {
            self.session.send_waiting(&mut out, OUT_LIMIT);
            if leaving && out.is_empty() {
                return End::Over;
            }
            let wake = match ping_sent {
                Some(at) => at + self.reporter.options.answer_limit,
                None => last_sent.checked_add(keep_alive).unwrap_or(last_sent + Duration::from_secs(1 << 30)),
            };
            tokio::select! {
                read = wired.reader.read(&mut chunk) => match read {
                    Ok(0) => return End::Lost("the broker closed the connection".into()),
                    Err(error) => return End::Lost(error.to_string()),
                    Ok(length) => {
                        buf.extend_from_slice(&chunk[..length]);
                        if let Err(reason) = self.take_in(&mut buf, version, &mut out, &mut ping_sent) {
                            return End::Lost(reason);
                        }
                    }
                },
                written = wired.writer.write(&out), if !out.is_empty() => match written {
                    Ok(length) => {
                        out.drain(..length);
                        last_sent = tokio::time::Instant::now();
                        if let Err(error) = wired.writer.flush().await {
                            return End::Lost(error.to_string());
                        }
                    }
                    Err(error) => return End::Lost(error.to_string()),
                },
                command = self.commands.recv(), if !leaving && out.len() < OUT_LIMIT => match command {
                    Some(Command::Publish(message)) => self.session.publish(message),
                    Some(Command::Subscribe(wanted, reply)) => self.session.subscribe(wanted, reply, &mut out),
                    Some(Command::Unsubscribe(filters, reply)) => {
                        self.session.unsubscribe(filters, reply, &mut out);
                    }
                    Some(Command::Reconnect) => return End::Asked,
                    Some(Command::Disconnect) | None => {
                        self.session.send_waiting(&mut out, usize::MAX);
                        out.extend_from_slice(&Packet::Disconnect { reason: reason::SUCCESS }.encode(version));
                        leaving = true;
                    }
                },
                () = tokio::time::sleep_until(wake) => {
                    if ping_sent.is_some() {
                        return End::Lost("the broker does not answer a ping".into());
                    }
                    ping_sent = Some(tokio::time::Instant::now());
                    out.extend_from_slice(&Packet::Pingreq.encode(version));
                }
            }
        }
    }

    /// Takes in every whole packet of `buf`.
    fn take_in(
        &mut self,
        buf: &mut Vec<u8>,
        version: Version,
        out: &mut Vec<u8>,
        ping_sent: &mut Option<tokio::time::Instant>,
    ) -> Result<(), String> {
        let at = Instant::now();
        let mut done = 0;
        while let Some(frame) = Frame::peek(&buf[done..]).map_err(|error| error.to_string())? {
            let Some(bytes) = buf.get(done..done + frame.length) else { break };
            let packet = Packet::decode(bytes, version).map_err(|error| error.to_string())?;
            done += frame.length;
            match packet {
                Packet::Pingresp => *ping_sent = None,
                Packet::Disconnect { reason } => {
                    return Err(format!("the broker disconnects with reason {reason:#04x}"));
                }
                packet => {
                    if let Some(publish) = self.session.handle(packet, out) {
                        let _ = self.reporter.events.send(ClientEvent::Message { publish, at });
                    }
                }
            }
        }
        buf.drain(..done);
        Ok(())
    }
}

async fn write_all(wired: &mut Wired, bytes: &[u8]) -> Result<(), ConnectError> {
    let written = async {
        wired.writer.write_all(bytes).await?;
        wired.writer.flush().await
    };
    written.await.map_err(|error: std::io::Error| closed(wired, &error))
}

/// Reads exactly the CONNACK; what follows it stays in the stream.
async fn read_connack(wired: &mut Wired, version: Version) -> Result<Connack, ConnectError> {
    let mut bytes = Vec::new();
    let malformed = |error: crate::wire::Malformed| ConnectError::closed(error);
    loop {
        let frame = Frame::peek(&bytes).map_err(malformed)?;
        if frame.is_some_and(|frame| frame.length == bytes.len()) {
            break;
        }
        match wired.reader.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(error) => return Err(closed(wired, &error)),
        }
    }
    match Packet::decode(&bytes, version).map_err(malformed)? {
        Packet::Connack(connack) => Ok(connack),
        other => Err(ConnectError::closed(format!("{other:?} came in place of CONNACK"))),
    }
}

fn closed(wired: &Wired, error: &std::io::Error) -> ConnectError {
    match wired.quic.as_ref().and_then(|connection| connection.close_reason()) {
        Some(known) => ConnectError::Closed { reason: known.to_string(), alert: received_quic_alert(&known) },
        None => ConnectError::Closed { reason: error.to_string(), alert: received_alert(error) },
    }
}
