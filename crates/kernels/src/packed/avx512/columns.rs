//! Sixteen rows of a weight, read by columns: lane `r` of a vector belongs to row `r`.

use crate::packed::rows::Rows;
use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T1, _mm_loadu_si128, _mm_prefetch, _mm256_setr_epi16, _mm512_castsi128_si512,
    _mm512_cvtepi32_epi16, _mm512_cvtph_ps, _mm512_inserti32x4, _mm512_setr_epi32, _mm512_srli_epi32,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

/// Rows side by side.
pub(super) const SIDE: usize = 16;

/// Where each of sixteen rows begins.
pub(super) type Starts = [*const u8; SIDE];

/// Starts of sixteen rows from `row` on. Those behind the last row of the range repeat it.
#[inline(always)]
pub(super) fn row_starts(rows: &Rows<'_>, row: usize) -> Starts {
    let row_bytes = rows.weight.row_bytes();
    let there = &rows.weight.bytes[row * row_bytes..rows.range.end * row_bytes];
    let last = rows.range.end - row - 1;
    std::array::from_fn(|r| there.as_ptr().wrapping_add(r.min(last) * row_bytes))
}

/// The same places `bytes` further on.
#[inline(always)]
pub(super) fn moved(mut starts: Starts, bytes: usize) -> Starts {
    for start in &mut starts {
        *start = start.wrapping_add(bytes);
    }
    starts
}

/// Asks for the part of the next sixteen rows that lies where bytes `at..at + bytes` of each lie in these, counted in bytes
/// of all rows, which the machine does not guess. An address past the end of the matrix is harmless.
///
/// Into the second-level cache: the first level can wait for too few lines at once, and halved the speed.
#[inline(always)]
pub(super) fn prefetch(first: *const u8, row_bytes: usize, at: usize, bytes: usize) {
    let ahead = first.wrapping_add((row_bytes + at) * SIDE);
    for line in 0..(SIDE * bytes).div_ceil(64) {
        // SAFETY: a prefetch reads nothing, and every x86-64 machine has it.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(line * 64).cast()) };
    }
}

/// The 16 bytes `at` bytes behind each start, as four columns of four bytes.
///
/// # Safety
/// They are readable, and the machine has AVX-512F.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) unsafe fn four_columns(starts: Starts, at: usize) -> [__m512i; 4] {
    // Rows k, k + 4, k + 8 and k + 12 in the quarters of a vector; each quarter of four vectors is a square to transpose.
    // SAFETY: the caller's promise.
    let row = |r: usize| unsafe { _mm_loadu_si128(starts[r].add(at).cast()) };
    let quarters = |k: usize| {
        let x = _mm512_castsi128_si512(row(k));
        let x = _mm512_inserti32x4::<1>(x, row(k + 4));
        let x = _mm512_inserti32x4::<2>(x, row(k + 8));
        _mm512_inserti32x4::<3>(x, row(k + 12))
    };
    let (a, b, c, d) = (quarters(0), quarters(1), quarters(2), quarters(3));
    let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab, cd),
        _mm512_unpackhi_epi64(ab, cd),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// The 32 bytes `at` bytes behind each start, as eight columns.
///
/// # Safety
/// As [`four_columns`].
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) unsafe fn eight_columns(starts: Starts, at: usize) -> [__m512i; 8] {
    // SAFETY: the caller's promise.
    let ([a, b, c, d], [e, f, g, h]) = unsafe { (four_columns(starts, at), four_columns(starts, at + 16)) };
    [a, b, c, d, e, f, g, h]
}

/// The four bytes `at` bytes behind each start.
///
/// # Safety
/// As [`four_columns`].
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) unsafe fn column(starts: Starts, at: usize) -> __m512i {
    // SAFETY: the caller's promise.
    let of = |r: usize| unsafe { starts[r].add(at).cast::<i32>().read_unaligned() };
    _mm512_setr_epi32(
        of(0),
        of(1),
        of(2),
        of(3),
        of(4),
        of(5),
        of(6),
        of(7),
        of(8),
        of(9),
        of(10),
        of(11),
        of(12),
        of(13),
        of(14),
        of(15),
    )
}

/// The binary16 `at` bytes behind each start.
///
/// # Safety
/// As [`four_columns`].
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) unsafe fn halves(starts: Starts, at: usize) -> __m512 {
    // SAFETY: the caller's promise.
    let of = |r: usize| unsafe { starts[r].add(at).cast::<i16>().read_unaligned() };
    _mm512_cvtph_ps(_mm256_setr_epi16(
        of(0),
        of(1),
        of(2),
        of(3),
        of(4),
        of(5),
        of(6),
        of(7),
        of(8),
        of(9),
        of(10),
        of(11),
        of(12),
        of(13),
        of(14),
        of(15),
    ))
}

/// The first and the second binary16 of each lane.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn half_pair(column: __m512i) -> (__m512, __m512) {
    let second = _mm512_srli_epi32::<16>(column);
    (_mm512_cvtph_ps(_mm512_cvtepi32_epi16(column)), _mm512_cvtph_ps(_mm512_cvtepi32_epi16(second)))
}
