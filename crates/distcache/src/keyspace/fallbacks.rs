//! What this node has loaded in place of an owner that it could not ask: kept for a lease at most, and no longer than until the owner
//! is reached.
//!
//! The owner does not know of it and tells nothing of what is written. The invariant: what was loaded for an owner that is out of
//! reach is on its list before the load begins, and the list is emptied when a connection to the owner is made.

use super::Core;
use super::load::Purpose;
use crate::flight::Ticket;
use crate::node::Owner;
use crate::ring::NodeId;
use crate::store::Holding;

impl Core {
    /// Before they begin: their owner may be reached again before they end. What an owner is asked for that is reached, and would not
    /// answer, is not kept: it does not know that it is here.
    pub(super) fn note_fallbacks(&self, tickets: &[Ticket], purpose: Purpose) -> Purpose {
        if purpose != Purpose::Fallback {
            return purpose;
        }
        let topology = self.node.topology();
        let owners = tickets.iter().filter_map(|ticket| match topology.owner(ticket.hash()) {
            Owner::Peer(link) => Some((ticket.hash(), link)),
            Owner::Me | Owner::Nobody => None,
        });
        let owners: Vec<_> = owners.collect();
        let mut fallbacks = self.fallbacks.lock();
        for (hash, link) in &owners {
            fallbacks.entry(link.id()).or_default().insert(*hash);
        }
        drop(fallbacks);
        // Last: a connection that is made from now on finds them.
        match owners.iter().any(|(_, link)| link.stands()) {
            true => Purpose::FallbackUnkept,
            false => Purpose::Fallback,
        }
    }

    /// The owner is reached again: it is asked from now on, and writes there would not be told to this node.
    pub(crate) fn drop_fallbacks(&self, owner: NodeId) {
        let fallbacks = self.fallbacks.lock().remove(&owner).unwrap_or_default();
        fallbacks.into_iter().for_each(|hash| self.drop_copy(hash));
    }

    /// Forgets copies whose lease has run out anyway: each is here once, and there are no more of them than the store has room for.
    pub(super) fn sweep_fallbacks(&self) {
        self.fallbacks.lock().retain(|_, hashes| {
            hashes.retain(|hash| self.loads.is_under_way(*hash) || self.store.holds(Holding::Hot, *hash));
            !hashes.is_empty()
        });
    }
}
