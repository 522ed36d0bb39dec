//! Where each format keeps its bits, for vectors: 32 integers at a time, and the scales of eight rows side by side.

use crate::matmul::avx2::transpose;
use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_and_si128, _mm_cvtph_ps, _mm_cvtsi32_si128, _mm_loadl_epi64, _mm_loadu_si128,
    _mm_movehdup_ps, _mm_or_si128, _mm_set1_epi8, _mm_setr_epi8, _mm_setr_epi16, _mm_setr_epi32, _mm_shuffle_epi8,
    _mm_srli_epi16, _mm_srlv_epi32, _mm_unpackhi_epi64, _mm_unpacklo_epi64, _mm256_and_si256, _mm256_andnot_si256,
    _mm256_broadcastsi128_si256, _mm256_broadcastss_ps, _mm256_cmpeq_epi8, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps,
    _mm256_cvtepu8_epi32, _mm256_cvtph_ps, _mm256_loadu_si256, _mm256_mul_ps, _mm256_or_si256, _mm256_set_m128i,
    _mm256_set1_epi8, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_set1_ps, _mm256_setr_epi64x, _mm256_setzero_ps,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi16, _mm256_srl_epi16, _mm256_srli_epi16,
    _mm256_srlv_epi32, _mm256_storeu_ps, _mm256_sub_epi8, _mm256_sub_ps,
};

/// Rows whose scales stand side by side.
pub(super) const SIDE: usize = 8;

/// A quantized format, as the vector path reads it.
pub(super) trait Layout {
    /// Bytes of a block.
    const BYTES: usize;
    /// Runs of 32 integers in a block.
    const RUNS: usize;
    /// Scales in a run of 32.
    const SCALES: usize = 1;
    /// Whether weights have offsets.
    const OFFSETS: bool = true;
    /// The largest magnitude of an integer; those with offsets are not negative, the others signed.
    const LARGEST: usize;

    /// The 32 integers of run `run` of a block, in order.
    ///
    /// # Safety
    /// `block` is readable for [`Layout::BYTES`], `run` is below [`Layout::RUNS`], and the machine has AVX2.
    unsafe fn integers(block: *const u8, run: usize) -> __m256i;

    /// Whether [`Layout::pair`] may be called, which is faster than two runs.
    const PAIRS: bool = false;

    /// The integers of two neighbouring runs, the first of which is the even run `run` of a block or a block of its own: the
    /// first 16 of both, and the last 16 of both.
    ///
    /// # Safety
    /// The blocks are readable, and the machine has AVX2.
    unsafe fn pair(_block: *const u8, _run: usize) -> [__m256i; 2] {
        unreachable!("this layout has no pairs")
    }

    /// Scales and offsets of the runs of one block in eight rows: number `8 i + r` is that of scale `i` in row `r`.
    ///
    /// # Safety
    /// Each of `blocks` is readable for [`Layout::BYTES`]; `scales` and `offsets` are writable for eight floats a scale;
    /// the machine has AVX2, FMA and F16C.
    unsafe fn scales(blocks: [*const u8; SIDE], scales: *mut f32, offsets: *mut f32);
}

/// 16 bytes of nibbles: the lower halves, then the upper.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn nibbles(bytes: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    let bytes = unsafe { _mm_loadu_si128(bytes.cast()) };
    let both = _mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes);
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

/// The nibbles of two 16 bytes: the lower halves of both, then the upper halves of both.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn nibble_pair(first: *const u8, second: *const u8) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    let bytes = unsafe { _mm256_set_m128i(_mm_loadu_si128(second.cast()), _mm_loadu_si128(first.cast())) };
    let mask = _mm256_set1_epi8(15);
    [_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask)]
}

/// 16 in the bytes whose bit is set in the 32 bits at `bits`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn fifth_bits(bits: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    let bits = _mm256_set1_epi32(unsafe { bits.cast::<i32>().read_unaligned() });
    let byte_of = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let bit_of = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let bits = _mm256_and_si256(_mm256_shuffle_epi8(bits, byte_of), bit_of);
    let clear = _mm256_cmpeq_epi8(bits, _mm256_setzero_si256());
    _mm256_andnot_si256(clear, _mm256_set1_epi8(16))
}

/// `bytes >> shift & mask` in 32 bytes.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn bits(bytes: *const u8, shift: usize, mask: i8) -> __m256i {
    // SAFETY: the caller's promise.
    let bytes = unsafe { _mm256_loadu_si256(bytes.cast()) };
    let shifted = _mm256_srl_epi16(bytes, _mm_cvtsi32_si128(shift as i32));
    _mm256_and_si256(shifted, _mm256_set1_epi8(mask))
}

/// The binary16 at byte `at` of each block.
#[target_feature(enable = "avx2,f16c")]
#[inline]
unsafe fn halves(blocks: [*const u8; SIDE], at: usize) -> __m256 {
    // SAFETY: the caller's promise.
    let half = |row: usize| unsafe { blocks[row].add(at).cast::<i16>().read_unaligned() };
    _mm256_cvtph_ps(_mm_setr_epi16(half(0), half(1), half(2), half(3), half(4), half(5), half(6), half(7)))
}

/// The two binary16 at the start of each block: all first ones, all second ones.
#[target_feature(enable = "avx2,f16c")]
#[inline]
unsafe fn half_pairs(at: [*const u8; SIDE]) -> (__m256, __m256) {
    // SAFETY: the caller's promise.
    let pair = |row: usize| unsafe { at[row].cast::<i32>().read_unaligned() };
    let part = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    let low = _mm_shuffle_epi8(_mm_setr_epi32(pair(0), pair(1), pair(2), pair(3)), part);
    let high = _mm_shuffle_epi8(_mm_setr_epi32(pair(4), pair(5), pair(6), pair(7)), part);
    (_mm256_cvtph_ps(_mm_unpacklo_epi64(low, high)), _mm256_cvtph_ps(_mm_unpackhi_epi64(low, high)))
}

/// Scale `d` and offset `zero d` of eight blocks.
#[target_feature(enable = "avx2,f16c")]
#[inline]
unsafe fn scales_about(zero: f32, blocks: [*const u8; SIDE], scales: *mut f32, offsets: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let d = halves(blocks, 0);
        _mm256_storeu_ps(scales, d);
        _mm256_storeu_ps(offsets, _mm256_mul_ps(d, _mm256_set1_ps(zero)));
    }
}

/// Scale and offset of eight blocks that begin with them.
#[target_feature(enable = "avx2,f16c")]
#[inline]
unsafe fn scales_and_offsets(blocks: [*const u8; SIDE], scales: *mut f32, offsets: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let (d, m) = half_pairs(blocks);
        _mm256_storeu_ps(scales, d);
        _mm256_storeu_ps(offsets, m);
    }
}

/// Eight scales and offsets of 6 bits in each of eight blocks.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn six_bit_scales_and_offsets(blocks: [*const u8; SIDE], scales: *mut f32, offsets: *mut f32) {
    let (mut by_row, mut offsets_by_row) = ([_mm256_setzero_ps(); SIDE], [_mm256_setzero_ps(); SIDE]);
    for row in 0..SIDE {
        // SAFETY: the caller's promise: a block begins with two halves and twelve bytes.
        let head = unsafe { _mm_loadu_si128(blocks[row].cast()) };
        let halves = _mm_cvtph_ps(head);
        let six_bits = six_bit_integers(head);
        let (d, e) = (_mm256_broadcastss_ps(halves), _mm256_broadcastss_ps(_mm_movehdup_ps(halves)));
        let minima = _mm256_mul_ps(e, bytes_as_floats(_mm_unpackhi_epi64(six_bits, six_bits)));
        by_row[row] = _mm256_mul_ps(d, bytes_as_floats(six_bits));
        offsets_by_row[row] = _mm256_sub_ps(_mm256_setzero_ps(), minima);
    }
    for (by_row, out) in [(by_row, scales), (offsets_by_row, offsets)] {
        for (run, by_run) in transpose(by_row).into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { _mm256_storeu_ps(out.add(run * SIDE), by_run) };
        }
    }
}

/// Eight scales, then eight minima, from the twelve bytes behind the first four. [`crate::packed::blocks`] does the same in
/// plain Rust.
#[target_feature(enable = "avx2")]
#[inline]
fn six_bit_integers(head: __m128i) -> __m128i {
    // Runs 0 to 3 are whole in one byte; of runs 4 to 7 four bits are in the last four bytes, the minima's above.
    let low = _mm_shuffle_epi8(head, _mm_setr_epi8(4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
    let low = _mm_srlv_epi32(low, _mm_setr_epi32(0, 0, 0, 4));
    let low = _mm_and_si128(low, _mm_setr_epi32(0x3F3F_3F3F, 0x0F0F_0F0F, 0x3F3F_3F3F, 0x0F0F_0F0F));
    // And two are above the six bits of runs 0 to 3.
    let high = _mm_shuffle_epi8(head, _mm_setr_epi8(-1, -1, -1, -1, 4, 5, 6, 7, -1, -1, -1, -1, 8, 9, 10, 11));
    _mm_or_si128(low, _mm_and_si128(_mm_srli_epi16::<2>(high), _mm_set1_epi8(0x30)))
}

/// The first eight bytes.
#[target_feature(enable = "avx2")]
#[inline]
fn bytes_as_floats(bytes: __m128i) -> __m256 {
    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))
}

/// [`crate::packed::Format::Q4_0`].
pub(super) struct Q4_0;
impl Layout for Q4_0 {
    const BYTES: usize = 18;
    const RUNS: usize = 1;
    const PAIRS: bool = true;
    const LARGEST: usize = 15;

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn integers(block: *const u8, _: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { nibbles(block.add(2)) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn pair(block: *const u8, _: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe { nibble_pair(block.add(2), block.add(Self::BYTES + 2)) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn scales(blocks: [*const u8; SIDE], scales: *mut f32, offsets: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { scales_about(-8.0, blocks, scales, offsets) };
    }
}

/// [`crate::packed::Format::Q4_1`].
pub(super) struct Q4_1;
impl Layout for Q4_1 {
    const BYTES: usize = 20;
    const RUNS: usize = 1;
    const PAIRS: bool = true;
    const LARGEST: usize = 15;

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn integers(block: *const u8, _: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { nibbles(block.add(4)) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn pair(block: *const u8, _: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe { nibble_pair(block.add(4), block.add(Self::BYTES + 4)) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn scales(blocks: [*const u8; SIDE], scales: *mut f32, offsets: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { scales_and_offsets(blocks, scales, offsets) };
    }
}

/// [`crate::packed::Format::Q5_0`].
pub(super) struct Q5_0;
impl Layout for Q5_0 {
    const BYTES: usize = 22;
    const RUNS: usize = 1;
    const LARGEST: usize = 31;

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn integers(block: *const u8, _: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_or_si256(nibbles(block.add(6)), fifth_bits(block.add(2))) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn scales(blocks: [*const u8; SIDE], scales: *mut f32, offsets: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { scales_about(-16.0, blocks, scales, offsets) };
    }
}

/// [`crate::packed::Format::Q5_1`].
pub(super) struct Q5_1;
impl Layout for Q5_1 {
    const BYTES: usize = 24;
    const RUNS: usize = 1;
    const LARGEST: usize = 31;

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn integers(block: *const u8, _: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_or_si256(nibbles(block.add(8)), fifth_bits(block.add(4))) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn scales(blocks: [*const u8; SIDE], scales: *mut f32, offsets: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { scales_and_offsets(blocks, scales, offsets) };
    }
}

/// [`crate::packed::Format::Q8_0`].
pub(super) struct Q8_0;
impl Layout for Q8_0 {
    const BYTES: usize = 34;
    const RUNS: usize = 1;
    const OFFSETS: bool = false;
    const LARGEST: usize = 128;

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn integers(block: *const u8, _: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_si256(block.add(2).cast()) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn scales(blocks: [*const u8; SIDE], scales: *mut f32, _: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_ps(scales, halves(blocks, 0)) };
    }
}

/// [`crate::packed::Format::Q4K`].
pub(super) struct Q4K;
impl Layout for Q4K {
    const BYTES: usize = 144;
    const RUNS: usize = 8;
    const PAIRS: bool = true;
    const LARGEST: usize = 15;

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn integers(block: *const u8, run: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { bits(block.add(16 + run / 2 * 32), run % 2 * 4, 15) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn pair(block: *const u8, run: usize) -> [__m256i; 2] {
        // The lower half takes the lower nibbles, the upper half the upper ones.
        let shifts = _mm256_setr_epi64x(0, 0, 0x0004_0000_0004, 0x0004_0000_0004);
        let part = |at: usize| {
            // SAFETY: the caller's promise.
            let bytes = unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(block.add(at).cast())) };
            _mm256_and_si256(_mm256_srlv_epi32(bytes, shifts), _mm256_set1_epi8(15))
        };
        let first = 16 + run / 2 * 32;
        [part(first), part(first + 16)]
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn scales(blocks: [*const u8; SIDE], scales: *mut f32, offsets: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { six_bit_scales_and_offsets(blocks, scales, offsets) };
    }
}

/// [`crate::packed::Format::Q5K`].
pub(super) struct Q5K;
impl Layout for Q5K {
    const BYTES: usize = 176;
    const RUNS: usize = 8;
    const LARGEST: usize = 31;

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn integers(block: *const u8, run: usize) -> __m256i {
        // SAFETY: the caller's promise.
        let (low, fifth) =
            unsafe { (bits(block.add(48 + run / 2 * 32), run % 2 * 4, 15), bits(block.add(16), run, 1)) };
        _mm256_or_si256(low, _mm256_slli_epi16::<4>(fifth))
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn scales(blocks: [*const u8; SIDE], scales: *mut f32, offsets: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { six_bit_scales_and_offsets(blocks, scales, offsets) };
    }
}

/// [`crate::packed::Format::Q6K`].
pub(super) struct Q6K;
impl Layout for Q6K {
    const BYTES: usize = 210;
    const RUNS: usize = 8;
    const SCALES: usize = 2;
    const OFFSETS: bool = false;
    const LARGEST: usize = 32;

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn integers(block: *const u8, run: usize) -> __m256i {
        let (part, run) = (run / 4, run % 4);
        // SAFETY: the caller's promise.
        let (low, high) = unsafe {
            (bits(block.add(part * 64 + run % 2 * 32), run / 2 * 4, 15), bits(block.add(128 + part * 32), run * 2, 3))
        };
        _mm256_sub_epi8(_mm256_or_si256(low, _mm256_slli_epi16::<4>(high)), _mm256_set1_epi8(32))
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn scales(blocks: [*const u8; SIDE], scales: *mut f32, _: *mut f32) {
        // SAFETY: the caller's promise.
        let d = unsafe { halves(blocks, 208) };
        for part in 0..2 {
            let mut by_row = [_mm256_setzero_ps(); SIDE];
            for (by_row, block) in by_row.iter_mut().zip(blocks) {
                // SAFETY: the caller's promise.
                let eight: __m128i = unsafe { _mm_loadl_epi64(block.add(192 + part * 8).cast()) };
                *by_row = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight));
            }
            for (i, by_scale) in transpose(by_row).into_iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { _mm256_storeu_ps(scales.add((part * 8 + i) * SIDE), _mm256_mul_ps(d, by_scale)) };
            }
        }
    }
}
