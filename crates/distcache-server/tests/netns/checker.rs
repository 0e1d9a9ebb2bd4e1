//! Whether a cluster kept its promises: a history in, a verdict out.
//!
//! Pure: knows no process, no network and no clock. The invariant: what is not granted here is a violation; a grant names the
//! fault and the writes that it stems from.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use crate::history::{Fault, History, Kind, Moment, Node, Read, Write};

#[cfg(test)]
mod tests;

/// Connections that a fault broke are there again so long after it.
const RECONNECTED: Duration = Duration::from_secs(1);

/// Of the keys that are seldom read so many are there before a fault, also where one has ended a node before.
const SELDOM_BEFORE_MIN: f64 = 0.75;

/// What is promised.
#[derive(Clone, Copy, Debug)]
pub struct Promises {
    /// How long a copy may live that nobody could be told to drop.
    pub lease: Duration,
    /// How long it may take until nodes notice that one of them is gone.
    pub detection: Duration,
    /// How long after the end of a fault all is as if there had been none.
    pub recovery: Duration,
    /// How long after the end of a fault as many reads are hits as before,
    pub warm_again: Duration,
    /// by this part.
    pub hits: f64,
    /// Hits are counted over so long.
    pub hits_sample: Duration,
    /// Keys from this one on are read so seldom that most would still be missing then had they been dropped: after a heal they are not.
    pub seldom_read_from: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Violation {
    /// An older version was answered than was to be.
    Stale { read: Read, write: Write, granted_until: Option<Moment> },
    /// A version was answered that nobody had written.
    Invented { read: Read },
    /// A caller saw an error that nothing explains.
    Failed { node: Node, what: &'static str, start: Moment, end: Moment, error: String },
    /// The nodes did not come to one view in time.
    Apart { fault: String, one_view_after: Option<Duration> },
    /// Too few reads were hits after a fault.
    Cold { fault: String, before: f64, after: f64 },
    /// The history shows too little to say anything.
    Void { why: String },
}

/// What happened in and after one fault.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    pub name: String,
    pub reads: usize,
    pub writes: usize,
    /// Reads of an older version, all of them granted.
    pub stale: usize,
    /// How long after a newer version was written the latest of them began.
    pub stale_for_max: Duration,
    /// Errors of callers, by their text, all of them granted.
    pub errors: BTreeMap<String, usize>,
    pub one_view_after: Option<Duration>,
    pub hits_before: f64,
    pub hits_after: f64,
    /// The same of keys that are seldom read.
    pub seldom_before: f64,
    pub seldom_after: f64,
}

#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub violations: Vec<Violation>,
    pub faults: Vec<Told>,
    pub reads: usize,
    pub copies: usize,
    pub writes: usize,
    /// Reads of what a put had brought that had failed: it may take effect at any later time.
    pub of_failed_puts: usize,
}

pub fn judge(history: &History, promises: &Promises) -> Verdict {
    let mut judge = Judge { history, promises, writes: by_key(&history.writes), verdict: Verdict::default() };
    judge.verdict.reads = history.reads.len();
    judge.verdict.writes = history.writes.len();
    judge.verdict.faults =
        history.faults.iter().map(|fault| Told { name: fault.name.clone(), ..Told::default() }).collect();
    judge.say_what_is_void();
    history.reads.iter().for_each(|read| judge.read(read));
    history.writes.iter().for_each(|write| judge.write(write));
    (0..history.faults.len()).for_each(|number| judge.fault(number));
    judge.verdict
}

fn by_key(writes: &[Write]) -> HashMap<u32, Vec<&Write>> {
    let mut by_key: HashMap<u32, Vec<&Write>> = HashMap::new();
    writes.iter().for_each(|write| by_key.entry(write.key).or_default().push(write));
    by_key
}

struct Judge<'a> {
    history: &'a History,
    promises: &'a Promises,
    writes: HashMap<u32, Vec<&'a Write>>,
    verdict: Verdict,
}

impl<'a> Judge<'a> {
    /// The fault in whose time, or in the recovery from it, this moment is.
    fn fault_at(&self, moment: Moment) -> Option<usize> {
        let recovery = self.promises.recovery;
        self.history.faults.iter().position(|fault| moment >= fault.begin && moment < fault.end + recovery)
    }

    fn read(&mut self, read: &Read) {
        let fault = self.fault_at(read.start);
        if let Some(told) = fault.and_then(|number| self.verdict.faults.get_mut(number)) {
            told.reads += 1;
        }
        let seen = match &read.outcome {
            Ok(seen) => *seen,
            Err(error) => return self.failed("get", read.node, read.start, read.end, error),
        };
        self.verdict.copies += usize::from(seen.is_copy);
        let writes = self.writes.get(&read.key).map(Vec::as_slice).unwrap_or_default();
        let not_begun = writes.iter().filter(|write| write.start > read.end).map(|write| write.version).min();
        if not_begun.is_some_and(|version| version <= seen.version) {
            return self.verdict.violations.push(Violation::Invented { read: read.clone() });
        }
        let overwritten = writes
            .iter()
            .filter(|write| write.version > seen.version && write.outcome.is_ok() && write.end <= read.start);
        let overwritten: Vec<&Write> = overwritten.copied().collect();
        if overwritten.is_empty() {
            return;
        }
        let is_of_failed_put = |write: &&Write| {
            write.version == seen.version
                && write.kind == Kind::Put
                && write.outcome.is_err()
                && write.start <= read.end
        };
        if writes.iter().any(is_of_failed_put) {
            self.verdict.of_failed_puts += 1;
            return;
        }
        self.stale(read, &overwritten, fault);
    }

    /// Of several newer versions each has to grant that it was not answered.
    fn stale(&mut self, read: &Read, overwritten: &[&Write], fault: Option<usize>) {
        for write in overwritten {
            let granted_until = fault.and_then(|number| self.granted(read, write, &self.history.faults[number]));
            if granted_until.is_none_or(|until| read.start > until) {
                let violation = Violation::Stale { read: read.clone(), write: (*write).clone(), granted_until };
                return self.verdict.violations.push(violation);
            }
        }
        let first = overwritten.iter().map(|write| write.end).min().unwrap_or(read.start);
        if let Some(told) = fault.and_then(|number| self.verdict.faults.get_mut(number)) {
            told.stale += 1;
            told.stale_for_max = told.stale_for_max.max(read.start - first);
        }
    }

    /// Until when a read may miss this write. What was written before the fault, everybody could be told.
    fn granted(&self, read: &Read, write: &Write, fault: &Fault) -> Option<Moment> {
        if write.end < fault.begin {
            return None;
        }
        let within = write.end + self.promises.lease + self.promises.detection;
        let across = fault.end + self.promises.recovery;
        // Once the sides meet, who was on the other side may still be asked for what it owned there.
        let has_two_sides = !fault.parts.is_empty() && fault.silent.is_none();
        let is_across = fault.parts_from(read.node, write.node) || has_two_sides && read.end >= fault.end;
        Some(if is_across { within.max(across) } else { within })
    }

    fn write(&mut self, write: &Write) {
        if let Some(number) = self.fault_at(write.start) {
            self.verdict.faults[number].writes += 1;
        }
        if let Err(error) = &write.outcome {
            let what = if write.kind == Kind::Put { "put" } else { "delete" };
            self.failed(what, write.node, write.start, write.end, error);
        }
    }

    fn failed(&mut self, what: &'static str, node: Node, start: Moment, end: Moment, error: &str) {
        let overlaps = |from: Moment, to: Moment| start <= to && end >= from;
        let detection = self.promises.detection;
        let is_granted = |fault: &Fault| {
            let nobody_there = fault.silent == Some(node) && overlaps(fault.begin, fault.end);
            // Nobody writes on behalf of a node that does not reach the owner: while the two are members of one view it fails.
            let is_unheard = fault.unheard.is_some_and(|(from, to)| node == from || node == to);
            let until_noticed = if is_unheard { fault.end } else { fault.begin + detection };
            let reconnecting = overlaps(fault.end, fault.end + RECONNECTED);
            let owner_out_of_reach = what != "get" && (overlaps(fault.begin, until_noticed) || reconnecting);
            nobody_there || owner_out_of_reach
        };
        match self.history.faults.iter().position(is_granted) {
            Some(number) => {
                let text = format!("{what}: {error}");
                *self.verdict.faults[number].errors.entry(text).or_default() += 1;
            }
            None => {
                let violation = Violation::Failed { node, what, start, end, error: error.to_owned() };
                self.verdict.violations.push(violation);
            }
        }
    }

    fn fault(&mut self, number: usize) {
        let fault = &self.history.faults[number];
        let next = self.history.faults.get(number + 1).map_or(self.history.ended, |next| next.begin);
        let warm = next.min(fault.end + self.promises.warm_again);
        let sample = self.promises.hits_sample;
        let around =
            [(fault.begin.saturating_sub(sample), fault.begin), (warm.saturating_sub(sample).max(fault.end), warm)];
        let seldom_from = self.promises.seldom_read_from;
        let [before, after] = around.map(|(from, to)| self.hits(from, to, |read| read.key < seldom_from));
        let [seldom_before, seldom_after] =
            around.map(|(from, to)| self.hits(from, to, |read| read.key >= seldom_from));
        if fault.one_view_after.is_none_or(|after| after > self.promises.recovery) {
            let violation = Violation::Apart { fault: fault.name.clone(), one_view_after: fault.one_view_after };
            self.verdict.violations.push(violation);
        }
        if after < before * self.promises.hits {
            self.verdict.violations.push(Violation::Cold { fault: fault.name.clone(), before, after });
        }
        // Else it would say nothing how many there are afterwards.
        if seldom_before < SELDOM_BEFORE_MIN && self.history.reads.iter().any(|read| read.key >= seldom_from) {
            let why = format!("{}: keys that are seldom read were not there before", fault.name);
            self.verdict.violations.push(Violation::Void { why });
        }
        // Who was killed comes back with nothing.
        let is_healed = !fault.parts.is_empty() && !fault.drops;
        if is_healed && seldom_after < seldom_before * self.promises.hits {
            let fault = format!("{}, keys that are seldom read", fault.name);
            self.verdict.violations.push(Violation::Cold { fault, before: seldom_before, after: seldom_after });
        }
        let told = &mut self.verdict.faults[number];
        (told.seldom_before, told.seldom_after) = (seldom_before, seldom_after);
        (told.hits_before, told.hits_after, told.one_view_after) = (before, after, fault.one_view_after);
    }

    /// The part of the reads in this time that were hits; none at all is none.
    fn hits(&self, from: Moment, to: Moment, is_wanted: impl Fn(&Read) -> bool) -> f64 {
        let reads = self.history.reads.iter().filter(|read| read.start >= from && read.start < to && is_wanted(read));
        let seen: Vec<bool> = reads.filter_map(|read| read.outcome.as_ref().ok()).map(|seen| seen.is_hit).collect();
        seen.iter().filter(|is_hit| **is_hit).count() as f64 / seen.len().max(1) as f64
    }

    fn say_what_is_void(&mut self) {
        let mut void = |why: String| self.verdict.violations.push(Violation::Void { why });
        let reads = || self.history.reads.iter().filter_map(|read| read.outcome.as_ref().ok());
        if !reads().any(|seen| seen.is_copy) {
            void("no read was answered by a copy".to_owned());
        }
        if self.history.faults.is_empty() {
            void("nothing ever failed".to_owned());
        }
        let quiet = self.promises.recovery;
        for pair in self.history.faults.windows(2).filter(|pair| pair[1].begin < pair[0].end + quiet) {
            void(format!("{} began before the recovery from {} was over", pair[1].name, pair[0].name));
        }
        for fault in &self.history.faults {
            if !fault.is_noticed {
                void(format!("{}: no node noticed", fault.name));
            }
            for part in fault.parts.iter().filter(|part| part.iter().any(|node| fault.silent != Some(*node))) {
                let is_here = |write: &&Write| {
                    let is_during = write.start >= fault.begin && write.end < fault.end;
                    is_during && write.outcome.is_ok() && part.contains(&write.node)
                };
                if !self.history.writes.iter().any(|write| is_here(&write)) {
                    void(format!("{}: nothing was written at {part:?}", fault.name));
                }
            }
        }
    }
}

impl Violation {
    /// Which promise was broken, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Stale { granted_until: None, .. } => "stale",
            Self::Stale { .. } => "stale for too long",
            Self::Invented { .. } => "invented",
            Self::Failed { .. } => "failed",
            Self::Apart { .. } => "apart",
            Self::Cold { .. } => "cold",
            Self::Void { .. } => "void",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.kind())?;
        match self {
            Self::Stale { read, write, granted_until } => tell_stale(f, read, write, *granted_until),
            Self::Invented { read } => write!(f, "{read:?}"),
            Self::Failed { node, what, start, end, error } => {
                write!(f, "{what} at node {node} from {start:.2?} to {end:.2?}: {error}")
            }
            Self::Apart { fault, one_view_after: Some(after) } => write!(f, "{fault}: one view after {after:.2?}"),
            Self::Apart { fault, one_view_after: None } => write!(f, "{fault}: no one view"),
            Self::Cold { fault, before, after } => {
                write!(f, "{fault}: {:.1} % hits before, {:.1} % after", before * 100.0, after * 100.0)
            }
            Self::Void { why } => f.write_str(why),
        }
    }
}

fn tell_stale(f: &mut fmt::Formatter<'_>, read: &Read, write: &Write, granted_until: Option<Moment>) -> fmt::Result {
    let (version, is_copy) = read.outcome.as_ref().map_or((0, false), |seen| (seen.version, seen.is_copy));
    let (at, late) = (read.start, read.start - write.end);
    let copy = if is_copy { " (a copy)" } else { "" };
    write!(
        f,
        "node {} answered version {version}{copy} of key {} at {at:.2?}, {late:.2?} after ",
        read.node, read.key
    )?;
    write!(f, "the {:?} of version {} at node {}", write.kind, write.version, write.node)?;
    match granted_until {
        Some(until) => write!(f, ", which was granted until {until:.2?}"),
        None => Ok(()),
    }
}
