//! What a run would cost, before it runs.

pub(crate) mod tuning;

use crate::error::CliError;
use crate::text;
use cavy_model::Gpt2Config;
use cavy_train::data;
use cavy_train::machine::Machine;
use cavy_train::pretrain::model_config;
use cavy_train::sampler::Sampler;
use cavy_train::{PretrainSettings, Schedule};

/// Share of the measured matrix-product rate that training reaches, for the estimate of time.
pub(crate) const TYPICAL_MFU: f64 = 0.6;

/// The numbers of a run that has not begun.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The model.
    pub(crate) model: Gpt2Config,
    /// The learning rates.
    pub(crate) schedule: Schedule,
    /// Optimizer steps in an epoch.
    pub(crate) steps_per_epoch: usize,
    /// Tokens of training and validation text.
    pub(crate) tokens: (usize, usize),
    /// Floating-point operations of one step.
    pub(crate) step_flops: f64,
    /// Bytes at the peak, estimated.
    pub(crate) memory_bytes: f64,
    /// The machine, measured.
    pub(crate) machine: Machine,
}

impl Plan {
    /// Reads the text, trains the tokenizer if one is asked for, and measures the machine.
    ///
    /// Errors: text or sizes that training would refuse as well.
    pub(crate) fn new(settings: &PretrainSettings) -> Result<Self, CliError> {
        let data = data::prepare(settings, None, &mut |note| text::say(&note))?;
        let model = model_config(settings, data.tokenizer.vocab_size())?;
        let steps_per_epoch = Sampler::new(settings, data.train.len())?.steps_per_epoch();
        let machine = Machine::of_run(settings);
        Ok(Self {
            schedule: Schedule::new(&settings.optimization, settings.optimization.total_steps(steps_per_epoch)),
            steps_per_epoch,
            tokens: (data.train.len(), data.val.len()),
            step_flops: model.training_flops(settings.tokens_per_step(), settings.context_length),
            memory_bytes: memory_bytes(settings, &model),
            machine,
            model,
        })
    }

    /// Seconds that the training steps would take.
    pub(crate) fn seconds(&self) -> f64 {
        self.step_flops * self.schedule.total_steps as f64 / (self.machine.flops_per_s * TYPICAL_MFU)
    }

    /// The plan in lines.
    pub(crate) fn describe(&self, settings: &PretrainSettings) -> String {
        let total = self.schedule.total_steps;
        let parameters = self.model.num_parameters() as u64;
        [
            format!("parameters   {} ({})", text::thousands(parameters), text::count(parameters as f64)),
            format!("vocabulary   {}", text::thousands(self.model.vocab_size as u64)),
            format!(
                "text         {} tokens for training, {} for validation",
                text::count(self.tokens.0 as f64),
                text::count(self.tokens.1 as f64)
            ),
            format!(
                "steps        {total} ({} an epoch, {:.2} epochs), {} tokens each",
                self.steps_per_epoch,
                total as f64 / self.steps_per_epoch as f64,
                text::thousands(settings.tokens_per_step() as u64)
            ),
            format!(
                "work         {}FLOP a step, {}FLOP in all",
                text::count(self.step_flops),
                text::count(self.step_flops * total as f64)
            ),
            format!("memory       about {}", text::bytes(self.memory_bytes)),
            format!(
                "time         about {} at {:.0} % of this machine's {:.0} GFLOP/s on {} threads",
                text::duration(self.seconds()),
                100.0 * TYPICAL_MFU,
                self.machine.flops_per_s / 1e9,
                settings.run.worker_threads()
            ),
            format!("precision    {}", self.machine.precision),
            format!("rate         {}", crate::curve::caption(&self.schedule)),
        ]
        .join("\n")
    }
}

/// Estimated bytes at the peak: weights and gradients in f32, moments, and what the forward pass keeps.
///
/// Numbers: a block keeps about `10 D + 2 F` floats a token (its input, both norms, packed queries, keys and values,
/// the attention's result, the feed-forward layer before and after its nonlinearity, dropout's masks not counted); with
/// recomputation one `D`, and one block at a time. The fused head holds chunks, never `tokens x V`.
fn memory_bytes(settings: &PretrainSettings, model: &Gpt2Config) -> f64 {
    let tokens = (settings.optimization.batch_size * settings.context_length) as f64;
    let (width, inner) = (model.hidden_size as f64, model.inner_size() as f64);
    let block = 10.0 * width + 2.0 * inner;
    let layers = model.num_hidden_layers as f64;
    let kept = if settings.optimization.recompute { layers * width + block } else { layers * block };
    let head_chunk = 16e6;
    (8.0 + settings.optimization.optim.moment_bytes()) * model.num_parameters() as f64
        + 4.0 * tokens * kept
        + head_chunk
}

#[cfg(test)]
mod tests {
    use super::*;
    use cavy_train::settings::Optim;

    #[test]
    fn moments_in_8_bits_save_about_six_bytes_a_parameter() {
        let mut settings = PretrainSettings::default();
        let model = Gpt2Config {
            vocab_size: 1000,
            context_length: 64,
            hidden_size: 128,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 512,
            drop_rate: 0.0,
            qkv_bias: true,
            tie_word_embeddings: true,
            layer_norm_eps: 1e-5,
        };
        let full = memory_bytes(&settings, &model);
        settings.optimization.optim = Optim::AdamW8bit;
        let saved = (full - memory_bytes(&settings, &model)) / model.num_parameters() as f64;
        // Two f32 numbers become two bytes and two scales for 256 parameters.
        assert!((saved - (8.0 - 2.0 - 8.0 / 256.0)).abs() < 1e-9, "{saved}");
    }
}
