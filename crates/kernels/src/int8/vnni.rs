//! The product for AVX-512 with VNNI.
//!
//! As in `matmul/half/product.rs`, with four steps of the shared dimension in each word of 32 bits: a first parallel region rounds the
//! activations for all tasks, in parts of the shared dimension that fit into a cache; each task copies the weights of its columns
//! into a panel of its own. Activations are stored without sign, 128 above what they are, since `vpdpbusd` multiplies bytes
//! without sign by bytes with one; the sums begin with what that adds.
#![expect(unsafe_code, reason = "register tiles need intrinsics and raw pointers; lengths are checked first")]

mod pack;
mod tile;

use super::RUN;
use super::product::Product;
use crate::matmul::avx512::{LANES, Line, MR, NR, lanes_below, room};
use crate::parallel::{SharedMut, for_each};
use crate::{Exec, Isa};
use pack::Weights;
use std::cell::RefCell;
use std::ops::Range;
use tile::Out;

/// Most of the shared dimension at a time: a strip of activations (28 KB) stays in the first-level cache.
const KC: usize = 2048;
/// Bytes of a task's panel of weights: a quarter of a second-level cache of 1 MB.
const PANEL: usize = 1 << 18;
/// Bytes of rounded activations at a time.
const SHARED: usize = 1 << 22;
/// Activations that one task of the first region rounds.
const ROUND_TASK: usize = 1 << 15;
/// Fewest operations worth a task of their own.
const TASK_OPS: usize = 1 << 23;
/// Most tasks of a thread.
const TASKS_PER_THREAD: usize = 8;
/// Copying a weight into a panel, in multiply-adds.
const COPY: f32 = 20.0;

/// Buffers of a thread, kept, so that a run's steps use the same memory.
struct Panels {
    words: Vec<Line>,
    zeros: Vec<Line>,
    totals: Vec<Line>,
}

/// What all tasks share.
struct Rounded {
    words: Vec<Line>,
    scales: Vec<Line>,
}

thread_local! {
    static PANELS: RefCell<Panels> = const { RefCell::new(Panels { words: Vec::new(), zeros: Vec::new(), totals: Vec::new() }) };
    static ROUNDED: RefCell<Rounded> = const { RefCell::new(Rounded { words: Vec::new(), scales: Vec::new() }) };
}

/// Whether the machine has the instructions, and `exec` allows them.
pub(super) fn is_there(exec: Exec) -> bool {
    exec.isa() == Isa::Avx512 && is_x86_feature_detected!("avx512vnni")
}

/// How a product is cut. Results do not depend on it.
struct Plan {
    /// Of the shared dimension, multiplied before sums go back to memory.
    kc: usize,
    /// Columns and rows of a task.
    cols: usize,
    rows: usize,
}

impl Plan {
    fn new(threads: usize, m: usize, k: usize, n: usize) -> Self {
        let equal = |total: usize, parts: usize, unit: usize| total.div_ceil(parts).next_multiple_of(unit);
        let kc = equal(k, k.div_ceil(KC), RUN);
        let fewest_cols = n.div_ceil((PANEL / kc / NR * NR).max(NR));
        let worth = (2 * m * n * k / TASK_OPS).clamp(1, TASKS_PER_THREAD * threads);
        let mut best = (f32::INFINITY, Self { kc, cols: NR, rows: MR });
        for row_tasks in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32].into_iter().filter(|&rows| rows <= worth) {
            for col_tasks in fewest_cols..=(worth / row_tasks).max(fewest_cols) {
                let (cols, rows) = (equal(n, col_tasks, NR), equal(m, row_tasks, MR));
                let rounds = (n.div_ceil(cols) * m.div_ceil(rows)).div_ceil(threads);
                // The end of a region waits for the last task.
                let wait = if threads == 1 { 0.0 } else { 0.1 };
                let cost = (rounds as f32 + wait) * (rows * cols) as f32 + COPY * (rounds * cols) as f32;
                if cost < best.0 {
                    best = (cost, Self { kc, cols, rows });
                }
            }
        }
        best.1
    }
}

/// Runs a product with at least one row, step and column.
pub(super) fn run(exec: Exec, product: Product<'_>) {
    let cut = Cut::new(exec.threads(), product);
    let mut rounded = ROUNDED.replace(Rounded { words: Vec::new(), scales: Vec::new() });
    let strips = cut.n.div_ceil(MR);
    room(&mut rounded.words, strips * MR * cut.words_of(&(0..cut.blocks_of_part)));
    room(&mut rounded.scales, strips * MR * (cut.blocks_of_part * cut.plan.kc).div_ceil(RUN));
    let (words, scales) = (SharedMut::new(&mut rounded.words), SharedMut::new(&mut rounded.scales));
    let (words, scales) = (|| words.as_mut_ptr().cast(), || scales.as_mut_ptr().cast());
    for part in 0..cut.blocks.div_ceil(cut.blocks_of_part) {
        let first = part * cut.blocks_of_part;
        let blocks = first..cut.blocks.min(first + cut.blocks_of_part);
        // SAFETY: the caller has asked `is_there`, there is room, and each task runs once.
        for_each(exec, cut.round_tasks(&blocks), |index| unsafe { cut.round(&blocks, index, words(), scales()) });
        for_each(exec, cut.tasks(), |index| {
            // SAFETY: as above; the activations of this part are there.
            PANELS.with_borrow_mut(|panels| unsafe { cut.run(&blocks, index, words(), scales(), panels) });
        });
    }
    ROUNDED.set(rounded);
}

/// A product, cut into tasks.
struct Cut<'a> {
    x: &'a [f32],
    fold: Option<&'a [f32]>,
    weights: Weights<'a>,
    scales: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    y: SharedMut<'a, f32>,
    n: usize,
    k: usize,
    width: usize,
    plan: Plan,
    /// Blocks of the shared dimension: in all, and of which rounded activations exist at a time.
    blocks: usize,
    blocks_of_part: usize,
}

impl<'a> Cut<'a> {
    fn new(threads: usize, product: Product<'a>) -> Self {
        let (n, k, width) = (product.n, product.steps(), product.width());
        let plan = Plan::new(threads, n, k, width);
        let blocks = k.div_ceil(plan.kc);
        let blocks_of_part = (SHARED / (n * plan.kc)).clamp(1, blocks);
        let weight = product.weight;
        let weights = Weights { quants: &weight.quants, cols: weight.cols, has_steps_in_rows: product.is_backward };
        let (fold, scales, bias) = (product.fold(), product.scales(), product.bias);
        let y = SharedMut::new(product.y);
        Self { x: product.x, fold, weights, scales, bias, y, n, k, width, plan, blocks, blocks_of_part }
    }

    /// The steps of some blocks.
    fn steps_of(&self, blocks: &Range<usize>) -> Range<usize> {
        blocks.start * self.plan.kc..self.k.min(blocks.end * self.plan.kc)
    }

    /// Words of a row in some blocks.
    fn words_of(&self, blocks: &Range<usize>) -> usize {
        self.steps_of(blocks).len().div_ceil(4)
    }

    /// Strips that a rounding task takes, of one block.
    fn round_strips(&self) -> usize {
        (ROUND_TASK / self.plan.kc / MR).max(1)
    }

    fn round_tasks(&self, blocks: &Range<usize>) -> usize {
        blocks.len() * self.n.div_ceil(MR).div_ceil(self.round_strips())
    }

    /// Where the strip that begins with a row has its words of a block, and where its scales of the block's first run are.
    fn places(&self, blocks: &Range<usize>, block: usize, row: usize) -> (usize, usize) {
        let rows = self.n.next_multiple_of(MR);
        let words = rows * self.words_of(&(blocks.start..block)) + row * self.words_of(&(block..block + 1));
        (words, (block - blocks.start) * self.plan.kc / RUN * rows + row)
    }

    /// Rounds the rows of task `index`.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW and VNNI; there is room; no other call has this index.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn round(&self, blocks: &Range<usize>, index: usize, words: *mut u32, scales: *mut f32) {
        let per_task = self.round_strips() * MR;
        let tasks = self.n.div_ceil(per_task);
        let (block, first) = (blocks.start + index / tasks, index % tasks * per_task);
        let steps = self.steps_of(&(block..block + 1));
        for row in (first..self.n.min(first + per_task)).step_by(MR) {
            let (at, scale) = self.places(blocks, block, row);
            let x = self.x[row * self.k..self.n.min(row + MR) * self.k].chunks(self.k);
            let fold = self.fold.map(|fold| &fold[steps.clone()]);
            let (out, scales) = (words.wrapping_add(at), scales.wrapping_add(scale));
            // SAFETY: the strip is this task's alone.
            unsafe { pack::activations(x.map(|x| &x[steps.clone()]), fold, out, scales, self.n.next_multiple_of(MR)) };
        }
    }

    fn row_tasks(&self) -> usize {
        self.n.div_ceil(self.plan.rows)
    }

    fn tasks(&self) -> usize {
        self.row_tasks() * self.width.div_ceil(self.plan.cols)
    }

    /// Task `index` of some blocks: neighbours have the same columns.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW and VNNI; the activations of these blocks are there; no other call has this index.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn run(&self, blocks: &Range<usize>, index: usize, x: *const u32, scales: *const f32, panels: &mut Panels) {
        let Plan { rows, cols, .. } = self.plan;
        let (i, j) = (index % self.row_tasks() * rows, index / self.row_tasks() * cols);
        let (rows, cols) = (i..self.n.min(i + rows), j..self.width.min(j + cols));
        for block in blocks.clone() {
            let steps = self.steps_of(&(block..block + 1));
            let (words, runs) = (steps.len().div_ceil(4), steps.len().div_ceil(RUN));
            let strips = cols.len().next_multiple_of(NR);
            let panel: *mut u32 = room(&mut panels.words, strips * words).cast();
            let zeros: *mut i32 = room(&mut panels.zeros, strips * runs).cast();
            let totals = room(&mut panels.totals, MR * NR);
            // SAFETY: there is room for these strips.
            unsafe { self.weights.pack(cols.clone(), steps, panel, zeros) };
            for i in rows.clone().step_by(MR) {
                let (at, scale) = self.places(blocks, block, i);
                for j in cols.clone().step_by(NR) {
                    let (strip, width) = (j - cols.start, NR.min(cols.end - j));
                    let tile = tile::Tile {
                        words,
                        a: x.wrapping_add(at),
                        scales: scales.wrapping_add(scale),
                        scale_step: self.n.next_multiple_of(MR),
                        b: panel.wrapping_add(strip * words).cast_const(),
                        zeros: zeros.wrapping_add(strip * runs).cast_const(),
                        totals,
                    };
                    let of_column = |values: Option<&[f32]>| values.map(|values| values.as_ptr().wrapping_add(j));
                    let out = Out {
                        start: self.y.as_mut_ptr().wrapping_add(i * self.width + j),
                        stride: self.width,
                        last: lanes_below(width - (width - 1) / LANES * LANES),
                        is_first: block == 0,
                        is_last: block + 1 == self.blocks,
                        scales: of_column(self.scales),
                        bias: of_column(self.bias),
                    };
                    // SAFETY: the strips hold what the tile reads, and its results belong to this task alone.
                    unsafe { tile::multiply(MR.min(rows.end - i), width.div_ceil(LANES), tile, out) };
                }
            }
        }
    }
}
