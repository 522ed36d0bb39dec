//! Initial values of parameters.

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use cavy_ops::exec;
use cavy_ops::kernels::random::{fill_normal, fill_uniform, subkey};

/// Standard deviation of GPT-2's and Llama's initial weights.
pub(crate) const INIT_STD: f64 = 0.02;

/// Which distributions initial weights come from. Norms begin with gain 1 and bias 0 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WeightInit {
    /// GPT-2's: normal with standard deviation 0.02, smaller for what is added to the residual stream; biases zero.
    ///
    /// Source: Radford et al. 2019, section 2.3.
    #[default]
    Gpt2,
    /// Normal with standard deviation 0.02 everywhere, biases zero: deep models learn faster at first than with GPT-2's,
    /// whose blocks add little to the residual stream at the start.
    Normal,
    /// What PyTorch's `nn.Embedding` and `nn.Linear` begin with: embeddings normal with standard deviation 1, weights
    /// and biases uniform within `1 / sqrt(inputs)`. Models that must learn from few steps leave the plateau of single
    /// word frequencies sooner with it.
    Pytorch,
}

/// Where values come from: a distribution, or a file that will replace them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Random(WeightInit),
    Hollow,
}

/// Makes the parameters of a new model, each tensor from a key of its own.
pub(crate) struct Initializer<'a> {
    seed: u64,
    device: &'a Device,
    scheme: Scheme,
    next: u64,
}

impl<'a> Initializer<'a> {
    pub(crate) fn new(init: WeightInit, seed: u64, device: &'a Device) -> Self {
        Self { seed, device, scheme: Scheme::Random(init), next: 0 }
    }

    /// Zeros everywhere: for a model whose parameters are about to be read from a file.
    pub(crate) fn hollow(device: &'a Device) -> Self {
        Self { seed: 0, device, scheme: Scheme::Hollow, next: 0 }
    }

    fn filled(&mut self, len: usize, fill: impl FnOnce(u64, &mut [f32])) -> Vec<f32> {
        let mut values = vec![0.0; len];
        if self.scheme != Scheme::Hollow {
            fill(subkey(self.seed, self.next), &mut values);
        }
        self.next += 1;
        values
    }

    fn matrix(&self, values: Vec<f32>, rows: usize, cols: usize) -> Param<Tensor<2>> {
        parameter(Tensor::from_data(TensorData::new(values, [rows, cols]), self.device))
    }

    /// The weight of a linear layer, `(rows, cols)`: normal with deviation `std` where the scheme is GPT-2's.
    pub(crate) fn weight(&mut self, rows: usize, cols: usize, std: f64) -> Param<Tensor<2>> {
        let std = if self.scheme == Scheme::Random(WeightInit::Normal) { INIT_STD } else { std };
        let uniform = self.scheme == Scheme::Random(WeightInit::Pytorch);
        let values = self.filled(rows * cols, |key, values| {
            if uniform {
                fill_uniform(exec(), key, bound(cols), values);
            } else {
                fill_normal(exec(), key, std as f32, values);
            }
        });
        self.matrix(values, rows, cols)
    }

    /// A table of vectors, `(rows, cols)`.
    pub(crate) fn table(&mut self, rows: usize, cols: usize) -> Param<Tensor<2>> {
        let std = if self.scheme == Scheme::Random(WeightInit::Pytorch) { 1.0 } else { INIT_STD as f32 };
        let values = self.filled(rows * cols, |key, values| fill_normal(exec(), key, std, values));
        self.matrix(values, rows, cols)
    }

    /// The bias of a linear layer with so many inputs.
    pub(crate) fn bias(&mut self, len: usize, inputs: usize) -> Param<Tensor<1>> {
        if self.scheme != Scheme::Random(WeightInit::Pytorch) {
            return self.constant(len, 0.0);
        }
        let values = self.filled(len, |key, values| fill_uniform(exec(), key, bound(inputs), values));
        parameter(Tensor::from_data(TensorData::new(values, [len]), self.device))
    }

    /// One value everywhere.
    pub(crate) fn constant(&self, len: usize, value: f32) -> Param<Tensor<1>> {
        parameter(Tensor::from_data(TensorData::new(vec![value; len], [len]), self.device))
    }
}

/// `1 / sqrt(inputs)`: what `kaiming_uniform_(a = sqrt 5)` comes to.
fn bound(inputs: usize) -> f32 {
    (1.0 / (inputs as f64).sqrt()) as f32
}

/// A trainable parameter, or a plain one on a device without autodiff.
pub(crate) fn parameter<const D: usize>(tensor: Tensor<D>) -> Param<Tensor<D>> {
    let tensor = if tensor.is_autodiff() { tensor.require_grad() } else { tensor };
    Param::initialized(ParamId::new(), tensor)
}
