//! What the client costs in instructions, stack and bytes on RV32IMC, at the profile that ships.
//!
//! A simulated world whose client is a program on the emulated board (`device/boards/qemu/src/bin/cost.rs`): the
//! server is quinn-proto over rustls, the clock is virtual, and QEMU counts one per instruction (`-icount shift=0`).
//! Instructions are those between entry to and return from the client, so that neither console nor IP stack is in
//! them; stack is what lies below the client's caller.

mod remote;

use std::path::Path;
use std::time::Duration;

use device::client::EarlyData;
use device::crypto::CipherSuite;
use device::mqtt::Qos;
use link::LinkConfig;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SigningKey as _};
use simulate::identity::{Identity, SERVER_NAME};
use simulate::{Broker, Clock, Pair, Server, ServerOptions};

use remote::Remote;

/// Publications of each QoS; their costs differ a little with the acknowledgements under way.
const PUBLICATIONS: usize = 10;
/// Bytes of payload of each, as the C stack's figures were measured.
const PAYLOAD: [u8; 64] = [0x5a; 64];
/// Their topic.
const TOPIC: &str = "bench/0001";
/// One-way delay of the simulated link, in milliseconds.
const DELAY_MS: u64 = 10;
/// How long the broker thinks over CONNECT, so that HANDSHAKE_DONE, tickets and connection IDs have come before CONNACK and
/// their cost is not taken for CONNECT's: the C stack's figure was taken on a settled connection.
const CONNACK_DELAY: Duration = Duration::from_millis(50);
/// Virtual time that a part of the session may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Virtual time after which acknowledgements, tickets and path probes are over.
const SETTLE: Duration = Duration::from_millis(500);
/// Signatures verified on their own: the cost of one differs by some percent with its digits.
const SIGNATURES: usize = 8;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum CostError {
    /// The emulator does not run.
    #[error(transparent)]
    Board(#[from] crate::board::BoardError),
    /// The program on the board stopped answering, or refused.
    #[error("the measuring program on the board: {0}")]
    Program(String),
    /// The session did not get through one of its parts.
    #[error("the session on the board did not get through `{0}` within {LIMIT:?} of virtual time")]
    Stuck(&'static str),
}

/// Everything measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    /// The client with the buffer that it is lent (`Client::BYTES`), in bytes.
    pub state: u64,
    /// X25519: share and agreement, in instructions.
    pub key_exchange: u64,
    /// One P-256 verification, mean of several, in instructions.
    pub verification: u64,
    /// Sealing a packet of 100 bytes, key expansion included, in instructions: ChaCha20-Poly1305, AES-128-GCM.
    pub sealing: [u64; 2],
    /// The session's parts, in order.
    pub parts: Vec<Part>,
}

/// A part of the session.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Part {
    /// `full`, `resumed`, `early`, `qos0`, `qos1`, `qos2`, `disconnect`; `settle` is what follows each.
    pub name: &'static str,
    /// Instructions within the client.
    pub instructions: u64,
    /// Stack below the client's caller, in bytes.
    pub stack: u64,
    /// Instructions for handshake packets, from the handshake's completion or else the part's begin.
    pub handshake_packets: u64,
    /// Instructions for the key of each ticket, from there as well.
    pub tickets: u64,
    /// Bytes of UDP payload that the client sent.
    pub bytes: u64,
    /// Datagrams that the client sent.
    pub datagrams: u64,
    /// Phases that were reached, each with the instructions up to it.
    pub phases: Vec<(Phase, u64)>,
}

/// What a connection took; the sum is the whole.
///
/// The client sends CONNECT beside its Finished in one call, and CONNACK may come beside HANDSHAKE_DONE and tickets. Where a packet begins and ends within a call, header protection tells (the board's `ledger.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connecting {
    /// From the first Initial to the server's Finished; after it, packets with a long header, and datagrams that came
    /// before the one with CONNACK, with what they led to.
    pub handshake: u64,
    /// Deriving the keys of tickets that came before CONNACK.
    pub tickets: u64,
    /// All else: CONNECT's building, sealing and sending, the receipt of the packet with CONNACK (whatever other frames
    /// it has), and an acknowledgement if one leaves with it.
    pub connect: u64,
}

/// A phase of connecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The first Initial is under way.
    Started,
    /// The ServerHello is handled.
    ServerHello,
    /// The server's certificate and its proof are verified.
    CertificateVerified,
    /// The server's Finished is verified.
    HandshakeComplete,
    /// HANDSHAKE_DONE came.
    HandshakeConfirmed,
    /// CONNECT is written.
    ConnectWritten,
    /// CONNACK came.
    Connected,
}

impl Phase {
    /// The phase's name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::ServerHello => "server_hello",
            Self::CertificateVerified => "certificate_verified",
            Self::HandshakeComplete => "handshake_complete",
            Self::HandshakeConfirmed => "handshake_confirmed",
            Self::ConnectWritten => "connect_written",
            Self::Connected => "connected",
        }
    }
}

impl Part {
    /// Instructions from the part's begin until `phase` was told.
    pub fn until(&self, phase: Phase) -> Option<u64> {
        self.phases.iter().find(|(reached, _)| *reached == phase).map(|&(_, instructions)| instructions)
    }
}

impl Costs {
    /// The parts of that name.
    pub fn parts(&self, name: &str) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(move |part| part.name == name)
    }

    /// The instructions of the first part of that name, a connection, told apart; see [`Connecting`].
    pub fn connecting(&self, name: &str) -> Option<Connecting> {
        let part = self.parts(name).next()?;
        let complete = part.until(Phase::HandshakeComplete)?;
        part.until(Phase::Connected)?;
        let handshake = complete + part.handshake_packets;
        let connect = part.instructions.checked_sub(handshake + part.tickets)?;
        Some(Connecting { handshake, tickets: part.tickets, connect })
    }

    /// What the public-key operations of a full handshake with two certificates below the root take.
    pub const fn public_key_operations(&self) -> u64 {
        self.key_exchange + 3 * self.verification
    }

    /// The deepest stack of any part, in bytes.
    pub fn stack(&self) -> u64 {
        self.parts.iter().map(|part| part.stack).max().unwrap_or(0)
    }
}

/// Runs the session on the program `elf` and measures it.
///
/// # Errors
/// [`CostError`].
pub fn measure(elf: &Path, seed: u64) -> Result<Costs, CostError> {
    let identity = Identity::p256();
    let mut board = Remote::start(elf)?;
    let anchor = &identity.anchors[0];
    let state = board.introduce(
        Clock::START.unix_s(),
        seed,
        &[SERVER_NAME.as_bytes(), &anchor.subject, &anchor.subject_public_key_info],
    )?;
    let key_exchange = board.key_exchange()?;
    let sealing =
        [board.sealing(CipherSuite::ChaCha20Poly1305Sha256)?, board.sealing(CipherSuite::Aes128GcmSha256)?];
    let mut verification = 0;
    for number in 0..SIGNATURES {
        let message = [number as u8; 256];
        let (key, signature) = signature(&message);
        verification += board.verification(&key, &signature, &message)?;
    }

    let options = ServerOptions { identity, ..ServerOptions::default() };
    let path = link::Path { delay: Some(link::units::Time::from_millis(DELAY_MS)), ..Default::default() };
    let mut server = Server::new(options, seed, Broker::default());
    server.service.options.connack_delay = CONNACK_DELAY;
    let mut session =
        Session { pair: Pair::new(board, server, &LinkConfig::symmetric(path), seed), parts: Vec::new() };
    session.run()?;
    Ok(Costs {
        state,
        key_exchange,
        verification: verification / SIGNATURES as u64,
        sealing,
        parts: session.parts,
    })
}

struct Session {
    pair: Pair<Remote, Broker>,
    parts: Vec<Part>,
}

impl Session {
    fn run(&mut self) -> Result<(), CostError> {
        self.connect("full", EarlyData::Never)?;
        for (name, qos) in [("qos0", Qos::AtMostOnce), ("qos1", Qos::AtLeastOnce), ("qos2", Qos::ExactlyOnce)]
        {
            for _ in 0..PUBLICATIONS {
                self.publish(name, qos)?;
            }
        }
        self.disconnect()?;
        self.connect("resumed", EarlyData::Never)?;
        self.disconnect()?;
        self.connect("early", EarlyData::IfPossible)
    }

    fn connect(&mut self, name: &'static str, early_data: EarlyData) -> Result<(), CostError> {
        let wanted = self.pair.client.connections + 1;
        let now = self.pair.now();
        self.pair.client.connect(now, early_data);
        self.part(name, |client| client.connections == wanted)
    }

    fn disconnect(&mut self) -> Result<(), CostError> {
        let now = self.pair.now();
        self.pair.client.disconnect(now);
        self.part("disconnect", |client| client.is_stopped)
    }

    fn publish(&mut self, name: &'static str, qos: Qos) -> Result<(), CostError> {
        let wanted = self.pair.client.acknowledged + usize::from(qos != Qos::AtMostOnce);
        let now = self.pair.now();
        self.pair.client.publish(now, qos, TOPIC, &PAYLOAD);
        self.part(name, |client| client.acknowledged == wanted)
    }

    /// Runs until `done`, measures that, and lets what follows come to rest.
    fn part(&mut self, name: &'static str, done: impl Fn(&Remote) -> bool) -> Result<(), CostError> {
        let reached = self.pair.run_until(LIMIT, |pair| pair.client.has_failed() || done(&pair.client));
        let part = self.pair.client.mark(name)?;
        if !reached {
            return Err(CostError::Stuck(name));
        }
        self.parts.push(part);
        self.pair.run_for(SETTLE);
        let rest = self.pair.client.mark("settle")?;
        self.parts.push(rest);
        Ok(())
    }
}

/// A fresh P-256 key's public half, and its signature of `message` in DER.
fn signature(message: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("ring generates P-256 keys");
    let signature = pair.sign(message).expect("a P-256 key signs any message");
    (pair.der_bytes().to_vec(), signature)
}
