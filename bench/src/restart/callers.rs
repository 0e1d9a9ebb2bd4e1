//! The callers of one node: they come at an even rate, whether or not earlier ones have been answered, and read keys by Zipf's law.
//!
//! Knows a keyspace and the source behind it, nothing of the other nodes. The invariant: a call's time begins when it was due, and
//! no call is lost: who rests waits for all that are under way.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use distcache::Keyspace;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::origin::Remote;
use crate::workload::{self, SMALL_VALUE_BYTES};
use crate::{arrivals, machine};

/// Every so many calls one is a write.
const CALLS_PER_WRITE: u64 = 100;

/// What became of one call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Called {
    /// When it was due, on the clock that all processes share.
    at_micros: u64,
    took_micros: u64,
    pub is_write: bool,
    pub error: Option<String>,
}

impl Called {
    pub fn new(due: Duration, took: Duration, is_write: bool, error: Option<String>) -> Self {
        Self { at_micros: due.as_micros() as u64, took_micros: took.as_micros() as u64, is_write, error }
    }

    pub fn at(&self) -> Duration {
        Duration::from_micros(self.at_micros)
    }

    /// With times from `began` on.
    pub fn since(&self, began: Duration) -> arrivals::Call {
        arrivals::Call {
            at: self.at().saturating_sub(began),
            took: Duration::from_micros(self.took_micros),
            is_error: self.error.is_some(),
        }
    }
}

/// What callers read and write.
#[derive(Clone)]
pub struct Desk {
    pub keyspace: Keyspace,
    pub source: Remote,
}

impl Desk {
    async fn get(&self, key: &str) -> Result<(), String> {
        match self.keyspace.get(key).await {
            Ok(value) if value.len() == SMALL_VALUE_BYTES => Ok(()),
            Ok(value) => Err(format!("a value of {} bytes", value.len())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Changes the source, then what is cached of it.
    async fn write(&self, key: &str, is_delete: bool) -> Result<(), String> {
        self.source.write().await.map_err(|error| error.to_string())?;
        let written = match is_delete {
            true => self.keyspace.delete(key).await,
            false => self.keyspace.put(key, workload::value(key)).await,
        };
        written.map_err(|error| error.to_string())
    }
}

/// Callers that come, until they are told to rest.
pub struct Callers {
    rate: Sender<u32>,
    pacemaker: JoinHandle<()>,
    called: Receiver<Called>,
}

impl Callers {
    /// `draws` are the keys that they call for, by number, over and over.
    pub fn come(per_second: u32, desk: Desk, draws: Vec<u32>, runtime: Handle) -> Self {
        let (rate, rates) = mpsc::channel();
        let (sender, called) = mpsc::channel();
        // Not a task: the runtime's timer counts in milliseconds, which is longer than most calls take.
        let pacemaker = std::thread::spawn(move || {
            let mut number = 0;
            keep_pace(per_second, &rates, |due| {
                let draw = draws[number as usize % draws.len()];
                runtime.spawn(call(desk.clone(), number, draw, due, sender.clone()));
                number += 1;
            });
        });
        Self { rate, pacemaker, called }
    }

    pub fn set_rate(&self, per_second: u32) {
        // Whoever keeps the pace ends after this handle only.
        let _ = self.rate.send(per_second);
    }

    /// Lets no more come, and waits for those that have not been answered.
    pub fn rest(self) -> Vec<Called> {
        drop(self.rate);
        let _ = self.pacemaker.join();
        self.called.iter().collect()
    }
}

/// Calls at an even rate, until the sender of rates is gone.
fn keep_pace(mut per_second: u32, rates: &Receiver<u32>, mut call: impl FnMut(Duration)) {
    let mut due = machine::uptime();
    loop {
        match rates.recv_timeout(due.saturating_sub(machine::uptime())) {
            Ok(changed) => per_second = changed,
            Err(RecvTimeoutError::Timeout) => {
                call(due);
                due += Duration::from_secs(1) / per_second;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

async fn call(desk: Desk, number: u64, draw: u32, due: Duration, called: Sender<Called>) {
    let key = workload::key(SMALL_VALUE_BYTES, draw as usize);
    let is_write = number % CALLS_PER_WRITE == CALLS_PER_WRITE - 1;
    let outcome = match is_write {
        // Every second write is a delete.
        true => desk.write(&key, number / CALLS_PER_WRITE % 2 == 1).await,
        false => desk.get(&key).await,
    };
    // Nobody listens where the process is about to end.
    let _ = called.send(Called::new(due, machine::uptime() - due, is_write, outcome.err()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_come_when_they_are_due_however_late_one_is_called() {
        let (rate, rates) = mpsc::channel();
        let began = machine::uptime();
        let paced = std::thread::spawn(move || {
            let mut dues = Vec::new();
            keep_pace(1_000, &rates, |due| {
                if dues.is_empty() {
                    std::thread::sleep(Duration::from_millis(50));
                }
                dues.push(due);
            });
            dues
        });
        std::thread::sleep(Duration::from_millis(200));
        drop(rate);
        let dues = paced.join().unwrap();
        let apart: Vec<Duration> = dues.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(apart.iter().all(|apart| *apart == Duration::from_millis(1)), "{apart:?}");
        let (calls, millis) = (dues.len() as u128, (machine::uptime() - began).as_millis());
        assert!(calls >= 100 && calls <= millis + 1, "{calls} in {millis} ms");
    }
}
