//! Products of quantized weights with one row of rounded activations: each weight is used as soon as it is taken apart.

use super::layout::{Layout, SIDE};
use super::scales::{Scales, prefetch, row_starts, runs_at_a_time};
use crate::packed::activations::Activations;
use crate::packed::blocks::RUN;
use crate::packed::rows::Rows;
use std::arch::x86_64::{
    __m256, __m256i, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps,
    _mm256_permute2x128_si256, _mm256_set1_epi16, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256,
    _mm256_sign_epi8, _mm256_storeu_ps, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32,
    _mm256_unpacklo_epi64,
};

/// Eight rows of a weight.
#[derive(Clone, Copy)]
struct Eight {
    starts: [*const u8; SIDE],
    /// Bytes from the first of these rows to the first of the next eight.
    next: usize,
}

/// Products with the one row of activations.
///
/// # Safety
/// The machine has AVX2, FMA and F16C; `rows` is a matrix in the format of `L`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn one_row<L: Layout>(rows: &Rows<'_>, x: &Activations) {
    let n_runs = rows.weight.cols / RUN;
    assert!(x.quants.len() == n_runs * RUN && x.scales.len() == n_runs && x.sums.len() == n_runs);
    let per_pass = runs_at_a_time::<L>(n_runs);
    let mut scales = Scales::unset();
    for row in rows.range.clone().step_by(SIDE) {
        let eight = Eight { starts: row_starts(rows, row), next: SIDE * rows.weight.row_bytes() };
        let mut totals = _mm256_setzero_ps();
        for start in (0..n_runs).step_by(per_pass) {
            let count = per_pass.min(n_runs - start);
            // SAFETY: the starts are those of rows with `n_runs` runs, and so is the activations'.
            unsafe {
                scales.read::<L>(eight.starts, start, count);
                let mut i = 0;
                while L::PAIRS && i + 2 <= count {
                    totals = two_runs::<L>(eight, &scales, start + i, i, x, totals);
                    i += 2;
                }
                while i < count {
                    totals = one_run::<L>(eight, &scales, start + i, i, x, totals);
                    i += 1;
                }
            }
        }
        let mut y = [0.0; SIDE];
        // SAFETY: room for eight floats.
        unsafe { _mm256_storeu_ps(y.as_mut_ptr(), totals) };
        rows.write(0, row, &y[..SIDE.min(rows.range.end - row)]);
    }
}

/// Adds run `run` of eight rows, whose scales are number `i`, to `totals`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn one_run<L: Layout>(
    eight: Eight,
    scales: &Scales,
    run: usize,
    i: usize,
    x: &Activations,
    totals: __m256,
) -> __m256 {
    let block = run / L::RUNS * L::BYTES;
    prefetch(eight.starts[0], eight.next, run * L::BYTES / L::RUNS, L::BYTES / L::RUNS);
    let mut sums = [_mm256_setzero_si256(); SIDE];
    // SAFETY: the caller's promise.
    let x_quants = unsafe { _mm256_loadu_si256(x.quants.as_ptr().add(run * RUN).cast()) };
    for r in 0..SIDE {
        // SAFETY: the caller's promise.
        let w = unsafe { L::integers(eight.starts[r].add(block), run % L::RUNS) };
        sums[r] = add_neighbours(if L::OFFSETS {
            _mm256_maddubs_epi16(w, x_quants)
        } else {
            // The instruction takes an unsigned and a signed factor. No sum of two leaves 16 bits, as |x| <= 127.
            _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x_quants, w))
        });
    }
    let (low, high) = add_across(sums);
    // SAFETY: the caller's promise.
    unsafe {
        if L::SCALES == 1 {
            add_run::<L>(scales, (i, 0), _mm256_add_epi32(low, high), x, run, totals)
        } else {
            let totals = add_run::<L>(scales, (i, 0), low, x, run, totals);
            add_run::<L>(scales, (i, 1), high, x, run, totals)
        }
    }
}

/// Adds runs `run` and `run + 1` of eight rows, whose scales are number `i` and `i + 1`, to `totals`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn two_runs<L: Layout>(
    eight: Eight,
    scales: &Scales,
    run: usize,
    i: usize,
    x: &Activations,
    totals: __m256,
) -> __m256 {
    let block = run / L::RUNS * L::BYTES;
    prefetch(eight.starts[0], eight.next, run * L::BYTES / L::RUNS, 2 * L::BYTES / L::RUNS);
    // SAFETY: the caller's promise.
    let (first, second) = unsafe {
        let x = x.quants.as_ptr().add(run * RUN).cast();
        (_mm256_loadu_si256(x), _mm256_loadu_si256(x.add(1)))
    };
    let x_low = _mm256_permute2x128_si256::<0x20>(first, second);
    let x_high = _mm256_permute2x128_si256::<0x31>(first, second);
    let mut sums = [_mm256_setzero_si256(); SIDE];
    for r in 0..SIDE {
        // SAFETY: the caller's promise.
        let [low, high] = unsafe { L::pair(eight.starts[r].add(block), run % L::RUNS) };
        let products = _mm256_add_epi16(_mm256_maddubs_epi16(low, x_low), _mm256_maddubs_epi16(high, x_high));
        sums[r] = add_neighbours(products);
    }
    let (first, second) = add_across(sums);
    // SAFETY: the caller's promise.
    unsafe {
        let totals = add_run::<L>(scales, (i, 0), first, x, run, totals);
        add_run::<L>(scales, (i + 1, 0), second, x, run + 1, totals)
    }
}

/// Adds the integer sums `sums` of scale `place` in run `run` to `totals`, and the run's offsets.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn add_run<L: Layout>(
    scales: &Scales,
    place: (usize, usize),
    sums: __m256i,
    x: &Activations,
    run: usize,
    totals: __m256,
) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let scale = _mm256_loadu_ps(scales.scale::<L>(place.0, place.1));
        let scale = _mm256_mul_ps(scale, _mm256_set1_ps(*x.scales.get_unchecked(run)));
        let totals = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), scale, totals);
        if !L::OFFSETS {
            return totals;
        }
        let offset = _mm256_loadu_ps(scales.offset(place.0));
        _mm256_fmadd_ps(offset, _mm256_set1_ps(*x.sums.get_unchecked(run)), totals)
    }
}

/// Sums of two neighbours, in 32 bits.
#[target_feature(enable = "avx2")]
#[inline]
fn add_neighbours(x: __m256i) -> __m256i {
    _mm256_madd_epi16(x, _mm256_set1_epi16(1))
}

/// The sums of the lower and of the upper half of each vector.
#[target_feature(enable = "avx2")]
#[inline]
fn add_across(x: [__m256i; SIDE]) -> (__m256i, __m256i) {
    let (front, back) = (add_four(x[0], x[1], x[2], x[3]), add_four(x[4], x[5], x[6], x[7]));
    (_mm256_permute2x128_si256::<0x20>(front, back), _mm256_permute2x128_si256::<0x31>(front, back))
}

/// The sums of `a`, `b`, `c` and `d` within each half of the vector.
#[target_feature(enable = "avx2")]
#[inline]
fn add_four(a: __m256i, b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd))
}
