//! LRU and FIFO beside what they are by definition: whatever is done to both, the same goes, in the same order.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::policy::{Chosen, Pushed};
use super::super::*;
use super::hash;
use crate::spec::Eviction::{self, Fifo, Lru};

/// The oldest first.
#[derive(Default)]
struct Model {
    queue: VecDeque<(u64, usize)>,
    reads_renew: bool,
    bytes_max: usize,
    overhead: usize,
}

impl Model {
    fn take(&mut self, key: u64) -> Option<(u64, usize)> {
        let at = self.queue.iter().position(|&(other, _)| other == key)?;
        self.queue.remove(at)
    }

    fn get(&mut self, key: u64) -> bool {
        match self.reads_renew {
            true => self.take(key).map(|entry| self.queue.push_back(entry)).is_some(),
            false => self.queue.iter().any(|&(other, _)| other == key),
        }
    }

    fn weight(&self) -> usize {
        self.queue.iter().map(|&(_, bytes)| bytes + self.overhead).sum()
    }

    fn bound(&mut self) -> Vec<u64> {
        let mut evicted = Vec::new();
        while self.weight() > self.bytes_max {
            evicted.extend(self.queue.pop_front().map(|(key, _)| key));
        }
        evicted
    }
}

#[derive(Clone, Debug)]
enum Step {
    Get(u64),
    Insert(u64, usize),
    Remove(u64),
    Amend(u64),
    Limit(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..24_u64;
    prop_oneof![
        6 => key.clone().prop_map(Step::Get),
        6 => (key.clone(), 1..900_usize).prop_map(|(key, bytes)| Step::Insert(key, bytes)),
        1 => key.clone().prop_map(Step::Remove),
        1 => key.prop_map(Step::Amend),
        1 => (1_500..6_000_usize).prop_map(Step::Limit),
    ]
}

fn check_beside_the_model(eviction: Eviction, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut model = Model {
        reads_renew: eviction == Lru,
        bytes_max: 4_000,
        overhead: overhead_bytes(eviction),
        ..Default::default()
    };
    let mut policy = Chosen::new(eviction, 4_000);
    for step in steps {
        let mut out = Pushed::new();
        let evicted = match step {
            Step::Get(key) => {
                prop_assert_eq!(policy.get(hash(key)).is_some(), model.get(key));
                Vec::new()
            }
            Step::Insert(key, bytes) => {
                let replaced = policy.insert(hash(key), Record::new("", Some(&vec![0; bytes])), &mut out);
                prop_assert_eq!(replaced.map(|record| record.data.len()), model.take(key).map(|(_, bytes)| bytes));
                model.queue.push_back((key, bytes));
                model.bound()
            }
            Step::Remove(key) => {
                prop_assert_eq!(policy.remove_if(hash(key), |_| true).is_some(), model.take(key).is_some());
                Vec::new()
            }
            Step::Amend(key) => {
                policy.amend(hash(key), |record| record.version += 1);
                Vec::new()
            }
            Step::Limit(bytes) => {
                policy.set_bytes_max(bytes as u64, &mut out);
                model.bytes_max = bytes;
                model.bound()
            }
        };
        let pushed: Vec<u64> = out.into_iter().map(|(hash, _)| hash).collect();
        prop_assert_eq!(pushed, evicted.into_iter().map(hash).collect::<Vec<_>>());
        prop_assert_eq!((policy.len(), policy.weight()), (model.queue.len(), model.weight() as u64));
    }
    Ok(())
}

proptest! {
    #[test]
    fn lru_does_what_its_model_does(steps in prop::collection::vec(step(), 1..200)) {
        check_beside_the_model(Lru, steps)?;
    }

    #[test]
    fn fifo_does_what_its_model_does(steps in prop::collection::vec(step(), 1..200)) {
        check_beside_the_model(Fifo, steps)?;
    }
}
