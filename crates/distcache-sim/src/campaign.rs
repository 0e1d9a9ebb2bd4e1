//! Many seeds, as many at a time as there are cores, and their sum in the last line.
//!
//! The invariant: every violation names its seed.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Instant;

use crate::Size;
use crate::cluster::Setting;
use crate::report::{Report, report_on};

/// Violations of one seed that are printed.
const SHOWN_MAX: usize = 3;

/// Judges seeds in parallel, and hands each report over, in no order, until told to stop.
pub fn each(settings: Vec<Setting>, mut done: impl FnMut(Setting, Report) -> ControlFlow<()>) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(settings.len());
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (tell, settings, next, stop) = (tell.clone(), &settings, &next, &stop);
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    let Some(setting) = settings.get(next.fetch_add(1, SeqCst) as usize) else { return };
                    if tell.send((*setting, report_on(*setting))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        for (setting, verdict) in told {
            if done(setting, verdict).is_break() {
                stop.store(true, SeqCst);
                break;
            }
        }
    });
}

/// Runs seeds and says whether the promise was kept.
pub fn run(first_seed: u64, seeds: u64, size: Size) -> ExitCode {
    let settings = (first_seed..first_seed + seeds).map(|seed| size.setting(seed)).collect();
    let (mut ops, mut faults, mut hot_hits, mut violations, mut void) = (0, 0, 0, 0, 0);
    let (mut forgotten, mut after_a_write, mut strict) = (0, 0, 0);
    let begun = Instant::now();
    each(settings, |setting, report| {
        ops += report.ops;
        faults += report.faults;
        hot_hits += report.hot_hits;
        forgotten += report.forgotten;
        after_a_write += report.after_a_write;
        strict += report.strict;
        violations += report.violations.len();
        if let Some(why) = report.void {
            void += 1;
            println!("seed {}: void: {why}", setting.seed);
        }
        if !report.violations.is_empty() {
            println!("seed {}: {} violations", setting.seed, report.violations.len());
            report.violations.iter().take(SHOWN_MAX).for_each(|found| println!("  {}", found.text));
            println!(
                "  again: distcache-sim replay --seed {} --minutes {} --nodes {}{}",
                setting.seed,
                size.minutes,
                size.nodes,
                setting.only.map(|only| format!(" {}", only.to_argument())).unwrap_or_default()
            );
        }
        ControlFlow::Continue(())
    });
    let hours = seeds as f64 * size.setting(0).length.as_secs_f64() / 3600.0;
    println!("{hours:.1} simulated hours in {:.0} s", begun.elapsed().as_secs_f64());
    println!("{strict} of {after_a_write} gets had to answer the last write: nothing would have excused what is older");
    if forgotten > 0 {
        println!(
            "{forgotten} gets were too old of writes of which nobody can have told: who knew of them had ended, or was still out of sight"
        );
    }
    println!("seeds={seeds} ops={ops} faults={faults} hot_hits={hot_hits} violations={violations} void={void}");
    if violations == 0 && void == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
