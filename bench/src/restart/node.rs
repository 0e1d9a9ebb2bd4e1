//! One node of the rolling restart, in a process of its own, with the callers that use it.
//!
//! Does what it is told, in turn, and knows nothing of the restart itself: to be killed is as good as to be told to leave. The
//! invariant: whatever was called here is told before the node leaves.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use distcache::{Engine, Keyspace, KeyspaceSpec, PutOptions, StaticDiscovery};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::callers::{Callers, Desk};
use super::origin::Remote;
use crate::child;
use crate::error::BenchError;
use crate::systems::{self, distcache::wait_for_nodes};
use crate::workload::{self, SMALL_VALUE_BYTES, SplitMix};

const KEYSPACE: &str = "restart";
pub const KEYS: usize = 20_000;
pub const TTL: Duration = Duration::from_secs(120);
/// Enough that no node comes to their end.
const DRAWS: usize = 1 << 17;
const PUTS_AT_ONCE: usize = 64;

/// A node in this process, for its parent.
#[derive(Args)]
pub struct NodeArgs {
    cluster: String,
    name: String,
    source: SocketAddr,
    /// Where this node gossips; its peers connect to the port after it.
    gossip_port: u16,
    /// Where all nodes gossip.
    seeds: Vec<SocketAddr>,
}

/// What a node is told.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Wait until so many nodes know each other.
    Gather { nodes: usize },
    /// Store what would be stored after a long time of such a load.
    Fill { per_second: u32 },
    /// Let callers come at this rate.
    Drive { per_second: u32 },
    /// Let no more come, and tell what became of those that came.
    Rest,
    /// Shut down.
    Leave { grace: Duration },
}

/// Runs a node until its input ends.
pub fn run(args: &NodeArgs) -> Result<(), BenchError> {
    let runtime = systems::one_worker()?;
    let source = Remote::at(args.source);
    let engine = runtime.block_on(start(args, source.clone()))?;
    let desk = Desk { keyspace: engine.keyspace(KEYSPACE)?, source };
    let mut callers: Option<Callers> = None;
    child::say(&"ready")?;
    while let Some(order) = child::listen::<Order>()? {
        match order {
            Order::Gather { nodes } => runtime.block_on(wait_for_nodes(&engine, nodes))?,
            Order::Fill { per_second } => runtime.block_on(fill(&desk.keyspace, per_second))?,
            Order::Drive { per_second } => match &callers {
                Some(callers) => callers.set_rate(per_second),
                None => {
                    // Each node asks in an order of its own, also after a restart.
                    let draws = workload::zipf(KEYS, DRAWS, engine.me().incarnation);
                    callers = Some(Callers::come(per_second, desk.clone(), draws, runtime.handle().clone()));
                }
            },
            Order::Rest => {
                let called = callers.take().map(Callers::rest);
                child::say(&called.unwrap_or_default())?;
                continue;
            }
            Order::Leave { grace } => runtime.block_on(engine.shutdown(grace)),
        }
        child::say(&"done")?;
    }
    Ok(())
}

async fn start(args: &NodeArgs, source: Remote) -> Result<Engine, BenchError> {
    let on_port = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let engine = Engine::builder()
        .name(&args.name)
        .cluster_name(&args.cluster)
        .keyspace(KeyspaceSpec::new(KEYSPACE, source).ttl(TTL))
        .discovery(StaticDiscovery::new(args.seeds.iter().map(ToString::to_string)))
        .gossip_listen(on_port(args.gossip_port))
        .peer_listen(on_port(args.gossip_port + 1))
        .advertise(Ipv4Addr::LOCALHOST.into());
    Ok(engine.start().await?)
}

/// Stores what is there on average after a long time. A key that is read `r` times a second is loaded, lives for the TTL, and is
/// loaded again `1/r` later on average: so it is there for `r x TTL` of `1 + r x TTL`, and its end is anywhere within the TTL.
async fn fill(keyspace: &Keyspace, per_second: u32) -> Result<(), BenchError> {
    let mut random = SplitMix(1);
    let harmonic: f64 = (1..=KEYS).map(|rank| 1.0 / rank as f64).sum();
    let mut entries = Vec::new();
    for (rank, number) in (1..).zip(workload::by_popularity(KEYS)) {
        let reads = f64::from(per_second) / harmonic / f64::from(rank) * TTL.as_secs_f64();
        let (is_there, left) = (random.unit() < reads / (1.0 + reads), random.unit());
        if is_there {
            entries.push((workload::key(SMALL_VALUE_BYTES, number as usize), TTL.mul_f64(left.max(0.001))));
        }
    }
    let put = |(key, ttl): (String, Duration)| async move {
        keyspace.put_with(&key, workload::value(&key), PutOptions::new().ttl(ttl)).await
    };
    stream::iter(entries).map(Ok).try_for_each_concurrent(PUTS_AT_ONCE, put).await?;
    Ok(())
}
