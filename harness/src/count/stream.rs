//! The broker over TCP, and over TLS on it: rustls, seeded throughout.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use rustls::ServerConnection;
use simulate::{Clock, Seeded};
use smoltcp::socket::tcp;

use super::host::PORT;
use super::responder::Responder;

/// Bytes moved at a time.
const CHUNK: usize = 4_096;

/// One connection at a time, the next one after it.
pub(super) struct StreamBroker {
    config: Option<Arc<rustls::ServerConfig>>,
    tls: Option<ServerConnection>,
    responder: Responder,
    /// What the TCP socket has not taken yet.
    outgoing: Vec<u8>,
}

impl StreamBroker {
    /// Over TLS with an identity, plain without.
    pub(super) fn new(seeded: Option<&Seeded>) -> Self {
        Self {
            config: seeded.map(|seeded| Arc::new(config(seeded))),
            tls: None,
            responder: Responder::default(),
            outgoing: Vec::new(),
        }
    }

    pub(super) fn poll(&mut self, socket: &mut tcp::Socket<'_>) {
        if !socket.is_open() {
            socket.listen(PORT).expect("a closed socket");
            self.tls = self
                .config
                .clone()
                .map(|config| ServerConnection::new(config).expect("the configuration is complete"));
            self.responder = Responder::default();
            self.outgoing.clear();
        }
        let mut bytes = [0; CHUNK];
        while let Ok(len @ 1..) = socket.recv_slice(&mut bytes) {
            self.take_in(&bytes[..len]);
        }
        self.give_out();
        if socket.can_send()
            && let Ok(sent) = socket.send_slice(&self.outgoing)
        {
            self.outgoing.drain(..sent);
        }
        if socket.state() == tcp::State::CloseWait && self.outgoing.is_empty() {
            socket.close();
        }
    }

    pub(super) fn publish(&mut self, topic: &str, payload: &[u8]) {
        self.responder.publish(topic, payload);
    }

    fn take_in(&mut self, mut bytes: &[u8]) {
        let Some(tls) = &mut self.tls else { return self.responder.handle_bytes(bytes) };
        while !bytes.is_empty() {
            let Ok(1..) = tls.read_tls(&mut bytes) else { return };
            // What it says against the client goes out as an alert.
            let Ok(_) = tls.process_new_packets() else { return };
            let mut plain = Vec::new();
            // No more for now is an error to `read`; what came is there.
            let _ = tls.reader().read_to_end(&mut plain);
            self.responder.handle_bytes(&plain);
        }
    }

    fn give_out(&mut self) {
        let plain = self.responder.outgoing();
        match &mut self.tls {
            None => self.outgoing.append(plain),
            Some(tls) => {
                tls.writer().write_all(plain).expect("rustls buffers without bound");
                plain.clear();
                while tls.wants_write() {
                    tls.write_tls(&mut self.outgoing).expect("a vector takes all");
                }
            }
        }
    }
}

fn config(seeded: &Seeded) -> rustls::ServerConfig {
    let mut config =
        rustls::ServerConfig::builder_with_details(Arc::new(seeded.provider()), Arc::new(Frozen))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring speaks TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(seeded.resolver());
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    config.send_tls13_tickets = 1;
    config
}

/// The wall clock of a count: tickets hold their time.
#[derive(Debug)]
struct Frozen;

impl rustls::time_provider::TimeProvider for Frozen {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        let start = std::time::Duration::from_secs(Clock::START.unix_s());
        Some(rustls::pki_types::UnixTime::since_unix_epoch(start))
    }
}
