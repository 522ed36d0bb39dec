//! What happens to parameters and gradients after the backward pass, in place.

use crate::cpu::{Input, exec, is_fused, slice, slice_mut};
use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use cavy_kernels::adamw::{self, AdamW, Factors};
use cavy_kernels::adamw8::{self, Moments8};
use cavy_kernels::grad_norm::{self, Stats};

/// Sum of squares and largest absolute value of a gradient. NaN and infinity show in both.
pub fn gradient_stats<const D: usize>(gradient: &Tensor<D>) -> Stats {
    if is_fused(gradient)
        && let Input::Plain(gradient) = Input::of(gradient.clone())
        && gradient.is_contiguous()
    {
        return grad_norm::stats(exec(), slice(&gradient));
    }
    let values: Vec<f32> = gradient.to_data().try_to_vec().unwrap_or_default();
    grad_norm::stats(exec(), &values)
}

/// One AdamW update. `first` and `second` are the moments; all three tensors stay where they are on the CPU as long as
/// nobody else holds them.
///
/// Shapes: parameter and gradient the same, moments in one dimension. The gradient is multiplied by `gradient_scale`, which clipping gives.
/// Source: Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>, algorithm 2.
pub fn adamw_step<const D: usize>(
    factors: Factors,
    gradient_scale: f32,
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    (first, second): (Tensor<1>, Tensor<1>),
) -> (Tensor<D>, (Tensor<1>, Tensor<1>)) {
    if is_fused(&parameter) && is_fused(&gradient) {
        let inputs = [Input::of(parameter), Input::of(gradient), Input::of(first), Input::of(second)];
        if let [Input::Plain(mut p), Input::Plain(g), Input::Plain(mut m), Input::Plain(mut v)] = inputs {
            let g = if g.is_contiguous() { g } else { g.to_contiguous() };
            let (p_data, m_data, v_data) = (slice_mut(&mut p), slice_mut(&mut m), slice_mut(&mut v));
            adamw::step(exec(), factors, gradient_scale, p_data, slice(&g), m_data, v_data);
            let moments = (Tensor::from_primitive::<Flex>(m), Tensor::from_primitive::<Flex>(v));
            return (Tensor::from_primitive::<Flex>(p), moments);
        }
        unreachable!("parameters are updated outside the autodiff graph");
    }
    let (shape, count) = (parameter.dims(), parameter.dims().iter().product::<usize>());
    let (parameter, gradient) = (parameter.reshape([count]), gradient.reshape([count]) * gradient_scale);
    let Factors { keep, beta1, beta2, step_size, root_correction, eps } = factors;
    let first = first * beta1 + gradient.clone() * (1.0 - beta1);
    let second = second * beta2 + gradient.clone() * gradient * (1.0 - beta2);
    let root = second.clone().sqrt() / root_correction + eps;
    let parameter = parameter * keep - first.clone() / root * step_size;
    (parameter.reshape(shape), (first, second))
}

/// One AdamW update with moments in 8 bits, which lie in the host's memory on every device. `key` decides their rounding.
///
/// Shapes: parameter and gradient the same, moments for as many numbers. `step` and `gradient_scale` as in [`adamw_step`].
/// Numbers: on other devices the update is computed on the CPU all the same.
/// Source: [`cavy_kernels::adamw8`].
pub fn adamw8_step<const D: usize>(
    rule: &AdamW,
    (step, key): (u64, u64),
    gradient_scale: f32,
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    moments: &mut Moments8,
) -> Tensor<D> {
    if is_fused(&parameter) && is_fused(&gradient) {
        if let [Input::Plain(mut p), Input::Plain(g)] = [Input::of(parameter), Input::of(gradient)] {
            let g = if g.is_contiguous() { g } else { g.to_contiguous() };
            adamw8::step(exec(), rule, step, gradient_scale, key, slice_mut(&mut p), slice(&g), moments);
            return Tensor::from_primitive::<Flex>(p);
        }
        unreachable!("parameters are updated outside the autodiff graph");
    }
    let (shape, device) = (parameter.dims(), parameter.device());
    let [mut p, g]: [Vec<f32>; 2] = [parameter, gradient].map(|x| x.to_data().try_to_vec().unwrap_or_default());
    adamw8::step(exec(), rule, step, gradient_scale, key, &mut p, &g, moments);
    Tensor::from_data(TensorData::new(p, shape), &device)
}
