//! The configuration file, checked: what `serve` and `check` work from.
//!
//! Reads TOML and nothing else; opens no database and no socket. The invariant: a [`Config`] has no setting that the file did
//! not mean, since every key that is not known is an error with its line and the key that was probably meant.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

mod error;
mod keyspace;
mod section;
mod summary;
mod units;

pub use error::{ConfigError, Reason};
pub use keyspace::{KeyspaceConfig, Question, SourceConfig, SqlConfig};
use section::{Document, Section};
pub use units::parse_duration;

/// One node, as its file describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub node: NodeConfig,
    pub cluster_name: Option<String>,
    pub discovery: DiscoveryConfig,
    pub http: SocketAddr,
    pub admin: SocketAddr,
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

/// How the other nodes are found.
#[derive(Clone, Debug, PartialEq)]
pub enum DiscoveryConfig {
    Standalone,
    Static { seeds: Vec<String> },
    Dns { host: String, port: u16 },
}

const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3321);
const GOSSIP_PORT: u16 = 3322;

impl Config {
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let of_file = |reason| ConfigError { path: path.to_owned(), reason };
        let text = fs::read_to_string(path).map_err(|error| of_file(Reason::Read(error)))?;
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        Self::parse(&text, dir).map_err(of_file)
    }

    pub fn parse(text: &str, dir: PathBuf) -> Result<Self, Reason> {
        let document = Document::parse(text)?;
        let known = ["node", "cluster", "discovery", "http", "admin", "keyspaces"];
        let mut root = document.root(&known, &["tls", "redis", "limits"])?;
        let node = node(&mut root)?;
        let cluster_name = root.section("cluster", &["name"], &["secret_file", "secret"])?.string("name")?;
        let discovery = discovery(&mut root)?;
        let http = root.section("http", &["listen"], &["cert", "key", "ca", "tls", "token_file"])?;
        let admin = root.section("admin", &["listen"], &["token_file", "token", "cert", "key"])?;
        let http = { http }.addr("listen")?.unwrap_or(HTTP);
        let admin = { admin }.addr("listen")?.unwrap_or(ADMIN);
        let keyspaces = keyspace::keyspaces(&mut root)?;
        Ok(Self { node, cluster_name, discovery, http, admin, keyspaces, dir })
    }

    pub fn is_standalone(&self) -> bool {
        self.discovery == DiscoveryConfig::Standalone
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

fn discovery(root: &mut Section<'_>) -> Result<DiscoveryConfig, Reason> {
    let mut discovery = root.section("discovery", &["provider", "seeds", "host", "port"], &[])?;
    let provider = discovery.choice("provider", &["standalone", "static", "dns"], &["nats", "kubernetes"])?;
    let found = match provider.unwrap_or("standalone") {
        "static" => DiscoveryConfig::Static { seeds: discovery.seeds("seeds")?.unwrap_or_default() },
        "dns" => DiscoveryConfig::Dns {
            host: discovery.required("host", "the name whose addresses are the nodes")?,
            port: discovery.integer("port", 1..=65_535)?.map_or(GOSSIP_PORT, |port| port as u16),
        },
        _ => DiscoveryConfig::Standalone,
    };
    discovery.nothing_left("it has no meaning for this provider")?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        [discovery]
        provider = "static"
        seeds = ["10.0.0.1:3322", "cache-2.internal:3322"]
        [http]
        listen = "127.0.0.1:0"
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
        assert_eq!(config.cluster_name.as_deref(), Some("shop"));
        assert!(matches!(&config.discovery, DiscoveryConfig::Static { seeds } if seeds.len() == 2));
        assert_eq!((config.http.port(), config.admin), (0, ADMIN));
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
        assert_eq!(config.http, HTTP);
        assert!(config.keyspaces.is_empty());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_its_neighbour() {
        let text = "[keyspaces.users]\nsource = { kind = \"none\" }\n\nttll = \"5m\"\n";
        assert_eq!(refused(text), "unknown key `ttll` in [keyspaces.users] at line 4; did you mean `ttl`?");
        assert_eq!(refused("[nod]\n"), "unknown section [nod] at line 1; did you mean [node]?");
        assert_eq!(refused("[http]\nxyzzy = 1\n"), "unknown key `xyzzy` in [http] at line 2; known are: `listen`");
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
        assert_eq!(refused("[tls]\nca = \"ca.pem\"\n"), "[tls] at line 1 is not supported by this version");
        assert_eq!(
            refused("[cluster]\nsecret_file = \"k\"\n"),
            "`secret_file` in [cluster] at line 2 is not supported by this version"
        );
        assert_eq!(
            refused("[discovery]\nprovider = \"kubernetes\"\n"),
            "`provider = \"kubernetes\"` in [discovery] at line 2 is not supported by this version"
        );
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
        let provider = refused("[discovery]\nprovider = \"statik\"\n");
        assert!(
            provider.ends_with("expected \"standalone\", \"static\" or \"dns\"; did you mean \"static\"?"),
            "{provider}"
        );
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
        assert!(refused("[discovery]\nprovider = \"dns\"\n").contains("`host` is missing in [discovery]"));
    }

    #[test]
    fn a_key_without_meaning_here_is_refused() {
        let text = "[discovery]\nprovider = \"dns\"\nhost = \"cache\"\nseeds = [\"a:1\"]\n";
        assert_eq!(refused(text), "`seeds` in [discovery] at line 4: it has no meaning for this provider");
    }

    #[test]
    fn broken_toml_is_named_with_its_line() {
        let message = refused("[node]\nname = \"a\n");
        assert!(message.starts_with("line 2: "), "{message}");
        assert!(refused("[node]\nname = \"a\"\nname = \"b\"\n").starts_with("line 3: "));
    }
}
