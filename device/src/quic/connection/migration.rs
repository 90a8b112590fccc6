//! Moving to another local address (RFC 9000 9).

use crate::crypto::Crypto;

use super::super::recovery::{PathChange, Space};
use super::super::transport_parameters::Migration;
use super::{Connection, Context, Ping, State};

impl<C: Crypto, const STREAMS: usize, const SEND: usize, const BLOCKS: usize>
    Connection<C, STREAMS, SEND, BLOCKS>
{
    /// Whether the client may move to another address of its own accord: the handshake is confirmed, and the server has
    /// not asked its clients to stay (RFC 9000 9). Before, and there, it may drop what comes from another address.
    pub fn may_migrate(&self) -> bool {
        self.is_confirmed() && self.agreed.migration == Migration::Allowed
    }

    /// The local address changed: moves to a fresh connection identifier, validates the path and starts
    /// congestion control anew (RFC 9000 9.2).
    ///
    /// Where it may not ([`Self::may_migrate`]) this is for an address that has changed all the same: the connection then
    /// carries on as if a NAT had done it, and the server decides (RFC 9000 9.3). The same holds without a spare
    /// identifier.
    ///
    /// Deviates from RFC 9000 9.5 (MUST NOT reuse an identifier from another address) in that last case
    /// only: the old address is gone, and the alternative is to lose the connection.
    ///
    /// `change` says whether the address itself is another one: with a new port alone window and RTT estimate are
    /// kept (RFC 9000 9.4).
    pub fn on_local_address_changed(&mut self, ctx: &mut Context<'_>, change: PathChange) {
        if self.state != State::Open {
            return;
        }
        self.counters.migrations += 1;
        // Who sent them knows the old address; the new one has to be found out first.
        self.unreadable = 0;
        // What was under way on the old path goes out again at once: the client moves because that path went
        // silent, and waiting for loss detection there would hold the sent-packet table, and with it the
        // answer to the server's own PATH_CHALLENGE, until a probe timeout.
        let now = ctx.now;
        self.repair_with(|recovery, repair| {
            recovery.requeue_space(now, Space::Application, |outcome| repair.apply(outcome));
            recovery.on_path_changed(now, change);
        });
        if !self.may_migrate() {
            // A PING tells the server of the new address.
            self.pending.ping = Some(Ping::Presence);
            return;
        }
        if !self.cids.active().is_empty() {
            self.cids.rotate();
        }
        self.path.begin_validation();
    }
}
