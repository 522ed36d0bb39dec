//! The one training loop: any objective, from settings to a run directory.
//!
//! A run directory holds `run.toml` (the settings), `metrics.jsonl`, `samples.jsonl`, `checkpoints/` (see
//! [`crate::checkpoint`]) and, at the end, `model/` (a Hugging Face directory) or `adapter/` (PEFT's).

use crate::base::parameter_counts;
use crate::checkpoint::{self, Progress, Snapshot};
use crate::data::DataFingerprint;
use crate::files::{write_atomically, write_error};
use crate::log::Log;
use crate::machine::Machine;
use crate::metrics::{EvalRecord, Event, Finished, Observer, Record, SampleRecord, Started, TrainRecord};
use crate::objectives::{Loss, Objective, Split, Tally};
use crate::optimizer::Optimizer;
use crate::settings::Settings;
use crate::step::{StepReport, StepSettings, step};
use crate::{Schedule, TrainError};
use burn::tensor::Device;
use cavy_model::Model;
use fs_err as fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How a run ended, without an error.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Every step is done and the result is written.
    Finished(Finished),
    /// `stop` was set: a checkpoint is written, from which the run can be resumed.
    Stopped(Finished),
}

/// What an objective is told when it gets its data ready.
pub struct Preparation<'a> {
    /// Run directory.
    pub run_dir: &'a Path,
    /// Whether the run starts at its first step.
    pub is_fresh: bool,
    /// Hears of what takes a while.
    pub note: &'a mut dyn FnMut(String),
}

/// Runs, or resumes, in `run_dir` what `prepare` makes of its data.
///
/// Once `stop` is set, the step in progress is finished, a checkpoint is written and the run ends. `resume` goes on from
/// the latest checkpoint, or from the start where there is none.
///
/// Law: a run that was stopped or killed and resumed leaves the weights, the samples and the lines of `metrics.jsonl`
/// of a run never stopped, bit for bit, but for the three fields that depend on the clock: `tokens_per_s`, `mfu` and
/// `step_s`.
///
/// Errors: settings that cannot be, unusable data, a run that is already there, a damaged checkpoint, the disk's, and
/// too many steps in a row without a finite loss. Checkpoints written before stay whole.
pub fn run_objective<O: Objective>(
    settings: &O::Settings,
    run_dir: &Path,
    resume: bool,
    prepare: impl FnOnce(Preparation<'_>) -> Result<O, TrainError>,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome, TrainError> {
    let began = Instant::now();
    settings.validate()?;
    cavy_ops::kernels::parallel::flush_denormals();
    let machine = Machine::of_run(settings);
    cavy_ops::set_exec(machine.exec);
    let last_saved = checkpoint::list(run_dir)?.pop();
    if !resume && (last_saved.is_some() || run_dir.join("metrics.jsonl").exists()) {
        return Err(TrainError::RunExists { path: run_dir.to_path_buf() });
    }
    let from = last_saved.filter(|_| resume);
    let mut note = |text| observer.event(&Event::Note(text));
    let objective = prepare(Preparation { run_dir, is_fresh: from.is_none(), note: &mut note })?;
    let (mut run, model) = Run::prepare(settings, &machine, objective, run_dir, from, observer, stop)?;
    let (model, finished) = run.train(model)?;
    let mut summary = Finished {
        step: run.progress.step,
        seconds: began.elapsed().as_secs_f64(),
        best: run.progress.best,
        model: checkpoint::folder(run_dir, run.progress.step),
    };
    if finished {
        summary.model = run_dir.join(run.objective.output());
        run.objective.save(&model, &summary.model)?;
        run.summarize(&model)?;
    }
    summary.seconds = began.elapsed().as_secs_f64();
    run.observer.event(&Event::Finished(summary.clone()));
    Ok(if finished { Outcome::Finished(summary) } else { Outcome::Stopped(summary) })
}

/// Everything a run holds but the model, which each step takes and gives back.
struct Run<'a, O: Objective> {
    settings: &'a O::Settings,
    objective: O,
    /// Run directory.
    folder: &'a Path,
    observer: &'a mut dyn Observer,
    stop: &'a AtomicBool,
    fingerprint: DataFingerprint,
    schedule: Schedule,
    optimizer: Optimizer,
    progress: Progress,
    metrics: Log,
    samples: Log,
    machine_flops_per_s: f64,
    /// Step of the latest checkpoint.
    saved: Option<usize>,
}

impl<'a, O: Objective> Run<'a, O> {
    /// Makes everything ready, from the checkpoint at `from` if there is one, and tells the observer.
    fn prepare(
        settings: &'a O::Settings,
        machine: &Machine,
        objective: O,
        run_dir: &'a Path,
        from: Option<usize>,
        observer: &'a mut dyn Observer,
        stop: &'a AtomicBool,
    ) -> Result<(Self, Model), TrainError> {
        let optimization = settings.optimization();
        let schedule = Schedule::new(optimization, optimization.total_steps(objective.steps_per_epoch()));
        let fingerprint = objective.fingerprint();
        let device = Device::flex().autodiff();
        let (model, optimizer, progress) = if let Some(step) = from {
            let read = |folder: &Path| objective.model(Some(folder), &device);
            let loaded = checkpoint::load(run_dir, step, (settings, &fingerprint), &device, read)?;
            (loaded.model, loaded.optimizer, loaded.progress)
        } else {
            (objective.model(None, &device)?, Optimizer::new(optimization), Progress::default())
        };
        fs::create_dir_all(run_dir).map_err(write_error(run_dir))?;
        let toml = run_dir.join("run.toml");
        if from.is_none() || !toml.exists() {
            let verb = O::Settings::VERB;
            let text = format!("# cavy {verb} --config run.toml\n{}", settings.to_table());
            write_atomically(&toml, text.as_bytes())?;
        }
        let (metrics, all_metrics) = Log::open(&run_dir.join("metrics.jsonl"), progress.metrics_bytes)?;
        let (samples, all_samples) = Log::open(&run_dir.join("samples.jsonl"), progress.samples_bytes)?;
        if !all_metrics || !all_samples {
            let step = progress.step;
            observer.event(&Event::Note(format!("records from before step {step} are missing from the logs")));
        }
        let counts = parameter_counts(&model);
        write_atomically(&run_dir.join("machine.json"), machine.to_json().as_bytes())?;
        observer.event(&Event::Started(Started {
            total_steps: schedule.total_steps,
            first_step: progress.step,
            steps_per_epoch: objective.steps_per_epoch(),
            parameters: counts.total,
            trainable: counts.trainable,
            machine_gflops: machine.flops_per_s / 1e9,
            threads: machine.exec.threads(),
            precision: machine.precision.clone(),
            ..objective.overview()
        }));
        let run = Self {
            settings,
            objective,
            folder: run_dir,
            observer,
            stop,
            fingerprint,
            schedule,
            optimizer,
            progress,
            metrics,
            samples,
            machine_flops_per_s: machine.flops_per_s,
            saved: from,
        };
        Ok((run, model))
    }

    /// Trains until all steps are done, or until `stop` is set. Returns the model and whether all steps are done.
    fn train(&mut self, mut model: Model) -> Result<(Model, bool), TrainError> {
        if self.settings.evaluation().eval_freq > 0 && self.metrics.sync()? == 0 {
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
    fn step(&mut self, model: Model) -> Result<Model, TrainError> {
        let began = Instant::now();
        let index = self.progress.step;
        let batches = self.objective.batches(&model, index)?;
        let optimization = self.settings.optimization();
        let clips =
            optimization.max_norm > 0.0 && (!optimization.clip_after_warmup || index >= self.schedule.warmup_steps);
        let step_settings = StepSettings {
            lr: self.schedule.lr_at(index),
            max_norm: clips.then_some(optimization.max_norm),
            step: index,
            seed: self.settings.run().seed,
            recompute: optimization.recompute,
        };
        let (model, report) = step(model, &mut self.optimizer, self.objective.loss(), &batches, &step_settings);
        self.count(&report);
        let flops = self.objective.step_flops(&model, report.computed_tokens);
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

    /// Passes over the data so far.
    fn epoch(&self) -> f64 {
        self.progress.step as f64 / self.objective.steps_per_epoch() as f64
    }

    fn record(&mut self, report: &StepReport, lr: f64, flops: f64, took: Duration) -> Result<(), TrainError> {
        let step_s = took.as_secs_f64();
        let record = TrainRecord {
            step: self.progress.step,
            epoch: self.epoch(),
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
            metrics: report.metrics.clone(),
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
        let most = self.settings.optimization().max_skipped_steps;
        if skipped >= most {
            let way_out = self.saved.map_or_else(
                || "then start again".to_owned(),
                |saved| format!("the checkpoint at step {saved} is untouched"),
            );
            let peak_lr = self.settings.optimization().peak_lr;
            return Err(TrainError::Diverged { step, skipped, loss, grad_norm, peak_lr, way_out });
        }
        let text =
            format!("step {step} skipped: loss {loss}, gradient norm {grad_norm} ({skipped} in a row of {most})");
        self.observer.event(&Event::Note(text));
        Ok(())
    }

    /// Evaluation, sample and checkpoint, where they are due.
    fn after_step(&mut self, model: &Model) -> Result<(), TrainError> {
        let step = self.progress.step;
        let is_last = step == self.schedule.total_steps;
        let due = |every: usize| is_last || (every > 0 && step.is_multiple_of(every));
        let (evaluation, save_every) = (self.settings.evaluation(), self.settings.checkpoints().save_every);
        if due(evaluation.eval_freq) {
            self.evaluate(model)?;
        }
        let sample_every =
            if evaluation.sample_every > 0 { evaluation.sample_every } else { self.objective.steps_per_epoch() };
        if evaluation.sample_tokens > 0 && due(sample_every) {
            self.sample(model)?;
        }
        if due(save_every) {
            self.save(model)?;
        }
        Ok(())
    }

    /// What the model finds in a part of the data, dropout off and without learning.
    fn measure(&self, model: &Model, split: Split) -> Result<Tally, TrainError> {
        let model = model.valid(); // The same weights without autodiff; no copy.
        let loss = self.objective.loss();
        let mut tally = Tally::default();
        for batch in self.objective.eval_batches(split)? {
            tally.merge(&loss.measure(&model, &batch));
        }
        Ok(tally)
    }

    fn evaluate(&mut self, model: &Model) -> Result<(), TrainError> {
        let train = self.measure(model, Split::Training)?;
        let val = self.measure(model, Split::Validation)?;
        let (train_loss, val_loss) = (train.mean(Tally::LOSS), val.mean(Tally::LOSS));
        let step = self.progress.step;
        self.progress.val_loss = val_loss.is_finite().then_some(val_loss);
        if val_loss.is_finite() && self.progress.best.is_none_or(|(best, _)| val_loss < best) {
            self.progress.best = Some((val_loss, step));
        }
        let mut metrics = train.metrics("train_");
        metrics.extend(val.metrics("eval_"));
        let mut record = EvalRecord {
            step,
            epoch: self.epoch(),
            tokens: self.progress.tokens,
            train_loss,
            val_loss,
            val_perplexity: val_loss.exp(),
            val_bits_per_byte: None,
            metrics,
        };
        self.objective.evaluated(&mut record);
        self.metrics.write(&Record::Eval(record.clone()))?;
        self.observer.event(&Event::Eval(record));
        Ok(())
    }

    fn sample(&mut self, model: &Model) -> Result<(), TrainError> {
        let (step, epoch, tokens) = (self.progress.step, self.epoch(), self.progress.tokens);
        for sample in self.objective.samples(model, step)? {
            let record = SampleRecord {
                step,
                epoch,
                tokens,
                prompt: sample.prompt,
                text: sample.text,
                reference: sample.reference,
            };
            self.samples.write(&record)?;
            self.observer.event(&Event::Sample(record));
        }
        Ok(())
    }

    fn save(&mut self, model: &Model) -> Result<(), TrainError> {
        self.progress.updates = self.optimizer.updates();
        self.progress.metrics_bytes = self.metrics.sync()?;
        self.progress.samples_bytes = self.samples.sync()?;
        let snapshot = Snapshot {
            settings: self.settings,
            data: &self.fingerprint,
            progress: &self.progress,
            optimizer: &self.optimizer,
        };
        let path = checkpoint::save(self.folder, &snapshot, |folder| self.objective.save(model, folder))?;
        let step = self.progress.step;
        self.saved = Some(step);
        tracing::info!(step, path = %path.display(), "checkpoint");
        self.observer.event(&Event::Checkpoint { path, step });
        Ok(())
    }

    /// Writes `summary.json`, where the objective has something to say at the end.
    fn summarize(&mut self, model: &Model) -> Result<(), TrainError> {
        let Some(summary) = self.objective.finish(model)? else { return Ok(()) };
        let path = self.folder.join("summary.json");
        let json = serde_json::to_vec_pretty(&summary).map_err(|error| write_error(&path)(error.into()))?;
        write_atomically(&path, &json)
    }
}
