//! Products with many rows, forward and backward: a panel of the weight at a time becomes f32.
//!
//! Forward `y = x W^T + b`, backward `d_x = d_y W`. A weight in a storage form is frozen and has no gradient itself.
//!
//! Shapes: as in `mod.rs`; `d_y` is `(n, out)`, `d_x` `(n, in)`.
//! Source: the chain rule; the layer of Dettmers et al. 2023, "QLoRA", <https://arxiv.org/abs/2305.14314>, section 3.
#![expect(unsafe_code, reason = "reads bytes as the floats that they are")]

use super::dequantize::dequantize;
use super::format::Format;
use super::linear::Product;
use super::matrix::PackedMatrix;
use super::rows::{ROW_GROUP, Weight};
use crate::exec::Exec;
use crate::int8;
use crate::linear::begin_with_bias;
use crate::matmul::{Onto, View, ViewMut, matmul};
use std::cell::RefCell;
use std::ops::Range;

/// Floats of a panel.
const PANEL_FLOATS: usize = 1 << 20;

thread_local! {
    /// Kept, so that a run's steps use the same memory.
    static PANEL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// `y = x W^T + b` with activations as they are, whatever their number: the forward pass that [`backward_input`] belongs to.
///
/// Numbers: f32 sums; nothing is rounded to 8 bits, as [`super::linear`] does for a few rows of a quantized weight. A matrix of
/// [`PackedMatrix::quantize_rows`] is multiplied as [`crate::int8`] does, with activations of 8 bits.
/// Law: the same bits for any number of threads.
/// Panics: if the lengths do not fit together.
/// Source: see the file's head.
pub fn linear_unrounded(exec: Exec, x: &[f32], weight: &PackedMatrix, bias: Option<&[f32]>, y: &mut [f32]) {
    if !weight.format().is_quantized() {
        return super::linear(exec, x, weight, bias, y);
    }
    let n = x.len() / weight.cols();
    let fits = x.len() == n * weight.cols() && y.len() == n * weight.rows();
    assert!(fits, "{weight:?}, {} activations, {} results", x.len(), y.len());
    assert!(bias.is_none_or(|bias| bias.len() == weight.rows()), "a bias of {weight:?}");
    if let Some(in_rows) = weight.in_rows() {
        return int8::forward(exec, x, in_rows, bias, y);
    }
    forward(exec, x, &mut Product { weight, bias, y });
}

/// `d_x = d_y W`, the gradient by the input of a frozen layer.
///
/// Numbers: f32 sums, panels of the weight in order. A weight is the f32 that [`dequantize`] finds. A matrix of
/// [`PackedMatrix::quantize_rows`] is multiplied as [`crate::int8`] does, with gradients of 8 bits.
/// Law: the same bits for any number of threads.
/// Panics: if the lengths do not fit together.
/// Source: see the file's head.
pub fn backward_input(exec: Exec, d_y: &[f32], weight: &PackedMatrix, d_x: &mut [f32]) {
    let (rows, cols) = (weight.rows(), weight.cols());
    let n = d_x.len() / cols;
    let fits = d_x.len() == n * cols && d_y.len() == n * rows;
    assert!(fits, "{weight:?}, {} gradients of inputs, {} of results", d_x.len(), d_y.len());
    if rows == 0 {
        return d_x.fill(0.0);
    }
    if let Some(in_rows) = weight.in_rows() {
        return int8::backward_input(exec, d_y, in_rows, d_x);
    }
    let mut onto = Onto::Overwrite;
    for_each_panel(exec, Weight::of(weight), |range, panel| {
        let d_y = View::strided(&d_y[range.start.min(d_y.len())..], n, range.len(), rows);
        matmul(exec, onto, 1.0, d_y, panel, ViewMut::new(d_x, n, cols));
        onto = Onto::Add;
    });
}

/// The forward product of many rows.
pub(super) fn forward(exec: Exec, x: &[f32], product: &mut Product<'_>) {
    let weight = Weight::of(product.weight);
    let (rows, cols) = (weight.rows, weight.cols);
    let n = x.len() / cols;
    let onto = begin_with_bias(exec, product.bias, rows, product.y);
    for_each_panel(exec, weight, |range, panel| {
        let start = range.start.min(product.y.len());
        let out = ViewMut::strided(&mut product.y[start..], n, range.len(), rows);
        matmul(exec, onto, 1.0, View::new(x, n, cols), panel.t(), out);
    });
}

/// Calls `multiply` with ranges of rows and these rows of the weight as f32: one range, if the weight is f32 already.
fn for_each_panel(exec: Exec, weight: Weight<'_>, mut multiply: impl FnMut(Range<usize>, View<'_>)) {
    let (rows, cols, row_bytes) = (weight.rows, weight.cols, weight.row_bytes());
    if rows == 0 {
        return;
    }
    if let Some(floats) = plain_floats(weight) {
        return multiply(0..rows, View::new(floats, rows, cols));
    }
    let per_panel = (PANEL_FLOATS / cols).next_multiple_of(ROW_GROUP).clamp(1, rows);
    PANEL.with_borrow_mut(|panel| {
        panel.resize(panel.len().max(per_panel * cols), 0.0);
        for start in (0..rows).step_by(per_panel) {
            let count = per_panel.min(rows - start);
            let panel = &mut panel[..count * cols];
            dequantize(exec, weight.format, &weight.bytes[start * row_bytes..][..count * row_bytes], panel);
            multiply(start..start + count, View::new(panel, count, cols));
        }
    });
}

/// The weights where they are, if they are f32 of this machine's byte order and aligned.
fn plain_floats(weight: Weight<'_>) -> Option<&[f32]> {
    if weight.format != Format::F32 || cfg!(target_endian = "big") {
        return None;
    }
    // SAFETY: any four bytes are a float.
    let (before, floats, after) = unsafe { weight.bytes.align_to::<f32>() };
    (before.is_empty() && after.is_empty()).then_some(floats)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::reference;
    use crate::packed::reference::dequantize as plain;
    use crate::packed::testing::random_matrix;
    use crate::testing::{check_fast, grad_gap, test_input, test_input_f64, weighted_sum, wide};

    /// Bounds are relative to the largest result: terms of a K block are some hundred times its sums.
    fn bound(want: &[f64]) -> f64 {
        1e-5 * want.iter().fold(1.0_f64, |size, want| size.max(want.abs()))
    }

    fn check(format: Format, n: usize, cols: usize, rows: usize) {
        let weight = random_matrix(format, rows, cols, n + rows);
        let (x, bias, d_y) = (test_input(n * cols, 1), test_input(rows, 3), test_input(n * rows, 5));
        let w = wide(&plain(format, weight.bytes()));
        let want = reference::forward(&wide(&x), &w, &wide(&bias));
        let run = |exec| {
            let mut y = vec![f32::NAN; n * rows];
            linear_unrounded(exec, &x, &weight, Some(&bias), &mut y);
            vec![y]
        };
        check_fast(&format!("{n} x {weight:?}"), run, std::slice::from_ref(&want), bound(&want));
        let (want, _, _) = reference::backward(&wide(&d_y), &wide(&x), &w, rows);
        let run = |exec| {
            let mut d_x = vec![f32::NAN; n * cols];
            backward_input(exec, &d_y, &weight, &mut d_x);
            vec![d_x]
        };
        check_fast(&format!("d_x of {n} x {weight:?}"), run, std::slice::from_ref(&want), bound(&want));
    }

    #[test]
    fn passes_equal_the_reference_at_awkward_sizes() {
        for format in Format::ALL {
            let blocks: &[usize] = if format.block_len() == 1 { &[1, 33] } else { &[1, 3] };
            for n in [0, 1, 3, 17, 40] {
                for blocks in blocks {
                    for rows in [1, 17, 40] {
                        check(format, n, blocks * format.block_len(), rows);
                    }
                }
            }
        }
    }

    #[test]
    fn a_weight_of_several_panels_is_multiplied_whole() {
        for format in [Format::Q4_1, Format::Bf16, Format::Q6K] {
            let cols = 1 << 12;
            check(format, 3, cols, PANEL_FLOATS / cols + 17);
        }
    }

    /// The gradient belongs to the forward pass: central differences of the product itself, in f64.
    #[test]
    fn the_gradient_is_that_of_the_forward_pass() {
        for format in Format::ALL {
            let (n, rows, cols) = (3, 5, if format.block_len() == 1 { 7 } else { format.block_len() });
            let weight = random_matrix(format, rows, cols, 2);
            let w = wide(&plain(format, weight.bytes()));
            let (x, d_y) = (test_input_f64(n * cols, 1), test_input(n * rows, 4));
            let loss = |x: &[f64]| weighted_sum(&wide(&d_y), &reference::forward(x, &w, &vec![0.0; rows]));
            let (want, _, _) = reference::backward(&wide(&d_y), &x, &w, rows);
            assert!(grad_gap(loss, &x, &want) < 1e-6, "{format}: the reference");
            let mut d_x = vec![f32::NAN; n * cols];
            backward_input(Exec::new(1), &d_y, &weight, &mut d_x);
            assert!(grad_gap(loss, &x, &wide(&d_x)) < 1e-4, "{format}");
        }
    }

    #[test]
    fn a_weight_without_rows_has_a_gradient_of_zero() {
        let weight = PackedMatrix::from_bytes(Format::Q4_0, 0, 32, Vec::new()).unwrap();
        let mut d_x = [f32::NAN; 64];
        backward_input(Exec::new(2), &[], &weight, &mut d_x);
        assert_eq!(d_x, [0.0; 64]);
    }

    #[test]
    #[should_panic(expected = "PackedMatrix(2 x 32 Q8_0), 33 gradients of inputs, 2 of results")]
    fn gradients_that_are_no_rows_are_refused() {
        backward_input(Exec::new(1), &[0.0; 2], &random_matrix(Format::Q8_0, 2, 32, 1), &mut [0.0; 33]);
    }
}
