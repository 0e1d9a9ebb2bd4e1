//! Whether a cluster kept the promise of its writes: a history in, a verdict out.
//!
//! The simulation and the test of real processes record one kind of [`History`] and are judged by one [`judge`]. Knows no clusters,
//! no network and no clock.

mod checker;
mod history;

pub use checker::{NO_VIEW, Verdict, Violation, judge};
pub use history::{Get, History, LAG, LOAD_MAX, Space, Standing, Write, bits};
