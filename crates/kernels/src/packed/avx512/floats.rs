//! Products of f32, f16 and bf16 weights with a few rows of activations: a column of sixteen rows is a vector, and goes from
//! memory into the sums of all rows of the activations.
//!
//! Sums run over [`KC`] columns at a time, in order, and are added to the result then, as in `avx2/floats.rs`.

use super::columns::{SIDE, Starts, eight_columns, four_columns, half_pair, moved, prefetch, row_starts};
use crate::matmul::avx2::KC;
use crate::packed::half::{bf16_to_f32, f16_to_f32};
use crate::packed::rows::Rows;
use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps,
};

/// Columns that are transposed at a time.
const COLUMNS: usize = 8;
/// Most rows of activations whose sums stay in registers.
const MOST: usize = 16;

/// A float format, as the vector path reads it.
pub(super) trait Float {
    /// Bytes of a weight.
    const BYTES: usize;

    /// [`COLUMNS`] columns of sixteen rows.
    ///
    /// # Safety
    /// They are readable, and the machine has AVX-512F.
    unsafe fn columns(starts: Starts) -> [__m512; COLUMNS];

    /// One weight.
    ///
    /// # Safety
    /// As [`Float::columns`].
    unsafe fn one(at: *const u8) -> f32;
}

/// [`crate::packed::Format::F32`].
pub(super) struct F32;
impl Float for F32 {
    const BYTES: usize = 4;

    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn columns(starts: Starts) -> [__m512; COLUMNS] {
        // SAFETY: the caller's promise.
        let columns = unsafe { eight_columns(starts, 0) };
        let mut floats = [_mm512_setzero_ps(); COLUMNS];
        for c in 0..COLUMNS {
            floats[c] = _mm512_castsi512_ps(columns[c]);
        }
        floats
    }

    unsafe fn one(at: *const u8) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<f32>().read_unaligned() }
    }
}

/// [`crate::packed::Format::F16`].
pub(super) struct F16;
impl Float for F16 {
    const BYTES: usize = 2;

    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn columns(starts: Starts) -> [__m512; COLUMNS] {
        // SAFETY: the caller's promise.
        let pairs = unsafe { four_columns(starts, 0) };
        let mut floats = [_mm512_setzero_ps(); COLUMNS];
        for c in 0..4 {
            (floats[2 * c], floats[2 * c + 1]) = half_pair(pairs[c]);
        }
        floats
    }

    unsafe fn one(at: *const u8) -> f32 {
        // SAFETY: the caller's promise.
        f16_to_f32(unsafe { at.cast::<u16>().read_unaligned() })
    }
}

/// [`crate::packed::Format::Bf16`].
pub(super) struct Bf16;
impl Float for Bf16 {
    const BYTES: usize = 2;

    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn columns(starts: Starts) -> [__m512; COLUMNS] {
        // SAFETY: the caller's promise.
        let pairs = unsafe { four_columns(starts, 0) };
        let upper = _mm512_set1_epi32(0xFFFF_0000_u32 as i32);
        let mut floats = [_mm512_setzero_ps(); COLUMNS];
        for c in 0..4 {
            floats[2 * c] = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs[c]));
            floats[2 * c + 1] = _mm512_castsi512_ps(_mm512_and_si512(pairs[c], upper));
        }
        floats
    }

    unsafe fn one(at: *const u8) -> f32 {
        // SAFETY: the caller's promise.
        bf16_to_f32(unsafe { at.cast::<u16>().read_unaligned() })
    }
}

/// Columns `start..start + count` of the sixteen rows of the weight from `row` on, and rows `i..i + n` of the activations.
#[derive(Clone, Copy)]
struct Pass {
    row: usize,
    start: usize,
    count: usize,
    i: usize,
    n: usize,
}

/// Products with the rows of activations of a task.
///
/// # Safety
/// The machine has AVX-512 F, BW, VL and DQ; `rows` is a matrix in the format of `W`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn few_rows<W: Float>(rows: &Rows<'_>, x: &[f32]) {
    let cols = rows.weight.cols;
    assert_eq!(x.len(), rows.n * cols);
    for row in rows.range.clone().step_by(SIDE) {
        for start in (0..cols).step_by(KC) {
            for i in rows.x_range.clone().step_by(MOST) {
                let n = MOST.min(rows.x_range.end - i);
                let pass = Pass { row, start, count: KC.min(cols - start), i, n };
                // SAFETY: the caller's promise; the lengths were checked.
                unsafe {
                    match n {
                        1 => multiply::<W, 1>(rows, x, pass),
                        2 => multiply::<W, 2>(rows, x, pass),
                        3 | 4 => multiply::<W, 4>(rows, x, pass),
                        5 | 6 => multiply::<W, 6>(rows, x, pass),
                        7 | 8 => multiply::<W, 8>(rows, x, pass),
                        9..=12 => multiply::<W, 12>(rows, x, pass),
                        _ => multiply::<W, MOST>(rows, x, pass),
                    }
                }
            }
        }
    }
}

/// Products of one pass. Where `n` is below `N`, the last row of the activations is multiplied again.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
unsafe fn multiply<W: Float, const N: usize>(rows: &Rows<'_>, x: &[f32], pass: Pass) {
    let starts = row_starts(rows, pass.row);
    let mut x_rows = [x.as_ptr(); N];
    for (j, x_row) in x_rows.iter_mut().enumerate() {
        *x_row = x_row.wrapping_add((pass.i + j.min(pass.n - 1)) * rows.weight.cols);
    }
    let mut sums = [_mm512_setzero_ps(); N];
    let whole = pass.start + pass.count / COLUMNS * COLUMNS;
    // SAFETY: the starts are those of rows with `cols` weights, and each row of activations has as many.
    unsafe {
        for k in (pass.start..whole).step_by(COLUMNS) {
            prefetch(starts[0], rows.weight.row_bytes(), k * W::BYTES, COLUMNS * W::BYTES);
            let columns = W::columns(moved(starts, k * W::BYTES));
            for c in 0..COLUMNS {
                for j in 0..N {
                    sums[j] = _mm512_fmadd_ps(_mm512_set1_ps(*x_rows[j].add(k + c)), columns[c], sums[j]);
                }
            }
        }
        for k in whole..pass.start + pass.count {
            let mut column = [0.0; SIDE];
            for (r, w) in column.iter_mut().enumerate() {
                *w = W::one(starts[r].add(k * W::BYTES));
            }
            let column = _mm512_loadu_ps(column.as_ptr());
            for j in 0..N {
                sums[j] = _mm512_fmadd_ps(_mm512_set1_ps(*x_rows[j].add(k)), column, sums[j]);
            }
        }
    }
    for (j, sum) in sums.into_iter().enumerate().take(pass.n) {
        store(rows, sum, pass.i + j, pass);
    }
}

/// Adds sums to the results of row `i` of the activations, or to the bias.
#[target_feature(enable = "avx512f")]
#[inline]
fn store(rows: &Rows<'_>, sum: __m512, i: usize, pass: Pass) {
    let len = SIDE.min(rows.range.end - pass.row);
    // The neutral element of addition: 0 would turn a sum of -0 into 0.
    let mut y = [-0.0; SIDE];
    if pass.start > 0 {
        rows.kept(i, pass.row, &mut y[..len]);
    } else if let Some(bias) = rows.bias {
        y[..len].copy_from_slice(&bias[pass.row..][..len]);
    }
    // SAFETY: room for sixteen floats.
    unsafe { _mm512_storeu_ps(y.as_mut_ptr(), _mm512_add_ps(_mm512_loadu_ps(y.as_ptr()), sum)) };
    rows.keep(i, pass.row, &y[..len]);
}
