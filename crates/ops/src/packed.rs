//! Products with weights that lie packed: quantized, or in half precision.

use crate::cpu::{exec, filled, is_fused, slice};
use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;
use cavy_kernels::buffer::unfilled;
use cavy_kernels::packed::{self, PackedMatrix, Product};

/// `y_k = x W_k^T + b_k` for several weights and one input.
///
/// Packed weights lie in the machine's memory, so on another device `x` comes here and the results go back.
/// Not differentiable.
///
/// Shapes: `x` is `(N, in)`, each weight `(out_k, in)`, its result `(N, out_k)`.
///
/// Panics: if widths disagree, and on a tensor with autodiff.
pub fn packed_linear<const K: usize>(x: Tensor<2>, layers: [(&PackedMatrix, Option<Tensor<1>>); K]) -> [Tensor<2>; K] {
    assert!(!x.is_autodiff(), "a packed weight has no backward pass; use the model's valid form");
    let (n, device, on_cpu) = (x.dims()[0], x.device(), is_fused(&x));
    let run = |x: &[f32]| {
        let biases = layers.each_ref().map(|(_, bias)| {
            bias.as_ref().map(|bias| bias.clone().into_data().try_to_vec::<f32>().unwrap_or_default())
        });
        let mut results = layers.each_ref().map(|(weight, _)| unfilled(n * weight.rows()));
        let mut products: Vec<_> = results
            .iter_mut()
            .zip(&layers)
            .zip(&biases)
            .map(|((y, (weight, _)), bias)| Product { weight, bias: bias.as_deref(), y })
            .collect();
        packed::linear_many(exec(), x, &mut products);
        drop(products);
        results
    };
    let results = if on_cpu {
        let x = x.try_into_primitive::<Flex>().expect("a tensor on the CPU");
        let x = if x.is_contiguous() { x } else { x.to_contiguous() };
        run(slice(&x))
    } else {
        run(&x.into_data().try_to_vec::<f32>().unwrap_or_default())
    };
    let mut outputs = layers.iter().map(|(weight, _)| weight.rows());
    results.map(|y| {
        let shape = [n, outputs.next().expect("a result for every weight")];
        if on_cpu {
            Tensor::from_primitive::<Flex>(crate::cpu::tensor(y, shape))
        } else {
            Tensor::from_data(TensorData::new(y, shape), &device)
        }
    })
}

/// Logits by a packed output head, `x W^T`, without the rounding of activations that [`packed_linear`] may do.
///
/// Shapes: `x` is `(N, D)`, the weight `(V, D)`, the result `(N, V)`.
///
/// Panics: as [`packed_linear`].
pub fn packed_head(x: Tensor<2>, weight: &PackedMatrix) -> Tensor<2> {
    assert!(!x.is_autodiff(), "a packed weight has no backward pass; use the model's valid form");
    let (shape, device) = ([x.dims()[0], weight.rows()], x.device());
    let run = |x: &[f32]| filled(shape, |y| packed::linear_exact(exec(), x, weight, None, y));
    if is_fused(&x) {
        let x = x.try_into_primitive::<Flex>().expect("a tensor on the CPU");
        let x = if x.is_contiguous() { x } else { x.to_contiguous() };
        return Tensor::from_primitive::<Flex>(run(slice(&x)));
    }
    let y = run(&x.into_data().try_to_vec::<f32>().unwrap_or_default());
    Tensor::from_data(TensorData::new(slice(&y).to_vec(), shape), &device)
}

/// Rows `ids` of a packed table, on the CPU.
///
/// Shapes: `ids` is `(N)`, the result `(N, D)`.
///
/// Panics: if an id is out of bounds.
pub fn packed_embedding(table: &PackedMatrix, ids: &[u32]) -> Tensor<2> {
    let found: FlexTensor = filled([ids.len(), table.cols()], |out| packed::rows(exec(), table, ids, out));
    Tensor::from_primitive::<Flex>(found)
}
