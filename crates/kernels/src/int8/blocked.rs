//! Products in register tiles, on every instruction set that has a body of its own here.
//!
//! As in `matmul/half/product.rs`, with several steps of the shared dimension in each word of 32 bits: a first parallel region rounds the
//! activations for all tasks, in parts of the shared dimension that fit into a cache; each task copies the weights of its columns
//! into a panel of its own. What a word holds, and how words are multiplied, is the affair of [`Tiles`].
#![expect(unsafe_code, reason = "register tiles need intrinsics and raw pointers; lengths are checked first")]

use super::RUN;
use super::product::Product;
use crate::Exec;
use crate::matmul::avx512::{Line, room};
use crate::parallel::{SharedMut, for_each};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

/// What an instruction set brings.
///
/// A word of 32 bits holds steps of the shared dimension, [`Tiles::WORDS`] words four of them; `words` below are those of a number of
/// steps. A strip has [`Tiles::MR`] rows of activations or [`Tiles::NR`] columns of weights: their first words, then their second, and so on.
pub(super) trait Tiles: Sync {
    /// Most rows of a register tile.
    const MR: usize;
    /// Most columns of one.
    const NR: usize;
    /// Words of four steps.
    const WORDS: usize;
    /// Most of the shared dimension at a time: a strip of activations, or of weights, stays in the first-level cache.
    const KC: usize;
    /// Words of activations that are multiplied with all strips of weights before others are.
    const NEAR_WORDS: usize;

    /// Writes a strip of up to `MR` rows of activations, each times `fold` and rounded, and the scales of run `r` as
    /// `scales[r * scale_step + row]`.
    ///
    /// # Safety
    /// Rows and `fold` have one length, that of whole runs but for the last. `out` is writable for a strip, `scales` for the scales. The
    /// machine has the instructions.
    unsafe fn round<'x>(
        rows: impl Iterator<Item = &'x [f32]>,
        fold: Option<&[f32]>,
        out: *mut u32,
        scales: *mut f32,
        scale_step: usize,
    );

    /// Writes `steps` of `columns` in strips, and what the sums of each column's runs begin with as
    /// `zeros[column / NR * NR * runs + run * NR + column % NR]`, if that is read.
    ///
    /// # Safety
    /// Columns and steps are those of the product, and the first step begins a run; `out` and `zeros` are writable for whole strips. The
    /// machine has the instructions.
    unsafe fn pack(weights: &Weights<'_>, columns: Range<usize>, steps: Range<usize>, out: *mut u32, zeros: *mut i32);

    /// One register tile of up to `MR` rows and `NR` columns.
    ///
    /// # Safety
    /// The strips hold the words and runs of `of`, whose totals have room; what `out` names is readable, and writable in `rows` rows. The
    /// machine has the instructions.
    unsafe fn multiply(rows: usize, columns: usize, of: Tile, out: Out);
}

/// The weights, in the orientation of a product.
pub(super) struct Weights<'a> {
    pub(super) quants: &'a [i8],
    /// Bytes of a row.
    pub(super) cols: usize,
    /// Whether a row of the matrix is a step of the shared dimension, not a column of the product.
    pub(super) has_steps_in_rows: bool,
}

/// What a tile reads.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Words of the shared dimension.
    pub(super) words: usize,
    /// A strip of activations.
    pub(super) a: *const u32,
    /// The scales of its first run; those of the next are `scale_step` on.
    pub(super) scales: *const f32,
    pub(super) scale_step: usize,
    /// A strip of weights.
    pub(super) b: *const u32,
    /// What the sums of each run begin with: as many as a strip has columns of the first run, and so on.
    pub(super) zeros: *const i32,
    /// Room for a tile of sums.
    pub(super) totals: *mut f32,
}

/// Where a tile's sums go, and how.
#[derive(Clone, Copy)]
pub(super) struct Out {
    pub(super) start: *mut f32,
    pub(super) stride: usize,
    /// Whether the shared dimension begins here, or sums so far are in the result's place.
    pub(super) is_first: bool,
    /// Whether it ends here.
    pub(super) is_last: bool,
    pub(super) scales: Option<*const f32>,
    pub(super) bias: Option<*const f32>,
}

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

/// How a product is cut. Results do not depend on it.
struct Plan {
    /// Of the shared dimension, multiplied before sums go back to memory.
    kc: usize,
    /// Columns and rows of a task.
    cols: usize,
    rows: usize,
}

impl Plan {
    fn new<T: Tiles>(threads: usize, m: usize, k: usize, n: usize) -> Self {
        let equal = |total: usize, parts: usize, unit: usize| total.div_ceil(parts).next_multiple_of(unit);
        let kc = equal(k, k.div_ceil(T::KC), RUN);
        let fewest_cols = n.div_ceil((PANEL / (kc * T::WORDS) / T::NR * T::NR).max(T::NR));
        let worth = (2 * m * n * k / TASK_OPS).clamp(1, TASKS_PER_THREAD * threads);
        let mut best = (f32::INFINITY, Self { kc, cols: T::NR, rows: T::MR });
        for row_tasks in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32].into_iter().filter(|&rows| rows <= worth) {
            for col_tasks in fewest_cols..=(worth / row_tasks).max(fewest_cols) {
                let (cols, rows) = (equal(n, col_tasks, T::NR), equal(m, row_tasks, T::MR));
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
///
/// # Safety
/// The machine has the instructions of `T`.
pub(super) unsafe fn run<T: Tiles>(exec: Exec, product: Product<'_>) {
    let cut = Cut::<T>::new(exec.threads(), product);
    let mut rounded = ROUNDED.replace(Rounded { words: Vec::new(), scales: Vec::new() });
    let strips = cut.n.div_ceil(T::MR);
    room(&mut rounded.words, strips * T::MR * cut.words_of(&(0..cut.blocks_of_part)));
    room(&mut rounded.scales, strips * T::MR * (cut.blocks_of_part * cut.plan.kc).div_ceil(RUN));
    let (words, scales) = (SharedMut::new(&mut rounded.words), SharedMut::new(&mut rounded.scales));
    let (words, scales) = (|| words.as_mut_ptr().cast(), || scales.as_mut_ptr().cast());
    for part in 0..cut.blocks.div_ceil(cut.blocks_of_part) {
        let first = part * cut.blocks_of_part;
        let blocks = first..cut.blocks.min(first + cut.blocks_of_part);
        // SAFETY: the caller's promise; there is room, and each task runs once.
        for_each(exec, cut.round_tasks(&blocks), |index| unsafe { cut.round(&blocks, index, words(), scales()) });
        for_each(exec, cut.tasks(), |index| {
            // SAFETY: as above; the activations of this part are there.
            PANELS.with_borrow_mut(|panels| unsafe { cut.run(&blocks, index, words(), scales(), panels) });
        });
    }
    ROUNDED.set(rounded);
}

/// A product, cut into tasks.
struct Cut<'a, T> {
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
    tiles: PhantomData<T>,
}

impl<'a, T: Tiles> Cut<'a, T> {
    fn new(threads: usize, product: Product<'a>) -> Self {
        let (n, k, width) = (product.n, product.steps(), product.width());
        let plan = Plan::new::<T>(threads, n, k, width);
        let blocks = k.div_ceil(plan.kc);
        let blocks_of_part = (SHARED / (n * plan.kc * T::WORDS)).clamp(1, blocks);
        let weight = product.weight;
        let weights = Weights { quants: &weight.quants, cols: weight.cols, has_steps_in_rows: product.is_backward };
        let (fold, scales, bias) = (product.fold(), product.scales(), product.bias);
        let y = SharedMut::new(product.y);
        Self {
            x: product.x,
            fold,
            weights,
            scales,
            bias,
            y,
            n,
            k,
            width,
            plan,
            blocks,
            blocks_of_part,
            tiles: PhantomData,
        }
    }

    /// The steps of some blocks.
    fn steps_of(&self, blocks: &Range<usize>) -> Range<usize> {
        blocks.start * self.plan.kc..self.k.min(blocks.end * self.plan.kc)
    }

    /// Words of a row in some blocks.
    fn words_of(&self, blocks: &Range<usize>) -> usize {
        self.steps_of(blocks).len().div_ceil(4) * T::WORDS
    }

    /// Strips that a rounding task takes, of one block.
    fn round_strips(&self) -> usize {
        (ROUND_TASK / self.plan.kc / T::MR).max(1)
    }

    fn round_tasks(&self, blocks: &Range<usize>) -> usize {
        blocks.len() * self.n.div_ceil(T::MR).div_ceil(self.round_strips())
    }

    /// Where the strip that begins with a row has its words of a block, and where its scales of the block's first run are.
    fn places(&self, blocks: &Range<usize>, block: usize, row: usize) -> (usize, usize) {
        let rows = self.n.next_multiple_of(T::MR);
        let words = rows * self.words_of(&(blocks.start..block)) + row * self.words_of(&(block..block + 1));
        (words, (block - blocks.start) * self.plan.kc / RUN * rows + row)
    }

    /// Rounds the rows of task `index`.
    ///
    /// # Safety
    /// The machine has the instructions of `T`; there is room; no other call has this index.
    unsafe fn round(&self, blocks: &Range<usize>, index: usize, words: *mut u32, scales: *mut f32) {
        let per_task = self.round_strips() * T::MR;
        let tasks = self.n.div_ceil(per_task);
        let (block, first) = (blocks.start + index / tasks, index % tasks * per_task);
        let steps = self.steps_of(&(block..block + 1));
        for row in (first..self.n.min(first + per_task)).step_by(T::MR) {
            let (at, scale) = self.places(blocks, block, row);
            let x = self.x[row * self.k..self.n.min(row + T::MR) * self.k].chunks(self.k);
            let fold = self.fold.map(|fold| &fold[steps.clone()]);
            let (out, scales) = (words.wrapping_add(at), scales.wrapping_add(scale));
            // SAFETY: the strip is this task's alone.
            unsafe { T::round(x.map(|x| &x[steps.clone()]), fold, out, scales, self.n.next_multiple_of(T::MR)) };
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
    /// The machine has the instructions of `T`; the activations of these blocks are there; no other call has this index.
    unsafe fn run(&self, blocks: &Range<usize>, index: usize, x: *const u32, scales: *const f32, panels: &mut Panels) {
        let Plan { rows, cols, .. } = self.plan;
        let (i, j) = (index % self.row_tasks() * rows, index / self.row_tasks() * cols);
        let (rows, cols) = (i..self.n.min(i + rows), j..self.width.min(j + cols));
        for block in blocks.clone() {
            let steps = self.steps_of(&(block..block + 1));
            let (words, runs) = (self.words_of(&(block..block + 1)), steps.len().div_ceil(RUN));
            let strips = cols.len().next_multiple_of(T::NR);
            let panel: *mut u32 = room(&mut panels.words, strips * words).cast();
            let zeros: *mut i32 = room(&mut panels.zeros, strips * runs).cast();
            let totals = room(&mut panels.totals, T::MR * T::NR);
            // SAFETY: there is room for these strips.
            unsafe { T::pack(&self.weights, cols.clone(), steps, panel, zeros) };
            let near = (T::NEAR_WORDS / words / T::MR).max(1) * T::MR;
            for first in rows.clone().step_by(near) {
                for j in cols.clone().step_by(T::NR) {
                    for i in (first..rows.end.min(first + near)).step_by(T::MR) {
                        let (at, scale) = self.places(blocks, block, i);
                        let strip = j - cols.start;
                        let tile = Tile {
                            words,
                            a: x.wrapping_add(at),
                            scales: scales.wrapping_add(scale),
                            scale_step: self.n.next_multiple_of(T::MR),
                            b: panel.wrapping_add(strip * words).cast_const(),
                            zeros: zeros.wrapping_add(strip * runs).cast_const(),
                            totals,
                        };
                        let (height, width) = (T::MR.min(rows.end - i), T::NR.min(cols.end - j));
                        // SAFETY: the strips hold what the tile reads, and its results belong to this task alone.
                        unsafe { T::multiply(height, width, tile, self.out(block, i, j)) };
                    }
                }
            }
        }
    }

    /// Where the tile of a block that begins with row `i` and column `j` goes.
    fn out(&self, block: usize, i: usize, j: usize) -> Out {
        let of_column = |values: Option<&[f32]>| values.map(|values| values.as_ptr().wrapping_add(j));
        Out {
            start: self.y.as_mut_ptr().wrapping_add(i * self.width + j),
            stride: self.width,
            is_first: block == 0,
            is_last: block + 1 == self.blocks,
            scales: of_column(self.scales),
            bias: of_column(self.bias),
        }
    }
}
