//! The SQL source against a real MariaDB server.

use std::time::Duration;

use distcache::{DataSource, SourceError};
use distcache_sources::sql::{KeyType, SqlSource, SqlSourceBuilder, SqlSourceError};
use serde_json::{Value, json};
use sqlx::{Connection, MySqlConnection};

use crate::server::*;

const PASSWORD: &str = "pa-ss-w0rd";

struct Mysql(Server);

impl Mysql {
    async fn with(script: &'static str) -> Self {
        let server = Server::new("mariadb-server", "-KILL", |port, dir| {
            let in_dir = |name: &str| dir.join(name).display().to_string();
            let settings = [
                "--no-defaults".to_owned(),
                format!("--datadir={}", in_dir("data")),
                format!("--socket={}", in_dir("socket")),
                format!("--pid-file={}", in_dir("pid")),
                format!("--init-file={}", in_dir("init.sql")),
                format!("--port={port}"),
                "--bind-address=127.0.0.1".to_owned(),
                "--skip-networking=0".to_owned(),
                "--innodb-buffer-pool-size=16M".to_owned(),
                "--innodb-log-file-size=8M".to_owned(),
                "--innodb-flush-log-at-trx-commit=0".to_owned(),
                "--character-set-server=utf8mb4".to_owned(),
            ];
            [vec![program("mariadbd")], settings.to_vec()].concat()
        });
        server.file(
            "init.sql",
            &format!(
                "CREATE DATABASE IF NOT EXISTS shop;\nGRANT ALL ON shop.* TO 'ada'@'%' IDENTIFIED BY '{PASSWORD}';\n"
            ),
        );
        let data = format!("--datadir={}", server.dir().join("data").display());
        server.run(
            &program("mariadb-install-db"),
            &["--no-defaults", &data, "--auth-root-authentication-method=normal", "--skip-test-db"],
        );
        let mut mysql = Self(server);
        mysql.up().await;
        mysql.run(script).await;
        mysql
    }

    async fn up(&mut self) {
        self.0.up(async |port| MySqlConnection::connect(&url(port)).await.is_ok()).await;
    }

    async fn run(&self, script: &'static str) {
        let mut connection = MySqlConnection::connect(&url(self.0.port)).await.unwrap();
        sqlx::raw_sql(script).execute(&mut connection).await.unwrap();
    }

    fn source(&self) -> SqlSourceBuilder {
        SqlSource::connect(url(self.0.port)).max_connections(2)
    }

    async fn query(&self, query: &str) -> SqlSource {
        self.source().query(query).open().await.unwrap()
    }
}

fn url(port: u16) -> String {
    format!("mysql://ada:{PASSWORD}@127.0.0.1:{port}/shop")
}

/// Debian keeps the server where not every user looks.
fn program(name: &str) -> String {
    let places = ["/usr/sbin", "/usr/bin"].map(|dir| std::path::Path::new(dir).join(name));
    places.iter().find(|path| path.exists()).map_or_else(|| name.to_owned(), |path| path.display().to_string())
}

#[tokio::test]
async fn a_key_is_compared_as_what_its_column_is() {
    let mysql = Mysql::with(
        "CREATE TABLE t (i INT PRIMARY KEY, u BIGINT UNSIGNED UNIQUE, ci VARCHAR(40) COLLATE utf8mb4_general_ci UNIQUE,
           bin VARCHAR(40) COLLATE utf8mb4_bin UNIQUE, latin VARCHAR(40) CHARACTER SET latin1 UNIQUE, b VARBINARY(40) UNIQUE,
           name TEXT, at DATE);
         INSERT INTO t VALUES (-4, 18446744073709551615, 'Ada', 'Ada', 'Ada', 'Ada', 'Ada', '2024-01-01'),
           (0, 0, '東京 \"x\" \\\\', 'it''s', 'née ?', x'ff', 'Grace', NULL);",
    )
    .await;
    for (column, ada, grace, none) in [
        ("i", "-4", "0", "0x"),
        ("u", "18446744073709551615", "0", "-1"),
        ("ci", "aDA", "東京 \"x\" \\", "Ad"),
        ("bin", "Ada", "it's", "ada"),
        ("latin", "ada", "née ?", "née 東"),
        ("b", "Ada", "", "ada"),
    ] {
        let source = mysql.source().table("t").key_column(column).columns(["name"]).open().await.unwrap();
        assert_eq!(text(&source, ada).await, "Ada", "{column}");
        if !grace.is_empty() {
            assert_eq!(text(&source, grace).await, "Grace", "{column}");
        }
        assert!(is_not_found(&source.fetch(none).await), "{column}");
        answers_alike(&source, &[grace, none, ada, "nothing", "", "a\0b", "Ada ", ada, "007", &"x".repeat(2000)]).await;
    }
    let error = mysql.source().table("t").key_column("at").open().await.unwrap_err().to_string();
    assert!(error.contains("`at` is of type DATE, which is neither an integer nor text"), "{error}");

    // What the database makes of text beside a number, and what becomes of it once it is told.
    let query = "SELECT name FROM t WHERE i = ?";
    assert_eq!(text(&mysql.query(query).await, "nothing").await, "Grace");
    let integers = mysql.source().query(query).key_type(KeyType::Integer).open().await.unwrap();
    assert!(is_not_found(&integers.fetch("nothing").await));
    assert_eq!(text(&integers, "-4").await, "Ada");
}

#[tokio::test]
async fn values_of_every_type_are_written_as_the_database_means_them() {
    let mysql = Mysql::with(
        "CREATE TABLE t (id INT PRIMARY KEY, yes BOOL, ti TINYINT UNSIGNED, i BIGINT, u BIGINT UNSIGNED, r FLOAT, d DOUBLE,
           n DECIMAL(30,7), tx TEXT COLLATE utf8mb4_bin, b BLOB, bits BIT(10), y YEAR, e ENUM('red','green'), s SET('a','b'),
           da DATE, tm TIME(3), dt DATETIME(6), ts TIMESTAMP NULL);
         SET time_zone = '+02:00';
         INSERT INTO t VALUES (1, TRUE, 200, -9223372036854775808, 18446744073709551615, 0.5, 1e300, 12345678901234567890.12345,
           'a\"b', x'00ff', b'1000000001', 2024, 'green', 'a,b', '2024-02-29', '-100:00:01.5', '1999-12-31 23:59:59.000001',
           '2024-02-29 12:00:00');
         INSERT INTO t (id) VALUES (2);",
    )
    .await;
    let all = mysql.source().table("t").open().await.unwrap();
    assert_eq!(
        text(&all, "1").await,
        concat!(
            r#"{"id":1,"yes":1,"ti":200,"i":-9223372036854775808,"u":18446744073709551615,"r":0.5,"d":1e+300,"#,
            r#""n":12345678901234567890.1234500,"tx":"a\"b","b":"AP8=","bits":513,"y":2024,"e":"green","s":"a,b","#,
            r#""da":"2024-02-29","tm":"-100:00:01.5","dt":"1999-12-31T23:59:59.000001","ts":"2024-02-29T10:00:00Z"}"#
        )
    );
    let nulls: Value = serde_json::from_str(&text(&all, "2").await).unwrap();
    assert_eq!((&nulls["da"], &nulls["n"]), (&Value::Null, &Value::Null));
    for (column, value) in [("i", "-9223372036854775808"), ("n", "12345678901234567890.1234500"), ("tx", "a\"b")] {
        let one = mysql.source().table("t").columns([column]).open().await.unwrap();
        assert_eq!(text(&one, "1").await, value, "{column}");
        assert!(is_not_found(&one.fetch("2").await), "{column}: NULL");
        assert!(is_not_found(&one.fetch("4").await), "{column}: no row");
    }
    assert_eq!(
        mysql.query("SELECT b FROM t WHERE id = ?").await.fetch("1").await.unwrap().value().as_ref(),
        [0x00, 0xff]
    );
    let row: Value =
        serde_json::from_str(&text(&mysql.query("SELECT 1 AS a, NULL AS b, ? AS c").await, "k").await).unwrap();
    assert_eq!(row, json!({"a": 1, "b": null, "c": "k"}));
}

#[tokio::test]
async fn ten_thousand_keys_in_one_round_trip_by_the_index() {
    let mysql = Mysql::with(
        "CREATE TABLE numbers (n BIGINT PRIMARY KEY, word VARCHAR(40) UNIQUE, square BIGINT);
         INSERT INTO numbers SELECT seq, CONCAT('w', seq), seq * seq FROM seq_0_to_9999 WHERE seq % 10 <> 7;",
    )
    .await;
    let echo = "SELECT asked.n, square FROM JSON_TABLE(?, '$[*]' COLUMNS (n BIGINT PATH '$')) AS asked \
                STRAIGHT_JOIN numbers ON numbers.n = asked.n";
    let one = "SELECT square FROM numbers WHERE n = ?";
    let table = mysql.source().table("numbers").columns(["square"]);
    let sources = [
        ("", table.clone().key_column("n").open().await.unwrap()),
        ("w", table.key_column("word").open().await.unwrap()),
        ("", mysql.source().query(one).query_many(echo).key_type(KeyType::Integer).open().await.unwrap()),
    ];
    for (prefix, source) in &sources {
        let keys: Vec<String> = (0..10_000).rev().map(|n| format!("{prefix}{n}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        for (key, answer) in keys.iter().zip(source.fetch_many(&keys).await) {
            let n: u64 = key.trim_start_matches('w').parse().unwrap();
            match answer {
                Ok(fetched) => assert_eq!(fetched.value(), (n * n).to_string().as_bytes()),
                Err(SourceError::NotFound) => assert_eq!(n % 10, 7),
                Err(other) => panic!("{key}: {other}"),
            }
        }
    }
    // Each look-up reads one row; without the index it would be all of them.
    let mut connection = MySqlConnection::connect(&url(mysql.0.port)).await.unwrap();
    for (column, kind, collate) in [("n", "BIGINT", ""), ("word", "VARCHAR(1024)", "COLLATE utf8mb4_general_ci")] {
        let explain = format!(
            "EXPLAIN SELECT k, square FROM JSON_TABLE('[1]', '$[*]' COLUMNS (k {kind} PATH '$')) AS asked \
             STRAIGHT_JOIN numbers ON numbers.{column} = asked.k {collate}"
        );
        let plan = sqlx::query(sqlx::AssertSqlSafe(explain)).fetch_all(&mut connection).await.unwrap();
        let join: String = sqlx::Row::try_get(&plan[1], "type").unwrap();
        assert!(["eq_ref", "ref"].contains(&join.as_str()), "{column}: {join}");
    }
}

#[tokio::test]
async fn what_cannot_work_is_found_at_the_start_and_named_and_reading_is_all_that_is_done() {
    let mysql = Mysql::with(
        "CREATE TABLE t (id INT PRIMARY KEY, name TEXT, place POINT); INSERT INTO t VALUES (1, 'Ada', NULL)",
    )
    .await;
    let refused = async |builder: SqlSourceBuilder| {
        let error = builder.open().await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error:?}");
        error.to_string()
    };
    let error = refused(mysql.source().query("SELECT nam FROM t WHERE id = ?")).await;
    assert!(error.contains("`SELECT nam FROM t WHERE id = ?`") && error.contains("Unknown column 'nam'"), "{error}");
    assert!(refused(mysql.source().query("SELECT name FROM t")).await.contains("it has 0 parameters"));
    assert!(
        refused(mysql.source().query("SELECT place FROM t WHERE id = ?")).await.contains("`place` is of type GEOMETRY")
    );
    assert!(refused(mysql.source().table("none")).await.contains("none' doesn't exist"));
    let zone = SqlSource::connect(format!("{}?timezone=%2B02:00", url(mysql.0.port))).table("t");
    assert!(refused(zone).await.contains("it has no parameter `timezone`"));
    let wrong = SqlSource::connect(format!("mysql://ada:wr0ng@127.0.0.1:{}/shop", mysql.0.port)).query("SELECT ?");
    let error = wrong.open().await.unwrap_err();
    assert!(matches!(error, SqlSourceError::Open { .. }));
    assert!(error.to_string().contains("Access denied") && !format!("{error:?}").contains("wr0ng"), "{error:?}");
    let bare = SqlSource::connect(format!("mariadb://ada@127.0.0.1:{}/shop", mysql.0.port)).query("SELECT UPPER(?)");
    let file = mysql.0.file("password", &format!("{PASSWORD}\n"));
    assert_eq!(text(&bare.password_file(file).open().await.unwrap(), "abc").await, "ABC");

    let delete = "DELETE FROM t WHERE id = ? RETURNING name";
    let error = mysql.query(delete).await.fetch("1").await.unwrap_err();
    assert!(error.to_string().contains("READ ONLY transaction"), "{error}");
    let writes = mysql.source().query(delete).read_only(false).open().await.unwrap();
    assert_eq!(text(&writes, "1").await, "Ada");
}

#[tokio::test]
async fn a_server_that_is_killed_is_unavailable_and_works_again_once_it_is_back() {
    let mut mysql =
        Mysql::with("CREATE TABLE t (id INT PRIMARY KEY, name TEXT); INSERT INTO t VALUES (1, 'Ada')").await;
    let rows = mysql.source().busy_timeout(Duration::from_millis(300)).table("t").open().await.unwrap();
    assert_eq!(text(&rows, "1").await, r#"{"id":1,"name":"Ada"}"#);
    mysql.run("ALTER TABLE t ADD COLUMN age INT DEFAULT 36").await;
    assert_eq!(text(&rows, "1").await, r#"{"id":1,"name":"Ada","age":36}"#);
    answers_alike(&rows, &["1", "2"]).await;
    mysql.0.down();
    for _ in 0..4 {
        let error = rows.fetch("1").await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        assert!(!format!("{error:?}").contains(PASSWORD));
    }
    assert!(rows.fetch_many(&["1", "2"]).await.iter().all(|answer| answer.as_ref().unwrap_err().is_retryable()));
    mysql.up().await;
    let answer = eventually(&rows, "1", Result::is_ok).await;
    assert_eq!(answer.unwrap().value(), r#"{"id":1,"name":"Ada","age":36}"#);
    mysql.run("DROP TABLE t").await;
    assert!(matches!(rows.fetch("1").await, Err(SourceError::Failed(_))));
}
