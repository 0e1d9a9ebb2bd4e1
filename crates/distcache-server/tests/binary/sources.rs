//! Keyspaces over sources that are reached over the network, as a file describes them.

use crate::node::{binary, run};
use crate::shop::Shop;

fn file(source: &str) -> String {
    let listen = "listen = \"127.0.0.1:0\"";
    format!("[http]\n{listen}\n[admin]\n{listen}\n[keyspaces.far]\nttl = \"1h\"\nsource = {{ {source} }}\n")
}

fn check(shop: &Shop, arguments: &[&str], source: &str) -> (i32, String, String) {
    let config = shop.write("far.toml", &file(source));
    run(binary().arg("check").args(arguments).arg("--config").arg(config))
}

/// One node's data API is an HTTP server like any other.
#[cfg(feature = "http")]
#[test]
fn a_keyspace_over_http_lives_as_the_server_says() {
    use crate::node::Node;
    use crate::shop::standalone;

    let shop = Shop::new();
    let origin = Node::serve(&shop.write("node.toml", &standalone()));
    let source = format!(r#"kind = "http", url = "http://{}/v1/users/{{key}}""#, origin.http);
    let node = Node::serve(&shop.write("far.toml", &file(&source)));
    for (read, cache) in [("first", "miss"), ("second", "hit")] {
        let answer = node.get("/v1/far/42");
        assert_eq!((answer.status, answer.text()), (200, "user-42"), "{read}");
        assert_eq!(answer.headers["x-cache"], cache, "{read}");
        let max_age: u64 = answer.headers["cache-control"].strip_prefix("max-age=").unwrap().parse().unwrap();
        assert!(max_age <= 300, "the origin's 5 minutes, not the keyspace's hour: {max_age}");
    }
    assert_eq!(node.get("/v1/far/100000").code(), "not_found");
    assert_eq!((origin.stat("users", "loads"), node.stat("far", "loads")), (2, 2));
}

#[test]
fn a_source_is_told_without_its_secrets() {
    let shop = Shop::new();
    for (source, told) in [
        (
            r#"kind = "http", url = "https://api/u/{key}?token=s3cret", headers = { Authorization = "s3cret" }"#,
            "; from https://api/u/{key}?token=***",
        ),
        (
            r#"kind = "redis", url = "redis://cache:s3cret@redis/0", key_prefix = "u:""#,
            "; from redis://cache:***@redis/0, keys that begin with \"u:\"",
        ),
        (
            r#"kind = "sql", url = "postgres://cache:s3cret@db/shop", table = "users""#,
            "; from postgres://cache:***@db/shop, table users",
        ),
        (
            r#"kind = "sql", url = "mysql://db/shop?password=s3cret", query = "SELECT ?""#,
            "; from mysql://db/shop?password=*** by `SELECT ?`",
        ),
    ] {
        let (code, out, err) = check(&shop, &["--offline"], source);
        assert_eq!((code, err.as_str()), (0, ""), "{source}");
        assert!(out.contains(told) && !out.contains("s3cret"), "{out}");
    }
}

#[test]
fn a_source_that_cannot_work_is_named_with_its_keyspace_and_without_its_secrets() {
    let shop = Shop::new();
    // Nobody listens on port 1.
    for (source, feature, is_built_in, said) in [
        (
            r#"kind = "http", url = "https://api/u", headers = { A = "s3cret" }"#,
            "http",
            cfg!(feature = "http"),
            "`{key}` has to stand once",
        ),
        (
            r#"kind = "redis", url = "redis://c:s3cret@127.0.0.1:1""#,
            "redis",
            cfg!(feature = "redis"),
            "\"redis://c:***@127.0.0.1:1\": ",
        ),
        (
            r#"kind = "sql", url = "postgres://c:s3cret@127.0.0.1:1/s", table = "t""#,
            "postgres",
            cfg!(feature = "postgres"),
            "cannot open the database \"postgres://c:***@127.0.0.1:1/s\"",
        ),
        (
            r#"kind = "sql", url = "mysql://c:s3cret@127.0.0.1:1/s", table = "t""#,
            "mysql",
            cfg!(feature = "mysql"),
            "cannot open the database \"mysql://c:***@127.0.0.1:1/s\"",
        ),
    ] {
        let (code, out, err) = check(&shop, &[], source);
        assert_eq!((code, out.as_str()), (1, ""), "{source}");
        let feature = format!("build it with the cargo feature `{feature}`");
        let said = if is_built_in { said } else { &feature };
        assert!(err.contains("keyspace far: ") && err.contains(said) && !err.contains("s3cret"), "{err}");
    }
}
