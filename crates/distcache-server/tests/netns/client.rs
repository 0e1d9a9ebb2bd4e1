//! An HTTP client of a page: one connection, one request at a time.
//!
//! Knows nothing of what is asked. The invariant: a request is sent once; where it failed its connection is not used again.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than a node takes for any answer (`request_timeout` is 5 s), so that its own errors are seen.
const PATIENCE: Duration = Duration::from_secs(6);

pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

pub struct Client {
    addr: SocketAddr,
    patience: Duration,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn of(addr: SocketAddr) -> Self {
        Self::patient(addr, PATIENCE)
    }

    pub fn patient(addr: SocketAddr, patience: Duration) -> Self {
        Self { addr, patience, stream: None }
    }

    pub fn send(&mut self, method: &str, path: &str, body: &str) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.addr, self.patience)?,
        };
        let len = body.len();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: node\r\ncontent-length: {len}\r\n\r\n{body}");
        stream.get_mut().write_all(request.as_bytes())?;
        let answer = read(&mut stream)?;
        self.stream = Some(stream);
        Ok(answer)
    }
}

fn connect(addr: SocketAddr, patience: Duration) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&addr, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Answer> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == "\r\n" {
            break;
        }
        lines.push(line);
    }
    let status = lines[0].split(' ').nth(1).and_then(|status| status.parse().ok());
    let header =
        |line: &String| line.trim_end().split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let headers: HashMap<String, String> = lines[1..].iter().filter_map(header).collect();
    let len = headers.get("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    let body = String::from_utf8(body).map_err(io::Error::other)?;
    Ok(Answer { status: status.ok_or_else(|| io::Error::other("no status"))?, headers, body })
}
