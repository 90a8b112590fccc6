//! Carries the MQTT packets of one byte stream between a client and the core, whole packets at a time.
//!
//! The control stream of a QUIC connection and a TCP or TLS connection are bridged alike
//! ([`Bridge::control`]); a QUIC data stream has rules of its own ([`Bridge::data`]).

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};

use super::core::INJECTED_PROPERTIES;
use super::shared::{Registration, Shared};
use crate::broker::event::BrokerEventKind;
use crate::measure::Transport;
use crate::wire::{Connack, Connect, Frame, Packet, Properties, Version, kind, property, reason};

/// Bytes read at a time.
const CHUNK: usize = 16 * 1024;

/// The keep alive the core is told: its largest. The bridge itself watches the client's, because packets on
/// any stream of a connection count and because a frozen broker does not watch; and without one the core
/// gives a client up after five minutes.
const CORE_KEEP_ALIVE_S: u16 = u16::MAX;

/// Longest a DISCONNECT may take to be written before the stream is closed regardless.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(3);

/// Why a stream cannot be read or written any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The client aborted this stream with a code (RESET_STREAM or STOP_SENDING).
    Aborted(u64),
    /// The connection under it is gone.
    Lost,
}

/// The client's half of a stream.
pub(super) trait Source: Send {
    /// Appends what has arrived; 0 stands for the end of the stream.
    fn read_some(&mut self, buf: &mut Vec<u8>) -> impl Future<Output = Result<usize, Broken>> + Send;
}

/// Resolves when the client wants no more of a stream.
pub(super) type Stopped = Pin<Box<dyn Future<Output = Broken> + Send>>;

/// The broker's half of a stream.
pub(super) trait Sink: Send {
    /// Writes all of it.
    fn write(&mut self, bytes: &[u8]) -> impl Future<Output = Result<(), Broken>> + Send;
    /// Resolves when the client wants no more, with its code.
    fn stopped(&self) -> Stopped;
}

/// A half of a TCP or TLS connection.
pub(super) struct Plain<T>(pub(super) T);

impl<T: AsyncRead + Unpin + Send> Source for Plain<T> {
    async fn read_some(&mut self, buf: &mut Vec<u8>) -> Result<usize, Broken> {
        read_chunk(&mut self.0, buf).await.map_err(|_| Broken::Lost)
    }
}

impl<T: AsyncWrite + Unpin + Send> Sink for Plain<T> {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let written = async {
            self.0.write_all(bytes).await?;
            self.0.flush().await
        };
        written.await.map_err(|_: std::io::Error| Broken::Lost)
    }

    fn stopped(&self) -> Stopped {
        Box::pin(std::future::pending())
    }
}

async fn read_chunk<T: AsyncRead + Unpin>(from: &mut T, buf: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut chunk = [0; CHUNK];
    let length = from.read(&mut chunk).await?;
    buf.extend_from_slice(&chunk[..length]);
    Ok(length)
}

/// How a bridged stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The client finished its half, and everything due to it was written.
    Finished {
        /// Whether a DISCONNECT came first.
        graceful: bool,
    },
    /// The client aborted the stream.
    Aborted(u64),
    /// The connection is gone.
    Lost,
    /// The client broke the rules of the protocol; only data streams end so.
    Broken(u8),
    /// The broker lets go of the client, for a reason (MQTT 5.0 2.4).
    LetGo(u8),
    /// The broker stops.
    Stopping,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished { graceful: true } => f.write_str("closed by the client"),
            Self::Finished { graceful: false } => f.write_str("closed by the client without a DISCONNECT"),
            Self::Aborted(code) => write!(f, "aborted by the client with code {code:#x}"),
            Self::Lost => f.write_str("connection lost"),
            Self::Broken(reason) => write!(f, "refused with reason {reason:#04x}"),
            Self::LetGo(reason) => write!(f, "let go with reason {reason:#04x}"),
            Self::Stopping => f.write_str("the broker stops"),
        }
    }
}

impl From<Broken> for Ending {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Aborted(code) => Self::Aborted(code),
            Broken::Lost => Self::Lost,
        }
    }
}

/// A client whose CONNECT was accepted: what its data streams have to know.
#[derive(Debug)]
pub(super) struct Accepted {
    /// Its CONNECT, with the identifier the broker assigned if it brought none.
    pub(super) connect: Connect,
}

/// When packets last came from a client, on any stream.
#[derive(Debug)]
pub(super) struct Activity {
    base: Instant,
    last_us: AtomicU64,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { base: Instant::now(), last_us: AtomicU64::new(0) })
    }

    fn touch(&self) {
        let now = u64::try_from(self.base.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last_us.store(now, Ordering::Relaxed);
    }

    fn idle(&self) -> Duration {
        self.base.elapsed().saturating_sub(Duration::from_micros(self.last_us.load(Ordering::Relaxed)))
    }
}

/// One stream between a client and the core.
pub(super) struct Bridge<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) client: SocketAddr,
    pub(super) transport: Transport,
    pub(super) activity: Arc<Activity>,
}

/// What the two directions of a control stream tell each other.
#[derive(Default)]
struct ControlState {
    connect: OnceLock<Connect>,
    disconnect_seen: AtomicBool,
}

impl ControlState {
    fn version(&self) -> Version {
        self.connect.get().map_or(Version::V5, |connect| connect.version)
    }
}

/// How the client's half of a stream ended.
enum Upward {
    Fin,
    Broken(Broken),
    /// The packet shown by this reason code is refused.
    Refused(u8),
    /// The core does not listen any more; the other direction knows why.
    CoreClosed,
}

impl Bridge<'_> {
    /// Bridges a control stream, or a whole TCP or TLS connection, until it ends.
    pub(super) async fn control(
        &self,
        source: &mut impl Source,
        sink: &mut impl Sink,
        accepted: &watch::Sender<Option<Arc<Accepted>>>,
    ) -> Ending {
        let (registration, mut kicks) = self.shared.register();
        let (core_read, mut core_write) = tokio::io::split(self.shared.core.connect(self.client));
        let state = ControlState::default();
        let (last_words, mut last_words_rx) = mpsc::channel(1);
        let mut stopped = sink.stopped();
        let mut watch = pin!(self.watch_keep_alive(&state));
        let mut down =
            pin!(self.control_down(core_read, sink, &state, &registration, accepted, &mut last_words_rx));
        let mut up_over = false;
        let mut letting_go = false;
        let graceful;
        {
            let mut up = pin!(self.control_up(source, &mut core_write, &state));
            loop {
                let reason = tokio::select! {
                    ending = &mut down => return ending,
                    broken = &mut stopped => return broken.into(),
                    ended = &mut up, if !up_over => {
                        up_over = true;
                        match ended {
                            Upward::Broken(broken) => return broken.into(),
                            Upward::CoreClosed => continue,
                            Upward::Refused(reason) => reason,
                            Upward::Fin => {
                                graceful = state.disconnect_seen.load(Ordering::Relaxed);
                                break;
                            }
                        }
                    }
                    reason = &mut watch, if !letting_go => reason,
                    Some(reason) = kicks.recv(), if !letting_go => reason,
                };
                letting_go = true;
                // Full only when another reason is on its way already.
                let _ = last_words.try_send(reason);
            }
        }
        // The client said its last word; the core answers what it has read and ends its half, too.
        if core_write.shutdown().await.is_err() {
            return Ending::Finished { graceful };
        }
        tokio::select! {
            ending = &mut down => match ending {
                Ending::Lost | Ending::Aborted(_) => ending,
                _ => Ending::Finished { graceful },
            },
            broken = &mut stopped => broken.into(),
        }
    }

    /// Client to core.
    async fn control_up(
        &self,
        source: &mut impl Source,
        core: &mut WriteHalf<DuplexStream>,
        state: &ControlState,
    ) -> Upward {
        let mut buf = Vec::new();
        loop {
            match source.read_some(&mut buf).await {
                Ok(0) => return Upward::Fin,
                Ok(_) => {}
                Err(broken) => return Upward::Broken(broken),
            }
            self.shared.gate.passage().await;
            let mut done = 0;
            loop {
                let frame = match self.next_frame(&buf[done..]) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(reason) => return Upward::Refused(reason),
                };
                self.activity.touch();
                let packet = &mut buf[done..done + frame.length];
                match frame.kind {
                    kind::CONNECT if state.connect.get().is_none() => {
                        if let Ok(connect) = Connect::decode(packet) {
                            let _ = state.connect.set(connect);
                            raise_keep_alive(packet, frame);
                        }
                        // One that cannot be read goes to the core as it is, which knows how to refuse it.
                    }
                    kind::DISCONNECT => state.disconnect_seen.store(true, Ordering::Relaxed),
                    _ => {}
                }
                done += frame.length;
            }
            if core.write_all(&buf[..done]).await.is_err() {
                return Upward::CoreClosed;
            }
            buf.drain(..done);
        }
    }

    /// Core to client.
    async fn control_down(
        &self,
        mut core: ReadHalf<DuplexStream>,
        sink: &mut impl Sink,
        state: &ControlState,
        registration: &Registration,
        accepted: &watch::Sender<Option<Arc<Accepted>>>,
        last_words: &mut mpsc::Receiver<u8>,
    ) -> Ending {
        let mut buf = Vec::new();
        let mut reason_told = None;
        loop {
            let read = tokio::select! {
                read = read_chunk(&mut core, &mut buf) => read,
                Some(reason) = last_words.recv() => {
                    return self.say_last_words(sink, state, reason).await;
                }
            };
            self.shared.gate.passage().await;
            if !matches!(read, Ok(1..)) {
                return self.core_ended(sink, state, reason_told).await;
            }
            let mut out = Vec::new();
            let mut done = 0;
            while let Ok(Some(frame)) = self.next_frame(&buf[done..]) {
                let packet = &buf[done..done + frame.length];
                done += frame.length;
                match frame.kind {
                    kind::CONNACK => {
                        self.on_connack(packet, state, registration, accepted);
                        out.extend_from_slice(packet);
                    }
                    kind::DISCONNECT => {
                        reason_told = packet.get(frame.header).copied().or(Some(reason::SUCCESS));
                        // MQTT 3.1.1 knows no DISCONNECT from a server.
                        if state.version() == Version::V5 {
                            out.extend_from_slice(packet);
                        }
                    }
                    _ => push_cleaned(&mut out, packet, frame, state.version()),
                }
            }
            buf.drain(..done);
            if let Err(broken) = sink.write(&out).await {
                return broken.into();
            }
        }
    }

    /// The core closed its pipe.
    async fn core_ended(
        &self,
        sink: &mut impl Sink,
        state: &ControlState,
        reason_told: Option<u8>,
    ) -> Ending {
        match reason_told {
            Some(reason::SERVER_SHUTTING_DOWN) => Ending::Stopping,
            Some(reason) => Ending::LetGo(reason),
            None if self.shared.closing.is_cancelled() => Ending::Stopping,
            None if state.disconnect_seen.load(Ordering::Relaxed) => Ending::Finished { graceful: true },
            // It lets go without a word only of clients that break the protocol.
            None => self.say_last_words(sink, state, reason::MALFORMED_PACKET).await,
        }
    }

    async fn say_last_words(&self, sink: &mut impl Sink, state: &ControlState, reason: u8) -> Ending {
        if state.connect.get().is_some() && state.version() == Version::V5 {
            let packet = Packet::Disconnect { reason }.encode(Version::V5);
            // Whether it still arrives or not, this is the end.
            let _ = tokio::time::timeout(LAST_WORDS_LIMIT, sink.write(&packet)).await;
        }
        Ending::LetGo(reason)
    }

    fn on_connack(
        &self,
        packet: &[u8],
        state: &ControlState,
        registration: &Registration,
        accepted: &watch::Sender<Option<Arc<Accepted>>>,
    ) {
        let Some(mut connect) = state.connect.get().cloned() else {
            return;
        };
        let Ok(Packet::Connack(connack)) = Packet::decode(packet, connect.version) else {
            return;
        };
        let Connack { session_present, code, properties } = connack;
        if code != reason::SUCCESS {
            self.shared.events.record(BrokerEventKind::ConnectRefused {
                transport: self.transport,
                client_id: connect.client_id,
                code,
            });
            return;
        }
        if let Some(assigned) = properties.string(property::ASSIGNED_CLIENT_IDENTIFIER) {
            assigned.clone_into(&mut connect.client_id);
        }
        registration.name(&connect.client_id);
        self.shared.events.record(BrokerEventKind::Connected {
            transport: self.transport,
            client_id: connect.client_id.clone(),
            session_present,
        });
        accepted.send_replace(Some(Arc::new(Accepted { connect })));
    }

    /// Resolves when the client has been silent for one and a half times its keep alive (MQTT 5.0 3.1.2.10).
    async fn watch_keep_alive(&self, state: &ControlState) -> u8 {
        let mut poll = Duration::from_millis(100);
        loop {
            tokio::time::sleep(poll).await;
            if self.shared.gate.is_frozen() {
                self.shared.gate.passage().await;
                // What came during the freeze is read first.
                self.activity.touch();
            }
            let Some(connect) = state.connect.get() else {
                continue;
            };
            if connect.keep_alive_s == 0 {
                std::future::pending::<()>().await;
            }
            let limit = Duration::from_millis(1_500) * u32::from(connect.keep_alive_s);
            let Some(left) = limit.checked_sub(self.activity.idle()).filter(|left| !left.is_zero()) else {
                return reason::KEEP_ALIVE_TIMEOUT;
            };
            poll = left;
        }
    }

    /// Bridges a data stream until it ends: a hidden client of the core, with packet identifiers and
    /// subscriptions of its own, of which only packet types 3 to 11 reach the wire.
    pub(super) async fn data(
        &self,
        source: &mut impl Source,
        sink: &mut impl Sink,
        accepted: &Accepted,
        stream: u64,
    ) -> Ending {
        let version = accepted.connect.version;
        let (mut core_read, mut core_write) = tokio::io::split(self.shared.core.connect(self.client));
        let connect = hidden_connect(&accepted.connect, stream);
        if core_write.write_all(&connect.encode()).await.is_err() {
            return Ending::Stopping;
        }
        let mut stopped = sink.stopped();
        let mut down = pin!(self.data_down(&mut core_read, sink, version));
        {
            let mut up = pin!(self.data_up(source, &mut core_write));
            tokio::select! {
                ending = &mut down => return ending,
                broken = &mut stopped => return broken.into(),
                ended = &mut up => match ended {
                    Upward::Broken(broken) => return broken.into(),
                    Upward::Refused(reason) => return Ending::Broken(reason),
                    Upward::CoreClosed => return (&mut down).await,
                    Upward::Fin => {}
                }
            }
        }
        if core_write.shutdown().await.is_err() {
            return Ending::Finished { graceful: true };
        }
        tokio::select! {
            ending = &mut down => match ending {
                Ending::Lost | Ending::Aborted(_) => ending,
                _ => Ending::Finished { graceful: true },
            },
            broken = &mut stopped => broken.into(),
        }
    }

    async fn data_up(&self, source: &mut impl Source, core: &mut WriteHalf<DuplexStream>) -> Upward {
        let mut buf = Vec::new();
        loop {
            match source.read_some(&mut buf).await {
                Ok(0) => return Upward::Fin,
                Ok(_) => {}
                Err(broken) => return Upward::Broken(broken),
            }
            self.shared.gate.passage().await;
            let mut done = 0;
            loop {
                match self.next_frame(&buf[done..]) {
                    Ok(Some(frame)) if on_data_streams(frame.kind) => done += frame.length,
                    Ok(Some(_)) => return Upward::Refused(reason::MALFORMED_PACKET),
                    Ok(None) => break,
                    Err(reason) => return Upward::Refused(reason),
                }
                self.activity.touch();
            }
            if core.write_all(&buf[..done]).await.is_err() {
                return Upward::CoreClosed;
            }
            buf.drain(..done);
        }
    }

    async fn data_down(
        &self,
        core: &mut ReadHalf<DuplexStream>,
        sink: &mut impl Sink,
        version: Version,
    ) -> Ending {
        let mut buf = Vec::new();
        let mut stopping = false;
        loop {
            let read = read_chunk(core, &mut buf).await;
            self.shared.gate.passage().await;
            if !matches!(read, Ok(1..)) {
                let stopping = stopping || self.shared.closing.is_cancelled();
                return if stopping { Ending::Stopping } else { Ending::Broken(reason::MALFORMED_PACKET) };
            }
            let mut out = Vec::new();
            let mut done = 0;
            while let Ok(Some(frame)) = self.next_frame(&buf[done..]) {
                let packet = &buf[done..done + frame.length];
                done += frame.length;
                if on_data_streams(frame.kind) {
                    push_cleaned(&mut out, packet, frame, version);
                }
                stopping |= frame.kind == kind::DISCONNECT
                    && packet.get(frame.header) != Some(&reason::MALFORMED_PACKET);
            }
            buf.drain(..done);
            if let Err(broken) = sink.write(&out).await {
                return broken.into();
            }
        }
    }

    /// The next whole packet, or why there can be none.
    fn next_frame(&self, bytes: &[u8]) -> Result<Option<Frame>, u8> {
        let frame = match Frame::peek(bytes) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(None),
            Err(_) => return Err(reason::MALFORMED_PACKET),
        };
        if frame.length > self.shared.packet_size_max {
            return Err(reason::PACKET_TOO_LARGE);
        }
        Ok((frame.length <= bytes.len()).then_some(frame))
    }
}

/// Packet types EMQX exchanges on data streams: PUBLISH to UNSUBACK.
fn on_data_streams(kind: u8) -> bool {
    (kind::PUBLISH..=kind::UNSUBACK).contains(&kind)
}

/// The CONNECT of the hidden client behind a data stream: same version and credentials, a session that ends
/// with the stream, no will.
fn hidden_connect(connect: &Connect, stream: u64) -> Connect {
    let mut properties = Properties::default();
    for id in [property::RECEIVE_MAXIMUM, property::TOPIC_ALIAS_MAXIMUM] {
        if let Some(value) = connect.properties.u16(id) {
            properties = properties.with_u16(id, value);
        }
    }
    if let Some(value) = connect.properties.u32(property::MAXIMUM_PACKET_SIZE) {
        properties = properties.with_u32(property::MAXIMUM_PACKET_SIZE, value);
    }
    Connect {
        clean_start: true,
        keep_alive_s: CORE_KEEP_ALIVE_S,
        properties,
        client_id: format!("{}#{stream}", connect.client_id),
        will: None,
        ..connect.clone()
    }
}

/// Puts the core's keep alive in place of the client's.
fn raise_keep_alive(packet: &mut [u8], frame: Frame) {
    // "MQTT" with its length, level, flags.
    let at = frame.header + 8;
    packet[at..at + 2].copy_from_slice(&CORE_KEEP_ALIVE_S.to_be_bytes());
}

/// Appends a packet without the user properties the core adds to messages, which no other broker sends and
/// which would count as the message's own bytes.
fn push_cleaned(out: &mut Vec<u8>, packet: &[u8], frame: Frame, version: Version) {
    if frame.kind == kind::PUBLISH
        && version == Version::V5
        && let Ok(Packet::Publish(mut publish)) = Packet::decode(packet, version)
    {
        publish.properties = publish.properties.without_user(|name| INJECTED_PROPERTIES.contains(&name));
        out.extend_from_slice(&Packet::Publish(publish).encode(version));
        return;
    }
    out.extend_from_slice(packet);
}
