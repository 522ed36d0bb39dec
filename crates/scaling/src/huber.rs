//! What a fit minimises: `sum Huber_delta(LSE(a - alpha ln N, b - beta ln D, e) - ln L)` with `A = exp a`, `B = exp b`,
//! `E = exp e`.
//!
//! Source: Hoffmann et al. 2022, equation 3, <https://arxiv.org/abs/2203.15556>.

use crate::{Law, Point};

/// `a, b, e, alpha, beta`.
pub type Theta = [f64; 5];

/// The law of these parameters.
pub fn law(theta: &Theta) -> Law {
    let [a, b, e, alpha, beta] = *theta;
    Law { e: e.exp(), a: a.exp(), b: b.exp(), alpha, beta }
}

/// The parameters of this law.
pub fn theta(law: &Law) -> Theta {
    [law.a.ln(), law.b.ln(), law.e.ln(), law.alpha, law.beta]
}

/// Points in logarithms, each counted as often as its weight says.
#[derive(Clone, Debug)]
pub struct Objective {
    /// `ln N`, `ln D`, `ln L`, weight.
    rows: Vec<(f64, f64, f64, f64)>,
    delta: f64,
}

impl Objective {
    /// Every point once.
    pub fn new(points: &[Point], delta: f64) -> Self {
        Self::weighted(points, &vec![1.0; points.len()], delta)
    }

    /// Point number `i` counts `weights[i]` times; those of weight 0 cost nothing.
    pub fn weighted(points: &[Point], weights: &[f64], delta: f64) -> Self {
        let row = |(point, weight): (&Point, &f64)| (point.n.ln(), point.d.ln(), point.loss.ln(), *weight);
        Self { rows: points.iter().zip(weights).filter(|(_, weight)| **weight > 0.0).map(row).collect(), delta }
    }

    /// The sum, and its gradient: with `p` the softmax of the three terms and `g` the residual clipped to `delta`,
    /// `d_a = sum g p1`, `d_b = sum g p2`, `d_e = sum g p3`, `d_alpha = -sum g p1 ln N`, `d_beta = -sum g p2 ln D`.
    pub fn evaluate(&self, theta: &Theta, gradient: &mut Theta) -> f64 {
        let [a, b, e, alpha, beta] = *theta;
        *gradient = [0.0; 5];
        let mut sum = 0.0;
        for (ln_n, ln_d, ln_l, weight) in &self.rows {
            let (x, y) = (a - alpha * ln_n, b - beta * ln_d);
            let top = x.max(y).max(e);
            let (p1, p2, p3) = ((x - top).exp(), (y - top).exp(), (e - top).exp());
            let total = p1 + p2 + p3;
            let residual = top + total.ln() - ln_l;
            let clipped = residual.clamp(-self.delta, self.delta);
            // delta (|r| - delta / 2) beyond delta, r^2 / 2 within.
            sum += weight * clipped.abs() * (residual.abs() - 0.5 * clipped.abs());
            let g = weight * clipped / total;
            gradient[0] += g * p1;
            gradient[1] += g * p2;
            gradient[2] += g * p3;
            gradient[3] -= g * p1 * ln_n;
            gradient[4] -= g * p2 * ln_d;
        }
        sum
    }

    /// The sum alone.
    pub fn value(&self, law: &Law) -> f64 {
        self.evaluate(&theta(law), &mut [0.0; 5])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_residuals_by_hand() {
        // L(1, 1) = 1 + 2 + 1 = 4 under this law, whatever the exponents.
        let law = Law { e: 1.0, a: 2.0, b: 1.0, alpha: 0.3, beta: 0.4 };
        let at = |loss: f64| Objective::new(&[Point { n: 1.0, d: 1.0, loss }], 1e-3).value(&law);
        assert!(at(4.0).abs() < 1e-18);
        // A residual of 5e-4 is inside: r^2 / 2; one of 0.01 outside: delta (r - delta / 2).
        assert!((at(4.0 * (-5e-4_f64).exp()) - 0.5 * 25e-8).abs() < 1e-12);
        assert!((at(4.0 * 0.01_f64.exp()) - 1e-3 * (0.01 - 5e-4)).abs() < 1e-12);
    }

    #[test]
    fn the_gradient_is_the_derivative() {
        let points: Vec<Point> = (1..12)
            .map(|i| Point { n: 1e6 * i as f64, d: 1e8 / (i % 4 + 1) as f64, loss: 2.0 + 0.3 * (i % 5) as f64 })
            .collect();
        let weights: Vec<f64> = (1..12).map(|i| f64::from(i % 3)).collect();
        for delta in [1e-3, 0.2, 10.0] {
            let objective = Objective::weighted(&points, &weights, delta);
            let theta = [4.0, 5.0, 0.3, 0.31, 0.27];
            let mut gradient = [0.0; 5];
            objective.evaluate(&theta, &mut gradient);
            for i in 0..5 {
                let at = |h: f64| {
                    let mut moved = theta;
                    moved[i] += h;
                    objective.evaluate(&moved, &mut [0.0; 5])
                };
                let numeric = (at(1e-6) - at(-1e-6)) / 2e-6;
                let gap = (numeric - gradient[i]).abs() / (1e-3 * delta + numeric.abs() + gradient[i].abs());
                assert!(gap < 1e-6, "delta {delta}, {i}: {numeric} and {}", gradient[i]);
            }
        }
    }

    #[test]
    fn a_weight_of_two_is_the_point_twice() {
        let (p, q) = (Point { n: 1e6, d: 1e8, loss: 3.0 }, Point { n: 2e6, d: 3e8, loss: 2.5 });
        let law = crate::law::EPOCH;
        let weighted = Objective::weighted(&[p, q], &[2.0, 0.0], 1e-3).value(&law);
        assert!((weighted - Objective::new(&[p, p], 1e-3).value(&law)).abs() < 1e-15);
    }
}
