//! A port that answers HTTP, with or without TLS, and bounds what its clients may take.
//!
//! In reading order: [`limits`] (the bounds) → this file with [`seats`] (accept, or refuse) → [`tls`] with [`certificates`] → [`connection`]
//! (one client) with [`patience`] and [`body`] (its time) → [`farewell`]; [`counters`] and [`seldom`] say what happened. Knows
//! no route: a [`Router`] answers. The invariant: nothing that one client does keeps the next from being accepted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod body;
mod certificates;
mod connection;
mod counters;
mod farewell;
mod limits;
mod patience;
mod seats;
mod seldom;
mod tls;

pub use body::BodyTooSlow;
use certificates::Certificates;
pub use certificates::{CertificateError, CertificateFiles};
pub use counters::{Counters, Exceeded};
use limits::{ACCEPT_PAUSE, REFUSALS_MAX};
pub use limits::{HEADERS_MAX, ListenerLimits};
use seats::{Room, Seat, Seats};
use seldom::Seldom;

/// What one listener is to do, as the configuration says.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerConfig {
    pub listen: SocketAddr,
    pub limits: ListenerLimits,
    pub tls: Option<CertificateFiles>,
}

/// Why a port does not answer.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {addr} for {name}: {error}{}", hint(.error))]
    Socket {
        name: &'static str,
        addr: SocketAddr,
        #[source]
        error: io::Error,
    },
    #[error("cannot speak TLS for {name}: {error}")]
    Certificates {
        name: &'static str,
        #[source]
        error: CertificateError,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another process has it; choose another port in the configuration)",
        _ => "",
    }
}

/// A bound port, not yet answering.
pub struct Listener {
    socket: TcpListener,
    state: Arc<ListenerState>,
}

/// What there is to see of a listener, for as long as somebody looks.
pub struct ListenerState {
    pub name: &'static str,
    /// With the port that was really taken.
    pub addr: SocketAddr,
    pub limits: Arc<ListenerLimits>,
    pub counters: Counters,
    seats: Arc<Seats>,
    refusals: Arc<Semaphore>,
    certificates: Option<Certificates>,
    seldom: Lines,
}

/// What is logged at most once a second.
#[derive(Default)]
struct Lines {
    refused: Seldom,
    displaced: Seldom,
    failed: Seldom,
    plaintext: Seldom,
    handshakes: Seldom,
}

impl ListenerState {
    pub fn speaks_tls(&self) -> bool {
        self.certificates.is_some()
    }

    pub fn connections_open(&self) -> usize {
        self.seats.taken()
    }

    /// `http://127.0.0.1:8080`.
    pub fn url(&self) -> String {
        let scheme = if self.speaks_tls() { "https" } else { "http" };
        format!("{scheme}://{}", self.addr)
    }
}

impl Listener {
    pub async fn bind(name: &'static str, config: &ListenerConfig) -> Result<Self, ListenError> {
        let of_certificates = |error| ListenError::Certificates { name, error };
        let certificates = config.tls.as_ref().map(Certificates::load).transpose().map_err(of_certificates)?;
        let of_socket = |error| ListenError::Socket { name, addr: config.listen, error };
        let socket = TcpListener::bind(config.listen).await.map_err(of_socket)?;
        let addr = socket.local_addr().map_err(of_socket)?;
        let state = ListenerState {
            name,
            addr,
            limits: Arc::new(config.limits.clone()),
            counters: Counters::default(),
            seats: Seats::new(config.limits.connections_max),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            certificates,
            seldom: Lines::default(),
        };
        Ok(Self { socket, state: Arc::new(state) })
    }

    pub fn state(&self) -> Arc<ListenerState> {
        self.state.clone()
    }

    /// Answers until told to stop; then the requests under way are finished, and their tasks end.
    pub fn serve(self, router: Router, stop: &CancellationToken, tasks: &TaskTracker) {
        let (state, stop) = (self.state, stop.clone());
        if state.speaks_tls() {
            let (state, stop) = (state.clone(), stop.clone());
            tasks.spawn(async move { state.keep_certificates_fresh(&stop).await });
        }
        let accepting = Accepting { state, router: TowerToHyperService::new(router), stop, tasks: tasks.clone() };
        tasks.spawn(accepting.run(self.socket));
    }
}

struct Accepting {
    state: Arc<ListenerState>,
    router: TowerToHyperService<Router>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Accepting {
    async fn run(self, socket: TcpListener) {
        while let Some(accepted) = self.stop.run_until_cancelled(socket.accept()).await {
            match accepted {
                Ok((stream, peer)) => self.welcome(stream, peer),
                Err(error) => self.state.pause(error).await,
            }
        }
    }

    fn welcome(&self, stream: TcpStream, peer: SocketAddr) {
        self.state.counters.connections_accepted.add_one();
        match self.state.seats.ask() {
            Room::None => self.refuse(stream, peer),
            room => self.begin(stream, peer, room),
        }
    }

    fn begin(&self, stream: TcpStream, peer: SocketAddr, room: Room) {
        // An answer is one small write; waiting to fill a packet would add 40 ms to it.
        let _ = stream.set_nodelay(true);
        let (state, router, stop) = (self.state.clone(), self.router.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let seat = match room {
                Room::Free(seat) => Some(seat),
                Room::Soon(promise) => {
                    state.note_displaced();
                    state.seats.wait(promise).await
                }
                Room::None => None,
            };
            match seat {
                Some(seat) => state.attend(stream, router, &stop, &seat).await,
                None => state.turn_away(stream, peer).await,
            }
        });
    }

    fn refuse(&self, stream: TcpStream, peer: SocketAddr) {
        let state = self.state.clone();
        match state.refusals.clone().try_acquire_owned() {
            Ok(refusal) => drop(self.tasks.spawn(async move {
                state.turn_away(stream, peer).await;
                drop(refusal);
            })),
            Err(_) => state.note_refusal(peer),
        }
    }
}

impl ListenerState {
    async fn attend(
        self: &Arc<Self>,
        stream: TcpStream,
        router: TowerToHyperService<Router>,
        stop: &CancellationToken,
        seat: &Seat,
    ) {
        let Some(certificates) = &self.certificates else {
            return connection::serve(stream, self, router, stop, seat).await;
        };
        tokio::select! {
            begun = tls::handshake(stream, certificates, self) => {
                if let Some(stream) = begun {
                    connection::serve(*stream, self, router, stop, seat).await;
                }
            }
            () = seat.wanted() => {}
        }
    }

    /// Says so, where that costs next to nothing: without TLS.
    async fn turn_away(&self, mut stream: TcpStream, peer: SocketAddr) {
        self.note_refusal(peer);
        if !self.speaks_tls() {
            farewell::NO_ROOM.say(&mut stream).await;
        }
    }

    fn note_refusal(&self, peer: SocketAddr) {
        self.counters.connections_refused.add_one();
        if let Some(times) = self.seldom.refused.event(Instant::now()) {
            let max = self.limits.connections_max;
            tracing::warn!(listener = self.name, %peer, times, max, "a connection too many: refused");
        }
    }

    fn note_displaced(&self) {
        self.counters.connections_displaced.add_one();
        if let Some(times) = self.seldom.displaced.event(Instant::now()) {
            let max = self.limits.connections_max;
            tracing::warn!(listener = self.name, times, max, "a connection too many: one without a request made room");
        }
    }

    /// A client that left before it was accepted is no matter; anything else is likely to happen again at once.
    async fn pause(&self, error: io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
            return;
        }
        self.counters.accepts_failed.add_one();
        if let Some(times) = self.seldom.failed.event(Instant::now()) {
            tracing::error!(listener = self.name, %error, times, "a connection could not be accepted");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    async fn keep_certificates_fresh(&self, stop: &CancellationToken) {
        if let Some(certificates) = &self.certificates {
            certificates.keep_fresh(self.name, &self.counters, stop).await;
        }
    }
}
