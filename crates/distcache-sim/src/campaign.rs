//! Many seeds, a thread for each core, one line at the end.
//!
//! The invariant: a run that panics is a violation like any other, and its seed is named.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Instant;

use crate::Size;
use crate::checker::{Verdict, Violation, judge};
use crate::cluster::{self, Setting};

/// Violations of one seed that are printed.
const SHOWN_MAX: usize = 3;

/// Simulates and judges.
pub fn verdict_of(setting: Setting) -> Verdict {
    match catch_unwind(AssertUnwindSafe(|| judge(&cluster::run(setting), setting.length))) {
        Ok(verdict) => verdict,
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
            let broken = Violation::Broken(format!("panicked: {}", text.unwrap_or_default()));
            Verdict { violations: vec![broken], ..Verdict::default() }
        }
    }
}

/// Judges seeds in parallel, and hands each verdict over, in no order, until told to stop.
pub fn each(settings: Vec<Setting>, mut done: impl FnMut(Setting, Verdict) -> ControlFlow<()>) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(settings.len());
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (tell, settings, next, stop) = (tell.clone(), &settings, &next, &stop);
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    let Some(setting) = settings.get(next.fetch_add(1, SeqCst) as usize) else { return };
                    if tell.send((*setting, verdict_of(*setting))).is_err() {
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
    let (mut ops, mut faults, mut hot_hits, mut forgotten, mut violations, mut void) = (0, 0, 0, 0, 0, 0);
    let begun = Instant::now();
    each(settings, |setting, verdict| {
        ops += verdict.ops;
        faults += verdict.faults;
        hot_hits += verdict.hot_hits;
        forgotten += verdict.forgotten;
        violations += verdict.violations.len();
        if let Some(why) = verdict.void {
            void += 1;
            println!("seed {}: void: {why}", setting.seed);
        }
        if !verdict.violations.is_empty() {
            println!("seed {}: {} violations", setting.seed, verdict.violations.len());
            verdict.violations.iter().take(SHOWN_MAX).for_each(|violation| println!("  {violation}"));
            println!(
                "  again: distcache-sim replay --seed {} --minutes {} --nodes {}",
                setting.seed, size.minutes, size.nodes
            );
        }
        ControlFlow::Continue(())
    });
    let hours = seeds as f64 * size.setting(0).length.as_secs_f64() / 3600.0;
    println!("{hours:.1} simulated hours in {:.0} s", begun.elapsed().as_secs_f64());
    if forgotten > 0 {
        println!(
            "{forgotten} gets were too old because all who knew of a write had ended before they met anybody else"
        );
    }
    println!("seeds={seeds} ops={ops} faults={faults} hot_hits={hot_hits} violations={violations} void={void}");
    if violations == 0 && void == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
