//! Training on the same text more than once.

use crate::search::minimum;
use crate::{Law, Optimum};

/// Repetitions over which the worth of repeating decays to 1/e: `R_D*`.
pub const REPEATED_TOKENS: f64 = 15.387_756;
/// The same for parameters beyond what the unique tokens need: `R_N*`.
pub const EXCESS_PARAMETERS: f64 = 5.309_743;

/// Tokens that `tokens` are worth where only `unique` differ:
/// `D' = U + U R_D* (1 - exp(-R_D / R_D*))` with `R_D = D / U - 1`, the repetitions.
///
/// Law: `D` itself up to `U`; never above `U (1 + R_D*)`.
/// Source: Muennighoff et al. 2023, equation 5, <https://arxiv.org/abs/2305.16264>.
pub fn effective_tokens(tokens: f64, unique: f64) -> f64 {
    effective(tokens, unique, REPEATED_TOKENS)
}

/// `base + base s (1 - exp(-r / s))` with `r = amount / base - 1`.
fn effective(amount: f64, base: f64, scale: f64) -> f64 {
    if amount <= base {
        return amount;
    }
    base + base * scale * -(-(amount / base - 1.0) / scale).exp_m1()
}

/// Parameters that `n` are worth where only `unique` tokens differ: those beyond the best number for `unique` tokens,
/// `U_N = min(N, N*(U))`, count for less.
///
/// Source: Muennighoff et al. 2023, equation 6.
pub fn effective_parameters(law: &Law, n: f64, unique: f64) -> f64 {
    let needed = law.optimum_for_tokens(unique).parameters.min(n);
    effective(n, needed, EXCESS_PARAMETERS)
}

/// Loss of `n` parameters after `tokens` tokens of which only `unique` differ.
///
/// Law: `law.loss(n, tokens)` where all are unique and the model is not larger than they need.
pub fn loss(law: &Law, n: f64, tokens: f64, unique: f64) -> f64 {
    let unique = unique.min(tokens);
    law.loss(effective_parameters(law, n, unique), effective_tokens(tokens, unique))
}

/// The best use of `flops` operations where only `unique` tokens differ.
pub fn optimum(law: &Law, flops: f64, unique: f64) -> Optimum {
    let of = |log_n: f64| loss(law, log_n.exp(), flops / (6.0 * log_n.exp()), unique);
    let free = law.optimum(flops);
    if free.tokens <= unique {
        return free;
    }
    let middle = free.parameters.ln();
    let parameters = minimum(of, middle - 7.0, middle + 7.0).exp();
    Optimum { parameters, tokens: flops / (6.0 * parameters), flops, loss: of(parameters.ln()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::{EPOCH, MUENNIGHOFF};
    use proptest::prelude::*;

    #[test]
    fn two_losses_of_the_papers_notebook_are_met() {
        for (n, d, unique, expected) in
            [(6.34e9, 242e9, 25e9, 2.225_644_088_998_447_7), (8.67e9, 178e9, 25e9, 2.226_963_407_508_786_7)]
        {
            let found = loss(&MUENNIGHOFF, n, d, unique);
            assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
        }
    }

    #[test]
    fn the_table_of_effective_epochs_is_reproduced() {
        for (epochs, expected, digits) in
            [(2.0, 1.968, 3), (4.0, 3.726, 3), (8.0, 6.62, 2), (16.0, 10.58, 2), (40.0, 15.2, 1), (100.0, 16.4, 1)]
        {
            let found = effective_tokens(epochs * 7e9, 7e9) / 7e9;
            assert!((found - expected).abs() <= 0.5 * 10_f64.powi(-digits), "{epochs} epochs: {found}");
        }
        assert!((effective_tokens(1e20, 1e9) / 1e9 - 16.387_756).abs() < 1e-9);
    }

    #[test]
    fn with_text_enough_nothing_changes() {
        let free = EPOCH.optimum(1e20);
        assert_eq!(optimum(&EPOCH, 1e20, free.tokens * 1.01), free);
        assert!((loss(&EPOCH, free.parameters, free.tokens, 1e15) - free.loss).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn scarce_text_costs_and_its_best_use_is_no_worse_than_any_other(
            log_c in 15.0..24.0f64, scarcity in 0.001..0.9f64, shift in -3.0..3.0f64,
        ) {
            let free = MUENNIGHOFF.optimum(10_f64.powf(log_c));
            let unique = scarcity * free.tokens;
            let best = optimum(&MUENNIGHOFF, free.flops, unique);
            prop_assert!(best.loss >= free.loss - 1e-12);
            let n = best.parameters * shift.exp();
            prop_assert!(loss(&MUENNIGHOFF, n, free.flops / (6.0 * n), unique) >= best.loss - 1e-9);
        }
    }
}
