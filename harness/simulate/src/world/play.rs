//! One world, from its first datagram to its verdict.

use core::time::Duration;
use std::collections::VecDeque;

use device::client::Event as ClientEvent;
use device::mqtt::{Filter, Publication, Qos, RequestError, Slot, Token};

use super::check;
use super::plan::{Event, Plan, Planned, STREAMS, Scheduled, TOPICS};
use crate::{Broker, Clock, MqttClient, Pair, Server, Told};

/// Virtual time a world has for everything it plans: several idle timeouts and the longest backoff.
const DEADLINE: Duration = Duration::from_secs(400);

/// Virtual time for messages that nobody acknowledges.
const LINGER: Duration = Duration::from_secs(30);

/// Virtual time for an orderly end.
const FAREWELL: Duration = Duration::from_secs(60);

/// Application error code of a stream that the broker resets.
const RESET_CODE: u64 = 7;

/// Client and broker of a world.
pub(super) type World = Pair<MqttClient<STREAMS>, Broker>;

/// What became of a world. Equal on every run of its seed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Which world.
    pub seed: u64,
    /// What went wrong, if anything did.
    pub failure: Option<String>,
    /// How long it took in virtual time.
    pub elapsed: Duration,
    /// Datagrams offered to the link.
    pub datagrams: u64,
    /// The hash of their times, directions, sizes and fates.
    pub trace_hash: u64,
    /// Sessions opened.
    pub sessions: u32,
    /// Of these, with a resumed TLS session.
    pub resumed: u32,
    /// Of these, with CONNECT taken as 0-RTT data.
    pub early: u32,
    /// Retry packets.
    pub retries: u32,
    /// Key updates the client saw.
    pub key_updates: u32,
    /// Paths validated after a migration.
    pub paths_validated: u32,
    /// Packets the client declared lost, over all connections' last figures.
    pub packets_lost: u64,
    /// Messages the client published with QoS 1 or 2.
    pub published: u32,
    /// Messages the broker published to it with QoS 1 or 2.
    pub delivered: u32,
    /// How often the broker had messages that waited until the client acknowledged others.
    pub held_back: u64,
    /// How often the client had as many messages in flight as the broker takes.
    pub filled: u64,
}

impl Verdict {
    /// The clock, the packets and the verdict in one number: all fields, the trace's hash among them.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut trace = crate::Trace::default();
        format!("{self:?}").bytes().for_each(|byte| trace.number(byte.into()));
        trace.hash()
    }
}

/// A message that was really published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) planned: Planned,
    /// Its number, also in its payload.
    pub(super) number: u16,
}

/// A world while it is played.
pub(super) struct Play {
    pub(super) plan: Plan,
    pub(super) world: World,
    /// When the first session opened.
    start: Option<Clock>,
    /// What is still to be published, by slot.
    waiting_up: [VecDeque<(u16, Planned)>; STREAMS],
    waiting_down: VecDeque<(u16, Planned)>,
    events: VecDeque<Scheduled>,
    subscriptions: Vec<Token>,
    pub(super) sent_up: Vec<Sent>,
    pub(super) sent_down: Vec<Sent>,
    /// A `Reconnect` waits for the end of the old connection.
    reconnecting: bool,
    seen: usize,
}

/// Plays the world of `seed`.
#[must_use]
pub fn run_world(seed: u64) -> Verdict {
    Play::new(Plan::draw(seed)).run()
}

/// Plays the world of `seed` and keeps a line for each datagram and event.
#[must_use]
pub fn trace_world(seed: u64) -> (Verdict, Plan, Vec<String>) {
    let plan = Plan::draw(seed);
    let mut play = Play::new(plan.clone());
    play.world.trace.keep_lines();
    let verdict = play.run_to_end();
    let mut lines: Vec<String> = play.world.trace.lines().to_vec();
    lines.extend(play.world.client.told.iter().map(|(at, told)| format!("{at} told {told:?}")));
    let order =
        |line: &String| line.split(' ').next().and_then(|at| at.parse::<f64>().ok()).map(f64::to_bits);
    lines.sort_by_key(order);
    lines.extend(play.world.server.ended().iter().map(|ended| format!("server: {}", ended.reason)));
    (verdict, plan, lines)
}

impl Play {
    fn new(plan: Plan) -> Self {
        let client = MqttClient::new(plan.client.clone(), plan.mqtt.clone(), plan.seed);
        let server = Server::new(plan.server.clone(), plan.seed, Broker::new(plan.broker));
        let world = Pair::new(client, server, &plan.link, plan.seed);
        let mut waiting_up: [VecDeque<_>; STREAMS] = Default::default();
        for (number, planned) in (0..).zip(&plan.up) {
            waiting_up[planned.slot].push_back((number, *planned));
        }
        Self {
            waiting_up,
            waiting_down: (0..).zip(plan.down.iter().copied()).collect(),
            events: plan.events.iter().copied().collect(),
            plan,
            world,
            start: None,
            subscriptions: Vec::new(),
            sent_up: Vec::new(),
            sent_down: Vec::new(),
            reconnecting: false,
            seen: 0,
        }
    }

    fn run(mut self) -> Verdict {
        self.run_to_end()
    }

    fn run_to_end(&mut self) -> Verdict {
        let failure = self.play().and_then(|()| check::check(self)).err();
        let mut verdict = self.verdict();
        verdict.failure = failure;
        verdict
    }

    fn play(&mut self) -> Result<(), String> {
        self.subscribe();
        let now = self.world.now();
        self.world.client.connect(now);
        let deadline = now + DEADLINE;
        while !self.is_done() {
            self.act();
            self.world.flush();
            if self.look() {
                continue;
            }
            let next = self.next_action().map_or(deadline, |at| at.min(deadline));
            if !self.world.step(next) && self.world.now() >= deadline {
                return Err(self.unfinished());
            }
            self.look();
        }
        // QoS 0 has no acknowledgement: it gets time to arrive, which is all of it while the connection lasts.
        let until = self.world.now() + LINGER;
        while !self.is_quiet() && self.world.step(until) {
            self.look();
        }
        let now = self.world.now();
        self.world.client.disconnect(now);
        let ended =
            self.world.run_until(FAREWELL, |world| world.client.has(|event| *event == ClientEvent::Stopped));
        if !ended {
            return Err(format!("the client has not stopped {FAREWELL:?} after disconnect"));
        }
        Ok(())
    }

    fn subscribe(&mut self) {
        let now = self.world.now();
        for index in 0..self.plan.streams {
            let slot = Slot::new(index).expect("three streams are within the session's slots");
            let filter = format!("down/{index}/#");
            let filters = [Filter::new(&filter, Qos::ExactlyOnce)];
            let token = self.world.client.subscribe(now, slot, &filters).expect("room for three filters");
            self.subscriptions.push(token);
        }
    }

    /// Everything planned has happened, every message that must arrive has, and whatever streams were lost have their
    /// subscriptions again.
    fn is_done(&self) -> bool {
        self.events.is_empty()
            && !self.reconnecting
            && self.waiting_down.is_empty()
            && self.waiting_up.iter().all(VecDeque::is_empty)
            && self.is_subscribed()
            && self.unsubscribed().is_empty()
            && self.world.server.service.undelivered() == 0
            && self.acknowledged() >= self.sent_up.iter().filter(|sent| sent.planned.qos > 0).count()
    }

    fn is_subscribed(&self) -> bool {
        self.subscriptions.iter().all(|&token| self.world.client.is_answered(token))
    }

    /// The streams whose subscription the broker does not know.
    fn unsubscribed(&self) -> Vec<usize> {
        let broker = &self.world.server.service;
        (0..self.plan.streams)
            .filter(|slot| !broker.has_subscriber(&format!("down/{slot}/{}", TOPICS[0])))
            .collect()
    }

    fn acknowledged(&self) -> usize {
        self.world.client.acknowledged()
    }

    fn unfinished(&self) -> String {
        let waiting: usize = self.waiting_up.iter().map(VecDeque::len).sum();
        format!(
            "not done after {DEADLINE:?}: {} events, {waiting} messages up and {} down to be published, {} of {} \
             acknowledged, {} not delivered, subscribed: {}, but for those of {:?}, connections \
             ended: {:?}; broker: {}",
            self.events.len(),
            self.waiting_down.len(),
            self.acknowledged(),
            self.sent_up.iter().filter(|sent| sent.planned.qos > 0).count(),
            self.world.server.service.undelivered(),
            self.is_subscribed(),
            self.unsubscribed(),
            self.world.client.causes(),
            self.world.server.service.describe(),
        )
    }

    /// Whether every message has arrived, QoS 0 included.
    fn is_quiet(&self) -> bool {
        self.world.server.service.published.len() >= self.sent_up.len()
            && self.world.client.messages().count() >= self.sent_down.len()
    }

    /// Takes note of what the client told since the last time. Says whether that led to something.
    fn look(&mut self) -> bool {
        let told = &self.world.client.told[self.seen..];
        self.seen += told.len();
        let mut migrate = false;
        let mut reconnect = false;
        let mut start = None;
        for (at, told) in told {
            match told {
                Told::Event(ClientEvent::Connected(_)) => start = start.or(Some(*at)),
                Told::Event(ClientEvent::MigrationWanted) => migrate = true,
                Told::Event(ClientEvent::Stopped) => reconnect = true,
                _ => {}
            }
        }
        if self.start.is_none() && start.is_some() {
            self.start = start;
            self.world.announce("connected");
        }
        if migrate {
            self.world.migrate_port();
        }
        let reconnect = reconnect && core::mem::take(&mut self.reconnecting);
        if reconnect {
            let now = self.world.now();
            self.world.client.connect(now);
        }
        migrate || reconnect || start.is_some()
    }

    /// When the next thing is due that the plan says.
    fn next_action(&self) -> Option<Clock> {
        let start = self.start?;
        let event = self.events.front().map(|scheduled| start + scheduled.at);
        let up = self.waiting_up.iter().filter_map(VecDeque::front).map(|(_, planned)| start + planned.at);
        let down = self.waiting_down.front().map(|(_, planned)| start + planned.at);
        // What is overdue waits for the client or the broker, not for a time.
        event.into_iter().chain(up).chain(down).filter(|&at| at > self.world.now()).min()
    }

    fn act(&mut self) {
        let Some(start) = self.start else { return };
        let now = self.world.now();
        while let Some(scheduled) =
            self.events.front().copied().filter(|scheduled| start + scheduled.at <= now)
        {
            self.events.pop_front();
            self.perform(scheduled.event);
        }
        for index in 0..STREAMS {
            while let Some((number, planned)) =
                self.waiting_up[index].front().copied().filter(|(_, planned)| start + planned.at <= now)
            {
                if !self.publish(number, planned) {
                    break;
                }
                self.waiting_up[index].pop_front();
            }
        }
        while let Some((number, planned)) =
            self.waiting_down.front().copied().filter(|(_, planned)| start + planned.at <= now)
        {
            if !self.is_subscribed() {
                break;
            }
            self.waiting_down.pop_front();
            let payload = payload(b'd', number, &planned);
            let topic = topic("down", &planned);
            if self.world.server.service.publish(&topic, &payload, qos(planned)) > 0 {
                self.sent_down.push(Sent { planned, number });
                self.world.server.wake(now);
            }
        }
    }

    /// Publishes. Says whether that is over with, be it because QoS 0 has no session to go to.
    fn publish(&mut self, number: u16, planned: Planned) -> bool {
        let now = self.world.now();
        let payload = payload(b'u', number, &planned);
        let topic = topic("up", &planned);
        let slot = Slot::new(planned.slot).expect("three streams are within the session's slots");
        let publication = Publication::new(&topic, &payload).qos(qos(planned)).on(slot);
        match self.world.client.publish(now, &publication) {
            Ok(_) => {
                self.sent_up.push(Sent { planned, number });
                true
            }
            Err(RequestError::NotConnected) => planned.qos == 0,
            Err(RequestError::Full) => planned.qos == 0,
            Err(error) => panic!("publishing {planned:?}: {error}"),
        }
    }

    fn perform(&mut self, event: Event) {
        let now = self.world.now();
        self.world.trace.note(now, || format!("event {event:?}"));
        match event {
            Event::UpdateKeys => self.world.client.update_keys(now),
            Event::ServerUpdatesKeys => {
                for connection in self.world.server.connections() {
                    if !connection.is_handshaking() && !connection.is_closed() {
                        connection.force_key_update();
                    }
                }
            }
            Event::Migrate => self.world.migrate(),
            Event::Reconnect => {
                self.world.client.disconnect(now);
                self.reconnecting = true;
            }
            Event::ServerRestarts => self.world.server.restart(now),
            Event::RefuseEarlyData => self.world.server.reconfigure(|options| options.early_data = false),
            Event::DemandRetry => self.world.server.reconfigure(|options| options.retry = true),
            Event::ResetDataStreams => {
                self.world.server.service.reset_data_streams(RESET_CODE);
                self.world.server.wake(now);
            }
        }
    }

    fn verdict(&self) -> Verdict {
        let connected = |wanted: &dyn Fn(&device::client::Connected) -> bool| {
            let count = self.world.client.events().filter(|event| match event {
                ClientEvent::Connected(connected) => wanted(connected),
                _ => false,
            });
            count.count() as u32
        };
        let count = |wanted: &ClientEvent<'_>| {
            self.world.client.events().filter(|event| *event == wanted).count() as u32
        };
        let sure = |sent: &[Sent]| sent.iter().filter(|sent| sent.planned.qos > 0).count() as u32;
        Verdict {
            seed: self.plan.seed,
            failure: None,
            elapsed: self.world.now().elapsed(),
            datagrams: self.world.trace.datagrams(),
            trace_hash: self.world.trace.hash(),
            sessions: connected(&|_| true),
            resumed: connected(&|connected| connected.resumed),
            early: connected(&|connected| connected.early_data_accepted),
            retries: self.world.server.retries() as u32,
            key_updates: count(&ClientEvent::KeysUpdated),
            paths_validated: count(&ClientEvent::PathValidated),
            packets_lost: self.world.client.stats().transport.packets_lost,
            published: sure(&self.sent_up),
            delivered: sure(&self.sent_down),
            held_back: self.world.server.service.held_back,
            filled: self.world.server.service.filled,
        }
    }
}

/// The topic of a message in a direction.
pub(super) fn topic(direction: &str, planned: &Planned) -> String {
    format!("{direction}/{}/{}", planned.slot, TOPICS[planned.topic])
}

fn qos(planned: Planned) -> Qos {
    Qos::from_bits(planned.qos).expect("0 to 2")
}

/// A payload that says what it is: direction, number, and filler that follows from both.
fn payload(direction: u8, number: u16, planned: &Planned) -> Vec<u8> {
    let mut payload = vec![direction, planned.slot as u8, planned.qos];
    payload.extend(number.to_be_bytes());
    payload.extend((0..planned.size).map(|index| (index as u16 ^ number) as u8));
    payload
}

/// The number in a payload, if it is one of `planned` and unharmed.
pub(super) fn recognise(direction: u8, payload_bytes: &[u8], sent: &[Sent]) -> Result<usize, String> {
    let number = match payload_bytes {
        [_, _, _, high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => return Err(format!("a payload of {} bytes that nobody sent", payload_bytes.len())),
    };
    let index = sent.iter().position(|sent| sent.number == number);
    let index = index.ok_or_else(|| format!("message {number}, which was not published"))?;
    if payload(direction, number, &sent[index].planned) != payload_bytes {
        return Err(format!("message {number} arrived altered"));
    }
    Ok(index)
}
