//! Places for connections, and who gives one up when all are taken.
//!
//! Knows no HTTP but whether a request is under way. The invariants: no more places are out than there are; whoever has a request
//! under way keeps its place. Of the others those go first that never made one, the longest there first: so idle sockets,
//! however many, keep no client out.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::limits::{SEAT_TIMEOUT, SEATS_LOOKED_AT_MAX};
use super::patience::Requests;

pub(super) struct Seats {
    room: Arc<Semaphore>,
    seats_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    /// In the order in which they came.
    clients: VecDeque<Client>,
    /// Those who were asked to leave, by number, and who gets their place: nobody else may take it meanwhile.
    heirs: HashMap<u64, oneshot::Sender<OwnedSemaphorePermit>>,
    seated: u64,
}

struct Client {
    number: u64,
    requests: Requests,
    wanted: CancellationToken,
}

/// What there is for somebody who has connected.
pub(super) enum Room {
    Free(Seat),
    /// Somebody was asked to give up its place.
    Soon(Promise),
    None,
}

pub(super) struct Promise(oneshot::Receiver<OwnedSemaphorePermit>);

/// A place, given back when dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    requests: Requests,
    wanted: CancellationToken,
    room: Option<OwnedSemaphorePermit>,
}

impl Seats {
    pub(super) fn new(seats_max: usize) -> Arc<Self> {
        Arc::new(Self { room: Arc::new(Semaphore::new(seats_max)), seats_max, taken: Mutex::default() })
    }

    pub(super) fn taken(&self) -> usize {
        self.seats_max - self.room.available_permits()
    }

    pub(super) fn ask(self: &Arc<Self>) -> Room {
        match self.room.clone().try_acquire_owned() {
            Ok(room) => Room::Free(self.seat(room)),
            Err(_) => self.lock().free_one().map_or(Room::None, Room::Soon),
        }
    }

    /// The place that was promised. `None`: whoever was to leave has begun a request at the same moment.
    pub(super) async fn wait(self: &Arc<Self>, Promise(promise): Promise) -> Option<Seat> {
        let room = tokio::time::timeout(SEAT_TIMEOUT, promise).await;
        Some(self.seat(room.ok()?.ok()?))
    }

    fn seat(self: &Arc<Self>, room: OwnedSemaphorePermit) -> Seat {
        let (requests, wanted) = (Requests::default(), CancellationToken::new());
        let mut taken = self.lock();
        taken.seated += 1;
        let number = taken.seated;
        taken.clients.push_back(Client { number, requests: requests.clone(), wanted: wanted.clone() });
        Seat { seats: self.clone(), number, requests, wanted, room: Some(room) }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn free_one(&mut self) -> Option<Promise> {
        let idle = |client: &Client| !client.requests.is_one_under_way();
        let looked_at = || self.clients.iter().take(SEATS_LOOKED_AT_MAX);
        let at = looked_at()
            .position(|client| idle(client) && client.requests.are_none())
            .or_else(|| looked_at().position(idle));
        let leaving = at.and_then(|at| self.clients.remove(at))?;
        let (heir, promise) = oneshot::channel();
        self.heirs.insert(leaving.number, heir);
        leaving.wanted.cancel();
        Some(Promise(promise))
    }
}

impl Seat {
    pub(super) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Ends once somebody else needs the place more.
    pub(super) async fn wanted(&self) {
        self.wanted.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        if let Ok(at) = taken.clients.binary_search_by_key(&self.number, |client| client.number) {
            taken.clients.remove(at);
        }
        if let (Some(heir), Some(room)) = (taken.heirs.remove(&self.number), self.room.take()) {
            // An heir that has gone is as good as none: the place is free.
            drop(heir.send(room));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(seats: &Arc<Seats>) -> Seat {
        match seats.ask() {
            Room::Free(seat) => seat,
            _ => panic!("there is room"),
        }
    }

    fn promised(seats: &Arc<Seats>) -> Promise {
        match seats.ask() {
            Room::Soon(promise) => promise,
            _ => panic!("somebody can leave, and has not yet"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_never_asked_for_anything_goes_first_and_whoever_is_answered_stays() {
        let seats = Seats::new(4);
        let (kept, working, first, second) = (free(&seats), free(&seats), free(&seats), free(&seats));
        for client in [&kept, &working] {
            client.requests().one_read();
        }
        kept.requests().one_answered();
        for leaving in [first, second, kept] {
            assert!(!leaving.wanted.is_cancelled());
            let promise = promised(&seats);
            assert!(leaving.wanted.is_cancelled());
            drop(leaving);
            assert_eq!(seats.taken(), 4, "nobody else takes the place that was promised");
            let newcomer = seats.wait(promise).await.expect("its place");
            newcomer.requests().one_read();
            std::mem::forget(newcomer);
        }
        assert!(matches!(seats.ask(), Room::None), "all are at work");
        assert_eq!((seats.taken(), working.wanted.is_cancelled()), (4, false));
        drop(working);
        drop(free(&seats));
        assert_eq!(seats.taken(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_not_given_up_is_not_waited_for_without_end() {
        let seats = Seats::new(1);
        let stays = free(&seats);
        let promise = promised(&seats);
        assert!(matches!(seats.ask(), Room::None), "it is promised to one");
        assert!(seats.wait(promise).await.is_none());
        drop(stays);
        assert_eq!(seats.taken(), 0);
    }
}
