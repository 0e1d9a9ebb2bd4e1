//! Those whom discovery may name and who are no nodes of the cluster.
//!
//! Know nothing of nodes. The invariant: they end with the value.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::task::AbortOnDropHandle;

/// Long enough to be taken for a message, and none.
const BABBLE: &[u8] = &[0xAB; 256];

/// Somebody who speaks something else: answers every datagram and every connection with noise.
pub(crate) struct Babbler {
    _babbling: [AbortOnDropHandle<()>; 2],
}

impl Babbler {
    pub(crate) async fn at(addr: SocketAddr) -> Self {
        let socket = UdpSocket::bind(addr).await.unwrap_or_else(|error| panic!("{addr} is not free: {error}"));
        let listener = TcpListener::bind(addr).await.unwrap_or_else(|error| panic!("{addr} is not free: {error}"));
        let babbling = [tokio::spawn(to_datagrams(socket)), tokio::spawn(to_connections(listener))];
        Self { _babbling: babbling.map(AbortOnDropHandle::new) }
    }
}

async fn to_datagrams(socket: UdpSocket) {
    let mut ignored = [0; 64];
    loop {
        if let Ok((_, from)) = socket.recv_from(&mut ignored).await {
            let _ = socket.send_to(BABBLE, from).await;
        }
    }
}

async fn to_connections(listener: TcpListener) {
    loop {
        if let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(BABBLE).await;
        }
    }
}
