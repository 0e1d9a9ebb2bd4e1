//! The Redis source against a real Redis server.

use std::time::Duration;

use distcache::{DataSource, SourceError};
use distcache_sources::redis::{RedisSource, RedisSourceBuilder, RedisSourceError};

use crate::server::*;

struct Redis(Server);

impl Redis {
    async fn start() -> Self {
        let mut redis = Self::new(&[]);
        redis.up().await;
        redis
    }

    fn new(settings: &[&str]) -> Self {
        Self(Server::new("redis-server", "-KILL", |port, _| {
            let mut command = ["redis-server", "--bind", "127.0.0.1", "--save", ""].map(str::to_owned).to_vec();
            if !settings.contains(&"--port") {
                command.extend(["--port".to_owned(), port.to_string()]);
            }
            let port = port.to_string();
            command.extend(settings.iter().map(|setting| setting.replace("PORT", &port)));
            command
        }))
    }

    async fn up(&mut self) {
        self.0.up(async |port| tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await;
    }

    /// What another client of the server does.
    async fn run(&self, command: &[&str]) {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.0.port)).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd(command[0]).arg(&command[1..]).exec_async(&mut connection).await.unwrap();
    }

    fn source(&self) -> RedisSourceBuilder {
        RedisSource::connect(format!("redis://127.0.0.1:{}", self.0.port)).key_prefix("user:")
    }
}

fn lives(answer: &Result<distcache::Fetched, SourceError>) -> Option<Duration> {
    answer.as_ref().unwrap().lifetime()
}

#[tokio::test]
async fn a_string_is_the_value_and_lives_as_long_as_it_does_in_redis() {
    let redis = Redis::start().await;
    redis.run(&["SET", "user:1", "Ada"]).await;
    redis.run(&["SET", "user:2", "Grace", "PX", "3600000"]).await;
    redis.run(&["SET", "3", "no user"]).await;
    redis.run(&["SET", "user:", ""]).await;
    redis.run(&["RPUSH", "user:list", "a"]).await;
    let users = redis.source().open().await.unwrap();
    assert_eq!(text(&users, "1").await, "Ada");
    assert_eq!(lives(&users.fetch("1").await), None);
    let left = lives(&users.fetch("2").await).unwrap();
    assert!(left > Duration::from_secs(3000) && left <= Duration::from_secs(3600), "{left:?}");
    assert!(is_not_found(&users.fetch("3").await));
    assert_eq!(text(&users, "").await, "");
    let error = users.fetch("list").await.unwrap_err();
    assert!(matches!(&error, SourceError::Failed(cause) if cause.to_string().contains("WRONGTYPE")), "{error:?}");
    redis.run(&["SET", "user:bytes\u{0} 東京", "\u{1}\r\n"]).await;
    assert_eq!(text(&users, "bytes\u{0} 東京").await, "\u{1}\r\n");
}

#[tokio::test]
async fn many_keys_are_answered_in_order_each_with_its_lifetime() {
    let redis = Redis::start().await;
    for n in (0..2_000).filter(|n| n % 10 != 7) {
        let (key, expires) = (format!("user:{n}"), 1_000_000 + n * 1000);
        redis.run(&["SET", &key, &n.to_string(), "PX", &expires.to_string()]).await;
    }
    redis.run(&["SADD", "user:set", "a"]).await;
    let users = redis.source().open().await.unwrap();
    let keys: Vec<String> = (0..2_000).rev().map(|n| n.to_string()).chain(["set".into()]).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let answers = users.fetch_many(&keys).await;
    assert_eq!(answers.len(), keys.len());
    for (key, answer) in keys.iter().zip(&answers).take(2_000) {
        let n: u64 = key.parse().unwrap();
        if n % 10 == 7 {
            assert!(is_not_found(answer), "{key}");
            continue;
        }
        assert_eq!(answer.as_ref().unwrap().value(), key.as_bytes());
        let left = lives(answer).unwrap();
        assert!(
            left <= Duration::from_millis(1_000_000 + n * 1000) && left > Duration::from_millis(700_000 + n * 1000)
        );
    }
    assert!(matches!(answers.last(), Some(Err(SourceError::Failed(_)))), "a set is no string");
    assert!(users.fetch_many(&[]).await.is_empty());
    assert_eq!(users.fetch_many(&["1"]).await[0].as_ref().unwrap().value(), "1");
}

#[tokio::test]
async fn a_server_that_is_killed_is_unavailable_and_works_again_once_it_is_back() {
    let mut redis = Redis::start().await;
    redis.run(&["SET", "user:1", "Ada"]).await;
    let users = redis.source().timeout(Duration::from_millis(500)).open().await.unwrap();
    assert_eq!(text(&users, "1").await, "Ada");
    redis.0.down();
    for _ in 0..4 {
        let error = users.fetch("1").await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
    }
    assert!(users.fetch_many(&["1", "2"]).await.iter().all(|answer| answer.as_ref().unwrap_err().is_retryable()));
    redis.up().await;
    eventually(&users, "1", |answer| is_not_found(answer)).await.unwrap_err();

    // A restart that nobody has noticed is none of the reader's business.
    redis.run(&["SET", "user:1", "Ada"]).await;
    redis.0.down();
    redis.up().await;
    assert!(is_not_found(&users.fetch("1").await));
}

#[tokio::test]
async fn a_user_with_the_least_of_rights_and_a_password_from_a_file_is_enough() {
    let mut redis = Redis::new(&["--user", "cache on >pa-ss-w0rd ~user:* -@all +get +mget +pttl +multi +exec"]);
    redis.up().await;
    redis.run(&["SET", "user:1", "Ada"]).await;
    let url = |login: &str| format!("redis://{login}127.0.0.1:{}", redis.0.port);
    let users = RedisSource::connect(url("cache:pa-ss-w0rd@")).key_prefix("user:").open().await.unwrap();
    assert_eq!(text(&users, "1").await, "Ada");
    let file = redis.0.file("password", "pa-ss-w0rd\n");
    let users = RedisSource::connect(url("cache@")).key_prefix("user:").password_file(file).open().await.unwrap();
    assert_eq!(users.fetch_many(&["1", "2"]).await[0].as_ref().unwrap().value(), "Ada");
    let others = RedisSource::connect(url("cache:pa-ss-w0rd@")).open().await.unwrap();
    let error = others.fetch("1").await.unwrap_err();
    assert!(matches!(&error, SourceError::Failed(cause) if cause.to_string().contains("NOPERM")), "{error:?}");

    let wrong = RedisSource::connect(url("cache:wr0ng@"));
    assert!(!format!("{wrong:?}").contains("wr0ng"), "{wrong:?}");
    let error = wrong.open().await.unwrap_err();
    assert!(matches!(error, RedisSourceError::Open { .. }));
    assert!(!format!("{error} {error:?}").contains("wr0ng"), "{error:?}");
    let missing = RedisSource::connect(url("")).password_file("/nowhere").open().await.unwrap_err();
    assert!(missing.to_string().contains("the file of the password /nowhere"), "{missing}");
    let no_url = RedisSource::connect("http://host").open().await.unwrap_err();
    assert!(matches!(no_url, RedisSourceError::Url { .. }), "{no_url:?}");
}

#[tokio::test]
async fn tls_is_spoken_and_the_server_s_certificate_checked() {
    let settings = ["--port", "0", "--tls-port", "PORT", "--tls-auth-clients", "no"];
    let files = ["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-ca-cert-file", "cert.pem"];
    let mut redis = Redis::new(&[&settings[..], &files].concat());
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let cert = redis.0.file("cert.pem", &own.cert.pem());
    redis.0.file("key.pem", &own.signing_key.serialize_pem());
    redis.up().await;
    let url = format!("rediss://localhost:{}", redis.0.port);
    let source = RedisSource::connect(&url).ca_file(cert).open().await.unwrap();
    assert!(is_not_found(&source.fetch("1").await));
    let error = RedisSource::connect(&url).open().await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let plain = RedisSource::connect(url.replace("rediss", "redis")).ca_file("cert.pem").open().await.unwrap_err();
    assert!(plain.to_string().contains("has to begin with `rediss:`"), "{plain}");
}
