//! Rows of scores to probabilities and back, in whole vectors: rows start [`LANES`] apart or a multiple of it.

use super::BLOCK;
use crate::simd::{Kernel, LANES, Simd};
use std::ops::Range;

/// The number of each lane.
const INDEX: [f32; LANES] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];

/// The columns that each of some rows sees.
struct Seen<L, const R: usize> {
    /// The chunks that hold them.
    chunks: Range<usize>,
    /// First and end, in every lane. Exact: nobody has 2^24 columns of scores.
    ends: [[L; 2]; R],
}

impl<L: Copy, const R: usize> Seen<L, R> {
    /// Of rows each of which begins and ends to see no sooner than the one before.
    #[inline(always)]
    fn new<S: Simd<Lanes = L>>(simd: S, seen: impl Fn(usize) -> Range<usize>) -> Self {
        let mut ends = [[simd.splat(0.0); 2]; R];
        for (r, ends) in ends.iter_mut().enumerate() {
            let Range { start, end } = seen(r);
            *ends = [simd.splat(start as f32), simd.splat(end as f32)];
        }
        Self { chunks: seen(0).start / LANES..seen(R - 1).end.div_ceil(LANES), ends }
    }

    /// The columns of a chunk.
    #[inline(always)]
    fn index<S: Simd<Lanes = L>>(simd: S, chunk: usize) -> L {
        simd.add(simd.load(&INDEX), simd.splat((chunk * LANES) as f32))
    }
}

/// Rows of whole chunks, `stride` floats apart, from row `first` on.
#[inline(always)]
fn rows<const R: usize>(x: &mut [f32], stride: usize, first: usize) -> [&mut [[f32; LANES]]; R] {
    let mut rest = &mut x[first * stride..];
    std::array::from_fn(|_| {
        let (row, rows) = std::mem::take(&mut rest).split_at_mut(stride);
        rest = rows;
        row.as_chunks_mut().0
    })
}

/// Turns rows of scores into probabilities, zero outside what a row sees, and gives the logs of the denominators.
pub(super) struct Softmax<'a, F> {
    pub(super) scores: &'a mut [f32],
    pub(super) stride: usize,
    /// Columns that are read of what a row becomes.
    pub(super) columns: usize,
    pub(super) seen: F,
    pub(super) denominators: &'a mut [f32],
}

impl<F: Fn(usize) -> Range<usize>> Kernel for Softmax<'_, F> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let mut sums = [1.0; BLOCK];
        let (n, mut row) = (self.denominators.len(), 0);
        while S::ROOMY && n - row >= 4 {
            self.rows::<4, S>(simd, row, &mut sums);
            row += 4;
        }
        for row in row..n {
            self.rows::<1, S>(simd, row, &mut sums);
        }
        let (maxima, tail) = self.denominators.as_chunks_mut();
        let (sums, tail_sums) = sums[..n].as_chunks();
        for (max, sum) in maxima.iter_mut().zip(sums) {
            simd.store(simd.add(simd.load(max), simd.ln_lanes(simd.load(sum))), max);
        }
        if !tail.is_empty() {
            let [max, sum] = [&*tail, tail_sums].map(|x| simd.load_part(x, simd.splat(1.0)));
            simd.store_part(simd.add(max, simd.ln_lanes(sum)), tail);
        }
    }
}

impl<F: Fn(usize) -> Range<usize>> Softmax<'_, F> {
    /// `R` rows from `first` on, so that their chains of operations run side by side. Leaves each row's largest score in
    /// `denominators`.
    #[inline(always)]
    fn rows<const R: usize, S: Simd>(&mut self, simd: S, first: usize, sums: &mut [f32; BLOCK]) {
        let seen = Seen::<_, R>::new(simd, |r| (self.seen)(first + r));
        let rows: [_; R] = rows(self.scores, self.stride, first);
        let (zero, lowest) = (simd.splat(0.0), simd.splat(f32::NEG_INFINITY));
        let (mut largest, mut totals) = ([lowest; R], [zero; R]);
        for chunk in seen.chunks.clone() {
            let index = Seen::<_, R>::index(simd, chunk);
            for r in 0..R {
                let x = simd.between(index, seen.ends[r], simd.load(&rows[r][chunk]), lowest);
                largest[r] = simd.larger(largest[r], x);
            }
        }
        let denominators = &mut self.denominators[first..first + R];
        for r in 0..R {
            denominators[r] = simd.largest(largest[r]);
            largest[r] = simd.splat(denominators[r]);
        }
        for chunk in seen.chunks.clone() {
            let index = Seen::<_, R>::index(simd, chunk);
            for r in 0..R {
                // Not of the lowest number, since results that are denormal are slow.
                let weight = simd.exp_lanes(simd.sub(simd.load(&rows[r][chunk]), largest[r]));
                let weight = simd.between(index, seen.ends[r], weight, zero);
                simd.store(weight, &mut rows[r][chunk]);
                totals[r] = simd.add(totals[r], weight);
            }
        }
        for r in 0..R {
            sums[first + r] = simd.sum(totals[r]);
            totals[r] = simd.splat(1.0 / sums[first + r]);
        }
        for chunk in 0..self.columns.div_ceil(LANES) {
            for r in 0..R {
                let weight = simd.mul(simd.load(&rows[r][chunk]), totals[r]);
                simd.store(if seen.chunks.contains(&chunk) { weight } else { zero }, &mut rows[r][chunk]);
            }
        }
    }
}

/// Turns rows of scores `p` into probabilities and `d`, their gradient, into the scores' gradient without the scale.
pub(super) struct SoftmaxBackward<'a, F, L> {
    pub(super) p: &'a mut [f32],
    pub(super) d: &'a mut [f32],
    pub(super) stride: usize,
    /// Columns that are read of what a row becomes.
    pub(super) columns: usize,
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
    fn run<S: Simd>(mut self, simd: S) {
        for row in 0..self.p.len() / self.stride {
            self.rows::<1, S>(simd, row);
        }
    }
}

impl<F: Fn(usize) -> Range<usize>, L: Fn(usize) -> f32> SoftmaxBackward<'_, F, L> {
    /// `R` rows from `first` on.
    #[inline(always)]
    fn rows<const R: usize, S: Simd>(&mut self, simd: S, first: usize) {
        let seen = Seen::<_, R>::new(simd, |r| (self.seen)(first + r));
        let (p, d): ([_; R], [_; R]) = (rows(self.p, self.stride, first), rows(self.d, self.stride, first));
        let zero = simd.splat(0.0);
        let (mut lses, mut deltas) = ([zero; R], [zero; R]);
        for r in 0..R {
            let [d_out, out] = self.outputs.map(|x| &x[(first + r) * self.width..][..self.dim]);
            (lses[r], deltas[r]) = (simd.splat((self.lse)(first + r)), simd.splat(dot(simd, d_out, out)));
        }
        for chunk in 0..self.columns.div_ceil(LANES) {
            if !seen.chunks.contains(&chunk) {
                for r in 0..R {
                    (p[r][chunk], d[r][chunk]) = ([0.0; LANES], [0.0; LANES]);
                }
                continue;
            }
            let index = Seen::<_, R>::index(simd, chunk);
            for r in 0..R {
                let weight = simd.exp_lanes(simd.sub(simd.load(&p[r][chunk]), lses[r]));
                let gradient = simd.mul(weight, simd.sub(simd.load(&d[r][chunk]), deltas[r]));
                simd.store(simd.between(index, seen.ends[r], weight, zero), &mut p[r][chunk]);
                simd.store(simd.between(index, seen.ends[r], gradient, zero), &mut d[r][chunk]);
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
