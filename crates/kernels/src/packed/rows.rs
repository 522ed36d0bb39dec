//! What one task of a product computes, and where its results go.
#![expect(unsafe_code, reason = "tasks write columns of the result, which are no slices")]

use super::format::Format;
use super::matrix::PackedMatrix;
use crate::parallel::SharedMut;
use std::ops::Range;

/// Bytes of weights that one task reads at most: rows behind each other are fetched ahead, which is lost where a task ends.
const TASK_BYTES: usize = 128 << 10;
/// And at least, where there are threads enough: some microseconds, long beside the cost of taking a task.
const LEAST_TASK_BYTES: usize = 32 << 10;
/// Rows of activations from which on a task reads fewer bytes, since each is used more often.
const MANY_USES: usize = 8;
/// Rows of a task are a multiple of this: what the widest path takes at a time.
pub(super) const ROW_GROUP: usize = 16;

/// Most rows of activations of one task: as integers they stay in the second-level cache while tasks go over the weight.
const X_BLOCK: usize = 96;

/// A weight as tasks see it.
///
/// Invariant: `bytes` are those of a `rows x cols` matrix, and there is a column.
#[derive(Clone, Copy)]
pub(super) struct Weight<'a> {
    pub(super) format: Format,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) bytes: &'a [u8],
}

impl<'a> Weight<'a> {
    pub(super) fn of(matrix: &'a PackedMatrix) -> Self {
        Self { format: matrix.format(), rows: matrix.rows(), cols: matrix.cols(), bytes: matrix.bytes() }
    }

    /// Plain floats, `rows` of them in each column.
    ///
    /// Panics: if there is no column or a row is not whole.
    pub(super) fn of_floats(weight: &'a [f32], rows: usize) -> Self {
        assert!(rows > 0 && !weight.is_empty() && weight.len().is_multiple_of(rows), "{} in {rows} rows", weight.len());
        // SAFETY: every byte of a float is a valid u8, and the slice is exactly the floats' bytes.
        let bytes = unsafe { std::slice::from_raw_parts(weight.as_ptr().cast(), size_of_val(weight)) };
        Self { format: Format::F32, rows, cols: weight.len() / rows, bytes }
    }

    pub(super) fn row_bytes(self) -> usize {
        self.cols / self.format.block_len() * self.format.block_bytes()
    }
}

/// A product that is split into tasks: by rows of activations where there are many, and by rows of the weight.
pub(super) struct Tasks<'a> {
    weight: Weight<'a>,
    bias: Option<&'a [f32]>,
    n: usize,
    y: SharedMut<'a, f32>,
    /// Rows of activations and of the weight in a task.
    task_x_rows: usize,
    task_rows: usize,
}

impl<'a> Tasks<'a> {
    /// A result does not depend on how rows are split, so they are split for `threads`.
    ///
    /// Panics: if `y` is not `n` rows of results.
    pub(super) fn new(threads: usize, weight: Weight<'a>, bias: Option<&'a [f32]>, n: usize, y: &'a mut [f32]) -> Self {
        assert_eq!(y.len(), n * weight.rows, "{n} rows of {} results", weight.rows);
        let x_blocks = n.div_ceil(X_BLOCK).max(1);
        let task_x_rows = n.div_ceil(x_blocks).max(1);
        let bytes =
            (weight.bytes.len() / threads).clamp(LEAST_TASK_BYTES, TASK_BYTES) / (task_x_rows / MANY_USES).max(1);
        let task_rows = (bytes / weight.row_bytes()).next_multiple_of(ROW_GROUP).max(ROW_GROUP);
        Self { weight, bias, n, y: SharedMut::new(y), task_x_rows, task_rows }
    }

    /// How many tasks there are.
    pub(super) fn count(&self) -> usize {
        self.n.div_ceil(self.task_x_rows) * self.weight.rows.div_ceil(self.task_rows)
    }

    /// What task `index` computes. Neighbours share rows of activations.
    ///
    /// # Safety
    /// No two live values of one index.
    pub(super) unsafe fn rows(&self, index: usize) -> Rows<'_> {
        let row_tasks = self.weight.rows.div_ceil(self.task_rows);
        let (x_start, start) = (index / row_tasks * self.task_x_rows, index % row_tasks * self.task_rows);
        let x_range = x_start..self.n.min(x_start + self.task_x_rows);
        let range = start..self.weight.rows.min(start + self.task_rows);
        Rows { weight: self.weight, bias: self.bias, n: self.n, x_range, range, y: &self.y }
    }
}

/// The part of a product that one task computes: rows `range` of the weight for rows `x_range` of the activations.
///
/// Invariant: both ranges are in bounds, and no other live value has some of these rows of the same product.
pub(super) struct Rows<'a> {
    pub(super) weight: Weight<'a>,
    pub(super) bias: Option<&'a [f32]>,
    /// Rows of activations in all.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "paths for one row are x86's"))]
    pub(super) n: usize,
    pub(super) x_range: Range<usize>,
    pub(super) range: Range<usize>,
    y: &'a SharedMut<'a, f32>,
}

impl Rows<'_> {
    /// Stores `y` and the bias of rows `row..` as results of row `i` of the activations.
    #[inline(always)]
    pub(super) fn write(&self, i: usize, row: usize, y: &[f32]) {
        let results = self.results(i, row, y.len());
        match self.bias {
            None => results.copy_from_slice(y),
            Some(bias) => results.iter_mut().zip(y).zip(&bias[row..]).for_each(|((out, y), bias)| *out = y + bias),
        }
    }

    /// Leaves sums in the place of the results, without the bias.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn keep(&self, i: usize, row: usize, sums: &[f32]) {
        self.results(i, row, sums.len()).copy_from_slice(sums);
    }

    /// The sums that [`Rows::keep`] left.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn kept(&self, i: usize, row: usize, sums: &mut [f32]) {
        sums.copy_from_slice(self.results(i, row, sums.len()));
    }

    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "each call ends before the next of the same task begins")]
    fn results(&self, i: usize, row: usize, len: usize) -> &mut [f32] {
        assert!(self.x_range.contains(&i) && row >= self.range.start && row + len <= self.range.end);
        // SAFETY: by the invariant, only this task has the rows, and no caller above keeps the slice.
        unsafe { self.y.slice(i * self.weight.rows + row, len) }
    }
}
