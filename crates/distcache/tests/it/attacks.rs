//! What strangers, broken peers and broken sources may do, and what they must not: hurt a cluster while it serves others.
//!
//! Each attack runs beside [`traffic`], callers on every node who check every answer and how long it took. One attack at a time,
//! so that none is blamed for another.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{LazyLock, Mutex, PoisonError};

mod frames;
mod garbage;
mod keys;
mod limits;
mod members;
mod sockets;
mod sources;
pub mod stranger;
mod traffic;

/// Held for the length of one attack.
pub struct Siege {
    _alone: std::sync::MutexGuard<'static, ()>,
    panics_before: u64,
}

/// Waits until no other attack is under way.
pub fn siege() -> Siege {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    LazyLock::force(&PANICS);
    let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    Siege { _alone: alone, panics_before: PANICS.load(SeqCst) }
}

impl Siege {
    /// A panic in a task of the engine's fails no test by itself.
    pub fn assert_no_panic(&self) {
        assert_eq!(PANICS.load(SeqCst), self.panics_before, "something in the library panicked; see the output above");
    }
}

/// Panics that did not happen in a test's own code.
static PANICS: LazyLock<AtomicU64> = LazyLock::new(|| {
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|at| at.file().contains("tests/it")) {
            PANICS.fetch_add(1, SeqCst);
        }
        shown(panic);
    }));
    AtomicU64::new(0)
});
