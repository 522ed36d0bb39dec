//! Batch size and learning rate by published rules. Rules of thumb: each was fitted on its authors' data and sizes.

use serde::Serialize;

/// A learning rate and a batch in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Hyperparameters {
    /// Peak learning rate of AdamW.
    pub peak_lr: f64,
    /// Tokens in a batch.
    pub batch_tokens: f64,
}

/// Step Law: `lr = 1.79 N^-0.713 D^0.307`, batch `0.58 D^0.571` tokens, `n` without the vocabulary.
///
/// Source: Li et al. 2025, <https://arxiv.org/abs/2503.04715>.
pub fn step_law(n: f64, d: f64) -> Hyperparameters {
    Hyperparameters { peak_lr: 1.79 * n.powf(-0.713) * d.powf(0.307), batch_tokens: 0.58 * d.powf(0.571) }
}

/// DeepSeek's: `lr = 0.3118 C^-0.125`, batch `0.2920 C^0.3271` tokens.
///
/// Source: DeepSeek-AI 2024, section 3.1, <https://arxiv.org/abs/2401.02954>.
pub fn deepseek(flops: f64) -> Hyperparameters {
    Hyperparameters { peak_lr: 0.3118 * flops.powf(-0.125), batch_tokens: 0.2920 * flops.powf(0.3271) }
}

/// The batch in tokens beyond which larger ones save few steps, at a loss of so many nats: `2e8 / L^(1 / 0.21)`.
///
/// Source: Kaplan et al. 2020, equation 5.3, after McCandlish et al. 2018, <https://arxiv.org/abs/1812.06162>.
pub fn critical_batch(loss: f64) -> f64 {
    2e8 / loss.powf(1.0 / 0.21)
}

/// The simple noise scale `tr(Sigma) / |G|^2` from squared gradient norms at two batch sizes, `(batch, norm^2)` each:
/// `|G|^2 = (B_b |G_b|^2 - B_s |G_s|^2) / (B_b - B_s)`, `S = (|G_s|^2 - |G_b|^2) / (1/B_s - 1/B_b)`.
///
/// Numbers: both estimates are noisy; average them over steps before the division. `None` where `|G|^2` comes out not
/// above 0.
/// Source: McCandlish et al. 2018, appendix A.1.
pub fn noise_scale(small: (f64, f64), big: (f64, f64)) -> Option<f64> {
    let signal = (big.0 * big.1 - small.0 * small.1) / (big.0 - small.0);
    let noise = (small.1 - big.1) / (1.0 / small.0 - 1.0 / big.0);
    (signal > 0.0).then(|| noise / signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_law_is_near_the_best_of_its_own_grid() {
        // Parameters, tokens; best learning rate and batch in sequences of 2048 tokens, on a grid of factors of 2^0.5.
        for (n, d, lr, sequences) in [
            (215e6, 4e9, 0.00276, 128.0),
            (268e6, 5e9, 0.00195, 128.0),
            (429e6, 8e9, 0.00195, 128.0),
            (1.07e9, 20e9, 0.00138, 256.0),
            (1.07e9, 56.9e9, 0.00138, 256.0),
        ] {
            let found = step_law(n, d);
            assert!((found.peak_lr / lr).ln().abs() < 2_f64.ln(), "{n:e}, {d:e}: {found:?}");
            assert!((found.batch_tokens / (2048.0 * sequences)).ln().abs() < 2_f64.ln(), "{n:e}, {d:e}: {found:?}");
        }
        // 1.79 * 1e6^-0.713 * 1e7^0.307 = 1.79 * 5.273e-5 * 140.9 = 0.01330; 0.58 * 1e7^0.571 = 0.58 * 9931 = 5760.
        let small = step_law(1e6, 1e7);
        assert!((small.peak_lr - 0.01330).abs() < 1e-5 && (small.batch_tokens - 5760.0).abs() < 3.0, "{small:?}");
    }

    #[test]
    fn deepseeks_rule_and_kaplans_batch_by_hand() {
        // 1e20: 0.3118 * 10^-2.5 = 9.860e-4; 0.2920 * 10^6.542 = 1.0171e6. Kaplan at 3 nats: 2e8 / 3^4.7619 = 1.069e6.
        let found = deepseek(1e20);
        assert!((found.peak_lr - 9.860e-4).abs() < 1e-7 && (found.batch_tokens - 1.0171e6).abs() < 1e2, "{found:?}");
        assert!((critical_batch(3.0) / 1.069e6 - 1.0).abs() < 1e-3, "{}", critical_batch(3.0));
    }

    #[test]
    fn the_noise_scale_of_gradients_with_known_noise_is_recovered() {
        // E|G_B|^2 = |G|^2 + S / B with |G|^2 = 4 and S = 600.
        let at = |batch: f64| (batch, 4.0 + 600.0 / batch);
        assert!((noise_scale(at(8.0), at(64.0)).unwrap() - 150.0).abs() < 1e-9);
        assert_eq!(noise_scale((8.0, 10.0), (64.0, 1.0)), None);
    }
}
