//! Nodes that know each other by certificates and a secret, nodes that do not belong, and secrets that stay secret.

use std::path::Path;

use crate::https::Certs;
use crate::node::{Log, Node, binary, run, until};
use crate::shop::{Shop, keyspaces};

const LOCAL: &str = r#"
    [http]
    listen = "127.0.0.1:0"
    [admin]
    listen = "127.0.0.1:0"
"#;

/// A node of a cluster that is closed by both means.
fn closed(name: &str, seed: Option<&str>, secret: &Path, certs: &Certs, shown: &str) -> String {
    let seeds = seed.map_or_else(String::new, |seed| format!("{seed:?}"));
    let path = |file: &str| certs.path(file).display().to_string();
    format!(
        r#"
        [node]
        name = "{name}"
        peer = "127.0.0.1:0"
        gossip = "127.0.0.1:0"
        [cluster]
        name = "closed"
        secret_file = "{}"
        [tls]
        ca = "{}"
        cert = "{}"
        key = "{}"
        [discovery]
        provider = "static"
        seeds = [{seeds}]
        {LOCAL}
        {}
        "#,
        secret.display(),
        path("ca.pem"),
        path(&format!("{shown}.pem")),
        path(&format!("{shown}.key")),
        keyspaces(),
    )
}

fn make_secret() -> String {
    let (code, secret, err) = run(binary().arg("secret"));
    assert_eq!((code, &*err), (0, ""));
    secret
}

fn names(node: &Node) -> Vec<String> {
    let peers = node.admin("GET", "/admin/peers").json();
    peers["peers"].as_array().unwrap().iter().map(|peer| peer["name"].as_str().unwrap().to_owned()).collect()
}

fn refused(node: &Node, reason: &str) -> bool {
    node.admin("GET", "/admin/node").json()["refusals"][reason].as_u64().unwrap_or(0) > 0
}

fn until_logged(log: &Log, line: &str) {
    until(line, || !log.lines(line).is_empty());
}

#[test]
fn nodes_with_certificates_and_the_secret_form_a_cluster_and_others_stay_outside() {
    let (shop, certs, other) = (Shop::new(), Certs::new(&["a", "b", "c"]), Certs::new(&["d"]));
    let secret = shop.write("gossip.key", &make_secret());
    let a = Node::serve(&shop.write("a.toml", &closed("a", None, &secret, &certs, "a")));
    let seed = a.gossip.clone().unwrap();
    let file = |name: &str, secret: &Path, certs: &Certs, shown: &str| {
        shop.write(&format!("{name}.toml"), &closed(name, Some(&seed), secret, certs, shown))
    };
    let b = Node::serve(&file("b", &secret, &certs, "b"));
    for node in [&a, &b] {
        until("two nodes know each other", || names(node) == ["a", "b"]);
    }
    for id in 1..50 {
        let path = format!("/v1/users/{id}");
        [&a, &b].iter().for_each(|node| assert_eq!(node.get(&path).text(), format!("user-{id}")));
    }

    let guessed = shop.write("guessed.key", &make_secret());
    let (c, log) = Node::serve_logged(&file("c", &guessed, &certs, "c"));
    until_logged(&log, "knows another cluster secret");
    assert!(refused(&a, "secret"));
    let (d, log) = Node::serve_logged(&file("d", &secret, &other, "d"));
    until_logged(&log, "the certificate is not signed by the cluster's CA");
    assert_eq!((names(&c), names(&d)), (vec!["c".into()], vec!["d".into()]));
    assert_eq!(names(&a), ["a", "b"]);

    let (code, _, err) = run(binary().args(["serve", "--config"]).arg(file("e", &secret, &certs, "b")));
    assert_eq!(code, 1);
    assert!(err.contains("other nodes would refuse this one: the certificate is not valid for \"e\""), "{err}");
}

#[test]
fn check_says_how_a_cluster_is_closed_and_which_file_is_wrong() {
    let (shop, certs) = (Shop::new(), Certs::new(&["a", "b"]));
    let secret = shop.write("gossip.key", &make_secret());
    let check = |text: &str| run(binary().args(["check", "--config"]).arg(shop.write("a.toml", text)));
    let good = closed("a", None, &secret, &certs, "a");
    let (code, out, err) = check(&good);
    assert_eq!((code, &*err), (0, ""));
    assert!(out.contains("closed by a cluster secret, with TLS between nodes"), "{out}");
    let (code, _, err) = check(&good.replace("b.pem", "no-such.pem").replace("a.pem", "no-such.pem"));
    assert_eq!(code, 1);
    assert!(err.contains("no-such.pem"), "{err}");
    let (_, _, err) = check(&good.replace("a.key", "b.key"));
    assert!(err.contains("b.key") && err.contains("the private key is not that of the certificate"), "{err}");
    shop.write("gossip.key", "short");
    let (code, _, err) = check(&good);
    assert_eq!(code, 1);
    assert!(err.contains("a cluster secret has 16 to 1024 bytes, not 5"), "{err}");
}

#[test]
fn the_secret_is_rotated_by_its_file_and_nobody_is_lost() {
    let (shop, certs) = (Shop::new(), Certs::new(&["a", "b"]));
    let (old, new) = (make_secret(), make_secret());
    let secrets = ["a", "b"].map(|name| shop.write(&format!("{name}.secret"), &old));
    let (a, log_a) = Node::serve_logged(&shop.write("a.toml", &closed("a", None, &secrets[0], &certs, "a")));
    let seed = a.gossip.clone().unwrap();
    let file = shop.write("b.toml", &closed("b", Some(&seed), &secrets[1], &certs, "b"));
    let (b, log_b) = Node::serve_logged(&file);
    until("two nodes know each other", || names(&a) == ["a", "b"] && names(&b) == ["a", "b"]);
    for (step, text) in [format!("{old}{new}"), format!("{new}{old}"), new.clone()].iter().enumerate() {
        secrets.iter().for_each(|file| std::fs::write(file, text).unwrap());
        for log in [&log_a, &log_b] {
            until("the secret has changed", || log.lines("the cluster secret has changed").len() == step + 1);
        }
    }
    assert!(log_a.lines("peer left").is_empty() && log_b.lines("peer left").is_empty());
    assert_eq!(a.get("/v1/users/7").text(), b.get("/v1/users/7").text());
    std::fs::write(&secrets[0], "short").unwrap();
    until_logged(&log_a, "the cluster secret has changed and cannot be used; the old one stays in use");
    assert_eq!(names(&a), ["a", "b"]);
}

#[test]
fn secrets_and_values_appear_in_no_log_and_no_admin_answer() {
    const VALUE: &str = "a value that is nobody's business";
    const PASSWORD: &str = "hunter2-of-the-database";
    let (shop, certs) = (Shop::new(), Certs::new(&["a", "b"]));
    let secret = make_secret();
    let file = shop.write("gossip.key", &secret);
    let config = |name: &str, seed| shop.write(&format!("{name}.toml"), &closed(name, seed, &file, &certs, name));
    let (a, log_a) = Node::serve_at_level("trace", &config("a", None));
    let seed = a.gossip.clone();
    let (b, log_b) = Node::serve_at_level("trace", &config("b", seed.as_deref()));
    until("two nodes know each other", || names(&a) == ["a", "b"] && names(&b) == ["a", "b"]);
    for id in 1..20 {
        let path = format!("/v1/plain/{id}");
        assert_eq!(a.send("PUT", &path, VALUE).status, 204);
        [&a, &b].iter().for_each(|node| assert_eq!(node.get(&path).text(), VALUE));
        assert_eq!(b.send("DELETE", &path, "").status, 204);
        [&a, &b].iter().for_each(|node| assert_eq!(node.get(&format!("/v1/users/{id}")).text(), format!("user-{id}")));
    }
    let mut seen = String::new();
    for path in ["node", "peers", "ring", "keyspaces", "listeners", "owner/plain/1"] {
        seen += a.admin("GET", &format!("/admin/{path}")).text();
    }
    until_logged(&log_a, "DEBUG distcache::cluster::driver: peer updated");
    seen += &log_a.lines("").concat();
    seen += &log_b.lines("").concat();

    // Mistakes that name what was configured.
    let url = format!("postgres://ada:{PASSWORD}@db/shop");
    let keyspace = format!("[keyspaces.u]\nsource = {{ kind = \"sql\", url = \"{url}\", query = \"SELECT ?1\" }}\n");
    let mistaken = format!("[http]\nlisten = \"{url}\"\n");
    for text in [keyspace, mistaken] {
        let (code, out, err) = run(binary().args(["check", "--config"]).arg(shop.write("wrong.toml", &text)));
        assert_eq!(code, 1);
        assert!(err.contains("ada:***@db"), "{err}");
        seen += &(out + &err);
    }
    let key = std::fs::read_to_string(certs.path("a.key")).unwrap();
    let key_line = key.lines().nth(1).unwrap();
    for planted in [secret.trim(), VALUE, "user-1", PASSWORD, key_line] {
        assert!(!seen.contains(planted), "{planted:?} has leaked");
    }
}
