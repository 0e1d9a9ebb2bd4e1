//! What there is to measure of a keyspace on this node.
//!
//! The invariant: every number of [`KeyspaceStats`] is in here, but for the microseconds of the loads, which are the sum of
//! their histogram; and each keyspace has every series from the start, so that rates begin at zero.

use std::time::Duration;

use distcache::{CircuitState, Engine, KeyspaceStats, Latencies, LatencyHistogram};

use super::{Durations, Family, Kind, Sample, Value};

type Read = fn(&KeyspaceStats) -> u64;

/// A family of one number, or of one number for each value of a label.
struct Measure {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    label: &'static str,
    /// With the value of the label; empty: without one.
    parts: &'static [(&'static str, Read)],
}

const fn of(kind: Kind, name: &'static str, help: &'static str, parts: &'static [(&'static str, Read)]) -> Measure {
    Measure { name, help, kind, label: "", parts }
}

const fn by(
    label: &'static str,
    kind: Kind,
    name: &'static str,
    help: &'static str,
    parts: &'static [(&'static str, Read)],
) -> Measure {
    Measure { name, help, kind, label, parts }
}

use Kind::{Counter, Gauge};

const MEASURES: &[Measure] = &[
    by(
        "kind",
        Counter,
        "distcache_hits",
        "Reads of this node's own callers answered from here, by what answered them.",
        &[
            ("owned", |stats| stats.hits_owned),
            ("hot", |stats| stats.hits_hot),
            ("negative", |stats| stats.hits_negative),
            ("stale", |stats| stats.hits_stale),
        ],
    ),
    of(
        Counter,
        "distcache_misses",
        "Reads of this node's own callers that had to ask the owner or the source.",
        &[("", |stats| stats.misses)],
    ),
    of(
        Counter,
        "distcache_coalesced",
        "Reads that joined a load or fetch under way instead of starting their own.",
        &[("", |stats| stats.coalesced)],
    ),
    of(Counter, "distcache_fetches", "Requests sent to owners.", &[("", |stats| stats.fetches)]),
    of(
        Counter,
        "distcache_fetch_hits",
        "Keys that owners answered from their cache.",
        &[("", |stats| stats.fetch_hits)],
    ),
    of(
        Counter,
        "distcache_fetch_failures",
        "Requests to owners that failed on the way.",
        &[("", |stats| stats.fetch_failures)],
    ),
    of(Counter, "distcache_served", "Keys answered to other nodes as their owner.", &[("", |stats| stats.served)]),
    of(Counter, "distcache_loads", "Keys asked of the source.", &[("", |stats| stats.loads)]),
    by(
        "outcome",
        Counter,
        "distcache_loads_ended",
        "Keys that the source was asked for, by how that ended.",
        &[
            ("found", |stats| stats.loads_found),
            ("not_found", |stats| stats.loads_not_found),
            ("failed", |stats| stats.load_failures),
        ],
    ),
    of(
        Counter,
        "distcache_fallback_loads",
        "Keys asked of the source by this node because their owner, or a new owner's predecessor, could not be asked.",
        &[("", |stats| stats.fallback_loads)],
    ),
    of(
        Counter,
        "distcache_load_retries",
        "Attempts beyond the first to load a value.",
        &[("", |stats| stats.load_retries)],
    ),
    by(
        "reason",
        Counter,
        "distcache_background_loads",
        "Loads begun in the background, by why.",
        &[
            ("stale", |stats| stats.refreshes_stale),
            ("ahead", |stats| stats.refreshes_ahead),
            ("hot", |stats| stats.refreshes_hot),
            ("warming", |stats| stats.warmed),
        ],
    ),
    of(
        Counter,
        "distcache_stale_on_error",
        "Reads answered with a value past its lifetime because the load failed, was late or was not allowed.",
        &[("", |stats| stats.stale_on_error)],
    ),
    of(
        Counter,
        "distcache_warm_keys_refused",
        "Keys that were not loaded beforehand because as many as may wait for that do.",
        &[("", |stats| stats.warm_refused)],
    ),
    of(
        Counter,
        "distcache_guard_waits",
        "Loads that waited for a place among those that run.",
        &[("", |stats| stats.guard_waits)],
    ),
    by(
        "reason",
        Counter,
        "distcache_loads_refused",
        "Loads that were not let through to the source, by why.",
        &[("rate_limit", |stats| stats.rate_limited), ("circuit", |stats| stats.circuit_refused)],
    ),
    of(
        Counter,
        "distcache_circuit_opened",
        "Times that the circuit breaker opened.",
        &[("", |stats| stats.circuit_opened)],
    ),
    by(
        "reason",
        Counter,
        "distcache_requests_refused",
        "Requests that were refused, by why: a limit was reached, or key, value or batch are too large.",
        &[("overload", |stats| stats.overloads), ("too_large", |stats| stats.refused_too_large)],
    ),
    of(Counter, "distcache_puts", "Values stored by put.", &[("", |stats| stats.puts)]),
    of(Counter, "distcache_deletes", "Keys removed by delete.", &[("", |stats| stats.deletes)]),
    by(
        "direction",
        Counter,
        "distcache_invalidations",
        "Copies that were told to go: elsewhere (sent) and here (received).",
        &[("sent", |stats| stats.invalidations_sent), ("received", |stats| stats.invalidations_received)],
    ),
    by(
        "direction",
        Counter,
        "distcache_entries_moved",
        "Entries that went with their slot: to its new owner (given) and from its last one (taken).",
        &[("given", |stats| stats.handed_over), ("taken", |stats| stats.taken_over)],
    ),
    of(
        Counter,
        "distcache_peek_hits",
        "Keys that the last owner of their slot had, so that the source was not asked.",
        &[("", |stats| stats.peek_hits)],
    ),
    by(
        "direction",
        Counter,
        "distcache_changes",
        "Written keys that nodes told each other of because both may have owned them: to others (told) and from others (heard).",
        &[("told", |stats| stats.changes_told), ("heard", |stats| stats.changes_heard)],
    ),
    of(
        Counter,
        "distcache_leases_refused",
        "Fetches answered without a lease because as many keys as may have one have one.",
        &[("", |stats| stats.leases_refused)],
    ),
    by(
        "cause",
        Counter,
        "distcache_evictions",
        "Entries that are no longer held, by why.",
        &[
            ("capacity", |stats| stats.evicted_capacity),
            ("expired", |stats| stats.evicted_expired),
            ("idle", |stats| stats.evicted_idle),
            ("cleared", |stats| stats.evicted_cleared),
            ("moved", |stats| stats.evicted_moved),
        ],
    ),
    by(
        "kind",
        Gauge,
        "distcache_entries",
        "Entries held now: owned, and leased copies of what others own (hot).",
        &[("owned", |stats| stats.entries), ("hot", |stats| stats.hot_entries)],
    ),
    of(Gauge, "distcache_store_bytes", "Bytes taken now, bookkeeping included.", &[("", |stats| stats.bytes)]),
    of(
        Gauge,
        "distcache_store_max_bytes",
        "Bytes that may be taken, bookkeeping included.",
        &[("", |stats| stats.bytes_max)],
    ),
    by(
        "state",
        Gauge,
        "distcache_loads_pending",
        "Loads now, by whether they run or wait for their turn.",
        &[("running", |stats| stats.loads_running), ("waiting", |stats| stats.loads_waiting)],
    ),
    by(
        "state",
        Gauge,
        "distcache_circuit",
        "The state of the circuit breaker before the source: 1 for the one it is in.",
        &[
            ("closed", |stats| (stats.circuit == CircuitState::Closed).into()),
            ("open", |stats| (stats.circuit == CircuitState::Open).into()),
            ("half_open", |stats| (stats.circuit == CircuitState::HalfOpen).into()),
        ],
    ),
];

/// Of what crosses a network or asks a source, in microseconds.
const SLOW_MICROS: &[u64] = &[
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];
/// Of what is answered from memory, in nanoseconds.
const FAST_NANOS: &[u64] = &[100, 200, 300, 500, 750, 1_000, 2_000, 5_000, 10_000, 100_000, 1_000_000, 10_000_000];

type Told = fn(&Latencies) -> &LatencyHistogram;

const LATENCIES: &[(&str, &str, Told)] = &[
    (
        "distcache_load_duration_seconds",
        "Calls of the source, a batch counted once, without the wait for a place among those that run.",
        |told| &told.load,
    ),
    (
        "distcache_fetch_duration_seconds",
        "Requests to owners, a batch counted once, from the asking to the answer.",
        |told| &told.fetch,
    ),
    ("distcache_get_miss_duration_seconds", "Reads that had to ask, up to their answer.", |told| &told.get_miss),
    ("distcache_put_duration_seconds", "Calls of put, up to the owner's word that all is stored.", |told| &told.put),
    ("distcache_hit_duration_seconds", "Reads answered from here, a sample of them.", |told| &told.hit),
];

pub(super) fn families(engine: &Engine) -> Vec<Family> {
    let (stats, latencies) = (engine.stats(), engine.latencies());
    let counted = MEASURES.iter().map(|measure| {
        let samples = stats.iter().flat_map(|(name, stats)| {
            measure.parts.iter().map(move |(part, read)| {
                let mut labels = vec![("keyspace", name.clone())];
                labels.extend((!part.is_empty()).then(|| (measure.label, (*part).to_owned())));
                Sample { labels, value: Value::Whole(read(stats)) }
            })
        });
        Family { name: measure.name, help: measure.help, kind: measure.kind, samples: samples.collect() }
    });
    let timed = LATENCIES.iter().map(|&(name, help, told)| {
        let bounds = if name.contains("_hit_") {
            FAST_NANOS.iter().copied().map(Duration::from_nanos).collect::<Vec<_>>()
        } else {
            SLOW_MICROS.iter().copied().map(Duration::from_micros).collect()
        };
        let samples = latencies.iter().map(|(keyspace, latencies)| Sample {
            labels: vec![("keyspace", keyspace.clone())],
            value: Value::Durations(durations(told(latencies), &bounds)),
        });
        Family { name, help, kind: Kind::Histogram, samples: samples.collect() }
    });
    counted.chain(timed).collect()
}

fn durations(told: &LatencyHistogram, bounds: &[Duration]) -> Durations {
    let mut before = 0;
    let buckets = bounds.iter().map(|bound| {
        let within = told.count_within(*bound);
        (bound.as_secs_f64(), within - std::mem::replace(&mut before, within))
    });
    Durations { buckets: buckets.collect(), count: told.count(), sum: told.sum().as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    /// A number for each field, so that each can be recognized.
    fn numbered() -> (Json, KeyspaceStats) {
        let mut shown = serde_json::to_value(KeyspaceStats::default()).unwrap();
        let fields = shown.as_object_mut().unwrap();
        fields.remove("circuit");
        fields.iter_mut().enumerate().for_each(|(n, (_, value))| *value = json!(n + 1_000));
        let mut stats = KeyspaceStats::default();
        set(&mut stats, &shown);
        (shown, stats)
    }

    /// By the names of the fields: what is not listed here is a field that nobody measures.
    fn set(stats: &mut KeyspaceStats, shown: &Json) {
        macro_rules! fields {
            ($($field:ident)+) => {
                $(stats.$field = shown[stringify!($field)].as_u64().unwrap();)+
                assert_eq!([$(stringify!($field)),+].len(), shown.as_object().unwrap().len(), "a field was added");
            };
        }
        fields! {
            hits_owned hits_hot hits_negative hits_stale misses fetches fetch_hits fetch_failures loads loads_found
            loads_not_found load_failures fallback_loads load_micros refreshes_stale refreshes_ahead refreshes_hot
            stale_on_error guard_waits rate_limited circuit_refused circuit_opened load_retries warmed warm_refused coalesced overloads
            served puts deletes handed_over taken_over peek_hits changes_told changes_heard invalidations_sent invalidations_received refused_too_large leases_refused
            evicted_capacity evicted_expired evicted_idle evicted_cleared evicted_moved
            entries hot_entries bytes bytes_max loads_running loads_waiting
        }
    }

    #[test]
    fn every_number_of_a_keyspace_is_measured_once() {
        let (shown, stats) = numbered();
        for (field, number) in shown.as_object().unwrap() {
            let parts = MEASURES.iter().flat_map(|measure| measure.parts);
            let found = parts.filter(|(_, read)| Some(read(&stats)) == number.as_u64()).count();
            assert_eq!(found, usize::from(field != "load_micros"), "{field}");
        }
    }

    #[test]
    fn a_label_is_named_exactly_where_there_is_something_to_tell_apart() {
        for Measure { name, label, parts, .. } in MEASURES {
            assert_eq!(label.is_empty(), parts.len() == 1 && parts[0].0.is_empty(), "{name}");
            assert!(label.is_empty() || parts.iter().all(|(part, _)| !part.is_empty()), "{name}");
        }
    }
}
