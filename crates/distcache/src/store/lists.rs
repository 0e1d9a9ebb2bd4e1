//! Records by hash, each on one of a few lists from the newest to the oldest: what LRU, FIFO and LFU are made of.
//!
//! Knows no limit and evicts nothing by itself. The invariants: every record stands in the index and on exactly one list; the
//! weight of a list is that of its records.

use std::mem;

use hashbrown::HashTable;
use slab::Slab;

use super::Record;

/// The end of a list.
const NONE: u32 = u32::MAX;

struct Slot {
    record: Record,
    hash: u64,
    newer: u32,
    older: u32,
    list: u8,
}

#[derive(Clone, Copy)]
struct List {
    newest: u32,
    oldest: u32,
    len: usize,
    weight: u64,
}

const EMPTY: List = List { newest: NONE, oldest: NONE, len: 0, weight: 0 };

/// Where a record stands, until the next call that takes one away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

/// `N` lists of records. The lists are named by numbers below `N`.
pub(super) struct Lists<const N: usize> {
    slots: Slab<Slot>,
    index: HashTable<u32>,
    lists: [List; N],
    overhead_bytes: usize,
}

impl<const N: usize> Lists<N> {
    /// `overhead_bytes`: what a record takes beside its key and value.
    pub(super) fn new(overhead_bytes: usize) -> Self {
        Self { slots: Slab::new(), index: HashTable::new(), lists: [EMPTY; N], overhead_bytes }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn len_of(&self, list: usize) -> usize {
        self.lists[list].len
    }

    pub(super) fn weight(&self) -> u64 {
        self.lists.iter().map(|list| list.weight).sum()
    }

    pub(super) fn weight_of(&self, list: usize) -> u64 {
        self.lists[list].weight
    }

    pub(super) fn find(&self, hash: u64) -> Option<Place> {
        self.index.find(hash, |&at| self.slots[at as usize].hash == hash).map(|&at| Place(at))
    }

    pub(super) fn record(&self, place: Place) -> &Record {
        &self.slots[place.0 as usize].record
    }

    /// For changes of what weighs nothing.
    pub(super) fn record_mut(&mut self, place: Place) -> &mut Record {
        &mut self.slots[place.0 as usize].record
    }

    pub(super) fn hash(&self, place: Place) -> u64 {
        self.slots[place.0 as usize].hash
    }

    pub(super) fn list_of(&self, place: Place) -> usize {
        usize::from(self.slots[place.0 as usize].list)
    }

    pub(super) fn oldest(&self, list: usize) -> Option<Place> {
        let at = self.lists[list].oldest;
        (at != NONE).then_some(Place(at))
    }

    pub(super) fn newest(&self, list: usize) -> Option<Place> {
        let at = self.lists[list].newest;
        (at != NONE).then_some(Place(at))
    }

    pub(super) fn hashes(&self, out: &mut Vec<u64>) {
        out.extend(self.slots.iter().map(|(_, slot)| slot.hash));
    }

    /// Adds a record as the newest of a list. There is none under its hash.
    pub(super) fn add(&mut self, list: usize, hash: u64, record: Record) -> Place {
        let slot = Slot { record, hash, newer: NONE, older: NONE, list: list as u8 };
        // A record takes a hundred bytes, so this many of them are more than a shard is ever given.
        let at = self.slots.insert(slot) as u32;
        let slots = &self.slots;
        self.index.insert_unique(hash, at, |&at| slots[at as usize].hash);
        self.link(at, list);
        Place(at)
    }

    /// Puts another record in the place of one; its list and rank stay.
    pub(super) fn replace(&mut self, place: Place, record: Record) -> Record {
        let list = &mut self.lists[usize::from(self.slots[place.0 as usize].list)];
        let old = mem::replace(&mut self.slots[place.0 as usize].record, record);
        list.weight -= old.weight(self.overhead_bytes);
        list.weight += self.slots[place.0 as usize].record.weight(self.overhead_bytes);
        old
    }

    /// Makes a record the newest of a list, its own or another.
    #[inline]
    pub(super) fn renew(&mut self, place: Place, list: usize) {
        if self.lists[list].newest != place.0 {
            self.unlink(place.0);
            self.link(place.0, list);
        }
    }

    pub(super) fn remove(&mut self, place: Place) -> (u64, Record) {
        self.unlink(place.0);
        let slot = self.slots.remove(place.0 as usize);
        if let Ok(found) = self.index.find_entry(slot.hash, |&at| at == place.0) {
            found.remove();
        }
        (slot.hash, slot.record)
    }

    fn link(&mut self, at: u32, list: usize) {
        let weight = self.slots[at as usize].record.weight(self.overhead_bytes);
        let ends = &mut self.lists[list];
        ends.len += 1;
        ends.weight += weight;
        let second = mem::replace(&mut ends.newest, at);
        match second {
            NONE => ends.oldest = at,
            second => self.slots[second as usize].newer = at,
        }
        let slot = &mut self.slots[at as usize];
        (slot.newer, slot.older, slot.list) = (NONE, second, list as u8);
    }

    fn unlink(&mut self, at: u32) {
        let slot = &self.slots[at as usize];
        let (newer, older, list) = (slot.newer, slot.older, usize::from(slot.list));
        let weight = slot.record.weight(self.overhead_bytes);
        let ends = &mut self.lists[list];
        ends.len -= 1;
        ends.weight -= weight;
        match newer {
            NONE => ends.newest = older,
            newer => self.slots[newer as usize].older = older,
        }
        match older {
            NONE => self.lists[list].oldest = newer,
            older => self.slots[older as usize].newer = newer,
        }
    }
}
