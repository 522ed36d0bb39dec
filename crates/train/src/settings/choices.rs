//! Settings that are one of a few names, and the length of the warmup.

use clap::ValueEnum;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::str::FromStr;

/// A published model size, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Arch {
    /// GPT-2 small: 768 wide, 12 blocks, 12 heads
    Gpt2_124m,
    /// GPT-2 medium: 1024 wide, 24 blocks, 16 heads
    Gpt2_355m,
    /// GPT-2 large: 1280 wide, 36 blocks, 20 heads
    Gpt2_774m,
    /// GPT-2 XL: 1600 wide, 48 blocks, 25 heads
    Gpt2_1558m,
    /// GPT-2's architecture in the sizes given
    Custom,
}

impl Arch {
    /// Width, blocks and heads of a published size.
    ///
    /// Source: table 2 of Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
    pub fn sizes(self) -> Option<(usize, usize, usize)> {
        match self {
            Self::Gpt2_124m => Some((768, 12, 12)),
            Self::Gpt2_355m => Some((1024, 24, 16)),
            Self::Gpt2_774m => Some((1280, 36, 20)),
            Self::Gpt2_1558m => Some((1600, 48, 25)),
            Self::Custom => None,
        }
    }
}

/// Order in which training meets the windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum WindowOrder {
    /// Each epoch a new seeded permutation
    Shuffled,
    /// As they lie in the text
    Sequential,
    /// At random offsets, independent of each other
    Random,
}

/// Distribution of the initial weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum WeightInit {
    /// Normal with deviation 0.02, smaller for what is added to the residual stream
    Gpt2,
    /// Normal with deviation 0.02 everywhere
    Normal,
    /// PyTorch's defaults: embeddings normal with deviation 1, linear layers uniform within 1 / sqrt(inputs)
    Pytorch,
}

impl From<WeightInit> for cavy_model::WeightInit {
    fn from(init: WeightInit) -> Self {
        match init {
            WeightInit::Gpt2 => Self::Gpt2,
            WeightInit::Normal => Self::Normal,
            WeightInit::Pytorch => Self::Pytorch,
        }
    }
}

/// The optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum Optim {
    /// AdamW with its moments in f32
    #[serde(rename = "adamw")]
    #[value(name = "adamw")]
    AdamW,
    /// AdamW with its moments in 8 bits: a quarter of their memory
    #[serde(rename = "adamw_8bit")]
    #[value(name = "adamw_8bit")]
    AdamW8bit,
}

impl Optim {
    /// Bytes of a large parameter's moments.
    pub fn moment_bytes(self) -> f64 {
        match self {
            Self::AdamW => 8.0,
            // A byte each, and two scales for a block of 256.
            Self::AdamW8bit => 2.0 + 8.0 / 256.0,
        }
    }
}

/// What the operands of matrix products are rounded to; sums, weights, norms, softmax, losses and moments are f32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Nothing is rounded
    F32,
    /// Operands are rounded to 16-bit floats, where the CPU multiplies those
    Mixed,
    /// Mixed where that is measured to be faster on this machine, otherwise f32
    Auto,
}

/// Course of the learning rate after the warmup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LrSchedule {
    /// Stays at the peak
    Constant,
    /// Half a cosine from the peak to the minimum
    Cosine,
    /// A straight line from the peak to the minimum
    Linear,
    /// Warmup, stable, decay: stays at the peak, then a straight line to the minimum
    Wsd,
}

/// Length of the warmup. Written as one number: a whole one is a count, one between 0 and 1 a fraction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Warmup {
    /// So many steps.
    Steps(usize),
    /// This share of all steps, above 0 and below 1.
    Fraction(f64),
}

impl Warmup {
    /// Warmup steps of a run of `total_steps`. A fraction is rounded to the nearest step; never more than all steps.
    pub fn steps(self, total_steps: usize) -> usize {
        match self {
            Self::Steps(steps) => steps.min(total_steps),
            Self::Fraction(fraction) => (fraction * total_steps as f64).round() as usize,
        }
    }
}

impl TryFrom<f64> for Warmup {
    type Error = String;

    fn try_from(number: f64) -> Result<Self, String> {
        if number > 0.0 && number < 1.0 {
            Ok(Self::Fraction(number))
        } else if number >= 0.0 && number.fract() == 0.0 && number < 1e15 {
            Ok(Self::Steps(number as usize))
        } else {
            Err(format!("found {number}, expected a count of steps or a fraction between 0 and 1"))
        }
    }
}

impl FromStr for Warmup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: f64 = text.parse().map_err(|_| format!("found `{text}`, expected a number"))?;
        Self::try_from(number)
    }
}

impl Serialize for Warmup {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Steps(steps) => serializer.serialize_u64(*steps as u64),
            Self::Fraction(fraction) => serializer.serialize_f64(*fraction),
        }
    }
}

impl<'de> Deserialize<'de> for Warmup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
