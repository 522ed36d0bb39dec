//! Integer products of quantized weights with rounded activations, in plain Rust: the path of every instruction set
//! that has none of its own.

use super::activations::Activations;
use super::blocks::{RUN, Unpacked, unpack};
use super::format::Format;
use super::rows::Rows;
use crate::simd::{Kernel, Simd};

/// Some rows of a product.
pub(super) struct IntegerRows<'a> {
    pub(super) rows: &'a Rows<'a>,
    pub(super) activations: &'a Activations,
}

impl Kernel for IntegerRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let weight = self.rows.weight;
        let (format, cols, row_bytes) = (weight.format, weight.cols, weight.row_bytes());
        let n_runs = cols / format.run_len();
        let mut quants = vec![0; cols];
        let (mut scales, mut offsets) = (vec![0.0; n_runs], vec![0.0; n_runs]);
        for row in self.rows.range.clone() {
            let bytes = &self.rows.weight.bytes[row * row_bytes..][..row_bytes];
            unpack(format, bytes, Unpacked { quants: &mut quants, scales: &mut scales, offsets: &mut offsets });
            for i in self.rows.x_range.clone() {
                let x = Row {
                    quants: &self.activations.quants[i * cols..][..cols],
                    scales: &self.activations.scales[i * cols / RUN..][..cols / RUN],
                    sums: &self.activations.sums[i * cols / RUN..][..cols / RUN],
                };
                let y = match format {
                    Format::Q6K => dot::<16, S>(simd, &quants, &scales, x),
                    Format::Q8_0 => dot::<RUN, S>(simd, &quants, &scales, x),
                    _ => dot_with_offsets(simd, &quants, &scales, &offsets, x),
                };
                self.rows.write(i, row, &[y]);
            }
        }
    }
}

/// One row of rounded activations.
#[derive(Clone, Copy)]
struct Row<'a> {
    quants: &'a [i8],
    scales: &'a [f32],
    sums: &'a [f32],
}

/// The sum of the products of two runs: exact.
#[inline(always)]
fn integer_dot<const LEN: usize>(a: &[i8; LEN], b: &[i8; LEN]) -> f32 {
    let mut sum = 0;
    for i in 0..LEN {
        sum += i32::from(a[i]) * i32::from(b[i]);
    }
    sum as f32
}

#[inline(always)]
fn dot<const LEN: usize, S: Simd>(simd: S, quants: &[i8], scales: &[f32], x: Row<'_>) -> f32 {
    let runs = quants.as_chunks::<LEN>().0.iter().zip(x.quants.as_chunks::<LEN>().0);
    let mut sum = 0.0;
    for (run, (q, x_q)) in runs.enumerate() {
        let scale = scales[run] * x.scales[run * LEN / RUN];
        sum = simd.mul_add(integer_dot(q, x_q), scale, sum);
    }
    sum
}

#[inline(always)]
fn dot_with_offsets<S: Simd>(simd: S, quants: &[i8], scales: &[f32], offsets: &[f32], x: Row<'_>) -> f32 {
    let runs = quants.as_chunks::<RUN>().0.iter().zip(x.quants.as_chunks::<RUN>().0);
    let mut sum = 0.0;
    for (run, (q, x_q)) in runs.enumerate() {
        sum = simd.mul_add(integer_dot(q, x_q), scales[run] * x.scales[run], sum);
        sum = simd.mul_add(offsets[run], x.sums[run], sum);
    }
    sum
}
