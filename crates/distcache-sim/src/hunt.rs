//! The protocol without one of its rules: if the simulation is worth anything, some seed finds out.
//!
//! The invariant: a rule counts as found only by an answer that is too old, and only if with the rule nothing is wrong under the same
//! seed.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::process::ExitCode;

use distcache::sim_support::Rule;

use crate::Size;
use crate::campaign;
use crate::cluster::Setting;
use crate::plan::Only;
use crate::report::report_on;

/// All rules by name.
pub fn names() -> String {
    Rule::ALL.iter().map(|rule| format!("{rule:?}")).collect::<Vec<_>>().join(", ")
}

/// The rule of this name.
pub fn rule_named(name: &str) -> Option<Rule> {
    Rule::ALL.into_iter().find(|rule| format!("{rule:?}").eq_ignore_ascii_case(name))
}

/// A lease that is counted from the wrong moment shows only where an answer is under way for long while its key is written.
fn setting_without(rule: Rule, seed: u64, size: Size) -> Setting {
    let only = (rule == Rule::LeaseFromSend).then_some(Only::SlowLinks);
    Setting { without: Some(rule), only, ..size.setting(seed) }
}

/// The first seed of five minutes that shows what happens without a rule, as `docs/consistency.md` has it. Where the engine changes
/// another may be the first: `hunt` finds it.
fn known_seed(rule: Rule) -> u64 {
    match rule {
        Rule::RegisterOnArrival | Rule::Hold => 1,
        Rule::LoadFence | Rule::Detach | Rule::FetchDetach | Rule::AwaitAcks | Rule::PeekFence => 2,
        Rule::TellTheNext => 4,
        Rule::HandOverFence | Rule::LeaseFromSend => 6,
        Rule::AllWhileYoung => 54,
        Rule::Heal => 65,
    }
}

/// Looks whether the seeds that are known still show what they did.
pub fn known(size: Size) -> ExitCode {
    let without = |rule| setting_without(rule, known_seed(rule), size);
    let rules = Rule::ALL.into_iter().map(without);
    let runs: BTreeSet<_> = rules.clone().map(|setting| (setting.seed, setting.only)).collect();
    let controls = runs.into_iter().map(|(seed, only)| Setting { only, ..size.setting(seed) });
    let mut missed = 0;
    campaign::each(rules.chain(controls).collect(), |setting, report| {
        let is_as_known = match setting.without {
            Some(_) => report.stale().is_some(),
            None => report.is_clean(),
        };
        if !is_as_known {
            missed += 1;
            match setting.without {
                Some(rule) => {
                    println!("without {rule:?} seed {} shows nothing too old any more: hunt for another", setting.seed)
                }
                None => println!("with all rules seed {} is not clean: {report:?}", setting.seed),
            }
        }
        ControlFlow::Continue(())
    });
    println!("rules={} missed={missed}", Rule::ALL.len());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Leaves out one rule after the other; fails where one is not missed.
pub fn hunt(first_seed: u64, seeds: u64, only: Option<Rule>, size: Size) -> ExitCode {
    let wanted = only.map_or_else(|| Rule::ALL.to_vec(), |rule| vec![rule]);
    let rules = wanted.len();
    let mut missed = 0;
    for rule in wanted {
        let settings = (first_seed..first_seed + seeds).map(|seed| setting_without(rule, seed, size));
        let (mut tried, mut found) = (0, None);
        campaign::each(settings.collect(), |setting, report| {
            tried += 1;
            match report.stale() {
                Some(violation) if report_on(Setting { without: None, ..setting }).is_clean() => {
                    found = Some((setting.seed, violation.to_owned()));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The table names a seed for each rule, in the order of the rules.
    #[test]
    fn the_docs_name_the_seeds_that_are_known() {
        let docs = include_str!("../../../docs/consistency.md");
        let rows =
            docs.lines().skip_while(|line| !line.starts_with("| without |")).take_while(|line| line.starts_with('|'));
        let seeds = rows.filter_map(|row| row.trim_end_matches([' ', '|']).rsplit(' ').next()?.parse::<u64>().ok());
        assert_eq!(seeds.collect::<Vec<_>>(), Rule::ALL.map(known_seed));
    }
}
