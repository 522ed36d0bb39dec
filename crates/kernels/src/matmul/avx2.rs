//! The blocked product for AVX2 with fused multiply-add.
//!
//! Why not `gemm` here: on a Zen 3 core whose multiply-add loop peaks at 99 GFLOP/s, `gemm` 0.19 and MKL
//! reach 55 to 72 at the sizes of GPT-2; this file reaches 75 to 85 (`benches/RESULTS.md`).
//!
//! Both operands are copied into panels that the inner loop reads in order: `A` in strips of [`MR`] rows,
//! `B` in strips of [`NR`] columns, [`KC`] of the shared dimension at a time. The inner loop keeps a tile of
//! `MR x NR` sums in twelve registers. A strip of `B` stays in the first-level cache while a block of `A`
//! passes by from the second level.
//!
//! Source: Goto and van de Geijn 2008; tile shape as in BLIS for Haswell and Zen.

use super::{Onto, View, ViewMut};
use crate::exec::Exec;
use crate::parallel::{SharedMut, for_each};
use std::arch::x86_64::{
    __m256, __m256i, _MM_HINT_T0, _mm_prefetch, _mm256_add_ps, _mm256_broadcast_ss, _mm256_cmpgt_epi32,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_maskload_ps, _mm256_maskstore_ps, _mm256_mul_ps, _mm256_permute2f128_ps,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_storeu_ps,
    _mm256_unpackhi_ps, _mm256_unpacklo_ps,
};
use std::cell::RefCell;

/// Rows of a register tile.
const MR: usize = 6;
/// Columns of a register tile: two vectors.
const NR: usize = 16;
/// Length of the shared dimension that is multiplied before sums go back to memory.
pub(crate) const KC: usize = 256;
/// Rows of `A` whose panels (`MC * KC * 4` bytes) stay in the second-level cache.
const MC: usize = 96;
/// Columns of `B` packed at a time: the panels and the columns of `C` under work stay in the third-level cache.
const NC: usize = 1536;
/// Columns of one task.
const TASK_COLS: usize = 256;
/// A strip of `A` is written eight floats at a time at a distance of six: the last write needs this much room.
const SLACK: usize = 8;

thread_local! {
    /// The panels: kept, so that a training run packs into the same memory at every step.
    static PANELS: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

fn grow(buffer: &mut Vec<f32>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
}

/// `c = scale * a b` or `c += scale * a b`. The shapes agree and the machine has AVX2 and FMA: the caller checked.
pub(super) fn matmul(exec: Exec, onto: Onto, scale: f32, a: View<'_>, b: View<'_>, c: ViewMut<'_>) {
    let (m, k, n) = (a.shape.rows, a.shape.cols, b.shape.cols);
    let c_stride = c.shape.row_stride;
    let c = c.data;
    let a_strips = m.div_ceil(MR);
    PANELS.with_borrow_mut(|(a_panels, b_panels)| {
        let nc = NC.min(n.next_multiple_of(NR));
        grow(a_panels, a_strips * MR * KC.min(k) + SLACK);
        grow(b_panels, nc * KC.min(k));
        for p in (0..k).step_by(KC) {
            let kc = KC.min(k - p);
            let add = onto == Onto::Add || p > 0;
            for j in (0..n).step_by(NC) {
                let cols = NC.min(n - j);
                let b_strips = cols.div_ceil(NR);
                let pack_a = if j == 0 { a_strips } else { 0 };
                pack_panels(exec, a, b, p, kc, j, pack_a, b_strips, a_panels, b_panels);
                let (a_panels, b_panels) = (&*a_panels, &*b_panels);
                let (row_tasks, col_tasks) = (m.div_ceil(MC), cols.div_ceil(TASK_COLS));
                for_each(exec, row_tasks * col_tasks, |task| {
                    let (i, jj) = (task % row_tasks * MC, task / row_tasks * TASK_COLS);
                    let block = Block { rows: i..m.min(i + MC), cols: jj..cols.min(jj + TASK_COLS), first_col: j, kc };
                    // SAFETY: AVX2 and FMA are there; the blocks of different tasks are disjoint.
                    unsafe { multiply_block(&block, a_panels, b_panels, add, scale, &c, c_stride) };
                });
            }
        }
    });
}

/// The part of one pass that a task computes. Columns count from `first_col` on.
struct Block {
    rows: std::ops::Range<usize>,
    cols: std::ops::Range<usize>,
    first_col: usize,
    kc: usize,
}

#[target_feature(enable = "avx2,fma")]
unsafe fn multiply_block(
    block: &Block,
    a_panels: &[f32],
    b_panels: &[f32],
    add: bool,
    scale: f32,
    c: &SharedMut<'_, f32>,
    c_stride: usize,
) {
    let kc = block.kc;
    for j in block.cols.clone().step_by(NR) {
        let b = b_panels[j * kc..(j + NR) * kc].as_ptr();
        let cols = NR.min(block.cols.end - j);
        for i in block.rows.clone().step_by(MR) {
            let a = a_panels[i * kc..(i + MR) * kc].as_ptr();
            let rows = MR.min(block.rows.end - i);
            let tile = Tile { rows, cols, stride: c_stride, add, scale };
            // SAFETY: the strips hold `kc` steps; the tile's `rows x cols` elements belong to this task alone.
            unsafe { multiply_tile(kc, a, b, c.as_mut_ptr().add(i * c_stride + block.first_col + j), tile) };
        }
    }
}

/// Which part of a register tile is stored, and how.
#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    cols: usize,
    stride: usize,
    add: bool,
    scale: f32,
}

/// Lanes below `count` of a vector, as the masked instructions want them.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn lanes_below(count: usize) -> __m256i {
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(count.min(8) as i32), lanes)
}

/// One register tile: `c = scale * a b` or `c += scale * a b` for strips of `kc` steps.
///
/// # Safety
/// `a` holds `kc * MR` floats, `b` `kc * NR`, and `c` is writable for the rows and columns of `tile`.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn multiply_tile(kc: usize, a: *const f32, b: *const f32, c: *mut f32, tile: Tile) {
    // SAFETY: the caller's promise bounds every pointer below.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; MR];
        // A prefetch past the end of the result is harmless.
        for r in 0..MR {
            _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(r * tile.stride).cast());
            _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(r * tile.stride + NR - 1).cast());
        }
        let (mut a, mut b) = (a, b);
        let step = |sums: &mut [[__m256; 2]; MR], a: *const f32, b: *const f32| {
            let b0 = _mm256_loadu_ps(b);
            let b1 = _mm256_loadu_ps(b.add(8));
            for r in 0..MR {
                let x = _mm256_broadcast_ss(&*a.add(r));
                sums[r][0] = _mm256_fmadd_ps(x, b0, sums[r][0]);
                sums[r][1] = _mm256_fmadd_ps(x, b1, sums[r][1]);
            }
        };
        for _ in 0..kc / 4 {
            _mm_prefetch::<_MM_HINT_T0>(a.wrapping_add(MR * 16).cast());
            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(NR * 8).cast());
            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(NR * 9).cast());
            step(&mut sums, a, b);
            step(&mut sums, a.add(MR), b.add(NR));
            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(NR * 10).cast());
            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(NR * 11).cast());
            step(&mut sums, a.add(2 * MR), b.add(2 * NR));
            step(&mut sums, a.add(3 * MR), b.add(3 * NR));
            a = a.add(4 * MR);
            b = b.add(4 * NR);
        }
        for _ in 0..kc % 4 {
            step(&mut sums, a, b);
            a = a.add(MR);
            b = b.add(NR);
        }
        let scale = _mm256_set1_ps(tile.scale);
        let whole = tile.cols == NR;
        let (left_mask, right_mask) = (lanes_below(tile.cols), lanes_below(tile.cols.saturating_sub(8)));
        for (r, [left, right]) in sums.into_iter().enumerate().take(tile.rows) {
            let out = c.add(r * tile.stride);
            let (mut left, mut right) = (_mm256_mul_ps(left, scale), _mm256_mul_ps(right, scale));
            if whole {
                if tile.add {
                    left = _mm256_add_ps(left, _mm256_loadu_ps(out));
                    right = _mm256_add_ps(right, _mm256_loadu_ps(out.add(8)));
                }
                _mm256_storeu_ps(out, left);
                _mm256_storeu_ps(out.add(8), right);
            } else {
                let out_right = out.wrapping_add(8);
                if tile.add {
                    left = _mm256_add_ps(left, _mm256_maskload_ps(out, left_mask));
                    right = _mm256_add_ps(right, _mm256_maskload_ps(out_right, right_mask));
                }
                _mm256_maskstore_ps(out, left_mask, left);
                _mm256_maskstore_ps(out_right, right_mask, right);
            }
        }
    }
}

/// Copies steps `p..p + kc` of all `A` strips (the first `pack_a`) and of the `B` strips from column `j` on.
fn pack_panels(
    exec: Exec,
    a: View<'_>,
    b: View<'_>,
    p: usize,
    kc: usize,
    j: usize,
    pack_a: usize,
    b_strips: usize,
    a_panels: &mut [f32],
    b_panels: &mut [f32],
) {
    /// Strips packed by one task.
    const STRIPS: usize = 8;
    let a_tasks = pack_a.div_ceil(STRIPS);
    let b_tasks = b_strips.div_ceil(STRIPS);
    let (a_out, b_out) = (SharedMut::new(a_panels), SharedMut::new(b_panels));
    for_each(exec, a_tasks + b_tasks, |task| {
        if task < a_tasks {
            for strip in task * STRIPS..pack_a.min((task + 1) * STRIPS) {
                // SAFETY: a strip is written by one task, but for `SLACK` floats beyond its end, and those
                // only through `pack_a_strip`, which leaves what lies behind a strip as another wrote it.
                unsafe { pack_a_strip(a, strip * MR, p, kc, a_out.as_mut_ptr().add(strip * MR * kc)) };
            }
        } else {
            let task = task - a_tasks;
            for strip in task * STRIPS..b_strips.min((task + 1) * STRIPS) {
                // SAFETY: strips do not overlap.
                unsafe { pack_b_strip(b, j + strip * NR, p, kc, b_out.as_mut_ptr().add(strip * NR * kc)) };
            }
        }
    });
}

/// Writes steps `p..p + kc` of rows `i..i + MR` as `out[step * MR + row]`; rows past the end are zero.
///
/// # Safety
/// `out` is writable for `kc * MR` floats.
#[target_feature(enable = "avx2,fma")]
unsafe fn pack_a_strip(a: View<'_>, i: usize, p: usize, kc: usize, out: *mut f32) {
    let shape = a.shape;
    let rows = MR.min(shape.rows - i);
    let at = |row: usize, step: usize| {
        a.data.as_ptr().wrapping_add((i + row) * shape.row_stride + (p + step) * shape.col_stride)
    };
    let mut step = 0;
    // SAFETY: element `(i + row, p + step)` is in bounds by the view's invariant, and the eight-wide accesses
    // below are taken only where eight elements are there and eight floats of the strip are still unwritten.
    unsafe {
        if shape.col_stride == 1 && rows == MR {
            while step + 8 <= kc && (step + 7) * MR + 8 <= kc * MR {
                let mut block = [_mm256_setzero_ps(); 8];
                for (row, x) in block.iter_mut().enumerate().take(MR) {
                    *x = _mm256_loadu_ps(at(row, step));
                }
                for (s, x) in transpose(block).into_iter().enumerate() {
                    _mm256_storeu_ps(out.add((step + s) * MR), x);
                }
                step += 8;
            }
        } else if shape.row_stride == 1 && i + 8 <= shape.rows {
            while (step + 2) * MR <= kc * MR && step * MR + 8 <= kc * MR {
                _mm256_storeu_ps(out.add(step * MR), _mm256_loadu_ps(at(0, step)));
                step += 1;
            }
        }
        while step < kc {
            for row in 0..MR {
                *out.add(step * MR + row) = if row < rows { *at(row, step) } else { 0.0 };
            }
            step += 1;
        }
    }
}

/// Writes steps `p..p + kc` of columns `j..j + NR` as `out[step * NR + column]`; columns past the end are zero.
///
/// # Safety
/// `out` is writable for `kc * NR` floats.
#[target_feature(enable = "avx2,fma")]
unsafe fn pack_b_strip(b: View<'_>, j: usize, p: usize, kc: usize, out: *mut f32) {
    let shape = b.shape;
    let cols = NR.min(shape.cols - j);
    let at = |step: usize, col: usize| {
        b.data.as_ptr().wrapping_add((p + step) * shape.row_stride + (j + col) * shape.col_stride)
    };
    let mut step = 0;
    // SAFETY: element `(p + step, j + col)` is in bounds by the view's invariant; vectors are used only where
    // all of their elements are.
    unsafe {
        if cols == NR && shape.col_stride == 1 {
            while step < kc {
                _mm256_storeu_ps(out.add(step * NR), _mm256_loadu_ps(at(step, 0)));
                _mm256_storeu_ps(out.add(step * NR + 8), _mm256_loadu_ps(at(step, 8)));
                step += 1;
            }
        } else if cols == NR && shape.row_stride == 1 {
            while step + 8 <= kc {
                for half in [0, 8] {
                    let mut block = [_mm256_setzero_ps(); 8];
                    for (col, x) in block.iter_mut().enumerate() {
                        *x = _mm256_loadu_ps(at(step, half + col));
                    }
                    for (s, x) in transpose(block).into_iter().enumerate() {
                        _mm256_storeu_ps(out.add((step + s) * NR + half), x);
                    }
                }
                step += 8;
            }
        }
        while step < kc {
            for col in 0..NR {
                *out.add(step * NR + col) = if col < cols { *at(step, col) } else { 0.0 };
            }
            step += 1;
        }
    }
}

/// Rows become columns.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(crate) fn transpose(rows: [__m256; 8]) -> [__m256; 8] {
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
    let (t0, t1) = (_mm256_unpacklo_ps(r0, r1), _mm256_unpackhi_ps(r0, r1));
    let (t2, t3) = (_mm256_unpacklo_ps(r2, r3), _mm256_unpackhi_ps(r2, r3));
    let (t4, t5) = (_mm256_unpacklo_ps(r4, r5), _mm256_unpackhi_ps(r4, r5));
    let (t6, t7) = (_mm256_unpacklo_ps(r6, r7), _mm256_unpackhi_ps(r6, r7));
    let (s0, s1) = (_mm256_shuffle_ps::<0x44>(t0, t2), _mm256_shuffle_ps::<0xEE>(t0, t2));
    let (s2, s3) = (_mm256_shuffle_ps::<0x44>(t1, t3), _mm256_shuffle_ps::<0xEE>(t1, t3));
    let (s4, s5) = (_mm256_shuffle_ps::<0x44>(t4, t6), _mm256_shuffle_ps::<0xEE>(t4, t6));
    let (s6, s7) = (_mm256_shuffle_ps::<0x44>(t5, t7), _mm256_shuffle_ps::<0xEE>(t5, t7));
    [
        _mm256_permute2f128_ps::<0x20>(s0, s4),
        _mm256_permute2f128_ps::<0x20>(s1, s5),
        _mm256_permute2f128_ps::<0x20>(s2, s6),
        _mm256_permute2f128_ps::<0x20>(s3, s7),
        _mm256_permute2f128_ps::<0x31>(s0, s4),
        _mm256_permute2f128_ps::<0x31>(s1, s5),
        _mm256_permute2f128_ps::<0x31>(s2, s6),
        _mm256_permute2f128_ps::<0x31>(s3, s7),
    ]
}
