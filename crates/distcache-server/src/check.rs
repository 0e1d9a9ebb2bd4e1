//! `distcache check`: whether a node would start from this file, short of taking its ports.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{Config, Overrides};
use crate::listener::{CertificateFiles, ListenError};
use crate::serve::{self, ServeError};
use crate::telemetry;

#[derive(clap::Args)]
pub struct Args {
    /// The configuration file (TOML)
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Read the file alone: open no database and no certificate
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    overrides: Overrides,
}

pub async fn run(args: Args) -> Result<ExitCode, ServeError> {
    let config = Config::load(&args.config, &args.overrides)?;
    if !args.offline {
        for (name, listener) in [("http", &config.http), ("admin", &config.admin)] {
            let checked = listener.tls.as_ref().map_or(Ok(()), CertificateFiles::check);
            checked.map_err(|error| ListenError::Certificates { name, error })?;
        }
        telemetry::check(config.telemetry.as_ref())?;
        serve::builder(&config).await?.check()?;
    }
    println!("{} is fine:", args.config.display());
    print!("{config}");
    Ok(ExitCode::SUCCESS)
}
