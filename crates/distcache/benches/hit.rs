//! Hits and nothing else, as often as told: `hit get 100000`, `hit cached 100000`. What `scripts/hit-cost` counts the instructions of.
//!
//! Measures nothing by itself: an instruction count comes from callgrind, as the difference of two runs of different length, so
//! that starting and filling the cache cancel out.

use std::time::Duration;

use distcache::{DataSource, Engine, Fetched, KeyspaceSpec, SourceError};

/// Keys that are read in turn; few enough to be in the cache, and in the processor's.
const KEYS: usize = 1_000;

struct Numbers;

impl DataSource for Numbers {
    async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
        Ok(Fetched::new(format!("{key:>100}")))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(call), Some(hits)) = (arguments.next(), arguments.next().and_then(|hits| hits.parse().ok())) else {
        // `cargo bench` and `cargo test --benches` come by without saying what they want.
        println!("hit get|cached HITS; see scripts/hit-cost");
        return Ok(());
    };
    let spec = KeyspaceSpec::new("numbers", Numbers).max_bytes(64 << 20).ttl(Duration::from_secs(3_600));
    let engine = Engine::builder().keyspace(spec).start().await?;
    let numbers = engine.keyspace("numbers")?;
    let keys: Vec<String> = (0..KEYS).map(|n| format!("number:{n}")).collect();
    for key in &keys {
        numbers.get(key).await?;
    }
    let mut bytes = 0;
    for key in keys.iter().cycle().take(hits) {
        bytes += match call.as_str() {
            "get" => numbers.get(key).await?.len(),
            _ => numbers.cached(key).map_or(0, |value| value.len()),
        };
    }
    assert_eq!(bytes, hits * 100);
    Ok(())
}
