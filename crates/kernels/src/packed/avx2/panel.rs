//! Products of quantized weights with several rows of rounded activations.
//!
//! Sixteen rows of the weight are taken apart into a panel, in which a vector holds a few neighbours of each of eight rows,
//! so that no sum crosses lanes. Integers that are not negative stay bytes, four neighbours in a lane; signed ones
//! become 16 bits wide, two neighbours in a lane, since the product of bytes wants one unsigned factor.
//!
//! The arithmetic is that of `one_row.rs`: the sum of a run is an exact integer, `scale * sum` and the offset are added to
//! the row's total by fused multiply-adds, run after run.

use super::layout::{Layout, SIDE};
use super::scales::{RUNS, Scales, prefetch, row_starts, runs_at_a_time};
use crate::matmul::avx2::transpose;
use crate::packed::activations::Activations;
use crate::packed::blocks::RUN;
use crate::packed::rows::Rows;
use std::arch::x86_64::{
    __m256, __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_castps_si256, _mm256_castsi256_ps,
    _mm256_castsi256_si128, _mm256_cvtepi8_epi16, _mm256_cvtepi32_ps, _mm256_extracti128_si256, _mm256_fmadd_ps,
    _mm256_load_si256, _mm256_loadu_ps, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_store_si256, _mm256_storeu_ps,
};
use std::mem::MaybeUninit;

/// Rows of the weight in a panel.
const PANEL_ROWS: usize = 2 * SIDE;
/// Rows of activations multiplied at a time: their sums stay in registers.
const X_ROWS: usize = 3;

/// Vectors of eight rows that hold one run.
const fn steps<L: Layout>() -> usize {
    if L::OFFSETS { RUN / 4 } else { RUN / 2 }
}

/// Sixteen rows of the weight: vector `2 (steps i + s) + h` holds step `s` of run `i` of the eight rows of half `h`.
struct Panel {
    integers: MaybeUninit<[__m256i; RUNS * (RUN / 2) * 2]>,
    halves: [Scales; 2],
}

impl Panel {
    const fn unset() -> Self {
        Self { integers: MaybeUninit::uninit(), halves: [Scales::unset(), Scales::unset()] }
    }

    /// Takes runs `start..start + count` apart.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn read<L: Layout>(&mut self, rows: [[*const u8; SIDE]; 2], next: usize, start: usize, count: usize) {
        for (half, rows) in rows.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { self.halves[half].read::<L>(rows, start, count) };
            for i in 0..count {
                let block = (start + i) / L::RUNS * L::BYTES;
                prefetch(rows[0], next, (start + i) * L::BYTES / L::RUNS, L::BYTES / L::RUNS);
                let mut by_row = [_mm256_setzero_si256(); SIDE];
                for r in 0..SIDE {
                    // SAFETY: the caller's promise.
                    by_row[r] = unsafe { L::integers(rows[r].add(block), (start + i) % L::RUNS) };
                }
                // SAFETY: the array has room for sixteen rows of `RUNS` runs; `Scales::read` checked their number.
                unsafe {
                    let out = self.integers.as_mut_ptr().cast::<__m256i>().add(i * steps::<L>() * 2 + half);
                    if L::OFFSETS {
                        store_by_step(by_row, out);
                    } else {
                        let (mut low, mut high) = (by_row, by_row);
                        for r in 0..SIDE {
                            low[r] = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(by_row[r]));
                            high[r] = _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(by_row[r]));
                        }
                        store_by_step(low, out);
                        store_by_step(high, out.add(RUN / 4 * 2));
                    }
                }
            }
        }
    }
}

/// Writes lane `s` of all rows as vector `2 s` of `out`.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn store_by_step(by_row: [__m256i; SIDE], out: *mut __m256i) {
    let mut floats = [_mm256_setzero_ps(); SIDE];
    for r in 0..SIDE {
        floats[r] = _mm256_castsi256_ps(by_row[r]);
    }
    for (step, x) in transpose(floats).into_iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { _mm256_store_si256(out.add(step * 2), _mm256_castps_si256(x)) };
    }
}

/// Products with any number of rows of activations.
///
/// # Safety
/// The machine has AVX2, FMA and F16C; `rows` is a matrix in the format of `L`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn many_rows<L: Layout>(rows: &Rows<'_>, x: &Activations) {
    let n_runs = rows.weight.cols / RUN;
    let x_runs = rows.n * n_runs;
    assert!(x.quants.len() == x_runs * RUN && x.scales.len() == x_runs && x.sums.len() == x_runs);
    assert!(L::OFFSETS || x.wide.len() == x.quants.len());
    let per_pass = runs_at_a_time::<L>(n_runs);
    let mut panel = Panel::unset();
    for row in rows.range.clone().step_by(PANEL_ROWS) {
        let starts = [row_starts(rows, row), row_starts(rows, (row + SIDE).min(rows.range.end - 1))];
        for start in (0..n_runs).step_by(per_pass) {
            let pass = Pass { row, n_runs, start, count: per_pass.min(n_runs - start) };
            // SAFETY: the starts are those of rows with `n_runs` runs; each row of activations has as many.
            unsafe {
                panel.read::<L>(starts, PANEL_ROWS * rows.weight.row_bytes(), start, pass.count);
                let mut i = rows.x_range.start;
                while i + X_ROWS <= rows.x_range.end {
                    multiply::<L, X_ROWS>(rows, &panel, x, i, pass);
                    i += X_ROWS;
                }
                match rows.x_range.end - i {
                    1 => multiply::<L, 1>(rows, &panel, x, i, pass),
                    2 => multiply::<L, 2>(rows, &panel, x, i, pass),
                    _ => (),
                }
            }
        }
    }
}

/// Runs `start..start + count` of `n_runs`, in the sixteen rows of the weight from `row` on.
#[derive(Clone, Copy)]
struct Pass {
    row: usize,
    n_runs: usize,
    start: usize,
    count: usize,
}

/// Adds the products of a panel with rows `i..i + N` of the activations to what earlier passes left in the result.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn multiply<L: Layout, const N: usize>(rows: &Rows<'_>, panel: &Panel, x: &Activations, i: usize, pass: Pass) {
    let len = PANEL_ROWS.min(rows.range.end - pass.row);
    let mut totals = [[_mm256_setzero_ps(); 2]; N];
    let mut y = [0.0; PANEL_ROWS];
    if pass.start > 0 {
        for (j, total) in totals.iter_mut().enumerate() {
            rows.kept(i + j, pass.row, &mut y[..len]);
            // SAFETY: room for sixteen floats.
            unsafe { *total = [_mm256_loadu_ps(y.as_ptr()), _mm256_loadu_ps(y.as_ptr().add(SIDE))] };
        }
    }
    for run in 0..pass.count {
        // SAFETY: the panel holds `count` runs; rows `i..i + N` of the activations have `n_runs`.
        unsafe { totals = add_run::<L, N>(panel, x, i * pass.n_runs + pass.start + run, pass.n_runs, run, totals) };
    }
    let is_last = pass.start + pass.count == pass.n_runs;
    for (j, total) in totals.into_iter().enumerate() {
        // SAFETY: room for sixteen floats.
        unsafe {
            _mm256_storeu_ps(y.as_mut_ptr(), total[0]);
            _mm256_storeu_ps(y.as_mut_ptr().add(SIDE), total[1]);
        }
        if is_last {
            rows.write(i + j, pass.row, &y[..len]);
        } else {
            rows.keep(i + j, pass.row, &y[..len]);
        }
    }
}

/// Adds run `run` of a panel times `N` runs of the activations, number `x_run` and those `x_stride` apart, to `totals`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn add_run<L: Layout, const N: usize>(
    panel: &Panel,
    x: &Activations,
    x_run: usize,
    x_stride: usize,
    run: usize,
    mut totals: [[__m256; 2]; N],
) -> [[__m256; 2]; N] {
    let parts = steps::<L>() / L::SCALES;
    // SAFETY: the caller's promise.
    unsafe {
        let w = panel.integers.as_ptr().cast::<__m256i>().add(run * steps::<L>() * 2);
        for k in 0..L::SCALES {
            let sums: [[__m256i; 2]; N] = if L::OFFSETS {
                let depth = 32_767 / (2 * 127 * L::LARGEST);
                byte_sums(w, x.quants.as_ptr().add(x_run * RUN), x_stride * RUN, depth)
            } else {
                let x = x.wide.as_ptr().add(x_run * RUN + k * parts * 2);
                wide_sums(w.add(k * parts * 2), x, x_stride * RUN, parts)
            };
            for h in 0..2 {
                let scale = _mm256_loadu_ps(panel.halves[h].scale::<L>(run, k));
                for j in 0..N {
                    let of_x = _mm256_set1_ps(*x.scales.get_unchecked(x_run + j * x_stride));
                    let scale = _mm256_mul_ps(scale, of_x);
                    totals[j][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[j][h]), scale, totals[j][h]);
                }
            }
        }
        if L::OFFSETS {
            for h in 0..2 {
                let offset = _mm256_loadu_ps(panel.halves[h].offset(run));
                for j in 0..N {
                    let sum = _mm256_set1_ps(*x.sums.get_unchecked(x_run + j * x_stride));
                    totals[j][h] = _mm256_fmadd_ps(offset, sum, totals[j][h]);
                }
            }
        }
    }
    totals
}

/// Integer sums of a run: sixteen rows of a panel of bytes times `N` rows of activations. `depth` products of two pairs fit
/// into 16 bits when added.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn byte_sums<const N: usize>(w: *const __m256i, x: *const i8, stride: usize, depth: usize) -> [[__m256i; 2]; N] {
    const STEPS: usize = RUN / 4;
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_si256(); 2]; N];
    for first in (0..STEPS).step_by(depth) {
        let mut pairs = [[_mm256_setzero_si256(); 2]; N];
        for step in first..STEPS.min(first + depth) {
            // SAFETY: the caller's promise.
            unsafe {
                let w = [_mm256_load_si256(w.add(step * 2)), _mm256_load_si256(w.add(step * 2 + 1))];
                for j in 0..N {
                    let x = _mm256_set1_epi32(x.add(j * stride + step * 4).cast::<i32>().read_unaligned());
                    for h in 0..2 {
                        pairs[j][h] = _mm256_add_epi16(pairs[j][h], _mm256_maddubs_epi16(w[h], x));
                    }
                }
            }
        }
        for j in 0..N {
            for h in 0..2 {
                sums[j][h] = _mm256_add_epi32(sums[j][h], _mm256_madd_epi16(pairs[j][h], ones));
            }
        }
    }
    sums
}

/// Integer sums of `steps` steps: sixteen rows of a panel of 16-bit integers times `N` rows of activations.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn wide_sums<const N: usize>(
    w: *const __m256i,
    x: *const i16,
    stride: usize,
    steps: usize,
) -> [[__m256i; 2]; N] {
    let mut sums = [[_mm256_setzero_si256(); 2]; N];
    for step in 0..steps {
        // SAFETY: the caller's promise.
        unsafe {
            let w = [_mm256_load_si256(w.add(step * 2)), _mm256_load_si256(w.add(step * 2 + 1))];
            for j in 0..N {
                let x = _mm256_set1_epi32(x.add(j * stride + step * 2).cast::<i32>().read_unaligned());
                for h in 0..2 {
                    sums[j][h] = _mm256_add_epi32(sums[j][h], _mm256_madd_epi16(w[h], x));
                }
            }
        }
    }
    sums
}
