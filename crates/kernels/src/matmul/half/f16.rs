//! binary16: operands are scaled and rounded, and sums over short runs of the shared dimension are binary16 too.
//!
//! A vector multiplies and adds 32 halves at once, two to a word: one sum for even steps and one for odd ones. After a run of
//! `RUN` words both are widened and added to sums in f32, since a sum of halves has a rounding error of up to `2^-11` of itself
//! at each step. Each row of `A` and each column of `B` is scaled by a power of two of its own in each block of the shared
//! dimension (`pack.rs`), so that no sum over a run is infinite, and what is small in all of a row is not lost.
//!
//! How long a run is, is a choice between errors and the way to f32. Errors, of all results relative to all results, over 1024
//! steps of random numbers in [-0.5, 0.5) and of their magnitudes, where all terms have one sign (`model.rs` has the test); and
//! multiply-adds a cycle, of two that Sapphire Rapids' ports allow, as LLVM's model of it has them (`llvm-mca` 14, which counts 1.87
//! for the loop alone):
//!
//! | words of a run | 16 | 32 | 64 | 128 | bf16 |
//! |---|---|---|---|---|---|
//! | error, random | 6.5e-4 | 9.0e-4 | 1.2e-3 | 1.7e-3 | 2.2e-3 |
//! | error, one sign | 6.7e-5 | 1.2e-4 | 2.4e-4 | 4.9e-4 | 8.7e-5 |
//! | multiply-adds a cycle | 1.35 | 1.56 | 1.70 | 1.78 | |
//!
//! At 64 words errors are half of those of bf16, but where all terms have one sign, and small there too. Half the run would halve
//! those of one sign for 8 % of the time, twice the run take half as much off.
//!
//! Tested in an emulator (Bochs' Sapphire Rapids), not timed on a CPU that has the instructions; [`is_sound`] is a trial on each.
//!
//! Source: Goto and van de Geijn 2008, as in `mod.rs`; Blanchard et al. 2020, "Mixed precision block fused multiply-add: error
//! analysis and application to GPU tensor cores", <https://doi.org/10.1137/19M1289546>, for sums in blocks.

use super::super::avx512::{LANES, MR, NR, Out, write_tile};
use super::super::{Onto, View, ViewMut, matmul};
use super::RUN;
use super::pack::Half;
use crate::exec::{Exec, HalfFormat};
use crate::parallel::Denormals;
use std::arch::x86_64::{
    __m256i, __m512, __m512h, __m512i, __mmask16, _MM_FROUND_CUR_DIRECTION, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T0,
    _mm_prefetch, _mm512_add_ps, _mm512_castps_ph, _mm512_castsi256_si512, _mm512_cvt_roundph_ps, _mm512_cvtps_ph,
    _mm512_fmadd_ph, _mm512_fmadd_ps, _mm512_inserti64x4, _mm512_loadu_ps, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps, _mm512_permutex2var_ps, _mm512_scalef_ps, _mm512_set_epi32, _mm512_set1_ps,
    _mm512_setzero_ph, _mm512_setzero_ps,
};
use std::hint::black_box;
use std::sync::OnceLock;

/// Largest error, of the sum of its terms' magnitudes, of a product that is right: several times what is seen.
const BOUND: f32 = 2e-3;

/// binary16.
pub(super) struct F16;

impl Half for F16 {
    const SCALED: bool = true;

    /// As AVX-512 F has it: a NaN stays a NaN and an infinity an infinity, a denormal f32 is zero where the thread flushes those, and a
    /// denormal half is a number always.
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn rounded(low: __m512, high: __m512) -> __m512i {
        let low = _mm512_castsi256_si512(_mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(low));
        _mm512_inserti64x4::<1>(low, _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(high))
    }
}

/// The tile of `rows` x `vectors`.
///
/// # Safety
/// As [`tile`].
#[target_feature(enable = "avx512f,avx512fp16")]
#[inline]
pub(super) unsafe fn multiply(rows: usize, vectors: usize, words: usize, a: *const u32, b: *const u32, out: Out) {
    // SAFETY: the caller's promise.
    unsafe { tile_of!(rows, vectors, tile(words, a, b, out)) }
}

/// One register tile of `R` rows and `V` vectors.
///
/// # Safety
/// `a` is a strip of [`MR`] lanes and `b` one of [`NR`], both of `words` after their exponents; what `out` names is writable in
/// `R` rows. The machine has AVX-512 F and FP16.
#[target_feature(enable = "avx512f,avx512fp16")]
unsafe fn tile<const R: usize, const V: usize>(words: usize, a: *const u32, b: *const u32, out: Out) {
    // SAFETY: the caller's promise bounds every pointer below; words are two halves each, and any bits are halves.
    unsafe {
        for r in 0..R {
            for v in 0..V {
                _mm_prefetch::<_MM_HINT_T0>(out.start.wrapping_add(r * out.stride + v * LANES).cast());
            }
        }
        let (a_exponents, b_exponents): (*const f32, *const f32) = (a.cast(), b.cast());
        let (mut a, mut b) = (a_exponents.add(MR), b_exponents.add(NR));
        // Sources disagree on whether these instructions heed a thread's wish to flush denormals.
        let kept = Denormals::kept();
        let mut wide = [[[_mm512_setzero_ps(); 2]; V]; R];
        for first in (0..words).step_by(RUN) {
            let mut sums = [[_mm512_setzero_ph(); V]; R];
            let step = |sums: &mut [[__m512h; V]; R], a: *const f32, b: *const f32| {
                let mut columns = [_mm512_setzero_ph(); V];
                for v in 0..V {
                    columns[v] = _mm512_castps_ph(_mm512_loadu_ps(b.add(v * LANES)));
                }
                // Written out, since the compiler would rather loop over rows and keep the sums in memory.
                macro_rules! rows {
                    ($($r:literal)*) => {
                        $(if $r < R {
                            // A word is broadcast by the load alone, a half would take a port of the multiplier.
                            let x = _mm512_castps_ph(_mm512_set1_ps(*a.add($r)));
                            for v in 0..V {
                                sums[$r][v] = _mm512_fmadd_ph(x, columns[v], sums[$r][v]);
                            }
                        })*
                    };
                }
                rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13);
            };
            let run = RUN.min(words - first);
            for _ in 0..run / 4 {
                for word in 0..4 {
                    step(&mut sums, a.add(word * MR), b.add(word * NR));
                }
                (a, b) = (a.add(4 * MR), b.add(4 * NR));
            }
            for _ in 0..run % 4 {
                step(&mut sums, a, b);
                (a, b) = (a.add(MR), b.add(NR));
            }
            // Through memory, so that a loop does it: in registers it would take as long, in many times the code.
            let halves = sums;
            let halves = black_box(&raw const halves);
            for r in 0..R {
                for v in 0..V {
                    let at: *const __m256i = (&raw const (*halves)[r][v]).cast();
                    for (half, sum) in wide[r][v].iter_mut().enumerate() {
                        *sum = _mm512_add_ps(*sum, _mm512_cvt_roundph_ps::<_MM_FROUND_CUR_DIRECTION>(*at.add(half)));
                    }
                }
            }
        }
        drop(kept);
        // Nothing below is done before denormals are flushed again.
        let wide = black_box(&raw const wide);
        let evens = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
        let odds = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
        let mut sums = [[_mm512_setzero_ps(); V]; R];
        for r in 0..R {
            for v in 0..V {
                let [low, high] = (*wide)[r][v];
                let (even, odd) = (_mm512_permutex2var_ps(low, evens, high), _mm512_permutex2var_ps(low, odds, high));
                let exponents =
                    _mm512_add_ps(_mm512_set1_ps(*a_exponents.add(r)), _mm512_loadu_ps(b_exponents.add(v * LANES)));
                sums[r][v] = _mm512_scalef_ps(_mm512_add_ps(even, odd), exponents);
            }
        }
        write_tile!(sums, out, R, V);
    }
}

/// Whether products of binary16 are right on this CPU, which has them: one of 130 x 200 x 70 is compared with that in f32, once
/// in the life of a process. If it is not, that is said in a warning, and [`crate::exec::Isa::half_products`] leaves them out.
///
/// This stands for a trial on such a CPU, which the authors did not have.
pub(crate) fn is_sound() -> bool {
    static IS_SOUND: OnceLock<bool> = OnceLock::new();
    *IS_SOUND.get_or_init(|| {
        let exec = Exec::new(1).with_half_products(HalfFormat::F16);
        let is_sound = is_like_f32(|a, b, c| matmul(exec, Onto::Overwrite, 1.0, a, b, c));
        if !is_sound {
            tracing::warn!("products with AVX512-FP16 are not used: one was compared with f32's, and is wrong");
        }
        is_sound
    })
}

/// Whether a product is that in f32 to within [`BOUND`].
fn is_like_f32(product: impl Fn(View<'_>, View<'_>, ViewMut<'_>)) -> bool {
    const M: usize = 130;
    const K: usize = 200;
    const N: usize = 70;
    // Between -0.5 and 0.5, times powers of two by row.
    let values = |count: usize, salt: usize| -> Vec<f32> {
        let value = |i: usize| ((i * 7919 + salt) % 2003) as f32 / 2003.0 - 0.5;
        (0..count).map(|i| value(i) * (1_u32 << (i / K % 31)) as f32).collect()
    };
    let (a, b) = (values(M * K, 1), values(N * K, 2));
    let sizes = |x: &[f32]| x.iter().map(|x| x.abs()).collect::<Vec<_>>();
    // Rows of `A` and columns of `B` lie together.
    let run = |product: &dyn Fn(View<'_>, View<'_>, ViewMut<'_>), a: &[f32], b: &[f32]| {
        let mut c = vec![0.0; M * N];
        product(View::new(a, M, K), View::new(b, N, K).t(), ViewMut::new(&mut c, M, N));
        c
    };
    let f32 = |a: View<'_>, b: View<'_>, c: ViewMut<'_>| matmul(Exec::new(1), Onto::Overwrite, 1.0, a, b, c);
    let (want, sizes) = (run(&f32, &a, &b), run(&f32, &sizes(&a), &sizes(&b)));
    let found = run(&product, &a, &b);
    // A NaN is not.
    found.iter().zip(want).zip(sizes).all(|((found, want), size)| (found - want).abs() <= BOUND * size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_that_is_off_is_seen() {
        let f32 = |a: View<'_>, b: View<'_>, c: ViewMut<'_>| matmul(Exec::new(1), Onto::Overwrite, 1.0, a, b, c);
        assert!(is_like_f32(f32));
        assert!(!is_like_f32(|a, b, c| matmul(Exec::new(1), Onto::Overwrite, 1.02, a, b, c)));
        assert!(!is_like_f32(|_, _, _| ()));
        // One element is wrong, or none is a number.
        for wrong in [1.1, f32::NAN] {
            assert!(!is_like_f32(|a, b, c| {
                let last = c.data.len() - 1;
                // SAFETY: nobody else has the matrix.
                let spoil = unsafe { c.data.from(last) };
                f32(a, b, c);
                // SAFETY: as above.
                unsafe { spoil.slice(0, 1)[0] *= wrong };
            }));
        }
    }
}
