//! A client with a memory: it runs workloads and records what arrives.
//!
//! On an unimpaired path it is the verifying peer; through the link it is the reference client, with the same
//! workload as the board and the same records of it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use device::control::payload::{self, Header};
use device::control::{Pattern, Verdict, Workload};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::Clock;
use super::client::{Client, ClientEvent, ClientLog, ClientOptions, NotRunning};
use super::connector::{ConnectError, Connector};
use super::ledger::Arrival;
use super::send_log::{SendLog, Sending};
use crate::wire::{Publish, Qos, Subscription};

/// Messages a saturating workload keeps under way: enough to fill a window, few enough to notice the end.
const SATURATION_DEPTH: usize = 64;

/// Which program is the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Implementation {
    /// The harness's own MQTT over quinn, tokio-rustls or TCP.
    Own,
    /// rumqttc; MQTT 5.0 over TLS and TCP only.
    Rumqttc,
}

/// A filter was refused, or there is nobody to ask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The broker refuses a filter.
    #[error("the broker refuses the subscription to `{filter}` with code {code:#04x}")]
    Refused {
        /// The filter.
        filter: String,
        /// SUBACK's code.
        code: u8,
    },
    /// The client ended.
    #[error(transparent)]
    NotRunning(#[from] NotRunning),
}

/// A client with a memory.
#[derive(Debug)]
pub struct Party {
    client: Arc<Client>,
    clock: Clock,
    memory: Arc<Memory>,
    recorder: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Memory {
    noted: Mutex<Noted>,
    /// How many different messages arrived.
    messages: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Noted {
    /// In order, repeated ones included.
    arrivals: Vec<Arrival>,
    /// Run and number of each message that arrived.
    messages: HashSet<(u32, u32)>,
}

impl Memory {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().expect("no holder of this lock panics")
    }

    fn note(&self, arrival: Arrival) {
        let mut noted = self.noted();
        noted.arrivals.push(arrival);
        // A run that has seen one message twice still has to wait for the last one; what is no message of a workload
        // is waited for by nobody.
        if arrival.verdict != Verdict::Foreign && noted.messages.insert((arrival.run, arrival.sequence)) {
            self.messages.send_replace(noted.messages.len());
        }
    }
}

/// What a party has to say in the end.
#[derive(Debug, Clone, Default)]
pub struct Testimony {
    /// What arrived, in order.
    pub arrivals: Vec<Arrival>,
    /// Its connections.
    pub log: ClientLog,
}

/// A workload under way.
#[derive(Debug)]
pub struct Running {
    run: u32,
    log: Arc<SendLog>,
    task: JoinHandle<()>,
}

impl Party {
    /// Starts a client; it connects at once.
    ///
    /// # Errors
    /// When that implementation does not fit the settings.
    pub fn start(
        implementation: Implementation,
        connector: Arc<Connector>,
        options: ClientOptions,
        clock: Clock,
    ) -> Result<Self, ConnectError> {
        let (sender, events) = mpsc::unbounded_channel();
        let client = match implementation {
            Implementation::Own => Client::start(connector, options, clock, sender),
            Implementation::Rumqttc => Client::start_rumqttc(connector, options, clock, sender)?,
        };
        let memory = Arc::new(Memory::default());
        let recorder = tokio::spawn(record(events, clock, Arc::clone(&memory)));
        Ok(Self { client: Arc::new(client), clock, memory, recorder })
    }

    /// Waits for the first CONNACK.
    ///
    /// # Errors
    /// Why the first attempt failed.
    pub async fn connected(&self) -> Result<bool, ConnectError> {
        self.client.connected().await
    }

    /// Subscribes to `filters`.
    ///
    /// # Errors
    /// When the broker refuses one of them, or the client ended.
    pub async fn subscribe(&self, filters: &[&str], qos: Qos) -> Result<(), SubscribeError> {
        let wanted =
            filters.iter().map(|filter| Subscription { filter: (*filter).to_owned(), qos }).collect();
        let codes = self.client.subscribe(wanted).await?;
        match filters.iter().zip(codes).find(|(_, code)| *code >= 0x80) {
            Some((filter, code)) => Err(SubscribeError::Refused { filter: (*filter).to_owned(), code }),
            None => Ok(()),
        }
    }

    /// Starts a workload now. Each message goes out when it is due, connected or not; what cannot be sent
    /// waits, and keeps its intended time.
    #[must_use]
    pub fn start_workload(&self, workload: Workload) -> Running {
        let log = SendLog::new(self.clock);
        let run = workload.run;
        let task =
            tokio::spawn(publish_all(Arc::clone(&self.client), workload, self.clock, Arc::clone(&log)));
        Running { run, log, task }
    }

    /// What arrived so far, in order.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.memory.noted().arrivals.clone()
    }

    /// How many different messages of workloads arrived so far.
    #[must_use]
    pub fn arrived_count(&self) -> usize {
        *self.memory.messages.borrow()
    }

    /// Resolves once `count` different messages of workloads arrived.
    pub async fn arrived(&self, count: usize) {
        let mut arrived = self.memory.messages.subscribe();
        // The sender lives as long as `self`.
        let _ = arrived.wait_for(|arrived| *arrived >= count).await;
    }

    /// The client itself, for steps a scenario asks of it.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Ends with a DISCONNECT. Workloads still under way end first, without their drain time.
    pub async fn finish(self) -> Testimony {
        let log = self.client.end().await;
        // A panic in the task has been reported by the runtime.
        let _ = self.recorder.await;
        let arrivals = std::mem::take(&mut self.memory.noted().arrivals);
        Testimony { arrivals, log }
    }
}

impl Running {
    /// The run number of the workload.
    #[must_use]
    pub fn run(&self) -> u32 {
        self.run
    }

    /// What became of each message so far.
    #[must_use]
    pub fn sendings(&self) -> Vec<Sending> {
        self.log.sendings()
    }

    /// Whether every message is settled, or the workload's drain time is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until every message is settled or the workload's drain time is over, and yields what became of
    /// them.
    pub async fn finish(self) -> Vec<Sending> {
        let _ = self.task.await;
        self.log.sendings()
    }

    /// Ends it now.
    pub async fn stop(self) -> Vec<Sending> {
        self.task.abort();
        let _ = self.task.await;
        self.log.sendings()
    }
}

async fn publish_all(client: Arc<Client>, workload: Workload, clock: Clock, log: Arc<SendLog>) {
    let start_us = clock.now_us();
    let qos = Qos::from_bits(workload.qos).unwrap_or_default();
    for sequence in 0..workload.count {
        let intended_us = match workload.pattern {
            Pattern::Every { interval_us } => {
                let due_us = start_us + u64::from(interval_us) * u64::from(sequence);
                tokio::time::sleep_until(clock.instant(due_us).into()).await;
                due_us
            }
            Pattern::Saturate => {
                let settled = (sequence as usize).saturating_sub(SATURATION_DEPTH);
                log.settled(settled).await;
                clock.now_us()
            }
        };
        let turn = sequence as usize % workload.topics.len();
        let header = Header {
            run: workload.run,
            topic: u16::try_from(turn).expect("few topics"),
            sequence,
            intended_us,
        };
        let mut bytes = vec![0; usize::from(workload.size).max(payload::OVERHEAD)];
        payload::write(&header, workload.seed, &mut bytes).expect("at least the overhead");
        let mut publish = Publish::new(&workload.topics[turn], bytes, qos);
        publish.retain = workload.retain;
        client.publish(publish, sequence, intended_us, &log);
    }
    let drain = Duration::from_millis(u64::from(workload.drain_ms));
    // Over or not, the log shows what is missing.
    let _ = tokio::time::timeout(drain, log.settled(workload.count as usize)).await;
}

async fn record(mut events: mpsc::UnboundedReceiver<ClientEvent>, clock: Clock, memory: Arc<Memory>) {
    while let Some(event) = events.recv().await {
        let ClientEvent::Message { publish, at } = event else { continue };
        let (header, verdict) = payload::check(&publish.payload);
        let header = header.unwrap_or(Header { run: 0, topic: 0, sequence: 0, intended_us: 0 });
        let arrival = Arrival {
            run: header.run,
            topic: header.topic,
            sequence: header.sequence,
            intended_us: header.intended_us,
            at_us: clock.us(at),
            size: u32::try_from(publish.payload.len()).expect("below the packet size limit"),
            verdict: if header.run == 0 { Verdict::Foreign } else { verdict },
        };
        memory.note(arrival);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_came_twice_does_not_stand_for_one_that_did_not_come() {
        let memory = Memory::default();
        let arrival = Arrival::example;
        for (arrival, messages) in [
            (arrival(1, 0, Verdict::Intact), 1),
            (arrival(1, 0, Verdict::Intact), 1),
            (arrival(0, 0, Verdict::Foreign), 1),
            (arrival(2, 0, Verdict::Intact), 2),
            (arrival(1, 1, Verdict::Corrupt), 3),
        ] {
            memory.note(arrival);
            assert_eq!(*memory.messages.borrow(), messages, "{arrival:?}");
        }
        assert_eq!(memory.noted().arrivals.len(), 5, "the ledger is told of every one");
    }
}
