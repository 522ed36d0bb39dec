//! Approach 1: at each budget, the run that had the lowest loss when it had spent that much.

use crate::{PowerLaw, ScalingError};
use serde::Serialize;

/// Budgets at which runs are compared, as many as in the paper.
const BUDGETS: usize = 1500;

/// The course of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// Parameters.
    pub n: f64,
    /// FLOPs spent and the loss then, by FLOPs.
    pub points: Vec<(f64, f64)>,
}

impl Curve {
    /// The loss after `flops`, between its points on a straight line in logarithms; `None` outside of them.
    pub fn at(&self, flops: f64) -> Option<f64> {
        let next = self.points.iter().position(|(x, _)| *x >= flops)?;
        let (x1, y1) = self.points[next];
        if next == 0 {
            return (x1 == flops).then_some(y1);
        }
        let (x0, y0) = self.points[next - 1];
        let share = (flops / x0).ln() / (x1 / x0).ln();
        Some((y0.ln() + share * (y1 / y0).ln()).exp())
    }
}

/// What approach 1 finds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Approach1 {
    /// FLOPs, parameters of the best run, its loss.
    pub envelope: Vec<(f64, f64, f64)>,
    /// Best parameters over FLOPs.
    pub parameters: PowerLaw,
    /// Best tokens over FLOPs.
    pub tokens: PowerLaw,
}

/// The envelope of training curves and the power laws through it. A budget counts where the best run had a smaller and a
/// larger one to compare with.
///
/// Errors: fewer than three sizes on the envelope.
/// Source: Hoffmann et al. 2022, section 3.1, <https://arxiv.org/abs/2203.15556>.
pub fn approach1(curves: &[Curve]) -> Result<Approach1, ScalingError> {
    let all = || curves.iter().flat_map(|curve| curve.points.iter().map(|(flops, _)| flops.ln()));
    let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    let mut envelope = Vec::new();
    for index in 0..BUDGETS {
        let flops = (low + (high - low) * index as f64 / (BUDGETS - 1) as f64).exp();
        let known: Vec<(f64, f64)> =
            curves.iter().filter_map(|curve| curve.at(flops).map(|loss| (curve.n, loss))).collect();
        let Some((n, loss)) = known.iter().min_by(|x, y| x.1.total_cmp(&y.1)) else { continue };
        // At the edge of the sizes the best may lie beyond it.
        if known.iter().any(|(other, _)| other < n) && known.iter().any(|(other, _)| other > n) {
            envelope.push((flops, *n, *loss));
        }
    }
    let mut sizes: Vec<f64> = envelope.iter().map(|(_, n, _)| *n).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    let hint = "give run directories of three sizes at least, with evaluations on the way";
    if sizes.len() < 3 {
        return Err(ScalingError::TooFew { what: "an envelope (sizes on it)", found: sizes.len(), expected: 3, hint });
    }
    let parameters = PowerLaw::through(&envelope.iter().map(|(c, n, _)| (*c, *n)).collect::<Vec<_>>())?;
    let tokens = PowerLaw::through(&envelope.iter().map(|(c, n, _)| (*c, c / (6.0 * n))).collect::<Vec<_>>())?;
    Ok(Approach1 { envelope, parameters, tokens })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Law;

    #[test]
    fn between_points_losses_are_on_a_line_in_logarithms() {
        let curve = Curve { n: 1.0, points: vec![(1e3, 4.0), (1e5, 1.0)] };
        assert!((curve.at(1e4).unwrap() - 2.0).abs() < 1e-12);
        assert_eq!([1e2, 1e3, 1e5, 2e5].map(|c| curve.at(c).is_some()), [false, true, true, false]);
    }

    #[test]
    fn curves_of_a_law_give_its_exponent() {
        let law = Law { e: 1.7, a: 300.0, b: 900.0, alpha: 0.32, beta: 0.32 };
        let curve = |i: i32| {
            let n = 1e6 * 1.2_f64.powi(i);
            let at = |j: i32| {
                let d = n * 0.5 * 1.3_f64.powi(j);
                (6.0 * n * d, law.loss(n, d))
            };
            Curve { n, points: (0..25).map(at).collect() }
        };
        let curves: Vec<Curve> = (0..30).map(curve).collect();
        let found = approach1(&curves).unwrap();
        assert!((found.parameters.exponent - law.exponent()).abs() < 0.02, "{:?}", found.parameters);
        let middle = 1e17;
        assert!((found.parameters.at(middle) / law.optimum(middle).parameters).ln().abs() < 0.1);
        assert!(approach1(&curves[..2]).is_err() && approach1(&[]).is_err());
    }
}
