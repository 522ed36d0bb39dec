//! Products of quantized weights with up to some rows of rounded activations.
//!
//! A run of sixteen rows is taken apart into eight vectors that stay in registers while every row of the activations passes
//! by: no sum crosses lanes, and nothing is written back.
//!
//! The arithmetic is that of `avx2/one_row.rs`: the sum of a run is an exact integer, `scale * sum` and the offset are added
//! to the row's total by fused multiply-adds, run after run.

use super::columns::{SIDE, moved, prefetch, row_starts};
use super::layout::{Columns, Layout};
use crate::packed::activations::Activations;
use crate::packed::blocks::RUN;
use crate::packed::rows::Rows;
use std::arch::x86_64::{
    __m512, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_storeu_ps,
};

/// Most rows of activations whose totals stay in registers.
const MOST: usize = 8;

/// Products with the rows of activations of a task.
///
/// # Safety
/// The machine has AVX-512 F, BW, VL, DQ and VNNI; `rows` is a matrix in the format of `L`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn product<L: Layout>(rows: &Rows<'_>, x: &Activations) {
    let n_runs = rows.weight.cols / RUN;
    let x_runs = rows.n * n_runs;
    assert!(x.quants.len() == x_runs * RUN && x.scales.len() == x_runs && x.sums.len() == x_runs);
    assert!(L::ZERO == 0 || x.totals.len() == 2 * x_runs);
    let x_rows = rows.x_range.len();
    let groups = x_rows.div_ceil(MOST).max(1);
    for row in rows.range.clone().step_by(SIDE) {
        for group in 0..groups {
            let of = |group: usize| rows.x_range.start + group * x_rows / groups;
            let at = At { row, i: of(group), n: of(group + 1) - of(group) };
            // SAFETY: the caller's promise; the lengths were checked.
            unsafe {
                match at.n {
                    0 => (),
                    1 => multiply::<L, 1>(rows, x, at),
                    2 => multiply::<L, 2>(rows, x, at),
                    3 | 4 => multiply::<L, 4>(rows, x, at),
                    5 | 6 => multiply::<L, 6>(rows, x, at),
                    _ => multiply::<L, MOST>(rows, x, at),
                }
            }
        }
    }
}

/// Sixteen rows of the weight from `row` on, and rows `i..i + n` of the activations.
#[derive(Clone, Copy)]
struct At {
    row: usize,
    i: usize,
    n: usize,
}

/// Products of the rows `at`. Where `n` is below `N`, the last row of the activations is multiplied again.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
#[inline]
unsafe fn multiply<L: Layout, const N: usize>(rows: &Rows<'_>, x: &Activations, at: At) {
    let n_runs = rows.weight.cols / RUN;
    let starts = row_starts(rows, at.row);
    let mut totals = [_mm512_setzero_ps(); N];
    let mut x_runs = [0; N];
    for (j, x_run) in x_runs.iter_mut().enumerate() {
        *x_run = (at.i + j.min(at.n - 1)) * n_runs;
    }
    for block in 0..n_runs / L::RUNS {
        let starts = moved(starts, block * L::BYTES);
        prefetch(starts[0], rows.weight.row_bytes(), block * L::BYTES, L::BYTES);
        // SAFETY: the starts are those of rows with `n_runs` runs, and each row of activations has as many.
        unsafe {
            let head = L::head(starts);
            let mut run = 0;
            while run < L::RUNS {
                let runs = L::integers(starts, head, run);
                for columns in runs.as_ref() {
                    totals = add_run::<L, N>(columns, head, run, x, &x_runs, totals);
                    for x_run in &mut x_runs {
                        *x_run += 1;
                    }
                    run += 1;
                }
            }
        }
    }
    for (j, total) in totals.into_iter().enumerate().take(at.n) {
        let mut y = [0.0; SIDE];
        // SAFETY: room for sixteen floats.
        unsafe { _mm512_storeu_ps(y.as_mut_ptr(), total) };
        rows.write(at.i + j, at.row, &y[..SIDE.min(rows.range.end - at.row)]);
    }
}

/// Adds run `run` of a block times runs `x_runs` of the activations to `totals`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
#[inline]
unsafe fn add_run<L: Layout, const N: usize>(
    columns: &Columns,
    head: L::Head,
    run: usize,
    x: &Activations,
    x_runs: &[usize; N],
    mut totals: [__m512; N],
) -> [__m512; N] {
    let per_scale = 8 / L::SCALES;
    for k in 0..L::SCALES {
        // SAFETY: the caller's promise.
        let scale = unsafe { L::scale(head, run, k) };
        for j in 0..N {
            // SAFETY: the caller's promise: the activations have these runs.
            let (quants, of_x, zero) = unsafe {
                let zero = match (L::ZERO, L::SCALES) {
                    (0, _) => 0,
                    (zero, 1) => {
                        let total = x.totals.as_ptr().add(2 * x_runs[j]);
                        -zero * (*total + *total.add(1))
                    }
                    (zero, _) => -zero * *x.totals.get_unchecked(2 * x_runs[j] + k),
                };
                (x.quants.as_ptr().add(x_runs[j] * RUN), *x.scales.get_unchecked(x_runs[j]), zero)
            };
            let mut sum = _mm512_set1_epi32(zero);
            for c in k * per_scale..(k + 1) * per_scale {
                // SAFETY: as above.
                let four = unsafe { quants.add(4 * c).cast::<i32>().read_unaligned() };
                sum = _mm512_dpbusd_epi32(sum, columns[c], _mm512_set1_epi32(four));
            }
            let scale = _mm512_mul_ps(scale, _mm512_set1_ps(of_x));
            totals[j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, totals[j]);
        }
    }
    if L::OFFSETS {
        // SAFETY: the caller's promise.
        let offset = unsafe { L::offset(head, run) };
        for j in 0..N {
            // SAFETY: as above.
            let sum = unsafe { *x.sums.get_unchecked(x_runs[j]) };
            totals[j] = _mm512_fmadd_ps(offset, _mm512_set1_ps(sum), totals[j]);
        }
    }
    totals
}
