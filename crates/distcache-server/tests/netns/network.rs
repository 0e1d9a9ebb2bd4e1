//! A namespace for each node, on two bridges: one for the cluster, which is cut, and one for callers and the source, which is not.
//!
//! Knows addresses and packets, no node. The invariant: a cut drops packets on their arrival, in one direction each, so that who
//! sends is told nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::history::Node;
use crate::sandbox::{command, run};

/// Where callers and the source are.
pub const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 2, 254));

pub struct Network {
    nodes: usize,
}

/// What a node is called, and its namespace.
pub fn name(node: Node) -> String {
    format!("n{node}")
}

pub fn cluster_ip(node: Node) -> IpAddr {
    Ipv4Addr::new(10, 77, 1, node as u8 + 1).into()
}

/// Where a node is reached whatever is cut.
pub fn outer_addr(node: Node, port: u16) -> SocketAddr {
    (Ipv4Addr::new(10, 77, 2, node as u8 + 1), port).into()
}

/// The words that run a program in a node's namespace.
pub fn within(node: Node) -> [String; 3] {
    ["nsenter".into(), format!("--net=/run/netns/{}", name(node)), "--".into()]
}

impl Network {
    pub fn of(nodes: usize) -> Self {
        for bridge in ["cluster", "outer"] {
            ip(&format!("link add {bridge} type bridge"));
            ip(&format!("link set {bridge} up"));
        }
        ip(&format!("addr add {OUTSIDE}/24 dev outer"));
        for node in 0..nodes {
            ip(&format!("netns add {}", name(node)));
            for (bridge, ip) in [("cluster", cluster_ip(node)), ("outer", outer_addr(node, 0).ip())] {
                plug(node, bridge, ip);
            }
            let table =
                "add table inet cut; add chain inet cut in { type filter hook input priority 0; policy accept; }";
            inside(node, &["nft", table]);
        }
        Self { nodes }
    }

    /// What these send over the cluster's network does not come to those any more: who does not reach whom.
    pub fn cut(&self, from: &[Node], to: &[Node]) -> Vec<(Node, Node)> {
        let pairs: Vec<_> = from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to))).collect();
        for (from, to) in &pairs {
            let rule = format!("add rule inet cut in iifname cluster0 ip saddr {} counter drop", cluster_ip(*from));
            inside(*to, &["nft", &rule]);
        }
        pairs
    }

    /// No packet passes from one side to the other, nor back.
    pub fn split(&self, side: &[Node], other: &[Node]) -> Vec<(Node, Node)> {
        [self.cut(side, other), self.cut(other, side)].concat()
    }

    /// How many packets to this node were lost to cuts so far.
    pub fn lost(&self, to: Node) -> u64 {
        let mut list = command_within(to, "nft");
        let rules = list.args(["list", "chain", "inet", "cut", "in"]).output().unwrap();
        let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
        let counts =
            rules.split("counter packets ").skip(1).filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        counts.sum()
    }

    pub fn heal(&self) {
        (0..self.nodes).for_each(|node| inside(node, &["nft", "flush chain inet cut in"]));
    }
}

/// A cable from a node to a bridge.
fn plug(node: Node, bridge: &str, addr: IpAddr) {
    let (cable, card) = (format!("{bridge}{}", node + 1), format!("{bridge}0"));
    ip(&format!("link add {cable} type veth peer name {card} netns {}", name(node)));
    ip(&format!("link set {cable} master {bridge} up"));
    for line in [format!("addr add {addr}/24 dev {card}"), format!("link set {card} up"), "link set lo up".into()] {
        ip(&format!("-n {} {line}", name(node)));
    }
}

fn ip(line: &str) {
    let words: Vec<&str> = std::iter::once("ip").chain(line.split(' ')).collect();
    run(&words);
}

fn inside(node: Node, words: &[&str]) {
    let within = within(node);
    let all: Vec<&str> = within.iter().map(String::as_str).chain(words.iter().copied()).collect();
    run(&all);
}

/// The command that runs a program in a node's namespace.
pub fn command_within(node: Node, program: &str) -> std::process::Command {
    let [enter, words @ ..] = within(node);
    let mut command = command(&enter);
    command.args(words).arg(program);
    command
}
