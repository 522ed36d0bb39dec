//! The linear layer.

use crate::cpu::{CpuOp, Input, apply, dims, exec, filled, filled_if, is_fused, slice, slice_mut};
use crate::shared::{SharedInput, add_to};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use cavy_kernels::linear;

/// `y = x W^T + b`.
///
/// Shapes: `x` is `(N, in)`, `weight` `(out, in)`, `bias` `(out)`, the result `(N, out)`.
/// Frozen inputs cost no gradient.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    linear_shared(x, weight, bias, None)
}

/// [`linear()`] of an input that other operations share.
pub fn linear_shared(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    shared: Option<&SharedInput>,
) -> Tensor<2> {
    if !is_fused(&x) {
        let y = x.matmul(weight.transpose());
        return match bias {
            Some(bias) => y + bias.unsqueeze(),
            None => y,
        };
    }
    let op = Linear(shared.cloned());
    match bias {
        Some(bias) => apply(op, [Input::of(x), Input::of(weight), Input::of(bias)]),
        None => apply(op, [Input::of(x), Input::of(weight)]),
    }
}

#[derive(Debug)]
struct Linear(Option<SharedInput>);

/// Input where the weight is tracked, weight where the input is.
type Saved = (Option<FlexTensor>, Option<FlexTensor>);

fn forward(x: FlexTensor, weight: FlexTensor, bias: Option<&FlexTensor>, tracked: [bool; 2]) -> (FlexTensor, Saved) {
    let ([n, _], [out, _]) = (dims::<2>(&x), dims::<2>(&weight));
    let y = filled([n, out], |y| linear::forward(exec(), slice(&x), slice(&weight), bias.map(slice), out, y));
    (y, (tracked[1].then_some(x), tracked[0].then_some(weight)))
}

impl Linear {
    fn run_back(&self, d_y: &FlexTensor, (x, weight): Saved, bias_wanted: bool) -> [Option<FlexTensor>; 3] {
        let [n, out] = dims(d_y);
        let mut d_bias = filled_if(bias_wanted, [out], |_| ());
        let (Some(x), Some(weight)) = (&x, &weight) else {
            if let Some(d_bias) = &mut d_bias {
                linear::backward_bias(exec(), slice(d_y), slice_mut(d_bias));
            }
            let d_x = weight.and_then(|weight| {
                let [_, inputs] = dims(&weight);
                add_to(self.0.as_ref(), [n, inputs], |onto, d_x| {
                    linear::backward_input_onto(exec(), onto, slice(d_y), slice(&weight), out, d_x);
                })
            });
            let d_weight = x.map(|x| {
                let [_, inputs] = dims(&x);
                filled([out, inputs], |d_w| linear::backward_weight(exec(), slice(d_y), slice(&x), out, d_w))
            });
            return [d_x, d_weight, d_bias];
        };
        let [_, inputs] = dims(weight);
        let mut d_weight = filled([out, inputs], |_| ());
        let d_x = add_to(self.0.as_ref(), [n, inputs], |onto, d_x| {
            let (d_weight, d_bias) = (slice_mut(&mut d_weight), d_bias.as_mut().map(slice_mut));
            linear::backward(exec(), slice(d_y), (slice(x), slice(weight)), out, (onto, d_x), d_weight, d_bias);
        });
        [d_x, Some(d_weight), d_bias]
    }
}

impl CpuOp<2> for Linear {
    type Saved = Saved;
    fn forward(&self, [x, weight]: [FlexTensor; 2], tracked: [bool; 2]) -> (FlexTensor, Saved) {
        forward(x, weight, None, tracked)
    }
    fn backward(self, d_y: FlexTensor, saved: Saved, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let [d_x, d_weight, _] = self.run_back(&d_y, saved, false);
        [d_x, d_weight]
    }
}

impl CpuOp<3> for Linear {
    type Saved = Saved;
    fn forward(&self, [x, weight, bias]: [FlexTensor; 3], tracked: [bool; 3]) -> (FlexTensor, Saved) {
        forward(x, weight, Some(&bias), [tracked[0], tracked[1]])
    }
    fn backward(self, d_y: FlexTensor, saved: Saved, wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
        self.run_back(&d_y, saved, wanted[2])
    }
}
