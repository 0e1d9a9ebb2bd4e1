//! Ports that speak TLS: who is let in, who is told why not, and certificates that change meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use crate::http::{self, Kept};
use crate::https::{Certs, Client, certificates};
use crate::node::{DEADLINE, Log, Node, binary, run, until};
use crate::shop::{Shop, standalone};

fn tls(certs: &Certs, name: &str, more: &str) -> String {
    let file = |kind: &str| certs.path(&format!("{name}.{kind}"));
    format!("cert = {:?}\nkey = {:?}\n{more}", file("pem"), file("key"))
}

/// TLS for data, none for the admin.
fn config(certs: &Certs, more: &str) -> String {
    standalone().replacen("[admin]", &format!("[http.tls]\n{}\n[admin]", tls(certs, "a", more)), 1)
}

fn node(shop: &Shop, certs: &Certs, more: &str) -> (Node, Log) {
    Node::serve_logged(&shop.write("node.toml", &config(certs, more)))
}

fn get(node: &Node, args: &[&str]) -> (i32, String, String) {
    run(binary().args(["get", "users", "7", "--http"]).arg(format!("https://localhost:{}", port(node))).args(args))
}

fn port(node: &Node) -> &str {
    node.http.rsplit_once(':').unwrap().1
}

fn text(path: std::path::PathBuf) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn clients_that_believe_the_ca_are_answered() {
    let (shop, certs) = (Shop::new(), Certs::new(&["a"]));
    let (node, _) = node(&shop, &certs, "");
    let answer = certs.client().get(&node.http, "/v1/users/7").unwrap();
    assert_eq!((answer.status, answer.text()), (200, "user-7"));
    let mut kept = Kept::new(certs.client().connect(&node.http).unwrap());
    for id in 1..=100 {
        assert_eq!(kept.get(&format!("/v1/users/{id}")).unwrap().text(), format!("user-{id}"));
    }
    assert_eq!(node.listener("http")["url"], format!("https://{}", node.http));

    let ca = text(certs.path("ca.pem"));
    assert_eq!(get(&node, &["--ca", &ca]), (0, "user-7".into(), String::new()));
    let url = format!("https://{}", node.http);
    let command = &mut binary();
    let by_env = command.args(["get", "users", "7"]).env("DISTCACHE_HTTP", &url).env("DISTCACHE_CA", &ca);
    assert_eq!(run(by_env), (0, "user-7".into(), String::new()));
    let url = format!("https://localhost:{}/v1/users/7", port(&node));
    let (code, out, err) = run(Command::new("curl").args(["--silent", "--show-error", "--cacert", &ca, &url]));
    assert_eq!((code, out.as_str()), (0, "user-7"), "{err}");
}

#[test]
fn the_admin_speaks_tls_too() {
    let (shop, certs) = (Shop::new(), Certs::new(&["a"]));
    let text = standalone() + &format!("[admin.tls]\n{}", tls(&certs, "a", ""));
    let (node, _) = Node::serve_logged(&shop.write("node.toml", &text));
    assert_eq!(certs.client().get(&node.admin, "/healthz").unwrap().status, 200);
    assert_eq!(node.get("/v1/users/7").status, 200);
    let url = format!("https://{}", node.admin);
    let (code, out, err) = run(binary().args(["keyspaces", "--admin", &url, "--ca"]).arg(certs.path("ca.pem")));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("users"), "{out}");
}

#[test]
fn a_node_of_another_ca_is_not_believed() {
    let (shop, certs, other) = (Shop::new(), Certs::new(&["a"]), Certs::new(&["a"]));
    let (node, log) = node(&shop, &certs, "");
    assert!(other.client().connect(&node.http).is_err());
    let (code, _, err) = get(&node, &["--ca", &text(other.path("ca.pem"))]);
    assert_eq!((code, err.lines().count()), (1, 1), "{err}");
    assert!(err.contains("no TLS with https://localhost") && err.contains("UnknownIssuer"), "{err}");
    until("it is counted", || node.counted("handshakes_failed") == 2);
    until("it is logged", || !log.lines("a TLS handshake failed").is_empty());
    let (code, _, err) = get(&node, &[]);
    assert_eq!(code, 1);
    assert!(err.contains("--ca FILE or DISTCACHE_CA"), "{err}");
    let (code, _, err) = get(&node, &["--ca", &text(certs.path("a.key"))]);
    assert_eq!(code, 1);
    assert!(err.contains("a.key holds no certificate"), "{err}");
}

#[test]
fn http_where_tls_is_spoken_is_told_so_and_the_other_way_round() {
    let (shop, certs) = (Shop::new(), Certs::new(&["a"]));
    let (node, log) = node(&shop, &certs, "");
    let answer = node.get("/v1/users/7");
    assert_eq!((answer.status, answer.code()), (400, "tls_required".into()));
    assert!(answer.text().contains("this port speaks TLS"), "{}", answer.text());
    until("it is logged", || !log.lines("speaks HTTP without TLS").is_empty());
    assert_eq!(node.counted("plaintext_refused"), 1);
    let (code, _, err) = run(binary().args(["get", "users", "7", "--http", &format!("http://{}", node.http)]));
    assert_eq!(code, 1);
    assert!(err.contains("use https://"), "{err}");

    let url = format!("https://{}", node.admin);
    let (code, _, err) = run(binary().args(["keyspaces", "--admin", &url, "--ca"]).arg(certs.path("ca.pem")));
    assert_eq!((code, err.lines().count()), (1, 1), "{err}");
    assert!(err.contains(&format!("{url} does not speak TLS; try http://{}", node.admin)), "{err}");
}

#[test]
fn with_a_client_ca_only_its_clients_are_let_in() {
    let (shop, certs, other) = (Shop::new(), Certs::new(&["a", "--client", "app"]), Certs::new(&["--client", "app"]));
    let more = format!("client_ca = {:?}", certs.path("ca.pem"));
    let (node, _) = node(&shop, &certs, &more);
    for name in ["app", "a"] {
        assert_eq!(certs.client_as(name).get(&node.http, "/v1/users/7").unwrap().text(), "user-7");
    }
    assert!(certs.client().get(&node.http, "/v1/users/7").is_err());
    assert!(Client::new(&certs, Some((&other, "app"))).get(&node.http, "/v1/users/7").is_err());
    until("they are counted", || node.counted("handshakes_failed") == 2);

    let ca = text(certs.path("ca.pem"));
    let of = |certs: &Certs, kind: &str| text(certs.path(&format!("app.{kind}")));
    let (cert, key) = (of(&certs, "pem"), of(&certs, "key"));
    assert_eq!(get(&node, &["--ca", &ca, "--cert", &cert, "--key", &key]), (0, "user-7".into(), String::new()));
    let (code, _, err) = get(&node, &["--ca", &ca]);
    assert_eq!((code, err.lines().count()), (1, 1), "{err}");
    assert!(err.contains("asks for a certificate; name yours with --cert FILE and --key FILE"), "{err}");
    assert_eq!(get(&node, &["--ca", &ca, "--cert", &cert]).0, 2);
}

#[test]
fn a_handshake_that_does_not_go_on_keeps_nobody_waiting() {
    let (shop, certs) = (Shop::new(), Certs::new(&["a"]));
    let text = config(&certs, "").replacen("[http]", "[http]\nhandshake_timeout = \"2s\"", 1);
    let (node, _) = Node::serve_logged(&shop.write("node.toml", &text));
    let mut silent: Vec<_> = (0..20).map(|_| http::connect(&node.http).unwrap()).collect();
    for stream in &mut silent[10..] {
        // The begin of a handshake: a record of 256 bytes.
        stream.write_all(&[0x16, 3, 1, 1, 0, 1]).unwrap();
    }
    for _ in 0..20 {
        assert_eq!(certs.client().get(&node.http, "/v1/users/7").unwrap().text(), "user-7");
    }
    for stream in &mut silent {
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes).map_err(|error| error.kind());
        assert!(read.is_ok() || read == Err(ErrorKind::ConnectionReset), "{read:?}");
    }
    until("they are counted", || node.counted("handshakes_failed") == 20);
}

#[test]
fn certificates_change_under_running_requests_and_none_fails() {
    let (shop, certs) = (Shop::new(), Certs::new(&["a"]));
    let (node, _) = node(&shop, &certs, "");
    let client = certs.client();
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let served = || {
        let stream = client.connect(&node.http).unwrap();
        stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
    };
    std::thread::scope(|threads| {
        let asking = || {
            let mut kept = Kept::new(client.connect(&node.http).unwrap());
            while !stop.load(Relaxed) {
                assert_eq!(kept.get("/v1/users/7").unwrap().text(), "user-7");
                assert_eq!(client.get(&node.http, "/v1/users/8").unwrap().text(), "user-8");
                answered.fetch_add(2, Relaxed);
            }
        };
        let clients: Vec<_> = (0..3).map(|_| threads.spawn(asking)).collect();
        let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for reloads in 1..=2 {
                let before = served();
                assert_eq!(certs.make(&["a", "--force"]).0, 0);
                let after = certificates(&certs.path("a.pem")).remove(0);
                assert_ne!(before, after);
                until("the new certificate is served", || served() == after);
                until("it is counted", || node.counted("certificates_reloaded") == reloads);
                let so_far = answered.load(Relaxed);
                until("requests go on", || answered.load(Relaxed) > so_far + 20);
            }
        }));
        stop.store(true, Relaxed);
        for client in clients {
            client.join().unwrap();
        }
        changed.unwrap();
    });
    assert_eq!((node.counted("handshakes_failed"), node.counted("certificates_rejected")), (0, 0));
}

#[test]
fn a_broken_certificate_changes_nothing_and_is_named() {
    let (shop, certs, other) = (Shop::new(), Certs::new(&["a"]), Certs::new(&["a"]));
    let (node, log) = node(&shop, &certs, "");
    let read = |kind: &str| std::fs::read(certs.path(&format!("a.{kind}"))).unwrap();
    let (cert, key) = (read("pem"), read("key"));
    let replace = |kind: &str, bytes: &[u8]| std::fs::write(certs.path(&format!("a.{kind}")), bytes).unwrap();
    let cases: [(&str, &[u8], String); 4] = [
        ("pem", b"nonsense", format!("{}: holds no certificate", text(certs.path("a.pem")))),
        ("pem", &cert[..cert.len() / 2], format!("{}: is no PEM", text(certs.path("a.pem")))),
        ("key", b"", format!("{}: holds no private key", text(certs.path("a.key")))),
        (
            "key",
            &std::fs::read(other.path("a.key")).unwrap(),
            format!(
                "{}: is not the key of the certificate in {}",
                text(certs.path("a.key")),
                text(certs.path("a.pem"))
            ),
        ),
    ];
    for (n, (kind, bytes, reason)) in cases.iter().enumerate() {
        replace(kind, bytes);
        until("the reason is logged", || log.lines("certificates not reloaded").len() > n);
        let line = log.lines("certificates not reloaded").pop().unwrap();
        assert!(line.contains(reason), "{line}");
        assert_eq!(certs.client().get(&node.http, "/v1/users/7").unwrap().text(), "user-7");
        replace("pem", &cert);
        replace("key", &key);
        until("the files are fine again", || node.counted("certificates_reloaded") == n as u64 + 1);
    }
    std::fs::remove_file(certs.path("a.key")).unwrap();
    until("the missing file is logged", || log.lines("a.key: cannot be read").len() == 1);
    assert_eq!(certs.client().get(&node.http, "/v1/users/7").unwrap().text(), "user-7");
    assert_eq!(node.counted("certificates_rejected"), 5);
}

#[test]
fn a_node_does_not_start_without_its_certificates() {
    let (shop, certs) = (Shop::new(), Certs::new(&["a"]));
    std::fs::remove_file(certs.path("a.key")).unwrap();
    let file = shop.write("node.toml", &config(&certs, ""));
    for command in ["serve", "check"] {
        let (code, _, err) = run(binary().args([command, "--config"]).arg(&file));
        assert_eq!((code, err.lines().count()), (1, 1), "{err}");
        assert!(err.contains("cannot speak TLS for http") && err.contains("a.key: cannot be read"), "{err}");
    }
    let (code, out, _) = run(binary().args(["check", "--offline", "--config"]).arg(&file));
    assert_eq!(code, 0);
    assert!(out.contains("http on 127.0.0.1:0 with TLS, admin on 127.0.0.1:0\n"), "{out}");
}

#[test]
fn limits_hold_over_tls_too() {
    let (shop, certs) = (Shop::new(), Certs::new(&["a"]));
    let text = config(&certs, "").replacen("[http]", "[http]\nconnections_max = 4\nbody_timeout = \"5s\"", 1);
    let (node, _) = Node::serve_logged(&shop.write("node.toml", &text));
    let silent: Vec<_> = (0..4).map(|_| http::connect(&node.http).unwrap()).collect();
    until("all places are taken", || node.listener("http")["connections_open"] == 4);
    let slow: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = certs.client().connect(&node.http).unwrap();
            let headers = format!("host: node\r\ncontent-length: 5\r\n{}", http::ASKS_TO_GO_ON);
            write!(stream, "PUT /v1/plain/k HTTP/1.1\r\n{headers}\r\n\r\n").unwrap();
            stream.flush().unwrap();
            http::is_told_to_go_on(&mut stream);
            stream
        })
        .collect();
    assert_eq!(node.counted("connections_displaced"), 4, "of those who had not begun TLS");
    // Without a word: there is no telling without a handshake.
    assert!(certs.client().get(&node.http, "/v1/users/7").is_err());
    for stream in slow {
        stream.sock.set_read_timeout(Some(DEADLINE)).unwrap();
        let answer = http::answer(stream, Ok(())).unwrap();
        assert_eq!((answer.status, answer.code()), (408, "body_timeout".into()));
    }
    until("there is room again", || certs.client().get(&node.http, "/v1/users/7").is_ok());
    assert!(node.counted("connections_refused") >= 1);
    drop(silent);
}
