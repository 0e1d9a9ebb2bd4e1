//! Questions and answers: how many, whose, and what else arrives.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use async_nats::Client;
use distcache::Discovery;
use distcache_nats::NatsDiscovery;
use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio_util::task::AbortOnDropHandle;

use crate::server::*;

/// Answers every question on the subject of the cluster with these messages.
async fn responder(server: &Server, answers: Vec<Vec<u8>>) -> (Client, AbortOnDropHandle<()>) {
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut questions = client.subscribe(format!("distcache.{CLUSTER}.nodes")).await.unwrap();
    client.flush().await.unwrap();
    let publisher = client.clone();
    let answering = async move {
        while let Some(question) = questions.next().await {
            for answer in &answers {
                publisher.publish(question.reply.clone().unwrap(), answer.clone().into()).await.unwrap();
            }
        }
    };
    (client, AbortOnDropHandle::new(tokio::spawn(answering)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_five_hundred_nodes_that_answer_at_once_none_is_lost() {
    let server = Server::start().await;
    let mut nodes = Vec::new();
    for some in (1..=500).collect::<Vec<u16>>().chunks(50) {
        nodes.extend(join_all(some.iter().map(|port| server.node(*port))).await);
    }
    let asker = || async { server.discovery().answer_window(Duration::from_secs(5)).discover().await.unwrap() };
    for found in join_all([asker(), asker(), asker()]).await {
        assert_eq!(found.len(), 500);
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), addrs(1..=500));
    }
    join_all(nodes.iter().map(NatsDiscovery::close)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_answers_is_read_up_to_the_limit() {
    let server = Server::start().await;
    let flood = (0..10_000).map(|n| format!("distcache/1 10.0.0.2:{}", n % 60_000 + 1).into_bytes());
    let _flooding = responder(&server, flood.collect()).await;
    let asker = server.discovery().answer_window(Duration::from_secs(5));
    assert_eq!(asker.discover().await.unwrap().len(), 4096);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_none_are_passed_over_and_counted() {
    let server = Server::start().await;
    let node = server.node(1).await;
    let garbage: [&[u8]; 6] =
        [b"", b"\xff\x00\xfe", b"10.0.0.9:9", b"distcache/2 10.0.0.9:9", b"distcache/1 nowhere:9", &[b'x'; 900_000]];
    let _babbling = responder(&server, garbage.map(<[u8]>::to_vec).to_vec()).await;
    let asker = server.node(2).await;
    finds(&asker, [1, 2]).await;
    let deadline = Instant::now() + PATIENCE;
    while asker.answers_passed_over() < 6 {
        assert!(Instant::now() < deadline, "{}", asker.answers_passed_over());
        assert!(asker.discover().await.unwrap().iter().all(|found| [addr(1), addr(2)].contains(found)));
    }
    assert_eq!(node.answers_passed_over(), 0, "it has not asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_that_are_none_are_not_answered_and_do_no_harm() {
    let server = Server::start().await;
    let node = server.node(1).await;
    let stranger = async_nats::connect(server.url()).await.unwrap();
    let mut heard = stranger.subscribe("elsewhere").await.unwrap();
    let nodes = format!("distcache.{CLUSTER}.nodes");
    // A question that wants its answer elsewhere, one of another version, one without a reply, and none at all.
    stranger.publish_with_reply(nodes.clone(), "elsewhere", "distcache/1".into()).await.unwrap();
    let inbox = format!("distcache.{CLUSTER}.answers.x");
    let mut answered = stranger.subscribe(inbox.clone()).await.unwrap();
    stranger.publish_with_reply(nodes.clone(), inbox.clone(), "distcache/2".into()).await.unwrap();
    stranger.publish(nodes.clone(), "distcache/1".into()).await.unwrap();
    stranger.publish_with_reply(nodes.clone(), inbox.clone(), vec![b'x'; 900_000].into()).await.unwrap();
    // It answers in order: once this one is answered, none of the others will be.
    stranger.publish_with_reply(nodes, inbox, "distcache/1".into()).await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, answered.next()).await.unwrap().unwrap();
    assert_eq!(answer.payload, "distcache/1 10.0.0.1:1");
    assert!(futures_util::poll!(heard.next()).is_pending());
    finds(&node, [1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_on_one_server_do_not_see_each_other() {
    let server = Server::start().await;
    let at = |cluster: &str, prefix: &str, port| {
        registered(NatsDiscovery::new([server.url()], cluster).subject_prefix(prefix), port)
    };
    let [one, same, other, dotted, elsewhere] = [
        at("shop", "distcache", 1).await,
        at("shop", "distcache", 2).await,
        at("stock", "distcache", 3).await,
        at("shop.nodes *", "distcache", 4).await,
        at("shop", "team-a.distcache", 5).await,
    ];
    finds(&one, [1, 2]).await;
    finds(&same, [1, 2]).await;
    finds(&other, [3]).await;
    finds(&dotted, [4]).await;
    finds(&elsewhere, [5]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_taken_leave_is_not_found_and_asking_where_nobody_is_takes_no_window() {
    let server = Server::start().await;
    let (stays, leaves) = (server.node(1).await, server.node(2).await);
    finds(&stays, [1, 2]).await;
    leaves.deregister(addr(2)).await.unwrap();
    finds(&stays, [1]).await;
    finds(&leaves, [1]).await;
    stays.deregister(addr(1)).await.unwrap();

    let patient = server.discovery().answer_window(Duration::from_secs(5));
    let begun = Instant::now();
    finds(&patient, []).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "the server says at once that nobody listens");
}

#[tokio::test]
async fn a_closed_provider_says_so_and_leaves_nothing_behind() {
    let server = Server::start().await;
    let node = server.node(1).await;
    node.close().await;
    let error = node.discover().await.unwrap_err();
    assert!(error.to_string().contains("closed"), "{error}");
    drop(server.node(2).await);
    let tasks = tokio::runtime::Handle::current().metrics();
    eventually("no task is left", || tasks.num_alive_tasks() == 0).await;
}
