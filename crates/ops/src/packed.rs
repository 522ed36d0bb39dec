//! Products with weights that lie packed: quantized, or in half precision. Such a weight is frozen; by the input, products
//! are differentiable.

use crate::cpu::{CpuOp, Input, apply, dims, exec, filled, filled_if, is_fused, slice};
use burn::backend::Flex;
use burn::tensor::{Device, Tensor, TensorData};
use burn_flex::FlexTensor;
use cavy_kernels::buffer::unfilled;
use cavy_kernels::linear::backward_bias;
use cavy_kernels::packed::{self, PackedMatrix, Product};

/// `y_k = x W_k^T + b_k` for several weights and one input.
///
/// Outside an autodiff graph, packed weights are multiplied by the CPU: on another device `x` comes here and the results go
/// back, and a few rows are rounded to 8 bits for quantized weights. Inside one, activations stay as they are, so that
/// gradients by `x` and the biases fit the forward pass; another device then multiplies by an f32 copy of the weight, which
/// lives as long as the graph.
///
/// Shapes: `x` is `(N, in)`, each weight `(out_k, in)`, its result `(N, out_k)`.
///
/// Panics: if widths disagree.
pub fn packed_linear<const K: usize>(x: Tensor<2>, layers: [(&PackedMatrix, Option<Tensor<1>>); K]) -> [Tensor<2>; K] {
    if x.is_autodiff() {
        return layers.map(|(weight, bias)| differentiable(x.clone(), weight, bias));
    }
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

/// One product inside an autodiff graph.
fn differentiable(x: Tensor<2>, weight: &PackedMatrix, bias: Option<Tensor<1>>) -> Tensor<2> {
    if !is_fused(&x) {
        let y = x.clone().matmul(Tensor::from_inner(plain(weight, &x.device())).transpose());
        return match bias {
            Some(bias) => y + bias.unsqueeze(),
            None => y,
        };
    }
    let op = PackedLinear { weight: weight.clone() };
    match bias {
        Some(bias) => apply(op, [Input::of(x), Input::of(bias)]),
        None => apply(op, [Input::of(x)]),
    }
}

/// The weight as a tensor of f32, outside any graph.
pub(crate) fn plain(weight: &PackedMatrix, device: &Device) -> Tensor<2> {
    let shape = [weight.rows(), weight.cols()];
    let mut values = unfilled(shape[0] * shape[1]);
    packed::dequantize(exec(), weight.format(), weight.bytes(), &mut values);
    Tensor::from_data(TensorData::new(values, shape), &device.clone().without_autodiff())
}

/// The backward pass needs the weight alone, so nothing is saved.
#[derive(Debug)]
struct PackedLinear {
    weight: PackedMatrix,
}

impl PackedLinear {
    fn product(&self, x: &FlexTensor, bias: Option<&FlexTensor>) -> FlexTensor {
        let [n, _] = dims(x);
        let shape = [n, self.weight.rows()];
        filled(shape, |y| packed::linear_unrounded(exec(), slice(x), &self.weight, bias.map(slice), y))
    }

    fn d_x(&self, d_y: &FlexTensor, wanted: bool) -> Option<FlexTensor> {
        let [n, _] = dims(d_y);
        let shape = [n, self.weight.cols()];
        filled_if(wanted, shape, |d_x| packed::backward_input(exec(), slice(d_y), &self.weight, d_x))
    }
}

impl CpuOp<1> for PackedLinear {
    type Saved = ();
    fn forward(&self, [x]: [FlexTensor; 1], _: [bool; 1]) -> (FlexTensor, ()) {
        (self.product(&x, None), ())
    }
    fn backward(self, d_y: FlexTensor, (): (), [wanted]: [bool; 1]) -> [Option<FlexTensor>; 1] {
        [self.d_x(&d_y, wanted)]
    }
}

impl CpuOp<2> for PackedLinear {
    type Saved = ();
    fn forward(&self, [x, bias]: [FlexTensor; 2], _: [bool; 2]) -> (FlexTensor, ()) {
        (self.product(&x, Some(&bias)), ())
    }
    fn backward(self, d_y: FlexTensor, (): (), wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let d_bias = filled_if(wanted[1], [self.weight.rows()], |d_b| backward_bias(exec(), slice(&d_y), d_b));
        [self.d_x(&d_y, wanted[0]), d_bias]
    }
}

/// Logits by a packed output head, `x W^T`, without the rounding of activations that [`packed_linear`] may do.
///
/// Shapes: `x` is `(N, D)`, the weight `(V, D)`, the result `(N, V)`.
///
/// Differentiable by `x`, as [`packed_linear`]; a loss over a large vocabulary should not hold all logits.
///
/// Panics: as [`packed_linear`].
pub fn packed_head(x: Tensor<2>, weight: &PackedMatrix) -> Tensor<2> {
    if x.is_autodiff() {
        return differentiable(x, weight, None);
    }
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
