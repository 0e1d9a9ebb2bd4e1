//! What clients may take from a listener: each limit under attack, while others are answered.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::http::{self, Answer, Kept};
use crate::node::{Log, Node, until};
use crate::shop::{Shop, standalone};

const CLIENTS: usize = 8;

fn with(limits: &str) -> String {
    standalone().replacen("[http]\n", &format!("[http]\n{limits}\n"), 1)
}

fn node(shop: &Shop, limits: &str) -> (Node, Log) {
    Node::serve_logged(&shop.write("node.toml", &with(limits)))
}

fn is_answered(node: &Node) -> bool {
    let answer = node.get("/v1/users/7");
    (answer.status, answer.text()) == (200, "user-7")
}

fn begun_put(node: &Node, header: &str) -> TcpStream {
    let mut stream = http::connect(&node.http).unwrap();
    write!(stream, "PUT /v1/plain/k HTTP/1.1\r\nhost: node\r\n{header}\r\n\r\n").unwrap();
    stream
}

/// Sends the same again and again, with a pause after each time, until it is answered; the answer, and what of it was sent.
fn drip(mut stream: TcpStream, drop: &[u8], pause: Duration) -> (Answer, usize) {
    stream.set_read_timeout(Some(pause)).unwrap();
    let (mut first, mut sent) = ([0], 0);
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < crate::node::DEADLINE, "not answered after {sent} bytes");
        match stream.write(drop) {
            Ok(n) => sent += n,
            Err(error) => assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}"),
        }
        match stream.peek(&mut first) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            peeked => {
                peeked.unwrap();
                break;
            }
        }
    }
    stream.set_read_timeout(Some(crate::node::DEADLINE)).unwrap();
    (http::answer(stream, Ok(())).unwrap(), sent)
}

#[test]
fn heads_that_come_a_byte_at_a_time_are_cut_while_others_are_answered() {
    let shop = Shop::new();
    let (node, _) = node(&shop, "header_timeout = \"2s\"");
    std::thread::scope(|threads| {
        let slow: Vec<_> = (0..CLIENTS)
            .map(|_| {
                threads.spawn(|| {
                    let mut stream = http::connect(&node.http).unwrap();
                    stream.write_all(b"GET /v1/users/7 HTTP/1.1\r\nx: ").unwrap();
                    drip(stream, b"x", Duration::from_millis(100))
                })
            })
            .collect();
        let mut answered = 0;
        while slow.iter().any(|client| !client.is_finished()) {
            assert!(is_answered(&node));
            answered += 1;
        }
        assert!(answered > 0);
        for client in slow {
            let (answer, _) = client.join().unwrap();
            assert_eq!((answer.status, answer.code()), (408, "header_timeout".into()));
            assert_eq!(answer.headers["connection"], "close");
        }
    });
    assert_eq!(node.counted("headers_timed_out"), CLIENTS as u64);
}

#[test]
fn sockets_that_say_nothing_are_closed() {
    let shop = Shop::new();
    let (node, _) = node(&shop, "header_timeout = \"2s\"\nidle_timeout = \"2s\"");
    let mut silent: Vec<TcpStream> = (0..CLIENTS).map(|_| http::connect(&node.http).unwrap()).collect();
    assert!(is_answered(&node));
    let mut kept = Kept::new(http::connect(&node.http).unwrap());
    assert_eq!(kept.get("/v1/users/7").unwrap().status, 200);
    silent.push(kept.stream().try_clone().unwrap());
    for stream in &mut silent {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "closed without a word");
    }
    until("the idle are counted", || node.counted("idle_closed") == silent.len() as u64);
    assert_eq!(node.counted("headers_timed_out"), 0);
}

#[test]
fn a_connection_too_many_is_told_and_those_that_are_at_work_go_on() {
    let shop = Shop::new();
    let (node, log) = node(&shop, "connections_max = 8");
    let mut working: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut stream = begun_put(&node, &format!("content-length: 5\r\n{}", http::ASKS_TO_GO_ON));
            http::is_told_to_go_on(&mut stream);
            stream
        })
        .collect();

    let begun = Instant::now();
    const REFUSED: u64 = 200;
    for _ in 0..REFUSED {
        let answer = node.get("/v1/users/7");
        assert_eq!((answer.status, answer.code()), (503, "too_many_connections".into()));
        assert_eq!((answer.headers["connection"].as_str(), answer.headers["retry-after"].as_str()), ("close", "1"));
    }
    assert_eq!(node.counted("connections_refused"), REFUSED);
    until("the log says so", || !log.lines("a connection too many: refused").is_empty());
    let lines = log.lines("a connection too many: refused").len() as u64;
    assert!(lines <= begun.elapsed().as_secs() + 1, "{lines} lines in {:?}", begun.elapsed());
    // The admin's port has room of its own.
    assert_eq!(node.admin("GET", "/healthz").status, 200);

    for stream in &mut working {
        stream.write_all(b"value").unwrap();
        assert_eq!(Kept::new(stream).read_head().unwrap(), 204);
    }
    assert!(is_answered(&node), "those that have been answered make room");
    assert_eq!(node.get("/v1/plain/k").text(), "value");
}

#[test]
fn ten_thousand_idle_sockets_keep_no_client_out() {
    /// As many as stay open at this end.
    const OPEN: usize = 600;
    let shop = Shop::new();
    let (node, log) = node(&shop, "connections_max = 512");
    let mut kept = Kept::new(http::connect(&node.http).unwrap());
    let beginnings = ["", "G", "GET /v1/users/7 HTTP/1.1\r\n", "GET /v1/users/7 HTTP/1.1\r\nhost: no"];
    let mut idle = std::collections::VecDeque::new();
    for n in 0..10_000 {
        if n % 100 == 0 {
            assert_eq!(kept.get("/v1/users/7").unwrap().text(), "user-7", "whoever has asked before keeps its place");
            assert!(is_answered(&node));
        }
        let mut socket = http::connect(&node.http).unwrap();
        // The node may have closed it already.
        let _ = socket.write_all(beginnings[n % beginnings.len()].as_bytes());
        idle.push_back(socket);
        idle.drain(..idle.len().saturating_sub(OPEN));
    }
    assert_eq!(node.counted("connections_refused"), 0);
    assert!(node.counted("connections_displaced") > 1_000, "{}", node.listener("http"));
    assert!(!log.lines("one without a request made room").is_empty());
}

#[test]
fn a_flood_of_headers_is_refused_before_its_end() {
    let shop = Shop::new();
    let (node, _) = node(&shop, "header_bytes_max = \"8KiB\"");
    let mut stream = http::connect(&node.http).unwrap();
    stream.write_all(b"GET /v1/users/7 HTTP/1.1\r\n").unwrap();
    let (answer, _) = drip(stream, format!("x: {}\r\n", "y".repeat(1_000)).as_bytes(), Duration::from_millis(1));
    assert_eq!(answer.status, 431);
    assert!(is_answered(&node));

    let request = |headers: usize| {
        let mut stream = http::connect(&node.http).unwrap();
        let many = "x: y\r\n".repeat(headers - 2);
        write!(stream, "GET /v1/users/7 HTTP/1.1\r\nhost: node\r\nconnection: close\r\n{many}\r\n").unwrap();
        http::answer(stream, Ok(())).unwrap().status
    };
    let headers_max = node.listener("http")["limits"]["headers_max"].as_u64().unwrap() as usize;
    assert_eq!((request(headers_max), request(headers_max + 1)), (200, 431));
    let long = node.get(&format!("/v1/users/{}", "k".repeat(8 << 10)));
    assert_eq!(long.status, 431);
    until("they are counted", || node.counted("headers_too_large") == 3);
}

#[test]
fn a_body_without_end_is_refused() {
    let shop = Shop::new();
    let (node, _) = node(&shop, "");
    let begin = |head: &str| begun_put(&node, head);
    let chunk = [b"10000\r\n".as_slice(), &[b'v'; 64 << 10], b"\r\n"].concat();
    let (answer, _) = drip(begin("transfer-encoding: chunked"), &chunk, Duration::from_millis(1));
    assert_eq!((answer.status, answer.code()), (413, "value_too_large".into()));
    let (answer, sent) = drip(begin("content-length: 1000000000"), &[b'v'; 1 << 10], Duration::from_millis(20));
    assert_eq!((answer.status, answer.code()), (413, "value_too_large".into()));
    assert!(sent < 4 << 20, "{sent} bytes before the answer");
    assert!(is_answered(&node));
    assert_eq!(node.counted("bodies_too_large"), 2);
    assert_eq!(node.get("/v1/plain/k").status, 404);
}

#[test]
fn a_client_that_is_refused_may_end_its_sentence_and_sees_the_answer() {
    let shop = Shop::new();
    let (node, _) = node(&shop, "");
    let mut stream = begun_put(&node, "content-length: 5000000");
    assert_eq!(stream.peek(&mut [0]).unwrap(), 1, "answered before the body");
    // Over a socket that was closed for good the second write fails.
    for _ in 0..50 {
        stream.write_all(&[b'v'; 64 << 10]).unwrap();
    }
    let answer = http::answer(stream, Ok(())).unwrap();
    assert_eq!((answer.status, answer.code()), (413, "value_too_large".into()));
}

#[test]
fn a_body_that_comes_a_byte_at_a_time_is_cut_while_others_are_answered() {
    let shop = Shop::new();
    let (node, _) = node(&shop, "body_timeout = \"2s\"");
    std::thread::scope(|threads| {
        let slow = threads.spawn(|| drip(begun_put(&node, "content-length: 100000"), b"v", Duration::from_millis(100)));
        while !slow.is_finished() {
            assert!(is_answered(&node));
        }
        let (answer, _) = slow.join().unwrap();
        assert_eq!((answer.status, answer.code()), (408, "body_timeout".into()));
    });
    assert_eq!(node.counted("bodies_timed_out"), 1);
    assert_eq!(node.get("/v1/plain/k").status, 404);
}

#[test]
fn the_answer_to_a_batch_has_an_end() {
    let shop = Shop::new();
    let (node, _) = node(&shop, "answer_bytes_max = \"64KiB\"");
    node.send("PUT", "/v1/plain/text", vec![b'v'; 30 << 10]);
    node.send("PUT", "/v1/plain/quotes", vec![b'"'; 20 << 10]);
    let batch = |keys: &[&str]| node.send("POST", "/v1/plain:batchGet", json!({ "keys": keys }).to_string());
    let answer = batch(&["text", "text"]);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["values"][1]["value"].as_str().unwrap().len(), 30 << 10);
    // Two bytes each, as JSON.
    for keys in [["text", "text", "text"].as_slice(), &["text", "quotes"]] {
        let answer = batch(keys);
        assert_eq!((answer.status, answer.code()), (413, "answer_too_large".into()));
        assert!(answer.text().contains("65536 bytes"), "{}", answer.text());
    }
    assert_eq!(node.counted("answers_too_large"), 2);
    assert_eq!(node.get("/v1/plain/text").body.len(), 30 << 10);
}

#[test]
fn a_reader_that_stops_is_cut() {
    let shop = Shop::new();
    let (node, _) = node(&shop, "write_timeout = \"3s\"");
    assert_eq!(node.send("PUT", "/v1/plain/big", vec![b'v'; 4 << 20]).status, 204);
    // More than the system's buffers on the way take in.
    let body = json!({ "keys": vec!["big"; 12] }).to_string();
    let ask = || {
        let mut stream = http::connect(&node.http).unwrap();
        let head = "host: node\r\nconnection: close\r\ncontent-type: application/json\r\n";
        let len = body.len();
        write!(stream, "POST /v1/plain:batchGet HTTP/1.1\r\n{head}content-length: {len}\r\n\r\n{body}").unwrap();
        stream
    };
    let stopped: Vec<TcpStream> = (0..3).map(|_| ask()).collect();
    until("they are cut", || {
        assert!(is_answered(&node));
        node.counted("writes_timed_out") == stopped.len() as u64
    });
    until("nothing is left of them", || node.listener("http")["connections_open"] == 0);
    for mut stream in stopped {
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        assert!(read.is_err() && bytes.len() < 48 << 20, "{read:?} after {} bytes", bytes.len());
    }
    let whole = http::answer(ask(), Ok(())).unwrap();
    assert_eq!(whole.json()["values"].as_array().unwrap().len(), 12);
}

#[test]
fn requests_may_be_sent_before_the_answers_are_read() {
    let shop = Shop::new();
    let (node, _) = node(&shop, "");
    let mut kept = Kept::new(http::connect(&node.http).unwrap());
    let requests: String = (1..=50).map(|id| format!("GET /v1/users/{id} HTTP/1.1\r\nhost: node\r\n\r\n")).collect();
    kept.stream().write_all(requests.as_bytes()).unwrap();
    for id in 1..=50 {
        assert_eq!(kept.read().unwrap().text(), format!("user-{id}"));
    }
    assert_eq!(node.counted("connections_accepted"), 1);
}

#[cfg(unix)]
#[test]
fn there_is_room_for_as_many_connections_as_there_may_be() {
    let shop = Shop::new();
    let (node, log) = Node::serve_with_ulimit(&shop.write("node.toml", &with("")), "-S -n 64");
    let many: Vec<TcpStream> = (0..200).map(|_| http::connect(&node.http).unwrap()).collect();
    until("all are accepted", || node.listener("http")["connections_open"] == many.len());
    assert!(is_answered(&node));
    assert_eq!(log.lines("fewer files"), Vec::<String>::new());
}

#[cfg(unix)]
#[test]
fn a_node_out_of_files_goes_on_when_it_has_some_again() {
    let shop = Shop::new();
    let (node, log) = Node::serve_with_ulimit(&shop.write("node.toml", &with("")), "-n 64");
    until("it is said", || log.lines("fewer files may be open").len() == 1);
    let many: Vec<TcpStream> = (0..100).map(|_| http::connect(&node.http).unwrap()).collect();
    until("accepting fails", || !log.lines("a connection could not be accepted").is_empty());
    drop(many);
    until("it is answered again", || is_answered(&node));
    assert!(node.counted("accepts_failed") > 0);
}

#[test]
fn limits_are_shown() {
    let shop = Shop::new();
    let (node, _) = node(&shop, "connections_max = 77\nwrite_timeout = \"9s\"");
    let listener = node.listener("http");
    assert_eq!(listener["url"], format!("http://{}", node.http));
    assert_eq!(
        (&listener["limits"]["connections_max"], &listener["limits"]["write_timeout_ms"]),
        (&json!(77), &json!(9_000))
    );
    assert_eq!(node.listener("admin")["limits"]["connections_max"], 256);
    assert_eq!(node.listener("admin")["connections_open"], 1);
}
