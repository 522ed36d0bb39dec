//! How sure a fit is: the same fit on rows drawn again with replacement.

use crate::fit::{Fit, parallel, refit};
use crate::random::Random;
use crate::{Law, Point};

/// Laws fitted to resampled points.
#[derive(Clone, Debug, PartialEq)]
pub struct Bootstrap {
    /// One law for each replicate that led to one.
    pub laws: Vec<Law>,
    /// Replicates asked for.
    pub replicates: usize,
}

/// Fits `replicates` times to points drawn with replacement, each from the best law.
///
/// Law: decided by `seed` alone, whatever `threads`.
/// Source: Besiroglu et al. 2024, section 3.
pub fn bootstrap(points: &[Point], fit: &Fit, replicates: usize, seed: u64, threads: usize) -> Bootstrap {
    let replicate = |index: usize| {
        let mut random = Random::new(seed, index as u64);
        let mut weights = vec![0.0; points.len()];
        for _ in 0..points.len() {
            weights[random.below(points.len())] += 1.0;
        }
        refit(points, &weights, fit.delta, &fit.law)
    };
    Bootstrap { laws: parallel(replicates, threads, replicate).into_iter().flatten().collect(), replicates }
}

impl Bootstrap {
    /// The middle `share` (0.95 for 95 %) of what follows from the laws: its lower and upper end. `None` without laws.
    pub fn interval(&self, share: f64, of: impl Fn(&Law) -> f64) -> Option<(f64, f64)> {
        let mut values: Vec<f64> = self.laws.iter().map(of).filter(|value| !value.is_nan()).collect();
        values.sort_by(f64::total_cmp);
        Some((quantile(&values, 0.5 - 0.5 * share)?, quantile(&values, 0.5 + 0.5 * share)?))
    }
}

/// The value below which `share` of the sorted values lie, between neighbours on a straight line.
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let at = share * (sorted.len().checked_sub(1)?) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(if low == high { low } else { low + (at - at.floor()) * (high - low) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::{DELTA, Grid, fit};
    use crate::law::EPOCH;

    fn noisy(seed: u64) -> Vec<Point> {
        let mut random = Random::new(seed, 0);
        let point = |i: usize| {
            let n = 1e7 * 1.5_f64.powi((i % 10) as i32);
            let d = n * 5.0 * 2_f64.powi((i / 10) as i32);
            Point { n, d, loss: EPOCH.loss(n, d) * (0.004 * random.normal()).exp() }
        };
        (0..50).map(point).collect()
    }

    #[test]
    fn quantiles_by_hand() {
        assert_eq!(
            [0.0, 0.25, 0.5, 1.0].map(|share| quantile(&[1.0, 2.0, 4.0], share)),
            [1.0, 1.5, 2.0, 4.0].map(Some)
        );
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn ninety_per_cent_intervals_hold_the_true_loss_about_nine_times_in_ten() {
        let mut held = 0;
        for seed in 0..60 {
            let points = noisy(seed);
            let best = fit(&points, DELTA, &Grid::small(), 2).unwrap();
            let laws = bootstrap(&points, &best, 100, seed, 2);
            let (low, high) = laws.interval(0.9, |law| law.loss(1e9, 2e10)).unwrap();
            held += usize::from((low..=high).contains(&EPOCH.loss(1e9, 2e10)));
        }
        // Binomial with 60 tries: 43 is four deviations below 54; all 60 would be an interval that says nothing.
        assert!((43..=59).contains(&held), "{held} of 60");
    }

    #[test]
    fn the_seed_decides_and_threads_do_not() {
        let points = noisy(1);
        let best = fit(&points, DELTA, &Grid::small(), 2).unwrap();
        let with = |seed, threads| bootstrap(&points, &best, 20, seed, threads);
        assert_eq!(with(1, 1), with(1, 3));
        assert_ne!(with(1, 1), with(2, 1));
    }
}
