//! Progress on stderr: a bar with the time left on a terminal, plain lines elsewhere.

use crate::text::{count, duration, rate, say, thousands};
use cavy_train::metrics::{EvalRecord, Event, Observer, SampleRecord, Started, TrainRecord};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Instant;

/// Renders what the training loop tells.
#[derive(Debug)]
pub(crate) struct Watch {
    bar: Option<ProgressBar>,
    log_every: usize,
    started: Option<(Instant, Started)>,
}

impl Watch {
    /// A bar if stderr is a terminal, else a line every `log_every` steps.
    pub(crate) fn new(log_every: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(0));
        Self { bar, log_every: log_every.max(1), started: None }
    }

    /// A line that does not disturb the bar.
    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) if self.started.is_some() => bar.suspend(|| say(line)),
            _ => say(line),
        }
    }

    fn start(&mut self, started: &Started) {
        let trained = if started.trainable == started.parameters {
            String::new()
        } else {
            format!(", {} of them trained", thousands(started.trainable))
        };
        self.line(&format!(
            "model: {} parameters{trained}, vocabulary {}; text: {} tokens for training, {} for validation",
            count(started.parameters as f64),
            started.vocab_size,
            count(started.train_tokens as f64),
            count(started.val_tokens as f64)
        ));
        self.line(&format!(
            "{} steps, {} an epoch; {} threads, {:.0} GFLOP/s in matrix products",
            started.total_steps, started.steps_per_epoch, started.threads, started.machine_gflops
        ));
        if started.precision != "f32, as set" {
            self.line(&format!("precision: {}", started.precision));
        }
        if started.first_step > 0 {
            self.line(&format!("resumed after step {}", started.first_step));
        }
        if let Some(bar) = &self.bar {
            let template = "{bar:24.cyan} {pos}/{len} {msg}  {elapsed} + {eta}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("━╸ "));
            }
            bar.set_length(started.total_steps as u64);
            bar.set_position(started.first_step as u64);
            bar.reset_eta();
        }
        self.started = Some((Instant::now(), started.clone()));
    }

    fn train(&self, record: &TrainRecord) {
        if let Some(bar) = &self.bar {
            let (loss, lr, speed) = (record.loss, rate(record.lr), count(record.tokens_per_s));
            bar.set_message(format!("loss {loss:.3}  lr {lr}  |g| {:.2}  {speed} tok/s", record.grad_norm));
            bar.set_position(record.step as u64);
            return;
        }
        let total = self.started.as_ref().map_or(0, |(_, started)| started.total_steps);
        if record.step.is_multiple_of(self.log_every) || record.step == 1 || record.step == total {
            self.line(&format!(
                "step {}/{total} loss {:.4} lr {} grad_norm {:.3} tok/s {:.0} mfu {:.0}% eta {}",
                record.step,
                record.loss,
                rate(record.lr),
                record.grad_norm,
                record.tokens_per_s,
                100.0 * record.mfu,
                duration(self.seconds_left(record.step))
            ));
        }
    }

    /// Seconds until the last step, at the pace since the start.
    fn seconds_left(&self, step: usize) -> f64 {
        self.started.as_ref().map_or(f64::NAN, |(since, started)| {
            let done = step.saturating_sub(started.first_step).max(1);
            since.elapsed().as_secs_f64() / done as f64 * started.total_steps.saturating_sub(step) as f64
        })
    }

    fn eval(&self, record: &EvalRecord) {
        let bits = record.val_bits_per_byte.map_or(String::new(), |bits| format!(", {bits:.3} bits a byte"));
        let accuracy = |key: &str| record.metrics.get(key).map(|share| 100.0 * share);
        let more = match (accuracy("train_accuracy"), accuracy("eval_accuracy")) {
            (Some(train), Some(val)) => format!("train accuracy {train:.1} %, validation accuracy {val:.1} %"),
            _ => format!("perplexity {:.1}{bits}", record.val_perplexity),
        };
        self.line(&format!(
            "eval step {} (epoch {:.2}): train loss {:.4}, validation loss {:.4}, {more}",
            record.step, record.epoch, record.train_loss, record.val_loss
        ));
    }

    fn sample(&self, record: &SampleRecord) {
        let text = format!("{}{}", record.prompt, record.text).replace('\n', " ");
        self.line(&format!("sample step {}: {}", record.step, shorten(&text, 240)));
    }
}

impl Observer for Watch {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Started(started) => self.start(started),
            Event::Train(record) => self.train(record),
            Event::Eval(record) => self.eval(record),
            Event::Sample(record) => self.sample(record),
            Event::Checkpoint { path, step } => self.line(&format!("saved step {step}: {}", path.display())),
            Event::Note(note) => self.line(note),
            Event::Finished(finished) => {
                if let Some(bar) = &self.bar {
                    bar.finish_and_clear();
                }
                let best = finished
                    .best
                    .map_or(String::new(), |(loss, step)| format!("; best validation loss {loss:.4} at step {step}"));
                say(&format!("{} steps done in {}{best}", finished.step, duration(finished.seconds)));
            }
        }
    }
}

/// At most `most` characters of `text`.
fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
