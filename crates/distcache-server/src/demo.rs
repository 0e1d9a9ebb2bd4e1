//! `distcache demo`: three nodes over a real data set, read hard, one of them killed; then what that cost, in numbers.
//!
//! Tells the story and leaves each part to its file: `places` (data and question), `cluster` (three processes of this binary),
//! `load` (readers), `zipf` (what they read), `report` (what is shown), `promises` (what must be true). The invariant: however
//! this process ends, no node and no file stays behind.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

mod cluster;
mod load;
mod places;
mod promises;
mod report;
mod zipf;

use cluster::{Cluster, ClusterError};
use load::{Readers, Tally};
use places::{Places, PlacesError};
use report::{Outage, Reading};

use crate::signals::Signals;

#[derive(clap::Args)]
pub struct Args {
    /// End after the report: status 0 if everything was as promised, 1 if not
    #[arg(long)]
    once: bool,
    /// How long the cluster is read before the kill
    #[arg(long, hide = true, default_value = "10s", value_parser = humantime::parse_duration)]
    read_for: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
    #[error("cannot make a temporary directory: {0}")]
    TempDir(#[source] io::Error),
    #[error(transparent)]
    Places(#[from] PlacesError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// Places that are read; the rest of the table is there for the database to search through.
const PLACES_READ: usize = 6_000;
const READERS: usize = 24;
/// One reader alone, to see how long a read takes where nothing queues.
const CALM_FOR: Duration = Duration::from_millis(700);
/// The node to be killed is the last: the others joined through the first.
const VICTIM: usize = 2;
/// Reading goes on this long around the kill.
const BEFORE_KILL: Duration = Duration::from_secs(1);
const AFTER_KILL: Duration = Duration::from_secs(5);
const AGREEMENT_LIMIT: Duration = Duration::from_secs(15);

pub async fn run(args: Args) -> Result<ExitCode, DemoError> {
    let mut signals = Signals::listen().map_err(DemoError::Signals)?;
    // Holds what must not stay behind: dropping it kills the nodes, then removes the files.
    let stage = tempfile::Builder::new().prefix("distcache-demo-").tempdir().map_err(DemoError::TempDir)?;
    let told = tokio::select! {
        told = tell(&args, stage.path()) => told?,
        code = signals.next() => return Ok(ExitCode::from(code)),
    };
    if args.once {
        return Ok(if told.is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    report::commands(&told.cluster, &told.places);
    signals.next().await;
    println!();
    Ok(ExitCode::SUCCESS)
}

struct Told {
    cluster: Cluster,
    places: Places,
    is_kept: bool,
}

async fn tell(args: &Args, dir: &std::path::Path) -> Result<Told, DemoError> {
    report::title();
    let places = Places::fill(dir, PLACES_READ).await?;
    report::data(&places);
    let mut cluster = Cluster::start(dir).await?;
    report::nodes(&cluster);

    let alone = places.ask_alone().await?;
    let readers = Readers::new(&cluster, places.keys());
    let reading = read(&readers, &cluster, args.read_for).await?;
    report::reading(&reading, &alone, &places);

    let outage = outage(&readers, &mut cluster, &reading).await?;
    report::outage(&outage);
    let broken = promises::broken(&reading, &outage);
    report::verdict(&broken);
    drop(readers);
    if !args.once {
        let took = cluster.restart(VICTIM).await?;
        report::rejoined(&cluster.nodes()[VICTIM], took);
    }
    Ok(Told { cluster, places, is_kept: broken.is_empty() })
}

async fn read(readers: &Readers, cluster: &Cluster, duration: Duration) -> Result<Reading, DemoError> {
    let progress = Progress::new("reading", duration);
    let mut tally = progress.over(readers, readers.run(READERS, duration)).await;
    let calm = readers.run(1, CALM_FOR).await;
    tally.note(&calm);
    let mut nodes = Vec::new();
    for node in cluster.nodes() {
        nodes.push((node.name().to_owned(), node.stats().await?));
    }
    Ok(Reading { tally, took: duration, calm, calm_took: CALM_FOR, readers: READERS, nodes })
}

/// Reads on while one node is killed, and watches how the others take it.
async fn outage(readers: &Readers, cluster: &mut Cluster, before: &Reading) -> Result<Outage, DemoError> {
    let duration = BEFORE_KILL + AFTER_KILL;
    let progress = Progress::new("reading on", duration);
    let kill = async {
        tokio::time::sleep(BEFORE_KILL).await;
        let last_words = cluster.nodes()[VICTIM].stats().await?;
        let begun = Instant::now();
        cluster.kill(VICTIM).await?;
        progress.say(|| report::killed(cluster.nodes()[VICTIM].name()));
        match cluster.agreement(AGREEMENT_LIMIT).await {
            Ok(()) => Ok((last_words, Some(begun.elapsed()))),
            Err(ClusterError::NoAgreement { .. }) => Ok((last_words, None)),
            Err(other) => Err(other),
        }
    };
    let (tally, killed) = tokio::join!(progress.over(readers, readers.run(READERS, duration)), kill);
    let (last_words, agreed) = killed?;
    let mut after = last_words;
    for node in cluster.alive() {
        after.add(&node.stats().await?);
    }
    let before_all = before.total();
    Ok(Outage {
        victim: cluster.nodes()[VICTIM].name().to_owned(),
        loads: after.loads.saturating_sub(before_all.loads),
        fallback_loads: after.fallback_loads.saturating_sub(before_all.fallback_loads),
        new_places: tally.places_beyond(&before.tally),
        tally,
        agreed,
    })
}

/// How far the readers are: a bar where there is a terminal, a line where there is none.
struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(what: &'static str, duration: Duration) -> Self {
        if !io::stderr().is_terminal() || !io::stdout().is_terminal() {
            println!("  {what} for {}", humantime::format_duration(duration));
            return Self { bar: None };
        }
        let bar = ProgressBar::new(duration.as_millis() as u64);
        let style = ProgressStyle::with_template("  {prefix:<11} {bar:32.cyan/dim} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━━─"));
        bar.set_prefix(what);
        Self { bar: Some(bar) }
    }

    /// Shows something else above the bar.
    fn say(&self, show: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(show),
            None => show(),
        }
    }

    async fn over(&self, readers: &Readers, run: impl Future<Output = Tally>) -> Tally {
        const TICK: Duration = Duration::from_millis(100);
        let Some(bar) = &self.bar else { return run.await };
        let (begun, reads_before) = (Instant::now(), readers.reads());
        let mut run = std::pin::pin!(run);
        let tally = loop {
            tokio::select! {
                tally = &mut run => break tally,
                () = tokio::time::sleep(TICK) => {
                    let elapsed = begun.elapsed();
                    let rate = (readers.reads() - reads_before) as f64 / elapsed.as_secs_f64();
                    bar.set_position(elapsed.as_millis() as u64);
                    bar.set_message(format!("{} reads a second", crate::table::count(rate as u64)));
                }
            }
        };
        bar.finish_and_clear();
        tally
    }
}
