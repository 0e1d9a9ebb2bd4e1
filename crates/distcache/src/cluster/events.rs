//! What changes in the cluster, told to whoever asks: the latest view, and events without a gap.
//!
//! Knows no protocol. The invariant: view and events change under one lock, so a subscription that begins with the view of
//! that moment misses nothing and hears nothing twice; a slow subscriber is told how much it missed.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use super::member::Peer;

/// Events that a subscriber may be behind before it loses some.
const EVENTS_BUFFERED_MAX: usize = 1024;

/// The members at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Sorted by name, this node among them.
    pub(crate) peers: Vec<Peer>,
}

/// A change among the other nodes of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A node has become a member.
    Joined(Peer),
    /// A node has left, or is taken for dead. The peer is as it was last seen.
    Left(Peer),
    /// A member says something new of itself.
    Updated(Peer),
    /// The subscriber was too slow: this many events are lost to it. Ask the engine for its peers.
    Lagged {
        /// How many events were lost.
        missed: u64,
    },
}

/// A subscription to the changes in the cluster.
///
/// It begins with [`Event::Joined`] for each other node that was known when it was made. This node itself is not an event.
#[derive(Debug)]
pub struct Events {
    present: VecDeque<Peer>,
    changes: Option<broadcast::Receiver<Event>>,
}

impl Events {
    /// The next change; `None` after the engine was shut down.
    ///
    /// Safe to drop while it waits: no event is lost.
    pub async fn next(&mut self) -> Option<Event> {
        if let Some(peer) = self.present.pop_front() {
            return Some(Event::Joined(peer));
        }
        match self.changes.as_mut()?.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(missed)) => Some(Event::Lagged { missed }),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Where the driver writes and everybody reads.
#[derive(Debug)]
pub(crate) struct Board {
    views: watch::Sender<Arc<View>>,
    /// `None` once the cluster is shut down. Also the lock under which view and events change together.
    events: Mutex<Option<broadcast::Sender<Event>>>,
}

impl Board {
    pub(crate) fn new(view: View) -> Self {
        Self {
            views: watch::Sender::new(Arc::new(view)),
            events: Mutex::new(Some(broadcast::Sender::new(EVENTS_BUFFERED_MAX))),
        }
    }

    pub(crate) fn publish(&self, view: View, events: Vec<Event>) {
        let sender = self.events.lock();
        self.views.send_replace(Arc::new(view));
        let Some(sender) = sender.as_ref() else { return };
        for event in events {
            // Nobody listens: nothing is lost, a subscription begins with the view.
            let _ = sender.send(event);
        }
    }

    pub(crate) fn views(&self) -> watch::Receiver<Arc<View>> {
        self.views.subscribe()
    }

    pub(crate) fn events(&self) -> Events {
        let sender = self.events.lock();
        let others = self.views.borrow().peers.iter().filter(|peer| !peer.is_self).cloned().collect();
        let changes = sender.as_ref().map(broadcast::Sender::subscribe);
        Events { present: if changes.is_some() { others } else { VecDeque::new() }, changes }
    }

    /// No further events; every subscription ends after those that it has not read yet.
    pub(crate) fn close(&self) {
        self.events.lock().take();
    }
}

#[cfg(test)]
mod tests {
    use super::super::member::{Identity, Metadata};
    use super::*;

    fn peer(port: u16) -> Peer {
        let addr = ([127, 0, 0, 1], port).into();
        Metadata::joining(Identity { addr, epoch: 1, meta_version: 0 }, port.to_string(), 1, addr).peer(false)
    }

    fn view(ports: &[u16]) -> View {
        View { peers: ports.iter().map(|port| peer(*port)).collect() }
    }

    #[tokio::test]
    async fn a_subscription_begins_with_the_present_and_goes_on_without_a_gap() {
        let board = Board::new(view(&[1]));
        let mut events = board.events();
        board.publish(view(&[1, 2]), vec![Event::Joined(peer(2))]);
        let mut late = board.events();
        board.publish(view(&[2]), vec![Event::Left(peer(1))]);
        board.close();
        for heard in [&mut events, &mut late] {
            assert_eq!(heard.next().await, Some(Event::Joined(peer(1))));
            assert_eq!(heard.next().await, Some(Event::Joined(peer(2))));
            assert_eq!(heard.next().await, Some(Event::Left(peer(1))));
            assert_eq!(heard.next().await, None);
        }
        assert_eq!(board.events().next().await, None, "a subscription after the end has nothing to say");
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_told_how_much_it_missed() {
        let board = Board::new(View::default());
        let mut events = board.events();
        for _ in 0..EVENTS_BUFFERED_MAX + 3 {
            board.publish(view(&[1]), vec![Event::Updated(peer(1))]);
        }
        assert_eq!(events.next().await, Some(Event::Lagged { missed: 3 }));
        assert_eq!(events.next().await, Some(Event::Updated(peer(1))));
    }
}
