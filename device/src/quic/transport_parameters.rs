//! Transport parameters (RFC 9000 18): what each end permits the other.
//!
//! ```text
//! { id | length | value } *
//! ```

use crate::codec::{NoSpace, Reader, Writer, varint_len};
use crate::time::Duration;

use super::cid::{ConnectionId, RESET_TOKEN_LEN, ResetToken};
use super::error::{TransportCode, TransportError};

mod id {
    pub(super) const ORIGINAL_DESTINATION_CONNECTION_ID: u64 = 0x00;
    pub(super) const MAX_IDLE_TIMEOUT: u64 = 0x01;
    pub(super) const STATELESS_RESET_TOKEN: u64 = 0x02;
    pub(super) const MAX_UDP_PAYLOAD_SIZE: u64 = 0x03;
    pub(super) const INITIAL_MAX_DATA: u64 = 0x04;
    pub(super) const INITIAL_MAX_STREAM_DATA_BIDI_LOCAL: u64 = 0x05;
    pub(super) const INITIAL_MAX_STREAM_DATA_BIDI_REMOTE: u64 = 0x06;
    pub(super) const INITIAL_MAX_STREAM_DATA_UNI: u64 = 0x07;
    pub(super) const INITIAL_MAX_STREAMS_BIDI: u64 = 0x08;
    pub(super) const INITIAL_MAX_STREAMS_UNI: u64 = 0x09;
    pub(super) const ACK_DELAY_EXPONENT: u64 = 0x0a;
    pub(super) const MAX_ACK_DELAY: u64 = 0x0b;
    pub(super) const DISABLE_ACTIVE_MIGRATION: u64 = 0x0c;
    pub(super) const PREFERRED_ADDRESS: u64 = 0x0d;
    pub(super) const ACTIVE_CONNECTION_ID_LIMIT: u64 = 0x0e;
    pub(super) const INITIAL_SOURCE_CONNECTION_ID: u64 = 0x0f;
    pub(super) const RETRY_SOURCE_CONNECTION_ID: u64 = 0x10;
    pub(super) const KNOWN: u64 = 0x11;
    /// The first reserved identifier is 27 (RFC 9000 18.1); others follow every 31.
    pub(super) const RESERVED_FIRST: u64 = 27;
    pub(super) const RESERVED_STEP: u64 = 31;
}

/// The largest exponent that may be announced (RFC 9000 18.2).
const ACK_DELAY_EXPONENT_MAX: u64 = 20;
/// The announced delay stays below this, in milliseconds (RFC 9000 18.2).
const MAX_ACK_DELAY_END_MS: u64 = 1 << 14;
/// IPv4 and IPv6 address and port of a preferred address.
const PREFERRED_ADDRESS_LEN: usize = 4 + 2 + 16 + 2;

/// What this client announces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalParameters {
    /// Idle timeout in milliseconds; 0 for none.
    pub max_idle_timeout_ms: u64,
    /// Largest datagram taken in.
    pub max_udp_payload_size: u16,
    /// Connection-wide receive window.
    pub initial_max_data: u64,
    /// Receive window of each stream, whoever opens it.
    pub initial_max_stream_data: u64,
    /// Bidirectional streams the server may open.
    pub initial_max_streams_bidi: u64,
    /// How long an acknowledgement may wait.
    pub max_ack_delay_ms: u64,
    /// Server identifiers kept.
    pub active_connection_id_limit: u64,
    /// A random number that chooses a reserved parameter to send, if any.
    pub grease: Option<u32>,
}

impl LocalParameters {
    /// Room for every parameter at its longest.
    pub const LEN_MAX: usize = 96;

    /// Writes the parameters.
    ///
    /// # Errors
    /// [`NoSpace`] if `w` has less than [`Self::LEN_MAX`] bytes.
    pub fn encode(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        let numbers = [
            (id::MAX_IDLE_TIMEOUT, self.max_idle_timeout_ms),
            (id::MAX_UDP_PAYLOAD_SIZE, u64::from(self.max_udp_payload_size)),
            (id::INITIAL_MAX_DATA, self.initial_max_data),
            (id::INITIAL_MAX_STREAM_DATA_BIDI_LOCAL, self.initial_max_stream_data),
            (id::INITIAL_MAX_STREAM_DATA_BIDI_REMOTE, self.initial_max_stream_data),
            (id::INITIAL_MAX_STREAMS_BIDI, self.initial_max_streams_bidi),
            (id::MAX_ACK_DELAY, self.max_ack_delay_ms),
            (id::ACTIVE_CONNECTION_ID_LIMIT, self.active_connection_id_limit),
        ];
        for (id, value) in numbers {
            if value > 0 {
                w.varint(id)?;
                w.varint(varint_len(value) as u64)?;
                w.varint(value)?;
            }
        }
        // The client's own identifier has no bytes.
        w.varint(id::INITIAL_SOURCE_CONNECTION_ID)?;
        w.varint(0)?;
        if let Some(random) = self.grease {
            w.varint(id::RESERVED_FIRST + id::RESERVED_STEP * u64::from(random >> 8))?;
            w.varint(1)?;
            w.u8(random as u8)?;
        }
        Ok(())
    }
}

/// The parameters that 0-RTT data of a later connection goes by (RFC 9000 7.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Connection-wide credit.
    pub max_data: u64,
    /// Credit of each stream the server opens.
    pub max_stream_data_bidi_local: u64,
    /// Credit of each stream this client opens.
    pub max_stream_data_bidi_remote: u64,
    /// Bidirectional streams this client may open.
    pub max_streams_bidi: u64,
}

impl Limits {
    /// Nothing is permitted.
    pub const NONE: Self = Self {
        max_data: 0,
        max_stream_data_bidi_local: 0,
        max_stream_data_bidi_remote: 0,
        max_streams_bidi: 0,
    };
    /// Bytes of the longest encoding.
    pub const LEN_MAX: usize = 4 * 8;

    /// Writes the limits for the next connection to remember.
    ///
    /// # Errors
    /// [`NoSpace`] if `w` has less than [`Self::LEN_MAX`] bytes.
    pub fn encode(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        w.varint(self.max_data)?;
        w.varint(self.max_stream_data_bidi_local)?;
        w.varint(self.max_stream_data_bidi_remote)?;
        w.varint(self.max_streams_bidi)
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let limits = Self {
            max_data: r.varint("limits.max_data").ok()?,
            max_stream_data_bidi_local: r.varint("limits.max_stream_data_bidi_local").ok()?,
            max_stream_data_bidi_remote: r.varint("limits.max_stream_data_bidi_remote").ok()?,
            max_streams_bidi: r.varint("limits.max_streams_bidi").ok()?,
        };
        r.is_empty().then_some(limits)
    }

    /// Whether a server that accepted 0-RTT keeps what it had promised (RFC 9000 7.4.1).
    pub const fn covers(&self, remembered: &Self) -> bool {
        self.max_data >= remembered.max_data
            && self.max_stream_data_bidi_local >= remembered.max_stream_data_bidi_local
            && self.max_stream_data_bidi_remote >= remembered.max_stream_data_bidi_remote
            && self.max_streams_bidi >= remembered.max_streams_bidi
    }
}

/// What the server announces, as far as this client goes by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerParameters {
    /// The identifier this client's first Initial went to.
    pub original_destination: Option<ConnectionId>,
    /// The identifier of the server's own Initial.
    pub initial_source: Option<ConnectionId>,
    /// The identifier of its Retry.
    pub retry_source: Option<ConnectionId>,
    /// Resets connections with the identifier of the handshake.
    pub reset_token: Option<ResetToken>,
    /// An identifier of a preferred address, sequence number 1; the address itself is not used.
    pub preferred: Option<(ConnectionId, ResetToken)>,
    /// Idle timeout; zero for none.
    pub max_idle_timeout: Duration,
    /// Largest datagram the server takes in.
    pub max_udp_payload_size: u16,
    /// Credit.
    pub limits: Limits,
    /// Scale of the delay in ACK frames.
    pub ack_delay_exponent: u8,
    /// How long its acknowledgements may wait.
    pub max_ack_delay: Duration,
    /// Whether the server wants this client to stay on its address.
    pub migration: Migration,
}

/// Whether a client may move to another address on its own account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Migration {
    /// It may.
    Allowed,
    /// `disable_active_migration` was sent.
    Disabled,
}

impl Default for PeerParameters {
    fn default() -> Self {
        Self {
            original_destination: None,
            initial_source: None,
            retry_source: None,
            reset_token: None,
            preferred: None,
            max_idle_timeout: Duration::ZERO,
            max_udp_payload_size: u16::MAX,
            limits: Limits::default(),
            ack_delay_exponent: 3,
            max_ack_delay: Duration::from_millis(25),
            migration: Migration::Allowed,
        }
    }
}

impl PeerParameters {
    /// Reads and checks a server's parameters.
    ///
    /// # Errors
    /// `TRANSPORT_PARAMETER_ERROR` for malformed, duplicate or out-of-range ones.
    pub fn decode(bytes: &[u8]) -> Result<Self, TransportError> {
        let mut parameters = Self::default();
        let mut seen = 0_u32;
        let mut r = Reader::new(bytes);
        while !r.is_empty() {
            let id = r.varint("transport_parameter.id").map_err(malformed)?;
            let value = r.varint_vec("transport_parameter.value").map_err(malformed)?;
            if id >= id::KNOWN {
                continue;
            }
            if seen & 1 << id != 0 {
                return Err(invalid("a transport parameter occurs twice"));
            }
            seen |= 1 << id;
            parameters.take(id, value)?;
        }
        Ok(parameters)
    }

    /// Checks the identifiers that the handshake has authenticated (RFC 9000 7.3).
    ///
    /// # Errors
    /// `TRANSPORT_PARAMETER_ERROR` if one is absent, different, or present without its cause.
    pub fn check_connection_ids(
        &self,
        original: &ConnectionId,
        initial_source: &ConnectionId,
        retry_source: Option<&ConnectionId>,
    ) -> Result<(), TransportError> {
        if self.original_destination.as_ref() != Some(original) {
            return Err(invalid(
                "original_destination_connection_id is absent or not that of the first Initial",
            ));
        }
        if self.initial_source.as_ref() != Some(initial_source) {
            return Err(invalid(
                "initial_source_connection_id is absent or not that of the server's Initial",
            ));
        }
        if self.retry_source.as_ref() != retry_source {
            return Err(invalid("retry_source_connection_id does not fit the Retry, or the lack of one"));
        }
        if initial_source.is_empty() && self.preferred.is_some() {
            return Err(invalid("preferred_address of a server with zero-length identifiers"));
        }
        Ok(())
    }

    fn take(&mut self, id: u64, value: &[u8]) -> Result<(), TransportError> {
        match id {
            id::ORIGINAL_DESTINATION_CONNECTION_ID => self.original_destination = Some(cid(value)?),
            id::INITIAL_SOURCE_CONNECTION_ID => self.initial_source = Some(cid(value)?),
            id::RETRY_SOURCE_CONNECTION_ID => self.retry_source = Some(cid(value)?),
            id::STATELESS_RESET_TOKEN => self.reset_token = Some(reset_token(value)?),
            id::PREFERRED_ADDRESS => self.preferred = Some(preferred_address(value)?),
            id::DISABLE_ACTIVE_MIGRATION if value.is_empty() => self.migration = Migration::Disabled,
            id::DISABLE_ACTIVE_MIGRATION => return Err(invalid("disable_active_migration has a value")),
            _ => self.take_number(id, value)?,
        }
        Ok(())
    }

    fn take_number(&mut self, id: u64, value: &[u8]) -> Result<(), TransportError> {
        let mut r = Reader::new(value);
        let number = r.varint("transport_parameter.value").map_err(malformed)?;
        if !r.is_empty() {
            return Err(invalid("a transport parameter is longer than its number"));
        }
        let check = |allowed: bool, reason| if allowed { Ok(()) } else { Err(invalid(reason)) };
        match id {
            id::MAX_IDLE_TIMEOUT => self.max_idle_timeout = Duration::from_millis(number),
            id::MAX_UDP_PAYLOAD_SIZE => {
                check(number >= 1200, "max_udp_payload_size is below 1200")?;
                self.max_udp_payload_size = u16::try_from(number).unwrap_or(u16::MAX);
            }
            id::INITIAL_MAX_DATA => self.limits.max_data = number,
            id::INITIAL_MAX_STREAM_DATA_BIDI_LOCAL => self.limits.max_stream_data_bidi_local = number,
            id::INITIAL_MAX_STREAM_DATA_BIDI_REMOTE => self.limits.max_stream_data_bidi_remote = number,
            id::INITIAL_MAX_STREAMS_BIDI => {
                check(number <= 1 << 60, "initial_max_streams_bidi exceeds 2^60")?;
                self.limits.max_streams_bidi = number;
            }
            id::INITIAL_MAX_STREAMS_UNI => check(number <= 1 << 60, "initial_max_streams_uni exceeds 2^60")?,
            id::ACK_DELAY_EXPONENT => {
                check(number <= ACK_DELAY_EXPONENT_MAX, "ack_delay_exponent exceeds 20")?;
                self.ack_delay_exponent = number as u8;
            }
            id::MAX_ACK_DELAY => {
                check(number < MAX_ACK_DELAY_END_MS, "max_ack_delay is not below 2^14")?;
                self.max_ack_delay = Duration::from_millis(number);
            }
            id::ACTIVE_CONNECTION_ID_LIMIT => check(number >= 2, "active_connection_id_limit is below 2")?,
            // Unidirectional streams are never opened: their credit does not matter.
            id::INITIAL_MAX_STREAM_DATA_UNI => {}
            _ => {}
        }
        Ok(())
    }
}

fn cid(value: &[u8]) -> Result<ConnectionId, TransportError> {
    ConnectionId::new(value).ok_or(invalid("a connection identifier exceeds 20 bytes"))
}

fn reset_token(value: &[u8]) -> Result<ResetToken, TransportError> {
    let token: Result<[u8; RESET_TOKEN_LEN], _> = value.try_into();
    token.map(ResetToken).map_err(|_| invalid("a stateless reset token has not 16 bytes"))
}

fn preferred_address(value: &[u8]) -> Result<(ConnectionId, ResetToken), TransportError> {
    let mut r = Reader::new(value);
    r.take(PREFERRED_ADDRESS_LEN, "preferred_address.address").map_err(malformed)?;
    let cid = ConnectionId::decode(&mut r, "preferred_address.connection_id").map_err(malformed)?;
    let token = ResetToken(r.array("preferred_address.token").map_err(malformed)?);
    if cid.is_empty() || !r.is_empty() {
        return Err(invalid("preferred_address is malformed"));
    }
    Ok((cid, token))
}

fn malformed(error: crate::codec::DecodeError) -> TransportError {
    invalid(error.field)
}

const fn invalid(reason: &'static str) -> TransportError {
    TransportError::new(TransportCode::TRANSPORT_PARAMETER_ERROR, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::VARINT_MAX;

    fn parameter(id: u64, value: &[u8]) -> heapless::Vec<u8, 64> {
        let mut bytes = [0; 64];
        let mut w = Writer::new(&mut bytes);
        w.varint(id).expect("fits");
        w.varint(value.len() as u64).expect("fits");
        w.put(value).expect("fits");
        heapless::Vec::from_slice(w.written()).expect("fits")
    }

    fn refusal(bytes: &[u8]) -> &'static str {
        let error = PeerParameters::decode(bytes).expect_err("not acceptable");
        assert_eq!(error.code, TransportCode::TRANSPORT_PARAMETER_ERROR);
        error.reason
    }

    #[test]
    fn own_parameters_at_their_longest_fit() {
        let mut bytes = [0; LocalParameters::LEN_MAX];
        let local = LocalParameters {
            max_idle_timeout_ms: VARINT_MAX,
            max_udp_payload_size: u16::MAX,
            initial_max_data: VARINT_MAX,
            initial_max_stream_data: VARINT_MAX,
            initial_max_streams_bidi: 1 << 60,
            max_ack_delay_ms: MAX_ACK_DELAY_END_MS - 1,
            active_connection_id_limit: VARINT_MAX,
            grease: Some(u32::MAX),
        };
        let mut w = Writer::new(&mut bytes);
        local.encode(&mut w).expect("as announced");
        let peer = PeerParameters::decode(w.written()).expect("valid");
        assert_eq!(peer.initial_source, Some(ConnectionId::EMPTY));
        assert_eq!(peer.limits.max_data, VARINT_MAX);
        assert_eq!(peer.max_ack_delay, Duration::from_millis(16_383));
    }

    #[test]
    fn a_parameter_twice_is_refused() {
        let mut bytes = parameter(id::INITIAL_MAX_DATA, &[1]);
        bytes.extend_from_slice(&parameter(id::INITIAL_MAX_DATA, &[1])).expect("fits");
        assert_eq!(refusal(&bytes), "a transport parameter occurs twice");
    }

    #[test]
    fn values_out_of_range_are_refused() {
        refusal(&parameter(id::MAX_UDP_PAYLOAD_SIZE, &[0x44, 0xaf]));
        refusal(&parameter(id::ACK_DELAY_EXPONENT, &[21]));
        refusal(&parameter(id::MAX_ACK_DELAY, &[0x80, 0, 0x40, 0]));
        refusal(&parameter(id::ACTIVE_CONNECTION_ID_LIMIT, &[1]));
        refusal(&parameter(id::INITIAL_MAX_STREAMS_BIDI, &[0xd0, 0, 0, 0, 0, 0, 0, 1]));
        refusal(&parameter(id::INITIAL_MAX_STREAMS_UNI, &[0xd0, 0, 0, 0, 0, 0, 0, 1]));
        refusal(&parameter(id::DISABLE_ACTIVE_MIGRATION, &[0]));
        refusal(&parameter(id::STATELESS_RESET_TOKEN, &[0; 15]));
        refusal(&parameter(id::INITIAL_SOURCE_CONNECTION_ID, &[0; 21]));
        refusal(&parameter(id::INITIAL_MAX_DATA, &[1, 1]));
        refusal(&parameter(id::INITIAL_MAX_DATA, &[]));
        refusal(&parameter(id::PREFERRED_ADDRESS, &[0; 24 + 1 + 16]));
        refusal(&[0x04]);
        refusal(&[0x04, 2, 1]);
    }

    #[test]
    fn unknown_parameters_are_ignored() {
        let peer = PeerParameters::decode(&parameter(27, &[1, 2, 3])).expect("reserved");
        assert_eq!(peer, PeerParameters::default());
    }

    #[test]
    fn identifiers_must_be_those_of_the_handshake() {
        let cid = |byte| ConnectionId::new(&[byte; 4]).expect("four");
        let peer = PeerParameters {
            original_destination: Some(cid(1)),
            initial_source: Some(cid(2)),
            ..PeerParameters::default()
        };
        assert_eq!(peer.check_connection_ids(&cid(1), &cid(2), None), Ok(()));
        for (original, source, retry) in [(3, 2, None), (1, 3, None), (1, 2, Some(cid(4)))] {
            let error = peer.check_connection_ids(&cid(original), &cid(source), retry.as_ref()).unwrap_err();
            assert_eq!(error.code, TransportCode::TRANSPORT_PARAMETER_ERROR);
        }
        let with_retry = PeerParameters { retry_source: Some(cid(4)), ..peer };
        assert_eq!(with_retry.check_connection_ids(&cid(1), &cid(2), Some(&cid(4))), Ok(()));
        assert!(with_retry.check_connection_ids(&cid(1), &cid(2), None).is_err());
        let without = PeerParameters { original_destination: None, ..peer };
        assert!(without.check_connection_ids(&cid(1), &cid(2), None).is_err());
    }

    #[test]
    fn limits_for_early_data_round_trip() {
        let limits = Limits {
            max_data: 1 << 24,
            max_stream_data_bidi_local: 3,
            max_stream_data_bidi_remote: 65_536,
            max_streams_bidi: 10,
        };
        let mut bytes = [0; Limits::LEN_MAX];
        let mut w = Writer::new(&mut bytes);
        limits.encode(&mut w).expect("fits");
        assert_eq!(Limits::decode(w.written()), Some(limits));
        assert_eq!(Limits::decode(&[]), None);
        assert!(limits.covers(&limits) && !Limits::default().covers(&limits));
    }
}
