//! What the promise allows each get to return, and which gets returned less.
//!
//! Pure: a history in, a verdict out. It knows, for each get, the oldest version that it may return:
//!
//! - In harmony (the reader's node, the writer's node and all whom they see have one view and reach each other) none older than the
//!   last write that returned Ok before the get began.
//! - Where there was no harmony since the write began, an older one until [`HEALED`] after harmony is back.
//! - Where harmony was back before the write began, for [`SETTLED`] more, and no longer.
//! - Whatever happens, as long as the reader's node and the writer's agree on the view, none older than a lease after the write.
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

use crate::history::{Get, History, LAG, LOAD_MAX, Space, Standing, Write, nodes_of};

/// The promise after a heal.
const HEALED: Duration = Duration::from_secs(10);
/// Connections are made anew, and what was in doubt dropped.
const SETTLED: Duration = Duration::from_millis(1_500);
const LEASE: Duration = Duration::from_secs(5);
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
    /// A caller saw an error though everything was well.
    Error { get: Get },
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
    /// Nothing can be concluded from it, and why.
    pub void: Option<&'static str>,
}

/// Judges one run of this length.
pub fn judge(history: &History, length: Duration) -> Verdict {
    let standings = Standings(&history.standings);
    let mut violations: Vec<_> = history.broken.iter().cloned().map(Violation::Broken).collect();
    let mut writes: HashMap<(Space, usize), Vec<&Write>> = HashMap::new();
    for write in history.writes.iter() {
        writes.entry((write.space, write.key)).or_default().push(write);
    }
    for of_key in writes.values_mut() {
        of_key.sort_by_key(|write| write.version);
    }
    let mut forgotten = 0;
    for get in &history.gets {
        let of_key = writes.get(&(get.space, get.key)).map_or(&[][..], Vec::as_slice);
        match judge_get(get, of_key, &standings) {
            Some(Violation::Stale { write, .. }) if standings.is_forgotten(get, &write) => forgotten += 1,
            violation => violations.extend(violation),
        }
    }
    violations.extend(standings.partings());
    let is_hot = |get: &&Get| matches!(get.outcome, Ok((_, distcache::Origin::HotCopy)));
    let hot_hits = history.gets.iter().filter(is_hot).count() as u64;
    let ops = (history.gets.len() + history.writes.len()) as u64;
    let void = match () {
        () if ops < 100 * length.as_secs() => Some("under 100 operations a second"),
        () if history.faults == 0 => Some("no fault fired"),
        () if hot_hits == 0 => Some("no hot hit"),
        () => None,
    };
    Verdict { violations, ops, hot_hits, faults: history.faults, forgotten, void }
}

/// `writes`: those of the get's key, by version.
fn judge_get(get: &Get, writes: &[&Write], standings: &Standings<'_>) -> Option<Violation> {
    let version = match &get.outcome {
        Ok((version, _)) => *version,
        Err(_) => return standings.were_well(get).then(|| Violation::Error { get: get.clone() }),
    };
    let newest = writes.iter().rev().find(|write| write.begun <= get.ended).map_or(0, |write| write.version);
    if version > newest {
        return Some(Violation::Untrue { get: get.clone(), newest });
    }
    let came_late = writes.iter().find(|write| write.version == version && write.is_put && write.outcome.is_err());
    let at_last = came_late.map_or(Duration::ZERO, |put| standings.goes_on_after(put) + UNDER_WAY);
    let newer = writes.iter().rev().take_while(|write| write.version > version && write.begun >= at_last);
    // The earliest of them has been true for the longest.
    let mut overlooked: Vec<_> = newer.filter(|write| write.outcome.is_ok() && write.ended <= get.begun).collect();
    overlooked.reverse();
    overlooked.into_iter().find_map(|write| {
        // Also where it was lost while the get was under way.
        let lost = standings.harmony_lost(get.node, write.node, get.ended);
        let violation = || Violation::Stale { get: get.clone(), write: (*write).clone(), harmony_lost: lost };
        (!is_allowed(get, write, lost, standings)).then(violation)
    })
}

/// Whether a get may overlook a write that returned Ok before it began. `lost`: when there was no harmony last.
fn is_allowed(get: &Get, write: &Write, lost: Option<Duration>, standings: &Standings<'_>) -> bool {
    let source = if write.space == Space::Lagging { LAG + LOAD_MAX } else { Duration::ZERO };
    if get.begun <= write.ended + source {
        return true;
    }
    let Some(lost) = lost else { return false };
    if standings.were_in_touch(get, write) {
        return false;
    }
    let patience = if lost >= write.begun { HEALED } else { SETTLED };
    let within_lease = get.begun <= write.ended + LEASE + LEASE_MARGIN + source;
    get.begun <= lost + patience + source && (within_lease || !standings.agreed(get, write))
}

struct Standings<'a>(&'a [Standing]);

impl Standings<'_> {
    /// The last standing at or before a time, and the next one: what happens between two looks belongs to both.
    fn until(&self, at: Duration) -> &[Standing] {
        let end = self.0.partition_point(|standing| standing.at <= at);
        &self.0[..(end + 1).min(self.0.len())]
    }

    /// When these two nodes, and whom they see, were last not in harmony, up to some time.
    fn harmony_lost(&self, a: usize, b: usize, until: Duration) -> Option<Duration> {
        let is_lost = |standing: &&Standing| standing.harmony[a] & 1 << b == 0;
        self.until(until).iter().rev().find(is_lost).map(|standing| standing.at)
    }

    /// Whether the get's node had the writer's view all the time from the write on, until the get ended.
    fn agreed(&self, get: &Get, write: &Write) -> bool {
        let begun = self.0.partition_point(|standing| standing.at < write.begun).saturating_sub(1);
        let between = &self.until(get.ended)[begun..];
        let Some(first) = between.first() else { return false };
        let view = first.views[write.node];
        let written = between.iter().take_while(|standing| standing.at <= write.ended);
        view != 0
            && written.map(|standing| standing.views[write.node]).all(|seen| seen == view)
            && between.iter().all(|standing| standing.views[get.node] == view)
    }

    /// Whether, from the write on, all whom the reader's node or the writer's ever saw were up, saw these two, were seen by the writer's,
    /// and reached each other: whoever of them was the owner told the reader's node of the write, whether their views were the same or not.
    /// A hold is known to the owner: it says nothing of what others load in its place where one of them is gone.
    fn were_in_touch(&self, get: &Get, write: &Write) -> bool {
        let connected = self.0.partition_point(|standing| standing.at + SETTLED < write.begun).saturating_sub(1);
        let begun = self.0.partition_point(|standing| standing.at < write.begun).saturating_sub(1);
        let until = self.until(get.ended).len();
        let both = 1 << get.node | 1 << write.node;
        let of_either = |standing: &Standing| standing.sees[get.node] | standing.sees[write.node];
        let seen = self.0[begun..until].iter().fold(both, |seen, standing| seen | of_either(standing));
        let is_aware = |standing: &Standing| {
            let up = seen & !standing.away;
            (write.space == Space::Exact || up == seen)
                && up & both == both
                && up & !standing.sees[write.node] == 0
                && nodes_of(up).all(|node| standing.sees[node] & both == both)
        };
        let is_connected = |standing: &Standing| nodes_of(seen).all(|node| standing.reaches[node] & seen == seen);
        self.0[connected..until].iter().all(is_connected) && self.0[begun..until].iter().all(is_aware)
    }

    /// When a write had ended and no process that it may have been sent to stood still any more.
    fn goes_on_after(&self, write: &Write) -> Duration {
        let begun = self.0.partition_point(|standing| standing.at < write.begun).saturating_sub(1);
        let (during, ended) = (&self.0[begun..], write.ended);
        if during.iter().take_while(|standing| standing.at <= ended).all(|standing| standing.stopped == 0) {
            return ended;
        }
        let goes_on = during.iter().find(|standing| standing.at > ended && standing.stopped == 0);
        goes_on.map_or(Duration::MAX - UNDER_WAY, |standing| standing.at)
    }

    /// Whether nobody can have told the get's node of the write: no chain of nodes that saw each other, one after the other, leads from the
    /// writer's to it. Who is started anew is somebody else.
    fn is_forgotten(&self, get: &Get, write: &Write) -> bool {
        let written = self.0.partition_point(|standing| standing.at < write.ended).saturating_sub(1);
        let after = &self.0[written..self.until(get.begun).len()];
        let Some(first) = after.first() else { return false };
        let aware = after.iter().fold(first.sees[write.node], |aware, standing| {
            let aware = aware & standing.up();
            nodes_of(aware).fold(aware, |all, node| all | standing.sees[node] & standing.up())
        });
        first.sees[write.node] != 0 && aware & 1 << get.node == 0
    }

    /// Whether everything had been well for a while when the get began, and stayed so.
    fn were_well(&self, get: &Get) -> bool {
        let all = (1u32 << self.0.first().map_or(0, |first| first.harmony.len())) - 1;
        let from = get.begun.saturating_sub(AT_REST);
        let begun = self.0.partition_point(|standing| standing.at < from);
        let during = self.until(get.ended).get(begun..).unwrap_or_default();
        from > Duration::ZERO
            && !during.is_empty()
            && during.iter().all(|standing| standing.is_source_well && standing.harmony.iter().all(|seen| *seen == all))
    }

    /// Times at which nodes that all reach each other had not found one view for too long.
    fn partings(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut since = None;
        for standing in self.0 {
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
                write!(
                    f,
                    "{:.3} s: node {} got version {:?} of {} key {}",
                    get.begun.as_secs_f64(),
                    get.node,
                    get.outcome,
                    get.space.name(),
                    get.key
                )?;
                write!(
                    f,
                    ", {late:.1?} after version {} had been written at node {} ({:.3} to {:.3} s)",
                    write.version,
                    write.node,
                    write.begun.as_secs_f64(),
                    write.ended.as_secs_f64()
                )?;
                match harmony_lost {
                    Some(lost) => write!(f, "; they were in harmony since {:.3} s", lost.as_secs_f64()),
                    None => write!(f, "; they had always been in harmony"),
                }
            }
            Self::Untrue { get, newest } => {
                write!(
                    f,
                    "{:.3} s: node {} got {:?} of key {}, whose newest version was {newest}",
                    get.begun.as_secs_f64(),
                    get.node,
                    get.outcome,
                    get.key
                )
            }
            Self::Error { get } => {
                write!(
                    f,
                    "{:.3} s: node {} got {:?} of key {} though all was well",
                    get.begun.as_secs_f64(),
                    get.node,
                    get.outcome,
                    get.key
                )
            }
            Self::Parted { since, at } => {
                write!(
                    f,
                    "{:.3} s: the nodes reach each other since {:.3} s and have not found one view",
                    at.as_secs_f64(),
                    since.as_secs_f64()
                )
            }
            Self::Broken(what) => write!(f, "{what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use distcache::Origin;

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
            outcome: Ok(()),
        };
        let standings = (0..300).map(standing).collect();
        History { gets: gets.to_vec(), writes: vec![write], standings, faults: 1, ..History::default() }
    }

    fn get(second: u32, version: u64) -> Get {
        let at = SECOND * second + Duration::from_millis(500);
        Get { node: 1, space: Space::Exact, key: 0, begun: at, ended: at, outcome: Ok((version, Origin::HotCopy)) }
    }

    fn violations(lost: std::ops::Range<u32>, gets: &[Get]) -> usize {
        judge(&history(lost, gets), SECOND * 300).violations.len()
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
        assert_eq!(judge(&cut, SECOND * 300).violations.len(), 1);
        cut.standings[111].views = vec![7, 7];
        assert_eq!(judge(&cut, SECOND * 300).violations.len(), 0, "it has met the other side");
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
        apart.standings[104].sees[0] = 3;
        apart.standings[106].sees[1] = 3;
        assert_eq!(judge(&apart, late).violations.len(), 1, "which had told another that is met again");
    }

    #[test]
    fn a_put_that_failed_may_come_after_the_next_write_but_not_much_later() {
        let mut late = history(0..1, &[get(110, 1)]);
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
        assert_eq!(violations(115..121, &[failed]), 0);
    }

    #[test]
    fn nodes_that_reach_each_other_have_to_find_one_view() {
        let mut apart = history(50..90, &[]);
        apart.standings.iter_mut().for_each(|standing| standing.is_whole = true);
        assert_eq!(judge(&apart, SECOND * 300).violations.len(), 1);
    }

    #[test]
    fn a_run_in_which_little_happened_means_nothing() {
        assert!(judge(&history(0..1, &[get(120, 1)]), SECOND * 300).void.is_some());
    }
}
