//! Model architectures and their files.
//!
//! One file is one architecture, defined once for training and inference. Its fields carry Hugging Face's names, so the
//! path of a parameter is its name in a checkpoint. Everything runs on one packed token axis: a [`Pass`] says which
//! tokens, where their sequences begin and at which positions they stand.

mod adapter;
mod adapter_config;
mod attach;
mod config;
mod decoder;
mod error;
mod files;
mod gguf_adapter;
mod gpt2;
mod init;
mod layers;
mod llama;
mod llama_config;
mod model;
mod parameters;
mod peft;
mod rope;

pub use adapter_config::{AdapterConfig, LoraScaling, Targets};
pub use burn::tensor::Device;
pub use cavy_ops::kernels::kv_cache::{KvCache, KvShape, KvStorage};
pub use config::{Gpt2Config, ModelConfig, PUBLISHED};
pub use error::ModelError;
pub use files::{Origin, Source, Weights};
pub use init::WeightInit;
pub use llama_config::{LlamaConfig, RopeScaling};
pub use model::Model;
pub use parameters::{Gradients, ParameterInfo, ParameterVisitor};

use cavy_ops::Segments;
use std::sync::Arc;

/// The tokens of one forward pass.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Token ids, `(N)`.
    pub ids: Arc<[u32]>,
    /// Where the sequences lie on the token axis.
    pub segments: Arc<Segments>,
    /// Position of each token in its sequence, `(N)`.
    pub positions: Arc<[u32]>,
    /// Which activations dropout zeroes; `None` for none at all, as in evaluation.
    pub dropout_key: Option<u64>,
}

impl Pass {
    /// A pass over `ids`, whose positions follow from `segments`.
    ///
    /// Panics: if there are more or fewer ids than tokens in the segments.
    pub fn new(ids: Arc<[u32]>, segments: Arc<Segments>, dropout_key: Option<u64>) -> Self {
        assert_eq!(ids.len(), segments.tokens(), "ids for the tokens of the segments");
        let positions = segments.positions().into();
        Self { ids, segments, positions, dropout_key }
    }

    /// A pass over tokens that follow what rows of a cache have seen: for each, its new tokens.
    pub fn following(cache: &KvCache, new: &[(usize, &[u32])]) -> Self {
        let lengths: Vec<usize> = new.iter().map(|(_, ids)| ids.len()).collect();
        let ids = new.iter().flat_map(|(_, ids)| ids.iter().copied()).collect();
        let positions_of = |(row, ids): &(usize, &[u32])| {
            let seen = cache.len(*row) as u32;
            seen..seen + ids.len() as u32
        };
        let positions = new.iter().flat_map(positions_of).collect();
        Self { ids, segments: Arc::new(Segments::of_lengths(&lengths)), positions, dropout_key: None }
    }
}
