//! Which models a ladder trains, and how.

use super::super::plan::{Family, config};
use super::LadderSettings;
use super::corpus::Tokens;
use crate::text;
use cavy_scaling::ladder::sizes;
use cavy_scaling::shape::{self, Shape};
use cavy_scaling::training_flops;
use cavy_train::PretrainSettings;
use cavy_train::settings::{
    Arch, CheckpointSettings, EvaluationSettings, LrSchedule, OptimizationSettings, RunSettings, Warmup, WeightInit,
};
use std::path::Path;

/// Windows of a batch. Small models with little text need steps more than they need large batches: of the built-in text, 141k
/// parameters on 1.41M tokens reach 1.66 with batches of 2048 tokens, 1.35 with 1024 and 1.19 with 512.
const BATCH_SIZE: usize = 8;
/// Windows of an evaluation: the same text for every rung, whatever its batch.
const EVAL_WINDOWS: usize = 1024;

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rung {
    /// The model's sizes.
    pub(super) shape: Shape,
    /// Its parameters, embeddings and head included.
    pub(super) parameters: f64,
    /// Optimizer steps.
    pub(super) steps: usize,
    /// Windows in a batch.
    pub(super) batch_size: usize,
    /// Tokens of a window.
    pub(super) context_length: usize,
    /// Peak learning rate.
    pub(super) peak_lr: f64,
    /// Seed of weights and order.
    pub(super) seed: u64,
}

/// The runs of a ladder.
#[derive(Clone, Debug)]
pub(super) struct Design {
    /// What the forecast rests on.
    pub(super) rungs: Vec<Rung>,
    /// What is foretold.
    pub(super) target: Rung,
}

impl Design {
    /// Every size is trained on half, once and twice the usual tokens, so that the exponents of parameters and tokens
    /// can be told apart; the largest not on twice, which would cost as much as the target. The two smallest are trained
    /// with other seeds too.
    pub(super) fn new(settings: &LadderSettings, vocab_size: usize) -> Self {
        let shaped = |target: f64| {
            let of = |shape| config(Family::Gpt2, shape, vocab_size, settings.context_length).num_parameters() as f64;
            let shape = shape::choose(target, of);
            (shape, of(shape))
        };
        let rung = |(shape, parameters): (Shape, f64), length: f64, seed: u64| {
            Rung::new(settings, shape, parameters, length * settings.tokens_per_parameter * parameters, seed)
        };
        let mut rungs = Vec::new();
        for (index, size) in sizes(settings.smallest, settings.largest, settings.sizes).into_iter().enumerate() {
            let size = shaped(size);
            for length in [0.5, 1.0, 2.0] {
                if length > 1.0 && index + 1 == settings.sizes {
                    continue;
                }
                let seeds = if index < 2 && length == 1.0 { settings.seeds as u64 } else { 1 };
                rungs.extend((0..seeds).map(|other| rung(size, length, settings.seed + other)));
            }
        }
        Self { rungs, target: rung(shaped(settings.target), 1.0, settings.seed) }
    }

    /// Every run, the target last.
    pub(super) fn all(&self) -> impl Iterator<Item = &Rung> {
        self.rungs.iter().chain([&self.target])
    }

    /// What is to be trained, in lines.
    pub(super) fn describe(&self, text_tokens: Option<Tokens>) -> Vec<String> {
        let mut lines = vec![format!(
            "{} rungs and the target, {}FLOP in all{}",
            self.rungs.len(),
            text::count(self.all().map(Rung::flops).sum()),
            text_tokens.map_or(String::new(), |tokens| format!(
                "; text: {} tokens, {} for validation",
                text::count(tokens.train as f64),
                text::count(tokens.validation as f64)
            ))
        )];
        lines.push("  layers  wide  heads        N        D   D/N  batch  steps      rate  seed".to_owned());
        lines.extend(self.all().map(|rung| {
            let Shape { hidden_size, num_hidden_layers, num_attention_heads } = rung.shape;
            format!(
                "  {num_hidden_layers:>6}{hidden_size:>6}{num_attention_heads:>7}{:>9}{:>9}{:>6.1}{:>7}{:>7}{:>10}{:>6}",
                text::count(rung.parameters),
                text::count(rung.tokens()),
                rung.tokens() / rung.parameters,
                rung.batch_size,
                rung.steps,
                text::rate(rung.peak_lr),
                rung.seed
            )
        }));
        if let Some(tokens) = text_tokens {
            let most = self.all().map(Rung::tokens).fold(0.0, f64::max);
            if most > tokens.train as f64 {
                lines.push(format!(
                    "note: the longest run sees its text {:.1} times; a law of fresh text does not know that",
                    most / tokens.train as f64
                ));
            }
        }
        lines
    }
}

impl Rung {
    fn new(settings: &LadderSettings, shape: Shape, parameters: f64, tokens: f64, seed: u64) -> Self {
        let context_length = settings.context_length;
        let steps = ((tokens / (BATCH_SIZE * context_length) as f64).round() as usize).max(1);
        Self { shape, parameters, steps, batch_size: BATCH_SIZE, context_length, peak_lr: peak_lr(shape), seed }
    }

    /// Tokens it is trained on.
    pub(super) fn tokens(&self) -> f64 {
        (self.steps * self.batch_size * self.context_length) as f64
    }

    /// `6 N D`.
    pub(super) fn flops(&self) -> f64 {
        training_flops(self.parameters, self.tokens())
    }

    /// The name of its run directory.
    pub(super) fn name(&self) -> String {
        format!("n{:.0}-d{:.0}-seed{}", self.parameters, self.tokens(), self.seed)
    }

    /// What the training loop is told: a cosine that ends with the run, and one evaluation at the end.
    pub(super) fn settings(&self, settings: &LadderSettings, text: &Path, threads: usize) -> PretrainSettings {
        let file = |name: &str| text.join(name).display().to_string();
        let defaults = PretrainSettings::default();
        PretrainSettings {
            run: RunSettings { seed: self.seed, threads, ..defaults.run },
            data: vec![file("train.jsonl")],
            val_data: vec![file("val.jsonl")],
            tokenizer: super::corpus::tokenizer(settings, text),
            arch: Arch::Custom,
            weight_init: WeightInit::Normal,
            hidden_size: self.shape.hidden_size,
            num_hidden_layers: self.shape.num_hidden_layers,
            num_attention_heads: self.shape.num_attention_heads,
            context_length: self.context_length,
            optimization: OptimizationSettings {
                batch_size: self.batch_size,
                max_steps: self.steps,
                peak_lr: self.peak_lr,
                min_lr: 0.01 * self.peak_lr,
                warmup_steps: Warmup::Fraction(0.05),
                lr_schedule: LrSchedule::Cosine,
                beta2: 0.99,
                ..defaults.optimization
            },
            evaluation: EvaluationSettings {
                eval_freq: 0,
                eval_iter: EVAL_WINDOWS.div_ceil(self.batch_size),
                sample_tokens: 0,
                ..defaults.evaluation
            },
            checkpoints: CheckpointSettings { save_every: 1000, keep_last: 1, ..defaults.checkpoints },
            ..PretrainSettings::default()
        }
    }
}

/// Peak learning rate by width: of 0.005, 0.01 and 0.02 the second is best for 64.
fn peak_lr(shape: Shape) -> f64 {
    0.01 * (64.0 / shape.hidden_size as f64).sqrt()
}
