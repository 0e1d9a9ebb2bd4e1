//! distcache side by side with other caches. Every comparison runs all its contestants in turns, in one run.
//!
//! In reading order: [`hit`], [`remote`], [`tls`], [`many`], [`ring`], [`memory`], [`ratio`], [`stampede`], [`outage`]
//! and [`restart`] are the comparisons; [`cluster`] and [`child`] run contestants as processes of their own, which [`drive`] and [`systems`] are the inside
//! of; [`bare`], [`workload`], [`trace`], [`arrivals`], [`stats`], [`machine`], [`picture`] and [`report`] are what several of them
//! share.

mod arrivals;
mod bare;
mod child;
mod cluster;
mod drive;
mod error;
mod hit;
mod machine;
mod many;
mod memory;
mod outage;
mod picture;
mod ratio;
mod remote;
mod report;
mod restart;
mod ring;
mod stampede;
mod stats;
mod systems;
mod tls;
mod trace;
mod workload;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::error::BenchError;
use crate::report::{Style, Target};
use crate::systems::System;

/// Measures distcache beside other caches, all of them in one run.
#[derive(Parser)]
#[command(name = "distcache-bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    settings: Settings,
}

/// What holds for every comparison.
#[derive(Args, Clone, Copy)]
pub struct Settings {
    /// Only see that everything runs: short rounds whose numbers mean nothing
    #[arg(long, global = true)]
    pub quick: bool,
    /// Draw tables for a README
    #[arg(long, global = true)]
    markdown: bool,
}

impl Settings {
    pub fn style(self) -> Style {
        if self.markdown { Style::Markdown } else { Style::Plain }
    }

    /// One of two numbers: that of a real run, or that of a quick one.
    pub fn pick<T>(self, real: T, quick: T) -> T {
        if self.quick { quick } else { real }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Everything below, in this order
    All,
    /// A hit in this process, beside the bare map, moka and groupcache
    Hit,
    /// A get of another node's key, beside groupcache and a Redis server
    Remote,
    /// The same under mutual TLS, beside plaintext
    Tls,
    /// 100 keys at once over three nodes, beside 100 single gets
    Many,
    /// Balance, movement and time of the slot table, beside classic rings
    Ring,
    /// Memory of a million entries, beside the limit and other stores
    Memory,
    /// Hit ratios of every eviction policy, beside the best that is possible and other caches
    HitRatio {
        /// A file of requests, 12 bytes each, as it is or `.zst`; may be repeated. Without any, streams are made by Zipf's law
        #[arg(long = "trace")]
        traces: Vec<PathBuf>,
    },
    /// One hot key that expires before a slow source which dies for a while, with and without stale answers
    Stampede,
    /// Calls that reach a source which fails, slows and recovers, with and without a guard
    Outage {
        /// Draw the calls over time into this SVG file
        #[arg(long)]
        picture: Option<PathBuf>,
    },
    /// Five nodes restarted one after the other under load, by shutdown and by kill
    Restart {
        /// Draw the loads over time into this SVG file
        #[arg(long)]
        picture: Option<PathBuf>,
    },
    /// A server in a process of its own
    #[command(hide = true)]
    Serve { system: System, cluster: String, name: String, seeds: Vec<SocketAddr> },
    /// A client in a process of its own
    #[command(hide = true)]
    Drive { system: System, cluster: String, servers: Vec<SocketAddr> },
    /// A store that fills itself, in a process of its own
    #[command(hide = true)]
    Fill(memory::Fill),
    /// An owner's books that fill themselves, in a process of their own
    #[command(hide = true)]
    Keep(memory::Keep),
    /// A node that is restarted, in a process of its own
    #[command(hide = true)]
    RestartNode(restart::node::NodeArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command, cli.settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("distcache-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

type Comparison<'a> = &'a dyn Fn(Settings) -> Result<Vec<Target>, BenchError>;

fn run(command: Command, settings: Settings) -> Result<(), BenchError> {
    let traces = if let Command::HitRatio { traces } = &command { traces.clone() } else { Vec::new() };
    let ratio = |settings| ratio::run(settings, &traces);
    let picture = match &command {
        Command::Outage { picture } | Command::Restart { picture } => picture.clone(),
        _ => None,
    };
    let outage = |settings| outage::run(settings, picture.clone());
    let restart = |settings| restart::run(settings, picture.clone());
    let comparisons: Vec<Comparison> = match command {
        Command::All => vec![
            &hit::run,
            &remote::run,
            &tls::run,
            &many::run,
            &ring::run,
            &memory::run,
            &ratio,
            &stampede::run,
            &outage,
            &restart,
        ],
        Command::Hit => vec![&hit::run],
        Command::Remote => vec![&remote::run],
        Command::Tls => vec![&tls::run],
        Command::Many => vec![&many::run],
        Command::Ring => vec![&ring::run],
        Command::Memory => vec![&memory::run],
        Command::HitRatio { .. } => vec![&ratio],
        Command::Stampede => vec![&stampede::run],
        Command::Outage { .. } => vec![&outage],
        Command::Restart { .. } => vec![&restart],
        Command::Serve { system, cluster, name, seeds } => return systems::serve(system, &cluster, &name, &seeds),
        Command::Drive { system, cluster, servers } => return drive::run(system, &cluster, &servers),
        Command::Fill(fill) => return memory::fill(&fill),
        Command::Keep(keep) => return memory::keep(&keep),
        Command::RestartNode(node) => return restart::node::run(&node),
    };
    println!("{}", machine::describe());
    if settings.quick {
        println!("A quick run: it shows that everything works, its numbers mean nothing.");
    }
    for comparison in comparisons {
        let targets = comparison(settings)?;
        report::print_targets(&targets, settings.style());
    }
    Ok(())
}
