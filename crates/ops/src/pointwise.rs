//! The residual sum, GELU, SwiGLU and dropout.

use crate::cpu::{CpuOp, Input, apply, dims, exec, filled, filled_if, is_fused, slice, slice_mut};
use crate::shared::Residual;
use burn::tensor::{Tensor, TensorData, activation};
use burn_flex::FlexTensor;
use cavy_kernels::add::add_to;
use cavy_kernels::gelu::{self as gelu_kernel, Gelu};
use cavy_kernels::{dropout as dropout_kernel, swiglu as swiglu_kernel};

/// The residual sum `stream + branch`, in the memory of `branch` where nobody else holds that.
///
/// Shapes: both `(N, D)`, and the result.
pub fn add(stream: Tensor<2>, branch: Tensor<2>) -> Tensor<2> {
    if is_fused(&stream) {
        return apply(Add(None), [Input::of(stream), Input::of(branch)]);
    }
    stream + branch
}

/// [`add`] of a stream and a branch that began with a norm of the stream, where both were given `residual`.
///
/// Shapes: as [`add`].
pub fn add_residual(stream: Tensor<2>, branch: Tensor<2>, residual: Residual) -> Tensor<2> {
    if is_fused(&stream) {
        return apply(Add(Some(residual)), [Input::of(stream), Input::of(branch)]);
    }
    stream + branch
}

#[derive(Debug)]
struct Add(Option<Residual>);

impl CpuOp<2> for Add {
    type Saved = ();
    fn forward(&self, [stream, mut branch]: [FlexTensor; 2], _: [bool; 2]) -> (FlexTensor, ()) {
        add_to(exec(), slice(&stream), slice_mut(&mut branch));
        (branch, ())
    }
    fn backward(self, d_y: FlexTensor, (): (), wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        if let (Some(residual), [true, true]) = (&self.0, wanted) {
            residual.leave(d_y.clone());
            return [None, Some(d_y)];
        }
        wanted.map(|wanted| wanted.then(|| d_y.clone()))
    }
}

/// The Gaussian error linear unit, exact or in its tanh form.
///
/// Shapes: `(N, F)` to the same.
/// Source: Hendrycks and Gimpel 2016, <https://arxiv.org/abs/1606.08415>, section 2.
pub fn gelu(x: Tensor<2>, form: Gelu) -> Tensor<2> {
    if is_fused(&x) {
        return apply(GeluOp(form), [Input::of(x)]);
    }
    match form {
        Gelu::Erf => activation::gelu(x),
        Gelu::Tanh => {
            let inner = (x.clone() + x.clone().powi_scalar(3) * 0.044_715) * (2.0 / std::f64::consts::PI).sqrt();
            x * 0.5 * (inner.tanh() + 1.0)
        }
    }
}

#[derive(Debug)]
struct GeluOp(Gelu);

impl CpuOp<1> for GeluOp {
    type Saved = FlexTensor;
    fn forward(&self, [x]: [FlexTensor; 1], _: [bool; 1]) -> (FlexTensor, FlexTensor) {
        let y = filled(dims::<2>(&x), |y| gelu_kernel::forward(exec(), self.0, slice(&x), y));
        (y, x)
    }
    fn backward(self, d_y: FlexTensor, x: FlexTensor, wanted: [bool; 1]) -> [Option<FlexTensor>; 1] {
        [filled_if(wanted[0], dims::<2>(&x), |d_x| {
            gelu_kernel::backward(exec(), self.0, slice(&d_y), slice(&x), d_x);
        })]
    }
}

/// `silu(gate) * up`, where `silu(z) = z / (1 + exp(-z))`.
///
/// Shapes: `(N, F)` both, and the result.
/// Source: Shazeer 2020, <https://arxiv.org/abs/2002.05202>, equation 6.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    if is_fused(&gate) {
        return apply(SwiGlu, [Input::of(gate), Input::of(up)]);
    }
    activation::silu(gate) * up
}

#[derive(Debug)]
struct SwiGlu;

impl CpuOp<2> for SwiGlu {
    type Saved = (FlexTensor, FlexTensor);
    fn forward(&self, [gate, up]: [FlexTensor; 2], _: [bool; 2]) -> (FlexTensor, Self::Saved) {
        let y = filled(dims::<2>(&gate), |y| swiglu_kernel::forward(exec(), slice(&gate), slice(&up), y));
        (y, (gate, up))
    }
    fn backward(self, d_y: FlexTensor, (gate, up): Self::Saved, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let shape = dims::<2>(&gate);
        let mut d_gate = filled(shape, |_| ());
        let d_up = filled(shape, |d_up| {
            let d_gate = crate::cpu::slice_mut(&mut d_gate);
            swiglu_kernel::backward(exec(), slice(&d_y), slice(&gate), slice(&up), d_gate, d_up);
        });
        [wanted[0].then_some(d_gate), wanted[1].then_some(d_up)]
    }
}

/// Zeroes each element with probability `p` and scales the others by `1 / (1 - p)`.
///
/// Which elements fall depends on `key` and the element's index alone, not on threads or device.
/// Source: Srivastava et al. 2014, in its inverted form.
pub fn dropout(x: Tensor<2>, p: f32, key: u64) -> Tensor<2> {
    if p == 0.0 {
        return x;
    }
    if is_fused(&x) {
        return apply(Dropout { p, key }, [Input::of(x)]);
    }
    let shape = x.dims();
    let ones = vec![1.0; shape[0] * shape[1]];
    let mut mask = ones.clone();
    dropout_kernel::forward(exec(), p, key, &ones, &mut mask);
    let mask = Tensor::from_data(TensorData::new(mask, shape), &x.device());
    x * mask
}

#[derive(Debug)]
struct Dropout {
    p: f32,
    key: u64,
}

impl CpuOp<1> for Dropout {
    type Saved = ();
    fn forward(&self, [x]: [FlexTensor; 1], _: [bool; 1]) -> (FlexTensor, ()) {
        (filled(dims::<2>(&x), |y| dropout_kernel::forward(exec(), self.p, self.key, slice(&x), y)), ())
    }
    fn backward(self, d_y: FlexTensor, (): (), _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        [Some(self.forward([d_y], [true]).0)]
    }
}
