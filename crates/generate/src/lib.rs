//! The one generator: from prompts to the tokens that follow them.
//!
//! [`generate`] decodes a batch of prompts over one cache of keys and values, [`beam_search`] looks for the likeliest
//! text. Everything that decodes goes through here: samples of a training run, chat, evaluation.

mod beam;
mod chat;
mod engine;
pub mod sampler;

pub use beam::{BeamSettings, EarlyStopping, Hypothesis, beam_search};
pub use cavy_model::KvStorage;
pub use chat::Chat;
pub use sampler::{History, Sampled, Sampling};

use cavy_model::Model;

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateSettings {
    /// Most tokens of a completion.
    pub max_tokens: usize,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// Decides every choice: the same seed gives the same tokens.
    pub seed: u64,
    /// Tokens that end a completion. They are not part of it.
    pub stop_tokens: Vec<u32>,
    /// Completions of each prompt, from one pass over it.
    pub n: usize,
    /// Sequences that are decoded together.
    pub batch_size: usize,
    /// Whether keys and values are kept. Without, everything is computed anew for every token, for comparison.
    pub use_cache: bool,
    /// How they are stored.
    pub kv_storage: KvStorage,
}

impl Default for GenerateSettings {
    /// One completion of at most 128 tokens from the model's own distribution.
    fn default() -> Self {
        Self {
            max_tokens: 128,
            sampling: Sampling::default(),
            seed: 0,
            stop_tokens: Vec::new(),
            n: 1,
            batch_size: 8,
            use_cache: true,
            kv_storage: KvStorage::F32,
        }
    }
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Finish {
    /// A stop token, or the caller said so.
    Stop,
    /// It has as many tokens as were asked for.
    #[default]
    Length,
}

/// What follows a prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Log-probability of each in the distribution it was drawn from, after temperature and filters.
    pub logprobs: Vec<f64>,
    /// Log-probability of each in the model's own distribution.
    pub raw_logprobs: Vec<f64>,
    /// Why it ended.
    pub finish: Finish,
    /// The token that ended it, if one did.
    pub stop_token: Option<u32>,
}

impl Completion {
    fn push(&mut self, sampled: &Sampled) {
        self.tokens.push(sampled.token);
        self.logprobs.push(sampled.logprob);
        self.raw_logprobs.push(sampled.logprob_raw);
    }
}

/// The completions of each prompt, `n` of each, in order.
///
/// `on_token` is called with prompt, sample and token as they come, and ends that completion by returning true; the token
/// is then its last. A context longer than the model knows loses its beginning, and is computed anew from then on.
///
/// Law: token `i` of sample `s` of prompt `p` depends on the prompt, the tokens before it, `seed`, `p`, `s` and `i`, and
/// on nothing else: not on the other prompts, nor on how many are decoded together. Where all prompts begin with the same 32
/// or more tokens, these are computed once, and logits agree with those of a prompt alone to rounding.
///
/// Panics: if a prompt is empty, or one of its ids is not below the vocabulary's size.
pub fn generate(
    model: &Model,
    prompts: &[Vec<u32>],
    settings: &GenerateSettings,
    on_token: &mut dyn FnMut(usize, usize, u32) -> bool,
) -> Vec<Vec<Completion>> {
    generate_reporting(model, prompts, settings, on_token, &mut |_, _, _| {})
}

/// [`generate`], which calls `on_done` with prompt, sample and completion as they end.
pub fn generate_reporting(
    model: &Model,
    prompts: &[Vec<u32>],
    settings: &GenerateSettings,
    on_token: &mut dyn FnMut(usize, usize, u32) -> bool,
    on_done: &mut dyn FnMut(usize, usize, &Completion),
) -> Vec<Vec<Completion>> {
    assert!(prompts.iter().all(|prompt| !prompt.is_empty()), "a prompt has at least one token");
    engine::Engine::new(&model.valid(), settings, prompts).run(&mut engine::Calls { on_token, on_done })
}

/// Most bytes that the cache of [`generate`] takes; `None` where that overflows.
pub fn cache_bytes(model: &cavy_model::ModelConfig, prompts: &[usize], settings: &GenerateSettings) -> Option<usize> {
    let shape = model.kv_shape(settings.kv_storage);
    let capacities = engine::capacities(model.context_length(), prompts, settings);
    capacities.into_iter().try_fold(0_usize, |sum, capacity| sum.checked_add(shape.row_bytes(capacity)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use cavy_model::{Gpt2Config, WeightInit};

    fn small() -> Gpt2Config {
        Gpt2Config {
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
        }
    }

    fn model() -> Model {
        Model::new(&small().into(), WeightInit::Gpt2, 3, &Device::flex())
    }

    fn settings(temperature: f64, seed: u64) -> GenerateSettings {
        let sampling = Sampling { temperature, ..Sampling::default() };
        GenerateSettings { max_tokens: 20, sampling, seed, ..GenerateSettings::default() }
    }

    fn run(settings: &GenerateSettings) -> Vec<u32> {
        one(&[1, 2, 3], settings, &mut |_| false)
    }

    fn one(prompt: &[u32], settings: &GenerateSettings, stop: &mut dyn FnMut(u32) -> bool) -> Vec<u32> {
        let mut completions = generate(&model(), &[prompt.to_vec()], settings, &mut |_, _, token| stop(token));
        completions.remove(0).remove(0).tokens
    }

    #[test]
    fn a_completion_is_the_same_alone_in_a_batch_and_without_a_cache() {
        let prompts = vec![vec![1, 2, 3], vec![4], vec![5, 6, 7, 8, 9], vec![10, 0]];
        let many = |settings: &GenerateSettings| generate(&model(), &prompts, settings, &mut |_, _, _| false);
        for n in [1, 3, 6] {
            let base = GenerateSettings { n, batch_size: 24, ..settings(1.5, 3) };
            let expected = many(&base);
            assert!(expected.iter().all(|samples| samples.len() == n));
            for batch_size in [1, 2, 3, 17] {
                assert_eq!(many(&GenerateSettings { batch_size, ..base.clone() }), expected, "{n} {batch_size}");
            }
            let tokens = |all: Vec<Vec<Completion>>| -> Vec<Vec<u32>> {
                all.into_iter().flatten().map(|completion| completion.tokens).collect()
            };
            let uncached = many(&GenerateSettings { use_cache: false, ..base.clone() });
            assert_eq!(tokens(uncached), tokens(expected.clone()));
            // Later prompts do not depend on earlier ones, nor the first sample on how many there are.
            let first = generate(&model(), &prompts[..1], &GenerateSettings { n: 1, ..base }, &mut |_, _, _| false);
            assert_eq!(first[0][0], expected[0][0]);
        }
    }

    #[test]
    fn what_all_prompts_begin_with_is_computed_once_and_changes_nothing() {
        let config = Gpt2Config { context_length: 64, ..small() };
        let model = Model::new(&config.into(), WeightInit::Pytorch, 3, &Device::flex());
        let shared: Vec<u32> = (0..40).map(|i| (7 * i + 3) % 11).collect();
        let prompts: Vec<Vec<u32>> =
            [&[1_u32, 2][..], &[3], &[1, 5, 6, 7, 8], &[4, 4]].map(|own| [shared.as_slice(), own].concat()).to_vec();
        for n in [1, 3] {
            let settings = GenerateSettings { n, max_tokens: 12, ..settings(1.5, 3) };
            let mut tokens = 0;
            let together = generate(&model, &prompts, &settings, &mut |_, _, _| {
                tokens += 1;
                false
            });
            assert_eq!(tokens, prompts.len() * n * 12);
            // With another first prompt nothing is shared.
            let apart = [vec![vec![9, 9]], prompts.clone()].concat();
            let mut offset = generate(&model, &apart, &settings, &mut |_, _, _| false);
            offset.remove(0);
            let uncached = generate(
                &model,
                &prompts,
                &GenerateSettings { use_cache: false, ..settings.clone() },
                &mut |_, _, _| false,
            );
            for (found, expected) in together.iter().flatten().zip(uncached.iter().flatten()) {
                assert_eq!(found.tokens, expected.tokens);
                let gap = found.raw_logprobs.iter().zip(&expected.raw_logprobs).map(|(a, b)| (a - b).abs());
                assert!(gap.fold(0.0, f64::max) < 1e-4);
            }
            assert_eq!(offset.len(), prompts.len());
            let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
            let bound = cache_bytes(&model.config(), &lengths, &settings).unwrap();
            assert!(engine::Engine::new(&model, &settings, &prompts).cache_bytes() <= bound);
        }
    }

    #[test]
    fn completions_are_reported_as_they_end() {
        let prompts = vec![vec![1, 2, 3], vec![4], vec![5, 6]];
        let settings = GenerateSettings { batch_size: 2, n: 2, ..settings(1.5, 3) };
        let mut seen = Vec::new();
        let all =
            generate_reporting(&model(), &prompts, &settings, &mut |_, _, _| false, &mut |prompt, sample, done| {
                seen.push((prompt, sample, done.clone()));
            });
        assert_eq!(seen.len(), 6);
        assert!(seen.iter().all(|(prompt, sample, done)| all[*prompt][*sample] == *done));
    }

    #[test]
    fn samples_of_one_prompt_differ() {
        let all =
            generate(&model(), &[vec![1, 2]], &GenerateSettings { n: 4, ..settings(2.0, 1) }, &mut |_, _, _| false);
        assert!((1..4).all(|sample| all[0][sample].tokens != all[0][0].tokens));
    }

    #[test]
    fn one_beam_is_greedy_and_four_find_nothing_less_likely() {
        let greedy = run(&GenerateSettings { max_tokens: 5, ..settings(0.0, 1) });
        let beams = |num_beams| {
            let settings = BeamSettings { num_beams, max_tokens: 5, length_penalty: 0.0, ..BeamSettings::default() };
            beam_search(&model(), &[1], &settings).remove(0)
        };
        let from_one = one(&[1], &GenerateSettings { max_tokens: 5, ..settings(0.0, 1) }, &mut |_| false);
        assert_eq!(beams(1).tokens, from_one);
        assert!(beams(4).logprob >= beams(1).logprob);
        assert_eq!(greedy.len(), 5);
    }

    #[test]
    fn as_many_beams_as_there_are_texts_find_the_likeliest_of_all() {
        // Every text of two tokens: 11 beams keep all first tokens.
        let model = model();
        let logprobs = |tokens: &[u32]| -> Vec<f64> {
            let logits = engine::recompute(&model, tokens);
            let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
            logits.iter().map(|&x| f64::from(x) - sum.ln()).collect()
        };
        let first = logprobs(&[4, 2]);
        let texts = (0..11).flat_map(|a| {
            let second = logprobs(&[4, 2, a]);
            (0..11).map(|b| (first[a as usize] + second[b as usize], vec![a, b])).collect::<Vec<_>>()
        });
        let (logprob, tokens) = texts.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        let settings = BeamSettings { num_beams: 11, max_tokens: 2, ..BeamSettings::default() };
        let found = beam_search(&model, &[4, 2], &settings).remove(0);
        assert_eq!(found.tokens, tokens);
        assert!((found.logprob - logprob).abs() < 1e-5 && (found.score - logprob / 2.0).abs() < 1e-5);
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
        let of = |prompt: &[u32]| one(prompt, &settings(2.0, 1), &mut |_| false);
        assert_eq!(of(&long), of(&long[3..]));
        assert_ne!(of(&long), of(&long[6..]));
    }

    #[test]
    fn generation_ends_where_it_is_told_to() {
        let all = run(&settings(2.0, 1));
        let third = all[2];
        let first_place = all.iter().position(|&token| token == third).unwrap();
        let ended = run(&GenerateSettings { stop_tokens: vec![third], ..settings(2.0, 1) });
        assert_eq!(ended, all[..first_place]);
        let mut seen = Vec::new();
        let stopped = one(&[1, 2, 3], &settings(2.0, 1), &mut |token| {
            seen.push(token);
            seen.len() == 4
        });
        assert_eq!((stopped.as_slice(), seen.as_slice()), (&all[..4], &all[..4]));
    }
}
