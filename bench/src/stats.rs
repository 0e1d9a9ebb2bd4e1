//! Medians over rounds, and ratios between contestants that ran in the same round.
//!
//! Only numbers; knows nothing of what was measured. The invariant: a ratio is taken within a round and the median over the
//! rounds, never the ratio of two medians: neighbours in time share the machine's mood, and rounds do not.

/// The middle value; of an even number of values, the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    assert!(!values.is_empty(), "a median needs a value");
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// The greatest value.
pub fn worst(values: &[f64]) -> f64 {
    assert!(!values.is_empty(), "a maximum needs a value");
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// Median over the rounds of `ours / theirs`.
pub fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len(), "both contestants run in every round");
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    median(&ratios)
}

/// How far the rounds lie apart: half the distance between the outermost, as a part of the median.
pub fn spread(values: &[f64]) -> f64 {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    (worst(values) - least) / 2.0 / median(values)
}

/// Runs `rounds` rounds of all contestants, A B C then B C A then C A B, and returns each contestant's results in the order
/// of the rounds. Starting with another one each time spreads the effect of coming first.
pub fn alternate<T, E>(
    contestants: usize,
    rounds: usize,
    mut run: impl FnMut(usize) -> Result<T, E>,
) -> Result<Vec<Vec<T>>, E> {
    let mut results: Vec<Vec<T>> = (0..contestants).map(|_| Vec::with_capacity(rounds)).collect();
    for round in 0..rounds {
        for turn in 0..contestants {
            let contestant = (round + turn) % contestants;
            results[contestant].push(run(contestant)?);
        }
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(&[4.0, 1.0, 100.0, 2.0]), 3.0);
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        // The machine was ten times slower in the second round: both suffered, the ratio did not.
        assert_eq!(ratio(&[10.0, 100.0, 11.0], &[5.0, 50.0, 5.5]), 2.0);
        // The ratio of the medians would be 3.
        assert_eq!(ratio(&[1.0, 30.0, 40.0], &[10.0, 10.0, 20.0]), 2.0);
    }

    #[test]
    fn the_spread_is_a_part_of_the_median() {
        assert_eq!(spread(&[7.0]), 0.0);
        assert_eq!(spread(&[90.0, 100.0, 110.0]), 0.1);
        assert_eq!(worst(&[1.0, 3.0, 2.0]), 3.0);
    }

    #[test]
    fn every_round_has_every_contestant_and_another_first() {
        let mut order = Vec::new();
        let results = alternate(3, 2, |contestant| {
            order.push(contestant);
            Ok::<_, Infallible>(order.len())
        });
        assert_eq!(order, [0, 1, 2, 1, 2, 0]);
        assert_eq!(results.unwrap(), [[1, 6], [2, 4], [3, 5]]);
    }
}
