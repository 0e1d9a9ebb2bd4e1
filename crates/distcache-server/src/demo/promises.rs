//! What the demo promises, checked against what happened.

use super::report::{Outage, Reading};
use crate::table::count;

/// Every promise that was not kept, in words.
pub fn broken(reading: &Reading, outage: &Outage) -> Vec<String> {
    let mut broken = Vec::new();
    let mut promise = |is_kept: bool, otherwise: String| {
        if !is_kept {
            broken.push(otherwise);
        }
    };
    let error = |first: &Option<String>| first.clone().unwrap_or_default();
    let (tally, total) = (&reading.tally, reading.total());
    promise(tally.reads() > 0, "nothing was read".into());
    promise(tally.errors == 0, format!("{} reads failed, first: {}", count(tally.errors), error(&tally.first_error)));
    promise(
        total.loads == tally.places(),
        format!(
            "{} loads for {} different places, {} of them because an owner was out of reach; promised is one each",
            count(total.loads),
            count(tally.places()),
            count(total.fallback_loads),
        ),
    );
    let tally = &outage.tally;
    promise(
        tally.errors == 0,
        format!("{} reads failed after the kill, first: {}", count(tally.errors), error(&tally.first_error)),
    );
    promise(tally.resent > 0, "nobody noticed the kill: no read had to be sent again".into());
    promise(outage.agreed.is_some(), "the survivors did not agree on a new view".into());
    broken
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::cluster::NodeStats;
    use super::super::load::{Origin, Tally};
    use super::*;

    fn reading(loads: u64) -> Reading {
        let mut tally = Tally::new(10);
        tally.answered(1, Some(Origin::Loaded), Duration::from_millis(2));
        let stats = NodeStats { loads, ..Default::default() };
        let second = Duration::from_secs(1);
        let nodes = vec![("a".into(), stats)];
        Reading { tally, took: second, calm: Tally::new(10), calm_took: second, readers: 1, nodes }
    }

    fn outage() -> Outage {
        let mut tally = Tally::new(10);
        tally.answered(1, Some(Origin::Owned), Duration::from_millis(2));
        tally.resent = 1;
        Outage {
            victim: "c".into(),
            tally,
            loads: 0,
            fallback_loads: 0,
            new_places: 0,
            agreed: Some(Duration::from_secs(2)),
        }
    }

    #[test]
    fn what_went_well_breaks_no_promise() {
        assert!(broken(&reading(1), &outage()).is_empty());
    }

    #[test]
    fn what_went_wrong_is_named() {
        let twice = broken(&reading(2), &outage());
        assert_eq!(
            twice,
            ["2 loads for 1 different places, 0 of them because an owner was out of reach; promised is one each"]
        );
        let mut outage = outage();
        outage.tally.failed("gone".into());
        outage.agreed = None;
        let both = broken(&reading(1), &outage);
        assert_eq!(both.len(), 2);
        assert!(both[0].ends_with("first: gone"), "{both:?}");
    }
}
