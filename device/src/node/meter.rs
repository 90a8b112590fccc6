//! What the client costs: instructions spent within its calls, told apart by what they were for.
//!
//! The board's counter is read before and after each call of the client ([`Meter::enter`], [`Meter::leave`]); what
//! runs between calls (IP stack, agent, console, sleep) is never counted. An operation that overlaps with another of
//! its kind cannot be told from it and is not reported; a harness that wants figures leaves room between messages.

use crate::client::{self, Connected};
use crate::control::{Cost, Operation};
use crate::mqtt::{Qos, Token};

/// Running totals, and where the operations under way began.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Spent within the client since boot; `None` until the board has counted.
    spent: Option<u64>,
    /// [`Meter::spent`] before the call under way.
    before: u64,
    /// The counter when the call under way began.
    entered: Option<u64>,
    attempt: Option<Attempt>,
    publication: Option<Publication>,
    /// [`Meter::spent`] before what arrived last was handed to the client.
    arrived: Option<u64>,
}

/// A connection on its way to CONNACK.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    started: u64,
    /// The first datagram is out.
    launched: bool,
    /// A ServerHello came: there is a TLS handshake.
    encrypted: bool,
    /// At the end of the TLS handshake, or (TCP) when the connection stood.
    secured: Option<u64>,
    /// Before the first datagram or bytes that arrived after that: the end of Finished and CONNECT.
    asked: Option<u64>,
    /// What the TLS handshake took; `None` without TLS.
    handshake: Option<u64>,
}

/// The publication under way.
#[derive(Clone, Copy, Debug)]
struct Publication {
    qos: Qos,
    /// `None` for QoS 0.
    token: Option<Token>,
    started: u64,
    /// Another one was begun meanwhile.
    mixed: bool,
}

/// What an event of the client completes: a connection completes two.
pub(super) type Costs = heapless::Vec<Cost, 2>;

impl Meter {
    pub(super) const fn new() -> Self {
        Self { spent: None, before: 0, entered: None, attempt: None, publication: None, arrived: None }
    }

    /// Spent within the client since boot.
    pub(super) const fn spent(&self) -> Option<u64> {
        self.spent
    }

    /// The client is about to be called.
    pub(super) fn enter(&mut self, counter: Option<u64>) {
        self.before = self.spent.unwrap_or(0);
        self.entered = counter;
    }

    /// The call is over.
    pub(super) fn leave(&mut self, counter: Option<u64>) {
        if let (Some(entered), Some(left)) = (self.entered.take(), counter) {
            self.spent = Some(self.before + left.wrapping_sub(entered));
        }
    }

    /// Bytes from the network are about to be handed to the client.
    pub(super) fn on_arrival(&mut self) {
        self.arrived = self.spent;
        if let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.secured.is_some()) {
            attempt.asked = attempt.asked.or(self.spent);
        }
    }

    /// The client wrote a datagram.
    pub(super) fn on_transmit(&mut self) -> Option<Cost> {
        let spent = self.spent?;
        let attempt = self.attempt.as_mut().filter(|attempt| !attempt.launched)?;
        attempt.launched = true;
        Some(Cost { operation: Operation::FirstFlight, instructions: spent - attempt.started })
    }

    /// The client took a publication in the call that just ended.
    pub(super) fn on_publish(&mut self, qos: Qos, token: Option<Token>) {
        if self.spent.is_none() {
            return;
        }
        let mixed = self.publication.is_some();
        self.publication = Some(Publication { qos, token, started: self.before, mixed });
    }

    /// The client waits: a QoS 0 publication has left.
    pub(super) fn on_idle(&mut self) -> Option<Cost> {
        self.publication.filter(|publication| publication.token.is_none())?;
        self.close_publication()
    }

    /// An event of the client, in the call that just ended.
    pub(super) fn on_event(&mut self, event: &client::Event<'_>) -> Costs {
        let mut costs = Costs::new();
        let Some(spent) = self.spent else { return costs };
        match *event {
            client::Event::Attempt { .. } => {
                self.attempt = Some(Attempt {
                    started: self.before,
                    launched: false,
                    encrypted: false,
                    secured: None,
                    asked: None,
                    handshake: None,
                });
            }
            client::Event::Phase(phase) => self.on_phase(phase, spent),
            client::Event::Connected(connected) => self.on_connected(connected, spent, &mut costs),
            client::Event::Message(_) => {
                let arrived = self.arrived.take();
                costs.extend(
                    arrived
                        .map(|arrived| Cost { operation: Operation::Receive, instructions: spent - arrived }),
                );
            }
            client::Event::Acknowledged { token, .. }
                if self.publication.is_some_and(|publication| publication.token == Some(token)) =>
            {
                costs.extend(self.close_publication());
            }
            client::Event::Disconnected(_) => (self.attempt, self.publication) = (None, None),
            _ => {}
        }
        costs
    }

    fn on_phase(&mut self, phase: client::Phase, spent: u64) {
        let Some(attempt) = &mut self.attempt else { return };
        match phase {
            // A stream transport has no datagrams of its own.
            client::Phase::TcpEstablished => {
                attempt.launched = true;
                attempt.secured = Some(spent);
            }
            client::Phase::ServerHello => attempt.encrypted = true,
            client::Phase::HandshakeComplete => {
                attempt.handshake = attempt.encrypted.then(|| spent - attempt.started);
                attempt.secured = Some(spent);
                attempt.asked = None;
            }
            _ => {}
        }
    }

    fn on_connected(&mut self, connected: Connected, spent: u64, costs: &mut Costs) {
        let Some(Attempt { secured, asked, handshake, .. }) = self.attempt.take() else { return };
        // What came before CONNACK's datagram belongs to the handshake: HANDSHAKE_DONE, tickets, connection identifiers.
        let between = self.arrived.zip(asked).filter(|_| handshake.is_some());
        let between = between.map_or(0, |(arrived, asked)| arrived.saturating_sub(asked));
        let handshake = handshake.map(|instructions| instructions + between);
        let operation = match (connected.early_data_accepted, connected.resumed) {
            (true, _) => Operation::HandshakeEarly,
            (false, true) => Operation::HandshakeResumed,
            (false, false) => Operation::HandshakeFull,
        };
        costs.extend(handshake.map(|instructions| Cost { operation, instructions }));
        // With 0-RTT, CONNECT is part of the handshake.
        let connect = secured.filter(|_| operation != Operation::HandshakeEarly);
        let instructions = connect.map(|secured| (spent - secured).saturating_sub(between));
        costs.extend(instructions.map(|instructions| Cost { operation: Operation::Connect, instructions }));
    }

    fn close_publication(&mut self) -> Option<Cost> {
        let Publication { qos, started, mixed, .. } = self.publication.take()?;
        let operation = match qos {
            Qos::AtMostOnce => Operation::PublishQos0,
            Qos::AtLeastOnce => Operation::PublishQos1,
            Qos::ExactlyOnce => Operation::PublishQos2,
        };
        let spent = self.spent?;
        (!mixed).then_some(Cost { operation, instructions: spent - started })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Event, Phase};
    use crate::mqtt::{PacketId, ReasonCode, Slot};

    /// A call of the client that takes `instructions`.
    fn call(meter: &mut Meter, instructions: u64) {
        let counter = meter.spent().unwrap_or(0) * 3 + 100;
        meter.enter(Some(counter));
        meter.leave(Some(counter + instructions));
    }

    fn cost(operation: Operation, instructions: u64) -> Cost {
        Cost { operation, instructions }
    }

    fn token(id: u16) -> Token {
        Token { slot: Slot::CONTROL, id: PacketId::new(id).expect("not zero") }
    }

    const ATTEMPT: Event<'_> = Event::Attempt { number: 1, resuming: false, early_data: false };
    const CONNECTED: Connected =
        Connected { session_present: false, resumed: false, early_data_accepted: false };

    #[test]
    fn a_handshake_counts_from_the_attempt_and_connect_from_its_end() {
        let mut meter = Meter::new();
        call(&mut meter, 7);
        call(&mut meter, 10);
        assert!(meter.on_event(&ATTEMPT).is_empty());
        call(&mut meter, 20);
        assert_eq!(meter.on_transmit(), Some(cost(Operation::FirstFlight, 30)));
        assert_eq!(meter.on_transmit(), None, "only the first");
        call(&mut meter, 40);
        assert!(meter.on_event(&Event::Phase(Phase::ServerHello)).is_empty());
        assert!(meter.on_event(&Event::Phase(Phase::HandshakeComplete)).is_empty());
        call(&mut meter, 5);
        let costs = meter.on_event(&Event::Connected(CONNECTED));
        assert_eq!(costs[..], [cost(Operation::HandshakeFull, 70), cost(Operation::Connect, 5)]);
    }

    #[test]
    fn what_comes_before_connack_belongs_to_the_handshake() {
        let mut meter = Meter::new();
        call(&mut meter, 10);
        assert!(meter.on_event(&ATTEMPT).is_empty());
        call(&mut meter, 40);
        meter.on_event(&Event::Phase(Phase::ServerHello));
        meter.on_event(&Event::Phase(Phase::HandshakeComplete));
        // CONNECT leaves.
        call(&mut meter, 5);
        // A ticket and what it leads to.
        meter.on_arrival();
        call(&mut meter, 300);
        call(&mut meter, 20);
        // CONNACK.
        meter.on_arrival();
        call(&mut meter, 4);
        let costs = meter.on_event(&Event::Connected(CONNECTED));
        assert_eq!(costs[..], [cost(Operation::HandshakeFull, 370), cost(Operation::Connect, 9)]);
    }

    #[test]
    fn early_data_carries_connect_within_the_handshake() {
        let mut meter = Meter::new();
        call(&mut meter, 1);
        meter.on_event(&ATTEMPT);
        call(&mut meter, 9);
        meter.on_event(&Event::Phase(Phase::ServerHello));
        meter.on_event(&Event::Phase(Phase::HandshakeComplete));
        call(&mut meter, 5);
        let connected = Connected { resumed: true, early_data_accepted: true, ..CONNECTED };
        let costs = meter.on_event(&Event::Connected(connected));
        assert_eq!(costs[..], [cost(Operation::HandshakeEarly, 10)]);
    }

    #[test]
    fn a_handshake_over_tcp_is_counted_once() {
        let mut meter = Meter::new();
        call(&mut meter, 1);
        meter.on_event(&ATTEMPT);
        meter.on_event(&Event::Phase(Phase::TcpEstablished));
        meter.on_arrival();
        call(&mut meter, 70);
        meter.on_event(&Event::Phase(Phase::ServerHello));
        meter.on_arrival();
        call(&mut meter, 30);
        meter.on_event(&Event::Phase(Phase::HandshakeComplete));
        call(&mut meter, 5);
        meter.on_arrival();
        call(&mut meter, 4);
        let costs = meter.on_event(&Event::Connected(CONNECTED));
        assert_eq!(costs[..], [cost(Operation::HandshakeFull, 101), cost(Operation::Connect, 9)]);
    }

    #[test]
    fn plain_tcp_has_no_handshake_of_its_own() {
        let mut meter = Meter::new();
        call(&mut meter, 1);
        meter.on_event(&ATTEMPT);
        meter.on_event(&Event::Phase(Phase::TcpEstablished));
        meter.on_event(&Event::Phase(Phase::HandshakeComplete));
        call(&mut meter, 9);
        let costs = meter.on_event(&Event::Connected(CONNECTED));
        assert_eq!(costs[..], [cost(Operation::Connect, 9)]);
    }

    #[test]
    fn a_publication_counts_until_its_acknowledgement() {
        let mut meter = Meter::new();
        call(&mut meter, 100);
        call(&mut meter, 3);
        meter.on_publish(Qos::AtLeastOnce, Some(token(1)));
        call(&mut meter, 4);
        assert_eq!(meter.on_idle(), None, "the acknowledgement is missing");
        call(&mut meter, 5);
        let acknowledged = Event::Acknowledged { token: token(1), reason: ReasonCode::SUCCESS };
        assert_eq!(meter.on_event(&acknowledged)[..], [cost(Operation::PublishQos1, 12)]);
        call(&mut meter, 2);
        meter.on_publish(Qos::AtMostOnce, None);
        call(&mut meter, 2);
        assert_eq!(meter.on_idle(), Some(cost(Operation::PublishQos0, 4)));
    }

    #[test]
    fn publications_that_overlap_are_not_told() {
        let mut meter = Meter::new();
        call(&mut meter, 1);
        meter.on_publish(Qos::AtLeastOnce, Some(token(1)));
        call(&mut meter, 1);
        meter.on_publish(Qos::AtLeastOnce, Some(token(2)));
        for id in [1, 2] {
            let acknowledged = Event::Acknowledged { token: token(id), reason: ReasonCode::SUCCESS };
            assert!(meter.on_event(&acknowledged).is_empty());
        }
    }

    #[test]
    fn a_board_that_does_not_count_reports_nothing() {
        let mut meter = Meter::new();
        meter.enter(None);
        meter.leave(None);
        assert!(meter.on_event(&ATTEMPT).is_empty());
        meter.on_publish(Qos::AtMostOnce, None);
        assert_eq!((meter.on_idle(), meter.on_transmit(), meter.spent()), (None, None, None));
    }
}
