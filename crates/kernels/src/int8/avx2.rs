//! Register tiles for AVX2, and for AVX-VNNI: AVX-512's instruction for words of four bytes in vectors of 256 bits.
//!
//! AVX2 alone multiplies words of two integers of 16 bits: `vpmaddwd` and an addition, which are exact for any bytes. `vpmaddubsw` takes
//! twice as many at a time, but its sums of two saturate unless one factor is below 128. Made so by the sign of the other, a product
//! is as many operations as this one's, and was 3 % slower on Zen 5.
#![expect(unsafe_code, reason = "calls of functions with target features")]

mod pack;
mod tile;

use super::blocked::{Out, Tile, Tiles, Weights};
use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_dpbusd_avx_epi32, _mm256_madd_epi16, _mm256_slli_epi16, _mm256_srai_epi16,
};
use std::ops::Range;

/// Lanes of a vector.
const LANES: usize = 8;
/// Rows of a register tile.
const MR: usize = 6;
/// Columns of one: two vectors.
const NR: usize = 2 * LANES;

/// What words hold, and how they are multiplied. Functions run on machines with AVX2 and FMA, and what else a type names.
pub(super) trait Words: Sync {
    /// Words of four steps.
    const PER_FOUR: usize;
    /// What an activation's byte is above the integer.
    const ABOVE: u8;

    /// The words of four steps each; with one word of four, the first vector alone.
    ///
    /// # Safety
    /// The machine has the instructions.
    unsafe fn words(fours: __m256i) -> [__m256i; 2];

    /// `sums` and the products of words.
    ///
    /// # Safety
    /// The machine has the instructions.
    unsafe fn multiply_add(sums: __m256i, x: __m256i, weights: __m256i) -> __m256i;

    /// A tile of `R` rows and all columns.
    ///
    /// # Safety
    /// As [`Tiles::multiply`].
    unsafe fn tile<const R: usize>(of: Tile, out: Out);
}

/// Integers of 16 bits: the first and third of four steps in a word, the second and fourth in the next. For AVX2.
pub(super) struct Pairs;

/// Bytes: four steps in a word, activations without sign, as in `vnni.rs`. For AVX-VNNI.
pub(super) struct Bytes;

impl Words for Pairs {
    const PER_FOUR: usize = 2;
    const ABOVE: u8 = 0;

    #[inline(always)]
    unsafe fn words(fours: __m256i) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(fours)), _mm256_srai_epi16::<8>(fours)] }
    }

    #[inline(always)]
    unsafe fn multiply_add(sums: __m256i, x: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(x, weights)) }
    }

    unsafe fn tile<const R: usize>(of: Tile, out: Out) {
        // SAFETY: the caller's promise.
        unsafe { tile::of_pairs::<R>(of, out) }
    }
}

impl Words for Bytes {
    const PER_FOUR: usize = 1;
    const ABOVE: u8 = 128;

    #[inline(always)]
    unsafe fn words(fours: __m256i) -> [__m256i; 2] {
        [fours; 2]
    }

    #[inline(always)]
    unsafe fn multiply_add(sums: __m256i, x: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_dpbusd_avx_epi32(sums, x, weights) }
    }

    unsafe fn tile<const R: usize>(of: Tile, out: Out) {
        // SAFETY: the caller's promise.
        unsafe { tile::of_bytes::<R>(of, out) }
    }
}

impl<W: Words> Tiles for W {
    const MR: usize = MR;
    const NR: usize = NR;
    const WORDS: usize = W::PER_FOUR;
    // A strip of weights (16 KB) stays in the first-level cache, activations pass by from the second level.
    const KC: usize = 1024 / W::PER_FOUR;
    const NEAR_WORDS: usize = 1 << 14;

    unsafe fn round<'x>(
        rows: impl Iterator<Item = &'x [f32]>,
        fold: Option<&[f32]>,
        out: *mut u32,
        scales: *mut f32,
        scale_step: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe { pack::activations::<W>(rows, fold, out, scales, scale_step) }
    }

    unsafe fn pack(weights: &Weights<'_>, columns: Range<usize>, steps: Range<usize>, out: *mut u32, zeros: *mut i32) {
        // SAFETY: the caller's promise.
        unsafe { pack::weights::<W>(weights, columns, steps, out, zeros) }
    }

    unsafe fn multiply(rows: usize, columns: usize, of: Tile, out: Out) {
        // SAFETY: the caller's promise.
        unsafe { tile::multiply::<W>(rows, columns, of, out) }
    }
}
