//! Matrix products `C = A B` or `C += A B` over strided views.
//!
//! With AVX-512 and AVX2 the product is our own (`avx512.rs`, `avx2.rs`), elsewhere it is the `gemm` crate's. Where an [`Exec`] asks
//! for mixed precision and the machine multiplies 16-bit floats, operands are rounded to those (`half.rs`).
//!
//! Source of the blocked algorithm behind both: Goto and van de Geijn 2008, "Anatomy of
//! high-performance matrix multiplication", <https://doi.org/10.1145/1356052.1356053>.
#![expect(unsafe_code, reason = "register tiles need intrinsics and raw pointers; views are checked first")]

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
// Where it is not used, its model is tested.
#[cfg(any(test, target_arch = "x86_64"))]
pub(crate) mod half;

use crate::exec::{Exec, Isa};
use crate::lanes::TASK_ELEMENTS;
use crate::parallel::{SharedMut, for_each};
use std::ops::Range;

/// Fewest floating-point operations worth a task of their own.
const TASK_FLOPS: usize = 1 << 20;
/// Most tasks of one product: enough for balance, few enough that operands are not packed too often.
const MAX_TASKS: usize = 8;

/// Rows of a result that a task takes where what follows a product is not done block by block.
const AFTER_ROWS: usize = 32;

/// A matrix inside a slice: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
///
/// Invariant: every element is in bounds.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    data: &'a [f32],
    shape: Shape,
}

/// A mutable [`View`]. Invariant: rows do not overlap (`row_stride >= cols`) and `col_stride` is 1.
#[derive(Debug)]
pub struct ViewMut<'a> {
    data: SharedMut<'a, f32>,
    shape: Shape,
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl Shape {
    fn assert_fits(self, len: usize) {
        if self.rows > 0 && self.cols > 0 {
            let last = (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride;
            assert!(last < len, "{self:?} does not fit into {len} elements");
        }
    }
}

impl<'a> View<'a> {
    /// A row-major matrix that fills `data`.
    ///
    /// Panics: if `data` is not `rows * cols` long.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a {rows} x {cols} matrix");
        Self::strided(data, rows, cols, cols)
    }

    /// A row-major matrix whose rows start `row_stride` apart.
    ///
    /// Panics: if an element is out of bounds.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        let shape = Shape { rows, cols, row_stride, col_stride: 1 };
        shape.assert_fits(data.len());
        Self { data, shape }
    }

    /// Some of the rows.
    ///
    /// Panics: if there are not so many.
    pub(crate) fn some_rows(self, rows: Range<usize>) -> Self {
        assert!(rows.start < rows.end && rows.end <= self.shape.rows, "rows {rows:?} of {:?}", self.shape);
        let shape = Shape { rows: rows.len(), ..self.shape };
        Self { data: &self.data[rows.start * self.shape.row_stride..], shape }
    }

    /// Element `(row, col)`.
    ///
    /// Panics: if it is out of bounds.
    #[inline]
    pub fn at(self, row: usize, col: usize) -> f32 {
        self.data[row * self.shape.row_stride + col * self.shape.col_stride]
    }

    /// Rows.
    #[inline]
    pub fn rows(self) -> usize {
        self.shape.rows
    }

    /// Columns.
    #[inline]
    pub fn cols(self) -> usize {
        self.shape.cols
    }

    /// One row whose elements lie together.
    ///
    /// Panics: if it is out of bounds, or its elements do not lie together.
    #[inline(always)]
    pub fn row(self, row: usize) -> &'a [f32] {
        assert!(self.shape.col_stride == 1, "rows of a transposed matrix are not slices");
        &self.data[row * self.shape.row_stride..][..self.shape.cols]
    }

    /// The transposed matrix, without moving an element.
    #[must_use]
    pub fn t(self) -> Self {
        let Shape { rows, cols, row_stride, col_stride } = self.shape;
        Self {
            data: self.data,
            shape: Shape { rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride },
        }
    }
}

impl<'a> ViewMut<'a> {
    /// A row-major matrix that fills `data`.
    ///
    /// Panics: if `data` is not `rows * cols` long.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a {rows} x {cols} matrix");
        Self::strided(data, rows, cols, cols)
    }

    /// A row-major matrix whose rows start `row_stride` apart.
    ///
    /// Panics: if an element is out of bounds or rows overlap.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(rows < 2 || row_stride >= cols, "rows of {cols} overlap at stride {row_stride}");
        let shape = Shape { rows, cols, row_stride, col_stride: 1 };
        shape.assert_fits(data.len());
        Self { data: SharedMut::new(data), shape }
    }

    /// Columns.
    pub(crate) fn cols(&self) -> usize {
        self.shape.cols
    }

    /// A matrix inside what several tasks share, from element `start` on.
    ///
    /// Panics: as [`ViewMut::strided`].
    ///
    /// # Safety
    /// As long as it lives, nobody else may read or write its elements; those between its rows may be others'.
    pub(crate) unsafe fn shared(
        shared: &SharedMut<'a, f32>,
        start: usize,
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Self {
        assert!(rows < 2 || row_stride >= cols, "rows of {cols} overlap at stride {row_stride}");
        let shape = Shape { rows, cols, row_stride, col_stride: 1 };
        // SAFETY: the caller's promise.
        let data = unsafe { shared.from(start) };
        shape.assert_fits(data.len());
        Self { data, shape }
    }
}

/// What a product is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// `C = A B`; the old values are never read.
    Overwrite,
    /// `C += A B`.
    Add,
}

/// One of several products.
#[derive(Debug)]
pub struct Product<'a> {
    /// What it is added to.
    pub onto: Onto,
    /// What is added to each row of it besides, such as a layer's bias.
    pub row: Option<&'a [f32]>,
    /// Its factor.
    pub scale: f32,
    /// `(m, k)`.
    pub a: View<'a>,
    /// `(k, n)`.
    pub b: View<'a>,
    /// The result, `(m, n)`.
    pub c: ViewMut<'a>,
    /// What is done with each block of the result when it is finished.
    pub after: Option<After<'a>>,
}

/// What follows a product, block by block: by the thread that made the block, while its cache has it. Every element belongs to
/// one block; how the result is cut into blocks may depend on the number of threads.
#[derive(Clone, Copy)]
pub struct After<'a>(&'a (dyn Fn(Range<usize>, Range<usize>) + Sync));

impl<'a> After<'a> {
    /// `task(rows, columns)` for every block.
    pub fn new(task: &'a (dyn Fn(Range<usize>, Range<usize>) + Sync)) -> Self {
        Self(task)
    }

    fn block(self, rows: Range<usize>, cols: Range<usize>) {
        (self.0)(rows, cols);
    }
}

impl std::fmt::Debug for After<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("After")
    }
}

impl Product<'_> {
    fn assert_fits(&self) {
        let (a, b, c) = (self.a.shape, self.b.shape, self.c.shape);
        assert!(b.rows == a.cols && c.rows == a.rows && c.cols == b.cols, "{a:?} x {b:?} -> {c:?}");
        assert!(self.row.is_none_or(|row| row.len() == c.cols), "a row for {c:?}");
        assert!(self.row.is_none() || self.onto == Onto::Overwrite, "a row is added to a product alone");
    }
}

/// `C = scale * A B` or `C += scale * A B`.
///
/// Shapes: `a` is `(m, k)`, `b` is `(k, n)`, `c` is `(m, n)`.
/// Numbers: f32 sums in the order of the path's blocking, which depends on the shapes alone. In mixed precision on a machine with half
/// products, elements of `a` and `b` are rounded to their format first, to the nearest, ties to even; a denormal becomes zero, in
/// operands as in sums, an infinity or NaN stays one. Elsewhere mixed precision is f32, bit for bit.
///
/// - bf16: each is rounded by at most 2^-8 of itself, so that errors are at most some 2^-7 of the sum of `|a b|`. A number from 3.3962e38
///   on becomes infinite.
/// - binary16: each is rounded by at most 2^-11 of itself or 2^-28 of the largest in its row of `a` or column of `b` (in a block of up to
///   1024 of the shared dimension), and sums of up to 64 terms by 2^-11 at each. That bounds errors by a thirtieth of the sum of `|a b|`; on
///   random numbers they are a thousandth of the result (`half/f16.rs`). An infinity times what is too small beside the largest is NaN, as
///   an infinity times zero.
///
/// Law: the same bits for any number of threads.
///
/// Panics: if the shapes disagree.
pub fn matmul(exec: Exec, onto: Onto, scale: f32, a: View<'_>, b: View<'_>, c: ViewMut<'_>) {
    matmuls(exec, [Product { onto, row: None, scale, a, b, c, after: None }]);
}

/// Several products, where it can be in one parallel region: what a small layer's backward pass computes is short beside the
/// wait at the end of a region.
///
/// Numbers, Law: as [`matmul`].
/// Panics: as [`matmul`], and on a row of another length, or one for a product that is added to something.
pub fn matmuls<const K: usize>(exec: Exec, products: [Product<'_>; K]) {
    products.iter().for_each(Product::assert_fits);
    #[cfg(target_arch = "x86_64")]
    if let Some(format) = exec.half_products() {
        return half::matmuls(exec, format, products);
    }
    #[cfg(target_arch = "x86_64")]
    if exec.isa() == Isa::Avx512 && products.iter().all(|product| product.a.shape.cols > 0) {
        return avx512::matmuls(exec, products);
    }
    for Product { mut onto, row, scale, a, b, mut c, after } in products {
        let (rows, cols) = (c.shape.rows, c.shape.cols);
        if let Some(row) = row {
            fill_rows(exec, row, &mut c);
            onto = Onto::Add;
        }
        match exec.isa() {
            _ if c.shape.rows == 0 || c.shape.cols == 0 => (),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 if a.shape.cols > 0 => avx2::matmul(exec, onto, scale, a, b, c),
            Isa::Portable if a.shape.cols > 0 => portable(exec, onto, scale, a, b, c),
            _ => through_gemm(exec, onto, scale, a, b, c),
        }
        if let Some(after) = after {
            for_each(exec, rows.div_ceil(AFTER_ROWS), |index| {
                after.block(index * AFTER_ROWS..rows.min((index + 1) * AFTER_ROWS), 0..cols);
            });
        }
    }
}

/// Which of several things with `counts` tasks task `index` of all belongs to, and which of its own it is.
#[cfg(target_arch = "x86_64")]
fn task_of(counts: impl Iterator<Item = usize>, mut index: usize) -> (usize, usize) {
    for (number, count) in counts.enumerate() {
        if index < count {
            return (number, index);
        }
        index -= count;
    }
    unreachable!("a task of no product")
}

/// [`matmul`] by the `gemm` crate, in f32 whatever the precision: what our own products are held against.
///
/// Shapes, Panics: as [`matmul`]. Law: the same bits for any number of threads.
pub fn matmul_by_gemm(exec: Exec, onto: Onto, scale: f32, a: View<'_>, b: View<'_>, c: ViewMut<'_>) {
    let product = Product { onto, row: None, scale, a, b, c, after: None };
    product.assert_fits();
    if product.c.shape.rows > 0 && product.c.shape.cols > 0 {
        through_gemm(exec, onto, scale, a, b, product.c);
    }
}

/// Makes each row of `c` a copy of `row`.
fn fill_rows(exec: Exec, row: &[f32], c: &mut ViewMut<'_>) {
    let (Shape { rows, row_stride, .. }, block) = (c.shape, TASK_ELEMENTS.div_ceil(row.len().max(1)));
    let shared = &c.data;
    for_each(exec, rows.div_ceil(block), |index| {
        for i in index * block..rows.min((index + 1) * block) {
            // SAFETY: rows do not overlap, and each is one task's.
            unsafe { shared.slice(i * row_stride, row.len()) }.copy_from_slice(row);
        }
    });
}

/// The product by the `gemm` crate, whose own choice of instruction set follows the machine.
fn through_gemm(exec: Exec, onto: Onto, scale: f32, a: View<'_>, b: View<'_>, c: ViewMut<'_>) {
    let (m, k, n) = (a.shape.rows, a.shape.cols, b.shape.cols);
    let pieces = (2 * m * n * k / TASK_FLOPS).clamp(1, MAX_TASKS);
    let by_rows = m > n;
    let side = if by_rows { m } else { n };
    // A multiple of 48 keeps the pieces whole numbers of register tiles of every kernel.
    let step = side.div_ceil(pieces).next_multiple_of(48);
    let stride = c.shape.row_stride;
    let shared = c.data;
    for_each(exec, side.div_ceil(step), |piece| {
        let start = piece * step;
        let len = step.min(side - start);
        let (rows, cols) = if by_rows { (len, n) } else { (m, len) };
        let offset = if by_rows { start * stride } else { start };
        let a_offset = if by_rows { start * a.shape.row_stride } else { 0 };
        let b_offset = if by_rows { 0 } else { start * b.shape.col_stride };
        // SAFETY: the piece lies inside `c` and, although slices of column pieces interleave, `gemm`
        // writes only the `rows x cols` elements at `stride`, which no other piece touches. The bounds
        // of `a` and `b` were checked when their views were made.
        unsafe {
            let out = shared.as_mut_ptr().add(offset);
            gemm::gemm(
                rows,
                cols,
                k,
                out,
                1,
                stride as isize,
                onto == Onto::Add,
                a.data.as_ptr().add(if k == 0 { 0 } else { a_offset }),
                a.shape.col_stride as isize,
                a.shape.row_stride as isize,
                b.data.as_ptr().add(if k == 0 { 0 } else { b_offset }),
                b.shape.col_stride as isize,
                b.shape.row_stride as isize,
                1.0_f32,
                scale,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    });
}

/// The product in plain Rust: one row of `C` at a time, sixteen columns of sums at a time.
fn portable(exec: Exec, onto: Onto, scale: f32, a: View<'_>, b: View<'_>, c: ViewMut<'_>) {
    const TILE: usize = 16;
    let (m, k, n) = (a.shape.rows, a.shape.cols, b.shape.cols);
    let stride = c.shape.row_stride;
    let shared = c.data;
    for_each(exec, m, |i| {
        // SAFETY: rows do not overlap, and each is one task's.
        let out = unsafe { shared.slice(i * stride, n) };
        for (tile, out) in out.chunks_mut(TILE).enumerate() {
            let mut sums = [0.0_f32; TILE];
            for p in 0..k {
                let x = a.at(i, p);
                for (s, sum) in sums.iter_mut().enumerate().take(out.len()) {
                    *sum += x * b.at(p, tile * TILE + s);
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = scale * sum + if onto == Onto::Add { *out } else { 0.0 };
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::test_input;

    /// `C = scale * A B` in f64, straight from the definition.
    pub(super) fn definition(a: View<'_>, b: View<'_>, scale: f32) -> Vec<f64> {
        let (m, k, n) = (a.shape.rows, a.shape.cols, b.shape.cols);
        let mut c = vec![0.0; m * n];
        for (index, c) in c.iter_mut().enumerate() {
            let (i, j) = (index / n, index % n);
            *c = (0..k).map(|p| f64::from(a.at(i, p)) * f64::from(b.at(p, j))).sum::<f64>() * f64::from(scale);
        }
        c
    }

    /// Runs every layout on every instruction set and thread count against the reference.
    fn check(m: usize, k: usize, n: usize) {
        let (a, b, row) = (test_input(m * k, 1), test_input(k * n, 2), test_input(n, 3));
        for layout in 0..4 {
            let a = if layout & 1 == 0 { View::new(&a, m, k) } else { View::new(&a, k, m).t() };
            let b = if layout & 2 == 0 { View::new(&b, k, n) } else { View::new(&b, n, k).t() };
            let expected = definition(a, b, 0.5);
            for isa in Isa::available() {
                let mut bits: Option<Vec<u32>> = None;
                for threads in [1, 2, 3] {
                    for (onto, row) in [(Onto::Overwrite, None), (Onto::Add, None), (Onto::Overwrite, Some(&row[..]))] {
                        let start = if onto == Onto::Add { 0.25 } else { f32::NAN };
                        // One column of padding, which must stay as it is.
                        let mut c = vec![start; m * (n + 1)];
                        let out = ViewMut::strided(&mut c, m, n, n + 1);
                        let exec = Exec::new(threads).with_isa(isa);
                        matmuls(exec, [Product { onto, row, scale: 0.5, a, b, c: out, after: None }]);
                        for (index, expected) in expected.iter().enumerate() {
                            let found = f64::from(c[index / n * (n + 1) + index % n]);
                            let before = row.map_or(0.0, |row| f64::from(row[index % n]));
                            let before = before + if onto == Onto::Add { 0.25 } else { 0.0 };
                            let gap = (found - expected - before).abs();
                            let bound = 2e-6 * (1.0 + k as f64).sqrt();
                            assert!(gap <= bound, "{m}x{k}x{n} {layout} {isa:?} {onto:?}: {found} {expected}");
                        }
                        assert!((0..m).all(|i| c[i * (n + 1) + n].to_bits() == start.to_bits()), "padding written");
                        if onto == Onto::Add {
                            let found: Vec<u32> = c.iter().map(|x| x.to_bits()).collect();
                            assert_eq!(bits.get_or_insert_with(|| found.clone()), &found, "{threads} threads");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn products_equal_the_definition_at_awkward_sizes() {
        for m in [0, 1, 5, 6, 7, 97] {
            for k in [0, 1, 7, 8, 9, 33] {
                for n in [0, 1, 15, 16, 17, 50] {
                    check(m, k, n);
                }
            }
        }
    }

    #[test]
    fn products_equal_the_definition_beyond_every_block_size() {
        check(200, 300, 270);
        check(3, 600, 40);
        check(13, 20, 1600);
        // Operands whose rows are too far apart to be read where they are, in parts of the shared dimension.
        check(15, 520, 1100);
        // Rows that would fall into one set of the cache are copied.
        check(33, 1024, 70);
        check(1100, 520, 17);
    }

    #[test]
    fn products_equal_the_definition_in_register_tiles_of_any_height() {
        for m in 1..=15 {
            check(m, 9, 33);
        }
    }

    #[test]
    fn what_follows_a_product_finds_each_element_once_and_finished() {
        // The second on AVX-512 with rows and columns exchanged, the third in parts of the shared dimension.
        for (m, k, n, layout) in [(200, 70, 300, 2), (130, 300, 270, 1), (60, 1100, 90, 0), (5, 0, 7, 0)] {
            let (a, b) = (test_input(m * k, 1), test_input(k * n, 2));
            let a = if layout & 1 == 0 { View::new(&a, m, k) } else { View::new(&a, k, m).t() };
            let b = if layout & 2 == 0 { View::new(&b, k, n) } else { View::new(&b, n, k).t() };
            let sets = Isa::available().into_iter().map(|isa| Exec::new(1).with_isa(isa));
            for exec in sets.chain([Exec::new(1).with_precision(crate::exec::Precision::Mixed)]) {
                for threads in [1, 2, 3] {
                    check_after(exec.with_threads(threads), a, b);
                }
            }
        }
    }

    fn check_after(exec: Exec, a: View<'_>, b: View<'_>) {
        let (m, n) = (a.rows(), b.shape.cols);
        let (mut c, mut seen, mut found) = (vec![f32::NAN; m * n], vec![0_u8; m * n], vec![0_u32; m * n]);
        let (shared, counts, bits) = (SharedMut::new(&mut c), SharedMut::new(&mut seen), SharedMut::new(&mut found));
        let look = |rows: Range<usize>, cols: Range<usize>| {
            for at in rows.flat_map(|i| cols.clone().map(move |j| i * n + j)) {
                // SAFETY: what is tested: an element is in one block, which is finished.
                unsafe {
                    counts.slice(at, 1)[0] += 1;
                    bits.slice(at, 1)[0] = shared.slice(at, 1)[0].to_bits();
                }
            }
        };
        // SAFETY: the product and what follows alone touch it.
        let out = unsafe { ViewMut::shared(&shared, 0, m, n, n) };
        let after = Some(After::new(&look));
        matmuls(exec, [Product { onto: Onto::Overwrite, row: None, scale: 0.5, a, b, c: out, after }]);
        assert!(seen.iter().all(|&count| count == 1), "{exec:?}");
        assert!(found.iter().zip(&c).all(|(bits, c)| *bits == c.to_bits()), "{exec:?}");
    }

    #[test]
    fn a_view_that_does_not_fit_is_refused() {
        let data = [0.0; 11];
        assert!(std::panic::catch_unwind(|| View::strided(&data, 3, 4, 4)).is_err());
        assert!(std::panic::catch_unwind(|| View::strided(&data, 3, 3, 4)).is_ok());
    }
}
