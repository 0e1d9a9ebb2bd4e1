//! The data set, the database made of it, and the question that is asked of it.
//!
//! The places are GeoNames' (CC BY 4.0), shipped by the crate `cities-json`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cities_json::CITIES;
use distcache::{DataSource, SourceError};
use distcache_sources::sql::{SqlSource, SqlSourceError};
use futures_util::stream::{self, StreamExt};
use hdrhistogram::Histogram;
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous};

use super::load::histogram;
use super::zipf::Zipf;

/// The file in the directory of the demo, as the nodes name it.
pub const URL: &str = "sqlite:places.db";
/// Connections of one node, so of the database as a whole three times as many.
pub const CONNECTIONS_PER_NODE: u32 = 4;

/// A place and its ten nearest, as one JSON value. The nearest are searched in a box of the index on latitude and longitude:
/// some thousand rows are looked at for each question.
pub const QUERY: &str = "\
WITH here AS (SELECT * FROM places WHERE id = ?1),
near AS (
  SELECT there.* FROM here CROSS JOIN places AS there
  WHERE there.lat BETWEEN here.lat - 1 AND here.lat + 1
    AND there.lon BETWEEN here.lon - 2 AND here.lon + 2 AND there.id <> here.id
  ORDER BY (there.lat - here.lat) * (there.lat - here.lat)
         + (there.lon - here.lon) * (there.lon - here.lon) * here.narrowing LIMIT 10)
SELECT json_object('name', name, 'country', country, 'lat', lat, 'lon', lon, 'nearest',
  (SELECT json_group_array(json_object('name', name, 'country', country, 'lat', lat, 'lon', lon)) FROM near))
FROM here";

/// `narrowing`: square of the cosine of the latitude, by which degrees of longitude are shorter than those of latitude.
const SCHEMA: &str = "CREATE TABLE places (id INTEGER PRIMARY KEY, name TEXT NOT NULL, country TEXT NOT NULL,
  lat REAL NOT NULL, lon REAL NOT NULL, narrowing REAL NOT NULL)";
const FILL: &str = "INSERT INTO places
  SELECT key + 1, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?1)";
const INDEX: &str = "CREATE INDEX places_by_position ON places (lat, lon)";

#[derive(Debug, thiserror::Error)]
pub enum PlacesError {
    #[error("the database of the demo cannot be made: {0}")]
    Fill(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Open(#[from] SqlSourceError),
    #[error("the database of the demo does not answer: {0}")]
    Ask(#[from] SourceError),
}

/// The filled database and the keys that are read, the most popular first.
pub struct Places {
    rows: usize,
    took: Duration,
    keys: Arc<[String]>,
    source: SqlSource,
}

/// How fast the database answers by itself, in microseconds.
pub struct Alone {
    pub one_at_a_time: Histogram<u64>,
    pub at_once: Histogram<u64>,
    /// How long it was asked, each way.
    pub took: Duration,
    pub connections: u32,
}

const ASKED_ALONE_FOR: Duration = Duration::from_millis(1_000);

impl Places {
    pub async fn fill(dir: &Path, read: usize) -> Result<Self, PlacesError> {
        let begun = Instant::now();
        let failed = |error: sqlx::Error| PlacesError::Fill(error.into());
        // Nobody else reads yet, and after a crash the demo starts anew: no journal, no waiting for the disk.
        let options = SqliteConnectOptions::new()
            .filename(dir.join("places.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Off)
            .synchronous(SqliteSynchronous::Off)
            .disable_statement_logging();
        let writer = SqlitePool::connect_with(options).await.map_err(failed)?;
        sqlx::raw_sql(SCHEMA).execute(&writer).await.map_err(failed)?;
        sqlx::query(FILL).bind(rows_as_json()?).execute(&writer).await.map_err(failed)?;
        sqlx::raw_sql(INDEX).execute(&writer).await.map_err(failed)?;
        writer.close().await;
        let connections = CONNECTIONS_PER_NODE * super::cluster::NODES as u32;
        let source = SqlSource::connect(URL).base_dir(dir).query(QUERY).max_connections(connections).open().await?;
        Ok(Self { rows: CITIES.len(), took: begun.elapsed(), keys: keys(read), source })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn took(&self) -> Duration {
        self.took
    }

    pub fn keys(&self) -> Arc<[String]> {
        self.keys.clone()
    }

    /// A key to try out, and the name of its place.
    pub fn example(&self) -> (&str, &'static str) {
        let key = self.keys[0].as_str();
        let row = key.parse::<usize>().unwrap_or(1);
        (key, &CITIES[row - 1].name)
    }

    /// The same questions with the same popularity, asked of the same file without a cache.
    pub async fn ask_alone(&self) -> Result<Alone, PlacesError> {
        let connections = CONNECTIONS_PER_NODE * super::cluster::NODES as u32;
        let one_at_a_time = self.ask_for(ASKED_ALONE_FOR, 1).await?;
        let at_once = self.ask_for(ASKED_ALONE_FOR, super::READERS).await?;
        Ok(Alone { one_at_a_time, at_once, took: ASKED_ALONE_FOR, connections })
    }

    async fn ask_for(&self, duration: Duration, at_once: usize) -> Result<Histogram<u64>, PlacesError> {
        let until = Instant::now() + duration;
        let zipf = Zipf::new(self.keys.len());
        let mut random = fastrand::Rng::with_seed(1);
        let ranks = std::iter::from_fn(|| (Instant::now() < until).then(|| zipf.rank(random.f64())));
        let ask = |rank: usize| async move {
            let begun = Instant::now();
            self.source.fetch(&self.keys[rank]).await.map(|_| begun.elapsed())
        };
        let mut answers = stream::iter(ranks.map(ask)).buffer_unordered(at_once);
        let mut times = histogram();
        while let Some(time) = answers.next().await {
            times.saturating_record(time?.as_micros() as u64);
        }
        Ok(times)
    }
}

fn rows_as_json() -> Result<String, PlacesError> {
    let row = |city: &'static cities_json::City| {
        let narrowing = city.lat.to_radians().cos().powi(2);
        (&city.name, &city.country, city.lat, city.lng, narrowing)
    };
    let rows: Vec<_> = CITIES.iter().map(row).collect();
    serde_json::to_string(&rows).map_err(|error| PlacesError::Fill(error.into()))
}

/// Keys of places all over the table, in an order that has nothing to do with where they are.
fn keys(read: usize) -> Arc<[String]> {
    let mut ids: Vec<usize> = (1..=CITIES.len()).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut ids);
    ids.into_iter().take(read).map(|id| id.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[tokio::test]
    async fn the_data_set_is_whole_and_the_question_has_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::fill(dir.path(), 100).await.unwrap();
        assert!(places.rows() > 100_000, "{}", places.rows());
        let paris = CITIES.iter().position(|city| city.name == "Paris" && city.country == "FR").unwrap() + 1;
        let answer = places.source.fetch(&paris.to_string()).await.unwrap();
        let answer: Value = serde_json::from_slice(answer.value()).unwrap();
        assert_eq!(answer["name"], "Paris");
        let nearest = answer["nearest"].as_array().unwrap();
        assert_eq!(nearest.len(), 10);
        for place in nearest {
            assert!((place["lat"].as_f64().unwrap() - 48.85).abs() < 0.1, "{place}");
        }
        for key in places.keys().iter() {
            places.source.fetch(key).await.unwrap();
        }
    }
}
