//! The frequencies of rotary positions, as a model's `config.json` scales them.

use crate::llama_config::{LlamaConfig, RopeScaling};
use std::sync::Arc;

/// Rotary positions of a model.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    /// Angle of pair `i` at position 1, `(E / 2)`.
    pub(crate) inv_freq: Arc<[f32]>,
    /// Factor of queries and of keys, 1 but for `yarn`.
    pub(crate) factor: f64,
}

/// The frequencies and the factor of a model.
pub(crate) fn rope_of(config: &LlamaConfig) -> Rope {
    let (dim, theta) = (config.head_dim as f64, config.rope_theta);
    let plain: Vec<f64> = (0..config.head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / dim)).collect();
    let (inv_freq, factor) = match &config.rope_scaling {
        RopeScaling::Default => (plain, 1.0),
        RopeScaling::Linear { factor } => (plain.into_iter().map(|f| f / factor).collect(), 1.0),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            let ends = (*low_freq_factor, *high_freq_factor);
            let original = *original_max_position_embeddings as f64;
            (plain.into_iter().map(|f| llama3(f, *factor, ends, original)).collect(), 1.0)
        }
        RopeScaling::Yarn { factor, beta_fast, beta_slow, attention_factor, original_max_position_embeddings } => {
            let original = *original_max_position_embeddings as f64;
            let scaled = yarn(&plain, *factor, (*beta_fast, *beta_slow), dim, theta, original);
            (scaled, attention_factor.unwrap_or(0.1 * factor.ln() + 1.0))
        }
    };
    Rope { inv_freq: inv_freq.into_iter().map(|f| f as f32).collect(), factor }
}

/// Low frequencies, of which less than `low` turns fit the original context, are divided by `factor`; high ones, with
/// more than `high` turns, stay; between them the two mix.
///
/// Source: Hugging Face's `_compute_llama3_parameters`, after Meta's `apply_scaling` of Llama 3.1.
fn llama3(f: f64, factor: f64, (low, high): (f64, f64), original: f64) -> f64 {
    let turns = original * f / std::f64::consts::TAU;
    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
    (1.0 - kept) * f / factor + kept * f
}

/// Pairs that turn more than `beta_fast` times in the original context stay, pairs that turn less than `beta_slow`
/// times are divided by `factor`, with a ramp over the dimensions between.
///
/// Source: Peng et al. 2023, <https://arxiv.org/abs/2309.00071>, equations 17 to 21; the rounding of the ramp's ends as
/// in Hugging Face's `_compute_yarn_parameters`.
fn yarn(plain: &[f64], factor: f64, (fast, slow): (f64, f64), dim: f64, theta: f64, original: f64) -> Vec<f64> {
    let dimension_of = |turns: f64| dim * (original / (turns * std::f64::consts::TAU)).ln() / (2.0 * theta.ln());
    let low = dimension_of(fast).floor().max(0.0);
    let high = dimension_of(slow).ceil().min(dim - 1.0);
    let width = if low == high { 0.001 } else { high - low };
    let scaled = |(i, f): (usize, &f64)| {
        let slowed = ((i as f64 - low) / width).clamp(0.0, 1.0);
        f / factor * slowed + f * (1.0 - slowed)
    };
    plain.iter().enumerate().map(scaled).collect()
}
