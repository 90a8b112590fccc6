//! The routing core: subscriptions, sessions, retained messages and acknowledgements of the `mqtt5` crate,
//! without its listeners.
//!
//! A client of the core is one end of an in-memory pipe; the other end is bridged by a listener of ours to
//! QUIC, TLS or TCP. So the core costs no sockets, and a fleet no loopback hops.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mqtt5::broker::auth::AllowAllAuthProvider;
use mqtt5::broker::client_handler::ClientHandler;
use mqtt5::broker::config::BrokerConfig;
use mqtt5::broker::resource_monitor::{ResourceLimits, ResourceMonitor};
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::storage::{DynamicStorage, FileBackend, MemoryBackend, QueueLimits};
use mqtt5::broker::sys_topics::BrokerStats;
use mqtt5::broker::transport::{BrokerTransport, WebSocketTransport};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Bytes a pipe holds in each direction before its writer waits: room for a window of small publishes, small
/// enough that back pressure reaches the network.
const PIPE_BYTES: usize = 64 * 1024;

/// Messages kept for a client that is away, and unacknowledged ones in flight to it: EMQX's defaults.
const QUEUE_MESSAGES_MAX: usize = 1_000;
const QUEUE_BYTES_MAX: usize = 64 << 20;
const INFLIGHT_MAX: u16 = 32;

/// How often expired sessions are swept.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// User properties the core adds to each message it routes; listeners take them off again.
pub(super) const INJECTED_PROPERTIES: [&str; 2] = ["x-mqtt-client-id", "x-mqtt-sender"];

/// What outlives a restart that keeps session state.
#[derive(Clone)]
pub(super) struct SessionStore(Arc<DynamicStorage>);

impl SessionStore {
    /// An empty store in memory, or what is stored in a folder.
    pub(super) async fn open(folder: Option<&Path>) -> Result<Self, mqtt5::MqttError> {
        let limits = QueueLimits { max_messages: QUEUE_MESSAGES_MAX, max_bytes: QUEUE_BYTES_MAX };
        let storage = match folder {
            None => DynamicStorage::Memory(MemoryBackend::with_queue_limits(limits)),
            Some(folder) => DynamicStorage::File(FileBackend::with_queue_limits(folder, limits).await?),
        };
        Ok(Self(Arc::new(storage)))
    }
}

/// A running core.
pub(super) struct Core {
    config: Arc<BrokerConfig>,
    router: Arc<MessageRouter>,
    storage: SessionStore,
    stats: Arc<BrokerStats>,
    monitor: Arc<ResourceMonitor>,
    shutdown: broadcast::Sender<()>,
    killed: CancellationToken,
    tasks: TaskTracker,
}

impl Core {
    /// Starts a core over `storage`, whose sessions it takes up.
    pub(super) async fn start(storage: SessionStore, packet_size_max: u32) -> Result<Self, mqtt5::MqttError> {
        let config = config(packet_size_max);
        let router = Arc::new(MessageRouter::with_storage(Arc::clone(&storage.0)));
        router.initialize().await?;
        router.recover_sessions(u32::MAX).await?;
        let core = Self {
            config: Arc::new(config),
            router,
            storage,
            stats: Arc::new(BrokerStats::new()),
            // Limits are the listeners' business; the core's own would count every hidden client.
            monitor: Arc::new(ResourceMonitor::new(ResourceLimits {
                max_connections: usize::MAX,
                max_connections_per_ip: usize::MAX,
                max_message_rate_per_client: 0,
                max_bandwidth_per_client: 0,
                max_connection_rate: u32::MAX,
                rate_limit_window: Duration::from_secs(1),
            })),
            shutdown: broadcast::channel(1).0,
            killed: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        core.spawn_sweeper();
        Ok(core)
    }

    /// A new client of the core: what is written to the pipe is read as its MQTT packets.
    pub(super) fn connect(&self, client: SocketAddr) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let handler = ClientHandler::new(
            BrokerTransport::WebSocket(Box::new(Pipe { stream: theirs, client })),
            client,
            Arc::clone(&self.config),
            Arc::clone(&self.router),
            Arc::new(AllowAllAuthProvider),
            Some(Arc::clone(&self.storage.0)),
            Arc::clone(&self.stats),
            Arc::clone(&self.monitor),
            self.shutdown.subscribe(),
        );
        let killed = self.killed.clone();
        self.tasks.spawn(async move {
            if let Some(Err(error)) = killed.run_until_cancelled(handler.run()).await {
                tracing::debug!(%client, "the core let go of a client: {error}");
            }
        });
        ours
    }

    /// Ends every client where it stands: no DISCONNECT, no will.
    pub(super) fn kill(&self) {
        self.killed.cancel();
        self.tasks.close();
    }

    /// Waits for the tasks to be gone after [`Self::kill`].
    pub(super) async fn reap(&self) {
        self.tasks.wait().await;
    }

    /// Ends every client, with a DISCONNECT where the protocol has one, and waits for their tasks.
    pub(super) async fn shut_down(&self) {
        // No receiver means no client is left to tell.
        let _ = self.shutdown.send(());
        self.tasks.close();
        self.tasks.wait().await;
        if let Err(error) = self.storage.0.shutdown().await {
            tracing::warn!("sessions may not be stored: {error}");
        }
    }

    fn spawn_sweeper(&self) {
        let router = Arc::clone(&self.router);
        let mut shutdown = self.shutdown.subscribe();
        let killed = self.killed.clone();
        self.tasks.spawn(async move {
            let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
            loop {
                tokio::select! {
                    _ = ticks.tick() => router.sweep_sessions().await,
                    _ = shutdown.recv() => return,
                    () = killed.cancelled() => return,
                }
            }
        });
    }
}

fn config(packet_size_max: u32) -> BrokerConfig {
    let mut config =
        BrokerConfig::default().with_max_packet_size(usize::try_from(packet_size_max).expect("32 bits fit"));
    config.bind_addresses = Vec::new();
    config.max_clients = usize::MAX;
    config.max_outbound_inflight = INFLIGHT_MAX;
    config.sys_topics_enabled = false;
    config.auth_config.rate_limit.enabled = false;
    config
}

/// The core's end of a pipe. The trait is named for WebSocket, but asks for nothing of it.
struct Pipe {
    stream: DuplexStream,
    client: SocketAddr,
}

impl WebSocketTransport for Pipe {
    fn peer_addr(&self) -> mqtt5::Result<SocketAddr> {
        Ok(self.client)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
