//! Rounded activations and weights laid out as the register tile reads them. Steps after the last are zeros.

use super::super::blocked::Weights;
use super::super::{RUN, scales_of};
use super::{LANES, MR, NR, Words};
use crate::matmul::avx2::transpose;
use std::arch::x86_64::{
    __m256, __m256i, _MM_HINT_T0, _mm_prefetch, _mm_storel_epi64, _mm_storeu_si128, _mm256_add_epi32, _mm256_and_si256,
    _mm256_castps_si256, _mm256_castsi256_ps, _mm256_castsi256_si128, _mm256_cmpgt_epi32, _mm256_cvtps_epi32,
    _mm256_extracti128_si256, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_maskload_ps, _mm256_max_epu32, _mm256_mul_ps, _mm256_packs_epi16, _mm256_packs_epi32,
    _mm256_permute2x128_si256, _mm256_permutevar8x32_epi32, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setr_epi32, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_slli_epi32, _mm256_storeu_si256,
    _mm256_sub_epi32, _mm256_unpackhi_epi8, _mm256_unpackhi_epi16, _mm256_unpacklo_epi8, _mm256_unpacklo_epi16,
    _mm256_xor_si256,
};
use std::ops::Range;

/// Bytes of a vector.
const BYTES: usize = 4 * LANES;

/// `Tiles::round`.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn activations<'x, W: Words>(
    rows: impl Iterator<Item = &'x [f32]>,
    fold: Option<&[f32]>,
    out: *mut u32,
    scales: *mut f32,
    scale_step: usize,
) {
    let (mut starts, mut count, mut steps) = ([std::ptr::null::<f32>(); MR], 0, 0);
    for (start, row) in starts.iter_mut().zip(rows) {
        (*start, count, steps) = (row.as_ptr(), count + 1, row.len());
    }
    let fold = fold.map(<[f32]>::as_ptr);
    let above = _mm256_set1_epi8(W::ABOVE.cast_signed());
    // SAFETY: masks keep inside the rows and `fold`; the caller gave the room.
    unsafe {
        // Eight steps from `step` on.
        let load = |row: usize, step: usize| {
            let x = floats(starts[row], step, steps);
            fold.map_or(x, |fold| _mm256_mul_ps(x, floats(fold, step, steps)))
        };
        for (run, first) in (0..steps).step_by(RUN).enumerate() {
            let end = steps.min(first + RUN);
            let mut inverses = [_mm256_setzero_ps(); MR];
            for row in 0..count {
                // The bits of magnitudes are ordered as the magnitudes are, with NaN above infinity.
                let mut largest = _mm256_setzero_si256();
                for step in (first..end).step_by(LANES) {
                    // The row's next run, for which the CPU does not look: it comes after this one of other rows.
                    _mm_prefetch::<_MM_HINT_T0>(starts[row].wrapping_add(step + RUN).cast());
                    let bits = _mm256_and_si256(_mm256_castps_si256(load(row, step)), _mm256_set1_epi32(i32::MAX));
                    largest = _mm256_max_epu32(largest, bits);
                }
                let mut lanes = [0_u32; LANES];
                _mm256_storeu_si256(lanes.as_mut_ptr().cast(), largest);
                let (scale, inverse) = scales_of(lanes.into_iter().fold(0, u32::max));
                *scales.add(run * scale_step + row) = scale;
                inverses[row] = _mm256_set1_ps(inverse);
            }
            for step in (first..end).step_by(BYTES) {
                let mut square = [_mm256_setzero_ps(); LANES];
                for row in 0..count {
                    let q =
                        |part: usize| _mm256_cvtps_epi32(_mm256_mul_ps(load(row, step + part * LANES), inverses[row]));
                    let pairs = (_mm256_packs_epi32(q(0), q(1)), _mm256_packs_epi32(q(2), q(3)));
                    // Halves of vectors were put together: words 0, 2, 4, 6 and then 1, 3, 5, 7.
                    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
                    let bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(pairs.0, pairs.1), order);
                    square[row] = _mm256_castsi256_ps(_mm256_xor_si256(bytes, above));
                }
                let fours = (end - step).div_ceil(4);
                for (four, x) in transpose(square).into_iter().enumerate().take(fours) {
                    let words = W::words(_mm256_castps_si256(x)).into_iter().take(W::PER_FOUR);
                    for (word, x) in words.enumerate() {
                        // Six words, and nothing of what another task may have written behind them.
                        let out = out.add(((step / 4 + four) * W::PER_FOUR + word) * MR);
                        _mm_storeu_si128(out.cast(), _mm256_castsi256_si128(x));
                        _mm_storel_epi64(out.add(4).cast(), _mm256_extracti128_si256::<1>(x));
                    }
                }
            }
        }
    }
}

/// Numbers `step..step + 8` of `len`; zeros from there on.
///
/// # Safety
/// There are as many.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn floats(from: *const f32, step: usize, len: usize) -> __m256 {
    // SAFETY: what is read is below `len`.
    unsafe {
        if step + LANES <= len {
            _mm256_loadu_ps(from.add(step))
        } else {
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(len.saturating_sub(step) as i32), lanes);
            _mm256_maskload_ps(from.wrapping_add(step), mask)
        }
    }
}

/// `Tiles::pack`.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn weights<W: Words>(
    weights: &Weights<'_>,
    columns: Range<usize>,
    steps: Range<usize>,
    out: *mut u32,
    zeros: *mut i32,
) {
    let (words, runs) = (steps.len().div_ceil(4) * W::PER_FOUR, steps.len().div_ceil(RUN));
    let (step_stride, column_stride) = if weights.has_steps_in_rows { (weights.cols, 1) } else { (1, weights.cols) };
    let start = weights.quants.as_ptr().wrapping_add(columns.start * column_stride + steps.start * step_stride);
    let strip = |column: usize, len: usize| column / NR * NR * len + column % NR;
    for run in 0..runs {
        let first = run * RUN;
        let len = RUN.min(steps.len() - first);
        let start = start.wrapping_add(first * step_stride);
        let wide = if weights.has_steps_in_rows { BYTES } else { LANES };
        for column in (0..columns.len()).step_by(wide) {
            let start = start.wrapping_add(column * column_stride);
            // Eight columns each.
            let places = std::array::from_fn(|part| {
                let column = column + part * LANES;
                let place = out.wrapping_add(strip(column, words) + first / 4 * W::PER_FOUR * NR);
                (place, zeros.wrapping_add(strip(column, runs) + run * NR))
            });
            let count = columns.len() - column;
            // SAFETY: the caller's promise; parts without a column are not written.
            unsafe {
                if weights.has_steps_in_rows {
                    let readable = weights.cols - columns.start - column;
                    from_rows::<W>(start, weights.cols, count, readable, len, &places);
                } else {
                    from_columns::<W>(start, weights.cols, count, len, places[0]);
                }
            }
        }
    }
}

/// Where eight columns of a strip have their words, and what their sums begin with.
type Place = (*mut u32, *mut i32);

/// Up to [`BYTES`] bytes, and zeros after them.
///
/// # Safety
/// `count` bytes are there.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn bytes(from: *const i8, count: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        if count >= BYTES {
            return _mm256_loadu_si256(from.cast());
        }
        let mut bytes = [0_i8; BYTES];
        from.copy_to_nonoverlapping(bytes.as_mut_ptr(), count);
        _mm256_loadu_si256(bytes.as_ptr().cast())
    }
}

/// Writes step `4 four` to `4 four + 3` of eight columns, and adds them to `sums` if those are needed.
///
/// # Safety
/// There is room.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn write<W: Words>(fours: __m256i, four: usize, out: *mut u32, sums: &mut __m256i) {
    // SAFETY: the caller's promise.
    unsafe {
        for (word, x) in W::words(fours).into_iter().take(W::PER_FOUR).enumerate() {
            _mm256_storeu_si256(out.add((four * W::PER_FOUR + word) * NR).cast(), x);
        }
    }
    if W::ABOVE > 0 {
        let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), fours);
        *sums = _mm256_add_epi32(*sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
}

/// Writes what sums of runs begin with: -128 times the sums of the columns, if activations are 128 above what they are.
///
/// # Safety
/// There is room.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn write_zeros<W: Words>(sums: __m256i, zeros: *mut i32) {
    if W::ABOVE > 0 {
        let zero = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32::<7>(sums));
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_si256(zeros.cast(), zero) };
    }
}

/// `len` steps of up to eight columns that are `stride` bytes apart.
///
/// # Safety
/// As [`weights`].
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn from_columns<W: Words>(start: *const i8, stride: usize, count: usize, len: usize, (out, zeros): Place) {
    let mut sums = _mm256_setzero_si256();
    // SAFETY: what is read is inside the columns; the caller gave the room.
    unsafe {
        for step in (0..len).step_by(BYTES) {
            let mut square = [_mm256_setzero_ps(); LANES];
            for (column, x) in square.iter_mut().enumerate().take(count) {
                let from = start.wrapping_add(column * stride + step);
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(LANES * stride));
                *x = _mm256_castsi256_ps(bytes(from, len - step));
            }
            let fours = (len - step).div_ceil(4);
            for (four, x) in transpose(square).into_iter().enumerate().take(fours) {
                write::<W>(_mm256_castps_si256(x), step / 4 + four, out, &mut sums);
            }
        }
        write_zeros::<W>(sums, zeros);
    }
}

/// `len` steps, `stride` bytes apart, of up to 32 columns; `readable` bytes of a step are there.
///
/// # Safety
/// As [`weights`].
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn from_rows<W: Words>(
    start: *const i8,
    stride: usize,
    count: usize,
    readable: usize,
    len: usize,
    places: &[Place; 4],
) {
    let mut sums = [_mm256_setzero_si256(); 4];
    // SAFETY: what is read is inside the rows; the caller gave the room.
    unsafe {
        for four in 0..len.div_ceil(4) {
            let rows: [__m256i; 4] = std::array::from_fn(|row| {
                let step = 4 * four + row;
                let from = start.wrapping_add(step * stride);
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(16 * stride));
                if step < len { bytes(from, readable) } else { _mm256_setzero_si256() }
            });
            for (part, x) in in_fours(rows).into_iter().enumerate() {
                if part * LANES < count {
                    write::<W>(x, four, places[part].0, &mut sums[part]);
                }
            }
        }
        for (part, sums) in sums.into_iter().enumerate() {
            if part * LANES < count {
                write_zeros::<W>(sums, places[part].1);
            }
        }
    }
}

/// Four rows of 32 bytes become fours of rows: vector `v` has those of columns `8 v..`.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn in_fours([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    // Halves of these have columns 0 to 7 and 16 to 23, or 8 to 15 and 24 to 31.
    let (ab, cd) = (_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d));
    let (ab_high, cd_high) = (_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d));
    let (low, low_next) = (_mm256_unpacklo_epi16(ab, cd), _mm256_unpackhi_epi16(ab, cd));
    let (high, high_next) = (_mm256_unpacklo_epi16(ab_high, cd_high), _mm256_unpackhi_epi16(ab_high, cd_high));
    [
        _mm256_permute2x128_si256::<0x20>(low, low_next),
        _mm256_permute2x128_si256::<0x20>(high, high_next),
        _mm256_permute2x128_si256::<0x31>(low, low_next),
        _mm256_permute2x128_si256::<0x31>(high, high_next),
    ]
}
