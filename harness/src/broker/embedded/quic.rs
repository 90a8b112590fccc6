//! The QUIC listener, with EMQX's stream semantics.
//!
//! The first stream a client opens is the control stream: CONNECT goes there, and closing it ends the
//! connection. Later ones are data streams, read only after CONNECT succeeded. FIN is answered by FIN,
//! RESET_STREAM and STOP_SENDING by both with the same code.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, ConnectionError, Endpoint, EndpointConfig, Incoming, ReadError, RecvStream, SendStream,
    StoppedError, TokioRuntime, TransportConfig, VarInt, WriteError,
};
use quinn_proto::RandomConnectionIdGenerator;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bridge::{Accepted, Activity, Bridge, Broken, Ending, Sink, Source, Stopped};
use super::shared::{Shared, TurnAway};
use super::socket::FaultySocket;
use crate::broker::event::BrokerEventKind;
use crate::broker::options::{AddressValidation, BrokerOptions, ClientAuthentication, StreamCredit};
use crate::measure::Transport;
use crate::peer::received_quic_alert;
use crate::wire::reason;

/// EMQX's application codes of CONNECTION_CLOSE.
pub(super) mod close {
    use quinn::VarInt;
    /// All is well.
    pub(in super::super) const NORMAL: VarInt = VarInt::from_u32(0);
    /// The control stream is down.
    pub(in super::super) const CONTROL_STREAM_DOWN: VarInt = VarInt::from_u32(1);
    /// Too many clients.
    pub(in super::super) const OVERLOADED: VarInt = VarInt::from_u32(2);
}

/// Receive windows as EMQX announces them.
const STREAM_WINDOW: u32 = 65_536;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// EMQX grants one unidirectional stream, and cannot use it.
const UNI_STREAMS: u32 = 1;

/// MsQuic's limits: how long a handshake may take, and how long a peer may leave packets unacknowledged.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const SILENCE_LIMIT: Duration = Duration::from_secs(16);
/// How long a client may wait with its CONNECT; EMQX's default.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// How long the last packets to a client may take before its connection is closed under them.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);
/// How often silence and address of a connection are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of the connection ids that clients are to use.
const CONNECTION_ID_LEN: usize = 8;
/// From one stateless reset to the next: all devices of a fleet may need some after a restart.
const RESET_INTERVAL: Duration = Duration::from_millis(1);

/// What the listener does besides what the transport parameters say.
#[derive(Clone, Copy)]
pub(super) struct QuicPolicy {
    validation: AddressValidation,
    authentication: ClientAuthentication,
    credit: StreamCredit,
    streams: u32,
}

impl QuicPolicy {
    pub(super) fn of(options: &BrokerOptions) -> Self {
        Self {
            validation: options.address_validation,
            authentication: options.client_authentication,
            credit: options.stream_credit,
            streams: options.streams,
        }
    }
}

/// The QUIC side of the configuration; `tls` is the certificate's side.
pub(super) fn server_config(tls: rustls::ServerConfig, options: &BrokerOptions) -> quinn::ServerConfig {
    let tls = QuicServerConfig::try_from(tls).expect("the provider has AES-128-GCM for Initial packets");
    let mut transport = TransportConfig::default();
    let streams = match options.stream_credit {
        StreamCredit::InTransportParameters => options.streams,
        StreamCredit::AfterHandshake => 0,
    };
    let idle_timeout = options.idle_timeout.map(|timeout| {
        let ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        VarInt::from_u32(ms).into()
    });
    transport
        .max_concurrent_bidi_streams(streams.into())
        .max_concurrent_uni_streams(UNI_STREAMS.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .max_idle_timeout(idle_timeout)
        .datagram_receive_buffer_size(None);
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(Arc::new(transport)).migration(true);
    config
}

/// Puts an endpoint on a socket.
pub(super) fn endpoint(config: quinn::ServerConfig, socket: Arc<FaultySocket>) -> io::Result<Endpoint> {
    let mut endpoint = EndpointConfig::default();
    // MsQuic answers connections it has lost, as after a restart, with stateless resets, of a key it makes anew each
    // time (microsoft/msquic#3879): their clients cannot verify them, but do see them. quinn's own connection ids would
    // tell it that they are of another process, and it would be silent.
    endpoint.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(CONNECTION_ID_LEN)));
    endpoint.min_reset_interval(RESET_INTERVAL);
    Endpoint::new_with_abstract_socket(endpoint, Some(config), socket, Arc::new(TokioRuntime))
}

/// Takes connections until the broker closes. No handshake holds up another.
pub(super) async fn accept_loop(shared: Arc<Shared>, endpoint: Endpoint, policy: QuicPolicy) {
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = shared.closing.cancelled() => return,
        };
        let Some(incoming) = incoming else { return };
        if policy.validation == AddressValidation::Retry && !incoming.remote_address_validated() {
            // It may always retry while its address is not validated.
            let _ = incoming.retry();
            continue;
        }
        shared.spawn(serve(Arc::clone(&shared), incoming, policy));
    }
}

/// One connection, from its first packet to its end.
async fn serve(shared: Arc<Shared>, incoming: Incoming, policy: QuicPolicy) {
    let client = incoming.remote_address();
    let turned_away = BrokerEventKind::TurnedAway { transport: Transport::Quic, client };
    let admission = shared.admit();
    if matches!(admission, Err(TurnAway::Refuse)) {
        shared.events.record(turned_away);
        incoming.refuse();
        return;
    }
    // Its close code arrives only after the handshake (RFC 9000 10.2.3), so that is waited for.
    let early = admission.is_ok() && policy.authentication == ClientAuthentication::None;
    let connection = match establish(&shared, incoming, policy, early).await {
        Ok(connection) => connection,
        Err(error) => {
            shared.events.record(BrokerEventKind::HandshakeFailed {
                transport: Transport::Quic,
                client,
                reason: error.to_string(),
                alert: received_quic_alert(&error),
            });
            return;
        }
    };
    if admission.is_err() {
        shared.events.record(turned_away);
        connection.close(close::OVERLOADED, b"overloaded");
        return;
    }
    let served = Served {
        shared: &shared,
        connection: &connection,
        activity: Activity::new(),
        accepted: watch::Sender::new(None),
        over: shared.killed.child_token(),
        streams: TaskTracker::new(),
    };
    served.run().await;
}

/// Brings the handshake so far that data may flow. With `early` that is at once, so that 0-RTT data are
/// answered in the server's first flight; without, when the client is known.
async fn establish(
    shared: &Arc<Shared>,
    incoming: Incoming,
    policy: QuicPolicy,
    early: bool,
) -> Result<Connection, ConnectionError> {
    let client = incoming.remote_address();
    let connecting = incoming.accept()?;
    let opened = if early { connecting.into_0rtt() } else { Err(connecting) };
    let (connection, finished) = match opened {
        Ok((connection, finished)) => (connection, Some(finished)),
        Err(connecting) => {
            let handshake = tokio::time::timeout(HANDSHAKE_LIMIT, connecting);
            (handshake.await.map_err(|_| ConnectionError::TimedOut)??, None)
        }
    };
    let watched = connection.clone();
    let shared_for_task = Arc::clone(shared);
    let complete = async move {
        if let Some(finished) = finished {
            let limited = tokio::time::timeout(HANDSHAKE_LIMIT, finished).await;
            if limited.is_err() {
                watched.close(close::NORMAL, b"handshake timeout");
            }
        }
        // What `finished` yields does not tell success from failure on the server's side.
        let kind = match watched.close_reason() {
            None => BrokerEventKind::Handshake { transport: Transport::Quic, client },
            Some(error) => BrokerEventKind::HandshakeFailed {
                transport: Transport::Quic,
                client,
                reason: error.to_string(),
                alert: received_quic_alert(&error),
            },
        };
        shared_for_task.events.record(kind);
        if policy.credit == StreamCredit::AfterHandshake {
            watched.set_max_concurrent_bi_streams(policy.streams.into());
        }
    };
    shared.spawn(complete);
    Ok(connection)
}

/// A connection that is being served.
struct Served<'a> {
    shared: &'a Arc<Shared>,
    connection: &'a Connection,
    activity: Arc<Activity>,
    accepted: watch::Sender<Option<Arc<Accepted>>>,
    /// Ends the data streams.
    over: CancellationToken,
    streams: TaskTracker,
}

impl Served<'_> {
    async fn run(&self) {
        let control = tokio::select! {
            stream = self.connection.accept_bi() => stream.ok(),
            () = tokio::time::sleep(CONNECT_LIMIT) => None,
            () = self.shared.closing.cancelled() => None,
        };
        let Some((mut send, mut recv)) = control else {
            // One that is closed already keeps its reason.
            if self.connection.close_reason().is_none() {
                self.connection.close(close::NORMAL, b"no control stream");
            }
            return;
        };
        let ending = tokio::select! {
            ending = self.control(&mut send, &mut recv) => ending,
            never = self.take_data_streams() => match never {},
            never = self.refuse_unidirectional_streams() => match never {},
            ending = self.watch() => ending,
        };
        self.record_end(ending);
        // Before the data streams go: dropped first, they would end with a FIN.
        self.close(ending, send, recv).await;
        self.over.cancel();
        self.streams.close();
        self.streams.wait().await;
    }

    async fn control(&self, send: &mut SendStream, recv: &mut RecvStream) -> Ending {
        let bridge = Bridge {
            shared: self.shared,
            client: self.connection.remote_address(),
            transport: Transport::Quic,
            activity: Arc::clone(&self.activity),
        };
        bridge.control(recv, send, &self.accepted).await
    }

    async fn take_data_streams(&self) -> std::convert::Infallible {
        while let Ok((send, recv)) = self.connection.accept_bi().await {
            let stream = DataStream {
                shared: Arc::clone(self.shared),
                client: self.connection.remote_address(),
                activity: Arc::clone(&self.activity),
                accepted: self.accepted.subscribe(),
            };
            let over = self.over.clone();
            self.streams.spawn(async move { over.run_until_cancelled(stream.run(send, recv)).await });
        }
        // The connection is gone; the control stream notices, too, and knows what to do.
        std::future::pending().await
    }

    async fn refuse_unidirectional_streams(&self) -> std::convert::Infallible {
        while let Ok(mut recv) = self.connection.accept_uni().await {
            // Already reset by the client: all the better.
            let _ = recv.stop(u32::from(reason::MALFORMED_PACKET).into());
        }
        std::future::pending().await
    }

    /// Resolves when the client does not answer any more.
    async fn watch(&self) -> Ending {
        let mut received = 0;
        let mut sent = 0;
        let mut heard = Instant::now();
        let mut address = self.connection.remote_address();
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let stats = self.connection.stats();
            let frozen = self.shared.gate.is_frozen();
            if stats.udp_rx.datagrams != received || frozen {
                received = stats.udp_rx.datagrams;
                sent = stats.udp_tx.datagrams;
                heard = Instant::now();
            } else if stats.udp_tx.datagrams != sent && heard.elapsed() > SILENCE_LIMIT {
                return Ending::Lost;
            }
            if self.connection.remote_address() != address {
                address = self.connection.remote_address();
                self.shared
                    .events
                    .record(BrokerEventKind::Migrated { client_id: self.client_id(), client: address });
            }
        }
    }

    fn client_id(&self) -> String {
        let accepted = self.accepted.borrow();
        accepted.as_ref().map_or_else(String::new, |accepted| accepted.connect.client_id.clone())
    }

    fn record_end(&self, ending: Ending) {
        let reason = match ending {
            Ending::Lost => match self.connection.close_reason() {
                Some(error) => error.to_string(),
                None => "no answer".into(),
            },
            other => other.to_string(),
        };
        self.shared.events.record(BrokerEventKind::Disconnected {
            transport: Transport::Quic,
            client_id: self.client_id(),
            reason,
        });
    }

    async fn close(&self, ending: Ending, mut send: SendStream, mut recv: RecvStream) {
        // Each of these fails only when the client was there first.
        let code = match ending {
            Ending::Finished { graceful } => {
                finish(&mut send).await;
                if graceful { close::NORMAL } else { close::CONTROL_STREAM_DOWN }
            }
            Ending::Aborted(code) => {
                abort(&mut send, &mut recv, code);
                close::CONTROL_STREAM_DOWN
            }
            Ending::Lost => close::NORMAL,
            Ending::Stopping => {
                finish(&mut send).await;
                close::NORMAL
            }
            Ending::LetGo(reason) | Ending::Broken(reason) => {
                if reason != reason::KEEP_ALIVE_TIMEOUT {
                    let _ = recv.stop(u32::from(reason).into());
                }
                finish(&mut send).await;
                close::CONTROL_STREAM_DOWN
            }
        };
        self.connection.close(code, b"");
    }
}

/// Sends FIN and waits until all of the stream has arrived, but not for long.
async fn finish(send: &mut SendStream) {
    let _ = send.finish();
    let _ = tokio::time::timeout(DRAIN_LIMIT, send.stopped()).await;
}

/// Echoes an abort in both directions.
fn abort(send: &mut SendStream, recv: &mut RecvStream, code: u64) {
    let code = VarInt::from_u64(code).expect("it came as a variable-length integer");
    let _ = send.reset(code);
    let _ = recv.stop(code);
}

/// A client's stream after the first.
struct DataStream {
    shared: Arc<Shared>,
    client: SocketAddr,
    activity: Arc<Activity>,
    accepted: watch::Receiver<Option<Arc<Accepted>>>,
}

impl DataStream {
    async fn run(mut self, mut send: SendStream, mut recv: RecvStream) {
        let accepted = match self.accepted.wait_for(Option::is_some).await {
            Ok(accepted) => accepted.clone().expect("that is what was waited for"),
            Err(_) => return,
        };
        let stream = u64::from(VarInt::from(send.id()));
        let client_id = accepted.connect.client_id.clone();
        self.shared.events.record(BrokerEventKind::DataStream { client_id: client_id.clone(), stream });
        let bridge = Bridge {
            shared: &self.shared,
            client: self.client,
            transport: Transport::Quic,
            activity: Arc::clone(&self.activity),
        };
        let ending = bridge.data(&mut recv, &mut send, &accepted, stream).await;
        match ending {
            Ending::Finished { .. } | Ending::Stopping => {
                let _ = send.finish();
            }
            Ending::Aborted(code) => abort(&mut send, &mut recv, code),
            Ending::Broken(reason) | Ending::LetGo(reason) => {
                abort(&mut send, &mut recv, u64::from(reason));
            }
            Ending::Lost => {}
        }
        if !matches!(ending, Ending::Finished { .. } | Ending::Stopping) {
            self.shared.events.record(BrokerEventKind::DataStreamAborted {
                client_id,
                stream,
                reason: ending.to_string(),
            });
        }
    }
}

impl Source for RecvStream {
    async fn read_some(&mut self, buf: &mut Vec<u8>) -> Result<usize, Broken> {
        match self.read_chunk(STREAM_WINDOW as usize, true).await {
            Ok(Some(chunk)) => {
                buf.extend_from_slice(&chunk.bytes);
                Ok(chunk.bytes.len())
            }
            Ok(None) => Ok(0),
            Err(ReadError::Reset(code)) => Err(Broken::Aborted(code.into_inner())),
            Err(_) => Err(Broken::Lost),
        }
    }
}

impl Sink for SendStream {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.write_all(bytes).await.map_err(|error| match error {
            WriteError::Stopped(code) => Broken::Aborted(code.into_inner()),
            _ => Broken::Lost,
        })
    }

    fn stopped(&self) -> Stopped {
        let stopped = SendStream::stopped(self);
        Box::pin(async move {
            match stopped.await {
                Ok(Some(code)) => Broken::Aborted(code.into_inner()),
                // All was delivered after a FIN, which the one who sent it knows.
                Ok(None) => std::future::pending().await,
                Err(StoppedError::ConnectionLost(_) | StoppedError::ZeroRttRejected) => Broken::Lost,
            }
        })
    }
}
