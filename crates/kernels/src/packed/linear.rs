//! `y = x W^T + b` with `W` in its storage form.
#![expect(unsafe_code, reason = "tasks write columns of the result, which are no slices")]

use super::activations::Activations;
use super::dequantize::dequantize;
use super::floats::FloatRows;
use super::integers::IntegerRows;
use super::matrix::PackedMatrix;
use crate::exec::{Exec, Isa};
use crate::matmul::{Onto, View, ViewMut, matmul};
use crate::parallel::{SharedMut, for_each};
use crate::simd::dispatch;
use std::cell::RefCell;
use std::ops::Range;

/// Most rows of activations for which float weights are multiplied in place; more are worth a packed product.
const FEW_ROWS: usize = 16;
/// Bytes of weights that one task reads: some microseconds, long beside the cost of taking a task.
const TASK_BYTES: usize = 32 << 10;
/// Rows of a task are a multiple of this: what the widest path takes at a time.
const ROW_GROUP: usize = 16;
/// Floats of the panels that 16-bit weights are turned into for many rows of activations.
const PANEL_FLOATS: usize = 1 << 20;

thread_local! {
    /// Kept, so that decoding allocates nothing at a token.
    static ACTIVATIONS: RefCell<Activations> = RefCell::default();
    static PANEL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// One of several products with the same activations.
#[derive(Debug)]
pub struct Product<'a> {
    /// `W`.
    pub weight: &'a PackedMatrix,
    /// `b`.
    pub bias: Option<&'a [f32]>,
    /// The result, whose old values are never read.
    pub y: &'a mut [f32],
}

/// `y = x W^T + b`.
///
/// Numbers: for quantized formats `x` is rounded to 8 bits in runs of 32 (see [`super::rounded_activations`]); integer
/// products of a run are exact and the runs are added in order, in f32. A NaN or infinity in a row of `x` makes the whole
/// row of `y` NaN. For float formats `x` stays as it is and sums are f32. The bias is added last.
/// Law: the same bits for any number of threads. With quantized formats a row of `y` has the same bits whatever the other
/// rows and their number. With float formats that holds among calls of up to 16 rows, and among larger ones of
/// the same number of rows; between the two the order of the sum differs.
/// Panics: if the lengths do not fit together.
/// Source: integer products with rounded activations as in llama.cpp, <https://github.com/ggml-org/llama.cpp>.
pub fn linear(exec: Exec, x: &[f32], weight: &PackedMatrix, bias: Option<&[f32]>, y: &mut [f32]) {
    linear_many(exec, x, &mut [Product { weight, bias, y }]);
}

/// Several [`linear`] products with the same activations, which are rounded once, in one parallel region: the query, key
/// and value of attention, or gate and up of a feed-forward layer.
///
/// Numbers, Panics, Source: as [`linear`]. Law: the bits of the single products.
pub fn linear_many(exec: Exec, x: &[f32], products: &mut [Product<'_>]) {
    let Some(cols) = products.first().map(|product| product.weight.cols()) else { return };
    let n = x.len() / cols;
    for product in products.iter() {
        let (weight, rows) = (product.weight, product.weight.rows());
        let fits = weight.cols() == cols && x.len() == n * cols && product.y.len() == n * rows;
        assert!(fits, "{weight:?}, {} activations, {} results", x.len(), product.y.len());
        assert!(product.bias.is_none_or(|bias| bias.len() == rows), "a bias of {weight:?}");
    }
    let is_direct = |product: &Product<'_>| product.weight.format().is_quantized() || n <= FEW_ROWS;
    for product in products.iter_mut().filter(|product| !is_direct(product)) {
        through_panels(exec, x, product);
    }
    ACTIVATIONS.with_borrow_mut(|activations| {
        if products.iter().any(|product| product.weight.format().is_quantized()) {
            activations.round(exec, x);
            if n > 1 && products.iter().any(|product| product.weight.format().is_signed()) {
                activations.widen();
            }
        }
        let direct: Vec<Direct<'_>> =
            products.iter_mut().filter(|product| is_direct(product)).map(|product| Direct::new(product, n)).collect();
        let n_tasks = direct.iter().map(Direct::n_tasks).sum();
        for_each(exec, n_tasks, |mut task| {
            for product in &direct {
                if task < product.n_tasks() {
                    return run(exec, &product.rows(task), x, activations);
                }
                task -= product.n_tasks();
            }
        });
    });
}

/// A product that is split into tasks by rows of the weight.
struct Direct<'a> {
    weight: &'a PackedMatrix,
    bytes: &'a [u8],
    bias: Option<&'a [f32]>,
    n: usize,
    y: SharedMut<'a, f32>,
    task_rows: usize,
}

impl<'a> Direct<'a> {
    fn new(product: &'a mut Product<'_>, n: usize) -> Self {
        let weight = product.weight;
        // Fewer rows where each is used more often.
        let task_rows = (TASK_BYTES / weight.row_bytes() / n.max(1)).next_multiple_of(ROW_GROUP);
        let task_rows = task_rows.max(ROW_GROUP);
        let y = SharedMut::new(product.y);
        Self { weight, bytes: weight.bytes(), bias: product.bias, n, y, task_rows }
    }

    fn n_tasks(&self) -> usize {
        if self.n == 0 { 0 } else { self.weight.rows().div_ceil(self.task_rows) }
    }

    fn rows(&self, task: usize) -> Rows<'_> {
        let start = task * self.task_rows;
        let range = start..self.weight.rows().min(start + self.task_rows);
        Rows { weight: self.weight, bytes: self.bytes, bias: self.bias, n: self.n, range, y: &self.y }
    }
}

/// The part of a product that one task computes: rows `range` of the weight for all `n` rows of activations.
///
/// Invariant: no other live value has some of these rows of the same product.
pub(super) struct Rows<'a> {
    pub(super) weight: &'a PackedMatrix,
    /// All bytes of the weight.
    pub(super) bytes: &'a [u8],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) n: usize,
    pub(super) range: Range<usize>,
    y: &'a SharedMut<'a, f32>,
}

impl Rows<'_> {
    /// Stores `y` and the bias of `row` as result of row `i` of the activations.
    #[inline(always)]
    pub(super) fn write(&self, i: usize, row: usize, y: f32) {
        let bias = self.bias.map_or(0.0, |bias| bias[row]);
        self.results(i, row, 1)[0] = y + bias;
    }

    /// As [`Rows::write`], for `y.len()` rows from `row` on.
    #[inline(always)]
    pub(super) fn write_many(&self, i: usize, row: usize, y: &[f32]) {
        let results = self.results(i, row, y.len());
        match self.bias {
            None => results.copy_from_slice(y),
            Some(bias) => results.iter_mut().zip(y).zip(&bias[row..]).for_each(|((out, y), bias)| *out = y + bias),
        }
    }

    /// Leaves sums that are not complete yet in the place of the results, without the bias.
    #[inline(always)]
    pub(super) fn keep_many(&self, i: usize, row: usize, sums: &[f32]) {
        self.results(i, row, sums.len()).copy_from_slice(sums);
    }

    /// The sums that [`Rows::keep_many`] left.
    #[inline(always)]
    pub(super) fn read_many(&self, i: usize, row: usize, sums: &mut [f32]) {
        sums.copy_from_slice(self.results(i, row, sums.len()));
    }

    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "each call ends before the next of the same task begins")]
    fn results(&self, i: usize, row: usize, len: usize) -> &mut [f32] {
        assert!(row >= self.range.start && row + len <= self.range.end);
        // SAFETY: by the invariant, only this task has the rows, and no caller above keeps the slice.
        unsafe { self.y.slice(i * self.weight.rows() + row, len) }
    }
}

fn run(exec: Exec, rows: &Rows<'_>, x: &[f32], activations: &Activations) {
    if rows.weight.format().is_quantized() {
        match exec.isa() {
            // SAFETY: the machine has the instruction set of `exec`, and the wider one has all of the narrower.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 => unsafe { super::avx2::integers(rows, activations) },
            _ => dispatch(exec, IntegerRows { rows, activations }),
        }
    } else {
        dispatch(exec, FloatRows { rows, x });
    }
}

/// A product of float weights with many rows: panels of the weight become f32 for the packed product.
fn through_panels(exec: Exec, x: &[f32], product: &mut Product<'_>) {
    let weight = product.weight;
    let (rows, cols, row_bytes) = (weight.rows(), weight.cols(), weight.row_bytes());
    let n = x.len() / cols;
    if rows == 0 {
        return;
    }
    let per_panel = (PANEL_FLOATS / cols).next_multiple_of(ROW_GROUP).clamp(1, rows.max(1));
    PANEL.with_borrow_mut(|panel| {
        panel.resize(panel.len().max(per_panel * cols), 0.0);
        for start in (0..rows).step_by(per_panel) {
            let count = per_panel.min(rows - start);
            let panel = &mut panel[..count * cols];
            let bytes = &weight.bytes()[start * row_bytes..][..count * row_bytes];
            dequantize(exec, weight.format(), bytes, panel);
            let out = ViewMut::strided(&mut product.y[start..], n, count, rows);
            matmul(exec, Onto::Overwrite, 1.0, View::new(x, n, cols), View::new(panel, count, cols).t(), out);
        }
    });
    if let Some(bias) = product.bias {
        for y in product.y.chunks_exact_mut(rows) {
            y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::reference;
    use crate::packed::Format;
    use crate::packed::reference::dequantize as plain;
    use crate::packed::rounded_activations;
    use crate::packed::testing::random_matrix;
    use crate::testing::{check_fast, test_input, wide};

    /// `x W^T + b` in f64, from the activations that the format sees.
    fn expected(x: &[f32], weight: &PackedMatrix, bias: &[f32]) -> Vec<f64> {
        let x = if weight.format().is_quantized() { rounded_activations(x) } else { wide(x) };
        reference::forward(&x, &wide(&plain(weight.format(), weight.bytes())), &wide(bias))
    }

    fn check(format: Format, n: usize, cols: usize, rows: usize) {
        let weight = random_matrix(format, rows, cols, n + rows);
        let (x, bias) = (test_input(n * cols, 1), test_input(rows, 3));
        let run = |exec| {
            let mut y = vec![f32::NAN; n * rows];
            linear(exec, &x, &weight, Some(&bias), &mut y);
            vec![y]
        };
        let want = expected(&x, &weight, &bias);
        // Terms of a K block are some hundred times its sums.
        let size = want.iter().fold(1.0_f64, |size, want| size.max(want.abs()));
        check_fast(&format!("{n} x {weight:?}"), run, &[want], 1e-5 * size);
    }

    #[test]
    fn products_equal_the_reference_at_awkward_sizes() {
        for format in Format::ALL {
            let block = format.block_len();
            for n in [0, 1, 2, 3, 5, 17] {
                for cols in [block, 2 * block, 3 * block, 9 * block] {
                    for rows in [1, 7, 8, 9, 16, 33] {
                        check(format, n, cols, rows);
                    }
                }
            }
        }
    }

    /// `linear` without a bias on `threads` threads.
    fn product(isa: Isa, threads: usize, x: &[f32], weight: &PackedMatrix) -> Vec<f32> {
        let mut y = vec![f32::NAN; x.len() / weight.cols() * weight.rows()];
        linear(Exec::new(threads).with_isa(isa), x, weight, None, &mut y);
        y
    }

    #[test]
    fn a_row_has_the_same_bits_whatever_the_other_rows() {
        for isa in Isa::available() {
            for format in Format::ALL {
                let cols = 5 * format.block_len();
                let weight = random_matrix(format, 35, cols, 4);
                let x = test_input(40 * cols, 1);
                let alone: Vec<f32> = x.chunks(cols).flat_map(|x| product(isa, 1, x, &weight)).collect();
                let counts = if format.is_quantized() { 2..=40 } else { 2..=FEW_ROWS };
                for n in counts {
                    let together = product(isa, 2, &x[..n * cols], &weight);
                    assert!(together == alone[..n * 35], "{}, {format}, {n} rows", isa.name());
                }
                let many = product(isa, 2, &x, &weight);
                let size = alone.iter().fold(0.0_f32, |size, y| size.max(y.abs()));
                assert!(many.iter().zip(&alone).all(|(a, b)| (a - b).abs() <= 1e-6 * size), "{}, {format}", isa.name());
            }
        }
    }

    #[test]
    fn products_of_one_input_are_the_single_products() {
        for n in [1, 3, 20] {
            let cols = 512;
            let formats = [Format::Q4K, Format::F16, Format::Q8_0, Format::Q4_1];
            let weights = formats.map(|format| random_matrix(format, 50, cols, 9));
            let x = test_input(n * cols, 1);
            let mut results: Vec<Vec<f32>> = weights.iter().map(|_| vec![f32::NAN; n * 50]).collect();
            let results_mut = weights.iter().zip(&mut results);
            let mut products: Vec<_> = results_mut.map(|(weight, y)| Product { weight, bias: None, y }).collect();
            linear_many(Exec::new(2), &x, &mut products);
            for (weight, y) in weights.iter().zip(results) {
                assert_eq!(product(Isa::detect(), 2, &x, weight), y, "{n} x {weight:?}");
            }
        }
        linear_many(Exec::new(2), &[], &mut []);
    }

    #[test]
    fn a_nan_or_an_infinity_spoils_its_row_alone() {
        for format in Format::ALL {
            for bad in [f32::NAN, f32::INFINITY] {
                let cols = 2 * format.block_len();
                let weight = random_matrix(format, 20, cols, 4);
                let mut x = test_input(3 * cols, 1);
                x[cols] = bad;
                let y = product(Isa::detect(), 1, &x, &weight);
                let (before, rest) = y.split_at(20);
                let (spoilt, after) = rest.split_at(20);
                assert!(spoilt.iter().all(|y| !y.is_finite()), "{format}: {spoilt:?}");
                assert!(before.iter().chain(after).all(|y| y.is_finite()), "{format}");
            }
        }
    }

    #[test]
    fn an_error_of_rounded_activations_is_at_most_half_a_step() {
        for format in [Format::Q8_0, Format::Q4_1, Format::Q6K] {
            let cols = 512;
            let weight = random_matrix(format, 30, cols, 4);
            let x = test_input(cols, 1);
            let plain = plain(format, weight.bytes());
            for (y, w) in product(Isa::detect(), 1, &x, &weight).iter().zip(plain.chunks(cols)) {
                let exact: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                // No |x| is above 0.5.
                let bound: f64 = w.iter().map(|w| f64::from(w.abs()) * 0.5 / 127.0 / 2.0).sum();
                assert!((f64::from(*y) - exact).abs() <= bound * 1.001, "{format}: {y}, exact {exact}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "PackedMatrix(2 x 32 Q8_0), 33 activations, 2 results")]
    fn activations_that_are_no_rows_are_refused() {
        linear(Exec::new(1), &[0.0; 33], &random_matrix(Format::Q8_0, 2, 32, 1), None, &mut [0.0; 2]);
    }
}
