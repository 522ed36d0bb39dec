//! Rows of scores to probabilities and back, in whole vectors: rows start [`LANES`] apart or a multiple of it.

use super::BLOCK;
use crate::math::exp;
use crate::simd::{Kernel, LANES, Simd};
use std::ops::Range;

/// Lane `lane` of chunk `chunk` of a row, where the row sees it, otherwise `other`.
#[inline(always)]
fn visible(seen: &Range<usize>, chunk: usize, lane: usize, x: f32, other: f32) -> f32 {
    let column = (chunk * LANES + lane) as i32;
    if column >= seen.start as i32 && column < seen.end as i32 { x } else { other }
}

/// [`visible`] with 0 for `other`, by the bits of `x`. Of two choices in one loop the compiler makes a branch, and of that masked
/// stores, which the loads behind them wait for.
#[inline(always)]
fn visible_or_zero(seen: &Range<usize>, chunk: usize, lane: usize, x: f32) -> f32 {
    let column = (chunk * LANES + lane) as i32;
    let is_seen = u32::from(column >= seen.start as i32) & u32::from(column < seen.end as i32);
    f32::from_bits(x.to_bits() & is_seen.wrapping_neg())
}

/// Turns rows of scores into probabilities, zero outside what a row sees, and gives the logs of the denominators.
pub(super) struct Softmax<'a, F> {
    pub(super) scores: &'a mut [f32],
    pub(super) stride: usize,
    pub(super) seen: F,
    pub(super) denominators: &'a mut [f32],
}

impl<F: Fn(usize) -> Range<usize>> Kernel for Softmax<'_, F> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut sums = [1.0; BLOCK];
        let rows = self.scores.chunks_exact_mut(self.stride).zip(&mut *self.denominators).zip(&mut sums);
        for (row, ((scores, denominator), sum)) in rows.enumerate() {
            let seen = (self.seen)(row);
            let chunks = scores.as_chunks_mut::<LANES>().0;
            let (first, last) = (seen.start / LANES, seen.end.div_ceil(LANES));
            chunks[..first].fill([0.0; LANES]);
            chunks[last..].fill([0.0; LANES]);
            let mut lanes = [f32::NEG_INFINITY; LANES];
            for (chunk, scores) in chunks[first..last].iter().enumerate() {
                for lane in 0..LANES {
                    let x = visible(&seen, first + chunk, lane, scores[lane], f32::NEG_INFINITY);
                    lanes[lane] = if x > lanes[lane] { x } else { lanes[lane] };
                }
            }
            let max = simd.largest(simd.load(&lanes));
            let mut lanes = [0.0; LANES];
            for (chunk, scores) in chunks[first..last].iter_mut().enumerate() {
                for lane in 0..LANES {
                    scores[lane] = visible(&seen, first + chunk, lane, exp(simd, scores[lane] - max), 0.0);
                    lanes[lane] += scores[lane];
                }
            }
            (*denominator, *sum) = (max, simd.sum(simd.load(&lanes)));
            let scale = simd.splat(1.0 / *sum);
            for scores in &mut chunks[first..last] {
                simd.store(simd.mul(simd.load(scores), scale), scores);
            }
        }
        // Apart from the loop above, whose constants a call would drive out of the registers.
        self.denominators.iter_mut().zip(sums).for_each(|(max, sum)| *max += sum.ln());
    }
}

/// Turns rows of scores `p` into probabilities and `d`, their gradient, into the scores' gradient without the scale.
pub(super) struct SoftmaxBackward<'a, F, L> {
    pub(super) p: &'a mut [f32],
    pub(super) d: &'a mut [f32],
    pub(super) stride: usize,
    pub(super) seen: F,
    pub(super) lse: L,
    /// The output's gradient and the output, from the first row of the head on; rows of `dim` floats `width` apart.
    pub(super) outputs: [&'a [f32]; 2],
    pub(super) width: usize,
    pub(super) dim: usize,
}

impl<F: Fn(usize) -> Range<usize>, L: Fn(usize) -> f32> Kernel for SoftmaxBackward<'_, F, L> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self.p.chunks_exact_mut(self.stride).zip(self.d.chunks_exact_mut(self.stride));
        for (row, (p, d)) in rows.enumerate() {
            let [d_out, out] = self.outputs.map(|x| &x[row * self.width..][..self.dim]);
            let delta = dot(simd, d_out, out);
            let (seen, lse) = ((self.seen)(row), (self.lse)(row));
            let (p, d) = (p.as_chunks_mut::<LANES>().0, d.as_chunks_mut::<LANES>().0);
            for (chunk, (p, d)) in p.iter_mut().zip(d).enumerate() {
                if chunk * LANES >= seen.end || (chunk + 1) * LANES <= seen.start {
                    (*p, *d) = ([0.0; LANES], [0.0; LANES]);
                    continue;
                }
                for lane in 0..LANES {
                    let weight = exp(simd, p[lane] - lse);
                    p[lane] = visible_or_zero(&seen, chunk, lane, weight);
                    d[lane] = visible_or_zero(&seen, chunk, lane, weight * (d[lane] - delta));
                }
            }
        }
    }
}

/// The sum of products, sixteen lanes at a time.
#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] = simd.mul_add(a[lane], b[lane], lanes[lane]);
        }
    }
    a_rest.iter().zip(b_rest).fold(simd.sum(simd.load(&lanes)), |sum, (a, b)| sum + a * b)
}
