//! Products of small operands on the calling thread, without plan, tasks or copies of what the tile can read where it lies: a head of
//! attention is many products of a microsecond or less.

use super::pack::pack_b;
use super::{LANES, Line, MR, NR, Operand, Out, lanes_below, multiply, room};
use crate::exec::{Exec, Isa};
use crate::matmul::{Onto, View, ViewMut, task_of};
use crate::parallel::{SharedMut, for_each};

/// Floats that a task copies, about.
const COPIED: usize = 1 << 13;

/// A copy of an operand `(k, n)` in the order the tile reads it.
#[derive(Default)]
pub(crate) struct Columns {
    strips: Vec<Line>,
    steps: usize,
    count: usize,
}

impl Columns {
    /// Makes it that of `b`.
    ///
    /// Panics: if `exec` is not of AVX-512.
    pub(crate) fn copy(&mut self, exec: Exec, b: View<'_>) {
        assert!(exec.isa() == Isa::Avx512, "a copy for another instruction set");
        (self.steps, self.count) = (b.shape.rows, b.shape.cols);
        let strips = room(&mut self.strips, self.steps * self.count.next_multiple_of(NR));
        // SAFETY: `Exec` holds only instruction sets of this machine; there is room for whole strips.
        unsafe { pack_b(b, 0, self.steps, 0..self.count, strips) };
    }

    /// Makes several those of `bs`, in one region.
    ///
    /// Panics: as [`Columns::copy`].
    pub(crate) fn copy_all<const K: usize>(exec: Exec, all: &mut [Self; K], bs: [View<'_>; K]) {
        assert!(exec.isa() == Isa::Avx512, "copies for another instruction set");
        let mut at = 0;
        let parts = all.each_mut().map(|columns| {
            let b = bs[at];
            at += 1;
            (columns.steps, columns.count) = (b.shape.rows, b.shape.cols);
            let len = columns.steps * columns.count.next_multiple_of(NR);
            room(&mut columns.strips, len);
            // Whole strips of a task, and tasks.
            let cols = (COPIED / (columns.steps * NR).max(1)).max(1) * NR;
            (b, SharedMut::new(&mut columns.strips[..]), cols, columns.count.div_ceil(cols))
        });
        for_each(exec, parts.iter().map(|part| part.3).sum(), |task| {
            let (number, task) = task_of(parts.iter().map(|part| part.3), task);
            let (b, strips, cols, _) = &parts[number];
            let (steps, first) = (b.shape.rows, task * cols);
            let to = strips.as_mut_ptr().cast::<f32>().wrapping_add(first * steps);
            // SAFETY: as in `copy`; the strips of a task are its own.
            unsafe { pack_b(*b, 0, steps, first..b.shape.cols.min(first + cols), to) };
        });
    }
}

/// `C = scale * A B + row` with the first columns of `b`, as many as `c` has, and `row` added to each row, if there is one.
///
/// Numbers: sums in the order of the shared dimension. Panics: if the shapes disagree or `exec` is not of AVX-512.
pub(crate) fn multiply_copy(exec: Exec, scale: f32, a: View<'_>, b: &Columns, row: Option<&[f32]>, c: ViewMut<'_>) {
    assert!(row.is_none_or(|row| row.len() == c.shape.cols), "a row for {} columns", c.shape.cols);
    assert!(a.shape.cols == b.steps && c.shape.cols <= b.count, "{:?} x {} x {}", a.shape, b.steps, b.count);
    let strips: *const f32 = b.strips.as_ptr().cast();
    let last = c.shape.cols.saturating_sub(1) / NR * NR;
    let operand = |column: usize| {
        let ahead = if column < last { NR * b.steps } else { 0 };
        Operand { start: strips.wrapping_add(column * b.steps), step: NR, row: 1, ahead }
    };
    multiply_all(exec, Onto::Overwrite, scale, a, operand, row, c);
}

/// `C = scale * A B` or `C += scale * A B` with operands where they are: elements of a row of `b` lie together, and those of a row or of a
/// column of `a`.
///
/// Numbers: sums in the order of the shared dimension. Panics: as [`multiply_copy`], or if elements lie otherwise.
pub(crate) fn multiply_in_place(exec: Exec, onto: Onto, scale: f32, a: View<'_>, b: View<'_>, c: ViewMut<'_>) {
    assert!(a.shape.cols == b.shape.rows && b.shape.cols == c.shape.cols, "{:?} x {:?}", a.shape, b.shape);
    assert!(b.shape.col_stride == 1, "rows of {:?}", b.shape);
    let start = b.data.as_ptr();
    let operand =
        |column: usize| Operand { start: start.wrapping_add(column), step: b.shape.row_stride, row: 1, ahead: 0 };
    multiply_all(exec, onto, scale, a, operand, None, c);
}

/// All tiles of a product; `b` says where those from a column on find their operand, which holds as many steps as `a` has columns.
fn multiply_all(
    exec: Exec,
    onto: Onto,
    scale: f32,
    a: View<'_>,
    b: impl Fn(usize) -> Operand,
    row: Option<&[f32]>,
    c: ViewMut<'_>,
) {
    let (rows, cols, stride, steps) = (c.shape.rows, c.shape.cols, c.shape.row_stride, a.shape.cols);
    assert!(exec.isa() == Isa::Avx512 && rows == a.shape.rows, "{rows} rows of {:?}", a.shape);
    let in_columns = a.shape.row_stride == 1;
    assert!(in_columns || a.shape.col_stride == 1, "{:?} lies in neither rows nor columns", a.shape);
    let height = rows.div_ceil(rows.div_ceil(MR).max(1)).max(1);
    for i in (0..rows).step_by(height) {
        let start = a.data.as_ptr().wrapping_add(i * a.shape.row_stride);
        let a =
            Operand { start, step: a.shape.col_stride, row: if in_columns { 1 } else { a.shape.row_stride }, ahead: 0 };
        for j in (0..cols).step_by(NR) {
            let width = NR.min(cols - j);
            let out = Out {
                start: c.data.as_mut_ptr().wrapping_add(i * stride + j),
                stride,
                last: lanes_below(width - (width - 1) / LANES * LANES),
                add: onto == Onto::Add,
                scale,
                row: row.map(|row| row.as_ptr().wrapping_add(j)),
            };
            // SAFETY: the machine has AVX-512, by the invariant of `Exec`; the views bound operands and result.
            unsafe { multiply(height.min(rows - i), width.div_ceil(LANES), steps, a, b(j), out) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::test_input;

    #[test]
    fn it_is_the_product_of_matmul() {
        if !Isa::Avx512.is_supported() {
            return;
        }
        let exec = Exec::new(1).with_isa(Isa::Avx512);
        let mut columns = Columns::default();
        for (m, k, n) in [(1, 1, 1), (13, 32, 32), (14, 33, 17), (15, 64, 48), (40, 5, 65), (2, 0, 3)] {
            let (a, b) = (test_input(m * k, 1), test_input(k * n, 2));
            let a_turned: Vec<f32> = (0..k * m).map(|i| a[i % m * k + i / m]).collect();
            let b_turned: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
            let mut want = vec![0.25; m * n];
            let (a_view, b_view) = (View::new(&a, m, k), View::new(&b, k, n));
            crate::matmul::matmul(exec, Onto::Add, 0.5, a_view, b_view, ViewMut::new(&mut want, m, n));
            for a in [a_view, View::new(&a_turned, k, m).t()] {
                let mut found = vec![0.25; m * n];
                multiply_in_place(exec, Onto::Add, 0.5, a, b_view, ViewMut::new(&mut found, m, n));
                assert!(found == want, "{m} {k} {n} in place");
                for b in [b_view, View::new(&b_turned, n, k).t()] {
                    columns.copy(exec, b);
                    for some in [n, n.div_ceil(2)] {
                        let mut found = vec![f32::NAN; m * some];
                        multiply_copy(exec, 0.5, a, &columns, None, ViewMut::new(&mut found, m, some));
                        let same = |(i, &x): (usize, &f32)| x + 0.25 == want[i / some * n + i % some];
                        assert!(found.iter().enumerate().all(same), "{m} {k} {n}, {some} columns of a copy");
                    }
                }
            }
        }
    }
}
