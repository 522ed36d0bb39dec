//! Pretraining: from settings to a run directory. This is the one training loop.
//!
//! A run directory holds `run.toml` (the settings), `metrics.jsonl`, `samples.jsonl`, `checkpoints/` (see
//! [`crate::checkpoint`]), `model/` (a Hugging Face directory, at the end) and, for large text, `tokens/`.

mod log;
pub mod machine;

use crate::checkpoint::{self, Progress, Snapshot};
use crate::data::{self, Data, DataFingerprint};
use crate::files::{write_atomically, write_error};
use crate::metrics::{EvalRecord, Event, Finished, Observer, Record, SampleRecord, Started, TrainRecord};
use crate::optimizer::Optimizer;
use crate::sampler::{Sampler, windows};
use crate::step::{StepReport, StepSettings, step};
use crate::{PretrainSettings, Schedule, TrainError, eval};
use burn::tensor::Device;
use cavy_generate::{GenerateSettings, Sampling, generate};
use cavy_model::{Gpt2, Gpt2Config};
use cavy_ops::Exec;
use cavy_text::Tokenizer;
use cavy_text::rng::hash3;
use fs_err as fs;
use log::Log;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Separates the samples' random numbers from others of the same seed.
const PURPOSE: u64 = 0x5A4E;

/// How a run ended, without an error.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Every step is done and `model/` is written.
    Finished(Finished),
    /// `stop` was set: a checkpoint is written, from which the run can be resumed.
    Stopped(Finished),
}

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

/// Threads that `settings` ask for: one for each core unless told otherwise.
pub fn threads(settings: &PretrainSettings) -> usize {
    if settings.threads > 0 { settings.threads } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

/// Runs, or resumes, a pretraining job in `run_dir`.
///
/// Once `stop` is set, the step in progress is finished, a checkpoint is written and the run ends. `resume` goes on from
/// the latest checkpoint, or from the start where there is none.
///
/// Law: a run that was stopped or killed and resumed leaves the weights, the samples and the lines of `metrics.jsonl`
/// of a run never stopped, bit for bit, but for the three fields that depend on the clock: `tokens_per_s`, `mfu` and
/// `step_s`.
///
/// Errors: settings that cannot be, unusable text, a run that is already there, a damaged checkpoint, the disk's, and
/// too many steps in a row without a finite loss. Checkpoints written before stay whole.
pub fn run(
    settings: &PretrainSettings,
    run_dir: &Path,
    resume: bool,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome, TrainError> {
    let began = Instant::now();
    settings.validate()?;
    cavy_ops::set_exec(Exec::new(threads(settings)));
    cavy_ops::kernels::parallel::flush_denormals();
    let last_saved = checkpoint::list(run_dir)?.pop();
    if !resume && (last_saved.is_some() || run_dir.join("metrics.jsonl").exists()) {
        return Err(TrainError::RunExists { path: run_dir.to_path_buf() });
    }
    let (mut run, model) = Run::prepare(settings, run_dir, last_saved.filter(|_| resume), observer, stop)?;
    let (model, finished) = run.train(model)?;
    let mut summary = Finished {
        step: run.progress.step,
        seconds: began.elapsed().as_secs_f64(),
        best: run.progress.best,
        model: checkpoint::folder(run_dir, run.progress.step),
    };
    if finished {
        summary.model = run_dir.join("model");
        model.save(&summary.model)?;
        run.data.tokenizer.save(summary.model.join("tokenizer.json"))?;
    }
    summary.seconds = began.elapsed().as_secs_f64();
    run.observer.event(&Event::Finished(summary.clone()));
    Ok(if finished { Outcome::Finished(summary) } else { Outcome::Stopped(summary) })
}

/// Everything a run holds but the model, which each step takes and gives back.
struct Run<'a> {
    settings: &'a PretrainSettings,
    /// Run directory.
    folder: &'a Path,
    observer: &'a mut dyn Observer,
    stop: &'a AtomicBool,
    data: Data,
    fingerprint: DataFingerprint,
    /// What samples continue.
    prompt: Vec<u32>,
    sampler: Sampler,
    schedule: Schedule,
    optimizer: Optimizer,
    progress: Progress,
    metrics: Log,
    samples: Log,
    machine_flops_per_s: f64,
    /// Step of the latest checkpoint.
    saved: Option<usize>,
}

impl<'a> Run<'a> {
    /// Makes everything ready, from the checkpoint at `from` if there is one, and tells the observer.
    fn prepare(
        settings: &'a PretrainSettings,
        run_dir: &'a Path,
        from: Option<usize>,
        observer: &'a mut dyn Observer,
        stop: &'a AtomicBool,
    ) -> Result<(Self, Gpt2), TrainError> {
        let cache = run_dir.join("tokens");
        if from.is_none() && cache.exists() {
            // Made with settings that nobody remembers.
            fs::remove_dir_all(&cache).map_err(write_error(&cache))?;
        }
        let data = data::prepare(settings, Some(&cache), &mut |text| observer.event(&Event::Note(text)))?;
        let sampler = Sampler::new(settings, data.train.len())?;
        let context = settings.context_length;
        windows("validation", data.val.len(), context, context)?;
        let config = model_config(settings, data.tokenizer.vocab_size())?;
        let prompt = encode_prompt(&settings.start_context, &data.tokenizer)?;
        let schedule = Schedule::new(settings, settings.total_steps(sampler.steps_per_epoch()));
        let fingerprint = data.fingerprint();
        let device = Device::flex().autodiff();
        let (model, optimizer, progress) = if let Some(step) = from {
            let loaded = checkpoint::load(run_dir, step, (settings, &fingerprint), &device)?;
            (loaded.model, loaded.optimizer, loaded.progress)
        } else {
            (Gpt2::new(&config, settings.seed, &device), Optimizer::new(settings), Progress::default())
        };
        fs::create_dir_all(run_dir).map_err(write_error(run_dir))?;
        let toml = run_dir.join("run.toml");
        if from.is_none() || !toml.exists() {
            write_atomically(&toml, settings.to_table().to_string().as_bytes())?;
        }
        let (metrics, all_metrics) = Log::open(&run_dir.join("metrics.jsonl"), progress.metrics_bytes)?;
        let (samples, all_samples) = Log::open(&run_dir.join("samples.jsonl"), progress.samples_bytes)?;
        if !all_metrics || !all_samples {
            let step = progress.step;
            observer.event(&Event::Note(format!("records from before step {step} are missing from the logs")));
        }
        let machine_flops_per_s = machine::matmul_flops_per_s(cavy_ops::exec());
        observer.event(&Event::Started(Started {
            total_steps: schedule.total_steps,
            first_step: progress.step,
            steps_per_epoch: sampler.steps_per_epoch(),
            parameters: config.num_parameters() as u64,
            train_tokens: data.train.len() as u64,
            val_tokens: data.val.len() as u64,
            vocab_size: config.vocab_size,
            machine_gflops: machine_flops_per_s / 1e9,
            threads: cavy_ops::exec().threads(),
        }));
        let run = Self {
            settings,
            folder: run_dir,
            observer,
            stop,
            data,
            fingerprint,
            prompt,
            sampler,
            schedule,
            optimizer,
            progress,
            metrics,
            samples,
            machine_flops_per_s,
            saved: from,
        };
        Ok((run, model))
    }

    /// Trains until all steps are done, or until `stop` is set. Returns the model and whether all steps are done.
    fn train(&mut self, mut model: Gpt2) -> Result<(Gpt2, bool), TrainError> {
        if self.settings.eval_freq > 0 && self.metrics.sync()? == 0 {
            self.evaluate(&model)?;
        }
        while self.progress.step < self.schedule.total_steps {
            if self.stop.load(Ordering::Relaxed) {
                if self.saved != Some(self.progress.step) {
                    self.save(&model)?;
                }
                return Ok((model, false));
            }
            model = self.step(model)?;
            self.after_step(&model)?;
        }
        Ok((model, true))
    }

    /// One optimizer step and its record.
    fn step(&mut self, model: Gpt2) -> Result<Gpt2, TrainError> {
        let began = Instant::now();
        let index = self.progress.step;
        let batches = self.sampler.step(&self.data.train, index);
        let clips =
            self.settings.max_norm > 0.0 && (!self.settings.clip_after_warmup || index >= self.schedule.warmup_steps);
        let step_settings = StepSettings {
            lr: self.schedule.lr_at(index),
            max_norm: clips.then_some(self.settings.max_norm),
            step: index,
            seed: self.settings.seed,
            recompute: self.settings.recompute,
        };
        let (model, report) = step(model, &mut self.optimizer, &batches, &step_settings);
        self.count(&report);
        let flops = model.config().training_flops(report.tokens, self.settings.context_length);
        self.record(&report, step_settings.lr, flops, began.elapsed())?;
        self.check(&report)?;
        Ok(model)
    }

    fn count(&mut self, report: &StepReport) {
        let progress = &mut self.progress;
        progress.step += 1;
        progress.tokens += report.tokens as u64;
        progress.clipped_steps += usize::from(report.clipped);
        progress.skipped_steps += usize::from(report.skipped);
        progress.skipped_in_a_row = if report.skipped { progress.skipped_in_a_row + 1 } else { 0 };
        progress.val_loss = None;
    }

    fn record(&mut self, report: &StepReport, lr: f64, flops: f64, took: Duration) -> Result<(), TrainError> {
        let step_s = took.as_secs_f64();
        let record = TrainRecord {
            step: self.progress.step,
            epoch: self.sampler.epoch_after(self.progress.step),
            tokens: self.progress.tokens,
            loss: report.loss,
            lr,
            grad_norm: report.grad_norm,
            grad_norm_clipped: report.grad_norm_clipped,
            grad_max: report.grad_max,
            clipped_share: self.progress.clipped_steps as f64 / self.progress.step as f64,
            skipped_steps: self.progress.skipped_steps,
            tokens_per_s: report.tokens as f64 / step_s,
            mfu: flops / step_s / self.machine_flops_per_s,
            step_s,
        };
        tracing::debug!(step = record.step, loss = record.loss, lr, grad_norm = record.grad_norm, "step");
        self.metrics.write(&Record::Train(record.clone()))?;
        self.observer.event(&Event::Train(record));
        Ok(())
    }

    /// Tells of a skipped step, and ends the run after too many in a row.
    fn check(&mut self, report: &StepReport) -> Result<(), TrainError> {
        if !report.skipped {
            return Ok(());
        }
        let (step, skipped) = (self.progress.step, self.progress.skipped_in_a_row);
        let (loss, grad_norm) = (report.loss, report.grad_norm);
        if skipped >= self.settings.max_skipped_steps {
            let way_out = self.saved.map_or_else(
                || "then start again".to_owned(),
                |saved| format!("the checkpoint at step {saved} is untouched"),
            );
            let peak_lr = self.settings.peak_lr;
            return Err(TrainError::Diverged { step, skipped, loss, grad_norm, peak_lr, way_out });
        }
        let most = self.settings.max_skipped_steps;
        let text =
            format!("step {step} skipped: loss {loss}, gradient norm {grad_norm} ({skipped} in a row of {most})");
        self.observer.event(&Event::Note(text));
        Ok(())
    }

    /// Evaluation, sample and checkpoint, where they are due.
    fn after_step(&mut self, model: &Gpt2) -> Result<(), TrainError> {
        let step = self.progress.step;
        let is_last = step == self.schedule.total_steps;
        let due = |every: usize| is_last || (every > 0 && step.is_multiple_of(every));
        let settings = self.settings;
        if due(settings.eval_freq) {
            self.evaluate(model)?;
        }
        let sample_every =
            if settings.sample_every > 0 { settings.sample_every } else { self.sampler.steps_per_epoch() };
        if settings.sample_tokens > 0 && due(sample_every) {
            self.sample(model)?;
        }
        if due(settings.save_every) {
            self.save(model)?;
        }
        Ok(())
    }

    fn evaluate(&mut self, model: &Gpt2) -> Result<(), TrainError> {
        let how = (self.settings.context_length, self.settings.batch_size, self.settings.eval_iter);
        let train_loss = eval::mean_loss(model, "training", &self.data.train, how)?;
        let val_loss = eval::mean_loss(model, "validation", &self.data.val, how)?;
        let step = self.progress.step;
        self.progress.val_loss = val_loss.is_finite().then_some(val_loss);
        if val_loss.is_finite() && self.progress.best.is_none_or(|(best, _)| val_loss < best) {
            self.progress.best = Some((val_loss, step));
        }
        let record = EvalRecord {
            step,
            epoch: self.sampler.epoch_after(step),
            tokens: self.progress.tokens,
            train_loss,
            val_loss,
            val_perplexity: val_loss.exp(),
            val_bits_per_byte: eval::bits_per_byte(val_loss, &self.data.val),
        };
        self.metrics.write(&Record::Eval(record.clone()))?;
        self.observer.event(&Event::Eval(record));
        Ok(())
    }

    fn sample(&mut self, model: &Gpt2) -> Result<(), TrainError> {
        let step = self.progress.step;
        let sampling =
            Sampling { temperature: self.settings.temperature, top_k: self.settings.top_k, ..Sampling::default() };
        let how = GenerateSettings {
            max_tokens: self.settings.sample_tokens,
            sampling,
            seed: hash3(self.settings.seed ^ PURPOSE, step as u64, 0),
            end_of_text: self.data.tokenizer.end_of_text(),
        };
        let tokens = generate(model, &self.prompt, &how, &mut |_| false);
        let record = SampleRecord {
            step,
            epoch: self.sampler.epoch_after(step),
            tokens: self.progress.tokens,
            prompt: self.settings.start_context.clone(),
            text: self.data.tokenizer.decode(&tokens),
        };
        self.samples.write(&record)?;
        self.observer.event(&Event::Sample(record));
        Ok(())
    }

    fn save(&mut self, model: &Gpt2) -> Result<(), TrainError> {
        self.progress.updates = self.optimizer.updates();
        self.progress.metrics_bytes = self.metrics.sync()?;
        self.progress.samples_bytes = self.samples.sync()?;
        let snapshot = Snapshot {
            settings: self.settings,
            data: &self.fingerprint,
            tokenizer: &self.data.tokenizer,
            progress: &self.progress,
            model,
            optimizer: &self.optimizer,
        };
        let path = checkpoint::save(self.folder, &snapshot)?;
        let step = self.progress.step;
        self.saved = Some(step);
        tracing::info!(step, path = %path.display(), "checkpoint");
        self.observer.event(&Event::Checkpoint { path, step });
        Ok(())
    }
}

/// The ids of the start context; where it is empty, the end of a text, after which another begins.
fn encode_prompt(start_context: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>, TrainError> {
    let ids = tokenizer.encode(start_context).map_err(|source| TrainError::StartContext { source })?;
    Ok(if ids.is_empty() { vec![tokenizer.end_of_text().unwrap_or(0)] } else { ids })
}
