//! A cache before a slow API: its answers live as long as it says, its 404s are remembered, a crowd makes one call.
//!
//! `cargo run --example api_caching`

use std::time::{Duration, Instant};

use distcache::{DataSource, Engine, Fetched, Keyspace, KeyspaceSpec, SourceError};
use tokio::task::JoinSet;

/// What an HTTP client would give.
struct Response {
    status: u16,
    body: String,
    max_age: Option<Duration>, // of `Cache-Control`
}

/// `GET /weather/{city}`, a fifth of a second away.
async fn call(city: &str) -> Response {
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (status, max_age) = match city {
        "oslo" => (200, Some(Duration::from_secs(60))),
        "bergen" => (200, Some(Duration::from_millis(500))), // the weather there
        "rome" => (200, None),
        "babel" => (503, None),
        _ => (404, None),
    };
    Response { status, body: format!("rain in {city}"), max_age }
}

struct Weather;

impl DataSource for Weather {
    async fn fetch(&self, city: &str) -> Result<Fetched, SourceError> {
        let Response { status, body, max_age } = call(city).await;
        match (status, max_age) {
            (200, Some(max_age)) => Ok(Fetched::new(body).ttl(max_age)),
            (200, None) => Ok(Fetched::new(body)),
            (404, _) => Err(SourceError::NotFound),
            (429 | 500..=599, _) => Err(SourceError::unavailable(format!("status {status}"))),
            _ => Err(SourceError::failed(format!("status {status}"))),
        }
    }
}

/// Lets `callers` ask at the same moment; says what they got, how long that took and how many calls it cost.
async fn ask(weather: &Keyspace, callers: usize, city: &'static str) {
    let (started, loads) = (Instant::now(), weather.stats().loads);
    let mut crowd = JoinSet::new();
    for _ in 0..callers {
        let weather = weather.clone();
        crowd.spawn(async move { weather.get(city).await });
    }
    let answer = match crowd.join_all().await.swap_remove(0) {
        Ok(body) => String::from_utf8_lossy(&body).into_owned(),
        Err(error) => error.to_string(),
    };
    let (took, calls) = (started.elapsed(), weather.stats().loads - loads);
    println!("{callers:>5} x {city:<9} {:>7.1} ms, API calls: {calls}, {answer}", took.as_secs_f64() * 1e3);
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spec = KeyspaceSpec::new("weather", Weather)
        .ttl(Duration::from_secs(300)) // where the API does not say
        .negative_ttl(Duration::from_secs(10));
    let engine = Engine::builder().keyspace(spec).start().await?;
    let weather = engine.keyspace("weather")?;

    ask(&weather, 1_000, "oslo").await;
    ask(&weather, 1_000, "oslo").await;
    ask(&weather, 1_000, "rome").await;
    ask(&weather, 1_000, "atlantis").await;
    ask(&weather, 1_000, "atlantis").await;
    ask(&weather, 1, "babel").await; // a failure is told to those who wait for it, and never kept
    ask(&weather, 1, "babel").await;
    ask(&weather, 1, "bergen").await;
    println!("(600 ms later)");
    tokio::time::sleep(Duration::from_millis(600)).await;
    ask(&weather, 1, "bergen").await;
    ask(&weather, 1, "oslo").await;

    let stats = weather.stats();
    println!("\n{} reads, {} calls; {} joined a call under way", stats.reads(), stats.loads, stats.coalesced);
    println!("{} found in memory, {} of them a 404", stats.hits_owned + stats.hits_negative, stats.hits_negative);
    engine.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
