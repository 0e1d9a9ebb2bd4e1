//! `source = { … }` of a keyspace: where its values come from.
//!
//! Knows the keys of each kind, opens none. The invariant: what is shown of a source holds no password, no value of a header and
//! no value in the query of a URL but the place of the key.

use std::fmt;
use std::time::Duration;

use super::error::Reason;
use super::redact::without_passwords;
use super::section::Section;

/// Where values come from.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceConfig {
    /// From `put` alone.
    None,
    Sql(SqlConfig),
    Http(HttpConfig),
    Redis(RedisConfig),
}

/// Paths as they stand in the file, here and below.
#[derive(Clone, Debug, PartialEq)]
pub struct SqlConfig {
    pub url: String,
    pub password_file: Option<String>,
    pub question: Question,
    pub max_connections: Option<u32>,
    pub busy_timeout: Option<Duration>,
    pub read_only: Option<bool>,
}

/// What the database is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    Query { one: String, many: Option<String>, integer_keys: bool },
    Table { table: String, key_column: Option<String>, columns: Vec<String> },
}

#[derive(Clone, PartialEq)]
pub struct HttpConfig {
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub header_files: Vec<(String, String)>,
    pub ca: Option<String>,
    pub timeout: Option<Duration>,
    pub body_bytes_max: Option<u64>,
    pub redirects_max: Option<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RedisConfig {
    pub url: String,
    pub key_prefix: Option<String>,
    pub password_file: Option<String>,
    pub ca: Option<String>,
    pub timeout: Option<Duration>,
}

const KINDS: [&str; 4] = ["sql", "http", "redis", "none"];
const LATER: [&str; 1] = ["object_store"];
/// Of all kinds.
const KNOWN: [&str; 19] = [
    "kind",
    "url",
    "query",
    "query_many",
    "key_type",
    "table",
    "key_column",
    "columns",
    "max_connections",
    "busy_timeout",
    "read_only",
    "password_file",
    "headers",
    "header_files",
    "ca",
    "timeout",
    "body_bytes_max",
    "redirects_max",
    "key_prefix",
];

/// `None` where there is no source to read.
pub(super) fn source(keyspace: &mut Section<'_>) -> Result<SourceConfig, Reason> {
    let mut source = keyspace.section("source", &KNOWN, &[])?;
    let Some(kind) = source.choice("kind", &KINDS, &LATER)? else {
        return Err(match source.is_empty() {
            true => keyspace.missing("source", "where values come from"),
            false => source.missing("kind", "\"sql\", \"http\", \"redis\" or \"none\""),
        });
    };
    let (config, others) = match kind {
        "sql" => (SourceConfig::Sql(sql(&mut source)?), "it has no meaning beside the other settings of this source"),
        "http" => (SourceConfig::Http(http(&mut source)?), "a source of the kind \"http\" has no such setting"),
        "redis" => (SourceConfig::Redis(redis(&mut source)?), "a source of the kind \"redis\" has no such setting"),
        _ => (SourceConfig::None, "a keyspace without a source has no such setting"),
    };
    source.nothing_left(others)?;
    Ok(config)
}

fn sql(source: &mut Section<'_>) -> Result<SqlConfig, Reason> {
    let url = source.required("url", "a database such as \"sqlite:shop.db\"")?;
    let question = match (source.string("query")?, source.string("table")?) {
        (Some(one), None) => Question::Query {
            one,
            many: source.string("query_many")?,
            integer_keys: source.choice("key_type", &["text", "integer"], &[])? == Some("integer"),
        },
        (None, Some(table)) => {
            let columns = source.strings("columns")?.unwrap_or_default();
            Question::Table { table, key_column: source.string("key_column")?, columns }
        }
        (Some(_), Some(_)) => return Err(source.senseless("both `query` and `table` are given; one is enough")),
        (None, None) => return Err(source.missing("query", "a query with one parameter, or `table`")),
    };
    Ok(SqlConfig {
        url,
        password_file: source.string("password_file")?,
        question,
        max_connections: source.integer("max_connections", 1..=1_000)?.map(|n| n as u32),
        busy_timeout: source.duration("busy_timeout")?,
        read_only: source.boolean("read_only")?,
    })
}

fn http(source: &mut Section<'_>) -> Result<HttpConfig, Reason> {
    Ok(HttpConfig {
        url: source.required("url", "a URL such as \"https://api.example.com/users/{key}\"")?,
        headers: source.secrets("headers")?,
        header_files: source.secrets("header_files")?,
        ca: source.string("ca")?,
        timeout: source.duration("timeout")?,
        body_bytes_max: source.size("body_bytes_max", 1 << 10)?,
        redirects_max: source.integer("redirects_max", 0..=100)?.map(|n| n as usize),
    })
}

fn redis(source: &mut Section<'_>) -> Result<RedisConfig, Reason> {
    Ok(RedisConfig {
        url: source.required("url", "a server such as \"redis://127.0.0.1:6379\"")?,
        key_prefix: source.string("key_prefix")?,
        password_file: source.string("password_file")?,
        ca: source.string("ca")?,
        timeout: source.duration("timeout")?,
    })
}

/// In words, for `check`.
impl fmt::Display for SourceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no source, values come by put"),
            Self::Sql(sql) => match &sql.question {
                Question::Query { one, .. } => write!(f, "from {} by `{one}`", without_passwords(&sql.url)),
                Question::Table { table, .. } => write!(f, "from {}, table {table}", without_passwords(&sql.url)),
            },
            Self::Http(http) => write!(f, "from {}", without_query_values(&http.url)),
            Self::Redis(redis) => {
                write!(f, "from {}, ", without_passwords(&redis.url))?;
                match &redis.key_prefix {
                    Some(prefix) => write!(f, "keys that begin with {prefix:?}"),
                    None => f.write_str("every key"),
                }
            }
        }
    }
}

impl fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("HttpConfig")
            .field("url", &without_query_values(&self.url))
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

/// A key of an API may stand in a query.
fn without_query_values(url: &str) -> String {
    let url = without_passwords(url);
    let Some((place, query)) = url.split_once('?') else { return url };
    let parameter = |parameter: &str| match parameter.split_once('=') {
        Some((name, value)) if !value.contains("{key}") => format!("{name}=***"),
        _ => parameter.to_owned(),
    };
    format!("{place}?{}", query.split('&').map(parameter).collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::Config;
    use super::*;

    fn parse(source: &str) -> Result<SourceConfig, String> {
        let text = format!("[keyspaces.u]\nsource = {{ {source} }}\n");
        let config = Config::parse(&text, PathBuf::new()).map_err(|error| error.to_string())?;
        Ok(config.keyspaces[0].source.clone())
    }

    #[test]
    fn every_kind_says_what_it_says() {
        let http = r#"kind = "http", url = "https://api/{key}?k=s3cret", headers = { Authorization = "Bearer t0ken", Accept = "a/b" },
            header_files = { X-Key = "key.txt" }, ca = "ca.pem", timeout = "2s", body_bytes_max = "1MiB", redirects_max = 0"#;
        let http = parse(&http.replace('\n', " ")).unwrap();
        let SourceConfig::Http(config) = &http else { panic!("{http:?}") };
        assert_eq!(config.headers, [("Authorization".into(), "Bearer t0ken".into()), ("Accept".into(), "a/b".into())]);
        assert_eq!(config.header_files, [("X-Key".to_owned(), "key.txt".to_owned())]);
        assert_eq!((config.body_bytes_max, config.redirects_max), (Some(1 << 20), Some(0)));
        assert_eq!(http.to_string(), "from https://api/{key}?k=***");
        assert!(!format!("{http:?}").contains("t0ken") && !format!("{http:?}").contains("s3cret"), "{http:?}");

        let redis = parse(r#"kind = "redis", url = "redis://c:pass@r:1/0", key_prefix = "user:", password_file = "p""#)
            .unwrap();
        assert_eq!(redis.to_string(), "from redis://c:***@r:1/0, keys that begin with \"user:\"");
        let sql = parse(
            r#"kind = "sql", url = "postgres://a:pass@db/s", query = "SELECT $1", key_type = "integer", read_only = false"#,
        );
        let sql = sql.unwrap();
        assert_eq!(sql.to_string(), "from postgres://a:***@db/s by `SELECT $1`");
        assert!(matches!(
            &sql,
            SourceConfig::Sql(SqlConfig {
                read_only: Some(false),
                question: Question::Query { integer_keys: true, .. },
                ..
            })
        ));
    }

    #[test]
    fn a_setting_of_another_kind_is_refused_and_a_secret_is_in_no_error() {
        let refused = |source: &str| parse(source).unwrap_err();
        let other = refused(r#"kind = "http", url = "http://h/{key}", table = "t""#);
        assert_eq!(
            other,
            "`table` in [keyspaces.u.source] at line 2: a source of the kind \"http\" has no such setting"
        );
        assert!(
            refused(r#"kind = "redis", url = "redis://h", query = "q""#)
                .contains("the kind \"redis\" has no such setting")
        );
        assert!(refused(r#"kind = "sql", url = "sqlite:x", table = "t", headers = {}"#).contains("no meaning beside"));
        assert!(
            refused(r#"kind = "http""#)
                .contains("`url` is missing in [keyspaces.u.source] at line 2: expected a URL such as")
        );
        assert!(refused(r#"kind = "htp""#).contains("did you mean \"http\"?"));
        assert!(refused(r#"kind = "object_store""#).contains("is not supported by this version"));
        assert!(refused(r#"url = "http://h/{key}""#).contains("`kind` is missing"));
        for wrong in [r#"{ Authorization = ["s3cret"] }"#, r#""s3cret""#] {
            let error = refused(&format!(r#"kind = "http", url = "http://h/{{key}}", headers = {wrong}"#));
            assert_eq!(
                error,
                "`headers` in [keyspaces.u.source] at line 2: expected strings by name, such as { Accept = \"text/plain\" }"
            );
        }
    }
}
