//! All of the `distcache` binary, and no API: a node from a configuration file, commands that talk to nodes, and a demonstration.
//!
//! In reading order: `config` (the file) → `serve` (the life of a node) → `discovery` and `security` (who the others are, and
//! whom they trust) → `sources` → `listener` (ports and their limits) → `http` (data) → `admin`, `health` and `metrics` → `telemetry` (what
//! is said without being asked); then `call` (the
//! client side of HTTP) → `client` (commands); then `secret`, `certs` and `demo`. This file only picks the command and turns its
//! end into an exit code. A library so that fuzz targets reach what a stranger may send.

use std::error::Error;
use std::future::Future;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod admin;
mod call;
#[cfg(feature = "certs")]
mod certs;
mod check;
mod client;
mod config;
#[cfg(feature = "demo")]
mod demo;
mod discovery;
mod health;
mod http;
mod listener;
mod metrics;
mod open_files;
mod secret;
mod security;
mod serve;
mod signals;
mod sources;
mod table;
mod telemetry;

/// What fuzz targets reach. No part of the API.
#[cfg(feature = "fuzz-internals")]
#[doc(hidden)]
pub mod fuzz_support {
    pub use crate::config::{Config, Reason};
    pub use crate::http::router;
}

/// A distributed read-through cache.
#[derive(Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Three nodes over a real data set, under load, one of them killed: see what the cache does
    #[cfg(feature = "demo")]
    Demo(demo::Args),
    /// Run a node
    Serve(serve::Args),
    /// Check a configuration file and say in words what it means
    Check(check::Args),
    /// Make a CA and certificates of nodes and clients, for development
    #[cfg(feature = "certs")]
    Certs(certs::Args),
    /// Make a random secret for a cluster and write it to standard output
    Secret,
    #[command(flatten)]
    Client(client::Command),
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // A node says more of itself, and only its file says what.
    if !matches!(cli.command, Command::Serve(_)) {
        telemetry::log();
    }
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            let red = anstyle::AnsiColor::Red.on_default().bold();
            anstream::eprintln!("{red}distcache:{red:#} {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        #[cfg(feature = "demo")]
        Command::Demo(args) => Ok(on_all_cores(demo::run(args))??),
        Command::Serve(args) => Ok(on_all_cores(serve::run(args))??),
        Command::Check(args) => Ok(on_one_core(check::run(args))??),
        #[cfg(feature = "certs")]
        Command::Certs(args) => Ok(certs::run(args)?),
        Command::Secret => Ok(secret::run()?),
        Command::Client(command) => Ok(on_one_core(client::run(command))??),
    }
}

fn on_all_cores<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work))
}

fn on_one_core<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}
