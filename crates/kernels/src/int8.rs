//! Frozen weights in 8 bits and products with activations and gradients that are rounded to 8 bits on the way: the base of
//! adapters, a reference policy, rollouts.
//!
//! `y = x W^T + b` and `d_x = d_y W`, each a product of integers that is exact within a run of the shared dimension:
//!
//! - A row of `W` (an output) has one scale `s_o = max |W_o| / 127` and integers `w`, the nearest to `W / s_o`: `cols + 4` bytes.
//! - A run of [`RUN`] numbers of a row of `x` has a scale `d = max |x| / 127` and integers `q`, so that
//!   `y_o = s_o * sum over runs of d * (sum of q w)`.
//! - The gradient takes the scales into `d_y` before it is rounded: `d_x = sum over runs of d * (sum of q w)`, with `q` of `d_y_o s_o`.
//!
//! Numbers: root mean square of the errors over that of the results, against f32, on normal data with 3072 inputs:
//!
//! | product | forward | gradient | forward, one input in 100 twenty times as large |
//! |---|---|---|---|
//! | this | 1.01 % | 0.91 % | 2.27 % |
//! | `Q8_0`, activations rounded in runs of 32 | 0.74 % | | 1.25 % |
//! | `Q8_0`, f32 activations | 0.53 % | 0.52 % | 0.54 % |
//!
//! 0.7 % are the weights', which one scale for a row costs. Results on the way are f32; a weight itself is not trained.
//!
//! Plain Rust computes this on every CPU; AVX2, AVX-VNNI and AVX-512 VNNI do it in register tiles ([`Path`], `int8/blocked.rs`).
//!
//! Shapes: `x` is `(n, in)`, `W` `(out, in)`, `b` `(out)`, `y` `(n, out)`, all row-major.
//! Source: Wortsman et al. 2023, "Stable and low-precision training for large-scale vision-language models",
//! <https://arxiv.org/abs/2304.13013>, section 2: forward product and input gradient in 8 bits; scales of runs instead of whole rows
//! as in `packed/activations.rs`.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod blocked;
mod plain;
mod product;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod vnni;

use crate::Exec;
use crate::lanes::TASK_ELEMENTS;
use crate::parallel::for_each_chunk;
pub use product::Path;
use product::Product;
use std::fmt;

/// Numbers of a row of activations or gradients that are rounded together.
pub const RUN: usize = 128;
/// A magnitude below which numbers count as zeros: their scale would come near the denormals, which threads may flush.
const NEGLIGIBLE: f32 = 1e-30;

/// A `rows x cols` matrix of 8-bit integers, row-major, with one scale for each row: rows are outputs of a layer, columns its inputs.
///
/// Invariant: there is a column, and there are as many integers and scales as the shape says; integers are in -127..=127.
#[derive(Clone, PartialEq)]
pub struct Int8Matrix {
    cols: usize,
    quants: Vec<i8>,
    scales: Vec<f32>,
}

impl Int8Matrix {
    /// The matrix nearest to a row-major one of floats.
    ///
    /// Numbers: an entry is off by at most half a scale, `max |row| / 254`. A row with a NaN or an infinity has a scale of NaN, one whose
    /// largest magnitude is below 1e-30 is zero.
    /// Panics: if there is no column, or `weight` is not `rows * cols` long.
    pub fn quantize(exec: Exec, weight: &[f32], rows: usize, cols: usize) -> Self {
        assert!(cols > 0 && weight.len() == rows * cols, "{} weights for {rows} x {cols}", weight.len());
        let mut rounded: Vec<(f32, Vec<i8>)> = vec![(0.0, Vec::new()); rows];
        let per_task = TASK_ELEMENTS.div_ceil(cols);
        for_each_chunk(exec, &mut rounded, per_task, |task, rounded| {
            for (row, rounded) in rounded.iter_mut().enumerate() {
                let x = &weight[(task * per_task + row) * cols..][..cols];
                let (scale, inverse) = scales(x);
                *rounded = (scale, x.iter().map(|x| round(*x, inverse)).collect());
            }
        });
        let scales = rounded.iter().map(|row| row.0).collect();
        Self { cols, quants: rounded.into_iter().flat_map(|row| row.1).collect(), scales }
    }

    /// Rows: the outputs of a layer.
    pub fn rows(&self) -> usize {
        self.scales.len()
    }

    /// Columns: the inputs of a layer.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The integers, row after row.
    pub fn quants(&self) -> &[i8] {
        &self.quants
    }

    /// The scale of each row.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Writes the floats that the matrix stands for.
    ///
    /// Panics: if `out` has another length than the matrix.
    pub fn dequantize(&self, exec: Exec, out: &mut [f32]) {
        assert_eq!(out.len(), self.quants.len(), "floats of {} x {}", self.rows(), self.cols);
        let per_task = TASK_ELEMENTS.div_ceil(self.cols);
        for_each_chunk(exec, out, per_task * self.cols, |task, out| {
            for (row, out) in out.chunks_mut(self.cols).enumerate() {
                let row = task * per_task + row;
                let quants = &self.quants[row * self.cols..][..self.cols];
                out.iter_mut().zip(quants).for_each(|(out, &q)| *out = f32::from(q) * self.scales[row]);
            }
        });
    }
}

impl fmt::Debug for Int8Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Int8Matrix({} x {})", self.rows(), self.cols)
    }
}

/// Scale of numbers that are rounded together, and what they are multiplied with before: NaN and arbitrary if one is not finite.
fn scales(x: &[f32]) -> (f32, f32) {
    // The bits of magnitudes are ordered as the magnitudes are, with NaN above infinity.
    scales_of(x.iter().fold(0_u32, |largest, x| largest.max(x.to_bits() & 0x7FFF_FFFF)))
}

/// The same from the bits of the largest magnitude.
fn scales_of(largest: u32) -> (f32, f32) {
    let largest = f32::from_bits(largest);
    match () {
        () if largest < NEGLIGIBLE => (0.0, 0.0),
        () if largest.is_finite() => (largest / 127.0, 127.0 / largest),
        () => (f32::NAN, 0.0),
    }
}

/// The integer nearest to `x * inverse`, ties to even; zero where it is no number.
#[inline(always)]
fn round(x: f32, inverse: f32) -> i8 {
    (x * inverse).round_ties_even() as i8
}

/// `y = x W^T + b`.
///
/// Numbers: see the file's head. Runs are added in order in f32, then come the scale of the output and the bias. A NaN or
/// infinity in a row of `x` makes the whole row of `y` NaN.
/// Law: the same bits for any number of threads, and for a row whatever the other rows and their number; on every [`Path`] too, as long
/// as the instruction set fuses multiplication and addition.
/// Panics: if the lengths do not fit together.
/// Source: see the file's head.
pub fn forward(exec: Exec, x: &[f32], weight: &Int8Matrix, bias: Option<&[f32]>, y: &mut [f32]) {
    let (rows, cols) = (weight.rows(), weight.cols);
    let n = x.len() / cols;
    let fits = x.len() == n * cols && y.len() == n * rows && bias.is_none_or(|bias| bias.len() == rows);
    assert!(fits, "{weight:?}, {} activations, {} results", x.len(), y.len());
    if n == 0 || rows == 0 {
        return;
    }
    Product::new(x, n, weight, y).with_bias(bias).run(exec);
}

/// `d_x = d_y W`.
///
/// Numbers: as [`forward`]; a row of `W` whose scale is NaN makes all of `d_x` NaN.
/// Law, Panics, Source: as [`forward`].
pub fn backward_input(exec: Exec, d_y: &[f32], weight: &Int8Matrix, d_x: &mut [f32]) {
    let (rows, cols) = (weight.rows(), weight.cols);
    let n = d_x.len() / cols;
    let fits = d_x.len() == n * cols && d_y.len() == n * rows;
    assert!(fits, "{weight:?}, {} gradients of inputs, {} of results", d_x.len(), d_y.len());
    if n == 0 || rows == 0 {
        return d_x.fill(0.0);
    }
    Product::new(d_y, n, weight, d_x).backward().run(exec);
}

/// The same in plain Rust, in f64 where the fast path sums in f32.
pub mod reference {
    use super::{Int8Matrix, RUN, round, scales};

    /// A row as it is after its runs are rounded.
    pub fn rounded(x: &[f32]) -> Vec<f64> {
        let run = |x: &[f32]| {
            let (scale, inverse) = scales(x);
            x.iter().map(|x| f64::from(scale) * f64::from(round(*x, inverse))).collect::<Vec<_>>()
        };
        x.chunks(RUN).flat_map(run).collect()
    }

    fn entry(weight: &Int8Matrix, row: usize, col: usize) -> f64 {
        f64::from(weight.quants[row * weight.cols + col])
    }

    /// `y = x W^T`.
    pub fn forward(x: &[f32], weight: &Int8Matrix) -> Vec<f64> {
        let mut y = Vec::new();
        for x in x.chunks(weight.cols).map(rounded) {
            for (row, scale) in weight.scales.iter().enumerate() {
                let sum: f64 = x.iter().enumerate().map(|(col, x)| x * entry(weight, row, col)).sum();
                y.push(f64::from(*scale) * sum);
            }
        }
        y
    }

    /// `d_x = d_y W`.
    pub fn backward_input(d_y: &[f32], weight: &Int8Matrix) -> Vec<f64> {
        let mut d_x = Vec::new();
        for d_y in d_y.chunks(weight.rows()) {
            let scaled: Vec<f32> = d_y.iter().zip(&weight.scales).map(|(d, scale)| d * scale).collect();
            let scaled = rounded(&scaled);
            for col in 0..weight.cols {
                d_x.push(scaled.iter().enumerate().map(|(row, d)| d * entry(weight, row, col)).sum());
            }
        }
        d_x
    }
}
