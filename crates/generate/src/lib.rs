//! The one generator: from a prompt to the tokens that follow it.
//!
//! [`generate`] asks a model for the logits after a context and [`sampler`] for one of them, again and again. The whole
//! context is computed anew for every token; a decoder that keeps keys and values will replace that, with the same
//! interface.

pub mod sampler;

pub use sampler::{History, Sampled, Sampling};

use burn::module::Module;
use cavy_model::{Gpt2, Pass};
use cavy_ops::Segments;
use cavy_ops::kernels::random::uniform;
use std::sync::Arc;

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateSettings {
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// Decides every choice: the same seed gives the same tokens.
    pub seed: u64,
    /// The token that ends the text, if there is one. It is not part of the result.
    pub end_of_text: Option<u32>,
}

/// The tokens that follow `prompt`.
///
/// Ends after `max_tokens`, at the end-of-text token, or once `stop`, which is called with each new token, returns
/// true; that token is the last of the result. A context longer than the model knows loses its beginning.
///
/// Law: token `i` depends on the prompt, the tokens before it, `seed` and `i`, and on nothing else.
///
/// Panics: if `prompt` is empty, or one of its ids is not below the vocabulary's size.
pub fn generate(
    model: &Gpt2,
    prompt: &[u32],
    settings: &GenerateSettings,
    stop: &mut dyn FnMut(u32) -> bool,
) -> Vec<u32> {
    assert!(!prompt.is_empty(), "a prompt has at least one token");
    let model = model.valid(); // No autodiff, and no copy of the weights.
    let longest = model.config().context_length;
    let mut tokens = prompt.to_vec();
    for index in 0..settings.max_tokens {
        let context: Arc<[u32]> = tokens[tokens.len().saturating_sub(longest)..].into();
        let last = context.len() - 1;
        let segments = Arc::new(Segments::uniform(1, context.len()));
        let logits = model.logits(&Pass::new(context, segments, None), &[last]);
        let token = settings.sampling.choose(&logits, uniform(settings.seed, index as u64));
        if settings.end_of_text == Some(token) {
            break;
        }
        tokens.push(token);
        if stop(token) {
            break;
        }
    }
    tokens.split_off(prompt.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use cavy_model::Gpt2Config;

    fn model() -> Gpt2 {
        let config = Gpt2Config {
            vocab_size: 11,
            context_length: 6,
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 32,
            drop_rate: 0.5,
            qkv_bias: true,
            tie_word_embeddings: true,
            layer_norm_eps: 1e-5,
        };
        Gpt2::new(&config, 3, &Device::flex())
    }

    fn settings(temperature: f64, seed: u64) -> GenerateSettings {
        let sampling = Sampling { temperature, ..Sampling::default() };
        GenerateSettings { max_tokens: 20, sampling, seed, end_of_text: None }
    }

    fn run(settings: &GenerateSettings) -> Vec<u32> {
        generate(&model(), &[1, 2, 3], settings, &mut |_| false)
    }

    #[test]
    fn a_seed_decides_the_tokens_and_greedy_needs_none() {
        assert_eq!(run(&settings(2.0, 1)), run(&settings(2.0, 1)));
        assert_ne!(run(&settings(2.0, 1)), run(&settings(2.0, 2)));
        assert_eq!(run(&settings(0.0, 1)), run(&settings(0.0, 2)));
        assert_eq!(run(&settings(2.0, 1)).len(), 20);
    }

    #[test]
    fn a_shorter_run_is_the_beginning_of_a_longer_one() {
        let short = GenerateSettings { max_tokens: 9, ..settings(2.0, 5) };
        assert_eq!(run(&short), run(&settings(2.0, 5))[..9]);
    }

    #[test]
    fn only_the_last_tokens_of_a_context_that_is_too_long_count() {
        let long: Vec<u32> = vec![9, 8, 7, 1, 2, 3, 4, 5, 6];
        let of = |prompt: &[u32]| generate(&model(), prompt, &settings(2.0, 1), &mut |_| false);
        assert_eq!(of(&long), of(&long[3..]));
        assert_ne!(of(&long), of(&long[6..]));
    }

    #[test]
    fn generation_ends_where_it_is_told_to() {
        let all = run(&settings(2.0, 1));
        let third = all[2];
        let first_place = all.iter().position(|&token| token == third).unwrap();
        let ended = run(&GenerateSettings { end_of_text: Some(third), ..settings(2.0, 1) });
        assert_eq!(ended, all[..first_place]);
        let mut seen = Vec::new();
        let stopped = generate(&model(), &[1, 2, 3], &settings(2.0, 1), &mut |token| {
            seen.push(token);
            seen.len() == 4
        });
        assert_eq!((stopped.as_slice(), seen.as_slice()), (&all[..4], &all[..4]));
    }
}
