//! The register tile: up to 14 x 32 sums of integer products.

use super::super::RUN;
use super::super::blocked::{Out, Tile};
use crate::matmul::avx512::{LANES, MR, NR};
use std::arch::x86_64::{
    __m512, __m512i, __mmask16, _MM_HINT_T0, _mm_prefetch, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_loadu_si512, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_si512,
};

/// Words of a run.
const RUN_WORDS: usize = RUN / 4;

/// The tile of `rows` x `vectors`, with `last` lanes of the last vector.
///
/// # Safety
/// As [`tile`].
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
pub(super) unsafe fn multiply(rows: usize, vectors: usize, of: Tile, out: Out, last: __mmask16) {
    macro_rules! by_rows {
        ($vectors:literal: $($rows:literal)*) => {
            match rows {
                // SAFETY: the caller's promise.
                $($rows => unsafe { tile::<$rows, $vectors>(of, out, last) },)*
                _ => unreachable!("a tile of {rows} rows"),
            }
        };
    }
    match vectors {
        2 => by_rows!(2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        _ => by_rows!(1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
    }
}

/// One register tile of `R` rows and `V` vectors.
///
/// # Safety
/// The strips hold the words and runs of `of`, whose totals have room; what `out` names is readable, and writable in `R` rows. The
/// machine has AVX-512 F and VNNI.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn tile<const R: usize, const V: usize>(of: Tile, out: Out, last: __mmask16) {
    for r in 0..R {
        for v in 0..V {
            _mm_prefetch::<_MM_HINT_T0>(out.start.wrapping_add(r * out.stride + v * LANES).cast());
        }
    }
    let runs = of.words.div_ceil(RUN_WORDS);
    // Sums so far and their distance from row to row. Sums of runs stay beside the strips: kept in registers they would be moved about.
    let mut before = if out.is_first { (ZEROS.as_ptr(), 0) } else { (out.start.cast_const(), out.stride) };
    for run in 0..runs {
        let first = run * RUN_WORDS;
        // SAFETY: the caller's promise.
        unsafe {
            let words = RUN_WORDS.min(of.words - first);
            let sums = one_run::<R, V>(words, of.a.add(first * MR), of.b.add(first * NR), of.zeros.add(run * NR));
            let scales = of.scales.add(run * of.scale_step);
            if run + 1 < runs {
                add_up(&sums, scales, before, (of.totals, NR), last);
            } else if out.is_last {
                finish(&sums, scales, before, out, last);
            } else {
                add_up(&sums, scales, before, (out.start, out.stride), last);
            }
        }
        before = (of.totals.cast_const(), NR);
    }
}

/// What sums begin with.
static ZEROS: [f32; NR] = [0.0; NR];

/// Writes `before + scale * sum`.
///
/// # Safety
/// As [`tile`].
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn add_up<const R: usize, const V: usize>(
    sums: &[[__m512i; V]; R],
    scales: *const f32,
    (before, before_step): (*const f32, usize),
    (after, after_step): (*mut f32, usize),
    last: __mmask16,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for r in 0..R {
            let scale = _mm512_set1_ps(*scales.add(r));
            for v in 0..V {
                let mask = if v + 1 < V { __mmask16::MAX } else { last };
                let before = _mm512_maskz_loadu_ps(mask, before.add(r * before_step + v * LANES));
                let total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][v]), scale, before);
                _mm512_mask_storeu_ps(after.add(r * after_step + v * LANES), mask, total);
            }
        }
    }
}

/// Writes `(before + scale * sum) * scale of the column + bias` as results.
///
/// # Safety
/// As [`tile`].
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn finish<const R: usize, const V: usize>(
    sums: &[[__m512i; V]; R],
    scales: *const f32,
    (before, before_step): (*const f32, usize),
    out: Out,
    last: __mmask16,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for v in 0..V {
            let mask = if v + 1 < V { __mmask16::MAX } else { last };
            let of_column = |values: Option<*const f32>, none: __m512| match values {
                Some(values) => _mm512_maskz_loadu_ps(mask, values.add(v * LANES)),
                None => none,
            };
            let column = of_column(out.scales, _mm512_set1_ps(1.0));
            let bias = of_column(out.bias, _mm512_set1_ps(-0.0));
            for r in 0..R {
                let before = _mm512_maskz_loadu_ps(mask, before.add(r * before_step + v * LANES));
                let total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][v]), _mm512_set1_ps(*scales.add(r)), before);
                let result = _mm512_fmadd_ps(total, column, bias);
                _mm512_mask_storeu_ps(out.start.add(r * out.stride + v * LANES), mask, result);
            }
        }
    }
}

/// The sums of some words, on top of `zeros`.
///
/// # Safety
/// As [`tile`].
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
unsafe fn one_run<const R: usize, const V: usize>(
    words: usize,
    a: *const u32,
    b: *const u32,
    zeros: *const i32,
) -> [[__m512i; V]; R] {
    let mut sums = [[_mm512_setzero_si512(); V]; R];
    // SAFETY: the caller's promise.
    unsafe {
        for v in 0..V {
            let zero = _mm512_loadu_si512(zeros.add(v * LANES).cast());
            sums.iter_mut().for_each(|sums| sums[v] = zero);
        }
        let step = |sums: &mut [[__m512i; V]; R], a: *const u32, b: *const u32| {
            let mut columns = [_mm512_setzero_si512(); V];
            for v in 0..V {
                columns[v] = _mm512_loadu_si512(b.add(v * LANES).cast());
            }
            // Written out, since the compiler would rather loop over rows and keep the sums in memory.
            macro_rules! rows {
                ($($r:literal)*) => {
                    $(if $r < R {
                        let x = _mm512_set1_epi32((*a.add($r)).cast_signed());
                        for v in 0..V {
                            sums[$r][v] = _mm512_dpbusd_epi32(sums[$r][v], x, columns[v]);
                        }
                    })*
                };
            }
            rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13);
        };
        let (mut a, mut b) = (a, b);
        for _ in 0..words / 4 {
            for word in 0..4 {
                step(&mut sums, a.add(word * MR), b.add(word * NR));
            }
            (a, b) = (a.add(4 * MR), b.add(4 * NR));
        }
        for word in 0..words % 4 {
            step(&mut sums, a.add(word * MR), b.add(word * NR));
        }
    }
    sums
}
