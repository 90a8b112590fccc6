//! The TLS and the plain TCP listener.

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::bridge::{Activity, Bridge, Ending, Plain};
use super::shared::{Shared, TurnAway};
use crate::broker::event::BrokerEventKind;
use crate::measure::Transport;
use crate::peer::received_alert;

/// How long a TLS handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long the end of a stream may take to be sent.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);
/// Rest after a failed accept, which is a lack of file descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The TLS configuration in use; a rotation replaces it for the handshakes to come.
pub(super) type TlsSlot = Arc<RwLock<Arc<rustls::ServerConfig>>>;

/// Takes connections until the broker closes.
pub(super) async fn accept_loop(shared: Arc<Shared>, listener: TcpListener, tls: Option<TlsSlot>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.closing.cancelled() => return,
        };
        shared.gate.passage().await;
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("accepting a connection failed: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        shared.spawn(serve(Arc::clone(&shared), stream, client, tls.clone()));
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream, client: SocketAddr, tls: Option<TlsSlot>) {
    let transport = if tls.is_some() { Transport::Tls } else { Transport::Tcp };
    let _admission = match shared.admit() {
        Ok(admission) => admission,
        Err(turn_away) => {
            shared.events.record(BrokerEventKind::TurnedAway { transport, client });
            // The system has completed the TCP handshake already; a reset is as near to a refusal as it gets.
            if turn_away == TurnAway::Refuse
                && let Err(error) = stream.set_zero_linger()
            {
                tracing::debug!("SO_LINGER: {error}");
            }
            return;
        }
    };
    // Without it, acknowledgements wait for one another (Nagle), which is not what is to be measured.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("TCP_NODELAY: {error}");
    }
    let Some(slot) = tls else {
        return bridge(&shared, stream, client, transport).await;
    };
    let config = Arc::clone(&slot.read().expect("no holder of this lock panics"));
    let handshake = TlsAcceptor::from(config).accept(stream).into_fallible();
    let (reason, alert, left) = match tokio::time::timeout(HANDSHAKE_LIMIT, handshake).await {
        Ok(Ok(stream)) => {
            shared.events.record(BrokerEventKind::Handshake { transport, client });
            return bridge(&shared, stream, client, transport).await;
        }
        Ok(Err((error, stream))) => (error.to_string(), received_alert(&error), Some(stream)),
        Err(_) => ("timed out".to_owned(), None, None),
    };
    shared.events.record(BrokerEventKind::HandshakeFailed { transport, client, reason, alert });
    if let Some(stream) = left {
        linger(stream).await;
    }
}

/// Ends a connection whose last word is an alert. A client of TLS 1.3 that is refused for its certificate has sent more
/// by then; closed over unread data, TCP would reset the connection, and the alert could be lost with it.
async fn linger(mut stream: TcpStream) {
    let rest = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    // Whatever becomes of it, it was said.
    let _ = tokio::time::timeout(CLOSE_LIMIT, rest).await;
}

async fn bridge<S>(shared: &Arc<Shared>, stream: S, client: SocketAddr, transport: Transport)
where
    S: AsyncRead + AsyncWrite + Send,
{
    let (read, write) = tokio::io::split(stream);
    let (mut source, mut sink) = (Plain(read), Plain(write));
    let accepted = watch::Sender::new(None);
    let bridge = Bridge { shared, client, transport, activity: Activity::new() };
    let ending = bridge.control(&mut source, &mut sink, &accepted).await;
    let client_id =
        accepted.borrow().as_ref().map_or_else(String::new, |accepted| accepted.connect.client_id.clone());
    shared.events.record(BrokerEventKind::Disconnected { transport, client_id, reason: ending.to_string() });
    if ending != Ending::Lost {
        // It may be gone already.
        let _ = tokio::time::timeout(CLOSE_LIMIT, sink.0.shutdown()).await;
    }
}
