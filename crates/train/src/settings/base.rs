//! The model that fine-tuning begins with, and how its data is divided.

use super::check::demand;
use crate::SettingsError;
use cavy_text::instruct::{Arrangement, Parts, Shares, split};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A parser of flags for a type of another crate that is written as one of `names`.
pub(super) fn named<T>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: Clone + Send + Sync + DeserializeOwned + 'static,
{
    PossibleValuesParser::new(names.iter().copied()).try_map(|name| toml::Value::String(name).try_into::<T>())
}

/// The model that is fine-tuned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
pub struct ModelSettings {
    /// Hugging Face folder, `.gguf`, PyTorch checkpoint, or llama2.c `.bin`; a run directory stands for its result
    #[arg(long, short, help_heading = "Model")]
    pub model: String,
    /// `tokenizer.json` where the model does not bring its own
    #[arg(long, help_heading = "Model")]
    pub tokenizer: String,
    /// How frozen weights are kept beside an adapter: fewer bits need less memory, as in QLoRA
    #[arg(long, help_heading = "Model")]
    pub base_dtype: BaseDtype,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self { model: String::new(), tokenizer: String::new(), base_dtype: BaseDtype::F32 }
    }
}

/// How frozen weights are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum BaseDtype {
    /// As the file stores them
    Auto,
    /// 32 bits a weight
    F32,
    /// Half precision with f32's range
    Bf16,
    /// 8 bits a weight
    #[serde(rename = "q8_0")]
    #[value(name = "q8_0")]
    Q8_0,
    /// 8 bits a weight, and products of 8-bit numbers forward and backward: the fastest with VNNI or AVX2, slow without
    Int8,
    /// 4 bits a weight
    #[serde(rename = "q4_0")]
    #[value(name = "q4_0")]
    Q4_0,
    /// 4 bits a weight and a minimum for each block
    #[serde(rename = "q4_1")]
    #[value(name = "q4_1")]
    Q4_1,
}

impl BaseDtype {
    /// The same for the reader of models.
    pub fn weights(self) -> cavy_model::Weights {
        use cavy_model::Weights;
        use cavy_ops::kernels::packed::Format;
        match self {
            Self::Auto => Weights::AsStored,
            Self::F32 => Weights::F32,
            Self::Bf16 => Weights::Packed(Format::Bf16),
            Self::Q8_0 => Weights::Packed(Format::Q8_0),
            Self::Int8 => Weights::Int8,
            Self::Q4_0 => Weights::Packed(Format::Q4_0),
            Self::Q4_1 => Weights::Packed(Format::Q4_1),
        }
    }
}

impl ModelSettings {
    /// Checks that there is a model, and that only a frozen one is packed.
    ///
    /// Errors: the first setting that cannot be.
    pub fn validate(&self, has_adapter: bool) -> Result<(), SettingsError> {
        demand(!self.model.is_empty(), "model", "nothing", "the path of a model", "give the model to fine-tune")?;
        let found = format!("{:?}", self.base_dtype).to_lowercase();
        let fits = has_adapter || self.base_dtype == BaseDtype::F32;
        demand(fits, "base_dtype", found, "f32 where the weights are trained", "set a rank, for instance `r = 16`")
    }
}

/// How examples are divided and ordered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
pub struct SplitSettings {
    /// Shares of training, validation and test, or numbers of items
    #[arg(long, help_heading = "Data")]
    pub split: String,
    /// In which order items go to these parts
    #[arg(long, help_heading = "Data")]
    pub split_order: SplitOrder,
    /// Meet the training examples in a new order each epoch
    #[arg(long, help_heading = "Data")]
    pub shuffle: bool,
    /// Leave out an epoch's last batch if it is not full
    #[arg(long, help_heading = "Data")]
    pub drop_last: bool,
}

/// In which order items go to their parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SplitOrder {
    /// As they come
    File,
    /// In an order that the seed decides
    Shuffled,
}

impl Default for SplitSettings {
    fn default() -> Self {
        Self { split: "85/10/5".to_owned(), split_order: SplitOrder::File, shuffle: true, drop_last: false }
    }
}

impl SplitSettings {
    fn shares(&self) -> Result<Shares, SettingsError> {
        self.split.parse().map_err(|_| SettingsError::Invalid {
            key: "split".to_owned(),
            found: format!("`{}`", self.split),
            expected: "shares of training, validation and test, or numbers of items".to_owned(),
            hint: "write for instance `85/10/5`".to_owned(),
        })
    }

    /// Checks that the shares can be read.
    ///
    /// Errors: shares that are none.
    pub fn validate(&self) -> Result<(), SettingsError> {
        self.shares().map(|_| ())
    }

    /// The parts of `count` items.
    ///
    /// Errors: shares that cannot be had of so many items.
    pub fn parts(&self, count: usize, seed: u64) -> Result<Parts, crate::TrainError> {
        let arrangement = match self.split_order {
            SplitOrder::File => Arrangement::File,
            SplitOrder::Shuffled => Arrangement::Shuffled(seed),
        };
        Ok(split(count, self.shares()?, arrangement)?)
    }
}
