//! Popularity as it is found in the wild: the n-th most popular thing is asked for 1/n as often as the first.
//!
//! Zipf's law with exponent 1, sampled by inverting its cumulative distribution.

pub struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    pub fn new(things: usize) -> Self {
        let mut total = 0.0;
        let weight = |rank: usize| {
            total += 1.0 / rank as f64;
            total
        };
        Self { cumulative: (1..=things).map(weight).collect() }
    }

    /// A rank from 0, given a number from 0 to 1 at random.
    pub fn rank(&self, uniform: f64) -> usize {
        let total = self.cumulative.last().copied().unwrap_or(0.0);
        let at = self.cumulative.partition_point(|sum| *sum < uniform * total);
        at.min(self.cumulative.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_asked_for_twice_as_often_as_the_second() {
        let zipf = Zipf::new(1_000);
        let mut random = fastrand::Rng::with_seed(7);
        let mut asked = vec![0_u32; 1_000];
        for _ in 0..200_000 {
            asked[zipf.rank(random.f64())] += 1;
        }
        let ratio = |a: usize, b: usize| f64::from(asked[a]) / f64::from(asked[b]);
        assert!((1.9..2.1).contains(&ratio(0, 1)), "{}", ratio(0, 1));
        assert!((8.5..11.5).contains(&ratio(0, 9)), "{}", ratio(0, 9));
    }

    #[test]
    fn the_ends_are_within() {
        let zipf = Zipf::new(10);
        assert_eq!(zipf.rank(0.0), 0);
        assert_eq!(zipf.rank(1.0), 9);
    }
}
