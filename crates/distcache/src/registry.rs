//! What the cluster agreed on about its keyspaces: latest clear, settings, whether they still exist.
//!
//! Pure: a value that nodes exchange and merge. The invariant: merging is idempotent, commutative and associative, so that all
//! nodes that heard the same things, in whatever order and however often, know the same.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Overload};
use crate::spec::{KeyspaceSettings, is_keyspace_name};

/// More keyspaces than anybody has, those deleted among them; what goes beyond is refused. Together they fit an exchange.
const KEYSPACES_MAX: usize = 4_000;
/// Of these, how many are taken over from others without being defined here, so that nobody who invents some fills the table.
const KEYSPACES_HEARD_OF_MAX: usize = KEYSPACES_MAX / 2;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Registry {
    keyspaces: BTreeMap<String, Agreed>,
}

/// What is agreed about one keyspace beyond what each node defines at its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Agreed {
    /// The latest clear: wall-clock milliseconds, but always greater than the one before.
    pub(crate) generation: u64,
    /// Which definition counts, of those that were made at run time.
    version: Version,
    pub(crate) deleted: bool,
    /// `None`: as each node defined it at its start.
    pub(crate) settings: Option<KeyspaceSettings>,
}

/// The later one counts; of two made at the same time, the one of the node with the greater id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Version {
    number: u64,
    node: u64,
}

impl Registry {
    pub(crate) fn get(&self, name: &str) -> Option<&Agreed> {
        self.keyspaces.get(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Agreed)> {
        self.keyspaces.iter().map(|(name, agreed)| (name.as_str(), agreed))
    }

    /// Whether there is room to remember something of this keyspace.
    pub(crate) fn check_room(&self, name: &str) -> Result<(), Error> {
        if self.keyspaces.len() >= KEYSPACES_MAX && !self.keyspaces.contains_key(name) {
            return Err(Error::Overloaded { what: Overload::Keyspaces, limit: KEYSPACES_MAX });
        }
        Ok(())
    }

    /// Keeps a place for what others say of a keyspace that is defined here.
    pub(crate) fn expect(&mut self, name: &str) {
        if self.check_room(name).is_ok() {
            self.keyspaces.entry(name.into()).or_default();
        }
    }

    /// A new clear of a keyspace.
    pub(crate) fn clear(&mut self, name: &str, now_ms: u64) {
        let agreed = self.keyspaces.entry(name.into()).or_default();
        agreed.generation = now_ms.max(agreed.generation.saturating_add(1));
    }

    /// The keyspace is gone, with what it held.
    pub(crate) fn delete(&mut self, name: &str, now_ms: u64, node: u64) {
        self.clear(name, now_ms);
        self.define(name, now_ms, node, true, None);
    }

    /// The keyspace exists, from now on with these settings.
    pub(crate) fn settle(&mut self, name: &str, now_ms: u64, node: u64, settings: KeyspaceSettings) {
        self.define(name, now_ms, node, false, Some(settings));
    }

    fn define(&mut self, name: &str, now_ms: u64, node: u64, deleted: bool, settings: Option<KeyspaceSettings>) {
        let agreed = self.keyspaces.entry(name.into()).or_default();
        agreed.version = Version { number: now_ms.max(agreed.version.number.saturating_add(1)), node };
        (agreed.deleted, agreed.settings) = (deleted, settings);
    }

    /// Without what no honest node says: names that no keyspace bears, and numbers beyond `latest`, the wall clock at its latest,
    /// which nobody could ever outdo.
    pub(crate) fn plausible(mut self, latest: u64) -> Self {
        self.keyspaces.retain(|name, agreed| {
            is_keyspace_name(name) && agreed.generation <= latest && agreed.version.number <= latest
        });
        self
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (name, theirs) in other.keyspaces {
            if self.keyspaces.len() >= KEYSPACES_HEARD_OF_MAX && !self.keyspaces.contains_key(&name) {
                continue;
            }
            let ours = self.keyspaces.entry(name).or_default();
            ours.generation = ours.generation.max(theirs.generation);
            if theirs.counts_rather_than(ours) {
                (ours.version, ours.deleted, ours.settings) = (theirs.version, theirs.deleted, theirs.settings);
            }
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// `None` for bytes that make no sense.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

impl Agreed {
    /// Of two definitions under one version, which no honest node makes, all nodes keep the same one.
    fn counts_rather_than(&self, other: &Self) -> bool {
        match self.version.cmp(&other.version) {
            Ordering::Equal if (self.deleted, &self.settings) == (other.deleted, &other.settings) => false,
            Ordering::Equal => self.definition() > other.definition(),
            order => order.is_gt(),
        }
    }

    fn definition(&self) -> Vec<u8> {
        postcard::to_stdvec(&(self.deleted, &self.settings)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::cluster::SHARED_BYTES_MAX;

    #[derive(Clone, Debug)]
    enum Act {
        Clear(usize),
        Delete(usize),
        Settle(usize, u64),
        Merge(usize, usize),
    }

    fn acts() -> impl Strategy<Value = Vec<(usize, Act, u64)>> {
        let name = 0usize..2;
        let act = prop_oneof![
            name.clone().prop_map(Act::Clear),
            name.clone().prop_map(Act::Delete),
            (name, 1u64..5).prop_map(|(name, bytes)| Act::Settle(name, bytes)),
            (0usize..3, 0usize..3).prop_map(|(from, to)| Act::Merge(from, to)),
        ];
        prop::collection::vec((0usize..3, act, 0u64..50), 0..40)
    }

    proptest! {
        /// Three nodes that act on their own and hear of each other by chance agree once they have heard everything.
        #[test]
        fn nodes_that_heard_the_same_know_the_same(acts in acts()) {
            let mut nodes = [Registry::default(), Registry::default(), Registry::default()];
            for (node, act, now) in acts {
                let name = |n: usize| ["a", "b"][n];
                match act {
                    Act::Clear(n) => nodes[node].clear(name(n), now),
                    Act::Delete(n) => nodes[node].delete(name(n), now, node as u64),
                    Act::Settle(n, bytes) => {
                        let settings = KeyspaceSettings { max_bytes: bytes, ..Default::default() };
                        nodes[node].settle(name(n), now, node as u64, settings);
                    }
                    Act::Merge(from, to) => { let from = nodes[from].clone(); nodes[to].merge(from); }
                }
            }
            let merged = |order: [usize; 4]| order.into_iter().fold(Registry::default(), |mut all, node| {
                all.merge(Registry::decode(&nodes[node].encode()).unwrap());
                all
            });
            prop_assert_eq!(merged([0, 1, 2, 0]), merged([2, 1, 0, 1]));
        }

        #[test]
        fn garbage_is_ignored(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Registry::decode(&bytes);
        }
    }

    #[test]
    fn what_no_honest_node_says_is_passed_over() {
        let mut theirs = Registry::default();
        theirs.clear("early", 900);
        theirs.clear("late", u64::MAX);
        theirs.settle("later", u64::MAX, 1, KeyspaceSettings::default());
        theirs.clear("no name", 900);
        theirs.clear(&"n".repeat(1_000), 900);
        let left = theirs.plausible(1_000);
        assert_eq!(left.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["early"]);
    }

    #[test]
    fn as_many_keyspaces_as_there_may_be_fit_an_exchange() {
        let longest = Some(Duration::new(u64::MAX, 999_999_999));
        let settings = KeyspaceSettings {
            max_bytes: u64::MAX,
            ttl: longest,
            negative_ttl: longest,
            load_timeout: Duration::MAX,
            lease: Duration::MAX,
            ..Default::default()
        };
        let mut registry = Registry::default();
        let name = |n| format!("{n:0>128}");
        for n in 0..KEYSPACES_MAX {
            let mut theirs = Registry::default();
            theirs.settle(&name(n), u64::MAX - 1, u64::MAX, settings.clone());
            theirs.clear(&name(n), u64::MAX - 1);
            registry.merge(theirs.clone());
            assert_eq!(registry.get(&name(n)).is_some(), n < KEYSPACES_HEARD_OF_MAX);
            registry.expect(&name(n));
            registry.merge(theirs);
            assert!(
                registry.get(&name(n)).is_some_and(|agreed| agreed.settings.is_some()),
                "what is defined here has room"
            );
        }
        registry.expect("one-more");
        assert!(registry.get("one-more").is_none() && registry.check_room("one-more").is_err());
        let bytes = registry.encode().len();
        assert!(bytes <= SHARED_BYTES_MAX, "{bytes}");
    }

    #[test]
    fn of_two_definitions_under_one_version_all_keep_the_same() {
        let settled = |max_bytes| {
            let mut registry = Registry::default();
            registry.settle("a", 7, 1, KeyspaceSettings { max_bytes, ..Default::default() });
            registry
        };
        let [mut one, mut other] = [settled(1), settled(2)];
        one.merge(other.clone());
        other.merge(settled(1));
        assert_eq!(one, other);
    }

    #[test]
    fn a_later_act_counts_whatever_the_clocks_say() {
        let mut registry = Registry::default();
        registry.delete("a", 1_000, 1);
        registry.settle("a", 5, 1, KeyspaceSettings::default());
        assert!(!registry.get("a").unwrap().deleted);
        registry.clear("a", 5);
        assert_eq!(registry.get("a").unwrap().generation, 1_001);
    }
}
