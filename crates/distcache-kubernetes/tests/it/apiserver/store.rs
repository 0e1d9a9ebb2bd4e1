//! The pods of the fake cluster: versions, and a history that can be forgotten.
//!
//! Pure. The invariant: every change has a version of its own, and what a watch is told follows from versions and selector
//! alone.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::selector::Selector;

#[derive(Default)]
pub struct Store {
    pods: BTreeMap<(String, String), Value>,
    version: u64,
    /// The oldest version that a watch may begin at.
    oldest: u64,
    history: Vec<Change>,
}

struct Change {
    version: u64,
    namespace: String,
    before: Option<Value>,
    after: Option<Value>,
}

impl Store {
    pub fn new() -> Self {
        // Versions are opaque: nobody may count on small ones.
        Self { version: 41_000, ..Self::default() }
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn put(&mut self, namespace: &str, mut pod: Value) {
        self.version += 1;
        pod["metadata"]["namespace"] = namespace.into();
        pod["metadata"]["resourceVersion"] = self.version.to_string().into();
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        let before = self.pods.insert((namespace.into(), name), pod.clone());
        self.note(namespace, before, Some(pod));
    }

    pub fn change(&mut self, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut pod = self.pods[&(namespace.to_owned(), name.to_owned())].clone();
        change(&mut pod);
        self.put(namespace, pod);
    }

    pub fn remove(&mut self, namespace: &str, name: &str) {
        if let Some(mut pod) = self.pods.remove(&(namespace.to_owned(), name.to_owned())) {
            self.version += 1;
            pod["metadata"]["resourceVersion"] = self.version.to_string().into();
            self.note(namespace, Some(pod), None);
        }
    }

    fn note(&mut self, namespace: &str, before: Option<Value>, after: Option<Value>) {
        self.history.push(Change { version: self.version, namespace: namespace.into(), before, after });
    }

    /// Something happens elsewhere, and whoever has not heard of it by now has to list anew.
    pub fn forget_history(&mut self) {
        self.version += 1;
        self.oldest = self.version;
        self.history.clear();
    }

    pub fn forget_history_before(&mut self, version: u64) {
        self.oldest = version;
        self.history.retain(|change| change.version > version);
    }

    pub fn remembers(&self, version: u64) -> bool {
        version >= self.oldest
    }

    pub fn list(&self, namespace: &str, selector: &Selector) -> Vec<Value> {
        let is_asked_for = |((at, _), pod): &(&(String, String), &Value)| at == namespace && selector.fits(pod);
        self.pods.iter().filter(is_asked_for).map(|(_, pod)| pod.clone()).collect()
    }

    /// The first event after `version`, and the version that it brings a watch to.
    pub fn event_after(&self, version: u64, namespace: &str, selector: &Selector) -> Option<(u64, Value)> {
        let later = self.history.iter().filter(|change| change.version > version && change.namespace == namespace);
        let mut told = later.filter_map(|change| Some((change.version, change.event(selector)?)));
        told.next()
    }
}

impl Change {
    /// A pod that the selector no longer fits is gone for this watch, one that it fits from now on is new.
    fn event(&self, selector: &Selector) -> Option<Value> {
        let fits = |pod: &Option<Value>| pod.as_ref().is_some_and(|pod| selector.fits(pod));
        let (kind, pod) = match (fits(&self.before), fits(&self.after)) {
            (false, false) => return None,
            (false, true) => ("ADDED", self.after.clone()),
            (true, true) => ("MODIFIED", self.after.clone()),
            (true, false) => ("DELETED", self.before.clone()),
        };
        let mut pod = pod?;
        pod["metadata"]["resourceVersion"] = self.version.to_string().into();
        Some(json!({ "type": kind, "object": pod }))
    }
}
