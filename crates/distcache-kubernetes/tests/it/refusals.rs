//! What does not work, and what is said of it.

use std::fs;
use std::time::{Duration, Instant};

use distcache::{Discovery, DiscoveryError};
use distcache_kubernetes::KubernetesDiscovery;

use crate::apiserver::{ApiServer, LABELS, Mood, NAMESPACE, TOKEN_MARK, address, pod};
use crate::patience::{answers, eventually};

async fn refused(discovery: &KubernetesDiscovery) -> DiscoveryError {
    discovery.discover().await.expect_err("there is nothing to answer")
}

#[tokio::test]
async fn a_node_starts_without_the_api_server_and_is_told_why_nobody_is_found() {
    let api = ApiServer::down();
    api.put(pod("a", address(1)));
    let discovery = api.discovery();
    discovery.register(address(1)).await.unwrap();
    let begun = Instant::now();
    let error = refused(&discovery).await;
    assert!(begun.elapsed() < Duration::from_secs(9), "the engine would have lost its patience");
    assert!(error.is_retryable());
    assert!(error.to_string().contains("Connection refused"), "{error}");
    api.bring_up().await;
    answers(&discovery, &[address(1)]).await;
}

#[tokio::test]
async fn a_question_waits_for_the_first_list_no_longer_than_needed() {
    let api = ApiServer::down();
    api.put(pod("a", address(1)));
    let discovery = api.discovery();
    let (answer, ()) = tokio::join!(discovery.discover(), api.bring_up());
    assert_eq!(answer.unwrap(), [address(1)]);
}

#[tokio::test]
async fn an_api_server_that_says_nothing_or_nonsense_is_told_of() {
    let api = ApiServer::start().await;
    api.put(pod("a", address(1)));
    api.feel(Mood::Silent);
    let discovery = api.discovery();
    let error = refused(&discovery).await;
    assert!(error.is_retryable());
    assert!(error.to_string().contains("no list of the pods within 5s"), "{error}");
    drop(discovery);

    api.feel(Mood::Failing(503));
    let discovery = api.discovery();
    let error = refused(&discovery).await;
    assert!(error.is_retryable());
    assert!(
        error.to_string().ends_with("the API server says: 503 InternalError, etcdserver: request timed out"),
        "{error}"
    );

    api.feel(Mood::Flooding);
    eventually("the bound of a list is told of", async || {
        refused(&discovery).await.to_string().contains("answers a list of more than 33554432 bytes")
    })
    .await;
    api.feel(Mood::Fine);
    answers(&discovery, &[address(1)]).await;
}

#[tokio::test]
async fn an_event_over_its_bound_takes_nothing_away() {
    let api = ApiServer::start().await;
    api.put(pod("a", address(1)));
    let discovery = api.discovery();
    assert_eq!(discovery.discover().await.unwrap(), [address(1)]);
    api.put(pod("b", address(2)));
    api.change("b", |pod| pod["metadata"]["annotations"] = serde_json::json!({ "novel": "x".repeat(5 << 20) }));
    // Too long for an event, not for a list.
    answers(&discovery, &[address(1), address(2)]).await;
    eventually("the pods are listed anew", async || api.asked().lists == 2).await;
}

#[tokio::test]
async fn what_is_forbidden_names_the_rule_and_works_once_it_is_granted() {
    let api = ApiServer::start().await;
    api.put(pod("a", address(1)));
    api.feel(Mood::Forbidding);
    let discovery = api.discovery();
    discovery.register(address(1)).await.unwrap();
    let begun = Instant::now();
    let error = refused(&discovery).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "waiting does not help");
    assert!(!error.is_retryable());
    let text = error.to_string();
    for words in [
        "forbids list of pods in namespace \"shop\"",
        "cannot list resource \"pods\"",
        "Role",
        "RoleBinding",
        "verbs [\"list\", \"watch\"]",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
    api.feel(Mood::Fine);
    answers(&discovery, &[address(1)]).await;
}

#[tokio::test]
async fn a_selector_that_makes_no_sense_is_refused_in_the_words_of_the_api_server() {
    let api = ApiServer::start().await;
    let labels = "app in (distcache,,?)";
    api.expect_labels(labels);
    let error = refused(&KubernetesDiscovery::new(labels).config(api.config())).await;
    assert!(!error.is_retryable());
    let text = error.to_string();
    assert!(text.contains("\"app in (distcache,,?)\"") && text.contains("unable to parse requirement"), "{text}");
}

#[tokio::test]
async fn settings_that_make_no_sense_stop_the_start() {
    let refused = async |discovery: KubernetesDiscovery| {
        let error = discovery.register(address(1)).await.unwrap_err();
        assert!(!error.is_retryable());
        error.to_string()
    };
    let api = ApiServer::down();
    assert!(refused(KubernetesDiscovery::new("")).await.contains("labels = \"\""));
    assert!(refused(api.discovery().namespace("No Such")).await.contains("namespace = \"No Such\""));
    assert!(refused(api.discovery().port_name("")).await.contains("port = \"\""));
    assert!(refused(api.discovery().port(0)).await.contains("port = \"0\""));
    let path = api.dir().join("no-such-file");
    let text = refused(KubernetesDiscovery::new(LABELS).kubeconfig(&path)).await;
    assert!(text.contains("no-such-file") && text.contains("No such file"), "{text}");
}

#[tokio::test]
async fn a_server_that_another_authority_vouches_for_gets_no_token() {
    let (api, impostor) = (ApiServer::down(), ApiServer::start().await);
    let mut config = api.config();
    config.cluster_url = impostor.config().cluster_url;
    // Would be a violation, were it sent.
    let error = refused(&KubernetesDiscovery::new(LABELS).config(config)).await;
    assert!(error.is_retryable());
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
}

fn kubeconfig(api: &ApiServer, user: &str) -> std::path::PathBuf {
    let path = api.dir().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
         clusters:\n- name: c\n  cluster: {{ server: \"https://{}\", certificate-authority: ca.crt }}\n\
         contexts:\n- name: here\n  context: {{ cluster: c, user: u, namespace: {NAMESPACE} }}\n\
         users:\n- name: u\n  user:\n    {user}\n",
        api.addr()
    );
    fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn a_kubeconfig_file_says_whom_to_ask_and_as_whom() {
    let api = ApiServer::start().await;
    api.put(pod("a", address(1)));
    let path = kubeconfig(&api, &format!("token: {}", api.token()));
    let discovery = KubernetesDiscovery::new(LABELS).kubeconfig(path);
    discovery.register(address(1)).await.unwrap();
    assert_eq!(discovery.discover().await.unwrap(), [address(1)]);
}

#[tokio::test]
async fn no_error_and_no_debug_output_shows_a_token() {
    let api = ApiServer::start().await;
    api.put(pod("a", address(1)));
    let mut shown = Vec::new();
    let mut look = async |discovery: KubernetesDiscovery| {
        let registered = discovery.register(address(1)).await;
        let discovered = discovery.discover().await;
        shown.push(format!("{discovery:?} {registered:?} {discovered:?}"));
        for error in [registered.err(), discovered.err()].into_iter().flatten() {
            shown.push(format!("{error} {error:?} {error:#?}"));
            let mut next = std::error::Error::source(&error);
            while let Some(cause) = next {
                shown.push(format!("{cause} {cause:?}"));
                next = cause.source();
            }
        }
    };
    look(api.discovery()).await;
    let token = api.token();
    // A file that is no YAML at its line with the token, tokens where they do not belong, and a plugin that talks.
    for user in [
        format!("token: \"{token}\": ["),
        format!("token: [{token}]"),
        format!("token: \"{token}\\n\""),
        format!("exec: {{ apiVersion: client.authentication.k8s.io/v1, command: echo, args: [\"{token}\"] }}"),
        format!(
            "exec: {{ apiVersion: client.authentication.k8s.io/v1, command: sh, args: [-c, \"echo {token}; exit 1\"] }}"
        ),
    ] {
        look(KubernetesDiscovery::new(LABELS).kubeconfig(kubeconfig(&api, &user))).await;
    }
    api.rotate_token();
    let mut with_old_token = api.config();
    with_old_token.auth_info.token_file = None;
    with_old_token.auth_info.token = Some(token.into());
    look(KubernetesDiscovery::new(LABELS).config(with_old_token)).await;

    assert!(shown.iter().any(|text| text.contains("401 Unauthorized")), "{shown:#?}");
    for text in shown {
        assert!(!text.contains(TOKEN_MARK), "{text}");
    }
}
