//! A node of a scenario: its engine, what its provider was seen to do, and what it heard of the others.
//!
//! Knows no world. The invariant: a history has every event of its node, in order, or says that some were lost.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use distcache::{Engine, Event, Events};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use crate::witness::Notes;

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) addr: SocketAddr,
    pub(crate) engine: Engine,
    pub(crate) notes: Arc<Mutex<Notes>>,
    pub(crate) history: History,
}

impl Node {
    /// Names of those that share the keys, as this node sees it.
    pub(crate) fn members(&self) -> Vec<String> {
        self.engine.ring().members.into_iter().map(|member| member.name).collect()
    }

    /// Whether the latest answer of its provider names `addr`.
    pub(crate) fn was_told_of(&self, addr: SocketAddr) -> bool {
        self.notes.lock().answer.as_ref().is_some_and(|answer| answer.contains(&addr))
    }

    /// What to print when something did not come about.
    pub(crate) fn report(&self) -> String {
        let (members, notes, history) = (self.members(), self.notes.lock(), &self.history.heard.lock().told);
        format!("  {} at {}: members {members:?}, heard {history:?}, its provider: {notes:?}\n", self.name, self.addr)
    }
}

/// Who came and went, in a node's eyes.
pub(crate) struct History {
    heard: Arc<Mutex<Heard>>,
    _writing: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Heard {
    told: Vec<String>,
    present: BTreeSet<String>,
}

impl History {
    pub(crate) fn of(mut events: Events) -> Self {
        let heard = Arc::<Mutex<Heard>>::default();
        let writer = Arc::clone(&heard);
        let writing = async move {
            while let Some(event) = events.next().await {
                writer.lock().take_down(event);
            }
        };
        Self { heard, _writing: AbortOnDropHandle::new(tokio::spawn(writing)) }
    }

    /// Those that came and have not gone.
    pub(crate) fn present(&self) -> BTreeSet<String> {
        self.heard.lock().present.clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.heard.lock().told.len()
    }

    /// Who came and went after the first `len`.
    pub(crate) fn since(&self, len: usize) -> Vec<String> {
        self.heard.lock().told[len..].to_vec()
    }
}

impl Heard {
    fn take_down(&mut self, event: Event) {
        match event {
            Event::Joined(peer) => {
                self.told.push(format!("{} joined", peer.name));
                self.present.insert(peer.name);
            }
            Event::Left(peer) => {
                self.told.push(format!("{} left", peer.name));
                self.present.remove(&peer.name);
            }
            Event::Lagged { missed } => self.told.push(format!("{missed} events were lost")),
            _ => {}
        }
    }
}
