//! A directory of this test alone: a database, configuration files, nothing left behind.

use std::path::{Path, PathBuf};

use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

pub struct Shop {
    dir: tempfile::TempDir,
}

pub struct Locked {
    database: Option<SqliteConnection>,
    runtime: tokio::runtime::Runtime,
}

impl Drop for Locked {
    fn drop(&mut self) {
        if let Some(database) = self.database.take() {
            self.runtime.block_on(database.close()).unwrap();
        }
    }
}

pub const QUERY: &str = "SELECT name FROM users WHERE id = ?1";

impl Shop {
    /// `users`: id 1 to 1000, and the name `user-ID`.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fill = "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);
            WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 1000)
            INSERT INTO users SELECT id, 'user-' || id FROM n;
            CREATE TABLE words (word TEXT PRIMARY KEY, meaning BLOB);
            INSERT INTO words VALUES ('a/b c', 'slash'), ('naïve 東京', 'unicode'), ('raw', x'ff00fe')";
        let options = SqliteConnectOptions::new().filename(dir.path().join("shop.db")).create_if_missing(true);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut database = SqliteConnection::connect_with(&options).await.unwrap();
            sqlx::raw_sql(fill).execute(&mut database).await.unwrap();
            database.close().await.unwrap();
        });
        Self { dir }
    }

    /// Nobody reads the database until this is dropped, or has waited for some seconds.
    pub fn locked(&self) -> Locked {
        let options = SqliteConnectOptions::new().filename(self.dir.path().join("shop.db"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let database = runtime.block_on(async {
            let mut database = SqliteConnection::connect_with(&options).await.unwrap();
            sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut database).await.unwrap();
            database
        });
        Locked { database: Some(database), runtime }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// The keyspaces that the tests read, relative to the directory of the file.
pub fn keyspaces() -> String {
    format!(
        r#"
        [keyspaces.users]
        ttl = "5m"
        source = {{ kind = "sql", url = "sqlite:shop.db", query = "{QUERY}" }}
        [keyspaces.words]
        source = {{ kind = "sql", url = "sqlite:shop.db", table = "words", key_column = "word", columns = ["meaning"] }}
        [keyspaces.plain]
        source = {{ kind = "none" }}
        "#
    )
}

/// A node by itself, on any free ports.
pub fn standalone() -> String {
    format!("[http]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{}", keyspaces())
}

/// A node of a cluster, on any free ports.
pub fn clustered(name: &str, seed: Option<&str>) -> String {
    let seeds = seed.map(|seed| format!("\"{seed}\"")).unwrap_or_default();
    let node =
        format!("name = \"{name}\"\npeer = \"127.0.0.1:0\"\ngossip = \"127.0.0.1:0\"\nadvertise = \"127.0.0.1\"");
    format!("[node]\n{node}\n[discovery]\nprovider = \"static\"\nseeds = [{seeds}]\n{}", standalone())
}

/// A node by itself whose last keyspace has every rule there is.
pub fn guarded() -> String {
    let guarded = r#"
        [guards.db]
        loads_max = 32
        rate_limit = { per_second = 500, burst = 100, wait = "50ms" }
        circuit_breaker = true
        retry = { attempts = 5 }
        [keyspaces.guarded]
        eviction = "lru"
        ttl = "5m"
        idle_ttl = "1h"
        stale_while_revalidate = "30s"
        stale_if_error = "1h"
        refresh_ahead = "20%"
        refresh_hot_keys = 100
        warm_keys = ["1", "2"]
        soft_timeout = "200ms"
        guard = "db"
        source = { kind = "none" }
        "#;
    standalone() + guarded
}
