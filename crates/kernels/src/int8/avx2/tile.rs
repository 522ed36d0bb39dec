//! The register tile: up to 6 x 16 sums of integer products.

use super::super::RUN;
use super::super::blocked::{Out, Tile};
use super::{Bytes, LANES, MR, NR, Pairs, Words};
use std::arch::x86_64::{
    __m256, __m256i, _MM_HINT_T0, _mm_prefetch, _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_storeu_ps,
};

/// The tile of `rows` x `columns`.
///
/// # Safety
/// As `Tiles::multiply`.
pub(super) unsafe fn multiply<W: Words>(rows: usize, columns: usize, of: Tile, out: Out) {
    if columns == NR {
        // SAFETY: the caller's promise.
        return unsafe { by_rows::<W>(rows, of, out) };
    }
    // What the last columns of the results would have beyond their end is beside them.
    let (mut results, mut scales, mut bias) = ([0.0; MR * NR], [0.0; NR], [0.0; NR]);
    let copied = |values: Option<*const f32>, to: &mut [f32; NR]| {
        values.map(|values| {
            // SAFETY: there is a value for each column.
            unsafe { values.copy_to_nonoverlapping(to.as_mut_ptr(), columns) };
            to.as_ptr()
        })
    };
    let (scales, bias) = (copied(out.scales, &mut scales), copied(out.bias, &mut bias));
    // SAFETY: rows of the result have these columns.
    unsafe {
        for row in 0..if out.is_first { 0 } else { rows } {
            let from = out.start.wrapping_add(row * out.stride).cast_const();
            from.copy_to_nonoverlapping(results[row * NR..].as_mut_ptr(), columns);
        }
        by_rows::<W>(rows, of, Out { start: results.as_mut_ptr(), stride: NR, scales, bias, ..out });
        for row in 0..rows {
            let to = out.start.wrapping_add(row * out.stride);
            results[row * NR..].as_ptr().copy_to_nonoverlapping(to, columns);
        }
    }
}

/// The tile of `rows` and all columns.
///
/// # Safety
/// As `Tiles::multiply`.
unsafe fn by_rows<W: Words>(rows: usize, of: Tile, out: Out) {
    macro_rules! by_rows {
        ($($rows:literal)*) => {
            match rows {
                // SAFETY: the caller's promise.
                $($rows => unsafe { W::tile::<$rows>(of, out) },)*
                _ => unreachable!("a tile of {rows} rows"),
            }
        };
    }
    by_rows!(1 2 3 4 5 6);
}

/// # Safety
/// As `Tiles::multiply`; the machine has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn of_pairs<const R: usize>(of: Tile, out: Out) {
    // SAFETY: the caller's promise.
    unsafe { tile::<Pairs, R>(of, out) }
}

/// # Safety
/// As `Tiles::multiply`; the machine has AVX2, FMA and AVX-VNNI.
#[target_feature(enable = "avx2,fma,avxvnni")]
pub(super) unsafe fn of_bytes<const R: usize>(of: Tile, out: Out) {
    // SAFETY: the caller's promise.
    unsafe { tile::<Bytes, R>(of, out) }
}

/// One register tile: always inlined into a function with the target features.
///
/// # Safety
/// As `Tiles::multiply`.
#[inline(always)]
unsafe fn tile<W: Words, const R: usize>(of: Tile, out: Out) {
    let run_words = RUN / 4 * W::PER_FOUR;
    let runs = of.words.div_ceil(run_words);
    // Sums so far and their distance from row to row.
    let mut before = if out.is_first { (ZEROS.as_ptr(), 0) } else { (out.start.cast_const(), out.stride) };
    // SAFETY: the caller's promise.
    unsafe {
        for r in 0..R {
            _mm_prefetch::<_MM_HINT_T0>(out.start.wrapping_add(r * out.stride).cast());
            _mm_prefetch::<_MM_HINT_T0>(out.start.wrapping_add(r * out.stride + NR - 1).cast());
        }
        for run in 0..runs {
            let first = run * run_words;
            let words = run_words.min(of.words - first);
            let sums = one_run::<W, R>(words, of.a.add(first * MR), of.b.add(first * NR), of.zeros.add(run * NR));
            let scales = of.scales.add(run * of.scale_step);
            if run + 1 < runs {
                add_up(&sums, scales, before, (of.totals, NR));
            } else if out.is_last {
                finish(&sums, scales, before, out);
            } else {
                add_up(&sums, scales, before, (out.start, out.stride));
            }
            before = (of.totals.cast_const(), NR);
        }
    }
}

/// What sums begin with.
static ZEROS: [f32; NR] = [0.0; NR];

/// `before + scale * sum`, for a vector of row `r`.
///
/// # Safety
/// As `Tiles::multiply`.
#[inline(always)]
unsafe fn total(sums: __m256i, scale: *const f32, before: *const f32) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe { _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(*scale), _mm256_loadu_ps(before)) }
}

/// Writes `before + scale * sum`.
///
/// # Safety
/// As `Tiles::multiply`.
#[inline(always)]
unsafe fn add_up<const R: usize>(
    sums: &[[__m256i; 2]; R],
    scales: *const f32,
    (before, before_step): (*const f32, usize),
    (after, after_step): (*mut f32, usize),
) {
    for (r, sums) in sums.iter().enumerate() {
        for (v, sums) in sums.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let total = total(*sums, scales.add(r), before.add(r * before_step + v * LANES));
                _mm256_storeu_ps(after.add(r * after_step + v * LANES), total);
            }
        }
    }
}

/// Writes `(before + scale * sum) * scale of the column + bias` as results.
///
/// # Safety
/// As `Tiles::multiply`.
#[inline(always)]
unsafe fn finish<const R: usize>(
    sums: &[[__m256i; 2]; R],
    scales: *const f32,
    (before, before_step): (*const f32, usize),
    out: Out,
) {
    for v in 0..2 {
        // SAFETY: the caller's promise.
        unsafe {
            let of_column = |values: Option<*const f32>, none: f32| match values {
                Some(values) => _mm256_loadu_ps(values.add(v * LANES)),
                None => _mm256_set1_ps(none),
            };
            let (column, bias) = (of_column(out.scales, 1.0), of_column(out.bias, -0.0));
            for (r, sums) in sums.iter().enumerate() {
                let total = total(sums[v], scales.add(r), before.add(r * before_step + v * LANES));
                let result = _mm256_fmadd_ps(total, column, bias);
                _mm256_storeu_ps(out.start.add(r * out.stride + v * LANES), result);
            }
        }
    }
}

/// The sums of some words, on top of `zeros` where activations are not what their bytes are.
///
/// # Safety
/// As `Tiles::multiply`.
#[inline(always)]
unsafe fn one_run<W: Words, const R: usize>(
    words: usize,
    a: *const u32,
    b: *const u32,
    zeros: *const i32,
) -> [[__m256i; 2]; R] {
    // SAFETY: the caller's promise.
    unsafe {
        let zero = if W::ABOVE == 0 { [_mm256_setzero_si256(); 2] } else { vectors(zeros.cast()) };
        let mut sums = [zero; R];
        // One word at a time: written out for several, the compiler adds up products first and keeps sums in memory.
        for word in 0..words {
            step::<W, R>(&mut sums, a.add(word * MR), b.add(word * NR));
        }
        sums
    }
}

/// Two vectors.
///
/// # Safety
/// They are there.
#[inline(always)]
unsafe fn vectors(from: *const u32) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(LANES).cast())] }
}

/// Adds the products of one word of each row and column.
///
/// # Safety
/// As `Tiles::multiply`.
#[inline(always)]
unsafe fn step<W: Words, const R: usize>(sums: &mut [[__m256i; 2]; R], a: *const u32, b: *const u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let columns = vectors(b);
        // Written out, since the compiler would rather loop over rows and keep the sums in memory.
        macro_rules! rows {
            ($($r:literal)*) => {
                $(if $r < R {
                    let x = _mm256_set1_epi32((*a.add($r)).cast_signed());
                    sums[$r][0] = W::multiply_add(sums[$r][0], x, columns[0]);
                    sums[$r][1] = W::multiply_add(sums[$r][1], x, columns[1]);
                })*
            };
        }
        rows!(0 1 2 3 4 5);
    }
}
