//! Operands rounded to bf16 and laid out as the register tile reads them.
//!
//! A word of 32 bits holds two neighbouring steps of the shared dimension, the first in its lower half. A strip holds up to
//! `W` lanes (rows of `A` or columns of `B`): `W` words of the first two steps, then `W` of the next two, and so on. The
//! last word of an odd number of steps ends in a zero.
//!
//! Rounding is to the nearest, ties to even, as `vcvtne2ps2bf16` does it: a NaN stays a NaN and an infinity an infinity, a
//! number above the largest of bf16 (3.3895e38) by half a step or more becomes an infinity, and a denormal a zero.

use super::super::avx512::{LANES, transpose};
use super::super::{Shape, View};
use std::arch::x86_64::{
    __m512, __m512bh, __m512i, __mmask16, _MM_HINT_T0, _mm_prefetch, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_cvtne2ps_pbh, _mm512_loadu_ps, _mm512_mask_storeu_epi32, _mm512_maskz_loadu_ps, _mm512_permutexvar_epi16,
    _mm512_set_epi16, _mm512_setzero_ps,
};
use std::ops::Range;

/// Steps that are transposed at a time: a vector of words.
const SQUARE: usize = 2 * LANES;
/// Words of each lane that are written before the next lanes' where lanes lie together in memory.
const RUN: usize = 8;

/// Writes `steps` of `lanes` (rows of `x`) in strips of `W`, as `out[lane / W * W * words + word * W + lane % W]`, where
/// `words` is half of the steps, rounded up.
///
/// # Safety
/// Lanes and steps are those of `x`; `out` is writable for `words * W` words in each strip; the machine has AVX-512 F, BW
/// and BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn pack<const W: usize>(x: View<'_>, lanes: Range<usize>, steps: Range<usize>, out: *mut u32) {
    let Shape { row_stride: lane_stride, col_stride: step_stride, .. } = x.shape;
    let start = x.data.as_ptr().wrapping_add(lanes.start * lane_stride + steps.start * step_stride);
    let (n_lanes, n_steps, words) = (lanes.len(), steps.len(), steps.len().div_ceil(2));
    let part = W.min(LANES);
    let place = |lane: usize| out.wrapping_add(lane / W * W * words + lane % W);
    let vectors = (0..n_lanes).step_by(part).map(|lane| (lane, part.min(n_lanes - lane)));
    // SAFETY: elements are in bounds by the view's invariant, masks keep from reading others; the caller gave the room.
    unsafe {
        if lane_stride == 1 {
            // Some steps of all lanes, so that memory is read in lines.
            for first in (0..words).step_by(RUN) {
                for (lane, count) in vectors.clone() {
                    let (out, mask) = (place(lane), below(count));
                    for word in first..words.min(first + RUN) {
                        let from = start.add(2 * word * step_stride + lane);
                        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(2 * RUN * step_stride).cast());
                        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add((2 * RUN + 1) * step_stride).cast());
                        let low = _mm512_maskz_loadu_ps(mask, from);
                        let is_there = 2 * word + 1 < n_steps;
                        let high = if is_there { _mm512_maskz_loadu_ps(mask, from.add(step_stride)) } else { zero() };
                        store::<W>(out.add(word * W), below(part), interleaved(low, high));
                    }
                }
            }
            return;
        }
        for (lane, count) in vectors {
            let (start, out) = (start.add(lane * lane_stride), place(lane));
            if step_stride == 1 {
                for first in (0..n_steps).step_by(SQUARE) {
                    let rest = n_steps - first;
                    let masks = (below(rest.min(LANES)), below(rest.saturating_sub(LANES).min(LANES)));
                    for next in part..part + count {
                        let ahead = start.wrapping_add(next * lane_stride + first);
                        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(LANES).cast());
                    }
                    let square = square(start.add(first), lane_stride, count, masks);
                    let out = out.add(first / 2 * W);
                    for (word, x) in square.into_iter().enumerate().take(rest.div_ceil(2)) {
                        store::<W>(out.add(word * W), below(part), _mm512_castps_si512(x));
                    }
                }
            } else {
                for word in 0..words {
                    let (mut low, mut high) = ([0.0_f32; LANES], [0.0_f32; LANES]);
                    for lane in 0..count {
                        let at = start.add(lane * lane_stride + 2 * word * step_stride);
                        low[lane] = *at;
                        high[lane] = if 2 * word + 1 < n_steps { *at.add(step_stride) } else { 0.0 };
                    }
                    let (low, high) = (_mm512_loadu_ps(low.as_ptr()), _mm512_loadu_ps(high.as_ptr()));
                    store::<W>(out.add(word * W), below(part), interleaved(low, high));
                }
            }
        }
    }
}

/// A mask of the first `count` lanes.
fn below(count: usize) -> __mmask16 {
    ((1_u32 << count) - 1) as __mmask16
}

#[target_feature(enable = "avx512f")]
#[inline]
fn zero() -> __m512 {
    _mm512_setzero_ps()
}

/// Stores the lanes of a strip.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn store<const W: usize>(at: *mut u32, mask: __mmask16, x: __m512i) {
    let mask = if W < LANES { mask } else { __mmask16::MAX };
    // SAFETY: the caller's promise.
    unsafe { _mm512_mask_storeu_epi32(at.cast(), mask, x) };
}

/// The bits of 32 halves.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn rounded(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both are 512 bits, all of which are valid.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Words of `low` and `high`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[inline]
fn interleaved(low: __m512, high: __m512) -> __m512i {
    let index = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1,
        16, 0,
    );
    _mm512_permutexvar_epi16(index, rounded(low, high))
}

/// The words of 32 steps of `count` lanes that start `stride` apart; vector `w` holds word `w` of each lane. Steps outside of the masks
/// are zero.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
unsafe fn square(start: *const f32, stride: usize, count: usize, masks: (__mmask16, __mmask16)) -> [__m512; LANES] {
    let mut square = [_mm512_setzero_ps(); LANES];
    for (lane, x) in square.iter_mut().enumerate() {
        if lane < count {
            // SAFETY: the caller's promise.
            let (low, high) = unsafe {
                let at = start.add(lane * stride);
                (_mm512_maskz_loadu_ps(masks.0, at), _mm512_maskz_loadu_ps(masks.1, at.wrapping_add(LANES)))
            };
            *x = _mm512_castsi512_ps(rounded(low, high));
        }
    }
    transpose(square)
}
