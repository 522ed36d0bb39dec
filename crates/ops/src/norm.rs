//! Layer norm and RMS norm.

use crate::cpu::{CpuOp, Input, apply, dims, exec, filled, filled_if, is_fused, slice, tensor};
use crate::shared::Residual;
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use cavy_kernels::buffer::unfilled;
use cavy_kernels::{layer_norm as layer_norm_kernel, rms_norm as rms_norm_kernel};

/// `y = (x - mean) / sqrt(variance + eps) * gamma + beta` over each row, with the variance divided by `D`.
///
/// Shapes: `x` and the result are `(N, D)`, `gamma` and `beta` `(D)`.
/// Source: Ba et al. 2016, <https://arxiv.org/abs/1607.06450>, equation 4.
pub fn layer_norm(x: Tensor<2>, gamma: Tensor<1>, beta: Option<Tensor<1>>, eps: f32) -> Tensor<2> {
    layer_norm_residual(x, gamma, beta, eps, None)
}

/// [`layer_norm`] of a residual stream; with `residual`, what [`crate::add_residual`] adds to the same stream was made of it.
///
/// Shapes, Source: as [`layer_norm`].
pub fn layer_norm_residual(
    x: Tensor<2>,
    gamma: Tensor<1>,
    beta: Option<Tensor<1>>,
    eps: f32,
    residual: Option<Residual>,
) -> Tensor<2> {
    if is_fused(&x) {
        let op = LayerNorm { eps, residual };
        return match beta {
            Some(beta) => apply(op, [Input::of(x), Input::of(gamma), Input::of(beta)]),
            None => apply(op, [Input::of(x), Input::of(gamma)]),
        };
    }
    let centred = x.clone() - x.mean_dim(1);
    let variance = (centred.clone() * centred.clone()).mean_dim(1);
    let y = centred / (variance + eps).sqrt() * gamma.unsqueeze();
    match beta {
        Some(beta) => y + beta.unsqueeze(),
        None => y,
    }
}

/// `y = x / sqrt(mean(x^2) + eps) * gamma` over each row.
///
/// Shapes: `x` and the result are `(N, D)`, `gamma` is `(D)`.
/// Source: Zhang and Sennrich 2019, <https://arxiv.org/abs/1910.07467>, equation 4.
pub fn rms_norm(x: Tensor<2>, gamma: Tensor<1>, eps: f32) -> Tensor<2> {
    rms_norm_residual(x, gamma, eps, None)
}

/// [`rms_norm`] of a residual stream, as [`layer_norm_residual`].
///
/// Shapes, Source: as [`rms_norm`].
pub fn rms_norm_residual(x: Tensor<2>, gamma: Tensor<1>, eps: f32, residual: Option<Residual>) -> Tensor<2> {
    if is_fused(&x) {
        return apply(RmsNorm { eps, residual }, [Input::of(x), Input::of(gamma)]);
    }
    let mean_square = (x.clone() * x.clone()).mean_dim(1);
    x / (mean_square + eps).sqrt() * gamma.unsqueeze()
}

#[derive(Debug)]
struct LayerNorm {
    eps: f32,
    residual: Option<Residual>,
}

/// `x`, `gamma`, and of every row the mean and the reciprocal of its standard deviation.
type Saved = (FlexTensor, FlexTensor, Vec<f32>, Vec<f32>);

impl LayerNorm {
    fn run(&self, x: FlexTensor, gamma: FlexTensor, beta: Option<&FlexTensor>) -> (FlexTensor, Saved) {
        let [n, d] = dims(&x);
        let (mut mean, mut rstd) = (unfilled(n), unfilled(n));
        let y = filled([n, d], |y| {
            let (x, gamma, beta) = (slice(&x), slice(&gamma), beta.map(slice));
            layer_norm_kernel::forward(exec(), x, gamma, beta, self.eps, y, &mut mean, &mut rstd);
        });
        (y, (x, gamma, mean, rstd))
    }
}

fn layer_norm_backward(op: &LayerNorm, d_y: &FlexTensor, saved: &Saved, wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
    let around = op.residual.as_ref().and_then(Residual::take);
    let (x, gamma, mean, rstd) = saved;
    let [n, d] = dims(x);
    let (mut d_gamma, mut d_beta) = (wanted[1].then(|| unfilled(d)), wanted[2].then(|| unfilled(d)));
    let d_x = filled([n, d], |d_x| {
        let (d_gamma, d_beta) = (d_gamma.as_deref_mut(), d_beta.as_deref_mut());
        let (d_y, x, gamma, around) = (slice(d_y), slice(x), slice(gamma), around.as_ref().map(slice));
        layer_norm_kernel::backward(exec(), d_y, x, gamma, mean, rstd, around, d_x, d_gamma, d_beta);
    });
    [wanted[0].then_some(d_x), d_gamma.map(|g| tensor(g, [d])), d_beta.map(|g| tensor(g, [d]))]
}

impl CpuOp<3> for LayerNorm {
    type Saved = Saved;
    fn forward(&self, [x, gamma, beta]: [FlexTensor; 3], _: [bool; 3]) -> (FlexTensor, Saved) {
        self.run(x, gamma, Some(&beta))
    }
    fn backward(self, d_y: FlexTensor, saved: Saved, wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
        layer_norm_backward(&self, &d_y, &saved, wanted)
    }
}

impl CpuOp<2> for LayerNorm {
    type Saved = Saved;
    fn forward(&self, [x, gamma]: [FlexTensor; 2], _: [bool; 2]) -> (FlexTensor, Saved) {
        self.run(x, gamma, None)
    }
    fn backward(self, d_y: FlexTensor, saved: Saved, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let [d_x, d_gamma, _] = layer_norm_backward(&self, &d_y, &saved, [wanted[0], wanted[1], false]);
        [d_x, d_gamma]
    }
}

#[derive(Debug)]
struct RmsNorm {
    eps: f32,
    residual: Option<Residual>,
}

impl CpuOp<2> for RmsNorm {
    type Saved = (FlexTensor, FlexTensor, Vec<f32>);

    fn forward(&self, [x, gamma]: [FlexTensor; 2], _: [bool; 2]) -> (FlexTensor, Self::Saved) {
        let [n, d] = dims(&x);
        let mut rstd = unfilled(n);
        let y = filled([n, d], |y| {
            rms_norm_kernel::forward(exec(), slice(&x), slice(&gamma), self.eps, y, &mut rstd);
        });
        (y, (x, gamma, rstd))
    }

    fn backward(self, d_y: FlexTensor, saved: Self::Saved, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let (x, gamma, rstd) = saved;
        let ([n, d], around) = (dims(&x), self.residual.as_ref().and_then(Residual::take));
        let mut d_gamma = filled_if(wanted[1], [d], |_| ());
        let d_x = filled([n, d], |d_x| {
            let d_gamma = d_gamma.as_mut().map(crate::cpu::slice_mut);
            let (d_y, x, gamma, around) = (slice(&d_y), slice(&x), slice(&gamma), around.as_ref().map(slice));
            rms_norm_kernel::backward(exec(), d_y, x, gamma, &rstd, around, d_x, d_gamma);
        });
        [wanted[0].then_some(d_x), d_gamma]
    }
}
