//! Causal attention over the packed token axis.

use crate::cpu::{CpuOp, Input, apply, exec, filled, filled_if, is_fused, slice};
use burn::tensor::{Tensor, TensorData, activation};
use burn_flex::FlexTensor;
use cavy_kernels::attention::{Attention, Heads, backward, forward};
use cavy_kernels::buffer::unfilled;
use cavy_kernels::dropout::{keep, threshold};
use cavy_kernels::segments::Segments;
use std::sync::Arc;

/// What attends to what, and how. Cheap to clone; one serves all layers of a pass but for the dropout key.
#[derive(Clone, Debug)]
pub struct AttentionSpec {
    /// Head counts and size.
    pub heads: Heads,
    /// Where the sequences lie.
    pub segments: Arc<Segments>,
    /// Most positions a query sees, its own included; `None` for all.
    pub window: Option<usize>,
    /// Factor of the scores, usually `1 / sqrt(dim)`.
    pub scale: f32,
    /// Probability of dropping an attention weight.
    pub dropout: f32,
    /// Which weights fall.
    pub dropout_key: u64,
}

impl AttentionSpec {
    fn kernel(&self) -> Attention<'_> {
        let Self { heads, ref segments, window, scale, dropout, dropout_key } = *self;
        Attention { heads, segments, window, scale, dropout, dropout_key }
    }
}

/// Softmax attention of every token to the visible tokens of its own sequence.
///
/// Shapes: `qkv` is `(N, (H + 2K) E)`, a token's query heads, key heads, value heads; the result is `(N, H E)`.
/// Source: `cavy_kernels::attention`.
pub fn attention(qkv: Tensor<2>, spec: &AttentionSpec) -> Tensor<2> {
    if is_fused(&qkv) {
        return apply(AttentionOp(spec.clone()), [Input::of(qkv)]);
    }
    let segments = spec.segments.list();
    let mixed = (0..segments.len()).map(|s| composed(&qkv, spec, s)).collect();
    Tensor::cat(mixed, 0)
}

/// The rows of segment `s`, by Burn's own operations.
fn composed(qkv: &Tensor<2>, spec: &AttentionSpec, s: usize) -> Tensor<2> {
    let (heads, segment) = (spec.heads, spec.segments.list()[s]);
    let (h, k, e, len) = (heads.query(), heads.kv(), heads.dim(), segment.len);
    let rows = |start: usize, len: usize| qkv.clone().narrow(0, start, len);
    let own = rows(segment.start, len);
    let mut parts: Vec<_> =
        spec.segments.chain(s).map(|s| spec.segments.list()[s]).map(|part| rows(part.start, part.len)).collect();
    parts.reverse();
    let keys = Tensor::cat(parts, 0);
    let total = segment.position + len;
    // (rows, count * E) to (H, rows, E), each key/value head repeated for its group of query heads.
    let split = |x: Tensor<2>, first: usize, count: usize, rows: usize| {
        let x = x.slice([0..rows, first * e..(first + count) * e]);
        x.reshape([rows, count, 1, e]).repeat_dim(2, h / count).reshape([rows, h, e]).swap_dims(0, 1)
    };
    let q = split(own, 0, h, len);
    let key = split(keys.clone(), h, k, total);
    let value = split(keys, h + k, k, total);
    let (mask, factors) = masks(spec, s);
    let device = qkv.device();
    let mask = Tensor::<2>::from_data(TensorData::new(mask, [len, total]), &device).unsqueeze();
    let scores = q.matmul(key.swap_dims(1, 2)) * spec.scale + mask; // (H, len, total)
    let mut weights = activation::softmax(scores, 2);
    if let Some(factors) = factors {
        weights = weights * Tensor::<3>::from_data(TensorData::new(factors, [h, len, total]), &device);
    }
    weights.matmul(value).swap_dims(0, 1).reshape([len, h * e])
}

/// What is added to the scores, `(len, total)`, and the factors of dropout, `(H, len, total)`.
fn masks(spec: &AttentionSpec, s: usize) -> (Vec<f32>, Option<Vec<f32>>) {
    let segment = spec.segments.list()[s];
    let (len, total) = (segment.len, segment.position + segment.len);
    let mut mask = vec![-1e30; len * total];
    for row in 0..len {
        let position = segment.position + row;
        let first = spec.window.map_or(0, |window| (position + 1).saturating_sub(window));
        mask[row * total + first..=row * total + position].fill(0.0);
    }
    let factors = (spec.dropout > 0.0).then(|| {
        let factor = |index: usize| {
            let (head, row, column) = (index / (len * total), index / total % len, index % total);
            let query = (head * spec.segments.tokens() + segment.start + row) as u64;
            let kept = keep(spec.dropout_key, (query << 32) | column as u64, threshold(spec.dropout));
            if kept { 1.0 / (1.0 - spec.dropout) } else { 0.0 }
        };
        (0..spec.heads.query() * len * total).map(factor).collect()
    });
    (mask, factors)
}

#[derive(Debug)]
struct AttentionOp(AttentionSpec);

impl CpuOp<1> for AttentionOp {
    /// Packed input, output, and the log of each softmax's denominator.
    type Saved = (FlexTensor, FlexTensor, Vec<f32>);

    fn forward(&self, [qkv]: [FlexTensor; 1], _: [bool; 1]) -> (FlexTensor, Self::Saved) {
        let (heads, n) = (self.0.heads, self.0.segments.tokens());
        let mut lse = unfilled(n * heads.query());
        let out = filled([n, heads.width()], |out| {
            forward(exec(), &self.0.kernel(), slice(&qkv), out, &mut lse);
        });
        (out.clone(), (qkv, out, lse))
    }

    fn backward(self, d_y: FlexTensor, (qkv, out, lse): Self::Saved, wanted: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let shape = [self.0.segments.tokens(), self.0.heads.packed_width()];
        [filled_if(wanted[0], shape, |d_qkv| {
            backward(exec(), &self.0.kernel(), slice(&d_y), slice(&qkv), slice(&out), &lse, d_qkv);
        })]
    }
}
