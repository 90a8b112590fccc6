//! What each command does.

use smoltcp::phy::Device;

use super::driver::Driver;
use super::face::Face;
use super::workload::{Running, data_slot};
use super::{Board, Console, Loan, Node};
use crate::client::PathChange;
use crate::control::{
    Answer, Event, Fault, Manner, Migration, Phase, Publication, Refusal, Report, Request, Settings,
    StreamMode, Subscription, Topic, Transport, WorkloadEnd, crc32,
};
use crate::crypto::Crypto;
use crate::mqtt::session::SLOTS;
use crate::mqtt::{self, Filter, RequestError, Retain, Token};
use crate::net::AddressChange;
use crate::quic;
use crate::time::Instant;

use super::translate;

/// What follows once the answer is out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Then {
    Crash(Fault),
    Reboot,
}

impl<C: Crypto, const STREAMS: usize> Node<'_, C, STREAMS> {
    /// Carries out one command.
    pub(super) fn execute<N: Device, K: Console, B: Board>(
        &mut self,
        now: Instant,
        sequence: u32,
        request: &Request,
        loan: &mut Loan<'_, N, K, B>,
    ) -> Answer {
        let done = match request {
            Request::Ping { host_us } => {
                return Answer::Pong { host_us: *host_us, device_us: now.as_micros() };
            }
            Request::Announce => {
                self.agent.announce(now, loan.board);
                Ok(())
            }
            // The client may be reading the certificates.
            Request::Blob(_) if self.agent.active => Err(Refusal::Connected),
            Request::Blob(blob) => self.setup.credentials.store(blob),
            Request::Wifi(wifi) => loan.board.join(wifi),
            Request::Power(mode) => loan.board.save_power(*mode),
            Request::Inspect => self.inspect(now, loan.board),
            Request::Configure(settings) => self.configure(now, settings, loan),
            Request::Connect => self.connect(now, loan),
            Request::Snapshot => {
                self.snapshot(now, loan.board);
                Ok(())
            }
            Request::StopWorkload => {
                self.agent.end_workload(now, WorkloadEnd::Stopped);
                Ok(())
            }
            Request::Crash(fault) => {
                self.agent.then = Some(Then::Crash(*fault));
                Ok(())
            }
            Request::Reboot => {
                self.agent.then = Some(Then::Reboot);
                Ok(())
            }
            _ => self
                .drive(now, loan, |driver| driver.execute(sequence, request))
                .unwrap_or(Err(Refusal::NotConfigured)),
        };
        match done {
            Ok(()) => Answer::Done,
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    /// Out of line, as [`Self::connect`] is: what one command needs need not lie under another's work.
    #[inline(never)]
    fn configure<N: Device, K: Console, B: Board>(
        &mut self,
        now: Instant,
        settings: &Settings,
        loan: &mut Loan<'_, N, K, B>,
    ) -> Result<(), Refusal> {
        if self.agent.active {
            return Err(Refusal::Connected);
        }
        let datagrams = quic::DATAGRAM_LEN_MIN..=quic::DATAGRAM_LEN_MAX;
        let port = settings.broker.port();
        if !datagrams.contains(&settings.quic.datagram_max) || port == 0 || settings.mqtt.client_id.is_empty()
        {
            return Err(Refusal::BadSetting);
        }
        if settings.quic.streams == StreamMode::PerTopic
            && (settings.transport != Transport::Quic || data_streams::<STREAMS>() == 0)
        {
            return Err(Refusal::Unsupported);
        }
        let address = loan.board.hardware_address();
        self.net
            .configure(now, loan.nic, address, &settings.addressing, loan.entropy)
            .map_err(|_| Refusal::BadSetting)?;
        self.setup.configure(now, settings);
        if let Some((address, prefix)) = self.net.address() {
            self.agent.event(now, Event::AddressAcquired { address, prefix });
            let sizes = self.current_sizes();
            self.agent.report_memory(now, Phase::NetworkUp, loan.board, sizes);
        }
        Ok(())
    }

    #[inline(never)]
    fn connect<N: Device, K: Console, B: Board>(
        &mut self,
        now: Instant,
        loan: &mut Loan<'_, N, K, B>,
    ) -> Result<(), Refusal> {
        let settings = self.setup.settings.as_ref().ok_or(Refusal::NotConfigured)?;
        if self.agent.active {
            return Err(Refusal::Connected);
        }
        if settings.transport != Transport::Tcp {
            self.setup.credentials.check()?;
        }
        self.agent.active = true;
        self.agent.connect_wanted = true;
        self.drive(now, loan, |driver| driver.connect_when_up());
        Ok(())
    }

    /// Reports what the board has of a chip, a radio, a heap and a record of its time.
    fn inspect(&mut self, now: Instant, board: &mut impl Board) -> Result<(), Refusal> {
        // One after the other: each report takes a kilobyte of stack while it is encoded.
        let told = [
            self.tell(board.hardware().map(Report::Hardware)),
            self.tell(board.radio(now).map(Report::Radio)),
            self.tell(board.heap(now).map(Report::Heap)),
            self.tell(board.activity(now).map(Report::Activity)),
        ];
        if told.contains(&true) { Ok(()) } else { Err(Refusal::Unsupported) }
    }

    /// Reports what there is to report, and says whether there was.
    fn tell(&mut self, report: Option<Report>) -> bool {
        if let Some(report) = &report {
            self.agent.telemetry.report(report);
        }
        report.is_some()
    }

    fn snapshot(&mut self, now: Instant, board: &mut impl Board) {
        let sizes = self.current_sizes();
        self.agent.report_memory(now, Phase::Requested, board, sizes);
        let transport = self.setup.settings.as_ref().map_or(Transport::Quic, |settings| settings.transport);
        self.agent.report_stats(now, &self.clients.stats(transport), self.net.wire());
    }
}

impl<C: Crypto, N: Device, K: Console, B: Board, const STREAMS: usize>
    Driver<'_, '_, '_, C, N, K, B, STREAMS>
{
    /// Carries out a command that needs settings.
    #[inline(never)]
    fn execute(&mut self, sequence: u32, request: &Request) -> Result<(), Refusal> {
        match request {
            Request::Disconnect => self.disconnect(),
            Request::Reconnect(manner) => self.reconnect(*manner),
            Request::Subscribe(subscription) => self.subscribe(sequence, subscription),
            Request::Unsubscribe(filter) => self.unsubscribe(sequence, filter),
            Request::Publish(publication) => self.publish_once(sequence, publication),
            Request::StartWorkload(workload) => {
                if self.agent.workload.is_some() {
                    return Err(Refusal::Busy);
                }
                let data_streams = self.data_streams();
                let running = Running::start(workload.clone(), data_streams, self.now)?;
                // So that QoS 0 messages find their streams open.
                for index in 0..workload.topics.len().min(data_streams) {
                    self.call(|client, _, _| client.open_stream(data_slot(data_streams, index)));
                }
                self.agent.workload = Some(running);
                self.agent.again = true;
                Ok(())
            }
            Request::Migrate(migration) => self.migrate(migration),
            Request::UpdateKeys => {
                self.require_connection()?;
                let started = self.call(|client, ctx, _| client.update_keys(ctx));
                if started { Ok(()) } else { Err(Refusal::Unsupported) }
            }
            _ => Err(Refusal::Unsupported),
        }
    }

    /// Streams beside the control stream that topics and subscriptions take turns on.
    fn data_streams(&self) -> usize {
        match self.settings.quic.streams {
            StreamMode::Single => 0,
            StreamMode::PerTopic => data_streams::<STREAMS>(),
        }
    }

    fn require_connection(&self) -> Result<(), Refusal> {
        if self.agent.active { Ok(()) } else { Err(Refusal::NotConnected) }
    }

    fn disconnect(&mut self) -> Result<(), Refusal> {
        self.require_connection()?;
        self.agent.reconnect_wanted = false;
        if core::mem::take(&mut self.agent.connect_wanted) {
            // The interface never came up, so the client never heard of it.
            self.agent.active = false;
            return Ok(());
        }
        self.call(|client, ctx, _| client.disconnect(ctx));
        Ok(())
    }

    fn reconnect(&mut self, manner: Manner) -> Result<(), Refusal> {
        self.require_connection()?;
        if self.agent.connect_wanted {
            return Ok(());
        }
        // Before the client hears of it: one that has no session yet has stopped by the time the call returns.
        self.agent.reconnect_wanted = self.agent.reconnect_wanted || manner == Manner::Graceful;
        match manner {
            Manner::Graceful => self.call(|client, ctx, _| client.disconnect(ctx)),
            // The policy may wait before it tries again; the harness does not want to.
            Manner::Abrupt => {
                self.call(|client, _, _| client.abandon("dropped by command"));
                self.call(|client, ctx, _| client.connect(ctx));
            }
        }
        Ok(())
    }

    fn subscribe(&mut self, sequence: u32, subscription: &Subscription) -> Result<(), Refusal> {
        self.require_connection()?;
        let key = crc32(subscription.filter.as_bytes());
        let known = self.agent.filters.iter().find(|(filter, _)| *filter == key);
        let index = known.map_or(self.agent.filters.len(), |&(_, index)| index);
        if known.is_none() {
            self.agent.filters.push((key, index)).map_err(|_| Refusal::Full)?;
        }
        let slot = data_slot(self.data_streams(), index);
        let filter = Filter::new(&subscription.filter, translate::qos(subscription.qos));
        self.await_answer(sequence, |client, ctx| client.subscribe(ctx, slot, &[filter]).map(Some))?;
        Ok(())
    }

    fn unsubscribe(&mut self, sequence: u32, filter: &Topic) -> Result<(), Refusal> {
        self.require_connection()?;
        let key = crc32(filter.as_bytes());
        let index =
            self.agent.filters.iter().find(|(filter, _)| *filter == key).map_or(0, |&(_, index)| index);
        let slot = data_slot(self.data_streams(), index);
        self.await_answer(sequence, |client, ctx| client.unsubscribe(ctx, slot, &[filter]).map(Some))?;
        Ok(())
    }

    fn publish_once(&mut self, sequence: u32, publication: &Publication) -> Result<(), Refusal> {
        self.require_connection()?;
        let message = mqtt::Publication {
            retain: Retain::from_flag(publication.retain),
            ..mqtt::Publication::new(&publication.topic, &publication.payload)
                .qos(translate::qos(publication.qos))
        };
        if !self.await_answer(sequence, |client, ctx| client.publish(ctx, &message))? {
            self.agent.event(self.now, Event::PublicationDone { sequence });
        }
        Ok(())
    }

    /// Asks the client and remembers which command the answer belongs to. False if there will be none.
    fn await_answer(
        &mut self,
        sequence: u32,
        ask: impl FnOnce(
            &mut Face<'_, '_, C, STREAMS>,
            &mut crate::client::Context<'_>,
        ) -> Result<Option<Token>, RequestError>,
    ) -> Result<bool, Refusal> {
        if self.agent.pending.is_full() {
            return Err(Refusal::Full);
        }
        let asked = self.call(|client, ctx, _| ask(client, ctx)).map_err(refusal)?;
        if let Some(token) = asked {
            self.agent.pending.push((token, sequence)).expect("checked for room");
        }
        Ok(asked.is_some())
    }

    /// Moves to another port or address. TCP cannot: it loses its connection with its address.
    fn migrate(&mut self, migration: &Migration) -> Result<(), Refusal> {
        self.require_connection()?;
        if self.settings.transport == Transport::Quic {
            let change = if migration.address.is_some() { PathChange::Address } else { PathChange::Port };
            self.move_to(migration.port, change).map_err(|_| Refusal::Unsupported)?;
        } else if migration.address.is_none() {
            return Err(Refusal::Unsupported);
        } else {
            self.call(|client, _, _| client.abandon("the local address changed"));
        }
        if let Some((address, prefix)) = migration.address {
            self.net.change_address(address, prefix).map_err(|_| Refusal::BadSetting)?;
            self.agent.event(self.now, Event::AddressAcquired { address, prefix });
        }
        self.drain();
        Ok(())
    }

    /// DHCP's news.
    #[inline(never)]
    pub(super) fn on_address(&mut self, change: AddressChange) {
        match change {
            AddressChange::Acquired(address, prefix) => {
                self.agent.event(self.now, Event::AddressAcquired { address, prefix });
                self.agent.report_memory(self.now, Phase::NetworkUp, self.loan.board, self.sizes);
            }
            AddressChange::Lost => self.agent.event(self.now, Event::AddressLost),
        }
    }
}

/// Data streams of a client with `STREAMS` streams.
const fn data_streams<const STREAMS: usize>() -> usize {
    let streams = if STREAMS < SLOTS { STREAMS } else { SLOTS };
    streams.saturating_sub(1)
}

const fn refusal(error: RequestError) -> Refusal {
    match error {
        RequestError::Full => Refusal::Full,
        RequestError::NotConnected => Refusal::NotConnected,
        RequestError::TopicInvalid
        | RequestError::FilterInvalid
        | RequestError::TooLarge
        | RequestError::PropertyInvalid => Refusal::BadSetting,
        RequestError::StreamInvalid
        | RequestError::StreamRefused
        | RequestError::QosNotSupported
        | RequestError::RetainNotSupported => Refusal::Unsupported,
    }
}
