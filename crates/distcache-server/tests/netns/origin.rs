//! The data source: an HTTP server that holds a version for every key.
//!
//! Knows nothing of caches. The invariant: a version only grows, and what is answered is what it was when the request came.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Long enough for a write to overtake a load.
const LATENCY: Duration = Duration::from_millis(3);

pub struct Origin {
    pub addr: SocketAddr,
    versions: Arc<[AtomicU64]>,
}

impl Origin {
    /// Every key begins with version 1. The server ends with the process.
    pub fn start(ip: IpAddr, keys: u32) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let origin = Self { addr: listener.local_addr().unwrap(), versions: (0..keys).map(|_| 1.into()).collect() };
        let versions = origin.versions.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let versions = versions.clone();
                // Ends with its connection, in the middle of a request where the node was killed.
                std::thread::spawn(move || answer(stream, &versions));
            }
        });
        origin
    }

    /// Changes what stands under a key; returns its version from now on.
    pub fn change(&self, key: u32) -> u64 {
        self.versions[key as usize].fetch_add(1, Ordering::SeqCst) + 1
    }
}

fn answer(stream: TcpStream, versions: &[AtomicU64]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let (mut request, mut header) = (String::new(), String::new());
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        while reader.read_line(&mut header)? > 0 && header != "\r\n" {
            header.clear();
        }
        let key = request.split(' ').nth(1).and_then(|path| path.strip_prefix("/v/")?.parse::<usize>().ok());
        let version = key.and_then(|key| versions.get(key)).map(|version| version.load(Ordering::SeqCst));
        std::thread::sleep(LATENCY);
        let (status, body) = match version {
            Some(version) => ("200 OK", version.to_string()),
            None => ("404 Not Found", String::new()),
        };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        reader.get_mut().write_all(answer.as_bytes())?;
    }
}
