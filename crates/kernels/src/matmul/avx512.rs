//! The blocked product for AVX-512.
//!
//! A register tile of up to [`MR`] x [`NR`] sums takes 28 of the 32 registers, so that a step of the shared dimension
//! loads 16 operands for 28 multiply-adds and either of them may come from the second-level cache. That leaves freedom
//! above: a task owns a block of `C`, copies the block of `B` it needs into a panel of its own in its core's second-level
//! cache, one strip of `A` after the other into the first, and shares nothing with other tasks, so a product is one
//! parallel region. An operand whose elements already lie as the tile reads them, near each other, is not copied.
//!
//! Source: Goto and van de Geijn 2008.

mod direct;
mod pack;

use super::{After, Onto, Product, View, task_of};
use crate::exec::Exec;
use crate::parallel::{SharedMut, for_each};
pub(crate) use direct::{Columns, multiply_copy, multiply_in_place};
pub(crate) use pack::transpose;
use pack::{pack_a, pack_b, square};
use std::arch::x86_64::{
    __m512, __mmask16, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
};
use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Floats of a vector.
pub(crate) const LANES: usize = 16;
/// Most rows of a register tile.
pub(crate) const MR: usize = 14;
/// Most columns of a register tile: two vectors.
pub(crate) const NR: usize = 2 * LANES;
/// Floats of a panel of `B`: half of a second-level cache of 1 MB.
const PANEL: usize = 1 << 17;
/// Most columns of a block of `C`, where the shared dimension is long.
const NC: usize = 256;
/// Most of the shared dimension at a time: a strip of `A` stays in the first-level cache.
const KC: usize = 512;
/// Floats of the strips of `A` that are copied at a time.
const GROUP: usize = 1 << 15;
/// Floats from the first to the last that a tile reads of an operand which is not copied: they stay in the cache. Of `A`
/// a tile reads one line of each row, of `B` two.
const NEAR_A: usize = 1 << 19;
const NEAR_B: usize = 1 << 18;
/// Fewest floating-point operations worth a task of their own.
const TASK_FLOPS: usize = 1 << 21;
/// Most tasks of a thread.
const TASKS_PER_THREAD: usize = 8;
/// Copying an element of an operand, in multiply-adds of a row or column of results.
const COPY: f32 = 5.0;

/// Sixteen floats on one line of the cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line([f32; LANES]);

/// The sums of a register tile.
struct Tile([Line; 2 * MR]);

/// Buffers of a thread, kept, so that a training run packs into the same memory at every step.
struct Panels {
    a: Vec<Line>,
    b: Vec<Line>,
    /// Which block of `B` the panel holds, if another task may want it: number of the product, column.
    holds: Option<(u64, usize)>,
}

thread_local! {
    static PANELS: RefCell<Panels> = const { RefCell::new(Panels { a: Vec::new(), b: Vec::new(), holds: None }) };
}

/// Products so far: tells one from another that lies at the same place.
static PRODUCTS: AtomicU64 = AtomicU64::new(0);

/// Room for `floats` elements of four bytes, and a line more. New room is zero.
pub(crate) fn room(buffer: &mut Vec<Line>, floats: usize) -> *mut f32 {
    let lines = floats.div_ceil(LANES) + 1;
    if buffer.len() < lines {
        buffer.resize(lines, Line([0.0; LANES]));
    }
    buffer.as_mut_ptr().cast()
}

/// How a product is cut. Results depend on `kc` alone, which depends on the shape alone; so tasks may follow the threads.
struct Plan {
    /// Of the shared dimension, multiplied before sums go back to memory.
    kc: usize,
    /// Columns and rows of a task.
    cols: usize,
    rows: usize,
}

/// Most of the shared dimension at a time for `n` columns: few leave room for more.
fn most_steps(n: usize) -> usize {
    (PANEL / n.next_multiple_of(NR).clamp(NR, NC)).max(KC)
}

/// Whether the whole shared dimension is multiplied before sums go back to memory.
pub(crate) fn is_in_one_go(k: usize, n: usize) -> bool {
    k <= most_steps(n)
}

impl Plan {
    fn new(threads: usize, m: usize, k: usize, n: usize) -> Self {
        if m == 0 || n == 0 {
            return Self { kc: k, cols: NR, rows: MR };
        }
        let equal = |total: usize, parts: usize, unit: usize| total.div_ceil(parts.max(1)).next_multiple_of(unit);
        // A short shared dimension leaves room for more columns.
        let kc = equal(k, k.div_ceil(most_steps(n)), 8);
        let fewest_cols = n.div_ceil((PANEL / kc / NR * NR).max(NR));
        let worth = (2 * m * n * k / TASK_FLOPS).clamp(1, TASKS_PER_THREAD * threads);
        if threads == 1 || worth == 1 {
            return Self { kc, cols: equal(n, fewest_cols, NR), rows: m };
        }
        let mut best = (f32::INFINITY, Self { kc, cols: n, rows: m });
        for col_tasks in fewest_cols..=fewest_cols.max(worth) {
            for row_tasks in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, worth] {
                let (cols, rows) = (equal(n, col_tasks, NR), equal(m, row_tasks, MR));
                let tasks = n.div_ceil(cols) * m.div_ceil(rows);
                if tasks > worth.max(fewest_cols) && row_tasks > 1 {
                    continue;
                }
                let rounds = tasks.div_ceil(threads);
                // What one round computes, with the copying of operands; the end of a region waits for the last task.
                let copies = 1.0 + COPY / rows as f32 + COPY / cols as f32;
                let cost = (rounds * rows * cols) as f32 * copies * (1.0 + 0.1 / rounds as f32);
                if cost < best.0 {
                    best = (cost, Self { kc, cols, rows });
                }
            }
        }
        best.1
    }
}

/// Several products in one region. The shapes agree, no shared dimension is empty, and the machine has AVX-512: the caller
/// checked.
pub(super) fn matmuls<const K: usize>(exec: Exec, products: [Product<'_>; K]) {
    let products = products.map(|product| Cut::new(exec.threads(), product));
    let tasks: usize = products.iter().map(Cut::tasks).sum();
    for_each(exec, tasks, |index| {
        let (number, index) = task_of(products.iter().map(Cut::tasks), index);
        // SAFETY: AVX-512 is there, and each task runs once.
        PANELS.with_borrow_mut(|panels| unsafe { products[number].run(index, panels) });
    });
}

/// A product, cut into tasks.
struct Cut<'a> {
    onto: Onto,
    row: Option<&'a [f32]>,
    scale: f32,
    a: View<'a>,
    b: View<'a>,
    c: SharedMut<'a, f32>,
    stride: usize,
    /// Whether the result is written with rows and columns exchanged.
    swapped: bool,
    plan: Plan,
    /// Tells this product from others, where several tasks want the same panel.
    number: Option<u64>,
    after: Option<After<'a>>,
}

/// Where a tile reads an operand: its elements of one step lie together, those of the next step `step` floats on.
#[derive(Clone, Copy)]
struct Operand {
    start: *const f32,
    step: usize,
    /// Of `A` where it is read in rows: floats from one row to the next, while steps lie together.
    row: usize,
    /// Of `B`: floats from a step to that of the next tile. Each step asks for it, as columns of rows far apart are what no prefetcher
    /// foresees.
    ahead: usize,
}

impl<'a> Cut<'a> {
    fn new(threads: usize, product: Product<'a>) -> Self {
        let Product { onto, row, scale, mut a, mut b, c, after } = product;
        // Of two operands that both lie in columns, the one whose rows are shorter is read in vectors, where the other can
        // be read in place then.
        let in_columns = a.shape.row_stride == 1 && b.shape.col_stride == 1;
        let (narrow, wide) = (a.shape.col_stride, b.shape.row_stride);
        let swapped = row.is_none() && in_columns && narrow < wide && wide * a.shape.cols <= NEAR_A;
        if swapped {
            (a, b) = (b.t(), a.t());
        }
        let (m, k, n) = (a.shape.rows, a.shape.cols, b.shape.cols);
        let plan = Plan::new(threads, m, k, n);
        let number = (plan.rows < m).then(|| PRODUCTS.fetch_add(1, Ordering::Relaxed));
        Self { onto, row, scale, a, b, stride: c.shape.row_stride, c: c.data, swapped, plan, number, after }
    }

    fn row_tasks(&self) -> usize {
        self.a.shape.rows.div_ceil(self.plan.rows)
    }

    fn tasks(&self) -> usize {
        self.row_tasks() * self.b.shape.cols.div_ceil(self.plan.cols)
    }

    /// Task `index`: neighbours have the same columns.
    ///
    /// # Safety
    /// The machine has AVX-512, and no other call has this index.
    #[target_feature(enable = "avx512f")]
    unsafe fn run(&self, index: usize, panels: &mut Panels) {
        let Plan { rows, cols, .. } = self.plan;
        let (i, j) = (index % self.row_tasks() * rows, index / self.row_tasks() * cols);
        let (rows, cols) = (i..self.a.shape.rows.min(i + rows), j..self.b.shape.cols.min(j + cols));
        // SAFETY: the blocks of different tasks are disjoint.
        unsafe { self.block(rows.clone(), cols.clone(), panels) };
        if let Some(after) = self.after {
            let (rows, cols) = if self.swapped { (cols, rows) } else { (rows, cols) };
            after.block(rows, cols);
        }
    }

    /// Whether the tile may read steps of an operand where they are: `step_stride` apart.
    fn near(&self, inner_stride: usize, step_stride: usize, near: usize) -> bool {
        inner_stride == 1 && step_stride * self.plan.kc <= near
    }

    /// Rows `rows` and columns `cols` of `C`.
    #[target_feature(enable = "avx512f")]
    unsafe fn block(&self, rows: Range<usize>, cols: Range<usize>, panels: &mut Panels) {
        let (a, b, k, most) = (self.a, self.b, self.a.shape.cols, self.plan.kc);
        let strips = rows.len().div_ceil(MR);
        let height = rows.len().div_ceil(strips);
        let group = (GROUP / (height * most)).max(1) * height;
        let a_in_rows = a.shape.col_stride == 1 && a.shape.row_stride > 1 && spread(a.shape.row_stride);
        let a_in_place = a_in_rows || self.near(a.shape.row_stride, a.shape.col_stride, NEAR_A);
        let b_in_place = self.near(b.shape.col_stride, b.shape.row_stride, NEAR_B);
        let mut tile = Tile([Line([0.0; LANES]); 2 * MR]);
        for p in (0..k).step_by(most) {
            let kc = most.min(k - p);
            let panel = room(&mut panels.b, if b_in_place { 0 } else { cols.len().next_multiple_of(NR) * kc });
            let wanted = self.number.filter(|_| kc == k).map(|number| (number, cols.start));
            if !b_in_place && (wanted.is_none() || panels.holds != wanted) {
                // SAFETY: the panel has room for these columns.
                unsafe { pack_b(b, p, kc, cols.clone(), panel) };
                panels.holds = wanted;
            }
            let strip = room(&mut panels.a, if a_in_place { 0 } else { group * kc });
            for i in rows.clone().step_by(height) {
                let count = height.min(rows.end - i);
                let operand = if a_in_place {
                    let start = a.data.as_ptr().wrapping_add(i * a.shape.row_stride + p * a.shape.col_stride);
                    Operand { start, step: a.shape.col_stride, row: a.shape.row_stride, ahead: 0 }
                } else {
                    let row = (i - rows.start) % group;
                    if row == 0 {
                        // SAFETY: there is room for this many rows and steps.
                        unsafe { pack_a(a, i..rows.end.min(i + group), height, p, kc, strip) };
                    }
                    Operand { start: strip.wrapping_add(row * kc), step: count, row: 1, ahead: 0 }
                };
                for j in cols.clone().step_by(NR) {
                    let (width, is_last) = (NR.min(cols.end - j), j + NR >= cols.end);
                    let b = if b_in_place {
                        let start = b.data.as_ptr().wrapping_add(p * b.shape.row_stride + j);
                        Operand { start, step: b.shape.row_stride, row: 1, ahead: if is_last { 0 } else { NR } }
                    } else {
                        let start = panel.wrapping_add((j - cols.start) * kc).cast_const();
                        Operand { start, step: NR, row: 1, ahead: if is_last { 0 } else { NR * kc } }
                    };
                    let (row, column) = if self.swapped { (j, i) } else { (i, j) };
                    let out = Out {
                        start: self.c.as_mut_ptr().wrapping_add(row * self.stride + column),
                        stride: self.stride,
                        last: lanes_below(width - (width - 1) / LANES * LANES),
                        add: p > 0 || self.onto == Onto::Add,
                        scale: self.scale,
                        row: self.row.filter(|_| p == 0).map(|row| row.as_ptr().wrapping_add(j)),
                    };
                    // SAFETY: the operands hold `kc` steps of this tile, which belongs to this task alone.
                    unsafe {
                        if self.swapped {
                            let start = tile.0.as_mut_ptr().cast();
                            let plain = Out { start, stride: NR, add: false, ..out };
                            multiply(count, width.div_ceil(LANES), kc, operand, b, plain);
                            write_swapped(&tile, count, width, out);
                        } else {
                            multiply(count, width.div_ceil(LANES), kc, operand, b, out);
                        }
                    }
                }
            }
        }
    }
}

/// Where a tile's sums go, and how.
#[derive(Clone, Copy)]
pub(super) struct Out {
    pub(super) start: *mut f32,
    pub(super) stride: usize,
    /// Lanes of the last vector that are columns of the result.
    pub(super) last: __mmask16,
    pub(super) add: bool,
    pub(super) scale: f32,
    /// What is added to each row, where `add` is not set.
    pub(super) row: Option<*const f32>,
}

pub(crate) fn lanes_below(count: usize) -> __mmask16 {
    (u32::MAX >> (32 - count.min(LANES))) as __mmask16
}

/// The tile of `rows` x `vectors`.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn multiply(rows: usize, vectors: usize, steps: usize, a: Operand, b: Operand, out: Out) {
    macro_rules! by_rows {
        ($vectors:literal, $in_rows:literal: $($rows:literal)*) => {
            match rows {
                // SAFETY: the caller's promise.
                $($rows => unsafe { tile::<$rows, $vectors, $in_rows>(steps, a, b, out) },)*
                _ => unreachable!("a tile of {rows} rows"),
            }
        };
    }
    match (vectors, a.row) {
        (2, 1) => by_rows!(2, false: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (2, _) => by_rows!(2, true: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (_, 1) => by_rows!(1, false: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        _ => by_rows!(1, true: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
    }
}

/// Whether fourteen rows that start `row_stride` floats apart lie in different enough sets of a first-level cache of 64 sets and 8 ways or
/// more: a line of each stays there for sixteen steps, beside those of `B`.
fn spread(row_stride: usize) -> bool {
    let lines = row_stride * size_of::<f32>() / 64;
    let sets = 64 >> lines.trailing_zeros().min(6);
    sets >= 2
}

/// Writes the sums of a register tile of `$R` rows and `$V` vectors where `$out` says. Not a function: one that takes the sums, inlined or not,
/// makes the compiler keep them in memory through the loop before (a third slower).
macro_rules! write_tile {
    ($sums:ident, $out:ident, $R:ident, $V:ident) => {
        let scale = _mm512_set1_ps($out.scale);
        for v in 0..$V {
            let mask = if v + 1 < $V { __mmask16::MAX } else { $out.last };
            let row = match $out.row {
                Some(row) => _mm512_maskz_loadu_ps(mask, row.add(v * LANES)),
                None => _mm512_set1_ps(-0.0),
            };
            for r in 0..$R {
                let at = $out.start.add(r * $out.stride + v * LANES);
                let before = if $out.add { _mm512_maskz_loadu_ps(mask, at) } else { row };
                let sum = _mm512_fmadd_ps($sums[r][v], scale, before);
                _mm512_mask_storeu_ps(at, mask, sum);
            }
        }
    };
}
pub(super) use write_tile;

/// One register tile of `R` rows and `V` vectors.
///
/// # Safety
/// `a` holds `steps` times `R` floats, `b` `steps` times the lanes of `out`; those are writable in `R` rows.
#[target_feature(enable = "avx512f")]
unsafe fn tile<const R: usize, const V: usize, const IN_ROWS: bool>(steps: usize, a: Operand, b: Operand, out: Out) {
    // SAFETY: the caller's promise bounds every pointer below.
    unsafe {
        for r in 0..R {
            for v in 0..V {
                _mm_prefetch::<_MM_HINT_T0>(out.start.wrapping_add(r * out.stride + v * LANES).cast());
            }
        }
        let mut sums = [[_mm512_setzero_ps(); V]; R];
        let (row, a_step) = if IN_ROWS { (a.row, 1) } else { (1, a.step) };
        let next = b.ahead;
        let step = |sums: &mut [[__m512; V]; R], a: &[*const f32; 5], ahead: usize, b: *const f32| {
            let next = b.wrapping_add(next);
            let mut columns = [_mm512_setzero_ps(); V];
            for v in 0..V {
                _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(v * LANES).cast());
                let at = b.add(v * LANES);
                columns[v] = if v + 1 < V { _mm512_loadu_ps(at) } else { _mm512_maskz_loadu_ps(out.last, at) };
            }
            // Written out, since the compiler would rather loop over rows and keep the sums in memory.
            macro_rules! rows {
                ($($r:literal)*) => {
                    $(if $r < R {
                        let x = if IN_ROWS { a[$r / 3].add($r % 3 * row).add(ahead) } else { a[0].add($r).add(ahead * a_step) };
                        let x = _mm512_set1_ps(*x);
                        for v in 0..V {
                            sums[$r][v] = _mm512_fmadd_ps(x, columns[v], sums[$r][v]);
                        }
                    })*
                };
            }
            rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13);
        };
        // Three rows from each pointer: with the distance of rows and twice it, every address is one of a load.
        let mut at_a: [*const f32; 5] = std::array::from_fn(|three| a.start.wrapping_add(3 * three * row));
        let mut at_b = b.start;
        // In rows the steps of one vector would be loaded together and kept in memory.
        let unroll = if IN_ROWS { 1 } else { 4 };
        for _ in 0..steps / unroll {
            for s in 0..unroll {
                step(&mut sums, &at_a, s, at_b.add(s * b.step));
            }
            at_a = at_a.map(|at| at.wrapping_add(unroll * a_step));
            at_b = at_b.wrapping_add(unroll * b.step);
        }
        for _ in 0..steps % unroll {
            step(&mut sums, &at_a, 0, at_b);
            at_a = at_a.map(|at| at.wrapping_add(a_step));
            at_b = at_b.wrapping_add(b.step);
        }
        write_tile!(sums, out, R, V);
    }
}

/// Writes a tile of `rows` x `columns` as columns: `out` exchanges the two.
///
/// # Safety
/// The rows of the result that are columns of the tile are writable.
#[target_feature(enable = "avx512f")]
unsafe fn write_swapped(tile: &Tile, rows: usize, columns: usize, out: Out) {
    let mask = lanes_below(rows);
    for first in (0..columns).step_by(LANES) {
        // SAFETY: the tile has fourteen rows of two vectors; the caller's promise.
        unsafe {
            let square = square(tile.0.as_ptr().cast::<f32>().add(first), NR, rows, __mmask16::MAX);
            for (column, sum) in square.into_iter().enumerate().take(columns - first) {
                let at = out.start.add((first + column) * out.stride);
                let before = if out.add { _mm512_maskz_loadu_ps(mask, at) } else { _mm512_setzero_ps() };
                _mm512_mask_storeu_ps(at, mask, _mm512_add_ps(sum, before));
            }
        }
    }
}
