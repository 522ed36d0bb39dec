//! One optimizer step: forward and backward over its micro-batches, clip, update.

use crate::metrics::Metrics;
use crate::objectives::{Loss, PassSettings, Tally};
use crate::optimizer::Optimizer;
use cavy_model::{Gradients, Model};
use cavy_text::rng::hash3;

/// Separates dropout's random numbers from others of the same seed.
const PURPOSE: u64 = 0xD20F;

/// What a step is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepSettings {
    /// Learning rate.
    pub lr: f64,
    /// Largest global L2 norm of the gradients, if they are clipped.
    pub max_norm: Option<f64>,
    /// Number of the step, counted from 0, and the run's seed: which activations dropout zeroes.
    pub step: usize,
    /// See `step`.
    pub seed: u64,
    /// Recompute activations in the backward pass.
    pub recompute: bool,
}

/// What a step found.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// Mean loss of the step by weight: of its tokens, in nats, where each has the weight of one.
    pub loss: f64,
    /// Global L2 norm of the gradients.
    pub grad_norm: f64,
    /// The same after clipping.
    pub grad_norm_clipped: f64,
    /// Largest absolute value of a single gradient before clipping.
    pub grad_max: f64,
    /// Tokens of the step.
    pub tokens: usize,
    /// Tokens that the model computed.
    pub computed_tokens: usize,
    /// Whether gradients were scaled down.
    pub clipped: bool,
    /// Whether loss or norm was not finite, so that nothing was updated.
    pub skipped: bool,
    /// Means of what else the loss found.
    pub metrics: Metrics,
}

/// The factor that brings gradients of `norm` down to `max_norm`: `min(1, max_norm / (norm + 1e-6))`.
///
/// Source: `torch.nn.utils.clip_grad_norm_`.
pub fn clip_scale(norm: f64, max_norm: Option<f64>) -> f64 {
    max_norm.map_or(1.0, |max_norm| (max_norm / (norm + 1e-6)).min(1.0))
}

/// One optimizer step.
///
/// Every token (example, pair) has the weight of one in all of the step, whichever micro-batch it is in: `k`
/// micro-batches of `n` windows are one of `k n`. A step whose loss or norm is not finite changes neither model nor optimizer.
///
/// Numbers: losses are summed in f64 over the tokens in order; gradients of micro-batches in f32.
/// Law: accumulation is exact in tokens, up to the rounding of f32 sums.
///
/// Panics: if nothing of the step carries loss.
pub fn step<L: Loss>(
    model: Model,
    optimizer: &mut Optimizer,
    loss: &L,
    micro_batches: &[L::Batch],
    settings: &StepSettings,
) -> (Model, StepReport) {
    let weight: f64 = micro_batches.iter().map(|batch| loss.weight(batch)).sum();
    assert!(weight > 0.0, "a step has something that carries loss");
    let share = 1.0 / weight as f32;
    let mut gradients = Gradients::default();
    let mut tally = Tally::default();
    for (index, batch) in micro_batches.iter().enumerate() {
        let dropout_key = hash3(settings.seed ^ PURPOSE, settings.step as u64, index as u64);
        let pass = PassSettings { dropout_key: Some(dropout_key), recompute: settings.recompute };
        let (found, counted) = loss.learn(&model, batch, share, pass);
        tally.merge(&counted);
        gradients.add(found);
    }
    let mean_loss = tally.mean(Tally::LOSS);
    let stats = gradients.stats();
    let grad_norm = stats.sum_squares.sqrt();
    let scale = clip_scale(grad_norm, settings.max_norm);
    let skipped = !mean_loss.is_finite() || !grad_norm.is_finite();
    let report = StepReport {
        loss: mean_loss,
        grad_norm,
        grad_norm_clipped: grad_norm * scale,
        grad_max: f64::from(stats.max_abs),
        tokens: micro_batches.iter().map(|batch| loss.tokens(batch)).sum(),
        computed_tokens: micro_batches.iter().map(|batch| loss.computed_tokens(batch)).sum(),
        clipped: !skipped && scale < 1.0,
        skipped,
        metrics: tally.metrics(""),
    };
    let model = if skipped { model } else { optimizer.update(model, gradients, settings.lr, scale) };
    (model, report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objectives::next_token::NextToken;
    use crate::sampler::Batch;
    use crate::settings::OptimizationSettings;
    use crate::testing::{batch, poisoned, tiny_model, values};

    fn settings(max_norm: Option<f64>) -> StepSettings {
        StepSettings { lr: 1e-2, max_norm, step: 3, seed: 1, recompute: false }
    }

    fn run(model: Model, batches: &[Batch], settings: &StepSettings) -> (Model, StepReport) {
        step(model, &mut Optimizer::new(&OptimizationSettings::default()), &NextToken, batches, settings)
    }

    fn split(whole: &Batch, parts: usize) -> Vec<Batch> {
        let rows = whole.segments.list().len() / parts;
        let tokens = whole.tokens() / parts;
        let part = |index: usize| Batch {
            ids: whole.ids[index * tokens..][..tokens].into(),
            targets: whole.targets[index * tokens..][..tokens].into(),
            trained: None,
            segments: std::sync::Arc::new(cavy_ops::Segments::uniform(rows, tokens / rows)),
        };
        (0..parts).map(part).collect()
    }

    #[test]
    fn the_factor_is_that_of_clip_grad_norm() {
        // 2 / (4 + 1e-6) and 1 where the norm is small enough.
        assert!((clip_scale(4.0, Some(2.0)) - 0.499_999_875).abs() < 1e-12);
        assert_eq!((clip_scale(1.0, Some(2.0)), clip_scale(4.0, None)), (1.0, 1.0));
        assert!(clip_scale(1.0, Some(1.0)) < 1.0);
    }

    #[test]
    fn micro_batches_add_up_to_the_batch_they_are_parts_of() {
        let whole = batch(12, 8);
        let (one, report) = run(tiny_model(0.0), std::slice::from_ref(&whole), &settings(None));
        for parts in [2, 4] {
            let (many, accumulated) = run(tiny_model(0.0), &split(&whole, parts), &settings(None));
            assert_eq!(accumulated.tokens, report.tokens);
            // f32 sums of about a hundred terms; forgetting the weights would be off by the number of parts.
            assert!((accumulated.loss / report.loss - 1.0).abs() < 1e-6);
            assert!((accumulated.grad_norm / report.grad_norm - 1.0).abs() < 1e-5);
            assert!((accumulated.grad_max / report.grad_max - 1.0).abs() < 1e-4);
            // AdamW's first update is about the sign of a gradient, so only gradients well above rounding are compared.
            let (one, many) = (values(&one), values(&many));
            let moved = one.iter().zip(&many).filter(|(a, b)| (*a - *b).abs() > 1e-4).count();
            assert!(moved * 1000 < one.len(), "{moved} of {}", one.len());
        }
    }

    #[test]
    fn micro_batches_of_different_sizes_count_by_their_tokens() {
        let whole = batch(6, 8);
        let parts = split(&whole, 3);
        let uneven = [parts[0].clone(), join(&parts[1], &parts[2])];
        let report = run(tiny_model(0.0), &uneven, &settings(None)).1;
        let expected = run(tiny_model(0.0), &[whole], &settings(None)).1;
        assert!((report.grad_norm / expected.grad_norm - 1.0).abs() < 1e-5, "{report:?}, {expected:?}");
        assert!((report.loss / expected.loss - 1.0).abs() < 1e-6);
    }

    fn join(a: &Batch, b: &Batch) -> Batch {
        let rows = a.segments.list().len() + b.segments.list().len();
        let tokens = a.tokens() + b.tokens();
        Batch {
            ids: a.ids.iter().chain(&*b.ids).copied().collect(),
            targets: a.targets.iter().chain(&*b.targets).copied().collect(),
            trained: None,
            segments: std::sync::Arc::new(cavy_ops::Segments::uniform(rows, tokens / rows)),
        }
    }

    #[test]
    fn clipping_brings_the_norm_down_and_says_so() {
        let report = run(tiny_model(0.0), &[batch(2, 8)], &settings(Some(0.01))).1;
        assert!(report.clipped && report.grad_norm > 0.1);
        assert!((report.grad_norm_clipped - 0.01).abs() < 1e-6);
        let free = run(tiny_model(0.0), &[batch(2, 8)], &settings(Some(1e6))).1;
        assert!(!free.clipped && free.grad_norm_clipped == free.grad_norm);
        assert_eq!(free.grad_norm, report.grad_norm);
    }

    #[test]
    fn a_step_that_is_not_finite_changes_nothing() {
        let model = poisoned(tiny_model(0.0));
        let before = values(&model);
        let mut optimizer = Optimizer::new(&OptimizationSettings::default());
        let (model, report) = step(model, &mut optimizer, &NextToken, &[batch(2, 8)], &settings(Some(1.0)));
        assert!(report.skipped && !report.clipped);
        assert!(!report.loss.is_finite() || !report.grad_norm.is_finite());
        assert_eq!(optimizer.updates(), 0);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&before), bits(&values(&model)));
    }

    #[test]
    fn dropout_differs_between_steps_and_recomputing_changes_no_bit() {
        let of = |step, recompute| {
            let settings = StepSettings { step, recompute, ..settings(Some(0.1)) };
            let (model, report) = run(tiny_model(0.3), &[batch(2, 8)], &settings);
            (values(&model), report.loss, report.grad_norm.to_bits())
        };
        assert_eq!(of(1, false), of(1, false));
        assert_ne!(of(1, false).1, of(2, false).1);
        assert_eq!(of(1, false), of(1, true));
    }
}
