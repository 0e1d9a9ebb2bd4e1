//! The pods known now: a list that is replaced as a whole, and changed pod by pod in between.
//!
//! Knows pods and no request. The invariant: at most [`PODS_MAX`] pods are kept, each with one address, and nothing that is
//! kept depends on a list that has not been read to its end.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::limits::PODS_MAX;
use crate::pod::Pod;
use crate::settings::Wanted;

/// The pods that others are to be sent to, by name.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pods: BTreeMap<String, SocketAddr>,
    is_over_limit: bool,
}

impl Known {
    /// A pod as it is now.
    pub(crate) fn put(&mut self, pod: Pod, wanted: &Wanted) {
        match pod.address(wanted) {
            None => drop(self.pods.remove(&pod.metadata.name)),
            Some(_) if self.is_full() && !self.pods.contains_key(&pod.metadata.name) => self.leave_out(),
            Some(address) => drop(self.pods.insert(pod.metadata.name, address)),
        }
    }

    pub(crate) fn remove(&mut self, pod: &Pod) {
        self.pods.remove(&pod.metadata.name);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.pods.len() >= PODS_MAX
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.pods.values().copied().collect()
    }

    fn leave_out(&mut self) {
        if !std::mem::replace(&mut self.is_over_limit, true) {
            tracing::warn!(
                limit = PODS_MAX,
                "more pods than can be members of a cluster; the rest are not taken notice of"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn pod(name: usize, phase: &str) -> Pod {
        let json = format!(
            r#"{{ "metadata": {{ "name": "p{name}" }}, "status": {{ "phase": "{phase}", "podIP": "10.0.0.1" }},
                "spec": {{ "containers": [{{ "ports": [{{ "name": "gossip", "containerPort": {} }}] }}] }} }}"#,
            name + 1
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn a_pod_comes_and_goes() {
        let (mut known, wanted) = (Known::default(), Settings::new("app=x").wanted);
        known.put(pod(0, "Pending"), &wanted);
        assert!(known.addresses().is_empty());
        known.put(pod(0, "Running"), &wanted);
        known.put(pod(1, "Running"), &wanted);
        assert_eq!(known.addresses(), ["10.0.0.1:1".parse().unwrap(), "10.0.0.1:2".parse().unwrap()]);
        known.put(pod(0, "Succeeded"), &wanted);
        known.remove(&pod(1, "Running"));
        assert!(known.addresses().is_empty());
    }

    #[test]
    fn no_more_are_kept_than_the_limit_and_one_that_goes_makes_room() {
        let (mut known, wanted) = (Known::default(), Settings::new("app=x").wanted);
        (0..PODS_MAX + 3).for_each(|name| known.put(pod(name, "Running"), &wanted));
        assert_eq!(known.addresses().len(), PODS_MAX);
        known.put(pod(0, "Failed"), &wanted);
        known.put(pod(PODS_MAX, "Running"), &wanted);
        assert_eq!(known.addresses().len(), PODS_MAX);
        assert!(known.addresses().contains(&format!("10.0.0.1:{}", PODS_MAX + 1).parse().unwrap()));
    }
}
