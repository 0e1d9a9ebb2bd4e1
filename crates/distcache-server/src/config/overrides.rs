//! What the command line, or the environment, says of a node in place of its file: so that many nodes share one file.

use std::net::{IpAddr, SocketAddr};

use super::Config;

/// Each wins over the file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Overrides {
    /// The node's name
    #[arg(long, env = "DISTCACHE_NAME", value_name = "NAME")]
    name: Option<String>,
    /// The IP address that other nodes reach this one at
    #[arg(long, env = "DISTCACHE_ADVERTISE", value_name = "IP")]
    advertise: Option<IpAddr>,
    /// The failure domain that the node is in
    #[arg(long, env = "DISTCACHE_ZONE", value_name = "ZONE")]
    zone: Option<String>,
    /// Where peers connect
    #[arg(long, value_name = "ADDR:PORT")]
    peer: Option<SocketAddr>,
    /// Where membership is gossiped, UDP and TCP
    #[arg(long, value_name = "ADDR:PORT")]
    gossip: Option<SocketAddr>,
    /// Where data is served over HTTP
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<SocketAddr>,
    /// Where the admin interface is served
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<SocketAddr>,
}

impl Overrides {
    pub(super) fn apply(&self, config: &mut Config) {
        fn over<T: Clone>(given: &Option<T>, of_file: &mut Option<T>) {
            *of_file = given.clone().or(of_file.take());
        }
        over(&self.name, &mut config.node.name);
        over(&self.advertise, &mut config.node.advertise);
        over(&self.zone, &mut config.node.zone);
        over(&self.peer, &mut config.node.peer);
        over(&self.gossip, &mut config.node.gossip);
        config.http.listen = self.http.unwrap_or(config.http.listen);
        config.admin.listen = self.admin.unwrap_or(config.admin.listen);
    }
}
