//! Model architectures and their files.
//!
//! One file is one architecture, defined once for training and inference. Its fields carry Hugging Face's names, so the
//! path of a parameter is its name in a checkpoint. Everything runs on one packed token axis: a [`Pass`] says which
//! tokens, where their sequences begin and at which positions they stand.

mod config;
mod error;
mod files;
mod gpt2;
mod layers;
mod parameters;

pub use burn::tensor::Device;
pub use config::{Gpt2Config, PUBLISHED};
pub use error::ModelError;
pub use gpt2::Gpt2;
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
}
