//! What the promise allows each get to return, and which gets returned less.
//!
//! Pure: a history in, a verdict out. It knows, for each get, the oldest version that it may return:
//!
//! - In harmony (the reader's node, the writer's node and all whom they see have one view and reach each other) none older than the
//!   last write that returned Ok before the get began.
//! - In one view of owner, reader's node and writer's node, who reach each other, none older either, whatever befalls others.
//! - Where there was no harmony since the write began, an older one until [`HEALED`] after harmony is back, and no longer than that after
//!   all nodes were up and all links whole.
//! - Where harmony was back before the write began, for [`SETTLED`] more, and no longer.
//! - Whatever happens, none older than a lease after the write, and as long again as the reader's node and the writer's had two views;
//!   nor, where that is later, than [`HEALED`] after the reader's node has come to its view.
//! - Where views differ, but all who are seen reach each other and see these two, and the writer's node sees them all, as in harmony: an
//!   owner tells everybody whom it sees.
//! - A write is owed to nobody by the dead, nor by who is out of sight: where nobody can have told of it, it is forgotten.
//! - A source with lagging replicas may itself answer what is older, for as long as it lags and a load takes.
//!
//! Writes of a key are made one after the other, so that their order is known. A write that returned an error promises nothing: a
//! put may still be on its way, and come after a later write, for [`UNDER_WAY`]; where a process stood still, from when it went on.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use distcache::Origin;

use crate::history::{Get, History, LAG, LOAD_MAX, Space, Standing, Write, bits, nodes_of};

/// The promise after a heal.
const HEALED: Duration = Duration::from_secs(10);
/// Connections are made anew, and what was in doubt dropped.
const SETTLED: Duration = Duration::from_millis(1_500);
/// By how much the clock of an owner may differ from the one clock of this history over a lease, and then some.
const LEASE_MARGIN: Duration = Duration::from_millis(400);
/// What a node has sent arrives in this time, or never.
const UNDER_WAY: Duration = Duration::from_secs(10);
/// Nodes find each other, and caches fill, in this time.
const AT_REST: Duration = Duration::from_secs(10);

/// What is wrong.
#[derive(Clone, Debug)]
pub enum Violation {
    /// A get returned a version older than it may.
    Stale { get: Get, write: Write, harmony_lost: Option<Duration> },
    /// A get returned what was never true, or the value of another key.
    Untrue { get: Get, newest: u64 },
    /// A caller saw an error though its node was up and the source well.
    Error { get: Get },
    /// So did a writer.
    WriteError { write: Write },
    /// The nodes did not find one view in time.
    Parted { since: Duration, at: Duration },
    /// Something broke.
    Broken(String),
}

/// What there is to say of a history.
#[derive(Default)]
pub struct Verdict {
    pub violations: Vec<Violation>,
    pub ops: u64,
    pub hot_hits: u64,
    pub faults: u64,
    /// Gets that overlooked a write of which nobody lived to tell.
    pub forgotten: u64,
    /// Gets that came after a write, and those of them that had to return it: nothing would have excused another answer.
    pub after_a_write: u64,
    pub strict: u64,
    /// Nothing can be concluded from it, and why.
    pub void: Option<&'static str>,
}

/// Judges one run of this length.
pub fn judge(history: &History, length: Duration) -> Verdict {
    let standings = Standings::new(&history.standings, history.lease);
    let mut violations: Vec<_> = history.broken.iter().cloned().map(Violation::Broken).collect();
    let mut writes: HashMap<(Space, usize), Vec<&Write>> = HashMap::new();
    for write in history.writes.iter() {
        writes.entry((write.space, write.key)).or_default().push(write);
    }
    for of_key in writes.values_mut() {
        of_key.sort_by_key(|write| write.version);
    }
    let (mut forgotten, mut after_a_write, mut strict) = (0, 0, 0);
    for get in &history.gets {
        let of_key = writes.get(&(get.space, get.key)).map_or(&[][..], Vec::as_slice);
        match judge_get(get, of_key, &standings) {
            Some(Violation::Stale { write, .. }) if standings.is_forgotten(get, &write) => forgotten += 1,
            violation => violations.extend(violation),
        }
        if let Some(last) = of_key.iter().rev().find(|write| write.outcome.is_ok() && write.ended <= get.begun) {
            after_a_write += 1;
            strict += u64::from(!is_allowed(get, last, &standings));
        }
    }
    let was_well = |write: &&Write| write.outcome.is_err() && standings.were_well(write.begun, write.ended);
    violations.extend(history.writes.iter().filter(was_well).cloned().map(|write| Violation::WriteError { write }));
    violations.extend(standings.partings());
    let is_hot = |get: &&Get| matches!(get.outcome, Ok((_, Origin::HotCopy)));
    let hot_hits = history.gets.iter().filter(is_hot).count() as u64;
    let ops = (history.gets.len() + history.writes.len()) as u64;
    let void = match () {
        () if ops < 100 * length.as_secs() => Some("under 100 operations a second"),
        () if history.faults == 0 => Some("no fault fired"),
        () if hot_hits == 0 => Some("no hot hit"),
        () if after_a_write == 0 => Some("no write had returned before a get"),
        () if strict * 3 < after_a_write => Some("most gets might have returned what is older"),
        () if forgotten * 1_000 > ops => Some("too many writes died with their side"),
        () => None,
    };
    Verdict { violations, ops, hot_hits, faults: history.faults, forgotten, after_a_write, strict, void }
}

/// `writes`: those of the get's key, by version.
fn judge_get(get: &Get, writes: &[&Write], standings: &Standings<'_>) -> Option<Violation> {
    let version = match &get.outcome {
        Ok((version, _)) => *version,
        Err(_) => return standings.had_a_source(get).then(|| Violation::Error { get: get.clone() }),
    };
    let newest = writes.iter().rev().find(|write| write.begun <= get.ended).map_or(0, |write| write.version);
    if version > newest {
        return Some(Violation::Untrue { get: get.clone(), newest });
    }
    // What was loaded is the source's, and no put that came late.
    let is_entry = !matches!(get.outcome, Ok((_, Origin::Loaded | Origin::Fallback)));
    let is_late = |write: &&&Write| write.version == version && write.is_put && write.outcome.is_err() && is_entry;
    let came_late = writes.iter().find(is_late);
    let at_last = came_late.map_or(Duration::ZERO, |put| standings.goes_on_after(put) + UNDER_WAY);
    let newer = writes.iter().rev().take_while(|write| write.version > version && write.begun >= at_last);
    // The earliest of them has been true for the longest.
    let mut overlooked: Vec<_> = newer.filter(|write| write.outcome.is_ok() && write.ended <= get.begun).collect();
    overlooked.reverse();
    overlooked.into_iter().find_map(|write| {
        let harmony_lost = standings.harmony_lost(get.node, write.node, get.ended);
        let violation = || Violation::Stale { get: get.clone(), write: (*write).clone(), harmony_lost };
        (!is_allowed(get, write, standings)).then(violation)
    })
}

/// Whether a get may overlook a write that returned Ok before it began.
fn is_allowed(get: &Get, write: &Write, standings: &Standings<'_>) -> bool {
    let lease = standings.lease;
    let source = if write.space == Space::Lagging { LAG + LOAD_MAX } else { Duration::ZERO };
    if get.begun <= write.ended + source {
        return true;
    }
    // Also where it was lost while the get was under way.
    let Some(lost) = standings.harmony_lost(get.node, write.node, get.ended) else { return false };
    let patience = if lost >= write.begun { HEALED } else { SETTLED };
    if get.begun > lost + patience + source || get.begun > standings.broken_until(get.ended) + HEALED + source {
        return false;
    }
    let lease_ends = write.ended + lease + LEASE_MARGIN + source;
    let is_excused = get.begun <= lease_ends || {
        let (length, last) = standings.two_views(get, write);
        get.begun <= lease_ends + length || get.begun <= last + HEALED + source
    };
    is_excused && !standings.were_in_touch(get, write) && !standings.was_told_at_once(get, write)
}

struct Standings<'a> {
    all: &'a [Standing],
    /// At each of them, when there was one last in which these two nodes were not in harmony, by both numbers.
    harmony_lost: Vec<Vec<Option<Duration>>>,
    /// At each of them, when a node was away last, or a link not whole.
    broken_until: Vec<Duration>,
    nodes: usize,
    lease: Duration,
}

impl<'a> Standings<'a> {
    fn new(all: &'a [Standing], lease: Duration) -> Self {
        let nodes = all.first().map_or(0, |first| first.harmony.len());
        let last_time = |is_so: &dyn Fn(&Standing) -> bool| -> Vec<Option<Duration>> {
            let mut last = None;
            let until = |standing: &Standing| {
                last = if is_so(standing) { Some(standing.at) } else { last };
                last
            };
            all.iter().map(until).collect()
        };
        let lost = |pair: usize| {
            let (a, b) = (pair / nodes, pair % nodes);
            last_time(&move |standing| standing.harmony[a] & 1 << b == 0)
        };
        let harmony_lost = (0..nodes * nodes).map(lost).collect();
        let broken_until = last_time(&|standing| !standing.is_whole);
        let broken_until = broken_until.into_iter().map(Option::unwrap_or_default).collect();
        Self { all, harmony_lost, broken_until, nodes, lease }
    }

    /// The last standing at or before a time, and the next one: what happens between two looks belongs to both.
    fn until(&self, at: Duration) -> &[Standing] {
        let end = self.all.partition_point(|standing| standing.at <= at);
        &self.all[..(end + 1).min(self.all.len())]
    }

    /// When these two nodes, and whom they see, were last not in harmony, up to some time.
    fn harmony_lost(&self, a: usize, b: usize, until: Duration) -> Option<Duration> {
        let last = self.until(until).len().checked_sub(1)?;
        self.harmony_lost[a * self.nodes + b][last]
    }

    /// When a node was away last, or a link not whole, up to some time.
    fn broken_until(&self, until: Duration) -> Duration {
        self.until(until).len().checked_sub(1).map_or(Duration::ZERO, |last| self.broken_until[last])
    }

    /// For how long, from the write until the get ended, the get's node had another view than the writer's, which may have ended; and
    /// when it last had, or changed its own.
    fn two_views(&self, get: &Get, write: &Write) -> (Duration, Duration) {
        let begun = self.all.partition_point(|standing| standing.at < write.begun).saturating_sub(1);
        let between = &self.until(get.ended)[begun..];
        let views = |standing: &Standing| (standing.views[write.node], standing.views[get.node]);
        let differ = |standing: &Standing| views(standing).0 != views(standing).1 || views(standing).0 == NO_VIEW;
        // What one of two looks sees may have begun right after the other.
        let apart = |pair: &&[Standing]| pair.iter().any(differ);
        let has_changed = |pair: &&[Standing]| views(&pair[0]).1 != views(&pair[1]).1;
        let length = between.windows(2).filter(apart).map(|pair| pair[1].at - pair[0].at).sum();
        let last = between.windows(2).rev().find(|pair| apart(pair) || has_changed(pair)).map(|pair| pair[1].at);
        (length, last.unwrap_or_default())
    }

    /// Whether the owner, the get's node and the writer's had one view from a while before the write until the get ended, and reached
    /// each other, whatever happened to others.
    fn was_told_at_once(&self, get: &Get, write: &Write) -> bool {
        let Some(owner) = get.owner.filter(|owner| write.owner == Some(*owner)) else { return false };
        let three = [owner, get.node, write.node];
        let Some(from) = write.begun.checked_sub(self.lease.max(AT_REST)) else { return false };
        let begun = self.all.partition_point(|standing| standing.at < from).saturating_sub(1);
        let during = &self.until(get.ended)[begun..];
        let Some(view) = during.first().map(|first| first.views[owner]) else { return false };
        let all = bits(three);
        let is_well = |standing: &Standing| {
            let is_so = |node: usize| standing.views[node] == view && standing.reaches[node] & all == all;
            standing.stopped & all == 0 && three.into_iter().all(is_so)
        };
        view != NO_VIEW && during.iter().all(is_well)
    }

    /// Whether, from the write on, all whom the reader's node or the writer's ever saw were up, saw these two, were seen by the writer's,
    /// and reached each other: whoever of them was the owner told the reader's node of the write, whether their views were the same or not.
    /// A hold is known to the owner: it says nothing of what others load in its place where one of them is gone.
    fn were_in_touch(&self, get: &Get, write: &Write) -> bool {
        let connected = self.all.partition_point(|standing| standing.at + SETTLED < write.begun).saturating_sub(1);
        let begun = self.all.partition_point(|standing| standing.at < write.begun).saturating_sub(1);
        let until = self.until(get.ended).len();
        let both = 1 << get.node | 1 << write.node;
        let of_either = |standing: &Standing| standing.sees[get.node] | standing.sees[write.node];
        let seen = self.all[begun..until].iter().fold(both, |seen, standing| seen | of_either(standing));
        let is_aware = |standing: &Standing| {
            let up = seen & !standing.away;
            (write.space == Space::Exact || up == seen)
                && up & both == both
                && up & !standing.sees[write.node] == 0
                && nodes_of(up).all(|node| standing.sees[node] & both == both)
        };
        let is_connected = |standing: &Standing| nodes_of(seen).all(|node| standing.reaches[node] & seen == seen);
        self.all[connected..until].iter().all(is_connected) && self.all[begun..until].iter().all(is_aware)
    }

    /// When a write had ended and no process that it may have been sent to stood still any more.
    fn goes_on_after(&self, write: &Write) -> Duration {
        let begun = self.all.partition_point(|standing| standing.at < write.begun).saturating_sub(1);
        let (during, ended) = (&self.all[begun..], write.ended);
        if during.iter().take_while(|standing| standing.at <= ended).all(|standing| standing.stopped == 0) {
            return ended;
        }
        let goes_on = during.iter().find(|standing| standing.at > ended && standing.stopped == 0);
        goes_on.map_or(Duration::MAX - UNDER_WAY, |standing| standing.at)
    }

    /// Whether nobody can have told the get's node of the write: no chain of nodes that saw each other, one after the other, leads from the
    /// writer's to it. Who is started anew is somebody else.
    fn is_forgotten(&self, get: &Get, write: &Write) -> bool {
        let written = self.all.partition_point(|standing| standing.at < write.ended).saturating_sub(1);
        let after = &self.all[written..self.until(get.begun).len()];
        let Some(first) = after.first() else { return false };
        // Whom a node still takes for a member, and does not reach, it cannot tell.
        let met = |standing: &Standing, node: usize| standing.sees[node] & standing.reaches[node] & standing.up();
        let writer = first.sees[write.node] & 1 << write.node;
        let aware = after.iter().fold(writer, |aware, standing| {
            let aware = aware & standing.up();
            nodes_of(aware).fold(aware, |all, node| all | met(standing, node))
        });
        first.sees[write.node] != 0 && aware & 1 << get.node == 0
    }

    /// Whether everything had been well for a while when a call began, and stayed so.
    fn were_well(&self, call_begun: Duration, ended: Duration) -> bool {
        self.for_a_while(call_begun, ended, |standing| standing.is_whole && standing.is_source_well && is_one(standing))
    }

    /// Whether the get's node was up and the source well for a while, whatever else there was: then a get is answered.
    fn had_a_source(&self, get: &Get) -> bool {
        let is_up = |standing: &Standing| standing.sees[get.node] != 0 && standing.stopped & 1 << get.node == 0;
        self.for_a_while(get.begun, get.ended, |standing| standing.is_source_well && is_up(standing))
    }

    /// Whether something held from a while before a call until its end.
    fn for_a_while(&self, call_begun: Duration, ended: Duration, holds: impl Fn(&Standing) -> bool) -> bool {
        let from = call_begun.saturating_sub(AT_REST);
        let begun = self.all.partition_point(|standing| standing.at < from);
        let during = self.until(ended).get(begun..).unwrap_or_default();
        from > Duration::ZERO && !during.is_empty() && during.iter().all(holds)
    }

    /// Times at which nodes that all reach each other had not found one view for too long.
    fn partings(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut since = None;
        for standing in self.all {
            if !standing.is_whole || is_one(standing) {
                since = None;
                continue;
            }
            let since = *since.get_or_insert(standing.at);
            if standing.at - since > HEALED && found.is_empty() {
                found.push(Violation::Parted { since, at: standing.at });
            }
        }
        found
    }
}

/// The view of a node that is down, or leaves.
pub const NO_VIEW: u64 = 0;

fn is_one(standing: &Standing) -> bool {
    let all = (1u32 << standing.harmony.len()) - 1;
    standing.harmony.iter().all(|seen| *seen == all)
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale { get, write, harmony_lost } => {
                let late = get.begun.saturating_sub(write.ended);
                write!(f, "{get}, {late:.1?} after {write}")?;
                match harmony_lost {
                    Some(lost) => write!(f, "; they were in harmony since {:.3} s", lost.as_secs_f64()),
                    None => write!(f, "; they had always been in harmony"),
                }
            }
            Self::Untrue { get, newest } => write!(f, "{get}, whose newest version was {newest}"),
            Self::Error { get } => write!(f, "{get} though its node was up and the source well"),
            Self::WriteError { write } => write!(f, "{write} though all was well"),
            Self::Parted { since, at } => {
                let (at, since) = (at.as_secs_f64(), since.as_secs_f64());
                write!(f, "{at:.3} s: the nodes reach each other since {since:.3} s and have not found one view")
            }
            Self::Broken(what) => write!(f, "{what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Two nodes that are in harmony, but for the times in which they are not; the first key is written at 100 s.
    fn history(lost: std::ops::Range<u32>, gets: &[Get]) -> History {
        let standing = |second| {
            let is_lost = lost.contains(&second);
            let harmony = if is_lost { vec![1, 2] } else { vec![3, 3] };
            let views = if is_lost { vec![5, 6] } else { vec![7, 7] };
            let (sees, reaches) = (harmony.clone(), harmony.clone());
            let at = SECOND * second;
            Standing {
                at,
                harmony,
                views,
                sees,
                reaches,
                away: 0,
                stopped: 0,
                is_whole: !is_lost,
                is_source_well: true,
            }
        };
        let write = Write {
            node: 0,
            space: Space::Exact,
            key: 0,
            version: 1,
            is_put: false,
            begun: SECOND * 100,
            ended: SECOND * 100,
            owner: None,
            outcome: Ok(()),
        };
        let standings = (0..300).map(standing).collect();
        History { gets: gets.to_vec(), writes: vec![write], standings, faults: 1, ..History::default() }
    }

    fn get(second: u32, version: u64) -> Get {
        let at = SECOND * second + Duration::from_millis(500);
        Get {
            node: 1,
            space: Space::Exact,
            key: 0,
            begun: at,
            ended: at,
            owner: None,
            outcome: Ok((version, Origin::HotCopy)),
        }
    }

    fn violations(lost: std::ops::Range<u32>, gets: &[Get]) -> usize {
        judge(&history(lost, gets), SECOND * 300).violations.len()
    }

    /// Whether anybody can have told of the write or not.
    fn unexcused(history: &History) -> usize {
        let verdict = judge(history, SECOND * 300);
        verdict.violations.len() + verdict.forgotten as usize
    }

    #[test]
    fn in_harmony_a_write_is_seen_at_once() {
        assert_eq!(violations(0..1, &[get(99, 0), get(100, 1)]), 0);
        assert_eq!(violations(0..1, &[get(100, 0), get(200, 0)]), 2);
    }

    #[test]
    fn what_was_written_while_there_was_none_is_seen_ten_seconds_after() {
        assert_eq!(violations(90..150, &[get(140, 0), get(158, 0)]), 0);
        assert_eq!(violations(90..150, &[get(160, 0)]), 1);
    }

    #[test]
    fn what_was_written_after_it_is_seen_as_soon_as_connections_are_made_anew() {
        assert_eq!(violations(90..100, &[get(100, 0)]), 0);
        assert_eq!(violations(90..100, &[get(102, 0)]), 1);
    }

    #[test]
    fn a_hold_may_have_died_with_the_owner_that_knew_it() {
        let mut crashed = history(90..150, &[]);
        for standing in &mut crashed.standings {
            (standing.harmony, standing.away) = (vec![1, 2, 0], 4);
            (standing.sees, standing.reaches) = (vec![7, 7, 0], vec![7, 7, 7]);
            (standing.views, standing.is_whole) = (vec![5, 5, 0], false);
        }
        let mut of = |space| {
            crashed.gets = vec![Get { space, ..get(104, 0) }];
            crashed.writes[0].space = space;
            judge(&crashed, SECOND * 300).violations.len()
        };
        assert_eq!((of(Space::Exact), of(Space::Lagging)), (1, 0));
    }

    #[test]
    fn a_lease_bounds_a_get_whose_view_does_not_change_under_it() {
        let mut slow = get(110, 0);
        slow.ended = SECOND * 112;
        let mut cut = history(90..150, &[slow]);
        cut.standings.iter_mut().for_each(|standing| (standing.views, standing.sees) = (vec![5, 5], vec![3, 3]));
        assert_eq!(unexcused(&cut), 1);
        cut.standings[111].views = vec![7, 7];
        assert_eq!(unexcused(&cut), 0, "it has met the other side");
    }

    #[test]
    fn a_lease_and_the_time_with_two_views_bound_a_get_whose_view_has_changed() {
        let mut cut = history(90..150, &[get(107, 0)]);
        let of_the_reader = |cut: &mut History, from: usize, until: usize| {
            cut.standings.iter_mut().for_each(|standing| (standing.views, standing.sees) = (vec![5, 5], vec![3, 3]));
            cut.standings[from..until].iter_mut().for_each(|standing| standing.views = vec![5, 6]);
            unexcused(cut)
        };
        assert_eq!(of_the_reader(&mut cut, 0, 96), 1, "the same view since before the write");
        assert_eq!(of_the_reader(&mut cut, 101, 102), 0, "ten seconds after it has come to its view");
        cut.gets = vec![get(113, 0)];
        assert_eq!(of_the_reader(&mut cut, 101, 102), 1);
        assert_eq!(of_the_reader(&mut cut, 101, 110), 0, "as long again as there were two");
    }

    #[test]
    fn ten_seconds_after_all_is_whole_nothing_excuses() {
        let mut whole = history(90..150, &[get(109, 0)]);
        let at_whole = |whole: &mut History, from: usize| {
            for (at, standing) in whole.standings.iter_mut().enumerate() {
                (standing.sees, standing.is_whole) = (vec![3, 3], at >= from);
            }
            unexcused(whole)
                - usize::from(
                    judge(whole, SECOND * 300).violations.iter().any(|found| matches!(found, Violation::Parted { .. })),
                )
        };
        assert_eq!((at_whole(&mut whole, 101), at_whole(&mut whole, 98)), (0, 1));
    }

    #[test]
    fn whom_the_owner_reaches_is_told_at_once_whatever_befalls_others() {
        let mut cut = history(0..300, &[Get { owner: Some(2), ..get(100, 0) }]);
        cut.writes[0].owner = Some(2);
        for standing in &mut cut.standings {
            // The fourth hears only the third.
            (standing.harmony, standing.views) = (vec![0; 4], vec![5; 4]);
            (standing.sees, standing.reaches) = (vec![15; 4], vec![7, 7, 15, 12]);
        }
        let count = |cut: &History| judge(cut, SECOND * 300).violations.len();
        assert_eq!(count(&cut), 1);
        cut.standings[95].views = vec![5, 5, 6, 5];
        assert_eq!(count(&cut), 0, "the owner had another view a moment ago");
        cut.standings[95].views = vec![5; 4];
        cut.gets[0].owner = Some(3);
        assert_eq!(count(&cut), 0, "the key's owner is another now");
    }

    #[test]
    fn what_is_loaded_is_no_put_that_came_late() {
        let mut late = history(0..1, &[get(101, 0)]);
        late.standings[98].is_source_well = false;
        let failed = Write {
            is_put: true,
            outcome: Err("why".into()),
            begun: SECOND * 99,
            ended: SECOND * 99,
            ..late.writes[0].clone()
        };
        late.writes = vec![failed, Write { version: 2, ..late.writes[0].clone() }];
        late.gets[0].outcome = Ok((1, Origin::Owned));
        assert_eq!(judge(&late, SECOND * 300).violations.len(), 0);
        late.gets[0].outcome = Ok((1, Origin::Loaded));
        assert_eq!(judge(&late, SECOND * 300).violations.len(), 1);
    }

    #[test]
    fn a_write_that_fails_though_all_is_well_is_found() {
        let mut failed = history(0..1, &[]);
        failed.writes[0].outcome = Err("why".into());
        assert_eq!(judge(&failed, SECOND * 300).violations.len(), 1);
        failed.standings[95].is_whole = false;
        assert_eq!(judge(&failed, SECOND * 300).violations.len(), 0);
    }

    #[test]
    fn who_is_seen_by_all_is_told_though_views_differ() {
        let mut views_differ = history(90..150, &[get(100, 0)]);
        assert_eq!(judge(&views_differ, SECOND * 300).violations.len(), 0);
        for standing in &mut views_differ.standings {
            (standing.sees, standing.reaches) = (vec![3, 3], vec![3, 3]);
        }
        assert_eq!(judge(&views_differ, SECOND * 300).violations.len(), 1);
        views_differ.standings[100].reaches = vec![1, 2];
        assert_eq!(judge(&views_differ, SECOND * 300).violations.len(), 0);
    }

    #[test]
    fn an_owner_does_not_tell_what_another_gave_of_whom_it_has_not_heard() {
        let mut views_differ = history(90..150, &[get(100, 0)]);
        for standing in &mut views_differ.standings {
            (standing.harmony, standing.views) = (vec![1, 2, 4], vec![5, 6, 6]);
            (standing.sees, standing.reaches, standing.is_whole) = (vec![7, 7, 7], vec![7, 7, 7], false);
        }
        assert_eq!(judge(&views_differ, SECOND * 300).violations.len(), 1);
        views_differ.standings.iter_mut().for_each(|standing| standing.sees[0] = 3);
        assert_eq!(judge(&views_differ, SECOND * 300).violations.len(), 0);
    }

    #[test]
    fn a_write_is_forgotten_where_all_who_knew_of_it_ended_alone() {
        let (mut ended, late) = (history(90..150, &[get(160, 0)]), SECOND * 300);
        ended.standings[120].sees = vec![0, 2];
        let verdict = judge(&ended, late);
        assert_eq!((verdict.violations.len(), verdict.forgotten), (0, 1));
        ended.standings[110].sees = vec![3, 3];
        assert_eq!(judge(&ended, late).forgotten, 1, "it had not noticed yet that it is alone");
        ended.standings[110].reaches = vec![3, 3];
        assert_eq!(judge(&ended, late).violations.len(), 1, "it met another before");
    }

    /// It lives on out of sight; under the writer's number, or the reader's, another life is met.
    #[test]
    fn who_knew_of_a_write_may_have_met_nobody_yet() {
        let (mut apart, late) = (history(90..150, &[get(160, 0)]), SECOND * 300);
        apart.standings.iter_mut().skip(90).for_each(|standing| standing.sees = vec![1, 2]);
        assert_eq!((judge(&apart, late).violations.len(), judge(&apart, late).forgotten), (0, 1));
        apart.gets[0].node = 0;
        assert_eq!(judge(&apart, late).violations.len(), 1, "it knew itself");
        apart.standings[105].sees[0] = 0;
        assert_eq!(judge(&apart, late).forgotten, 1, "it did in an earlier life");
        (apart.standings[104].sees[0], apart.standings[104].reaches[0]) = (3, 3);
        (apart.standings[106].sees[1], apart.standings[106].reaches[1]) = (3, 3);
        assert_eq!(judge(&apart, late).violations.len(), 1, "which had told another that is met again");
    }

    #[test]
    fn a_put_that_failed_may_come_after_the_next_write_but_not_much_later() {
        let mut late = history(0..1, &[get(110, 1)]);
        late.standings[99].is_source_well = false;
        late.writes[0] = Write { is_put: true, outcome: Err("why".into()), ..late.writes[0].clone() };
        let next = |second| Write {
            version: 2,
            begun: SECOND * second,
            ended: SECOND * second,
            outcome: Ok(()),
            ..late.writes[0].clone()
        };
        let after = |second| History {
            gets: late.gets.clone(),
            writes: vec![late.writes[0].clone(), next(second)],
            standings: late.standings.clone(),
            faults: 1,
            ..History::default()
        };
        assert_eq!(judge(&after(109), SECOND * 300).violations.len(), 0);
        assert_eq!(judge(&after(110), SECOND * 300).violations.len(), 1);
        let mut stood_still = after(118);
        stood_still.standings[100..109].iter_mut().for_each(|standing| standing.stopped = 4);
        stood_still.gets = vec![get(119, 1)];
        assert_eq!(
            judge(&stood_still, SECOND * 300).violations.len(),
            0,
            "sent to a process that stood still until 109 s"
        );
        stood_still.standings[100..108].iter_mut().for_each(|standing| standing.stopped = 0);
        stood_still.standings[108].stopped = 4;
        assert_eq!(judge(&stood_still, SECOND * 300).violations.len(), 1, "it had failed before");
    }

    #[test]
    fn a_version_that_nobody_wrote_and_an_error_when_all_is_well_are_found() {
        assert_eq!(violations(0..1, &[get(120, 2)]), 1);
        let failed = Get { outcome: Err("why".into()), ..get(120, 0) };
        assert_eq!(violations(0..1, std::slice::from_ref(&failed)), 1);
        assert_eq!(violations(115..121, std::slice::from_ref(&failed)), 1, "whoever else is out of sight");
        let mut down = history(0..1, &[failed]);
        down.standings[119].is_source_well = false;
        assert_eq!(judge(&down, SECOND * 300).violations.len(), 0);
        down.standings[119].is_source_well = true;
        down.standings[119].sees[1] = 0;
        assert_eq!(judge(&down, SECOND * 300).violations.len(), 0);
    }

    #[test]
    fn nodes_that_reach_each_other_have_to_find_one_view() {
        let mut apart = history(50..90, &[]);
        apart.standings.iter_mut().for_each(|standing| standing.is_whole = true);
        assert_eq!(judge(&apart, SECOND * 300).violations.len(), 1);
    }

    #[test]
    fn a_run_in_which_little_happened_means_nothing() {
        let judged = |faults, get: Get, length| judge(&History { faults, ..history(0..1, &[get]) }, length).void;
        let short = Duration::from_millis(20);
        assert_eq!(judged(1, get(120, 1), short), None);
        assert_eq!(judged(1, get(120, 1), SECOND * 300), Some("under 100 operations a second"));
        assert_eq!(judged(0, get(120, 1), short), Some("no fault fired"));
        let owned = Get { outcome: Ok((1, Origin::Owned)), ..get(120, 1) };
        assert_eq!(judged(1, owned, short), Some("no hot hit"));
        assert_eq!(judged(1, get(50, 0), short), Some("no write had returned before a get"));
    }
}
