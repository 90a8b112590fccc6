//! One call's view of the node: everything that moves the client, with the configuration borrowed.

use smoltcp::phy::Device;

use super::face::{Clients, Face};
use super::translate;
use super::workload::Attempt;
use super::{Agent, Board, Console, Loan, Sizes};
use crate::client::{self, Config, Context, DatagramBuffer, NotMigratable, Output, PathChange};
use crate::control::{
    Cost, Event, Phase, Report, Sample, Settings, Transport, Verdict, WorkloadEnd, payload,
};
use crate::crypto::Crypto;
use crate::mqtt::Token;
use crate::net::{Ingress, Net};
use crate::time::Instant;

/// Frames taken from the NIC before the console and the clock get their turn.
const FRAMES_PER_POLL: usize = 16;
/// Messages published before the NIC gets its turn.
const PUBLISHES_PER_POLL: usize = 8;

/// The node's parts for one call.
pub(super) struct Driver<'d, 'l, 's, C: Crypto, N, K, B, const STREAMS: usize> {
    /// The time after the last call of the client: what it worked for counts.
    pub(super) now: Instant,
    pub(super) settings: &'d Settings,
    pub(super) config: &'d Config<'d>,
    pub(super) clients: &'d mut Clients<C, STREAMS>,
    pub(super) net: &'d mut Net<'s>,
    pub(super) datagram: &'d mut DatagramBuffer,
    pub(super) agent: &'d mut Agent,
    pub(super) loan: &'d mut Loan<'l, N, K, B>,
    pub(super) sizes: Sizes,
    /// The local port of a TCP connection made in this call.
    pub(super) port: u16,
}

/// What an event of the client asks for besides its report.
pub(super) enum Followup {
    Nothing,
    Memory(Phase),
    Migrate,
    Reconnect,
}

impl<C: Crypto, N: Device, K: Console, B: Board, const STREAMS: usize>
    Driver<'_, '_, '_, C, N, K, B, STREAMS>
{
    /// Takes in frames, lets time pass, publishes what is due.
    pub(super) fn run(&mut self) {
        if !self.drain() {
            return;
        }
        if !self.ingress() {
            return;
        }
        if let Some(change) = self.net.poll_address() {
            self.on_address(change);
        }
        self.connect_when_up();
        if self.agent.drained && self.time() && self.publish() {
            self.finish_workload();
        }
        self.egress();
    }

    /// Lets the stack send. That is also when it finds that a TCP connection's time is over, of which the client
    /// hears at once: no frame comes to tell it, and its own timers know nothing of it.
    fn egress(&mut self) {
        let was_closed = self.net.tcp_is_closed();
        self.net.egress(self.now, self.loan.nic);
        if !was_closed && self.net.tcp_is_closed() {
            self.agent.drained = false;
            self.drain();
            // A connection made instead has its first segment in the socket.
            self.agent.again = true;
        }
    }

    /// Starts the connection that was asked for, once there is an address to start it from.
    pub(super) fn connect_when_up(&mut self) {
        if !self.agent.connect_wanted || !self.agent.link_up || !self.net.is_up() || !self.agent.drained {
            return;
        }
        self.agent.connect_wanted = false;
        self.net.bind(self.settings.local_port, self.loan.entropy);
        self.agent.report_memory(self.now, Phase::ConnectStart, self.loan.board, self.sizes);
        self.call(|client, ctx, _| client.connect(ctx));
    }

    /// Calls the client, counts what it cost, and carries out what it wants.
    pub(super) fn call<R>(
        &mut self,
        call: impl FnOnce(&mut Face<'_, '_, C, STREAMS>, &mut Context<'_>, &mut DatagramBuffer) -> R,
    ) -> R {
        let result = self.call_only(call);
        self.drain();
        result
    }

    /// The same, leaving what it wants to the next [`Driver::drain`].
    fn call_only<R>(
        &mut self,
        call: impl FnOnce(&mut Face<'_, '_, C, STREAMS>, &mut Context<'_>, &mut DatagramBuffer) -> R,
    ) -> R {
        let mut ctx = Context { now: self.now, config: self.config, entropy: self.loan.entropy };
        let mut face = self.clients.face(self.settings, self.net, self.port);
        self.agent.meter.enter(self.loan.board.counter());
        let result = call(&mut face, &mut ctx, self.datagram);
        self.agent.meter.leave(self.loan.board.counter());
        self.agent.drained = false;
        self.now = self.loan.board.now().unwrap_or(self.now);
        result
    }

    /// Carries out what the client wants until it waits. False if the NIC or the console has to make
    /// room first: the client must not be called before that.
    pub(super) fn drain(&mut self) -> bool {
        while !self.agent.drained {
            if !self.agent.telemetry.has_room() {
                return false;
            }
            if !self.net.can_send(self.now, self.loan.nic) {
                self.agent.nic_busy = true;
                return false;
            }
            let mut ctx = Context { now: self.now, config: self.config, entropy: self.loan.entropy };
            let mut face = self.clients.face(self.settings, self.net, self.port);
            self.agent.meter.enter(self.loan.board.counter());
            let output = face.poll_output(&mut ctx, self.datagram);
            self.agent.meter.leave(self.loan.board.counter());
            self.now = self.loan.board.now().unwrap_or(self.now);
            let followup = match output {
                Output::WaitUntil(at) => {
                    self.agent.client_due = at;
                    self.agent.drained = true;
                    let cost = self.agent.meter.on_idle();
                    self.agent.report_costs(cost);
                    Followup::Nothing
                }
                Output::Transmit(len) => {
                    let datagram = &self.datagram[..len];
                    self.net.send(self.now, self.loan.nic, self.settings.broker, datagram);
                    let cost = self.agent.meter.on_transmit();
                    self.agent.report_costs(cost);
                    Followup::Nothing
                }
                // An attempt begins before what it takes, and all else has happened when it is done.
                Output::Event { at, event: event @ client::Event::Attempt { .. } } => {
                    self.agent.on_event(at, &event)
                }
                Output::Event { event, .. } => self.agent.on_event(self.now, &event),
            };
            self.follow(followup);
        }
        true
    }

    fn follow(&mut self, followup: Followup) {
        match followup {
            Followup::Nothing => {}
            Followup::Memory(phase) => {
                self.agent.report_memory(self.now, phase, self.loan.board, self.sizes);
                if phase == Phase::Disconnected {
                    let stats = self.clients.stats(self.settings.transport);
                    self.agent.report_stats(self.now, &stats, self.net.wire());
                }
            }
            // Neither is followed by `drain`: the loop that got the event goes on draining.
            Followup::Migrate => {
                // Refused means that there is no connection to be moved any more.
                let _ = self.move_to(0, PathChange::Port);
            }
            Followup::Reconnect => self.call_only(|client, ctx, _| client.connect(ctx)),
        }
    }

    /// Moves the connection to another local port. The client is asked first: if it cannot move, the old
    /// port stays; the packets that probe the new path are written after the port has changed.
    pub(super) fn move_to(&mut self, port: u16, change: PathChange) -> Result<(), NotMigratable> {
        self.call_only(|client, ctx, _| client.migrate(ctx, change))?;
        self.net.bind(port, self.loan.entropy);
        self.agent.event(self.now, Event::MigrationStarted { port: self.net.local_port() });
        Ok(())
    }

    /// Takes in what the NIC has, within a bound. False if the client cannot take more.
    fn ingress(&mut self) -> bool {
        for _ in 0..FRAMES_PER_POLL {
            if self.net.ingress(self.now, self.loan.nic) == Ingress::Idle {
                return true;
            }
            while let Some(len) = self.net.receive(self.settings.broker, self.datagram) {
                self.agent.meter.on_arrival();
                self.call(|client, ctx, datagram| client.handle_datagram(ctx, &mut datagram[..len]));
                if !self.agent.drained {
                    return false;
                }
            }
            if self.settings.transport != Transport::Quic {
                // The socket took it: the client looks there.
                self.agent.meter.on_arrival();
                self.agent.drained = false;
                if !self.drain() {
                    return false;
                }
            }
        }
        self.agent.again = true;
        true
    }

    fn time(&mut self) -> bool {
        if self.agent.client_due.is_some_and(|due| due <= self.now) {
            self.call(|client, ctx, _| client.handle_timeout(ctx));
        }
        self.agent.drained
    }

    /// Publishes what is due, within a bound. Out of line: what it holds need not lie under a handshake.
    #[inline(never)]
    fn publish(&mut self) -> bool {
        for _ in 0..PUBLISHES_PER_POLL {
            let now = self.now;
            let Some(mut running) = self.agent.workload.take() else { return true };
            // The payload is built where datagrams are: the client copies it before it needs the room.
            let due = running.prepare(now, self.datagram);
            let attempt = due.map(|due| {
                let taken = self.call_only(|client, ctx, datagram| {
                    client.publish(ctx, &running.publication(&due, &datagram[..]))
                });
                if let Ok(token) = taken {
                    self.agent.meter.on_publish(running.qos(), token);
                }
                running.settle(now, &due, taken)
            });
            let run = running.run();
            // Back before the client is drained: its events are for the workload too.
            self.agent.workload = Some(running);
            if let Some(Attempt::Settled(sample)) = attempt {
                self.agent.telemetry.sample(now, run, sample);
            }
            if !self.drain() || !matches!(attempt, Some(Attempt::Settled(_))) {
                return self.agent.drained;
            }
        }
        self.agent.again = true;
        true
    }

    #[inline(never)]
    fn finish_workload(&mut self) {
        let result = self.agent.workload.as_ref().and_then(|running| running.result(self.now));
        if let Some(result) = result {
            self.agent.workload = None;
            self.agent.telemetry.report(&Report::WorkloadDone(result));
            self.agent.report_memory(self.now, Phase::WorkloadDone, self.loan.board, self.sizes);
        }
    }
}

impl Agent {
    fn report_costs(&mut self, costs: impl IntoIterator<Item = Cost>) {
        for cost in costs {
            self.telemetry.report(&Report::Cost(cost));
        }
    }

    /// Ends the workload before its time.
    pub(super) fn end_workload(&mut self, now: Instant, end: WorkloadEnd) {
        if let Some(running) = self.workload.take() {
            self.telemetry.report(&Report::WorkloadDone(running.ended(now, end)));
        }
    }

    /// Reports an event and says what it asks for.
    pub(super) fn on_event(&mut self, at: Instant, event: &client::Event<'_>) -> Followup {
        let costs = self.meter.on_event(event);
        self.report_costs(costs);
        if let Some(event) = translate::event(event) {
            self.event(at, event);
        }
        match *event {
            client::Event::Message(message) => self.on_message(at, message.payload),
            client::Event::Acknowledged { token, reason } => {
                self.on_settled(at, token, reason.is_error().then_some(reason.0));
            }
            client::Event::Abandoned { token, error } => {
                if let Some(sequence) = self.answered(token) {
                    self.event(at, Event::Abandoned { sequence, reason: translate::abandoned(error) });
                } else {
                    self.on_settled(at, token, Some(0));
                }
            }
            client::Event::Subscribed { token, codes } => {
                if let Some(sequence) = self.answered(token) {
                    let reason = codes.first().copied().unwrap_or(0);
                    self.event(at, Event::Subscribed { sequence, reason });
                }
            }
            client::Event::Unsubscribed { token, codes } => {
                if let Some(sequence) = self.answered(token) {
                    let reason = codes.first().copied().unwrap_or(0);
                    self.event(at, Event::Unsubscribed { sequence, reason });
                }
            }
            client::Event::RetryAt { at: due, number } => {
                let delay_ms = due.saturating_since(at).as_millis() as u32;
                self.event(at, Event::BackingOff { delay_ms, attempt: number });
            }
            client::Event::Phase(client::Phase::Started) => return Followup::Memory(Phase::ClientReady),
            client::Event::Phase(client::Phase::HandshakeComplete) => {
                return Followup::Memory(Phase::HandshakeComplete);
            }
            client::Event::Connected(_) => return Followup::Memory(Phase::MqttConnected),
            client::Event::Disconnected(cause) => {
                self.ended_by_request = cause == client::Cause::Requested;
                return Followup::Memory(Phase::Disconnected);
            }
            client::Event::Stopped => return self.on_stopped(at),
            client::Event::MigrationWanted => return Followup::Migrate,
            _ => {}
        }
        Followup::Nothing
    }

    fn on_stopped(&mut self, at: Instant) -> Followup {
        if core::mem::take(&mut self.reconnect_wanted) {
            return Followup::Reconnect;
        }
        if !self.ended_by_request {
            self.event(at, Event::GaveUp);
        }
        self.active = false;
        self.pending.clear();
        self.end_workload(at, WorkloadEnd::Disconnected);
        Followup::Nothing
    }

    fn on_message(&mut self, at: Instant, payload: &[u8]) {
        let (header, verdict) = payload::check(payload);
        let run = self.workload.as_ref().map_or(0, super::workload::Running::run);
        let empty = payload::Header { run: 0, topic: 0, sequence: 0, intended_us: 0 };
        let payload::Header { run: sent_in, topic, sequence, intended_us } = header.unwrap_or(empty);
        let sample = Sample::Received {
            run: sent_in,
            topic,
            sequence,
            intended_us,
            at_us: at.as_micros(),
            size: payload.len() as u16,
            verdict: if header.is_none() { Verdict::Foreign } else { verdict },
        };
        self.telemetry.sample(at, run, sample);
    }

    /// A publication of the workload or of a command ended.
    fn on_settled(&mut self, at: Instant, token: Token, failure: Option<u8>) {
        if let Some(running) = &mut self.workload
            && let Some(sample) = running.on_settled(at, token, failure)
        {
            let run = running.run();
            self.telemetry.sample(at, run, sample);
        } else if let Some(sequence) = self.answered(token) {
            self.event(at, Event::PublicationDone { sequence });
        }
    }

    fn answered(&mut self, token: Token) -> Option<u32> {
        let index = self.pending.iter().position(|&(waiting, _)| waiting == token)?;
        Some(self.pending.swap_remove(index).1)
    }
}
