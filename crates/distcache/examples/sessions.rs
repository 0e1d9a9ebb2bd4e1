//! Sessions that every web server sees: kept alive by use, ended by a log-out, in memory only.
//!
//! Two entries a session. Who the user is lives under an absolute limit and goes at the log-out; that the session was used
//! lately is renewed by every request. Were it one entry, a request under way could put back what a log-out has just deleted.
//!
//! `cargo run --example sessions`

use std::time::Duration;

use distcache::{
    DataSource, Engine, EngineBuilder, Error, Fetched, Keyspace, KeyspaceSpec, PutOptions, SourceError, StaticDiscovery,
};
use tokio::time::sleep;

const IDLE_MAX: Duration = Duration::from_secs(1); // half an hour, in earnest
const AGE_MAX: Duration = Duration::from_secs(12 * 3600);

/// Nothing stands behind the cache: a session that it does not have is a user who logs in again.
struct Nowhere;

impl DataSource for Nowhere {
    async fn fetch(&self, _: &str) -> Result<Fetched, SourceError> {
        Err(SourceError::NotFound)
    }
}

/// What a web server does with sessions.
struct Sessions {
    users: Keyspace,
    used: Keyspace,
}

impl Sessions {
    fn of(engine: &Engine) -> Result<Self, Error> {
        Ok(Self { users: engine.keyspace("session-users")?, used: engine.keyspace("session-used")? })
    }

    async fn log_in(&self, id: &str, user: &str) -> Result<(), Error> {
        self.users.put_with(id, user.to_owned(), PutOptions::new().ttl(AGE_MAX)).await?;
        self.used.put_with(id, "", PutOptions::new().ttl(IDLE_MAX)).await
    }

    /// Who is logged in under this id. To ask is to use: the session lives on from here.
    async fn user(&self, id: &str) -> Result<String, Error> {
        self.used.get(id).await?;
        let user = self.users.get(id).await?;
        self.used.put_with(id, "", PutOptions::new().ttl(IDLE_MAX)).await?;
        Ok(String::from_utf8_lossy(&user).into_owned())
    }

    async fn log_out(&self, id: &str) -> Result<(), Error> {
        self.users.delete(id).await
    }
}

fn node(name: &str) -> EngineBuilder {
    let any_port = ([127, 0, 0, 1], 0).into();
    Engine::builder()
        .name(name)
        .keyspace(KeyspaceSpec::new("session-users", Nowhere))
        .keyspace(KeyspaceSpec::new("session-used", Nowhere))
        .peer_listen(any_port)
        .gossip_listen(any_port)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let a = node("a").discovery(StaticDiscovery::default()).start().await?;
    let b = node("b").discovery(StaticDiscovery::new([a.me().gossip_addr.to_string()])).start().await?;
    while a.ring() != b.ring() {
        sleep(Duration::from_millis(10)).await;
    }
    let (on_a, on_b) = (Sessions::of(&a)?, Sessions::of(&b)?);

    on_a.log_in("s1", "ada").await?;
    println!("log-in on a; b knows at once: {:?}", on_b.user("s1").await);
    for _ in 0..3 {
        sleep(IDLE_MAX / 2).await;
        println!("half the idle time later, used on b: {:?}", on_b.user("s1").await);
    }
    on_b.log_out("s1").await?;
    println!("log-out on b; a knows at once: {:?}", on_a.user("s1").await);

    on_b.log_in("s2", "grace").await?;
    println!("log-in on b: {:?}", on_a.user("s2").await);
    sleep(IDLE_MAX + Duration::from_millis(200)).await;
    println!("unused for longer than {IDLE_MAX:?}: {:?}", on_a.user("s2").await);

    a.shutdown(Duration::from_secs(1)).await;
    b.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
