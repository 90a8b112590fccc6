//! A QUIC data stream: a hidden client of the core.

use std::pin::pin;

use tokio::io::{AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};

use super::{Accepted, Bridge, CORE_KEEP_ALIVE_S, Ending, Sink, Source, Upward, push_cleaned, read_chunk};
use crate::wire::{Connect, Frame, Properties, Version, kind, property, reason};

impl Bridge<'_> {
    /// Bridges a data stream until it ends: a hidden client of the core, with packet identifiers and
    /// subscriptions of its own, of which only packet types 3 to 11 reach the wire.
    pub(in super::super) async fn data(
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
        Self::after_fin(&mut core_write, down, &mut stopped, true).await
    }

    async fn data_up(&self, source: &mut impl Source, core: &mut WriteHalf<DuplexStream>) -> Upward {
        let take = |frame: Frame, _: &mut [u8]| {
            // EMQX sends no PINGRESP here, but takes the PINGREQ.
            let taken = on_data_streams(frame.kind) || frame.kind == kind::PINGREQ;
            if taken { Ok(()) } else { Err(reason::MALFORMED_PACKET) }
        };
        self.up(source, core, take).await
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
            self.take_packets(&mut buf, |frame, packet| {
                if on_data_streams(frame.kind) {
                    push_cleaned(&mut out, packet, frame, version);
                }
                stopping |= frame.kind == kind::DISCONNECT
                    && packet.get(frame.header) != Some(&reason::MALFORMED_PACKET);
            });
            if let Err(broken) = sink.write(&out).await {
                return broken.into();
            }
        }
    }
}

/// Packet types EMQX sends on data streams: PUBLISH to UNSUBACK.
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
