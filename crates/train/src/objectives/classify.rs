//! Classification: the label of a text from a head at its last token.

use super::{BatchOf, Loss, Objective, PassSettings, Sample, Split, Tally};
use crate::TrainError;
use crate::base::{Base, NewHead, Tuned, parameter_counts};
use crate::data::DataFingerprint;
use crate::metrics::{EvalRecord, Observer, Started};
use crate::run::{Outcome, Preparation, run_objective};
use crate::sampler::Items;
use crate::settings::ClassifySettings;
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use cavy_model::{Gradients, Model, Pass};
use cavy_ops::Segments;
use cavy_text::classify::{self, LabelledText, LabelledTexts};
use cavy_text::instruct::Parts;
use cavy_text::rng::{hash_bytes, hash3};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Separates the order of texts from other uses of the seed.
const PURPOSE: u64 = 0xC1A5;

/// Runs, or resumes, the training of a classifier in `run_dir`; see [`run_objective`].
///
/// Errors: as [`run_objective`], and unusable data.
pub fn run(
    settings: &ClassifySettings,
    base: Base,
    run_dir: &Path,
    resume: bool,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome, TrainError> {
    let prepare = |how: Preparation<'_>| {
        let classifier = Classify::new(settings, base)?;
        (how.note)(classifier.data.texts.to_string());
        Ok(classifier)
    };
    run_objective(settings, run_dir, resume, prepare, observer, stop)
}

/// Texts on one token axis, each a segment of its own, with their labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Texts {
    /// Tokens, `(N)`.
    pub ids: Arc<[u32]>,
    /// Where the texts lie.
    pub segments: Arc<Segments>,
    /// The label of each, `(B)`.
    pub labels: Vec<usize>,
}

impl Texts {
    /// These texts, in order.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a LabelledText>) -> Self {
        let (mut ids, mut lengths, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for text in texts {
            ids.extend_from_slice(&text.ids);
            lengths.push(text.ids.len());
            labels.push(text.label);
        }
        Self { ids: ids.into(), segments: Arc::new(Segments::of_lengths(&lengths)), labels }
    }

    /// These tokens of texts, whose labels are not known.
    pub fn unlabelled(texts: &[Vec<u32>]) -> Self {
        let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
        let segments = Arc::new(Segments::of_lengths(&lengths));
        Self { ids: texts.concat().into(), segments, labels: Vec::new() }
    }

    /// Scores of every label for every text, `(B, C)`, differentiable.
    pub fn scores(&self, model: &Model, dropout_key: Option<u64>) -> Tensor<2> {
        let pass = Pass::new(Arc::clone(&self.ids), Arc::clone(&self.segments), dropout_key);
        let last: Vec<usize> = self.segments.list().iter().map(|segment| segment.start + segment.len - 1).collect();
        model.head_rows(&pass, &last)
    }
}

/// The label with the highest score for each text, from scores `(B, C)`; the first of equals.
pub fn predictions(scores: &Tensor<2>) -> Vec<usize> {
    let [_, labels] = scores.dims();
    let scores = if scores.is_autodiff() { scores.clone().inner() } else { scores.clone() };
    let values: Vec<f32> = scores.into_data().try_to_vec().unwrap_or_default();
    let best = |row: &[f32]| (0..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best });
    values.chunks_exact(labels).map(best).collect()
}

/// `softmax(scores)` of every text, `(B)` rows of `(C)`.
pub fn probabilities(scores: &Tensor<2>) -> Vec<Vec<f32>> {
    let [_, labels] = scores.dims();
    let values: Vec<f32> = activation::softmax(scores.clone(), 1).into_data().try_to_vec().unwrap_or_default();
    values.chunks_exact(labels).map(<[f32]>::to_vec).collect()
}

/// Cross-entropy of the label, `-ln softmax(scores)[label]`, and accuracy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LabelLoss;

impl LabelLoss {
    /// The sum of the losses, differentiable, the tally, and the labels with the highest scores.
    fn judge(model: &Model, batch: &Texts, dropout_key: Option<u64>) -> (Tensor<1>, Tally, Vec<usize>) {
        let scores = batch.scores(model, dropout_key); // (B, C)
        let found = predictions(&scores);
        let right = found.iter().zip(&batch.labels).filter(|(found, label)| found == label).count();
        let count = batch.labels.len();
        let labels: Vec<i64> = batch.labels.iter().map(|&label| label as i64).collect();
        let labels = Tensor::<2, Int>::from_data(TensorData::new(labels, [count, 1]), &scores.device());
        let loss = activation::log_softmax(scores, 1).gather(1, labels).sum().neg(); // (1)
        let plain = if loss.is_autodiff() { loss.clone().inner() } else { loss.clone() };
        let value = f64::from(plain.into_scalar::<f32>());
        let weight = count as f64;
        (loss, Tally::of_loss(value, weight).with("accuracy", right as f64, weight), found)
    }
}

impl Loss for LabelLoss {
    type Batch = Texts;

    fn tokens(&self, batch: &Texts) -> usize {
        batch.ids.len()
    }

    fn weight(&self, batch: &Texts) -> f64 {
        batch.labels.len() as f64
    }

    fn learn(&self, model: &Model, batch: &Texts, share: f32, pass: PassSettings) -> (Gradients, Tally) {
        let (loss, tally, _) = Self::judge(model, batch, pass.dropout_key);
        (model.gradients(&(loss * share)), tally)
    }

    fn measure(&self, model: &Model, batch: &Texts) -> Tally {
        Self::judge(model, batch, None).1
    }
}

/// The texts of a run, and the parts they are divided into.
#[derive(Debug)]
pub struct ClassifyData {
    /// All texts.
    pub texts: LabelledTexts,
    /// Which are for what.
    pub parts: Parts,
}

impl ClassifyData {
    /// Reads and divides the data of `settings` for the model `base`.
    ///
    /// Errors: unusable data, by file and line; another number of labels than was asked for.
    pub fn load(settings: &ClassifySettings, base: &Base) -> Result<Self, TrainError> {
        let (mut how, context) = (settings.text_settings(), base.context_length());
        if how.max_length == 0 || how.max_length > context {
            how.max_length = context;
        }
        let texts = classify::load(&settings.data, &how, &base.tokenizer, &base.special)?;
        let (found, asked) = (texts.labels.len(), settings.num_labels);
        if asked != 0 && asked != found {
            return Err(TrainError::Labels { found, asked, labels: texts.labels.join(", ") });
        }
        let chosen: Vec<usize> = if settings.balance { texts.balanced() } else { (0..texts.texts.len()).collect() };
        let mut parts = settings.split.parts(chosen.len(), settings.run.seed)?;
        for part in [&mut parts.train, &mut parts.validation, &mut parts.test] {
            part.iter_mut().for_each(|index| *index = chosen[*index]);
        }
        if parts.validation.is_empty() {
            let split = settings.split.split.clone();
            return Err(TrainError::NoValidation { split, items: chosen.len() });
        }
        Ok(Self { texts, parts })
    }

    /// How many texts of a part have each label.
    pub fn balance(&self, part: &[usize]) -> Vec<usize> {
        let mut counts = vec![0; self.texts.labels.len()];
        part.iter().for_each(|&index| counts[self.texts.texts[index].label] += 1);
        counts
    }

    /// The head that tells these labels apart.
    pub fn head(&self, settings: &ClassifySettings) -> NewHead {
        NewHead { labels: self.texts.labels.clone(), bias: settings.head_bias }
    }
}

/// Classification with its data.
pub struct Classify<'a> {
    settings: &'a ClassifySettings,
    tuned: Tuned,
    data: ClassifyData,
    items: Items,
}

impl<'a> Classify<'a> {
    fn new(settings: &'a ClassifySettings, base: Base) -> Result<Self, TrainError> {
        let data = ClassifyData::load(settings, &base)?;
        let items = items(settings, &data)?;
        let mut tuned = Tuned::new(base, settings.model.base_dtype, &settings.adapter, settings.run.seed)?;
        tuned.head = Some(data.head(settings));
        tuned.trainable = settings.trainable;
        Ok(Self { settings, tuned, data, items })
    }

    fn texts<'b>(&'b self, indices: &'b [usize]) -> impl Iterator<Item = &'b LabelledText> {
        indices.iter().map(|&index| &self.data.texts.texts[index])
    }

    fn in_order<'b>(&'b self, part: &'b [usize]) -> impl Iterator<Item = Texts> + 'b {
        part.chunks(self.settings.optimization.batch_size).map(move |chunk| Texts::new(self.texts(chunk)))
    }
}

/// The order in which training meets the texts.
///
/// Errors: too few for a step.
pub fn items(settings: &ClassifySettings, data: &ClassifyData) -> Result<Items, TrainError> {
    let shuffle = settings.split.shuffle.then(|| hash3(settings.run.seed, PURPOSE, 0));
    Items::new(&settings.optimization, data.parts.train.len(), settings.split.drop_last, shuffle)
}

impl Objective for Classify<'_> {
    type Settings = ClassifySettings;
    type Loss = LabelLoss;

    fn loss(&self) -> &LabelLoss {
        &LabelLoss
    }

    fn fingerprint(&self) -> DataFingerprint {
        let text = self.data.texts.texts.iter().fold(self.tuned.fingerprint(), |hash, text| {
            let ids: Vec<u8> = text.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            hash_bytes(hash3(hash, text.label as u64, 0), &ids)
        });
        let tokens = |part: &[usize]| self.texts(part).map(|text| text.ids.len()).sum();
        DataFingerprint {
            train_tokens: tokens(&self.data.parts.train),
            val_tokens: tokens(&self.data.parts.validation),
            tokenizer: self.tuned.base.tokenizer.fingerprint(),
            text,
        }
    }

    fn overview(&self) -> Started {
        let fingerprint = self.fingerprint();
        Started {
            train_tokens: fingerprint.train_tokens as u64,
            val_tokens: fingerprint.val_tokens as u64,
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
        let train = &self.data.parts.train;
        let micro_batches = self.items.step(step);
        let of = |places: &Vec<usize>| places.iter().map(|&place| train[place]).collect::<Vec<_>>();
        Ok(micro_batches.iter().map(|places| Texts::new(self.texts(&of(places)))).collect())
    }

    fn step_flops(&self, model: &Model, tokens: usize) -> f64 {
        let texts = &self.data.texts;
        self.tuned.step_flops(model, tokens, texts.tokens / texts.texts.len().max(1))
    }

    fn eval_batches(&self, split: Split) -> Result<Box<dyn Iterator<Item = BatchOf<Self>> + '_>, TrainError> {
        let validation = &self.data.parts.validation;
        let most = match self.settings.evaluation.eval_iter {
            0 => validation.len(),
            batches => batches * self.settings.optimization.batch_size,
        };
        let part: &[usize] = match split {
            Split::Training => &self.data.parts.train,
            Split::Validation => validation,
        };
        Ok(Box::new(self.in_order(&part[..part.len().min(most)])))
    }

    fn evaluated(&self, record: &mut EvalRecord) {
        record.metrics.insert("eval_loss".to_owned(), record.val_loss);
        record.val_perplexity = f64::NAN; // The loss is of labels, not of tokens.
    }

    fn samples(&mut self, _model: &Model, _step: usize) -> Result<Vec<Sample>, TrainError> {
        Ok(Vec::new())
    }

    fn finish(&mut self, model: &Model) -> Result<Option<serde_json::Value>, TrainError> {
        let plain = model.valid();
        let (parts, labels) = (&self.data.parts, &self.data.texts.labels);
        let mut confusion = vec![vec![0usize; labels.len()]; labels.len()];
        let mut tally = Tally::default();
        for batch in self.in_order(&parts.test) {
            let (_, counted, predicted) = LabelLoss::judge(&plain, &batch, None);
            tally.merge(&counted);
            for (found, &label) in predicted.into_iter().zip(&batch.labels) {
                confusion[label][found] += 1;
            }
        }
        let balance = |part: &[usize]| self.data.balance(part);
        Ok(Some(json!({
            "labels": labels,
            "parameters": parameter_counts(model),
            "class_balance": {
                "train": balance(&parts.train), "validation": balance(&parts.validation), "test": balance(&parts.test),
            },
            "test": {
                "loss": tally.mean(Tally::LOSS), "accuracy": tally.mean("accuracy"), "texts": parts.test.len(),
                "confusion": confusion,
            },
        })))
    }
}
