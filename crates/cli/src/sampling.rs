//! How tokens are chosen: flags, else what the model itself says, else ours.

use crate::error::CliError;
use cavy_files::gguf::Metadata;
use cavy_generate::{GenerateSettings, KvStorage, Sampling};
use clap::{Args, ValueEnum};
use serde_json::Value;

/// How tokens are chosen, and where a completion ends.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Most tokens of a completion [default: 128]
    #[arg(long)]
    pub(crate) max_new_tokens: Option<usize>,
    /// Logits are divided by it; 0 takes the likeliest token [default: the model's, or 0.8]
    #[arg(long)]
    pub(crate) temperature: Option<f64>,
    /// Choose among this many likeliest tokens; 0 for all [default: the model's, or 40]
    #[arg(long)]
    pub(crate) top_k: Option<usize>,
    /// Choose among the fewest likeliest tokens that hold this share [default: the model's, or 0.95]
    #[arg(long)]
    pub(crate) top_p: Option<f64>,
    /// Choose among the tokens that are at least this times as likely as the likeliest [default: the model's, or 0.05]
    #[arg(long)]
    pub(crate) min_p: Option<f64>,
    /// Divides the logits of tokens of the prompt and the text so far; 1 for none [default: the model's, or 1]
    #[arg(long)]
    pub(crate) repetition_penalty: Option<f64>,
    /// Taken from the logits of tokens of the text so far
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    pub(crate) presence_penalty: f64,
    /// The same, for every time that a token occurred
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    pub(crate) frequency_penalty: f64,
    /// Added to a token's logit: `ID=BIAS`, as often as wanted
    #[arg(long, value_name = "ID=BIAS", allow_hyphen_values = true, value_parser = bias)]
    pub(crate) logit_bias: Vec<(u32, f32)>,
    /// Text that ends a completion, as often as wanted
    #[arg(long)]
    pub(crate) stop: Vec<String>,
    /// Go on after the end-of-text token
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Decides every choice
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Compute everything anew for every token, for comparison
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// How keys and values are stored
    #[arg(long, value_enum, default_value_t = Kv::F32)]
    pub(crate) kv_cache: Kv,
}

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kv {
    /// Exactly
    F32,
    /// In half the memory
    Bf16,
    /// In a quarter
    Q8,
}

/// `ID=BIAS`.
fn bias(text: &str) -> Result<(u32, f32), String> {
    let (id, bias) = text.split_once('=').ok_or("expected `ID=BIAS`, such as `50256=-100`")?;
    let id = id.parse().map_err(|_| format!("`{id}` is no token id"))?;
    Ok((id, bias.parse().map_err(|_| format!("`{bias}` is no number"))?))
}

impl SamplingArgs {
    /// What the library is told: a flag, else the model's own default, else ours, which is llama.cpp's.
    pub(crate) fn settings(&self, stop_tokens: &[u32], model: &Defaults) -> Result<GenerateSettings, CliError> {
        let temperature = self.temperature.or(model.temperature).unwrap_or(0.8);
        let top_k = self.top_k.or(model.top_k).unwrap_or(40);
        let top_p = self.top_p.or(model.top_p).unwrap_or(0.95);
        let min_p = self.min_p.or(model.min_p).unwrap_or(0.05);
        let repetition_penalty = self.repetition_penalty.or(model.repetition_penalty).unwrap_or(1.0);
        for (name, value, range) in [
            ("temperature", temperature, 0.0..=f64::MAX),
            ("top-p", top_p, 0.0..=1.0),
            ("min-p", min_p, 0.0..=1.0),
            ("repetition-penalty", repetition_penalty, f64::MIN_POSITIVE..=f64::MAX),
        ] {
            if !range.contains(&value) {
                let message = format!("`--{name}` is {value}, expected {} to {:.0}", range.start(), range.end());
                return Err(CliError::usage(message, "see `cavy generate --help`"));
            }
        }
        Ok(GenerateSettings {
            max_tokens: self.max_new_tokens.unwrap_or(128),
            sampling: Sampling {
                temperature,
                top_k,
                top_p,
                min_p,
                repetition_penalty,
                presence_penalty: self.presence_penalty,
                frequency_penalty: self.frequency_penalty,
                logit_bias: self.logit_bias.clone(),
            },
            seed: self.seed,
            stop_tokens: if self.ignore_eos { Vec::new() } else { stop_tokens.to_vec() },
            n: 1,
            batch_size: 1,
            use_cache: !self.no_cache,
            kv_storage: match self.kv_cache {
                Kv::F32 => KvStorage::F32,
                Kv::Bf16 => KvStorage::Bf16,
                Kv::Q8 => KvStorage::Q8,
            },
        })
    }
}

/// What a model says of its own sampling.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Defaults {
    temperature: Option<f64>,
    top_k: Option<usize>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
}

impl Defaults {
    /// From a `generation_config.json`; `do_sample: false`, where it is written, is a temperature of 0.
    pub(crate) fn of_config(config: &Value) -> Self {
        let number = |key: &str| config[key].as_f64().filter(|value| value.is_finite() && *value >= 0.0);
        let greedy = (config["do_sample"] == false).then_some(0.0);
        Self {
            temperature: greedy.or_else(|| number("temperature")),
            top_k: config["top_k"].as_u64().map(|k| k as usize),
            top_p: number("top_p").filter(|p| *p <= 1.0),
            min_p: number("min_p").filter(|p| *p <= 1.0),
            repetition_penalty: number("repetition_penalty").filter(|penalty| *penalty > 0.0),
        }
    }

    /// From the keys that llama.cpp's converter makes of that file.
    pub(crate) fn of_gguf(metadata: &Metadata) -> Self {
        let number = |key: &str| {
            let value = metadata.get(&format!("general.sampling.{key}"))?.to_f64()?;
            // As a person wrote it: 0.6 is rounded to f32 in the file.
            (value as f32).to_string().parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0)
        };
        Self {
            temperature: number("temp"),
            top_k: number("top_k").map(|k| k as usize),
            top_p: number("top_p").filter(|p| *p <= 1.0),
            min_p: number("min_p").filter(|p| *p <= 1.0),
            repetition_penalty: number("penalty_repeat").filter(|penalty| *penalty > 0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        sampling: SamplingArgs,
    }

    fn chosen(flags: &str, config: &Value) -> Sampling {
        let flags = Flags::parse_from(["x"].into_iter().chain(flags.split_whitespace()));
        flags.sampling.settings(&[], &Defaults::of_config(config)).unwrap().sampling
    }

    #[test]
    fn a_flag_goes_before_the_model_and_the_model_before_our_defaults() {
        let config =
            json!({"temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1, "do_sample": true, "min_p": 7});
        let found = chosen("--top-p 0.5 --min-p 0", &config);
        let Sampling { temperature, top_k, top_p, min_p, repetition_penalty, .. } = found;
        assert_eq!((temperature, top_k, top_p, min_p, repetition_penalty), (0.6, 40, 0.5, 0.0, 1.1));
        assert_eq!(chosen("", &json!({"do_sample": false, "temperature": 0.6})).temperature, 0.0);
        assert_eq!(chosen("--temperature 1", &json!({"do_sample": false})).temperature, 1.0);
        let ours = chosen("", &Value::Null);
        assert_eq!((ours.temperature, ours.top_k, ours.top_p, ours.min_p), (0.8, 40, 0.95, 0.05));
        let mut metadata = Metadata::new();
        metadata.set("general.sampling.temp", cavy_files::gguf::Value::F32(0.6));
        metadata.set("general.sampling.top_k", cavy_files::gguf::Value::I32(20));
        let found = Defaults::of_gguf(&metadata);
        assert_eq!((found.temperature, found.top_k, found.top_p), (Some(0.6), Some(20), None));
    }
}
