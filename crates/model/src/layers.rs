//! The layers architectures are made of.

use crate::init::Initializer;
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use cavy_ops::TiedGradient;
use cavy_ops::kernels::packed::PackedMatrix;
use cavy_ops::{embedding, embedding_tied, layer_norm, linear, packed_embedding, packed_linear, rms_norm};
use std::sync::Arc;

/// `y = x W^T + b`, the one kind of linear layer. The weight is a tensor of f32, or lies packed in another form and is
/// multiplied from that; then it is not a parameter and has no gradient.
#[derive(Module, Debug)]
pub(crate) struct Linear {
    /// `(out, in)`; `None` where it is packed.
    pub(crate) weight: Option<Param<Tensor<2>>>,
    pub(crate) bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    pub(crate) packed: Option<PackedMatrix>,
}

impl Linear {
    pub(crate) fn new(init: &mut Initializer<'_>, inputs: usize, outputs: usize, bias: bool, std: f64) -> Self {
        let weight = init.weight(outputs, inputs, std);
        Self { weight: Some(weight), bias: bias.then(|| init.bias(outputs, inputs)), packed: None }
    }

    /// Shapes: `(N, in)` to `(N, out)`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [y] = Self::forward_each([self], x);
        y
    }

    /// The results of several layers for one input: packed ones share its preparation.
    pub(crate) fn forward_each<const K: usize>(layers: [&Self; K], x: Tensor<2>) -> [Tensor<2>; K] {
        let packed =
            layers.map(|layer| layer.packed.as_ref().map(|packed| (packed, layer.bias.as_ref().map(Param::val))));
        if packed.iter().all(Option::is_some) {
            return packed_linear(x, packed.map(|packed| packed.expect("checked")));
        }
        layers.map(|layer| match (&layer.weight, &layer.packed) {
            (Some(weight), _) => linear(x.clone(), weight.val(), layer.bias.as_ref().map(Param::val)),
            (None, Some(packed)) => {
                let [y] = packed_linear(x.clone(), [(packed, layer.bias.as_ref().map(Param::val))]);
                y
            }
            (None, None) => unreachable!("a linear layer has a weight"),
        })
    }
}

/// A table of vectors by id, in one of the forms of [`Linear`]'s weight.
#[derive(Module, Debug)]
pub(crate) struct Embedding {
    /// `(rows, D)`; `None` where it is packed.
    pub(crate) weight: Option<Param<Tensor<2>>>,
    #[module(skip)]
    pub(crate) packed: Option<PackedMatrix>,
}

impl Embedding {
    pub(crate) fn new(init: &mut Initializer<'_>, rows: usize, width: usize) -> Self {
        Self { weight: Some(init.table(rows, width)), packed: None }
    }

    /// Shapes: `ids` is `(N)`, the result `(N, D)`. With `tied`, the output head's gradient joins this one's.
    pub(crate) fn forward(&self, ids: &Arc<[u32]>, tied: Option<&TiedGradient>) -> Tensor<2> {
        match (&self.weight, &self.packed, tied) {
            (Some(weight), _, Some(tied)) => embedding_tied(weight.val(), ids, tied),
            (Some(weight), _, None) => embedding(weight.val(), ids),
            (None, Some(packed), _) => packed_embedding(packed, ids),
            (None, None, _) => unreachable!("an embedding has a table"),
        }
    }
}

/// Layer norm with gain and bias.
#[derive(Module, Debug)]
pub(crate) struct LayerNorm {
    pub(crate) weight: Param<Tensor<1>>,
    pub(crate) bias: Param<Tensor<1>>,
}

impl LayerNorm {
    pub(crate) fn new(init: &Initializer<'_>, width: usize) -> Self {
        Self { weight: init.constant(width, 1.0), bias: init.constant(width, 0.0) }
    }

    /// Shapes: `(N, D)` to the same.
    pub(crate) fn forward(&self, x: Tensor<2>, eps: f64) -> Tensor<2> {
        layer_norm(x, self.weight.val(), Some(self.bias.val()), eps as f32)
    }
}

/// RMS norm with gain.
#[derive(Module, Debug)]
pub(crate) struct RmsNorm {
    pub(crate) weight: Param<Tensor<1>>,
}

impl RmsNorm {
    pub(crate) fn new(init: &Initializer<'_>, width: usize) -> Self {
        Self { weight: init.constant(width, 1.0) }
    }

    /// Shapes: `(N, D)` to the same.
    pub(crate) fn forward(&self, x: Tensor<2>, eps: f64) -> Tensor<2> {
        rms_norm(x, self.weight.val(), eps as f32)
    }
}
