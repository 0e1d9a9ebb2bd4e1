//! The SQL source against a real PostgreSQL server.

use std::fs;
use std::path::Path;

use distcache::{DataSource, SourceError};
use distcache_sources::sql::{SqlSource, SqlSourceBuilder, SqlSourceError};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::server::*;

const PASSWORD: &str = "pa-ss-w0rd";

struct Postgres(Server);

impl Postgres {
    async fn with(script: &'static str) -> Self {
        let mut postgres = Self::new(&[]);
        postgres.up().await;
        postgres.run(script).await;
        postgres
    }

    /// With these settings beside where it listens; not started yet.
    fn new(settings: &[&str]) -> Self {
        let program = program("postgres");
        let server = Server::new("postgresql", "-QUIT", |port, dir| {
            let data = dir.join("data").display().to_string();
            let mut command = [&program, "-D", &data, "-k", ".", "-p", &port.to_string()].map(str::to_owned).to_vec();
            for setting in ["listen_addresses=127.0.0.1", "fsync=off"].iter().chain(settings) {
                command.extend(["-c".to_owned(), (*setting).to_owned()]);
            }
            command
        });
        let password = server.file("password", PASSWORD);
        let data = server.dir().join("data");
        let (data, password) = (data.to_str().unwrap(), password.to_str().unwrap());
        let init = ["-D", data, "-U", "ada", "--pwfile", password, "-A", "scram-sha-256", "--no-sync", "-E", "UTF8"];
        server.run(&self::program("initdb"), &[&init[..], &["--locale=C"]].concat());
        Self(server)
    }

    async fn up(&mut self) {
        self.0.up(async |port| PgConnection::connect(&url(port)).await.is_ok()).await;
    }

    async fn run(&self, script: &'static str) {
        let mut connection = PgConnection::connect(&url(self.0.port)).await.unwrap();
        sqlx::raw_sql(script).execute(&mut connection).await.unwrap();
    }

    fn source(&self) -> SqlSourceBuilder {
        SqlSource::connect(url(self.0.port)).max_connections(2)
    }

    async fn query(&self, query: &str) -> SqlSource {
        self.source().query(query).open().await.unwrap()
    }

    async fn refused(&self, query: &str) -> String {
        let error = self.source().query(query).open().await.unwrap_err();
        assert!(matches!(error, SqlSourceError::Query { .. }), "{error:?}");
        error.to_string()
    }
}

fn url(port: u16) -> String {
    format!("postgres://ada:{PASSWORD}@127.0.0.1:{port}/postgres")
}

/// Debian keeps them by version, on nobody's path.
fn program(name: &str) -> String {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let programs = versions.map(|version| version.path().join("bin").join(name));
    let newest = programs.filter(|path| path.exists()).max_by_key(|path| version(path));
    newest.map_or_else(|| name.to_owned(), |path| path.display().to_string())
}

fn version(program: &Path) -> u32 {
    let version = program.iter().rev().nth(2).and_then(|name| name.to_str());
    version.and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn a_key_takes_the_type_that_the_query_wants() {
    let postgres = Postgres::with(
        "CREATE TYPE colour AS ENUM ('red', 'green');
         CREATE DOMAIN badge AS bigint;
         CREATE TABLE t (i2 smallint, i4 int PRIMARY KEY, i8 bigint, badge badge, u uuid, c colour, ch char(8), v varchar, name text);
         INSERT INTO t VALUES
           (2, 4, 8, 9, '6f1e7d3e-00a0-4000-8000-000000000001', 'red', 'ab', 'it''s', 'Ada'),
           (-2, -4, -8, -9, '6f1e7d3e-00a0-4000-8000-000000000002', 'green', 'cd', '東京 \"x\" \\', 'Grace');",
    )
    .await;
    for (column, ada, grace, none) in [
        ("i2", "2", "-2", "40000"),
        ("i4", "4", "-4", "4x"),
        ("i8", "8", "-8", ""),
        ("badge", "9", "-9", "1.0"),
        ("u", "6f1e7d3e-00a0-4000-8000-000000000001", "6F1E7D3E00A040008000000000000002", "6f1e"),
        ("ch", "ab", "cd", "a"),
        ("v", "it's", "東京 \"x\" \\", "a\0b"),
        ("name", "Ada", "Grace", "ada"),
    ] {
        let source = postgres.source().table("t").key_column(column).columns(["name"]).open().await.unwrap();
        assert_eq!(text(&source, ada).await, "Ada", "{column}");
        assert_eq!(text(&source, grace).await, "Grace", "{column}");
        assert!(is_not_found(&source.fetch(none).await), "{column}");
        answers_alike(&source, &[grace, none, ada, "nothing", ada]).await;
    }
    // Labels of an enum are asked one by one; what is none of them is the database's refusal.
    let colours = postgres.source().table("t").key_column("c").columns(["name"]).open().await.unwrap();
    assert_eq!(text(&colours, "green").await, "Grace");
    assert!(matches!(colours.fetch("blue").await, Err(SourceError::Failed(_))));
    let many = colours.fetch_many(&["red", "blue"]).await;
    assert!(many[0].is_ok() && many[1].is_err());

    let zeros = postgres.query("SELECT name FROM t WHERE i4 = $1").await;
    assert_eq!(text(&zeros, "004").await, "Ada");
}

#[tokio::test]
async fn values_of_every_type_are_written_as_the_database_means_them() {
    let postgres = Postgres::with(
        "CREATE TYPE colour AS ENUM ('red', 'green');
         CREATE TABLE t (id int PRIMARY KEY, yes boolean, i bigint, r real, d double precision, n numeric, tx text,
           b bytea, j json, jb jsonb, u uuid, da date, ti time, ts timestamp, tz timestamptz, c colour);
         INSERT INTO t VALUES (1, true, -9223372036854775808, 0.1, 1e300, 12345678901234567890.1234500, 'a\"b', '\\x00ff',
           '{\"z\": 1, \"a\": [1.0]}', '{\"b\":null}', '6f1e7d3e-00a0-4000-8000-000000000001', '2024-02-29', '12:34:56.789',
           '1999-12-31 23:59:59.5', '2024-02-29 12:00:00+02', 'green');
         INSERT INTO t (id, n, da, tz) VALUES (2, 'NaN', 'infinity', '-infinity');
         INSERT INTO t (id, n, da, ts) VALUES (3, -0.00042, '0044-03-15 BC', '4713-01-01 00:00:00 BC');",
    )
    .await;
    let all = postgres.source().table("t").open().await.unwrap();
    assert_eq!(
        text(&all, "1").await,
        concat!(
            r#"{"id":1,"yes":true,"i":-9223372036854775808,"r":0.1,"d":1e+300,"n":12345678901234567890.1234500,"tx":"a\"b","#,
            r#""b":"AP8=","j":{"z": 1, "a": [1.0]},"jb":{"b": null},"u":"6f1e7d3e-00a0-4000-8000-000000000001","#,
            r#""da":"2024-02-29","ti":"12:34:56.789","ts":"1999-12-31T23:59:59.5","tz":"2024-02-29T10:00:00Z","c":"green"}"#
        )
    );
    let odd: Value = serde_json::from_str(&text(&all, "2").await).unwrap();
    assert_eq!(
        (&odd["n"], &odd["da"], &odd["tz"], &odd["yes"]),
        (&json!("NaN"), &json!("infinity"), &json!("-infinity"), &Value::Null)
    );
    let early: Value = serde_json::from_str(&text(&all, "3").await).unwrap();
    assert_eq!((&early["da"], &early["ts"]), (&json!("-0043-03-15"), &json!("-4712-01-01T00:00:00")));

    for (column, value) in
        [("yes", "true"), ("i", "-9223372036854775808"), ("r", "0.1"), ("tx", "a\"b"), ("jb", "{\"b\": null}")]
    {
        let one = postgres.source().table("t").columns([column]).open().await.unwrap();
        assert_eq!(text(&one, "1").await, value, "{column}");
        assert!(is_not_found(&one.fetch("2").await), "{column}: NULL");
        assert!(is_not_found(&one.fetch("4").await), "{column}: no row");
    }
    let bytes = postgres.query("SELECT b FROM t WHERE id = $1").await;
    assert_eq!(bytes.fetch("1").await.unwrap().value().as_ref(), [0x00, 0xff]);
    let small = postgres.query("SELECT n FROM t WHERE id = $1").await;
    assert_eq!(text(&small, "3").await, "-0.00042");
    // As the database itself writes them.
    for numeric in
        ["0", "10000", "100000000.0001", "-0.5", "9999.9999", "123456789012345678901234567890", "0.000000001"]
    {
        let query = format!("SELECT {numeric}::numeric FROM t WHERE id = $1");
        assert_eq!(text(&postgres.query(&query).await, "1").await, numeric);
    }
}

#[tokio::test]
async fn ten_thousand_keys_in_one_round_trip_by_the_index() {
    let postgres = Postgres::with(
        "CREATE TABLE numbers (n bigint PRIMARY KEY, square bigint);
         INSERT INTO numbers SELECT n, n * n FROM generate_series(0, 9999) AS n WHERE n % 10 <> 7; ANALYZE numbers;",
    )
    .await;
    let echo = "SELECT asked, square FROM unnest($1::bigint[]) AS asked JOIN numbers ON n = asked";
    let one = "SELECT square FROM numbers WHERE n = $1";
    let sources = [
        postgres.source().table("numbers").key_column("n").columns(["square"]).open().await.unwrap(),
        postgres.source().query(one).query_many(echo).open().await.unwrap(),
    ];
    let keys: Vec<String> = (0..10_000).rev().map(|n| n.to_string()).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    for source in &sources {
        for (key, answer) in keys.iter().zip(source.fetch_many(&keys).await) {
            let n: u64 = key.parse().unwrap();
            match answer {
                Ok(fetched) => assert_eq!(fetched.value(), (n * n).to_string().as_bytes()),
                Err(SourceError::NotFound) => assert_eq!(n % 10, 7),
                Err(other) => panic!("{key}: {other}"),
            }
        }
    }
    assert!(sources[0].fetch_many(&[]).await.is_empty());
    assert!(is_not_found(&sources[0].fetch_many(&["no number"]).await[0]));
}

#[tokio::test]
async fn what_cannot_work_is_found_at_the_start_and_named() {
    let postgres = Postgres::with("CREATE TABLE t (id int, tags text[], at date, name text)").await;
    let error = postgres.refused("SELECT nam FROM t WHERE id = $1").await;
    assert!(error.contains("`SELECT nam FROM t WHERE id = $1`") && error.contains("\"nam\" does not exist"), "{error}");
    assert!(postgres.refused("SELECT name FROM t").await.contains("it has 0 parameters"));
    assert!(postgres.refused("DELETE FROM t WHERE id = $1").await.contains("it returns 0 columns"));
    let error = postgres.refused("SELECT tags FROM t WHERE id = $1").await;
    assert!(error.contains("`tags` is of type TEXT[]; cast it, as in `tags::text`"), "{error}");
    let error = postgres.refused("SELECT name FROM t WHERE at = $1").await;
    assert!(error.contains("is of type DATE") && error.contains("`$1::text::date`"), "{error}");
    postgres.query("SELECT tags::text FROM t WHERE at = $1::text::date").await;

    let one = postgres.source().query("SELECT name FROM t WHERE id = $1");
    let error = one.query_many("SELECT id, name FROM t WHERE id = $1").open().await.unwrap_err().to_string();
    assert!(error.contains("has to be an array, as in `id = ANY($1)`"), "{error}");
    let url = format!("{}?sslmod=require", url(postgres.0.port));
    let error = SqlSource::connect(url).table("t").open().await.unwrap_err().to_string();
    assert!(error.contains("it has no parameter `sslmod`") && !error.contains(PASSWORD), "{error}");
}

#[tokio::test]
async fn a_server_that_is_killed_is_unavailable_and_works_again_once_it_is_back() {
    let mut postgres =
        Postgres::with("CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t VALUES (1, 'Ada')").await;
    let names = postgres.source().busy_timeout(std::time::Duration::from_millis(300)).table("t").columns(["name"]);
    let names = names.open().await.unwrap();
    assert_eq!(text(&names, "1").await, "Ada");
    postgres.0.down();
    for _ in 0..4 {
        let error = names.fetch("1").await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        assert!(!format!("{error:?}").contains(PASSWORD));
    }
    assert!(names.fetch_many(&["1", "2"]).await.iter().all(|answer| answer.as_ref().unwrap_err().is_retryable()));
    postgres.up().await;
    let answer = eventually(&names, "1", Result::is_ok).await;
    assert_eq!(answer.unwrap().value(), "Ada");
}

#[tokio::test]
async fn a_table_that_changes_is_asked_anew_and_one_that_goes_away_is_a_lasting_failure() {
    let postgres =
        Postgres::with("CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t VALUES (1, 'Ada')").await;
    let rows = postgres.source().table("t").open().await.unwrap();
    assert_eq!(text(&rows, "1").await, r#"{"id":1,"name":"Ada"}"#);
    assert_eq!(rows.fetch_many(&["1"]).await[0].as_ref().unwrap().value(), r#"{"id":1,"name":"Ada"}"#);
    postgres.run("ALTER TABLE t ADD COLUMN age int DEFAULT 36").await;
    assert_eq!(text(&rows, "1").await, r#"{"id":1,"name":"Ada","age":36}"#);
    assert_eq!(rows.fetch_many(&["1"]).await[0].as_ref().unwrap().value(), r#"{"id":1,"name":"Ada","age":36}"#);
    postgres.run("DROP TABLE t").await;
    let error = rows.fetch("1").await.unwrap_err();
    assert!(matches!(error, SourceError::Failed(_)), "{error:?}");
}

#[tokio::test]
async fn reading_alone_unless_told_otherwise() {
    let postgres = Postgres::with("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1)").await;
    let count = "UPDATE t SET n = n + 1 WHERE id = $1 RETURNING n";
    let error = postgres.query(count).await.fetch("1").await.unwrap_err();
    assert!(error.to_string().contains("read-only transaction"), "{error}");
    let writes = postgres.source().query(count).read_only(false).open().await.unwrap();
    assert_eq!(text(&writes, "1").await, "2");
}

#[tokio::test]
async fn a_password_stands_in_a_file_and_in_no_error() {
    let mut postgres = Postgres::new(&[]);
    postgres.up().await;
    let port = postgres.0.port;
    let bare = SqlSource::connect(format!("postgres://ada@127.0.0.1:{port}/postgres"));
    let bare = bare.query("SELECT upper($1)").base_dir(postgres.0.dir());
    assert_eq!(text(&bare.clone().password_file("password").open().await.unwrap(), "abc").await, "ABC");
    let error = bare.password_file("none").open().await.unwrap_err().to_string();
    assert!(error.contains("the file of the password") && error.contains("none: No such file"), "{error}");

    let wrong = SqlSource::connect(format!("postgres://ada:wr0ng@127.0.0.1:{port}/postgres")).query("SELECT $1");
    assert!(!format!("{wrong:?}").contains("wr0ng"), "{wrong:?}");
    let error = wrong.open().await.unwrap_err();
    assert!(matches!(error, SqlSourceError::Open { .. }));
    assert!(error.to_string().contains("password authentication failed"), "{error}");
    assert!(!format!("{error} {error:?}").contains("wr0ng"), "{error:?}");
}

#[tokio::test]
async fn tls_is_spoken_and_the_server_s_certificate_checked() {
    let mut postgres = Postgres::new(&["ssl=on", "ssl_cert_file=../cert.pem", "ssl_key_file=../key.pem"]);
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let cert = postgres.0.file("cert.pem", &own.cert.pem());
    postgres.0.file("key.pem", &own.signing_key.serialize_pem());
    postgres.up().await;
    let with = |parameters: &str| {
        let url = format!("postgres://ada:{PASSWORD}@localhost:{}/postgres?{parameters}", postgres.0.port);
        SqlSource::connect(url)
            .query("SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND $1 = ''")
            .open()
    };
    let ca = format!("sslmode=verify-full&sslrootcert={}", cert.display());
    assert_eq!(text(&with(&ca).await.unwrap(), "").await, "true");
    let error = with("sslmode=verify-full").await.unwrap_err();
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
}
