//! Supervised fine-tuning: the next token of answers, on a model that is there.

use super::next_token::NextToken;
use super::{BatchOf, Loss, Objective, PassSettings, Sample, Split, Tally};
use crate::TrainError;
use crate::base::{Base, Tuned, parameter_counts};
use crate::data::DataFingerprint;
use crate::metrics::{EvalRecord, Observer, Started};
use crate::packing::Packing;
use crate::run::{Outcome, Preparation, run_objective};
use crate::sampler::{Batch, Items};
use crate::settings::SftSettings;
use burn::tensor::Device;
use cavy_generate::{GenerateSettings, Sampling, generate};
use cavy_model::{Gradients, Model};
use cavy_text::instruct::{self, Example, LoadReport, Parts};
use cavy_text::rng::{hash_bytes, hash3};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Separates the order of examples from other uses of the seed.
const PURPOSE: u64 = 0x5F70;
/// Rows that are decoded at once.
const ANSWERS_AT_ONCE: usize = 16;

/// Runs, or resumes, fine-tuning in `run_dir`; see [`run_objective`].
///
/// Errors: as [`run_objective`], and unusable data.
pub fn run(
    settings: &SftSettings,
    base: Base,
    run_dir: &Path,
    resume: bool,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome, TrainError> {
    let prepare = |how: Preparation<'_>| {
        let sft = Sft::new(settings, base)?;
        (how.note)(sft.data.report.to_string());
        Ok(sft)
    };
    run_objective(settings, run_dir, resume, prepare, observer, stop)
}

/// The examples of a run, and the parts they are divided into.
#[derive(Debug)]
pub struct SftData {
    /// All examples.
    pub examples: Vec<Example>,
    /// What was read, cut and dropped.
    pub report: LoadReport,
    /// Which are for what.
    pub parts: Parts,
    /// One pass over the training part: each source's items as often as its weight says.
    pub order: Vec<usize>,
}

impl SftData {
    /// Reads and divides the data of `settings` for the model `base`.
    ///
    /// Errors: unusable data, by file and line; no example for training or validation.
    pub fn load(settings: &SftSettings, base: &Base) -> Result<Self, TrainError> {
        let (mut format, context) = (settings.format_settings()?, base.context_length());
        if format.max_length == 0 || format.max_length > context {
            format.max_length = context;
        }
        let loaded =
            instruct::load(&settings.sources()?, &format, &base.tokenizer, &base.special, base.template.as_ref())?;
        let parts = settings.split.parts(loaded.examples.len(), settings.run.seed)?;
        let order = loaded.mix(&parts.train, hash3(settings.run.seed, PURPOSE, 1));
        Ok(Self { examples: loaded.examples, report: loaded.report, parts, order })
    }
}

/// Examples on one token axis, each of which sees nothing of another but what both begin with.
#[derive(Clone, Debug)]
pub struct AnswerBatch {
    batch: Batch,
    /// Tokens of the examples.
    tokens: usize,
}

/// Examples on one token axis. What several begin with, before the first token that carries loss, is there once.
///
/// The last token of an example has no next one, so it is a target and never an input.
pub fn packed<'a>(examples: impl IntoIterator<Item = &'a Example>) -> AnswerBatch {
    // Nothing follows a single token.
    let examples: Vec<&Example> = examples.into_iter().filter(|example| example.ids.len() > 1).collect();
    let prompts: Vec<&[u32]> = examples.iter().map(|example| &example.ids[..without_loss(example)]).collect();
    let (mut packing, places) = Packing::shared(&prompts);
    // The next token of a shared one is another in each example, and carries no loss in any.
    let (mut targets, mut trained) = (vec![0; packing.tokens()], vec![false; packing.tokens()]);
    for (example, place) in examples.iter().zip(places) {
        let n = example.ids.len() - 1;
        packing.push(place.segment, &example.ids[place.shared..n]);
        targets.extend_from_slice(&example.ids[place.shared + 1..]);
        trained.extend_from_slice(&example.trained[place.shared + 1..]);
    }
    let tokens = examples.iter().map(|example| example.ids.len()).sum();
    let (ids, segments) = packing.finish();
    AnswerBatch { batch: Batch::masked(ids, targets, trained, segments), tokens }
}

/// Tokens at the beginning of an example that predict none with loss; its last token is not among them.
fn without_loss(example: &Example) -> usize {
    example.trained[1..].iter().take_while(|&&trained| !trained).count().min(example.ids.len() - 2)
}

/// `-ln p(target)` of the tokens of answers. Tokens are counted as TRL does: all of each example.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers;

impl Loss for Answers {
    type Batch = AnswerBatch;

    fn tokens(&self, batch: &AnswerBatch) -> usize {
        batch.tokens
    }

    fn computed_tokens(&self, batch: &AnswerBatch) -> usize {
        batch.batch.tokens()
    }

    fn weight(&self, batch: &AnswerBatch) -> f64 {
        NextToken.weight(&batch.batch)
    }

    fn learn(&self, model: &Model, batch: &AnswerBatch, share: f32, pass: PassSettings) -> (Gradients, Tally) {
        NextToken.learn(model, &batch.batch, share, pass)
    }

    fn measure(&self, model: &Model, batch: &AnswerBatch) -> Tally {
        NextToken.measure(model, &batch.batch)
    }
}

/// Fine-tuning with its data.
pub struct Sft<'a> {
    settings: &'a SftSettings,
    tuned: Tuned,
    data: SftData,
    items: Items,
}

impl<'a> Sft<'a> {
    fn new(settings: &'a SftSettings, base: Base) -> Result<Self, TrainError> {
        let data = SftData::load(settings, &base)?;
        if data.parts.validation.is_empty() {
            return Err(TrainError::NoValidation { split: settings.split.split.clone(), items: data.examples.len() });
        }
        let items = items(settings, &data)?;
        let mut tuned = Tuned::new(base, settings.model.base_dtype, &settings.adapter, settings.run.seed)?;
        if let Some(source) = data.report.sources.first() {
            let prompt = settings.format_settings()?.prompt_template;
            tuned.template = prompt.chat_template(source.format, tuned.base.special.add_bos);
        }
        Ok(Self { settings, tuned, data, items })
    }

    fn examples<'b>(&'b self, indices: &'b [usize]) -> impl Iterator<Item = &'b Example> {
        indices.iter().map(|&index| &self.data.examples[index])
    }

    /// Batches of an evaluation: the examples of a part in their order.
    fn in_order<'b>(&'b self, part: &'b [usize]) -> impl Iterator<Item = AnswerBatch> + 'b {
        part.chunks(self.settings.optimization.batch_size).map(move |chunk| packed(self.examples(chunk)))
    }

    /// What the model answers to the prompts of some examples.
    fn answers(&self, model: &Model, indices: &[usize], step: usize) -> Vec<Sample> {
        let settings = &self.settings.evaluation;
        let how = GenerateSettings {
            max_tokens: settings.sample_tokens,
            sampling: Sampling { temperature: settings.temperature, top_k: settings.top_k, ..Sampling::default() },
            seed: hash3(self.settings.run.seed ^ PURPOSE, step as u64, 2),
            stop_tokens: self.tuned.base.special.eos.clone(),
            batch_size: ANSWERS_AT_ONCE,
            ..GenerateSettings::default()
        };
        let prompts: Vec<Vec<u32>> =
            self.examples(indices).map(|example| example.ids[..example.prompt_len].to_vec()).collect();
        let completions = generate(&model.valid(), &prompts, &how, &mut |_, _, _| false);
        let sample = |(example, completions): (&Example, &Vec<cavy_generate::Completion>)| Sample {
            prompt: example.prompt.clone(),
            text: self.tuned.base.tokenizer.decode(&completions[0].tokens),
            reference: Some(example.reference.clone()),
        };
        self.examples(indices).zip(&completions).map(sample).collect()
    }
}

/// The order in which training meets the examples.
///
/// Errors: too few for a step.
pub fn items(settings: &SftSettings, data: &SftData) -> Result<Items, TrainError> {
    let shuffle = settings.split.shuffle.then(|| hash3(settings.run.seed, PURPOSE, 0));
    Items::new(&settings.optimization, data.order.len(), settings.split.drop_last, shuffle)
}

impl Objective for Sft<'_> {
    type Settings = SftSettings;
    type Loss = Answers;

    fn loss(&self) -> &Answers {
        &Answers
    }

    fn fingerprint(&self) -> DataFingerprint {
        let text = self.data.examples.iter().fold(self.tuned.fingerprint(), |hash, example| {
            let bytes = |ids: &[u32]| ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>();
            let trained: Vec<u8> = example.trained.iter().map(|&trained| u8::from(trained)).collect();
            hash_bytes(hash_bytes(hash, &bytes(&example.ids)), &trained)
        });
        let tokens = |part: &[usize]| self.examples(part).map(|example| example.ids.len()).sum();
        DataFingerprint {
            train_tokens: tokens(&self.data.order),
            val_tokens: tokens(&self.data.parts.validation),
            tokenizer: self.tuned.base.tokenizer.fingerprint(),
            text,
        }
    }

    fn overview(&self) -> Started {
        let tokens = |part: &[usize]| self.examples(part).map(|example| example.ids.len() as u64).sum();
        Started {
            train_tokens: tokens(&self.data.order),
            val_tokens: tokens(&self.data.parts.validation),
            vocab_size: self.tuned.base.config().vocab_size(),
            ..Started::default()
        }
    }

    fn steps_per_epoch(&self) -> usize {
        self.items.steps_per_epoch()
    }

    fn model(&self, checkpoint: Option<&Path>, device: &Device) -> Result<Model, TrainError> {
        self.tuned.model(checkpoint, device)
    }

    fn save(&self, model: &Model, folder: &Path) -> Result<(), TrainError> {
        self.tuned.save(model, folder)
    }

    fn output(&self) -> &'static str {
        self.tuned.output()
    }

    fn batches(&mut self, _model: &Model, step: usize) -> Result<Vec<BatchOf<Self>>, TrainError> {
        let micro_batches = self.items.step(step);
        let indices = |places: &Vec<usize>| places.iter().map(|&place| self.data.order[place]).collect::<Vec<_>>();
        Ok(micro_batches.iter().map(|places| packed(self.examples(&indices(places)))).collect())
    }

    fn step_flops(&self, model: &Model, tokens: usize) -> f64 {
        let report = &self.data.report;
        self.tuned.step_flops(model, tokens, report.tokens / report.kept.max(1))
    }

    fn eval_batches(&self, split: Split) -> Result<Box<dyn Iterator<Item = BatchOf<Self>> + '_>, TrainError> {
        let (validation, per_batch) = (&self.data.parts.validation, self.settings.optimization.batch_size);
        let most = match self.settings.evaluation.eval_iter {
            0 => validation.len(),
            batches => batches * per_batch,
        };
        // As many to compare with as are held out: the first of the training part.
        let part: &[usize] = match split {
            Split::Training => &self.data.parts.train,
            Split::Validation => validation,
        };
        Ok(Box::new(self.in_order(&part[..part.len().min(most)])))
    }

    fn evaluated(&self, record: &mut EvalRecord) {
        record.metrics.insert("eval_loss".to_owned(), record.val_loss);
    }

    fn samples(&mut self, model: &Model, step: usize) -> Result<Vec<Sample>, TrainError> {
        let validation = &self.data.parts.validation;
        Ok(self.answers(model, &validation[..validation.len().min(self.settings.num_samples)], step))
    }

    fn finish(&mut self, model: &Model) -> Result<Option<serde_json::Value>, TrainError> {
        let plain = model.valid();
        let test = &self.data.parts.test;
        let mut tally = Tally::default();
        self.in_order(test).for_each(|batch| tally.merge(&Answers.measure(&plain, &batch)));
        let asked = &test[..test.len().min(self.settings.test_answers)];
        let answers = self.answers(model, asked, usize::MAX);
        let same = |sample: &&Sample| sample.reference.as_deref().map(str::trim) == Some(sample.text.trim());
        let exact = answers.iter().filter(same).count();
        let loss = tally.mean(Tally::LOSS);
        let shown: Vec<_> = answers
            .iter()
            .map(|sample| json!({ "prompt": sample.prompt, "answer": sample.text, "reference": sample.reference }))
            .collect();
        Ok(Some(json!({
            "data": self.data.report,
            "parts": { "train": self.data.parts.train.len(), "validation": self.data.parts.validation.len(), "test": test.len() },
            "parameters": parameter_counts(model),
            "test": {
                "loss": loss, "perplexity": loss.exp(), "exact_match": exact, "answered": answers.len(), "answers": shown,
            },
        })))
    }
}
