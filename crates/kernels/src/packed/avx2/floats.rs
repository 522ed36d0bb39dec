//! Products of f32, f16 and bf16 weights with a few rows of activations.
//!
//! Sixteen rows of the weight, [`KC`] columns at a time, are written to a strip in the first-level cache in which a vector
//! holds one column of eight rows, and are multiplied from there at once: each weight is read from memory once.
//!
//! The strip, the order of the sums and so their bits are those of the blocked product in `matmul/avx2.rs`, which writes
//! strips of the whole matrix first.

use super::layout::SIDE;
use super::scales::row_starts;
use crate::matmul::avx2::{KC, transpose};
use crate::packed::rows::Rows;
use std::arch::x86_64::{
    __m256, _MM_HINT_T0, _mm_cvtph_ps, _mm_cvtsi32_si128, _mm_cvtss_f32, _mm_loadu_si128, _mm_prefetch, _mm256_add_ps,
    _mm256_and_ps, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_load_ps,
    _mm256_loadu_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_store_ps,
    _mm256_storeu_ps,
};
use std::mem::MaybeUninit;

/// Rows of the weight in a strip.
const STRIP: usize = 2 * SIDE;

/// Columns that are transposed at a time.
const COLUMNS: usize = 16;

/// A float format, as the vector path reads it.
pub(super) trait Float {
    /// Bytes of a weight.
    const BYTES: usize;

    /// [`COLUMNS`] columns of eight rows that begin at `rows`.
    ///
    /// # Safety
    /// They are readable, and the machine has AVX2, FMA and F16C.
    unsafe fn columns(rows: [*const u8; SIDE]) -> [__m256; COLUMNS];

    /// One weight.
    ///
    /// # Safety
    /// As [`Float::columns`].
    unsafe fn one(at: *const u8) -> f32;
}

/// Columns from two squares of eight.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn two_squares(first: [__m256; SIDE], second: [__m256; SIDE]) -> [__m256; COLUMNS] {
    let mut columns = [_mm256_setzero_ps(); COLUMNS];
    columns[..SIDE].copy_from_slice(&transpose(first));
    columns[SIDE..].copy_from_slice(&transpose(second));
    columns
}

/// [`crate::packed::Format::F32`].
pub(super) struct F32;
impl Float for F32 {
    const BYTES: usize = 4;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn columns(rows: [*const u8; SIDE]) -> [__m256; COLUMNS] {
        let (mut first, mut second) = ([_mm256_setzero_ps(); SIDE], [_mm256_setzero_ps(); SIDE]);
        for r in 0..SIDE {
            // SAFETY: the caller's promise.
            (first[r], second[r]) =
                unsafe { (_mm256_loadu_ps(rows[r].cast()), _mm256_loadu_ps(rows[r].add(32).cast())) };
        }
        two_squares(first, second)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn one(at: *const u8) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<f32>().read_unaligned() }
    }
}

/// [`crate::packed::Format::F16`].
pub(super) struct F16;
impl Float for F16 {
    const BYTES: usize = 2;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn columns(rows: [*const u8; SIDE]) -> [__m256; COLUMNS] {
        let (mut first, mut second) = ([_mm256_setzero_ps(); SIDE], [_mm256_setzero_ps(); SIDE]);
        for r in 0..SIDE {
            // SAFETY: the caller's promise.
            let halves = unsafe { (_mm_loadu_si128(rows[r].cast()), _mm_loadu_si128(rows[r].add(16).cast())) };
            (first[r], second[r]) = (_mm256_cvtph_ps(halves.0), _mm256_cvtph_ps(halves.1));
        }
        two_squares(first, second)
    }

    #[target_feature(enable = "avx2,f16c")]
    #[inline]
    unsafe fn one(at: *const u8) -> f32 {
        // SAFETY: the caller's promise.
        let half = unsafe { at.cast::<u16>().read_unaligned() };
        _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(half))))
    }
}

/// [`crate::packed::Format::Bf16`].
pub(super) struct Bf16;
impl Float for Bf16 {
    const BYTES: usize = 2;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn columns(rows: [*const u8; SIDE]) -> [__m256; COLUMNS] {
        // Transposed in pairs: the first of a pair is the lower half of a lane.
        let mut pairs = [_mm256_setzero_ps(); SIDE];
        for r in 0..SIDE {
            // SAFETY: the caller's promise.
            pairs[r] = unsafe { _mm256_loadu_ps(rows[r].cast()) };
        }
        let pairs = transpose(pairs);
        let upper = _mm256_castsi256_ps(_mm256_set1_epi32(0xFFFF_0000_u32 as i32));
        let mut columns = [_mm256_setzero_ps(); COLUMNS];
        for c in 0..SIDE {
            columns[2 * c] = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(pairs[c])));
            columns[2 * c + 1] = _mm256_and_ps(pairs[c], upper);
        }
        columns
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn one(at: *const u8) -> f32 {
        // SAFETY: the caller's promise.
        f32::from_bits(u32::from(unsafe { at.cast::<u16>().read_unaligned() }) << 16)
    }
}

/// Sixteen rows of a weight.
#[derive(Clone, Copy)]
struct Sixteen {
    starts: [[*const u8; SIDE]; 2],
    /// Bytes from the first of these rows to the first of the next sixteen.
    next: usize,
}

impl Sixteen {
    fn new(rows: &Rows<'_>, row: usize) -> Self {
        let starts = [row_starts(rows, row), row_starts(rows, (row + SIDE).min(rows.range.end - 1))];
        Self { starts, next: STRIP * rows.weight.row_bytes() }
    }

    /// Columns `k..k + COLUMNS` of one half.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn columns<W: Float>(&self, half: usize, k: usize) -> [__m256; COLUMNS] {
        let mut at = self.starts[half];
        for at in &mut at {
            *at = at.wrapping_add(k * W::BYTES);
        }
        // SAFETY: the caller's promise.
        unsafe { W::columns(at) }
    }

    /// Column `k` of one half, a row at a time.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn column<W: Float>(&self, half: usize, k: usize) -> __m256 {
        let mut column = [0.0; SIDE];
        for r in 0..SIDE {
            // SAFETY: the caller's promise.
            column[r] = unsafe { W::one(self.starts[half][r].add(k * W::BYTES)) };
        }
        // SAFETY: eight floats.
        unsafe { _mm256_loadu_ps(column.as_ptr()) }
    }

    /// Asks for the part of the next sixteen rows that lies where columns `k..k + COLUMNS` do here, counted in bytes of all
    /// rows. An address past the end of the matrix is harmless.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn prefetch<W: Float>(&self, k: usize) {
        let ahead = self.starts[0][0].wrapping_add(self.next + k * W::BYTES * STRIP);
        for line in 0..COLUMNS * W::BYTES * STRIP / 64 {
            _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line * 64).cast());
        }
    }
}

/// Column `k` of sixteen rows is at `16 k`.
#[repr(align(64))]
struct Strip(MaybeUninit<[f32; KC * STRIP]>);

impl Strip {
    /// Reads columns `start..start + count` of sixteen rows.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn read<W: Float>(&mut self, rows: Sixteen, start: usize, count: usize) {
        assert!(count <= KC);
        let out = self.0.as_mut_ptr().cast::<f32>();
        let whole = count / COLUMNS * COLUMNS;
        for k in (0..whole).step_by(COLUMNS) {
            rows.prefetch::<W>(start + k);
            for half in 0..2 {
                // SAFETY: the caller's promise; the strip has room for `KC` columns.
                unsafe {
                    for (step, x) in rows.columns::<W>(half, start + k).into_iter().enumerate() {
                        _mm256_store_ps(out.add((k + step) * STRIP + half * SIDE), x);
                    }
                }
            }
        }
        for k in whole..count {
            for half in 0..2 {
                // SAFETY: as above.
                unsafe { _mm256_store_ps(out.add(k * STRIP + half * SIDE), rows.column::<W>(half, start + k)) };
            }
        }
    }
}

/// Products with some rows of activations.
///
/// # Safety
/// The machine has AVX2, FMA and F16C; `rows` is a matrix in the format of `W`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn few_rows<W: Float>(rows: &Rows<'_>, x: &[f32]) {
    let cols = rows.weight.cols;
    assert_eq!(x.len(), rows.n * cols);
    let mut strip = Strip(MaybeUninit::uninit());
    for row in rows.range.clone().step_by(STRIP) {
        let sixteen = Sixteen::new(rows, row);
        for start in (0..cols).step_by(KC) {
            let pass = Pass { row, start, count: KC.min(cols - start) };
            // SAFETY: the starts are those of rows with `cols` weights; rows `i..` of `x` are as many as each call takes.
            unsafe {
                match rows.n {
                    1 => multiply_at_once::<W, 1>(rows, sixteen, x, pass),
                    2 => multiply_at_once::<W, 2>(rows, sixteen, x, pass),
                    _ => {
                        strip.read::<W>(sixteen, start, pass.count);
                        let mut i = rows.x_range.start;
                        while i < rows.x_range.end {
                            i += match rows.x_range.end - i {
                                1 => multiply::<1>(rows, &strip, x, i, pass),
                                2 | 3 => multiply::<2>(rows, &strip, x, i, pass),
                                4 | 5 => multiply::<4>(rows, &strip, x, i, pass),
                                _ => multiply::<6>(rows, &strip, x, i, pass),
                            };
                        }
                    }
                }
            }
        }
    }
}

/// Columns `start..start + count` of the sixteen rows of the weight from `row` on.
#[derive(Clone, Copy)]
struct Pass {
    row: usize,
    start: usize,
    count: usize,
}

/// Adds the products of a strip with rows `i..i + N` of `x` to the result. Returns `N`.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn multiply<const N: usize>(rows: &Rows<'_>, strip: &Strip, x: &[f32], i: usize, pass: Pass) -> usize {
    let cols = rows.weight.cols;
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    let w = strip.0.as_ptr().cast::<f32>();
    // SAFETY: the caller's promise.
    unsafe {
        let x = x.as_ptr().add(i * cols + pass.start);
        for k in 0..pass.count {
            let w = [_mm256_load_ps(w.add(k * STRIP)), _mm256_load_ps(w.add(k * STRIP + SIDE))];
            for j in 0..N {
                let x = _mm256_set1_ps(*x.add(j * cols + k));
                sums[j] = [_mm256_fmadd_ps(x, w[0], sums[j][0]), _mm256_fmadd_ps(x, w[1], sums[j][1])];
            }
        }
    }
    store(rows, sums, i, pass);
    N
}

/// The same with all `N` rows of `x`, and weights that go from memory into the sums.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn multiply_at_once<W: Float, const N: usize>(rows: &Rows<'_>, sixteen: Sixteen, x: &[f32], pass: Pass) {
    let cols = rows.weight.cols;
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    let whole = pass.start + pass.count / COLUMNS * COLUMNS;
    // SAFETY: the caller's promise.
    unsafe {
        for k in (pass.start..whole).step_by(COLUMNS) {
            sixteen.prefetch::<W>(k);
            for half in 0..2 {
                for (step, w) in sixteen.columns::<W>(half, k).into_iter().enumerate() {
                    for j in 0..N {
                        let x = _mm256_set1_ps(*x.as_ptr().add(j * cols + k + step));
                        sums[j][half] = _mm256_fmadd_ps(x, w, sums[j][half]);
                    }
                }
            }
        }
        for k in whole..pass.start + pass.count {
            for half in 0..2 {
                let w = sixteen.column::<W>(half, k);
                for j in 0..N {
                    sums[j][half] = _mm256_fmadd_ps(_mm256_set1_ps(*x.as_ptr().add(j * cols + k)), w, sums[j][half]);
                }
            }
        }
    }
    store(rows, sums, 0, pass);
}

/// Adds sums to the results of rows `i..i + N` of `x`, or to the bias.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn store<const N: usize>(rows: &Rows<'_>, sums: [[__m256; 2]; N], i: usize, pass: Pass) {
    let len = STRIP.min(rows.range.end - pass.row);
    for (j, sums) in sums.into_iter().enumerate() {
        // The neutral element of addition: 0 would turn a sum of -0 into 0.
        let mut y = [-0.0; STRIP];
        if pass.start > 0 {
            rows.kept(i + j, pass.row, &mut y[..len]);
        } else if let Some(bias) = rows.bias {
            y[..len].copy_from_slice(&bias[pass.row..][..len]);
        }
        // SAFETY: room for sixteen floats.
        unsafe {
            _mm256_storeu_ps(y.as_mut_ptr(), _mm256_add_ps(_mm256_loadu_ps(y.as_ptr()), sums[0]));
            let right = y.as_mut_ptr().add(SIDE);
            _mm256_storeu_ps(right, _mm256_add_ps(_mm256_loadu_ps(right), sums[1]));
        }
        rows.keep(i + j, pass.row, &y[..len]);
    }
}
