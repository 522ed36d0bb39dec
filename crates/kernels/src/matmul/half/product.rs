//! The blocked product of operands rounded to 16-bit floats, for AVX-512 with BF16 or FP16.
//!
//! The register tiles (`bf16.rs`, `f16.rs`) are that of `avx512.rs` with two steps of the shared dimension in each word of 32
//! bits. Both operands are rounded as they are copied, so no copy may be left out, but each element need be rounded only once:
//! an operand that several tasks read is copied whole by a parallel region before, in parts of the shared dimension that fit
//! into a cache; one that a single task reads is copied by this task into panels of its own, without a way through memory.
//!
//! Source: Goto and van de Geijn 2008, as in `mod.rs`.

use super::super::avx512::{LANES, Line, MR, NR, Out, lanes_below, room};
use super::super::{After, Onto, Product, View, task_of};
use super::bf16::Bf16;
use super::f16::F16;
use super::{bf16, block_of, equal, f16, pack};
use crate::exec::{Exec, HalfFormat};
use crate::parallel::{Denormals, SharedMut, for_each};
use std::cell::RefCell;
use std::ops::Range;

/// Elements of a block of `B`, or of a task's own panel of `A`: a quarter of a second-level cache of 1 MB.
const PANEL: usize = 1 << 17;
/// Elements of an operand that tasks share, at a time.
const SHARED: usize = 1 << 22;
/// Elements that one task of the first region copies.
const COPY_TASK: usize = 1 << 15;
/// Fewest floating-point operations worth a task of their own.
const TASK_FLOPS: usize = 1 << 22;
/// Most tasks of a thread.
const TASKS_PER_THREAD: usize = 8;
/// Copying an element into a panel of the task's own, in multiply-adds, both of bf16.
const COPY: f32 = 12.0;
/// Copying an element for all tasks.
const COPY_SHARED: f32 = 25.0;

/// Buffers of a thread, kept, so that a training run packs into the same memory at every step.
struct Panels {
    a: Vec<Line>,
    b: Vec<Line>,
}

thread_local! {
    static PANELS: RefCell<Panels> = const { RefCell::new(Panels { a: Vec::new(), b: Vec::new() }) };
    /// What the tasks of this thread's products share.
    static COPIES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// How a product is cut. Results depend on `kc` alone, which depends on the shape alone; so the rest may follow the threads.
#[derive(Clone, Copy)]
struct Plan {
    /// Of the shared dimension, multiplied before sums go back to memory.
    kc: usize,
    /// Columns and rows of a task.
    cols: usize,
    rows: usize,
}

impl Plan {
    fn new(threads: usize, m: usize, k: usize, n: usize) -> Self {
        let kc = block_of(k);
        // Of an operand that one task alone reads, its part is to fit into the task's panel.
        let fewest = |lanes: usize, unit: usize| lanes.div_ceil((PANEL / kc / unit * unit).max(unit)).max(1);
        let (fewest_cols, fewest_rows) = (fewest(n, NR), fewest(m, MR));
        let worth = (2 * m * n * k / TASK_FLOPS).clamp(1, TASKS_PER_THREAD * threads);
        let by_cols = (fewest_cols..=worth.max(fewest_cols)).map(|cols| (cols, 1));
        let by_rows = (fewest_rows..=worth.max(fewest_rows)).map(|rows| (1, rows));
        let both = [2, 3, 4, 6, 8, 12, 16, 24, 32]
            .into_iter()
            .flat_map(|rows| (2..=worth / rows).map(move |cols| (cols, rows)));
        let mut best = (f32::INFINITY, Self { kc, cols: NR, rows: MR });
        for (col_tasks, row_tasks) in by_cols.chain(by_rows).chain(both) {
            let (cols, rows) = (equal(n, col_tasks, NR), equal(m, row_tasks, MR));
            let (col_tasks, row_tasks) = (n.div_ceil(cols), m.div_ceil(rows));
            let rounds = (col_tasks * row_tasks).div_ceil(threads);
            let copy = |is_shared: bool, all: usize, own: usize| {
                if is_shared { COPY_SHARED * (all / threads) as f32 } else { COPY * (rounds * own) as f32 }
            };
            let copies = copy(col_tasks > 1, m, rows) + copy(row_tasks > 1, n, cols);
            // The end of a region waits for the last task.
            let wait = if threads == 1 { 0.0 } else { 0.1 * (rows * cols) as f32 };
            let cost = (rounds * rows * cols) as f32 + copies + wait;
            if cost < best.0 {
                best = (cost, Self { kc, cols, rows });
            }
        }
        best.1
    }
}

/// Several products. The shapes agree, and the machine has products of `format`: the caller checked.
pub(in crate::matmul) fn matmuls<const K: usize>(exec: Exec, format: HalfFormat, products: [Product<'_>; K]) {
    let mut copies = COPIES.take();
    let mut used = 0;
    let products = products.map(|product| Cut::new(exec.threads(), format, product, &mut used));
    room(&mut copies, used);
    let parts = products.iter().map(Cut::parts).max().unwrap_or(0).max(1);
    let shared = SharedMut::new(&mut copies);
    for part in 0..parts {
        let copy_tasks: usize = products.iter().map(|product| product.copy_tasks(part)).sum();
        for_each(exec, copy_tasks, |index| {
            let (number, index) = task_of(products.iter().map(|product| product.copy_tasks(part)), index);
            // SAFETY: the machine has the instructions, and each task runs once.
            unsafe { products[number].copy(part, index, shared.as_mut_ptr().cast()) };
        });
        let tasks: usize = products.iter().map(|product| product.tasks(part)).sum();
        for_each(exec, tasks, |index| {
            let (number, index) = task_of(products.iter().map(|product| product.tasks(part)), index);
            let copies = shared.as_mut_ptr().cast_const().cast();
            // SAFETY: the machine has the instructions, the copies are made, and each task runs once.
            PANELS.with_borrow_mut(|panels| unsafe { products[number].run(part, index, copies, panels) });
        });
    }
    COPIES.set(copies);
}

/// One operand: its lanes are rows of `A` or columns of `B`, its steps the shared dimension.
struct Operand<'a> {
    /// Lanes are rows.
    view: View<'a>,
    format: HalfFormat,
    /// Lanes of a strip.
    width: usize,
    /// Where its copy is, in words, if tasks share one.
    copy: Option<usize>,
}

impl Operand<'_> {
    fn lanes(&self) -> usize {
        self.view.shape.rows
    }

    /// Words of one lane in a copy of so many steps.
    fn words_of(&self, steps: usize) -> usize {
        match self.format {
            HalfFormat::Bf16 => pack::words_of::<Bf16>(steps),
            HalfFormat::F16 => pack::words_of::<F16>(steps),
        }
    }

    /// Words of the copy of one block of `kc` steps.
    fn block_words(&self, kc: usize) -> usize {
        self.lanes().next_multiple_of(self.width) * self.words_of(kc)
    }

    /// # Safety
    /// As [`pack::pack`].
    unsafe fn pack(&self, lanes: Range<usize>, steps: Range<usize>, out: *mut u32) {
        // SAFETY: the caller's promise.
        unsafe {
            match (self.format, self.width) {
                (HalfFormat::Bf16, MR) => pack::pack::<MR, Bf16>(self.view, lanes, steps, out),
                (HalfFormat::Bf16, _) => pack::pack::<NR, Bf16>(self.view, lanes, steps, out),
                (HalfFormat::F16, MR) => pack::pack::<MR, F16>(self.view, lanes, steps, out),
                (HalfFormat::F16, _) => pack::pack::<NR, F16>(self.view, lanes, steps, out),
            }
        }
    }
}

/// A product, cut into tasks.
struct Cut<'a> {
    format: HalfFormat,
    onto: Onto,
    row: Option<&'a [f32]>,
    scale: f32,
    a: Operand<'a>,
    b: Operand<'a>,
    c: SharedMut<'a, f32>,
    stride: usize,
    plan: Plan,
    /// Blocks of the shared dimension: in all, and of which the copies exist at a time.
    blocks: usize,
    blocks_of_part: usize,
    after: Option<After<'a>>,
}

impl<'a> Cut<'a> {
    /// Moves `used`, the words of shared copies, on.
    fn new(threads: usize, format: HalfFormat, product: Product<'a>, used: &mut usize) -> Self {
        let Product { onto, row, scale, a, b, c, after } = product;
        let (m, k, n) = (a.shape.rows, a.shape.cols, b.shape.cols);
        let plan = Plan::new(threads, m, k, n);
        let blocks = k.div_ceil(plan.kc).max(1);
        let mut a = Operand { view: a, format, width: MR, copy: None };
        let mut b = Operand { view: b.t(), format, width: NR, copy: None };
        let shared = [(&mut a, plan.cols < n), (&mut b, plan.rows < m)];
        let mut shared = shared.into_iter().filter(|shared| shared.1).map(|shared| shared.0).collect::<Vec<_>>();
        let largest = shared.iter().map(|operand| 2 * operand.block_words(plan.kc)).max();
        let blocks_of_part = largest.map_or(blocks, |largest| (SHARED / largest.max(1)).clamp(1, blocks));
        for operand in &mut shared {
            operand.copy = Some(*used);
            *used += (blocks_of_part * operand.block_words(plan.kc)).next_multiple_of(LANES);
        }
        let (c, stride) = (c.data, c.shape.row_stride);
        Self { format, onto, row, scale, a, b, c, stride, plan, blocks, blocks_of_part, after }
    }

    /// Parts of the shared dimension.
    fn parts(&self) -> usize {
        self.blocks.div_ceil(self.blocks_of_part)
    }

    /// The blocks of a part.
    fn blocks_of(&self, part: usize) -> Range<usize> {
        let first = part * self.blocks_of_part;
        first.min(self.blocks)..self.blocks.min(first + self.blocks_of_part)
    }

    /// The steps of a block.
    fn steps_of(&self, block: usize) -> Range<usize> {
        let (k, kc) = (self.a.view.shape.cols, self.plan.kc);
        block * kc..k.min((block + 1) * kc)
    }

    fn row_tasks(&self) -> usize {
        self.a.lanes().div_ceil(self.plan.rows)
    }

    fn tasks(&self, part: usize) -> usize {
        if part >= self.parts() { 0 } else { self.row_tasks() * self.b.lanes().div_ceil(self.plan.cols) }
    }

    /// Lanes that a copying task takes, of one block.
    fn copy_lanes(&self, operand: &Operand<'_>) -> usize {
        (COPY_TASK / self.plan.kc).next_multiple_of(operand.width)
    }

    /// Copying tasks of one block, of `A` and of `B`.
    fn copy_tasks_of_block(&self) -> [usize; 2] {
        [&self.a, &self.b].map(|operand| operand.copy.map_or(0, |_| operand.lanes().div_ceil(self.copy_lanes(operand))))
    }

    fn copy_tasks(&self, part: usize) -> usize {
        self.copy_tasks_of_block().iter().sum::<usize>() * self.blocks_of(part).len()
    }

    /// Where the copy of a block of `operand` is.
    fn copy_of(&self, operand: &Operand<'_>, part: usize, block: usize) -> Option<usize> {
        operand.copy.map(|copy| copy + (block - self.blocks_of(part).start) * operand.block_words(self.plan.kc))
    }

    /// Denormals are zero where bf16 is rounded to, by its instructions, whatever the thread does with them; elsewhere by this.
    fn flushed(&self) -> Option<Denormals> {
        (self.format == HalfFormat::F16).then(Denormals::flushed)
    }

    /// Copying task `index` of a part.
    ///
    /// # Safety
    /// The machine has products of the format; `copies` has room for all words; no other call has this index.
    unsafe fn copy(&self, part: usize, index: usize, copies: *mut u32) {
        let _flushed = self.flushed();
        let [of_a, of_b] = self.copy_tasks_of_block();
        let block = self.blocks_of(part).start + index / (of_a + of_b);
        let index = index % (of_a + of_b);
        let (operand, index) = if index < of_a { (&self.a, index) } else { (&self.b, index - of_a) };
        let Some(at) = self.copy_of(operand, part, block) else { return };
        let (per_task, steps) = (self.copy_lanes(operand), self.steps_of(block));
        let lanes = index * per_task..operand.lanes().min((index + 1) * per_task);
        let out = copies.wrapping_add(at + lanes.start * operand.words_of(steps.len()));
        // SAFETY: the strips of these lanes are this task's alone.
        unsafe { operand.pack(lanes, steps, out) };
    }

    /// Task `index` of a part: neighbours have the same columns.
    ///
    /// # Safety
    /// The machine has products of the format; the copies of this part are made; no other call has this index.
    unsafe fn run(&self, part: usize, index: usize, copies: *const u32, panels: &mut Panels) {
        let _flushed = self.flushed();
        let Plan { rows, cols, .. } = self.plan;
        let (i, j) = (index % self.row_tasks() * rows, index / self.row_tasks() * cols);
        let (rows, cols) = (i..self.a.lanes().min(i + rows), j..self.b.lanes().min(j + cols));
        for block in self.blocks_of(part) {
            let steps = self.steps_of(block);
            let (words, words_of_lane) = (steps.len().div_ceil(2), self.a.words_of(steps.len()));
            // Strips of the task's lanes, where they are.
            let strips = |operand: &Operand<'_>, lanes: &Range<usize>, panel: &mut Vec<Line>| {
                if let Some(at) = self.copy_of(operand, part, block) {
                    return copies.wrapping_add(at + lanes.start * words_of_lane);
                }
                let panel: *mut u32 = room(panel, lanes.len().next_multiple_of(operand.width) * words_of_lane).cast();
                // SAFETY: the panel has room for these strips.
                unsafe { operand.pack(lanes.clone(), steps.clone(), panel) };
                panel.cast_const()
            };
            let a = strips(&self.a, &rows, &mut panels.a);
            let b = strips(&self.b, &cols, &mut panels.b);
            let block_cols = (PANEL / (2 * words).max(1) / NR * NR).max(NR);
            for first in cols.clone().step_by(block_cols) {
                for i in rows.clone().step_by(MR) {
                    for j in (first..cols.end.min(first + block_cols)).step_by(NR) {
                        let width = NR.min(cols.end - j);
                        let out = Out {
                            start: self.c.as_mut_ptr().wrapping_add(i * self.stride + j),
                            stride: self.stride,
                            last: lanes_below(width - (width - 1) / LANES * LANES),
                            add: block > 0 || self.onto == Onto::Add,
                            scale: self.scale,
                            row: self.row.map(|row| row.as_ptr().wrapping_add(j)),
                        };
                        let a = a.wrapping_add((i - rows.start) * words_of_lane);
                        let b = b.wrapping_add((j - cols.start) * words_of_lane);
                        let (rows, vectors) = (MR.min(rows.end - i), width.div_ceil(LANES));
                        // SAFETY: the strips hold the words of this tile, which belongs to this task alone.
                        unsafe {
                            match self.format {
                                HalfFormat::Bf16 => bf16::multiply(rows, vectors, words, a, b, out),
                                HalfFormat::F16 => f16::multiply(rows, vectors, words, a, b, out),
                            }
                        }
                    }
                }
            }
        }
        if let Some(after) = self.after.filter(|_| part + 1 == self.parts()) {
            after.block(rows, cols);
        }
    }
}
