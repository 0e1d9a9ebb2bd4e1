//! The nodes of the rolling restart: five processes, their ports, and how the load is shared among those that are up.
//!
//! Knows how a node is stopped and started, and measures nothing. The invariant: nobody calls a node that is about to be stopped,
//! as behind a load balancer that asks whether it is ready.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use super::callers::Called;
use super::node::Order;
use crate::child::Child;
use crate::error::BenchError;

pub const NODES: usize = 5;

/// How a node is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Shutdown { grace: Duration },
    Kill,
}

/// How long a restart took.
#[derive(Clone, Copy, Debug)]
pub struct Restarted {
    /// From the word that the node should leave until it had left.
    pub leaving: Duration,
    /// From then on until it was ready again.
    pub away: Duration,
}

pub struct Fleet {
    cluster: String,
    source: SocketAddr,
    gossip_ports: Vec<u16>,
    calls_per_second: u32,
    nodes: Vec<Option<Child>>,
    /// What callers of nodes that were stopped had got from them.
    called: Vec<Called>,
}

impl Fleet {
    /// Starts all nodes, fills them as a long time of this load would have, and lets the callers come.
    pub fn start(cluster: &str, source: SocketAddr, calls_per_second: u32) -> Result<Self, BenchError> {
        let mut fleet = Self {
            cluster: format!("restart-{cluster}-{}", std::process::id()),
            source,
            gossip_ports: free_ports()?,
            calls_per_second,
            nodes: Vec::new(),
            called: Vec::new(),
        };
        for number in 0..NODES {
            let node = fleet.spawn(number)?;
            fleet.nodes.push(Some(node));
        }
        for number in 0..NODES {
            fleet.order(number, Order::Gather { nodes: NODES })?;
        }
        fleet.order(0, Order::Fill { per_second: calls_per_second })?;
        fleet.share_load(None)?;
        Ok(fleet)
    }

    /// Stops a node and starts it again at once.
    pub fn restart(&mut self, number: usize, stop: Stop) -> Result<Restarted, BenchError> {
        self.share_load(Some(number))?;
        let mut node = self.nodes[number].take().ok_or(BenchError::ChildEnded)?;
        self.called.extend(node.ask::<Vec<Called>>(&Order::Rest)?);
        let began = Instant::now();
        if let Stop::Shutdown { grace } = stop {
            node.ask::<String>(&Order::Leave { grace })?;
        }
        let gone = Instant::now();
        match stop {
            Stop::Shutdown { .. } => drop(node),
            Stop::Kill => node.kill()?,
        }
        self.nodes[number] = Some(self.spawn(number)?);
        let restarted = Restarted { leaving: gone - began, away: gone.elapsed() };
        self.share_load(None)?;
        Ok(restarted)
    }

    /// Lets no more callers come, and tells what became of all.
    pub fn rest(mut self) -> Result<Vec<Called>, BenchError> {
        for node in self.nodes.iter_mut().flatten() {
            self.called.extend(node.ask::<Vec<Called>>(&Order::Rest)?);
        }
        Ok(self.called)
    }

    /// Whoever is up gets an even share; those that get more are told first.
    fn share_load(&mut self, without: Option<usize>) -> Result<(), BenchError> {
        let driven: Vec<usize> = (0..NODES).filter(|number| Some(*number) != without).collect();
        let per_second = self.calls_per_second / driven.len() as u32;
        driven.into_iter().try_for_each(|number| self.order(number, Order::Drive { per_second }))
    }

    fn order(&mut self, number: usize, order: Order) -> Result<(), BenchError> {
        let node = self.nodes[number].as_mut().ok_or(BenchError::ChildEnded)?;
        node.ask::<String>(&order)?;
        Ok(())
    }

    /// Starts a node and waits until it is ready.
    fn spawn(&self, number: usize) -> Result<Child, BenchError> {
        let (name, port) = (format!("node-{number}"), self.gossip_ports[number]);
        let mut args = vec!["restart-node".to_owned(), self.cluster.clone(), name];
        args.extend([self.source.to_string(), port.to_string()]);
        args.extend(self.gossip_ports.iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, *port)).to_string()));
        let mut node = Child::spawn(&args)?;
        node.hear::<String>()?;
        Ok(node)
    }
}

/// Two neighbouring ports that are free, for every node. A node comes back to its ports, so they are none of those that the system
/// hands out: it could give one to another connection meanwhile.
fn free_ports() -> Result<Vec<u16>, BenchError> {
    let is_free = |port: &u16| {
        let (gossip, peers) = ((Ipv4Addr::LOCALHOST, *port), (Ipv4Addr::LOCALHOST, *port + 1));
        let bound = (UdpSocket::bind(gossip), TcpListener::bind(gossip), TcpListener::bind(peers));
        matches!(bound, (Ok(_), Ok(_), Ok(_)))
    };
    let first = 20_000 + (std::process::id() % 500) as u16 * 20;
    let ports: Vec<u16> = (first..32_000).step_by(2).filter(is_free).take(NODES).collect();
    match ports.len() {
        NODES => Ok(ports),
        _ => Err(std::io::Error::other("too few ports are free between 20000 and 32000").into()),
    }
}
