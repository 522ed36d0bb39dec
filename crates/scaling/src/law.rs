//! The parametric law `L(N, D) = E + A / N^alpha + B / D^beta` and what follows from it in closed form.

use serde::{Deserialize, Serialize};

/// Constants of the law.
///
/// Source: Hoffmann et al. 2022, equation 2, <https://arxiv.org/abs/2203.15556>.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Law {
    /// Loss that neither parameters nor tokens take away, in nats a token.
    #[serde(rename = "E")]
    pub e: f64,
    /// Weight of what too few parameters cost.
    #[serde(rename = "A")]
    pub a: f64,
    /// Weight of what too few tokens cost.
    #[serde(rename = "B")]
    pub b: f64,
    /// Exponent of the parameters.
    pub alpha: f64,
    /// Exponent of the tokens.
    pub beta: f64,
}

/// A model and a number of tokens that spend a budget best, with the loss to expect.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Optimum {
    /// Parameters, `N`.
    pub parameters: f64,
    /// Tokens, `D`.
    pub tokens: f64,
    /// `6 N D`.
    pub flops: f64,
    /// Expected loss, in nats a token.
    pub loss: f64,
}

impl Optimum {
    /// Tokens for each parameter.
    pub fn tokens_per_parameter(&self) -> f64 {
        self.tokens / self.parameters
    }
}

/// Hoffmann et al. 2022 as printed in their section D.3.
pub const HOFFMANN_PRINTED: Law = Law { e: 1.69, a: 406.4, b: 410.7, alpha: 0.34, beta: 0.28 };

/// Hoffmann et al. 2022, the less rounded constants of their TeX source, which Sardana et al. use.
pub const HOFFMANN: Law = Law { e: 1.6934, a: 406.40, b: 410.72, alpha: 0.339_170_84, beta: 0.284_908_3 };

/// The replication by Besiroglu et al. 2024, as printed, <https://arxiv.org/abs/2404.10102>.
pub const EPOCH: Law = Law { e: 1.8172, a: 482.01, b: 2085.43, alpha: 0.3478, beta: 0.3658 };

/// The true optimum on the 240 points of Besiroglu et al.
pub const EPOCH_REFIT: Law = Law { e: 1.817_218, a: 477.826, b: 2143.417, alpha: 0.347_310_5, beta: 0.367_172_4 };

/// Muennighoff et al. 2023, fitted on C4 with one exponent for both, <https://arxiv.org/abs/2305.16264>. Their notebook
/// has `a = 6.255414`, `b = 7.3049974`, `e = 0.6254804`, of which these are the exponentials.
pub const MUENNIGHOFF: Law = Law {
    e: 1.869_143_678_405_485_8,
    a: 520.824_951_659_918_7,
    b: 1_487.716_093_782_861,
    alpha: 0.352_659_6,
    beta: 0.352_659_6,
};

/// Every published law by the name users give it.
pub const PUBLISHED: [(&str, Law); 5] = [
    ("epoch", EPOCH),
    ("epoch-refit", EPOCH_REFIT),
    ("hoffmann", HOFFMANN),
    ("hoffmann-printed", HOFFMANN_PRINTED),
    ("muennighoff", MUENNIGHOFF),
];

impl Law {
    /// A published law by name.
    pub fn published(name: &str) -> Option<Self> {
        PUBLISHED.into_iter().find(|(known, _)| *known == name).map(|(_, law)| law)
    }

    /// Expected loss of `n` parameters trained on `d` tokens.
    pub fn loss(&self, n: f64, d: f64) -> f64 {
        self.e + self.a / n.powf(self.alpha) + self.b / d.powf(self.beta)
    }

    /// `G = (alpha A / (beta B))^(1 / (alpha + beta))`: at the optimum `N = G (C/6)^(beta / (alpha + beta))`.
    pub fn balance(&self) -> f64 {
        (self.alpha * self.a / (self.beta * self.b)).powf(1.0 / (self.alpha + self.beta))
    }

    /// Exponent with which the best number of parameters grows with the budget: `beta / (alpha + beta)`.
    pub fn exponent(&self) -> f64 {
        self.beta / (self.alpha + self.beta)
    }

    /// The best use of `flops` operations.
    ///
    /// Law: no other `n` has a lower `loss(n, flops / 6 n)`.
    /// Source: Hoffmann et al. 2022, equation 4.
    pub fn optimum(&self, flops: f64) -> Optimum {
        let parameters = self.balance() * (flops / 6.0).powf(self.exponent());
        let tokens = (flops / 6.0).powf(1.0 - self.exponent()) / self.balance();
        Optimum { parameters, tokens, flops, loss: self.loss(parameters, tokens) }
    }

    /// The budget for which `n` parameters are best: the inverse of [`Law::optimum`].
    pub fn optimum_for_parameters(&self, n: f64) -> Optimum {
        self.optimum(6.0 * (n / self.balance()).powf(1.0 / self.exponent()))
    }

    /// The budget for which `d` tokens are best.
    pub fn optimum_for_tokens(&self, d: f64) -> Optimum {
        self.optimum(6.0 * (d * self.balance()).powf(1.0 / (1.0 - self.exponent())))
    }

    /// Tokens with which `n` parameters reach `loss`; infinite where they never do.
    pub fn tokens_for_loss(&self, n: f64, loss: f64) -> f64 {
        let left = loss - self.e - self.a / n.powf(self.alpha);
        if left > 0.0 { (self.b / left).powf(1.0 / self.beta) } else { f64::INFINITY }
    }

    /// Loss at `ratio` tokens a parameter for a budget of `flops`, the form in which over-training is discussed:
    /// `E + (a M^eta + b M^-eta) C^-eta` where `alpha = beta = 2 eta`, `a = A 6^eta`, `b = B 6^eta`.
    ///
    /// Source: Gadre et al. 2024, equation 4, <https://arxiv.org/abs/2403.08540>.
    pub fn loss_at_ratio(&self, flops: f64, ratio: f64) -> f64 {
        let n = (flops / (6.0 * ratio)).sqrt();
        self.loss(n, ratio * n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether `found` is what a table prints with so many significant digits, up to one unit of the last.
    fn prints_as(found: f64, printed: f64, digits: i32) -> bool {
        let unit = 10_f64.powi(printed.abs().log10().floor() as i32 + 1 - digits);
        (found - printed).abs() <= unit
    }

    #[test]
    fn the_rule_of_print_is_strict() {
        assert!(prints_as(80.59, 80.5, 3) && !prints_as(80.61, 80.5, 3) && !prints_as(f64::NAN, 80.5, 3));
    }

    #[test]
    fn the_table_of_optima_is_reproduced() {
        // Budget; Epoch: N, D (three digits), D/N, L; Hoffmann unrounded: N, D.
        for (flops, n, d, ratio, loss, hoffmann_n, hoffmann_d) in [
            (1e18, 80.5e6, 2.07e9, 25.7, 3.4905, 94.7e6, 1.76e9),
            (1e20, 853.5e6, 19.5e9, 22.9, 2.5534, 774.9e6, 21.5e9),
            (1e22, 9.05e9, 184e9, 20.4, 2.1411, 6.34e9, 263e9),
            (5.76e23, 72.3e9, 1.33e12, 18.4, 1.9744, 40.4e9, 2.38e12),
            (1e24, 95.9e9, 1.74e12, 18.1, 1.9597, 51.9e9, 3.21e12),
        ] {
            let best = EPOCH.optimum(flops);
            let digits = if n == 853.5e6 { 4 } else { 3 };
            assert!(prints_as(best.parameters, n, digits), "{flops:e}: {best:?}");
            assert!(prints_as(best.tokens, d, 3), "{flops:e}: {best:?}");
            assert!(prints_as(best.tokens_per_parameter(), ratio, 3), "{flops:e}: {best:?}");
            assert!(prints_as(best.loss, loss, 5), "{flops:e}: {best:?}");
            let best = HOFFMANN.optimum(flops);
            let digits = if hoffmann_n == 774.9e6 { 4 } else { 3 };
            assert!(prints_as(best.parameters, hoffmann_n, digits), "{flops:e}: {best:?}");
            assert!(prints_as(best.tokens, hoffmann_d, 3), "{flops:e}: {best:?}");
        }
    }

    #[test]
    fn the_optimum_that_muennighoff_print_is_met_to_the_unit() {
        let best = MUENNIGHOFF.optimum(5.76e23);
        assert!((best.parameters - 69_962_173_314.0).abs() < 1.0, "{best:?}");
        assert!((best.tokens - 1_372_170_066_384.0).abs() < 2.0, "{best:?}");
    }

    #[test]
    fn exponents_are_those_of_the_papers() {
        let expected = [0.5126, 0.5139, 0.4565, 0.4516, 0.5];
        for ((name, law), expected) in PUBLISHED.into_iter().zip(expected) {
            assert!((law.exponent() - expected).abs() < 5.1e-5, "{name}: {}", law.exponent());
        }
    }

    #[test]
    fn gadres_form_is_the_same_law() {
        let law = Law { alpha: 0.3, beta: 0.3, ..EPOCH };
        let (eta, flops, ratio) = (0.15, 1e20_f64, 37.0_f64);
        let (a, b) = (law.a * 6_f64.powf(eta), law.b * 6_f64.powf(eta));
        let expected = law.e + (a * ratio.powf(eta) + b * ratio.powf(-eta)) * flops.powf(-eta);
        assert!((law.loss_at_ratio(flops, ratio) - expected).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn no_other_size_is_better(
            alpha in 0.1..0.9f64, beta in 0.1..0.9f64, a in 1.0..1e3f64, b in 1.0..1e4f64,
            log_c in 12.0..25.0f64, shift in prop_oneof![-3.0..-0.01f64, 0.01..3.0f64],
        ) {
            let law = Law { e: 1.5, a, b, alpha, beta };
            let best = law.optimum(10_f64.powf(log_c));
            prop_assert!((crate::training_flops(best.parameters, best.tokens) / best.flops - 1.0).abs() < 1e-9);
            let n = best.parameters * shift.exp();
            prop_assert!(law.loss(n, best.flops / (6.0 * n)) > best.loss);
        }

        #[test]
        fn inverses_undo(log_c in 12.0..25.0f64) {
            for (_, law) in PUBLISHED {
                let best = law.optimum(10_f64.powf(log_c));
                for other in [law.optimum_for_parameters(best.parameters), law.optimum_for_tokens(best.tokens)] {
                    prop_assert!((other.flops / best.flops - 1.0).abs() < 1e-9);
                }
                let d = law.tokens_for_loss(best.parameters, best.loss);
                prop_assert!((d / best.tokens - 1.0).abs() < 1e-6);
            }
        }
    }
}
