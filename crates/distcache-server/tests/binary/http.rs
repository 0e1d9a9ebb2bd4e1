//! An HTTP client of a page: one request, one connection, so that the tests see what is really sent.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    /// The stable code of an error.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }
}

/// `addr` is `127.0.0.1:8080`.
pub fn connect(addr: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

pub fn send(addr: &str, method: &str, path: &str, body: &[u8]) -> std::io::Result<Answer> {
    send_over(connect(addr)?, method, path, body)
}

pub fn send_over(mut stream: impl Read + Write, method: &str, path: &str, body: &[u8]) -> std::io::Result<Answer> {
    let json = if body.starts_with(b"{") { "content-type: application/json\r\n" } else { "" };
    let len = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n{json}content-length: {len}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    // A node that has seen enough answers and closes before it has read all: then its answer counts, not our failure.
    let sent = stream.write_all(body);
    answer(stream, sent)
}

/// The whole answer, up to the end of the connection.
pub fn answer(mut stream: impl Read, sent: std::io::Result<()>) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    if bytes.is_empty() {
        sent.and(read.map(drop))?;
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(parsed(&bytes))
}

/// A header whose answer shows that the node has read the head and works on the request.
pub const ASKS_TO_GO_ON: &str = "expect: 100-continue";

pub fn is_told_to_go_on(stream: &mut impl Read) {
    let mut told = [0; 25];
    stream.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// A connection that is kept for more than one request.
pub struct Kept<S>(BufReader<S>);

impl<S: Read + Write> Kept<S> {
    pub fn new(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    pub fn get(&mut self, path: &str) -> std::io::Result<Answer> {
        write!(self.0.get_mut(), "GET {path} HTTP/1.1\r\nhost: node\r\n\r\n")?;
        self.0.get_mut().flush()?;
        self.read()
    }

    /// The status of an answer that has no body.
    pub fn read_head(&mut self) -> std::io::Result<u16> {
        self.head().map(|head| head.status)
    }

    pub fn read(&mut self) -> std::io::Result<Answer> {
        let mut answer = self.head()?;
        answer.body = vec![0; answer.headers["content-length"].parse().unwrap()];
        self.0.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    fn head(&mut self) -> std::io::Result<Answer> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            if self.0.read_until(b'\n', &mut bytes)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(parsed(&bytes))
    }

    pub fn stream(&mut self) -> &mut S {
        self.0.get_mut()
    }
}

fn parsed(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    Answer { status, headers: lines.filter_map(header).collect(), body: bytes[end + 4..].to_vec() }
}
