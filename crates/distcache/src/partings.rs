//! Of whom this node lost sight without a farewell, and when: who it has to ask, tell or doubt when it meets others again.
//!
//! Pure: time and who is in sight come in as arguments. The invariant: a life that went out of sight is remembered until it is back
//! and has heard all there was to hear, or for [`REMEMBERED`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;

use crate::net::Moment;
use crate::ring::NodeId;

/// As long as membership looks for it.
const REMEMBERED: Duration = Duration::from_secs(30 * 60);
/// The word that it has heard all may be lost: so long it may ask once more.
const TOLD_REMEMBERED: Duration = Duration::from_secs(10);
/// A node that has been started meets the others within this, if nothing is in the way.
const MET_WITHIN: Duration = Duration::from_secs(1);
/// Of more it is not known when they were taken.
const VIEWS_MAX: usize = 4_096;
/// Two nodes that are in sight of each other differ about the view for less than this.
pub(crate) const VIEWS_DIFFER_MAX: Duration = Duration::from_secs(10);
/// A death is noticed everywhere within this.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);

/// One life of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Life {
    pub(crate) id: NodeId,
    pub(crate) incarnation: u64,
}

/// A life of a node, and how long ago it was lost sight of: what it has written since then may be missing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfSight {
    pub(crate) life: Life,
    pub(crate) age: Duration,
}

/// A node that was lost sight of, or met only after it had lived on elsewhere.
#[derive(Clone, Copy)]
struct Gone {
    incarnation: u64,
    at: Moment,
    /// The first view without it.
    view_seq: u32,
    /// When something came from it last.
    heard_at: Option<Moment>,
    /// When it was back and heard all there was to hear.
    told_at: Option<Moment>,
    /// What it may have written up to then is nowhere here any more.
    cleared_at: Moment,
}

impl Gone {
    fn life(&self, id: NodeId) -> Life {
        Life { id, incarnation: self.incarnation }
    }

    fn is_remembered(&self, now: Moment) -> bool {
        now.since(self.at) < REMEMBERED && self.told_at.is_none_or(|at| now.since(at) < TOLD_REMEMBERED)
    }
}

/// Who is in sight, with their incarnations.
pub(crate) type InSight = BTreeMap<NodeId, u64>;

fn lives(in_sight: &InSight) -> impl Iterator<Item = Life> {
    in_sight.iter().map(|(id, incarnation)| Life { id: *id, incarnation: *incarnation })
}

/// Whether this life of a node is over: a later one is in sight.
pub(crate) fn has_ended(life: Life, in_sight: &InSight) -> bool {
    in_sight.get(&life.id).is_some_and(|known| *known > life.incarnation)
}

#[derive(Default)]
pub(crate) struct Partings {
    gone: Mutex<BTreeMap<NodeId, Gone>>,
    views: Mutex<Views>,
}

/// When this node took its views.
#[derive(Default)]
struct Views {
    began: VecDeque<(u32, Moment)>,
    has_forgotten: bool,
}

impl Views {
    fn note(&mut self, seq: u32, now: Moment) {
        self.began.push_back((seq, now));
        while self.began.len() > VIEWS_MAX || self.began.front().is_some_and(|(_, at)| now.since(*at) > REMEMBERED) {
            self.began.pop_front();
            self.has_forgotten = true;
        }
    }

    /// The first view that was taken after `at`, or one before it.
    fn first_since(&self, at: Moment) -> u32 {
        match self.began.front() {
            Some((_, first)) if self.has_forgotten && *first > at => 0,
            _ => self.began.iter().find(|(_, began)| *began >= at).map_or(u32::MAX, |(seq, _)| *seq),
        }
    }
}

impl Partings {
    /// These have gone out of sight with the view numbered `view_seq`; each with when something came from it last.
    pub(crate) fn note(&self, gone: impl Iterator<Item = (Life, Option<Moment>)>, view_seq: u32, now: Moment) {
        let mut partings = self.gone.lock();
        partings.retain(|_, gone| gone.is_remembered(now));
        for (Life { id, incarnation }, heard_at) in gone {
            let anew = Gone { incarnation, at: now, view_seq, heard_at, told_at: None, cleared_at: now };
            // It was back for a moment, and did not hear then what it had missed.
            let known = partings.get(&id).filter(|known| known.incarnation == incarnation);
            let untold = known.filter(|known| known.told_at.is_none());
            let gone = untold.map_or(anew, |untold| Gone { heard_at: heard_at.or(untold.heard_at), ..*untold });
            partings.insert(id, gone);
        }
    }

    /// A view has been taken.
    pub(crate) fn note_view(&self, seq: u32, now: Moment) {
        self.views.lock().note(seq, now);
    }

    /// This life is met only now, and both have lived for so long: if that is longer than it takes to meet, it has gone on out of sight
    /// since then. Or since longer: it may have met, from its beginning on, who had been out of sight before.
    pub(crate) fn note_met(&self, life: Life, both_lived: Duration, in_sight: &InSight, now: Moment) {
        let first_lost = self.first_that_may_have_met(life.id, in_sight, now);
        // Where somebody is out of sight, or it was itself in its last life, it may have begun on the other side of a cut.
        let is_cut = first_lost.is_some();
        if both_lived <= if is_cut { MET_WITHIN } else { VIEWS_DIFFER_MAX } {
            return;
        }
        let apart_since = now.before(both_lived);
        let at = first_lost.map_or(apart_since, |first| first.min(apart_since));
        let view_seq = self.views.lock().first_since(at.before(VIEWS_DIFFER_MAX));
        let mut partings = self.gone.lock();
        let is_known = partings.get(&life.id).is_some_and(|gone| gone.is_remembered(now) && gone.life(life.id) == life);
        if !is_known {
            let Life { id, incarnation } = life;
            partings.insert(id, Gone { incarnation, at, view_seq, heard_at: None, told_at: None, cleared_at: at });
        }
    }

    /// When a peer was lost sight of that is the same now as it was then.
    pub(crate) fn at(&self, id: NodeId, in_sight: &InSight, now: Moment) -> Option<Moment> {
        let gone = self.gone.lock().get(&id).copied().filter(|gone| gone.is_remembered(now))?;
        (in_sight.get(&id) == Some(&gone.incarnation)).then_some(gone.at)
    }

    /// The peer that was lost sight of has heard all there was to hear.
    pub(crate) fn note_told(&self, id: NodeId, now: Moment) {
        if let Some(gone) = self.gone.lock().get_mut(&id) {
            gone.told_at.get_or_insert(now);
        }
    }

    pub(crate) fn is_told(&self, id: NodeId) -> bool {
        self.gone.lock().get(&id).is_none_or(|gone| gone.told_at.is_some())
    }

    /// Lives that may know of writes since `at`: those in sight, and those lost sight of since then.
    pub(crate) fn met_since(&self, at: Moment, in_sight: &InSight) -> Vec<Life> {
        let since = at.before(VIEWS_DIFFER_MAX);
        let partings = self.gone.lock();
        let lost = partings.iter().filter(|(_, gone)| gone.at >= since).map(|(id, gone)| gone.life(*id));
        lives(in_sight).chain(lost).collect()
    }

    /// When the first of those was lost sight of who are, or were, out of sight.
    pub(crate) fn first(&self, now: Moment) -> Option<Moment> {
        self.gone.lock().values().filter(|gone| gone.is_remembered(now)).map(|gone| gone.at).min()
    }

    /// The first view without one of those that had been out of sight and are back; `None`: there are none.
    pub(crate) fn first_view_without(&self, in_sight: &InSight, now: Moment) -> Option<u32> {
        let partings = self.gone.lock();
        let remembered = || partings.iter().filter(|(_, gone)| gone.is_remembered(now));
        let is_back = |(id, gone): &(&NodeId, &Gone)| in_sight.get(id) == Some(&gone.incarnation);
        // The others of them may be seen again a moment later.
        let since = remembered().filter(is_back).map(|(_, gone)| gone.at).min()?.before(VIEWS_DIFFER_MAX);
        remembered().filter(|(_, gone)| gone.at >= since).map(|(_, gone)| gone.view_seq).min()
    }

    /// When the first was lost sight of whom this peer may have met since: another life of itself, or one of those that are not
    /// known to have ended.
    pub(crate) fn first_that_may_have_met(&self, id: NodeId, in_sight: &InSight, now: Moment) -> Option<Moment> {
        let partings = self.gone.lock();
        let may_have_met = |(gone_id, gone): &(&NodeId, &Gone)| {
            gone.is_remembered(now) && (**gone_id == id || !has_ended(gone.life(**gone_id), in_sight))
        };
        partings.iter().filter(may_have_met).map(|(_, gone)| gone.at).min()
    }

    /// Lives that may have gone on out of sight.
    pub(crate) fn out_of_sight(&self, in_sight: &InSight, now: Moment) -> Vec<OutOfSight> {
        let partings = self.gone.lock();
        let is_it =
            |(id, gone): &(&NodeId, &Gone)| gone.is_remembered(now) && in_sight.get(id) != Some(&gone.incarnation);
        let out_of_sight =
            |(id, gone): (&NodeId, &Gone)| OutOfSight { life: gone.life(*id), age: now.since(gone.cleared_at) };
        partings.iter().filter(is_it).map(out_of_sight).collect()
    }

    /// All that may be older than what others have written until now has been dropped.
    pub(crate) fn note_cleared(&self, now: Moment) {
        self.gone.lock().values_mut().for_each(|gone| gone.cleared_at = now);
    }

    /// Those that something came from here well after another node had lost sight of them: they lived on. `heard_at`: of those in
    /// sight, when something came last.
    pub(crate) fn heard_later(
        &self,
        lost: &[OutOfSight],
        heard_at: impl Fn(Life) -> Option<Moment>,
        now: Moment,
    ) -> Vec<Life> {
        let partings = self.gone.lock();
        let heard_later = |lost: &&OutOfSight| {
            let gone = partings.get(&lost.life.id).filter(|gone| gone.incarnation == lost.life.incarnation);
            let heard_at = heard_at(lost.life).or(gone.and_then(|gone| gone.heard_at));
            heard_at.is_some_and(|at| now.since(at) + NOTICED_WITHIN < lost.age)
        };
        lost.iter().filter(heard_later).map(|lost| lost.life).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn life(id: u64, incarnation: u64) -> Life {
        Life { id: NodeId(id), incarnation }
    }

    fn at(seconds: u64) -> Moment {
        Moment(1_000_000).after(Duration::from_secs(seconds))
    }

    /// A and B were lost sight of at 10 and 12 s.
    fn partings() -> Partings {
        let partings = Partings::default();
        partings.note([(life(1, 5), Some(at(10)))].into_iter(), 3, at(10));
        partings.note([(life(2, 7), None)].into_iter(), 4, at(12));
        partings
    }

    fn in_sight(seen: &[(NodeId, u64)]) -> InSight {
        seen.iter().copied().collect()
    }

    #[test]
    fn a_parting_counts_for_the_same_life_until_it_has_been_told() {
        let partings = partings();
        assert_eq!(partings.at(A, &in_sight(&[(A, 5)]), at(100)), Some(at(10)));
        assert_eq!(partings.at(A, &in_sight(&[(A, 6)]), at(100)), None, "another life");
        partings.note_told(A, at(100));
        assert!(partings.is_told(A) && !partings.is_told(B));
        assert_eq!(partings.at(A, &in_sight(&[(A, 5)]), at(109)), Some(at(10)));
        assert_eq!(partings.at(A, &in_sight(&[(A, 5)]), at(110)), None);
        assert_eq!(partings.at(B, &in_sight(&[(B, 7)]), at(12).after(REMEMBERED)), None);
    }

    #[test]
    fn who_may_know_of_writes_is_in_sight_or_was_lost_at_about_that_time_or_later() {
        let partings = partings();
        assert_eq!(partings.met_since(at(20), &in_sight(&[(NodeId(3), 1)])), [life(3, 1), life(1, 5), life(2, 7)]);
        assert_eq!(partings.met_since(at(21), &in_sight(&[])), [life(2, 7)]);
    }

    #[test]
    fn views_count_from_the_first_loss_of_one_side_and_only_if_one_of_it_is_back() {
        let partings = partings();
        assert_eq!(partings.first_view_without(&in_sight(&[(A, 6)]), at(100)), None);
        assert_eq!(partings.first_view_without(&in_sight(&[(B, 7)]), at(100)), Some(3), "A may be back in a moment");
        partings.note([(life(2, 8), None)].into_iter(), 9, at(60));
        assert_eq!(partings.first_view_without(&in_sight(&[(B, 8)]), at(100)), Some(9), "A is gone for another reason");
    }

    #[test]
    fn a_life_that_is_met_late_counts_as_out_of_sight_since_it_began_or_since_the_first_whom_it_may_have_met() {
        let partings = Partings::default();
        for (seq, seconds) in [(1, 0), (2, 40), (3, 70)] {
            partings.note_view(seq, at(seconds));
        }
        let seen = in_sight(&[(A, 5), (B, 8)]);
        partings.note_met(life(1, 5), Duration::from_secs(50), &seen, at(100));
        assert_eq!(partings.at(A, &seen, at(100)), Some(at(50)));
        assert_eq!(partings.first_view_without(&seen, at(100)), Some(2), "views differ for a while");
        partings.note([(life(2, 7), None)].into_iter(), 2, at(40));
        partings.note_met(life(2, 8), Duration::from_secs(20), &seen, at(100));
        assert_eq!(partings.at(B, &seen, at(100)), Some(at(40)), "it may have followed upon itself");
        partings.note_told(A, at(101));
        partings.note_met(life(1, 5), Duration::from_secs(51), &seen, at(102));
        assert!(partings.is_told(A), "the same life");
        let later = at(150).after(REMEMBERED);
        partings.note_met(life(1, 5), Duration::from_secs(60), &seen, later);
        assert_eq!(
            partings.at(A, &seen, later),
            Some(later.before(Duration::from_secs(60))),
            "the cut was longer than one remembers"
        );
    }

    #[test]
    fn who_is_lost_again_before_it_was_told_has_missed_all_since_the_first_time() {
        let partings = partings();
        partings.note([(life(1, 5), Some(at(21)))].into_iter(), 9, at(30));
        assert_eq!(partings.at(A, &in_sight(&[(A, 5)]), at(100)), Some(at(10)));
        partings.note_told(A, at(100));
        partings.note([(life(1, 5), None)].into_iter(), 11, at(105));
        assert_eq!(partings.at(A, &in_sight(&[(A, 5)]), at(110)), Some(at(105)));
    }

    #[test]
    fn whom_a_newcomer_may_have_met_is_any_that_is_not_known_to_have_ended() {
        let partings = partings();
        let first = |id, seen: &[(NodeId, u64)]| partings.first_that_may_have_met(id, &in_sight(seen), at(100));
        assert_eq!(first(NodeId(3), &[]), Some(at(10)));
        assert_eq!(first(NodeId(3), &[(A, 6)]), Some(at(12)));
        assert_eq!(first(A, &[(A, 6)]), Some(at(10)), "it may have followed upon itself");
    }

    #[test]
    fn who_was_heard_well_after_it_had_been_lost_elsewhere_lived_on() {
        let (here, there) = (partings(), partings());
        let lost = here.out_of_sight(&in_sight(&[(B, 7)]), at(100));
        assert_eq!(lost, [OutOfSight { life: life(1, 5), age: Duration::from_secs(90) }]);
        let heard_later = |there: &Partings| there.heard_later(&lost, |_| None, at(100));
        assert_eq!(heard_later(&there), [], "at the same time");
        let in_sight_of_it =
            |seconds| there.heard_later(&lost, |heard| (heard == life(1, 5)).then_some(at(seconds)), at(100));
        assert_eq!((in_sight_of_it(15), in_sight_of_it(16)), (vec![], vec![life(1, 5)]));
        there.note([(life(1, 5), None)].into_iter(), 9, at(90));
        assert_eq!(heard_later(&there), [], "it may have been dead for long, and nobody had said so");
        there.note([(life(1, 5), Some(at(16)))].into_iter(), 9, at(90));
        assert_eq!(heard_later(&there), [life(1, 5)]);
        there.note([(life(1, 6), Some(at(16)))].into_iter(), 9, at(90));
        assert_eq!(heard_later(&there), [], "another life");
        here.note_cleared(at(99));
        let [later] = here.out_of_sight(&in_sight(&[(B, 7)]), at(100))[..] else { panic!("one is out of sight") };
        assert_eq!(later.age, Duration::from_secs(1));
    }
}
