//! The SQL source against real SQLite files, through its public API alone.

use std::time::Duration;

use distcache::{DataSource, Fetched, SourceError};
use distcache_sources::sql::{SqlSource, SqlSourceBuilder, SqlSourceError};
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

/// A database file of this test alone, and a connection that may write to it.
struct Shop {
    dir: tempfile::TempDir,
    writer: SqlitePool,
}

impl Shop {
    async fn with(script: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(dir.path().join("shop.db")).create_if_missing(true);
        let writer = SqlitePool::connect_with(options).await.unwrap();
        sqlx::raw_sql(script).execute(&writer).await.unwrap();
        Self { dir, writer }
    }

    async fn users() -> Self {
        Self::with(
            "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, score REAL, photo BLOB);
             INSERT INTO users VALUES (1, 'Ada', 1.5, x'00ff'), (2, 'Grace', 2, NULL), (3, NULL, NULL, NULL);",
        )
        .await
    }

    fn source(&self) -> SqlSourceBuilder {
        SqlSource::connect("sqlite:shop.db").base_dir(self.dir.path())
    }

    async fn query(&self, query: &str) -> SqlSource {
        self.source().query(query).open().await.unwrap()
    }
}

async fn text(source: &SqlSource, key: &str) -> String {
    String::from_utf8(source.fetch(key).await.unwrap().value().to_vec()).unwrap()
}

fn is_not_found(answer: &Result<Fetched, SourceError>) -> bool {
    matches!(answer, Err(SourceError::NotFound))
}

#[tokio::test]
async fn one_column_is_the_value_in_its_own_form() {
    let shop = Shop::users().await;
    assert_eq!(text(&shop.query("SELECT name FROM users WHERE id = ?1").await, "1").await, "Ada");
    assert_eq!(text(&shop.query("SELECT id FROM users WHERE id = ?1").await, "2").await, "2");
    assert_eq!(text(&shop.query("SELECT score FROM users WHERE id = ?1").await, "1").await, "1.5");
    let photos = shop.query("SELECT photo FROM users WHERE id = ?1").await;
    assert_eq!(photos.fetch("1").await.unwrap().value().as_ref(), [0x00, 0xff]);
}

#[tokio::test]
async fn no_row_and_null_are_not_found() {
    let shop = Shop::users().await;
    let names = shop.query("SELECT name FROM users WHERE id = ?1").await;
    assert!(is_not_found(&names.fetch("4").await));
    assert!(is_not_found(&names.fetch("3").await));
    assert!(is_not_found(&names.fetch("no number").await));
    assert!(is_not_found(&names.fetch("").await));
}

#[tokio::test]
async fn several_columns_are_a_json_object_in_their_order() {
    let shop = Shop::users().await;
    let rows = shop.query("SELECT name, id, score, photo FROM users WHERE id = ?1").await;
    assert_eq!(text(&rows, "1").await, r#"{"name":"Ada","id":1,"score":1.5,"photo":"AP8="}"#);
    let row: Value = serde_json::from_str(&text(&rows, "3").await).unwrap();
    assert_eq!(row, json!({"name": null, "id": 3, "score": null, "photo": null}));
}

#[tokio::test]
async fn an_integer_column_is_compared_by_number_and_by_its_index() {
    let shop = Shop::users().await;
    let names = shop.query("SELECT name FROM users WHERE id = ?1").await;
    assert_eq!(text(&names, "01").await, "Ada");
    assert_eq!(text(&names, "1.0").await, "Ada");
    let exact = shop.query("SELECT name FROM users WHERE CAST(id AS TEXT) = ?1").await;
    assert!(is_not_found(&exact.fetch("01").await));
    let plan = sqlx::query_as::<_, (i64, i64, i64, String)>("EXPLAIN QUERY PLAN SELECT name FROM users WHERE id = ?1");
    let plan = plan.bind("1").fetch_one(&shop.writer).await.unwrap().3;
    assert!(plan.contains("SEARCH"), "{plan}");
}

#[tokio::test]
async fn a_table_answers_one_and_many_keys_alike() {
    let shop = Shop::users().await;
    let names = shop.source().table("users").columns(["name"]).open().await.unwrap();
    let keys = ["2", "9", "1", "01", "3", "2"];
    let many = names.fetch_many(&keys).await;
    assert_eq!(many.len(), keys.len());
    for (key, many) in keys.iter().zip(many) {
        assert_eq!(many.ok(), names.fetch(key).await.ok(), "{key}");
    }
    let rows = shop.source().table("users").key_column("name").open().await.unwrap();
    let row: Value = serde_json::from_str(&text(&rows, "Grace").await).unwrap();
    assert_eq!(row["id"], 2);
    assert_eq!(rows.fetch_many(&["Grace"]).await[0].as_ref().unwrap(), &rows.fetch("Grace").await.unwrap());
}

#[tokio::test]
async fn ten_thousand_keys_in_one_round_trip() {
    let shop = Shop::with(
        "CREATE TABLE numbers (n INTEGER PRIMARY KEY, square INTEGER);
         WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n < 9999)
         INSERT INTO numbers SELECT n, n * n FROM c WHERE n % 10 <> 7;",
    )
    .await;
    let in_list = "SELECT n, square FROM numbers WHERE n IN (SELECT value FROM json_each(?1))";
    let squares = "SELECT square FROM numbers WHERE n = ?1";
    let sources = [
        shop.source().table("numbers").key_column("n").columns(["square"]).open().await.unwrap(),
        shop.source().query(squares).query_many(in_list).open().await.unwrap(),
        shop.source().query(squares).open().await.unwrap(),
    ];
    let keys: Vec<String> = (0..10_000).rev().map(|n| n.to_string()).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    for source in &sources {
        let answers = source.fetch_many(&keys).await;
        assert_eq!(answers.len(), keys.len());
        for (key, answer) in keys.iter().zip(&answers) {
            let n: u64 = key.parse().unwrap();
            match answer {
                Ok(fetched) => assert_eq!(fetched.value(), (n * n).to_string().as_bytes()),
                Err(SourceError::NotFound) => assert_eq!(n % 10, 7),
                Err(other) => panic!("{key}: {other}"),
            }
        }
    }
}

#[tokio::test]
async fn any_text_is_a_key() {
    let shop = Shop::with("CREATE TABLE words (word TEXT PRIMARY KEY, len INTEGER)").await;
    let words =
        ["it's", "\"quoted\"", "a\\b", "naïve 東京 🦀", "with\0nul", "'; DROP TABLE words; --", " ", "%", "\u{1}\n"];
    for word in words {
        let insert = sqlx::query("INSERT INTO words VALUES (?1, ?2)").bind(word).bind(word.len() as i64);
        insert.execute(&shop.writer).await.unwrap();
    }
    let lengths = shop.source().table("words").key_column("word").columns(["len"]).open().await.unwrap();
    for word in words {
        assert_eq!(text(&lengths, word).await, word.len().to_string(), "{word:?}");
        let many = lengths.fetch_many(&[word, "absent"]).await;
        assert_eq!(many[0].as_ref().unwrap().value(), word.len().to_string().as_bytes(), "{word:?}");
        assert!(is_not_found(&many[1]), "{word:?}");
    }
}

#[tokio::test]
async fn a_locked_database_is_unavailable_and_comes_back() {
    let shop = Shop::users().await;
    let builder = shop.source().table("users").columns(["name"]).busy_timeout(Duration::from_millis(50));
    let names = builder.open().await.unwrap();
    let mut lock = shop.writer.acquire().await.unwrap();
    sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut *lock).await.unwrap();
    let error = names.fetch("1").await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(names.fetch_many(&["1", "2"]).await.iter().all(|answer| answer.as_ref().unwrap_err().is_retryable()));
    sqlx::raw_sql("ROLLBACK").execute(&mut *lock).await.unwrap();
    assert_eq!(text(&names, "1").await, "Ada");
}

#[tokio::test]
async fn a_table_that_goes_away_is_a_lasting_failure() {
    let shop = Shop::users().await;
    let names = shop.query("SELECT name FROM users WHERE id = ?1").await;
    sqlx::raw_sql("DROP TABLE users").execute(&shop.writer).await.unwrap();
    let error = names.fetch("1").await.unwrap_err();
    assert!(matches!(error, SourceError::Failed(_)), "{error}");
}

#[tokio::test]
async fn what_cannot_work_is_found_at_the_start_and_named() {
    let shop = Shop::users().await;
    let refused = async |builder: SqlSourceBuilder| builder.open().await.unwrap_err();

    let error = refused(shop.source().query("SELECT nam FROM users WHERE id = ?1")).await;
    assert!(matches!(error, SqlSourceError::Query { .. }));
    assert!(error.to_string().contains("`SELECT nam FROM users WHERE id = ?1`"), "{error}");
    assert!(error.to_string().contains("no such column: nam"), "{error}");

    let error = refused(shop.source().query("SELECT name FROM users")).await;
    assert!(error.to_string().contains("it has 0 parameters"), "{error}");
    let error = refused(shop.source().query("DELETE FROM users WHERE id = ?1")).await;
    assert!(error.to_string().contains("it returns 0 columns"), "{error}");
    let one_column = "SELECT id FROM users WHERE id IN (SELECT value FROM json_each(?1))";
    let error = refused(shop.source().query("SELECT name FROM users WHERE id = ?1").query_many(one_column)).await;
    assert!(error.to_string().contains("it returns 1 columns; it must return 2 at least"), "{error}");
    assert!(matches!(refused(shop.source()).await, SqlSourceError::Incomplete(_)));
    assert!(matches!(refused(shop.source().table("users").query("SELECT ?1")).await, SqlSourceError::Incomplete(_)));
    let error = refused(shop.source().table("user")).await;
    assert!(error.to_string().contains("no such table: user"), "{error}");
}

#[tokio::test]
async fn a_missing_file_is_named_and_not_created() {
    let dir = tempfile::tempdir().unwrap();
    let error = SqlSource::connect("sqlite:none.db").base_dir(dir.path()).query("SELECT ?1").open().await.unwrap_err();
    assert!(matches!(error, SqlSourceError::Open { .. }));
    assert!(error.to_string().contains("sqlite:none.db"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_database_of_another_kind_is_refused_by_name() {
    let error = SqlSource::connect("postgres://db/shop").query("SELECT ?1").open().await.unwrap_err();
    assert!(error.to_string().contains("postgres://db/shop"), "{error}");
}

#[tokio::test]
async fn a_database_in_memory_computes() {
    let upper = SqlSource::connect("sqlite::memory:").query("SELECT upper(?1)").open().await.unwrap();
    assert_eq!(text(&upper, "abc").await, "ABC");
}

#[tokio::test]
async fn reading_alone_unless_told_otherwise() {
    let shop = Shop::users().await;
    let rename = "UPDATE users SET name = name || '!' WHERE id = ?1 RETURNING name";
    let error = shop.query(rename).await.fetch("1").await.unwrap_err();
    assert!(error.to_string().contains("readonly"), "{error}");
    let writes = shop.source().query(rename).read_only(false).open().await.unwrap();
    assert_eq!(text(&writes, "1").await, "Ada!");
}
