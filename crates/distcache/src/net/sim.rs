//! The sockets, the wall clock and the randomness of a simulated node.
//!
//! Stands in for the machine's where the whole cluster runs in one process under `turmoil`. The invariant: what a node draws and
//! reads depends on the seed and on simulated time alone, so that a run can be repeated.

use std::cell::{Cell, RefCell};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
#[cfg(not(test))]
pub(crate) use turmoil::net::{TcpListener, TcpStream, UdpSocket};

thread_local! {
    static RNG: RefCell<Option<SmallRng>> = const { RefCell::new(None) };
    static WALL_CLOCK_BEGINS: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Seeds all randomness of the nodes that this thread simulates.
pub fn seed(seed: u64) {
    RNG.set(Some(SmallRng::seed_from_u64(seed)));
}

/// What the wall clock shows when the simulation begins, in milliseconds since 1970.
pub fn wall_clock_begins(millis: u64) {
    WALL_CLOCK_BEGINS.set(Some(millis));
}

pub(super) fn rng() -> Option<SmallRng> {
    RNG.with_borrow_mut(|rng| rng.as_mut().map(|rng| SmallRng::seed_from_u64(rng.random())))
}

pub(super) fn chance() -> Option<f32> {
    RNG.with_borrow_mut(|rng| rng.as_mut().map(RngExt::random))
}

pub(super) fn wall_clock_ms() -> Option<u64> {
    let begins = WALL_CLOCK_BEGINS.get()?;
    let elapsed = turmoil::sim_elapsed()?;
    Some(begins + elapsed.as_millis() as u64)
}
