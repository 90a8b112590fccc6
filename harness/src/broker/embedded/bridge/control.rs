//! The control stream of a QUIC connection, or a whole TCP or TLS connection.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};

use super::super::shared::Registration;
use super::{Accepted, Bridge, CORE_KEEP_ALIVE_S, Ending, Sink, Source, Upward, push_cleaned, read_chunk};
use crate::broker::event::BrokerEventKind;
use crate::wire::{Connack, Connect, Frame, Packet, Version, kind, property, reason};

/// Longest a DISCONNECT may take to be written before the stream is closed regardless.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(3);

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

impl Bridge<'_> {
    /// Bridges a control stream, or a whole TCP or TLS connection, until it ends.
    pub(in super::super) async fn control(
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
        Self::after_fin(&mut core_write, down, &mut stopped, graceful).await
    }

    /// Client to core.
    async fn control_up(
        &self,
        source: &mut impl Source,
        core: &mut WriteHalf<DuplexStream>,
        state: &ControlState,
    ) -> Upward {
        let take = |frame: Frame, packet: &mut [u8]| {
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
            Ok(())
        };
        self.up(source, core, take).await
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
            self.take_packets(&mut buf, |frame, packet| match frame.kind {
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
            });
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
}

/// Puts the core's keep alive in place of the client's.
fn raise_keep_alive(packet: &mut [u8], frame: Frame) {
    // "MQTT" with its length, level, flags.
    let at = frame.header + 8;
    packet[at..at + 2].copy_from_slice(&CORE_KEEP_ALIVE_S.to_be_bytes());
}
