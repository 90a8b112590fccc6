//! Connection identifiers (RFC 9000 5.1).
//!
//! This client gives itself a zero-length identifier: it has one connection per socket, so an
//! identifier would only add bytes to every packet it receives. What is kept here are the
//! identifiers the server issued for itself: the one in use, spares for migration, and those still
//! to be retired.

use core::num::NonZeroU64;

use subtle::ConstantTimeEq;

use crate::codec::{DecodeError, Reader};

use super::error::{TransportCode, TransportError};

/// Longest connection identifier of QUIC v1 in bytes (RFC 9000 17.2).
pub const CID_LEN_MAX: usize = 20;
/// Length of a stateless reset token in bytes (RFC 9000 10.3).
pub const RESET_TOKEN_LEN: usize = 16;
/// Server identifiers kept at a time, and what `active_connection_id_limit` announces: the one in
/// use, one for a migration and one for the migration after that.
pub const REMOTE_CIDS_MAX: usize = 3;
/// Retirements not yet acknowledged. RFC 9000 5.1.2 asks for at least twice the active limit.
pub const RETIREMENTS_MAX: usize = 2 * REMOTE_CIDS_MAX + 2;

/// A connection identifier of zero to twenty bytes.
#[derive(Clone, Copy)]
pub struct ConnectionId {
    len: u8,
    bytes: [u8; CID_LEN_MAX],
}

impl ConnectionId {
    /// The zero-length identifier.
    pub const EMPTY: Self = Self { len: 0, bytes: [0; CID_LEN_MAX] };

    /// The identifier with these bytes, or `None` if there are more than [`CID_LEN_MAX`].
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut cid = Self::EMPTY;
        cid.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        cid.len = bytes.len() as u8;
        Some(cid)
    }

    /// Reads an identifier behind its one-byte length.
    ///
    /// # Errors
    /// Names `field` if it is cut short or longer than QUIC v1 allows.
    pub fn decode(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        Self::new(reader.vec8(field)?).ok_or(DecodeError { field })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Its length in bytes.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl PartialEq for ConnectionId {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for ConnectionId {}

impl core::fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A stateless reset token; compared in constant time only (RFC 9000 10.3.1).
#[derive(Clone, Copy)]
pub struct ResetToken(pub [u8; RESET_TOKEN_LEN]);

impl PartialEq for ResetToken {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for ResetToken {}

impl core::fmt::Debug for ResetToken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ResetToken(..)")
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    sequence: u64,
    cid: ConnectionId,
    token: Option<ResetToken>,
}

/// An identifier given back: the 62 bits of its sequence number, one that says whether the frame is in flight (if not, it
/// is to be sent, or sent again), and one that is set, so that an `Option` takes no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Retirement(NonZeroU64);

impl Retirement {
    const IN_FLIGHT: u64 = 2;

    const fn due(sequence: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(sequence << 2))
    }

    const fn sequence(self) -> u64 {
        self.0.get() >> 2
    }

    const fn is_in_flight(self) -> bool {
        self.0.get() & Self::IN_FLIGHT != 0
    }

    fn sent(self) -> Self {
        Self(self.0 | Self::IN_FLIGHT)
    }
}

/// The identifiers the server issued for itself.
#[derive(Debug)]
pub struct RemoteCids {
    active: Entry,
    spare: [Option<Entry>; REMOTE_CIDS_MAX - 1],
    retired_below: u64,
    retirements: [Option<Retirement>; RETIREMENTS_MAX],
}

impl RemoteCids {
    /// Starts with the random identifier of the first Initial (RFC 9000 7.2).
    pub const fn new(original: ConnectionId) -> Self {
        Self {
            active: Entry { sequence: 0, cid: original, token: None },
            spare: [None; REMOTE_CIDS_MAX - 1],
            retired_below: 0,
            retirements: [None; RETIREMENTS_MAX],
        }
    }

    /// The identifier to send to.
    pub const fn active(&self) -> &ConnectionId {
        &self.active.cid
    }

    /// The sequence number of the identifier in use.
    pub const fn active_sequence(&self) -> u64 {
        self.active.sequence
    }

    /// Replaces the identifier in use during the handshake: by that of a Retry, then by the one the
    /// server's first Initial chose.
    pub fn replace_initial(&mut self, cid: ConnectionId) {
        self.active = Entry { sequence: 0, cid, token: None };
    }

    /// The token of the transport parameters belongs to the identifier of the handshake.
    pub fn set_initial_token(&mut self, token: ResetToken) {
        self.active.token = Some(token);
    }

    /// How many identifiers for a migration are at hand.
    pub fn spares(&self) -> usize {
        self.spare.iter().flatten().count()
    }

    /// Whether `token` is that of the identifier in use, compared in constant time. Those of identifiers that were not
    /// used yet, or are used no more, count for nothing (RFC 9000 10.3.1).
    pub fn is_reset(&self, token: &[u8; RESET_TOKEN_LEN]) -> bool {
        self.active.token.as_ref().is_some_and(|known| known.0.ct_eq(token).into())
    }

    /// Takes in NEW_CONNECTION_ID (RFC 9000 19.15).
    ///
    /// # Errors
    /// `PROTOCOL_VIOLATION` for a contradiction to an earlier frame or a server with zero-length
    /// identifiers, `CONNECTION_ID_LIMIT_ERROR` for more than were allowed.
    pub fn on_new(
        &mut self,
        sequence: u64,
        retire_prior_to: u64,
        cid: ConnectionId,
        token: ResetToken,
    ) -> Result<(), TransportError> {
        if self.active.cid.is_empty() {
            return Err(TransportError::violation(
                "NEW_CONNECTION_ID from a peer with zero-length identifiers",
            ));
        }
        let known = core::iter::once(&self.active).chain(self.spare.iter().flatten());
        let mut duplicate = false;
        for entry in known {
            let same_sequence = entry.sequence == sequence;
            let same_cid = entry.cid == cid;
            let contradicts = same_sequence && entry.token.is_some_and(|known| known != token);
            if same_sequence != same_cid || contradicts {
                return Err(TransportError::violation("NEW_CONNECTION_ID contradicts an earlier one"));
            }
            duplicate |= same_sequence;
        }
        self.retire_below(retire_prior_to)?;
        if !duplicate {
            // One that was used before the active one, repeated by the network, must not come to life again; one
            // that is merely late is given back unused.
            if sequence < self.retired_below.max(self.active.sequence) {
                self.retire(sequence)?;
            } else if let Some(slot) = self.spare.iter_mut().find(|slot| slot.is_none()) {
                *slot = Some(Entry { sequence, cid, token: Some(token) });
            } else if self.active.sequence >= self.retired_below {
                return Err(TransportError::new(
                    TransportCode::CONNECTION_ID_LIMIT_ERROR,
                    "more connection identifiers than active_connection_id_limit",
                ));
            } else {
                self.retire(self.active.sequence)?;
                self.active = Entry { sequence, cid, token: Some(token) };
            }
        }
        self.leave_retired_active()
    }

    /// Moves on to a spare identifier and retires the one in use.
    ///
    /// Returns whether there was one (and room to remember the retirement).
    pub fn rotate(&mut self) -> bool {
        if self.spares() == 0 || self.retire(self.active.sequence).is_err() {
            return false;
        }
        if let Some(next) = self.take_spare() {
            self.active = next;
        }
        true
    }

    /// The next sequence number to put into a RETIRE_CONNECTION_ID frame.
    pub fn next_retirement(&self) -> Option<u64> {
        let due = self.retirements.iter().flatten().find(|retirement| !retirement.is_in_flight());
        due.map(|retirement| retirement.sequence())
    }

    /// RETIRE_CONNECTION_ID for `sequence` was sent.
    pub fn on_retirement_sent(&mut self, sequence: u64) {
        let due = Retirement::due(sequence);
        if let Some(slot) = self.retirements.iter_mut().flatten().find(|slot| **slot == due) {
            *slot = due.sent();
        }
    }

    /// RETIRE_CONNECTION_ID for `sequence` was acknowledged.
    ///
    /// Here and in [`Self::on_retirement_lost`] the low half of the number will do: fewer than
    /// [`RETIREMENTS_MAX`] are under way.
    pub fn on_retirement_acked(&mut self, sequence: u16) {
        if let Some(slot) = self.in_flight(sequence) {
            *slot = None;
        }
    }

    /// RETIRE_CONNECTION_ID for `sequence` was lost.
    pub fn on_retirement_lost(&mut self, sequence: u16) {
        if let Some(Some(slot)) = self.in_flight(sequence) {
            *slot = Retirement::due(slot.sequence());
        }
    }

    fn in_flight(&mut self, low: u16) -> Option<&mut Option<Retirement>> {
        let matches = |slot: Retirement| slot.is_in_flight() && slot.sequence() as u16 == low;
        self.retirements.iter_mut().find(|slot| slot.is_some_and(matches))
    }

    fn retire_below(&mut self, bound: u64) -> Result<(), TransportError> {
        if bound <= self.retired_below {
            return Ok(());
        }
        self.retired_below = bound;
        for index in 0..self.spare.len() {
            if let Some(entry) = self.spare[index].filter(|entry| entry.sequence < bound) {
                self.spare[index] = None;
                self.retire(entry.sequence)?;
            }
        }
        Ok(())
    }

    /// If the identifier in use was retired by the server, moves on to a spare one.
    fn leave_retired_active(&mut self) -> Result<(), TransportError> {
        if self.active.sequence >= self.retired_below {
            return Ok(());
        }
        self.retire(self.active.sequence)?;
        let Some(next) = self.take_spare() else {
            return Err(TransportError::violation("the server retired every connection identifier"));
        };
        self.active = next;
        Ok(())
    }

    /// The oldest spare identifier.
    fn take_spare(&mut self) -> Option<Entry> {
        let sequence = self.spare.iter().flatten().map(|entry| entry.sequence).min()?;
        let oldest = |slot: &&mut Option<Entry>| slot.as_ref().is_some_and(|e| e.sequence == sequence);
        self.spare.iter_mut().find(oldest)?.take()
    }

    fn retire(&mut self, sequence: u64) -> Result<(), TransportError> {
        if self.retirements.iter().flatten().any(|known| known.sequence() == sequence) {
            return Ok(());
        }
        let Some(slot) = self.retirements.iter_mut().find(|slot| slot.is_none()) else {
            return Err(TransportError::new(
                TransportCode::CONNECTION_ID_LIMIT_ERROR,
                "too many retired connection identifiers await acknowledgement",
            ));
        };
        *slot = Some(Retirement::due(sequence));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid(byte: u8) -> ConnectionId {
        ConnectionId::new(&[byte; 8]).expect("eight bytes")
    }

    fn token(byte: u8) -> ResetToken {
        ResetToken([byte; RESET_TOKEN_LEN])
    }

    fn with_spares() -> RemoteCids {
        let mut cids = RemoteCids::new(cid(0));
        cids.on_new(1, 0, cid(1), token(1)).expect("first spare");
        cids.on_new(2, 0, cid(2), token(2)).expect("second spare");
        cids
    }

    #[test]
    fn more_identifiers_than_announced_are_an_error() {
        let error = with_spares().on_new(3, 0, cid(3), token(3)).unwrap_err();
        assert_eq!(error.code, TransportCode::CONNECTION_ID_LIMIT_ERROR);
    }

    #[test]
    fn a_repeated_frame_changes_nothing() {
        let mut cids = with_spares();
        cids.on_new(2, 0, cid(2), token(2)).expect("a retransmission");
        assert_eq!(cids.spares(), 2);
    }

    #[test]
    fn one_sequence_number_with_two_identifiers_is_a_violation() {
        let error = with_spares().on_new(2, 0, cid(9), token(2)).unwrap_err();
        assert_eq!(error.code, TransportCode::PROTOCOL_VIOLATION);
        let error = with_spares().on_new(9, 0, cid(2), token(2)).unwrap_err();
        assert_eq!(error.code, TransportCode::PROTOCOL_VIOLATION);
        let error = with_spares().on_new(2, 0, cid(2), token(9)).unwrap_err();
        assert_eq!(error.code, TransportCode::PROTOCOL_VIOLATION);
    }

    #[test]
    fn retire_prior_to_moves_on_and_owes_retirements() {
        let mut cids = with_spares();
        cids.on_new(3, 2, cid(3), token(3)).expect("two go, one comes");
        assert_eq!(cids.active_sequence(), 2);
        let first = cids.next_retirement().expect("owed");
        cids.on_retirement_sent(first);
        let second = cids.next_retirement().expect("owed too");
        cids.on_retirement_sent(second);
        assert_eq!(cids.next_retirement(), None);
        let mut both = [first, second];
        both.sort_unstable();
        assert_eq!(both, [0, 1]);
        cids.on_retirement_lost(first as u16);
        assert_eq!(cids.next_retirement(), Some(first));
    }

    #[test]
    fn an_identifier_retired_on_arrival_is_answered() {
        let mut cids = with_spares();
        cids.on_new(4, 4, cid(4), token(4)).expect("all others go");
        cids.on_new(3, 0, cid(3), token(3)).expect("late and already retired");
        assert_eq!(cids.active_sequence(), 4);
        assert_eq!(cids.spares(), 0);
        assert_eq!(cids.retirements.iter().flatten().count(), 4);
    }

    #[test]
    fn a_flood_of_retirements_ends_the_connection() {
        let mut cids = RemoteCids::new(cid(0));
        let error = (1..=20)
            .find_map(|sequence| cids.on_new(sequence, sequence, cid(sequence as u8), token(1)).err())
            .expect("bounded");
        assert_eq!(error.code, TransportCode::CONNECTION_ID_LIMIT_ERROR);
    }

    #[test]
    fn rotation_takes_the_oldest_spare() {
        let mut cids = with_spares();
        assert!(cids.rotate());
        assert_eq!(cids.active(), &cid(1));
        assert_eq!(cids.next_retirement(), Some(0));
        assert!(cids.rotate());
        assert!(!cids.rotate());
    }

    #[test]
    fn an_identifier_left_behind_does_not_come_to_life_again_when_its_frame_is_repeated() {
        let mut cids = with_spares();
        assert!(cids.rotate() && cids.rotate());
        for sequence in [0, 1] {
            while let Some(retired) = cids.next_retirement() {
                cids.on_retirement_sent(retired);
                cids.on_retirement_acked(retired as u16);
            }
            cids.on_new(sequence, 0, cid(sequence as u8), token(sequence as u8)).unwrap();
            assert_eq!(cids.spares(), 0);
            assert_eq!(cids.next_retirement(), Some(sequence), "retired again");
        }
        assert_eq!(cids.active(), &cid(2));
    }

    #[test]
    fn the_reset_token_of_the_identifier_in_use_counts_and_no_other() {
        let mut cids = with_spares();
        cids.set_initial_token(token(7));
        let known = |cids: &RemoteCids| [7, 1, 2, 3].map(|byte: u8| cids.is_reset(&[byte; 16]));
        assert_eq!(known(&cids), [true, false, false, false]);
        assert!(cids.rotate());
        assert_eq!(known(&cids), [false, true, false, false]);
        assert!(cids.rotate());
        assert_eq!(known(&cids), [false, false, true, false]);
    }
}
