//! Products of f32, f16 and bf16 weights with a few rows of activations, reading each weight once and packing nothing.

use super::dequantize::Dequantize;
use super::rows::Rows;
use crate::lanes::sum;
use crate::simd::{Kernel, LANES, Simd};

/// Some rows of a product.
pub(super) struct FloatRows<'a> {
    pub(super) rows: &'a Rows<'a>,
    pub(super) x: &'a [f32],
}

impl Kernel for FloatRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (cols, row_bytes) = (self.rows.weight.cols, self.rows.weight.row_bytes());
        let mut w = vec![0.0; cols];
        for row in self.rows.range.clone() {
            let bytes = &self.rows.weight.bytes[row * row_bytes..][..row_bytes];
            Dequantize { format: self.rows.weight.format, bytes, out: &mut w }.run(simd);
            for i in self.rows.x_range.clone() {
                self.rows.write(i, row, &[dot(simd, &self.x[i * cols..][..cols], &w)]);
            }
        }
    }
}

/// Element `i` goes to the sum of lane `i % LANES`.
#[inline(always)]
fn dot<S: Simd>(simd: S, x: &[f32], w: &[f32]) -> f32 {
    let ((x_body, x_tail), (w_body, w_tail)) = (x.as_chunks::<LANES>(), w.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (x, w) in x_body.iter().zip(w_body) {
        for i in 0..LANES {
            lanes[i] = simd.mul_add(x[i], w[i], lanes[i]);
        }
    }
    for (lane, (&x, &w)) in lanes.iter_mut().zip(x_tail.iter().zip(w_tail)) {
        *lane = simd.mul_add(x, w, *lane);
    }
    sum(lanes)
}
