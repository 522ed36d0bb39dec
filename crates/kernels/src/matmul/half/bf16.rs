//! bf16: operands are rounded, sums are f32.
//!
//! Rounding is to the nearest, ties to even, as `vcvtne2ps2bf16` does it: a NaN stays a NaN and an infinity an infinity, a
//! number above the largest of bf16 (3.3895e38) by half a step or more becomes an infinity, and a denormal a zero.

use super::super::avx512::{LANES, MR, NR, Out, write_tile};
use super::pack::Half;
use std::arch::x86_64::{
    __m512, __m512bh, __m512i, __mmask16, _MM_HINT_T0, _mm_prefetch, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
};

/// The upper half of binary32.
pub(super) struct Bf16;

impl Half for Bf16 {
    const SCALED: bool = false;

    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline]
    unsafe fn rounded(low: __m512, high: __m512) -> __m512i {
        // SAFETY: both are 512 bits, all of which are valid.
        unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
    }
}

/// The tile of `rows` x `vectors`.
///
/// # Safety
/// As [`tile`].
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
pub(super) unsafe fn multiply(rows: usize, vectors: usize, words: usize, a: *const u32, b: *const u32, out: Out) {
    // SAFETY: the caller's promise.
    unsafe { tile_of!(rows, vectors, tile(words, a, b, out)) }
}

/// One register tile of `R` rows and `V` vectors: up to 14 x 32 sums of products of pairs.
///
/// # Safety
/// `a` is a strip of [`MR`] lanes and `b` one of [`NR`], both of `words`; what `out` names is writable in `R` rows.
/// The machine has AVX-512 F and BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile<const R: usize, const V: usize>(words: usize, a: *const u32, b: *const u32, out: Out) {
    // SAFETY: the caller's promise bounds every pointer below; words are two halves each, and any bits are halves.
    unsafe {
        for r in 0..R {
            for v in 0..V {
                _mm_prefetch::<_MM_HINT_T0>(out.start.wrapping_add(r * out.stride + v * LANES).cast());
            }
        }
        let halves = |x: __m512| std::mem::transmute::<__m512, __m512bh>(x);
        let mut sums = [[_mm512_setzero_ps(); V]; R];
        let step = |sums: &mut [[__m512; V]; R], a: *const f32, b: *const f32| {
            let mut columns = [_mm512_setzero_ps(); V];
            for v in 0..V {
                columns[v] = _mm512_loadu_ps(b.add(v * LANES));
            }
            // Written out, since the compiler would rather loop over rows and keep the sums in memory.
            macro_rules! rows {
                ($($r:literal)*) => {
                    $(if $r < R {
                        let x = halves(_mm512_set1_ps(*a.add($r)));
                        for v in 0..V {
                            sums[$r][v] = _mm512_dpbf16_ps(sums[$r][v], x, halves(columns[v]));
                        }
                    })*
                };
            }
            rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13);
        };
        let (mut a, mut b): (*const f32, *const f32) = (a.cast(), b.cast());
        for _ in 0..words / 4 {
            for word in 0..4 {
                step(&mut sums, a.add(word * MR), b.add(word * NR));
            }
            (a, b) = (a.add(4 * MR), b.add(4 * NR));
        }
        for word in 0..words % 4 {
            step(&mut sums, a.add(word * MR), b.add(word * NR));
        }
        write_tile!(sums, out, R, V);
    }
}
