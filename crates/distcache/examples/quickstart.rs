//! One node in front of a slow "database": the first read loads, the next one finds the value in memory.
//!
//! `cargo run --example quickstart`

use std::time::{Duration, Instant};

use distcache::{DataSource, Engine, Error, Fetched, KeyspaceSpec, SourceError};

/// Where values come from when the cache does not have them: a database, an API, a computation.
struct Users;

impl DataSource for Users {
    async fn fetch(&self, id: &str) -> Result<Fetched, SourceError> {
        tokio::time::sleep(Duration::from_millis(50)).await; // a query
        match id {
            "42" => Ok(Fetched::new("Ada Lovelace")),
            _ => Err(SourceError::NotFound),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let users = KeyspaceSpec::new("users", Users).max_bytes(64 << 20).ttl(Duration::from_secs(300));
    let engine = Engine::builder().keyspace(users).start().await?;

    for read in ["first", "second"] {
        let started = Instant::now();
        let name = engine.get("users", "42").await?;
        println!("{read} read of user 42: {name:?} in {:?}", started.elapsed());
    }

    engine.put("users", "7", "Grace Hopper").await?;
    println!("user 7, put just now: {:?}", engine.get("users", "7").await?);

    match engine.get("users", "1000").await {
        Err(Error::NotFound) => println!("user 1000: the database has none"),
        other => println!("user 1000: {other:?}"),
    }

    engine.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
