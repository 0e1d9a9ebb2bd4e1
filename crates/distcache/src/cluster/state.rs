//! The table of members: what gossip says of who is up, and metadata from wherever it came, become views and events.
//!
//! Knows no sockets, no clock and not how metadata is got. The invariant: a member is in the view exactly when gossip says it is
//! up and its metadata is known; events are the difference of two views, so applying them to the first gives the second.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::events::{Event, View};
use super::member::{Identity, Metadata, Peer, PeerState};

/// How long an address that is not up is remembered, and so announced to now and then.
const LOST_REMEMBERED: Duration = Duration::from_secs(30 * 60);

/// How long it counts that others have somebody up who was taken for dead here. Said again after that, it is a new dispute.
const DISPUTE_LASTS: Duration = Duration::from_secs(30);

/// What gossip says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Up(Identity),
    Down(Identity),
    /// The same address has a newer identity; whether it is up is unchanged.
    Renamed(Identity),
}

/// What a piece of metadata was worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learned {
    Nothing,
    News,
    /// The others remember this node's address under a newer epoch than it has: its clock ran backwards over a restart.
    Outpaced {
        epoch: u64,
    },
}

/// A member that others have up, and that was taken for dead here in the same life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dispute {
    pub(super) lost: Identity,
    /// When somebody said so first, not counting what is long ago.
    pub(super) since: Instant,
}

#[derive(Debug)]
struct Slot {
    up: Option<Identity>,
    metadata: Option<Metadata>,
    /// Gossip has said that it is up, now or once. Of the others there is only hearsay.
    met: bool,
    /// It is in the view. It stays there while newer metadata is being fetched.
    shown: bool,
    /// As whom it was taken for dead, while it is not up.
    lost: Option<Identity>,
    /// Since when others have it up under an identity that was taken for dead here.
    disputed_since: Option<Instant>,
    changed_at: Instant,
}

impl Slot {
    fn is_unknown(&self) -> bool {
        self.up.is_some_and(|up| self.metadata.as_ref().is_none_or(|metadata| up.is_newer_than(&metadata.id)))
    }

    fn visible(&self) -> Option<&Metadata> {
        self.metadata.as_ref().filter(|_| self.up.is_some() && (self.shown || !self.is_unknown()))
    }
}

/// All that this node knows of the cluster.
#[derive(Debug)]
pub(super) struct Members {
    me: Metadata,
    slots: BTreeMap<SocketAddr, Slot>,
    view: BTreeMap<String, Peer>,
    slots_max: usize,
    /// Addresses for which there was no room, since anybody asked.
    turned_away: Vec<SocketAddr>,
    clashes: BTreeSet<String>,
}

impl Members {
    pub(super) fn new(me: Metadata, members_max: usize) -> Self {
        let view = BTreeMap::from([(me.name.clone(), me.peer(true))]);
        let slots_max = members_max.saturating_sub(1);
        Self { me, slots: BTreeMap::new(), view, slots_max, turned_away: Vec::new(), clashes: BTreeSet::new() }
    }

    pub(super) fn me(&self) -> &Metadata {
        &self.me
    }

    /// A new epoch, where others took this node for dead, is no new life: it still has what it had.
    pub(super) fn set_identity(&mut self, id: Identity) {
        self.me.id = id;
    }

    pub(super) fn set_state(&mut self, state: PeerState) {
        self.me.set_state(state);
    }

    pub(super) fn apply(&mut self, change: Change, now: Instant) {
        let (Change::Up(id) | Change::Down(id) | Change::Renamed(id)) = change;
        if id.addr == self.me.id.addr {
            return;
        }
        let Some(slot) = self.slot(id.addr, now) else { return };
        match change {
            Change::Up(_) => {
                (slot.up, slot.met) = (Some(id), true);
                (slot.lost, slot.disputed_since) = (None, None);
            }
            Change::Renamed(_) if slot.up.is_some() => slot.up = Some(id),
            Change::Renamed(_) => {
                // Dead under both.
                slot.lost = slot.lost.map(|_| id);
                return;
            }
            Change::Down(_) => {
                slot.up = None;
                slot.shown = false;
                (slot.lost, slot.disputed_since) = (Some(id), None);
                // Should it come back, it is asked again: it may have missed something, and so may we.
                slot.metadata.take_if(|metadata| !metadata.id.is_newer_than(&id));
            }
        }
        slot.changed_at = now;
    }

    pub(super) fn learn(&mut self, metadata: Metadata, now: Instant) -> Learned {
        if metadata.id.addr == self.me.id.addr {
            let outpaced = metadata.id.is_newer_than(&self.me.id);
            return if outpaced { Learned::Outpaced { epoch: metadata.id.epoch } } else { Learned::Nothing };
        }
        // Hearsay takes nobody's place: should there be such a member, it will be asked.
        if !self.slots.contains_key(&metadata.id.addr) && self.slots.len() >= self.slots_max {
            return Learned::Nothing;
        }
        let Some(slot) = self.slot(metadata.id.addr, now) else { return Learned::Nothing };
        if slot.metadata.as_ref().is_some_and(|known| !metadata.id.is_newer_than(&known.id)) {
            return Learned::Nothing;
        }
        slot.metadata = Some(metadata);
        Learned::News
    }

    /// Somebody says that this member is up.
    pub(super) fn dispute(&mut self, id: Identity, now: Instant) -> Option<Dispute> {
        let slot = self.slots.get_mut(&id.addr)?;
        // A node whose clock was set back over a restart has an older epoch, and is another case.
        let lost = slot.lost.filter(|lost| lost.epoch == id.epoch && !id.is_newer_than(lost))?;
        let since = slot.disputed_since.filter(|since| is_disputed(*since, now)).unwrap_or(now);
        slot.disputed_since = Some(since);
        Some(Dispute { lost, since })
    }

    /// Whether others have somebody up who was taken for dead here.
    pub(super) fn has_disputes(&self, now: Instant) -> bool {
        self.slots.values().any(|slot| slot.disputed_since.is_some_and(|since| is_disputed(since, now)))
    }

    fn slot(&mut self, addr: SocketAddr, now: Instant) -> Option<&mut Slot> {
        if !self.slots.contains_key(&addr) && self.slots.len() >= self.slots_max {
            let away = self.slots.iter().filter(|(_, slot)| slot.up.is_none());
            let Some((&longest, _)) = away.min_by_key(|(_, slot)| (slot.met, slot.changed_at)) else {
                self.turned_away.push(addr);
                return None;
            };
            self.slots.remove(&longest);
        }
        Some(self.slots.entry(addr).or_insert(Slot {
            up: None,
            metadata: None,
            met: false,
            shown: false,
            lost: None,
            disputed_since: None,
            changed_at: now,
        }))
    }

    /// Whom had to be left out since the last call because the cluster is larger than its limit.
    pub(super) fn take_turned_away(&mut self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.turned_away)
    }

    pub(super) fn is_up(&self, addr: SocketAddr) -> bool {
        self.slots.get(&addr).is_some_and(|slot| slot.up.is_some())
    }

    pub(super) fn up(&self) -> impl Iterator<Item = SocketAddr> {
        self.slots.iter().filter(|(_, slot)| slot.up.is_some()).map(|(addr, _)| *addr)
    }

    /// Addresses worth a word now and then, in case somebody is there again.
    pub(super) fn lost(&self) -> impl Iterator<Item = SocketAddr> {
        self.slots.iter().filter(|(_, slot)| slot.up.is_none() && slot.met).map(|(addr, _)| *addr)
    }

    /// Whether it is up and its metadata, or the newest of it, is still to be got.
    pub(super) fn is_unknown(&self, addr: SocketAddr) -> bool {
        self.slots.get(&addr).is_some_and(Slot::is_unknown)
    }

    pub(super) fn unknown(&self) -> impl Iterator<Item = SocketAddr> {
        self.slots.iter().filter(|(_, slot)| slot.is_unknown()).map(|(addr, _)| *addr)
    }

    /// What another node may be told: the metadata of those that are up.
    pub(super) fn known(&self) -> Vec<Metadata> {
        self.slots.values().filter(|slot| slot.up.is_some()).filter_map(|slot| slot.metadata.clone()).collect()
    }

    pub(super) fn forget_long_lost(&mut self, now: Instant) {
        self.slots.retain(|_, slot| slot.up.is_some() || now.duration_since(slot.changed_at) < LOST_REMEMBERED);
    }

    /// The view now and what changed since the last call; `None` if nothing did.
    pub(super) fn refresh(&mut self) -> Option<(View, Vec<Event>)> {
        let next = self.visible();
        if next == self.view {
            return None;
        }
        let events = difference(&self.view, &next);
        self.view = next;
        Some((View { peers: self.view.values().cloned().collect() }, events))
    }

    fn visible(&mut self) -> BTreeMap<String, Peer> {
        let mut peers = BTreeMap::from([(self.me.name.clone(), self.me.peer(true))]);
        let mut clashes = BTreeSet::new();
        for slot in self.slots.values_mut() {
            let Some(peer) = slot.visible().map(|metadata| metadata.peer(false)) else { continue };
            slot.shown = true;
            match peers.get(&peer.name) {
                Some(holder) => {
                    if holds_name_rather(&peer, holder) {
                        peers.insert(peer.name.clone(), peer.clone());
                    }
                    clashes.insert(peer.name);
                }
                None => drop(peers.insert(peer.name.clone(), peer)),
            }
        }
        for name in clashes.difference(&self.clashes) {
            tracing::warn!(name, "two nodes bear the same name; only the one started last is used");
        }
        self.clashes = clashes;
        peers
    }
}

/// Names are unique in a view: a node that moved to another address replaces itself at once.
fn holds_name_rather(peer: &Peer, holder: &Peer) -> bool {
    let rank = |peer: &Peer| (peer.incarnation, peer.gossip_addr);
    !holder.is_self && rank(peer).cmp(&rank(holder)) == Ordering::Greater
}

fn is_disputed(since: Instant, now: Instant) -> bool {
    now.duration_since(since) < DISPUTE_LASTS
}

fn difference(before: &BTreeMap<String, Peer>, after: &BTreeMap<String, Peer>) -> Vec<Event> {
    let is_same_life = |old: &Peer, new: &Peer| {
        (old.incarnation, old.gossip_addr, old.is_self) == (new.incarnation, new.gossip_addr, new.is_self)
    };
    let mut events = Vec::new();
    for (name, old) in before.iter().filter(|(_, old)| !old.is_self) {
        if !after.get(name).is_some_and(|new| is_same_life(old, new)) {
            events.push(Event::Left(old.clone()));
        }
    }
    for (name, new) in after.iter().filter(|(_, new)| !new.is_self) {
        match before.get(name) {
            Some(old) if old == new => {}
            Some(old) if is_same_life(old, new) => events.push(Event::Updated(new.clone())),
            _ => events.push(Event::Joined(new.clone())),
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(port: u16, epoch: u64, meta_version: u32) -> Identity {
        Identity { addr: ([127, 0, 0, 1], port).into(), epoch, meta_version }
    }

    fn metadata(id: Identity, incarnation: u64) -> Metadata {
        Metadata::joining(id, format!("n{}", id.addr.port()), incarnation, ([127, 0, 0, 1], 1000).into())
    }

    fn members(members_max: usize) -> Members {
        Members::new(metadata(id(1, 1, 0), 1), members_max)
    }

    /// What happened, as one word and a name each.
    fn told(members: &mut Members) -> Vec<String> {
        let events = members.refresh().map(|(_, events)| events).unwrap_or_default();
        let tell = |event| match event {
            Event::Joined(peer) => format!("joined {}/{}", peer.name, peer.incarnation),
            Event::Left(peer) => format!("left {}/{}", peer.name, peer.incarnation),
            Event::Updated(peer) => format!("updated {}/{}", peer.name, peer.incarnation),
            Event::Lagged { .. } => "lagged".into(),
        };
        events.into_iter().map(tell).collect()
    }

    fn with_one_peer() -> Members {
        let mut members = members(100);
        members.apply(Change::Up(id(2, 5, 0)), Instant::now());
        members.learn(metadata(id(2, 5, 0), 5), Instant::now());
        assert_eq!(told(&mut members), ["joined n2/5"]);
        members
    }

    #[test]
    fn neither_being_taken_for_dead_nor_saying_something_new_begins_a_new_life() {
        let id = Identity { addr: ([127, 0, 0, 1], 9).into(), epoch: 5, meta_version: 0 };
        let mut members = Members::new(metadata(id, 5), 10);
        members.set_identity(id.bumped());
        assert_eq!(members.me().incarnation, 5);
        members.set_identity(id.outlasting(5));
        assert_eq!(members.me().incarnation, 5);
        assert!(members.me().id.epoch > 5);
    }

    #[test]
    fn a_member_needs_both_a_sign_of_life_and_metadata() {
        let (mut up_first, mut metadata_first) = (members(100), members(100));
        up_first.apply(Change::Up(id(2, 5, 0)), Instant::now());
        assert_eq!(up_first.refresh(), None);
        assert_eq!(up_first.unknown().collect::<Vec<_>>(), [id(2, 5, 0).addr]);
        assert_eq!(up_first.learn(metadata(id(2, 5, 0), 5), Instant::now()), Learned::News);

        metadata_first.learn(metadata(id(2, 5, 0), 5), Instant::now());
        assert_eq!(metadata_first.refresh(), None);
        assert!(metadata_first.known().is_empty(), "hearsay is not passed on");
        metadata_first.apply(Change::Up(id(2, 5, 0)), Instant::now());

        for members in [&mut up_first, &mut metadata_first] {
            let (view, events) = members.refresh().unwrap();
            assert_eq!(view.peers.iter().map(|peer| &*peer.name).collect::<Vec<_>>(), ["n1", "n2"]);
            assert_eq!(events, [Event::Joined(view.peers[1].clone())]);
            assert_eq!(members.unknown().count(), 0);
        }
    }

    #[test]
    fn who_is_up_elsewhere_as_whom_it_was_taken_for_dead_here_is_disputed_until_it_is_back() {
        let (mut members, lost, since) = (with_one_peer(), id(2, 5, 0), Instant::now());
        let later = since + Duration::from_secs(1);
        assert_eq!(members.dispute(lost, since), None, "it is up here too");
        members.apply(Change::Down(lost), since);
        assert_eq!(members.dispute(lost, since), Some(Dispute { lost, since }));
        assert_eq!(members.dispute(lost, later), Some(Dispute { lost, since }));
        assert!(members.has_disputes(later));
        let long_after = since + DISPUTE_LASTS;
        assert!(!members.has_disputes(long_after), "nobody has repeated it");
        assert_eq!(members.dispute(lost, long_after), Some(Dispute { lost, since: long_after }));
        assert!(members.has_disputes(long_after));
        assert_eq!(members.dispute(id(2, 6, 0), later), None, "gossip will tell of it");
        assert_eq!(members.dispute(id(2, 4, 9), later), None, "its clock was set back");
        members.apply(Change::Up(id(2, 6, 0)), later);
        assert_eq!(members.dispute(lost, later), None);
        assert!(!members.has_disputes(later));
    }

    #[test]
    fn who_is_dead_under_a_newer_identity_is_not_disputed_by_the_older() {
        let (mut members, lost, newer, now) = (with_one_peer(), id(2, 5, 0), id(2, 6, 0), Instant::now());
        members.apply(Change::Down(lost), now);
        members.apply(Change::Renamed(newer), now);
        assert_eq!(members.dispute(newer, now), Some(Dispute { lost: newer, since: now }));
        members.apply(Change::Up(id(2, 7, 0)), now);
        members.apply(Change::Renamed(id(2, 8, 0)), now);
        assert_eq!(members.dispute(id(2, 8, 0), now), None, "it is up");
    }

    #[test]
    fn a_rename_shows_as_an_update_and_only_once_its_metadata_is_here() {
        let mut members = with_one_peer();
        members.apply(Change::Renamed(id(2, 5, 1)), Instant::now());
        assert_eq!(members.refresh(), None, "it stays in the view as it was");
        assert!(members.is_unknown(id(2, 5, 1).addr));
        let mut ready = metadata(id(2, 5, 1), 5);
        ready.set_state(PeerState::Ready);
        members.learn(ready, Instant::now());
        assert_eq!(told(&mut members), ["updated n2/5"]);
    }

    #[test]
    fn a_node_declared_down_wrongly_comes_back_without_leaving_if_it_is_renamed_first() {
        let mut members = with_one_peer();
        members.apply(Change::Renamed(id(2, 6, 0)), Instant::now());
        members.learn(metadata(id(2, 6, 0), 5), Instant::now());
        assert_eq!(told(&mut members), Vec::<String>::new());
    }

    #[test]
    fn a_restarted_node_replaces_its_predecessor() {
        let mut members = with_one_peer();
        members.apply(Change::Renamed(id(2, 9, 0)), Instant::now());
        members.learn(metadata(id(2, 9, 0), 9), Instant::now());
        assert_eq!(told(&mut members), ["left n2/5", "joined n2/9"]);
    }

    #[test]
    fn a_member_that_comes_back_after_it_was_down_is_asked_again() {
        let mut members = with_one_peer();
        members.apply(Change::Down(id(2, 5, 0)), Instant::now());
        assert_eq!(told(&mut members), ["left n2/5"]);
        members.learn(metadata(id(2, 5, 0), 5), Instant::now());
        assert_eq!(members.refresh(), None, "metadata alone brings nobody back");
        members.apply(Change::Renamed(id(2, 6, 0)), Instant::now());
        members.apply(Change::Up(id(2, 6, 0)), Instant::now());
        assert_eq!(members.refresh(), None);
        assert!(members.is_unknown(id(2, 6, 0).addr));
        members.learn(metadata(id(2, 6, 0), 5), Instant::now());
        assert_eq!(told(&mut members), ["joined n2/5"]);
    }

    #[test]
    fn older_metadata_never_replaces_newer() {
        let mut members = with_one_peer();
        assert_eq!(members.learn(metadata(id(2, 4, 9), 4), Instant::now()), Learned::Nothing);
        assert_eq!(members.refresh(), None);
    }

    #[test]
    fn this_node_is_in_the_view_from_the_start_and_never_an_event() {
        let mut members = members(100);
        members.set_state(PeerState::Ready);
        let (view, events) = members.refresh().unwrap();
        assert!(view.peers[0].is_self && view.peers[0].state == PeerState::Ready && events.is_empty());
        members.apply(Change::Up(id(1, 99, 0)), Instant::now());
        assert_eq!(members.up().count(), 0);
        assert_eq!(members.learn(metadata(id(1, 1, 0), 1), Instant::now()), Learned::Nothing);
        assert_eq!(members.learn(metadata(id(1, 99, 0), 0), Instant::now()), Learned::Outpaced { epoch: 99 });
    }

    #[test]
    fn of_two_nodes_of_one_name_the_younger_is_used() {
        let mut members = with_one_peer();
        let mut moved = metadata(id(3, 8, 0), 8);
        moved.name = "n2".into();
        members.learn(moved, Instant::now());
        members.apply(Change::Up(id(3, 8, 0)), Instant::now());
        assert_eq!(told(&mut members), ["left n2/5", "joined n2/8"]);
        members.apply(Change::Down(id(2, 5, 0)), Instant::now());
        assert_eq!(told(&mut members), Vec::<String>::new());
    }

    #[test]
    fn nobody_takes_this_nodes_own_name_from_it() {
        let mut members = members(100);
        let mut namesake = metadata(id(3, 8, 0), 8);
        namesake.name = "n1".into();
        members.learn(namesake, Instant::now());
        members.apply(Change::Up(id(3, 8, 0)), Instant::now());
        assert_eq!(members.refresh(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_table_makes_room_at_the_cost_of_the_lost_and_turns_others_away() {
        let mut members = members(3);
        for port in [2, 3] {
            members.apply(Change::Up(id(port, 1, 0)), Instant::now());
        }
        members.apply(Change::Up(id(4, 1, 0)), Instant::now());
        assert_eq!((members.up().count(), members.take_turned_away()), (2, vec![id(4, 1, 0).addr]));
        members.apply(Change::Down(id(2, 1, 0)), Instant::now());
        assert_eq!(members.lost().count(), 1);
        members.apply(Change::Up(id(4, 1, 0)), Instant::now());
        assert_eq!((members.up().count(), members.lost().count()), (2, 0));

        members.apply(Change::Down(id(4, 1, 0)), Instant::now());
        tokio::time::advance(LOST_REMEMBERED).await;
        members.forget_long_lost(Instant::now());
        assert_eq!(members.lost().count(), 0);
    }

    #[test]
    fn hearsay_takes_nobodys_place_and_gives_its_own() {
        let (mut members, now) = (members(4), Instant::now());
        members.apply(Change::Up(id(2, 1, 0)), now);
        members.apply(Change::Down(id(2, 1, 0)), now);
        for port in 10..100 {
            members.learn(metadata(id(port, 1, 0), 1), now);
        }
        assert_eq!(members.slots.len(), 3);
        assert_eq!(members.lost().collect::<Vec<_>>(), [id(2, 1, 0).addr], "only who was there is looked for");
        for port in [3, 4] {
            members.apply(Change::Up(id(port, 1, 0)), now);
        }
        assert_eq!((members.up().count(), members.lost().count()), (2, 1));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Gossip(u8, Identity),
        Learn(Identity, u64),
        Refresh,
    }

    fn step() -> impl Strategy<Value = Step> {
        let any_id = (2u16..6, 1u64..4, 0u32..3).prop_map(|(port, epoch, version)| id(port, epoch, version));
        prop_oneof![
            (0u8..3, any_id.clone()).prop_map(|(kind, id)| Step::Gossip(kind, id)),
            (any_id, 1u64..4).prop_map(|(id, incarnation)| Step::Learn(id, incarnation)),
            Just(Step::Refresh),
        ]
    }

    proptest! {
        #[test]
        fn replaying_the_events_gives_the_view(steps in prop::collection::vec(step(), 0..60)) {
            let (mut members, now) = (members(4), Instant::now());
            let mut replayed = BTreeMap::new();
            for step in steps.into_iter().chain([Step::Refresh]) {
                match step {
                    Step::Gossip(0, id) => members.apply(Change::Up(id), now),
                    Step::Gossip(1, id) => members.apply(Change::Down(id), now),
                    Step::Gossip(_, id) => members.apply(Change::Renamed(id), now),
                    Step::Learn(id, incarnation) => drop(members.learn(metadata(id, incarnation), now)),
                    Step::Refresh => {
                        let Some((view, events)) = members.refresh() else { continue };
                        for event in events {
                            match event {
                                Event::Joined(peer) => prop_assert!(replayed.insert(peer.name.clone(), peer).is_none()),
                                Event::Updated(peer) => prop_assert!(replayed.insert(peer.name.clone(), peer).is_some()),
                                Event::Left(peer) => prop_assert_eq!(replayed.remove(&peer.name), Some(peer)),
                                Event::Lagged { .. } => unreachable!(),
                            }
                        }
                        prop_assert!(view.peers.is_sorted_by(|a, b| a.name < b.name));
                        let others: Vec<_> = view.peers.into_iter().filter(|peer| !peer.is_self).collect();
                        prop_assert_eq!(&others, &replayed.values().cloned().collect::<Vec<_>>());
                        for peer in others {
                            prop_assert!(members.is_up(peer.gossip_addr));
                        }
                    }
                }
            }
        }
    }
}
