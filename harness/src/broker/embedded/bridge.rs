//! Carries the MQTT packets of one byte stream between a client and the core, whole packets at a time.
//!
//! The control stream of a QUIC connection and a TCP or TLS connection are bridged alike
//! ([`Bridge::control`]); a QUIC data stream has rules of its own ([`Bridge::data`]).

mod control;
mod data;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, WriteHalf};

use super::core::INJECTED_PROPERTIES;
use super::shared::Shared;
use crate::measure::Transport;
use crate::wire::{Connect, Frame, Packet, Version, kind, reason};

/// Bytes read at a time.
const CHUNK: usize = 16 * 1024;

/// The keep alive the core is told: its largest. The bridge itself watches the client's, because packets on
/// any stream of a connection count and because a frozen broker does not watch; and without one the core
/// gives a client up after five minutes.
const CORE_KEEP_ALIVE_S: u16 = u16::MAX;

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
    /// Client to core: hands each whole packet to `take`, which may refuse it with a reason, and passes on the rest.
    async fn up(
        &self,
        source: &mut impl Source,
        core: &mut WriteHalf<DuplexStream>,
        mut take: impl FnMut(Frame, &mut [u8]) -> Result<(), u8> + Send,
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
                if let Err(reason) = take(frame, &mut buf[done..done + frame.length]) {
                    return Upward::Refused(reason);
                }
                self.activity.touch();
                done += frame.length;
            }
            if core.write_all(&buf[..done]).await.is_err() {
                return Upward::CoreClosed;
            }
            buf.drain(..done);
        }
    }

    /// Core to client: hands each whole packet at the front of `buf` to `take`.
    fn take_packets(&self, buf: &mut Vec<u8>, mut take: impl FnMut(Frame, &[u8])) {
        let mut done = 0;
        while let Ok(Some(frame)) = self.next_frame(&buf[done..]) {
            take(frame, &buf[done..done + frame.length]);
            done += frame.length;
        }
        buf.drain(..done);
    }

    /// The client has said its last word: the core answers what it has read and ends its half, too.
    async fn after_fin(
        core: &mut WriteHalf<DuplexStream>,
        mut down: Pin<&mut impl Future<Output = Ending>>,
        stopped: &mut Stopped,
        graceful: bool,
    ) -> Ending {
        if core.shutdown().await.is_err() {
            return Ending::Finished { graceful };
        }
        tokio::select! {
            ending = &mut down => match ending {
                Ending::Lost | Ending::Aborted(_) => ending,
                _ => Ending::Finished { graceful },
            },
            broken = stopped => broken.into(),
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
