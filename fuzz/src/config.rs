//! Any text as the configuration file: a node as it describes it, or one line that says where it is wrong.

use std::path::PathBuf;

use distcache::fuzz_support::{Seed, Target};
use distcache_server::fuzz_support::{Config, Reason};

/// The text of a file.
pub const CONFIG: Target = Target { name: "config", run, seeds };

fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines = text.split('\n').count();
    match Config::parse(text, PathBuf::new()) {
        Ok(config) => assert!(!config.to_string().is_empty()),
        Err(reason) => {
            let message = reason.to_string();
            assert!(!message.chars().any(char::is_control), "one line: {message:?}");
            match line_of(&reason) {
                Some(line) => assert!((1..=lines).contains(&line) && message.contains(&line.to_string()), "{message}"),
                None => assert!(is_about_the_whole(&reason), "nothing is read but the text: {message}"),
            }
        }
    }
}

fn line_of(reason: &Reason) -> Option<usize> {
    match reason {
        Reason::Read(_) | Reason::TooLong { .. } | Reason::SamePort { .. } => None,
        Reason::Syntax { line, .. }
        | Reason::Unknown { line, .. }
        | Reason::NotSupported { line, .. }
        | Reason::Invalid { line, .. }
        | Reason::Missing { line, .. } => Some(*line),
    }
}

/// Two sections at odds have no one line.
fn is_about_the_whole(reason: &Reason) -> bool {
    matches!(reason, Reason::SamePort { .. })
}

fn seeds() -> Vec<Seed> {
    let seed = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    vec![
        seed("whole", WHOLE),
        seed("dns", "[discovery]\nprovider = \"dns\"\nhost = \"cache.internal\"\nport = 3322\n"),
        seed(
            "table",
            "[keyspaces.u]\nsource = { kind = \"sql\", url = \"sqlite:x\", table = \"t\", columns = [\"a\"] }\n",
        ),
        seed("unknown", "[keyspaces.users]\nttll = \"5m\"\nsource = { kind = \"none\" }\n"),
        seed("missing", "[keyspaces.users]\nttl = \"5m\"\n"),
        seed("later", "[redis]\nlisten = \"127.0.0.1:6379\"\n"),
        seed("unprintable", "[node]\n\"a\\nb\" = 1\n"),
        seed("broken", "[node]\nname = \"a\n"),
    ]
}

const WHOLE: &str = r#"[node]
name = "a"
peer = "0.0.0.0:3320"
gossip = "0.0.0.0:3322"
advertise = "10.0.0.1"
zone = "eu-1a"
weight = 200
shutdown_grace = "1s 500ms"
[cluster]
name = "shop"
[discovery]
provider = "static"
seeds = ["10.0.0.1:3322", "cache-2.internal:3322"]
[http]
listen = "127.0.0.1:0"
[admin]
listen = "[::1]:3321"
[keyspaces.users]
max_bytes = "64MiB"
ttl = "5m"
ttl_jitter = "10%"
negative_ttl = "10s"
load_timeout = "2s"
hot_copies = false
lease = "3s"
source = { kind = "sql", url = "sqlite:shop.db", query = "SELECT name FROM users WHERE id = ?1" }
[keyspaces.plain]
source = { kind = "none" }
"#;
