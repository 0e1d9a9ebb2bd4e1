//! A server that is away: at the start, later, for good; and one that comes back another.

use std::fs;
use std::time::{Duration, Instant};

use distcache::{Discovery, DiscoveryError};
use distcache_nats::{Login, NatsDiscovery, Secret};

use crate::server::*;

fn password(password: &str) -> String {
    format!("authorization {{ user: cache, password: \"{password}\" }}")
}

/// Asks until there is an error that holds.
async fn fails(discovery: &NatsDiscovery, holds: impl Fn(&DiscoveryError) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = discovery.discover().await;
        if let Err(error) = &answer
            && holds(error)
        {
            return error.to_string();
        }
        assert!(Instant::now() < deadline, "the last answer: {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_at_the_start_is_a_passing_failure_and_is_found_once_it_is_up() {
    let server = Server::idle("");
    let (one, other) = (server.node(1).await, server.node(2).await);
    let error = one.discover().await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains(&server.url()), "{error}");
    server.up().await;
    finds(&one, [1, 2]).await;
    finds(&other, [1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_accepts_and_says_nothing_does_not_hold_up_the_start() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", silent.local_addr().unwrap());
    let discovery = NatsDiscovery::new([url], CLUSTER).connect_timeout(Duration::from_secs(60));
    let begun = Instant::now();
    let discovery = registered(discovery, 1).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}: the engine gives up after 10 s", begun.elapsed());
    assert!(discovery.discover().await.unwrap_err().is_retryable());
    discovery.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_every_node_answers_again_by_itself() {
    let server = Server::start().await;
    let nodes = [server.node(1).await, server.node(2).await, server.node(3).await];
    finds(&nodes[0], [1, 2, 3]).await;
    // Down for a moment, and down until it is given up and tried anew.
    for reason in ["", "no NATS server answers"] {
        server.down();
        for node in &nodes {
            fails(node, |error| error.is_retryable() && error.to_string().contains(reason)).await;
        }
        server.up().await;
        for node in &nodes {
            finds(node, [1, 2, 3]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_servers_one_that_is_up_is_enough() {
    let (down, up) = (Server::idle(""), Server::start().await);
    let both = || NatsDiscovery::new([down.url(), up.url()], CLUSTER);
    let (one, other) = (registered(both(), 1).await, registered(both(), 2).await);
    finds(&one, [1, 2]).await;
    down.up().await;
    up.down();
    finds(&one, [1, 2]).await;
    finds(&other, [1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_changes_on_the_server_and_in_its_file_needs_no_restart_of_the_node() {
    let server = Server::with(&password("old")).await;
    let file = server.file("password");
    fs::write(&file, "old").unwrap();
    let login = Login::password("cache", Secret::file(&file));
    let node = registered(server.discovery().login(login), 1).await;
    finds(&node, [1]).await;

    server.down();
    server.configure(&password("new"));
    server.up().await;
    let error = fails(&node, |error| !error.is_retryable()).await;
    assert!(error.contains("refuses the login by password of user \"cache\""), "{error}");
    fs::write(&file, "new").unwrap();
    finds(&node, [1]).await;
}

#[tokio::test]
async fn a_provider_that_is_closed_or_dropped_stops_connecting() {
    let server = Server::start().await;
    let (closed, dropped) = (server.node(1).await, server.node(2).await);
    finds(&closed, [1, 2]).await;
    server.down();
    fails(&closed, DiscoveryError::is_retryable).await;
    fails(&dropped, DiscoveryError::is_retryable).await;
    closed.close().await;
    drop(dropped);
    let tasks = tokio::runtime::Handle::current().metrics();
    eventually("no task is left", || tasks.num_alive_tasks() == 0).await;
}
