//! Rotary position embedding.

use crate::cpu::{CpuOp, Input, apply, dims, exec, filled, filled_if, is_fused, slice};
use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;
use cavy_kernels::rope::{rotate, rotate_back};
use std::sync::Arc;

/// Rotates each pair of a head's dimensions `(i, i + E / 2)` by `position * inv_freq[i]`.
///
/// Shapes: `x` and the result are `(N, heads * E)`, `positions` is `(N)`, `inv_freq` `(E / 2)`.
/// Source: Su et al. 2021, <https://arxiv.org/abs/2104.09864>, equation 34, in Hugging Face's order of dimensions.
pub fn rope(x: Tensor<2>, heads: usize, positions: &Arc<[u32]>, inv_freq: &Arc<[f32]>) -> Tensor<2> {
    if is_fused(&x) {
        let op = Rope { heads, positions: Arc::clone(positions), inv_freq: Arc::clone(inv_freq) };
        return apply(op, [Input::of(x)]);
    }
    let ([n, width], half, device) = (x.dims(), inv_freq.len(), x.device());
    let table = |f: fn(f64) -> f64| {
        let row = |&p: &u32| inv_freq.iter().map(move |&w| f(f64::from(p) * f64::from(w)) as f32);
        let values: Vec<f32> = positions.iter().flat_map(row).collect();
        Tensor::<3>::from_data(TensorData::new(values, [n, 1, half]), &device)
    };
    let (cos, sin) = (table(f64::cos), table(f64::sin));
    let x = x.reshape([n, heads, 2 * half]);
    let left = x.clone().slice([0..n, 0..heads, 0..half]);
    let right = x.slice([0..n, 0..heads, half..2 * half]);
    let turned_left = left.clone() * cos.clone() - right.clone() * sin.clone();
    let turned_right = right * cos + left * sin;
    Tensor::cat(vec![turned_left, turned_right], 2).reshape([n, width])
}

#[derive(Debug)]
struct Rope {
    heads: usize,
    positions: Arc<[u32]>,
    inv_freq: Arc<[f32]>,
}

impl CpuOp<1> for Rope {
    type Saved = ();
    fn forward(&self, [x]: [FlexTensor; 1], _: [bool; 1]) -> (FlexTensor, ()) {
        let y = filled(dims::<2>(&x), |y| rotate(exec(), slice(&x), self.heads, &self.positions, &self.inv_freq, y));
        (y, ())
    }
    fn backward(self, d_y: FlexTensor, (): (), wanted: [bool; 1]) -> [Option<FlexTensor>; 1] {
        [filled_if(wanted[0], dims::<2>(&d_y), |d_x| {
            rotate_back(exec(), slice(&d_y), self.heads, &self.positions, &self.inv_freq, d_x);
        })]
    }
}
