//! The layers architectures are made of.

use crate::adapter::{Adapter, adapted, input_uses, wants_bare};
use crate::init::Initializer;
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use cavy_ops::TiedGradient;
use cavy_ops::kernels::packed::PackedMatrix;
use cavy_ops::{
    Residual, SharedInput, Weight, embedding, embedding_tied, layer_norm, layer_norm_residual, linear_shared,
    packed_embedding, packed_linear, rms_norm, rms_norm_residual,
};
use std::sync::Arc;

/// `y = x W^T + b`, the one kind of linear layer. The weight is a tensor of f32, or lies packed in another form and is
/// multiplied from that; then it is not a parameter and has no gradient. Adapters change what comes out.
#[derive(Module, Debug)]
pub(crate) struct Linear {
    /// `(out, in)`; `None` where it is packed.
    pub(crate) weight: Option<Param<Tensor<2>>>,
    pub(crate) bias: Option<Param<Tensor<1>>>,
    pub(crate) adapters: Vec<Adapter>,
    #[module(skip)]
    pub(crate) packed: Option<PackedMatrix>,
}

impl Linear {
    pub(crate) fn new(init: &mut Initializer<'_>, inputs: usize, outputs: usize, bias: bool, std: f64) -> Self {
        let weight = init.weight(outputs, inputs, std);
        let bias = bias.then(|| init.bias(outputs, inputs));
        Self { weight: Some(weight), bias, adapters: Vec::new(), packed: None }
    }

    /// A layer that has a name and adapters but no weight of its own: a tied output head's.
    pub(crate) fn without_weight() -> Self {
        Self { weight: None, bias: None, adapters: Vec::new(), packed: None }
    }

    /// Its weight, if it has one.
    pub(crate) fn base(&self) -> Option<Weight<'_>> {
        weight_of(self.weight.as_ref(), self.packed.as_ref())
    }

    /// Its weight and bias, where nothing else takes part in what comes out.
    pub(crate) fn bare(&self) -> Option<(Tensor<2>, Option<Tensor<1>>)> {
        let weight = self.weight.as_ref().filter(|_| self.adapters.is_empty())?;
        Some((weight.val(), self.bias.as_ref().map(Param::val)))
    }

    /// [`Linear::bare`] of a layer that has a bias.
    pub(crate) fn plain(&self) -> Option<(Tensor<2>, Tensor<1>)> {
        let (weight, bias) = self.bare()?;
        Some((weight, bias?))
    }

    /// Shapes: `(N, in)` to `(N, out)`. With a key, the dropout of adapters is on.
    pub(crate) fn forward(&self, x: Tensor<2>, dropout_key: Option<u64>) -> Tensor<2> {
        let [y] = Self::forward_each([self], x, dropout_key);
        y
    }

    /// The results of several layers for one input: packed ones share its preparation.
    pub(crate) fn forward_each<const K: usize>(
        layers: [&Self; K],
        x: Tensor<2>,
        dropout_key: Option<u64>,
    ) -> [Tensor<2>; K] {
        let bias_of = |layer: &Self| layer.bias.as_ref().filter(|_| !wants_bare(&layer.adapters)).map(Param::val);
        let shared = Self::shared_input(&layers, &x, dropout_key);
        let packed = layers.map(|layer| layer.packed.as_ref().map(|packed| (packed, bias_of(layer))));
        let results = if packed.iter().all(Option::is_some) {
            packed_linear(x.clone(), packed.map(|packed| packed.expect("checked")))
        } else {
            layers.map(|layer| layer.product(x.clone(), bias_of(layer), shared.as_ref()))
        };
        let mut layers = layers.iter();
        results.map(|result| {
            let layer = layers.next().expect("a layer for every result");
            if layer.adapters.is_empty() {
                return result;
            }
            let base = layer.base().expect("a linear layer has a weight");
            let (bias, product) = (layer.bias.as_ref().map(Param::val), |x| layer.product(x, None, None));
            adapted(&layer.adapters, &base, result, &x, bias, dropout_key, shared.as_ref(), product)
        })
    }

    /// Where the gradients by the input of these layers meet, if several operations have it.
    fn shared_input(layers: &[&Self], x: &Tensor<2>, dropout_key: Option<u64>) -> Option<SharedInput> {
        if !x.is_autodiff() || !x.is_tracked() {
            return None;
        }
        let uses = |layer: &&Self| {
            let own = layer.weight.as_ref().map(|_| 1)?;
            Some(own + input_uses(&layer.adapters, dropout_key)?)
        };
        let users: usize = layers.iter().map(uses).sum::<Option<usize>>()?;
        (users > 1).then(|| SharedInput::new(users))
    }

    /// `x W^T + bias`.
    fn product(&self, x: Tensor<2>, bias: Option<Tensor<1>>, shared: Option<&SharedInput>) -> Tensor<2> {
        match self.base() {
            Some(Weight::Dense(weight)) => linear_shared(x, weight, bias, shared),
            Some(Weight::Packed(packed)) => {
                let [y] = packed_linear(x, [(packed, bias)]);
                y
            }
            None => unreachable!("a linear layer has a weight"),
        }
    }
}

/// A weight in one of its two forms.
fn weight_of<'a>(dense: Option<&Param<Tensor<2>>>, packed: Option<&'a PackedMatrix>) -> Option<Weight<'a>> {
    dense.map(|weight| Weight::Dense(weight.val())).or(packed.map(Weight::Packed))
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

    /// Its table.
    pub(crate) fn base(&self) -> Weight<'_> {
        weight_of(self.weight.as_ref(), self.packed.as_ref()).expect("an embedding has a table")
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

    /// The same at the beginning of a branch that is added to `x` with this `residual`.
    pub(crate) fn of_stream(&self, x: Tensor<2>, eps: f64, residual: &Residual) -> Tensor<2> {
        let (gain, bias) = (self.weight.val(), Some(self.bias.val()));
        layer_norm_residual(x, gain, bias, eps as f32, Some(residual.clone()))
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

    /// The same at the beginning of a branch that is added to `x` with this `residual`.
    pub(crate) fn of_stream(&self, x: Tensor<2>, eps: f64, residual: &Residual) -> Tensor<2> {
        rms_norm_residual(x, self.weight.val(), eps as f32, Some(residual.clone()))
    }
}
