//! How many questions nodes ask each other: each is one message there and one back.

use super::*;

pub(super) const LEASE: Duration = Duration::from_secs(1);

/// An owner and two who read, under slots that are older than a lease.
pub(super) struct Calm(pub(super) [Puppet; 3]);

const OWNER: usize = 0;

impl Calm {
    pub(super) async fn new() -> Self {
        Self::with(LEASE).await
    }

    pub(super) async fn with(lease: Duration) -> Self {
        let source = Counting::default();
        let names = ["a", "b", "c"];
        let nodes = [puppet("a", &source).await, puppet("b", &source).await, puppet("c", &source).await];
        for me in 0..3 {
            let state = |node| if node == OWNER { PeerState::Ready } else { PeerState::Draining };
            let peers = (0..3).map(|node| peer(names[node], nodes[node].addr, state(node), node == me));
            nodes[me].node.adopt(peers.collect());
            nodes[me].core.redefine(KeyspaceSpec::new("things", source.clone()).lease(lease));
        }
        let young = || {
            let (node, lease) = (&nodes[OWNER].node, super::super::serve::in_books(lease));
            node.topology().placement.is_young(0, node.clock.now(), lease)
        };
        while young() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self(nodes)
    }

    async fn get(&self, node: usize, key: &str) -> Origin {
        match self.0[node].core.lookup(key) {
            Some((_, holding)) => origin_of(holding),
            None => get(&self.0[node], key).await.unwrap().origin,
        }
    }

    async fn put(&self, node: usize, key: &str) {
        self.0[node].core.put(key, Bytes::from_static(b"v"), PutOptions::new()).await.unwrap();
    }

    async fn delete(&self, node: usize, key: &str) {
        self.0[node].core.delete(key, DeleteOptions::new()).await.unwrap();
    }

    /// How many each has asked since this was called last.
    fn questions(&self) -> [usize; 3] {
        let of = |puppet: &Puppet| puppet.node.topology().links().map(|link| link.questions.swap(0, SeqCst)).sum();
        [of(&self.0[0]), of(&self.0[1]), of(&self.0[2])]
    }
}

#[tokio::test]
async fn a_hit_asks_nobody_a_miss_asks_the_owner_once_and_so_does_a_write_of_what_nobody_else_holds() {
    let calm = Calm::new().await;
    assert_eq!(calm.get(OWNER, "k").await, Origin::Loaded);
    assert_eq!(calm.get(OWNER, "k").await, Origin::Owned);
    assert_eq!(calm.questions(), [0, 0, 0]);
    assert_eq!((calm.get(1, "k").await, calm.get(1, "k").await), (Origin::Peer, Origin::Peer));
    assert_eq!(calm.questions(), [0, 2, 0]);
    assert_eq!(calm.get(1, "k").await, Origin::HotCopy);
    assert_eq!(calm.questions(), [0, 0, 0]);
    calm.put(1, "put").await;
    calm.delete(2, "deleted").await;
    assert_eq!(calm.questions(), [0, 1, 1]);
    calm.put(OWNER, "put").await;
    calm.delete(OWNER, "deleted").await;
    assert_eq!(calm.questions(), [0, 0, 0]);
}

#[tokio::test]
async fn a_write_of_what_another_node_holds_tells_that_one_alone() {
    let calm = Calm::new().await;
    calm.get(1, "k").await;
    calm.get(1, "k").await;
    calm.questions();
    calm.put(2, "k").await;
    assert_eq!(calm.questions(), [1, 0, 1]);
    assert_eq!(calm.get(1, "k").await, Origin::Peer);
}
