//! Who a member is: the small identity that gossip carries, the metadata that travels over TCP, the peer that users see.
//!
//! Knows no sockets and not which members are up. The invariant: of two identities of one address exactly one wins, so every
//! node keeps the same one; and metadata that was decoded and checked is within its limits.

use std::cmp::Ordering;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::net;

/// Longest name of a cluster, node or zone, and longest admin address, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 255;

/// What gossip says about a member, some twenty bytes. Whatever else there is to know is asked over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Where the others reach its gossip, UDP and TCP.
    pub(super) addr: SocketAddr,
    /// Wall-clock milliseconds at its start; grows when it was declared down and comes back.
    pub(super) epoch: u64,
    /// Grows with every change of its metadata or of the state that it shares.
    pub(super) meta_version: u32,
}

impl Identity {
    /// Somebody of whom only the address is known: enough to announce to, and every true identity wins over it.
    pub(super) fn unknown(addr: SocketAddr) -> Self {
        Self { addr, epoch: 0, meta_version: 0 }
    }

    /// The same member with newer metadata.
    pub(super) fn bumped(self) -> Self {
        Self { meta_version: self.meta_version.saturating_add(1), ..self }
    }

    /// The same member, newer than `epoch`.
    pub(super) fn outlasting(self, epoch: u64) -> Self {
        Self { epoch: net::wall_clock_ms().max(epoch.saturating_add(1)), ..self }
    }

    /// Whether it is an address that somebody can have.
    pub(super) fn is_reachable(&self) -> bool {
        is_reachable(&self.addr)
    }

    /// The newest epoch that a node with a clock can have. One at the end of the numbers would keep the true node from ever
    /// coming back.
    pub(super) fn epoch_max() -> u64 {
        net::wall_clock_ms_max()
    }

    /// Which of two identities of one address is the newer.
    pub(super) fn age_cmp(&self, other: &Self) -> Ordering {
        (self.epoch, self.meta_version).cmp(&(other.epoch, other.meta_version))
    }

    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        self.age_cmp(other) == Ordering::Greater
    }
}

fn is_reachable(addr: &SocketAddr) -> bool {
    addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast()
}

impl foca::Identity for Identity {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Self> {
        Some(self.outlasting(self.epoch))
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.is_newer_than(adversary)
    }
}

/// A node of the cluster, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// The node's name, unique in the cluster.
    pub name: String,
    /// Wall-clock milliseconds at the node's start.
    pub incarnation: u64,
    /// Where the node answers its peers.
    pub peer_addr: SocketAddr,
    /// Where the node gossips, UDP and TCP.
    pub gossip_addr: SocketAddr,
    /// Where the node's admin interface listens, if it has one.
    pub admin_addr: Option<String>,
    /// The failure domain that the node says it is in.
    pub zone: Option<String>,
    /// The node's share of the keys in relation to the others.
    pub weight: u16,
    /// Where the node stands in its life.
    pub state: PeerState,
    /// The version of distcache that the node runs.
    pub version: String,
    /// Whether this is the node that was asked.
    pub is_self: bool,
}

impl Peer {
    /// A node that has no others, and so no addresses.
    pub(crate) fn alone(name: String, weight: u16) -> Self {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let id = Identity { addr: nowhere, epoch: crate::net::wall_clock_ms(), meta_version: 0 };
        let mut me = Metadata::joining(id, name, id.epoch, nowhere);
        me.weight = weight;
        me.set_state(PeerState::Ready);
        me.peer(true)
    }
}

/// Where a node stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerState {
    /// It has started and is learning who the others are.
    Joining,
    /// It answers and owns its share of the keys.
    Ready,
    /// It is about to leave: it still answers, and owns nothing new.
    Draining,
}

/// [`PeerState`] on the wire, so that no serde trait becomes part of the public API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum WireState {
    Joining,
    Ready,
    Draining,
}

impl From<PeerState> for WireState {
    fn from(state: PeerState) -> Self {
        match state {
            PeerState::Joining => Self::Joining,
            PeerState::Ready => Self::Ready,
            PeerState::Draining => Self::Draining,
        }
    }
}

impl From<WireState> for PeerState {
    fn from(state: WireState) -> Self {
        match state {
            WireState::Joining => Self::Joining,
            WireState::Ready => Self::Ready,
            WireState::Draining => Self::Draining,
        }
    }
}

/// All that a member says of itself, valid for one identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Metadata {
    pub(super) id: Identity,
    pub(super) name: String,
    pub(super) incarnation: u64,
    pub(super) peer_addr: SocketAddr,
    pub(super) admin_addr: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) weight: u16,
    state: WireState,
    pub(super) version: String,
}

impl Metadata {
    /// A node at its start.
    pub(super) fn joining(id: Identity, name: String, incarnation: u64, peer_addr: SocketAddr) -> Self {
        Self {
            id,
            name,
            incarnation,
            peer_addr,
            admin_addr: None,
            zone: None,
            weight: 1,
            state: WireState::Joining,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    pub(super) fn set_state(&mut self, state: PeerState) {
        self.state = state.into();
    }

    pub(super) fn state(&self) -> PeerState {
        self.state.into()
    }

    pub(super) fn peer(&self, is_self: bool) -> Peer {
        Peer {
            name: self.name.clone(),
            incarnation: self.incarnation,
            peer_addr: self.peer_addr,
            gossip_addr: self.id.addr,
            admin_addr: self.admin_addr.clone(),
            zone: self.zone.clone(),
            weight: self.weight,
            state: self.state(),
            version: self.version.clone(),
            is_self,
        }
    }

    /// Names the field that no honest node would send.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let is_sane = |text: &str| !text.is_empty() && text.len() <= NAME_BYTES_MAX;
        match () {
            () if !is_sane(&self.name) => Err("name"),
            () if !is_sane(&self.version) => Err("version"),
            () if !self.zone.as_deref().is_none_or(is_sane) => Err("zone"),
            () if !self.admin_addr.as_deref().is_none_or(is_sane) => Err("admin_addr"),
            () if !is_reachable(&self.id.addr) => Err("gossip_addr"),
            () if !is_reachable(&self.peer_addr) => Err("peer_addr"),
            () if self.id.epoch.max(self.incarnation) > Identity::epoch_max() => Err("epoch"),
            () => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use foca::Identity as _;

    use super::*;

    fn identity(epoch: u64, meta_version: u32) -> Identity {
        Identity { addr: "127.0.0.1:3322".parse().unwrap(), epoch, meta_version }
    }

    #[test]
    fn of_two_identities_exactly_one_wins_and_epochs_weigh_more() {
        assert!(identity(2, 0).win_addr_conflict(&identity(1, 9)));
        assert!(!identity(1, 9).win_addr_conflict(&identity(2, 0)));
        assert!(identity(1, 2).win_addr_conflict(&identity(1, 1)));
        assert!(!identity(1, 1).win_addr_conflict(&identity(1, 1)));
        assert!(identity(1, 0).win_addr_conflict(&Identity::unknown(identity(1, 0).addr)));
    }

    #[test]
    fn a_renewed_identity_wins_even_when_the_clock_ran_backwards() {
        let ahead = identity(u64::MAX - 5, 7);
        let renewed = ahead.renew().unwrap();
        assert!(renewed.win_addr_conflict(&ahead));
        assert_eq!(renewed.epoch, u64::MAX - 4);
        assert!(identity(1, 0).renew().unwrap().epoch > 1_000_000);
    }

    #[test]
    fn metadata_out_of_its_limits_names_the_field() {
        let good = Metadata::joining(identity(1, 0), "a".into(), 1, "127.0.0.1:3320".parse().unwrap());
        assert_eq!(good.check(), Ok(()));
        let with = |change: fn(&mut Metadata)| {
            let mut changed = good.clone();
            change(&mut changed);
            changed.check()
        };
        assert_eq!(with(|m| m.name.clear()), Err("name"));
        assert_eq!(with(|m| m.zone = Some("z".repeat(256))), Err("zone"));
        assert_eq!(with(|m| m.id.addr.set_port(0)), Err("gossip_addr"));
        assert_eq!(with(|m| m.peer_addr = "0.0.0.0:1".parse().unwrap()), Err("peer_addr"));
        assert_eq!(with(|m| m.id.epoch = u64::MAX), Err("epoch"));
        assert_eq!(with(|m| m.incarnation = Identity::epoch_max() + 60_000), Err("epoch"));
    }
}
