//! Small models that foretell a larger one: the law through them, and the interval in which the next should fall.

use crate::fit::{Grid, fit, parallel, refit};
use crate::points::Range;
use crate::random::Random;
use crate::{Law, Point, ScalingError, bootstrap::quantile};
use serde::Serialize;

/// Huber's bound for a ladder. Its runs are few and alike, so that none is an outlier: a bound this wide makes the fit one
/// of least squares, which wastes nothing.
pub const DELTA: f64 = 0.1;

/// Constants of the law, which the points must outnumber.
const CONSTANTS: usize = 5;

/// What a ladder says of a model that is not trained yet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// The law through the rungs.
    pub law: Law,
    /// What it expects of the model.
    pub loss: f64,
    /// The interval that should hold the model's loss.
    pub interval: (f64, f64),
    /// Share of models that it should hold.
    pub share: f64,
    /// Deviation of `ln L` that the interval rests on: the larger of the two below.
    pub deviation: f64,
    /// Deviation of the rungs from the law, over its degrees of freedom.
    pub fit_deviation: f64,
    /// Deviation between runs that differ in their seed alone; `None` where there are no such runs.
    pub seed_deviation: Option<f64>,
    /// Rungs beyond the constants of the law.
    pub degrees: usize,
}

/// Fits the law to `rungs` by least squares on `ln L` and foretells the loss of `n` parameters after `d` tokens.
///
/// The interval is that of a new run, not of the law: every replicate draws a deviation that the rungs allow (scaled
/// inverse chi-square), disturbs the fitted losses of all rungs with it, fits again, and adds the noise of one more run.
/// Runs of the same size and length, which differ in their seeds, count as rungs of their own, and tell how noisy runs are.
///
/// Law: decided by `seed` alone, whatever `threads`; `share` of new runs on the law fall inside.
/// Errors: fewer than seven rungs; rungs of one size or length; a model more than two decades beyond them.
/// Source: the parametric bootstrap of Efron and Tibshirani 1993, section 6.5, with the law of Hoffmann et al. 2022.
pub fn forecast(
    rungs: &[Point],
    (n, d): (f64, f64),
    (share, replicates, seed): (f64, usize, u64),
    threads: usize,
) -> Result<Forecast, ScalingError> {
    let hint = "add sizes or lengths, so that two are left over to tell the noise by";
    if rungs.len() < CONSTANTS + 2 {
        return Err(ScalingError::TooFew { what: "a ladder", found: rungs.len(), expected: CONSTANTS + 2, hint });
    }
    Range::of(rungs).check(n, d)?;
    let law = fit(rungs, DELTA, &Grid::small(), threads)?.law;
    let degrees = rungs.len() - CONSTANTS;
    let square = |rung: &Point| (rung.loss / law.loss(rung.n, rung.d)).ln().powi(2);
    let fit_deviation = (rungs.iter().map(square).sum::<f64>() / degrees as f64).sqrt();
    let seed_deviation = seed_deviation(rungs);
    let deviation = fit_deviation.max(seed_deviation.unwrap_or(0.0));
    let replicate = |index: usize| {
        let mut random = Random::new(seed, index as u64);
        let chi_square: f64 = (0..degrees).map(|_| random.normal().powi(2)).sum();
        let sigma = deviation * (degrees as f64 / chi_square).sqrt();
        let mut disturbed =
            |rung: &Point| Point { loss: law.loss(rung.n, rung.d) * (sigma * random.normal()).exp(), ..*rung };
        let disturbed: Vec<Point> = rungs.iter().map(&mut disturbed).collect();
        let again = refit(&disturbed, &vec![1.0; rungs.len()], DELTA, &law)?;
        Some(again.loss(n, d) * (sigma * random.normal()).exp())
    };
    // A deviation can be so large that no law goes through what it makes of the losses.
    let found = parallel(replicates, threads, replicate).into_iter().flatten();
    let mut losses: Vec<f64> = found.filter(|loss| !loss.is_nan()).collect();
    losses.sort_by(f64::total_cmp);
    let ends = quantile(&losses, 0.5 - 0.5 * share).zip(quantile(&losses, 0.5 + 0.5 * share));
    let interval = ends.ok_or(ScalingError::NoOptimum { starts: replicates })?;
    let loss = law.loss(n, d);
    Ok(Forecast { law, loss, interval, share, deviation, fit_deviation, seed_deviation, degrees })
}

/// Deviation of `ln L` between runs of the same size and length, pooled over them; `None` where no two are the same.
fn seed_deviation(rungs: &[Point]) -> Option<f64> {
    let (mut squares, mut degrees) = (0.0, 0);
    let mut seen: Vec<(f64, f64)> = Vec::new();
    for rung in rungs {
        if seen.contains(&(rung.n, rung.d)) {
            continue;
        }
        seen.push((rung.n, rung.d));
        let same: Vec<f64> =
            rungs.iter().filter(|other| (other.n, other.d) == (rung.n, rung.d)).map(|other| other.loss.ln()).collect();
        let mean = same.iter().sum::<f64>() / same.len() as f64;
        squares += same.iter().map(|loss| (loss - mean).powi(2)).sum::<f64>();
        degrees += same.len() - 1;
    }
    (degrees > 0).then(|| (squares / degrees as f64).sqrt())
}

/// Sizes from `smallest` to `largest`, each the same factor above the one before.
pub fn sizes(smallest: f64, largest: f64, count: usize) -> Vec<f64> {
    let step = |index: usize| (largest / smallest).powf(index as f64 / count.saturating_sub(1).max(1) as f64);
    (0..count).map(|index| smallest * step(index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUE: Law = Law { e: 0.6, a: 60.0, b: 90.0, alpha: 0.4, beta: 0.35 };

    /// Five sizes by three lengths with noise, the smallest three times.
    fn rungs(noise: f64, seed: u64) -> Vec<Point> {
        let mut random = Random::new(seed, 9);
        let mut rungs = Vec::new();
        for n in sizes(5e4, 4e5, 5) {
            for ratio in [5.0, 10.0, 20.0] {
                for _ in 0..if n < 6e4 { 3 } else { 1 } {
                    let loss = TRUE.loss(n, ratio * n) * (noise * random.normal()).exp();
                    rungs.push(Point { n, d: ratio * n, loss });
                }
            }
        }
        rungs
    }

    #[test]
    fn sizes_are_a_constant_factor_apart() {
        let found = sizes(1e4, 16e4, 5);
        assert!(found.iter().zip([1e4, 2e4, 4e4, 8e4, 16e4]).all(|(x, y)| (x / y - 1.0).abs() < 1e-12), "{found:?}");
    }

    #[test]
    fn a_ladder_without_noise_foretells_exactly() {
        let found = forecast(&rungs(0.0, 0), (8e5, 8e6), (0.95, 50, 1), 2).unwrap();
        assert!((found.loss / TRUE.loss(8e5, 8e6) - 1.0).abs() < 1e-5, "{found:?}");
        assert!(found.deviation < 1e-6 && found.interval.1 - found.interval.0 < 1e-4, "{found:?}");
    }

    #[test]
    fn noise_is_measured_by_seeds_and_by_the_fit() {
        let found = forecast(&rungs(0.004, 3), (8e5, 8e6), (0.95, 50, 1), 2).unwrap();
        assert_eq!(found.degrees, 16);
        for deviation in [found.fit_deviation, found.seed_deviation.unwrap()] {
            assert!((0.002..0.007).contains(&deviation), "{found:?}");
        }
        let alone = [Point { n: 1.0, d: 1.0, loss: 2.0 }, Point { n: 2.0, d: 1.0, loss: 1.0 }];
        assert_eq!(seed_deviation(&alone), None);
        // ln 1 and ln e^0.02 deviate by 0.02 / sqrt 2.
        let twice = [alone[0], Point { loss: 2.0 * 0.02_f64.exp(), ..alone[0] }];
        assert!((seed_deviation(&twice).unwrap() - 0.02 / 2_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn intervals_hold_as_many_new_runs_as_they_say_and_are_narrow() {
        let (mut held, mut width) = (0, 0.0);
        let target = (8e5, 8e6);
        for trial in 0..60 {
            let found = forecast(&rungs(0.004, trial), target, (0.9, 200, trial), 2).unwrap();
            let new = TRUE.loss(target.0, target.1) * (0.004 * Random::new(trial, 77).normal()).exp();
            held += usize::from((found.interval.0..=found.interval.1).contains(&new));
            width += (found.interval.1 / found.interval.0).ln() / 60.0;
        }
        // Binomial with 60 tries: 43 is four deviations below 54. All 60 would be an interval that says nothing.
        assert!((43..=59).contains(&held), "{held} of 60");
        // The next size lowers the loss by 15 %; two and a half deviations of noise alone are 1.3 %.
        assert!((0.013..0.06).contains(&width), "{width}");
    }

    #[test]
    fn too_short_a_ladder_and_too_far_a_model_are_refused() {
        let all = rungs(0.001, 0);
        let with = |rungs: &[Point], n: f64| forecast(rungs, (n, 1e7), (0.95, 10, 0), 1).unwrap_err();
        assert!(matches!(with(&all[..6], 8e5), ScalingError::TooFew { expected: 7, .. }));
        assert!(matches!(with(&all, 5e7), ScalingError::Extrapolation { what: "parameters", .. }));
    }
}
