//! A low-rank correction of a linear layer, as adapters train it.
//!
//! Source: Hu et al. 2021, <https://arxiv.org/abs/2106.09685>, section 4.1.

use crate::cpu::{CpuOp, Input, apply, dims, exec, filled, filled_if, is_fused, slice, slice_mut};
use crate::pointwise::dropout;
use crate::shared::{SharedInput, add_to};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use cavy_kernels::Precision;
use cavy_kernels::buffer::unfilled;
use cavy_kernels::low_rank::{self, Factors};
use cavy_kernels::matmul::Onto;
use cavy_kernels::packed::{PackedMatrix, dequantize, linear_exact};

/// How a low-rank product enters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LowRank {
    /// Factor of the product, `s`.
    pub scale: f32,
    /// Blocks that outputs and inner dimensions are split into; 1 for a plain product.
    pub blocks: usize,
    /// Probability with which an input is dropped on its way into the product.
    pub dropout: f32,
    /// Which inputs fall.
    pub dropout_key: u64,
}

/// `y = base + s (drop(x) A^T) B^T`, in the memory of `base` where nobody else holds that.
///
/// With `g` blocks, block `i` of the outputs sees block `i` of the inner dimensions alone: `B` is a block-diagonal
/// matrix whose zeros are not stored.
///
/// Shapes: `base` and the result are `(N, out)`, `x` is `(N, in)`, `a` `(g R, in)`, `b` `(out, R)`; `g` divides `out`.
/// `shared` says that other operations have the input `x` too.
pub fn low_rank(
    base: Tensor<2>,
    x: Tensor<2>,
    a: Tensor<2>,
    b: Tensor<2>,
    how: LowRank,
    shared: Option<&SharedInput>,
) -> Tensor<2> {
    if is_fused(&base) {
        let op = LowRankOp { how, shared: shared.cloned() };
        return apply(op, [Input::of(base), Input::of(x), Input::of(a), Input::of(b)]);
    }
    let ([n, out], [_, r], g) = (base.dims(), b.dims(), how.blocks);
    let inner = dropout(x, how.dropout, how.dropout_key).matmul(a.transpose()) * how.scale; // (N, g R)
    let part = |i: usize| {
        let b = b.clone().slice([i * out / g..(i + 1) * out / g, 0..r]);
        inner.clone().slice([0..n, i * r..(i + 1) * r]).matmul(b.transpose())
    };
    base + Tensor::cat((0..g).map(part).collect(), 1)
}

impl LowRank {
    fn factors<'a>(&self, a: &'a FlexTensor, b: &'a FlexTensor) -> Factors<'a> {
        let [_, rank] = dims::<2>(b);
        Factors { a: slice(a), b: slice(b), rank, blocks: self.blocks, scale: self.scale }
    }
}

/// The input as the product sees it.
fn dropped(how: &LowRank, x: &FlexTensor) -> Option<FlexTensor> {
    (how.dropout > 0.0).then(|| {
        filled(dims::<2>(x), |y| {
            cavy_kernels::dropout::forward(exec(), how.dropout, how.dropout_key, slice(x), y);
        })
    })
}

#[derive(Debug)]
struct LowRankOp {
    how: LowRank,
    shared: Option<SharedInput>,
}

impl CpuOp<4> for LowRankOp {
    /// Input where `A` is tracked; inner activations where `B` is; `A` and `B`.
    type Saved = (Option<FlexTensor>, Option<FlexTensor>, FlexTensor, FlexTensor);

    fn forward(&self, [mut base, x, a, b]: [FlexTensor; 4], tracked: [bool; 4]) -> (FlexTensor, Self::Saved) {
        let ([n, _], [rank, _]) = (dims::<2>(&x), dims::<2>(&a));
        let (fallen, factors) = (dropped(&self.how, &x), self.how.factors(&a, &b));
        let seen = fallen.as_ref().unwrap_or(&x);
        let inner = filled([n, rank], |inner| {
            low_rank::forward(exec(), &factors, slice(seen), inner, slice_mut(&mut base));
        });
        (base, (tracked[2].then_some(x), tracked[3].then_some(inner), a, b))
    }

    fn backward(self, d_y: FlexTensor, saved: Self::Saved, wanted: [bool; 4]) -> [Option<FlexTensor>; 4] {
        let (x, inner, a, b) = saved;
        let ([n, _], [rank, inputs]) = (dims::<2>(&d_y), dims::<2>(&a));
        let factors = self.how.factors(&a, &b);
        let mut d_inner = unfilled(n * rank);
        low_rank::backward_inner(exec(), &factors, slice(&d_y), &mut d_inner);
        let d_b = inner.filter(|_| wanted[3]).map(|inner| {
            filled(dims::<2>(&b), |d_b| low_rank::backward_b(exec(), &factors, slice(&d_y), slice(&inner), d_b))
        });
        let d_a = x.filter(|_| wanted[2]).map(|x| {
            let fallen = dropped(&self.how, &x);
            let seen = fallen.as_ref().unwrap_or(&x);
            filled([rank, inputs], |d_a| low_rank::backward_a(exec(), &d_inner, slice(seen), rank, d_a))
        });
        let shape = [n, inputs];
        let d_x = wanted[1].then(|| {
            if self.how.dropout == 0.0 {
                return add_to(self.shared.as_ref(), shape, |onto, d_x| {
                    low_rank::backward_input(exec(), onto, &factors, &d_inner, d_x);
                });
            }
            let whole = filled(shape, |d_x| low_rank::backward_input(exec(), Onto::Overwrite, &factors, &d_inner, d_x));
            let own = dropped(&self.how, &whole).unwrap_or(whole);
            add_to(self.shared.as_ref(), shape, |onto, d_x| match onto {
                Onto::Overwrite => d_x.copy_from_slice(slice(&own)),
                Onto::Add => cavy_kernels::add::add_to(exec(), slice(&own), d_x),
            })
        });
        [wanted[0].then_some(d_y), d_x.flatten(), d_a, d_b]
    }
}

/// `y_o = c_o x_o + b_o` with `c_o = magnitude_o / norm_o`: gives each output the length that was learned for it.
///
/// `norms` is a constant, as in the paper's section 4.3.
///
/// Shapes: `x` and the result are `(N, out)`, all else `(out)`.
/// Source: Liu et al. 2024, "DoRA", <https://arxiv.org/abs/2402.09353>, equation 5.
pub fn rescale(x: Tensor<2>, magnitude: Tensor<1>, norms: &[f32], bias: Option<Tensor<1>>) -> Tensor<2> {
    if is_fused(&x) {
        let op = Rescale(norms.into());
        return match bias {
            Some(bias) => apply(op, [Input::of(x), Input::of(magnitude), Input::of(bias)]),
            None => apply(op, [Input::of(x), Input::of(magnitude)]),
        };
    }
    let data = burn::tensor::TensorData::new(norms.to_vec(), [norms.len()]);
    let factors = magnitude / Tensor::<1>::from_data(data, &x.device());
    let y = x * factors.unsqueeze();
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}

#[derive(Debug)]
struct Rescale(std::sync::Arc<[f32]>);

/// `x` where the magnitude is tracked, and the factors.
type RescaleSaved = (Option<FlexTensor>, Vec<f32>);

impl Rescale {
    fn run(
        &self,
        x: FlexTensor,
        magnitude: &FlexTensor,
        bias: Option<&FlexTensor>,
        keep: bool,
    ) -> (FlexTensor, RescaleSaved) {
        let factors: Vec<f32> = slice(magnitude).iter().zip(&*self.0).map(|(m, norm)| m / norm).collect();
        let y = filled(dims::<2>(&x), |y| {
            low_rank::rescale(exec(), slice(&x), &factors, bias.map(slice), y);
        });
        (y, (keep.then_some(x), factors))
    }

    fn run_back(&self, mut d_y: FlexTensor, (x, factors): RescaleSaved, wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let out = factors.len();
        let d_magnitude = x
            .filter(|_| wanted[1])
            .map(|x| filled([out], |d| low_rank::backward_magnitude(exec(), slice(&d_y), slice(&x), &self.0, d)));
        let d_bias = filled_if(wanted[2], [out], |d_b| cavy_kernels::linear::backward_bias(exec(), slice(&d_y), d_b));
        let d_x = wanted[0].then(|| {
            low_rank::rescale_in_place(exec(), slice_mut(&mut d_y), &factors);
            d_y
        });
        [d_x, d_magnitude, d_bias]
    }
}

impl CpuOp<3> for Rescale {
    type Saved = RescaleSaved;
    fn forward(&self, [x, m, bias]: [FlexTensor; 3], tracked: [bool; 3]) -> (FlexTensor, RescaleSaved) {
        self.run(x, &m, Some(&bias), tracked[1])
    }
    fn backward(self, d_y: FlexTensor, saved: RescaleSaved, wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
        self.run_back(d_y, saved, wanted)
    }
}

impl CpuOp<2> for Rescale {
    type Saved = RescaleSaved;
    fn forward(&self, [x, m]: [FlexTensor; 2], tracked: [bool; 2]) -> (FlexTensor, RescaleSaved) {
        self.run(x, &m, None, tracked[1])
    }
    fn backward(self, d_y: FlexTensor, saved: RescaleSaved, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let [d_x, d_magnitude, _] = self.run_back(d_y, saved, [wanted[0], wanted[1], false]);
        [d_x, d_magnitude]
    }
}

/// A weight in one of the forms of a linear layer's.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one lives at a time, on the stack")]
pub enum Weight<'a> {
    /// A tensor of f32, `(out, in)`.
    Dense(Tensor<2>),
    /// Packed.
    Packed(&'a PackedMatrix),
}

impl Weight<'_> {
    /// Outputs and inputs.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Dense(tensor) => tensor.dims(),
            Self::Packed(packed) => [packed.rows(), packed.cols()],
        }
    }

    /// All values in f32, `(out, in)` in one vector.
    pub fn values(&self) -> Vec<f32> {
        match self {
            Self::Dense(tensor) => slice(&host(tensor)).to_vec(),
            Self::Packed(packed) => {
                let mut values = unfilled(packed.rows() * packed.cols());
                dequantize(exec(), packed.format(), packed.bytes(), &mut values);
                values
            }
        }
    }

    /// `||W_o||^2` of every row.
    pub fn row_squares(&self) -> Vec<f64> {
        let [out, inputs] = self.dims();
        let mut squares = vec![0.0; out];
        match self {
            Self::Dense(tensor) => low_rank::row_squares(exec(), slice(&host(tensor)), inputs, &mut squares),
            Self::Packed(_) => low_rank::row_squares(exec(), &self.values(), inputs, &mut squares),
        }
        squares
    }

    /// `||W_o + s B_o A||` of every row, without forming `B A`; not differentiable.
    ///
    /// Shapes: `squares` is what [`Self::row_squares`] gives, `a` and `b` as in [`low_rank()`].
    pub fn adapted_norms(&self, squares: &[f64], a: &Tensor<2>, b: &Tensor<2>, how: &LowRank) -> Vec<f32> {
        let (a, b) = (host(a), host(b));
        let ([inner, _], [out, _]) = (dims::<2>(&a), dims::<2>(&b));
        // A norm is part of the weight, whatever operands of products are rounded to.
        let exec = exec().with_precision(Precision::F32).with_rounded_activations(false);
        let mut products = unfilled(inner * out);
        match self {
            Self::Dense(weight) => {
                let weight = host(weight);
                cavy_kernels::linear::forward(exec, slice(&a), slice(&weight), None, out, &mut products);
            }
            Self::Packed(packed) => linear_exact(exec, slice(&a), packed, None, &mut products),
        }
        let mut norms = unfilled(out);
        low_rank::row_norms(exec, &how.factors(&a, &b), squares, &products, &mut norms);
        norms
    }
}

/// The values of a tensor of any device in the machine's memory; on the CPU without a copy.
fn host<const D: usize>(x: &Tensor<D>) -> FlexTensor {
    if is_fused(x) {
        return match Input::of(x.clone()) {
            Input::Plain(x) if x.is_contiguous() => x,
            Input::Plain(x) => x.to_contiguous(),
            Input::Tracked(x) => {
                let x = x.into_primitive();
                if x.is_contiguous() { x } else { x.to_contiguous() }
            }
        };
    }
    let plain = if x.is_autodiff() { x.clone().inner() } else { x.clone() };
    crate::cpu::tensor(plain.into_data().try_to_vec().unwrap_or_default(), x.dims())
}
