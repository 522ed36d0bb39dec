//! What fine-tuning would cost, before it begins.

use super::TYPICAL_MFU;
use crate::error::CliError;
use crate::{curve, text};
use cavy_model::{Device, ModelConfig};
use cavy_train::Schedule;
use cavy_train::base::{ParameterCounts, Tuned, parameter_counts};
use cavy_train::machine::Machine;
use cavy_train::settings::{OptimizationSettings, Settings};

/// The numbers of a run that has not begun.
#[derive(Debug)]
pub(crate) struct TuningPlan {
    counts: ParameterCounts,
    schedule: Schedule,
    steps_per_epoch: usize,
    /// Tokens of a full step, and floating-point operations.
    step_tokens: f64,
    step_flops: f64,
    memory_bytes: f64,
    machine: Machine,
}

impl TuningPlan {
    /// Builds the model to count its parameters, and measures the machine. `tokens` are those of the training part in one
    /// pass, `longest` those of the longest example.
    ///
    /// Errors: model or adapter that training would refuse as well.
    pub(crate) fn new<S: Settings>(
        settings: &S,
        tuned: &Tuned,
        steps_per_epoch: usize,
        (tokens, longest, examples): (usize, usize, usize),
    ) -> Result<Self, CliError> {
        let (optimization, machine) = (settings.optimization(), Machine::of_run(settings));
        cavy_ops::set_exec(machine.exec);
        let model = tuned.model(None, &Device::flex().autodiff())?;
        let counts = parameter_counts(&model);
        let step_tokens = tokens as f64 / steps_per_epoch as f64;
        let mean = tokens / examples.max(1);
        let micro_batch = (optimization.batch_size * longest) as f64;
        Ok(Self {
            counts,
            schedule: Schedule::new(optimization, optimization.total_steps(steps_per_epoch)),
            steps_per_epoch,
            step_tokens,
            step_flops: tuned.step_flops(&model, step_tokens as usize, mean),
            memory_bytes: memory_bytes(&model.config(), &counts, micro_batch, optimization),
            machine,
        })
    }

    /// The plan in lines, and the curve of the learning rate.
    pub(crate) fn describe(&self) -> String {
        let ParameterCounts { base, total, trainable } = self.counts;
        let steps = self.schedule.total_steps;
        let seconds = self.step_flops * steps as f64 / (self.machine.flops_per_s * TYPICAL_MFU);
        [
            format!("parameters   {}", text::thousands(base)),
            format!(
                "trainable    {} of {} ({:.2} %)",
                text::thousands(trainable),
                text::thousands(total),
                100.0 * trainable as f64 / total.max(1) as f64
            ),
            format!(
                "steps        {steps} ({} an epoch, {:.2} epochs), about {:.0} tokens each",
                self.steps_per_epoch,
                steps as f64 / self.steps_per_epoch as f64,
                self.step_tokens
            ),
            format!("memory       about {}", text::bytes(self.memory_bytes)),
            format!(
                "time         about {} at {:.0} % of this machine's {:.0} GFLOP/s on {} threads",
                text::duration(seconds),
                100.0 * TYPICAL_MFU,
                self.machine.flops_per_s / 1e9,
                self.machine.exec.threads()
            ),
            format!("precision    {}", self.machine.precision),
            format!("rate         {}", curve::caption(&self.schedule)),
            String::new(),
            curve::draw(&self.schedule),
        ]
        .join("\n")
    }
}

/// Estimated bytes at the peak: weights, gradients and moments of what is trained, and what the forward pass keeps of
/// `tokens`; see [`super::Plan`] for the numbers.
fn memory_bytes(
    config: &ModelConfig,
    counts: &ParameterCounts,
    tokens: f64,
    optimization: &OptimizationSettings,
) -> f64 {
    let (width, inner, layers) = match config {
        ModelConfig::Gpt2(config) => (config.hidden_size, 2 * config.inner_size(), config.num_hidden_layers),
        ModelConfig::Llama(config) => (config.hidden_size, 4 * config.intermediate_size, config.num_hidden_layers),
    };
    let block = 10.0 * width as f64 + inner as f64;
    let kept = if optimization.recompute { (layers * width) as f64 + block } else { layers as f64 * block };
    let trained = 4.0 + optimization.optim.moment_bytes();
    4.0 * (counts.total as f64 + tokens * kept) + trained * counts.trainable as f64 + 16e6
}
