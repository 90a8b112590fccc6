//! An MQTT client that keeps its session over connections, and a log of both.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use device::control::Reconnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Clock;
use super::connector::{Attempt, ConnectError, Connector, Early, Wired, quic_stats, quic_wire};
use super::session::{Session, Tagged};
use crate::measure::record::{ConnectCause, Connection, Event, EventKind, Phase, TransportStats};
use crate::wire::{Connack, Connect, Frame, Packet, Publish, Subscription, Version, property, reason};

/// Bytes that may wait to be written before publishing pauses.
const OUT_LIMIT: usize = 64 * 1024;
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

/// What became of one message of a workload, as its sender saw it. Microseconds of the trial's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sending {
    /// Its number in the run.
    pub sequence: u32,
    /// When it was due.
    pub intended_us: u64,
    /// When it was handed to the transport.
    pub sent_us: Option<u64>,
    /// When PUBACK or PUBCOMP arrived.
    pub acked_us: Option<u64>,
    /// The reason code of a negative acknowledgement.
    pub refused: Option<u8>,
}

/// What became of the messages of one workload, as their sender saw it.
#[derive(Debug)]
pub struct SendLog {
    clock: Clock,
    sendings: Mutex<Vec<Sending>>,
    progress: watch::Sender<usize>,
}

impl SendLog {
    /// An empty log; the messages to come are numbered from 0.
    #[must_use]
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { clock, sendings: Mutex::default(), progress: watch::Sender::new(0) })
    }

    /// What became of each message so far, by number.
    #[must_use]
    pub fn sendings(&self) -> Vec<Sending> {
        self.lock().clone()
    }

    /// Resolves once `count` messages are settled: acknowledged, or sent if nothing acknowledges them.
    pub async fn settled(&self, count: usize) {
        let mut progress = self.progress.subscribe();
        // The sender lives as long as `self`.
        let _ = progress.wait_for(|settled| *settled >= count).await;
    }

    fn due(&self, sequence: u32, intended_us: u64) {
        let mut sendings = self.lock();
        debug_assert_eq!(sendings.len(), sequence as usize, "numbered without gaps");
        sendings.push(Sending { sequence, intended_us, sent_us: None, acked_us: None, refused: None });
    }

    pub(super) fn sent(&self, sequence: u32) {
        let now = self.clock.now_us();
        self.change(sequence, |sending| {
            sending.sent_us.get_or_insert(now);
        });
    }

    pub(super) fn acked(&self, sequence: u32, code: u8) {
        let now = self.clock.now_us();
        self.change(sequence, |sending| {
            if code < 0x80 {
                sending.acked_us.get_or_insert(now);
            } else {
                sending.refused = Some(code);
            }
        });
        self.settle_one();
    }

    pub(super) fn settle_one(&self) {
        self.progress.send_modify(|settled| *settled += 1);
    }

    fn change(&self, sequence: u32, change: impl FnOnce(&mut Sending)) {
        if let Some(sending) = self.lock().get_mut(sequence as usize) {
            change(sending);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Sending>> {
        self.sendings.lock().expect("no holder of this lock panics")
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

enum Command {
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
    task: JoinHandle<()>,
}

impl Client {
    /// Starts a client; it connects at once. What it has to tell goes to `events`.
    #[must_use]
    pub fn start(
        connector: Arc<Connector>,
        options: ClientOptions,
        clock: Clock,
        events: mpsc::UnboundedSender<ClientEvent>,
    ) -> Self {
        let (commands, commands_rx) = mpsc::unbounded_channel();
        let (outcome_tx, outcome) = watch::channel(None);
        let log = Arc::new(Mutex::default());
        let leave = CancellationToken::new();
        let abort = CancellationToken::new();
        let actor = Actor {
            session: Session::new(options.connect.version),
            connector,
            options,
            clock,
            events,
            commands: commands_rx,
            outcome: outcome_tx,
            log: Arc::clone(&log),
            leave: leave.clone(),
        };
        let token = abort.clone();
        let task = tokio::spawn(async move {
            token.run_until_cancelled(actor.run()).await;
        });
        Self { commands, outcome, log, leave, abort, task }
    }

    /// Waits for the first CONNACK; yields whether the broker had a session.
    ///
    /// # Errors
    /// Why the first attempt failed. With reconnection on, later ones may still succeed.
    pub async fn connected(&self) -> Result<bool, ConnectError> {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().expect("that is what was waited for"),
            Err(_) => Err(ConnectError::Closed("the client was stopped".into())),
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
        let Self { commands, log, leave, task, .. } = self;
        leave.cancel();
        let _ = commands.send(Command::Disconnect);
        drop(commands);
        // A panic in the task has been reported by the runtime.
        let _ = task.await;
        log.lock().expect("no holder of this lock panics").clone()
    }

    /// Ends without a word, as a power cut does.
    pub async fn vanish(self) -> ClientLog {
        self.abort.cancel();
        let _ = self.task.await;
        self.log.lock().expect("no holder of this lock panics").clone()
    }
}

struct Actor {
    session: Session,
    connector: Arc<Connector>,
    options: ClientOptions,
    clock: Clock,
    events: mpsc::UnboundedSender<ClientEvent>,
    commands: mpsc::UnboundedReceiver<Command>,
    outcome: watch::Sender<Option<Result<bool, ConnectError>>>,
    log: Arc<Mutex<ClientLog>>,
    /// Whoever runs the client wants it to end.
    leave: CancellationToken,
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
                    self.tell(EventKind::Connected, "", ClientEvent::Connected { session_present });
                    self.settle_outcome(Ok(session_present));
                    match self.serve(wired, session_present, window).await {
                        End::Over => return,
                        End::Asked => {
                            cause = ConnectCause::Step;
                            continue;
                        }
                        End::Lost(reason) => self.disconnected(reason),
                    }
                }
                Err(error) => {
                    failures += 1;
                    self.disconnected(error.to_string());
                    self.settle_outcome(Err(error));
                }
            }
            cause = ConnectCause::Recovery;
            if !self.back_off(failures).await {
                // Nobody may listen any more.
                let _ = self.events.send(ClientEvent::GaveUp);
                return;
            }
        }
    }

    fn settle_outcome(&self, outcome: Result<bool, ConnectError>) {
        self.outcome.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(outcome);
            }
            is_first
        });
    }

    fn disconnected(&self, reason: String) {
        self.tell(EventKind::Disconnected, &reason.clone(), ClientEvent::Disconnected { reason });
    }

    fn tell(&self, kind: EventKind, detail: &str, event: ClientEvent) {
        let at_us = self.clock.now_us();
        self.log().events.push(Event { at_us, kind, detail: detail.to_owned() });
        let _ = self.events.send(event);
    }

    fn log(&self) -> std::sync::MutexGuard<'_, ClientLog> {
        self.log.lock().expect("no holder of this lock panics")
    }

    /// Waits before the next attempt; says whether there is to be one.
    async fn back_off(&self, failures: u32) -> bool {
        match self.options.reconnection {
            Reconnection::Never => false,
            Reconnection::Backoff { attempts, .. } if attempts != 0 && failures >= u32::from(attempts) => {
                false
            }
            Reconnection::Backoff { first_ms, max_ms, .. } => {
                let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
                let delay_ms = first_ms.saturating_mul(factor).min(max_ms);
                let wait = tokio::time::sleep(Duration::from_millis(u64::from(delay_ms)));
                self.leave.run_until_cancelled(wait).await.is_some()
            }
        }
    }

    /// One attempt, with its entry in the log.
    async fn connect(&mut self, cause: ConnectCause) -> Result<(Wired, u16, bool), ConnectError> {
        let started_us = self.clock.now_us();
        let mut attempt = Attempt::new(self.clock, self.connector.target().transport);
        let limit = self.options.connect_limit;
        let outcome = tokio::time::timeout(limit, self.handshake(&mut attempt, cause))
            .await
            .unwrap_or(Err(ConnectError::TimedOut(limit)));
        let wire = match &outcome {
            Ok((wired, ..)) => wired.quic.as_ref().map(quic_wire),
            Err(_) => None,
        };
        self.log().connections.push(Connection {
            cause,
            handshake: attempt.handshake,
            started_us,
            marks: attempt.marks,
            client_to_connack: wire.map(|(sent, _)| sent),
            server_to_connack: wire.map(|(_, received)| received),
            round_trips: None,
            failure: outcome.as_ref().err().map(ConnectError::to_record),
        });
        outcome
    }

    async fn handshake(
        &self,
        attempt: &mut Attempt,
        cause: ConnectCause,
    ) -> Result<(Wired, u16, bool), ConnectError> {
        let mut wired = self.connector.open(attempt).await?;
        let mut connect = self.options.connect.clone();
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
            add_stats(self.log().stats.get_or_insert_default(), &stats);
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
        let version = self.options.connect.version;
        let keep_alive = match self.options.connect.keep_alive_s {
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
                Some(at) => at + self.options.answer_limit,
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
                        let _ = self.events.send(ClientEvent::Message { publish, at });
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
    written.await.map_err(|error: std::io::Error| closed(wired, &error.to_string()))
}

/// Reads exactly the CONNACK; what follows it stays in the stream.
async fn read_connack(wired: &mut Wired, version: Version) -> Result<Connack, ConnectError> {
    let mut bytes = Vec::new();
    let malformed = |error: crate::wire::Malformed| ConnectError::Closed(error.to_string());
    loop {
        let frame = Frame::peek(&bytes).map_err(malformed)?;
        if frame.is_some_and(|frame| frame.length == bytes.len()) {
            break;
        }
        match wired.reader.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(error) => return Err(closed(wired, &error.to_string())),
        }
    }
    match Packet::decode(&bytes, version).map_err(malformed)? {
        Packet::Connack(connack) => Ok(connack),
        other => Err(ConnectError::Closed(format!("{other:?} came in place of CONNACK"))),
    }
}

fn closed(wired: &Wired, reason: &str) -> ConnectError {
    let known = wired.quic.as_ref().and_then(|connection| connection.close_reason());
    ConnectError::Closed(known.map_or_else(|| reason.to_owned(), |error| error.to_string()))
}

/// Adds up counters, and keeps the latest of what is no counter.
fn add_stats(total: &mut TransportStats, one: &TransportStats) {
    let add = |total: &mut Option<u64>, one: Option<u64>| {
        if let Some(one) = one {
            *total = Some(total.unwrap_or(0) + one);
        }
    };
    add(&mut total.packets_sent, one.packets_sent);
    add(&mut total.packets_received, one.packets_received);
    add(&mut total.packets_lost, one.packets_lost);
    total.rtt_min_us = total.rtt_min_us.into_iter().chain(one.rtt_min_us).min();
    total.rtt_smoothed_us = one.rtt_smoothed_us;
    total.congestion_window = one.congestion_window;
}
