//! Nodes that share one file and find each other through a NATS server: join, leave, and the server's restart.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::node::{Log, Node, binary, run, until};
use crate::shop::{Shop, standalone};

/// A NATS server with a password, killed at the end of its test.
struct Nats {
    port: u16,
    process: Option<Child>,
}

const PASSWORD: &str = "hunter2-of-nats";

impl Nats {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut nats = Self { port, process: None };
        nats.up();
        nats
    }

    fn up(&mut self) {
        // Where Debian puts it is not on everybody's path.
        let program =
            ["/usr/sbin/nats-server", "/usr/bin/nats-server"].into_iter().find(|file| Path::new(file).exists());
        let mut command = Command::new(program.unwrap_or("nats-server"));
        command.args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "--user", "cache", "--pass", PASSWORD]);
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.process = Some(started.expect("no nats-server here; with Debian: apt-get install nats-server"));
        until("the NATS server answers", || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    fn down(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.down();
    }
}

fn file(shop: &Shop, nats: &Nats) -> std::path::PathBuf {
    shop.write("nats.password", &format!("{PASSWORD}\n"));
    let discovery = format!(
        r#"
        [node]
        peer = "127.0.0.1:0"
        gossip = "127.0.0.1:0"
        advertise = "127.0.0.1"
        [cluster]
        name = "found-by-nats"
        [discovery]
        provider = "nats"
        servers = ["nats://127.0.0.1:{}"]
        user = "cache"
        password_file = "nats.password"
        "#,
        nats.port
    );
    shop.write("node.toml", &format!("{discovery}{}", standalone()))
}

fn sees(node: &Node, names: &[&str]) -> bool {
    let peers = node.admin("GET", "/admin/peers").json();
    peers["peers"].as_array().unwrap().iter().map(|peer| peer["name"].as_str().unwrap()).eq(names.iter().copied())
}

fn all_see(nodes: &[(Node, Log)], names: &[&str]) {
    for (node, _) in nodes {
        until(&format!("every node sees {names:?}"), || sees(node, names));
    }
}

#[test]
fn three_nodes_of_one_file_are_found_a_fourth_joins_one_leaves_and_a_restart_of_the_server_changes_nothing() {
    let (shop, mut nats) = (Shop::new(), Nats::start());
    let file = file(&shop, &nats);
    let mut nodes: Vec<_> = ["a", "b", "c"].map(|name| Node::serve_as(name, &file)).into();
    all_see(&nodes, &["a", "b", "c"]);
    nats.down();
    nats.up();
    nodes.push(Node::serve_as("d", &file));
    all_see(&nodes, &["a", "b", "c", "d"]);
    assert!(nodes.iter().all(|(_, log)| log.lines("peer left").is_empty()), "nothing flaps");

    let (mut leaving, log) = nodes.remove(1);
    leaving.signal("TERM");
    assert!(leaving.ended().success());
    all_see(&nodes, &["a", "c", "d"]);
    for (node, of_node) in &nodes {
        assert_eq!(of_node.lines("peer left").len(), 1, "the one that left");
        assert_eq!(node.get("/v1/users/7").text(), "user-7");
        assert!(of_node.lines(PASSWORD).is_empty() && log.lines(PASSWORD).is_empty());
    }
}

#[test]
fn a_wrong_password_ends_the_start_and_says_what_is_wrong_without_telling_it() {
    let (shop, nats) = (Shop::new(), Nats::start());
    let file = file(&shop, &nats);
    shop.write("nats.password", "something-else");
    let (code, _, err) = run(binary().args(["serve", "--config"]).arg(&file));
    assert_eq!(code, 1);
    assert!(err.contains("refuses the login by password of user \"cache\""), "{err}");
    assert!(!err.contains("something-else"), "{err}");
}
