//! What there is to measure of a node as a whole: its standing in the cluster, its ports, its process.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use distcache::{Engine, PeerState};

use super::{Family, Kind, Sample, Value};
use crate::listener::ListenerState;

pub(super) fn families(engine: &Engine, listeners: &[Arc<ListenerState>], started: SystemTime) -> Vec<Family> {
    process(started).into_iter().chain(standing(engine)).chain(ports(listeners)).collect()
}

fn process(started: SystemTime) -> [Family; 2] {
    let seconds = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    [
        gauge(
            "process_start_time_seconds",
            "When this process began to serve, in seconds since 1970.",
            vec![Sample { labels: Vec::new(), value: Value::Real(seconds) }],
        ),
        gauge("distcache_build_info", "Always 1; the labels say what runs here.", vec![whole(version, 1)]),
    ]
}

fn standing(engine: &Engine) -> [Family; 4] {
    let (me, peers, ring) = (engine.me(), engine.peers(), engine.ring());
    let states = [("joining", PeerState::Joining), ("ready", PeerState::Ready), ("draining", PeerState::Draining)];
    let counted = states.map(|(word, state)| {
        let count = peers.iter().filter(|peer| peer.state == state).count();
        whole(vec![("state", word.to_owned())], count as u64)
    });
    let slots = ring.members.iter().find(|member| member.name == me.name).map_or(0, |member| member.slots);
    let refused = engine.refusals().into_iter();
    let refused = refused.map(|(reason, count)| whole(vec![("reason", reason.name().to_owned())], count));
    [
        gauge(
            "distcache_ready",
            "Whether this node has joined and is not leaving.",
            vec![whole(Vec::new(), engine.is_ready().into())],
        ),
        gauge("distcache_peers", "Nodes that this one knows, itself included, by state.", counted.into()),
        gauge("distcache_slots_owned", "Parts of the keys that this node owns.", vec![whole(Vec::new(), slots.into())]),
        counter(
            "distcache_refusals",
            "Connections and datagrams of others that were refused, by reason.",
            refused.collect(),
        ),
    ]
}

fn ports(listeners: &[Arc<ListenerState>]) -> [Family; 3] {
    let of = |listener: &ListenerState| ("listener", listener.name.to_owned());
    let open = |listener: &Arc<ListenerState>| whole(vec![of(listener)], listener.connections_open() as u64);
    let max = |listener: &Arc<ListenerState>| whole(vec![of(listener)], listener.limits.connections_max as u64);
    let events = listeners.iter().flat_map(|listener| {
        let named = listener.counters.named();
        named.map(|(event, count)| whole(vec![of(listener), ("event", event.to_owned())], count))
    });
    [
        gauge(
            "distcache_listener_connections",
            "Connections open now, by listener.",
            listeners.iter().map(open).collect(),
        ),
        gauge(
            "distcache_listener_connections_max",
            "Connections that may be open at once, by listener.",
            listeners.iter().map(max).collect(),
        ),
        counter("distcache_listener_events", "What happened at a listener, by kind.", events.collect()),
    ]
}

fn gauge(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Family {
    Family { name, help, kind: Kind::Gauge, samples }
}

fn counter(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Family {
    Family { name, help, kind: Kind::Counter, samples }
}

fn whole(labels: Vec<(&'static str, String)>, value: u64) -> Sample {
    Sample { labels, value: Value::Whole(value) }
}
