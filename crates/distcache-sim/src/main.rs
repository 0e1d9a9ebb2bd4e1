//! Simulates whole clusters of distcache and checks what a write promises.
//!
//! In reading order: `plan` (what will befall the cluster, by a seed), `truth` (the source), `callers` (a node and those who call
//! it), `cluster` (nodes, network and plan put together), `report` (one seed, in a process of its own), `replay` (its history,
//! for people), `campaign` (many seeds), `hunt` (the protocol without one of its rules). Whether what happened was allowed says the
//! crate `distcache-checker`.

mod callers;
mod campaign;
mod cluster;
mod hunt;
mod plan;
mod replay;
mod report;
mod truth;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use distcache::sim_support::Rule;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::cluster::Setting;
use crate::plan::Only;
use crate::report::Report;

#[derive(Parser)]
#[command(about = "Simulates whole clusters of distcache and checks what a write promises.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs seeds, and reports whether the promise was kept. Status 0 only if it was, and every run meant something.
    Run {
        /// How many seeds.
        #[arg(long, default_value_t = 10)]
        seeds: u64,
        /// The first of them; the others follow.
        #[arg(long, default_value_t = 1)]
        first_seed: u64,
        #[command(flatten)]
        size: Size,
    },
    /// Runs one seed and prints what happened.
    Replay {
        #[arg(long)]
        seed: u64,
        /// Every get and write of this key; else of keys in violations.
        #[arg(long)]
        key: Option<usize>,
        /// From this second on.
        #[arg(long, default_value_t = 0.0)]
        from: f64,
        /// Up to this second.
        #[arg(long, default_value_t = f64::MAX)]
        to: f64,
        /// Without this rule, as `hunt` names it.
        #[arg(long)]
        without: Option<String>,
        #[command(flatten)]
        size: Size,
    },
    /// Runs one seed and prints what there is to say of it, for `run` and `hunt`.
    #[command(hide = true)]
    Judge {
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        without: Option<String>,
        #[command(flatten)]
        size: Size,
    },
    /// Leaves out one rule of the protocol at a time, and shows the seed that finds out.
    Hunt {
        /// The most seeds to try for each rule.
        #[arg(long, default_value_t = 200)]
        seeds: u64,
        #[arg(long, default_value_t = 1)]
        first_seed: u64,
        /// This rule only.
        #[arg(long)]
        rule: Option<String>,
        /// Only look whether the seeds that the docs name show it still.
        #[arg(long, conflicts_with_all = ["seeds", "first_seed", "rule"])]
        known: bool,
        #[command(flatten)]
        size: Size,
    },
}

#[derive(Args, Clone, Copy)]
struct Size {
    /// Simulated minutes of each run. In one of eight or more there is a cut of more than a minute, too.
    #[arg(long, default_value_t = 5.0, value_parser = minutes)]
    minutes: f64,
    /// Nodes of the cluster, 2 to 16.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=16))]
    nodes: u64,
    /// No other trouble than of this kind.
    #[arg(long, value_enum)]
    only: Option<Only>,
}

impl Size {
    fn setting(self, seed: u64) -> Setting {
        let length = Duration::from_secs_f64(self.minutes * 60.0);
        Setting { seed, nodes: self.nodes as usize, length, without: None, only: self.only }
    }
}

fn main() -> ExitCode {
    let filter = std::env::var("DISTCACHE_LOG").ok().and_then(|level| level.parse().ok());
    let level = filter.unwrap_or(tracing_subscriber::filter::LevelFilter::OFF);
    let log = tracing_subscriber::fmt().with_timer(SimulatedTime).with_writer(std::io::stderr).with_ansi(false);
    log.with_max_level(level).init();
    match Cli::parse().command {
        Command::Run { seeds, first_seed, size } => campaign::run(first_seed, seeds, size),
        Command::Replay { seed, key, from, to, without, size } => {
            let Ok(without) = rule_of(without) else { return no_such_rule() };
            replay::replay(Setting { without, ..size.setting(seed) }, key, from..to)
        }
        Command::Judge { seed, without, size } => {
            let Ok(without) = rule_of(without) else { return no_such_rule() };
            let setting = Setting { without, ..size.setting(seed) };
            print!("{}", Report::of(&distcache_checker::judge(&cluster::run(setting), setting.length)).to_lines());
            ExitCode::SUCCESS
        }
        Command::Hunt { known: true, size, .. } => hunt::known(size),
        Command::Hunt { seeds, first_seed, rule, size, .. } => match rule_of(rule) {
            Ok(rule) => hunt::hunt(first_seed, seeds, rule, size),
            Err(()) => no_such_rule(),
        },
    }
}

/// In less than half a minute nothing befalls a cluster, and nobody waits for more than a day.
fn minutes(given: &str) -> Result<f64, String> {
    let minutes = given.parse().ok().filter(|minutes| (0.5..=1440.0).contains(minutes));
    minutes.ok_or_else(|| "a run takes 0.5 to 1440 minutes".into())
}

/// Seconds from the beginning of the run, as `replay` prints them.
struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:9.3}", turmoil::sim_elapsed().unwrap_or_default().as_secs_f64())
    }
}

/// No name is no rule; `Err`: nothing is called so.
fn rule_of(name: Option<String>) -> Result<Option<Rule>, ()> {
    name.map(|name| hunt::rule_named(&name).ok_or(())).transpose()
}

fn no_such_rule() -> ExitCode {
    eprintln!("there is no such rule; there are: {}", hunt::names());
    ExitCode::from(2)
}
