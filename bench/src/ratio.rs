//! How many requests a cache answers by itself: every eviction policy of distcache's own store on one stream of requests, with
//! room for a part of its keys, beside what is possible and beside other caches.
//!
//! Entries are of one size, and the limit of bytes is such that a given number of them fits. No clock is involved, so the
//! numbers are the same on every machine with as many cores, which decide how many shards a store has.

use std::collections::{BTreeMap, BinaryHeap};
use std::path::PathBuf;

use distcache::Eviction;
use distcache::bench_support::StoreProbe;

use crate::Settings;
use crate::error::BenchError;
use crate::report::{Bound, Table, Target};
use crate::trace::Trace;

/// Parts of a stream's keys that there is room for.
const ROOM: [f64; 3] = [0.01, 0.05, 0.20];

const SCAN_RESISTANT: &str = "distcache, scan-resistant";
const LRU: &str = "distcache, LRU";
const LFU: &str = "distcache, LFU";
const FIFO: &str = "distcache, FIFO";
const EXACT_LRU: &str = "LRU, exact";
const EXACT_FIFO: &str = "FIFO, exact";
const QUICK_CACHE: &str = "quick_cache";
const MOKA: &str = "moka";
const BELADY: &str = "Belady's bound";

const ROWS: [&str; 9] = [SCAN_RESISTANT, LRU, LFU, FIFO, QUICK_CACHE, MOKA, EXACT_LRU, EXACT_FIFO, BELADY];

/// What our policies are measured by, and the part of its hits that they have to have. Those beside us count entries only:
/// what quick_cache and moka remember of other keys comes on top of their room, ours is inside the limit of bytes.
const BESIDE: [(&str, &str, f64); 4] =
    [(SCAN_RESISTANT, QUICK_CACHE, 0.94), (LRU, EXACT_LRU, 0.98), (FIFO, EXACT_FIFO, 0.98), (LFU, MOKA, 0.95)];

pub fn run(settings: Settings, traces: &[PathBuf]) -> Result<Vec<Target>, BenchError> {
    let traces = if traces.is_empty() {
        Trace::made(settings.pick(200_000, 5_000), settings.pick(1_000_000, 20_000))
    } else {
        traces.iter().map(|path| Trace::read(path)).collect::<Result<_, _>>()?
    };
    let mut least = [f64::INFINITY; BESIDE.len()];
    for trace in &traces {
        let measured = ROOM.map(|part| ratios(trace, ((trace.keys as f64 * part) as usize).max(1)));
        table(trace, &measured).print(settings.style());
        for (least, (ours, other, _)) in least.iter_mut().zip(BESIDE) {
            let beside = measured.iter().map(|ratios| of(ratios, ours) / of(ratios, other));
            *least = beside.fold(*least, f64::min);
        }
    }
    let targets = least.into_iter().zip(BESIDE).map(|(measured, (ours, other, bound))| Target {
        what: format!("{ours}: hits beside those of {other}, the least of all above"),
        bound: Bound::AtLeast(bound),
        measured,
    });
    Ok(targets.collect())
}

fn of(ratios: &[f64; ROWS.len()], name: &str) -> f64 {
    ROWS.iter().zip(ratios).find(|(row, _)| **row == name).map_or(f64::NAN, |(_, ratio)| *ratio)
}

fn table(trace: &Trace, measured: &[[f64; ROWS.len()]; ROOM.len()]) -> Table {
    let title = format!("Hits in percent: {}, {} requests, {} keys", trace.name, trace.requests.len(), trace.keys);
    let mut table = Table::new(title, &["room for", "1 % of the keys", "5 %", "20 %"]);
    for (row, name) in ROWS.into_iter().enumerate() {
        let percent = |room: usize| format!("{:.1}", measured[room][row] * 100.0);
        table.row([name.to_owned(), percent(0), percent(1), percent(2)]);
    }
    table
}

/// By row, for a cache with room for so many entries.
fn ratios(trace: &Trace, room: usize) -> [f64; ROWS.len()] {
    ROWS.map(|row| {
        let ours = |eviction| {
            let store = StoreProbe::new(eviction, room);
            hits(trace, |key| store.read_through(u64::from(key)))
        };
        let hits = match row {
            SCAN_RESISTANT => ours(Eviction::ScanResistant),
            LRU => ours(Eviction::Lru),
            LFU => ours(Eviction::Lfu),
            FIFO => ours(Eviction::Fifo),
            QUICK_CACHE => quick_cache(trace, room),
            MOKA => moka(trace, room),
            EXACT_LRU => exact(trace, room, true),
            EXACT_FIFO => exact(trace, room, false),
            _ => belady(&trace.requests, trace.keys, room),
        };
        hits as f64 / trace.requests.len() as f64
    })
}

fn hits(trace: &Trace, mut read_through: impl FnMut(u32) -> bool) -> usize {
    trace.requests.iter().filter(|&&key| read_through(key)).count()
}

fn quick_cache(trace: &Trace, room: usize) -> usize {
    let cache = quick_cache::sync::Cache::new(room);
    hits(trace, |key| {
        let is_hit = cache.get(&key).is_some();
        if !is_hit {
            cache.insert(key, ());
        }
        is_hit
    })
}

fn moka(trace: &Trace, room: usize) -> usize {
    let cache = moka::sync::Cache::new(room as u64);
    hits(trace, |key| {
        let is_hit = cache.get(&key).is_some();
        if !is_hit {
            cache.insert(key, ());
        }
        // It evicts later, in batches, or it would hold more than it has room for.
        cache.run_pending_tasks();
        is_hit
    })
}

/// LRU, or FIFO where reads do not renew, without shards.
fn exact(trace: &Trace, room: usize, reads_renew: bool) -> usize {
    let mut since = vec![None; trace.keys];
    let mut oldest = BTreeMap::new();
    let mut now = 0_u64;
    hits(trace, |key| {
        now += 1;
        let held: Option<u64> = since[key as usize];
        if held.is_none() || reads_renew {
            held.map(|since| oldest.remove(&since));
            since[key as usize] = Some(now);
            oldest.insert(now, key);
        }
        if oldest.len() > room
            && let Some((_, evicted)) = oldest.pop_first()
        {
            since[evicted as usize] = None;
        }
        held.is_some()
    })
}

/// The most hits that any cache can have: what goes is what will be asked for last, the newcomer included.
///
/// L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal 5(2), 1966.
fn belady(requests: &[u32], keys: usize, room: usize) -> usize {
    let mut following = vec![usize::MAX; requests.len()];
    let mut latest = vec![usize::MAX; keys];
    for (at, &key) in requests.iter().enumerate().rev() {
        following[at] = latest[key as usize];
        latest[key as usize] = at;
    }
    let mut is_held = vec![false; keys];
    let (mut held, mut hits) = (0, 0);
    // By when they are asked for again. What has been asked for since is there twice, the earlier time below all others.
    let mut last_first = BinaryHeap::new();
    for (&key, following) in requests.iter().zip(following) {
        last_first.push((following, key));
        if is_held[key as usize] {
            hits += 1;
            continue;
        }
        is_held[key as usize] = true;
        held += 1;
        if held > room
            && let Some((_, last)) = last_first.pop()
        {
            is_held[last as usize] = false;
            held -= 1;
        }
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::SplitMix;

    fn trace(requests: &[u32]) -> Trace {
        let keys = requests.iter().max().map_or(0, |&key| key as usize + 1);
        Trace { name: String::new(), requests: requests.to_vec(), keys }
    }

    /// The most hits from here on, by trying everything.
    fn most(requests: &[u32], held: &[u32], room: usize) -> usize {
        let Some((key, rest)) = requests.split_first() else { return 0 };
        if held.contains(key) {
            return 1 + most(rest, held, room);
        }
        let with: Vec<u32> = held.iter().copied().chain([*key]).collect();
        if with.len() <= room {
            return most(rest, &with, room);
        }
        let without = |gone: &u32| with.iter().copied().filter(|other| other != gone).collect::<Vec<_>>();
        with.iter().map(|gone| most(rest, &without(gone), room)).max().unwrap_or(0)
    }

    #[test]
    fn the_bound_is_what_trying_everything_finds() {
        let mut random = SplitMix(7);
        for (room, keys) in (0..50).flat_map(|_| [(1, 3), (2, 4), (3, 5)]) {
            let requests: Vec<u32> = (0..11).map(|_| (random.next() % keys) as u32).collect();
            assert_eq!(belady(&requests, keys as usize, room), most(&requests, &[], room), "{requests:?}");
        }
    }

    #[test]
    fn the_exact_policies_differ_where_a_read_renews() {
        let trace = trace(&[0, 1, 0, 2, 0]);
        assert_eq!((exact(&trace, 2, true), exact(&trace, 2, false)), (2, 1));
    }

    #[test]
    fn nothing_beats_the_bound_and_our_lru_and_fifo_are_near_the_exact_ones() {
        for trace in Trace::made(2_000, 20_000) {
            let ratios = ratios(&trace, 200);
            let bound = of(&ratios, BELADY);
            assert!(ratios.iter().all(|&ratio| ratio > 0.0 && ratio <= bound), "{}: {ratios:?}", trace.name);
            for (ours, exact) in [(LRU, EXACT_LRU), (FIFO, EXACT_FIFO)] {
                assert!(of(&ratios, ours) > 0.95 * of(&ratios, exact), "{}: {ratios:?}", trace.name);
            }
        }
    }
}
