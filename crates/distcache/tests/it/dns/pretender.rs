//! Something that listens where a name server is expected, over UDP and TCP, and says what a test wants it to say.
//!
//! Knows just enough of DNS messages (RFC 1035, section 4) to write wrong ones. The invariant: it ends with its handle.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// The name that was asked for, at the start of the message that asks.
const ASKED_NAME: [u8; 2] = [0xC0, 12];
pub const A: u16 = 1;
pub const SRV: u16 = 33;
/// The answer did not fit.
pub const TRUNCATED: u16 = 0x0200;

/// A question, as it came.
pub struct Asked {
    message: Vec<u8>,
    pub is_tcp: bool,
}

/// One record of an answer: its name in bytes, type and data.
pub struct Says(pub Vec<u8>, pub u16, pub Vec<u8>);

impl Asked {
    /// Where the question ends.
    fn end(&self) -> usize {
        let mut at = 12;
        while self.message[at] != 0 {
            at += 1 + usize::from(self.message[at]);
        }
        at + 5
    }

    pub fn record(&self) -> u16 {
        let end = self.end();
        u16::from_be_bytes([self.message[end - 4], self.message[end - 3]])
    }

    /// The right id and question with these bytes behind.
    pub fn followed_by(&self, flags: u16, counts: [u16; 3], bytes: &[u8]) -> Vec<u8> {
        let mut answer = self.message[..2].to_vec();
        answer.extend((0x8180 | flags).to_be_bytes());
        [1, counts[0], counts[1], counts[2]].iter().for_each(|count| answer.extend(count.to_be_bytes()));
        answer.extend(&self.message[12..self.end()]);
        answer.extend(bytes);
        answer
    }

    /// A right answer.
    pub fn answered(&self, flags: u16, answers: &[Says], additionals: &[Says]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for Says(name, record, data) in answers.iter().chain(additionals) {
            bytes.extend(name);
            bytes.extend(record.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 60]);
            bytes.extend((data.len() as u16).to_be_bytes());
            bytes.extend(data);
        }
        self.followed_by(flags, [answers.len() as u16, 0, additionals.len() as u16], &bytes)
    }
}

/// `a.b` as it stands in a message.
pub fn name(text: &str) -> Vec<u8> {
    let parts = text.split('.').filter(|part| !part.is_empty());
    let mut bytes: Vec<u8> = parts.flat_map(|part| [&[part.len() as u8], part.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}

pub fn address(of: Vec<u8>, ip: Ipv4Addr) -> Says {
    Says(of, A, ip.octets().into())
}

pub fn asked_name() -> Vec<u8> {
    ASKED_NAME.into()
}

pub fn service(target: &str, port: u16) -> Says {
    let data = [&[0, 10, 0, 5], &port.to_be_bytes()[..], &name(target)].concat();
    Says(asked_name(), SRV, data)
}

async fn speak(mut stream: TcpStream, says: Arc<impl Fn(&Asked) -> Vec<Vec<u8>>>, asked: Arc<AtomicUsize>) {
    while let Ok(len) = stream.read_u16().await {
        asked.fetch_add(1, SeqCst);
        let mut message = vec![0; len.into()];
        stream.read_exact(&mut message).await.unwrap();
        for message in says(&Asked { message, is_tcp: true }) {
            let framed = [&(message.len() as u16).to_be_bytes(), &message[..]].concat();
            let _ = stream.write_all(&framed).await;
        }
    }
}

pub struct Pretender {
    pub addr: SocketAddr,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Pretender {
    /// Answers each question with these messages.
    pub async fn start(says: impl Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let addr = distcache_conformance::free_address();
        let (says, asked) = (Arc::new(says), Arc::new(AtomicUsize::new(0)));
        let (udp, tcp) = (UdpSocket::bind(addr).await.unwrap(), TcpListener::bind(addr).await.unwrap());
        let mut tasks = JoinSet::new();
        let (for_udp, counted) = (Arc::clone(&says), Arc::clone(&asked));
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((len, from)) = udp.recv_from(&mut buffer).await {
                counted.fetch_add(1, SeqCst);
                for message in for_udp(&Asked { message: buffer[..len].to_vec(), is_tcp: false }) {
                    // Too long for a datagram: the asker hears nothing.
                    let _ = udp.send_to(&message, from).await;
                }
            }
        });
        let counted = Arc::clone(&asked);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = tcp.accept().await {
                connections.spawn(speak(stream, Arc::clone(&says), Arc::clone(&counted)));
            }
        });
        Self { addr, asked, _tasks: tasks }
    }

    /// How many questions have come so far.
    pub fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}
