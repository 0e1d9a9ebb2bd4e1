//! The fake API server: TLS, tokens, and the pods of one cluster.
//!
//! A request that a client of the real one would have no reason to send (a wrong path, an unknown parameter, a token that was
//! never valid, a version that was never given out) is a violation, and a server that has seen one fails its test when it is
//! dropped. So does one whose token turned up in the log.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use distcache_conformance::free_address;
use distcache_kubernetes::KubernetesDiscovery;
use distcache_kubernetes::kube::Config;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod answers;
mod log;
mod selector;
mod store;

use store::Store;

pub const NAMESPACE: &str = "shop";
pub const LABELS: &str = "app=distcache";
/// Every token begins so: it is what must not turn up anywhere.
pub const TOKEN_MARK: &str = "hush-hush-";

/// How the server feels today.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mood {
    Fine,
    /// Takes requests and does not answer.
    Silent,
    /// The service account may do nothing.
    Forbidding,
    /// Answers this status to everything.
    Failing(u16),
    /// Answers lists that do not end.
    Flooding,
}

/// How a watch is told that its history is gone. The real server does either.
#[derive(Clone, Copy, Debug)]
pub enum GoneBy {
    Event,
    Status,
}

/// What is known of the requests so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Asked {
    pub lists: usize,
    pub pages: usize,
    pub watches: usize,
    pub unauthorized: usize,
}

pub struct State {
    store: Store,
    mood: Mood,
    gone_by: GoneBy,
    labels: String,
    token: String,
    /// Of yesterday: 401, and no violation.
    tokens_expired: BTreeSet<String>,
    /// Versions that were given out: a watch may begin at these.
    issued: BTreeSet<u64>,
    /// What is left of lists under way, by continue token.
    pages: Vec<(String, u64, Vec<Value>)>,
    asked: Asked,
    /// `list` and `watch`, as rules of access call them, with what they were asked of.
    verbs: BTreeSet<(String, String, String)>,
    violations: Vec<String>,
    bookmarks: u64,
    watches_ended: u64,
}

/// State that is shared with connections, and the news that it has changed.
struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

pub struct ApiServer {
    addr: SocketAddr,
    dir: TempDir,
    shared: Arc<Shared>,
    authority: Mutex<Authority>,
    running: Mutex<Option<Running>>,
}

struct Running {
    stop: CancellationToken,
    tasks: TaskTracker,
}

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn server(&self, addr: SocketAddr) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([addr.ip().to_string()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

impl ApiServer {
    /// A server that runs.
    pub async fn start() -> Self {
        let server = Self::down();
        server.bring_up().await;
        server
    }

    /// A server that is configured for, and away.
    pub fn down() -> Self {
        log::listen();
        static SERVERS: AtomicU32 = AtomicU32::new(0);
        let token = format!("{TOKEN_MARK}{}-{}", std::process::id(), SERVERS.fetch_add(1, Relaxed));
        let state = State {
            store: Store::new(),
            mood: Mood::Fine,
            gone_by: GoneBy::Event,
            labels: LABELS.into(),
            token,
            tokens_expired: BTreeSet::new(),
            issued: BTreeSet::new(),
            pages: Vec::new(),
            asked: Asked::default(),
            verbs: BTreeSet::new(),
            violations: Vec::new(),
            bookmarks: 0,
            watches_ended: 0,
        };
        let server = Self {
            addr: free_address(),
            dir: tempfile::tempdir().unwrap(),
            shared: Arc::new(Shared { state: Mutex::new(state), changed: watch::Sender::default() }),
            authority: Mutex::new(Authority::new()),
            running: Mutex::new(None),
        };
        server.write_credentials();
        server
    }

    pub async fn bring_up(&self) {
        let acceptor = self.authority.lock().unwrap().server(self.addr);
        let listener = TcpListener::bind(self.addr).await.unwrap();
        let running = Running { stop: CancellationToken::new(), tasks: TaskTracker::new() };
        let (shared, stop, tasks) = (Arc::clone(&self.shared), running.stop.clone(), running.tasks.clone());
        running.tasks.spawn(running.stop.clone().run_until_cancelled_owned(async move {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    let talk = converse(stream, acceptor.clone(), Arc::clone(&shared));
                    tasks.spawn(stop.clone().run_until_cancelled_owned(talk));
                }
            }
        }));
        assert!(self.running.lock().unwrap().replace(running).is_none(), "it runs already");
    }

    /// Ends the listener and breaks every connection.
    pub async fn take_down(&self) {
        let running = self.running.lock().unwrap().take().unwrap();
        running.stop.cancel();
        running.tasks.close();
        running.tasks.wait().await;
    }

    /// Connections under way.
    pub fn connections(&self) -> usize {
        self.running.lock().unwrap().as_ref().map_or(0, |running| running.tasks.len() - 1)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub fn write_credentials(&self) {
        std::fs::write(self.dir.path().join("token"), self.token()).unwrap();
        std::fs::write(self.dir.path().join("ca.crt"), self.authority.lock().unwrap().issuer.pem()).unwrap();
    }

    /// What a pod's service account would give.
    pub fn config(&self) -> Config {
        let mut config = Config::new(format!("https://{}", self.addr).parse().unwrap());
        config.default_namespace = NAMESPACE.into();
        config.root_cert = Some(vec![self.authority.lock().unwrap().issuer.der().to_vec()]);
        config.root_cert_file = Some(self.dir.path().join("ca.crt"));
        config.auth_info.token_file = Some(self.dir.path().join("token").to_str().unwrap().into());
        config
    }

    pub fn discovery(&self) -> KubernetesDiscovery {
        KubernetesDiscovery::new(LABELS).config(self.config())
    }

    pub fn token(&self) -> String {
        self.state().token.clone()
    }

    /// A new token is taken and the old one no longer; it does not yet lie where that one was.
    pub fn rotate_token(&self) {
        let mut state = self.state();
        let next = format!("{}-next", state.token);
        let old = std::mem::replace(&mut state.token, next);
        state.tokens_expired.insert(old);
    }

    /// A new authority signs the server's certificate from the next start on.
    pub fn rotate_authority(&self) {
        *self.authority.lock().unwrap() = Authority::new();
        self.write_credentials();
    }

    pub fn put(&self, pod: Value) {
        self.put_in(NAMESPACE, pod);
    }

    pub fn put_in(&self, namespace: &str, pod: Value) {
        self.with(|state| state.store.put(namespace, pod));
    }

    pub fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        self.with(|state| state.store.change(NAMESPACE, name, change));
    }

    pub fn remove(&self, name: &str) {
        self.with(|state| state.store.remove(NAMESPACE, name));
    }

    pub fn feel(&self, mood: Mood) {
        self.with(|state| state.mood = mood);
    }

    /// The selector that requests are expected to name.
    pub fn expect_labels(&self, labels: &str) {
        self.with(|state| state.labels = labels.into());
    }

    /// Forgets what happened before now; watches that begin before it are told so.
    pub fn forget_history(&self, gone_by: GoneBy) {
        self.with(|state| {
            state.store.forget_history();
            state.gone_by = gone_by;
            state.watches_ended += 1;
        });
    }

    /// The same, as far as `version`.
    pub fn forget_history_before(&self, version: u64) {
        self.with(|state| {
            state.store.forget_history_before(version);
            state.watches_ended += 1;
        });
    }

    pub fn version(&self) -> u64 {
        self.state().store.version()
    }

    /// Whether a watch may begin at `version`.
    pub fn has_issued(&self, version: u64) -> bool {
        self.state().issued.contains(&version)
    }

    /// Ends all watches in order, as the server does every few minutes.
    pub fn end_watches(&self) {
        self.with(|state| state.watches_ended += 1);
    }

    /// Tells all watches the version of now.
    pub fn bookmark(&self) {
        self.with(|state| state.bookmarks += 1);
    }

    pub fn asked(&self) -> Asked {
        self.state().asked
    }

    /// (group, resource, verb) of all that was asked.
    pub fn verbs(&self) -> BTreeSet<(String, String, String)> {
        self.state().verbs.clone()
    }

    fn with(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.shared.changed.send_replace(());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(running) = self.running.lock().unwrap().take() {
            running.stop.cancel();
        }
        if !std::thread::panicking() {
            assert_eq!(self.state().violations, [] as [String; 0], "requests that no client should send");
            log::has_kept_quiet();
        }
    }
}

async fn converse(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = hyper::service::service_fn(move |request| answers::answer(request, Arc::clone(&shared)));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// A pod that runs a node at `addr` and is not ready.
pub fn pod(name: &str, addr: SocketAddr) -> Value {
    json!({
        "metadata": {
            "name": name,
            "uid": format!("uid-of-{name}"),
            "labels": { "app": "distcache", "tier": "cache" },
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [{ "manager": "kubelet", "fieldsV1": { "f:status": {} } }],
        },
        "spec": {
            "containers": [
                { "name": "log-shipper", "image": "log-shipper" },
                { "name": "distcache", "image": "distcache", "ports": [
                    { "name": "peer", "containerPort": 3320, "protocol": "TCP" },
                    { "name": "gossip", "containerPort": addr.port(), "protocol": "UDP" },
                ] },
            ],
            "nodeName": "worker-1",
        },
        "status": {
            "phase": "Running",
            "podIP": addr.ip().to_string(),
            "podIPs": [{ "ip": addr.ip().to_string() }],
            "conditions": [
                { "type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" },
                { "type": "Ready", "status": "False", "reason": "ContainersNotReady" },
            ],
        },
    })
}

/// The address of the `n`th pod in tests without nodes.
pub fn address(n: u8) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 0, n), 3322).into()
}
