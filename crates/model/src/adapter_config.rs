//! What an adapter is told: PEFT's `LoraConfig`, its names and its defaults.

use crate::error::ModelError;
use regex::Regex;
use std::collections::BTreeMap;

/// Which layers get an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// The architecture's usual ones, as in PEFT: `c_attn` of a GPT-2, `q_proj` and `v_proj` of the Llama family.
    Usual,
    /// Every linear layer but the output head, which [`AdapterConfig::lora_head`] adds.
    AllLinear,
    /// Layers by the end of their names, such as `q_proj` or `layers.0.mlp.up_proj`.
    Names(Vec<String>),
    /// Layers whose whole name matches a regular expression.
    Pattern(String),
}

impl std::fmt::Display for Targets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usual => f.write_str("the usual ones"),
            Self::AllLinear => f.write_str("all-linear"),
            Self::Names(names) => f.write_str(&names.join(",")),
            Self::Pattern(pattern) => f.write_str(pattern),
        }
    }
}

impl Targets {
    /// Reads what a user writes: `all-linear`, or names with commas between, or a regular expression if it holds other
    /// characters than names do.
    pub fn parse(text: &str) -> Self {
        let is_name = |c: char| c.is_alphanumeric() || "_.-".contains(c);
        if text.eq_ignore_ascii_case("all-linear") {
            return Self::AllLinear;
        }
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        if names.iter().all(|name| !name.is_empty() && name.chars().all(is_name)) {
            return Self::Names(names);
        }
        Self::Pattern(text.to_owned())
    }
}

/// What the low-rank product is multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LoraScaling {
    /// `alpha / r`, or `alpha / sqrt(r)` with rank-stabilized LoRA.
    #[default]
    Rank,
    /// `alpha` itself, as in the book "Build a Large Language Model (From Scratch)", appendix E.
    Alpha,
}

/// How adapters are made. Names and defaults are those of PEFT's `LoraConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    /// Rank, `R`.
    pub r: usize,
    /// `alpha`: how strongly the low-rank product counts.
    pub lora_alpha: f64,
    /// Probability with which an input is dropped on its way into the product, in training.
    pub lora_dropout: f64,
    /// Whether each output row has a magnitude of its own.
    ///
    /// Source: Liu et al. 2024, "DoRA", <https://arxiv.org/abs/2402.09353>.
    pub use_dora: bool,
    /// Whether the scale is `alpha / sqrt(r)`.
    ///
    /// Source: Kalajdzievski 2023, <https://arxiv.org/abs/2312.03732>.
    pub use_rslora: bool,
    /// What else the scale may be; not a setting of PEFT's.
    pub lora_scaling: LoraScaling,
    /// Which layers get one.
    pub target_modules: Targets,
    /// Layers that stay as they are although `target_modules` names them, by the end of their names.
    pub exclude_modules: Vec<String>,
    /// Modules that are trained whole and stored with the adapter, by the end of their names: `score`, `lm_head`,
    /// `embed_tokens`, a norm.
    pub modules_to_save: Vec<String>,
    /// Other ranks by the end of a layer's name, or by a regular expression for it.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Other alphas, likewise.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Whether the output head gets an adapter too.
    pub lora_head: bool,
    /// Whether GPT-2's fused projection to queries, keys and values gets three adapters of rank `r`, one for each part,
    /// as if it were three layers; PEFT gives it one for all. Not a setting of PEFT's.
    ///
    /// The three are kept as one with `A` of `(3 r, in)` and a `B` of `(out, r)` whose zeros outside the diagonal blocks
    /// are not stored. In PEFT's files it is an adapter of rank `3 r` with the zeros written out, the same scale by way of
    /// `rank_pattern` and `alpha_pattern`, and a key `split_qkv` that PEFT skips.
    pub split_qkv: bool,
    /// What the adapter was made for, as its files say.
    pub base_model_name_or_path: Option<String>,
}

impl Default for AdapterConfig {
    fn default() -> Self {
        Self {
            r: 8,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            use_dora: false,
            use_rslora: false,
            lora_scaling: LoraScaling::Rank,
            target_modules: Targets::Usual,
            exclude_modules: Vec::new(),
            modules_to_save: Vec::new(),
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            lora_head: false,
            split_qkv: false,
            base_model_name_or_path: None,
        }
    }
}

/// What the name of a linear layer is told by the config.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Placed {
    pub(crate) rank: usize,
    pub(crate) alpha: f64,
}

/// A regular expression around a user's.
fn compiled(key: &'static str, pattern: &str, text: &str) -> Result<Regex, ModelError> {
    Regex::new(&text.replace("{}", pattern)).map_err(|source| ModelError::Pattern {
        key,
        pattern: pattern.to_owned(),
        source,
    })
}

/// Whether `name` is `end`, or ends with it after a dot.
pub(crate) fn ends_with(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

impl AdapterConfig {
    /// Checks what does not depend on a model.
    ///
    /// Errors: an impossible size, by key.
    pub fn validate(&self) -> Result<(), ModelError> {
        let wrong = |key, found: String, expected: &str, hint: &str| {
            Err(ModelError::Config { key, found, expected: expected.into(), hint: hint.into() })
        };
        if self.r == 0 || self.rank_pattern.values().any(|&r| r == 0) {
            return wrong("r", "0".into(), "at least 1", "8, 16 and 32 are usual ranks");
        }
        let alphas = std::iter::once(&self.lora_alpha).chain(self.alpha_pattern.values());
        if let Some(alpha) = alphas.into_iter().find(|alpha| !alpha.is_finite()) {
            return wrong("lora_alpha", alpha.to_string(), "a number", "`r` or `2 r` are usual");
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            let found = self.lora_dropout.to_string();
            return wrong("lora_dropout", found, "at least 0 and below 1", "set it in that range; 0 is off");
        }
        Ok(())
    }

    /// The scale of an adapter of this rank and alpha.
    pub fn scale(&self, rank: usize, alpha: f64) -> f64 {
        match (self.lora_scaling, self.use_rslora) {
            (LoraScaling::Alpha, _) => alpha,
            (LoraScaling::Rank, true) => alpha / (rank as f64).sqrt(),
            (LoraScaling::Rank, false) => alpha / rank as f64,
        }
    }

    /// Decides layer by layer; `usual` are the architecture's usual targets.
    pub(crate) fn placement<'a>(&'a self, usual: &[&'a str]) -> Result<Placement<'a>, ModelError> {
        let targets = match &self.target_modules {
            Targets::Usual => Matched::Names(usual.to_vec()),
            Targets::AllLinear => Matched::All,
            Targets::Names(names) => Matched::Names(names.iter().map(String::as_str).collect()),
            Targets::Pattern(pattern) => Matched::Pattern(compiled("target_modules", pattern, "^(?:{})$")?),
        };
        let by_end = |key, pattern: &String| compiled(key, pattern, r"^(?:.*\.)?(?:{})$");
        let ranks = self.rank_pattern.iter().map(|(end, &rank)| Ok((by_end("rank_pattern", end)?, rank)));
        let alphas = self.alpha_pattern.iter().map(|(end, &alpha)| Ok((by_end("alpha_pattern", end)?, alpha)));
        Ok(Placement {
            config: self,
            targets,
            ranks: ranks.collect::<Result<_, ModelError>>()?,
            alphas: alphas.collect::<Result<_, ModelError>>()?,
        })
    }
}

#[derive(Debug)]
enum Matched<'a> {
    All,
    Names(Vec<&'a str>),
    Pattern(Regex),
}

/// Where the adapters of a config go.
#[derive(Debug)]
pub(crate) struct Placement<'a> {
    config: &'a AdapterConfig,
    targets: Matched<'a>,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
}

impl Placement<'_> {
    /// Rank and alpha that an adapter of this layer has.
    pub(crate) fn resolved(&self, name: &str) -> Placed {
        let rank = self.ranks.iter().find(|(pattern, _)| pattern.is_match(name)).map(|(_, rank)| *rank);
        let alpha = self.alphas.iter().find(|(pattern, _)| pattern.is_match(name)).map(|(_, alpha)| *alpha);
        Placed { rank: rank.unwrap_or(self.config.r), alpha: alpha.unwrap_or(self.config.lora_alpha) }
    }

    /// Rank and alpha of the adapter of a layer, if it gets one.
    ///
    /// Source: PEFT's `check_target_module_exists` and `get_pattern_key`.
    pub(crate) fn of(&self, name: &str, is_head: bool) -> Option<Placed> {
        let config = self.config;
        let listed = |ends: &[String]| ends.iter().any(|end| ends_with(name, end));
        if listed(&config.exclude_modules) || listed(&config.modules_to_save) {
            return None;
        }
        let wanted = match &self.targets {
            Matched::All => !is_head,
            Matched::Names(names) => names.iter().any(|end| ends_with(name, end)),
            Matched::Pattern(pattern) => pattern.is_match(name),
        };
        (wanted || is_head && config.lora_head).then(|| self.resolved(name))
    }
}
