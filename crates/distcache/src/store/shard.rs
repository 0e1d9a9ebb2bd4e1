//! A part of a shelf under one lock: the policy in force, and those that it still takes records over from.
//!
//! A change of policy moves nothing by itself. Every write moves a few records, and a sweep moves the rest, in steps; reads look
//! at both meanwhile. The invariants: a record stands in one place only, and is moved under the lock, so nothing that was
//! removed or overwritten meanwhile comes back; all policies together stay under the limit.

use std::{iter, mem};

use super::Record;
use super::policy::{Chosen, Coldest, Pushed};
use crate::spec::Eviction;

/// Records that a write moves while a change is under way.
const MOVED_BY_A_WRITE: usize = 8;

pub(super) struct Shard {
    policy: Chosen,
    /// Earlier policies that still hold something, the latest last.
    earlier: Vec<Chosen>,
    bytes_max: u64,
}

impl Shard {
    pub(super) fn new(eviction: Eviction, bytes_max: u64) -> Self {
        Self { policy: Chosen::new(eviction, bytes_max), earlier: Vec::new(), bytes_max }
    }

    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    pub(super) fn get(&mut self, hash: u64) -> Option<&Record> {
        match self.policy.get(hash) {
            Some(record) => Some(record),
            None => self.earlier.iter_mut().find_map(|policy| policy.get(hash)),
        }
    }

    #[inline]
    pub(super) fn get_shared(&self, hash: u64) -> Option<&Record> {
        match self.policy.get_shared(hash) {
            Some(record) => Some(record),
            None if self.earlier.is_empty() => None,
            None => self.peek_earlier(hash),
        }
    }

    #[cold]
    fn peek_earlier(&self, hash: u64) -> Option<&Record> {
        self.earlier.iter().find_map(|policy| policy.peek(hash))
    }

    pub(super) fn peek(&self, hash: u64) -> Option<&Record> {
        self.all().find_map(|policy| policy.peek(hash))
    }

    pub(super) fn amend<T>(&mut self, hash: u64, change: impl FnOnce(&mut Record) -> T) -> Option<T> {
        self.holder(hash)?.amend(hash, change)
    }

    /// What was replaced is returned, what had to go is pushed.
    pub(super) fn insert(&mut self, hash: u64, record: Record, out: &mut Pushed) -> Option<Record> {
        if self.earlier.is_empty() {
            return self.policy.insert(hash, record, out);
        }
        let earlier = self.earlier.iter_mut().find_map(|policy| policy.remove_if(hash, |_| true));
        self.take_over(MOVED_BY_A_WRITE, out);
        let replaced = self.policy.insert(hash, record, out);
        self.bound(out);
        replaced.or(earlier)
    }

    pub(super) fn remove_if(&mut self, hash: u64, condition: impl FnOnce(&Record) -> bool) -> Option<Record> {
        self.holder(hash)?.remove_if(hash, condition)
    }

    pub(super) fn hashes(&self, out: &mut Vec<u64>) {
        self.all().for_each(|policy| policy.hashes(out));
    }

    pub(super) fn len(&self) -> usize {
        self.all().map(Chosen::len).sum()
    }

    pub(super) fn weight(&self) -> u64 {
        self.all().map(Chosen::weight).sum()
    }

    pub(super) fn set_bytes_max(&mut self, bytes_max: u64, out: &mut Pushed) {
        self.bytes_max = bytes_max;
        self.policy.set_bytes_max(bytes_max, out);
        self.bound(out);
    }

    /// Puts another policy in force. What the former holds waits to be taken over.
    pub(super) fn change_policy(&mut self, eviction: Eviction) {
        let former = mem::replace(&mut self.policy, Chosen::new(eviction, self.bytes_max));
        // So there are never more of them than records.
        if former.len() > 0 {
            self.earlier.push(former);
        }
    }

    /// Moves about so many records to the policy in force; whether any are left to move.
    pub(super) fn take_over(&mut self, records: usize, out: &mut Pushed) -> bool {
        let mut moving = Vec::with_capacity(records);
        while let Some(former) = self.earlier.last_mut()
            && moving.len() < records
        {
            former.give(records - moving.len(), self.policy.takes(), &mut moving);
            if former.len() == 0 {
                self.earlier.pop();
            }
        }
        for (hash, record) in moving {
            self.policy.take_over(hash, record, out);
        }
        self.bound(out);
        !self.earlier.is_empty()
    }

    /// What does not fit while a change is under way goes from the cold end of what was there before it.
    fn bound(&mut self, out: &mut Pushed) {
        while self.weight() > self.bytes_max
            && let Some(former) = self.earlier.first_mut()
        {
            if !self.policy.evict_taken_over(out) {
                former.give(1, Coldest::First, out);
            }
            if former.len() == 0 {
                self.earlier.remove(0);
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &Chosen> {
        iter::once(&self.policy).chain(&self.earlier)
    }

    /// Who has the record under this hash, if anybody.
    fn holder(&mut self, hash: u64) -> Option<&mut Chosen> {
        if self.earlier.is_empty() {
            return Some(&mut self.policy);
        }
        iter::once(&mut self.policy).chain(&mut self.earlier).find(|policy| policy.peek(hash).is_some())
    }
}
