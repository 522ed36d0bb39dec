//! Copies of operands in the order the tile reads them, and squares of sixteen by sixteen.

use super::{LANES, NR, lanes_below};
use crate::matmul::{Shape, View};
use std::arch::x86_64::{
    __m512, __mmask16, _MM_HINT_T0, _mm_prefetch, _mm512_castpd_ps, _mm512_castps_pd, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_store_ps, _mm512_storeu_ps,
    _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};
use std::ops::Range;

/// Writes steps `p..p + kc` of `rows` in strips of `height`, as `out[row / height * height * kc + step * count + row %
/// height]`, where `count` is the number of rows of the strip.
///
/// # Safety
/// `out` is writable for `kc` times as many floats as there are rows, and `LANES` more.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn pack_a(a: View<'_>, rows: Range<usize>, height: usize, p: usize, kc: usize, out: *mut f32) {
    let Shape { row_stride, col_stride, .. } = a.shape;
    let start = a.data.as_ptr().wrapping_add(rows.start * row_stride + p * col_stride);
    let strips = (0..rows.len()).step_by(height).map(|i| (i, height.min(rows.len() - i)));
    // SAFETY: elements are in bounds by the view's invariant. A vector is written past the rows it is for, and what
    // lies there is written later, or is the room behind the last strip.
    unsafe {
        if row_stride == 1 {
            // Some steps of all strips, so that each line is read once; the first strip last of a step's.
            for first in (0..kc).step_by(LANES) {
                for (i, count) in strips.clone() {
                    let out = out.add(i * kc);
                    for step in first..kc.min(first + LANES) {
                        let from = start.add(step * col_stride + i);
                        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(LANES * col_stride).cast());
                        let x = _mm512_maskz_loadu_ps(lanes_below(count), from);
                        _mm512_mask_storeu_ps(out.add(step * count), lanes_below(count), x);
                    }
                }
            }
            return;
        }
        for (i, count) in strips {
            let (start, out) = (start.add(i * row_stride), out.add(i * kc));
            if col_stride == 1 {
                for step in (0..kc).step_by(LANES) {
                    let steps = LANES.min(kc - step);
                    for row in 0..count {
                        _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add((height + row) * row_stride + step).cast());
                    }
                    let square = square(start.add(step), row_stride, count, lanes_below(steps));
                    for (s, x) in square.into_iter().enumerate().take(steps) {
                        _mm512_storeu_ps(out.add((step + s) * count), x);
                    }
                }
            } else {
                for (step, row) in (0..kc).flat_map(|step| (0..count).map(move |row| (step, row))) {
                    *out.add(step * count + row) = *start.add(row * row_stride + step * col_stride);
                }
            }
        }
    }
}

/// Writes steps `p..p + kc` of columns `cols` in strips of [`NR`], as `out[column / NR * NR * kc + step * NR + column % NR]`.
///
/// # Safety
/// `out` is writable for `kc` times as many columns as whole strips have.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn pack_b(b: View<'_>, p: usize, kc: usize, cols: Range<usize>, out: *mut f32) {
    let Shape { row_stride, col_stride, .. } = b.shape;
    let start = b.data.as_ptr().wrapping_add(p * row_stride + cols.start * col_stride);
    let vectors = (0..cols.len()).step_by(LANES).map(|j| (j, LANES.min(cols.len() - j)));
    let place = |j: usize| out.wrapping_add(j / NR * NR * kc + j % NR);
    // SAFETY: elements are in bounds by the view's invariant; the caller gave the room.
    unsafe {
        if col_stride == 1 {
            // Some steps of all columns, so that memory is read in rows.
            for first in (0..kc).step_by(8) {
                for (j, count) in vectors.clone() {
                    let out = place(j);
                    for step in first..kc.min(first + 8) {
                        let from = start.add(step * row_stride + j);
                        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(8 * row_stride).cast());
                        _mm512_store_ps(out.add(step * NR), _mm512_maskz_loadu_ps(lanes_below(count), from));
                    }
                }
            }
            return;
        }
        for (j, count) in vectors {
            let (start, out) = (start.add(j * col_stride), place(j));
            if row_stride == 1 {
                for step in (0..kc).step_by(LANES) {
                    let steps = LANES.min(kc - step);
                    for col in 0..count {
                        _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add((LANES + col) * col_stride + step).cast());
                    }
                    let square = square(start.add(step), col_stride, count, lanes_below(steps));
                    for (s, x) in square.into_iter().enumerate().take(steps) {
                        _mm512_store_ps(out.add((step + s) * NR), x);
                    }
                }
            } else {
                for (step, col) in (0..kc).flat_map(|step| (0..count).map(move |col| (step, col))) {
                    *out.add(step * NR + col) = *start.add(step * row_stride + col * col_stride);
                }
            }
        }
    }
}

/// The lanes `mask` of `rows` vectors that start `stride` apart, rows become columns. Other elements are zero.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) unsafe fn square(start: *const f32, stride: usize, rows: usize, mask: __mmask16) -> [__m512; LANES] {
    let mut square = [_mm512_setzero_ps(); LANES];
    if rows == LANES {
        for (row, x) in square.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *x = unsafe { _mm512_maskz_loadu_ps(mask, start.add(row * stride)) };
        }
    } else {
        for (row, x) in square.iter_mut().enumerate() {
            if row < rows {
                // SAFETY: the caller's promise.
                *x = unsafe { _mm512_maskz_loadu_ps(mask, start.add(row * stride)) };
            }
        }
    }
    transpose(square)
}

/// Rows become columns.
#[target_feature(enable = "avx512f")]
#[inline]
#[expect(clippy::large_types_passed_by_value, reason = "sixteen registers")]
pub(crate) fn transpose(rows: [__m512; LANES]) -> [__m512; LANES] {
    let zero = _mm512_setzero_ps();
    // Squares of four inside each quarter of a vector ...
    let (mut pairs, mut fours) = ([zero; LANES], [zero; LANES]);
    for i in (0..LANES).step_by(2) {
        pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
    let low = |a, b| _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    let high = |a, b| _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    for i in (0..LANES).step_by(4) {
        fours[i] = low(pairs[i], pairs[i + 2]);
        fours[i + 1] = high(pairs[i], pairs[i + 2]);
        fours[i + 2] = low(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = high(pairs[i + 1], pairs[i + 3]);
    }
    // ... and the quarters of four vectors.
    let mut columns = [zero; LANES];
    for i in 0..4 {
        let left = _mm512_shuffle_f32x4::<0x88>(fours[i], fours[i + 4]);
        let right = _mm512_shuffle_f32x4::<0x88>(fours[i + 8], fours[i + 12]);
        let left_odd = _mm512_shuffle_f32x4::<0xDD>(fours[i], fours[i + 4]);
        let right_odd = _mm512_shuffle_f32x4::<0xDD>(fours[i + 8], fours[i + 12]);
        columns[i] = _mm512_shuffle_f32x4::<0x88>(left, right);
        columns[i + 8] = _mm512_shuffle_f32x4::<0xDD>(left, right);
        columns[i + 4] = _mm512_shuffle_f32x4::<0x88>(left_odd, right_odd);
        columns[i + 12] = _mm512_shuffle_f32x4::<0xDD>(left_odd, right_odd);
    }
    columns
}
