//! Waiting for a condition, never for a while.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use distcache::Discovery;
use distcache_kubernetes::KubernetesDiscovery;

/// Generous: the machine may be busy. A condition that holds is seen at once.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until exactly these are answered, in whatever order.
pub async fn answers(discovery: &KubernetesDiscovery, expected: &[SocketAddr]) {
    let deadline = Instant::now() + PATIENCE;
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    loop {
        let mut answer = discovery.discover().await.unwrap_or_default();
        answer.sort_unstable();
        if answer == expected {
            return;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {answer:?} instead of {expected:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
