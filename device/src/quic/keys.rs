//! 1-RTT keys: key phases, updates from either end, and the limits of a key's use (RFC 9001 6).
//!
//! Beside the keys in use there is one more receiving key: the next one, derived ahead so that an update
//! takes no longer than any other packet (RFC 9001 9.5), or for three PTOs after an update the previous one.
//!
//! `KEY_UPDATE_ERROR` does not occur. Previous keys are never tried on packets that came after the update, so none of these is
//! processed with them (6.4): it is dropped. What a client may tolerate, it does: an update before the last one was
//! acknowledged (6.1), and an acknowledgement under older keys than what it acknowledges (6.2).

use crate::crypto::{BadTag, CipherSuite, Crypto, Secret, is_erased};
use crate::time::{Duration, Instant};
use crate::tls::{Transport, next_application_secret};

use super::packet::KEY_PHASE;
use super::protection::{HeaderProtection, PacketKey, Unprotected};

/// Packets left when a key nears its confidentiality limit and an update is begun.
const UPDATE_MARGIN: u64 = 1 << 16;
/// Probe timeouts that the previous key is kept for packets that were overtaken (RFC 9001 6.5).
const RETENTION_PTOS: u64 = 3;

/// Most packets one key may protect (RFC 9001 6.6).
const fn confidentiality_limit(suite: CipherSuite) -> u64 {
    match suite {
        CipherSuite::ChaCha20Poly1305Sha256 => u64::MAX,
        _ => 1 << 23,
    }
}

/// Most forged packets that may be tried over a connection (RFC 9001 6.6).
pub const fn integrity_limit(suite: CipherSuite) -> u64 {
    match suite {
        CipherSuite::ChaCha20Poly1305Sha256 => 1 << 36,
        _ => 1 << 52,
    }
}

/// What the spare receiving key is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Spare {
    /// The peer may update to it.
    Next,
    /// Packets from before the update may still come.
    Previous,
}

/// What opening a packet has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opened {
    /// Nothing.
    SamePhase,
    /// The peer has updated its keys, and this end with it.
    PeerUpdated,
}

/// Keys of the 1-RTT level.
pub struct OneRttKeys<C: Crypto> {
    suite: CipherSuite,
    phase: u8,
    local: PacketKey<C>,
    local_header: HeaderProtection<C>,
    local_secret: Secret,
    remote: PacketKey<C>,
    remote_header: HeaderProtection<C>,
    remote_secret: Secret,
    spare: PacketKey<C>,
    spare_is: Spare,
    /// When the previous key makes room for the next.
    discard_at: Option<Instant>,
    /// The first packet sent in this phase.
    first_sent: u64,
    /// The lowest packet received in this phase.
    first_received: Option<u64>,
    /// Whether a packet of this phase has been acknowledged: before, no update may be begun.
    acked: bool,
    sealed: u64,
    limit: u64,
}

impl<C: Crypto> OneRttKeys<C> {
    /// Keys of phase 0.
    ///
    /// `first_sent` is the number of the first packet they protect; those before it were 0-RTT packets.
    pub fn derive(suite: CipherSuite, local: Secret, remote: Secret, first_sent: u64) -> Self {
        let next = next_application_secret::<C>(Transport::Quic, suite, &remote);
        Self {
            suite,
            phase: 0,
            local: PacketKey::derive(suite, &local),
            local_header: HeaderProtection::derive(suite, &local),
            local_secret: local,
            remote: PacketKey::derive(suite, &remote),
            remote_header: HeaderProtection::derive(suite, &remote),
            remote_secret: remote,
            spare: PacketKey::derive(suite, &next),
            spare_is: Spare::Next,
            discard_at: None,
            first_sent,
            first_received: None,
            acked: false,
            sealed: 0,
            limit: confidentiality_limit(suite),
        }
    }

    /// The suite in use.
    pub const fn suite(&self) -> CipherSuite {
        self.suite
    }

    /// The key phase to send; its lowest bit goes into the header.
    pub const fn phase(&self) -> u8 {
        self.phase
    }

    /// What to send with.
    pub const fn local(&self) -> (&PacketKey<C>, &HeaderProtection<C>) {
        (&self.local, &self.local_header)
    }

    /// What uncovers received headers.
    pub const fn remote_header(&self) -> &HeaderProtection<C> {
        &self.remote_header
    }

    /// A packet was protected.
    pub const fn on_sealed(&mut self) {
        self.sealed += 1;
    }

    /// Whether the key must not protect another packet (RFC 9001 6.6).
    pub const fn is_exhausted(&self) -> bool {
        self.sealed >= self.limit
    }

    /// Whether it is time to update, for the cipher's sake or because `after` packets were asked for (0:
    /// never).
    pub const fn wants_update(&self, after: u32) -> bool {
        self.sealed >= self.limit.saturating_sub(UPDATE_MARGIN) || (after > 0 && self.sealed >= after as u64)
    }

    /// Decrypts a packet in place with the key its phase and number call for; returns the payload's length.
    ///
    /// # Errors
    /// [`BadTag`]: the packet is not from the peer.
    pub fn open(
        &mut self,
        now: Instant,
        pto: Duration,
        next_sent: u64,
        header: Unprotected,
        packet: &mut [u8],
    ) -> Result<(usize, Opened), BadTag> {
        let number = header.number;
        if (header.first & KEY_PHASE != 0) == (self.phase & 1 == 1) {
            let len = self.remote.open(number, packet, header.header_len)?;
            if self.first_received.is_none_or(|first| number < first) {
                self.note_first_received(now, pto, number);
            }
            return Ok((len, Opened::SamePhase));
        }
        if self.spare_is == Spare::Previous {
            if self.first_received.is_none_or(|first| number < first) {
                let len = self.spare.open(number, packet, header.header_len)?;
                return Ok((len, Opened::SamePhase));
            }
            // Before the packet has proven itself, as RFC 9001 6.3 has it: whoever guesses a number can forge this, so the
            // next key, once made, stays although the packet is dropped. A second forgery costs no derivation, then; the
            // first costs the previous key, which is kept for convenience only (6.5), and a signal of time (9.5) that no
            // peer evokes which waits for three PTOs between its updates, as 6.5 advises.
            self.prepare_next();
        }
        let len = self.spare.open(number, packet, header.header_len)?;
        self.advance(next_sent);
        self.note_first_received(now, pto, number);
        Ok((len, Opened::PeerUpdated))
    }

    /// Begins an update, if the rules permit one now (RFC 9001 6.1). The caller has checked that the
    /// handshake is confirmed.
    pub fn begin_update(&mut self, next_sent: u64) -> bool {
        if !self.acked || self.spare_is == Spare::Previous {
            return false;
        }
        self.advance(next_sent);
        true
    }

    /// The peer has acknowledged packets up to `largest`. Says whether one was protected with these keys.
    pub const fn on_acked(&mut self, largest: u64) -> bool {
        if largest >= self.first_sent {
            self.acked = true;
        }
        self.acked
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.discard_at
    }

    /// Discards the previous key when its time has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.discard_at.is_some_and(|at| at <= now) {
            self.prepare_next();
        }
    }

    /// Uses the key up.
    #[cfg(test)]
    pub(super) const fn exhaust(&mut self) {
        self.sealed = self.limit;
    }

    fn note_first_received(&mut self, now: Instant, pto: Duration, number: u64) {
        if self.first_received.is_none() && self.spare_is == Spare::Previous {
            self.discard_at = Some(now + pto.saturating_mul(RETENTION_PTOS));
        }
        self.first_received = Some(number);
    }

    /// Puts the next key into the place of the previous one.
    pub(super) fn prepare_next(&mut self) {
        let next = next_application_secret::<C>(Transport::Quic, self.suite, &self.remote_secret);
        self.spare = PacketKey::derive(self.suite, &next);
        self.spare_is = Spare::Next;
        self.discard_at = None;
    }

    /// Moves both directions to the next phase; the spare key is the next one.
    fn advance(&mut self, next_sent: u64) {
        self.remote_secret = next_application_secret::<C>(Transport::Quic, self.suite, &self.remote_secret);
        core::mem::swap(&mut self.remote, &mut self.spare);
        self.spare_is = Spare::Previous;
        self.local_secret = next_application_secret::<C>(Transport::Quic, self.suite, &self.local_secret);
        self.local = PacketKey::derive(self.suite, &self.local_secret);
        self.phase = self.phase.wrapping_add(1);
        self.first_sent = next_sent;
        self.first_received = None;
        self.acked = false;
        self.sealed = 0;
        self.discard_at = None;
    }
}

/// Keys and secrets are erased when others take their place, and with the connection.
const fn _erases<C: Crypto>(keys: &OneRttKeys<C>) {
    is_erased(&keys.local);
    is_erased(&keys.local_header);
    is_erased(&keys.local_secret);
    is_erased(&keys.remote);
    is_erased(&keys.remote_header);
    is_erased(&keys.remote_secret);
    is_erased(&keys.spare);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Software, TAG_LEN};
    use crate::quic::protection::protect;

    const SUITE: CipherSuite = CipherSuite::ChaCha20Poly1305Sha256;
    const PTO: Duration = Duration::from_millis(100);
    const NOW: Instant = Instant::from_micros(1_000_000);

    fn pair() -> (OneRttKeys<Software>, OneRttKeys<Software>) {
        let secret = |byte| Secret::from_slice(&[byte; 32]).expect("32 bytes");
        (
            OneRttKeys::derive(SUITE, secret(1), secret(2), 0),
            OneRttKeys::derive(SUITE, secret(2), secret(1), 0),
        )
    }

    fn send(from: &mut OneRttKeys<Software>, number: u64) -> [u8; 25] {
        let mut packet = [0; 25];
        packet[0] = 0x40 | if from.phase() & 1 == 1 { KEY_PHASE } else { 0 };
        packet[1] = number as u8;
        let (key, header) = from.local();
        protect(&mut packet, number, 1..2, key, header);
        from.on_sealed();
        packet
    }

    fn receive(to: &mut OneRttKeys<Software>, packet: &[u8; 25], now: Instant) -> Result<Opened, BadTag> {
        let mut packet = *packet;
        let header = to.remote_header().remove(&mut packet, 1, 0).expect("long enough");
        let (len, opened) = to.open(now, PTO, 100, header, &mut packet)?;
        assert_eq!(len, 25 - 2 - TAG_LEN);
        Ok(opened)
    }

    /// What a key makes of zeros.
    fn sealed(key: &PacketKey<Software>) -> [u8; 25] {
        let mut packet = [0; 25];
        let header = HeaderProtection::derive(SUITE, &Secret::zero(32));
        protect(&mut packet, 0, 1..2, key, &header);
        packet
    }

    #[test]
    fn the_peer_follows_an_update_and_old_packets_can_still_be_read() {
        let (mut a, mut b) = pair();
        let overtaken = send(&mut a, 0);
        assert_eq!(receive(&mut b, &send(&mut a, 1), NOW), Ok(Opened::SamePhase));
        a.on_acked(1);
        assert!(a.begin_update(2));
        assert_eq!(receive(&mut b, &send(&mut a, 2), NOW), Ok(Opened::PeerUpdated));
        assert_eq!(receive(&mut b, &overtaken, NOW), Ok(Opened::SamePhase));
        assert_eq!(receive(&mut a, &send(&mut b, 7), NOW), Ok(Opened::SamePhase));
        assert_eq!((a.phase(), b.phase()), (1, 1));
    }

    #[test]
    fn the_initiator_reads_packets_the_peer_sent_before_it_knew() {
        let (mut a, mut b) = pair();
        a.on_acked(0);
        let early = send(&mut b, 0);
        assert!(a.begin_update(1));
        assert_eq!(receive(&mut a, &early, NOW), Ok(Opened::SamePhase));
    }

    #[test]
    fn no_update_before_an_acknowledgement_or_while_the_last_one_settles() {
        let (mut a, mut b) = pair();
        assert!(!a.begin_update(0));
        a.on_acked(0);
        assert!(a.begin_update(1));
        assert!(!a.begin_update(2));
        receive(&mut b, &send(&mut a, 1), NOW).expect("update");
        receive(&mut a, &send(&mut b, 0), NOW).expect("response");
        a.on_acked(1);
        assert!(!a.begin_update(2), "the previous key is still kept");
        a.handle_timeout(NOW + PTO.saturating_mul(3));
        assert!(a.begin_update(2));
    }

    #[test]
    fn a_second_update_by_the_peer_is_followed_at_once() {
        let (mut a, mut b) = pair();
        a.on_acked(0);
        assert!(a.begin_update(1));
        assert_eq!(receive(&mut b, &send(&mut a, 1), NOW), Ok(Opened::PeerUpdated));
        a.on_acked(1);
        a.prepare_next();
        assert!(a.begin_update(2));
        assert_eq!(receive(&mut b, &send(&mut a, 2), NOW), Ok(Opened::PeerUpdated));
    }

    #[test]
    fn old_keys_on_packets_after_an_update_open_nothing() {
        let (mut a, mut b) = pair();
        let mut stale = pair().0;
        assert_eq!(receive(&mut b, &send(&mut a, 0), NOW), Ok(Opened::SamePhase));
        a.on_acked(0);
        assert!(a.begin_update(1));
        assert_eq!(receive(&mut b, &send(&mut a, 1), NOW), Ok(Opened::PeerUpdated));
        assert_eq!(receive(&mut b, &send(&mut stale, 2), NOW), Err(BadTag));
        assert_eq!(b.phase(), 1);
        assert_eq!(receive(&mut b, &send(&mut a, 3), NOW), Ok(Opened::SamePhase));
    }

    #[test]
    fn forged_packets_of_either_phase_change_nothing() {
        let (mut a, mut b) = pair();
        for flip in [0, KEY_PHASE] {
            let mut packet = send(&mut a, 3);
            packet[0] ^= flip;
            packet[24] ^= 1;
            assert_eq!(receive(&mut b, &packet, NOW), Err(BadTag));
        }
        assert_eq!(b.phase(), 0);
        assert_eq!(receive(&mut b, &send(&mut a, 4), NOW), Ok(Opened::SamePhase));
    }

    #[test]
    fn forged_updates_cost_the_previous_key_at_most_and_one_derivation() {
        let (mut a, mut b) = pair();
        let overtaken = send(&mut a, 0);
        assert_eq!(receive(&mut b, &send(&mut a, 1), NOW), Ok(Opened::SamePhase));
        a.on_acked(1);
        assert!(a.begin_update(2));
        assert_eq!(receive(&mut b, &send(&mut a, 2), NOW), Ok(Opened::PeerUpdated));
        assert_eq!(b.spare_is, Spare::Previous);
        let mut forged = send(&mut a, 9);
        forged[0] ^= KEY_PHASE;
        assert_eq!(receive(&mut b, &forged, NOW), Err(BadTag));
        assert_eq!((b.phase(), b.spare_is), (1, Spare::Next));
        // A mark that a second derivation would wipe out.
        b.spare = PacketKey::derive(SUITE, &Secret::from_slice(&[7; 32]).expect("32 bytes"));
        let marked = sealed(&b.spare);
        assert_eq!(receive(&mut b, &forged, NOW), Err(BadTag));
        assert_eq!(sealed(&b.spare), marked);
        assert_eq!(receive(&mut b, &overtaken, NOW), Err(BadTag), "its key is gone");
        assert_eq!(receive(&mut b, &send(&mut a, 10), NOW), Ok(Opened::SamePhase));
    }

    #[test]
    fn a_key_near_its_limit_wants_an_update_and_ends_at_the_limit() {
        let (mut a, _) = pair();
        a.limit = UPDATE_MARGIN + 2;
        assert!(!a.wants_update(0));
        a.on_sealed();
        a.on_sealed();
        assert!(a.wants_update(0) && !a.is_exhausted());
        a.sealed = a.limit;
        assert!(a.is_exhausted());
    }

    #[test]
    fn an_update_can_be_asked_for_after_a_number_of_packets() {
        let (mut a, _) = pair();
        (0..10).for_each(|_| a.on_sealed());
        assert!(a.wants_update(10) && !a.wants_update(11) && !a.wants_update(0));
    }
}
