//! Asks name servers itself: for SRV records, and wherever the system's resolver is not the one to ask.
//!
//! The only file that names the resolver crate, which opens sockets of its own; knows no nodes. The invariant: a question ends
//! within its time, and with it its sockets and tasks; what a name server answers costs a bounded number of further questions.
//!
//! A resolver is made for each question, so that there is no cache to be stale, no connection to have died meanwhile, and a
//! change of the system's settings counts at once. One name server at a time, since the crate takes the refusal of one for an
//! answer although the next one might know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::rr::{self, Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Resolver, TokioResolver};
use tokio::time::{Instant, timeout_at};

use super::{ADDRESSES_MAX, DnsDiscovery, IpFamily, Record, kept};
use crate::discovery::DiscoveryError;

/// Targets of one SRV answer that are asked for. Those whose addresses came along are not counted.
const TARGETS_ASKED_MAX: usize = 512;
/// Targets that are asked for at once, each with two questions.
const TARGETS_AT_ONCE_MAX: usize = 8;
/// Name servers that are asked one after the other; each gets its share of the time.
const NAME_SERVERS_MAX: usize = 8;

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("{name:?}: there is no such name yet, says {server}")]
    NoName { name: String, server: SocketAddr },
    #[error("{name:?}: has no {record} record yet, says {server}")]
    NoRecord { name: String, record: &'static str, server: SocketAddr },
    #[error("{name:?}: none of its {targets} targets has an {family} address yet, says {server}")]
    NoTarget { name: String, targets: usize, family: &'static str, server: SocketAddr },
    #[error("{name:?}: no answer within {within:?}: {}", .failures.join(", "))]
    Unanswered { name: String, within: Duration, failures: Vec<String> },
    #[error("the name servers of this system are not known: {0}")]
    NoServers(#[source] NetError),
    #[error("{name:?}: is not a name that DNS knows: {error}")]
    NotAName {
        name: String,
        #[source]
        error: ProtoError,
    },
}

impl From<AskError> for DiscoveryError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::NotAName { .. } => Self::invalid(error),
            _ => Self::unavailable(error),
        }
    }
}

/// Whether these can be asked.
pub(super) fn check(name_servers: &[SocketAddr]) -> Result<(), DiscoveryError> {
    if name_servers.len() > NAME_SERVERS_MAX {
        return Err(DiscoveryError::invalid(format!("dns.name_servers: at most {NAME_SERVERS_MAX} can be asked")));
    }
    match name_servers.iter().find(|addr| addr.port() == 0 || addr.ip().is_unspecified()) {
        Some(addr) => Err(DiscoveryError::invalid(format!("dns.name_servers = {addr}: nobody can be asked there"))),
        None => Ok(()),
    }
}

/// What the name servers say, in their order, until one knows.
pub(super) async fn ask(asked: &DnsDiscovery) -> Result<Vec<SocketAddr>, AskError> {
    let name = name_of(asked)?;
    let (servers, options) = name_servers(asked)?;
    let deadline = Instant::now() + asked.timeout;
    let mut failures = Vec::new();
    for (nth, server) in servers.iter().enumerate() {
        let share = deadline.saturating_duration_since(Instant::now()) / (servers.len() - nth) as u32;
        let resolver = resolver(server, options.clone(), share)?;
        let question =
            Question { asked, name: &name, server: addr_of(server), resolver, until: Instant::now() + share };
        match question.ask().await {
            Ok(found) => return Ok(found),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Server(why)) => failures.push(format!("{} {why}", question.server)),
        }
    }
    Err(AskError::Unanswered { name: asked.name.clone(), within: asked.timeout, failures })
}

/// As it was given; whole if the system's search list shall not be tried on it.
fn name_of(asked: &DnsDiscovery) -> Result<Name, AskError> {
    let not_a_name = |error| AskError::NotAName { name: asked.name.clone(), error };
    let mut name = Name::from_str_relaxed(&asked.name).map_err(not_a_name)?;
    name.set_fqdn(name.is_fqdn() || !asked.name_servers.is_empty());
    Ok(name)
}

/// A configuration for each name server: those that were named, else the system's, with its search list and hosts file.
fn name_servers(asked: &DnsDiscovery) -> Result<(Vec<ResolverConfig>, ResolverOpts), AskError> {
    if asked.name_servers.is_empty() {
        // Small files of this machine, read anew each time, so that a change of them counts.
        let (config, options) = read_system_conf().map_err(AskError::NoServers)?;
        let (domain, search, servers) = config.into_parts();
        let alone = |server| ResolverConfig::from_parts(domain.clone(), search.clone(), vec![server]);
        return Ok((servers.into_iter().take(NAME_SERVERS_MAX).map(alone).collect(), options));
    }
    let mut options = ResolverOpts::default();
    options.use_hosts_file = ResolveHosts::Never;
    let alone = |server: &SocketAddr| ResolverConfig::from_name_servers(vec![name_server(*server)]);
    Ok((asked.name_servers.iter().take(NAME_SERVERS_MAX).map(alone).collect(), options))
}

fn name_server(addr: SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    connections.iter_mut().for_each(|connection| connection.port = addr.port());
    NameServerConfig::new(addr.ip(), true, connections)
}

/// As an error names it.
fn addr_of(config: &ResolverConfig) -> SocketAddr {
    let server = config.name_servers().first();
    let addr = server.and_then(|server| Some(SocketAddr::new(server.ip, server.connections.first()?.port)));
    addr.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
}

fn resolver(config: &ResolverConfig, mut options: ResolverOpts, share: Duration) -> Result<TokioResolver, AskError> {
    options.timeout = share;
    options.attempts = 1;
    options.cache_size = 0;
    // Else it takes any port above 1024 for a question, that of a node which is just restarting among them.
    options.os_port_selection = true;
    let mut builder = Resolver::builder_with_config(config.clone(), TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build().map_err(AskError::NoServers)
}

/// Why one name server gave no address.
enum Failure {
    /// It has spoken, and no other will say otherwise.
    Final(AskError),
    /// Another one may know.
    Server(String),
}

/// What one name server is asked.
struct Question<'a> {
    asked: &'a DnsDiscovery,
    name: &'a Name,
    server: SocketAddr,
    resolver: TokioResolver,
    until: Instant,
}

impl Question<'_> {
    async fn ask(&self) -> Result<Vec<SocketAddr>, Failure> {
        match self.asked.record {
            Record::Address { port } => {
                let found = self.addresses(self.name).await;
                let ips = found.map_err(|error| self.failure(&error, records_of(self.asked.ip_family).1))?;
                Ok(kept(ips.into_iter().map(|ip| SocketAddr::new(ip, port)), self.asked.ip_family))
            }
            Record::Srv => {
                let answer = self.in_time(self.resolver.lookup(self.name.clone(), RecordType::SRV)).await;
                self.nodes(&answer.map_err(|error| self.failure(&error, "SRV"))?).await
            }
        }
    }

    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, NetError>>) -> Result<T, NetError> {
        timeout_at(self.until, answer).await.unwrap_or(Err(NetError::Timeout))
    }

    /// The addresses of a name. One family that is not told in time does not hide the other.
    async fn addresses(&self, name: &Name) -> Result<Vec<IpAddr>, NetError> {
        let (records, _) = records_of(self.asked.ip_family);
        let ask = |record: &RecordType| self.in_time(self.resolver.lookup(name.clone(), *record));
        let (mut ips, mut failure) = (Vec::new(), None::<NetError>);
        for answer in join_all(records.iter().map(ask)).await {
            match answer {
                Ok(found) => ips.extend(found.answers().iter().filter_map(|record| record.data.ip_addr())),
                // That one family has none says less than that the other is not known.
                Err(error) if failure.as_ref().is_none_or(NetError::is_no_records_found) => failure = Some(error),
                Err(_) => {}
            }
        }
        match failure {
            Some(error) if ips.is_empty() => Err(error),
            _ => Ok(ips),
        }
    }

    /// The addresses of all targets, with their ports. Those that do not resolve are passed over while others do.
    async fn nodes(&self, answer: &Lookup) -> Result<Vec<SocketAddr>, Failure> {
        let services = services_of(answer);
        let mut ips = addresses_along(answer, self.asked.ip_family);
        let missing: BTreeSet<_> =
            services.iter().map(|(target, _)| target).filter(|name| !ips.contains_key(name)).collect();
        let missing: Vec<Name> = missing.into_iter().take(TARGETS_ASKED_MAX).cloned().collect();
        let failure = self.resolve(missing, &mut ips).await;
        let of = |(target, port): &(Name, u16)| {
            let port = *port;
            ips.get(target).into_iter().flatten().map(move |ip| SocketAddr::new(*ip, port))
        };
        let found = kept(services.iter().flat_map(of), self.asked.ip_family);
        match failure {
            _ if !found.is_empty() => Ok(found),
            Some(error) => Err(Failure::Server(format!("knows no target: {}", why(&error)))),
            None => Err(Failure::Final(AskError::NoTarget {
                name: self.asked.name.clone(),
                targets: services.len(),
                family: self.asked.ip_family.word(),
                server: self.server,
            })),
        }
    }

    /// Adds the addresses of these targets. Says what stood in the way of one.
    async fn resolve(&self, targets: Vec<Name>, ips: &mut BTreeMap<Name, Vec<IpAddr>>) -> Option<NetError> {
        let mut answers = stream::iter(targets)
            .map(|target| async { (self.addresses(&target).await, target) })
            .buffer_unordered(TARGETS_AT_ONCE_MAX);
        let mut failure = None;
        while let Some((answer, target)) = answers.next().await {
            match answer {
                Ok(found) => drop(ips.insert(target, found)),
                Err(error) => {
                    tracing::debug!(%target, %error, "a target of an SRV record has no address");
                    failure = Some(error).filter(|error| !error.is_no_records_found()).or(failure);
                }
            }
        }
        failure
    }

    fn failure(&self, error: &NetError, record: &'static str) -> Failure {
        let (name, server) = (self.asked.name.clone(), self.server);
        match error {
            error if error.is_nx_domain() => Failure::Final(AskError::NoName { name, server }),
            error if error.is_no_records_found() => Failure::Final(AskError::NoRecord { name, record, server }),
            error => Failure::Server(why(error)),
        }
    }
}

/// What to ask for, and how an error names it.
fn records_of(ip_family: IpFamily) -> (&'static [RecordType], &'static str) {
    match ip_family {
        IpFamily::Both => (&[RecordType::A, RecordType::AAAA], "A or AAAA"),
        IpFamily::Ipv4 => (&[RecordType::A], "A"),
        IpFamily::Ipv6 => (&[RecordType::AAAA], "AAAA"),
    }
}

/// Where the records say that there is something; a lone dot says that there is nothing.
fn services_of(answer: &Lookup) -> Vec<(Name, u16)> {
    let service = |record: &rr::Record| match &record.data {
        RData::SRV(srv) if !srv.target.is_root() && srv.port != 0 => Some((srv.target.clone(), srv.port)),
        _ => None,
    };
    answer.answers().iter().filter_map(service).take(ADDRESSES_MAX).collect()
}

/// The addresses of targets that came along with the answer, so that they need not be asked for.
fn addresses_along(answer: &Lookup, ip_family: IpFamily) -> BTreeMap<Name, Vec<IpAddr>> {
    let mut ips = BTreeMap::<_, Vec<_>>::new();
    for record in answer.additionals().iter().take(ADDRESSES_MAX) {
        if let Some(ip) = record.data.ip_addr().filter(|ip| ip_family.has(*ip)) {
            ips.entry(record.name.clone()).or_default().push(ip);
        }
    }
    ips
}

/// In words that stay the same while the trouble does, since what changes is logged anew.
fn why(error: &NetError) -> String {
    match error {
        NetError::Timeout => "does not answer".into(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("says {:?}", code.to_str()),
        NetError::Io(error) => format!("cannot be asked: {error}"),
        NetError::Proto(_) => "answers what makes no sense".into(),
        NetError::Truncated => "has more to say than it can send".into(),
        error => format!("gives no answer: {error}"),
    }
}
