//! Approach 2: at each budget, a parabola of the loss over `ln N`; its minimum is the best size.

use crate::{Point, PowerLaw, ScalingError};
use serde::Serialize;

/// Runs of one budget differ in it by at most this, in `ln C`.
const SAME_BUDGET: f64 = 0.1;

/// The runs of one budget with the parabola through them, `loss = l0 + curvature (ln N - ln N_best)^2`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IsoFlop {
    /// Geometric mean of the runs' FLOPs.
    pub flops: f64,
    /// The runs, by size.
    pub points: Vec<Point>,
    /// Best parameters.
    pub parameters: f64,
    /// Loss there.
    pub loss: f64,
    /// Half the second derivative by `ln N`.
    pub curvature: f64,
    /// Whether the minimum lies between the smallest and the largest run, so that it can be believed.
    pub is_bracketed: bool,
}

impl IsoFlop {
    /// The parabola at `n` parameters.
    pub fn at(&self, n: f64) -> f64 {
        self.loss + self.curvature * (n / self.parameters).ln().powi(2)
    }
}

/// What approach 2 finds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Approach2 {
    /// Every budget with a parabola, by budget.
    pub budgets: Vec<IsoFlop>,
    /// Best parameters over FLOPs.
    pub parameters: PowerLaw,
    /// Best tokens over FLOPs.
    pub tokens: PowerLaw,
}

/// Groups points by budget, fits the parabolas and the power laws through their minima.
///
/// A budget needs four runs, a parabola that opens upwards and a minimum between its runs.
///
/// Errors: fewer than two such budgets.
/// Source: Hoffmann et al. 2022, section 3.2, <https://arxiv.org/abs/2203.15556>.
pub fn approach2(points: &[Point]) -> Result<Approach2, ScalingError> {
    let budgets: Vec<IsoFlop> = groups(points).into_iter().filter_map(parabola).collect();
    let used: Vec<&IsoFlop> = budgets.iter().filter(|budget| budget.is_bracketed).collect();
    let hint = "train at two budgets at least, four sizes each, with the best size among them";
    if used.len() < 2 {
        return Err(ScalingError::TooFew { what: "isoFLOP parabolas", found: used.len(), expected: 2, hint });
    }
    let best = |of: fn(&IsoFlop) -> f64| used.iter().map(|budget| (budget.flops, of(budget))).collect::<Vec<_>>();
    let parameters = PowerLaw::through(&best(|budget| budget.parameters))?;
    let tokens = PowerLaw::through(&best(|budget| budget.flops / (6.0 * budget.parameters)))?;
    Ok(Approach2 { budgets, parameters, tokens })
}

/// Points of the same budget, by budget: a group ends where the next point is further than [`SAME_BUDGET`] from its first.
fn groups(points: &[Point]) -> Vec<Vec<Point>> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|x, y| x.flops().total_cmp(&y.flops()));
    let mut groups: Vec<Vec<Point>> = Vec::new();
    for point in sorted {
        match groups.last_mut() {
            Some(group) if (point.flops() / group[0].flops()).ln() <= SAME_BUDGET => group.push(point),
            _ => groups.push(vec![point]),
        }
    }
    groups
}

/// The parabola through runs of one budget by least squares; `None` where there is none that opens upwards.
fn parabola(mut points: Vec<Point>) -> Option<IsoFlop> {
    points.sort_by(|x, y| x.n.total_cmp(&y.n));
    if points.len() < 4 {
        return None;
    }
    let count = points.len() as f64;
    let center = points.iter().map(|point| point.n.ln()).sum::<f64>() / count;
    // Sums for the normal equations of loss = c0 + c1 x + c2 x^2, with x = ln N from its mean.
    let (mut x2, mut x3, mut x4, mut y0, mut y1, mut y2) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
    for point in &points {
        let (x, y) = (point.n.ln() - center, point.loss);
        x2 += x * x;
        x3 += x * x * x;
        x4 += x * x * x * x;
        y0 += y;
        y1 += x * y;
        y2 += x * x * y;
    }
    // The sum of x is 0: c0 = (y0 - x2 c2) / count, which leaves two equations for c1 and c2.
    let (p, q) = (x4 - x2 * x2 / count, y2 - x2 * y0 / count);
    let det = x2 * p - x3 * x3;
    let (c1, c2) = ((y1 * p - x3 * q) / det, (x2 * q - x3 * y1) / det);
    if !(c2 > 0.0 && c1.is_finite()) {
        return None;
    }
    let c0 = (y0 - x2 * c2) / count;
    let best = -c1 / (2.0 * c2);
    let parameters = (center + best).exp();
    let is_bracketed = points[0].n < parameters && parameters < points[points.len() - 1].n;
    let flops = (points.iter().map(|point| point.flops().ln()).sum::<f64>() / count).exp();
    Some(IsoFlop { flops, parameters, loss: c0 + best * (c1 + c2 * best), curvature: c2, is_bracketed, points })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Law;

    #[test]
    fn the_minimum_of_a_parabola_is_found() {
        // Losses 2 + 0.1 (ln N - ln 3e7)^2 at a budget of 6e16.
        let points =
            [1e7, 2e7, 5e7, 9e7].map(|n: f64| Point { n, d: 1e16 / n, loss: 2.0 + 0.1 * (n / 3e7).ln().powi(2) });
        let found = parabola(points.to_vec()).unwrap();
        assert!((found.parameters / 3e7 - 1.0).abs() < 1e-9 && (found.loss - 2.0).abs() < 1e-12, "{found:?}");
        assert!((found.curvature - 0.1).abs() < 1e-10 && (found.flops / 6e16 - 1.0).abs() < 1e-12);
        assert!(found.is_bracketed && (found.at(9e7) - points[3].loss).abs() < 1e-10);
        let one_sided = parabola(points.map(|point| Point { n: point.n * 9.0, ..point }).to_vec()).unwrap();
        assert!(one_sided.is_bracketed, "the losses moved along");
        let falling = points.map(|p| Point { loss: 2.0 + 0.1 * (p.n / 3e8).ln().powi(2), ..p });
        assert!(!parabola(falling.to_vec()).unwrap().is_bracketed);
        assert_eq!(parabola(points[..3].to_vec()), None);
    }

    #[test]
    fn on_runs_of_a_law_the_exponents_are_its_own() {
        // Symmetric exponents: then the loss is symmetric around the best size, and the parabola's minimum is exact.
        let law = Law { e: 1.7, a: 300.0, b: 900.0, alpha: 0.32, beta: 0.32 };
        let mut points = Vec::new();
        for log_c in 17..21 {
            let flops = 10_f64.powi(log_c);
            let best = law.optimum(flops).parameters;
            for step in -3..=3 {
                let n = best * 1.5_f64.powi(step);
                points.push(Point { n, d: flops / (6.0 * n), loss: law.loss(n, flops / (6.0 * n)) });
            }
        }
        let found = approach2(&points).unwrap();
        assert_eq!(found.budgets.len(), 4);
        assert!((found.parameters.exponent - 0.5).abs() < 1e-6, "{:?}", found.parameters);
        assert!((found.tokens.exponent - 0.5).abs() < 1e-6, "{:?}", found.tokens);
        for budget in &found.budgets {
            assert!((budget.parameters / law.optimum(budget.flops).parameters - 1.0).abs() < 1e-6, "{budget:?}");
        }
        assert!(matches!(approach2(&points[..7]), Err(ScalingError::TooFew { found: 1, .. })));
    }
}
