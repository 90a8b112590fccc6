//! What all listeners and connections of one running broker share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::core::Core;
use crate::broker::event::EventLog;
use crate::broker::options::{Limits, Overload};

/// Holds everything up while the broker is frozen.
#[derive(Debug)]
pub(super) struct Gate(watch::Sender<bool>);

impl Gate {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(super) fn set_frozen(&self, frozen: bool) {
        self.0.send_replace(frozen);
    }

    pub(super) fn is_frozen(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once the broker is not frozen.
    pub(super) async fn passage(&self) {
        if self.is_frozen() {
            self.0.subscribe().wait_for(|frozen| !frozen).await.expect("the sender is borrowed");
        }
    }
}

/// One connection, as a kick finds it.
#[derive(Debug)]
struct Client {
    client_id: Option<String>,
    /// Reason code to let it go with.
    kick: mpsc::Sender<u8>,
}

pub(super) struct Shared {
    pub(super) core: Core,
    pub(super) gate: Gate,
    pub(super) events: EventLog,
    pub(super) packet_size_max: usize,
    /// No new connections any more.
    pub(super) closing: CancellationToken,
    /// Everything ends at once, without a word.
    pub(super) killed: CancellationToken,
    pub(super) tasks: TaskTracker,
    limits: Mutex<Limits>,
    connections: AtomicUsize,
    clients: Mutex<HashMap<u64, Client>>,
    next_client: AtomicU64,
}

impl Shared {
    pub(super) fn new(core: Core, events: EventLog, packet_size_max: u32, limits: Limits) -> Self {
        Self {
            core,
            gate: Gate::new(),
            events,
            packet_size_max: usize::try_from(packet_size_max).expect("32 bits fit"),
            closing: CancellationToken::new(),
            killed: CancellationToken::new(),
            tasks: TaskTracker::new(),
            limits: Mutex::new(limits),
            connections: AtomicUsize::new(0),
            clients: Mutex::default(),
            next_client: AtomicU64::new(0),
        }
    }

    /// Runs a task of the broker's; a kill ends it wherever it is.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let killed = self.killed.clone();
        self.tasks.spawn(async move { killed.run_until_cancelled(task).await });
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        *self.limits.lock().expect("no holder of this lock panics") = limits;
    }

    /// Counts a connection in, or says how to turn it away.
    pub(super) fn admit(self: &Arc<Self>) -> Result<Admission, TurnAway> {
        let limits = *self.limits.lock().expect("no holder of this lock panics");
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        let admission = Admission(Arc::clone(self));
        match limits.overload {
            Overload::Close if before >= limits.connections => Err(TurnAway::Close),
            Overload::Refuse if before >= limits.connections => Err(TurnAway::Refuse),
            Overload::Accept | Overload::Close | Overload::Refuse => Ok(admission),
        }
    }

    /// Enters a connection in the list of those that can be kicked.
    pub(super) fn register(self: &Arc<Self>) -> (Registration, mpsc::Receiver<u8>) {
        let key = self.next_client.fetch_add(1, Ordering::Relaxed);
        let (kick, kicks) = mpsc::channel(1);
        self.clients().insert(key, Client { client_id: None, kick });
        let registration = Registration { shared: Arc::clone(self), key };
        (registration, kicks)
    }

    /// Lets go of every connection of a client identifier; says how many there were.
    pub(super) fn kick(&self, client_id: &str, reason: u8) -> usize {
        let clients = self.clients();
        let of_that_name = clients.values().filter(|client| client.client_id.as_deref() == Some(client_id));
        let mut kicked = 0;
        for client in of_that_name {
            // A full queue holds an earlier kick, which does as well.
            let _ = client.kick.try_send(reason);
            kicked += 1;
        }
        kicked
    }

    /// Client identifiers of the connections that are up.
    pub(super) fn client_ids(&self) -> Vec<String> {
        self.clients().values().filter_map(|client| client.client_id.clone()).collect()
    }

    fn clients(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Client>> {
        self.clients.lock().expect("no holder of this lock panics")
    }
}

/// What becomes of a connection that there is no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnAway {
    /// It is accepted, and closed.
    Close,
    /// It is not accepted.
    Refuse,
}

/// A counted connection; uncounted when dropped.
pub(super) struct Admission(Arc<Shared>);

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A listed connection; taken off the list when dropped.
pub(super) struct Registration {
    shared: Arc<Shared>,
    key: u64,
}

impl Registration {
    /// Names the connection, once its CONNECT is accepted.
    pub(super) fn name(&self, client_id: &str) {
        if let Some(client) = self.shared.clients().get_mut(&self.key) {
            client.client_id = Some(client_id.to_owned());
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shared.clients().remove(&self.key);
    }
}
