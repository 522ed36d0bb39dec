//! Models that will be used a lot are best made smaller and trained longer.

use crate::search::minimum;
use crate::{Law, Optimum, ScalingError};
use serde::Serialize;

/// A model of a stated quality with what it takes to train and to serve it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Serving {
    /// Parameters and training tokens; `flops` are those of training alone.
    pub training: Optimum,
    /// Tokens that will be read and written after training.
    pub inference_tokens: f64,
    /// `6 N D_train + 2 N D_inference`.
    pub total_flops: f64,
}

impl Serving {
    /// A trained model with its cost of serving.
    pub fn new(training: Optimum, inference_tokens: f64) -> Self {
        let total_flops = training.flops + 2.0 * training.parameters * inference_tokens;
        Self { training, inference_tokens, total_flops }
    }
}

/// The cheapest model of quality `loss` when `inference_tokens` will be served: minimises
/// `6 N D_train + 2 N D_inference` subject to `L(N, D_train) = loss`.
///
/// Errors: a loss that the law never reaches.
/// Source: Sardana and Frankle 2023, equation 3, <https://arxiv.org/abs/2401.00448>.
pub fn cheapest(law: &Law, loss: f64, inference_tokens: f64) -> Result<Serving, ScalingError> {
    if loss.is_nan() || loss <= law.e {
        return Err(ScalingError::BelowFloor { loss, floor: law.e });
    }
    // Smaller models never reach the loss; much larger ones need hardly any text and cost more.
    let smallest = (law.a / (loss - law.e)).powf(1.0 / law.alpha).ln();
    let at = |log_n: f64| {
        let parameters = log_n.exp();
        let tokens = law.tokens_for_loss(parameters, loss);
        let flops = crate::training_flops(parameters, tokens);
        Serving::new(Optimum { parameters, tokens, flops, loss }, inference_tokens)
    };
    Ok(at(minimum(|log_n| at(log_n).total_flops.ln(), smallest + 1e-6, smallest + 12.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::{EPOCH, HOFFMANN};
    use proptest::prelude::*;

    /// What a model of so many parameters, trained as is best for its size and used for 2T tokens, could be replaced by.
    fn replaced(law: &Law, n: f64) -> (Serving, Serving) {
        let best = law.optimum_for_parameters(n);
        (Serving::new(best, 2e12), cheapest(law, best.loss, 2e12).unwrap())
    }

    fn near(found: f64, expected: f64, within: f64) {
        assert!((found - expected).abs() <= within, "{found} instead of {expected}");
    }

    #[test]
    fn the_papers_example_of_13b_is_reproduced() {
        let (plain, served) = replaced(&HOFFMANN, 13e9);
        near(plain.training.tokens, 617e9, 0.5e9);
        near(plain.training.loss, 2.0238, 1e-4);
        near(plain.total_flops, 1.002e23, 0.5e20);
        near(served.training.parameters, 7.12e9, 0.5e7);
        near(served.training.tokens, 1.295e12, 0.5e9);
        near(served.training.tokens / plain.training.tokens, 2.10, 0.005);
        near(served.total_flops, 8.38e22, 0.5e20);
        near(served.total_flops / plain.total_flops - 1.0, -0.163, 0.5e-3);
        // The paper prints 1.7e22 saved.
        near(plain.total_flops - served.total_flops, 1.65e22, 0.1e22);
    }

    #[test]
    fn the_same_under_epochs_constants_and_for_7b() {
        // The quality is that of Hoffmann's 13B; under Epoch's constants its own loss.
        let (plain, served) = replaced(&EPOCH, 13e9);
        near(served.training.parameters, 6.10e9, 0.5e7);
        near(served.training.tokens, 737e9, 0.5e9);
        near(served.training.tokens / plain.training.tokens, 2.83, 0.005);
        near(served.total_flops / plain.total_flops - 1.0, -0.29, 0.005);
        let (plain, served) = replaced(&HOFFMANN, 7e9);
        near(served.training.parameters, 3.15e9, 0.5e7);
        near(served.training.tokens, 858e9, 0.5e9);
        near(served.total_flops / plain.total_flops - 1.0, -0.288, 0.5e-3);
    }

    #[test]
    fn a_loss_below_the_floor_is_refused() {
        assert!(matches!(cheapest(&EPOCH, 1.8, 1e9), Err(ScalingError::BelowFloor { .. })));
        assert!(cheapest(&EPOCH, f64::NAN, 1e9).is_err());
    }

    proptest! {
        #[test]
        fn without_demand_it_is_the_optimum_and_demand_makes_it_smaller(log_c in 16.0..25.0f64, demand in 0.01..100.0f64) {
            let best = EPOCH.optimum(10_f64.powf(log_c));
            let idle = cheapest(&EPOCH, best.loss, 0.0).unwrap();
            prop_assert!((idle.training.parameters / best.parameters).ln().abs() < 1e-3);
            let served = cheapest(&EPOCH, best.loss, demand * best.tokens).unwrap();
            prop_assert!(served.training.parameters < best.parameters);
            prop_assert!((EPOCH.loss(served.training.parameters, served.training.tokens) - best.loss).abs() < 1e-9);
        }
    }
}
