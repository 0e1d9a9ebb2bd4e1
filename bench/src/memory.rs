//! A million entries: bytes that are resident, beside the limit and beside what the store itself counts.
//!
//! Every contestant fills itself in a fresh process. First with room for everything; then with room for half of what the first
//! case took by the contestant's own count, and twice as many entries, so that half of the time it also evicts.

use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use distcache::bench_support::BooksProbe;
use distcache::{Engine, KeyspaceSpec, SourceError};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::Settings;
use crate::bare::KeyAndValue;
use crate::child::{self, Child};
use crate::error::BenchError;
use crate::machine::{self, Resident};
use crate::report::{Bound, Table, Target};
use crate::systems::{self, redis as redis_system};
use crate::workload::{self, KEY_BYTES, SMALL_VALUE_BYTES};

/// Fill one store in this process.
#[derive(Args)]
pub struct Fill {
    store: Store,
    max_bytes: u64,
    entries: usize,
    /// Entries that the store should be ready for.
    expected: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Store {
    Distcache,
    QuickCache,
    Moka,
    Redis,
}

/// Fill one kind of an owner's books in this process.
#[derive(Args)]
pub struct Keep {
    what: Kept,
    keys: usize,
}

/// What an owner keeps of a key beside its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kept {
    OneHolder,
    TwoHolders,
    EightHolders,
    Everybody,
    Change,
}

impl Kept {
    const ALL: [Self; 5] = [Self::OneHolder, Self::TwoHolders, Self::EightHolders, Self::Everybody, Self::Change];

    fn name(self) -> &'static str {
        match self {
            Self::OneHolder => "held by one node",
            Self::TwoHolders => "held by two",
            Self::EightHolders => "held by eight",
            Self::Everybody => "held by nine, kept as \"everybody\"",
            Self::Change => "written lately",
        }
    }

    fn holders(self) -> u64 {
        match self {
            Self::OneHolder => 1,
            Self::TwoHolders => 2,
            Self::EightHolders => 8,
            Self::Everybody => 9,
            Self::Change => 0,
        }
    }
}

impl Store {
    const ALL: [Self; 4] = [Self::Distcache, Self::QuickCache, Self::Moka, Self::Redis];

    fn name(self) -> &'static str {
        match self {
            Self::Distcache => "distcache",
            Self::QuickCache => "quick_cache, weighing key + value",
            Self::Moka => "moka, weighing key + value",
            Self::Redis => "redis-server",
        }
    }
}

/// What a filled store says.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Filled {
    /// Resident bytes of the process before the first entry.
    before: u64,
    /// After the last entry was put.
    after: u64,
    /// After every entry was read once as well.
    after_reads: u64,
    peak: u64,
    /// What the store itself counts.
    counted: u64,
    entries: u64,
}

/// What a process may take beside its entries: allocator, runtime, tables that do not grow with the entries.
const OVERHEAD_BYTES: u64 = 16 << 20;

pub fn run(settings: Settings) -> Result<Vec<Target>, BenchError> {
    redis_system::check_installed()?;
    let entries = settings.pick(1_000_000, 20_000);
    let payload = (KEY_BYTES + SMALL_VALUE_BYTES) as u64 * entries as u64;
    let mut roomy = table(format!("{entries} entries of {KEY_BYTES} + {SMALL_VALUE_BYTES} bytes, room for all"));
    let mut tight = table(format!("The same with room for half, after {} entries", 2 * entries));
    let mut targets = Vec::new();
    for store in Store::ALL {
        let enough = fill_elsewhere(store, payload * 8, entries, entries)?;
        roomy.row(row(store, payload * 8, enough));
        let half = enough.counted / 2;
        let filled = fill_elsewhere(store, half, 2 * entries, entries / 2)?;
        tight.row(row(store, half, filled));
        if store == Store::Distcache {
            targets.push(target("resident bytes of full memory, of its limit and 16 MiB", half, filled));
            targets.push(target(
                "resident bytes with room to spare, of those counted and 16 MiB",
                enough.counted,
                enough,
            ));
        }
    }
    roomy.print(settings.style());
    tight.print(settings.style());
    let mut books = Table::new(format!("An owner's books of {entries} keys"), &["a key that is", "bytes"]);
    for kept in Kept::ALL {
        let name = kept.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let bytes: f64 = Child::spawn(["keep", &name, &entries.to_string()])?.hear()?;
        books.row([kept.name().to_owned(), format!("{bytes:.0}")]);
    }
    books.print(settings.style());
    Ok(targets)
}

/// The child's side: resident bytes a key.
pub fn keep(keep: &Keep) -> Result<(), BenchError> {
    let before = machine::resident(std::process::id())?.now;
    let books = BooksProbe::new(keep.keys);
    for n in 0..keep.keys as u64 {
        // Spread as hashes are. Knuth, "The Art of Computer Programming" 3, section 6.4.
        let hash = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        match keep.what {
            Kept::Change => books.write(hash),
            _ => {
                let has_room = (0..keep.what.holders()).all(|node| books.hold(hash, node));
                assert!(has_room, "the books have room for twice as many");
            }
        }
    }
    let grown = machine::resident(std::process::id())?.now - before;
    child::say(&(grown as f64 / keep.keys as f64))?;
    child::wait_for_end()
}

fn target(what: &str, allowed: u64, filled: Filled) -> Target {
    let grown = filled.after_reads.max(filled.after) - filled.before;
    Target { what: what.into(), bound: Bound::AtMost(1.0), measured: grown as f64 / (allowed + OVERHEAD_BYTES) as f64 }
}

fn table(title: String) -> Table {
    Table::new(
        title,
        &[
            "store",
            "entries",
            "limit MiB",
            "counted",
            "resident",
            "after reads",
            "peak",
            "bytes an entry",
            "of the limit",
        ],
    )
}

/// Resident bytes are those that the entries brought: what the process had before is taken off.
fn row(store: Store, limit: u64, filled: Filled) -> [String; 9] {
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let grown = |bytes: u64| bytes.saturating_sub(filled.before);
    [
        store.name().into(),
        filled.entries.to_string(),
        mib(limit),
        mib(filled.counted),
        mib(grown(filled.after)),
        mib(grown(filled.after_reads)),
        mib(grown(filled.peak)),
        format!("{:.0}", grown(filled.after_reads) as f64 / filled.entries as f64),
        format!("{:.2}x", grown(filled.after_reads) as f64 / limit as f64),
    ]
}

fn fill_elsewhere(store: Store, max_bytes: u64, entries: usize, expected: usize) -> Result<Filled, BenchError> {
    let name = store.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    Child::spawn(["fill", &name, &max_bytes.to_string(), &entries.to_string(), &expected.to_string()])?.hear()
}

/// The child's side.
pub fn fill(fill: &Fill) -> Result<(), BenchError> {
    let runtime = systems::one_worker()?;
    let filled = match fill.store {
        Store::Distcache => distcache(fill, &runtime)?,
        Store::QuickCache => quick_cache(fill)?,
        Store::Moka => moka(fill)?,
        Store::Redis => redis_server(fill, &runtime)?,
    };
    child::say(&filled)?;
    child::wait_for_end()
}

/// Puts and then reads all entries; resident bytes are those of `pid`.
fn put_and_read(
    pid: u32,
    entries: usize,
    mut put: impl FnMut(String, Bytes) -> Result<(), BenchError>,
    mut read: impl FnMut(&str) -> Result<(), BenchError>,
) -> Result<[Resident; 3], BenchError> {
    let before = machine::resident(pid)?;
    for n in 0..entries {
        let key = workload::key(SMALL_VALUE_BYTES, n);
        let value = workload::value(&key);
        put(key, value)?;
    }
    let after = machine::resident(pid)?;
    for n in 0..entries {
        read(&workload::key(SMALL_VALUE_BYTES, n))?;
    }
    Ok([before, after, machine::resident(pid)?])
}

fn filled([before, after, after_reads]: [Resident; 3], counted: u64, entries: u64) -> Filled {
    Filled {
        before: before.now,
        after: after.now,
        after_reads: after_reads.now,
        peak: after_reads.peak,
        counted,
        entries,
    }
}

fn distcache(fill: &Fill, runtime: &Runtime) -> Result<Filled, BenchError> {
    struct Nothing;
    impl distcache::DataSource for Nothing {
        async fn fetch(&self, _key: &str) -> Result<distcache::Fetched, SourceError> {
            Err(SourceError::NotFound)
        }
    }
    let spec = KeyspaceSpec::new("memory", Nothing).max_bytes(fill.max_bytes);
    let engine = runtime.block_on(Engine::builder().keyspace(spec).start())?;
    let keyspace = engine.keyspace("memory")?;
    let resident = put_and_read(
        std::process::id(),
        fill.entries,
        |key, value| Ok(runtime.block_on(keyspace.put(&key, value))?),
        |key| {
            keyspace.cached(key);
            Ok(())
        },
    )?;
    let stats = keyspace.stats();
    Ok(filled(resident, stats.bytes, stats.entries))
}

fn quick_cache(fill: &Fill) -> Result<Filled, BenchError> {
    let cache = quick_cache::sync::Cache::with_weighter(fill.expected, fill.max_bytes, KeyAndValue);
    let resident = put_and_read(
        std::process::id(),
        fill.entries,
        |key, value| {
            cache.insert(key, value);
            Ok(())
        },
        |key| {
            cache.get(key);
            Ok(())
        },
    )?;
    Ok(filled(resident, cache.weight(), cache.len() as u64))
}

fn moka(fill: &Fill) -> Result<Filled, BenchError> {
    let weigh = |key: &String, value: &Bytes| (key.len() + value.len()) as u32;
    let cache = moka::sync::Cache::builder().max_capacity(fill.max_bytes).weigher(weigh).build();
    let resident = put_and_read(
        std::process::id(),
        fill.entries,
        |key, value| {
            cache.insert(key, value);
            Ok(())
        },
        |key| {
            cache.get(key);
            Ok(())
        },
    )?;
    cache.run_pending_tasks();
    Ok(filled(resident, cache.weighted_size(), cache.entry_count()))
}

fn redis_server(fill: &Fill, runtime: &Runtime) -> Result<Filled, BenchError> {
    let server = redis_system::Server::start()?;
    runtime.block_on(redis_system::wait_until_up(server.addr))?;
    let mut connection = runtime.block_on(redis_system::connect(server.addr))?;
    let empty = used_bytes(runtime, &mut connection)?;
    runtime.block_on(configure(&mut connection, fill.max_bytes + empty))?;
    let mut pipeline = redis::pipe();
    let mut writer = connection.clone();
    let resident = put_and_read(
        server.pid(),
        fill.entries,
        |key, value| {
            pipeline.set(key, value.as_ref()).ignore();
            if pipeline.len() == 100 {
                runtime.block_on(pipeline.query_async::<()>(&mut writer))?;
                pipeline.clear();
            }
            Ok(())
        },
        // A read takes no memory in Redis.
        |_| Ok(()),
    )?;
    let counted = used_bytes(runtime, &mut connection)?.saturating_sub(empty);
    let entries: u64 = runtime.block_on(redis::cmd("DBSIZE").query_async(&mut connection))?;
    Ok(filled(resident, counted, entries))
}

async fn configure(connection: &mut redis::aio::MultiplexedConnection, max_bytes: u64) -> Result<(), BenchError> {
    for (name, value) in [("maxmemory", max_bytes.to_string()), ("maxmemory-policy", "allkeys-lru".into())] {
        redis::cmd("CONFIG").arg("SET").arg(name).arg(value).query_async::<()>(connection).await?;
    }
    connection.set_response_timeout(Duration::from_secs(5));
    Ok(())
}

fn used_bytes(runtime: &Runtime, connection: &mut redis::aio::MultiplexedConnection) -> Result<u64, BenchError> {
    let info: String = runtime.block_on(redis::cmd("INFO").arg("memory").query_async(connection))?;
    Ok(info.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok()).unwrap_or(0))
}
