//! Damaged requests over connections that a node has let in, and damaged first words.

use futures_util::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::siege;
use super::stranger::*;
use super::traffic::{self, Traffic};
use crate::harness::*;

/// Attackers at the same time.
const AT_ONCE: usize = 16;

/// Everything that is one bit away, and every beginning.
fn damaged(bytes: &[u8]) -> Vec<Vec<u8>> {
    let flipped = (0..bytes.len() * 8).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    });
    flipped.chain((0..bytes.len()).map(|len| bytes[..len].to_vec())).collect()
}

async fn pings(stream: &mut TcpStream) {
    stream.write_all(&ping()).await.unwrap();
    let mut said = vec![0; ping().len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut said)).await.expect("in time").expect("it stands");
    assert!(has_pong(&said));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_damaged_request_harms_anything_but_its_own_connection() {
    let siege = siege();
    let (plan, truth) = traffic::plan();
    let nodes = plan.cluster(2).await;
    let traffic = Traffic::begin(&nodes, &truth).await;
    let addr = nodes[0].me().peer_addr;
    let mut witness = admitted(addr, Topic::Requests).await;
    let attacks: Vec<_> = requests().into_iter().flat_map(|(_, request)| damaged(&request)).collect();
    assert!(attacks.len() > 3_000);
    let attacked = stream::iter(attacks).map(|attack| async move {
        let mut stream = admitted(addr, Topic::Requests).await;
        // The node may have closed it before all is said.
        let _ = stream.write_all(&[attack, ping()].concat()).await;
        let _ = stream.shutdown().await;
        last_words(&mut stream).await
    });
    let answered = attacked.buffer_unordered(AT_ONCE).filter(|said| std::future::ready(has_pong(said))).count().await;
    assert!(answered > 100, "what makes sense with one bit changed ends no connection: {answered}");

    pings(&mut witness).await;
    for (name, request) in requests() {
        let mut later = admitted(addr, Topic::Requests).await;
        later.write_all(&request).await.unwrap();
        if name != "cancel" {
            let mut head = [0; 13];
            let answered = tokio::time::timeout(PATIENCE, later.read_exact(&mut head)).await;
            answered.expect(name).expect(name);
            let body = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize - 9;
            later.read_exact(&mut vec![0; body]).await.unwrap();
        }
        pings(&mut later).await;
    }
    traffic.end_unharmed().await;
    siege.assert_no_panic();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_damaged_first_word_harms_anything_but_its_own_connection() {
    let siege = siege();
    let (plan, truth) = traffic::plan();
    let nodes = plan.cluster(2).await;
    let traffic = Traffic::begin(&nodes, &truth).await;
    let me = nodes[0].me();
    let ports = [(me.peer_addr, Topic::Requests), (me.gossip_addr, Topic::Exchange)];
    let attacks =
        ports.into_iter().flat_map(|(addr, topic)| damaged(&hello(topic)).into_iter().map(move |it| (addr, it)));
    let attacked = stream::iter(attacks).map(|(addr, attack)| async move {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let _ = stream.write_all(&attack).await;
        let _ = stream.shutdown().await;
        last_words(&mut stream).await
    });
    let count = attacked.buffer_unordered(AT_ONCE).count().await;
    assert!(count > 1_000, "{count}");
    let refused = nodes[0].refusals();
    for reason in ["foreign", "version", "cluster", "incompatible", "secret"] {
        assert!(refused.iter().any(|(found, _)| found.name() == reason), "{reason} is not among {refused:?}");
    }
    pings(&mut admitted(me.peer_addr, Topic::Requests).await).await;
    traffic.end_unharmed().await;
    siege.assert_no_panic();
}
