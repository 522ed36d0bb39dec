//! Where each format keeps its bits, for sixteen rows side by side: integers as bytes without sign, four neighbours in a
//! lane, and the scales of a block.

use super::columns::{Starts, column, eight_columns, four_columns, half_pair, halves};
use std::arch::x86_64::{
    __m128i, __m512, __m512i, _mm_cvtsi32_si128, _mm512_and_si512, _mm512_broadcast_i32x4, _mm512_cvtepi32_ps,
    _mm512_maskz_mov_epi8, _mm512_mul_ps, _mm512_or_si512, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_shuffle_epi8, _mm512_sll_epi32, _mm512_slli_epi16, _mm512_sra_epi32, _mm512_srl_epi32,
    _mm512_srli_epi16, _mm512_sub_ps, _mm512_test_epi8_mask, _mm512_xor_si512,
};

/// One run of 32 integers of sixteen rows: column `c` holds integers `4 c` to `4 c + 3`.
pub(super) type Columns = [__m512i; 8];

/// A quantized format, as the vector path reads it.
pub(super) trait Layout {
    /// Bytes of a block.
    const BYTES: usize;
    /// Runs of 32 integers in a block.
    const RUNS: usize = 1;
    /// Scales in a run of 32.
    const SCALES: usize = 1;
    /// Whether weights have offsets.
    const OFFSETS: bool = true;
    /// What [`Layout::integers`] adds to signed integers, so that they have no sign.
    const ZERO: i32 = 0;
    /// What is read once for a block.
    type Head: Copy;
    /// Runs that are taken apart at a time.
    type Runs: AsRef<[Columns]>;

    /// The head of the blocks at `starts`.
    ///
    /// # Safety
    /// The blocks are readable, and the machine has AVX-512 F, BW, VL and DQ.
    unsafe fn head(starts: Starts) -> Self::Head;

    /// Runs `run..` of the blocks at `starts`.
    ///
    /// # Safety
    /// As [`Layout::head`]; the runs are those of a block, and `run` is a multiple of their number.
    unsafe fn integers(starts: Starts, head: Self::Head, run: usize) -> Self::Runs;

    /// Scale `k` of run `run`.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW, VL and DQ.
    unsafe fn scale(head: Self::Head, run: usize, k: usize) -> __m512;

    /// The offset of run `run`.
    ///
    /// # Safety
    /// As [`Layout::scale`].
    unsafe fn offset(_head: Self::Head, _run: usize) -> __m512 {
        unreachable!("this layout has no offsets")
    }
}

/// `x >> shift` in each lane.
#[target_feature(enable = "avx512f")]
#[inline]
fn right(x: __m512i, shift: usize) -> __m512i {
    _mm512_srl_epi32(x, _mm_cvtsi32_si128(shift as i32))
}

/// The lower halves of 16 bytes in each row, then the upper: a run.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn nibbles(starts: Starts, at: usize) -> Columns {
    let mask = _mm512_set1_epi8(15);
    // SAFETY: the caller's promise.
    let columns = unsafe { four_columns(starts, at) };
    let [a, b, c, d] = columns;
    let low = |x| _mm512_and_si512(x, mask);
    let high = |x| _mm512_and_si512(_mm512_srli_epi16::<4>(x), mask);
    [low(a), low(b), low(c), low(d), high(a), high(b), high(c), high(d)]
}

/// The lower halves of 32 bytes in each row: a run; the upper halves: the next.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn two_runs(starts: Starts, at: usize) -> [Columns; 2] {
    let mask = _mm512_set1_epi8(15);
    // SAFETY: the caller's promise.
    let columns = unsafe { eight_columns(starts, at) };
    let (mut first, mut second) = (columns, columns);
    for c in 0..8 {
        first[c] = _mm512_and_si512(columns[c], mask);
        second[c] = _mm512_and_si512(_mm512_srli_epi16::<4>(columns[c]), mask);
    }
    [first, second]
}

/// Adds 16 to integer `i` of each row whose bit `i` is set.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn with_fifth_bits(mut columns: Columns, bits: __m512i) -> Columns {
    for (c, x) in columns.iter_mut().enumerate() {
        // Byte `c / 2` of each lane, four times; its lower or upper four bits.
        let byte_of = (c as i32 / 2) * 0x0101_0101;
        let bytes = _mm512_shuffle_epi8(bits, in_each_lane(byte_of));
        let bit_of = if c % 2 == 0 { 0x0804_0201 } else { 0x8040_2010_u32 as i32 };
        let is_set = _mm512_test_epi8_mask(bytes, _mm512_set1_epi32(bit_of));
        *x = _mm512_or_si512(*x, _mm512_maskz_mov_epi8(is_set, _mm512_set1_epi8(16)));
    }
    columns
}

/// Shuffle indices that take `bytes` of each lane of four bytes.
#[target_feature(enable = "avx512f")]
#[inline]
fn in_each_lane(bytes: i32) -> __m512i {
    let word = |lane: i32| bytes + lane * 0x0404_0404;
    // SAFETY: sixteen bytes are a vector of sixteen bytes.
    let quarter = unsafe { std::mem::transmute::<[i32; 4], __m128i>([word(0), word(1), word(2), word(3)]) };
    _mm512_broadcast_i32x4(quarter)
}

/// Scale and offset of a block of one run.
type Pair = (__m512, __m512);

/// Formats whose blocks are one run.
macro_rules! small {
    ($name:ident, $bytes:expr, $head:ty, |$at:ident| $read:expr, |$of:ident| $scales:expr, |$s:ident, $h:ident| $integers:expr) => {
        #[doc = concat!("[`crate::packed::Format::", stringify!($name), "`].")]
        pub(super) struct $name;
        impl Layout for $name {
            const BYTES: usize = $bytes;
            type Head = $head;
            type Runs = [Columns; 1];

            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
            #[inline]
            unsafe fn head($at: Starts) -> $head {
                // SAFETY: the caller's promise.
                unsafe { $read }
            }

            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
            #[inline]
            unsafe fn integers($s: Starts, $h: $head, _: usize) -> [Columns; 1] {
                // SAFETY: the caller's promise.
                unsafe { [$integers] }
            }

            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
            #[inline]
            unsafe fn scale($of: $head, _: usize, _: usize) -> __m512 {
                let pair: Pair = $scales;
                pair.0
            }

            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
            #[inline]
            unsafe fn offset($of: $head, _: usize) -> __m512 {
                let pair: Pair = $scales;
                pair.1
            }
        }
    };
}

/// Scale `d` and offset `zero d`.
#[target_feature(enable = "avx512f")]
#[inline]
fn about(zero: f32, d: __m512) -> Pair {
    (d, _mm512_mul_ps(d, _mm512_set1_ps(zero)))
}

small!(Q4_0, 18, __m512, |s| halves(s, 0), |d| about(-8.0, d), |s, _h| nibbles(s, 2));
small!(Q4_1, 20, Pair, |s| half_pair(column(s, 0)), |pair| pair, |s, _h| nibbles(s, 4));
small!(Q5_0, 22, (__m512, __m512i), |s| (halves(s, 0), column(s, 2)), |head| about(-16.0, head.0), |s, head| {
    with_fifth_bits(nibbles(s, 6), head.1)
});
small!(Q5_1, 24, (Pair, __m512i), |s| (half_pair(column(s, 0)), column(s, 4)), |head| head.0, |s, head| {
    with_fifth_bits(nibbles(s, 8), head.1)
});

/// [`crate::packed::Format::Q8_0`].
pub(super) struct Q8_0;
impl Layout for Q8_0 {
    const BYTES: usize = 34;
    const OFFSETS: bool = false;
    const ZERO: i32 = 128;
    type Head = __m512;
    type Runs = [Columns; 1];

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    #[inline]
    unsafe fn head(starts: Starts) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { halves(starts, 0) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    #[inline]
    unsafe fn integers(starts: Starts, _: __m512, _: usize) -> [Columns; 1] {
        // SAFETY: the caller's promise.
        let mut columns = unsafe { eight_columns(starts, 2) };
        for x in &mut columns {
            *x = _mm512_xor_si512(*x, _mm512_set1_epi8(-128));
        }
        [columns]
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    #[inline]
    unsafe fn scale(head: __m512, _: usize, _: usize) -> __m512 {
        head
    }
}

/// The first 16 bytes of a block of `Q4_K` or `Q5_K`: `d` and `e`, and twelve bytes of scales and minima.
type SixBits = [__m512i; 4];

/// Scale (`k = 0`) or minimum (`k = 1`) of run `run`, times `d` or `e`. [`crate::packed::blocks`] does the same in plain Rust.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn six_bits(head: SixBits, run: usize, k: usize) -> __m512 {
    // Whole in one byte for runs 0 to 3; of runs 4 to 7 four bits are in the last four bytes, two above the first ones.
    let (whole, rest) = (head[1 + k], head[3]);
    let integers = if run < 4 {
        _mm512_and_si512(right(whole, 8 * run), _mm512_set1_epi32(63))
    } else {
        let low = _mm512_and_si512(right(rest, 8 * (run - 4) + 4 * k), _mm512_set1_epi32(15));
        let high = right(whole, 8 * (run - 4) + 2);
        _mm512_or_si512(low, _mm512_and_si512(high, _mm512_set1_epi32(0x30)))
    };
    let (d, e) = half_pair(head[0]);
    _mm512_mul_ps(if k == 0 { d } else { e }, _mm512_cvtepi32_ps(integers))
}

/// What both formats of 256 weights with minima share.
macro_rules! large {
    ($name:ident, $bytes:expr, |$s:ident, $run:ident| $integers:expr) => {
        #[doc = concat!("[`crate::packed::Format::", stringify!($name), "`].")]
        pub(super) struct $name;
        impl Layout for $name {
            const BYTES: usize = $bytes;
            const RUNS: usize = 8;
            type Head = SixBits;
            type Runs = [Columns; 2];

            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
            #[inline]
            unsafe fn head(starts: Starts) -> SixBits {
                // SAFETY: the caller's promise.
                unsafe { four_columns(starts, 0) }
            }

            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
            #[inline]
            unsafe fn integers($s: Starts, _: SixBits, $run: usize) -> [Columns; 2] {
                // SAFETY: the caller's promise.
                unsafe { $integers }
            }

            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
            #[inline]
            unsafe fn scale(head: SixBits, run: usize, _: usize) -> __m512 {
                six_bits(head, run, 0)
            }

            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
            #[inline]
            unsafe fn offset(head: SixBits, run: usize) -> __m512 {
                _mm512_sub_ps(_mm512_setzero_ps(), six_bits(head, run, 1))
            }
        }
    };
}

large!(Q4K, 144, |s, run| two_runs(s, 16 + run / 2 * 32));
large!(Q5K, 176, |s, run| with_upper_bits(two_runs(s, 48 + run / 2 * 32), s, run));

/// Adds 16 to the integers of runs `run` and `run + 1` whose bit is set in the 32 bytes behind the scales.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
unsafe fn with_upper_bits(mut runs: [Columns; 2], starts: Starts, run: usize) -> [Columns; 2] {
    // SAFETY: the caller's promise.
    let bits = unsafe { eight_columns(starts, 16) };
    for (k, columns) in runs.iter_mut().enumerate() {
        for c in 0..8 {
            let bit = _mm512_and_si512(right(bits[c], run + k), _mm512_set1_epi8(1));
            columns[c] = _mm512_or_si512(columns[c], _mm512_slli_epi16::<4>(bit));
        }
    }
    runs
}

/// [`crate::packed::Format::Q6K`].
pub(super) struct Q6K;
impl Layout for Q6K {
    const BYTES: usize = 210;
    const RUNS: usize = 8;
    const SCALES: usize = 2;
    const OFFSETS: bool = false;
    const ZERO: i32 = 32;
    type Head = ([__m512i; 4], __m512);
    type Runs = [Columns; 4];

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    #[inline]
    unsafe fn head(starts: Starts) -> Self::Head {
        // SAFETY: the caller's promise.
        unsafe { (four_columns(starts, 192), halves(starts, 208)) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    #[inline]
    unsafe fn integers(starts: Starts, _: Self::Head, run: usize) -> [Columns; 4] {
        let part = run / 4;
        // SAFETY: the caller's promise.
        let (first, second, pairs) = unsafe {
            let low = part * 64;
            (eight_columns(starts, low), eight_columns(starts, low + 32), eight_columns(starts, 128 + part * 32))
        };
        let (nibble, pair) = (_mm512_set1_epi8(15), _mm512_set1_epi8(0x30));
        let mut runs = [first; 4];
        for c in 0..8 {
            let low = [first[c], second[c], _mm512_srli_epi16::<4>(first[c]), _mm512_srli_epi16::<4>(second[c])];
            let bits = pairs[c];
            let high = [_mm512_slli_epi16::<4>(bits), _mm512_slli_epi16::<2>(bits), bits, _mm512_srli_epi16::<2>(bits)];
            for k in 0..4 {
                runs[k][c] = _mm512_or_si512(_mm512_and_si512(low[k], nibble), _mm512_and_si512(high[k], pair));
            }
        }
        runs
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    #[inline]
    unsafe fn scale((scales, d): Self::Head, run: usize, k: usize) -> __m512 {
        // Scale `2 run + k`, a signed byte.
        let place = run % 2 * 2 + k;
        let at_top = _mm512_sll_epi32(scales[run / 2], _mm_cvtsi32_si128(24 - 8 * place as i32));
        let integers = _mm512_sra_epi32(at_top, _mm_cvtsi32_si128(24));
        _mm512_mul_ps(d, _mm512_cvtepi32_ps(integers))
    }
}
