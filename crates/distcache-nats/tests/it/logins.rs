//! Who may speak with the server: user and password, token, nkey; and what is said when it refuses.

use std::fs;

use distcache::{Discovery, DiscoveryError, Engine, StartError};
use distcache_nats::{Login, NatsDiscovery, Secret};
use nkeys::KeyPair;

use crate::server::*;

const PASSWORD: &str = "authorization { user: cache, password: \"open sesame\" }";

/// The error of a start with this login: lasting, and its text.
async fn refused(server: &Server, login: Login) -> String {
    let error = server.discovery().login(login).register(addr(9)).await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Invalid(_)), "{error:?}");
    error.to_string()
}

/// Two nodes with this login find each other.
async fn admitted(server: &Server, login: Login) {
    let node = |port| registered(server.discovery().login(login.clone()), port);
    let (one, other) = (node(1).await, node(2).await);
    finds(&one, [1, 2]).await;
    finds(&other, [1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_its_password_is_admitted_and_nobody_else() {
    let server = Server::with(PASSWORD).await;
    admitted(&server, Login::password("cache", "open sesame")).await;
    let file = server.file("password");
    fs::write(&file, "open sesame\n").unwrap();
    admitted(&server, Login::password("cache", Secret::file(file))).await;

    let wrong = refused(&server, Login::password("cache", "hush")).await;
    assert!(wrong.ends_with("the NATS server refuses the login by password of user \"cache\""), "{wrong}");
    assert!(refused(&server, Login::token("hush")).await.ends_with("refuses the login by token"));
    let anonymous = refused(&server, Login::Anonymous).await;
    assert!(anonymous.ends_with("the NATS server asks for a login, and none is set"), "{anonymous}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_admitted_and_a_wrong_one_is_not() {
    let server = Server::with("authorization { token: \"open sesame\" }").await;
    admitted(&server, Login::token("open sesame")).await;
    let file = server.file("token");
    fs::write(&file, "  open sesame\n").unwrap();
    admitted(&server, Login::token(Secret::file(file))).await;
    let wrong = refused(&server, Login::token("hush")).await;
    assert!(wrong.ends_with("the NATS server refuses the login by token") && !wrong.contains("hush"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_nkey_is_admitted_and_another_one_or_none_at_all_is_not() {
    let (user, stranger) = (KeyPair::new_user(), KeyPair::new_user());
    let server = Server::with(&format!("authorization {{ users: [ {{ nkey: {} }} ] }}", user.public_key())).await;
    admitted(&server, Login::nkey(user.seed().unwrap())).await;
    let file = server.file("user.nk");
    fs::write(&file, user.seed().unwrap() + "\n").unwrap();
    admitted(&server, Login::nkey(Secret::file(file))).await;

    let wrong = refused(&server, Login::nkey(stranger.seed().unwrap())).await;
    assert!(wrong.ends_with("the NATS server refuses the login by nkey"), "{wrong}");
    let unusable = refused(&server, Login::nkey("SUhush")).await;
    assert!(unusable.contains("nkey: cannot sign") && !unusable.contains("hush"), "{unusable}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_not_there_is_named() {
    let server = Server::start().await;
    for login in [
        Login::password("cache", Secret::file("/nowhere/secret")),
        Login::token(Secret::file("/nowhere/secret")),
        Login::nkey(Secret::file("/nowhere/secret")),
        Login::credentials("/nowhere/secret"),
    ] {
        let error = refused(&server, login).await;
        assert!(error.contains("\"/nowhere/secret\": No such file"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_permission_is_enough_and_without_it_the_error_quotes_the_server() {
    let may = |subject| format!("permissions: {{ publish: \"{subject}\", subscribe: \"{subject}\" }}");
    let users = [
        format!("{{ user: cache, password: a, {} }}", may("distcache.shop.>")),
        format!("{{ user: other, password: a, {} }}", may("distcache.other.>")),
    ];
    let server = Server::with(&format!("authorization {{ users: [ {} ] }}", users.join(", "))).await;
    admitted(&server, Login::password("cache", "a")).await;

    let denied = registered(server.discovery().login(Login::password("other", "a")), 3).await;
    let error = denied.discover().await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("Permissions Violation"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_with_a_wrong_password_does_not_start_and_says_why() {
    let server = Server::with(PASSWORD).await;
    let discovery = server.discovery().login(Login::password("cache", "hush"));
    let loopback = "127.0.0.1:0".parse().unwrap();
    let start = Engine::builder().discovery(discovery).peer_listen(loopback).gossip_listen(loopback).start();
    let error = start.await.unwrap_err();
    assert!(matches!(error, StartError::Discovery(DiscoveryError::Invalid(_))), "{error:?}");
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("cache") && !shown.contains("hush"), "{shown}");
}

#[tokio::test]
async fn settings_that_make_no_sense_stop_the_start() {
    let nowhere = NatsDiscovery::new([] as [&str; 0], CLUSTER).register(addr(1)).await.unwrap_err();
    assert!(matches!(nowhere, DiscoveryError::Invalid(_)), "{nowhere:?}");
    assert!(nowhere.to_string().contains("servers"), "{nowhere}");
}
