//! A server whose users come from an operator's and an account's signatures, and the credentials file of one of them.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use distcache::{Discovery, DiscoveryError};
use distcache_nats::Login;
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::server::*;

/// What `issuer` says about `subject`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> String {
    let claims = json!({
        "jti": subject.public_key(), "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(),
        "name": "test", "nats": nats,
    });
    let encoded = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let signed = format!("{}.{}", encoded(json!({ "typ": "JWT", "alg": "ed25519-nkey" })), encoded(claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

/// A user of the account, as a credentials file.
fn credentials(account: &KeyPair) -> String {
    let user = KeyPair::new_user();
    let limits = json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
    let (jwt, seed) = (jwt(account, &user, limits), user.seed().unwrap());
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_the_account_is_admitted_by_its_credentials_file_and_a_stranger_is_not() {
    let (operator, account, stranger) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let operator_jwt = jwt(&operator, &operator, json!({ "type": "operator", "version": 2 }));
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1
    });
    let account_jwt = jwt(&operator, &account, json!({ "type": "account", "version": 2, "limits": limits }));
    let server = Server::with(&format!(
        "operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload: {{ {}: {account_jwt} }}",
        account.public_key()
    ))
    .await;
    for (name, of) in [("user.creds", credentials(&account)), ("stranger.creds", credentials(&stranger))] {
        fs::write(server.file(name), of).unwrap();
    }
    fs::write(server.file("empty.creds"), "hush").unwrap();
    let with = |name: &str| server.discovery().login(Login::credentials(server.file(name)));

    let (one, other) = (registered(with("user.creds"), 1).await, registered(with("user.creds"), 2).await);
    finds(&one, [1, 2]).await;
    finds(&other, [1, 2]).await;
    for (name, reason) in
        [("stranger.creds", "refuses the login by credentials file"), ("empty.creds", "holds no user JWT")]
    {
        let error = with(name).register(addr(3)).await.unwrap_err();
        assert!(matches!(error, DiscoveryError::Invalid(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(reason) && text.contains(name) && !text.contains("hush"), "{text}");
    }
}
