//! The protocol without one of its rules: if the simulation is worth anything, some seed finds out.
//!
//! The invariant: a rule counts as found only by an answer that is too old, and only if with the rule there is none under the same
//! seed.

use std::ops::ControlFlow;
use std::process::ExitCode;

use distcache::sim_support::Rule;

use crate::Size;
use crate::campaign;
use crate::cluster::Setting;
use crate::report::report_on;

/// All rules by name.
pub fn names() -> String {
    Rule::ALL.iter().map(|rule| format!("{rule:?}")).collect::<Vec<_>>().join(", ")
}

/// The rule of this name.
pub fn rule_named(name: &str) -> Option<Rule> {
    Rule::ALL.into_iter().find(|rule| format!("{rule:?}").eq_ignore_ascii_case(name))
}

/// Leaves out one rule after the other; fails where one is not missed.
pub fn hunt(first_seed: u64, seeds: u64, only: Option<Rule>, size: Size) -> ExitCode {
    let wanted = only.map_or_else(|| Rule::ALL.to_vec(), |rule| vec![rule]);
    let rules = wanted.len();
    let mut missed = 0;
    for rule in wanted {
        let settings =
            (first_seed..first_seed + seeds).map(|seed| Setting { without: Some(rule), ..size.setting(seed) });
        let (mut tried, mut found) = (0, None);
        campaign::each(settings.collect(), |setting, report| {
            tried += 1;
            match report.stale() {
                Some(violation) if report_on(Setting { without: None, ..setting }).stale().is_none() => {
                    found = Some((setting.seed, violation));
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        });
        match found {
            Some((seed, violation)) => println!("{rule:?}: seed {seed}, after {tried}\n  {violation}"),
            None => {
                missed += 1;
                println!("{rule:?}: NOT FOUND by {tried} seeds");
            }
        }
    }
    println!("rules={rules} missed={missed}");
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
