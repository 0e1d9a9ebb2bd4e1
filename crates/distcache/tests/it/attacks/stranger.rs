//! Whoever can open a socket and has read how nodes talk: the first words, and requests in bytes.
//!
//! Written from the description of the protocol, not with the library's own code: what it says is what the nodes must put up with
//! for as long as the protocol has this version. Keeps no secret.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use distcache::{KeyspaceSettings, KeyspaceSpec};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Topic {
    Requests,
    Exchange,
}

#[derive(Serialize, Deserialize)]
struct Hello {
    features: u64,
    cluster: String,
    topic: Topic,
    slot_bits: u8,
    frame_bytes_max: u64,
    node: String,
    incarnation: u64,
    keeps_secret: bool,
    nonce: [u8; 32],
}

/// The first words to a node.
pub fn hello(topic: Topic) -> Vec<u8> {
    let hello = Hello {
        features: 0,
        cluster: "distcache".into(),
        topic,
        slot_bits: 16,
        frame_bytes_max: 8 << 20,
        node: "mallory".into(),
        incarnation: 1,
        keeps_secret: false,
        nonce: [7; 32],
    };
    let body = postcard::to_stdvec(&hello).unwrap();
    let mut out = b"distcach".to_vec();
    for number in [1, 1, body.len() as u16] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend(body);
    out
}

/// A connection that the node has let in.
pub async fn admitted(addr: SocketAddr, topic: Topic) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&hello(topic)).await.unwrap();
    let mut head = [0; 14];
    stream.read_exact(&mut head).await.unwrap();
    let mut body = vec![0; u16::from_be_bytes([head[12], head[13]]).into()];
    stream.read_exact(&mut body).await.unwrap();
    assert_eq!(body[0], 0, "the node refuses: {}", String::from_utf8_lossy(&body));
    stream
}

/// What the node says until it closes the connection.
pub async fn last_words(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // An end in tears is an end too.
    let ended = timeout(PATIENCE, stream.read_to_end(&mut said)).await;
    drop(ended.expect("the node ends the connection"));
    said
}

/// A frame around an opcode, a request id and a body.
fn frame(op: u8, id: u64, body: &[u8]) -> Vec<u8> {
    let mut frame = ((1 + 8 + body.len()) as u32).to_be_bytes().to_vec();
    frame.push(op);
    frame.extend_from_slice(&id.to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn number(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    [&(items.len() as u32).to_be_bytes(), items.concat().as_slice()].concat()
}

const NO_TRACE: [u8; 1] = [0];
const PING: u8 = 9;
pub const PING_ID: u64 = 0x5049_4E47;

pub fn ping() -> Vec<u8> {
    frame(PING, PING_ID, &[])
}

/// Whether a ping was answered among these frames.
pub fn has_pong(said: &[u8]) -> bool {
    let pong = frame(132, PING_ID, &[]);
    said.windows(pong.len()).any(|words| words == pong)
}

/// A get by somebody who has heard of this clear.
pub fn get(keyspace: &str, generation: u64, key: &str) -> Vec<u8> {
    frame(1, 42, &[text(keyspace), number(generation), NO_TRACE.to_vec(), number(10_000), vec![1], text(key)].concat())
}

/// What a node believes of a keyspace.
#[derive(Serialize)]
pub struct Agreed {
    pub generation: u64,
    pub version: (u64, u64),
    pub deleted: bool,
    pub settings: Option<KeyspaceSettings>,
}

pub fn registry(id: u64, keyspaces: &BTreeMap<String, Agreed>) -> Vec<u8> {
    frame(7, id, &postcard::to_stdvec(keyspaces).unwrap())
}

fn blob(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// The settings of a keyspace that nobody has.
pub fn other_settings() -> KeyspaceSettings {
    KeyspaceSpec::new("other", Source::new()).ttl(Duration::from_secs(60)).settings().clone()
}

/// One request of each kind, about keys that nobody else asks for.
pub fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let named = [text(KEYSPACE), number(0), NO_TRACE.to_vec()].concat();
    let deadline = number(10_000);
    let entry = |key: &str, ttl: u64, value: &[u8]| {
        [text(key), number(ttl), (value.len() as u32).to_be_bytes().to_vec(), value.to_vec()].concat()
    };
    let about = |op, parts: Vec<Vec<u8>>| frame(op, 42, &[named.clone(), parts.concat()].concat());
    let keys = list(&[text("attack-a"), text("attack-b")]);
    let wanted = list(&[[vec![1], text("attack-a")].concat(), [vec![0], text("attack-b")].concat()]);
    let entries = list(&[entry("attack-a", u64::MAX, b""), entry("attack-b", 60_000, b"value")]);
    let agreed = Agreed { generation: 1, version: (1, 1), deleted: false, settings: Some(other_settings()) };
    vec![
        ("get", about(1, vec![deadline.clone(), vec![1], text("attack-a")])),
        ("get_many", about(2, vec![deadline.clone(), wanted])),
        ("put", about(3, vec![entries])),
        ("delete", about(4, vec![keys.clone(), number(500)])),
        ("invalidate", about(5, vec![vec![0], list(&[number(7), number(u64::MAX)])])),
        ("peek", about(10, vec![keys.clone()])),
        ("hand_over", about(11, vec![list(&[[text("attack-a"), number(5), number(60_000), blob(b"value")].concat()])])),
        ("warm", about(12, vec![keys])),
        ("tell", about(13, vec![vec![0], list(&[[number(7), number(5), number(0)].concat()])])),
        ("part", frame(14, 42, &list(&[[number(7), number(1), number(5)].concat()]))),
        ("missed", frame(15, 42, &[])),
        ("refresh", about(6, vec![deadline, text("attack-b")])),
        ("registry", registry(42, &BTreeMap::from([("other".to_owned(), agreed)]))),
        ("cancel", frame(8, 42, &[])),
        ("ping", ping()),
    ]
}
