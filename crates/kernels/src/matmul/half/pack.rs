//! Operands rounded to 16-bit floats and laid out as the register tiles read them.
//!
//! A word of 32 bits holds two neighbouring steps of the shared dimension, the first in its lower half. A strip holds up to
//! `W` lanes (rows of `A` or columns of `B`): `W` words of the first two steps, then `W` of the next two, and so on. The
//! last word of an odd number of steps ends in a zero. Where lanes are scaled, `W` exponents as f32 come before all of it: a
//! lane is what was rounded times `2^exponent`.

use super::super::avx512::{LANES, transpose};
use super::super::{Shape, View};
use super::TOP;
use std::arch::x86_64::{
    __m512, __m512i, __mmask16, _MM_HINT_T0, _mm_prefetch, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_cvtepi32_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_epi32, _mm512_maskz_loadu_epi32,
    _mm512_maskz_loadu_ps, _mm512_max_epi32, _mm512_max_epu32, _mm512_mul_ps, _mm512_permutexvar_epi16,
    _mm512_reduce_max_epu32, _mm512_scalef_ps, _mm512_set_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_srli_epi32, _mm512_storeu_ps, _mm512_sub_epi32, _mm512_sub_ps,
};
use std::ops::Range;

/// Steps that are transposed at a time: a vector of words.
const SQUARE: usize = 2 * LANES;
/// Words of each lane that are written before the next lanes' where lanes lie together in memory.
const RUN: usize = 8;
/// A 16-bit float.
pub(super) trait Half {
    /// Whether lanes are scaled.
    const SCALED: bool;

    /// The bits of 32 halves, those of `low` first.
    ///
    /// # Safety
    /// The machine has AVX-512 F and BF16.
    unsafe fn rounded(low: __m512, high: __m512) -> __m512i;
}

/// Words of a lane that hold `steps`, with its exponent.
pub(super) fn words_of<H: Half>(steps: usize) -> usize {
    usize::from(H::SCALED) + steps.div_ceil(2)
}

/// Writes `steps` of `lanes` (rows of `x`) in strips of `W`, as `out[lane / W * W * words + word * W + lane % W]`, where
/// `words` is [`words_of`] the steps.
///
/// # Safety
/// Lanes and steps are those of `x`; `out` is writable for `words * W` words in each strip; the machine has AVX-512 F, BW
/// and BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn pack<const W: usize, H: Half>(
    x: View<'_>,
    lanes: Range<usize>,
    steps: Range<usize>,
    out: *mut u32,
) {
    let Shape { row_stride: lane_stride, col_stride: step_stride, .. } = x.shape;
    let start = x.data.as_ptr().wrapping_add(lanes.start * lane_stride + steps.start * step_stride);
    let (n_lanes, n_steps, words) = (lanes.len(), steps.len(), steps.len().div_ceil(2));
    let part = W.min(LANES);
    let place = |lane: usize| out.wrapping_add(lane / W * W * words_of::<H>(n_steps) + lane % W);
    let vectors = (0..n_lanes).step_by(part).map(|lane| (lane, part.min(n_lanes - lane)));
    // SAFETY: elements are in bounds by the view's invariant, masks keep from reading others; the caller gave the room.
    unsafe {
        if H::SCALED {
            write_exponents::<W>(start, (lane_stride, step_stride), vectors.clone(), n_steps, place);
        }
        // Of the lanes at a place: what each is multiplied by, and where its first word is.
        let factors_at = |at: *mut u32| if H::SCALED { factors(load::<W>(at)) } else { zero() };
        let scaled = |x: __m512, factor: __m512| if H::SCALED { _mm512_mul_ps(x, factor) } else { x };
        let words_at = |at: *mut u32| at.wrapping_add(if H::SCALED { W } else { 0 });
        if lane_stride == 1 {
            // Some steps of all lanes, so that memory is read in lines.
            for first in (0..words).step_by(RUN) {
                for (lane, count) in vectors.clone() {
                    let (out, mask) = (words_at(place(lane)), below(count));
                    let factors = factors_at(place(lane));
                    for word in first..words.min(first + RUN) {
                        let from = start.add(2 * word * step_stride + lane);
                        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(2 * RUN * step_stride).cast());
                        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add((2 * RUN + 1) * step_stride).cast());
                        let low = _mm512_maskz_loadu_ps(mask, from);
                        let is_there = 2 * word + 1 < n_steps;
                        let high = if is_there { _mm512_maskz_loadu_ps(mask, from.add(step_stride)) } else { zero() };
                        let words = interleaved::<H>(scaled(low, factors), scaled(high, factors));
                        store::<W>(out.add(word * W), words);
                    }
                }
            }
            return;
        }
        for (lane, count) in vectors {
            let (start, out) = (start.add(lane * lane_stride), words_at(place(lane)));
            let factors = factors_at(place(lane));
            if step_stride == 1 {
                let mut of_lane = [0.0_f32; LANES];
                _mm512_storeu_ps(of_lane.as_mut_ptr(), factors);
                for first in (0..n_steps).step_by(SQUARE) {
                    let rest = n_steps - first;
                    let masks = (below(rest.min(LANES)), below(rest.saturating_sub(LANES).min(LANES)));
                    for next in part..part + count {
                        let ahead = start.wrapping_add(next * lane_stride + first);
                        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(LANES).cast());
                    }
                    let square = square::<H>(start.add(first), lane_stride, count, masks, &of_lane);
                    let out = out.add(first / 2 * W);
                    for (word, x) in square.into_iter().enumerate().take(rest.div_ceil(2)) {
                        store::<W>(out.add(word * W), _mm512_castps_si512(x));
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
                    store::<W>(out.add(word * W), interleaved::<H>(scaled(low, factors), scaled(high, factors)));
                }
            }
        }
    }
}

/// Writes the exponents of lanes that start at `start`: a vector at each `place`.
///
/// # Safety
/// As [`pack`].
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn write_exponents<const W: usize>(
    start: *const f32,
    (lane_stride, step_stride): (usize, usize),
    vectors: impl Iterator<Item = (usize, usize)> + Clone,
    n_steps: usize,
    place: impl Fn(usize) -> *mut u32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if lane_stride == 1 {
            // As the elements are read afterwards; until all are seen, the largest are kept in the exponents' place.
            for first in (0..n_steps.max(1)).step_by(2 * RUN) {
                for (lane, count) in vectors.clone() {
                    let mut largest = if first == 0 { _mm512_setzero_si512() } else { load::<W>(place(lane)) };
                    for step in first..n_steps.min(first + 2 * RUN) {
                        let x = _mm512_maskz_loadu_ps(below(count), start.add(step * step_stride + lane));
                        largest = _mm512_max_epu32(largest, magnitude(x));
                    }
                    store::<W>(place(lane), largest);
                }
            }
        } else {
            for (lane, count) in vectors.clone() {
                let mut largest = [0_u32; LANES];
                for (index, largest) in largest.iter_mut().enumerate().take(count) {
                    let start = start.add((lane + index) * lane_stride);
                    if step_stride == 1 {
                        let mut of_lane = _mm512_setzero_si512();
                        for first in (0..n_steps).step_by(LANES) {
                            let x = _mm512_maskz_loadu_ps(below(LANES.min(n_steps - first)), start.add(first));
                            of_lane = _mm512_max_epu32(of_lane, magnitude(x));
                        }
                        *largest = _mm512_reduce_max_epu32(of_lane);
                    } else {
                        let magnitudes = (0..n_steps).map(|step| (*start.add(step * step_stride)).abs().to_bits());
                        *largest = magnitudes.max().unwrap_or(0);
                    }
                }
                store::<W>(place(lane), _mm512_loadu_si512(largest.as_ptr().cast()));
            }
        }
        for (lane, _) in vectors {
            store::<W>(place(lane), exponents(load::<W>(place(lane))));
        }
    }
}

/// The bits of magnitudes: as integers they are ordered as the numbers are, infinity and then NaN above all of them.
#[target_feature(enable = "avx512f")]
#[inline]
fn magnitude(x: __m512) -> __m512i {
    _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7FFF_FFFF))
}

/// The exponents, as bits of f32, of lanes whose largest magnitudes have these bits. Not below -127, so that a factor is a
/// number; where a lane has an infinity or a NaN, everything finite in it stays below `2^(TOP + 1)`.
#[target_feature(enable = "avx512f")]
#[inline]
fn exponents(largest: __m512i) -> __m512i {
    let exponents = _mm512_sub_epi32(_mm512_srli_epi32::<23>(largest), _mm512_set1_epi32(127 + TOP));
    _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_max_epi32(exponents, _mm512_set1_epi32(-127))))
}

/// `2^-exponent` of exponents as [`write_exponents`] leaves them.
#[target_feature(enable = "avx512f")]
#[inline]
fn factors(exponents: __m512i) -> __m512 {
    _mm512_scalef_ps(_mm512_set1_ps(1.0), _mm512_sub_ps(_mm512_setzero_ps(), _mm512_castsi512_ps(exponents)))
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

/// Stores lanes of a strip.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn store<const W: usize>(at: *mut u32, x: __m512i) {
    // SAFETY: the caller's promise.
    unsafe { _mm512_mask_storeu_epi32(at.cast(), below(W.min(LANES)), x) };
}

/// Loads them.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn load<const W: usize>(at: *const u32) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_maskz_loadu_epi32(below(W.min(LANES)), at.cast()) }
}

/// Words of `low` and `high`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[inline]
fn interleaved<H: Half>(low: __m512, high: __m512) -> __m512i {
    let index = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1,
        16, 0,
    );
    // SAFETY: these are the instructions it wants.
    _mm512_permutexvar_epi16(index, unsafe { H::rounded(low, high) })
}

/// The words of 32 steps of `count` lanes that start `stride` apart, each times its factor; vector `w` holds word `w` of each lane.
/// Steps outside of the masks are zero.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
unsafe fn square<H: Half>(
    start: *const f32,
    stride: usize,
    count: usize,
    masks: (__mmask16, __mmask16),
    factors: &[f32; LANES],
) -> [__m512; LANES] {
    let mut square = [_mm512_setzero_ps(); LANES];
    for (lane, x) in square.iter_mut().enumerate() {
        if lane < count {
            // SAFETY: the caller's promise.
            let halves = unsafe {
                let at = start.add(lane * stride);
                let low = _mm512_maskz_loadu_ps(masks.0, at);
                let high = _mm512_maskz_loadu_ps(masks.1, at.wrapping_add(LANES));
                if H::SCALED {
                    let factor = _mm512_set1_ps(factors[lane]);
                    H::rounded(_mm512_mul_ps(low, factor), _mm512_mul_ps(high, factor))
                } else {
                    H::rounded(low, high)
                }
            };
            *x = _mm512_castsi512_ps(halves);
        }
    }
    transpose(square)
}
