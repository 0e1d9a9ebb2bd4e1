//! SWIM: who is up. foca's state machine with its timers in order; datagrams and time in, datagrams and changes out.
//!
//! Opens no socket, reads no clock, knows no metadata. The invariant: timers fire in the order of their deadlines, and foca
//! never works under a configuration made for a much smaller cluster than it sees.
//!
//! [SWIM](https://www.cs.cornell.edu/projects/Quicksilver/public_pdfs/SWIM.pdf): Das, Gupta, Motivala, 2002.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use foca::{
    AccumulatingRuntime, Codec as _, Config, Foca, Header, Member, Message, NoCustomBroadcast, OwnedNotification,
    PeriodicParams, Runtime, Timer,
};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use tokio::time::Instant;

use super::codec::{Codec, Implausible, Plausible};
use super::member::Identity;
use super::state::Change;
use crate::net;

/// Largest datagram before it is sealed: fits an Ethernet frame with room for the envelope.
pub(super) const PACKET_BYTES_MAX: usize = 1400;

/// A member that does not answer within this, directly or through others, is suspected.
const PROBE_PERIOD: Duration = Duration::from_millis(300);
const PROBE_ROUND_TRIP: Duration = Duration::from_millis(100);
/// How long a suspected member may refute it, in a small cluster. Grows with the logarithm of the size.
const SUSPICION: Duration = Duration::from_millis(1100);
const GOSSIP_PERIOD: Duration = Duration::from_millis(200);
const ANNOUNCE_PERIOD: Duration = Duration::from_secs(10);
const ANNOUNCE_TO_DOWN_PERIOD: Duration = Duration::from_millis(1200);
/// Long enough that no old rumour is still under way, short enough that a node whose clock was set back can return.
const DOWN_REMEMBERED: Duration = Duration::from_secs(60);
/// How soon a changed identity is announced again if nobody has answered to it.
const CONFIRM_AGAIN: Duration = Duration::from_millis(200);
/// Members that are told of a change at once.
const TOLD_AT_ONCE: usize = 3;
/// Members that are told of a farewell at once: there will be no second chance.
const TOLD_OF_FAREWELL: usize = 32;
/// News is passed on after this, without waiting for the period.
const NEWS_DELAY: Duration = Duration::from_millis(10);
const COMPLAINTS_APART: Duration = Duration::from_secs(1);
const COUNTED_APART: Duration = Duration::from_secs(1);

fn config(members: usize) -> Config {
    let magnitude = (members.max(1) as f64 + 1.0).log10();
    let every =
        |frequency, members| NonZeroUsize::new(members).map(|num_members| PeriodicParams { frequency, num_members });
    Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_ROUND_TRIP,
        max_transmissions: NonZeroU8::new((4.0 + 4.0 * magnitude) as u8).unwrap_or(NonZeroU8::MAX),
        suspect_to_down_after: SUSPICION.mul_f64(magnitude.max(1.0)),
        remove_down_after: Some(DOWN_REMEMBERED),
        max_packet_size: NonZeroUsize::new(PACKET_BYTES_MAX).unwrap_or(NonZeroUsize::MAX),
        notify_down_members: true,
        periodic_announce: every(ANNOUNCE_PERIOD, 1),
        periodic_announce_to_down_members: every(ANNOUNCE_TO_DOWN_PERIOD, 3),
        periodic_gossip: every(GOSSIP_PERIOD, 3),
        ..Config::simple()
    }
}

/// A timer of foca in the order in which it has to fire: foca's own order compares kinds only.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    at: Instant,
    timer: Timer<Identity>,
    sequence: u64,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        let kind = self.timer.cmp(&other.timer);
        self.at.cmp(&other.at).then(kind).then(self.sequence.cmp(&other.sequence))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// This node's part in the gossip.
pub(super) struct Gossip {
    foca: Foca<Identity, Codec, SmallRng, NoCustomBroadcast>,
    plausible: Arc<Mutex<Plausible>>,
    /// When those who are remembered were counted last.
    counted: Option<Instant>,
    runtime: AccumulatingRuntime<Identity>,
    rng: SmallRng,
    timers: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    changes: VecDeque<Change>,
    /// The members for which foca is configured, a power of two.
    sized_for: usize,
    /// Set while nobody has answered to this node's newest identity.
    confirm_at: Option<Instant>,
    /// Set while there is news that has not been passed on.
    news_at: Option<Instant>,
    complained: Option<Instant>,
}

impl Gossip {
    /// Remembers up to `known_max` members, those that are down among them.
    pub(super) fn new(me: Identity, known_max: usize) -> Self {
        Self::with_rng(me, known_max, net::rng)
    }

    fn with_rng(me: Identity, known_max: usize, rng: impl Fn() -> SmallRng) -> Self {
        let plausible = Plausible { epoch_max: me.epoch, known: HashSet::new(), known_max, found: None };
        let plausible = Arc::new(Mutex::new(plausible));
        Self {
            foca: Foca::new(me, config(1), rng(), Codec::new(Arc::clone(&plausible))),
            plausible,
            counted: None,
            runtime: AccumulatingRuntime::new(),
            rng: rng(),
            timers: BinaryHeap::new(),
            sequence: 0,
            changes: VecDeque::new(),
            sized_for: 1,
            confirm_at: None,
            news_at: None,
            complained: None,
        }
    }

    /// Changes by itself when the others took this node for dead.
    pub(super) fn identity(&self) -> Identity {
        *self.foca.identity()
    }

    /// No honest node has an epoch above `epoch_max`. An error says that the packet names somebody who cannot be.
    pub(super) fn receive(&mut self, packet: &[u8], epoch_max: u64, now: Instant) -> Result<(), Implausible> {
        self.plausible.lock().epoch_max = epoch_max;
        let result = self.foca.handle_data(packet, &mut self.runtime);
        self.settle(result, now);
        let found = self.plausible.lock().found.take();
        if let Some(Implausible::Crowded(_)) = found {
            self.count_known(now);
        }
        found.map_or(Ok(()), Err)
    }

    /// Some who were remembered may have been forgotten meanwhile.
    fn count_known(&mut self, now: Instant) {
        if self.counted.is_none_or(|at| now.duration_since(at) >= COUNTED_APART) {
            self.counted = Some(now);
            self.plausible.lock().known = self.foca.iter_membership_state().map(|member| member.id().addr).collect();
        }
    }

    /// Says hello to an address; whoever is there answers with whom it knows.
    pub(super) fn announce(&mut self, to: Identity, now: Instant) {
        let result = self.foca.announce(to, &mut self.runtime);
        self.settle(result, now);
    }

    /// Says once more that somebody was taken for dead, to one member: foca does so only while it is news, and then a cut may have been in
    /// the way. Who is alive hears of it from there, and comes back under a new identity.
    pub(super) fn object(&mut self, to: Identity, dead: Identity) {
        let header = Header { src: self.identity(), src_incarnation: 0, dst: to, message: Message::Gossip };
        let mut codec = Codec::new(Arc::clone(&self.plausible));
        let mut packet = Vec::new();
        let encoded = codec.encode_header(&header, &mut packet).and_then(|()| {
            packet.put_u16(1);
            codec.encode_member(&Member::down(dead), &mut packet)
        });
        match encoded {
            Ok(()) => self.runtime.send_to(to, &packet),
            Err(error) => tracing::debug!(%error, "an objection was not sent"),
        }
    }

    /// Takes a newer identity and spreads it.
    pub(super) fn change_identity(&mut self, id: Identity, now: Instant) {
        let result = self.foca.change_identity(id, &mut self.runtime);
        self.settle(result, now);
        self.confirm(now);
    }

    /// foca does not talk under a new identity before somebody has used it: an announcement makes them.
    fn confirm(&mut self, now: Instant) {
        for member in self.foca.iter_members().map(|member| *member.id()).sample(&mut self.rng, TOLD_AT_ONCE) {
            let result = self.foca.announce(member, &mut self.runtime);
            self.settle(result, now);
        }
        self.confirm_at = Some(now + CONFIRM_AGAIN);
    }

    /// Says farewell. Nothing must be received afterwards, or the node would come back.
    pub(super) fn leave(&mut self, now: Instant) {
        let told = NonZeroUsize::new(self.foca.num_members().min(TOLD_OF_FAREWELL)).unwrap_or(NonZeroUsize::MIN);
        let result = self.foca.set_config(Config { num_indirect_probes: told, ..config(self.sized_for) });
        self.settle(result, now);
        let result = self.foca.leave_cluster(&mut self.runtime);
        self.settle(result, now);
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        let timer = self.timers.peek().map(|Reverse(due)| due.at);
        timer.into_iter().chain(self.confirm_at).chain(self.news_at).min()
    }

    /// Fires what is due. Whatever has been received should be passed in first, or the answers in it come too late.
    pub(super) fn fire(&mut self, now: Instant) {
        while self.timers.peek().is_some_and(|Reverse(due)| due.at <= now) {
            let Some(Reverse(due)) = self.timers.pop() else { break };
            let result = self.foca.handle_timer(due.timer, &mut self.runtime);
            self.settle(result, now);
        }
        let is_unconfirmed = self.confirm_at.take_if(|at| *at <= now).is_some();
        if self.news_at.take_if(|at| *at <= now).is_some() || is_unconfirmed {
            let result = self.foca.gossip(&mut self.runtime);
            self.settle(result, now);
        }
        if is_unconfirmed && self.foca.num_members() > 0 {
            self.confirm(now);
        }
    }

    pub(super) fn next_packet(&mut self) -> Option<(SocketAddr, Bytes)> {
        self.runtime.to_send().map(|(to, packet)| (to.addr, packet))
    }

    pub(super) fn next_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    fn settle(&mut self, result: Result<(), foca::Error>, now: Instant) {
        if let Err(error) = result {
            self.complain(&error, now);
        }
        while let Some((delay, timer)) = self.runtime.to_schedule() {
            self.sequence += 1;
            self.timers.push(Reverse(Due { at: now + delay, timer, sequence: self.sequence }));
        }
        while let Some(notification) = self.runtime.to_notify() {
            self.notified(notification, now);
        }
        self.resize(now);
    }

    fn changed(&mut self, change: Change, now: Instant) {
        self.changes.push_back(change);
        self.news_at.get_or_insert(now + NEWS_DELAY);
    }

    fn notified(&mut self, notification: OwnedNotification<Identity>, now: Instant) {
        match notification {
            OwnedNotification::MemberUp(id) => self.changed(Change::Up(id), now),
            OwnedNotification::MemberDown(id) => self.changed(Change::Down(id), now),
            OwnedNotification::Rename(_, id) => self.changed(Change::Renamed(id), now),
            OwnedNotification::Active => self.confirm_at = None,
            OwnedNotification::Rejoin(_) => {
                tracing::info!("the others took this node for dead; it comes back");
                self.confirm_at = Some(now);
            }
            OwnedNotification::Idle => tracing::debug!("no other member is up"),
            OwnedNotification::Defunct => tracing::debug!("this node has left the gossip"),
        }
    }

    fn resize(&mut self, now: Instant) {
        let size = (self.foca.num_members() + 1).next_power_of_two();
        if size != self.sized_for {
            self.sized_for = size;
            if let Err(error) = self.foca.set_config(config(size)) {
                self.complain(&error, now);
            }
        }
    }

    /// Anybody can send garbage; it must not fill the log.
    fn complain(&mut self, error: &foca::Error, now: Instant) {
        if self.complained.is_none_or(|at| now.duration_since(at) >= COMPLAINTS_APART) {
            self.complained = Some(now);
            tracing::debug!(%error, "gossip was passed over");
        }
    }
}

#[cfg(feature = "fuzz-internals")]
pub(super) mod fuzz;

#[cfg(test)]
mod tests {
    use foca::PostcardCodec;
    use proptest::prelude::*;

    use super::*;

    const EPOCH_MAX: u64 = u64::MAX / 2;

    fn id(port: u16) -> Identity {
        Identity { addr: ([127, 0, 0, 1], port).into(), epoch: 100, meta_version: 0 }
    }

    /// Carries packets between the nodes until none is left.
    fn deliver(nodes: &mut [Gossip], now: Instant) {
        while let Some((to, packet)) = nodes.iter_mut().find_map(Gossip::next_packet) {
            if let Some(node) = nodes.iter_mut().find(|node| node.identity().addr == to) {
                node.receive(&packet, EPOCH_MAX, now).unwrap();
            }
        }
    }

    fn changes(node: &mut Gossip) -> Vec<Change> {
        std::iter::from_fn(|| node.next_change()).collect()
    }

    /// When a node of which every word is lost gives another one up.
    fn time_until_down(node: &mut Gossip, other: Identity) -> Instant {
        loop {
            let at = node.next_due().unwrap();
            node.fire(at);
            while node.next_packet().is_some() {}
            if changes(node) == [Change::Down(other)] {
                return at;
            }
        }
    }

    fn pair(now: Instant) -> [Gossip; 2] {
        let mut nodes = [Gossip::new(id(1), 100), Gossip::new(id(2), 100)];
        nodes[0].announce(Identity::unknown(id(2).addr), now);
        deliver(&mut nodes, now);
        assert_eq!(changes(&mut nodes[0]), [Change::Up(id(2))]);
        assert_eq!(changes(&mut nodes[1]), [Change::Up(id(1))]);
        nodes.iter_mut().for_each(|node| node.fire(now + NEWS_DELAY));
        deliver(&mut nodes, now);
        nodes
    }

    #[test]
    fn an_address_is_enough_to_meet() {
        pair(Instant::now());
    }

    #[test]
    fn a_changed_identity_is_a_rename_and_the_node_goes_on_talking() {
        let now = Instant::now();
        let mut nodes = pair(now);
        for _ in 0..3 {
            let bumped = nodes[0].identity().bumped();
            nodes[0].change_identity(bumped, now);
            deliver(&mut nodes, now);
            assert_eq!(changes(&mut nodes[1]), [Change::Renamed(bumped)]);
            assert_eq!(nodes[0].confirm_at, None, "the other has answered to the new identity");
        }
        assert_eq!(changes(&mut nodes[0]), []);
        let missed_at = time_until_down(&mut nodes[0], id(2));
        assert!(missed_at - now <= PROBE_PERIOD * 2 + SUSPICION, "it goes on probing: {:?}", missed_at - now);
    }

    #[test]
    fn a_changed_identity_of_which_every_word_is_lost_is_spread_again() {
        let now = Instant::now();
        let mut nodes = pair(now);
        let bumped = nodes[0].identity().bumped();
        nodes[0].change_identity(bumped, now);
        while nodes[0].next_packet().is_some() {}
        nodes[0].fire(now + CONFIRM_AGAIN);
        deliver(&mut nodes, now);
        assert_eq!(changes(&mut nodes[1]), [Change::Renamed(bumped)]);
    }

    #[test]
    fn whoever_is_taken_for_dead_wrongly_comes_back_renewed() {
        let now = Instant::now();
        let mut nodes = pair(now);
        let mut at = time_until_down(&mut nodes[1], id(1));
        assert!(at - now <= PROBE_PERIOD * 2 + SUSPICION, "{:?}", at - now);
        while changes(&mut nodes[1]).is_empty() {
            at = nodes.iter().filter_map(Gossip::next_due).min().unwrap();
            nodes.iter_mut().for_each(|node| node.fire(at));
            deliver(&mut nodes, at);
        }
        assert!(nodes[0].identity().epoch > id(1).epoch);
    }

    #[test]
    fn timers_fire_by_deadline_then_by_kind_then_in_the_order_of_their_making() {
        let now = Instant::now();
        let due = |at, timer, sequence| Due { at, timer, sequence };
        let later = now + Duration::from_millis(1);
        let expected = [
            due(now, Timer::ProbeRandomMember(1), 4),
            due(now, Timer::ProbeRandomMember(2), 5),
            due(now, Timer::PeriodicGossip(0), 3),
            due(later, Timer::ProbeRandomMember(0), 1),
        ];
        let mut heap: BinaryHeap<_> = [2, 0, 3, 1]
            .map(|i: usize| Reverse(due(expected[i].at, expected[i].timer.clone(), expected[i].sequence)))
            .into();
        assert_eq!(std::iter::from_fn(|| heap.pop()).map(|Reverse(due)| due).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_growing_cluster_repeats_and_waits_longer() {
        let (small, large) = (config(4), config(1000));
        assert_eq!(small.suspect_to_down_after, SUSPICION);
        assert!(large.suspect_to_down_after > SUSPICION * 2);
        assert!(large.max_transmissions > small.max_transmissions);
        assert!(Gossip::new(id(1), 100).foca.set_config(large).is_ok(), "may change while the node lives");
    }

    #[test]
    fn who_is_objected_to_hears_of_it_from_others_and_comes_back_under_a_new_identity() {
        let now = Instant::now();
        let [one, two] = pair(now);
        let mut nodes = [one, two, Gossip::new(id(3), 100)];
        nodes[2].announce(Identity::unknown(id(1).addr), now);
        deliver(&mut nodes, now);
        nodes[2].object(id(1), id(2));
        deliver(&mut nodes, now);
        assert!(changes(&mut nodes[0]).contains(&Change::Down(id(2))));
        nodes.iter_mut().for_each(|node| node.fire(now + PROBE_PERIOD));
        deliver(&mut nodes, now);
        assert!(nodes[1].identity().is_newer_than(&id(2)));
    }

    /// What node 2 sends, saying these things of others.
    fn packet(members: &[Member<Identity>]) -> Vec<u8> {
        let mut packet = Vec::new();
        let header = Header { src: id(2), src_incarnation: 0, dst: id(1), message: Message::Gossip };
        PostcardCodec.encode_header(&header, &mut packet).unwrap();
        packet.put_u16(members.len() as u16);
        members.iter().for_each(|member| PostcardCodec.encode_member(member, &mut packet).unwrap());
        packet
    }

    #[test]
    fn an_epoch_at_the_end_of_all_numbers_is_refused_with_all_that_is_said_beside_it() {
        let now = Instant::now();
        let mut nodes = pair(now);
        let ahead = Identity { epoch: u64::MAX, ..id(3) };
        let refused = nodes[0].receive(&packet(&[Member::alive(id(4)), Member::alive(ahead)]), EPOCH_MAX, now);
        assert_eq!(refused, Err(Implausible::Epoch { addr: ahead.addr, epoch: u64::MAX }));
        assert_eq!(changes(&mut nodes[0]), []);
        let nobody = Identity { addr: ([0, 0, 0, 0], 1).into(), ..id(3) };
        assert!(nodes[0].receive(&packet(&[Member::alive(nobody)]), EPOCH_MAX, now).is_err());
    }

    #[test]
    fn suspected_with_the_last_incarnation_there_is_a_node_comes_back_as_another() {
        let now = Instant::now();
        let mut nodes = pair(now);
        let doomed = Member::new(id(1), foca::Incarnation::MAX, foca::State::Suspect);
        nodes[0].receive(&packet(&[doomed]), EPOCH_MAX, now).unwrap();
        assert!(nodes[0].identity().epoch > id(1).epoch);
        nodes[0].fire(now + CONFIRM_AGAIN);
        deliver(&mut nodes, now);
        assert_eq!(nodes[1].foca.num_members(), 1);
    }

    #[test]
    fn members_that_somebody_invents_are_bounded_and_the_others_go_on_talking() {
        let now = Instant::now();
        let mut nodes = pair(now);
        for crowd in 0..1_000u16 {
            let invented: Vec<_> = (0..20).map(|n| Member::alive(id(1_000 + crowd * 20 + n))).collect();
            let _ = nodes[0].receive(&packet(&invented), EPOCH_MAX, now);
        }
        assert!(nodes[0].foca.iter_membership_state().count() <= 100);
        let full = nodes[0].receive(&packet(&[Member::alive(id(9))]), EPOCH_MAX, now);
        assert_eq!(full, Err(Implausible::Crowded(id(9).addr)));
        let down = packet(&[Member::down(id(1_000)), Member::alive(id(9))]);
        changes(&mut nodes[0]);
        let _ = nodes[0].receive(&down, EPOCH_MAX, now);
        assert_eq!(changes(&mut nodes[0]), [Change::Down(id(1_000))], "what it says beside is heard");
    }

    proptest! {
        #[test]
        fn garbage_does_no_harm(packet: Vec<u8>) {
            let now = Instant::now();
            let mut nodes = pair(now);
            let _ = nodes[0].receive(&packet, EPOCH_MAX, now);
            nodes[0].announce(id(2), now);
            deliver(&mut nodes, now);
            prop_assert_eq!(nodes[1].foca.num_members(), 1);
        }
    }
}
