//! Reward models: a number for every answer, higher for the better one of a pair.

use super::pairs::PairData;
use super::preference_loss::bradley_terry;
use super::{BatchOf, Loss, Objective, PassSettings, Sample, Split, Tally};
use crate::TrainError;
use crate::base::{Base, NewHead, Tuned, parameter_counts};
use crate::data::DataFingerprint;
use crate::metrics::{EvalRecord, Observer, Started};
use crate::packing::Packing;
use crate::run::{Outcome, Preparation, run_objective};
use crate::sampler::Items;
use crate::settings::RewardSettings;
use burn::tensor::{Device, Tensor, TensorData};
use cavy_model::{Gradients, Model, Pass};
use cavy_ops::Segments;
use cavy_text::preference::Pair;
use cavy_text::rng::hash3;
use serde::Serialize;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Separates the order of pairs from other uses of the seed.
const PURPOSE: u64 = 0x4E3A;
/// Bins of the calibration table.
const BINS: usize = 10;

/// Runs, or resumes, the training of a reward model in `run_dir`; see [`run_objective`].
///
/// Errors: as [`run_objective`], and unusable data.
pub fn run(
    settings: &RewardSettings,
    base: Base,
    run_dir: &Path,
    resume: bool,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome, TrainError> {
    let prepare = |how: Preparation<'_>| {
        let reward = Reward::new(settings, base)?;
        (how.note)(reward.data.report.to_string());
        Ok(reward)
    };
    run_objective(settings, run_dir, resume, prepare, observer, stop)
}

/// Prompts with answers to rate, on one token axis: each answer continues its prompt and sees nothing else.
#[derive(Clone, Debug)]
pub struct ScoreBatch {
    /// Tokens of the prompts and answers.
    tokens: usize,
    ids: Arc<[u32]>,
    segments: Arc<Segments>,
    /// The last token of every answer, where its score is read.
    rows: Vec<usize>,
}

impl ScoreBatch {
    /// A batch of prompts with their answers.
    ///
    /// Panics: if a prompt or an answer has no tokens.
    pub fn new<'a>(items: impl IntoIterator<Item = (&'a [u32], Vec<&'a [u32]>)>) -> Self {
        let items: Vec<_> = items.into_iter().collect();
        let prompts: Vec<&[u32]> = items.iter().map(|(prompt, _)| *prompt).collect();
        let (mut packing, places) = Packing::shared(&prompts);
        let mut rows = Vec::new();
        for ((prompt, answers), place) in items.iter().zip(places) {
            assert!(!prompt.is_empty() && answers.iter().all(|answer| !answer.is_empty()), "tokens to rate");
            let prompt = match (&prompt[place.shared..], place.segment) {
                ([], Some(segment)) => segment,
                (rest, segment) => packing.push(segment, rest),
            };
            for answer in answers {
                let answer = packing.push(Some(prompt), answer);
                rows.push(packing.last(answer));
            }
        }
        let (ids, segments) = packing.finish();
        let of_item = |(prompt, answers): &(&[u32], Vec<&[u32]>)| prompt.len() + answers.concat().len();
        let tokens = items.iter().map(of_item).sum();
        Self { tokens, ids: ids.into(), segments: Arc::new(segments), rows }
    }

    /// The score of every answer, in order, differentiable: `(answers, 1)`.
    fn scores(&self, model: &Model, dropout_key: Option<u64>) -> Tensor<2> {
        let pass = Pass::new(Arc::clone(&self.ids), Arc::clone(&self.segments), dropout_key);
        model.head_rows(&pass, &self.rows)
    }

    /// The score of every answer, in order.
    ///
    /// Panics: if the model's head has more than one row.
    pub fn rate(&self, model: &Model) -> Vec<f64> {
        numbers(&self.scores(model, None))
    }
}

fn numbers(scores: &Tensor<2>) -> Vec<f64> {
    assert_eq!(scores.dims()[1], 1, "a head of one row");
    let values: Vec<f32> = scores.to_data().try_to_vec().unwrap_or_default();
    values.into_iter().map(f64::from).collect()
}

/// Pairs to learn from.
#[derive(Clone, Debug)]
pub struct RatedPairs {
    /// Chosen and rejected answer of each pair in turn.
    answers: ScoreBatch,
    /// By how much the better answer is better, where the data says so.
    margins: Vec<f64>,
}

impl RatedPairs {
    /// Scores of chosen and rejected answers in turn.
    pub fn rate(&self, model: &Model) -> Vec<f64> {
        self.answers.rate(model)
    }

    /// A batch of pairs.
    pub fn new<'a>(pairs: impl IntoIterator<Item = &'a Pair>) -> Self {
        let pairs: Vec<&Pair> = pairs.into_iter().collect();
        let items = pairs.iter().map(|pair| (&pair.prompt[..], vec![&pair.chosen[..], &pair.rejected[..]]));
        let margins = pairs.iter().map(|pair| pair.margin.map_or(0.0, f64::from)).collect();
        Self { answers: ScoreBatch::new(items), margins }
    }
}

/// The Bradley-Terry loss of pairs of scores.
#[derive(Clone, Copy, Debug)]
pub struct BradleyTerry {
    /// Weight of `(chosen + rejected)^2`, which keeps scores around zero.
    pub center_rewards_coefficient: f64,
}

impl BradleyTerry {
    /// The tally of a batch, and the loss's derivative by each score.
    fn judge(self, batch: &RatedPairs, scores: &[f64]) -> (Tally, Vec<f64>) {
        let pairs = batch.margins.len() as f64;
        let (mut loss, mut right, mut margin) = (0.0, 0.0, 0.0);
        let mut derivatives = Vec::with_capacity(scores.len());
        for (pair, &wanted) in scores.chunks_exact(2).zip(&batch.margins) {
            let (value, d_chosen, d_rejected) =
                bradley_terry(pair[0], pair[1], wanted, self.center_rewards_coefficient);
            loss += value;
            right += f64::from(u8::from(pair[0] > pair[1]));
            margin += pair[0] - pair[1];
            derivatives.extend([d_chosen, d_rejected]);
        }
        let tally = Tally::of_loss(loss, pairs).with("accuracy", right, pairs).with("margin", margin, pairs).with(
            "mean_reward",
            scores.iter().sum(),
            scores.len() as f64,
        );
        (tally, derivatives)
    }
}

impl Loss for BradleyTerry {
    type Batch = RatedPairs;

    fn tokens(&self, batch: &RatedPairs) -> usize {
        batch.answers.tokens
    }

    fn computed_tokens(&self, batch: &RatedPairs) -> usize {
        batch.answers.ids.len()
    }

    fn weight(&self, batch: &RatedPairs) -> f64 {
        batch.margins.len() as f64
    }

    fn learn(&self, model: &Model, batch: &RatedPairs, share: f32, pass: PassSettings) -> (Gradients, Tally) {
        let scores = batch.answers.scores(model, pass.dropout_key);
        let (tally, derivatives) = self.judge(batch, &numbers(&scores));
        let factors: Vec<f32> = derivatives.iter().map(|&d| d as f32 * share).collect();
        let factors = Tensor::<2>::from_data(TensorData::new(factors, scores.dims()), &scores.device());
        (model.gradients(&(scores * factors).sum()), tally)
    }

    fn measure(&self, model: &Model, batch: &RatedPairs) -> Tally {
        self.judge(batch, &batch.answers.rate(model)).0
    }
}

/// What a reward model is worth on pairs that it did not learn from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RewardEvaluation {
    /// Pairs.
    pub pairs: usize,
    /// Share of pairs whose better answer has the higher score.
    pub accuracy: f64,
    /// Mean loss.
    pub loss: f64,
    /// Mean difference of the scores, and its standard deviation.
    pub margin: f64,
    /// See `margin`.
    pub margin_std: f64,
    /// Mean score.
    pub mean_reward: f64,
    /// Lowest score.
    pub min_reward: f64,
    /// Highest score.
    pub max_reward: f64,
    /// Correlation of an answer's score with its number of tokens: what length alone is worth to the model.
    pub length_correlation: f64,
    /// Mean distance of the predicted from the found share of right pairs, by bins of the prediction.
    ///
    /// Source: Guo et al. 2017, <https://arxiv.org/abs/1706.04599>, eq. 3.
    pub calibration_error: f64,
}

/// Measures a reward model on pairs: scores of chosen and rejected answers in turn, and the tokens of those answers.
///
/// Panics: if there is not a length for every score, or no pair.
pub fn evaluate(scores: &[f64], lengths: &[usize]) -> RewardEvaluation {
    assert!(scores.len() == lengths.len() && scores.len() >= 2, "scores of pairs with their lengths");
    let margins: Vec<f64> = scores.chunks_exact(2).map(|pair| pair[0] - pair[1]).collect();
    let pairs = margins.len() as f64;
    let margin = margins.iter().sum::<f64>() / pairs;
    // The model predicts that the answer with the higher score is the better one, with probability sigmoid(|margin|).
    let mut bins = [(0.0, 0.0, 0.0); BINS];
    for &margin in &margins {
        let confidence = 1.0 / (1.0 + (-margin.abs()).exp());
        let bin = &mut bins[(((confidence - 0.5) * 2.0 * BINS as f64) as usize).min(BINS - 1)];
        *bin = (bin.0 + 1.0, bin.1 + confidence, bin.2 + f64::from(u8::from(margin > 0.0)));
    }
    RewardEvaluation {
        pairs: margins.len(),
        accuracy: margins.iter().filter(|&&margin| margin > 0.0).count() as f64 / pairs,
        loss: scores.chunks_exact(2).map(|pair| bradley_terry(pair[0], pair[1], 0.0, 0.0).0).sum::<f64>() / pairs,
        margin,
        margin_std: (margins.iter().map(|one| (one - margin).powi(2)).sum::<f64>() / pairs).sqrt(),
        mean_reward: scores.iter().sum::<f64>() / scores.len() as f64,
        min_reward: scores.iter().copied().fold(f64::INFINITY, f64::min),
        max_reward: scores.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        length_correlation: correlation(scores, &lengths.iter().map(|&len| len as f64).collect::<Vec<_>>()),
        calibration_error: bins.iter().map(|(_, predicted, right)| (predicted - right).abs()).sum::<f64>() / pairs,
    }
}

/// Pearson's correlation; NaN where one side does not vary.
fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len() as f64;
    let (mean_x, mean_y) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let sum = |f: fn(f64, f64) -> f64| x.iter().zip(y).map(|(x, y)| f(x - mean_x, y - mean_y)).sum::<f64>();
    sum(|x, y| x * y) / (sum(|x, _| x * x) * sum(|_, y| y * y)).sqrt()
}

/// The training of a reward model with its data.
pub struct Reward<'a> {
    settings: &'a RewardSettings,
    loss: BradleyTerry,
    tuned: Tuned,
    data: PairData,
    items: Items,
}

impl<'a> Reward<'a> {
    fn new(settings: &'a RewardSettings, base: Base) -> Result<Self, TrainError> {
        let data = PairData::load(&settings.data, &settings.split, settings.run.seed, &base)?;
        let shuffle = settings.split.shuffle.then(|| hash3(settings.run.seed, PURPOSE, 0));
        let items = Items::new(&settings.optimization, data.parts.train.len(), settings.split.drop_last, shuffle)?;
        let mut tuned = Tuned::new(base, settings.model.base_dtype, &settings.adapter, settings.run.seed)?;
        tuned.head = Some(NewHead { labels: vec!["score".to_owned()], bias: false });
        let loss = BradleyTerry { center_rewards_coefficient: settings.center_rewards_coefficient };
        Ok(Self { settings, loss, tuned, data, items })
    }

    fn batch(&self, indices: &[usize]) -> RatedPairs {
        RatedPairs::new(indices.iter().map(|&index| &self.data.pairs[index]))
    }

    fn part(&self, split: Split) -> &[usize] {
        match split {
            Split::Training => &self.data.parts.train,
            Split::Validation => &self.data.parts.validation,
        }
    }
}

impl Objective for Reward<'_> {
    type Settings = RewardSettings;
    type Loss = BradleyTerry;

    fn loss(&self) -> &BradleyTerry {
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
        let per_pair = self.data.tokens(&self.data.parts.train) / self.data.parts.train.len().max(1);
        self.tuned.step_flops(model, tokens, per_pair)
    }

    fn eval_batches(&self, split: Split) -> Result<Box<dyn Iterator<Item = BatchOf<Self>> + '_>, TrainError> {
        let per_batch = self.settings.optimization.batch_size;
        let most = match self.settings.evaluation.eval_iter {
            0 => self.data.parts.validation.len(),
            batches => batches * per_batch,
        };
        let part = self.part(split);
        Ok(Box::new(part[..part.len().min(most)].chunks(per_batch).map(|indices| self.batch(indices))))
    }

    fn evaluated(&self, record: &mut EvalRecord) {
        record.metrics.insert("eval_loss".to_owned(), record.val_loss);
    }

    fn samples(&mut self, model: &Model, _step: usize) -> Result<Vec<Sample>, TrainError> {
        let shown = &self.data.parts.validation;
        let shown = &shown[..shown.len().min(self.settings.num_samples)];
        let scores = self.batch(shown).answers.rate(&model.valid());
        let sample = |(&index, scores): (&usize, &[f64])| {
            let pair = &self.data.pairs[index];
            Sample {
                prompt: pair.prompt_text.clone(),
                text: format!("{:+.2}: {}\n{:+.2}: {}", scores[0], pair.chosen_text, scores[1], pair.rejected_text),
                reference: None,
            }
        };
        Ok(shown.iter().zip(scores.chunks_exact(2)).map(sample).collect())
    }

    fn finish(&mut self, model: &Model) -> Result<Option<serde_json::Value>, TrainError> {
        let plain = model.valid();
        let parts = &self.data.parts;
        let measured = |part: &[usize]| {
            let per_batch = self.settings.optimization.batch_size;
            let scores: Vec<f64> =
                part.chunks(per_batch).flat_map(|part| self.batch(part).answers.rate(&plain)).collect();
            let pairs = part.iter().map(|&index| &self.data.pairs[index]);
            let lengths: Vec<usize> = pairs.flat_map(|pair| [pair.chosen.len(), pair.rejected.len()]).collect();
            (!part.is_empty()).then(|| evaluate(&scores, &lengths))
        };
        Ok(Some(json!({
            "data": self.data.report,
            "parts": { "train": parts.train.len(), "validation": parts.validation.len(), "test": parts.test.len() },
            "parameters": parameter_counts(model),
            "validation": measured(&parts.validation),
            "test": measured(&parts.test),
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evaluation_has_the_numbers_worked_out_by_hand() {
        // Margins 2, -1, 0.5: two of three right. Lengths are three times the scores: correlation 1.
        let found = evaluate(&[3.0, 1.0, 1.0, 2.0, 2.5, 2.0], &[9, 3, 3, 6, 7, 6]);
        assert!((found.accuracy - 2.0 / 3.0).abs() < 1e-12);
        assert!((found.margin - 0.5).abs() < 1e-12);
        assert_eq!((found.min_reward, found.max_reward, found.pairs), (1.0, 3.0, 3));
        assert!(found.length_correlation > 0.99);
        // Confidences 0.8808 (right), 0.7311 (wrong), 0.6225 (right), each in a bin of its own.
        let expected = (1.0 - 0.880_797 + 0.731_059 + 1.0 - 0.622_459) / 3.0;
        assert!((found.calibration_error - expected).abs() < 1e-5, "{}", found.calibration_error);
    }

    #[test]
    fn scores_that_do_not_vary_have_no_correlation() {
        assert!(evaluate(&[1.0, 1.0], &[3, 5]).length_correlation.is_nan());
    }
}
