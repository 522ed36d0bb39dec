//! Scales and offsets of some runs of eight rows of a weight, side by side.

use super::layout::{Layout, SIDE};
use crate::packed::rows::Rows;
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::mem::MaybeUninit;

/// Runs worked on at a time: their scales and the panel stay in the first-level cache.
pub(super) const RUNS: usize = 24;
/// Most scales of a run.
const MOST_SCALES: usize = 2;

/// Runs of one pass over `n_runs`: whole blocks, at most [`RUNS`], in passes of about the same length.
pub(super) fn runs_at_a_time<L: Layout>(n_runs: usize) -> usize {
    let passes = n_runs.div_ceil(RUNS / L::RUNS * L::RUNS);
    n_runs.div_ceil(passes.max(1)).next_multiple_of(L::RUNS)
}

/// Starts of eight rows from `row` on. Those behind the last row of the range repeat it.
pub(super) fn row_starts(rows: &Rows<'_>, row: usize) -> [*const u8; SIDE] {
    let row_bytes = rows.weight.row_bytes();
    std::array::from_fn(|r| rows.weight.bytes[(row + r).min(rows.range.end - 1) * row_bytes..][..row_bytes].as_ptr())
}

/// Asks for what comes `next` bytes after the part of eight rows, the first of which begins at `first`, that holds bytes
/// `at..at + bytes` of each, counted in bytes of all. Rows are short and there are eight at a time, which keeps the machine
/// from guessing them: without this, decoding took twice as long.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn prefetch(first: *const u8, next: usize, at: usize, bytes: usize) {
    // An address past the end of the matrix is harmless.
    let ahead = first.wrapping_add(next + at * SIDE);
    for line in 0..(SIDE * bytes).div_ceil(64) {
        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line * 64).cast());
    }
}

/// The scales and offsets, unset until they are read.
#[repr(align(32))]
pub(super) struct Scales {
    scales: MaybeUninit<[f32; RUNS * MOST_SCALES * SIDE]>,
    offsets: MaybeUninit<[f32; RUNS * SIDE]>,
}

impl Scales {
    pub(super) const fn unset() -> Self {
        Self { scales: MaybeUninit::uninit(), offsets: MaybeUninit::uninit() }
    }

    /// Scale `k` of run `i` in eight rows: the address of eight floats.
    #[inline(always)]
    pub(super) fn scale<L: Layout>(&self, i: usize, k: usize) -> *const f32 {
        self.scales.as_ptr().cast::<f32>().wrapping_add((i * L::SCALES + k) * SIDE)
    }

    /// The offset of run `i` in eight rows: the address of eight floats.
    #[inline(always)]
    pub(super) fn offset(&self, i: usize) -> *const f32 {
        self.offsets.as_ptr().cast::<f32>().wrapping_add(i * SIDE)
    }

    /// Reads those of runs `start..start + count`, which are whole blocks.
    ///
    /// # Safety
    /// The rows have these runs in blocks of `L`; the machine has AVX2, FMA and F16C.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    pub(super) unsafe fn read<L: Layout>(&mut self, rows: [*const u8; SIDE], start: usize, count: usize) {
        assert!(count <= RUNS && count.is_multiple_of(L::RUNS) && start.is_multiple_of(L::RUNS));
        let (scales, offsets) = (self.scales.as_mut_ptr().cast::<f32>(), self.offsets.as_mut_ptr().cast::<f32>());
        for i in (0..count).step_by(L::RUNS) {
            let mut blocks = rows;
            for block in &mut blocks {
                *block = block.wrapping_add((start + i) / L::RUNS * L::BYTES);
            }
            // SAFETY: the caller's promise; the arrays have room for `RUNS` runs.
            unsafe { L::scales(blocks, scales.add(i * L::SCALES * SIDE), offsets.add(i * SIDE)) };
        }
    }
}
