//! Where connections wait that have not said who they are yet.
//!
//! Knows no protocol. The invariant: there are never more than its places; when all are taken the one that has waited longest
//! is shown out, so that idle sockets, however many, keep no node from coming in.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

pub(crate) struct Lobby {
    waiting: Mutex<Waiting>,
    places: usize,
}

#[derive(Default)]
struct Waiting {
    /// The one that has waited longest first.
    visitors: VecDeque<(u64, CancellationToken)>,
    entered: u64,
}

/// A place, given back when dropped.
pub(crate) struct Visitor {
    lobby: Arc<Lobby>,
    number: u64,
    shown_out: CancellationToken,
}

impl Lobby {
    pub(crate) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), places: places.max(1) })
    }

    /// Takes a place, at the cost of whoever has waited longest if there is none.
    pub(crate) fn enter(self: &Arc<Self>) -> Visitor {
        let shown_out = CancellationToken::new();
        let mut waiting = self.waiting.lock();
        if waiting.visitors.len() >= self.places
            && let Some((_, longest)) = waiting.visitors.pop_front()
        {
            longest.cancel();
        }
        waiting.entered += 1;
        let number = waiting.entered;
        waiting.visitors.push_back((number, shown_out.clone()));
        Visitor { lobby: self.clone(), number, shown_out }
    }
}

impl Visitor {
    /// What `greeting` comes to; `None` if the place was needed by others.
    pub(crate) async fn unless_shown_out<T>(&self, greeting: impl Future<Output = T>) -> Option<T> {
        self.shown_out.run_until_cancelled(greeting).await
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        let visitors = &mut self.lobby.waiting.lock().visitors;
        if let Ok(at) = visitors.binary_search_by_key(&self.number, |(number, _)| *number) {
            visitors.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_full_lobby_shows_out_whoever_has_waited_longest() {
        let lobby = Lobby::new(2);
        let (first, second) = (lobby.enter(), lobby.enter());
        let third = lobby.enter();
        assert_eq!(first.unless_shown_out(pending::<()>()).await, None);
        for visitor in [&second, &third] {
            assert_eq!(visitor.unless_shown_out(ready(())).await, Some(()));
        }
        drop((first, second));
        assert_eq!(lobby.waiting.lock().visitors.len(), 1, "places are given back");
        let _fourth = lobby.enter();
        assert_eq!(third.unless_shown_out(ready(())).await, Some(()), "there was room");
    }
}
