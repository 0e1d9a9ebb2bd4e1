//! The HTTP source against real HTTP servers, right ones and broken ones.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use distcache::{DataSource, Engine, Fetched, KeyspaceSpec, SourceError};
use distcache_sources::http::{HttpSource, HttpSourceBuilder};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::server::{is_not_found, text};

type Reply = Response<BoxBody<Bytes, std::io::Error>>;

/// Ends with the value.
struct Origin {
    addr: SocketAddr,
    requests: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    _tasks: JoinSet<()>,
}

impl Origin {
    async fn start(answer: impl Fn(&Request<Incoming>) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(None, answer).await
    }

    async fn with(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&Request<Incoming>) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, requests, answer) = (listener.local_addr().unwrap(), Arc::default(), Arc::new(answer));
        let seen: Arc<Mutex<Vec<_>>> = Arc::clone(&requests);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, seen, tls) = (Arc::clone(&answer), Arc::clone(&seen), tls.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    seen.lock().unwrap().push((request.uri().to_string(), request.headers().clone()));
                    let reply = answer(&request);
                    async move { Ok::<_, std::io::Error>(reply) }
                });
                connections.spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = match tls {
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await,
                            Err(_) => return,
                        },
                        None => http.serve_connection(TokioIo::new(stream), service).await,
                    };
                });
            }
        });
        Self { addr, requests, _tasks: tasks }
    }

    fn url(&self, rest: &str) -> String {
        format!("http://{}{rest}", self.addr)
    }

    fn source(&self) -> HttpSource {
        self.at("/{key}").build().unwrap()
    }

    fn at(&self, rest: &str) -> HttpSourceBuilder {
        HttpSource::at(self.url(rest))
    }

    fn requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// The URL and the headers of the last request.
    fn last(&self) -> (String, HeaderMap) {
        self.requests.lock().unwrap().last().unwrap().clone()
    }
}

fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::builder().status(status);
    for (name, value) in headers {
        reply = reply.header(*name, *value);
    }
    reply.body(Full::new(body.into()).map_err(|never| match never {}).boxed()).unwrap()
}

/// Without an announced length.
fn chunked(chunks: usize, sent: Arc<AtomicUsize>) -> Reply {
    let chunks = futures_util::stream::iter((0..chunks).map(move |_| {
        sent.fetch_add(1, Ordering::Relaxed);
        Ok(Frame::data(Bytes::from_static(&[b'x'; 1024])))
    }));
    Response::new(BodyExt::boxed(StreamBody::new(chunks)))
}

/// What a broken server does once it has read a request.
#[derive(Clone, Copy)]
enum Broken {
    Hangs,
    Resets,
    CutsShort,
    HangsInTheBody,
    Garbage,
}

async fn broken(how: Broken) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
            match how {
                Broken::Hangs => held.push(stream),
                Broken::Resets => stream.set_zero_linger().unwrap(),
                Broken::CutsShort => stream.write_all(head.as_bytes()).await.unwrap(),
                Broken::HangsInTheBody => {
                    stream.write_all(head.as_bytes()).await.unwrap();
                    held.push(stream);
                }
                Broken::Garbage => stream.write_all(b"SSH-2.0-OpenSSH\r\n").await.unwrap(),
            }
        }
    });
    (addr, tasks)
}

fn is_failed(answer: &Result<Fetched, SourceError>) -> bool {
    matches!(answer, Err(SourceError::Failed(_)))
}

fn is_unavailable(answer: &Result<Fetched, SourceError>) -> bool {
    matches!(answer, Err(SourceError::Unavailable(_)))
}

#[tokio::test]
async fn a_status_says_what_the_answer_is() {
    let origin = Origin::start(|request| {
        let status = request.uri().path().trim_start_matches('/').parse().unwrap();
        reply(status, &[], "the body")
    })
    .await;
    let source = origin.source();
    assert_eq!(text(&source, "200").await, "the body");
    for missing in ["404", "410"] {
        assert!(is_not_found(&source.fetch(missing).await), "{missing}");
    }
    for passing in ["408", "425", "429", "500", "502", "503", "504", "599"] {
        let answer = source.fetch(passing).await;
        assert!(is_unavailable(&answer), "{passing}: {answer:?}");
        assert!(answer.unwrap_err().to_string().contains(passing));
    }
    for lasting in ["204", "206", "304", "300", "301", "400", "401", "403", "418"] {
        let answer = source.fetch(lasting).await;
        assert!(is_failed(&answer), "{lasting}: {answer:?}");
    }
    let many = source.fetch_many(&["404", "200", "500"]).await;
    assert!(is_not_found(&many[0]) && many[1].is_ok() && is_unavailable(&many[2]));
}

#[tokio::test]
async fn a_key_is_sent_encoded_and_headers_are_sent_but_not_shown() {
    let origin = Origin::start(|request| reply(200, &[], request.uri().to_string())).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "Bearer s3cret\n").unwrap();
    let builder = origin.at("/users/{key}/name?token=h1dden").header("Accept", "text/plain");
    let builder = builder.header("X-Key", "pr1vate").header_file("Authorization", dir.path().join("token"));
    let shown = format!("{builder:?}");
    let source = builder.build().unwrap();
    assert_eq!(text(&source, "a/../b c?€").await, "/users/a%2F..%2Fb%20c%3F%E2%82%AC/name?token=h1dden");
    for key in ["", ".", ".."] {
        assert!(is_not_found(&source.fetch(key).await), "{key:?}");
    }
    assert_eq!(origin.requests(), 1);
    let (_, headers) = origin.last();
    assert_eq!(
        (&headers["authorization"], &headers["x-key"]),
        (&"Bearer s3cret".parse().unwrap(), &"pr1vate".parse().unwrap())
    );
    assert_eq!(
        (&headers["accept"], &headers["accept-encoding"]),
        (&"text/plain".parse().unwrap(), &"identity".parse().unwrap())
    );
    for secret in ["s3cret", "pr1vate", "h1dden"] {
        assert!(!format!("{shown} {source:?}").contains(secret), "{shown} {source:?}");
    }
    let refused = |builder: HttpSourceBuilder| builder.build().unwrap_err().to_string();
    assert!(refused(origin.at("/{key}").header("Host", "x")).contains("\"Host\": it is not to be set"));
    assert!(refused(origin.at("/{key}").header("a b", "x")).contains("\"a b\": this is no name"));
    let error = refused(origin.at("/{key}").header("A", "s3cret\n"));
    assert!(error.contains("\"A\": its value has characters") && !error.contains("s3cret"), "{error}");
    assert!(
        refused(origin.at("/{key}").header_file("A", "/nowhere")).contains("file of a header /nowhere: No such file")
    );
}

#[tokio::test]
async fn a_lifetime_is_what_cache_control_says() {
    let origin = Origin::start(|request| {
        let control = request.uri().query().unwrap().trim_start_matches("c=").replace("%3D", "=").replace("%2C", ",");
        reply(200, &[("cache-control", &control), ("etag", "\"1\"")], "v")
    })
    .await;
    let source = origin.at("/?c={key}").build().unwrap();
    let expected = |ttl: Option<u64>| {
        let fetched = Fetched::new("v").validator("\"1\"\n");
        ttl.map_or(fetched.clone(), |ttl| fetched.ttl(Duration::from_secs(ttl)))
    };
    assert_eq!(source.fetch("public").await.unwrap(), expected(None));
    let none = Duration::ZERO;
    let not_kept = expected(Some(0)).stale_while_revalidate(none).stale_if_error(none);
    assert_eq!(source.fetch("no-store").await.unwrap(), not_kept);
    assert_eq!(source.fetch("max-age=60,no-cache").await.unwrap(), not_kept);
    // The request may have taken some of it.
    let left = |fetched: Fetched, ttl: u64| {
        fetched.lifetime().unwrap() > Duration::from_secs(ttl - 40)
            && fetched.lifetime().unwrap() <= Duration::from_secs(ttl)
    };
    assert!(left(source.fetch("max-age=60").await.unwrap(), 60));
    assert!(left(source.fetch("max-age=60,s-maxage=3600").await.unwrap(), 3600));
    let ttl = source.fetch("max-age=60,stale-while-revalidate=7,stale-if-error=8").await.unwrap();
    let lifetime = ttl.lifetime().unwrap();
    let (revalidate, error) = (Duration::from_secs(7), Duration::from_secs(8));
    assert_eq!(ttl, expected(None).ttl(lifetime).stale_while_revalidate(revalidate).stale_if_error(error));
}

#[tokio::test]
async fn a_value_that_has_not_changed_is_not_sent_again() {
    let origin = Origin::start(|request| {
        let headers = [
            ("etag", "W/\"1\""),
            ("last-modified", "Sat, 29 Oct 1994 19:43:31 GMT"),
            ("cache-control", "max-age=3600"),
        ];
        match request.headers().get("if-none-match") {
            Some(tag) if tag == "W/\"1\"" => reply(304, &[("etag", "W/\"1b\""), ("cache-control", "max-age=7200")], ""),
            Some(tag) if tag == "\"bare\"" => reply(304, &[], ""),
            Some(_) => reply(200, &[("etag", "\"2\"")], "second"),
            None => reply(200, &headers, "first"),
        }
    })
    .await;
    let source = origin.source();
    let first = source.fetch("k").await.unwrap();
    assert!(origin.last().1.get("if-none-match").is_none());
    let again = source.revalidate("k", &first).await.unwrap();
    let (_, sent) = origin.last();
    assert_eq!(
        (&sent["if-none-match"], &sent["if-modified-since"]),
        (&"W/\"1\"".parse().unwrap(), &"Sat, 29 Oct 1994 19:43:31 GMT".parse().unwrap())
    );
    assert_eq!(again.value(), "first");
    assert!(again.lifetime().unwrap() > Duration::from_secs(3600), "{again:?}");
    assert_eq!(again.held_validator().unwrap(), "W/\"1b\"\n");
    let changed = source.revalidate("k", &again).await.unwrap();
    assert_eq!((changed.value().as_ref(), changed.lifetime()), (&b"second"[..], None));
    // Nothing said anew: what was said holds.
    let held = Fetched::new("kept").validator("\"bare\"\n").ttl(Duration::from_secs(5));
    assert_eq!(source.revalidate("k", &held).await.unwrap(), held);
    assert_eq!(source.revalidate("k", &Fetched::new("bare")).await.unwrap().value(), "first");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let origin = Origin::start(move |request| match request.uri().path() {
        "/announced" => reply(200, &[], vec![b'x'; 10_001]),
        "/largest" => reply(200, &[], vec![b'x'; 10_000]),
        "/endless" => chunked(1_000_000, Arc::clone(&counted)),
        "/chunked" => chunked(9, Arc::default()),
        _ => reply(200, &[("content-encoding", "gzip")], "\x1f\u{8b}"),
    })
    .await;
    let source = origin.at("/{key}").body_bytes_max(10_000).build().unwrap();
    for key in ["announced", "endless"] {
        let answer = source.fetch(key).await;
        assert!(is_failed(&answer), "{answer:?}");
        assert!(answer.unwrap_err().to_string().contains("over the limit of 10000 bytes"));
    }
    assert!(sent.load(Ordering::Relaxed) < 100_000, "the rest is not read");
    assert_eq!(source.fetch("largest").await.unwrap().value().len(), 10_000);
    assert_eq!(source.fetch("chunked").await.unwrap().value().len(), 9 * 1024);
    let encoded = source.fetch("encoded").await.unwrap_err().to_string();
    assert!(encoded.contains("encoded, though that was not asked for"), "{encoded}");
}

#[tokio::test]
async fn a_server_that_hangs_resets_or_breaks_off_is_unavailable() {
    for (how, said) in [
        (Broken::Hangs, "no answer within 300ms"),
        (Broken::HangsInTheBody, "no answer within 300ms"),
        (Broken::Resets, "not reached"),
        (Broken::CutsShort, "breaks off"),
        (Broken::Garbage, "not reached"),
    ] {
        let (addr, _tasks) = broken(how).await;
        let source = HttpSource::at(format!("http://{addr}/{{key}}"));
        // Time enough for those who answer; whoever hangs does so for ever.
        let is_hanging = matches!(how, Broken::Hangs | Broken::HangsInTheBody);
        let source = source.timeout(Duration::from_millis(if is_hanging { 300 } else { 30_000 })).build().unwrap();
        let answer = source.fetch("k").await;
        assert!(is_unavailable(&answer), "{answer:?}");
        let error = answer.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let answer = HttpSource::at(format!("http://{free}/{{key}}")).build().unwrap().fetch("k").await;
    assert!(is_unavailable(&answer), "{answer:?}");
    assert!(answer.unwrap_err().to_string().contains("refused"));
}

#[tokio::test]
async fn redirections_are_followed_a_few_times_and_headers_stay_at_home() {
    let elsewhere = Origin::start(|_| reply(200, &[], "elsewhere")).await;
    let away = elsewhere.url("/x");
    let origin = Origin::start(move |request| match request.uri().path() {
        "/away" => reply(302, &[("location", &away)], ""),
        "/near" => reply(307, &[("location", "sub/../there?a=b")], ""),
        "/there" => reply(200, &[], "there"),
        "/loop" => reply(301, &[("location", "/loop")], ""),
        "/ftp" => reply(301, &[("location", "ftp://host/x")], ""),
        _ => reply(308, &[], ""),
    })
    .await;
    let source = origin.at("/{key}").header("Authorization", "s3cret").redirects_max(3).build().unwrap();
    assert_eq!(text(&source, "near").await, "there");
    assert_eq!(origin.last().0, "/there?a=b");
    assert_eq!(origin.last().1["authorization"], "s3cret");
    assert_eq!(text(&source, "away").await, "elsewhere");
    assert!(elsewhere.last().1.get("authorization").is_none());
    let before = origin.requests();
    let error = source.fetch("loop").await.unwrap_err();
    assert!(error.to_string().contains("more than 3 redirections"), "{error}");
    assert_eq!(origin.requests() - before, 4);
    for nowhere in ["ftp", "none"] {
        assert!(is_failed(&source.fetch(nowhere).await), "{nowhere}");
    }
}

#[tokio::test]
async fn tls_is_spoken_and_the_server_s_certificate_checked() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key).unwrap();
    let origin = Origin::with(Some(TlsAcceptor::from(Arc::new(config))), |_| reply(200, &[], "safe")).await;
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, own.cert.pem()).unwrap();
    let at = |host: &str| HttpSource::at(format!("https://{host}:{}/{{key}}", origin.addr.port()));
    assert_eq!(text(&at("localhost").ca_file(&ca).build().unwrap(), "k").await, "safe");
    for stranger in [at("localhost"), at("127.0.0.1").ca_file(&ca)] {
        let answer = stranger.build().unwrap().fetch("k").await;
        assert!(is_unavailable(&answer), "{answer:?}");
        assert!(answer.unwrap_err().to_string().contains("certificate"));
    }
    std::fs::write(&ca, "no PEM").unwrap();
    assert!(at("localhost").ca_file(&ca).build().unwrap_err().to_string().contains("holds no certificates"));
}

#[tokio::test]
async fn a_keyspace_over_a_server_asks_once_while_the_value_lives() {
    let origin = Origin::start(|request| match request.uri().path() {
        "/kept" => reply(200, &[("cache-control", "max-age=3600")], "kept"),
        _ => reply(200, &[("cache-control", "no-store")], "not kept"),
    })
    .await;
    let spec = KeyspaceSpec::new("api", origin.source()).ttl(Duration::from_secs(3600));
    let engine = Engine::builder().keyspace(spec).start().await.unwrap();
    for _ in 0..3 {
        assert_eq!(engine.get("api", "kept").await.unwrap(), "kept");
    }
    assert_eq!(origin.requests(), 1);
    for _ in 0..3 {
        assert_eq!(engine.get("api", "other").await.unwrap(), "not kept");
    }
    assert_eq!(origin.requests(), 4);
    engine.shutdown(Duration::from_secs(1)).await;
}
