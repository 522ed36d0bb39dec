//! The layers architectures are made of.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use cavy_ops::kernels::random::{fill_normal, subkey};
use cavy_ops::{exec, layer_norm, linear};

/// Makes the initial values of a model's parameters: normal, each tensor from a key of its own.
pub(crate) struct Initializer<'a> {
    pub(crate) seed: u64,
    pub(crate) device: &'a Device,
    next: u64,
}

impl<'a> Initializer<'a> {
    pub(crate) fn new(seed: u64, device: &'a Device) -> Self {
        Self { seed, device, next: 0 }
    }

    /// Normal with mean 0.
    pub(crate) fn normal(&mut self, rows: usize, cols: usize, std: f64) -> Param<Tensor<2>> {
        let mut values = vec![0.0; rows * cols];
        fill_normal(exec(), subkey(self.seed, self.next), std as f32, &mut values);
        self.next += 1;
        parameter(Tensor::from_data(TensorData::new(values, [rows, cols]), self.device))
    }

    /// One value everywhere.
    pub(crate) fn constant(&self, len: usize, value: f32) -> Param<Tensor<1>> {
        parameter(Tensor::from_data(TensorData::new(vec![value; len], [len]), self.device))
    }
}

/// A trainable parameter, or a plain one on a device without autodiff.
pub(crate) fn parameter<const D: usize>(tensor: Tensor<D>) -> Param<Tensor<D>> {
    let tensor = if tensor.is_autodiff() { tensor.require_grad() } else { tensor };
    Param::initialized(burn::module::ParamId::new(), tensor)
}

/// `y = x W^T + b`, the one kind of linear layer.
#[derive(Module, Debug)]
pub(crate) struct Linear {
    /// `(out, in)`.
    pub(crate) weight: Param<Tensor<2>>,
    pub(crate) bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    pub(crate) fn new(init: &mut Initializer<'_>, inputs: usize, outputs: usize, bias: bool, std: f64) -> Self {
        let weight = init.normal(outputs, inputs, std);
        Self { weight, bias: bias.then(|| init.constant(outputs, 0.0)) }
    }

    /// Shapes: `(N, in)` to `(N, out)`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        linear(x, self.weight.val(), self.bias.as_ref().map(Param::val))
    }
}

/// A table of vectors by id.
#[derive(Module, Debug)]
pub(crate) struct Embedding {
    /// `(rows, D)`.
    pub(crate) weight: Param<Tensor<2>>,
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
