//! The provider: what a user builds and the engine asks.
//!
//! Answers from what the watching task has published. The invariant: a question never waits for the API server once there was a
//! list, and the task ends with the provider.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use distcache::{Discovery, DiscoveryError};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::failure::Failure;
use crate::limits::FIRST_LIST_WAIT;
use crate::pod::IpFamily;
use crate::settings::{Port, Settings};
use crate::watching::{Picture, Watching};

/// Finds the pods of a namespace that carry a label, each at its gossip port.
///
/// Every pod that runs and is not being ended is answered, ready or not: pods that start together have to find each other before
/// any of them is ready. A node in a pod should advertise `status.podIP`
/// ([`EngineBuilder::advertise`](distcache::EngineBuilder::advertise)).
///
/// The API server may be away at any time, also at the start: it is asked again in the background, and what was seen last goes on
/// being answered. Tokens and certificates that are replaced on disk are taken without a restart.
///
/// ```
/// use distcache_kubernetes::KubernetesDiscovery;
///
/// let discovery = KubernetesDiscovery::new("app=distcache");
/// let elsewhere = KubernetesDiscovery::new("app=distcache,tier in (cache)").namespace("caches").port(3322);
/// ```
pub struct KubernetesDiscovery {
    settings: Settings,
    picture: watch::Sender<Picture>,
    is_watching: AtomicBool,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stopped_on_drop: DropGuard,
}

impl KubernetesDiscovery {
    /// The pods that `labels`, a label selector, fits; those of the namespace that this process runs in, at the port that their
    /// containers call `gossip`. The API server is asked as the pod's service account.
    pub fn new(labels: impl Into<String>) -> Self {
        let stop = CancellationToken::new();
        Self {
            settings: Settings::new(labels),
            picture: watch::Sender::default(),
            is_watching: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            _stopped_on_drop: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Pods of this namespace; that of the service account or of the kubeconfig unless told.
    pub fn namespace(self, namespace: impl Into<String>) -> Self {
        self.with(|settings| settings.namespace = Some(namespace.into()))
    }

    /// The name of the container port that nodes gossip at; `gossip` unless told. A pod without such a port is passed over.
    pub fn port_name(self, name: impl Into<String>) -> Self {
        self.with(|settings| settings.wanted.port = Port::Named(name.into()))
    }

    /// One gossip port for all pods, whatever their containers say.
    pub fn port(self, port: u16) -> Self {
        self.with(|settings| settings.wanted.port = Port::Number(port))
    }

    /// Whether only pods are answered that Kubernetes calls ready; `false` unless told. With `true`, pods that start together
    /// find each other only when their readiness does not depend on it.
    pub fn ready_only(self, ready_only: bool) -> Self {
        self.with(|settings| settings.wanted.ready_only = ready_only)
    }

    /// Which address of a pod with several is taken; the primary one unless told.
    pub fn ip_family(self, family: IpFamily) -> Self {
        self.with(|settings| settings.wanted.ip_family = family)
    }

    /// Asks the cluster of this kubeconfig file's current context, as its user: for a node outside of the cluster.
    pub fn kubeconfig(self, path: impl Into<PathBuf>) -> Self {
        self.with(|settings| settings.access = Access::Kubeconfig(path.into()))
    }

    /// Asks whom this says, as it says. Timeouts and retries in it are not heeded.
    pub fn config(self, config: kube::Config) -> Self {
        self.with(|settings| settings.access = Access::Given(Box::new(config)))
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    fn begin(&self) {
        if !self.is_watching.swap(true, SeqCst) {
            let watching = Watching::new(Arc::new(self.settings.clone()), self.picture.clone());
            let stop = self.stop.clone();
            self.tasks.spawn(async move {
                stop.run_until_cancelled(watching.run()).await;
            });
            self.tasks.close();
        }
    }
}

impl Discovery for KubernetesDiscovery {
    /// Fails only where asking again cannot help: on settings that make no sense and credentials that are not there.
    async fn register(&self, _: SocketAddr) -> Result<(), DiscoveryError> {
        self.settings.check()?;
        let access = self.settings.access.clone();
        let read = tokio::task::spawn_blocking(move || access.config().map(drop));
        read.await.map_err(DiscoveryError::unavailable)??;
        self.begin();
        Ok(())
    }

    async fn discover(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
        self.settings.check()?;
        self.begin();
        let mut pictures = self.picture.subscribe();
        let is_settled =
            |picture: &Picture| picture.pods.is_some() || picture.failure.as_ref().is_some_and(Failure::is_lasting);
        let _ = timeout(FIRST_LIST_WAIT, pictures.wait_for(is_settled)).await;
        let picture = pictures.borrow();
        match (&picture.pods, &picture.failure) {
            (Some(pods), _) => Ok(pods.to_vec()),
            (None, Some(failure)) => Err(failure.clone().into()),
            (None, None) => Err(DiscoveryError::unavailable(format!("no list of the pods within {FIRST_LIST_WAIT:?}"))),
        }
    }

    async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl fmt::Debug for KubernetesDiscovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { namespace, labels, wanted, .. } = &self.settings;
        f.debug_struct("KubernetesDiscovery")
            .field("namespace", namespace)
            .field("labels", labels)
            .field("wanted", wanted)
            .finish_non_exhaustive()
    }
}
