//! Loss on text, without learning from it.

use crate::TrainError;
use crate::sampler::in_order;
use cavy_model::Model;
use cavy_text::TokenStore;

/// Mean loss of the first `eval_iter` batches (0: all) of `store`, in nats.
///
/// Batches come in the order of the text, windows of `context` tokens side by side, so that evaluations of different
/// steps are of the same tokens. Dropout is off and nothing is recorded for a backward pass.
///
/// Numbers: the sum over tokens in f64.
/// Errors: the text has not one window; `split` names it.
/// Source: `calc_loss_loader` in chapter 5 of Raschka's LLMs-from-scratch, which averages over batches; here a last
/// batch that is not full counts by its tokens.
pub fn mean_loss(
    model: &Model,
    split: &'static str,
    store: &TokenStore,
    (context, batch_size, eval_iter): (usize, usize, usize),
) -> Result<f64, TrainError> {
    let model = model.valid(); // The same weights without autodiff; no copy.
    let (mut sum, mut tokens) = (0.0, 0);
    for batch in in_order(split, store, (context, batch_size, eval_iter))? {
        let weights = vec![1.0; batch.tokens()];
        let logprobs = model.loss(&batch.pass(None), &batch.targets, &weights).logprobs;
        sum -= logprobs.iter().map(|&logprob| f64::from(logprob)).sum::<f64>();
        tokens += batch.tokens();
    }
    Ok(sum / tokens as f64)
}

/// A loss in nats for each token as bits for each byte of the text behind `store`, if that is known: the same for any
/// tokenizer.
///
/// `loss / ln 2 * tokens / bytes`.
pub fn bits_per_byte(loss: f64, store: &TokenStore) -> Option<f64> {
    let bytes = store.text_bytes();
    (bytes > 0).then(|| loss / std::f64::consts::LN_2 * store.len() as f64 / bytes as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_model;

    #[test]
    fn a_model_without_training_is_as_good_as_guessing() {
        let store = TokenStore::from_tokens((0..200).map(|i| i * 7 % 19).collect(), 19, 400).unwrap();
        let of = |eval_iter| mean_loss(&tiny_model(0.5), "validation", &store, (8, 4, eval_iter)).unwrap();
        // Small weights make nearly equal logits, so the loss is near ln 19 = 2.944.
        assert!((of(0) - 19f64.ln()).abs() < 0.05, "{}", of(0));
        // Dropout is off, or two evaluations would differ.
        assert_eq!(of(0), of(0));
        assert_ne!(of(1), of(0));
        assert_eq!(of(6), of(0));
    }

    #[test]
    fn two_bytes_a_token_halve_the_bits() {
        let store = TokenStore::from_tokens(vec![0; 100], 2, 200).unwrap();
        assert_eq!(bits_per_byte(std::f64::consts::LN_2, &store), Some(0.5));
        assert_eq!(bits_per_byte(1.0, &TokenStore::from_tokens(vec![0], 1, 0).unwrap()), None);
    }
}
