//! Cross-entropy of the next token: what pretraining and instruction tuning minimize.

use super::{Loss, PassSettings, Tally};
use crate::sampler::Batch;
use cavy_model::{Gradients, Model};
use cavy_ops::TargetScores;

/// `-ln p(target)` of every token that carries loss. Others cost no logits, and their log-probability counts as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextToken;

/// The sum of the losses, in f64, over the tokens in order, and how many targets are the likeliest token, over tokens of
/// such a weight.
fn tally(scores: &TargetScores, weight: f64) -> Tally {
    let loss = -scores.logprobs.iter().map(|&logprob| f64::from(logprob)).sum::<f64>();
    let likeliest = scores.likeliest.iter().filter(|&&likeliest| likeliest).count();
    Tally::of_loss(loss, weight).with("mean_token_accuracy", likeliest as f64, weight)
}

impl Loss for NextToken {
    type Batch = Batch;

    fn tokens(&self, batch: &Batch) -> usize {
        batch.tokens()
    }

    fn weight(&self, batch: &Batch) -> f64 {
        batch.trained_tokens() as f64
    }

    fn learn(&self, model: &Model, batch: &Batch, share: f32, pass: PassSettings) -> (Gradients, Tally) {
        let weights = batch.weights(share);
        let forward = batch.pass(pass.dropout_key);
        let (_, scores, found) = model.loss_and_gradients(&forward, &batch.targets, &weights, pass.recompute);
        (found, tally(&scores, self.weight(batch)))
    }

    fn measure(&self, model: &Model, batch: &Batch) -> Tally {
        let weights = batch.weights(1.0);
        tally(&model.loss(&batch.pass(None), &batch.targets, &weights).targets, self.weight(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::in_order;
    use crate::testing::tiny_model;
    use cavy_text::TokenStore;

    #[test]
    fn a_model_without_training_is_as_good_as_guessing() {
        let store = TokenStore::from_tokens((0..200).map(|i| i * 7 % 19).collect(), 19, 400).unwrap();
        let of = |eval_iter| {
            let model = tiny_model(0.5).valid();
            let mut tally = Tally::default();
            in_order("validation", &store, (8, 4, eval_iter))
                .unwrap()
                .for_each(|batch| tally.merge(&NextToken.measure(&model, &batch)));
            tally.mean("loss")
        };
        // Small weights make nearly equal logits, so the loss is near ln 19 = 2.944.
        assert!((of(0) - 19f64.ln()).abs() < 0.05, "{}", of(0));
        // Dropout is off, or two evaluations would differ.
        assert_eq!(of(0), of(0));
        assert_ne!(of(1), of(0));
        assert_eq!(of(6), of(0));
    }
}
