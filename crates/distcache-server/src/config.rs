//! The configuration file, checked: what `serve` and `check` work from.
//!
//! Reads TOML and nothing else; opens no database and no socket. The invariant: a [`Config`] has no setting that the file did
//! not mean, since every key that is not known is an error with its line and the key that was probably meant.

use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

mod discovery;
mod dns;
mod error;
mod guard;
mod keyspace;
mod kubernetes;
mod limits;
mod listener;
mod nats;
mod overrides;
mod redact;
mod section;
mod security;
mod source;
mod summary;
mod telemetry;
mod units;

pub use discovery::DiscoveryConfig;
pub use dns::{DnsConfig, DnsRecord};
pub use error::{ConfigError, Reason};
pub use keyspace::{KeyspaceConfig, eviction_name};
#[cfg(feature = "kubernetes")]
pub use kubernetes::{KubernetesConfig, PodPort};
#[cfg(feature = "nats")]
pub use nats::{NatsConfig, NatsLogin};
pub use overrides::Overrides;
use section::{Document, Section};
pub use security::{ClusterConfig, NodeTlsConfig};
#[cfg(any(feature = "sql", feature = "postgres", feature = "mysql"))]
pub use source::Question;
pub use source::{HttpConfig, RedisConfig, SourceConfig, SqlConfig};
pub use telemetry::TelemetryConfig;
pub use units::parse_duration;

use distcache::Limits;

use crate::listener::ListenerConfig;

/// One node, as its file describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub node: NodeConfig,
    pub cluster: ClusterConfig,
    pub tls: Option<NodeTlsConfig>,
    pub limits: Limits,
    pub discovery: DiscoveryConfig,
    pub http: ListenerConfig,
    /// The answer to one batch.
    pub answer_bytes_max: usize,
    pub admin: ListenerConfig,
    pub telemetry: Option<TelemetryConfig>,
    pub keyspaces: Vec<KeyspaceConfig>,
    /// The directory of the file: relative paths in it begin there.
    pub dir: PathBuf,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    pub name: Option<String>,
    pub peer: Option<SocketAddr>,
    pub gossip: Option<SocketAddr>,
    pub advertise: Option<IpAddr>,
    pub zone: Option<String>,
    pub weight: Option<u16>,
    pub shutdown_grace: Duration,
}

const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3321);
const GOSSIP_PORT: u16 = 3322;
const FILE_BYTES_MAX: u64 = 4 << 20;

impl Config {
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let of_file = |reason| ConfigError { path: path.to_owned(), reason };
        let text = read(path).map_err(of_file)?;
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        let mut config = Self::parse(&text, dir).map_err(of_file)?;
        overrides.apply(&mut config);
        config.check_ports().map_err(of_file)?;
        Ok(config)
    }

    fn check_ports(&self) -> Result<(), Reason> {
        let listen = [("`listen` in [http]", Some(self.http.listen)), ("`listen` in [admin]", Some(self.admin.listen))];
        let node = [("`peer` in [node]", self.node.peer), ("`gossip` in [node]", self.node.gossip)];
        let mut taken: Vec<(&str, SocketAddr)> = Vec::new();
        for (other, addr) in listen.into_iter().chain(node.into_iter().filter(|_| !self.is_standalone())) {
            let Some(addr) = addr.filter(|addr| addr.port() != 0) else { continue };
            if let Some((one, _)) = taken.iter().find(|(_, taken)| *taken == addr) {
                return Err(Reason::SamePort { one, other, addr });
            }
            taken.push((other, addr));
        }
        Ok(())
    }

    pub fn parse(text: &str, dir: PathBuf) -> Result<Self, Reason> {
        let document = Document::parse(text)?;
        let known =
            ["node", "cluster", "tls", "discovery", "http", "admin", "telemetry", "limits", "guards", "keyspaces"];
        let mut root = document.root(&known, &["redis"])?;
        let node = node(&mut root)?;
        let cluster = security::cluster(&mut root, &dir)?;
        let tls = security::tls(&mut root, &dir)?;
        let limits = limits::limits(&mut root)?;
        let discovery = discovery::discovery(&mut root)?;
        let (http, answer_bytes_max) = listener::http(&mut root, HTTP, &dir)?;
        let admin = listener::admin(&mut root, ADMIN, &dir)?;
        let telemetry = telemetry::telemetry(&mut root)?;
        let guards = guard::guards(&mut root)?;
        let keyspaces = keyspace::keyspaces(&mut root, &guards, &limits)?;
        Ok(Self { node, cluster, tls, limits, discovery, http, answer_bytes_max, admin, telemetry, keyspaces, dir })
    }

    pub fn is_standalone(&self) -> bool {
        self.discovery == DiscoveryConfig::Standalone
    }
}

fn read(path: &Path) -> Result<String, Reason> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(Reason::Read)?;
    // One more, to tell a file that ends there from one that does not.
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(Reason::Read)?;
    match text.len() as u64 > FILE_BYTES_MAX {
        true => Err(Reason::TooLong { max: FILE_BYTES_MAX }),
        false => Ok(text),
    }
}

fn node(root: &mut Section<'_>) -> Result<NodeConfig, Reason> {
    let known = ["name", "peer", "gossip", "advertise", "zone", "weight", "shutdown_grace"];
    let mut node = root.section("node", &known, &[])?;
    Ok(NodeConfig {
        name: node.string("name")?,
        peer: node.addr("peer")?,
        gossip: node.addr("gossip")?,
        advertise: node.ip("advertise")?,
        zone: node.string("zone")?,
        weight: node.integer("weight", 1..=10_000)?.map(|weight| weight as u16),
        shutdown_grace: node.duration("shutdown_grace")?.unwrap_or(SHUTDOWN_GRACE),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::ListenerLimits;

    const WHOLE: &str = r#"
        [node]
        name = "a"
        peer = "0.0.0.0:3320"
        gossip = "0.0.0.0:3322"
        advertise = "10.0.0.1"
        zone = "eu-1a"
        weight = 200
        shutdown_grace = "1s 500ms"
        [cluster]
        name = "shop"
        secret_file = "gossip.key"
        [tls]
        ca = "ca.pem"
        cert = "/run/a.pem"
        key = "/run/a.key"
        server_name = "cache.internal"
        [limits]
        value_bytes_max = "1MiB"
        handshakes_max = 32
        handshake_timeout = "1s"
        [discovery]
        provider = "static"
        seeds = ["10.0.0.1:3322", "cache-2.internal:3322"]
        [http]
        listen = "127.0.0.1:0"
        connections_max = 100
        header_bytes_max = "32KiB"
        idle_timeout = "2m"
        answer_bytes_max = "1MiB"
        tls = { cert = "a.pem", key = "/run/a.key" }
        [telemetry]
        otlp_endpoint = "http://127.0.0.1:4318"
        service_name = "shop-cache"
        sample_ratio = "2%"
        [keyspaces.users]
        max_bytes = "64MiB"
        ttl = "5m"
        ttl_jitter = "10%"
        negative_ttl = "10s"
        load_timeout = "2s"
        hot_copies = false
        lease = "3s"
        source = { kind = "sql", url = "sqlite:shop.db", query = "SELECT name FROM users WHERE id = ?1" }
        [keyspaces.plain]
        source = { kind = "none" }
    "#;

    fn refused(text: &str) -> String {
        Config::parse(text, PathBuf::new()).unwrap_err().to_string()
    }

    #[test]
    fn a_whole_file_says_what_it_says() {
        let config = Config::parse(WHOLE, "/etc/cache".into()).unwrap();
        assert_eq!(config.node.weight, Some(200));
        assert_eq!(config.node.shutdown_grace, Duration::from_millis(1500));
        assert_eq!(config.cluster.name, "shop");
        assert_eq!(config.cluster.secret_file, Some("/etc/cache/gossip.key".into()));
        let tls = config.tls.unwrap();
        assert_eq!((tls.ca, tls.cert), ("/etc/cache/ca.pem".into(), "/run/a.pem".into()));
        assert_eq!((tls.server_name.as_deref(), tls.mutual), (Some("cache.internal"), true));
        assert_eq!((config.limits.value_bytes_max, config.limits.handshakes_max), (1 << 20, 32));
        assert_eq!(config.limits.handshake_timeout, Duration::from_secs(1));
        assert_eq!(config.limits.members_max, Limits::default().members_max);
        assert!(matches!(&config.discovery, DiscoveryConfig::Static { seeds } if seeds.len() == 2));
        assert_eq!((config.http.listen.port(), config.admin.listen), (0, ADMIN));
        assert_eq!((config.http.limits.connections_max, config.http.limits.header_bytes_max), (100, 32 << 10));
        assert_eq!((config.http.limits.idle_timeout, config.answer_bytes_max), (Duration::from_secs(120), 1 << 20));
        let tls = config.http.tls.unwrap();
        assert_eq!((tls.cert, tls.key), ("/etc/cache/a.pem".into(), "/run/a.key".into()));
        assert_eq!((tls.client_ca, config.admin.tls), (None, None));
        let telemetry = config.telemetry.unwrap();
        assert_eq!(telemetry.endpoint.to_string(), "http://127.0.0.1:4318");
        assert_eq!((telemetry.service_name.as_str(), telemetry.sample_ratio), ("shop-cache", 0.02));
        let users = &config.keyspaces[0];
        assert_eq!(users.name, "users");
        assert_eq!(users.max_bytes, Some(64 << 20));
        assert_eq!(users.ttl, Some(Duration::from_secs(300)));
        assert_eq!(users.ttl_jitter, Some(0.1));
        assert_eq!(users.hot_copies, Some(false));
        assert!(matches!(&users.source, SourceConfig::Sql(sql) if sql.url == "sqlite:shop.db"));
        assert_eq!(config.keyspaces[1].source, SourceConfig::None);
    }

    #[test]
    fn an_empty_file_is_a_node_by_itself() {
        let config = Config::parse("", PathBuf::new()).unwrap();
        assert!(config.is_standalone());
        assert_eq!(config.http.listen, HTTP);
        assert_eq!((config.http.limits, config.http.tls), (ListenerLimits::HTTP, None));
        assert_eq!(config.telemetry, None);
        assert!(config.keyspaces.is_empty());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_its_neighbour() {
        let text = "[keyspaces.users]\nsource = { kind = \"none\" }\n\nttll = \"5m\"\n";
        assert_eq!(refused(text), "unknown key `ttll` in [keyspaces.users] at line 4; did you mean `ttl`?");
        assert_eq!(refused("[nod]\n"), "unknown section [nod] at line 1; did you mean [node]?");
        let xyzzy = refused("[cluster]\nxyzzy = 1\n");
        assert_eq!(xyzzy, "unknown key `xyzzy` in [cluster] at line 2; known are: `name`, `secret_file`");
        let conections = refused("[admin]\nconections_max = 1\n");
        assert!(conections.ends_with("in [admin] at line 2; did you mean `connections_max`?"), "{conections}");
        let nested = "[keyspaces.u]\nsource = { kind = \"sql\", ulr = \"sqlite:x\" }\n";
        assert_eq!(refused(nested), "unknown key `ulr` in [keyspaces.u.source] at line 2; did you mean `url`?");
    }

    #[test]
    fn whatever_a_key_holds_the_error_is_one_line() {
        assert!(refused("[node]\n\"a\\nb\" = 1\n").starts_with("unknown key `a\\nb` in [node] at line 2;"));
        assert!(refused("[keyspaces.\"a\\nb\"]\n").contains("`a\\nb` is no name"));
        assert!(refused("[node]\nweight = [\t1]\n").contains("`weight = [ 1]`"));
    }

    #[test]
    fn what_is_planned_is_not_called_unknown() {
        assert_eq!(refused("[redis]\n"), "[redis] at line 1 is not supported by this version");
    }

    #[test]
    fn a_wrong_value_is_named_with_what_is_expected() {
        let keyspace = |line: &str| refused(&format!("[keyspaces.u]\n{line}\nsource = {{ kind = \"none\" }}\n"));
        assert_eq!(
            keyspace("ttl = \"5 apples\""),
            "`ttl = \"5 apples\"` in [keyspaces.u] at line 2: expected a duration longer than zero, such as \"30s\" or \"1h 30m\""
        );
        assert!(keyspace("ttl = 5").starts_with("`ttl = 5` in [keyspaces.u] at line 2: expected a duration"));
        assert!(keyspace("max_bytes = \"64XB\"").contains("expected a size of at least 64 KiB, such as \"64MiB\""));
        assert!(keyspace("max_bytes = 1").contains("`max_bytes = 1`"));
        assert!(keyspace("ttl_jitter = \"110%\"").contains("expected a part such as \"10%\" or 0.1"));
        assert!(keyspace("hot_copies = \"yes\"").contains("expected true or false"));
        assert!(refused("[http]\nlisten = \"8080\"\n").contains("expected an address and port"));
        assert!(refused("http = 1\n").contains("expected a section [http]"));
        assert!(refused("[node]\nweight = 0\n").contains("expected a whole number from 1 to 10000"));
        for endpoint in ["https://collector:4318", "collector:4318", "http://collector:4318/v1/traces"] {
            let refused = refused(&format!("[telemetry]\notlp_endpoint = \"{endpoint}\"\n"));
            assert!(refused.contains("at line 2: expected where a collector speaks OTLP over HTTP"), "{refused}");
        }
        assert!(refused("[telemetry]\nendpoint = 1\n").ends_with("did you mean `otlp_endpoint`?"));
        let provider = refused("[discovery]\nprovider = \"statik\"\n");
        assert!(provider.ends_with("\"dns\", \"nats\" or \"kubernetes\"; did you mean \"static\"?"), "{provider}");
        assert!(refused("[keyspaces.\"a b\"]\nsource = { kind = \"none\" }\n").contains("`a b`"));
        let seeds = "[discovery]\nprovider = \"static\"\nseeds = [\"10.0.0.1\"]\n";
        assert!(refused(seeds).contains("expected a list of \"host:port\""));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(
            refused("\n[keyspaces.users]\nttl = \"5m\"\n"),
            "`source` is missing in [keyspaces.users] at line 2: expected where values come from"
        );
        let source = |inner: &str| refused(&format!("[keyspaces.u]\nsource = {{ kind = \"sql\", {inner} }}\n"));
        assert!(source("url = \"sqlite:x\"").contains("`query` is missing in [keyspaces.u.source] at line 2"));
        assert!(source("query = \"SELECT ?1\"").contains("`url` is missing"));
        assert!(source("url = \"sqlite:x\", query = \"q\", table = \"t\"").contains("both `query` and `table`"));
        assert!(refused("[telemetry]\n").starts_with("`otlp_endpoint` is missing in [telemetry] at line 1"));
        assert!(refused("[tls]\nca = \"ca.pem\"\n").contains("`cert` is missing in [tls] at line 1"));
        assert!(refused("[http.tls]\n").contains("`cert` is missing in [http.tls] at line 1"));
        assert!(refused("[admin.tls]\ncert = \"a.pem\"\n").contains("`key` is missing in [admin.tls]"));
    }

    #[test]
    fn a_key_without_meaning_here_is_refused() {
        let text = "[discovery]\nprovider = \"static\"\nseeds = [\"a:1\"]\nname = \"cache\"\n";
        assert_eq!(refused(text), "`name` in [discovery] at line 4: it has no meaning for this provider");
    }

    #[test]
    fn broken_toml_is_named_with_its_line() {
        let message = refused("[node]\nname = \"a\n");
        assert!(message.starts_with("line 2: "), "{message}");
        assert!(refused("[node]\nname = \"a\"\nname = \"b\"\n").starts_with("line 3: "));
    }
}
