//! `cavy bench sft`: steps of fine-tuning on instructions in file order, as the peer's script takes them.

use crate::bench::peak_memory_mb;
use crate::error::CliError;
use crate::open::base;
use crate::{Ending, text};
use cavy_model::Device;
use cavy_train::base::Tuned;
use cavy_train::objectives::Loss;
use cavy_train::objectives::sft::{Answers, SftData, packed};
use cavy_train::optimizer::Optimizer;
use cavy_train::settings::{
    AdapterSettings, BaseDtype, ModelSettings, Optim, OptimizationSettings, Precision, SftSettings, SplitSettings,
};
use cavy_train::step::{StepSettings, step};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct SftArgs {
    /// Model to fine-tune
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// Instructions
    #[arg(long, default_value = "instruction-data.json", value_name = "FILE")]
    data: PathBuf,
    /// What is trained: every weight, or adapters of rank 16 on every linear layer
    #[arg(long, value_enum, default_value_t = Mode::Full)]
    mode: Mode,
    /// Steps
    #[arg(long, default_value_t = 4)]
    steps: usize,
    /// Examples of a step
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Learning rate of every step
    #[arg(long, default_value_t = 2e-5)]
    lr: f64,
    /// The first example
    #[arg(long, default_value_t = 0)]
    first: usize,
    /// Threads; 0 for all cores
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Optimizer
    #[arg(long, value_enum, default_value_t = Optim::AdamW)]
    optim: Optim,
    /// Adapter to start from, in PEFT's format
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// How frozen weights are kept beside an adapter
    #[arg(long, value_enum, default_value_t = BaseDtype::F32)]
    base_dtype: BaseDtype,
    /// Precision of matrix products
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    precision: Precision,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Full,
    Lora,
    Dora,
}

impl SftArgs {
    /// The settings that the peer's script has: constant rate, no decay, clipping at 1.
    fn settings(&self) -> SftSettings {
        let adapter = match (self.mode, &self.adapter) {
            (Mode::Full, _) => AdapterSettings::default(),
            (_, Some(path)) => {
                AdapterSettings { init_adapter: path.display().to_string(), ..AdapterSettings::default() }
            }
            (mode, None) => AdapterSettings {
                r: 16,
                lora_alpha: 16.0,
                use_dora: mode == Mode::Dora,
                target_modules: vec!["all-linear".to_owned()],
                ..AdapterSettings::default()
            },
        };
        SftSettings {
            model: ModelSettings {
                model: self.model.display().to_string(),
                base_dtype: self.base_dtype,
                ..ModelSettings::default()
            },
            data: vec![self.data.display().to_string()],
            split: SplitSettings { split: "100".to_owned(), ..SplitSettings::default() },
            adapter,
            optimization: OptimizationSettings {
                optim: self.optim,
                weight_decay: 0.0,
                ..OptimizationSettings::default()
            },
            ..SftSettings::default()
        }
    }
}

/// Measures steps from the first on, without the loading of model and data.
pub(crate) fn run(args: &SftArgs) -> Result<Ending, CliError> {
    let machine = super::begin(args.threads, args.precision);
    let settings = args.settings();
    let base = base(&settings.model)?;
    let data = SftData::load(&settings, &base)?;
    let last = args.first + args.batch * args.steps;
    if args.batch == 0 || args.steps == 0 || last > data.examples.len() {
        let message = format!("the data has {} examples, {last} are asked for", data.examples.len());
        return Err(CliError::usage(
            message,
            "lower `--steps`, `--batch` or `--first`; each but the last is at least 1",
        ));
    }
    let tuned = Tuned::new(base, settings.model.base_dtype, &settings.adapter, 0)?;
    let mut model = tuned.model(None, &Device::flex().autodiff())?;
    let mut optimizer = Optimizer::new(&settings.optimization);
    let (mut history, mut tokens) = (Vec::new(), 0);
    let began = Instant::now();
    for (index, examples) in data.examples[args.first..last].chunks(args.batch).enumerate() {
        let batch = packed(examples);
        let how = StepSettings { lr: args.lr, max_norm: Some(1.0), step: index, seed: 0, recompute: false };
        let (updated, report) = step(model, &mut optimizer, &Answers, std::slice::from_ref(&batch), &how);
        model = updated;
        tokens += Answers.tokens(&batch);
        let mut record = json!({
            "loss": report.loss, "grad_norm": report.grad_norm, "learning_rate": args.lr, "num_tokens": tokens,
            "epoch": (index + 1) as f64 / args.steps as f64,
        });
        for (name, value) in report.metrics {
            record[name] = value.into();
        }
        history.push(record);
    }
    let seconds = began.elapsed().as_secs_f64();
    let mode = args.mode.to_possible_value().map_or(String::new(), |mode| mode.get_name().to_owned());
    let (tokens_per_s, peak_mb) = (tokens as f64 / seconds, peak_memory_mb());
    if args.json {
        let json = json!({
            "tool": "cavy", "mode": mode, "tokens_per_s": tokens_per_s, "seconds": seconds, "history": history,
            "peak_mb": peak_mb, "precision": machine.precision,
        });
        text::data(&json.to_string());
    } else {
        let losses: Vec<String> =
            history.iter().map(|record| format!("{:.4}", record["loss"].as_f64().unwrap_or(f64::NAN))).collect();
        text::data(&format!("{mode}: {tokens_per_s:.0} tokens/s, {peak_mb} MB, losses {}", losses.join(" ")));
    }
    Ok(Ending::Done)
}
