//! Pretraining: the next token of windows of text, on a model from scratch.

use super::next_token::NextToken;
use super::{BatchOf, Objective, Sample, Split};
use crate::data::{self, Data, DataFingerprint};
use crate::files::write_error;
use crate::metrics::{EvalRecord, Observer, Started};
use crate::run::{Outcome, Preparation, run_objective};
use crate::sampler::{Sampler, in_order, windows};
use crate::{PretrainSettings, TrainError, eval};
use burn::tensor::Device;
use cavy_generate::{GenerateSettings, Sampling, generate};
use cavy_model::{Gpt2Config, Model};
use cavy_text::Tokenizer;
use cavy_text::rng::hash3;
use fs_err as fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Separates the samples' random numbers from others of the same seed.
const PURPOSE: u64 = 0x5A4E;

/// Sizes and switches of the model that `settings` describe, for a tokenizer of so many tokens.
///
/// Errors: sizes that no model can have; a vocabulary smaller than the tokenizer's.
pub fn model_config(settings: &PretrainSettings, tokenizer_tokens: usize) -> Result<Gpt2Config, TrainError> {
    let sizes = settings.sizes();
    let found = settings.vocab_size;
    if found != 0 && found < tokenizer_tokens {
        return Err(TrainError::Vocabulary { found, tokens: tokenizer_tokens });
    }
    let config = Gpt2Config {
        vocab_size: if found == 0 { tokenizer_tokens } else { found },
        context_length: settings.context_length,
        hidden_size: sizes.hidden_size,
        num_hidden_layers: sizes.num_hidden_layers,
        num_attention_heads: sizes.num_attention_heads,
        intermediate_size: sizes.intermediate_size,
        drop_rate: settings.drop_rate,
        qkv_bias: settings.qkv_bias,
        tie_word_embeddings: settings.tie_word_embeddings,
        layer_norm_eps: 1e-5,
    };
    config.validate()?;
    Ok(config)
}

/// Runs, or resumes, a pretraining job in `run_dir`; see [`run_objective`]. Large text is kept in `tokens/` there.
///
/// Errors: as [`run_objective`], and unusable text.
pub fn run(
    settings: &PretrainSettings,
    run_dir: &Path,
    resume: bool,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome, TrainError> {
    let prepare = |how: Preparation<'_>| Pretrain::new(settings, how);
    run_objective(settings, run_dir, resume, prepare, observer, stop)
}

/// Pretraining with its data.
#[derive(Debug)]
pub struct Pretrain<'a> {
    settings: &'a PretrainSettings,
    data: Data,
    config: Gpt2Config,
    /// What samples continue.
    prompt: Vec<u32>,
    sampler: Sampler,
}

impl<'a> Pretrain<'a> {
    fn new(settings: &'a PretrainSettings, how: Preparation<'_>) -> Result<Self, TrainError> {
        let cache = how.run_dir.join("tokens");
        if how.is_fresh && cache.exists() {
            // Made with settings that nobody remembers.
            fs::remove_dir_all(&cache).map_err(write_error(&cache))?;
        }
        let data = data::prepare(settings, Some(&cache), how.note)?;
        let sampler = Sampler::new(settings, data.train.len())?;
        let context = settings.context_length;
        windows("validation", data.val.len(), context, context)?;
        let config = model_config(settings, data.tokenizer.vocab_size())?;
        let prompt = encode_prompt(&settings.start_context, &data.tokenizer)?;
        Ok(Self { settings, data, config, prompt, sampler })
    }
}

impl Objective for Pretrain<'_> {
    type Settings = PretrainSettings;
    type Loss = NextToken;

    fn loss(&self) -> &NextToken {
        &NextToken
    }

    fn fingerprint(&self) -> DataFingerprint {
        self.data.fingerprint()
    }

    fn overview(&self) -> Started {
        Started {
            train_tokens: self.data.train.len() as u64,
            val_tokens: self.data.val.len() as u64,
            vocab_size: self.config.vocab_size,
            ..Started::default()
        }
    }

    fn steps_per_epoch(&self) -> usize {
        self.sampler.steps_per_epoch()
    }

    fn model(&self, checkpoint: Option<&Path>, device: &Device) -> Result<Model, TrainError> {
        let settings = self.settings;
        Ok(match checkpoint {
            Some(folder) => Model::load(folder, device)?,
            None => Model::new(&self.config.clone().into(), settings.weight_init.into(), settings.run.seed, device),
        })
    }

    fn save(&self, model: &Model, folder: &Path) -> Result<(), TrainError> {
        model.save(folder)?;
        Ok(self.data.tokenizer.save(folder.join("tokenizer.json"))?)
    }

    fn batches(&mut self, _model: &Model, step: usize) -> Result<Vec<BatchOf<Self>>, TrainError> {
        Ok(self.sampler.step(&self.data.train, step))
    }

    fn step_flops(&self, model: &Model, tokens: usize) -> f64 {
        model.config().training_flops(tokens, self.settings.context_length)
    }

    fn eval_batches(&self, split: Split) -> Result<Box<dyn Iterator<Item = BatchOf<Self>> + '_>, TrainError> {
        let (name, store) = match split {
            Split::Training => ("training", &self.data.train),
            Split::Validation => ("validation", &self.data.val),
        };
        let settings = self.settings;
        let how = (settings.context_length, settings.optimization.batch_size, settings.evaluation.eval_iter);
        Ok(Box::new(in_order(name, store, how)?))
    }

    fn evaluated(&self, record: &mut EvalRecord) {
        record.val_bits_per_byte = eval::bits_per_byte(record.val_loss, &self.data.val);
    }

    fn samples(&mut self, model: &Model, step: usize) -> Result<Vec<Sample>, TrainError> {
        let settings = &self.settings.evaluation;
        let sampling = Sampling { temperature: settings.temperature, top_k: settings.top_k, ..Sampling::default() };
        let how = GenerateSettings {
            max_tokens: settings.sample_tokens,
            sampling,
            seed: hash3(self.settings.run.seed ^ PURPOSE, step as u64, 0),
            stop_tokens: self.data.tokenizer.end_of_text().into_iter().collect(),
            ..GenerateSettings::default()
        };
        let completions = generate(model, std::slice::from_ref(&self.prompt), &how, &mut |_, _, _| false);
        let text = self.data.tokenizer.decode(&completions[0][0].tokens);
        Ok(vec![Sample { prompt: self.settings.start_context.clone(), text, reference: None }])
    }
}

/// The ids of the start context; where it is empty, the end of a text, after which another begins.
fn encode_prompt(start_context: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>, TrainError> {
    let ids = tokenizer.encode(start_context).map_err(|source| TrainError::StartContext { source })?;
    Ok(if ids.is_empty() { vec![tokenizer.end_of_text().unwrap_or(0)] } else { ids })
}
