//! What the client costs: instructions and stack of each step of a session, counted on the board.
//!
//! The client alone, without IP stack and agent, built with the flags of the firmware that ships. The harness plays
//! its world: a TLS and QUIC server on a virtual clock (`harness cost`), which asks over the console for one call of
//! the client after the other. Instructions are counted around these calls only, so neither the console nor the
//! host's time is in the figures; they are exact under `-icount`.
//!
//! # Protocol
//! Both ways: a tag byte, a `u16` length, contents; integers big-endian. The program begins with an `R`: the size of
//! the client in bytes. Then requests, each answered up to a `W`, `R` or `!`:
//!
//! | tag | request |
//! |---|---|
//! | `H` | the world: wall clock at time 0 in seconds since 1970 (`u64`), seed (`u64`), then behind a `u16` length each the server's name, the trust anchor's subject and its public key info |
//! | `K` | measure X25519 on its own: share, then agreement |
//! | `V` | measure a P-256 verification on its own: key (65 bytes), `u16` length and signature, message |
//! | `A` | measure the sealing of a packet of 100 bytes on its own: 1 with AES-128-GCM, else with ChaCha20-Poly1305 |
//! | `C` | connect: time in microseconds (`u64`), then 1 if 0-RTT data may be sent, else 0 |
//! | `D` | a datagram arrives: time, datagram |
//! | `T` | a timer expires: time |
//! | `P` | publish: time, QoS, `u8` length and topic, payload |
//! | `X` | disconnect: time |
//! | `M` | end of a part of the session |
//!
//! | tag | answer |
//! |---|---|
//! | `S` | a datagram to be sent |
//! | `E` | an event: one byte, see [`event`] |
//! | `W` | the client waits: time, or nothing if for no time |
//! | `R` | figures, `u64` each: of `M` instructions, stack in bytes below the caller of the client, instructions for handshake packets and for tickets after the handshake's completion (`ledger.rs`), then for each phase that was reached its event and the instructions up to there; of `K`, `V` and `A` instructions; of `H` nothing |
//! | `!` | the request was not understood or not taken: why, as text |
#![no_std]
#![no_main]

// The board's own modules; this binary needs but a part of each.
#[expect(dead_code, reason = "no sleep and no clock of its own")]
#[path = "../clock.rs"]
mod clock;
#[path = "cost/ledger.rs"]
mod ledger;
#[expect(dead_code, reason = "the stack's marks only")]
#[path = "../memory.rs"]
mod memory;
#[expect(dead_code, reason = "neither NIC nor interrupts")]
#[path = "../mmio.rs"]
mod mmio;
#[path = "../once.rs"]
mod once;
#[expect(dead_code, reason = "no reset of its own")]
#[path = "../power.rs"]
mod power;
#[path = "../shorter.rs"]
mod shorter;
#[path = "../trap.rs"]
mod trap;
#[path = "../uart.rs"]
mod uart;

use core::hint::black_box;

use device::client::{
    Client, Config, Context, DatagramBuffer, EarlyData, Event, Output, Phase, Policy, Publication,
};
use device::codec::{DecodeError, Reader};
use device::crypto::key_exchange::{NamedGroup, PrivateKey, SHARE_LEN_MAX};
use device::crypto::{AeadKey, CipherSuite, Crypto, Software, signature};
use device::entropy::Entropy;
use device::mqtt::{Options, Qos};
use device::time::Instant;
use device::{quic, tls};
use pki_types::{Der, TrustAnchor};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use ledger::Ledger;
use once::Once;

/// Longest request: a datagram and its time.
const REQUEST_LEN_MAX: usize = 1600;
/// Phases between two marks: a connection has seven.
const PHASES_MAX: usize = 8;
/// Of the DER a certificate's name and key are, at most.
const DER_LEN_MAX: usize = 256;

static CLIENT: Once<Client<Ledger>> = Once::new();
static WORLD: Once<World> = Once::new();
static REQUEST: Once<[u8; REQUEST_LEN_MAX]> = Once::new();
static DATAGRAM: Once<DatagramBuffer> = Once::new();

#[riscv_rt::entry]
fn main() -> ! {
    memory::init();
    uart::init();
    let client = client();
    let world = WORLD.fill(World::new());
    let request = REQUEST.fill([0; REQUEST_LEN_MAX]);
    let mut count = Count::new(DATAGRAM.fill([0; size_of::<DatagramBuffer>()]));
    // Ready: what came before the console was set up is lost.
    send_figure(Client::<Ledger>::BYTES as u64);
    memory::repaint();
    loop {
        let (tag, len) = receive(request);
        if let Err(refused) = count.answer(client, world, tag, &request[..len]) {
            send(b'!', &[refused.0.as_bytes()]);
        }
    }
}

/// Out of line, so that the client's way into its place leaves the stack.
#[inline(never)]
fn client() -> &'static mut Client<Ledger> {
    CLIENT.fill(Client::new())
}

/// Takes in a request: its tag, and the length of its contents.
#[inline(never)]
fn receive(contents: &mut [u8; REQUEST_LEN_MAX]) -> (u8, usize) {
    let byte = || loop {
        if let Some(byte) = uart::read() {
            return byte;
        }
    };
    let tag = byte();
    let len = usize::from(u16::from_be_bytes([byte(), byte()]));
    contents[..len].iter_mut().for_each(|slot| *slot = byte());
    (tag, len)
}

/// Sends an answer.
#[inline(never)]
fn send(tag: u8, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let put = |byte| while !uart::try_write(byte) {};
    put(tag);
    (len as u16).to_be_bytes().into_iter().for_each(put);
    parts.iter().copied().flatten().copied().for_each(put);
}

fn send_figure(figure: u64) {
    send(b'R', &[&figure.to_be_bytes()]);
}

/// Why a request was not taken.
struct Refused(&'static str);

impl From<DecodeError> for Refused {
    fn from(error: DecodeError) -> Self {
        Self(error.field)
    }
}

/// Randomness that replays.
struct Seeded(ChaCha20Rng);

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

/// What the client is told about the server and the time.
struct World {
    unix_s: u64,
    entropy: Seeded,
    server_name: heapless::String<64>,
    subject: heapless::Vec<u8, DER_LEN_MAX>,
    public_key: heapless::Vec<u8, DER_LEN_MAX>,
    early_data: EarlyData,
}

impl World {
    fn new() -> Self {
        Self {
            unix_s: 0,
            entropy: Seeded(ChaCha20Rng::from_seed([0; 32])),
            server_name: heapless::String::new(),
            subject: heapless::Vec::new(),
            public_key: heapless::Vec::new(),
            early_data: EarlyData::Never,
        }
    }

    fn read(&mut self, mut body: Reader<'_>) -> Result<(), Refused> {
        self.unix_s = body.u64("clock")?;
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&body.array::<8>("seed")?);
        self.entropy = Seeded(ChaCha20Rng::from_seed(seed));
        let too_long = |_| Refused("a name or key of the world is too long");
        let name = core::str::from_utf8(body.vec16("name")?).map_err(|_| Refused("name"))?;
        self.server_name = heapless::String::try_from(name).map_err(too_long)?;
        self.subject = heapless::Vec::from_slice(body.vec16("subject")?).map_err(too_long)?;
        self.public_key = heapless::Vec::from_slice(body.vec16("key")?).map_err(too_long)?;
        Ok(())
    }
}

/// X25519, both halves.
#[inline(never)]
fn exchange_keys(entropy: &mut dyn Entropy) {
    let mut share = [0; SHARE_LEN_MAX];
    let before = clock::instructions();
    let key = PrivateKey::generate(black_box(NamedGroup::X25519), entropy);
    let key = key.expect("any 32 bytes are an X25519 key");
    let len = key.share(&mut share);
    let shared = black_box(key.agree(black_box(&share[..len])));
    let after = clock::instructions();
    assert!(shared.is_some());
    send_figure(after - before);
}

/// A packet's encryption, its key's expansion included: a header of 10 bytes, 74 of frames, the tag.
#[inline(never)]
fn seal(is_aes: bool) {
    let suite = if is_aes { CipherSuite::Aes128GcmSha256 } else { CipherSuite::ChaCha20Poly1305Sha256 };
    let key = <Software as Crypto>::AeadKey::new(suite, &[1; 32][..suite.key_len()]);
    let mut packet = black_box([2; 100]);
    let (header, text) = packet.split_at_mut(10);
    let before = clock::instructions();
    key.seal(&[3; 12], header, text);
    let after = clock::instructions();
    black_box(packet);
    send_figure(after - before);
}

/// ECDSA P-256 with SHA-256, as certificates and CertificateVerify are checked.
#[inline(never)]
fn verify(mut body: Reader<'_>) -> Result<(), Refused> {
    let key = body.take(65, "key")?;
    let signature = body.vec16("signature")?;
    let before = clock::instructions();
    let verified = signature::FOR_CERTIFICATES[0].verify_signature(key, black_box(body.rest()), signature);
    let after = clock::instructions();
    verified.map_err(|_| Refused("a wrong signature"))?;
    send_figure(after - before);
    Ok(())
}

/// What is counted between two marks.
struct Count {
    instructions: u64,
    /// Of these, for handshake packets since the handshake is complete; and for the keys of tickets.
    handshake: u64,
    tickets: u64,
    phases: heapless::Vec<(u8, u64), PHASES_MAX>,
    /// The lower end of the frame from which the client is called.
    frame: usize,
    datagram: &'static mut DatagramBuffer,
}

impl Count {
    fn new(datagram: &'static mut DatagramBuffer) -> Self {
        Self { instructions: 0, handshake: 0, tickets: 0, phases: heapless::Vec::new(), frame: 0, datagram }
    }

    fn answer(
        &mut self,
        client: &mut Client<Ledger>,
        world: &mut World,
        tag: u8,
        contents: &[u8],
    ) -> Result<(), Refused> {
        let body = Reader::new(contents);
        match tag {
            b'H' => {
                world.read(body)?;
                send(b'R', &[]);
            }
            b'K' => exchange_keys(&mut world.entropy),
            b'V' => verify(body)?,
            b'A' => seal(contents == [1]),
            b'M' => self.mark(),
            _ => self.step(client, world, tag, body)?,
        }
        Ok(())
    }

    /// One call of the client, and what it wants done.
    #[inline(never)]
    fn step(
        &mut self,
        client: &mut Client<Ledger>,
        world: &mut World,
        tag: u8,
        mut body: Reader<'_>,
    ) -> Result<(), Refused> {
        self.frame = memory::stack_pointer();
        let now = body.u64("time")?;
        if tag == b'C' {
            let early = body.u8("early data")? == 1;
            world.early_data = if early { EarlyData::IfPossible } else { EarlyData::Never };
        }
        let anchors = [TrustAnchor {
            subject: Der::from_slice(&world.subject),
            subject_public_key_info: Der::from_slice(&world.public_key),
            name_constraints: None,
        }];
        let config = Config {
            tls: tls::Config::new(&anchors, &world.server_name, b"mqtt", world.unix_s + now / 1_000_000),
            quic: quic::Config::new(),
            mqtt: Options::new("device-0001"),
            policy: Policy { early_data: world.early_data, ..Policy::DEFAULT },
        };
        let ctx =
            &mut Context { now: Instant::from_micros(now), config: &config, entropy: &mut world.entropy };
        let (before, was_complete) = (self.instructions, self.has_reached(b'c'));
        self.call(client, ctx, tag, body)?;
        self.drain(client, ctx);
        let [handshake, tickets] = ledger::take();
        self.tickets += tickets;
        // What the server sends between its Finished and CONNACK, it sends before it has CONNECT, or for the handshake.
        self.handshake += if tag == b'D' && was_complete && !self.has_reached(b'C') {
            self.instructions - before - tickets
        } else {
            handshake
        };
        Ok(())
    }

    fn has_reached(&self, event: u8) -> bool {
        self.phases.iter().any(|&(reached, _)| reached == event)
    }

    fn call(
        &mut self,
        client: &mut Client<Ledger>,
        ctx: &mut Context<'_>,
        tag: u8,
        mut body: Reader<'_>,
    ) -> Result<(), Refused> {
        match tag {
            b'C' => self.counted(|_| client.connect(ctx)),
            b'X' => self.counted(|_| client.disconnect(ctx)),
            b'T' => self.counted(|_| client.handle_timeout(ctx)),
            b'D' => {
                let len = body.remaining();
                let room = self.datagram.get_mut(..len).ok_or(Refused("a datagram that is too long"))?;
                room.copy_from_slice(body.rest());
                self.counted(|datagram| client.handle_datagram(ctx, &mut datagram[..len]));
            }
            b'P' => {
                let qos = match body.u8("qos")? {
                    0 => Qos::AtMostOnce,
                    1 => Qos::AtLeastOnce,
                    _ => Qos::ExactlyOnce,
                };
                let topic = core::str::from_utf8(body.vec8("topic")?).map_err(|_| Refused("topic"))?;
                let publication = Publication { qos, ..Publication::new(topic, body.rest()) };
                let taken = self.counted(|_| client.publish(ctx, &publication));
                taken.map_err(|_| Refused("the client did not take the message"))?;
            }
            _ => return Err(Refused("an unknown request")),
        }
        Ok(())
    }

    fn drain(&mut self, client: &mut Client<Ledger>, ctx: &mut Context<'_>) {
        loop {
            let before = clock::instructions();
            ledger::enter(before);
            let output = client.poll_output(ctx, self.datagram);
            let after = clock::instructions();
            ledger::leave(after);
            self.instructions += after - before;
            match output {
                Output::Transmit(len) => send(b'S', &[&self.datagram[..len]]),
                Output::WaitUntil(None) => return send(b'W', &[]),
                Output::WaitUntil(Some(due)) => return send(b'W', &[&due.as_micros().to_be_bytes()]),
                Output::Event { event, .. } => {
                    let event = self::event(&event);
                    if event == b'c' {
                        // What came before is the handshake's anyway.
                        ledger::take();
                        (self.handshake, self.tickets) = (0, 0);
                    }
                    if event != b'?' {
                        // Room for all phases there are; one more would only be missing in the output.
                        let _ = self.phases.push((event, self.instructions));
                    }
                    send(b'E', &[&[event]]);
                }
            }
        }
    }

    #[inline(always)]
    fn counted<R>(&mut self, call: impl FnOnce(&mut DatagramBuffer) -> R) -> R {
        let before = clock::instructions();
        ledger::enter(before);
        let result = call(self.datagram);
        let after = clock::instructions();
        ledger::leave(after);
        self.instructions += after - before;
        result
    }

    /// Tells what the part that ends here has cost, and counts anew.
    #[inline(never)]
    fn mark(&mut self) {
        let lowest = memory::stack_range().end - memory::stack_high_water();
        let stack = self.frame.saturating_sub(lowest) as u64;
        let mut figures = heapless::Vec::<[u8; 8], { 4 + 2 * PHASES_MAX }>::new();
        let phases = self.phases.iter().flat_map(|&(event, instructions)| [u64::from(event), instructions]);
        figures.extend(
            [self.instructions, stack, self.handshake, self.tickets]
                .into_iter()
                .chain(phases)
                .map(u64::to_be_bytes),
        );
        send(b'R', &[figures.as_flattened()]);
        (self.instructions, self.handshake, self.tickets) = (0, 0, 0);
        self.phases.clear();
        memory::repaint();
    }
}

/// The byte that tells an event.
fn event(event: &Event<'_>) -> u8 {
    match event {
        Event::Phase(Phase::Started) => b's',
        Event::Phase(Phase::ServerHello) => b'h',
        Event::Phase(Phase::CertificateVerified) => b'v',
        Event::Phase(Phase::HandshakeComplete) => b'c',
        Event::Phase(Phase::HandshakeConfirmed) => b'f',
        Event::Phase(Phase::ConnectSent) => b'w',
        Event::Connected(_) => b'C',
        Event::Acknowledged { .. } => b'A',
        Event::Stopped => b'X',
        _ => b'?',
    }
}
