//! Two linear layers with a GELU between.

use crate::cpu::{CpuOp, Input, apply, dims, exec, filled, is_fused, slice, slice_mut};
use crate::{gelu, linear};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use cavy_kernels::gelu::Gelu;
use cavy_kernels::mlp::{self, Layer, LayerGradient, Scratch};

/// Weight `(out, in)` and bias `(out)` of a layer.
pub type LayerWeights = (Tensor<2>, Tensor<1>);

/// `y = gelu(x W1^T + b1) W2^T + b2`. The activation is not kept for the backward pass.
///
/// Shapes: `x` is `(N, D)`, the weights `(F, D)` and `(out, F)`, the result `(N, out)`.
pub fn gelu_mlp(x: Tensor<2>, [first, second]: [LayerWeights; 2], form: Gelu) -> Tensor<2> {
    let weights = [&first, &second];
    let learns = |wanted: bool| {
        weights.iter().all(|(w, b)| w.is_autodiff() == wanted && b.is_autodiff() == wanted)
            && (!wanted || weights.iter().all(|(w, b)| w.is_tracked() && b.is_tracked()))
    };
    // Where a part of it is frozen, the parts spare each other's work.
    let whole = if x.is_autodiff() { x.is_tracked() && learns(true) } else { learns(false) };
    if !is_fused(&x) || !whole {
        return linear(gelu(linear(x, first.0, Some(first.1)), form), second.0, Some(second.1));
    }
    let ((w1, b1), (w2, b2)) = (first, second);
    apply(GeluMlp(form), [Input::of(x), Input::of(w1), Input::of(b1), Input::of(w2), Input::of(b2)])
}

#[derive(Debug)]
struct GeluMlp(Gelu);

/// The inputs, and what the activation was taken of.
type Saved = Option<([FlexTensor; 5], FlexTensor)>;

fn layers(inputs: &[FlexTensor; 5]) -> [Layer<'_>; 2] {
    let [_, w1, b1, w2, b2] = inputs.each_ref().map(slice);
    [Layer { weight: w1, bias: b1 }, Layer { weight: w2, bias: b2 }]
}

impl CpuOp<5> for GeluMlp {
    type Saved = Saved;

    fn forward(&self, inputs: [FlexTensor; 5], tracked: [bool; 5]) -> (FlexTensor, Saved) {
        let ([n, _], [f], [out]) = (dims::<2>(&inputs[0]), dims::<1>(&inputs[2]), dims::<1>(&inputs[4]));
        let (mut u, mut h) = (filled([n, f], |_| ()), filled([n, f], |_| ()));
        let y = filled([n, out], |y| {
            mlp::forward(exec(), self.0, slice(&inputs[0]), layers(&inputs), slice_mut(&mut u), slice_mut(&mut h), y);
        });
        (y, tracked.contains(&true).then_some((inputs, u)))
    }

    fn backward(self, d_y: FlexTensor, saved: Saved, _: [bool; 5]) -> [Option<FlexTensor>; 5] {
        let Some((inputs, u)) = saved else { return [const { None }; 5] };
        let ([n, d], [f], [out]) = (dims(&inputs[0]), dims(&inputs[2]), dims(&inputs[4]));
        let (mut d_u, mut h) = (filled([n, f], |_| ()), filled([n, f], |_| ()));
        let (mut d_w1, mut d_b1) = (filled([f, d], |_| ()), filled([f], |_| ()));
        let (mut d_w2, mut d_b2) = (filled([out, f], |_| ()), filled([out], |_| ()));
        let gradients = [
            LayerGradient { weight: slice_mut(&mut d_w1), bias: slice_mut(&mut d_b1) },
            LayerGradient { weight: slice_mut(&mut d_w2), bias: slice_mut(&mut d_b2) },
        ];
        let scratch = Scratch { d_u: slice_mut(&mut d_u), h: slice_mut(&mut h) };
        let d_x = filled([n, d], |d_x| {
            let (x, u) = (slice(&inputs[0]), slice(&u));
            mlp::backward(exec(), self.0, slice(&d_y), (x, u), layers(&inputs), scratch, d_x, gradients);
        });
        [d_x, d_w1, d_b1, d_w2, d_b2].map(Some)
    }
}
