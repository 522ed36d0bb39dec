//! Tensors whose elements do not lie in the order that is asked for.

use std::ops::Range;
use std::sync::Arc;

/// One step from bytes as they lie to the order that is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Parts of the bytes one after the other.
    Parts(Arc<[Range<usize>]>),
    /// Elements of `width` bytes, picked as PyTorch counts strides: into row-major order of `shape`.
    Strided { shape: Arc<[usize]>, strides: Arc<[usize]>, width: usize },
    /// Rows of equal size in another order: which row stands at each place.
    Rows(Arc<[usize]>),
}

impl Step {
    /// Rows become columns, of a matrix that has `rows` by `columns` elements of `width` bytes.
    pub(crate) fn transpose(rows: usize, columns: usize, width: usize) -> Self {
        Self::Strided { shape: [columns, rows].into(), strides: [1, columns].into(), width }
    }

    /// The bytes after this step.
    ///
    /// Panics: if an element lies outside `stored` or is no number of 1, 2, 4 or 8 bytes; whoever makes a step has checked
    /// that.
    pub(crate) fn apply(&self, stored: &[u8]) -> Vec<u8> {
        match self {
            Self::Parts(parts) => parts.iter().map(|part| &stored[part.clone()]).collect::<Vec<_>>().concat(),
            Self::Strided { shape, strides, width } => match width {
                8 => strided::<8>(stored, shape, strides),
                4 => strided::<4>(stored, shape, strides),
                2 => strided::<2>(stored, shape, strides),
                1 => strided::<1>(stored, shape, strides),
                width => panic!("elements of {width} bytes"),
            },
            Self::Rows(rows) => permute_rows(stored, rows),
        }
    }
}

fn strided<const N: usize>(stored: &[u8], shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let (stored, _) = stored.as_chunks::<N>();
    let elements = shape.iter().product();
    let mut gathered = Vec::with_capacity(elements);
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    for _ in 0..elements {
        gathered.push(stored[at]);
        // Counts up as an odometer does: the innermost dimension first.
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= index[axis] * strides[axis];
            index[axis] = 0;
        }
    }
    gathered.into_flattened()
}

/// `rows.len()` rows of equal size in another order: row `i` of the result is row `rows[i]` of `stored`.
///
/// Rows of quantized blocks may be moved as well, since a block never crosses a row.
///
/// Panics: if the bytes are not that many rows, or a row is not among them.
pub fn permute_rows(stored: &[u8], rows: &[usize]) -> Vec<u8> {
    let count = rows.len().max(1);
    assert!(stored.len().is_multiple_of(count), "{} bytes in {count} rows", stored.len());
    let width = stored.len() / count;
    rows.iter().map(|&row| &stored[row * width..(row + 1) * width]).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transposed_matrix_is_gathered_in_row_major_order() {
        // [[0, 1, 2], [3, 4, 5]].
        assert_eq!(Step::transpose(2, 3, 1).apply(&[0, 1, 2, 3, 4, 5]), [0, 3, 1, 4, 2, 5]);
        assert_eq!(Step::transpose(1, 2, 2).apply(&[0, 1, 2, 3]), [0, 1, 2, 3]);
    }

    #[test]
    fn strides_pick_elements_of_a_larger_whole() {
        // Every second of every second row of a (3, 4) matrix.
        let step = Step::Strided { shape: [2, 2].into(), strides: [8, 2].into(), width: 1 };
        assert_eq!(step.apply(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]), [0, 2, 8, 10]);
        let scalar = Step::Strided { shape: [].into(), strides: [].into(), width: 2 };
        assert_eq!(scalar.apply(&[7, 8, 9, 9]), [7, 8]);
    }

    #[test]
    fn rows_and_parts_move_as_a_whole() {
        assert_eq!(permute_rows(&[0, 1, 10, 11, 20, 21], &[2, 0, 1]), [20, 21, 0, 1, 10, 11]);
        assert!(permute_rows(&[], &[]).is_empty());
        assert_eq!(Step::Parts([4..6, 0..1].into()).apply(&[0, 1, 2, 3, 4, 5]), [4, 5, 0]);
    }
}
