//! Rounded activations and weights laid out as the register tile reads them.
//!
//! A word of 32 bits holds four neighbouring steps of the shared dimension, the first in its lowest byte. A strip holds 14 rows of
//! activations or 32 columns of weights: a word of each for the first four steps, then for the next four, and so on. Steps after the
//! last are zeros.

use super::super::blocked::Weights;
use super::super::{RUN, scales_of};
use crate::matmul::avx512::{LANES, MR, NR, transpose};
use std::arch::x86_64::{
    __m512i, __mmask16, __mmask64, _MM_HINT_T0, _mm_prefetch, _mm512_and_si512, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_cvtps_epi32, _mm512_dpbusd_epi32, _mm512_mask_storeu_epi32, _mm512_maskz_loadu_epi8,
    _mm512_maskz_loadu_ps, _mm512_max_epu32, _mm512_mul_ps, _mm512_packs_epi16, _mm512_packs_epi32,
    _mm512_reduce_max_epu32, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_slli_epi32, _mm512_storeu_si512, _mm512_sub_epi32,
    _mm512_unpackhi_epi8, _mm512_unpackhi_epi16, _mm512_unpacklo_epi8, _mm512_unpacklo_epi16, _mm512_xor_si512,
};
use std::ops::Range;

/// Steps of a vector of bytes.
const BYTES: usize = 4 * LANES;

fn below(count: usize) -> __mmask16 {
    ((1_u32 << count.min(LANES)) - 1) as __mmask16
}

fn bytes_below(count: usize) -> __mmask64 {
    if count >= BYTES { __mmask64::MAX } else { (1 << count) - 1 }
}

/// Writes a strip of up to [`MR`] rows of activations, each times `fold` and rounded, as bytes 128 above the integers, and the scales
/// of run `r` as `scales[r * scale_step + row]`.
///
/// # Safety
/// Rows and `fold` have one length. `out` is writable for `MR` words of every four steps, `scales` for the scales. The machine has
/// AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn activations<'x>(
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
    // SAFETY: masks keep inside the rows and `fold`; the caller gave the room.
    unsafe {
        // Sixteen steps from `step` on.
        let load = |row: usize, step: usize| {
            let mask = below(steps.saturating_sub(step));
            let x = _mm512_maskz_loadu_ps(mask, starts[row].wrapping_add(step));
            fold.map_or(x, |fold| _mm512_mul_ps(x, _mm512_maskz_loadu_ps(mask, fold.wrapping_add(step))))
        };
        for (run, first) in (0..steps).step_by(RUN).enumerate() {
            let end = steps.min(first + RUN);
            let mut inverses = [_mm512_setzero_ps(); MR];
            for row in 0..count {
                // The bits of magnitudes are ordered as the magnitudes are, with NaN above infinity.
                let mut largest = _mm512_setzero_si512();
                for step in (first..end).step_by(LANES) {
                    _mm_prefetch::<_MM_HINT_T0>(starts[row].wrapping_add(step + RUN).cast());
                    let bits = _mm512_and_si512(_mm512_castps_si512(load(row, step)), _mm512_set1_epi32(i32::MAX));
                    largest = _mm512_max_epu32(largest, bits);
                }
                let (scale, inverse) = scales_of(_mm512_reduce_max_epu32(largest));
                *scales.add(run * scale_step + row) = scale;
                inverses[row] = _mm512_set1_ps(inverse);
            }
            for step in (first..end).step_by(BYTES) {
                let mut square = [_mm512_setzero_ps(); LANES];
                for row in 0..count {
                    let q =
                        |part: usize| _mm512_cvtps_epi32(_mm512_mul_ps(load(row, step + part * LANES), inverses[row]));
                    let pairs = (_mm512_packs_epi32(q(0), q(1)), _mm512_packs_epi32(q(2), q(3)));
                    let bytes = _mm512_packs_epi16(pairs.0, pairs.1);
                    square[row] = _mm512_castsi512_ps(_mm512_xor_si512(bytes, _mm512_set1_epi8(-128)));
                }
                let words = (end - step).div_ceil(4);
                for (at, x) in transpose(square).into_iter().enumerate() {
                    // Packing took fours from each of four vectors in turn.
                    let word = at % 4 * 4 + at / 4;
                    if word < words {
                        let out = out.add((step / 4 + word) * MR);
                        _mm512_mask_storeu_epi32(out.cast(), below(MR), _mm512_castps_si512(x));
                    }
                }
            }
        }
    }
}

/// Writes `steps` of `columns` in strips of [`NR`], as `out[column / NR * NR * words + word * NR + column % NR]`, and -128 times the
/// sum of each column's run as `zeros[column / NR * NR * runs + run * NR + column % NR]`.
///
/// # Safety
/// Columns and steps are those of the product, and the first step of a block begins a run; `out` and `zeros` are writable for whole
/// strips. The machine has AVX-512 F, BW and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn weights(
    weights: &Weights<'_>,
    columns: Range<usize>,
    steps: Range<usize>,
    out: *mut u32,
    zeros: *mut i32,
) {
    let (words, runs) = (steps.len().div_ceil(4), steps.len().div_ceil(RUN));
    let (step_stride, column_stride) = if weights.has_steps_in_rows { (weights.cols, 1) } else { (1, weights.cols) };
    let start = weights.quants.as_ptr().wrapping_add(columns.start * column_stride + steps.start * step_stride);
    let strip = |column: usize, len: usize| column / NR * NR * len + column % NR;
    for run in 0..runs {
        let first = run * RUN;
        let len = RUN.min(steps.len() - first);
        let start = start.wrapping_add(first * step_stride);
        let wide = if weights.has_steps_in_rows { BYTES } else { LANES };
        for column in (0..columns.len()).step_by(wide) {
            let count = wide.min(columns.len() - column);
            let start = start.wrapping_add(column * column_stride);
            // Sixteen columns each.
            let places = std::array::from_fn(|part| {
                let column = column + part * LANES;
                let place = out.wrapping_add(strip(column, words) + first / 4 * NR);
                (place, zeros.wrapping_add(strip(column, runs) + run * NR))
            });
            // SAFETY: the caller's promise; parts without a column are not written.
            unsafe {
                if weights.has_steps_in_rows {
                    from_rows(start, weights.cols, count, len, &places);
                } else {
                    from_columns(start, weights.cols, count, len, places[0]);
                }
            }
        }
    }
}

/// Where sixteen columns of a strip have their words, and what their sums begin with.
type Place = (*mut u32, *mut i32);

/// `len` steps of up to sixteen columns that are `stride` bytes apart.
///
/// # Safety
/// As [`weights`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
unsafe fn from_columns(start: *const i8, stride: usize, count: usize, len: usize, (out, zeros): Place) {
    let mut sums = _mm512_setzero_si512();
    // SAFETY: masks keep inside the columns; the caller gave the room.
    unsafe {
        for step in (0..len).step_by(BYTES) {
            let mask = bytes_below(len - step);
            let mut square = [_mm512_setzero_ps(); LANES];
            for (column, x) in square.iter_mut().enumerate() {
                if column < count {
                    let from = start.wrapping_add(column * stride + step);
                    _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(LANES * stride));
                    *x = _mm512_castsi512_ps(_mm512_maskz_loadu_epi8(mask, from));
                }
            }
            let words = (len - step).div_ceil(4);
            for (word, x) in transpose(square).into_iter().enumerate().take(words) {
                let x = _mm512_castps_si512(x);
                sums = add_up(sums, x);
                _mm512_storeu_si512(out.add((step / 4 + word) * NR).cast(), x);
            }
        }
        _mm512_storeu_si512(zeros.cast(), times_minus_128(sums));
    }
}

/// `len` steps, `stride` bytes apart, of up to 64 columns.
///
/// # Safety
/// As [`weights`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
unsafe fn from_rows(start: *const i8, stride: usize, count: usize, len: usize, places: &[Place; 4]) {
    let mut sums = [_mm512_setzero_si512(); 4];
    let mask = bytes_below(count);
    // SAFETY: masks keep inside the rows; the caller gave the room.
    unsafe {
        for word in 0..len.div_ceil(4) {
            let rows: [__m512i; 4] = std::array::from_fn(|row| {
                let step = 4 * word + row;
                let from = start.wrapping_add(step * stride);
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(16 * stride));
                if step < len { _mm512_maskz_loadu_epi8(mask, from) } else { _mm512_setzero_si512() }
            });
            for (part, x) in in_words(rows).into_iter().enumerate() {
                if part * LANES < count {
                    sums[part] = add_up(sums[part], x);
                    _mm512_storeu_si512(places[part].0.add(word * NR).cast(), x);
                }
            }
        }
        for (part, sums) in sums.into_iter().enumerate() {
            if part * LANES < count {
                _mm512_storeu_si512(places[part].1.cast(), times_minus_128(sums));
            }
        }
    }
}

/// Adds the four bytes of each word.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
fn add_up(sums: __m512i, words: __m512i) -> __m512i {
    _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), words)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn times_minus_128(x: __m512i) -> __m512i {
    _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32::<7>(x))
}

/// Four rows of 64 bytes become words of four rows: vector `v` has those of columns `16 v..`.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn in_words([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    // Quarter `q` of these has columns 16 q to 16 q + 7, or 16 q + 8 to 16 q + 15.
    let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
    let (ab_high, cd_high) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
    let fours = [
        _mm512_unpacklo_epi16(ab, cd),
        _mm512_unpackhi_epi16(ab, cd),
        _mm512_unpacklo_epi16(ab_high, cd_high),
        _mm512_unpackhi_epi16(ab_high, cd_high),
    ];
    // Quarters of four vectors change places with the vectors.
    let (even, even_high) =
        (_mm512_shuffle_i32x4::<0x88>(fours[0], fours[1]), _mm512_shuffle_i32x4::<0x88>(fours[2], fours[3]));
    let (odd, odd_high) =
        (_mm512_shuffle_i32x4::<0xDD>(fours[0], fours[1]), _mm512_shuffle_i32x4::<0xDD>(fours[2], fours[3]));
    [
        _mm512_shuffle_i32x4::<0x88>(even, even_high),
        _mm512_shuffle_i32x4::<0x88>(odd, odd_high),
        _mm512_shuffle_i32x4::<0xDD>(even, even_high),
        _mm512_shuffle_i32x4::<0xDD>(odd, odd_high),
    ]
}
