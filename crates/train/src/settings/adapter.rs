//! Which weights are trained: all of them, the last block, or an adapter's.

use super::check::demand;
use crate::SettingsError;
use cavy_model::{AdapterConfig, LoraScaling, Targets};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::str::FromStr;

/// Adapters in PEFT's names. A rank of 0 is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct AdapterSettings {
    /// Rank of LoRA adapters on a frozen model (0: none, the weights themselves are trained)
    #[arg(long, help_heading = "Adapter")]
    pub r: usize,
    /// How strongly adapters count: their product is scaled by this over `r` (0: twice `r`)
    #[arg(long, help_heading = "Adapter")]
    pub lora_alpha: f64,
    /// Dropout on the inputs of adapters
    #[arg(long, help_heading = "Adapter")]
    pub lora_dropout: f64,
    /// DoRA: also train the magnitude of each output row
    #[arg(long, help_heading = "Adapter")]
    pub use_dora: bool,
    /// Scale by `lora_alpha` over the square root of `r`
    #[arg(long, help_heading = "Adapter")]
    pub use_rslora: bool,
    /// What the product is scaled by: `lora_alpha` over the rank as in PEFT, or `lora_alpha` itself
    #[arg(long, help_heading = "Adapter")]
    pub lora_scaling: Scaling,
    /// Linear layers that get an adapter: ends of names, a regular expression, or `all-linear` (none: PEFT's choice for
    /// the architecture)
    #[arg(long, help_heading = "Adapter")]
    pub target_modules: Vec<String>,
    /// Layers that get none although `target_modules` names them
    #[arg(long, help_heading = "Adapter")]
    pub exclude_modules: Vec<String>,
    /// Modules that are trained whole and stored with the adapter
    #[arg(long, help_heading = "Adapter")]
    pub modules_to_save: Vec<String>,
    /// Other ranks, as `end-of-name=rank`
    #[arg(long, help_heading = "Adapter")]
    pub rank_pattern: Vec<String>,
    /// Other alphas, as `end-of-name=alpha`
    #[arg(long, help_heading = "Adapter")]
    pub alpha_pattern: Vec<String>,
    /// Give the output head an adapter too
    #[arg(long, help_heading = "Adapter")]
    pub lora_head: bool,
    /// Give GPT-2's fused projection one adapter each for queries, keys and values
    #[arg(long, help_heading = "Adapter")]
    pub split_qkv: bool,
    /// Adapter to start from, in PEFT's format, instead of a new one
    #[arg(long, help_heading = "Adapter")]
    pub init_adapter: String,
}

/// What an adapter's product is scaled by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scaling {
    /// `lora_alpha` over the rank
    #[default]
    Rank,
    /// `lora_alpha` itself
    Alpha,
}

/// `name=value` pairs, each value read as `T`.
fn pairs<T: FromStr>(key: &str, texts: &[String]) -> Result<BTreeMap<String, T>, SettingsError> {
    let read = |text: &String| {
        let pair = text.split_once('=').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
        pair.ok_or_else(|| SettingsError::Invalid {
            key: key.to_owned(),
            found: format!("`{text}`"),
            expected: "a name, `=` and a number".to_owned(),
            hint: "write for instance `q_proj=16`".to_owned(),
        })
    };
    texts.iter().map(read).collect()
}

impl AdapterSettings {
    /// Whether there is an adapter.
    pub fn is_on(&self) -> bool {
        self.r > 0 || !self.init_adapter.is_empty()
    }

    /// Why fine-tuning wants f32, if it does: without an adapter the weights themselves change, by less than 16-bit floats show.
    pub(super) fn needs_f32(&self) -> Option<&'static str> {
        (!self.is_on()).then_some("since fine-tuning changes weights by less than 16-bit floats resolve")
    }

    /// The adapter that is asked for, if one is.
    ///
    /// Errors: a pattern that is not `name=value`.
    pub fn config(&self) -> Result<Option<AdapterConfig>, SettingsError> {
        if self.r == 0 {
            return Ok(None);
        }
        let target_modules = match self.target_modules.as_slice() {
            [] => Targets::Usual,
            [one] => Targets::parse(one),
            many => Targets::Names(many.to_vec()),
        };
        Ok(Some(AdapterConfig {
            r: self.r,
            lora_alpha: if self.lora_alpha == 0.0 { 2.0 * self.r as f64 } else { self.lora_alpha },
            lora_dropout: self.lora_dropout,
            use_dora: self.use_dora,
            use_rslora: self.use_rslora,
            lora_scaling: match self.lora_scaling {
                Scaling::Rank => LoraScaling::Rank,
                Scaling::Alpha => LoraScaling::Alpha,
            },
            target_modules,
            exclude_modules: self.exclude_modules.clone(),
            modules_to_save: self.modules_to_save.clone(),
            rank_pattern: pairs("rank_pattern", &self.rank_pattern)?,
            alpha_pattern: pairs("alpha_pattern", &self.alpha_pattern)?,
            lora_head: self.lora_head,
            split_qkv: self.split_qkv,
            base_model_name_or_path: None,
        }))
    }

    /// Checks what does not depend on a model.
    ///
    /// Errors: the first setting that cannot be.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let dropout = self.lora_dropout;
        demand((0.0..1.0).contains(&dropout), "lora_dropout", dropout, "at least 0 and below 1", "0 turns it off")?;
        let alpha = self.lora_alpha;
        demand(
            alpha.is_finite() && alpha >= 0.0,
            "lora_alpha",
            alpha,
            "a number of at least 0",
            "`r` or twice `r` are usual",
        )?;
        let both = self.r > 0 && !self.init_adapter.is_empty();
        let hint = "leave it 0: the rank is that of `init_adapter`";
        demand(!both, "r", self.r, "0 where `init_adapter` is given", hint)?;
        if !self.is_on() {
            let needs_rank = [
                ("use_dora", self.use_dora),
                ("use_rslora", self.use_rslora),
                ("lora_head", self.lora_head),
                ("target_modules", !self.target_modules.is_empty()),
                ("lora_alpha", self.lora_alpha != 0.0),
            ];
            for (key, set) in needs_rank {
                demand(!set, key, "given", "nothing where there is no adapter", "set a rank, for instance `r = 16`")?;
            }
        }
        self.config().map(|_| ())
    }
}
