//! What a board tells the harness.

use serde::{Deserialize, Serialize};

use super::{Activity, BadMessage, Event, Hardware, Heap, Name, Radio, SAMPLES_MAX};

/// A message from the board.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "one at a time exists, and there is no heap to box it")]
pub enum Report {
    /// The board started. Always the first variant, so that a harness of any version can read it.
    Boot(Boot),
    /// The answer to the command with this number.
    Reply {
        /// The command's number.
        sequence: u32,
        /// What became of it.
        answer: Answer,
    },
    /// Something happened to the connection.
    Event {
        /// When.
        at_us: u64,
        /// What.
        event: Event,
    },
    /// What became of single messages.
    Samples(Samples),
    /// Memory in use.
    Memory(Memory),
    /// Counters since boot.
    Stats(Stats),
    /// The workload ended.
    WorkloadDone(WorkloadResult),
    /// Which board this is.
    Hardware(Hardware),
    /// The radio: when it joined or lost its network, and when asked.
    Radio(Radio),
    /// The heap.
    Heap(Heap),
    /// Where the time went.
    Activity(Activity),
    /// What something cost.
    Cost(Cost),
}

/// The board started.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Boot {
    /// [`PROTOCOL_VERSION`](super::PROTOCOL_VERSION) of the firmware.
    pub protocol: u16,
    /// Kind of board: `host`, `qemu`, `esp32c3`.
    pub board: Name,
    /// Firmware version.
    pub firmware: Name,
    /// Why it started.
    pub reset: ResetReason,
    /// When it was ready.
    pub at_us: u64,
}

/// Why a board started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ResetReason {
    /// Power came on, or a virtual board's process started.
    PowerOn,
    /// A reset line or the debugger.
    External,
    /// The firmware asked for it.
    Software,
    /// The firmware hung.
    Watchdog,
    /// The supply sagged.
    BrownOut,
    /// Not known.
    Unknown,
}

/// What became of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Carried out, or under way where an event tells the end.
    Done,
    /// Answer to a ping.
    Pong {
        /// The harness's clock, as it came.
        host_us: u64,
        /// The board's clock.
        device_us: u64,
    },
    /// Not carried out.
    Refused(Refusal),
}

/// Why a command was not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// The frame held no command of this protocol version.
    Unreadable,
    /// There are no settings yet.
    NotConfigured,
    /// There is no connection.
    NotConnected,
    /// There is a connection, or an attempt at one.
    Connected,
    /// A workload is running.
    Busy,
    /// Pieces of a blob came out of order.
    BlobOrder {
        /// The offset that is due.
        expected: u16,
    },
    /// The blob is larger than this board stores.
    BlobTooLarge {
        /// Its limit in bytes.
        limit: u16,
    },
    /// The trust anchor is missing or no certificate.
    BadTrustAnchor,
    /// The client certificate or its key is unusable.
    BadClientKey,
    /// A setting has a value that this board does not take.
    BadSetting,
    /// The payload size is outside the board's range.
    BadSize {
        /// Smallest, in bytes.
        min: u16,
        /// Largest, in bytes.
        max: u16,
    },
    /// No room in a queue right now.
    Full,
    /// This board or transport cannot do that.
    Unsupported,
}

/// What became of single messages, in order of their happening.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Samples {
    /// The run of `Published` and `Acked` samples.
    pub run: u32,
    /// The samples.
    pub samples: heapless::Vec<Sample, SAMPLES_MAX>,
}

/// What became of one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Sample {
    /// A workload message was handed to the client.
    Published {
        /// Its number in the run.
        sequence: u32,
        /// When it was due.
        intended_us: u64,
        /// When the client took it.
        accepted_us: u64,
    },
    /// The broker acknowledged it (QoS 1: PUBACK; QoS 2: PUBCOMP).
    Acked {
        /// Its number in the run.
        sequence: u32,
        /// When.
        at_us: u64,
    },
    /// The client or the broker gave the message up.
    Failed {
        /// Its number in the run.
        sequence: u32,
        /// When.
        at_us: u64,
        /// MQTT reason code; 0 when the connection was lost and the message with it.
        reason: u8,
    },
    /// A message arrived.
    Received {
        /// The run in its payload; 0 for a foreign payload.
        run: u32,
        /// The topic index in its payload.
        topic: u16,
        /// The number in its payload.
        sequence: u32,
        /// The intended time in its payload, by the sender's clock.
        intended_us: u64,
        /// When it arrived.
        at_us: u64,
        /// Payload size in bytes.
        size: u16,
        /// What the payload check said.
        verdict: Verdict,
    },
}

/// What the payload check said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Verdict {
    /// As it was sent.
    Intact,
    /// Not as it was sent; the fields reported are as read.
    Corrupt,
    /// No payload of a workload.
    Foreign,
}

/// Memory in use at a point of the run. What a board cannot measure is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// The point.
    pub phase: Phase,
    /// When.
    pub at_us: u64,
    /// Free heap in bytes.
    pub heap_free: Option<u32>,
    /// Least free heap since boot in bytes.
    pub heap_free_min: Option<u32>,
    /// Deepest stack use since boot in bytes.
    pub stack_max: Option<u32>,
    /// Deepest stack use since the last report, where the board paints it anew each time, in bytes.
    pub stack_phase_max: Option<u32>,
    /// Stack available in bytes.
    pub stack_size: Option<u32>,
    /// Static RAM (data and bss) in bytes.
    pub static_ram: Option<u32>,
    /// State of the client: QUIC, TLS and MQTT with all buffers, in bytes.
    pub client_bytes: u32,
    /// State of the IP stack with its buffers, in bytes.
    pub net_bytes: u32,
    /// State of the agent: control channel, workload, certificates, in bytes.
    pub agent_bytes: u32,
    /// Instructions retired since boot.
    pub instructions: Option<u64>,
    /// Cycles since boot.
    pub cycles: Option<u64>,
    /// Instructions (cycles, where there is no such counter) spent within the client since boot.
    pub client_instructions: Option<u64>,
}

/// A point of the run at which memory is reported.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// The board is ready.
    Boot,
    /// The interface has an address.
    NetworkUp,
    /// A connection attempt is about to start.
    ConnectStart,
    /// The client exists and its first packet is written.
    ClientReady,
    /// The handshake is complete.
    HandshakeComplete,
    /// CONNACK arrived.
    MqttConnected,
    /// The workload ended.
    WorkloadDone,
    /// The connection is over.
    Disconnected,
    /// A snapshot was asked for.
    Requested,
}

/// Counters since boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// When they were read.
    pub at_us: u64,
    /// Frames at the network interface.
    pub wire: WireStats,
    /// QUIC or TCP.
    pub transport: TransportStats,
    /// MQTT.
    pub mqtt: MqttStats,
    /// The console.
    pub console: ConsoleStats,
}

/// Frames at the network interface, Ethernet header included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WireStats {
    /// Frames sent.
    pub frames_sent: u32,
    /// Frames received.
    pub frames_received: u32,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// UDP datagrams dropped before the wire: the neighbour was not known, or there was no route.
    pub datagrams_unsent: u32,
    /// UDP datagrams received from somebody other than the broker, and dropped.
    pub datagrams_foreign: u32,
}

/// The transport, since its connection began; TCP leaves at zero what it does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TransportStats {
    /// Connections accepted by CONNACK after a full handshake, since boot.
    pub handshakes_full: u32,
    /// The same with a handshake resumed by ticket.
    pub handshakes_resumed: u32,
    /// The same with accepted early data.
    pub handshakes_early: u32,
    /// UDP datagrams sent.
    pub datagrams_sent: u32,
    /// UDP datagrams received.
    pub datagrams_received: u32,
    /// UDP or TCP payload bytes sent.
    pub bytes_sent: u64,
    /// UDP or TCP payload bytes received.
    pub bytes_received: u64,
    /// QUIC packets sent.
    pub packets_sent: u32,
    /// QUIC packets that authenticated.
    pub packets_received: u32,
    /// Packets declared lost.
    pub packets_lost: u32,
    /// Packets declared lost whose acknowledgement came after all.
    pub packets_spurious: u32,
    /// Packets that could not be used: not authentic, duplicate, malformed.
    pub packets_dropped: u32,
    /// Probe timeouts.
    pub pto_count: u32,
    /// Latest round-trip time in microseconds.
    pub rtt_latest_us: u32,
    /// Smoothed round-trip time in microseconds.
    pub rtt_smoothed_us: u32,
    /// Least round-trip time in microseconds.
    pub rtt_min_us: u32,
    /// Round-trip time variation in microseconds.
    pub rtt_variation_us: u32,
    /// Congestion window in bytes.
    pub congestion_window: u32,
    /// Bytes in flight.
    pub bytes_in_flight: u32,
    /// Key updates, either side's.
    pub key_updates: u32,
    /// Migrations done.
    pub migrations: u32,
    /// Most bytes that ever waited in one stream's send buffer.
    pub send_buffer_max: u32,
    /// Most bytes that ever waited in one stream's receive buffer.
    pub receive_buffer_max: u32,
    /// Most packets that were ever tracked as sent and unacknowledged.
    pub sent_packets_max: u32,
}

/// The MQTT session and the connection policy, since boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MqttStats {
    /// Connection attempts.
    pub attempts: u32,
    /// Sessions accepted by CONNACK.
    pub connects: u32,
    /// Times the client asked for another local port.
    pub migrations_wanted: u32,
    /// PUBLISH packets sent by quality of service, repetitions included.
    pub publishes_sent: [u32; 3],
    /// PUBLISH packets repeated after a reconnect.
    pub publishes_repeated: u32,
    /// Publications completed at QoS 1 and 2.
    pub acknowledged: u32,
    /// Messages delivered to the agent by quality of service.
    pub messages_received: [u32; 3],
    /// QoS 2 messages received again and not delivered again.
    pub duplicates_suppressed: u32,
    /// Messages skipped for their size.
    pub oversize_skipped: u32,
    /// Publications refused for want of room.
    pub refused_full: u32,
    /// PINGREQ packets sent.
    pub pings_sent: u32,
    /// Most bytes that were ever in the store of unacknowledged publications.
    pub store_bytes_max: u32,
    /// Most publications that were ever in it.
    pub store_count_max: u32,
}

/// The console.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ConsoleStats {
    /// Reports written.
    pub reports: u32,
    /// Reports that found no room and were dropped.
    pub reports_dropped: u32,
    /// Samples that found no room and were dropped.
    pub samples_dropped: u32,
    /// Damaged or unreadable frames received.
    pub frames_damaged: u32,
    /// Times the workload or the network had to wait for the console.
    pub pauses: u32,
}

/// What one occurrence of something cost within the client, IP stack and agent left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// Of what.
    pub operation: Operation,
    /// Instructions; cycles on a board that counts these.
    pub instructions: u64,
}

/// Something whose instructions are counted apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Operation {
    /// From the start of a QUIC connection to its first datagram.
    FirstFlight,
    /// From the start of a connection to the end of a full TLS handshake, and what it leaves over: all that arrives after it
    /// and before CONNACK, such as HANDSHAKE_DONE and tickets.
    HandshakeFull,
    /// The same with a ticket.
    HandshakeResumed,
    /// The same with a ticket and accepted 0-RTT data, CONNECT included.
    HandshakeEarly,
    /// From the end of the handshake (TCP: from the established connection) until something arrives, and CONNACK's receipt.
    /// The client's Finished, which leaves with CONNECT, is counted here.
    Connect,
    /// A PUBLISH of QoS 0 until nothing of it is left to be sent.
    PublishQos0,
    /// A PUBLISH of QoS 1 until its PUBACK is taken in.
    PublishQos1,
    /// A PUBLISH of QoS 2 until its PUBCOMP is taken in.
    PublishQos2,
    /// From a message's arrival at the client until the agent has it.
    Receive,
}

/// The end of a workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WorkloadResult {
    /// The run.
    pub run: u32,
    /// How it ended.
    pub end: WorkloadEnd,
    /// When the first message was due.
    pub started_us: u64,
    /// When it ended.
    pub ended_us: u64,
    /// Messages that were due.
    pub due: u32,
    /// Messages the client took.
    pub accepted: u32,
    /// Messages acknowledged (QoS 1 and 2).
    pub acked: u32,
    /// Messages given up.
    pub failed: u32,
    /// Messages taken later than due by more than a millisecond.
    pub late: u32,
    /// Times the client had no room for a message that was due.
    pub full: u32,
}

/// How a workload ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WorkloadEnd {
    /// All messages were accepted and, for QoS 1 and 2, acknowledged.
    Complete,
    /// Acknowledgements were missing when the drain time was over.
    Unacknowledged,
    /// The harness ended it.
    Stopped,
    /// The connection ended for good.
    Disconnected,
}

impl Report {
    /// Encodes into `out` and returns the encoded part.
    ///
    /// # Errors
    /// [`BadMessage`] when `out` is too small; [`MESSAGE_MAX`](super::MESSAGE_MAX) bytes hold any report.
    pub fn encode<'a>(&self, out: &'a mut [u8]) -> Result<&'a mut [u8], BadMessage> {
        postcard::to_slice(self, out).map_err(|_| BadMessage)
    }

    /// Decodes the content of a frame.
    ///
    /// # Errors
    /// [`BadMessage`] when it is no report of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadMessage> {
        super::decode_all(bytes)
    }
}
