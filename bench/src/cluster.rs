//! One system as processes of their own: servers, and a client that reads from them.

use std::time::Duration;

use crate::child::Child;
use crate::drive::{Done, How, Work};
use crate::error::BenchError;
use crate::machine;
use crate::systems::{Serving, System};

/// The processes of one system; they end when this is dropped, the client first.
pub struct Cluster {
    pub system: System,
    client: Child,
    servers: Vec<(Child, Serving)>,
}

/// What one round showed.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub per_second: f64,
    pub p50_micros: f64,
    pub p99_micros: f64,
    /// User and system time of all processes.
    pub cpu_micros: f64,
    pub cpu_client_micros: f64,
}

impl Cluster {
    /// Starts the servers and the client, and waits until the client has warmed its keys.
    pub fn start(system: System, servers: usize) -> Result<Self, BenchError> {
        let name = format!("bench-{}-{}", std::process::id(), servers);
        let mut running: Vec<(Child, Serving)> = Vec::new();
        for n in 0..servers {
            let mut args = vec!["serve".to_owned(), system.arg().to_owned(), name.clone(), format!("server-{n}")];
            args.extend(running.first().map(|(_, first)| first.addr.to_string()));
            let mut child = Child::spawn(&args)?;
            let serving = child.hear()?;
            running.push((child, serving));
        }
        let mut args = vec!["drive".to_owned(), system.arg().to_owned(), name];
        args.extend(running.iter().map(|(_, serving)| serving.addr.to_string()));
        let mut client = Child::spawn(&args)?;
        let _ready: String = client.hear()?;
        Ok(Self { system, client, servers: running })
    }

    pub fn measure(&mut self, work: Work) -> Result<Sample, BenchError> {
        let before = self.cpu_times()?;
        let done: Done = self.client.ask(&work)?;
        let after = self.cpu_times()?;
        self.check_remote(work, done);
        let micros = |duration: Duration| duration.as_nanos() as f64 / 1_000.0;
        let per_request = |spent: Duration| micros(spent) / done.count as f64;
        let (client, servers) = (after.0 - before.0, after.1 - before.1);
        Ok(Sample {
            per_second: done.count as f64 / done.elapsed.as_secs_f64(),
            p50_micros: micros(done.p50),
            p99_micros: micros(done.p99),
            cpu_micros: per_request(client + servers),
            cpu_client_micros: per_request(client),
        })
    }

    fn cpu_times(&self) -> Result<(Duration, Duration), BenchError> {
        let mut servers = Duration::ZERO;
        for (_, serving) in &self.servers {
            servers += machine::cpu_time(serving.pid)?;
        }
        Ok((machine::cpu_time(self.client.pid())?, servers))
    }

    /// A remote read that was answered at home measured something else.
    fn check_remote(&self, work: Work, done: Done) {
        let at_home = done.answered_here.unwrap_or(0);
        if work.how == How::Remote && at_home * 100 > done.count {
            eprintln!("{}: {at_home} of {} reads did not cross the network", self.system.name(), done.count);
        }
    }
}
