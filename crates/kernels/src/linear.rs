//! The linear layer: `y = x W^T + b`.
//!
//! Backward: `d_x = d_y W`, `d_W = d_y^T x`, `d_b = sum over rows of d_y`.
//!
//! Shapes: `x` is `(N, in)`, `W` `(out, in)`, `b` `(out)`, `y` `(N, out)`, all row-major.
//! Source: any textbook; the layout of `W` is PyTorch's `nn.Linear`.
#![expect(unsafe_code, reason = "the tasks that form a weight's gradient write their parts of the bias's")]

use crate::exec::Exec;
use crate::matmul::{After, Onto, Product, View, ViewMut, matmul, matmuls};
use crate::packed::linear::{are_few, few_rows};
use crate::parallel::{SharedMut, for_each, for_each_chunk};
use crate::simd::{Kernel, LANES, Simd, dispatch};
use std::ops::Range;

/// Columns of a bias gradient that one task sums.
const BIAS_COLUMNS: usize = 64;

/// `y = x W^T + b`. `out` is the number of rows of `weight`.
///
/// Numbers: f32 sums; the bias is one more term. Same bits for any number of threads. A few rows are multiplied without
/// copying the weights; on AVX2 that too has the same bits.
/// Panics: if the lengths do not fit together.
/// Source: see the file's head.
pub fn forward(exec: Exec, x: &[f32], weight: &[f32], bias: Option<&[f32]>, out: usize, y: &mut [f32]) {
    let (n, inputs) = sizes(y.len(), weight.len(), out);
    assert!(bias.is_none_or(|bias| bias.len() == out), "bias of a layer with {out} outputs");
    if are_few(exec, n) && inputs > 0 {
        assert_eq!(x.len(), n * inputs, "{n} rows of {inputs}");
        return few_rows(exec, x, weight, bias, out, y);
    }
    let (a, b, c) = (View::new(x, n, inputs), View::new(weight, out, inputs).t(), ViewMut::new(y, n, out));
    matmuls(exec, [Product { onto: Onto::Overwrite, row: bias, scale: 1.0, a, b, c, after: None }]);
}

/// Makes each row of `y` the bias, where there is one. Returns what a product does with what `y` holds then.
pub(crate) fn begin_with_bias(exec: Exec, bias: Option<&[f32]>, out: usize, y: &mut [f32]) -> Onto {
    let Some(bias) = bias else { return Onto::Overwrite };
    let rows = 16_384_usize.div_ceil(out.max(1));
    for_each_chunk(exec, y, (rows * out).max(1), |_, y| {
        for y in y.chunks_mut(out) {
            y.copy_from_slice(bias);
        }
    });
    Onto::Add
}

/// `d_x = d_y W`.
///
/// Numbers, Panics, Source: as [`forward`].
pub fn backward_input(exec: Exec, d_y: &[f32], weight: &[f32], out: usize, d_x: &mut [f32]) {
    backward_input_onto(exec, Onto::Overwrite, d_y, weight, out, d_x);
}

/// [`backward_input`], or the same added to what is there.
///
/// Numbers, Panics, Source: as [`forward`].
pub fn backward_input_onto(exec: Exec, onto: Onto, d_y: &[f32], weight: &[f32], out: usize, d_x: &mut [f32]) {
    let (n, inputs) = sizes(d_y.len(), weight.len(), out);
    let weight = View::new(weight, out, inputs);
    matmul(exec, onto, 1.0, View::new(d_y, n, out), weight, ViewMut::new(d_x, n, inputs));
}

/// `d_W = d_y^T x`.
///
/// Numbers, Panics, Source: as [`forward`].
pub fn backward_weight(exec: Exec, d_y: &[f32], x: &[f32], out: usize, d_weight: &mut [f32]) {
    let (n, inputs) = sizes(d_y.len(), d_weight.len(), out);
    let d_y = View::new(d_y, n, out).t();
    matmul(exec, Onto::Overwrite, 1.0, d_y, View::new(x, n, inputs), ViewMut::new(d_weight, out, inputs));
}

/// `d_b = sum over rows of d_y`; the number of outputs is `d_bias.len()`.
///
/// Numbers: f32 sums in the order of the rows. Same bits for any number of threads.
/// Panics: if `d_y` does not hold whole rows.
/// Source: see the file's head.
pub fn backward_bias(exec: Exec, d_y: &[f32], d_bias: &mut [f32]) {
    let out = d_bias.len();
    assert!(out > 0 && d_y.len().is_multiple_of(out), "{} elements in rows of {out}", d_y.len());
    let sums = BiasSums::new(exec, View::new(d_y, d_y.len() / out, out), d_bias);
    for_each(exec, out.div_ceil(BIAS_COLUMNS), |index| {
        // SAFETY: the columns of different tasks do not overlap, and each runs once.
        unsafe { sums.of_columns(index * BIAS_COLUMNS..out.min((index + 1) * BIAS_COLUMNS)) };
    });
}

/// `d_x = d_y W` or `d_x += d_y W`, [`backward_weight`] and, where it is wanted, [`backward_bias`], in one parallel region.
///
/// Numbers, Panics, Source: as those.
pub fn backward(
    exec: Exec,
    d_y: &[f32],
    (x, weight): (&[f32], &[f32]),
    out: usize,
    (onto, d_x): (Onto, &mut [f32]),
    d_weight: &mut [f32],
    d_bias: Option<&mut [f32]>,
) {
    let (n, inputs) = sizes(d_y.len(), weight.len(), out);
    assert!(d_bias.as_ref().is_none_or(|d_bias| d_bias.len() == out), "bias of a layer with {out} outputs");
    let (d_y_view, x, weight) = (View::new(d_y, n, out), View::new(x, n, inputs), View::new(weight, out, inputs));
    let sums = d_bias.map(|d_bias| BiasSums::new(exec, d_y_view, d_bias));
    let add_up = sums.as_ref().map(|sums| |rows: Range<usize>, cols: Range<usize>| sums.beside(rows, cols));
    let after = add_up.as_ref().map(|add_up| After::new(add_up));
    let (onto_weight, scale) = (Onto::Overwrite, 1.0);
    let products = [
        Product { onto, row: None, scale, a: d_y_view, b: weight, c: ViewMut::new(d_x, n, inputs), after: None },
        Product {
            onto: onto_weight,
            row: None,
            scale,
            a: d_y_view.t(),
            b: x,
            c: ViewMut::new(d_weight, out, inputs),
            after,
        },
    ];
    matmuls(exec, products);
}

/// Sums over the rows of `d_y`.
pub(crate) struct BiasSums<'a> {
    exec: Exec,
    d_y: View<'a>,
    d_bias: SharedMut<'a, f32>,
}

impl<'a> BiasSums<'a> {
    /// Panics: if there are not as many sums as columns.
    pub(crate) fn new(exec: Exec, d_y: View<'a>, d_bias: &'a mut [f32]) -> Self {
        assert_eq!(d_y.cols(), d_bias.len(), "sums of columns");
        Self { exec, d_y, d_bias: SharedMut::new(d_bias) }
    }

    /// The sums that belong to a block of the weight's gradient: those of its rows, where its columns are the first. The task
    /// that made the block has just read them.
    pub(crate) fn beside(&self, rows: Range<usize>, cols: Range<usize>) {
        if cols.start == 0 {
            // SAFETY: each row of the weight's gradient belongs to one block that begins with the first column.
            unsafe { self.of_columns(rows) };
        }
    }

    /// # Safety
    /// No other call has one of these columns.
    unsafe fn of_columns(&self, columns: Range<usize>) {
        // SAFETY: the caller's promise.
        let d_bias = unsafe { self.d_bias.slice(columns.start, columns.len()) };
        dispatch(self.exec, ColumnSums { d_y: self.d_y, first: columns.start, d_bias });
    }
}

/// The sums of all columns of `d_y`, on the calling thread.
///
/// Panics: if there are not as many sums as columns.
pub(crate) fn column_sums(exec: Exec, d_y: View<'_>, d_bias: &mut [f32]) {
    assert_eq!(d_y.cols(), d_bias.len(), "sums of columns");
    dispatch(exec, ColumnSums { d_y, first: 0, d_bias });
}

/// The sums of columns `first..`.
struct ColumnSums<'a> {
    d_y: View<'a>,
    first: usize,
    d_bias: &'a mut [f32],
}

impl Kernel for ColumnSums<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { d_y, first, d_bias } = self;
        let (wide, rest) = d_bias.as_chunks_mut::<BIAS_COLUMNS>();
        let (narrow, rest) = rest.as_chunks_mut::<LANES>();
        let at = first + wide.len() * BIAS_COLUMNS;
        sums_of_chunks(d_y, first, wide);
        sums_of_chunks(d_y, at, narrow);
        rest.fill(0.0);
        let at = at + narrow.len() * LANES;
        for row in (0..d_y.rows()).map(|row| d_y.row(row)) {
            rest.iter_mut().zip(&row[at..]).for_each(|(sum, x)| *sum += x);
        }
    }
}

/// The sums of whole chunks of columns from `first` on: of a length known to the compiler, so that they stay in registers.
#[inline(always)]
fn sums_of_chunks<const N: usize>(d_y: View<'_>, first: usize, chunks: &mut [[f32; N]]) {
    for (index, chunk) in chunks.iter_mut().enumerate() {
        let mut sums = [0.0_f32; N];
        for row in (0..d_y.rows()).map(|row| d_y.row(row)) {
            let row = row[first + index * N..].first_chunk::<N>().expect("a whole chunk");
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        *chunk = sums;
    }
}

/// Rows and inputs of a layer whose result has `results` elements.
fn sizes(results: usize, weights: usize, out: usize) -> (usize, usize) {
    let whole = out > 0 && results.is_multiple_of(out) && weights.is_multiple_of(out);
    assert!(whole, "{results} results and {weights} weights of a layer with {out} outputs");
    (results / out, weights / out)
}

/// The formulas in f64.
pub mod reference {
    /// `y = x W^T + b`.
    pub fn forward(x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
        let (out, inputs) = (bias.len(), weight.len() / bias.len());
        let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
        x.chunks(inputs)
            .flat_map(|x| (0..out).map(move |o| bias[o] + dot(x, &weight[o * inputs..][..inputs])))
            .collect()
    }

    /// `(d_x, d_W, d_b)`.
    pub fn backward(d_y: &[f64], x: &[f64], weight: &[f64], out: usize) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let inputs = weight.len() / out;
        let (mut d_x, mut d_w, mut d_b) = (vec![0.0; x.len()], vec![0.0; weight.len()], vec![0.0; out]);
        for (index, d) in d_y.iter().enumerate() {
            let (n, o) = (index / out, index % out);
            d_b[o] += d;
            for i in 0..inputs {
                d_x[n * inputs + i] += d * weight[o * inputs + i];
                d_w[o * inputs + i] += d * x[n * inputs + i];
            }
        }
        (d_x, d_w, d_b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_fast, grad_gap, test_input, wide};

    #[test]
    fn the_reference_has_the_worked_out_values() {
        // [1 2] [3 4]^T + 5 = 3 + 8 + 5 = 16; [1 2] [-1 1]^T + 0 = 1.
        assert_eq!(reference::forward(&[1.0, 2.0], &[3.0, 4.0, -1.0, 1.0], &[5.0, 0.0]), [16.0, 1.0]);
    }

    #[test]
    fn backward_is_the_derivative_of_forward() {
        let (n, inputs, out) = (3, 4, 5);
        let (x, w) = (wide(&test_input(n * inputs, 1)), wide(&test_input(out * inputs, 2)));
        let (b, d_y) = (wide(&test_input(out, 3)), wide(&test_input(n * out, 4)));
        let loss = |x: &[f64], w: &[f64], b: &[f64]| {
            reference::forward(x, w, b).iter().zip(&d_y).map(|(y, d)| y * d).sum::<f64>()
        };
        let (d_x, d_w, d_b) = reference::backward(&d_y, &x, &w, out);
        assert!(grad_gap(|x| loss(x, &w, &b), &x, &d_x) < 1e-6);
        assert!(grad_gap(|w| loss(&x, w, &b), &w, &d_w) < 1e-6);
        assert!(grad_gap(|b| loss(&x, &w, b), &b, &d_b) < 1e-6);
    }

    #[test]
    fn the_fast_path_equals_the_reference() {
        for (n, inputs, out) in
            [(1, 1, 1), (5, 7, 9), (65, 33, 130), (64, 33, 130), (0, 3, 2), (1, 600, 50), (16, 257, 17)]
        {
            let (x, w) = (test_input(n * inputs, 1), test_input(out * inputs, 2));
            let (b, d) = (test_input(out, 3), test_input(n * out, 4));
            let run = |exec| {
                let (mut y, mut d_x) = (vec![f32::NAN; n * out], vec![f32::NAN; n * inputs]);
                let (mut d_w, mut d_b) = (vec![f32::NAN; out * inputs], vec![f32::NAN; out]);
                forward(exec, &x, &w, Some(&b), out, &mut y);
                backward_input(exec, &d, &w, out, &mut d_x);
                backward_weight(exec, &d, &x, out, &mut d_w);
                backward_bias(exec, &d, &mut d_b);
                let mut together = [d_x.clone(), d_w.clone(), d_b.clone()];
                together.iter_mut().for_each(|d| d.fill(f32::NAN));
                let [joint_x, joint_w, joint_b] = &mut together;
                backward(exec, &d, (&x, &w), out, (Onto::Overwrite, joint_x), joint_w, Some(joint_b));
                assert!(together == [&d_x, &d_w, &d_b].map(Clone::clone), "{exec:?}");
                let mut onto_one = vec![1.0; n * inputs];
                backward(exec, &d, (&x, &w), out, (Onto::Add, &mut onto_one), &mut together[1], None);
                assert!(onto_one.iter().zip(&d_x).all(|(sum, d)| (sum - 1.0 - d).abs() <= 1e-5 * (1.0 + d.abs())));
                vec![y, d_x, d_w, d_b]
            };
            let (d_x, d_w, d_b) = reference::backward(&wide(&d), &wide(&x), &wide(&w), out);
            check_fast("linear", run, &[reference::forward(&wide(&x), &wide(&w), &wide(&b)), d_x, d_w, d_b], 2e-6);
        }
    }

    #[test]
    fn the_fast_path_equals_pytorch() {
        let golden = crate::golden::Golden::read("linear");
        let (x, w, b, d_y) = (test_input(35, 1), test_input(63, 2), test_input(9, 3), test_input(45, 4));
        let (mut y, mut d_x, mut d_w, mut d_b) = ([0.0; 45], [0.0; 35], [0.0; 63], [0.0; 9]);
        let exec = Exec::new(2);
        forward(exec, &x, &w, Some(&b), 9, &mut y);
        backward_input(exec, &d_y, &w, 9, &mut d_x);
        backward_weight(exec, &d_y, &x, 9, &mut d_w);
        backward_bias(exec, &d_y, &mut d_b);
        for (name, found) in [("y", &y[..]), ("d_x", &d_x), ("d_weight", &d_w), ("d_bias", &d_b)] {
            golden.check(name, found, 5e-7);
        }
    }
}
