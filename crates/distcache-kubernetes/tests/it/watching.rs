//! What a watch survives: an API server that goes away, history that is gone, credentials that are replaced.

use std::time::Duration;

use distcache::Discovery;
use distcache_kubernetes::KubernetesDiscovery;
use tokio::time::timeout;

use crate::apiserver::{ApiServer, GoneBy, Mood, address, pod};
use crate::patience::{PATIENCE, answers, eventually};

/// A provider that knows the pods `a` and `b`.
async fn watching(api: &ApiServer) -> KubernetesDiscovery {
    api.put(pod("a", address(1)));
    api.put(pod("b", address(2)));
    let discovery = api.discovery();
    discovery.register(address(1)).await.unwrap();
    assert_eq!(discovery.discover().await.unwrap(), [address(1), address(2)]);
    eventually("it watches", async || api.asked().watches == 1).await;
    discovery
}

/// What is known goes on being answered, at once.
async fn is_undisturbed(discovery: &KubernetesDiscovery) {
    let answer = timeout(Duration::from_secs(2), discovery.discover()).await;
    assert_eq!(answer.expect("an answer at once").unwrap(), [address(1), address(2)]);
}

#[tokio::test]
async fn the_last_known_pods_are_answered_while_the_api_server_is_away() {
    let api = ApiServer::start().await;
    let discovery = watching(&api).await;
    api.take_down().await;
    for _ in 0..20 {
        is_undisturbed(&discovery).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    api.put(pod("c", address(3)));
    api.remove("a");
    api.bring_up().await;
    answers(&discovery, &[address(2), address(3)]).await;
    assert_eq!(api.asked().lists, 1, "the watch went on from where it was");
}

#[tokio::test]
async fn pods_are_listed_anew_when_history_is_gone_and_never_fewer_meanwhile() {
    for gone_by in [GoneBy::Event, GoneBy::Status] {
        let api = ApiServer::start().await;
        let discovery = watching(&api).await;
        api.forget_history(gone_by);
        eventually("the pods are listed anew", async || {
            is_undisturbed(&discovery).await;
            api.asked().lists == 2
        })
        .await;
        api.put(pod("c", address(3)));
        answers(&discovery, &[address(1), address(2), address(3)]).await;
        assert_eq!(api.asked().lists, 2, "{gone_by:?}");
    }
}

#[tokio::test]
async fn a_list_that_does_not_come_takes_nothing_away() {
    let api = ApiServer::start().await;
    let discovery = watching(&api).await;
    api.feel(Mood::Silent);
    api.remove("a");
    api.forget_history(GoneBy::Event);
    for _ in 0..20 {
        // The end of the watch may come before or after the removal is seen.
        let answer = timeout(Duration::from_secs(2), discovery.discover()).await.expect("an answer at once").unwrap();
        assert!(answer.contains(&address(2)), "{answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What hangs is taken down with the server; the next question is answered.
    api.take_down().await;
    api.feel(Mood::Fine);
    api.bring_up().await;
    answers(&discovery, &[address(2)]).await;
}

#[tokio::test]
async fn a_watch_goes_on_from_the_last_bookmark() {
    let api = ApiServer::start().await;
    let discovery = watching(&api).await;
    // Much happens elsewhere: without the bookmark the watch would be too old to go on.
    (0..50).for_each(|n| api.put_in("elsewhere", pod(&format!("x-{n}"), address(50))));
    api.forget_history(GoneBy::Event);
    eventually("the pods are listed anew", async || api.asked().lists == 2).await;
    eventually("it watches", async || api.asked().watches >= 3).await;
    let watches = api.asked().watches;
    (0..50).for_each(|n| api.put_in("elsewhere", pod(&format!("x-{n}"), address(51))));
    let before = api.version();
    api.bookmark();
    eventually("the bookmark is sent", async || api.has_issued(before)).await;
    api.forget_history_before(before);
    eventually("it watches again", async || api.asked().watches > watches).await;
    api.put(pod("c", address(3)));
    answers(&discovery, &[address(1), address(2), address(3)]).await;
    assert_eq!(api.asked().lists, 2);
}

#[tokio::test]
async fn a_watch_that_ends_in_order_is_renewed() {
    let api = ApiServer::start().await;
    let discovery = watching(&api).await;
    for n in 3..6 {
        let watches = api.asked().watches;
        api.end_watches();
        eventually("it watches again", async || api.asked().watches > watches).await;
        is_undisturbed(&discovery).await;
        api.put(pod("c", address(n)));
        answers(&discovery, &[address(1), address(2), address(n)]).await;
        api.remove("c");
        answers(&discovery, &[address(1), address(2)]).await;
    }
    assert_eq!(api.asked().lists, 1);
}

#[tokio::test]
async fn a_token_that_was_replaced_is_taken_without_a_restart() {
    let api = ApiServer::start().await;
    let discovery = watching(&api).await;
    for round in 1..=2 {
        let refused = api.asked().unauthorized;
        api.rotate_token();
        api.end_watches();
        eventually("the old token was refused", async || api.asked().unauthorized > refused).await;
        is_undisturbed(&discovery).await;
        api.write_credentials();
        api.put(pod("c", address(2 + round)));
        answers(&discovery, &[address(1), address(2), address(2 + round)]).await;
        api.remove("c");
        answers(&discovery, &[address(1), address(2)]).await;
    }
    assert_eq!(api.asked().lists, 1, "the watch went on from where it was");
}

#[tokio::test]
async fn an_authority_that_was_replaced_is_taken_without_a_restart() {
    let api = ApiServer::start().await;
    let discovery = watching(&api).await;
    api.take_down().await;
    api.rotate_authority();
    api.bring_up().await;
    api.put(pod("c", address(3)));
    answers(&discovery, &[address(1), address(2), address(3)]).await;
}

#[tokio::test]
async fn nothing_is_asked_any_more_once_it_is_closed_or_dropped() {
    let api = ApiServer::start().await;
    let closed = watching(&api).await;
    let dropped = api.discovery();
    dropped.register(address(2)).await.unwrap();
    eventually("both watch", async || api.asked().watches == 2).await;
    timeout(PATIENCE, closed.close()).await.expect("closing ends");
    drop(dropped);
    eventually("the connections end", async || api.connections() == 0).await;
    let asked = api.asked();
    api.put(pod("c", address(3)));
    assert_eq!(closed.discover().await.unwrap(), [address(1), address(2)]);
    assert_eq!(api.asked(), asked);
}
