//! No secret is shown: not by `Debug`, not by an error, not in a log, however much is logged.

use std::io;
use std::sync::{Arc, Mutex};

use distcache::Discovery;
use distcache_nats::{Login, NatsDiscovery};
use tracing_subscriber::filter::LevelFilter;

use crate::server::*;

const SECRET: &str = "open-sesame-open";

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// On one thread, so that all that is logged is heard.
#[tokio::test]
async fn neither_debug_nor_errors_nor_logs_hold_a_secret() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());

    let admitting = Server::with(&format!("authorization {{ user: cache, password: {SECRET} }}")).await;
    let refusing = Server::with("authorization { user: cache, password: other }").await;
    let down = Server::idle("");
    let mut shown = String::new();
    for server in [&admitting, &refusing, &down] {
        for login in [Login::password("cache", SECRET), Login::token(SECRET), Login::nkey(SECRET)] {
            let discovery = server.discovery().login(login);
            let registered = discovery.register(addr(1)).await;
            let found = discovery.discover().await;
            shown += &format!("{discovery:?} {registered:?} {found:?}\n");
            shown.extend(registered.err().map(|error| error.to_string()));
            discovery.close().await;
        }
    }
    let in_url = NatsDiscovery::new([format!("nats://cache:{SECRET}@{}", admitting.addr)], CLUSTER);
    let error = in_url.register(addr(1)).await.unwrap_err();
    shown += &format!("{in_url:?} {error:?} {error}");
    assert!(shown.contains("Secret(..)") && !shown.contains(SECRET), "{shown}");
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.contains("async_nats") && !log.contains(SECRET), "{log}");
}
