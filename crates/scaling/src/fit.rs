//! Approach 3: the parametric law through points, from a grid of starts.

use crate::huber::{Objective, Theta, law};
use crate::lbfgs::{Minimum, minimize};
use crate::points::Range;
use crate::{Law, Point, ScalingError};
use serde::Serialize;

/// Huber's bound that Chinchilla uses, for residuals in `ln L`.
pub const DELTA: f64 = 1e-3;

/// Where searches begin: every combination of these values.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// `ln A` and `ln B`.
    pub log_weights: Vec<f64>,
    /// `ln E`.
    pub log_floors: Vec<f64>,
    /// `alpha` and `beta`.
    pub exponents: Vec<f64>,
}

impl Grid {
    /// 72 starts, with which the optimum is found on Chinchilla's points as with all of [`Grid::hoffmann`].
    pub fn small() -> Self {
        Self { log_weights: vec![0.0, 10.0, 20.0], log_floors: vec![-1.0, 0.0], exponents: vec![0.0, 0.5] }
    }

    /// The 4500 starts of Hoffmann et al. 2022, section D.3.
    pub fn hoffmann() -> Self {
        Self {
            log_weights: (0..6).map(|i| 5.0 * f64::from(i)).collect(),
            log_floors: (0..5).map(|i| -1.0 + 0.5 * f64::from(i)).collect(),
            exponents: (0..5).map(|i| 0.5 * f64::from(i)).collect(),
        }
    }

    /// All starts.
    pub fn starts(&self) -> Vec<Theta> {
        let mut starts = Vec::new();
        for &a in &self.log_weights {
            for &b in &self.log_weights {
                for &e in &self.log_floors {
                    for &alpha in &self.exponents {
                        starts.extend(self.exponents.iter().map(|&beta| [a, b, e, alpha, beta]));
                    }
                }
            }
        }
        starts
    }
}

/// A law that was fitted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// The law.
    pub law: Law,
    /// The sum of Huber losses at the optimum.
    pub objective: f64,
    /// Huber's bound.
    pub delta: f64,
    /// Root of the mean square of `ln L` predicted minus measured.
    pub residual: f64,
    /// Points.
    pub points: usize,
    /// Starts, and how many of them ended at the optimum, within a millionth of its value.
    pub starts: usize,
    /// See `starts`.
    pub agreeing: usize,
    /// What the points reach over.
    pub range: Range,
}

/// Runs `work` for every index below `count` on `threads` threads. The results do not depend on how many.
pub(crate) fn parallel<T: Send>(count: usize, threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = threads.clamp(1, count.max(1));
    let mut out: Vec<Option<T>> = (0..count).map(|_| None).collect();
    let share = count.div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        for (part, slots) in out.chunks_mut(share).enumerate() {
            let work = &work;
            scope.spawn(move || {
                for (index, slot) in slots.iter_mut().enumerate() {
                    *slot = Some(work(part * share + index));
                }
            });
        }
    });
    out.into_iter().map(|slot| slot.expect("every index is worked on")).collect()
}

/// A search that ended at a law: with finite weights, exponents above 0 and a finite value.
fn is_law(found: &Minimum<5>) -> bool {
    found.value.is_finite() && found.x.iter().all(|x| x.is_finite()) && found.x[3] > 0.0 && found.x[4] > 0.0
}

/// Fits the law to `points`: the lowest of L-BFGS's minima from every start of `grid`.
///
/// Law: points that lie on a law give that law; the result does not depend on `threads`.
/// Errors: fewer than five points; points of one size or of one number of tokens; no start that led anywhere.
/// Source: Hoffmann et al. 2022, section 3.3; Besiroglu et al. 2024 for summing, not averaging.
pub fn fit(points: &[Point], delta: f64, grid: &Grid, threads: usize) -> Result<Fit, ScalingError> {
    let hint = "five constants need five runs at least, and some ten to be any good";
    if points.len() < 5 {
        return Err(ScalingError::TooFew { what: "the law", found: points.len(), expected: 5, hint });
    }
    let range = Range::of(points);
    for (what, (low, high)) in [("parameters", range.parameters), ("tokens", range.tokens)] {
        if high <= 1.01 * low {
            return Err(ScalingError::NoSpread { what });
        }
    }
    let objective = Objective::new(points, delta);
    let starts = grid.starts();
    let search = |index: usize| minimize(|x, g| objective.evaluate(x, g), starts[index]);
    let ends = parallel(starts.len(), threads, search);
    let best = ends.iter().filter(|end| is_law(end)).min_by(|x, y| x.value.total_cmp(&y.value));
    let best = best.ok_or(ScalingError::NoOptimum { starts: starts.len() })?;
    let law = law(&best.x);
    let square = |point: &Point| (law.loss(point.n, point.d) / point.loss).ln().powi(2);
    Ok(Fit {
        law,
        objective: best.value,
        delta,
        residual: (points.iter().map(square).sum::<f64>() / points.len() as f64).sqrt(),
        points: points.len(),
        starts: starts.len(),
        agreeing: ends.iter().filter(|end| end.value <= best.value * (1.0 + 1e-6) + 1e-15).count(),
        range,
    })
}

/// Fits again from one start, for a bootstrap: point number `i` counts `weights[i]` times.
pub(crate) fn refit(points: &[Point], weights: &[f64], delta: f64, start: &Law) -> Option<Law> {
    let objective = Objective::weighted(points, weights, delta);
    let found = minimize(|x, g| objective.evaluate(x, g), crate::huber::theta(start));
    is_law(&found).then(|| law(&found.x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::{EPOCH, HOFFMANN};
    use crate::random::Random;

    /// Runs on a law, six sizes by five lengths, with noise of a deviation in `ln L`.
    pub(crate) fn runs(law: &Law, noise: f64, seed: u64) -> Vec<Point> {
        let mut random = Random::new(seed, 0);
        let mut points = Vec::new();
        for i in 0..6 {
            for j in 0..5 {
                let n = 1e7 * 4_f64.powi(i);
                let d = n * 5.0 * 3_f64.powi(j);
                points.push(Point { n, d, loss: law.loss(n, d) * (noise * random.normal()).exp() });
            }
        }
        points
    }

    #[test]
    fn the_grid_of_the_paper_has_4500_starts() {
        assert_eq!((Grid::hoffmann().starts().len(), Grid::small().starts().len()), (4500, 72));
    }

    #[test]
    fn constants_of_runs_on_a_law_are_recovered() {
        for law in [EPOCH, HOFFMANN] {
            let fit = fit(&runs(&law, 0.0, 0), DELTA, &Grid::small(), 2).unwrap();
            let pairs = [
                (fit.law.e, law.e),
                (fit.law.a, law.a),
                (fit.law.b, law.b),
                (fit.law.alpha, law.alpha),
                (fit.law.beta, law.beta),
            ];
            for (found, expected) in pairs {
                assert!((found / expected - 1.0).abs() < 1e-4, "{found} instead of {expected}: {fit:?}");
            }
            assert!(fit.agreeing >= 1 && fit.residual < 1e-6);
        }
    }

    #[test]
    fn an_outlier_moves_the_fit_by_no_more_than_its_sign() {
        // Huber: beyond delta only the sign of a residual counts, so a loss twice or ten times too high is the same.
        let with = |factor: f64| {
            let mut points = runs(&EPOCH, 0.002, 3);
            points[7].loss *= factor;
            fit(&points, DELTA, &Grid::small(), 2).unwrap().law
        };
        let (twice, tenfold) = (with(2.0), with(10.0));
        assert!((twice.alpha / tenfold.alpha - 1.0).abs() < 1e-4, "{twice:?} {tenfold:?}");
        assert!((twice.alpha / EPOCH.alpha - 1.0).abs() < 0.05, "{twice:?}");
    }

    #[test]
    fn threads_do_not_change_the_bits() {
        let points = runs(&EPOCH, 0.003, 5);
        let with = |threads| fit(&points, DELTA, &Grid::small(), threads).unwrap();
        assert_eq!(with(1), with(3));
        assert_eq!(parallel(7, 3, |i| i * i), [0, 1, 4, 9, 16, 25, 36]);
    }

    #[test]
    fn too_few_points_and_points_of_one_size_are_refused() {
        let points = runs(&EPOCH, 0.0, 0);
        let refused = |points: &[Point]| fit(points, DELTA, &Grid::small(), 1).unwrap_err();
        assert!(matches!(refused(&points[..4]), ScalingError::TooFew { found: 4, .. }));
        assert!(matches!(refused(&points[..5]), ScalingError::NoSpread { what: "parameters" }));
        let same: Vec<Point> = points.iter().map(|point| Point { d: 1e9, ..*point }).collect();
        assert!(matches!(refused(&same), ScalingError::NoSpread { what: "tokens" }));
    }
}
