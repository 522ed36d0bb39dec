//! Learning from preferences: DPO and its relatives, on pairs of answers to one prompt.
//!
//! A pair's prompt is computed once and both answers continue it; what prompts of a batch begin with in common is
//! computed once for all of them. The loss knows the model through the log-probabilities
//! of the answers alone, so its gradient is a number for every answer (see [`super::preference_loss`]), and the backward
//! pass is that of a weighted sum of log-probabilities.

use super::pairs::PairData;
use super::preference_loss::{LossSettings, LossType, PairLogps, PairLoss, ScoredPair, pair_loss};
use super::{BatchOf, Loss, Objective, PassSettings, Sample, Split, Tally};
use crate::TrainError;
use crate::base::{Base, Tuned, parameter_counts};
use crate::data::DataFingerprint;
use crate::metrics::{EvalRecord, Observer, Started};
use crate::packing::Packing;
use crate::reference::{self, ReferenceKey};
use crate::run::{Outcome, Preparation, run_objective};
use crate::sampler::Items;
use crate::settings::DpoSettings;
use burn::tensor::{Device, Tensor, TensorData};
use cavy_generate::{GenerateSettings, Sampling, generate};
use cavy_model::{Gradients, Model, Pass};
use cavy_ops::Segments;
use cavy_text::preference::Pair;
use cavy_text::rng::hash3;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Separates the order of pairs from other uses of the seed.
const PURPOSE: u64 = 0xD90;
/// Pairs that are judged at once.
const PAIRS_AT_ONCE: usize = 32;
/// Rows that are decoded at once.
const ANSWERS_AT_ONCE: usize = 16;

/// Runs, or resumes, learning from preferences in `run_dir`; see [`run_objective`].
///
/// Errors: as [`run_objective`], and unusable data.
pub fn run(
    settings: &DpoSettings,
    base: Base,
    run_dir: &Path,
    resume: bool,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome, TrainError> {
    let prepare = |how: Preparation<'_>| Dpo::new(settings, base, how);
    run_objective(settings, run_dir, resume, prepare, observer, stop)
}

/// Pairs on one token axis: a prompt, then both answers, each of which continues the prompt and sees nothing else.
#[derive(Clone, Debug)]
pub struct PairBatch {
    ids: Arc<[u32]>,
    segments: Arc<Segments>,
    /// Tokens of the pairs, each prompt once for both answers.
    tokens: usize,
    /// For every token of every answer, the token it is predicted after.
    rows: Vec<usize>,
    targets: Arc<[u32]>,
    /// Tokens of the answers, chosen and rejected of each pair in turn.
    lengths: Vec<usize>,
    /// What the reference makes of each pair.
    reference: Vec<PairLogps>,
    /// KTO's baseline, in the making.
    mismatched: Option<Mismatched>,
}

/// Prompts with answers to other prompts, and what the reference makes of those: the sum over all answers.
#[derive(Clone, Debug)]
struct Mismatched {
    answers: Box<PairBatch>,
    judged: f64,
}

impl Mismatched {
    /// Every prompt with the answers of the next pair, as TRL cycles them.
    fn new(pairs: &[&Pair], judge: &Model) -> Self {
        let others = pairs.iter().cycle().skip(1);
        let items =
            pairs.iter().zip(others).map(|(pair, other)| (&pair.prompt[..], [&other.chosen[..], &other.rejected[..]]));
        let answers = Box::new(pack(&items.collect::<Vec<_>>(), vec![PairLogps::default(); pairs.len()]));
        let judged = Self::sum(&answers, judge);
        Self { answers, judged }
    }

    fn sum(answers: &PairBatch, model: &Model) -> f64 {
        answers.logps(model).iter().map(|pair| pair.chosen + pair.rejected).sum()
    }

    /// How much likelier the policy finds answers to other prompts than the reference does, in the mean, at least 0.
    ///
    /// Source: Ethayarajh et al. 2024, <https://arxiv.org/abs/2402.01306>, section 4.2.
    fn kl(&self, policy: &Model) -> f64 {
        ((Self::sum(&self.answers, policy) - self.judged) / (2 * self.answers.pairs()) as f64).max(0.0)
    }
}

impl PairBatch {
    /// A batch of pairs, with what the reference makes of each.
    ///
    /// Panics: if an answer is empty, or there is not a reference for every pair.
    pub fn new<'a>(pairs: impl IntoIterator<Item = &'a Pair>, reference: Vec<PairLogps>) -> Self {
        let items = pairs.into_iter().map(|pair| (&pair.prompt[..], [&pair.chosen[..], &pair.rejected[..]]));
        pack(&items.collect::<Vec<_>>(), reference)
    }

    /// Pairs in it.
    pub fn pairs(&self) -> usize {
        self.reference.len()
    }

    fn pass(&self, dropout_key: Option<u64>) -> Pass {
        Pass::new(Arc::clone(&self.ids), Arc::clone(&self.segments), dropout_key)
    }

    /// Log-probabilities of the answers from those of their tokens.
    fn summed(&self, logprobs: &[f32]) -> Vec<PairLogps> {
        let mut rest = logprobs;
        let mut answer = |len: usize| {
            let (first, more) = rest.split_at(len);
            rest = more;
            first.iter().map(|&logprob| f64::from(logprob)).sum::<f64>()
        };
        let pair = |lengths: &[usize]| PairLogps { chosen: answer(lengths[0]), rejected: answer(lengths[1]) };
        self.lengths.chunks_exact(2).map(pair).collect()
    }

    /// What a model makes of the pairs, without learning.
    pub fn logps(&self, model: &Model) -> Vec<PairLogps> {
        let (logprobs, _) = model.valid().token_logprobs(&self.pass(None), &self.rows, &self.targets);
        self.summed(&values(&logprobs))
    }
}

/// The pass over prompts with their answers, in order, and its predictions. Prompts that begin alike share the beginning.
///
/// Panics: if a prompt or an answer has no tokens.
fn pack<'a>(items: &[(&'a [u32], [&'a [u32]; 2])], reference: Vec<PairLogps>) -> PairBatch {
    assert_eq!(items.len(), reference.len(), "a reference for every pair");
    let prompts: Vec<&[u32]> = items.iter().map(|(prompt, _)| *prompt).collect();
    let (mut packing, places) = Packing::shared(&prompts);
    let (mut rows, mut targets, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    for ((prompt, answers), place) in items.iter().zip(places) {
        let prompt = match (&prompt[place.shared..], place.segment) {
            ([], Some(segment)) => segment,
            (rest, segment) => packing.push(segment, rest),
        };
        for answer in answers {
            assert!(!answer.is_empty(), "an answer has tokens");
            rows.push(packing.last(prompt));
            // The last token of an answer has no next one, so it is a target and never an input.
            let inputs = &answer[..answer.len() - 1];
            if !inputs.is_empty() {
                rows.extend(packing.tokens()..packing.tokens() + inputs.len());
                packing.push(Some(prompt), inputs);
            }
            targets.extend_from_slice(answer);
            lengths.push(answer.len());
        }
    }
    let tokens = prompts.iter().map(|prompt| prompt.len()).sum::<usize>() + targets.len();
    let (ids, segments) = packing.finish();
    PairBatch {
        tokens,
        ids: ids.into(),
        segments: Arc::new(segments),
        rows,
        targets: targets.into(),
        lengths,
        reference,
        mismatched: None,
    }
}

/// Values of a tensor, out of its graph.
fn values(tensor: &Tensor<1>) -> Vec<f32> {
    tensor.to_data().try_to_vec().unwrap_or_default()
}

/// What a model makes of pairs, without learning.
///
/// Panics: as [`PairBatch::new`].
pub fn logps(model: &Model, pairs: &[Pair]) -> Vec<PairLogps> {
    let batch = |pairs: &[Pair]| PairBatch::new(pairs, vec![PairLogps::default(); pairs.len()]).logps(model);
    pairs.chunks(PAIRS_AT_ONCE).flat_map(batch).collect()
}

/// The loss of pairs.
#[derive(Clone, Copy, Debug)]
pub struct Preference(pub LossSettings);

impl Preference {
    fn losses(&self, batch: &PairBatch, policy: &[PairLogps], kl: f64) -> Vec<PairLoss> {
        let scored = |((&policy, &reference), lengths): ((&PairLogps, &PairLogps), &[usize])| {
            pair_loss(&self.0, &ScoredPair { policy, reference, tokens: [lengths[0], lengths[1]], kl })
        };
        policy.iter().zip(&batch.reference).zip(batch.lengths.chunks_exact(2)).map(scored).collect()
    }

    /// KTO's baseline; 0 for the other losses.
    fn kl(batch: &PairBatch, model: &Model) -> f64 {
        batch.mismatched.as_ref().map_or(0.0, |mismatched| mismatched.kl(model))
    }

    /// TRL's metrics.
    fn tally(&self, policy: &[PairLogps], losses: &[PairLoss], entropy: &[f32], kl: f64) -> Tally {
        let pairs = losses.len() as f64;
        let sum = |of: fn(&PairLoss) -> f64| losses.iter().map(of).sum::<f64>();
        let tokens = entropy.len() as f64;
        let mut tally = Tally::of_loss(sum(|pair| pair.loss), pairs)
            .with("rewards/chosen", sum(|pair| pair.chosen_reward), pairs)
            .with("rewards/rejected", sum(|pair| pair.rejected_reward), pairs)
            .with("rewards/margins", sum(|pair| pair.chosen_reward - pair.rejected_reward), pairs)
            .with(
                "rewards/accuracies",
                sum(|pair| f64::from(u8::from(pair.chosen_reward > pair.rejected_reward))),
                pairs,
            )
            .with("logps/chosen", policy.iter().map(|pair| pair.chosen).sum(), pairs)
            .with("logps/rejected", policy.iter().map(|pair| pair.rejected).sum(), pairs)
            .with("entropy", entropy.iter().map(|&entropy| f64::from(entropy)).sum(), tokens);
        if self.0.sft_weight > 0.0 {
            tally = tally.with("sft_loss", sum(|pair| pair.sft), pairs);
        }
        if self.0.loss_type == LossType::Kto {
            tally = tally.with("kl", kl * pairs, pairs);
        }
        tally
    }
}

impl Loss for Preference {
    type Batch = PairBatch;

    fn tokens(&self, batch: &PairBatch) -> usize {
        batch.tokens
    }

    fn computed_tokens(&self, batch: &PairBatch) -> usize {
        batch.ids.len()
    }

    fn weight(&self, batch: &PairBatch) -> f64 {
        batch.pairs() as f64
    }

    fn learn(&self, model: &Model, batch: &PairBatch, share: f32, pass: PassSettings) -> (Gradients, Tally) {
        let (logprobs, entropy) = model.token_logprobs(&batch.pass(pass.dropout_key), &batch.rows, &batch.targets);
        let policy = batch.summed(&values(&logprobs));
        let kl = Self::kl(batch, model);
        let losses = self.losses(batch, &policy, kl);
        // Every token of an answer has the derivative by the answer's log-probability.
        let of_answers = losses.iter().flat_map(|pair| [pair.d_chosen, pair.d_rejected]).zip(&batch.lengths);
        let factors: Vec<f32> = of_answers.flat_map(|(d, &len)| std::iter::repeat_n(d as f32 * share, len)).collect();
        let count = factors.len();
        let factors = Tensor::<1>::from_data(TensorData::new(factors, [count]), &logprobs.device());
        let tally = self.tally(&policy, &losses, &values(&entropy), kl);
        (model.gradients(&(logprobs * factors).sum()), tally)
    }

    fn measure(&self, model: &Model, batch: &PairBatch) -> Tally {
        let (logprobs, entropy) = model.token_logprobs(&batch.pass(None), &batch.rows, &batch.targets);
        let policy = batch.summed(&values(&logprobs));
        let kl = Self::kl(batch, model);
        self.tally(&policy, &self.losses(batch, &policy, kl), &values(&entropy), kl)
    }
}

/// Learning from preferences with its data.
pub struct Dpo<'a> {
    settings: &'a DpoSettings,
    loss: Preference,
    tuned: Tuned,
    data: PairData,
    items: Items,
    /// What the reference makes of every pair; zeros where the loss needs none.
    reference: Vec<PairLogps>,
    /// The reference itself, where its log-probabilities of other answers are needed at every step.
    judge: Option<Model>,
    /// Answers to held-out prompts before training.
    before: Vec<String>,
}

impl<'a> Dpo<'a> {
    fn new(settings: &'a DpoSettings, base: Base, how: Preparation<'_>) -> Result<Self, TrainError> {
        let data = PairData::load(&settings.data, &settings.split, settings.run.seed, &base)?;
        (how.note)(data.report.to_string());
        let shuffle = settings.split.shuffle.then(|| hash3(settings.run.seed, PURPOSE, 0));
        let items = Items::new(&settings.optimization, data.parts.train.len(), settings.split.drop_last, shuffle)?;
        let tuned = Tuned::new(base, settings.model.base_dtype, &settings.adapter, settings.run.seed)?;
        let loss = Preference(settings.loss_settings());
        let mut dpo =
            Self { settings, loss, tuned, data, items, reference: Vec::new(), judge: None, before: Vec::new() };
        dpo.refer(how)?;
        Ok(dpo)
    }

    /// Has the model as it is before training judge every pair, or reads what it said before, and answer held-out prompts.
    fn refer(&mut self, how: Preparation<'_>) -> Result<(), TrainError> {
        let start = self.tuned.model(None, &Device::flex())?;
        let loss_type = self.settings.loss_type;
        self.reference = if loss_type.needs_reference() {
            let path = match self.settings.reference_logps.as_str() {
                "" => how.run_dir.join("reference.json"),
                path => path.into(),
            };
            let key = ReferenceKey { model: self.tuned.start_hash()?, data: self.data.hash() };
            let compute = || logps(&start, &self.data.pairs);
            reference::load_or_compute(&path, key, self.data.pairs.len(), how.note, compute)?
        } else {
            vec![PairLogps::default(); self.data.pairs.len()]
        };
        let asked = &self.data.parts.test;
        let asked = &asked[..asked.len().min(self.settings.test_answers)];
        self.before = self.answers(&start, asked, 0).into_iter().map(|sample| sample.text).collect();
        self.judge = (loss_type == LossType::Kto).then_some(start);
        Ok(())
    }

    fn batch(&self, indices: &[usize]) -> PairBatch {
        let pairs: Vec<&Pair> = indices.iter().map(|&index| &self.data.pairs[index]).collect();
        let reference = indices.iter().map(|&index| self.reference[index]).collect();
        let mismatched = self.judge.as_ref().map(|judge| Mismatched::new(&pairs, judge));
        PairBatch { mismatched, ..PairBatch::new(pairs, reference) }
    }

    fn part(&self, split: Split) -> &[usize] {
        match split {
            Split::Training => &self.data.parts.train,
            Split::Validation => &self.data.parts.validation,
        }
    }

    /// What the model answers to the prompts of some pairs, with the better answer as reference.
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
        let pairs: Vec<&Pair> = indices.iter().map(|&index| &self.data.pairs[index]).collect();
        let prompts: Vec<Vec<u32>> = pairs.iter().map(|pair| pair.prompt.clone()).collect();
        let completions = generate(&model.valid(), &prompts, &how, &mut |_, _, _| false);
        let sample = |(pair, completions): (&&Pair, &Vec<cavy_generate::Completion>)| Sample {
            prompt: pair.prompt_text.clone(),
            text: self.tuned.base.tokenizer.decode(&completions[0].tokens),
            reference: Some(pair.chosen_text.clone()),
        };
        pairs.iter().zip(&completions).map(sample).collect()
    }
}

impl Objective for Dpo<'_> {
    type Settings = DpoSettings;
    type Loss = Preference;

    fn loss(&self) -> &Preference {
        &self.loss
    }

    fn fingerprint(&self) -> DataFingerprint {
        let overview = self.overview();
        DataFingerprint {
            train_tokens: overview.train_tokens as usize,
            val_tokens: overview.val_tokens as usize,
            tokenizer: self.tuned.base.tokenizer.fingerprint(),
            text: self.tuned.fingerprint() ^ self.data.hash(),
        }
    }

    fn overview(&self) -> Started {
        let tokens = |split| self.data.tokens(self.part(split)) as u64;
        Started {
            train_tokens: tokens(Split::Training),
            val_tokens: tokens(Split::Validation),
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
        let indices =
            |places: &Vec<usize>| places.iter().map(|&place| self.data.parts.train[place]).collect::<Vec<_>>();
        Ok(micro_batches.iter().map(|places| self.batch(&indices(places))).collect())
    }

    fn step_flops(&self, model: &Model, tokens: usize) -> f64 {
        let overview = self.overview();
        let pairs = self.data.parts.train.len().max(1);
        self.tuned.step_flops(model, tokens, overview.train_tokens as usize / pairs)
    }

    fn eval_batches(&self, split: Split) -> Result<Box<dyn Iterator<Item = BatchOf<Self>> + '_>, TrainError> {
        let per_batch = self.settings.optimization.batch_size;
        let held_out = self.data.parts.validation.len();
        let most = match self.settings.evaluation.eval_iter {
            0 => held_out,
            batches => batches * per_batch,
        };
        let part = self.part(split);
        Ok(Box::new(part[..part.len().min(most)].chunks(per_batch).map(|indices| self.batch(indices))))
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
        for indices in test.chunks(self.settings.optimization.batch_size) {
            tally.merge(&self.loss.measure(&plain, &self.batch(indices)));
        }
        let asked = &test[..test.len().min(self.settings.test_answers)];
        let after = self.answers(model, asked, usize::MAX);
        let shown: Vec<_> = after
            .iter()
            .zip(&self.before)
            .map(|(after, before)| {
                json!({ "prompt": after.prompt, "before": before, "answer": after.text, "reference": after.reference })
            })
            .collect();
        let parts = &self.data.parts;
        Ok(Some(json!({
            "data": self.data.report,
            "parts": { "train": parts.train.len(), "validation": parts.validation.len(), "test": test.len() },
            "parameters": parameter_counts(model),
            "test": { "loss": tally.mean(Tally::LOSS), "metrics": tally.metrics(""), "answers": shown },
        })))
    }
}
